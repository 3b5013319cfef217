//! Properties of the formulae themselves: finite, rising, convex where the design says so.

mod fleet;

use evenkeel_planner::loss::{Load, Shape};
use evenkeel_planner::{Guest, GuestState, Options, Policy, fleet_loss, plan, precopy};
use fleet::{Dice, wild};
use proptest::prelude::*;

/// A guest and a policy of a wild fleet.
fn any_guest(seed: u64) -> (Guest, Policy) {
    let snapshot = wild::fleet(seed, 2, 3);
    let guest = snapshot.guests[1].clone();
    (guest, wild::policy(seed, &snapshot))
}

fn bandwidth(dice: &mut Dice) -> f64 {
    dice.one(&[0.0, 1e-300, 0.01, 1.0, 40.0, 1000.0, 1e12]) * (0.5 + dice.unit())
}

proptest! {
    #[test]
    fn a_predicted_copy_is_finite_and_never_negative(seed in any::<u64>()) {
        let (guest, policy) = any_guest(seed);
        let at = bandwidth(&mut Dice(seed));
        let copy = precopy::predict(&guest, at, &policy);
        let cost = precopy::cost(&guest, &copy, at, (1.0, 1.0));
        for value in [copy.copy_seconds, copy.downtime_seconds, copy.throttled_seconds, cost] {
            prop_assert!(value.is_finite() && value >= 0.0, "{at} MiB/s: {copy:?}, costs {cost}");
        }
        prop_assert!(copy.throttled_seconds <= copy.copy_seconds);
    }

    #[test]
    fn dirtying_more_never_makes_a_copy_easier(seed in any::<u64>(), factor in 1.0..5.0_f64) {
        let (guest, mut policy) = any_guest(seed);
        policy.migration.auto_converge = false;
        let mut busier = guest.clone();
        busier.dirty_rate_mib_s *= factor;
        busier.dirty_curve.iter_mut().for_each(|point| point.1 *= factor);
        for at in [40.0, 300.0, 2000.0] {
            let calm = precopy::predict(&guest, at, &policy);
            let busy = precopy::predict(&busier, at, &policy);
            prop_assert!(busy.copy_seconds >= calm.copy_seconds, "{calm:?} {busy:?}");
            prop_assert!(busy.bytes >= calm.bytes, "{calm:?} {busy:?}");
            prop_assert!(calm.converges || !busy.converges, "{calm:?} {busy:?}");
        }
    }

    #[test]
    fn a_faster_link_never_makes_a_copy_longer(seed in any::<u64>(), factor in 1.0..5.0_f64) {
        let (guest, mut policy) = any_guest(seed);
        policy.migration.auto_converge = false;
        for at in [40.0, 300.0, 2000.0] {
            let slow = precopy::predict(&guest, at, &policy);
            let fast = precopy::predict(&guest, at * factor, &policy);
            prop_assert!(fast.copy_seconds <= slow.copy_seconds, "{slow:?} {fast:?}");
            prop_assert!(fast.bytes <= slow.bytes || slow.converges, "{slow:?} {fast:?}");
            prop_assert!(fast.converges || !slow.converges, "{slow:?} {fast:?}");
        }
    }

    #[test]
    fn loss_rises_with_demand_and_its_slope_does(seed in any::<u64>(), step in 0.01..0.5_f64) {
        let snapshot = wild::fleet(seed, 3, 20);
        let policy = wild::policy(seed, &snapshot);
        let shape = Shape::of(&snapshot.hosts[0], &policy);
        let mut load = snapshot.guests.iter().fold(Load::default(), |sum, g| sum.plus(&Load::of(g)));
        // Above the cap the loss is the cap.
        load.vcpus = 1e6;
        let mut last = (0.0, 0.0);
        for at in 0..60 {
            load.demand = 0.001 + step * f64::from(at);
            let now = (shape.cpu_loss(&load), shape.cpu_slope(&load));
            prop_assert!(now.0 >= last.0 - 1e-9 && now.1 >= last.1 - 1e-9, "{now:?} after {last:?}");
            last = now;
        }
    }

    #[test]
    fn memory_loss_is_zero_with_headroom_and_convex_above(seed in any::<u64>(), headroom in 0.0..0.5_f64) {
        let mut policy = Policy::default();
        policy.limits.memory_headroom = headroom;
        let host = fleet::host("a", 4.0, 1000 + seed % 100_000);
        let shape = Shape::of(&host, &policy);
        let of = |share: f64| {
            let active = share * shape.memory;
            let mib = format!("{active:.0}").parse().unwrap();
            shape.memory_stall(&Load { active: mib, ..Load::default() })
        };
        prop_assert_eq!(of(1.0 - headroom - 0.002).to_bits(), 0.0_f64.to_bits());
        let stalls: Vec<f64> = (0..200).map(|at| of(0.5 + 0.005 * f64::from(at))).collect();
        // A MiB is the grain of the format: the steps are not quite equal.
        for w in stalls.windows(3).filter(|w| w[2] < 1.0) {
            prop_assert!(w[0] <= w[1] && w[1] - w[0] <= (w[2] - w[1]) * 1.3 + 0.02, "{w:?}");
        }
    }
}

