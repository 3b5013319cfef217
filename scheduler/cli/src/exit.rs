//! How the tool ends: the exit codes that scripts rely on, and the failures behind them.

use std::io;
use std::process::ExitCode;

use evenkeel_planner::{SnapshotError, Stale};
use evenkeel_proto::Code;

use crate::client::ClientError;
use crate::config::ConfigError;

/// An exit code. The numbers are part of the interface: none is ever changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok,
    /// It did not work.
    Failed,
    /// A plan has steps, or a policy differs; only with `--detailed-exitcode`.
    ChangesPending,
    /// Somebody else changed it first.
    Conflict,
    /// It cannot be done, or the policy or an agent refuses it.
    Infeasible,
    /// No answer in time: it may or may not have been carried out.
    Deadline,
    /// No scheduler answers, or none leads.
    NoLeader,
    /// The command line is wrong.
    Usage,
    /// This identity may not do it.
    NotPermitted,
    /// The configuration is wrong.
    BadConfig,
    /// Ctrl-C: the tool went away, what it had started goes on.
    Interrupted,
}

impl Exit {
    /// Every code, its number and what it means to a script: the one table.
    pub const ALL: [(Self, u8, &'static str); 11] = [
        (Self::Ok, 0, "done"),
        (Self::Failed, 1, "failed"),
        (
            Self::ChangesPending,
            2,
            "the plan has steps, or the policy differs (only with --detailed-exitcode)",
        ),
        (
            Self::Conflict,
            3,
            "stale or in conflict: somebody else changed it first",
        ),
        (
            Self::Infeasible,
            4,
            "infeasible, or refused by the policy or an agent",
        ),
        (
            Self::Deadline,
            5,
            "deadline passed: a change may or may not have been carried out, a drain goes on",
        ),
        (
            Self::NoLeader,
            6,
            "no scheduler leads or none can be reached",
        ),
        (Self::Usage, 64, "wrong usage"),
        (Self::NotPermitted, 77, "not permitted"),
        (Self::BadConfig, 78, "bad configuration"),
        (
            Self::Interrupted,
            130,
            "interrupted by Ctrl-C; what was started goes on",
        ),
    ];

    /// The number.
    #[must_use]
    pub fn number(self) -> u8 {
        Self::ALL
            .iter()
            .find(|row| row.0 == self)
            .map_or(1, |row| row.1)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.number().into()
    }
}

impl From<Code> for Exit {
    /// The one place where answers of schedulers become exit codes.
    fn from(code: Code) -> Self {
        match code {
            Code::Ok => Self::Ok,
            Code::PermissionDenied | Code::Unauthenticated => Self::NotPermitted,
            Code::FailedPrecondition | Code::ResourceExhausted => Self::Infeasible,
            Code::Aborted | Code::AlreadyExists => Self::Conflict,
            Code::Unavailable => Self::NoLeader,
            // A deadline that passes between two schedulers arrives as a cancellation.
            Code::DeadlineExceeded | Code::Cancelled => Self::Deadline,
            Code::InvalidArgument | Code::OutOfRange => Self::Usage,
            Code::NotFound
            | Code::Unknown
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss => Self::Failed,
        }
    }
}

/// What keeps a drain from its end. The later counts for more where hosts differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainTrouble {
    /// Somebody has ended it.
    Cancelled,
    /// Its deadline has passed; it goes on.
    Late,
    /// Nobody who is left can go; it goes on when they can.
    Stuck,
}

