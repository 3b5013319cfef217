//! How much longer a migration takes through Evenkeel than by `virsh migrate`: the same guests, hosts and flags, in
//! turns, so that whatever else the machine does hits both alike. docs/reference/migration-speed.md tells what came of
//! it.
//!
//! Nothing is asserted of times. A migration that fails is an error.

#![allow(
    clippy::panic,
    clippy::expect_used,
    reason = "a benchmark whose lab does not work cannot go on"
)]

mod report;
mod run;

use std::path::PathBuf;

use clap::Parser;
use evenkeel_fleets::document::fill;
use evenkeel_tests::{Lab, LabOptions, tell};

use run::{Block, Guest, Way};

/// The policy: nothing is in the way of so many at a time, and the copy is what virsh's is by default.
const POLICY: &str = "schema = 1\nmode = \"off\"\n[limits]\nmigrations_per_host = 16\nmigrations_per_cluster = 16\n\
     [migration]\nauto_converge = false\n";
/// A guest's memory, and how much of it changes all the time.
const GUEST: [&str; 4] = ["--mem", "128", "--dials", "d50 s500"];

/// Measures migrations through Evenkeel against `virsh migrate`.
#[derive(Debug, Parser)]
struct Options {
    /// Migrations of a block
    #[arg(long, default_value = "20", value_parser = at_least_one)]
    count: usize,
    /// Of these, at a time
    #[arg(long, default_value = "3", value_parser = at_least_one)]
    at_a_time: usize,
    /// Blocks of each way
    #[arg(long, default_value = "3", value_parser = at_least_one)]
    rounds: usize,
    /// Write a page about it, too
    #[arg(long)]
    into: Option<PathBuf>,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=1000).contains(n));
    number.ok_or_else(|| "expected 1 to 1000".to_owned())
}

fn main() {
    let options = Options::parse();
    let lab = Lab::up(&LabOptions {
        cpu_percent: 100,
        memory_mib: 2048,
        ..LabOptions::default()
    });
    lab.apply_policy(POLICY, 0).expect("a policy");
    // While some move, the others rest until the leader has heard where they are.
    let guests: Vec<Guest> = (1..=2 * options.at_a_time)
        .map(|n| {
            let name = format!("g{n}");
            lab.add_guest("h1", &name, &GUEST);
            let uuid = lab.uuid(&name);
            Guest { name, uuid }
        })
        .collect();
    // The first of each is slower: libvirtd reads what it needs of QEMU, connections are made.
    for way in [Way::Virsh, Way::Evenkeel] {
        drop(run::block(
            &lab,
            way,
            &guests,
            options.at_a_time,
            2 * guests.len(),
        ));
    }
    let mut blocks: Vec<Block> = vec![];
    for round in 0..options.rounds {
        let mut ways = [Way::Virsh, Way::Evenkeel];
        if round % 2 == 1 {
            ways.reverse();
        }
        for way in ways {
            let block = run::block(&lab, way, &guests, options.at_a_time, options.count);
            tell!("{}", report::line(&block));
            blocks.push(block);
        }
    }
    for guest in &guests {
        let (name, heart) = (&guest.name, lab.heart(&guest.name));
        assert!(heart.missing().is_empty(), "{name} has lost heartbeats");
        assert!(heart.counted_twice.is_empty(), "{name} ran twice");
    }
    let summary = report::summary(&blocks, options.at_a_time);
    tell!("{summary}");
    if let Some(page) = &options.into {
        fill(page, "make migration-speed", &summary).expect("the page is written");
    }
}
