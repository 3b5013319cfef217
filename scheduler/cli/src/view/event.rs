//! Events: `evenkeel.events/1`, and `evenkeel.event/1` for each that is followed.

use evenkeel_proto::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::{some_text, some_time};

/// `evenkeel.events/1`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Events {
    /// Always `evenkeel.events/1`.
    pub schema: &'static str,
    /// The events, newest last.
    pub events: Vec<Event>,
}

impl Events {
    /// The schema's name.
    pub const SCHEMA: &'static str = "evenkeel.events/1";
}

/// `evenkeel.event/1`: an event as it is followed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventLine {
    /// Always `evenkeel.event/1`.
    pub schema: &'static str,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

impl EventLine {
    /// The schema's name.
    pub const SCHEMA: &'static str = "evenkeel.event/1";
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// Its number; with the epoch it is unique.
    pub sequence: u64,
    /// Of the leader that recorded it.
    pub epoch: i64,
    /// When.
    pub at: Option<Timestamp>,
    /// What, of a closed set.
    pub kind: String,
    /// Who caused it.
    pub by: Option<String>,
    /// The guest it is about.
    pub guest: Option<String>,
    /// The guest's UUID.
    pub guest_uuid: Option<String>,
    /// The hosts it is about; of a migration source and target.
    pub hosts: Vec<String>,
    /// The migration's id.
    pub migration: Option<String>,
    /// Why, by name.
    pub reason: Option<String>,
    /// Why, in words and numbers.
    pub why: Option<String>,
    /// The policy in force, or the new one.
    pub policy_revision: u64,
    /// The new mode.
    pub mode: Option<String>,
    /// What the planner expected of a migration to save.
    pub saves_guest_seconds_per_hour: Option<f64>,
    /// What it expected it to cost.
    pub costs_guest_seconds: Option<f64>,
    /// How long a migration took.
    pub duration_ms: Option<i64>,
    /// How long the guest was paused.
    pub downtime_ms: Option<u64>,
    /// What was copied.
    pub transferred_bytes: Option<u64>,
}

impl From<v1::Event> for Event {
    fn from(event: v1::Event) -> Self {
        Self {
            sequence: event.sequence,
            epoch: event.epoch,
            at: some_time(event.at_ms),
            kind: event.kind,
            by: some_text(event.by),
            guest: some_text(event.guest),
            guest_uuid: some_text(event.guest_uuid),
            hosts: event.hosts,
            migration: some_text(event.migration),
            reason: some_text(event.reason),
            why: some_text(event.why),
            policy_revision: event.policy_revision,
            mode: some_text(event.mode),
            saves_guest_seconds_per_hour: event.prediction.map(|p| p.saves_guest_seconds_per_hour),
            costs_guest_seconds: event.prediction.map(|p| p.costs_guest_seconds),
            duration_ms: event.measured.map(|m| m.duration_ms),
            downtime_ms: event.measured.map(|m| m.downtime_ms),
            transferred_bytes: event.measured.map(|m| m.transferred_bytes),
        }
    }
}