impl DrainTrouble {
    /// The exit code it ends in.
    #[must_use]
    pub fn exit(self) -> Exit {
        match self {
            Self::Cancelled => Exit::Conflict,
            Self::Late => Exit::Deadline,
            Self::Stuck => Exit::Infeasible,
        }
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The client's configuration is wrong or missing.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The schedulers did not answer, or answered no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The flags do not go together.
    #[error("{0}")]
    Usage(String),
    /// Nothing of that name is there.
    #[error("no {kind} {name:?} in {place}")]
    NotThere {
        /// host, guest or migration.
        kind: &'static str,
        /// As it was given.
        name: String,
        /// The cluster or file that was searched.
        place: String,
    },
    /// A name or the start of an id fits more than one.
    #[error("{name:?} fits more than one {kind}: {found}")]
    Ambiguous {
        /// guest or migration.
        kind: &'static str,
        /// As it was given.
        name: String,
        /// What it fits.
        found: String,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Unwritable {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A document that is not what its name promises.
    #[error("{place} is no {expected} document")]
    Document {
        /// Where it came from.
        place: String,
        /// The schema that was expected.
        expected: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A migration ended elsewhere than at its target.
    #[error("{message}")]
    Migration {
        /// What happened, and where the guest is.
        message: String,
        /// Whether it never started.
        refused: bool,
    },
    /// A plan that the fleet has moved on from.
    #[error("stale plan: {0}")]
    Stale(Stale),
    /// A guest was moved, and its host has not reported it for long.
    #[error("{host} has not reported {guest} yet")]
    Unreported {
        /// The guest's name.
        guest: String,
        /// Where it was moved.
        host: String,
    },
    /// A migration was ordered and can no longer be seen.
    #[error("lost sight of the migration of {guest}, which goes on (evenkeel migration show {id})")]
    OutOfSight {
        /// The guest's name.
        guest: String,
        /// The migration's id, shortened.
        id: String,
        /// Why.
        #[source]
        source: Box<ClientError>,
    },
    /// A migration's outcome stays unknown.
    #[error(
        "the outcome of the migration of {guest} is unknown: its hosts do not agree or do not answer, and \
         the guest is not touched until they do (evenkeel migration show {id})"
    )]
    OutcomeUnknown {
        /// The guest's name.
        guest: String,
        /// The migration's id, shortened.
        id: String,
    },
    /// Hosts that are not drained when the following of that is over.
    #[error("{message}")]
    Drain {
        /// Who is left, and why.
        message: String,
        /// What kept it.
        trouble: DrainTrouble,
    },
    /// Drains were asked for and can no longer be seen.
    #[error("lost sight of the drain, which goes on (follow it again with {again})")]
    DrainOutOfSight {
        /// The command to see it again.
        again: String,
        /// Why.
        #[source]
        source: Box<ClientError>,
    },
    /// A roll that stopped.
    #[error("{message}")]
    Roll {
        /// Where, and why.
        message: String,
    },
    /// A policy with faults.
    #[error("{faults}")]
    Policy {
        /// Each with its place and an excerpt.
        faults: String,
    },
    /// A file that is no snapshot.
    #[error("{file}{}: no usable snapshot", at(.source))]
    Snapshot {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: SnapshotError,
    },
    /// A file that is no trace.
    #[error(transparent)]
    Trace(#[from] evenkeel_sim::TraceError),
    /// A fleet that cannot be simulated.
    #[error("cannot simulate {file}")]
    Simulation {
        /// The snapshot's file.
        file: String,
        /// Why.
        #[source]
        source: evenkeel_sim::SimError,
    },
    /// Standard output is gone or full.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The exit code it ends in.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::Policy { .. } => Exit::BadConfig,
            Self::Client(error) => error.exit(),
            Self::OutOfSight { source, .. } => source.exit(),
            Self::OutcomeUnknown { .. } | Self::Unreported { .. } => Exit::Deadline,
            Self::Stale(Stale::Busy { .. }) => Exit::Infeasible,
            Self::Stale(_) => Exit::Conflict,
            Self::DrainOutOfSight { source, .. } => source.exit(),
            Self::Drain { trouble, .. } => trouble.exit(),
            Self::Usage(_) | Self::Ambiguous { .. } => Exit::Usage,
            Self::Migration { refused: true, .. } => Exit::Infeasible,
            // A reader that has seen enough (`evenkeel guests | head`) is no failure.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            Self::Migration { refused: false, .. }
            | Self::Roll { .. }
            | Self::NotThere { .. }
            | Self::Unreadable { .. }
            | Self::Unwritable { .. }
            | Self::Document { .. }
            | Self::Snapshot { .. }
            | Self::Trace(_)
            | Self::Simulation { .. }
            | Self::Output(_) => Exit::Failed,
        }
    }

    /// The whole chain of causes in one line; `None` when there is nothing to say.
    #[must_use]
    pub fn words(&self) -> Option<String> {
        if self.exit() == Exit::Ok {
            return None;
        }
        let mut words = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            words.push_str(": ");
            words.push_str(&error.to_string());
            cause = error.source();
        }
        Some(words)
    }
}

/// Where in a file, as editors read it: `:12:5`.
fn at(error: &SnapshotError) -> String {
    error
        .position
        .map_or(String::new(), |(line, column)| format!(":{line}:{column}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_schedulers_become_the_promised_numbers() {
        let cases = [
            (Code::Ok, 0),
            (Code::NotFound, 1),
            (Code::Internal, 1),
            (Code::Aborted, 3),
            (Code::FailedPrecondition, 4),
            (Code::DeadlineExceeded, 5),
            (Code::Unavailable, 6),
            (Code::InvalidArgument, 64),
            (Code::PermissionDenied, 77),
            (Code::Unauthenticated, 77),
        ];
        for (code, number) in cases {
            assert_eq!(Exit::from(code).number(), number, "{code:?}");
        }
    }

    #[test]
    fn every_exit_has_a_number_of_its_own() {
        for (at, row) in Exit::ALL.iter().enumerate() {
            assert_eq!(row.0.number(), row.1);
            assert!(Exit::ALL[at + 1..].iter().all(|other| other.1 != row.1));
        }
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let closed = Failure::Output(io::ErrorKind::BrokenPipe.into());
        assert_eq!((closed.exit(), closed.words()), (Exit::Ok, None));
    }
}
