//! Not a benchmark but a tripwire: work grows with the fleet, and hardly faster.

mod fleet;

use evenkeel_planner::{Options, Policy, plan};

#[test]
fn work_grows_with_the_fleet_and_not_with_its_square() {
    let work_per_guest = |hosts: usize| {
        let snapshot = fleet::skewed(3, hosts, 18, 0.7);
        let (found, report) = plan(&snapshot, &Policy::default(), &Options::default());
        assert!(found.loss_after < 0.1 * found.loss_before);
        report.evaluations / u64::try_from(snapshot.guests.len()).unwrap()
    };
    let (small, large) = (work_per_guest(50), work_per_guest(800));
    assert!(
        large < 2 * small,
        "{large} candidates a guest, {small} in a small fleet"
    );
}
