//! A fleet with a virtual clock: days in seconds, the real estimator, planner and controller core inside.
//!
//! ```text
//!  fleet, placement ─▶ World ◀─ load (stationary, or trace), faults        everything follows from the seed
//!                       │ ▲
//!         agents:       │ │ migrations: migration
//!         reports       ▼ │
//!                     Simulation: Core::note, assess ─▶ plan ─▶ choose ─▶ orders      (run)
//!                       │
//!                       ▼
//!                     Outcome (score) ─▶ Comparison of strategies (compare, clairvoyant) ─▶ report, picture
//! ```
//!
//! The world's side is not the planner's: migrations go round by round on noisy dirty rates and shared links
//! ([`migration`]), contention is counted tick by tick on what guests really want ([`world`]), hosts and agents fail
//! ([`faults`]). Called by `evenkeel simulate`, by tests and by the example `stability`; daemons do not know it.

mod agents;
pub mod clairvoyant;
pub mod compare;
mod contention;
pub mod faults;
pub mod fleet;
pub mod judge;
pub mod load;
pub mod migration;
mod num;
pub mod picture;
pub mod placement;
pub mod report;
pub mod run;
pub mod score;
pub mod trace;
pub mod world;

pub use compare::{Scenario, SimError, Strategy};
pub use faults::Faults;
pub use fleet::{Fleet, FleetError, SimGuest, SimHost};
pub use load::Pattern;
pub use placement::{Hosts, Start};
pub use report::Report;
pub use run::Simulation;
pub use score::{Move, Outcome};
pub use trace::{GuestSpec, Trace, TraceError};
pub use world::World;
