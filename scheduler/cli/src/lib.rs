//! The operators' tool: a client of the schedulers' gRPC service, or offline on a snapshot file.
//!
//! ```text
//!  args ─▶ commands ─▶ client (gRPC) or a snapshot file ─▶ view (documents) ─▶ output (text) ─▶ stdout
//! ```
//!
//! `view` holds what is shown as data, which is also what `-o json` prints; `output` turns it into text and
//! is pure. Generated messages do not go past `view`.

pub mod args;
pub mod client;
pub mod commands;

pub mod config;
pub mod exit;
pub mod output;
pub mod view;
