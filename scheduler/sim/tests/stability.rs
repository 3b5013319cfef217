//! Facts about the loop over minutes and hours of virtual time. The seed of a failing case is in its message.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, in a crate that is nothing else"
)]

use evenkeel_sim::trace::{FIVE_MINUTES, folder};
use evenkeel_sim::{
    Faults, Fleet, GuestSpec, Hosts, Outcome, Pattern, Scenario, SimGuest, SimHost, Simulation,
    Start, Strategy, Trace, World,
};
use evenkeel_types::HostName;

/// Ten minutes.
const TEN_MINUTES: u32 = 600;
/// Length of a tick, ms.
const TICK_MS: i64 = 10_000;
/// Automatic, otherwise as built in.
const AUTOMATIC: &str = "schema = 1\nmode = \"automatic\"\n";

fn name(number: usize) -> HostName {
    format!("h{number}").parse().unwrap()
}

/// `per_host[i]` guests on host i + 1, each wanting half a core, more or less.
fn fleet(per_host: &[u32]) -> Fleet {
    let mut fleet = Fleet::default();
    let mut number = 0;
    for (host, count) in (1..).zip(per_host) {
        fleet
            .hosts
            .push(SimHost::new(name(host), 8.0, 65_536, 500.0));
        for _ in 0..*count {
            number += 1;
            let pattern = Pattern::Stationary {
                mean_cores: 0.5,
                stddev_cores: 0.15,
            };
            let guest = SimGuest::new(number, &name(host), (2, 2048), pattern, 1);
            fleet.guests.push(guest.unwrap());
        }
    }
    fleet
}

fn simulation(per_host: &[u32], policy: &str, seed: u64) -> Simulation {
    let world = World::new(fleet(per_host), &Faults::NONE, TICK_MS, seed).unwrap();
    let simulation = Simulation::new(world, policy);
    assert_eq!(simulation.policy_fault(), None);
    simulation
}

fn simulate(per_host: &[u32], policy: &str, seed: u64, seconds: u32) -> Outcome {
    simulation(per_host, policy, seed).run(seconds)
}

#[test]
fn a_balanced_fleet_stays_as_it_is_for_ten_minutes() {
    for seed in 0..10 {
        let outcome = simulate(&[10, 10, 10], AUTOMATIC, seed, TEN_MINUTES);
        assert_eq!(outcome.moves, [], "seed {seed}");
    }
}

#[test]
fn a_hot_host_is_relieved_and_then_there_is_peace() {
    for seed in 0..5 {
        let mut relieved = simulation(&[24, 2, 2], AUTOMATIC, seed);
        let outcome = relieved.run(5400);
        assert!(!outcome.moves.is_empty(), "seed {seed}: nothing moved");
        assert!(
            outcome.moves.iter().all(|m| m.source == "h1"),
            "seed {seed}: {:?}",
            outcome.moves
        );
        let untouched = simulate(&[24, 2, 2], "schema = 1\n", seed, 5400);
        assert_eq!(untouched.moves, [], "observing moves nothing");
        assert!(
            outcome.lost() < untouched.lost() / 2.0,
            "seed {seed}: lost {} with moves, {} without",
            outcome.lost(),
            untouched.lost()
        );
        // Estimates learn for an hour or two; after that nothing is left to be done.
        let learnt = relieved.run(7200).moves.len();
        let later = relieved.run(7200);
        let moves = &later.moves[learnt..];
        assert_eq!(moves, [], "seed {seed}: moves on a stationary load");
    }
}

