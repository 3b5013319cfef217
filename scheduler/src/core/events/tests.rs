use evenkeel_planner::Mode;

use super::*;
use crate::core::{ActivePolicy, Core};
use crate::observe::samples::order_entry;

struct Scene {
    fleet: Fleet,
    assessment: Assessment,
}

impl Scene {
    fn new() -> Self {
        let (fleet, active) = (Fleet::default(), ActivePolicy::default());
        let mut assessment = Core::new(active.policy()).assess(&fleet, &active, 0);
        assessment.holds.clear();
        Self { fleet, assessment }
    }

    /// What is new at a time, written at once.
    fn news(&mut self, said: &mut Said, at_ms: i64) -> Vec<String> {
        self.assessment.at_ms = at_ms;
        let now = Now {
            fleet: &self.fleet,
            assessment: &self.assessment,
            unknown: &[],
            overdue: &[],
            epoch: 7,
            by: "scheduler/s1",
        };
        let news = said.news(&now);
        for event in &news {
            let sequence = u64::try_from(self.fleet.events.len()).unwrap() + 1;
            keep(
                &mut self.fleet,
                v1::Event {
                    sequence,
                    epoch: 7,
                    ..event.clone()
                },
            );
            said.note(&v1::Event {
                epoch: 7,
                ..event.clone()
            });
        }
        news.into_iter().map(|event| event.kind).collect()
    }
}

fn keep(fleet: &mut Fleet, message: v1::Event) {
    let revision = i64::try_from(message.sequence).unwrap();
    let key = (message.sequence, message.epoch);
    fleet.events.insert(key, EventEntry { message, revision });
}

fn two_hosts() -> Trouble {
    Trouble::TwoHosts {
        guest: "db1".to_owned(),
        hosts: vec!["h1".to_owned(), "h2".to_owned()],
    }
}

#[test]
fn what_is_so_is_told_once_and_its_end_only_when_it_lasts() {
    let (mut scene, mut said) = (Scene::new(), Said::default());
    assert_eq!(scene.news(&mut said, 0), ["leader_changed"]);
    scene.assessment.troubles = vec![two_hosts()];
    assert_eq!(scene.news(&mut said, 500), ["guest_on_two_hosts_began"]);
    assert!(scene.news(&mut said, 1000).is_empty());
    scene.assessment.troubles.clear();
    assert!(scene.news(&mut said, 2000).is_empty(), "it may come back");
    scene.assessment.troubles = vec![two_hosts()];
    assert!(scene.news(&mut said, 9000).is_empty());
    scene.assessment.troubles.clear();
    assert!(scene.news(&mut said, 13_000).is_empty(), "it lasted anew");
    assert_eq!(scene.news(&mut said, 23_000), ["guest_on_two_hosts_ended"]);
    assert!(scene.news(&mut said, 50_000).is_empty());
}

#[test]
fn a_new_leader_repeats_nothing_that_is_kept() {
    let (mut scene, mut said) = (Scene::new(), Said::default());
    scene.assessment.troubles = vec![two_hosts()];
    assert_eq!(scene.news(&mut said, 0).len(), 2);
    let mut next = Said::read(&scene.fleet);
    assert!(
        scene.news(&mut next, 500).is_empty(),
        "same leadership, same trouble"
    );
    scene.assessment.troubles.clear();
    assert!(scene.news(&mut next, 1000).is_empty());
    assert_eq!(scene.news(&mut next, 11_000), ["guest_on_two_hosts_ended"]);
}

#[test]
fn mode_and_warming_up_are_no_holds_worth_an_event_and_a_pause_runs_out_at_once() {
    let (mut scene, mut said) = (Scene::new(), Said::default());
    scene.news(&mut said, 0);
    scene.assessment.holds = vec![Hold::Mode(Mode::Observe), Hold::NotReady];
    assert!(scene.news(&mut said, 1).is_empty());
    scene.assessment.holds = vec![Hold::Failures { count: 3 }];
    assert_eq!(scene.news(&mut said, 2), ["hold_began"]);
    scene.assessment.holds = vec![Hold::Failures { count: 4 }];
    assert!(scene.news(&mut said, 3).is_empty(), "the same hold");
    said.note(&event(EventKind::Paused, "operator/alice", "night"));
    assert_eq!(scene.news(&mut said, 4), ["resumed"]);
}

