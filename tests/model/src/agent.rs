//! What agents do: admit with the real [`decide`], drive the real machine, judge with the real verdicts.

use evenkeel_agent::driver::verdict::{self, Brought, Heard};
use evenkeel_agent::journal::{Standing, decide, may_follow};
use evenkeel_types::{
    CallResult, Command, Event, FailureReason, MigrationState, Outcome, Place, Presence, Refusal,
    Whereabouts,
};

use crate::bounds::Guard;
use crate::cast::{base_of, key};
use crate::etcd::Landed;
use crate::leader::{note_refused, note_taken_up, word};
use crate::stage::{Mark, Stage};
use crate::world::{
    Admission, Agent, Asking, Base, Call, Given, Job, Journal, Late, No, Phase, Slot, Task, World,
    Wrong, at,
};

/// Which of the three questions is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Question {
    /// All three, at one moment.
    All,
    /// What the source has.
    Source,
    /// What the target has.
    Target,
    /// Whether libvirt has a job.
    Job,
    /// None: the last answer reaches the task.
    Brought,
}

impl Stage {
    /// An order reaches its source's agent: its place is taken, etcd looked at, and judged.
    pub fn arrives(&self, world: &mut World, order: No, by: No) {
        let Given { guest, source, .. } = world.order(order);
        let under_way = match world.agents[at(source)].slots[at(guest)] {
            Slot::Free => None,
            Slot::Admitting(admission) => Some(admission.order),
            Slot::Driven(task) => Some(task.order),
        };
        if let Some(other) = under_way {
            let refusal = if other == order {
                Refusal::Duplicate
            } else {
                Refusal::Busy
            };
            return self.refuse(world, order, by, refusal);
        }
        let mut seen = self.cast.seen(world, order);
        let message = self.cast.order(world, order);
        if !self.has(Guard::Epoch) {
            seen.leader = Some(evenkeel_agent::journal::Leader {
                key: key(by),
                epoch: message.epoch,
            });
        }
        if !self.has(Guard::OrderStands) {
            seen.order = Some(evenkeel_agent::journal::Stored {
                value: message.message.clone(),
                revision: 1,
            });
        }
        if !self.has(Guard::NoJournalYet)
            && let Some(journal) = &mut seen.journal
        {
            journal.value = Standing::Closed;
        }
        match decide(&seen, message, &key(by)) {
            Ok(grounds) => {
                let base = base_of(grounds.journal_revision);
                let admission = Admission { order, by, base };
                world.agents[at(source)].slots[at(guest)] = Slot::Admitting(admission);
            }
            Err((refusal, _)) => self.refuse(world, order, by, refusal),
        }
    }

    fn refuse(&self, world: &mut World, order: No, by: No, refusal: Refusal) {
        if refusal == Refusal::Duplicate {
            self.mark(Mark::DuplicateRefused);
        } else if refusal == Refusal::StaleEpoch {
            self.mark(Mark::DeposedRefused);
        }
        note_refused(world, by, order, refusal);
    }

    /// The admitting transaction is carried out and answered.
    pub fn admits(&self, world: &mut World, host: No, guest: No) {
        let Slot::Admitting(admission) = world.agents[at(host)].slots[at(guest)] else {
            return;
        };
        let Admission { order, by, .. } = admission;
        world.agents[at(host)].slots[at(guest)] = Slot::Free;
        match self.admit(world, admission) {
            Landed::Written => {
                note_taken_up(world, by, order);
                let task = Task {
                    base: Base::Unchanged,
                    ..Task::new(order, MigrationState::Ordered)
                };
                world.agents[at(host)].slots[at(guest)] = Slot::Driven(task);
                self.feed(world, host, guest, Event::Admitted);
                // That state is what the transaction has written.
                if let Some(task) = world.task_mut(host, guest) {
                    task.written = true;
                }
            }
            // It looks again, and names the refusal or finds another ground.
            Landed::Deposed | Landed::Conflict => self.arrives(world, order, by),
        }
    }

