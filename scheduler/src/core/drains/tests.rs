use evenkeel_planner::{Options, Step, StepReason, plan};
use evenkeel_proto::v1;
use evenkeel_types::{FailureReason, Refusal, Whereabouts};

use super::*;
use crate::core::choose::{Situation, choose};
use crate::core::tests::{Bench, host, id, reading, report};
use crate::observe::HostReport;
use crate::observe::samples::order_entry;

const FAILED: Outcome = Outcome::Failed {
    reason: FailureReason::Libvirt,
    guest: Whereabouts::Source,
};

/// A drain of h1 in `mode`, asked for at the start, as the revision 10 of etcd.
fn draining_in(mode: &str) -> Bench {
    let mut bench = Bench::hot();
    bench.rule("");
    let text = bench.active.text().replace("automatic", mode);
    let record = v1::PolicyRecord {
        text,
        revision: 9,
        ..Default::default()
    };
    bench.active = bench.active.follow(Some(&(record, 9)));
    assert_eq!(bench.active.policy().mode.as_str(), mode);
    intend(&mut bench, v1::IntentKind::Drain, |_| {});
    bench
}

fn intend(bench: &mut Bench, kind: v1::IntentKind, edit: impl FnOnce(&mut v1::Intent)) {
    let mut message = v1::Intent {
        host: "h1".into(),
        kind: kind.into(),
        ..Default::default()
    };
    edit(&mut message);
    let entry = IntentEntry::new(message, 10);
    bench.fleet.intents.insert(host("h1"), entry);
}

/// A guest's moves from h1 to h2 in order: what started each, how it ended and when.
fn remember(bench: &mut Bench, guest: u32, moves: &[(&str, Outcome, i64)]) {
    let past = |&(trigger, outcome, ended_ms): &(&str, Outcome, i64)| Past {
        source: "h1".into(),
        target: "h2".into(),
        ended_ms,
        trigger: trigger.into(),
        state: Some(MigrationState::Ended(outcome)),
        longest_pause: Duration::ZERO,
        post_copy: false,
    };
    let records = moves.iter().map(|_| v1::MoveRecord {
        detail: "no route".into(),
        ..Default::default()
    });
    let remembered = Remembered {
        cooldown_until_ms: 0,
        moves: moves.iter().map(past).collect(),
        message: v1::GuestRecord {
            moves: records.collect(),
            ..Default::default()
        },
        mod_revision: 20,
    };
    bench.fleet.remembered.insert(id(guest), remembered);
}

/// The plan of now and what is started of it, as the controller goes about it.
fn plan_and_choose(bench: &mut Bench) -> (Plan, Choice) {
    let assessment = bench.core.assess(&bench.fleet, &bench.active, bench.now_ms);
    let policy = bench.active.policy();
    let Some(purpose) = purpose(&assessment, policy.mode) else {
        panic!("nothing is planned");
    };
    let options = Options {
        purpose,
        ..Options::default()
    };
    let (plan, _) = plan(&assessment.snapshot, policy, &options);
    let situation = Situation {
        fleet: &bench.fleet,
        assessment: &assessment,
        policy,
        purpose,
    };
    let choice = choose(situation, &plan);
    (plan, choice)
}

fn stand_of(bench: &mut Bench) -> Drain {
    let (plan, choice) = plan_and_choose(bench);
    let assessment = bench.core.assess(&bench.fleet, &bench.active, bench.now_ms);
    let newest = Some(Newest {
        plan: &plan,
        choice: &choice,
    });
    stand(&bench.fleet, &assessment, &host("h1"), newest).unwrap()
}

#[test]
fn a_drain_goes_on_at_once_in_every_mode_and_moves_nobody_else() {
    for mode in ["off", "observe", "automatic"] {
        let mut bench = draining_in(mode);
        bench.fleet.reports.insert(
            host("h2"),
            report((11..=18).map(|n| reading(n, 0.5, 0.6)).collect()),
        );
        let busy = bench.fleet.reports[&host("h1")].guests[..2].to_vec();
        bench.fleet.reports.insert(host("h1"), report(busy));
        bench.pass(1); // far less than the hold time
        let (plan, choice) = plan_and_choose(&mut bench);
        let only = |step: &Step| step.from == "h1" && step.reason == StepReason::Drain;
        assert!(plan.steps.iter().all(only), "{mode}: {:?}", plan.steps);
        assert!(!choice.start.is_empty(), "{mode}: {:?}", choice.postponed);
        let limit = bench.active.policy().limits.migrations_per_host;
        assert!(choice.start.len() <= usize::try_from(limit).unwrap());
    }
}

