//! What series there are, and that none outlives what it is about.

use std::collections::BTreeMap;

use evenkeel_proto::v1;
use evenkeel_types::{MigrationState, Outcome};

use super::*;

fn fleet_of(names: &[&str]) -> Assessment {
    let mut core = crate::core::Core::new(&evenkeel_planner::Policy::default());
    let (fleet, active) = (Default::default(), Default::default());
    let mut assessment = core.assess(&fleet, &active, 0);
    let host = |name: &&str| evenkeel_planner::Host {
        name: (*name).to_owned(),
        ..Default::default()
    };
    assessment.snapshot.hosts = names.iter().map(host).collect();
    assessment
}

#[test]
fn a_host_that_is_gone_leaves_no_series_behind() {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry).unwrap();
    let (before, now) = (fleet_of(&["h1", "h2"]), fleet_of(&["h2", "h3"]));
    metrics.assessment(&fleet_of(&[]), &before);
    metrics.assessment(&before, &now);
    let gathered = registry.gather();
    let states = gathered
        .iter()
        .find(|family| family.name() == "evenkeel_host_state")
        .unwrap();
    let labels = states.get_metric().iter().flat_map(|m| m.get_label());
    let hosts: BTreeSet<&str> = labels
        .filter(|label| label.name() == "host")
        .map(|label| label.value())
        .collect();
    assert_eq!(hosts, BTreeSet::from(["h2", "h3"]));
}

#[test]
fn every_reason_for_a_refusal_or_failure_is_shown_before_its_first_event() {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry).unwrap();
    let order = v1::Order::default();
    let refused = |refusal: Refusal| v1::Journal {
        order: Some(order.clone()),
        state: Some(MigrationState::Ended(Outcome::Refused(refusal)).into()),
        ..Default::default()
    };
    let shown = || -> BTreeMap<(String, String), f64> {
        let gathered = registry.gather();
        let family = gathered
            .iter()
            .find(|family| family.name() == "evenkeel_migration_failures_total");
        let series = family.into_iter().flat_map(|f| f.get_metric());
        series
            .map(|metric| {
                let label = |name| {
                    let labels = metric.get_label().iter();
                    let label = labels.into_iter().find(|label| label.name() == name);
                    label.map(|label| label.value().to_owned()).unwrap()
                };
                let value = metric.get_counter().get_value();
                ((label("phase"), label("reason")), value)
            })
            .collect()
    };
    let before = shown();
    assert_eq!(before.len(), Refusal::ALL.len() + FailureReason::ALL.len());
    assert!(before.values().all(|value| *value == 0.0));
    for refusal in Refusal::ALL {
        metrics.settled(&refused(*refusal));
    }
    let after = shown();
    assert_eq!(after.len(), before.len(), "no label but those");
    let refusals = after.iter().filter(|((phase, _), _)| phase == "prepare");
    assert!(refusals.map(|(_, value)| *value).all(|value| value == 1.0));
}

fn values_of(registry: &Registry, name: &str) -> Vec<f64> {
    let gathered = registry.gather();
    let family = gathered.iter().find(|family| family.name() == name);
    let series = family.into_iter().flat_map(|f| f.get_metric());
    series
        .map(|metric| metric.get_gauge().get_value() + metric.get_counter().get_value())
        .collect()
}

#[test]
fn a_rule_that_is_no_more_leaves_no_series_behind() {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry).unwrap();
    let rule = |name: &str, guests| RuleStanding {
        rule: name.to_owned(),
        must: true,
        guests,
    };
    let shown = || values_of(&registry, "evenkeel_policy_violations");
    metrics.plan(0, 0.0, &[rule("pin.a", 2), rule("pin.b", 0)]);
    assert_eq!(shown(), [2.0, 0.0]);
    metrics.plan(0, 0.0, &[rule("pin.b", 3)]);
    assert_eq!(shown(), [3.0]);
    metrics.no_plan();
    assert!(
        shown().is_empty(),
        "who does not plan knows nothing of rules"
    );
}

#[test]
fn a_foreign_migration_is_counted_once() {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry).unwrap();
    let mut with = fleet_of(&["h1"]);
    with.troubles.push(Trouble::ForeignMigration {
        guest: "g".to_owned(),
        host: "h1".to_owned(),
    });
    let without = fleet_of(&["h1"]);
    for (before, now) in [
        (&without, &with),
        (&with, &with),
        (&with, &without),
        (&without, &with),
    ] {
        metrics.assessment(before, now);
    }
    assert_eq!(
        values_of(&registry, "evenkeel_foreign_migrations_total"),
        [2.0]
    );
    assert_eq!(values_of(&registry, "evenkeel_foreign_migrations"), [1.0]);
}

#[test]
fn moves_of_the_last_day_are_counted_for_the_guest_that_has_most() {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry).unwrap();
    let day = super::DAY_MS;
    let moved = |at_ms: i64, outcome| {
        let state = Some(MigrationState::Ended(outcome).into());
        let record = v1::MoveRecord {
            ended_at_ms: at_ms,
            state,
            ..Default::default()
        };
        crate::observe::Past::from(&record)
    };
    let done = |at_ms| moved(at_ms, Outcome::Done);
    let remembered = |moves| Remembered {
        cooldown_until_ms: 0,
        moves,
        message: v1::GuestRecord::default(),
        mod_revision: 1,
    };
    let mut fleet = Fleet::default();
    let busy = vec![
        done(1),
        done(day),
        moved(day, Outcome::Cancelled),
        done(day + 1),
    ];
    for (id, moves) in [
        ("6ba7b810-9dad-11d1-80b4-00c04fd430c8", busy),
        ("6ba7b811-9dad-11d1-80b4-00c04fd430c8", vec![done(day)]),
    ] {
        fleet
            .remembered
            .insert(id.parse().unwrap(), remembered(moves));
    }
    metrics.looked(&fleet, day + 2);
    assert_eq!(values_of(&registry, "evenkeel_guest_moves_day_max"), [2.0]);
    let look = values_of(&registry, "evenkeel_scheduler_last_look_timestamp_seconds");
    assert_eq!(look, [86_400.002]);
}

#[test]
fn a_drain_that_is_over_leaves_no_series_behind() {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry).unwrap();
    let host: HostName = "h1".parse().unwrap();
    let entry = IntentEntry {
        kind: crate::observe::IntentKind::Drain,
        message: v1::Intent::default(),
        mod_revision: 1,
    };
    let drain = Drain {
        state: crate::core::drains::DrainState::Stuck,
        left: 3,
        moving: 0,
        shut_off_stay: 0,
        obstacles: vec![],
        holds: vec![],
        overdue: true,
    };
    let shown = |name: &str| -> Vec<f64> {
        let gathered = registry.gather();
        let family = gathered.iter().find(|family| family.name() == name);
        let values = family.into_iter().flat_map(|f| f.get_metric());
        values
            .map(|metric| metric.get_gauge().get_value())
            .collect()
    };
    metrics.drains(&[(&host, &entry, drain)]);
    assert_eq!(shown("evenkeel_drain_guests_left"), [3.0]);
    assert_eq!(shown("evenkeel_drain_overdue"), [1.0]);
    assert_eq!(shown("evenkeel_drains").iter().sum::<f64>(), 1.0);
    metrics.drains(&[]);
    assert!(shown("evenkeel_drain_guests_left").is_empty());
    assert!(shown("evenkeel_drain_overdue").is_empty());
    assert_eq!(shown("evenkeel_drains"), [0.0; 4], "every state is told");
}
