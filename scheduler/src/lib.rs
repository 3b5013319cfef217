//! evenkeel-scheduler
