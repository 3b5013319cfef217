//! The agent of one host: measures and reports, guards its host, and carries out migrations.
//!
//! ```text
//!  hypervisor (libvirt, fake)          etcd            other agents, the leader
//!     │ counters      ▲ migrate          ▲                     │ gRPC
//!     ▼               │                  │                     ▼
//!  measure ──▶ reporter ──reports──▶ store ◀──journal── driver ◀── service
//!                                                   ▲
//!                                        adopt ─────┘ (after a restart)
//! ```
//!
//! The agent is the gatekeeper of its host: nothing starts here without an order that stands in etcd under the
//! leader's epoch, and its journal of a migration outlives it.

pub mod hypervisor;
pub mod measure;
pub mod metrics;
pub mod pressure;
