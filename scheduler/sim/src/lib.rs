//! evenkeel-sim
