//! What is installed on hosts: units, configuration, packages, and the page that says how.
//!
//! Needs root and what `deploy/setup-debian --lab` installs; built only with the feature `lab`. Packages are made of the
//! programs under test (`LAB_BIN`), so that nothing is compiled here.

#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod configuration;
mod debian;
mod page;
mod polkit;
mod scratch;
mod units;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use evenkeel_tests::lab::repository;

/// Something that follows from what was done has come about within this time, however busy the machine is.
const SOON: Duration = Duration::from_secs(60);
/// The daemons: the last part of their names.
const DAEMONS: [&str; 2] = ["agent", "scheduler"];

/// A file of `deploy`.
fn deployed(path: &str) -> PathBuf {
    repository().join("deploy").join(path)
}

fn text_of(path: &str) -> String {
    let path = deployed(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a program said, on both of its outputs.
fn said(done: &Output) -> String {
    let both = [&done.stdout[..], &done.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Runs a program to its end.
fn run(program: &str, words: &[&str]) -> Output {
    let mut command = Command::new(program);
    command
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}
