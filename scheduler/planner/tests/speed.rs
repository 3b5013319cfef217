//! Not a benchmark but a tripwire: work grows with the fleet, not with its square.

#![expect(clippy::disallowed_types, reason = "the time taken is only printed")]

mod fleet;

use evenkeel_planner::{Options, Policy, plan};

#[test]
fn work_grows_with_the_fleet_and_not_with_its_square() {
    for hosts in [50_u64, 200, 500] {
        let snapshot = fleet::skewed(3, usize::try_from(hosts).unwrap(), 18, 0.7);
        let start = std::time::Instant::now();
        let (found, report) = plan(&snapshot, &Policy::default(), &Options::default());
        let (took, steps) = (start.elapsed(), found.steps.len());
        let (before, after, work) = (found.loss_before, found.loss_after, report.evaluations);
        println!(
            "{hosts} hosts: {steps} steps, loss {before:.2} -> {after:.2}, {work} candidates, {took:?}"
        );
        assert!(after < 0.1 * before);
        assert!(work < 2_000 * hosts, "{work} candidates for {hosts} hosts");
    }
}
