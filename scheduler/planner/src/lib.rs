//! The pure core of Evenkeel: from a fleet's state and a policy to a priced, ordered, explained plan.
//!
//! Called by the scheduler's control loop, by the command line (offline on a snapshot) and by the
//! simulator. It does no I/O, reads no clock, draws no entropy and logs nothing: the same snapshot, policy
//! and options give the same plan, bit for bit.
//!
//! One currency runs through everything: *guest-seconds lost*, one vCPU of a guest stalled for one second.
//! A host's or fleet's loss is guest-seconds per second.

#![deny(unused_must_use)]

pub mod constants;
pub mod estimate;
mod glob;
pub mod loss;
pub mod normal;
mod num;
pub mod plan;
pub mod policy;
pub mod precopy;
pub mod snapshot;

pub use loss::{FleetLoss, HostLoss, fleet_loss, host_loss};
pub use plan::{BlockReason, Blocked, HostChange, Plan, Step, StepReason};
pub use policy::{Mode, Policy, PolicyError, Strategy, Strength};
pub use snapshot::{
    Guest, GuestState, Host, HostState, InFlight, Pressure, Snapshot, SnapshotError,
};
