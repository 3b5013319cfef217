//! Ids, units and the migration life cycle: the words every part of Evenkeel shares.
//!
//! This crate imports nothing of ours and does no I/O. The migration state machine lives here because
//! the agent drives it and the scheduler follows it: both must agree on every transition.

pub mod convergence;
pub mod event;
pub mod id;
pub mod lifecycle;
pub mod reason;
pub mod whereabouts;

pub use convergence::{Ladder, Round, Rung};
pub use event::EventKind;
pub use id::{Epoch, GuestId, HostName, InvalidId, OrderId};
pub use lifecycle::{AbortCause, CallResult, Command, CopyFacts, Event, MigrationState, Outcome};
pub use reason::{FailureReason, Refusal};
pub use whereabouts::{Contradiction, Place, Presence, Whereabouts};
