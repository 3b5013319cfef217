//! What keeps automatic moves from starting: each hold is one sentence that an operator can act on.

use std::fmt;
use std::time::Duration;

use evenkeel_planner::Mode;
use evenkeel_types::{MigrationState, Outcome};

use super::policy::ActivePolicy;
use crate::observe::Fleet;

/// More than this share of the known hosts missing at once is a fault of ours or of the network, not of
/// the hosts: moving guests on such a picture would be acting on a guess.
const MISSING_SHARE: f64 = 0.34;
/// Failures within [`FAILURE_WINDOW`] that stop automatic moves.
const FAILURES: usize = 3;
/// How long a failure counts.
const FAILURE_WINDOW: Duration = Duration::from_secs(600);

/// A reason why nothing moves by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Hold {
    /// The mode does not ask for it.
    Mode(Mode),
    /// An operator paused the fleet.
    Paused {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// Until when, milliseconds since the Unix epoch; `None`: until resumed.
        until_ms: Option<i64>,
    },
    /// The policy in etcd is broken.
    BrokenPolicy(String),
    /// etcd has not been read yet.
    NotReady,
    /// Too many hosts are silent at once.
    HostsMissing {
        /// Silent ones.
        missing: usize,
        /// Known ones.
        known: usize,
    },
    /// Too many migrations failed lately.
    Failures {
        /// How many.
        count: usize,
    },
    /// This core has watched for less than the hold time: it cannot know yet what lasts.
    WarmingUp {
        /// How much longer.
        left: Duration,
    },
}

impl Hold {
    /// The fixed name used as a metric label.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Mode(_) => "mode",
            Self::Paused { .. } => "paused",
            Self::BrokenPolicy(_) => "broken_policy",
            Self::NotReady => "not_ready",
            Self::HostsMissing { .. } => "hosts_missing",
            Self::Failures { .. } => "failures",
            Self::WarmingUp { .. } => "warming_up",
        }
    }

    /// Every name, for metrics that must exist before they happen.
    pub const NAMES: [&'static str; 7] = [
        "mode",
        "paused",
        "broken_policy",
        "not_ready",
        "hosts_missing",
        "failures",
        "warming_up",
    ];
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mode(mode) => write!(f, "mode is {}", mode.as_str()),
            Self::Paused {
                by,
                reason,
                until_ms,
            } => {
                write!(f, "paused by {by}: {reason}")?;
                match until_ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) {
                    Some(until) => write!(f, " (until {until:.0})"),
                    None => write!(f, " (until resumed)"),
                }
            }
            Self::BrokenPolicy(fault) => write!(f, "the policy in etcd is broken: {fault}"),
            Self::NotReady => write!(f, "etcd has not been read yet"),
            Self::HostsMissing { missing, known } => {
                write!(f, "{missing} of {known} hosts are silent")
            }
            Self::Failures { count } => {
                write!(
                    f,
                    "{count} migrations failed within {} min",
                    FAILURE_WINDOW.as_secs() / 60
                )
            }
            Self::WarmingUp { left } => write!(f, "warming up, {} s left", left.as_secs()),
        }
    }
}

/// The pause that is in force at `now_ms`, if any.
#[must_use]
pub fn pause_in_force(fleet: &Fleet, now_ms: i64) -> Option<Hold> {
    let pause = fleet.pause.as_ref()?;
    let until_ms = (pause.until_ms > 0).then_some(pause.until_ms);
    if until_ms.is_some_and(|until| until <= now_ms) {
        return None;
    }
    Some(Hold::Paused {
        by: pause.by.clone(),
        reason: pause.reason.clone(),
        until_ms,
    })
}

/// Everything that holds automatic moves back; empty: nothing.
pub(super) fn judge(
    fleet: &Fleet,
    active: &ActivePolicy,
    watched_ms: i64,
    now_ms: i64,
) -> Vec<Hold> {
    let mut holds = vec![];
    if !fleet.complete {
        holds.push(Hold::NotReady);
    }
    if active.policy().mode != Mode::Automatic {
        holds.push(Hold::Mode(active.policy().mode));
    }
    holds.extend(
        active
            .fault()
            .map(|fault| Hold::BrokenPolicy(fault.to_owned())),
    );
    holds.extend(pause_in_force(fleet, now_ms));
    holds.extend(hosts_missing(fleet));
    let failures = recent_failures(fleet, now_ms);
    if failures >= FAILURES {
        holds.push(Hold::Failures { count: failures });
    }
    let watched = Duration::from_millis(u64::try_from(watched_ms).unwrap_or(0));
    let left = active.policy().control.hold.saturating_sub(watched);
    if !left.is_zero() {
        holds.push(Hold::WarmingUp { left });
    }
    holds
}

fn hosts_missing(fleet: &Fleet) -> Option<Hold> {
    let known = fleet.hosts.len();
    let missing = fleet
        .hosts
        .keys()
        .filter(|host| !fleet.reports.contains_key(*host))
        .count();
    let share = f64::from(u32::try_from(missing).unwrap_or(u32::MAX))
        / f64::from(u32::try_from(known.max(1)).unwrap_or(u32::MAX));
    (share > MISSING_SHARE).then_some(Hold::HostsMissing { missing, known })
}

fn recent_failures(fleet: &Fleet, now_ms: i64) -> usize {
    let since = now_ms - i64::try_from(FAILURE_WINDOW.as_millis()).unwrap_or(0);
    let failed = |state: &MigrationState| matches!(state.outcome(), Some(Outcome::Failed { .. }));
    fleet
        .remembered
        .values()
        .flat_map(|guest| guest.moves.iter())
        .filter(|past| past.ended_ms >= since && past.state.as_ref().is_some_and(failed))
        .count()
}
