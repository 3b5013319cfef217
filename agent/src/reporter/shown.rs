//! Where the reporter shows its figures.

pub use crate::metrics::AgentMetrics;
