//! The families are what they say, and their yardstick means the same as the planner.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

use std::collections::BTreeMap;

use evenkeel_fleets::case::{Case, Key, fleet, ours};
use evenkeel_fleets::family::{Family, generate, generate_with};
use evenkeel_fleets::instance::Instance;
use evenkeel_fleets::search::{anneal, greedy, start};
use evenkeel_planner::loss::{Load, Shape};
use evenkeel_planner::{Guest, HostState, Snapshot, Strategy, check, frozen_variances, plan};

fn every_fleet(sizes: &[usize], check: impl Fn(Family, usize, &Snapshot)) {
    for family in Family::ALL {
        for &hosts in sizes {
            for seed in 1..4 {
                check(family, hosts, &generate(family, hosts, seed).snapshot);
            }
        }
    }
}

fn guests_of<'s>(snapshot: &'s Snapshot, host: &str) -> Vec<&'s Guest> {
    let guests = snapshot.guests.iter();
    guests.filter(|g| g.host == host).collect()
}

fn demand(guests: &[&Guest]) -> f64 {
    guests.iter().map(|g| g.cpu_demand_cores).sum()
}

/// CPU demand over cores of every host.
fn utilisation(snapshot: &Snapshot) -> Vec<f64> {
    let hosts = snapshot.hosts.iter();
    hosts
        .map(|h| demand(&guests_of(snapshot, &h.name)) / h.cpu_cores)
        .collect()
}

fn deviation(values: &[f64]) -> f64 {
    let n = f64::from(u32::try_from(values.len()).unwrap());
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt()
}

fn memory_share(snapshot: &Snapshot) -> f64 {
    let held: u64 = snapshot.guests.iter().map(|g| g.memory_mib).sum();
    let offered: u64 = snapshot.hosts.iter().map(|h| h.memory_mib).sum();
    f64::from(u32::try_from(held).unwrap()) / f64::from(u32::try_from(offered).unwrap())
}

#[test]
fn a_fleet_is_its_seed() {
    for family in Family::ALL {
        let text = |hosts, seed| generate(family, hosts, seed).snapshot.to_json();
        assert_eq!(text(5, 1), text(5, 1));
        assert_ne!(text(5, 1), text(5, 2));
        let read = Snapshot::from_json(&text(5, 1)).unwrap();
        assert_eq!(
            read,
            generate(family, 5, 1).snapshot,
            "nothing is lost in the file"
        );
    }
    let dense = generate_with(Family::NewEmptyHosts, 10, 1, Some(18)).snapshot;
    let counts = dense.hosts.iter().map(|h| guests_of(&dense, &h.name).len());
    assert!(counts.into_iter().all(|n| n == 18 || n == 0));
}

#[test]
fn hosts_have_15_to_20_guests_that_fit_and_can_lose_no_memory() {
    every_fleet(&[3, 5, 10, 20], |family, hosts, snapshot| {
        assert_eq!(snapshot.hosts.len(), hosts);
        snapshot.validate().unwrap();
        for host in &snapshot.hosts {
            let guests = guests_of(snapshot, &host.name);
            let count = guests.len();
            let empty = family == Family::NewEmptyHosts && count == 0;
            assert!(
                (15..=20).contains(&count) || empty,
                "{family:?}: {count} guests"
            );
            assert!(guests.iter().map(|g| g.memory_mib).sum::<u64>() <= host.memory_mib);
        }
        // However guests are placed: working sets are at most 60 % of what is allocated, and that fits.
        for guest in &snapshot.guests {
            assert!(
                guest.active_mib() * 100 <= guest.memory_mib * 61,
                "{guest:?}"
            );
            assert!(guest.cpu_demand_cores <= f64::from(guest.vcpus));
            assert!(guest.cpu_demand_stddev_cores <= 0.41 * guest.cpu_demand_cores + 0.001);
        }
    });
}

#[test]
fn the_families_start_as_they_are_described() {
    every_fleet(&[5, 10, 20], |family, hosts, snapshot| {
        let cpu = utilisation(snapshot);
        let spread = deviation(&cpu);
        let skewed = (0.14..0.28).contains(&spread);
        match family {
            Family::HotSpot => {
                assert!(skewed, "{spread}");
                assert_eq!(cpu.iter().filter(|&&u| u > 0.9).count(), hosts.div_ceil(10));
                assert_eq!(
                    cpu.iter().filter(|&&u| u > 0.65).count(),
                    hosts.div_ceil(10)
                );
            }
            Family::RandomSkew | Family::AntiAffinity | Family::ThreeSizes => {
                assert!(skewed, "{family:?} {spread}");
            }
            Family::NewEmptyHosts => {
                assert_eq!(cpu.iter().filter(|&&u| u == 0.0).count(), hosts.div_ceil(5));
            }
            Family::Maintenance => {
                let draining = |h: &&evenkeel_planner::Host| h.state == HostState::Draining;
                let drained = snapshot.hosts.iter().filter(draining).count();
                assert_eq!(drained, if hosts < 20 { 1 } else { 2 });
            }
            Family::FullMemory => {
                assert!(skewed, "{spread}");
                let share = memory_share(snapshot);
                assert!((0.9..0.94).contains(&share), "{share}");
            }
        }
        let cores: Vec<f64> = snapshot.hosts.iter().map(|h| h.cpu_cores).collect();
        let sizes = cores
            .iter()
            .map(|c| c.to_bits())
            .collect::<std::collections::BTreeSet<_>>();
        assert_eq!(
            sizes.len(),
            if family == Family::ThreeSizes { 3 } else { 1 }
        );
    });
}

