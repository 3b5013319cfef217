//! Copies that would never end: a guest writes faster than its link copies.

use std::time::Duration;

use evenkeel_proto::v1::{Migration, MigrationPhase};
use evenkeel_tests::network::Caller;
use evenkeel_tests::schedulers::phase_of;
use evenkeel_tests::{Lab, LabOptions, until};

use crate::SOON;

/// Pages that the guest writes again and again: 16 MiB, at some 12 MiB/s.
const WRITER: &str = "r1 s4096 d3000";
/// Copies 2.4 MiB/s.
const LINK: &str = "20mbit";
/// Three rounds and what a busy machine makes of them.
const LONG: Duration = Duration::from_secs(240);

/// A lab whose guest `g` on h1 is moved to h2 under a policy of `migration`, and how that ended.
fn move_a_writer(migration: &str) -> (Lab, Migration) {
    let lab = Lab::up(&LabOptions::default());
    let policy =
        format!("schema = 1\n[migration]\nauto_converge = false\npatience = \"5s\"\n{migration}");
    lab.apply_policy(&policy, 0).expect("the policy is taken");
    lab.add_guest("h1", "g", &["--mem", "96"]);
    let dials = format!("guest set g {WRITER}");
    lab.run(&dials.split(' ').collect::<Vec<_>>());
    until("g to write", SOON, || {
        lab.heart("g")
            .beats
            .last()
            .is_some_and(|beat| beat.pages > 8192)
    });
    lab.fault(&["link", "h1", "migration", LINK]);
    lab.wait_for_guest("g");
    let leader = lab.some_leader();
    let order = lab.migrate(Caller::Operator, &leader, "g", "h2");
    let order = order.expect("the leader orders it");
    let migration = lab.wait_for_end(&order.id, LONG);
    (lab, migration)
}

#[test]
fn a_copy_without_headway_is_given_up_and_the_next_plan_knows() {
    let (lab, migration) = move_a_writer("downtime_steps = [\"400ms\"]");
    let state = migration.state.clone().unwrap_or_default();
    assert_eq!(state.phase(), MigrationPhase::Failed, "{migration:?}");
    assert_eq!(
        (state.reason.as_str(), state.whereabouts.as_str()),
        ("not_converging", "source")
    );
    let detail = &migration.detail;
    assert!(detail.contains("allowed a pause of 400ms"), "{detail}");
    assert!(detail.contains("given up"), "{detail}");
    lab.assert_lives_on("g", "h1");

    let snapshot = lab.json(&["evenkeel", "snapshot"]);
    let guest = &snapshot["guests"][0];
    assert!(guest["unconverged_until"].is_string(), "{guest}");
    let dirtied = guest["dirty_rate_mib_s"].as_f64().unwrap_or(0.0);
    assert!(dirtied > 2.0, "more than the link copies: {guest}");
    let said = lab.run(&["evenkeel", "explain", "guest", "g"]);
    assert!(said.contains("held, not converging"), "{said}");
    assert!(said.contains("did not converge"), "{said}");
    let plan = lab.json(&["evenkeel", "plan", "-o", "json"]);
    assert_eq!(plan["steps"].as_array().map(Vec::len), Some(0), "{plan}");
}

#[test]
fn where_the_policy_allows_it_a_guest_is_handed_over_early() {
    let (lab, migration) = move_a_writer("post_copy = true");
    assert_eq!(phase_of(&migration), MigrationPhase::Done, "{migration:?}");
    let detail = &migration.detail;
    assert!(detail.contains("handed over early"), "{detail}");
    assert_eq!(lab.running_on("g"), ["h2"]);
    let heart = lab.heart("g");
    assert_eq!(heart.counted_twice, [0_u64; 0], "it ran twice");
    until("its heart to go on at h2", SOON, || {
        lab.heart("g").count() > heart.count() + 2
    });
}
