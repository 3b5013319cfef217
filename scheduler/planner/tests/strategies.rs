//! Tight memory, circles, strategies and soft rules.

#![expect(clippy::panic, reason = "helpers of tests: a panic is a failed test")]

mod fleet;

use evenkeel_planner::{HostState, Options, Policy, Purpose, Snapshot, StepReason, plan};
use fleet::{Dice, fleet, guest, host, plan_and_judge};

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap_or_else(|e| panic!("{e}"))
}

/// Hosts of 8 GiB filled to about `percent` with guests of mixed sizes; demand falls from host to host.
fn tight(seed: u64, hosts: u32, percent: u64) -> Snapshot {
    let mut dice = Dice(seed);
    let mut guests = Vec::new();
    for h in 0..hosts {
        let mut used = 0;
        let skew = 2.0 * f64::from(hosts - h) / f64::from(hosts);
        while used < 8192 * percent / 100 {
            let memory = [256, 512, 768][usize::try_from(dice.below(3)).unwrap_or(0)];
            if used + memory > 8192 {
                break;
            }
            used += memory;
            let name = format!("g{h:02}-{used:05}");
            guests.push(guest(
                &name,
                &format!("h{h:02}"),
                (0.45 * skew * dice.unit()).min(0.95),
                memory,
            ));
        }
    }
    fleet(
        (0..hosts)
            .map(|h| host(&format!("h{h:02}"), 4.0, 8192))
            .collect(),
        guests,
    )
}

#[test]
fn full_memory_does_not_stop_relief() {
    for (seed, percent) in [(1, 92), (2, 95), (3, 97)] {
        let snapshot = tight(seed, 10, percent);
        let found = plan_and_judge(&snapshot, &Policy::default());
        let steps = found.steps.len();
        let (before, after) = (found.loss_before, found.loss_after);
        println!(
            "{percent} %: {before:.3} -> {after:.3} in {steps} steps, {:.3} -> {:.3}",
            found.imbalance_before, found.imbalance_after
        );
        assert!(after < 0.7 * before, "{percent} %: {before} -> {after}");
    }
}

#[test]
fn a_circle_is_broken_by_a_detour() {
    let rules = "[pin.a]\nguests=[\"a\"]\nhosts=[\"h2\"]\nstrength=\"must\"\n\
                 [pin.b]\nguests=[\"b\"]\nhosts=[\"h1\"]\nstrength=\"must\"\n";
    let hosts = vec![
        host("h1", 8.0, 1000),
        host("h2", 8.0, 1000),
        host("h3", 8.0, 1000),
    ];
    let guests = vec![guest("a", "h1", 0.5, 800), guest("b", "h2", 0.5, 800)];
    // Neither fits beside the other, and the pins forbid the third host: the rules stay broken.
    let stuck = plan_and_judge(&fleet(hosts.clone(), guests.clone()), &policy(rules));
    assert_eq!(stuck.steps, vec![]);
    assert!(!stuck.blocked.is_empty());
    let open = rules.replace("[\"h2\"]", "[\"h2\", \"h3\"]");
    let found = plan_and_judge(&fleet(hosts, guests), &policy(&open));
    assert!(
        found.steps.iter().any(|s| s.guest == "b" && s.to == "h1"),
        "{}",
        found.to_json()
    );
}

#[test]
fn chains_bring_nobody_back_where_it_left_lately() {
    let until = "1970-01-01T05:00:00Z".parse().unwrap();
    let mut steps = 0;
    for seed in 1..20 {
        let mut snapshot = tight(seed, 10, 95);
        let mut dice = Dice(seed);
        for guest in &mut snapshot.guests {
            let left = (0..10).filter(|_| dice.below(2) == 0);
            guest.left_lately = left.map(|h| (format!("h{h:02}"), until)).collect();
        }
        let found = plan_and_judge(&snapshot, &Policy::default());
        steps += found.steps.len();
        for step in &found.steps {
            let guest = snapshot.guests.iter().find(|g| g.name == step.guest);
            let left = guest.unwrap().left_lately.contains_key(&step.to);
            assert!(!left, "seed {seed}: {step:?}");
        }
    }
    assert!(steps > 100, "only {steps} steps");
}