    /// etcd does not answer the admission: the agent refuses, the transaction may be carried out later.
    pub fn admission_is_lost(&self, world: &mut World, host: No, guest: No) {
        let agent = &mut world.agents[at(host)];
        let Slot::Admitting(admission) = agent.slots[at(guest)] else {
            return;
        };
        agent.slots[at(guest)] = Slot::Free;
        agent.late[at(guest)] = Some(Late::Admission(admission));
        world.left.etcd -= 1;
        self.refuse(world, admission.order, admission.by, Refusal::NoEtcd);
    }

    /// etcd carries out what nobody waits for any more.
    pub fn late_lands(&self, world: &mut World, host: No, guest: No) {
        let landed = match world.agents[at(host)].late[at(guest)].take() {
            None => return,
            Some(Late::Admission(admission)) => self.admit(world, admission),
            Some(Late::Write(journal, base)) => self.write(world, journal, base),
        };
        if landed == Landed::Written {
            self.mark(Mark::LateWrite);
        }
    }

    /// Goes through its own journals: an open one that nobody drives is taken up, one that the leader has closed
    /// ends its task, a closed one whose order is gone is removed.
    pub fn looks_after(&self, world: &mut World, host: No, guest: No) {
        let Some(journal) = world.journals[at(host)][at(guest)] else {
            return;
        };
        match (
            world.agents[at(host)].slots[at(guest)],
            journal.state.outcome(),
        ) {
            (Slot::Driven(task), Some(outcome)) if task.order == journal.order => {
                let Outcome::Failed {
                    reason: FailureReason::Resolved,
                    guest: place,
                } = outcome
                else {
                    return;
                };
                let place = Place::ALL.into_iter().find(|p| p.whereabouts() == place);
                if let Some(place) = place {
                    self.mark(Mark::FoundClosed);
                    self.feed(world, host, guest, Event::Resolved(place));
                }
            }
            (Slot::Free, None) => {
                let task = Task {
                    base: Base::Unchanged,
                    written: true,
                    ..Task::new(journal.order, journal.state)
                };
                let job_running = begun_job(world, host, guest) == Some(journal.order);
                if job_running {
                    self.mark(Mark::AdoptedJob);
                }
                world.agents[at(host)].slots[at(guest)] = Slot::Driven(task);
                self.feed(world, host, guest, Event::Adopted { job_running });
            }
            (Slot::Free, Some(_)) if world.orders[at(guest)] != Some(journal.order) => {
                world.put_journal(host, guest, None);
            }
            (Slot::Free | Slot::Admitting(_) | Slot::Driven(_), _) => {}
        }
    }

    /// Looks at the guest here and asks the target; `lost`: the target cannot be reached.
    pub fn prepares(&self, world: &mut World, host: No, guest: No, lost: bool) {
        let Some(task) = world.task_mut(host, guest) else {
            return;
        };
        task.preparing = false;
        let order = task.order;
        let target = world.order(order).target;
        let here = world.hosts[at(host)].guests[at(guest)];
        let there = world.hosts[at(target)].guests[at(guest)];
        let refusal = if here != Presence::Running {
            Some(Refusal::GuestNotHere)
        } else if begun_job(world, host, guest).is_some() {
            Some(Refusal::Busy)
        } else if lost || !world.agents[at(target)].up {
            Some(Refusal::TargetUnreachable)
        } else if world.orders[at(guest)] != Some(order) {
            Some(Refusal::NoSuchOrder)
        } else if !matches!(there, Presence::Absent | Presence::ShutOff) {
            Some(Refusal::Busy)
        } else {
            None
        };
        self.feed(
            world,
            host,
            guest,
            refusal.map_or(Event::Prepared, Event::Refused),
        );
    }

    /// Writes the task's state into its journal.
    pub fn writes(&self, world: &mut World, host: No, guest: No) {
        let Some(task) = world.task(host, guest).copied() else {
            return;
        };
        let ours = Journal {
            order: task.order,
            state: task.state,
        };
        let landed = self.write(world, ours, task.base);
        let stands = world.journals[at(host)][at(guest)];
        let follows = stands.map(|stands| {
            let (stands, ours) = (
                self.cast.journal(world, stands),
                self.cast.journal(world, ours),
            );
            may_follow(self.cast.any_guest(), &stands, &ours).is_ok()
        });
        let Some(task) = world.task_mut(host, guest) else {
            return;
        };
        match (landed, follows) {
            (Landed::Written, _) => (task.base, task.written) = (Base::Unchanged, true),
            (Landed::Conflict | Landed::Deposed, None) => task.base = Base::Absent,
            (Landed::Conflict | Landed::Deposed, Some(true)) => task.base = Base::Unchanged,
            (Landed::Conflict | Landed::Deposed, Some(false)) => task.silenced = true,
        }
    }

