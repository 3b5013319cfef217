//! A plan that an operator has seen is what is carried out, or nothing is.

use evenkeel_proto::v1::MigrationPhase;
use evenkeel_tests::schedulers::phase_of;
use evenkeel_tests::{Lab, LabOptions, until};

use crate::{QUICK_POLICY, SOON, ends_with};

#[test]
fn a_plan_is_carried_out_as_it_was_shown_and_is_stale_then() {
    let lab = Lab::up(&LabOptions::default());
    drop(lab.some_leader());
    // Nothing moves by itself: its mode is observe.
    lab.apply_policy(QUICK_POLICY, 0).unwrap();
    for name in ["a", "b", "c"] {
        lab.add_guest("h1", name, &[]);
        lab.run(&["guest", "set", name, "c30"]);
    }
    let file = lab.path(std::path::Path::new("plan.json"));
    let file = file.display().to_string();
    until("a plan with moves", SOON, || {
        let made = lab.attempt(&["evenkeel", "plan", "--detailed-exitcode", "--out", &file]);
        made.status.code() == Some(2)
    });
    // Load has come to rest, so that what is seen is what is worth doing a moment later.
    let shown = ends_with(&lab, 0, &["plan", "--out", &file, "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let steps = shown["steps"].as_array().unwrap();
    assert!(!steps.is_empty(), "{shown}");
    let judged = ends_with(&lab, 0, &["apply", &file, "--dry-run"]);
    assert!(judged.contains("can be carried out"), "{judged}");
    assert_eq!(lab.orders_ever(), [], "a dry run moves nothing");

    let done = ends_with(&lab, 0, &["apply", &file, "--yes", "--reason", "as seen"]);
    let all = steps.len();
    assert!(done.contains(&format!(": {all} of {all} move")), "{done}");
    let moved = lab.migrations();
    assert_eq!(moved.len(), all, "exactly that plan: {moved:?}");
    for (migration, step) in moved.iter().zip(steps) {
        assert_eq!(phase_of(migration), MigrationPhase::Done);
        let order = migration.order.as_ref().unwrap();
        assert_eq!(order.trigger, "manual");
        assert!(order.why.contains("as seen (plan ") || order.reason.contains("as seen (plan "));
        let (guest, target) = (
            step["guest"].as_str().unwrap(),
            step["to"].as_str().unwrap(),
        );
        assert_eq!(
            (order.guest_name.as_str(), order.target.as_str()),
            (guest, target)
        );
        lab.assert_lives_on(guest, target);
    }

    let again = ends_with(&lab, 3, &["apply", &file, "--yes"]);
    assert!(again.contains("stale plan: step 1: "), "{again}");
    assert_eq!(lab.orders_ever().len(), all, "a stale plan moves nothing");
    let best = ends_with(&lab, 0, &["place", "--vcpus", "1", "--memory", "64MiB"]);
    assert!(best.starts_with("best host: h"), "{best}");
}
