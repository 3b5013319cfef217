//! Scripted copies: their rounds in real time, and the state in which they leave both hosts.

use std::sync::PoisonError;
use std::time::Duration;

use evenkeel_types::{GuestId, Presence};

use super::{
    ERR_INTERNAL, ERR_OPERATION_ABORTED, ERR_OPERATION_INVALID, ERR_SYSTEM, Ending, FakeHypervisor,
    Script, failed, set_presence,
};
use crate::hypervisor::{HypervisorError, HypervisorEvent};

/// What made a scripted copy stop.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CopyEnd {
    Copied,
    Aborted,
    SourceDown,
}

impl FakeHypervisor {
    /// Takes the job away.
    pub(super) fn finish(&self, id: &GuestId) {
        self.world.on(&self.host, |state| {
            if let Some(guest) = state.guests.get_mut(id) {
                guest.job = None;
                guest.counters.migrating_out = false;
            }
        });
    }

    /// Runs the scripted iterations in real time.
    fn copy(&self, id: &GuestId, script: &Script) -> CopyEnd {
        let endless = script.ending == Ending::NeverConverges;
        let mut iteration = 0;
        while endless || iteration < script.iterations {
            iteration = u32::saturating_add(iteration, 1);
            let hosts = self.world.lock();
            let (mut hosts, _) = self
                .world
                .shared
                .changed
                .wait_timeout_while(hosts, script.iteration_time, |hosts| {
                    hosts.get(&self.host).is_some_and(|state| {
                        let aborted = state
                            .guests
                            .get(id)
                            .and_then(|g| g.job.as_ref())
                            .is_none_or(|job| job.abort || job.post_copy);
                        state.up && !aborted
                    })
                })
                .unwrap_or_else(PoisonError::into_inner);
            let Some(state) = hosts.get_mut(&self.host).filter(|state| state.up) else {
                return CopyEnd::SourceDown;
            };
            match state.guests.get_mut(id).and_then(|g| g.job.as_mut()) {
                Some(job) if job.post_copy || script.suffices(&job.pauses) => {
                    return CopyEnd::Copied;
                }
                Some(job) if !job.abort => job.progress = script.progress(iteration),
                _ => return CopyEnd::Aborted,
            }
        }
        CopyEnd::Copied
    }

    /// Copies and ends as scripted.
    pub(super) fn carry_on(
        &self,
        id: &GuestId,
        target: &str,
        script: &Script,
    ) -> Result<(), HypervisorError> {
        let end = self.copy(id, script);
        if end != CopyEnd::Copied {
            self.finish(id);
            let _scripted = self.settle(id, target, Ending::Fails);
            return Err(match end {
                CopyEnd::SourceDown => failed(ERR_SYSTEM, "end of file while reading data"),
                CopyEnd::Aborted | CopyEnd::Copied => failed(
                    ERR_OPERATION_ABORTED,
                    "operation aborted: job 'migration out' canceled by client",
                ),
            });
        }
        self.world
            .say(&self.host, HypervisorEvent::SwitchoverBegan(id.clone()));
        let last = self.guest(id, |g| g.job.as_ref().map(|job| job.progress));
        self.finish(id);
        self.settle(id, target, script.ending)?;
        let mut last = last.ok().flatten().unwrap_or_default();
        last.downtime = Some(Duration::from_millis(10));
        self.world
            .say(&self.host, HypervisorEvent::JobCompleted(id.clone(), last));
        Ok(())
    }

    /// Brings both hosts into the state that the ending names.
    fn settle(&self, id: &GuestId, target: &str, ending: Ending) -> Result<(), HypervisorError> {
        use Presence::{Absent, PausedByMigration, Running, ShutOff};
        let (at_source, at_target, error) = match ending {
            // Of what never converges only what was allowed more gets here.
            Ending::Moves | Ending::NeverConverges => (Absent, Running, None),
            Ending::Fails => (Running, Absent, Some(ERR_INTERNAL)),
            Ending::FailsThoughMoved => (ShutOff, Running, Some(ERR_SYSTEM)),
            Ending::LeavesPausedSource => (PausedByMigration, Running, Some(ERR_SYSTEM)),
            Ending::LeavesPausedTarget => (Running, PausedByMigration, Some(ERR_INTERNAL)),
            Ending::RunsTwice => (Running, Running, Some(ERR_INTERNAL)),
            Ending::Dies => (ShutOff, Absent, Some(ERR_OPERATION_INVALID)),
        };
        let moved = at_target == Running;
        self.world.on(target, |state| {
            set_presence(state, id, at_target);
            if let Some(guest) = state.guests.get_mut(id).filter(|_| moved) {
                guest.counters.persistent = true;
            }
        });
        self.world
            .on(&self.host, |state| set_presence(state, id, at_source));
        for host in [self.host.as_str(), target] {
            self.world
                .say(host, HypervisorEvent::GuestChanged(id.clone()));
        }
        error.map_or(Ok(()), |code| {
            Err(failed(code, "migration failed as scripted"))
        })
    }
}
