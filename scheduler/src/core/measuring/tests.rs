use evenkeel_planner::{Options, plan};
use evenkeel_types::{FailureReason, MigrationState, Outcome, Whereabouts};

use super::*;
use crate::core::tests::{Bench, facts, host, id, reading, report};
use crate::observe::samples::order_entry;

/// A hot fleet whose plan moves several guests from h1, and what is asked of it.
struct Asked {
    bench: Bench,
    measuring: Measuring,
}

impl Asked {
    fn new() -> Self {
        let mut bench = Bench::hot();
        bench.pass(40);
        Self {
            bench,
            measuring: Measuring::default(),
        }
    }

    fn choose(&mut self) -> Vec<Candidate> {
        let bench = &mut self.bench;
        let assessment = bench.core.assess(&bench.fleet, &bench.active, bench.now_ms);
        let policy = bench.active.policy();
        let (plan, _) = plan(&assessment.snapshot, policy, &Options::default());
        assert!(plan.steps.len() > 1, "{:?}", plan.steps);
        self.measuring
            .choose(&bench.fleet, &assessment, &plan, bench.now_ms)
    }

    fn one(&mut self) -> Candidate {
        let chosen = self.choose();
        assert_eq!(chosen.len(), 1, "{chosen:?}");
        chosen.into_iter().next().unwrap()
    }

    fn note(&mut self, asked: &Candidate, came: Measured) {
        let bench = &self.bench;
        self.measuring.note(asked, came, &bench.fleet, bench.now_ms);
    }

    /// Edits the reading of every guest.
    fn edit(&mut self, edit: impl Fn(&mut crate::observe::GuestReading)) {
        let reports = self.bench.fleet.reports.values_mut();
        reports.flat_map(|r| &mut r.guests).for_each(edit);
    }
}

#[test]
fn one_guest_a_host_is_asked_for_and_the_next_when_it_is_done() {
    let mut asked = Asked::new();
    let first = asked.one();
    assert_eq!(first.host, host("h1"));
    assert_eq!(asked.choose(), [], "its host measures");
    asked.note(&first, Measured::Done);
    let second = asked.one();
    assert_ne!(second.guest, first.guest, "its report is not here yet");
}

#[test]
fn who_has_a_fresh_curve_or_could_not_use_one_is_not_asked_for() {
    let mut asked = Asked::new();
    asked.edit(|g| g.dirty_curve = vec![(1.0, 1.0)]);
    assert_eq!(asked.choose(), []);
    asked.edit(|g| g.dirty_curve.clear());
    let given_up = MigrationState::Ended(Outcome::Failed {
        reason: FailureReason::NotConverging,
        guest: Whereabouts::Source,
    });
    // Long ago, so that they are moved again: by the rate that it showed.
    let long_ago = asked.bench.now_ms - 48 * 3_600_000;
    for n in 1..=8 {
        asked.bench.remember(n, given_up, long_ago);
    }
    assert_eq!(asked.choose(), []);
}

#[test]
fn a_host_with_a_migration_or_without_libvirt_is_not_asked() {
    let mut asked = Asked::new();
    let guest = id(99);
    let order = order_entry(1, |order| order.guest_uuid = guest.to_string());
    asked.bench.fleet.orders.insert(guest.clone(), order);
    assert_eq!(asked.choose(), []);
    asked.bench.fleet.orders.remove(&guest);
    let h1 = host("h1");
    let edit = |asked: &mut Asked, running| {
        let report = asked.bench.fleet.reports.get_mut(&h1).unwrap();
        report.migrations_running = running;
    };
    edit(&mut asked, 1);
    assert_eq!(asked.choose(), [], "somebody else's");
    edit(&mut asked, 0);
    assert_eq!(asked.one().host, h1);
}

#[test]
fn a_failure_rests_its_guest_for_longer_each_time_and_no_other() {
    let mut asked = Asked::new();
    let first = asked.one();
    asked.note(&first, Measured::Failed);
    let other = asked.one();
    assert_ne!(other.guest, first.guest);
    asked.note(&other, Measured::Done);
    let rests = |asked: &Asked| {
        let until = asked.measuring.rests[&first.guest].until_ms;
        (until - asked.bench.now_ms) / 1000
    };
    assert_eq!(rests(&asked), 60);
    for seconds in [120, 240, 480, 960, 1920, 1920] {
        asked.note(&first, Measured::Failed);
        assert_eq!(rests(&asked), seconds);
    }
    asked.note(&first, Measured::Done);
    assert_eq!(rests(&asked), 60, "forgiven");
    asked.bench.now_ms += 61_000;
    asked
        .measuring
        .forget(&asked.bench.fleet, asked.bench.now_ms);
    assert!(!asked.measuring.rests(&first.guest, asked.bench.now_ms));
}

#[test]
fn an_agent_that_cannot_is_left_alone_until_it_is_another() {
    let mut asked = Asked::new();
    let first = asked.one();
    asked.note(&first, Measured::Lacking);
    assert_eq!(asked.choose(), []);
    asked.bench.pass(3600);
    assert_eq!(asked.choose(), [], "an hour later");
    let facts = asked.bench.fleet.hosts.get_mut(&first.host).unwrap();
    facts.agent_version = "0.2.0".to_owned();
    assert_eq!(asked.one().host, first.host);
}

#[test]
fn a_large_fleet_is_asked_a_few_at_a_time() {
    let mut bench = Bench::hot();
    for n in 4..=12 {
        let name = format!("h{n}");
        bench.fleet.hosts.insert(host(&name), facts(&name));
        let busy = (1..=8).map(|m| reading(n * 100 + m, 0.5, 0.6)).collect();
        bench.fleet.reports.insert(host(&name), report(busy));
    }
    for n in 13..=24 {
        let name = format!("h{n}");
        bench.fleet.hosts.insert(host(&name), facts(&name));
        bench.fleet.reports.insert(host(&name), report(vec![]));
    }
    bench.pass(40);
    let mut asked = Asked {
        bench,
        measuring: Measuring::default(),
    };
    let chosen = asked.choose();
    let hosts: BTreeSet<&HostName> = chosen.iter().map(|c| &c.host).collect();
    assert_eq!(
        (chosen.len(), hosts.len()),
        (AT_ONCE, AT_ONCE),
        "{chosen:?}"
    );
    assert_eq!(asked.choose(), []);
}

#[test]
fn a_guest_that_once_wrote_too_fast_is_measured_anew_while_its_host_is_hot() {
    let mut asked = Asked::new();
    // So fast that no plan moves it.
    asked.edit(|g| {
        if g.id == id(8) {
            g.dirty_rate_mib_s = Some(1e6);
        } else {
            g.dirty_curve = vec![(1.0, 1.0)];
        }
    });
    let mut calm = reading(9, 0.1, 0.0);
    calm.dirty_rate_mib_s = Some(1e6);
    let reports = &mut asked.bench.fleet.reports;
    reports.insert(host("h2"), report(vec![calm]));
    let first = asked.one();
    assert_eq!(first.guest, id(8), "the other's host is not hot");
    asked.note(&first, Measured::Failed);
    assert_eq!(asked.choose(), [], "it rests like any other");
}