#[test]
fn no_detour_for_gain_leads_over_a_host_that_was_left_lately() {
    let hosts = vec![
        host("h1", 4.0, 1000),
        host("h2", 4.0, 1000),
        host("h3", 0.1, 1000),
    ];
    let mut guests = vec![
        guest("heavy", "h1", 3.5, 200),
        guest("a", "h1", 2.0, 800),
        guest("b", "h2", 0.1, 800),
    ];
    guests[0].movable = false;
    let mut snapshot = fleet(hosts, guests);
    let found = plan_and_judge(&snapshot, &Policy::default());
    assert!(
        found.steps.iter().any(|step| step.to == "h3"),
        "{}",
        found.to_json()
    );
    let until = "1970-01-01T05:00:00Z".parse().unwrap();
    for guest in &mut snapshot.guests {
        guest.left_lately.insert("h3".into(), until);
    }
    let found = plan_and_judge(&snapshot, &Policy::default());
    assert_eq!(found.steps, vec![]);
}

#[test]
fn spread_evens_utilisation_out_where_contention_sees_no_loss() {
    let hosts = || vec![host("h1", 16.0, 65_536), host("h2", 16.0, 65_536)];
    let guests: Vec<_> = (0..8)
        .map(|n| guest(&format!("g{n}"), "h1", 0.5, 2048))
        .collect();
    let snapshot = fleet(hosts(), guests);
    assert_eq!(plan_and_judge(&snapshot, &Policy::default()).steps, vec![]);
    let found = plan_and_judge(&snapshot, &policy("strategy = \"spread\""));
    assert!(
        found.steps.iter().all(|s| s.reason == StepReason::Spread),
        "{}",
        found.to_json()
    );
    assert!(
        found.imbalance_after < 0.5 * found.imbalance_before,
        "{}",
        found.to_json()
    );
}

#[test]
fn consolidate_empties_hosts_and_leaves_no_contention() {
    let hosts = (1..5)
        .map(|n| host(&format!("h{n}"), 16.0, 65_536))
        .collect();
    let guests: Vec<_> = (0..12)
        .map(|n| guest(&format!("g{n:02}"), &format!("h{}", 1 + n % 4), 0.4, 2048))
        .collect();
    let found = plan_and_judge(&fleet(hosts, guests), &policy("strategy = \"consolidate\""));
    let emptied = found
        .hosts
        .iter()
        .filter(|h| h.memory_utilisation_after < 1e-9)
        .count();
    assert_eq!(emptied, 3, "{}", found.to_json());
    assert!(
        found
            .steps
            .iter()
            .all(|s| s.reason == StepReason::Consolidate),
        "{}",
        found.to_json()
    );
    assert!(found.loss_after < 0.01);
}

#[test]
fn a_should_rule_is_mended_when_that_is_worth_its_price_and_never_at_level_one() {
    let rule = "[anti_affinity.db]\nguests=[\"db-*\"]\nstrength=\"should\"\n";
    let hosts = vec![host("h1", 8.0, 8192), host("h2", 8.0, 8192)];
    let guests = vec![guest("db-1", "h1", 0.2, 512), guest("db-2", "h1", 0.2, 512)];
    let snapshot = fleet(hosts, guests);
    let found = plan_and_judge(&snapshot, &policy(rule));
    assert_eq!(found.steps.len(), 1, "{}", found.to_json());
    assert_eq!(found.steps[0].reason, StepReason::RepairRule);
    let careful = policy(&format!("aggressiveness = 1\n{rule}"));
    assert_eq!(plan_and_judge(&snapshot, &careful).steps, vec![]);
}

#[test]
fn level_one_only_drains_and_repairs() {
    let mut snapshot = tight(4, 6, 60);
    let careful = policy("aggressiveness = 1");
    assert_eq!(plan_and_judge(&snapshot, &careful).steps, vec![]);
    snapshot.hosts[2].state = HostState::Draining;
    let found = plan_and_judge(&snapshot, &careful);
    assert!(!found.steps.is_empty());
    assert!(
        found
            .steps
            .iter()
            .all(|s| s.reason == StepReason::Drain && s.from == "h02")
    );
}

#[test]
fn memory_above_its_limit_leaves_first() {
    let hosts = vec![host("h1", 16.0, 4096), host("h2", 16.0, 8192)];
    let guests: Vec<_> = (0..5)
        .map(|n| guest(&format!("g{n}"), "h1", 0.1, 1024))
        .collect();
    let found = plan_and_judge(&fleet(hosts, guests), &policy("aggressiveness = 1"));
    assert_eq!(found.steps.len(), 1);
    assert_eq!(found.steps[0].reason, StepReason::RelieveMemory);
}

