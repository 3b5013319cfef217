//! The plan does not depend on the number of threads, and a larger budget makes no plan worse.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

mod fleet;

use evenkeel_planner::{Options, Policy, Snapshot, plan};
use fleet::skewed;
use proptest::prelude::*;

/// Fleets large enough for several groups of hosts, with a rule that reaches over hosts and one that does not.
fn case(seed: u64, hosts: usize) -> (Snapshot, Policy) {
    let mut snapshot = skewed(seed, hosts, 12, 0.8);
    for (at, host) in snapshot.hosts.iter_mut().enumerate() {
        host.labels.insert("rack".into(), format!("r{}", at % 4));
        host.memory_mib = 24_576 + 1024 * u64::try_from(at % 5).unwrap_or(0);
    }
    let strategy = ["contention", "spread", "consolidate"][usize::try_from(seed % 3).unwrap_or(0)];
    let text = format!(
        "strategy = \"{strategy}\"\naggressiveness = 5\n\
         [anti_affinity.racks]\nguests = [\"g0000-0*\"]\nover = \"rack\"\nstrength = \"should\"\n\
         [anti_affinity.hosts]\nguests = [\"g*-03\"]\nstrength = \"must\"\n"
    );
    (snapshot, Policy::parse(&text).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn one_thread_or_more_give_the_same_bytes(seed in any::<u64>(), hosts in 25..90_usize, threads in 2..5_usize) {
        let (snapshot, policy) = case(seed, hosts);
        let with = |threads| {
            let options = Options { seed, threads, ..Options::default() };
            let (plan, report) = plan(&snapshot, &policy, &options);
            (plan.to_json(), report)
        };
        prop_assert_eq!(with(1), with(threads));
    }
}

#[test]
fn seeds_differ_in_the_plan_and_hardly_in_what_it_brings() {
    let (snapshot, policy) = case(3, 30);
    let with = |seed| {
        let options = Options {
            seed,
            ..Options::default()
        };
        plan(&snapshot, &policy, &options).0
    };
    let (one, other) = (with(1), with(2));
    assert_ne!(one.id, other.id);
    assert!(one.loss_after < 0.5 * one.loss_before);
    assert!((one.loss_after - other.loss_after).abs() < 0.02 * one.loss_before);
}
