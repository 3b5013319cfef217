//! Yardsticks for the planner: seeded fleets of seven families, their optimum or a bound of it, what plain greedy
//! reaches, and what planning takes in time and memory.
//!
//! For development only: nothing that is shipped depends on it. The exact solver (`exact.py`, HiGHS) is called by
//! `make quality`; what it has proven stands in `bounds.json`, so that tests need no solver.

pub mod case;
pub mod dice;
pub mod document;
pub mod family;
pub mod instance;
pub mod quality;
pub mod search;
pub mod speed;