#[test]
fn a_dirty_curve_that_falls_back_counts_as_flat_there() {
    let curve = |points: &[(f64, f64)]| Guest {
        state: GuestState::Running,
        memory_mib: 4096,
        dirty_curve: points.to_vec(),
        ..Guest::default()
    };
    let policy = Policy::default();
    let falls = precopy::predict(
        &curve(&[(1.0, 500.0), (2.0, 100.0), (9.0, 500.0)]),
        1000.0,
        &policy,
    );
    let flat = precopy::predict(
        &curve(&[(1.0, 500.0), (2.0, 500.0), (9.0, 500.0)]),
        1000.0,
        &policy,
    );
    assert_eq!(falls, flat);
}

#[test]
fn memory_loss_has_no_cliff_without_headroom() {
    let mut policy = Policy::default();
    policy.limits.memory_headroom = 0.0;
    let shape = Shape::of(&fleet::host("a", 4.0, 100_000), &policy);
    let of = |active| {
        shape.memory_stall(&Load {
            active,
            ..Load::default()
        })
    };
    assert!(of(100_000) < 1e-12 && of(100_001) < 1e-6 && of(101_000) > 0.09);
}

#[test]
fn a_guest_that_its_quota_holds_back_causes_no_move() {
    let hosts = vec![fleet::host("a", 4.0, 65_536), fleet::host("b", 4.0, 65_536)];
    let guests = (0..4)
        .map(|n| fleet::guest(&format!("g{n}"), "a", 2.0, 1024))
        .collect();
    let mut snapshot = fleet::fleet(hosts, guests);
    let moves = |snapshot: &_| {
        let (plan, _) = plan(snapshot, &Policy::default(), &Options::default());
        plan.steps.len()
    };
    assert!(moves(&snapshot) > 0, "they are starved");
    for guest in &mut snapshot.guests {
        guest.cpu_limit_cores = Some(0.5);
    }
    assert_eq!(moves(&snapshot), 0, "they are throttled");
}

#[test]
fn guests_that_rise_together_need_more_headroom() {
    let hosts = vec![fleet::host("a", 8.0, 65_536)];
    let guests = (0..8).map(|n| Guest {
        vcpus: 4,
        cpu_demand_stddev_cores: 0.3,
        ..fleet::guest(&format!("g{n}"), "a", 0.8, 1024)
    });
    let mut snapshot = fleet::fleet(hosts, guests.collect());
    let policy = Policy::default();
    let mut last = 0.0;
    for (correlation, more) in [(0.0, true), (0.1, false), (0.3, true), (1.0, true)] {
        snapshot.peak_correlation = correlation;
        let loss = fleet_loss(&snapshot, &policy).total;
        assert_eq!(loss > last, more, "{loss} at {correlation}, {last} before");
        last = loss;
    }
}

#[test]
fn memory_loss_is_scaled_by_its_own_calibration() {
    let mut host = fleet::host("a", 4.0, 10_000);
    let load = Load {
        active: 10_000,
        demand: 1.0,
        ..Load::default()
    };
    let mut of = |calibration| {
        host.memory_calibration = calibration;
        Shape::of(&host, &Policy::default()).memory_loss(&load)
    };
    let (plain, scaled, bounded) = (of(1.0), of(1.5), of(7.0));
    assert!((scaled / plain - 1.5).abs() < 1e-12 && (bounded / plain - 2.0).abs() < 1e-12);
}

/// The documented table has every constant with the value that the code has.
#[test]
fn the_table_of_constants_is_that_of_the_code() {
    let code = include_str!("../src/constants.rs");
    let page = include_str!("../../../docs/reference/model.md");
    let mut found = 0;
    for line in code.lines().filter_map(|l| l.strip_prefix("pub const ")) {
        let (name, rest) = line.split_once(':').unwrap_or((line, ""));
        let value = rest.split_once("= ").map_or("", |(_, v)| v);
        let values: Vec<f64> = value
            .trim_matches(|c: char| !c.is_ascii_digit())
            .split(", ")
            .filter_map(|v| v.parse().ok())
            .collect();
        if name == "PAYBACK" {
            continue;
        }
        let row = page.lines().find(|l| l.contains(&format!("`{name}`")));
        let row = row.unwrap_or_else(|| panic!("{name} is not documented"));
        // The second column only: numbers stand among the reasons, too.
        let cell = row.split('|').nth(2).unwrap_or_default();
        let numbers: Vec<f64> = cell
            .split(|c: char| !c.is_ascii_digit() && c != '.')
            .filter_map(|v| v.parse().ok())
            .collect();
        let documented = |v: &f64| numbers.iter().any(|n| (n - v).abs() < 1e-12);
        assert!(
            !values.is_empty() && values.iter().all(documented),
            "{name}: {values:?}, {row}"
        );
        found += 1;
    }
    assert!(found > 15, "{found}");
}
