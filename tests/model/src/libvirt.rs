//! What libvirt does with a migration, its bad manners included, and what a loss of power does to a host.

use evenkeel_types::{CallResult, Presence};

use crate::stage::{Mark, Stage};
use crate::world::{Call, Job, No, Phase, World, at};

/// A step of libvirt's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Doing {
    /// It begins what it was called for, or finds that it cannot.
    Begins,
    /// The copy ends with an error, the guest runs on.
    CopyFails,
    /// The same, and the target's half stays for a while.
    CopyFailsHalfStays,
    /// The source is paused.
    HandsOver,
    /// The target runs.
    Completes,
    /// The target runs, and the call reports an error; the source's definition stays behind.
    CompletesWithError,
    /// The source runs again.
    RollsBack,
    /// The target runs, the source is left paused, the call reports an error.
    LeavesSourcePaused,
    /// The source is left paused, the target's half is gone, the call reports an error.
    LosesTarget,
    /// Both run, the call reports an error.
    Doubles,
    /// The call breaks off, the job goes on.
    CallBreaks,
}

impl Doing {
    /// Every step.
    pub const ALL: [Self; 11] = [
        Self::Begins,
        Self::CopyFails,
        Self::CopyFailsHalfStays,
        Self::HandsOver,
        Self::Completes,
        Self::CompletesWithError,
        Self::RollsBack,
        Self::LeavesSourcePaused,
        Self::LosesTarget,
        Self::Doubles,
        Self::CallBreaks,
    ];

    /// Whether it can be done to a job now.
    #[must_use]
    pub fn can(self, world: &World, job: Job) -> bool {
        let reachable = world.hosts[at(job.target)].up;
        let left = world.left;
        match (self, job.phase) {
            (Self::Begins, phase) => phase == Phase::Pending,
            (Self::CopyFails, phase) => phase == Phase::Copying,
            (Self::CopyFailsHalfStays, phase) => {
                phase == Phase::Copying && reachable && left.hand_over > 0
            }
            (Self::HandsOver, phase) => phase == Phase::Copying && reachable,
            (Self::Completes, phase) => phase == Phase::HandingOver && reachable,
            // With the target's power gone this is all that is left.
            (Self::RollsBack, phase) => {
                phase == Phase::HandingOver && (!reachable || left.hand_over > 0)
            }
            (Self::CompletesWithError | Self::LeavesSourcePaused | Self::LosesTarget, phase) => {
                phase == Phase::HandingOver && reachable && left.hand_over > 0
            }
            (Self::Doubles, phase) => phase == Phase::HandingOver && reachable && left.doubled > 0,
            (Self::CallBreaks, phase) => phase != Phase::Pending && job.attached && left.call > 0,
        }
    }
}

impl Stage {
    /// libvirt does something about the migration of a guest away from a host.
    pub fn libvirt(&self, world: &mut World, host: No, guest: No, doing: Doing) {
        let Some(job) = world.hosts[at(host)].jobs[at(guest)] else {
            return;
        };
        match doing {
            Doing::Begins => self.begins(world, host, guest, job),
            Doing::HandsOver => {
                set(world, host, guest, Presence::PausedByMigration);
                go_on(
                    world,
                    host,
                    guest,
                    Job {
                        phase: Phase::HandingOver,
                        ..job
                    },
                );
            }
            Doing::CallBreaks => {
                world.left.call -= 1;
                come_back(world, host, guest, job, CallResult::Error);
                go_on(
                    world,
                    host,
                    guest,
                    Job {
                        attached: false,
                        ..job
                    },
                );
            }
            Doing::CopyFails
            | Doing::CopyFailsHalfStays
            | Doing::Completes
            | Doing::CompletesWithError
            | Doing::RollsBack
            | Doing::LeavesSourcePaused
            | Doing::LosesTarget
            | Doing::Doubles => self.ends(world, (host, guest), job, doing),
        }
    }

    fn begins(&self, world: &mut World, host: No, guest: No, job: Job) {
        let there = world.hosts[at(job.target)];
        let free = matches!(
            there.guests[at(guest)],
            Presence::Absent | Presence::ShutOff
        );
        if !there.up || !free || world.hosts[at(host)].guests[at(guest)] != Presence::Running {
            world.hosts[at(host)].jobs[at(guest)] = None;
            return come_back(world, host, guest, job, CallResult::Error);
        }
        set(world, job.target, guest, Presence::PausedByMigration);
        go_on(
            world,
            host,
            guest,
            Job {
                phase: Phase::Copying,
                ..job
            },
        );
    }

