//! evenkeel-tests
