//! A fleet with a virtual clock: days in seconds, the real estimator, planner and controller core inside.
//!
//! [`world`] is the fleet: guests that want CPU, hosts that give it in shares, migrations that take time and
//! bandwidth while their guests go on to dirty memory. [`run`] is the scheduler's loop over it, second by second.
//! Everything follows from the seed. [`trace`] reads recorded load.

pub mod judge;
pub mod run;
pub mod trace;
pub mod world;

pub use run::{Outcome, Simulation};
pub use trace::{GuestSpec, Trace, TraceError};
pub use world::{SimGuest, SimHost, World};