#[test]
fn no_guest_goes_back_and_forth() {
    let outcome = simulate(&[20, 12, 4, 2], AUTOMATIC, 7, 7200);
    let mut guests: Vec<&str> = outcome.moves.iter().map(|m| m.guest.as_str()).collect();
    guests.sort_unstable();
    let moves = guests.len();
    guests.dedup();
    assert!(moves > 0);
    assert_eq!(guests.len(), moves, "{:?}", outcome.moves);
    assert_eq!(outcome.returns, []);
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another_one() {
    let scenario = |seed| Scenario {
        fleet: fleet(&[20, 4, 2]),
        faults: FREQUENT,
        policy: AUTOMATIC.to_owned(),
        seconds: 3600,
        tick_ms: TICK_MS,
        seed,
    };
    for strategy in Strategy::ALL {
        let run = |seed| scenario(seed).run(strategy).unwrap();
        assert_eq!(run(3), run(3), "{strategy:?}");
        assert_ne!(run(3), run(4), "{strategy:?}");
    }
}

#[test]
fn a_host_below_the_threshold_of_hot_spots_is_relieved_when_a_plan_wants_it() {
    let eager = format!("{AUTOMATIC}aggressiveness = 5\n[price]\nmigration_guest_seconds = 5.0\n");
    let outcome = simulate(&[8, 2, 2], &eager, 1, 1800);
    assert!(!outcome.moves.is_empty());
}

/// So much goes wrong that every kind of it happens within hours.
const FREQUENT: Faults = Faults {
    host_losses_per_day: 12.0,
    report_gaps_per_day: 48.0,
    agent_restarts_per_day: 48.0,
    failing_migrations: 0.3,
};

/// Every guest stands on one host, and no host holds more than its memory.
fn assert_sound(world: &World, context: &str) {
    let placement = world.placement();
    assert_eq!(placement.len(), world.guests().len(), "{context}");
    assert!(
        placement.iter().all(|&host| host < world.hosts().len()),
        "{context}"
    );
    for (number, host) in world.hosts().iter().enumerate() {
        let held = world.memory_held(number);
        assert!(
            held <= host.facts.memory_mib,
            "{context}: {held} MiB on {}",
            host.facts.name
        );
        let here = world.members(number);
        assert!(
            here.windows(2).all(|pair| pair[0] < pair[1]),
            "{context}: {here:?}"
        );
        assert!(
            here.iter().all(|&guest| placement[guest] == number),
            "{context}"
        );
    }
    let standing: usize = (0..world.hosts().len())
        .map(|host| world.members(host).len())
        .sum();
    assert_eq!(standing, placement.len(), "{context}");
}

#[test]
fn guests_are_neither_lost_nor_doubled_and_memory_suffices_whatever_fails() {
    let (mut moves, mut failed) = (0, 0);
    for seed in 0..6 {
        let mut tight = fleet(&[16, 10, 4, 2]);
        for host in &mut tight.hosts {
            host.facts.memory_mib = 16 * 2048;
            host.facts.migration_bandwidth_mib_s = Some(60.0);
        }
        let world = World::new(tight, &FREQUENT, TICK_MS, seed).unwrap();
        let mut simulation = Simulation::new(world, &format!("{AUTOMATIC}aggressiveness = 5\n"));
        for tick in 0..1080 {
            simulation.step();
            assert_sound(&simulation.world, &format!("seed {seed}, tick {tick}"));
        }
        let outcome = simulation.run(0);
        assert_eq!(outcome.faulty_plans, 0, "seed {seed}");
        assert!(
            outcome.toll.dead > 0.0,
            "seed {seed}: no host was ever lost"
        );
        moves += outcome.moves.len();
        failed += outcome.failed.values().sum::<usize>();
    }
    assert!(moves > 0 && failed > 0, "{moves} moves, {failed} failures");
}

/// A part of a recorded week, small enough for every test run.
fn short_week(start: Start, seed: u64) -> Scenario {
    let mut trace = Trace::read(&folder().join("bitbrains-rnd-cpu-7d.csv"), FIVE_MINUTES).unwrap();
    let specs = GuestSpec::read(&folder().join("bitbrains-rnd-guests.csv")).unwrap();
    trace.guests.truncate(120);
    trace.samples.truncate(120);
    let hosts = Hosts {
        count: 6,
        cpu_cores: 32.0,
        memory_mib: 524_288,
        bandwidth_mib_s: 1000.0,
    };
    Scenario {
        fleet: Fleet::of_trace(&trace, &specs, hosts, start, seed).unwrap(),
        faults: Faults::NONE,
        policy: AUTOMATIC.to_owned(),
        seconds: 4 * 3600,
        tick_ms: 30_000,
        seed,
    }
}

#[test]
fn hours_of_recorded_load_bring_few_moves_and_no_ping_pong() {
    for (start, seed) in [(Start::Balanced, 1), (Start::Skewed, 2)] {
        let scenario = short_week(start, seed);
        let idle = scenario.run(Strategy::DoNothing).unwrap();
        let outcome = scenario.run(Strategy::Evenkeel).unwrap();
        let context = format!("{start:?}, seed {seed}: {} moves", outcome.moves.len());
        assert_eq!(outcome.ping_pongs(), 0, "{context}");
        // The first day may see 0.3 a guest; its first hours set a skewed start right.
        assert!(outcome.moves.len() <= 12, "{context}");
        assert!(
            outcome.lost() <= 0.25 * idle.lost(),
            "{context}, lost {} of {}",
            outcome.lost(),
            idle.lost()
        );
    }
}
