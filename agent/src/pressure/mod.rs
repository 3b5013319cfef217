//! What the host itself says of its load: pressure, CPU, memory and network.
//!
//! [`parse`] turns text into values and never fails loudly; [`read`] opens the files. Rates are not made
//! here but in [`measure`](crate::measure), from two samples.

pub mod parse;
pub mod read;

pub use parse::{PressureTotals, Stalled};
pub use read::{HostReader, HostSample, Sources};
