//! Never worse, never wrong: wild fleets, judged by a second writing of the rules (`naive`).
//! `PROPTEST_CASES` sets how many; `make properties CASES=5000` looks at more.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

mod fleet;
mod naive;

use std::collections::BTreeMap;

use evenkeel_planner::{Options, Plan, Policy, Snapshot, place_one, plan};
use fleet::wild;
use proptest::prelude::*;

fn wild_pair(seed: u64, hosts: usize, guests: usize) -> (Snapshot, Policy) {
    let snapshot = wild::fleet(seed, hosts, guests);
    let policy = wild::policy(seed, &snapshot);
    (snapshot, policy)
}

/// What a person needs to see the failure again.
fn story(snapshot: &Snapshot, policy: &Policy, plan: &Plan) -> String {
    format!("{}\n{policy:#?}\n{}", snapshot.to_json(), plan.to_json())
}

proptest! {
    #[test]
    fn no_order_of_events_breaks_what_held_before(seed in any::<u64>(), hosts in 1..10_usize, guests in 0..60_usize) {
        let (snapshot, policy) = wild_pair(seed, hosts, guests);
        let (found, _) = plan(&snapshot, &policy, &Options::default());
        for events in 0..3 {
            let faults = naive::run::faults(&snapshot, &policy, &found, seed ^ events);
            prop_assert_eq!(faults, Vec::<String>::new(), "{}", story(&snapshot, &policy, &found));
        }
    }

    #[test]
    fn every_claimed_number_is_what_comes_out(seed in any::<u64>(), hosts in 1..10_usize, guests in 0..60_usize) {
        let (snapshot, policy) = wild_pair(seed, hosts, guests);
        let (found, _) = plan(&snapshot, &policy, &Options::default());
        let claims = naive::objective::false_claims(&snapshot, &policy, &found);
        prop_assert_eq!(claims, Vec::<String>::new(), "{}", story(&snapshot, &policy, &found));
    }

    #[test]
    fn what_nobody_forces_pays(seed in any::<u64>(), hosts in 2..10_usize, guests in 0..60_usize) {
        let (mut snapshot, mut policy) = wild_pair(seed, hosts, guests);
        wild::calm(&mut snapshot, &mut policy);
        let (found, _) = plan(&snapshot, &policy, &Options::default());
        let net = naive::objective::net(&snapshot, &policy, &found, 1.0);
        prop_assert!(found.steps.is_empty() || net > 0.0, "{net}: {}", story(&snapshot, &policy, &found));
    }

    #[test]
    fn a_planned_fleet_needs_no_plan(seed in any::<u64>(), hosts in 1..10_usize, guests in 0..60_usize) {
        let (snapshot, policy) = wild_pair(seed, hosts, guests);
        let (found, report) = plan(&snapshot, &policy, &Options::default());
        // The search ends by itself: what it may take is a safeguard that is never reached.
        prop_assert!(report.evaluations < 30_000 * u64::try_from(snapshot.guests.len().max(1)).unwrap(), "{}", report.evaluations);
        let after = evenkeel_planner::check::carried_out(&snapshot, &found);
        let (again, _) = plan(&after, &policy, &Options::default());
        prop_assert!(again.steps.is_empty(), "{}\nthen {}", story(&snapshot, &policy, &found), again.to_json());
    }

    #[test]
    fn a_plan_depends_on_nothing_but_the_facts(seed in any::<u64>(), hosts in 1..10_usize, guests in 0..50_usize) {
        let (snapshot, policy) = wild_pair(seed, hosts, guests);
        let options = Options { seed, ..Options::default() };
        let (found, _) = plan(&snapshot, &policy, &options);
        let bytes = found.to_json();
        let (again, _) = plan(&snapshot, &policy, &options);
        prop_assert_eq!(&bytes, &again.to_json(), "planned twice");
        let mut shuffled = snapshot.clone();
        let mut dice = fleet::Dice(seed);
        shuffled.hosts.sort_by_cached_key(|_| dice.roll());
        shuffled.guests.sort_by_cached_key(|_| dice.roll());
        shuffled.in_flight.sort_by_cached_key(|_| dice.roll());
        let (other, _) = plan(&shuffled, &policy, &options);
        prop_assert_eq!(&bytes, &other.to_json(), "hosts and guests in another order");
        let read = Snapshot::from_json(&snapshot.to_json()).unwrap();
        prop_assert_eq!(&read, &snapshot, "read back");
        let (from_file, _) = plan(&read, &policy, &options);
        prop_assert_eq!(&bytes, &from_file.to_json(), "from its file");
    }
}

/// What the judges say of a plan that was spoilt.
fn judged(snapshot: &Snapshot, policy: &Policy, plan: &Plan) -> Vec<String> {
    let mut all = naive::run::faults(snapshot, policy, plan, 1);
    all.extend(naive::objective::false_claims(snapshot, policy, plan));
    all
}