    /// Calls libvirt, or does not any more.
    pub fn calls(&self, world: &mut World, host: No, guest: No) {
        let Some(task) = world.task_mut(host, guest) else {
            return;
        };
        let order = task.order;
        // An abort that comes before the call is made ends it: it is then never made.
        if task.aborting || (task.silenced && !task.written) {
            task.call = Call::Back(CallResult::Error);
            return;
        }
        task.call = Call::Out;
        let stands = world.journals[at(host)][at(guest)].filter(|j| j.order == order);
        let is_open = stands.is_some_and(|j| matches!(j.state, MigrationState::Running(_)));
        if !is_open || world.orders[at(guest)] != Some(order) {
            world.wrong(Wrong::UnfoundedCall);
        }
        let target = world.order(order).target;
        let slot = &mut world.hosts[at(host)].jobs[at(guest)];
        if slot.is_none() {
            *slot = Some(Job {
                order,
                target,
                phase: Phase::Pending,
                attached: true,
            });
        } else if let Some(task) = world.task_mut(host, guest) {
            task.call = Call::Back(CallResult::Error);
        }
    }

    /// The task hears that libvirt's call has come back.
    pub fn hears(&self, world: &mut World, host: No, guest: No) {
        let Some(task) = world.task_mut(host, guest) else {
            return;
        };
        if let Call::Back(result) = task.call {
            task.call = Call::None;
            self.feed(world, host, guest, Event::CallReturned(result));
        }
    }

    /// The job that the task follows is over, and nobody saw how.
    pub fn job_is_over(&self, world: &mut World, host: No, guest: No) {
        if let Some(task) = world.task_mut(host, guest) {
            task.following = false;
        }
        self.feed(world, host, guest, Event::CallReturned(CallResult::Unseen));
    }

    /// A question to both hosts gets on. `lost`: the target's answer does not come. `long`: it has been asked for
    /// so long that an open answer means giving up.
    pub fn asks(&self, world: &mut World, host: No, guest: No, how: (Question, bool, bool)) {
        let (question, lost, long) = how;
        let Some((task, mut asking)) = world.task(host, guest).and_then(|t| Some((*t, t.asking?)))
        else {
            return;
        };
        let target = world.order(task.order).target;
        if matches!(question, Question::All | Question::Source) {
            asking.source = Some(Some(world.hosts[at(host)].guests[at(guest)]));
        }
        if matches!(question, Question::All | Question::Target) {
            let up = world.agents[at(target)].up && !lost;
            asking.target = Some(up.then(|| world.hosts[at(target)].guests[at(guest)]));
        }
        if matches!(question, Question::All | Question::Job) {
            asking.job = Some(begun_job(world, host, guest));
        }
        let under_way = !matches!(question, Question::All | Question::Brought);
        let answers = asking.source.zip(asking.target).zip(asking.job);
        let (Some(((source, there), job)), false) = (answers, under_way) else {
            self.keep_asking(world, host, guest, asking);
            return;
        };
        let heard = Heard {
            said: (source, there),
            has_job: job.is_some(),
            shut_off: false,
        };
        if !self.has(Guard::NeverResume) && resumes(heard) {
            world.hosts[at(host)].guests[at(guest)] = Presence::Running;
        }
        let mut place = heard.place();
        if let Some(first) = asking.first {
            place = verdict::confirmed(first, place);
        } else if verdict::must_be_confirmed(asking.call, place) {
            let again = Asking {
                call: asking.call,
                first: Some(place),
                ..Asking::default()
            };
            self.keep_asking(world, host, guest, again);
            return;
        }
        let ours = job == Some(task.order);
        let outlives = ours && heard.is_only_at_source() && asking.call != Some(CallResult::Ok);
        if let Some(task) = world.task_mut(host, guest) {
            task.asking = None;
        }
        let event = if outlives {
            self.mark(Mark::JobSeen);
            Event::JobSeen
        } else {
            let begun = if self.has(Guard::AnswerAfterCall) {
                asking.call
            } else {
                verdict::call_of(&task.state)
            };
            Brought { begun, place }.event(&task.state, long)
        };
        self.feed(world, host, guest, event);
    }

