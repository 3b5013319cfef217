//! The dashboards before a real Prometheus, after a scenario in which every metric is something other than 0.

use std::collections::BTreeSet;

use evenkeel_daemon::unix_ms;
use evenkeel_proto::v1::{MigrationPhase, MoveKind, MoveOptions, Order};
use evenkeel_tests::dashboards::live::{self, Ask, Span, encode};
use evenkeel_tests::dashboards::shipped;
use evenkeel_tests::schedulers::phase_of;
use evenkeel_tests::{Lab, LabOptions, until, wait_for};
use evenkeel_types::OrderId;
use serde_json::Value;

use crate::kinds::order_by_hand;
use crate::leadership::send_order;
use crate::prometheus::{becomes, result};
use crate::trouble::start_copy;
use crate::{
    END, QUICK_POLICY, SOON, begin_slow_migration, catalogue, ends_with, order_with_deadline,
};

/// What stays 0 in this scenario, and why.
const STAYS_ZERO: [(&str, &str); 3] = [
    (
        "evenkeel_agent_guest_on_two_hosts",
        "libvirt has to fail at the hand-over of a migration of ours; the schedulers' own gauge is raised here",
    ),
    (
        "evenkeel_migrations_unknown",
        "a host has to die in mid-copy and stay away: tests/e2e/resolve.rs",
    ),
    (
        "evenkeel_events_dropped_total",
        "hundreds of refused requests have to wait for an etcd that is away",
    ),
];
/// Panels that may have nothing to say of a single value of a variable.
const SPARSE: [live::Sparse<'_>; 7] = [
    ("Is being moved", "not every guest and host moves one"),
    (
        "Dirty rate",
        "only guests that a plan wants to move are measured",
    ),
    ("Where it is", "not every guest has been on every host"),
    (
        "Waits",
        "libvirt's figures of a guest that was there for one scrape make no rate",
    ),
    ("CPU", "as of Waits"),
    ("Memory of guests", "a host may have had no guest"),
    ("Memory", "as of Memory of guests"),
];
/// A guest that is busy, and writes the same 32 MiB all over again.
const BUSY: &str = "c40 r0 s8192 d8000";
/// Two guests that must be apart start on one host, one is pinned to the other.
const RULES: &str = r#"
[anti_affinity.pair]
guests = ["a", "b"]
strength = "must"

[pin.stay]
guests = ["stay"]
hosts = ["h2"]
strength = "must"
"#;

struct Prometheus<'a>(&'a Lab);

impl Ask for Prometheus<'_> {
    fn get(&self, path: &str) -> String {
        self.0.http_get("10.90.0.1:9090", path)
    }
}

