//! Ids, units and the migration life cycle: the words every part of Evenkeel shares.
//!
//! This crate imports nothing of ours and does no I/O.
