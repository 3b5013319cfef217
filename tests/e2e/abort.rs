//! A copy that is under way is stopped: by an operator, or by its deadline. The guest stays where it was.

use evenkeel_proto::v1::{self, MigrationPhase};
use evenkeel_tests::network::Caller;
use evenkeel_tests::schedulers::{ask, phase_of};
use evenkeel_tests::{Lab, LabOptions, until, wait_for};

use crate::{END, SOON, begin_slow_migration, order_with_deadline};

/// The deadline of a copy that takes four times as long.
const DEADLINE_MS: i64 = 20_000;

#[test]
fn an_operator_cancels_a_copy_and_the_guest_may_move_again() {
    let lab = Lab::up(&LabOptions::default());
    let order = begin_slow_migration(&lab, "g", "h1", "h2");
    assert!(reserved_bytes(&lab, "h2") > 0, "the target holds memory");
    let leader = lab.some_leader();
    let request = v1::CancelMigrationRequest {
        id: order.id.clone(),
        reason: "test".to_owned(),
        dry_run: false,
    };
    let cancelled = lab.inside(|| async {
        let mut client = lab.scheduler(Caller::Operator, &leader);
        client.cancel_migration(ask(request)).await
    });
    cancelled.expect("the leader takes the cancel");
    let migration = lab.wait_for_end(&order.id, END);
    assert_eq!(
        phase_of(&migration),
        MigrationPhase::Cancelled,
        "{migration:?}"
    );
    lab.assert_lives_on("g", "h1");
    until("the memory to be free", SOON, || {
        reserved_bytes(&lab, "h2") == 0
    });
    lab.full_speed("h1");
    let again = lab.migrate(Caller::Operator, &leader, "g", "h2");
    let again = again.expect("a cancelled move does not forbid the next");
    let migration = lab.wait_for_end(&again.id, END);
    assert_eq!(phase_of(&migration), MigrationPhase::Done, "{migration:?}");
    lab.assert_lives_on("g", "h2");
}

#[test]
fn no_copy_goes_on_past_its_deadline() {
    let lab = Lab::up(&LabOptions::default());
    let order = order_with_deadline(&lab, "g", DEADLINE_MS);
    let journals = wait_for("the copy to be given up", 2 * SOON, || {
        let journals = lab.journal_ever("h1", &order.guest_uuid);
        journals
            .iter()
            .any(|j| j.ended_at_ms > 0)
            .then_some(journals)
    });
    let state = |journal: &v1::Journal| journal.state.clone().unwrap_or_default();
    let phases: Vec<_> = journals.iter().map(state).collect();
    let last = phases.last().expect("an end");
    assert_eq!(last.phase(), MigrationPhase::Failed, "{phases:?}");
    assert_eq!(
        (last.reason.as_str(), last.whereabouts.as_str()),
        ("deadline", "source")
    );
    assert!(
        phases.iter().any(|p| p.phase() == MigrationPhase::Running),
        "it was under way: {phases:?}"
    );
    let ended = journals.last().map_or(0, |journal| journal.ended_at_ms);
    let late = ended - order.deadline_ms;
    assert!((0..DEADLINE_MS).contains(&late), "ended {late} ms after it");
    lab.assert_lives_on("g", "h1");
}

/// Memory that a host has promised to guests on their way to it.
fn reserved_bytes(lab: &Lab, host: &str) -> u64 {
    let number: u8 = host[1..].parse().expect("a host: h1, h2 …");
    let address = format!("10.90.0.{}:9641", 10 + number);
    let text = lab.http_get(&address, "/metrics");
    let line = text
        .lines()
        .find(|line| line.starts_with("evenkeel_agent_reserved_bytes"))
        .expect("the metric");
    let value = line.rsplit(' ').next().and_then(|v| v.parse::<u64>().ok());
    value.expect("a number")
}
