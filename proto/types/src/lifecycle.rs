//! The life of one migration as a total, pure transition function.
//!
//! ```text
//!  Ordered ──Admitted──▶ Preparing ──Prepared──▶ Running ──SwitchoverSeen──▶ Switching
//!     │                     │                       │  CallReturned, job gone ──▶ │
//!     │Refused              │Refused, Cancel        ▼                             │ Asked(..)
//!     ▼                     ▼               (abort asked for)                     ▼
//!   Ended(Refused)   Ended(Refused|Cancelled)              Ended(Done|Cancelled|Failed)
//!                                                                   ▲
//!                     Running, Switching ──GaveUp, Asked(Both)──▶ Unknown ──Asked(..), Resolved(..)
//!            Running ◀──JobSeen── Switching, Unknown    (the call came back before its job was over)
//! ```
//!
//! The source agent drives it: [`MigrationState::step`] takes what happened and answers with the next state
//! and the commands to carry out. The scheduler reads the same states from the journal. Nothing here knows a
//! clock, etcd or libvirt.
//!
//! **Invariant:** a started migration ends only on an answer of both hosts, whatever libvirt's call returned, or
//! once it is unknown on an operator's (test `a_started_migration_ends_only_on_both_hosts_word`).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::reason::{FailureReason, Refusal};
use crate::whereabouts::{Place, Whereabouts};

/// Why a running copy is to be aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbortCause {
    /// An operator or the scheduler asked for it.
    Cancelled,
    /// The order's deadline passed.
    Deadline,
    /// The copy does not converge, and nothing more may be done about it.
    NotConverging,
}

/// How libvirt's migrate call came back. Evidence for the reason, never for the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallResult {
    /// It reported success.
    Ok,
    /// It reported an error, or the connection to libvirt broke.
    Error,
    /// Nobody was there to see it return: the agent was restarted.
    Unseen,
}

/// How a migration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The guest lives at the target.
    Done,
    /// It never started.
    Refused(Refusal),
    /// It was cancelled; the guest lives at the source.
    Cancelled,
    /// It ended elsewhere than at the target.
    Failed {
        /// Why.
        reason: FailureReason,
        /// Where the guest is now.
        guest: Whereabouts,
    },
}

impl Outcome {
    /// Every name, for metrics that must exist before they happen.
    pub const NAMES: [&'static str; 4] = ["done", "refused", "cancelled", "failed"];

    /// The fixed name used as the `result` label of metrics and in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused(_) => "refused",
            Self::Cancelled => "cancelled",
            Self::Failed { .. } => "failed",
        }
    }

    /// Whether the guest is at the target, and no more at the source.
    #[must_use]
    pub fn has_moved(self) -> bool {
        match self {
            Self::Done => true,
            Self::Failed { guest, .. } => guest == Whereabouts::Target,
            Self::Refused(_) | Self::Cancelled => false,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done | Self::Cancelled => f.write_str(self.as_str()),
            Self::Refused(reason) => write!(f, "refused: {reason}"),
            Self::Failed { reason, guest } => write!(f, "failed: {reason} (guest: {guest})"),
        }
    }
}

/// What is known of a started copy besides its phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct CopyFacts {
    /// Set once an abort was asked for.
    pub abort: Option<AbortCause>,
    /// Set once libvirt's call has come back (or can no longer be seen).
    pub call: Option<CallResult>,
}

impl CopyFacts {
    /// The same with an abort asked for; the first cause stays.
    fn aborting(self, cause: AbortCause) -> Self {
        Self {
            abort: self.abort.or(Some(cause)),
            ..self
        }
    }

    /// The same after the call has come back; the first result stays.
    fn returned(self, call: CallResult) -> Self {
        Self {
            call: self.call.or(Some(call)),
            ..self
        }
    }

    /// Whether libvirt may still have a job: a call that broke off, or whose end nobody saw, leaves it behind.
    fn job_may_stand(self) -> bool {
        self.call != Some(CallResult::Ok)
    }
}