#[test]
fn a_spoilt_plan_is_found_out() {
    let (mut moved, mut hurried, mut praised, mut repeated) = (0, 0, 0, 0);
    for seed in 0..150 {
        let (snapshot, policy) = wild_pair(seed, 6, 40);
        let (good, _) = plan(&snapshot, &policy, &Options::default());
        let spoilt = |spoil: &dyn Fn(&mut Plan)| {
            let mut plan = good.clone();
            spoil(&mut plan);
            usize::from(plan != good && !judged(&snapshot, &policy, &plan).is_empty())
        };
        let Some(last) = good.steps.len().checked_sub(1) else {
            continue;
        };
        // To the host it leaves, all in one wave, with a better claim, twice.
        moved += spoilt(&|p| p.steps[last].to = p.steps[last].from.clone());
        hurried += spoilt(&|p| p.steps.iter_mut().for_each(|s| s.wave = 1));
        praised += spoilt(&|p| p.steps[last].costs_guest_seconds *= 0.99);
        repeated += spoilt(&|p| p.steps.push(p.steps[last].clone()));
    }
    assert!(moved > 50 && repeated == moved, "{moved} {repeated}");
    assert!(hurried > 10 && praised > 50, "{hurried} {praised}");
}

/// What the referee says under a policy when these guests go from `a` to `b`, which nothing else forbids.
fn sent(policy: &str, guests: &[&str]) -> Vec<String> {
    let mut snapshot = fleet::fleet(
        vec![fleet::host("a", 4.0, 4096), fleet::host("b", 4.0, 1024)],
        ["db-1", "db-2"]
            .map(|name| fleet::guest(name, "a", 0.5, 512))
            .to_vec(),
    );
    for host in &mut snapshot.hosts {
        host.labels.insert("room".into(), "r1".into());
        host.labels.insert("rack".into(), host.name.clone());
    }
    let lenient = Policy::default();
    let (mut by_hand, _) = plan(&snapshot, &lenient, &Options::default());
    assert_eq!(by_hand.steps, []);
    let step = |guest: &&str| place_one(&snapshot, &lenient, guest, Some("b")).unwrap();
    by_hand.steps = guests.iter().map(step).collect();
    naive::run::faults(&snapshot, &Policy::parse(policy).unwrap(), &by_hand, 7)
}

#[test]
fn the_referee_sees_each_kind_of_breach() {
    let both = &["db-1", "db-2"][..];
    let one = &["db-1"][..];
    let rule = |head: &str| format!("[{head}]\nguests = [\"db-*\"]\nstrength = \"must\"\n");
    let apart = rule("anti_affinity.r");
    let affinity = rule("affinity.r");
    assert_eq!(sent("", both), Vec::<String>::new());
    assert_eq!(sent(&affinity, both), Vec::<String>::new());
    assert_eq!(sent(&apart, one), Vec::<String>::new());
    let within_a_place = "[limits]\nmigrations_per_link = 1\nlink_label = \"room\"";
    assert_eq!(sent(within_a_place, both), Vec::<String>::new());
    let over = format!("{apart}over = \"room\"");
    assert_eq!(
        sent(&over, both),
        Vec::<String>::new(),
        "they were together"
    );
    for (policy, guests, breach) in [
        ("[limits]\nmemory_overcommit = 0.6", both, "memory of b by"),
        (
            "[limits]\nmax_guests_per_host = 1",
            both,
            "guests of b by 1",
        ),
        (
            "[limits]\nmigrations_per_host = 1",
            both,
            "wave 1: 2 migrations",
        ),
        (
            "[limits]\nmigrations_per_host = 1\nmigrations_per_cluster = 1",
            both,
            "wave 1: 2 migrations",
        ),
        (
            "[limits]\nmigrations_per_link = 1",
            both,
            "wave 1: 2 over the link of a",
        ),
        (
            "[limits]\nreserve_host_failures = 1",
            one,
            "is kept for host failures",
        ),
        (&apart, both, "r: db-1 and db-2 in"),
        (&affinity, one, "affinity r is torn"),
        (
            &format!("{}hosts = [\"a\"]", rule("pin.r")),
            one,
            "does not suit the target",
        ),
        ("[opt_out.r]\nguests = [\"db-1\"]", one, "is opted out"),
        (
            "[migration]\nbandwidth_limit_mib_s = 0.001",
            one,
            "does not converge",
        ),
    ] {
        let faults = sent(policy, guests);
        assert!(
            faults.iter().any(|f| f.contains(breach)),
            "{policy}: {faults:?}"
        );
    }
}

/// Wild fleets are only worth something if they make the planner do everything it can do.
#[test]
fn wild_fleets_ask_for_everything() {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (seed, size) in (0..700).zip(0..) {
        let (snapshot, policy) = wild_pair(seed, 2 + size % 8, size % 60);
        let (found, _) = plan(&snapshot, &policy, &Options::default());
        let mut note = |what: &str| *seen.entry(what.to_owned()).or_default() += 1;
        found.steps.iter().for_each(|s| note(s.reason.as_str()));
        found.blocked.iter().for_each(|b| note(b.reason.as_str()));
        if found.steps.iter().any(|s| s.wave > 2) {
            note("three waves");
        }
        if !snapshot.in_flight.is_empty() && !found.steps.is_empty() {
            note("beside flights");
        }
    }
    for what in [
        "relieve_cpu",
        "relieve_memory",
        "spread",
        "consolidate",
        "drain",
        "repair_rule",
        "make_room",
        "unmovable",
        "pinned",
        "opted_out",
        "rule_impossible",
        "rule_conflict",
        "no_capacity",
        "incompatible_cpu",
        "missing_network",
        "missing_storage",
        "cool_down",
        "not_converging",
        "duplicate_uuid",
        "host_absent",
        "does_not_pay",
        "shut_off",
        "three waves",
        "beside flights",
    ] {
        assert!(seen.get(what).is_some_and(|&n| n >= 3), "{what}: {seen:?}");
    }
}
