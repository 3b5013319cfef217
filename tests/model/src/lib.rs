//! Leader, agents, journal and libvirt, gone through exhaustively within small bounds.
//!
//! ```text
//!  leader: real reconcile ──order──▶ etcd ◀──journal── agent: real decide, MigrationState, verdicts
//!                         └─Migrate, late, lost, again──▶  │ call            ▲ answers
//!                                                          ▼                 │
//!                                                       libvirt, with its bad manners
//! ```
//!
//! The decisions are those of the shipped crates; only what is between them is made up here: etcd's transactions,
//! calls that are lost or come twice, daemons that die at any point, libvirt. [`bounds::Guard`] leaves one guard
//! out, and a test shows that the model then finds what it guards against. Documented in
//! docs/reference/model-checking.md.

pub mod agent;
pub mod bounds;
pub mod cast;
pub mod drain;
pub mod etcd;
pub mod leader;
pub mod libvirt;
pub mod properties;
pub mod report;
pub mod runs;
pub mod stage;
pub mod world;
