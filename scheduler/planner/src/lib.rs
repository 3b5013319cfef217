//! The pure core of Evenkeel: from a fleet's state and a policy to a priced, ordered, explained plan.
//!
//! Called by the scheduler's control loop, by the command line (offline on a snapshot) and by the
//! simulator. It does no I/O, reads no clock, draws no entropy and logs nothing: the same snapshot, policy
//! and options give the same plan, bit for bit.
//!
//! One currency runs through everything: *guest-seconds lost*, one vCPU of a guest stalled for one second.
//! A host's or fleet's loss is guest-seconds per second.

#![deny(unused_must_use)]

pub mod check;
pub mod constants;
pub mod estimate;
pub mod explain;
mod glob;
pub mod loss;
mod model;
pub mod newcomer;
pub mod normal;
mod num;
mod order;
pub mod place;
pub mod plan;
mod planning;
pub mod policy;
pub mod precopy;
mod recheck;
mod rules;
mod search;
pub mod snapshot;
pub mod stale;
pub mod surrogate;

pub use check::{LastLook, NotNow, Violation, check, step_is_still_good};
pub use explain::{
    Explain, ExplainError, Explanation, PlanReport, Rejection, Subject, Verdict, explain,
};
pub use glob::matches as name_matches;
pub use loss::{FleetLoss, HostLoss, fleet_loss, host_loss};
pub use model::ShutOffGuests;
pub use newcomer::{Newcomer, Placement, place_new};
pub use place::{place_one, rule_faults};
pub use plan::{BlockReason, Blocked, HostChange, Plan, Step, StepReason};
pub use planning::{Options, plan};
pub use policy::{Limits, Mode, Policy, PolicyError, Strategy, Strength};
pub use rules::{RuleStanding, rules_standing};
pub use search::Purpose;
pub use snapshot::{
    Guest, GuestState, Host, HostState, InFlight, Pressure, RefusedBy, Snapshot, SnapshotError,
};
pub use stale::{Stale, still_good};
pub use surrogate::{Variance, frozen_variances, migration_costs};
