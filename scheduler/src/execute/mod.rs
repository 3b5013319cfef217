//! From a decision to an order in etcd, to the source agent, and to the record of what came of it.
//!
//! Orders are created only if absent and only under the leader's key, so a guest never has two and a deposed
//! leader gives none. What happens to a standing order is decided by [`reconcile`], pure, from what etcd says;
//! nothing depends on a call having been answered.

pub mod agents;
pub mod orders;
pub mod reconcile;

pub use agents::{Agents, Delivery};
pub use reconcile::{OrderAction, reconcile};
