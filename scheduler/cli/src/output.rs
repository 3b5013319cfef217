//! From documents to text. Everything here is pure: what is seen depends on the arguments only.

pub mod doctor;
pub mod drain;
pub mod explain;
pub mod json;
pub mod paint;
pub mod place;
pub mod plan;
pub mod progress;
pub mod show;
pub mod status;
pub mod table;
pub mod text;
pub mod time;
pub mod top;

use jiff::Timestamp;

/// How text is to look.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Whether colours may be used.
    pub colour: bool,
    /// Whether all columns are wanted.
    pub wide: bool,
    /// Ages are counted from here.
    pub now: Timestamp,
}