#[test]
fn in_automatic_a_drain_holds_up_no_balance() {
    let mut bench = draining_in("automatic");
    let assessment = bench.pass(60);
    assert_eq!(assessment.holds, []);
    let mode = bench.active.policy().mode;
    assert_eq!(purpose(&assessment, mode), Some(Purpose::Balance));
}

#[test]
fn without_anybody_to_leave_a_mode_does_what_it_always_does() {
    let mut bench = draining_in("off");
    bench.fleet.reports.insert(host("h1"), report(vec![]));
    let assessment = bench.pass(1);
    assert_eq!(purpose(&assessment, Mode::Off), None);
    assert_eq!(purpose(&assessment, Mode::Observe), Some(Purpose::Balance));
    let mut off = reading(1, 0.0, 0.0);
    off.state = RunState::ShutOff;
    bench.fleet.reports.insert(host("h1"), report(vec![off]));
    let assessment = bench.pass(1);
    assert_eq!(purpose(&assessment, Mode::Off), None, "it may stay");
    intend(&mut bench, v1::IntentKind::Drain, |i| i.offline_too = true);
    let assessment = bench.pass(1);
    assert_eq!(purpose(&assessment, Mode::Off), Some(Purpose::Drain));
}

#[test]
fn pause_and_missing_hosts_hold_a_drain_with_their_reason() {
    let mut bench = draining_in("observe");
    bench.pass(1);
    bench.fleet.pause = Some(v1::Pause {
        by: "operator/alice".into(),
        reason: "switch swap".into(),
        ..Default::default()
    });
    let (_, choice) = plan_and_choose(&mut bench);
    assert_eq!(choice.start, []);
    let drain = stand_of(&mut bench);
    assert_eq!(drain.state, DrainState::Held);
    assert!(
        drain.holds[0].contains("paused by operator/alice"),
        "{drain:?}"
    );
    bench.fleet.pause = None;
    assert_eq!(stand_of(&mut bench).state, DrainState::Draining);
    bench.fleet.reports.remove(&host("h2"));
    bench.fleet.reports.remove(&host("h3"));
    let drain = stand_of(&mut bench);
    assert!(drain.holds[0].contains("2 of 3 hosts"), "{drain:?}");
}

#[test]
fn a_host_that_was_drained_is_not_missing_when_it_is_away() {
    let mut bench = draining_in("observe");
    let away = |bench: &mut Bench| {
        bench.fleet.reports.remove(&host("h1"));
        bench.fleet.reports.remove(&host("h2"));
        let assessment = bench.pass(1);
        assessment
            .drain_holds()
            .map(Hold::as_str)
            .collect::<Vec<_>>()
    };
    assert_eq!(away(&mut bench), ["hosts_missing"]);
    bench
        .fleet
        .hosts
        .extend(["h4", "h5"].map(|name| (host(name), crate::core::tests::facts(name))));
    for name in ["h4", "h5"] {
        bench.fleet.reports.insert(host(name), report(vec![]));
    }
    assert_eq!(away(&mut bench), ["hosts_missing"], "2 of 5");
    intend(&mut bench, v1::IntentKind::Drain, |i| i.drained_at_ms = 1);
    assert_eq!(away(&mut bench), Vec::<&str>::new(), "1 of 4");
    let assessment = bench.pass(1);
    let drain = stand(&bench.fleet, &assessment, &host("h1"), None).unwrap();
    assert_eq!(
        drain.state,
        DrainState::Drained,
        "it stays what libvirt said"
    );
}

#[test]
fn a_guest_that_fails_is_tried_again_later_and_later_and_others_go_on() {
    let mut bench = draining_in("observe");
    bench.pass(600);
    let now_ms = bench.now_ms;
    let wait = |bench: &mut Bench, failures: usize| {
        let moves = vec![("drain", FAILED, now_ms); failures];
        remember(bench, 1, &moves);
        retry_at(&bench.fleet, &host("h1"), &id(1)).map(|at| at - now_ms)
    };
    assert_eq!(wait(&mut bench, 0), None);
    for (failures, seconds) in [(1, 30), (2, 60), (3, 120), (7, 1920), (16, 1920)] {
        let waits = wait(&mut bench, failures).unwrap();
        let base = seconds * 1000;
        assert!(
            (base..=base + base / 4).contains(&waits),
            "{failures}: {waits}"
        );
    }
    wait(&mut bench, 1);
    let (plan, choice) = plan_and_choose(&mut bench);
    assert!(plan.steps.iter().all(|step| step.guest != "g1"));
    assert!(!choice.start.is_empty());
    let drain = stand_of(&mut bench);
    let first = &drain.obstacles[0];
    assert_eq!((first.guest.as_str(), first.hopeless), ("g1", false));
    assert!(first.detail.contains("failed 1 time"), "{first:?}");
    assert!(first.detail.contains("no route"), "{first:?}");
    assert!(first.retry_at_ms > Some(now_ms));
    bench.now_ms += 40_000;
    bench.pass(1);
    let (plan, _) = plan_and_choose(&mut bench);
    assert!(plan.steps.iter().any(|step| step.guest == "g1"));
}

