//! The harness of the end-to-end suites: labs, what runs in them, and ways to look at it.
//!
//! A test brings up a [`Lab`], does something to it, and looks at what really happened: in etcd (with the
//! whole history of every key), in libvirt, in the guests' own heartbeats. Nothing here decides what is right.
//! A harness fails its test by panicking, with all that it knows in the message.

#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a harness fails its test by panicking"
)]

pub mod books;
pub mod dashboards;
pub mod etcd;
pub mod guests;
pub mod lab;
pub mod network;
pub mod processes;
pub mod schedulers;
pub mod turn;
pub mod wait;

pub use lab::{Lab, LabOptions};
pub use wait::{until, wait_for};

/// Writes a line past the test runner's capture: measured figures are to be seen of passing tests, too.
#[macro_export]
macro_rules! tell {
    ($($words:tt)*) => { $crate::tell_line(&format!($($words)*)) };
}

/// What [`tell!`] does.
pub fn tell_line(line: &str) {
    use std::io::Write;
    // Nobody to tell when standard error is closed.
    drop(writeln!(std::io::stderr(), "{line}"));
}
