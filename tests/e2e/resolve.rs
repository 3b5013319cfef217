//! A host dies in the middle of a migration and does not come back: an operator says where the guest is.

use std::time::Duration;

use evenkeel_proto::v1::{Migration, MigrationPhase};
use evenkeel_tests::schedulers::phase_of;
use evenkeel_tests::{Lab, LabOptions, until};

use crate::{END, SOON, begin_slow_migration, order_with_deadline};

/// libvirt notices a dead peer after 30 s, and both hosts are then asked for a minute.
const UNKNOWN: Duration = Duration::from_secs(180);
/// Long enough to be taken up and to begin.
const DEADLINE_MS: i64 = 20_000;

#[test]
fn the_guest_of_a_target_that_never_comes_back_is_free_on_an_operators_word() {
    let lab = Lab::up(&LabOptions::default());
    let order = begin_slow_migration(&lab, "g", "h1", "h2");
    let early = resolve(&lab, &["g", "--host", "h1"]);
    assert_eq!(early.0, Some(4), "it is running: {}", early.1);
    lab.fault(&["host", "h2", "off"]);
    until("the outcome to be unknown", UNKNOWN, || {
        lab.status_of(&lab.some_leader()).migrations_unknown == 1
    });
    let denied = resolve(&lab, &["g", "--gone"]);
    assert_eq!(denied.0, Some(4), "h1 has it: {}", denied.1);
    let open = lab.migrations().into_iter().find(|m| m.ended_at_ms == 0);
    let phase = open.as_ref().map(phase_of);
    assert_eq!(phase, Some(MigrationPhase::Unknown), "{open:?}");

    let closed = resolve(&lab, &["g", "--host", "h1", "--reason", "h2 burnt"]);
    assert_eq!(closed.0, Some(0), "{}", closed.1);
    let migration = lab.wait_for_end(&order.id, END);
    assert_resolved(&migration, "source");
    lab.assert_lives_on("g", "h1");
    until("nothing to be unknown", SOON, || {
        lab.status_of(&lab.some_leader()).migrations_unknown == 0
    });
    assert!(lab.orders().is_empty(), "the guest is free");
}

#[test]
fn the_guest_of_a_source_that_never_comes_back_is_closed_by_the_leader() {
    let lab = Lab::up(&LabOptions::default());
    let order = order_with_deadline(&lab, "g", DEADLINE_MS);
    until("memory to be copied", SOON, || {
        crate::is_copying(&lab, "h1", "g")
    });
    lab.fault(&["host", "h1", "off"]);
    until("the outcome to be unknown", UNKNOWN, || {
        lab.status_of(&lab.some_leader()).migrations_unknown == 1
    });
    let denied = resolve(&lab, &["g", "--host", "h2"]);
    assert_eq!(denied.0, Some(4), "h2 does not have it: {}", denied.1);
    let dry = resolve(&lab, &["g", "--gone", "--dry-run"]);
    assert_eq!(dry.0, Some(0), "{}", dry.1);
    let closed = resolve(&lab, &["g", "--gone", "--reason", "h1 burnt"]);
    assert_eq!(closed.0, Some(0), "{}", closed.1);
    assert_resolved(&lab.wait_for_end(&order.id, END), "nowhere");
    assert!(lab.orders().is_empty());
    // The host comes back after all: its agent finds the journal closed and clears it away.
    lab.fault(&["host", "h1", "on"]);
    until("the closed journal to be cleared away", UNKNOWN, || {
        lab.journal("h1", &order.guest_uuid).is_none()
    });
    let ends = lab.journal_ever("h1", &order.guest_uuid);
    let ends = ends.iter().filter(|j| j.ended_at_ms > 0).count();
    assert_eq!(ends, 1, "the journal closes once");
    assert_eq!(lab.running_on("g"), [""; 0], "never started by us");
}

/// `evenkeel guest resolve WORDS`: its exit code and all that it said.
fn resolve(lab: &Lab, words: &[&str]) -> (Option<i32>, String) {
    let asked = lab.attempt(&[&["evenkeel", "guest", "resolve"], words].concat());
    let said = [asked.stdout, asked.stderr].concat();
    (
        asked.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

fn assert_resolved(migration: &Migration, place: &str) {
    let state = migration.state.clone().unwrap_or_default();
    assert_eq!(state.phase(), MigrationPhase::Failed, "{migration:?}");
    assert_eq!(
        (state.reason.as_str(), state.whereabouts.as_str()),
        ("resolved", place),
        "{migration:?}"
    );
    assert!(migration.detail.contains("resolved by operator/lab"));
}
