//! Evenkeel end to end, in the lab.