    fn keep_asking(&self, world: &mut World, host: No, guest: No, asking: Asking) {
        if let Some(task) = world.task_mut(host, guest) {
            task.asking = Some(asking);
        }
    }

    /// An operator says where the guest of an unknown migration is, and the agent is told.
    pub fn resolves(&self, world: &mut World, host: No, guest: No, discard: bool) {
        let Some(task) = world.task(host, guest).copied() else {
            return;
        };
        let target = world.order(task.order).target;
        let Some(place) = word(world, task.order) else {
            return;
        };
        let here = world.hosts[at(host)].guests[at(guest)];
        let up = world.agents[at(target)].up;
        let there = up.then(|| world.hosts[at(target)].guests[at(guest)]);
        let denied = place.check(Some(here), there).is_err();
        let has_job = begun_job(world, host, guest).is_some();
        if denied || has_job || verdict::may_resolve(&task.state, place).is_err() {
            return;
        }
        let indiscardable = if self.has(Guard::DiscardOnlyRemnants) {
            verdict::may_discard(place, Some(here)).is_err()
        } else {
            here != Presence::PausedByMigration
        };
        if discard && indiscardable {
            return;
        }
        self.mark(Mark::ResolvedByAgent);
        self.feed(world, host, guest, Event::Resolved(place));
        if discard {
            if world.living[at(guest)] == Some(host) {
                world.wrong(Wrong::Destroyed);
            }
            world.hosts[at(host)].guests[at(guest)] = Presence::ShutOff;
        }
    }

    /// The task is over and etcd knows it: the guest's place is given back, what is left behind is tidied up.
    pub fn finishes(&self, world: &mut World, host: No, guest: No) {
        let Some(task) = world.task(host, guest).copied() else {
            return;
        };
        let moved = task.state.outcome().is_some_and(Outcome::has_moved);
        let target = world.order(task.order).target;
        let there = world.hosts[at(target)].guests[at(guest)];
        let lives = world.agents[at(target)].up && there == Presence::Running;
        let here = &mut world.hosts[at(host)].guests[at(guest)];
        if moved && lives && *here == Presence::ShutOff {
            *here = Presence::Absent;
        }
        world.agents[at(host)].slots[at(guest)] = Slot::Free;
    }

    /// Steps the machine and carries out its commands.
    pub fn feed(&self, world: &mut World, host: No, guest: No, event: Event) {
        let Some(task) = world.task_mut(host, guest) else {
            return;
        };
        if matches!(event, Event::CallReturned(_)) {
            (task.following, task.aborting) = (false, false);
        }
        let before = task.state;
        let (next, commands) = before.step(event);
        if next != before {
            task.state = next;
            task.written = false;
        }
        for command in commands {
            match command {
                Command::PrepareTarget => task.preparing = true,
                Command::StartCopy => task.call = Call::Waiting,
                Command::FollowJob => (task.following, task.aborting) = (true, false),
                Command::AbortJob => task.aborting = true,
                Command::AskBothHosts => {
                    let call = verdict::call_of(&task.state);
                    task.asking.get_or_insert(Asking {
                        call,
                        ..Asking::default()
                    });
                }
                // Memory that is held for it, which expires: not modelled.
                Command::ReleaseTarget => {}
            }
        }
        if next.outcome().is_some() {
            (task.preparing, task.asking, task.following) = (false, None, false);
        }
        let order = task.order;
        self.note(world, order, before, next, event);
        if let (Event::CallReturned(call), false) = (event, self.has(Guard::AskBothHosts)) {
            let place = if call == CallResult::Ok {
                Whereabouts::Target
            } else {
                Whereabouts::Source
            };
            if let Some(task) = world.task_mut(host, guest) {
                task.asking = None;
            }
            self.feed(world, host, guest, Event::Asked(place));
        }
    }