/// Where a migration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrationState {
    /// The order stands in etcd; no agent has taken it up.
    Ordered,
    /// The source agent's journal stands; the target is being asked. Nothing was done to the guest.
    Preparing,
    /// libvirt copies, the guest runs at the source.
    Running(CopyFacts),
    /// The guest is being handed over, or the copy is over and both hosts are being asked.
    Switching(CopyFacts),
    /// The hosts do not agree or do not answer. The guest is untouchable until they do.
    Unknown {
        /// What was known when it became unknown.
        facts: CopyFacts,
        /// What the hosts said last; [`Whereabouts::Both`] stays until an answer disproves it.
        last: Whereabouts,
    },
    /// Over; the journal is closed.
    Ended(Outcome),
}

/// Something that happened to a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// etcd took the journal under the order's epoch.
    Admitted,
    /// Source or target will not do it.
    Refused(Refusal),
    /// The target has prepared and reserved.
    Prepared,
    /// An operator or the scheduler asks to stop.
    CancelRequested,
    /// The order's deadline is over.
    DeadlinePassed,
    /// The copy makes no headway, and all that may be done about it was done.
    WillNotConverge,
    /// libvirt paused the source for the hand-over.
    SwitchoverSeen,
    /// libvirt's migrate call came back.
    CallReturned(CallResult),
    /// A restarted agent found this journal.
    Adopted {
        /// Whether libvirt still runs the migration's job.
        job_running: bool,
    },
    /// Both hosts were asked.
    Asked(Whereabouts),
    /// Both hosts were asked, and libvirt still copies: the guest runs at the source under its job.
    JobSeen,
    /// The hosts were asked for as long as is reasonable without a settling answer, or libvirt's call was
    /// made and for as long there was no sign of it: it may act later.
    GaveUp,
    /// An operator has said where the guest is, and no host that answers contradicts it.
    Resolved(Place),
}

/// What the driver is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Ask the target agent to check and to reserve.
    PrepareTarget,
    /// Start libvirt's migration (the journal already says `Running`).
    StartCopy,
    /// Watch a job that was started by an earlier life of this agent.
    FollowJob,
    /// Abort libvirt's job.
    AbortJob,
    /// Ask both hosts where the guest is and report [`Event::Asked`]; back off between repeats.
    AskBothHosts,
    /// Tell the target that its reservation is no longer needed.
    ReleaseTarget,
}

impl MigrationState {
    /// The fixed name used on the wire, in metrics and in tables.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Ordered => "ordered",
            Self::Preparing => "preparing",
            Self::Running(_) => "running",
            Self::Switching(_) => "switching",
            Self::Unknown { .. } => "unknown",
            Self::Ended(outcome) => outcome.as_str(),
        }
    }

    /// The outcome, once there is one.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Ended(outcome) => Some(*outcome),
            Self::Ordered
            | Self::Preparing
            | Self::Running(_)
            | Self::Switching(_)
            | Self::Unknown { .. } => None,
        }
    }

    /// Takes one event. Events that mean nothing in a state (late, repeated) change nothing.
    #[must_use]
    pub fn step(self, event: Event) -> (Self, Vec<Command>) {
        match self {
            Self::Ordered => step_ordered(event),
            Self::Preparing => step_preparing(event),
            Self::Running(facts) => step_running(facts, event),
            Self::Switching(facts) => step_switching(facts, event),
            Self::Unknown { facts, last } => step_unknown(facts, last, event),
            Self::Ended(_) => (self, vec![]),
        }
    }
}

fn step_ordered(event: Event) -> (MigrationState, Vec<Command>) {
    use MigrationState::{Ended, Ordered, Preparing};
    match event {
        Event::Admitted => (Preparing, vec![Command::PrepareTarget]),
        Event::Refused(reason) => (Ended(Outcome::Refused(reason)), vec![]),
        Event::CancelRequested => (Ended(Outcome::Cancelled), vec![]),
        Event::DeadlinePassed => (Ended(Outcome::Refused(Refusal::DeadlinePassed)), vec![]),
        Event::Prepared
        | Event::WillNotConverge
        | Event::SwitchoverSeen
        | Event::CallReturned(_)
        | Event::Adopted { .. }
        | Event::Asked(_)
        | Event::JobSeen
        | Event::GaveUp
        | Event::Resolved(_) => (Ordered, vec![]),
    }
}