    fn ends(&self, world: &mut World, (host, guest): (No, No), job: Job, doing: Doing) {
        use Presence::{Absent, PausedByMigration, Running, ShutOff};
        let (here, there, result) = match doing {
            Doing::Completes => (Absent, Running, CallResult::Ok),
            Doing::CompletesWithError => (ShutOff, Running, CallResult::Error),
            Doing::LeavesSourcePaused => (PausedByMigration, Running, CallResult::Error),
            Doing::Doubles => (Running, Running, CallResult::Error),
            Doing::LosesTarget => (PausedByMigration, Absent, CallResult::Error),
            Doing::CopyFailsHalfStays => (Running, PausedByMigration, CallResult::Error),
            Doing::CopyFails
            | Doing::RollsBack
            | Doing::Begins
            | Doing::HandsOver
            | Doing::CallBreaks => (Running, Absent, CallResult::Error),
        };
        match doing {
            Doing::CompletesWithError => self.mark(Mark::MovedWithError),
            Doing::LeavesSourcePaused => self.mark(Mark::SourceLeftPaused),
            Doing::Doubles => {
                world.left.doubled -= 1;
                world.seen.doubled |= 1 << guest;
            }
            Doing::CopyFails
            | Doing::CopyFailsHalfStays
            | Doing::Completes
            | Doing::RollsBack
            | Doing::LosesTarget
            | Doing::Begins
            | Doing::HandsOver
            | Doing::CallBreaks => {}
        }
        let costs = !matches!(doing, Doing::CopyFails | Doing::Completes | Doing::Doubles);
        let target_is_up = world.hosts[at(job.target)].up;
        if costs && target_is_up {
            world.left.hand_over -= 1;
        }
        set(world, host, guest, here);
        // What a host without power has left was settled when it lost it.
        if target_is_up {
            set(world, job.target, guest, there);
        }
        if there == Running {
            world.living[at(guest)] = Some(job.target);
        }
        world.hosts[at(host)].jobs[at(guest)] = None;
        come_back(world, host, guest, job, result);
    }

    /// libvirt removes a half that nobody sends to any more.
    pub fn half_goes(world: &mut World, host: No, guest: No) {
        set(world, host, guest, Presence::Absent);
    }

    /// Whether a host has such a half.
    #[must_use]
    pub fn has_half(world: &World, host: No, guest: No) -> bool {
        let incoming = world
            .hosts
            .iter()
            .any(|h| h.jobs[at(guest)].is_some_and(|j| j.target == host));
        let here = world.hosts[at(host)];
        // A half of an earlier source stays: only an operator may touch that.
        let as_target = world.seen.halves & (1 << (host * 2 + guest)) != 0;
        here.up
            && here.guests[at(guest)] == Presence::PausedByMigration
            && here.jobs[at(guest)].is_none()
            && world.living[at(guest)] != Some(host)
            && !incoming
            && as_target
    }

    /// A host loses power; `over`: a hand-over from it that was under way still reaches its target.
    pub fn host_dies(world: &mut World, host: No, over: bool) {
        Self::agent_dies(world, host);
        world.hosts[at(host)].up = false;
        for guest in 0..No::try_from(world.living.len()).unwrap_or(0) {
            let incoming = world
                .hosts
                .iter()
                .any(|h| h.jobs[at(guest)].is_some_and(|j| j.target == host));
            if world.living[at(guest)] == Some(host) {
                world.living[at(guest)] = None;
            }
            if let Some(job) = world.hosts[at(host)].jobs[at(guest)].take() {
                let arrives =
                    over && job.phase == Phase::HandingOver && world.hosts[at(job.target)].up;
                if arrives {
                    world.living[at(guest)] = Some(job.target);
                    set(world, job.target, guest, Presence::Running);
                } else if job.phase != Phase::Pending && world.hosts[at(job.target)].up {
                    set(world, job.target, guest, Presence::Absent);
                }
            }
            let after = match world.hosts[at(host)].guests[at(guest)] {
                Presence::PausedByMigration if incoming => Presence::Absent,
                Presence::Absent => Presence::Absent,
                Presence::ShutOff
                | Presence::Running
                | Presence::Paused
                | Presence::PausedByMigration => Presence::ShutOff,
            };
            set(world, host, guest, after);
        }
    }

    /// It has power again; its agent starts with it.
    pub fn host_returns(world: &mut World, host: No) {
        world.hosts[at(host)].up = true;
        Self::agent_starts(world, host);
    }

    /// An operator destroys by hand what is not the guest.
    pub fn destroys_by_hand(world: &mut World, host: No, guest: No) {
        set(world, host, guest, Presence::ShutOff);
        world.seen.doubled &= !(1 << guest);
    }
}

fn set(world: &mut World, host: No, guest: No, presence: Presence) {
    let bit = 1 << (host * 2 + guest);
    // A half that comes in is told from one that was left behind.
    let was = world.hosts[at(host)].guests[at(guest)];
    let comes = presence == Presence::PausedByMigration
        && (world.seen.halves & bit != 0 || matches!(was, Presence::Absent | Presence::ShutOff));
    world.seen.halves = if comes {
        world.seen.halves | bit
    } else {
        world.seen.halves & !bit
    };
    world.hosts[at(host)].guests[at(guest)] = presence;
}

fn go_on(world: &mut World, host: No, guest: No, job: Job) {
    world.hosts[at(host)].jobs[at(guest)] = Some(job);
}

fn come_back(world: &mut World, host: No, guest: No, job: Job, result: CallResult) {
    if let (true, Some(task)) = (job.attached, world.task_mut(host, guest))
        && task.order == job.order
        && task.call == Call::Out
    {
        task.call = Call::Back(result);
    }
}
