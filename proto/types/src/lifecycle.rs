//! The life of one migration as a total, pure transition function.
//!
//! ```text
//!  Ordered ──Admitted──▶ Preparing ──Prepared──▶ Running ──SwitchoverSeen──▶ Switching
//!     │                     │                       │  CallReturned, job gone ──▶ │
//!     │Refused              │Refused, Cancel        ▼                             │ Asked(..)
//!     ▼                     ▼               (abort asked for)                     ▼
//!   Ended(Refused)   Ended(Refused|Cancelled)              Ended(Done|Cancelled|Failed)
//!                                                                   ▲
//!                              Switching ──GaveUp, Asked(Both)──▶ Unknown ──Asked(..)
//! ```
//!
//! The source agent drives it: [`MigrationState::step`] takes what happened and answers with the next state
//! and the commands to carry out. The scheduler reads the same states from the journal. Nothing here knows a
//! clock, etcd or libvirt.
//!
//! **Invariant:** a started migration ends only on an answer of both hosts, whatever libvirt's call returned
//! (test `a_started_migration_ends_only_on_both_hosts_word`).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::reason::{FailureReason, Refusal};
use crate::whereabouts::Whereabouts;

/// Why a running copy is to be aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbortCause {
    /// An operator or the scheduler asked for it.
    Cancelled,
    /// The order's deadline passed.
    Deadline,
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
        /// What the hosts said last.
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
    /// The hosts were asked for as long as is reasonable without a settling answer.
    GaveUp,
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
        | Event::SwitchoverSeen
        | Event::CallReturned(_)
        | Event::Adopted { .. }
        | Event::Asked(_)
        | Event::GaveUp => (Ordered, vec![]),
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
        | Event::SwitchoverSeen
        | Event::CallReturned(_)
        | Event::Asked(_)
        | Event::GaveUp => (Preparing, vec![]),
    }
}

fn step_running(facts: CopyFacts, event: Event) -> (MigrationState, Vec<Command>) {
    use MigrationState::{Running, Switching};
    match event {
        Event::CancelRequested => abort(facts, AbortCause::Cancelled),
        Event::DeadlinePassed => abort(facts, AbortCause::Deadline),
        Event::SwitchoverSeen => (Switching(facts), vec![]),
        Event::CallReturned(call) => over(facts, call),
        Event::Adopted { job_running: true } => (Running(facts), vec![Command::FollowJob]),
        Event::Adopted { job_running: false } => over(facts, CallResult::Unseen),
        Event::Admitted | Event::Refused(_) | Event::Prepared | Event::Asked(_) | Event::GaveUp => {
            (Running(facts), vec![])
        }
    }
}

fn abort(facts: CopyFacts, cause: AbortCause) -> (MigrationState, Vec<Command>) {
    let facts = CopyFacts {
        abort: facts.abort.or(Some(cause)),
        ..facts
    };
    (MigrationState::Running(facts), vec![Command::AbortJob])
}

fn over(facts: CopyFacts, call: CallResult) -> (MigrationState, Vec<Command>) {
    let facts = CopyFacts {
        call: facts.call.or(Some(call)),
        ..facts
    };
    (
        MigrationState::Switching(facts),
        vec![Command::AskBothHosts],
    )
}

fn step_switching(facts: CopyFacts, event: Event) -> (MigrationState, Vec<Command>) {
    use MigrationState::{Switching, Unknown};
    match event {
        Event::CallReturned(call) => over(facts, call),
        Event::Adopted { job_running: true } => (Switching(facts), vec![Command::FollowJob]),
        Event::Adopted { job_running: false } => over(facts, CallResult::Unseen),
        // Before the call is over an answer is a snapshot of a hand-over under way.
        Event::Asked(_) | Event::GaveUp if facts.call.is_none() => (Switching(facts), vec![]),
        Event::Asked(place) => settle(facts, place, Switching(facts)),
        Event::GaveUp => (
            Unknown {
                facts,
                last: Whereabouts::Unanswered,
            },
            vec![Command::AskBothHosts],
        ),
        // Too late to abort: libvirt decides the hand-over.
        Event::CancelRequested
        | Event::DeadlinePassed
        | Event::Admitted
        | Event::Refused(_)
        | Event::Prepared
        | Event::SwitchoverSeen => (Switching(facts), vec![]),
    }
}

fn step_unknown(
    facts: CopyFacts,
    last: Whereabouts,
    event: Event,
) -> (MigrationState, Vec<Command>) {
    use MigrationState::Unknown;
    match event {
        Event::Asked(place) => settle(facts, place, Unknown { facts, last: place }),
        Event::Adopted { .. } => (Unknown { facts, last }, vec![Command::AskBothHosts]),
        Event::Admitted
        | Event::Refused(_)
        | Event::Prepared
        | Event::CancelRequested
        | Event::DeadlinePassed
        | Event::SwitchoverSeen
        | Event::CallReturned(_)
        | Event::GaveUp => (Unknown { facts, last }, vec![]),
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