fn step_preparing(event: Event) -> (MigrationState, Vec<Command>) {
    use MigrationState::{Ended, Preparing, Running};
    let end = |outcome| (Ended(outcome), vec![Command::ReleaseTarget]);
    match event {
        Event::Prepared => (Running(CopyFacts::default()), vec![Command::StartCopy]),
        Event::Refused(reason) => end(Outcome::Refused(reason)),
        Event::CancelRequested => end(Outcome::Cancelled),
        Event::DeadlinePassed => end(Outcome::Refused(Refusal::DeadlinePassed)),
        // The journal says `Running` before libvirt is called, so nothing was started.
        Event::Adopted { .. } => end(Outcome::Failed {
            reason: FailureReason::Interrupted,
            guest: Whereabouts::Source,
        }),
        Event::Admitted
        | Event::WillNotConverge
        | Event::SwitchoverSeen
        | Event::CallReturned(_)
        | Event::Asked(_)
        | Event::JobSeen
        | Event::GaveUp
        | Event::Resolved(_) => (Preparing, vec![]),
    }
}

fn step_running(facts: CopyFacts, event: Event) -> (MigrationState, Vec<Command>) {
    use MigrationState::{Running, Switching};
    let abort = |cause| (Running(facts.aborting(cause)), vec![Command::AbortJob]);
    match event {
        Event::CancelRequested => abort(AbortCause::Cancelled),
        Event::DeadlinePassed => abort(AbortCause::Deadline),
        Event::WillNotConverge => abort(AbortCause::NotConverging),
        // Of a job that outlived its call nobody but the hosts says more.
        Event::SwitchoverSeen => {
            let ask = facts.call.map(|_| Command::AskBothHosts);
            (Switching(facts), ask.into_iter().collect())
        }
        Event::CallReturned(call) => over(facts, call),
        Event::Adopted { job_running: true } => follow(facts, Running),
        Event::Adopted { job_running: false } => over(facts, CallResult::Unseen),
        Event::GaveUp => gave_up(facts),
        Event::Admitted
        | Event::Refused(_)
        | Event::Prepared
        | Event::Asked(_)
        | Event::JobSeen
        | Event::Resolved(_) => (Running(facts), vec![]),
    }
}

/// Asks for an abort of what is not (or no longer) a copy that is watched. While libvirt's call is out, libvirt
/// decides whether it comes too late for the hand-over.
/// A job that outlived its call is aborted when it is seen ([`Event::JobSeen`]), for nobody else's may be.
fn abort(
    facts: CopyFacts,
    cause: AbortCause,
    state: impl FnOnce(CopyFacts) -> MigrationState,
) -> (MigrationState, Vec<Command>) {
    match facts.call {
        None => (state(facts.aborting(cause)), vec![Command::AbortJob]),
        Some(CallResult::Error | CallResult::Unseen) => (state(facts.aborting(cause)), vec![]),
        Some(CallResult::Ok) => (state(facts), vec![]),
    }
}

/// Follows a job that stands, and goes on aborting one that was to be aborted.
fn follow(
    facts: CopyFacts,
    state: impl FnOnce(CopyFacts) -> MigrationState,
) -> (MigrationState, Vec<Command>) {
    let mut commands = vec![Command::FollowJob];
    commands.extend(facts.abort.map(|_| Command::AbortJob));
    (state(facts), commands)
}

fn over(facts: CopyFacts, call: CallResult) -> (MigrationState, Vec<Command>) {
    (
        MigrationState::Switching(facts.returned(call)),
        vec![Command::AskBothHosts],
    )
}

fn gave_up(facts: CopyFacts) -> (MigrationState, Vec<Command>) {
    let last = Whereabouts::Unanswered;
    (
        MigrationState::Unknown { facts, last },
        vec![Command::AskBothHosts],
    )
}

