//! The scheduler: observe, estimate, plan, execute. Several replicas run; one leads.
//!
//! Pure: [`core`] (what to do next), [`execute::reconcile`] and [`observe::Fleet`]. Everything else is the
//! shell around them. The simulator drives the pure part with a virtual clock.

pub mod api;
pub mod config;
pub mod controller;
pub mod core;
pub mod execute;
pub mod lease;
pub mod metrics;
pub mod observe;