    /// Holds the word with which a migration is closed against the truth.
    fn note(
        &self,
        world: &mut World,
        order: No,
        was: MigrationState,
        now: MigrationState,
        event: Event,
    ) {
        if matches!(now, MigrationState::Unknown { .. }) {
            self.mark(Mark::Unknown);
        }
        let (None, Some(outcome)) = (was.outcome(), now.outcome()) else {
            return;
        };
        let Given {
            guest,
            source,
            target,
            ..
        } = world.order(order);
        let stands = world.journals[at(source)][at(guest)].filter(|j| j.order == order);
        if stands.is_some_and(|j| j.state.outcome().is_some()) {
            // The leader has closed it: what the task comes to is not written any more.
            return;
        }
        let living = world.living[at(guest)];
        let false_word = match outcome {
            _ if matches!(event, Event::Resolved(_)) => false,
            Outcome::Done => {
                self.mark(Mark::Done);
                living.is_some_and(|host| host != target)
            }
            // Never started: only that libvirt has nothing of it must be true.
            Outcome::Refused(_)
            | Outcome::Failed {
                reason: FailureReason::Interrupted,
                ..
            } => false,
            Outcome::Cancelled
            | Outcome::Failed {
                guest: Whereabouts::Source,
                ..
            } => {
                if outcome == Outcome::Cancelled {
                    self.mark(Mark::Cancelled);
                }
                living.is_some_and(|host| host != source)
            }
            Outcome::Failed { guest: place, .. } => match place {
                Whereabouts::Target => living.is_some_and(|host| host != target),
                Whereabouts::Nowhere => living.is_some(),
                Whereabouts::Source
                | Whereabouts::Both
                | Whereabouts::Unsettled
                | Whereabouts::Unanswered => true,
            },
        };
        let job_goes_on = world.hosts[at(source)].jobs[at(guest)].is_some_and(|j| j.order == order);
        if false_word || (job_goes_on && !matches!(event, Event::Resolved(_))) {
            world.wrong(Wrong::FalseWord);
        }
    }

    /// An agent is killed. What it has sent may still be carried out.
    pub fn agent_dies(world: &mut World, host: No) {
        let agent = &mut world.agents[at(host)];
        agent.up = false;
        for (slot, late) in agent.slots.iter_mut().zip(&mut agent.late) {
            let sent = match *slot {
                Slot::Admitting(admission) => Some(Late::Admission(admission)),
                Slot::Driven(task) if !task.written && !task.silenced => {
                    let journal = Journal {
                        order: task.order,
                        state: task.state,
                    };
                    Some(Late::Write(journal, task.base))
                }
                Slot::Free | Slot::Driven(_) => None,
            };
            *late = sent.or(*late);
            *slot = Slot::Free;
        }
        for job in &mut world.hosts[at(host)].jobs {
            // A call that libvirt has not begun dies with its connection; a job lives on.
            *job = job
                .filter(|job| job.phase != Phase::Pending)
                .map(|job| Job {
                    attached: false,
                    ..job
                });
        }
    }

    /// It is started again.
    pub fn agent_starts(world: &mut World, host: No) {
        let Agent { up, .. } = &mut world.agents[at(host)];
        *up = true;
    }
}

/// Whether a careless agent would resume the source: it is paused, and the target does not seem to have it.
fn resumes(heard: Heard) -> bool {
    let gone = matches!(
        heard.said.1,
        None | Some(Presence::Absent | Presence::ShutOff)
    );
    heard.said.0 == Some(Presence::PausedByMigration) && gone && !heard.has_job
}

/// The order in whose name libvirt shows a job for a guest.
#[must_use]
pub fn begun_job(world: &World, host: No, guest: No) -> Option<No> {
    let job = world.hosts[at(host)].jobs[at(guest)];
    job.filter(|job| job.phase != Phase::Pending)
        .map(|job| job.order)
}

impl Task {
    /// A task that has nothing under way.
    #[must_use]
    pub fn new(order: No, state: MigrationState) -> Self {
        Self {
            order,
            state,
            base: Base::Absent,
            written: false,
            silenced: false,
            preparing: false,
            call: Call::None,
            following: false,
            aborting: false,
            asking: None,
        }
    }
}
