//! What series there are, and that none outlives what it is about.

use std::collections::BTreeMap;

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