#[test]
fn guests_that_failed_together_are_not_tried_at_the_same_moment() {
    let waits: BTreeSet<i64> = (0..20).map(|n| wait_ms(&id(n), 1)).collect();
    assert!(waits.len() > 15, "{waits:?}");
}

#[test]
fn only_what_this_drain_tried_in_vain_makes_a_guest_wait() {
    let mut bench = draining_in("observe");
    intend(&mut bench, v1::IntentKind::Drain, |i| i.since_ms = 1000);
    let waits = |bench: &mut Bench, moves: &[(&str, Outcome, i64)]| {
        remember(bench, 1, moves);
        retry_at(&bench.fleet, &host("h1"), &id(1)).is_some()
    };
    assert!(waits(&mut bench, &[("drain", FAILED, 2000)]));
    let refused = Outcome::Refused(Refusal::NoMemory);
    assert!(waits(&mut bench, &[("drain", refused, 2000)]));
    assert!(
        !waits(&mut bench, &[("drain", FAILED, 500)]),
        "an earlier drain"
    );
    assert!(!waits(&mut bench, &[("balance", FAILED, 2000)]));
    let came_back = [("drain", FAILED, 2000), ("drain", Outcome::Done, 3000)];
    assert!(!waits(&mut bench, &came_back));
    remember(&mut bench, 1, &[("drain", FAILED, 2000)]);
    intend(&mut bench, v1::IntentKind::Cordon, |_| {});
    assert_eq!(retry_at(&bench.fleet, &host("h1"), &id(1)), None);
}

#[test]
fn one_guest_that_fails_again_and_again_does_not_stop_balancing() {
    let mut bench = draining_in("automatic");
    let mut held = |trigger| {
        bench.pass(60);
        let now_ms = bench.now_ms;
        remember(&mut bench, 1, &[(trigger, FAILED, now_ms); 3]);
        let assessment = bench.pass(1);
        assessment
            .holds
            .iter()
            .any(|hold| hold.as_str() == "failures")
    };
    assert!(!held("drain"));
    assert!(held("balance"));
}

#[test]
fn nobody_left_who_can_go_is_said_with_each_ones_reason() {
    let mut bench = draining_in("observe");
    let mut pinned = reading(1, 0.1, 0.0);
    pinned.hindrances = vec!["host_device".into()];
    bench
        .fleet
        .reports
        .insert(host("h1"), report(vec![pinned, reading(2, 0.1, 0.0)]));
    bench.pass(1);
    let drain = stand_of(&mut bench);
    assert_eq!((drain.state, drain.left), (DrainState::Draining, 2));
    let first = &drain.obstacles[0];
    assert_eq!((first.guest.as_str(), first.reason), ("g1", "unmovable"));
    let pinned = bench.fleet.reports[&host("h1")].guests[0].clone();
    bench.fleet.reports.insert(host("h1"), report(vec![pinned]));
    let drain = stand_of(&mut bench);
    assert_eq!((drain.state, drain.left), (DrainState::Stuck, 1));
    let said = sentence(&host("h1"), &drain, 0, 0);
    assert_eq!(
        said,
        "h1: draining, 1 left; g1 cannot go: unmovable: host_device"
    );
}

#[test]
fn a_drain_is_late_after_its_deadline_until_it_is_done() {
    let mut bench = draining_in("observe");
    intend(&mut bench, v1::IntentKind::Drain, |i| i.deadline_ms = 5000);
    bench.pass(4);
    assert!(!stand_of(&mut bench).overdue);
    bench.pass(1);
    let drain = stand_of(&mut bench);
    assert!(drain.overdue);
    assert!(sentence(&host("h1"), &drain, 5000, 185_000).contains("its deadline passed 3 min ago"));
    intend(&mut bench, v1::IntentKind::Drain, |i| {
        i.deadline_ms = 5000;
        i.drained_at_ms = 4900;
    });
    assert!(!stand_of(&mut bench).overdue);
}

/// What libvirt is taken to say when h1 has reported these guests at a revision of etcd.
fn heard(bench: &mut Bench, guests: Vec<crate::observe::GuestReading>, revision: i64) -> Evidence {
    let report = HostReport {
        revision,
        ..report(guests)
    };
    bench.fleet.reports.insert(host("h1"), report);
    let assessment = bench.pass(1);
    evidence(&bench.fleet, &assessment.snapshot, &host("h1"))
}

