//! Not a benchmark but a tripwire: planning stays far below a control cycle.

mod fleet;

use evenkeel_planner::{Options, Policy, plan};

#[test]
fn plans_for_large_fleets_do_not_take_long() {
    for hosts in [50, 200, 1000] {
        let snapshot = fleet::skewed(3, hosts, 18, 0.7);
        let start = std::time::Instant::now();
        let (found, report) = plan(&snapshot, &Policy::default(), &Options::default());
        let took = start.elapsed();
        println!("{hosts} hosts, {} steps, {} evaluations, loss {:.2} -> {:.2}: {took:?}", found.steps.len(), report.evaluations, found.loss_before, found.loss_after);
    }
}