#[test]
fn an_end_says_what_its_journal_says() {
    let order = order_entry(5, |o| {
        o.guest_name = "db1".to_owned();
        o.by = "operator/alice".to_owned();
        o.why = "relieve h1".to_owned();
        o.reason = "manual".to_owned();
    });
    let end = |outcome, detail: &str| {
        ended(&v1::Journal {
            order: Some(order.order.message.clone()),
            state: Some(MigrationState::Ended(outcome).into()),
            started_at_ms: 1000,
            ended_at_ms: 3500,
            detail: detail.to_owned(),
            ..Default::default()
        })
    };
    let done = end(Outcome::Done, "");
    assert_eq!(
        (done.kind.as_str(), done.why.as_str()),
        ("migration_done", "relieve h1")
    );
    assert_eq!(done.measured.unwrap().duration_ms, 2500);
    assert_eq!(
        (done.by.as_str(), done.hosts.join(">")),
        ("operator/alice", "h1>h2".to_owned())
    );
    let refused = end(
        Outcome::Refused(evenkeel_types::Refusal::NoMemory),
        "12 MiB are free",
    );
    assert_eq!(refused.kind, "migration_refused");
    assert_eq!(
        (refused.reason.as_str(), refused.why.as_str()),
        ("no_memory", "12 MiB are free")
    );
    assert_eq!(refused.measured, None);
}

#[test]
fn intents_are_told_by_what_has_changed() {
    let intent = |kind: v1::IntentKind, drained_at_ms, deadline_ms| v1::Intent {
        kind: kind.into(),
        drained_at_ms,
        deadline_ms,
        ..Default::default()
    };
    let cordon = intent(v1::IntentKind::Cordon, 0, 0);
    let drain = intent(v1::IntentKind::Drain, 0, 0);
    let drained = intent(v1::IntentKind::Drain, 9, 0);
    let longer = intent(v1::IntentKind::Drain, 0, 60);
    let check = |before: Option<&v1::Intent>, after: Option<&v1::Intent>, kind: &str| {
        let event = intent_changed("h1", (before, after), ("operator/alice", "fan"));
        assert_eq!(
            (event.kind.as_str(), event.hosts.as_slice()),
            (kind, ["h1".to_owned()].as_slice())
        );
    };
    check(None, Some(&cordon), "cordoned");
    check(Some(&cordon), None, "uncordoned");
    check(Some(&cordon), Some(&drain), "drain_began");
    check(Some(&drain), Some(&cordon), "drain_cancelled");
    check(Some(&drain), None, "drain_cancelled");
    check(Some(&drain), Some(&longer), "drain_changed");
    check(Some(&drain), Some(&drained), "drained");
    check(Some(&drained), Some(&drain), "drain_reopened");
}

#[test]
fn the_trail_is_bounded_by_count_and_age_and_its_newest_event_stays() {
    let mut fleet = Fleet::default();
    for sequence in 1..=1003 {
        keep(
            &mut fleet,
            v1::Event {
                sequence,
                epoch: 7,
                at_ms: KEPT_MS,
                ..Default::default()
            },
        );
    }
    assert_eq!(surplus(&fleet, KEPT_MS), [(1, 7), (2, 7), (3, 7)]);
    assert_eq!(
        surplus(&fleet, 3 * KEPT_MS).len(),
        3 + MOST_AGED,
        "a few at a time"
    );
    let mut one = Fleet::default();
    keep(
        &mut one,
        v1::Event {
            sequence: 5,
            epoch: 7,
            ..Default::default()
        },
    );
    assert!(surplus(&one, 3 * KEPT_MS).is_empty());
    keep(
        &mut one,
        v1::Event {
            sequence: 6,
            epoch: 7,
            ..Default::default()
        },
    );
    assert_eq!(surplus(&one, 3 * KEPT_MS), [(5, 7)]);
}

#[test]
fn filters_restrict_by_each_of_their_fields() {
    let it = v1::Event {
        at_ms: 50,
        kind: "migration_done".to_owned(),
        guest: "db1".to_owned(),
        guest_uuid: "6ba7b810-9dad-11d1-80b4-00c04fd430c8".to_owned(),
        hosts: vec!["h1".to_owned(), "h2".to_owned()],
        ..Default::default()
    };
    let check = |edit: &dyn Fn(&mut v1::EventFilter), expected: bool| {
        let mut filter = v1::EventFilter::default();
        edit(&mut filter);
        assert_eq!(
            Filter::from(filter.clone()).takes(&it),
            expected,
            "{filter:?}"
        );
    };
    check(&|_| {}, true);
    check(&|f| f.since_ms = 51, false);
    check(&|f| f.kinds = vec!["paused".to_owned()], false);
    check(
        &|f| f.kinds = vec!["paused".to_owned(), "migration_done".to_owned()],
        true,
    );
    check(&|f| f.guest = "db".to_owned(), false);
    check(
        &|f| f.guest = "6BA7B810-9DAD-11D1-80B4-00C04FD430C8".to_owned(),
        true,
    );
    check(&|f| f.host = "h2".to_owned(), true);
    check(&|f| f.host = "h3".to_owned(), false);
}
