//! The agent's metrics.