#[test]
fn drained_is_what_libvirt_says_after_all_that_was_done_to_the_host() {
    let mut bench = draining_in("observe");
    let with = |state| {
        let mut guest = reading(1, 0.0, 0.0);
        guest.state = state;
        vec![guest]
    };
    for state in [RunState::Running, RunState::Paused, RunState::Incoming] {
        assert_eq!(heard(&mut bench, with(state), 11), Evidence::Something);
    }
    assert_eq!(
        heard(&mut bench, with(RunState::ShutOff), 11),
        Evidence::Nothing
    );
    assert_eq!(
        heard(&mut bench, vec![], 10),
        Evidence::Unheard,
        "from before the drain"
    );
    assert_eq!(heard(&mut bench, vec![], 11), Evidence::Nothing);

    bench.fleet.reports.get_mut(&host("h1")).unwrap().libvirt_up = false;
    let assessment = bench.pass(1);
    let said = evidence(&bench.fleet, &assessment.snapshot, &host("h1"));
    assert_eq!(said, Evidence::Unheard, "libvirt is silent");

    let coming = order_entry(5, |o| (o.source, o.target) = ("h2".into(), "h1".into()));
    bench
        .fleet
        .orders
        .insert(coming.order.guest.clone(), coming.clone());
    assert_eq!(
        heard(&mut bench, vec![], 30),
        Evidence::Something,
        "one is on its way"
    );
    bench.fleet.orders.clear();
    remember(&mut bench, 3, &[("manual", Outcome::Done, 1)]);
    let record = bench.fleet.remembered.get_mut(&id(3)).unwrap();
    record.moves[0].target = "h1".into();
    assert_eq!(
        heard(&mut bench, vec![], 20),
        Evidence::Unheard,
        "it came since"
    );
    assert_eq!(heard(&mut bench, vec![], 21), Evidence::Nothing);

    intend(&mut bench, v1::IntentKind::Drain, |i| i.offline_too = true);
    assert_eq!(
        heard(&mut bench, with(RunState::ShutOff), 22),
        Evidence::Something
    );
    bench.fleet.reports.remove(&host("h1"));
    let assessment = bench.pass(1);
    let said = evidence(&bench.fleet, &assessment.snapshot, &host("h1"));
    assert_eq!(said, Evidence::Unheard);
}

#[test]
fn who_left_because_of_a_drain_may_come_back() {
    let away = |bench: &mut Bench| {
        let assessment = bench.pass(1);
        let guest = assessment.snapshot.guest("g1").unwrap();
        guest.left_lately.keys().cloned().collect::<Vec<_>>()
    };
    let go = |bench: &mut Bench| {
        let guest = bench
            .fleet
            .reports
            .get_mut(&host("h1"))
            .unwrap()
            .guests
            .remove(0);
        bench.fleet.reports.insert(host("h2"), report(vec![guest]));
    };
    let mut bench = draining_in("automatic");
    bench.pass(5);
    go(&mut bench);
    bench.pass(1);
    bench.fleet.intents.clear();
    assert_eq!(
        away(&mut bench),
        Vec::<String>::new(),
        "seen to leave a draining host"
    );

    let mut bench = Bench::hot();
    bench.pass(5);
    go(&mut bench);
    bench.pass(1);
    assert_eq!(away(&mut bench), ["h1"]);
    let now_ms = bench.now_ms;
    remember(&mut bench, 1, &[("drain", Outcome::Done, now_ms)]);
    assert_eq!(
        away(&mut bench),
        Vec::<String>::new(),
        "its drain was cancelled meanwhile"
    );
    remember(&mut bench, 1, &[("balance", Outcome::Done, now_ms)]);
    assert_eq!(away(&mut bench), ["h1"]);
}

#[test]
fn a_cordoned_host_keeps_its_guests_and_takes_none() {
    let mut bench = draining_in("automatic");
    intend(&mut bench, v1::IntentKind::Cordon, |i| i.host = "h1".into());
    let entry = bench.fleet.intents.remove(&host("h1")).unwrap();
    bench.fleet.intents.insert(host("h2"), entry);
    let assessment = bench.pass(60);
    let states = assessment.snapshot.hosts.iter().map(|h| h.state);
    let expected = [HostState::Active, HostState::Cordoned, HostState::Active];
    assert_eq!(states.collect::<Vec<_>>(), expected);
    let (plan, _) = plan_and_choose(&mut bench);
    assert!(!plan.steps.is_empty());
    assert!(
        plan.steps.iter().all(|step| step.to == "h3"),
        "{:?}",
        plan.steps
    );
    assert_eq!(stand(&bench.fleet, &assessment, &host("h2"), None), None);
}
