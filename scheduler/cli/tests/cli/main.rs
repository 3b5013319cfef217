//! The real binary against a scheduler that answers from a recorded fleet, over real mTLS; the pure
//! rendering against the same fleet; and the reference page, made of the help texts.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests stand outside of test functions"
)]

mod apply;
mod changes;
mod doctor;
mod drain;
mod events;
mod explain;
mod failures;
mod fake;
mod fleet;
mod migrate;
mod offline;
mod pages;
mod picture;
mod reads;
mod reference;
mod render;
mod terminal;
mod world;
