//! The agent of one host: measures and reports, guards its host, and carries out migrations.
//!
//! ```text
//!  hypervisor (libvirt, fake)         etcd                other agents, the leader
//!     │ counters       ▲ migrate        ▲  ▲                     │ gRPC
//!     ▼                │                │  └──── journal ◀─┐     ▼
//!  measure ──▶ reporter, inventory ─────┘             ├── driver, target ◀── service
//!  dirtying (curves) ◀── service              adopt ──┘
//! ```
//!
//! The agent is the gatekeeper of its host: nothing starts here without an order that stands in etcd under the
//! leader's epoch, and its journal of a migration outlives it.

pub mod adopt;
pub mod calls;
pub mod config;
pub mod digest;
pub mod dirtying;
pub mod disk_locks;
pub mod driver;
pub mod epoch;
pub mod hypervisor;
pub mod incoming;
pub mod inventory;
pub mod journal;
pub mod ledger;
pub mod measure;
pub mod metrics;
pub mod peer;
pub mod pressure;
pub mod reporter;
pub mod reservation;
pub mod run;
pub mod service;
pub mod target;
