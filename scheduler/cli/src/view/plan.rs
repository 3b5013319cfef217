//! What the table of a plan needs of an `evenkeel.plan/1` document. `-o json` passes the document itself on.

use serde::{Deserialize, Serialize};

use super::Migration;

/// A plan as read; unknown fields are ignored, as newer schedulers add some.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Plan {
    /// `evenkeel.plan/1`.
    pub schema: String,
    /// Depends on the content only.
    #[serde(default)]
    pub id: String,
    /// The cluster's name.
    #[serde(default)]
    pub cluster: String,
    /// Guest-seconds lost per second, now.
    pub loss_before: f64,
    /// The same after the last step.
    pub loss_after: f64,
    /// Spread of the hosts' CPU utilisation, now.
    #[serde(default)]
    pub imbalance_before: f64,
    /// The same after the last step.
    #[serde(default)]
    pub imbalance_after: f64,
    /// The moves.
    pub steps: Vec<Step>,
    /// What is not moved.
    #[serde(default)]
    pub blocked: Vec<Blocked>,
    /// The hosts that it changes.
    #[serde(default)]
    pub hosts: Vec<HostChange>,
}

/// A host that a plan changes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct HostChange {
    /// Its name.
    pub host: String,
    /// Guest-seconds lost per second, now.
    pub loss_before: f64,
    /// The same after the plan.
    pub loss_after: f64,
    /// CPU demand over cores, now.
    pub cpu_utilisation_before: f64,
    /// The same after the plan.
    pub cpu_utilisation_after: f64,
    /// Memory allocated over memory, now.
    pub memory_utilisation_before: f64,
    /// The same after the plan.
    pub memory_utilisation_after: f64,
}

/// One move.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Step {
    /// Moves of one wave may run side by side.
    pub wave: u32,
    /// The guest.
    pub guest: String,
    /// Where it is.
    pub from: String,
    /// Where it goes.
    pub to: String,
    /// Why, by name.
    pub reason: String,
    /// Why, in words and numbers.
    #[serde(default)]
    pub why: String,
    /// What it saves.
    pub saves_guest_seconds_per_hour: f64,
    /// What it costs.
    pub costs_guest_seconds: f64,
    /// The fixed price of moving.
    #[serde(default)]
    pub price_guest_seconds: f64,
    /// How long it copies.
    pub copy_seconds: f64,
    /// How long the guest stands still.
    pub downtime_seconds: f64,
    /// What it copies.
    pub bytes: u64,
    /// Moves, by number from 1, that must be done before.
    #[serde(default)]
    pub after: Vec<usize>,
}

/// Something that is not moved.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Blocked {
    /// A guest.
    #[serde(default)]
    pub guest: Option<String>,
    /// Or a host.
    #[serde(default)]
    pub host: Option<String>,
    /// Or a rule.
    #[serde(default)]
    pub rule: Option<String>,
    /// Why, by name.
    pub reason: String,
    /// The number or name that decided.
    #[serde(default)]
    pub detail: String,
}

/// `evenkeel.applied/1`: how far a plan was carried out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AppliedPlan {
    /// Always `evenkeel.applied/1`.
    pub schema: &'static str,
    /// The plan's id.
    pub plan: String,
    /// Its steps, in their order.
    pub steps: Vec<AppliedStep>,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

/// A step that was to be carried out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AppliedStep {
    /// The guest.
    pub guest: String,
    /// Where it was.
    pub from: String,
    /// Where it was to go.
    pub to: String,
    /// Whether it is there.
    pub done: bool,
    /// Its migration as it was seen last; null: it was not ordered.
    pub migration: Option<Migration>,
}

impl AppliedPlan {
    /// A plan of which nothing is carried out yet.
    #[must_use]
    pub fn new(plan: &evenkeel_planner::Plan, dry_run: bool) -> Self {
        let step = |step: &evenkeel_planner::plan::Step| AppliedStep {
            guest: step.guest.clone(),
            from: step.from.clone(),
            to: step.to.clone(),
            done: false,
            migration: None,
        };
        Self {
            schema: "evenkeel.applied/1",
            plan: plan.id.clone(),
            steps: plan.steps.iter().map(step).collect(),
            dry_run,
        }
    }
}