#[test]
fn every_panel_shows_data_and_every_metric_is_seen() {
    let lab = Lab::up(&LabOptions {
        prometheus: true,
        ..LabOptions::default()
    });
    let start = unix_ms() / 1000;
    a_busy_host_and_a_broken_rule(&lab);
    a_malformed_value(&lab);
    a_refusal(&lab);
    a_migration_that_is_done(&lab);
    one_past_its_deadline_and_one_by_hand(&lab);
    a_pause(&lab);
    a_drain_past_its_deadline(&lab);
    a_guest_that_runs_twice(&lab);
    libvirt_away(&lab);

    let span = Span {
        start,
        end: unix_ms() / 1000,
        step: 2,
    };
    let zeros = non_zero(&lab, span).into_iter();
    let mut wrong: Vec<String> = zeros
        .map(|name| format!("0 all of the time: {name}"))
        .collect();
    for (name, dashboard) in shipped() {
        let faults = live::faults(&Prometheus(&lab), span, &dashboard, &SPARSE);
        wrong.extend(faults.iter().map(|fault| format!("{name}: {fault}")));
    }
    assert!(
        wrong.is_empty(),
        "{} faults:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// A query that gives something is waited for.
fn seen(lab: &Lab, query: &str) {
    wait_for(query, SOON, || {
        (!result(lab, query).is_empty()).then_some(())
    });
}

fn a_busy_host_and_a_broken_rule(lab: &Lab) {
    for name in ["a", "b"] {
        lab.add_guest("h1", name, &["--mem", "96"]);
        let dials = format!("guest set {name} {BUSY}");
        lab.run(&dials.split(' ').collect::<Vec<_>>());
    }
    // Only then does a plan want to move one: guests are measured once, and then they must be at it.
    for name in ["a", "b"] {
        until("the guest to write", SOON, || {
            lab.heart(name).beats.last().is_some_and(|b| b.pages > 0)
        });
    }
    let policy = format!("{QUICK_POLICY}{RULES}");
    lab.apply_policy(&policy, 0).expect("the policy is taken");
    seen(
        lab,
        r#"evenkeel_policy_violations{rule="anti_affinity.pair",kind="must"} == 1"#,
    );
    seen(lab, "evenkeel_plan_moves > 0");
    seen(
        lab,
        r#"evenkeel_fleet_loss_guest_seconds_per_second{state="planned"}"#,
    );
    seen(lab, r#"evenkeel_moves_rejected_total{reason="mode"} > 0"#);
    seen(lab, "evenkeel_domain_dirty_rate_bytes_per_second > 0");
    for name in ["a", "b"] {
        lab.run(&["guest", "set", name, "c5", "d0"]);
    }
}

fn a_malformed_value(lab: &Lab) {
    let key = "/evenkeel/v1/lab/hosts/h9/report";
    lab.run(&["etcdctl", "put", key, "not a message"]);
    seen(lab, "evenkeel_scheduler_malformed_values == 1");
    lab.run(&["etcdctl", "del", key]);
}

fn a_refusal(lab: &Lab) {
    let offline = MoveOptions {
        kind: MoveKind::Offline.into(),
        downtime_limit_ms: 300,
        ..Default::default()
    };
    let ended = order_by_hand(lab, 31, "a", offline.clone());
    assert_eq!(ended.reason, "guest_running", "{ended:?}");
    // Nobody has led under this epoch: the agent takes no notice of such an order but for counting it.
    let (leader_key, _, _) = lab.leader_key().expect("a leader");
    let order = Order {
        id: OrderId::from_random(32).to_string(),
        guest_uuid: lab.uuid("a"),
        guest_name: "a".to_owned(),
        source: "h1".to_owned(),
        target: "h2".to_owned(),
        options: Some(offline),
        created_at_ms: unix_ms(),
        deadline_ms: unix_ms() + 60_000,
        epoch: 1,
        ..Default::default()
    };
    let (phase, reason) = send_order(lab, &order, &leader_key);
    assert_eq!(phase, MigrationPhase::Refused, "{reason}");
}

fn a_migration_that_is_done(lab: &Lab) {
    let order = begin_slow_migration(lab, "g", "h1", "h2");
    seen(lab, "evenkeel_migration_progress_remaining_bytes > 0");
    seen(lab, "evenkeel_agent_reserved_bytes > 0");
    lab.full_speed("h1");
    let migration = lab.wait_for_end(&order.id, END);
    assert_eq!(phase_of(&migration), MigrationPhase::Done);
    seen(lab, "evenkeel_guest_moves_day_max == 1");
}

fn one_past_its_deadline_and_one_by_hand(lab: &Lab) {
    let order = order_with_deadline(lab, "late", 8_000);
    let migration = lab.wait_for_end(&order.id, END);
    assert_eq!(phase_of(&migration), MigrationPhase::Failed);
    seen(
        lab,
        r#"evenkeel_migration_failures_total{phase="copy"} > 0"#,
    );
    std::thread::scope(|scope| {
        let by_hand = scope.spawn(|| lab.attempt(&["migrate", "late", "h2"]));
        seen(lab, "evenkeel_foreign_migrations == 1");
        lab.full_speed("h1");
        assert!(by_hand.join().expect("a migration").status.success());
    });
}

fn a_pause(lab: &Lab) {
    ends_with(lab, 0, &["pause", "--for", "1h", "--reason", "test"]);
    seen(
        lab,
        r#"evenkeel:scheduler_hold:leader{reason="paused"} == 1"#,
    );
    ends_with(lab, 0, &["resume", "--reason", "test"]);
}

fn a_drain_past_its_deadline(lab: &Lab) {
    lab.add_guest("h2", "stay", &[]);
    lab.wait_for_guest("stay");
    // It ends with 0, 4 or 5, whichever is seen first.
    drop(lab.attempt(&["evenkeel", "drain", "h2", "--deadline", "1s", "--detach"]));
    seen(lab, "evenkeel_drain_overdue == 1");
    seen(
        lab,
        r#"evenkeel_drains{state="stuck"} == 1 and on (instance) evenkeel_drain_guests_left > 0"#,
    );
    ends_with(lab, 0, &["drain", "h2", "--cancel"]);
}

fn a_guest_that_runs_twice(lab: &Lab) {
    start_copy(lab, "a", "a", |xml| xml);
    seen(lab, "evenkeel_guests_on_two_hosts == 1");
    seen(
        lab,
        r#"ALERTS{alertname="EvenkeelGuestOnTwoHosts",alertstate="firing"}"#,
    );
    lab.run(&["virsh", "h2", "destroy", "a"]);
}

fn libvirt_away(lab: &Lab) {
    lab.fault(&["libvirtd", "h2", "kill"]);
    seen(lab, r#"evenkeel_agent_libvirt_up{host="h2"} == 0"#);
    lab.fault(&["libvirtd", "h2", "start"]);
    becomes(lab, "sum(evenkeel_agent_libvirt_up)", 2.0);
}

/// Metrics that were 0 all of the time.
fn non_zero(lab: &Lab, span: Span) -> Vec<String> {
    let both = catalogue::agent().into_iter().chain(catalogue::scheduler());
    let all: BTreeSet<(String, &str)> = both.map(|family| (family.name, family.kind)).collect();
    let zero = |(name, kind): &(String, &str)| {
        let part = if *kind == "histogram" { "_count" } else { "" };
        let query = format!(r#"max(abs({name}{part}{{job=~"evenkeel.*"}})) > 0"#);
        let Span { start, end, step } = span;
        let path = format!(
            "/api/v1/query_range?start={start}&end={end}&step={step}&query={}",
            encode(&query)
        );
        let told: Value = serde_json::from_str(&Prometheus(lab).get(&path)).unwrap_or_default();
        let series = told["data"]["result"].as_array();
        series.is_none_or(Vec::is_empty)
    };
    let zeros: BTreeSet<String> = all
        .iter()
        .filter(|f| zero(f))
        .map(|f| f.0.clone())
        .collect();
    let allowed: BTreeSet<String> = STAYS_ZERO
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    // An exception that is none any more goes from the list.
    zeros.symmetric_difference(&allowed).cloned().collect()
}