#[test]
fn rules_that_contradict_each_other_on_this_fleet_are_named_and_stop_nothing_else() {
    let rules = "[affinity.app]\nguests=[\"x-*\"]\nstrength=\"must\"\n\
                 [anti_affinity.ha]\nguests=[\"*-1\", \"*-2\"]\nstrength=\"must\"\n";
    let mut hosts = vec![
        host("h1", 0.5, 512),
        host("h2", 0.5, 512),
        host("h3", 0.5, 512),
    ];
    hosts[2].state = HostState::Active;
    let mut guests = vec![guest("x-1", "h1", 0.1, 32), guest("x-2", "h1", 0.1, 32)];
    guests.extend((0..3).map(|n| guest(&format!("y{n}"), "h1", 0.3, 32)));
    let found = plan_and_judge(&fleet(hosts, guests), &policy(rules));
    let named: Vec<&str> = found
        .blocked
        .iter()
        .filter_map(|b| b.rule.as_deref())
        .collect();
    assert!(
        named.contains(&"affinity.app") && named.contains(&"anti_affinity.ha"),
        "{named:?}"
    );
    assert!(found.steps.iter().any(|s| s.guest.starts_with('y')));
    assert!(!found.steps.iter().any(|s| s.guest.starts_with('x')));
}

#[test]
fn room_for_an_anti_affine_guest_is_made_by_the_one_it_must_not_meet() {
    let rule = "[anti_affinity.db]\nguests=[\"db-*\"]\nstrength=\"must\"\n";
    let mut hosts = vec![
        host("h1", 8.0, 8192),
        host("h2", 8.0, 8192),
        host("h3", 8.0, 8192),
    ];
    hosts[0].state = HostState::Draining;
    hosts[2].networks = vec!["br0".into()];
    let mut guests = vec![
        guest("db-1", "h1", 0.2, 1024),
        guest("db-2", "h2", 0.2, 1024),
    ];
    guests[0].networks = vec!["br1".into()];
    // Cheaper to send away, but of no help.
    guests.push(guest("small", "h2", 0.01, 64));
    let found = plan_and_judge(&fleet(hosts, guests), &policy(rule));
    let moved: Vec<_> = found
        .steps
        .iter()
        .map(|s| (s.guest.as_str(), s.to.as_str()))
        .collect();
    assert_eq!(
        moved,
        [("db-2", "h3"), ("db-1", "h2")],
        "{}",
        found.to_json()
    );
}

#[test]
fn room_for_a_guest_that_a_short_plan_leaves_out_is_not_made() {
    let hosts = vec![
        host("h1", 4.0, 2048),
        host("h2", 8.0, 1024),
        host("h3", 0.2, 1024),
    ];
    let mut guests: Vec<_> = (0..3)
        .map(|n| guest(&format!("busy-{n}"), "h1", 2.0, 600))
        .collect();
    guests.push(guest("idle", "h2", 0.01, 600));
    let snapshot = fleet(hosts, guests);
    let found = plan_and_judge(&snapshot, &Policy::default());
    let reasons: Vec<StepReason> = found.steps.iter().map(|s| s.reason).collect();
    assert_eq!(
        reasons,
        [StepReason::MakeRoom, StepReason::RelieveCpu],
        "{}",
        found.to_json()
    );
    let one = Options {
        max_moves: Some(1),
        ..Options::default()
    };
    let (short, _) = plan(&snapshot, &Policy::default(), &one);
    assert_eq!(short.steps, []);
    // A drain needs the room: the next plan goes on.
    let mut draining = snapshot;
    draining.hosts[0].state = HostState::Draining;
    let (short, _) = plan(&draining, &Policy::default(), &one);
    assert_eq!(short.steps.len(), 1, "{}", short.to_json());
}

#[test]
fn looking_for_room_counts_as_work_and_ends_with_the_budget() {
    let mut hosts = vec![host("drained", 4.0, 8192)];
    hosts[0].state = HostState::Draining;
    let mut guests: Vec<_> = (0..10)
        .map(|n| guest(&format!("d{n}"), "drained", 0.1, 300))
        .collect();
    for h in 0..10 {
        let name = format!("full-{h}");
        guests.extend((0..32).map(|n| guest(&format!("g{h}-{n}"), &name, 0.1, 256)));
        hosts.push(host(&name, 4.0, 8192));
    }
    let snapshot = fleet(hosts, guests);
    let work = |budget| {
        let options = Options {
            budget: Some(budget),
            purpose: Purpose::Drain,
            ..Options::default()
        };
        let (found, report) = plan(&snapshot, &Policy::default(), &options);
        assert_eq!(found.steps, []);
        report.evaluations
    };
    // Each of ten guests asks every one of 320 others to make room.
    assert_eq!(work(u64::MAX), 3_200);
    assert_eq!(work(1_000), 1_000);
}
