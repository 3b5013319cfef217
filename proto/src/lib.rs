//! evenkeel-proto