fn step_switching(facts: CopyFacts, event: Event) -> (MigrationState, Vec<Command>) {
    use MigrationState::{Running, Switching};
    match event {
        Event::CancelRequested => abort(facts, AbortCause::Cancelled, Switching),
        Event::DeadlinePassed => abort(facts, AbortCause::Deadline, Switching),
        Event::CallReturned(call) => over(facts, call),
        Event::Adopted { job_running: true } if facts.call.is_none() => follow(facts, Switching),
        Event::Adopted { job_running: false } => over(facts, CallResult::Unseen),
        // Before the call is over an answer is a snapshot of a hand-over under way.
        Event::Asked(_) | Event::JobSeen if facts.call.is_none() => (Switching(facts), vec![]),
        Event::JobSeen | Event::Adopted { job_running: true } if facts.job_may_stand() => {
            follow(facts, Running)
        }
        Event::JobSeen | Event::Adopted { .. } => (Switching(facts), vec![Command::AskBothHosts]),
        Event::Asked(place) => settle(facts, place, Switching(facts)),
        Event::GaveUp => gave_up(facts),
        // It has converged after all.
        Event::WillNotConverge
        | Event::Admitted
        | Event::Refused(_)
        | Event::Prepared
        | Event::SwitchoverSeen
        // The hosts are still being asked.
        | Event::Resolved(_) => (Switching(facts), vec![]),
    }
}

fn step_unknown(
    facts: CopyFacts,
    last: Whereabouts,
    event: Event,
) -> (MigrationState, Vec<Command>) {
    use MigrationState::{Running, Unknown};
    let unknown = |facts| Unknown { facts, last };
    let ask = |facts| (unknown(facts), vec![Command::AskBothHosts]);
    match event {
        Event::CancelRequested => abort(facts, AbortCause::Cancelled, unknown),
        Event::DeadlinePassed => abort(facts, AbortCause::Deadline, unknown),
        Event::JobSeen | Event::Adopted { job_running: true }
            if facts.job_may_stand() && last != Whereabouts::Both =>
        {
            follow(facts, Running)
        }
        // A call that is still out may act later: only a guest that has moved is out of its reach.
        Event::Asked(place) if facts.call.is_none() && place != Whereabouts::Target => {
            let last = last_word(last, place);
            (Unknown { facts, last }, vec![Command::AskBothHosts])
        }
        Event::Asked(place) => {
            let last = last_word(last, place);
            settle(facts, place, Unknown { facts, last })
        }
        Event::CallReturned(call) => ask(facts.returned(call)),
        Event::Adopted { .. } => ask(facts.returned(CallResult::Unseen)),
        Event::JobSeen => ask(facts),
        Event::Resolved(place) if facts.call.is_some() || place == Place::Target => (
            MigrationState::Ended(place.outcome()),
            vec![Command::ReleaseTarget],
        ),
        Event::Admitted
        | Event::Refused(_)
        | Event::Prepared
        | Event::WillNotConverge
        | Event::SwitchoverSeen
        | Event::GaveUp
        | Event::Resolved(_) => (unknown(facts), vec![]),
    }
}

/// What stays known of an unknown guest: that it was seen on two hosts, until an answer disproves it. A host
/// that has fallen silent proves nothing.
fn last_word(before: Whereabouts, now: Whereabouts) -> Whereabouts {
    match now {
        Whereabouts::Unanswered | Whereabouts::Unsettled if before == Whereabouts::Both => before,
        Whereabouts::Source
        | Whereabouts::Target
        | Whereabouts::Both
        | Whereabouts::Nowhere
        | Whereabouts::Unsettled
        | Whereabouts::Unanswered => now,
    }
}

/// Closes on a place that both hosts agree on; otherwise stays `open` and asks again.
fn settle(
    facts: CopyFacts,
    place: Whereabouts,
    open: MigrationState,
) -> (MigrationState, Vec<Command>) {
    let end = |outcome| (MigrationState::Ended(outcome), vec![Command::ReleaseTarget]);
    let failed = |reason| {
        end(Outcome::Failed {
            reason,
            guest: place,
        })
    };
    match place {
        Whereabouts::Target => end(Outcome::Done),
        Whereabouts::Source => match facts.abort {
            Some(AbortCause::Cancelled) => end(Outcome::Cancelled),
            Some(AbortCause::Deadline) => failed(FailureReason::Deadline),
            Some(AbortCause::NotConverging) => failed(FailureReason::NotConverging),
            None => failed(FailureReason::Libvirt),
        },
        Whereabouts::Nowhere => failed(FailureReason::GuestDied),
        Whereabouts::Both => (
            MigrationState::Unknown { facts, last: place },
            vec![Command::AskBothHosts],
        ),
        Whereabouts::Unsettled | Whereabouts::Unanswered => (open, vec![Command::AskBothHosts]),
    }
}

#[cfg(test)]
mod tests;
