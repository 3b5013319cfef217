//! Cordons and drains, as hosts show them and as commands have changed them.

use evenkeel_proto::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::{Host, some_text, some_time};

/// What operators want of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Intent {
    /// cordon or drain.
    pub kind: String,
    /// Who asked for it.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Of a drain: when it should be over.
    pub deadline: Option<Timestamp>,
    /// Of a drain: whether shut-off guests have to go, too.
    pub offline_too: bool,
    /// Of a drain: since when libvirt has nothing left.
    pub drained_at: Option<Timestamp>,
    /// Whether the host was cordoned before the drain and is so again after it.
    pub cordoned_before: bool,
}

/// How a drain stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drain {
    /// draining, held, stuck or drained.
    pub state: String,
    /// Guests that have to go and are there.
    pub left: u32,
    /// Of them: on their way.
    pub moving: u32,
    /// Shut-off guests that stay because nobody asked to move them.
    pub shut_off_stay: u32,
    /// Guests that cannot go now.
    pub obstacles: Vec<Obstacle>,
    /// What holds it, a sentence each.
    pub holds: Vec<String>,
    /// Whether its deadline has passed and something is left.
    pub overdue: bool,
}

/// A guest that cannot go now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// Its name.
    pub guest: String,
    /// Why, by name.
    pub reason: String,
    /// Why, in words and numbers.
    pub detail: String,
    /// When it is tried again; null: when what stands in the way is gone.
    pub retry_at: Option<Timestamp>,
}

/// `evenkeel.intents/1`: what a command has changed about hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IntentsChange {
    /// Always `evenkeel.intents/1`.
    pub schema: &'static str,
    /// The hosts asked for.
    pub hosts: Vec<HostIntent>,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

/// One host of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostIntent {
    /// Its name.
    pub host: String,
    /// What stood before; null: nothing.
    pub before: Option<Intent>,
    /// What stands now, or would; null: nothing.
    pub now: Option<Intent>,
}

/// `evenkeel.drain/1`: how followed drains have ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DrainEnd {
    /// Always `evenkeel.drain/1`.
    pub schema: &'static str,
    /// The hosts, as they were seen last.
    pub hosts: Vec<Host>,
}

/// `evenkeel.roll/1`: how far a roll has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RollEnd {
    /// Always `evenkeel.roll/1`.
    pub schema: &'static str,
    /// Hosts that were drained, worked on and put back.
    pub done: Vec<String>,
    /// Hosts at which it stopped, with what went wrong and how each was left.
    pub failed: Vec<RollFailure>,
    /// Hosts that were not begun, or were put back before anything was done to them.
    pub remaining: Vec<String>,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

/// A host at which a roll stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RollFailure {
    /// Its name.
    pub host: String,
    /// What went wrong.
    pub message: String,
    /// How the host was left.
    pub left: String,
}

impl IntentsChange {
    /// The schema's name.
    pub const SCHEMA: &'static str = "evenkeel.intents/1";
}

impl DrainEnd {
    /// The schema's name.
    pub const SCHEMA: &'static str = "evenkeel.drain/1";
}

impl RollEnd {
    /// The schema's name.
    pub const SCHEMA: &'static str = "evenkeel.roll/1";
}

impl From<v1::Intent> for Intent {
    fn from(intent: v1::Intent) -> Self {
        let kind = match intent.kind() {
            v1::IntentKind::Drain => "drain",
            v1::IntentKind::Cordon | v1::IntentKind::Unspecified => "cordon",
        };
        Self {
            kind: kind.to_owned(),
            by: some_text(intent.by),
            reason: some_text(intent.reason),
            since: some_time(intent.since_ms),
            deadline: some_time(intent.deadline_ms),
            offline_too: intent.offline_too,
            drained_at: some_time(intent.drained_at_ms),
            cordoned_before: intent.cordon.is_some(),
        }
    }
}

impl From<v1::DrainView> for Drain {
    fn from(drain: v1::DrainView) -> Self {
        let obstacles = drain.obstacles.into_iter().map(|obstacle| Obstacle {
            guest: obstacle.guest,
            reason: obstacle.reason,
            detail: obstacle.detail,
            retry_at: some_time(obstacle.retry_at_ms),
        });
        Self {
            state: drain.state,
            left: drain.left,
            moving: drain.moving,
            shut_off_stay: drain.shut_off_stay,
            obstacles: obstacles.collect(),
            holds: drain.holds,
            overdue: drain.overdue,
        }
    }
}
