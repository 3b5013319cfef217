//! What is shipped for monitoring: the metrics' reference, alerts with their runbooks, and dashboards, as far as they can
//! be judged without a Prometheus. In the lab tests/e2e asks a real one.

#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod catalogue;
mod dashboards;
mod reference;
mod rules;
