//! Facts about the loop over minutes and hours of virtual time. The seed of a failing case is in its message.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, in a crate that is nothing else"
)]

use evenkeel_sim::{Outcome, SimGuest, SimHost, Simulation, World};
use evenkeel_types::HostName;

/// Ten minutes.
const TEN_MINUTES: u32 = 600;
/// Automatic, otherwise as built in.
const AUTOMATIC: &str = "schema = 1\nmode = \"automatic\"\n";

fn name(number: usize) -> HostName {
    format!("h{number}").parse().unwrap()
}

fn hosts(count: usize) -> Vec<SimHost> {
    let host = |number| SimHost {
        name: name(number),
        cpu_cores: 8.0,
        memory_mib: 65_536,
        bandwidth_mib_s: 500.0,
    };
    (1..=count).map(host).collect()
}

/// `per_host[i]` guests on host i + 1, each wanting half a core, more or less.
fn guests(per_host: &[u32]) -> Vec<SimGuest> {
    let mut number = 0;
    let mut guests = vec![];
    for (host, count) in per_host.iter().enumerate() {
        for _ in 0..*count {
            number += 1;
            guests.push(SimGuest::new(number, &name(host + 1), 0.5, 0.15).unwrap());
        }
    }
    guests
}

fn simulate(per_host: &[u32], policy: &str, seed: u64, seconds: u32) -> (Simulation, Outcome) {
    let world = World::new(hosts(per_host.len()), guests(per_host), seed);
    let mut simulation = Simulation::new(world, policy);
    assert_eq!(simulation.policy_fault(), None);
    let outcome = simulation.run(seconds);
    (simulation, outcome)
}

#[test]
fn a_balanced_fleet_stays_as_it_is_for_ten_minutes() {
    for seed in 0..10 {
        let (_, outcome) = simulate(&[10, 10, 10], AUTOMATIC, seed, TEN_MINUTES);
        assert_eq!(outcome.moves, [], "seed {seed}");
    }
}

#[test]
fn a_hot_host_is_relieved_and_then_there_is_peace() {
    for seed in 0..5 {
        let (mut simulation, outcome) = simulate(&[24, 2, 2], AUTOMATIC, seed, 5400);
        assert!(!outcome.moves.is_empty(), "seed {seed}: nothing moved");
        assert!(
            outcome.moves.iter().all(|m| m.source == "h1"),
            "seed {seed}: {:?}",
            outcome.moves
        );
        let untouched = simulate(&[24, 2, 2], "schema = 1\n", seed, 5400).1;
        assert_eq!(untouched.moves, [], "observing moves nothing");
        assert!(
            outcome.lost < untouched.lost / 2.0,
            "seed {seed}: lost {} with moves, {} without",
            outcome.lost,
            untouched.lost
        );
        let later = simulation.run(3600);
        assert_eq!(later.moves, [], "seed {seed}: moves on a stationary load");
    }
}

#[test]
fn no_guest_goes_back_and_forth() {
    let (_, outcome) = simulate(&[20, 12, 4, 2], AUTOMATIC, 7, 7200);
    let mut guests: Vec<&str> = outcome.moves.iter().map(|m| m.guest.as_str()).collect();
    guests.sort_unstable();
    let moves = guests.len();
    guests.dedup();
    assert_eq!(guests.len(), moves, "{:?}", outcome.moves);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || simulate(&[20, 4, 2], AUTOMATIC, 3, 1800).1.moves;
    assert_eq!(run(), run());
}

#[test]
fn a_host_below_the_threshold_of_hot_spots_is_relieved_when_a_plan_wants_it() {
    let eager = format!("{AUTOMATIC}aggressiveness = 5\n[price]\nmigration_guest_seconds = 5.0\n");
    let (_, outcome) = simulate(&[8, 2, 2], &eager, 1, 1800);
    assert!(!outcome.moves.is_empty());
}