#[test]
fn few_moves_bring_every_host_of_a_hot_spot_to_four_fifths() {
    every_fleet(&[5, 10, 20], |family, _, snapshot| {
        for host in snapshot.hosts.iter().filter(|_| family == Family::HotSpot) {
            let mut guests = guests_of(snapshot, &host.name);
            guests.sort_by(|a, b| b.cpu_demand_cores.total_cmp(&a.cpu_demand_cores));
            let above = demand(&guests) - 0.8 * host.cpu_cores;
            assert!(
                demand(&guests[..4]) >= above,
                "{}: {above} cores",
                host.name
            );
        }
    });
}

#[test]
fn anti_affinity_groups_are_many_and_apart_at_the_start() {
    every_fleet(&[5, 10, 20], |family, hosts, snapshot| {
        let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
        for app in snapshot.guests.iter().filter_map(|g| g.label("app")) {
            *groups.entry(app).or_default() += 1;
        }
        let grouped: usize = groups.values().sum();
        if family == Family::AntiAffinity {
            assert!(
                grouped * 10 > snapshot.guests.len() * 5,
                "{grouped} grouped"
            );
            assert!(groups.values().filter(|&&n| n >= 2).count() >= hosts);
        } else {
            assert_eq!(grouped, 0);
        }
    });
    for hosts in [5, 10, 20] {
        let key = Key {
            family: Family::AntiAffinity,
            hosts,
            seed: 1,
            strategy: Strategy::Contention,
        };
        let (snapshot, policy) = fleet(key).unwrap();
        let instance = Instance::new(&snapshot, &policy).unwrap();
        assert!(instance.is_allowed(&instance.homes()));
        let over_racks = |r: &evenkeel_fleets::instance::Apart| {
            let mut places = r.place.clone();
            places.dedup();
            places.len() < hosts
        };
        assert!(instance.apart.iter().any(over_racks));
        assert!(!instance.apart.iter().all(over_racks));
    }
}

/// The planner and the yardstick compute the same loss and the same costs.
#[test]
fn the_yardstick_and_the_planner_mean_the_same() {
    for family in Family::ALL {
        for strategy in [Strategy::Contention, Strategy::Spread] {
            let key = Key {
                family,
                hosts: 5,
                seed: 1,
                strategy,
            };
            let (snapshot, policy) = fleet(key).unwrap();
            let instance = Instance::new(&snapshot, &policy).unwrap();
            let (reached, plan) = ours(&instance, &snapshot, &policy).unwrap();
            let plain = Instance {
                balance: 0.0,
                ..instance.clone()
            };
            let close =
                |a: f64, b: f64| assert!((a - b).abs() < 1e-9 * (1.0 + b), "{key}: {a} {b}");
            close(plan.loss_before, plain.loss(&plain.homes()));
            close(plan.loss_after, plain.loss(&reached.placement));
            let paid: f64 = plan
                .steps
                .iter()
                .map(|s| s.costs_guest_seconds + s.price_guest_seconds)
                .sum();
            let without = instance.horizon * instance.loss(&reached.placement);
            close(reached.objective, without + instance.factor * paid);
            assert_eq!(faults(&snapshot, &policy), vec![]);
        }
    }
}

/// The faults of the plan that is made of the same fleet under the model as it is.
fn faults(
    snapshot: &Snapshot,
    policy: &evenkeel_planner::Policy,
) -> Vec<evenkeel_planner::Violation> {
    let (real, _) = plan(snapshot, policy, &evenkeel_planner::Options::default());
    check(snapshot, policy, &real)
}

#[test]
fn a_hosts_value_is_its_shapes_loss_with_the_frozen_variance() {
    let key: Key = "three_sizes-5-1-contention".parse().unwrap();
    let (snapshot, policy) = fleet(key).unwrap();
    let instance = Instance::new(&snapshot, &policy).unwrap();
    let frozen = frozen_variances(&snapshot, &policy);
    for (at, host) in snapshot.hosts.iter().enumerate() {
        let shape = Shape {
            frozen_variance: Some(frozen[at]),
            ..Shape::of(host, &policy)
        };
        for tenth in 0..15 {
            let demand = 0.1 * f64::from(tenth) * host.cpu_cores;
            let load = Load {
                demand,
                ..Load::default()
            };
            assert!((instance.value(at, demand, 0) - shape.cpu_loss(&load)).abs() < 1e-12);
        }
    }
}

#[test]
fn greedy_falls_short_where_only_chains_help_and_annealing_does_not() {
    let key: Key = "full_memory-5-1-contention".parse().unwrap();
    let (snapshot, policy) = fleet(key).unwrap();
    let instance = Instance::new(&snapshot, &policy).unwrap();
    let of = |placement: &[usize]| instance.objective(placement).unwrap();
    let first = of(&start(&instance).unwrap());
    let greedy = greedy(&instance).unwrap();
    let annealed = of(&anneal(&instance, &greedy, 1, 2000));
    assert!(of(&greedy) < first);
    assert!(annealed < 0.5 * of(&greedy), "{annealed} {}", of(&greedy));
}

#[test]
fn a_case_is_not_made_again_while_its_fleet_is_the_same() {
    let key: Key = "random_skew-3-1-contention".parse().unwrap();
    let first = Case::run(key, None, 100).unwrap();
    let marked = Case {
        annealed: first.start.clone(),
        ..first.clone()
    };
    let kept = Case::run(key, Some(marked.clone()), 100).unwrap();
    assert_eq!(kept, marked);
    let stale = Case {
        fingerprint: "other".into(),
        ..marked
    };
    assert_eq!(Case::run(key, Some(stale), 100).unwrap(), first);
}
