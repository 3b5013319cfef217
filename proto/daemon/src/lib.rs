//! evenkeel-daemon
