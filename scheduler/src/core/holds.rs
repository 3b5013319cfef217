//! What keeps automatic moves from starting: each hold is one sentence that an operator can act on.

use std::fmt;
use std::time::Duration;

use evenkeel_planner::{HostState, Mode, Plan, Policy, Snapshot, check};
use evenkeel_types::{MigrationState, Outcome};

use super::millis;
use super::policy::ActivePolicy;
use crate::observe::{Fleet, Remembered};

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
    /// The picture contradicts itself, so that nothing can be planned from it.
    BadPicture(String),
    /// The newest plan would break a limit or a rule: a fault of the planner, nothing of it is started.
    FaultyPlan(String),
    /// Too many hosts are silent, stale or without libvirt at once.
    HostsMissing {
        /// Those.
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
    /// Whether drains wait for it, too. They need no patience, are asked for in every mode, and what fails to leave
    /// waits by itself: it must not keep the others.
    #[must_use]
    pub fn holds_drains(&self) -> bool {
        match self {
            Self::Paused { .. }
            | Self::BrokenPolicy(_)
            | Self::NotReady
            | Self::BadPicture(_)
            | Self::FaultyPlan(_)
            | Self::HostsMissing { .. } => true,
            Self::Mode(_) | Self::Failures { .. } | Self::WarmingUp { .. } => false,
        }
    }

    /// The fixed name used as a metric label.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Mode(_) => "mode",
            Self::Paused { .. } => "paused",
            Self::BrokenPolicy(_) => "broken_policy",
            Self::NotReady => "not_ready",
            Self::BadPicture(_) => "bad_picture",
            Self::FaultyPlan(_) => "faulty_plan",
            Self::HostsMissing { .. } => "hosts_missing",
            Self::Failures { .. } => "failures",
            Self::WarmingUp { .. } => "warming_up",
        }
    }

    /// Every name, for metrics that must exist before they happen.
    pub const NAMES: [&'static str; 9] = [
        "mode",
        "paused",
        "broken_policy",
        "not_ready",
        "bad_picture",
        "faulty_plan",
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
            Self::BadPicture(fault) => write!(f, "the fleet cannot be understood: {fault}"),
            Self::FaultyPlan(fault) => write!(f, "the newest plan is faulty: {fault}"),
            Self::HostsMissing { missing, known } => {
                write!(
                    f,
                    "{missing} of {known} hosts are silent, stale or without libvirt"
                )
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

/// The hold that follows from a plan which would break something, carried out on what it was made from.
#[must_use]
pub fn faulty_plan(snapshot: &Snapshot, policy: &Policy, plan: &Plan) -> Option<Hold> {
    if plan.steps.is_empty() {
        return None; // what breaks nothing need not be played
    }
    let faults = check(snapshot, policy, plan);
    let first = faults.first()?;
    Some(Hold::FaultyPlan(format!(
        "plan {}, step {}: {}",
        plan.id, first.step, first.detail
    )))
}

/// What holds are judged from.
#[derive(Clone, Copy)]
pub(super) struct Picture<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) active: &'a ActivePolicy,
    pub(super) snapshot: &'a Snapshot,
    /// How long this core has seen a complete picture.
    pub(super) watched: Duration,
    pub(super) now_ms: i64,
}

/// Everything that holds automatic moves back; empty: nothing.
pub(super) fn judge(picture: Picture<'_>) -> Vec<Hold> {
    let Picture {
        fleet,
        active,
        snapshot,
        watched,
        now_ms,
    } = picture;
    let mut holds = vec![];
    if !fleet.complete {
        holds.push(Hold::NotReady);
    }
    if active.policy().mode != Mode::Automatic {
        holds.push(Hold::Mode(active.policy().mode));
    }
    let fault = active
        .fault()
        .map(|fault| Hold::BrokenPolicy(fault.to_owned()));
    holds.extend(fault);
    holds.extend(pause_in_force(fleet, now_ms));
    holds.extend(hosts_missing(fleet, snapshot));
    holds.extend(
        snapshot
            .validate()
            .err()
            .map(|error| Hold::BadPicture(error.to_string())),
    );
    let failures = recent_failures(fleet, now_ms);
    if failures >= FAILURES {
        holds.push(Hold::Failures { count: failures });
    }
    let left = active.policy().control.hold.saturating_sub(watched);
    if !left.is_zero() {
        holds.push(Hold::WarmingUp { left });
    }
    holds
}

/// Hosts that are silent, whose report is old or whose libvirt does not answer are equally unknown.
///
/// One that was drained is in an operator's hands: that it is away is no news, and nothing is lost with it.
fn hosts_missing(fleet: &Fleet, snapshot: &Snapshot) -> Option<Hold> {
    let is_drained = |name: &str| {
        let intent = name.parse().ok().and_then(|name| fleet.intents.get(&name));
        intent.is_some_and(|intent| intent.message.drained_at_ms > 0)
    };
    let hosts = || snapshot.hosts.iter().filter(|h| !is_drained(&h.name));
    let known = hosts().count();
    let missing = hosts()
        .filter(|host| host.state == HostState::Absent)
        .count();
    let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    let too_many = count(missing) > MISSING_SHARE * count(known);
    too_many.then_some(Hold::HostsMissing { missing, known })
}

/// Failures that count. A drain tries the same guest again and again: however often, that is one.
fn recent_failures(fleet: &Fleet, now_ms: i64) -> usize {
    let since = now_ms.saturating_sub(millis(FAILURE_WINDOW));
    let failed = |state: &MigrationState| matches!(state.outcome(), Some(Outcome::Failed { .. }));
    let of_guest = |guest: &Remembered| {
        let recent = guest.moves.iter().filter(|past| past.ended_ms >= since);
        let failures = recent.filter(|past| past.state.as_ref().is_some_and(failed));
        let (drains, others): (Vec<_>, Vec<_>) = failures.partition(|p| p.trigger == "drain");
        others.len() + drains.len().min(1)
    };
    fleet.remembered.values().map(of_guest).sum()
}
