//! The three formats that people and programs meet, to the letter: snapshot, policy and plan.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

mod fleet;

use std::collections::BTreeSet;

use evenkeel_planner::{
    BlockReason, Guest, GuestState, Host, HostState, Mode, Options, Policy, Snapshot, StepReason,
    Strategy, Strength, plan,
};
use fleet::skewed;
use serde_json::{Value, json};

/// Abbreviated, as in the reference: neither h2 nor web-9 is in its lists.
const SNAPSHOT: &str = r#"{
  "schema": "evenkeel.snapshot/1",
  "cluster": "lab",
  "taken_at": "2026-11-23T01:00:00Z",
  "hosts": [{
    "name": "h1",
    "state": "active",                      // active | cordoned | draining | absent
    "cpu_cores": 64.0,                      // offered to guests, after the host's reserve
    "memory_mib": 524288,                   // likewise
    "labels": {"rack": "r1"},               // {}
    "migration_bandwidth_mib_s": 1000.0,    // what the migration link really gives; default 1000
    "cpu_class": "epyc-milan",              // hosts of one class take each other's guests; default ""
    "networks": ["br0"], "storage": ["nfs-a"],   // [] = not restricted
    "pressure": {"cpu_some": 0.02, "memory_some": 0.0, "memory_full": 0.0, "io_some": 0.01, "io_full": 0.0}
  }],
  "guests": [{
    "name": "web-1", "uuid": "…",           // uuid optional; names are unique in a cluster
    "host": "h1",
    "state": "running",                     // running | paused | shutoff
    "vcpus": 4,
    "cpu_demand_cores": 1.7,                // run time + run delay
    "cpu_demand_stddev_cores": 0.3,         // default 0
    "memory_mib": 8192,                     // what it may use (allocated)
    "memory_active_mib": 4096,              // its working set; default memory_mib
    "dirty_rate_mib_s": 20.0,               // default 0
    "local_disk_mib": 0,                    // must be copied when it moves; default 0
    "networks": [], "storage": [], "labels": {}, "group": null,
    "movable": true, "unmovable_reason": null,
    "cpu_classes": [],                      // hosts of these classes take it; [] = its host's class
    "dirty_curve": [],                      // [[seconds, unique MiB], …] when measured
    "cooldown_until": null, "priority": 0   // optional, like all of these
  }],
  "in_flight": [{"guest": "web-9", "from": "h1", "to": "h2"}]   // counted on both hosts
}"#;

const POLICY: &str = r#"
schema = 1
mode = "observe"            # observe | automatic | off
strategy = "contention"     # contention | spread | consolidate
aggressiveness = 3          # 1 (only must-rules and drains) … 5 (any gain that pays)

[limits]
migrations_per_host = 2
migrations_per_cluster = 8
memory_overcommit = 1.0     # allocation / capacity that is never exceeded

[anti_affinity.db]          # a rule's table name is its name
guests = ["db-*"]           # names and globs; or guest_labels = {app = "db"}
strength = "must"           # must | should
# over = "rack"             # keep apart by a host label instead of by host

[affinity.app]
guests = ["app-1", "cache-1"]
strength = "should"

[pin.licence]
guests = ["ora-*"]
hosts = ["h1", "h2"]        # or host_labels = {licence = "oracle"}
strength = "must"
"#;

/// JSON has no comments; the reference's page has.
fn without_comments(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| line.split_once("//").map_or(line, |(json, _)| json));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_snapshot_of_the_reference_is_read_to_the_letter() {
    let read = Snapshot::from_json(&without_comments(SNAPSHOT)).unwrap();
    assert_eq!(
        (read.cluster.as_str(), read.taken_at.to_string().as_str()),
        ("lab", "2026-11-23T01:00:00Z")
    );
    let host = &read.hosts[0];
    assert_eq!(
        (host.name.as_str(), host.state, host.memory_mib),
        ("h1", HostState::Active, 524_288)
    );
    assert_eq!(
        (host.networks.as_slice(), host.storage.as_slice()),
        (&["br0".to_owned()][..], &["nfs-a".to_owned()][..])
    );
    assert!((host.pressure.unwrap().cpu_some - 0.02).abs() < 1e-12);
    let guest = &read.guests[0];
    assert_eq!(
        (guest.state, guest.vcpus, guest.active_mib()),
        (GuestState::Running, 4, 4096)
    );
    assert_eq!(
        (guest.group.as_deref(), guest.cooldown_until, guest.movable),
        (None, None, true)
    );
    let (found, _) = plan(&read, &Policy::default(), &Options::default());
    assert_eq!(found.steps, []);
    let stray = &found.blocked[0];
    assert_eq!(
        (stray.guest.as_deref(), stray.reason),
        (Some("web-9"), BlockReason::StaleData)
    );
    // Written and read again it is the same.
    assert_eq!(Snapshot::from_json(&read.to_json()).unwrap(), read);
}

#[test]
fn what_is_left_out_of_a_snapshot_takes_its_default_and_unknown_keys_are_ignored() {
    let least = json!({
        "schema": "evenkeel.snapshot/1", "taken_at": "2026-11-23T01:00:00Z", "newer": {"x": [1]},
        "hosts": [{"name": "h1", "cpu_cores": 4, "memory_mib": 1024, "newer": 1}],
        "guests": [{"name": "a", "host": "h1", "vcpus": 1, "cpu_demand_cores": 1, "memory_mib": 512, "newer": null}],
    });
    let read = Snapshot::from_json(&least.to_string()).unwrap();
    let host = Host {
        name: "h1".into(),
        cpu_cores: 4.0,
        memory_mib: 1024,
        ..Host::default()
    };
    let guest = Guest {
        name: "a".into(),
        host: "h1".into(),
        vcpus: 1,
        cpu_demand_cores: 1.0,
        memory_mib: 512,
        ..Guest::default()
    };
    assert_eq!(
        (&read.hosts[0], &read.guests[0], read.in_flight.len()),
        (&host, &guest, 0)
    );
    assert_eq!(
        (host.state, host.cpu_class.as_str()),
        (HostState::Active, "")
    );
    assert!((host.migration_bandwidth_mib_s - 1000.0).abs() < 1e-12);
    assert!(host.labels.is_empty() && host.networks.is_empty() && host.storage.is_empty());
    assert!(guest.cpu_demand_stddev_cores.abs() < 1e-12 && guest.dirty_rate_mib_s.abs() < 1e-12);
    assert_eq!(
        (guest.active_mib(), guest.local_disk_mib, guest.priority),
        (512, 0, 0)
    );
    assert!(
        guest.cpu_classes.is_empty() && guest.dirty_curve.is_empty() && guest.labels.is_empty()
    );
}

#[test]
fn every_optional_field_of_a_snapshot_is_read() {
    let full = without_comments(SNAPSHOT)
        .replace("\"group\": null", "\"group\": \"web\"")
        .replace(
            "\"movable\": true, \"unmovable_reason\": null",
            "\"movable\": false, \"unmovable_reason\": \"host device\"",
        )
        .replace("\"cpu_classes\": []", "\"cpu_classes\": [\"epyc-rome\"]")
        .replace(
            "\"dirty_curve\": []",
            "\"dirty_curve\": [[1, 20], [2.5, 35.5]]",
        )
        .replace(
            "\"cooldown_until\": null, \"priority\": 0",
            "\"cooldown_until\": \"2026-11-23T02:00:00Z\", \"left_lately\": {\"h7\": \"2026-11-23T06:30:00Z\"}, \
             \"refused_by\": {\"h8\": {\"reason\": \"no_memory\", \"until\": \"2026-11-23T03:00:00Z\"}}, \
             \"unconverged_until\": \"2026-11-24T02:00:00Z\", \"priority\": -3",
        );
    let read = Snapshot::from_json(&full).unwrap();
    let guest = &read.guests[0];
    assert_eq!(
        (guest.group.as_deref(), guest.label("group")),
        (Some("web"), Some("web"))
    );
    assert_eq!(
        (guest.movable, guest.unmovable_reason.as_deref()),
        (false, Some("host device"))
    );
    assert_eq!(guest.left_lately["h7"].to_string(), "2026-11-23T06:30:00Z");
    assert_eq!(guest.refused_by["h8"].reason, "no_memory");
    assert_eq!(
        guest.unconverged_until.unwrap().to_string(),
        "2026-11-24T02:00:00Z"
    );
    assert_eq!(guest.cpu_classes, ["epyc-rome"]);
    assert_eq!(guest.dirty_curve, [(1.0, 20.0), (2.5, 35.5)]);
    assert_eq!(
        guest.cooldown_until.unwrap().to_string(),
        "2026-11-23T02:00:00Z"
    );
    assert_eq!(guest.priority, -3);
}

#[test]
fn the_policy_of_the_reference_is_read_without_a_word() {
    let check = Policy::check(POLICY);
    assert_eq!((&check.faults, &check.warnings), (&vec![], &vec![]));
    let policy = check.policy.unwrap();
    assert_eq!(
        (policy.mode, policy.strategy, policy.aggressiveness),
        (Mode::Observe, Strategy::Contention, 3)
    );
    let rules: Vec<(String, Strength)> = policy
        .rules
        .iter()
        .map(|r| (r.full_name(), r.strength))
        .collect();
    assert_eq!(
        rules,
        [
            ("affinity.app".into(), Strength::Should),
            ("anti_affinity.db".into(), Strength::Must),
            ("pin.licence".into(), Strength::Must),
        ]
    );
    for (comment, key) in [
        ("# over", "over"),
        (
            "guests = [\"db-*\"]           # names and globs; or guest_labels",
            "guest_labels",
        ),
        (
            "hosts = [\"h1\", \"h2\"]        # or host_labels",
            "host_labels",
        ),
    ] {
        assert!(POLICY.contains(comment));
        let check = Policy::check(&POLICY.replace(comment, key));
        assert_eq!(check.faults, vec![], "{key}");
    }
}

#[test]
fn a_plan_has_every_field_of_the_reference_in_its_type() {
    let (found, _) = plan(
        &skewed(3, 8, 12, 0.9),
        &Policy::default(),
        &Options::default(),
    );
    let document: Value = serde_json::from_str(&found.to_json()).unwrap();
    assert_eq!(
        (&document["schema"], &document["cluster"]),
        (&json!("evenkeel.plan/1"), &json!("test"))
    );
    assert!(document["loss_before"].is_f64() && document["loss_after"].is_number());
    let steps = document["steps"].as_array().unwrap();
    assert!(!steps.is_empty());
    for step in steps {
        for text in ["guest", "from", "to", "reason"] {
            assert!(step[text].is_string(), "{text}: {step}");
        }
        for number in [
            "saves_guest_seconds_per_hour",
            "costs_guest_seconds",
            "copy_seconds",
            "downtime_seconds",
        ] {
            assert!(step[number].is_number(), "{number}: {step}");
        }
        assert!(
            step["wave"].as_u64().unwrap() >= 1 && step["bytes"].is_u64(),
            "{step}"
        );
    }
}

#[test]
fn savings_add_up_to_the_loss_that_is_gone() {
    for seed in 0..20 {
        let (found, _) = plan(
            &skewed(seed, 6, 10, 0.95),
            &Policy::default(),
            &Options::default(),
        );
        let saved: f64 = found
            .steps
            .iter()
            .map(|s| s.saves_guest_seconds_per_hour)
            .sum();
        let gone = (found.loss_before - found.loss_after) * 3600.0;
        assert!(
            (saved - gone).abs() <= 1e-9 * gone.abs().max(1.0),
            "{saved} {gone}"
        );
    }
}

#[test]
fn reasons_are_the_names_of_the_reference_and_more() {
    let steps = [
        "relieve_cpu",
        "relieve_memory",
        "spread",
        "consolidate",
        "drain",
        "repair_rule",
        "make_room",
    ];
    let blocked = [
        "unmovable",
        "pinned",
        "opted_out",
        "rule_impossible",
        "rule_conflict",
        "no_capacity",
        "incompatible_cpu",
        "missing_network",
        "missing_storage",
        "cool_down",
        "not_converging",
        "stale_data",
        "duplicate_uuid",
        "host_absent",
        "does_not_pay",
    ];
    let known: BTreeSet<&str> = StepReason::NAMES.iter().copied().collect();
    assert!(steps.iter().all(|name| known.contains(name)), "{known:?}");
    let known: BTreeSet<&str> = BlockReason::NAMES.iter().copied().collect();
    assert!(blocked.iter().all(|name| known.contains(name)), "{known:?}");
}

/// What is replaced, by what, whether the column told is the value's, and the words.
const BAD: &[(&str, &str, bool, &str)] = &[
    (
        "\"cpu_cores\": 64.0",
        "\"cpu_cores\": -64.0",
        true,
        "hosts[h1].cpu_cores: -64 is negative (write a number from 0 to",
    ),
    (
        "\"memory_mib\": 8192",
        "\"memory_mib\": 8589934592000000",
        true,
        "guests[web-1].memory_mib: 8589934592000000 is absurd",
    ),
    (
        "\"cpu_some\": 0.02",
        "\"cpu_some\": 2.0",
        true,
        "hosts[h1].pressure.cpu_some: 2 is absurd (limit 1.1)",
    ),
    (
        "\"host\": \"h1\"",
        "\"host\": \"h7\"",
        true,
        "guests[web-1].host: no host \"h7\" (add it to hosts",
    ),
    (
        "\"name\": \"h1\"",
        "\"name\": \"\"",
        true,
        "hosts[0].name: is empty (give",
    ),
    (
        "\"dirty_curve\": []",
        "\"dirty_curve\": [[1, 2], [1, 3]]",
        true,
        "guests[web-1].dirty_curve: seconds must rise",
    ),
    (
        "\"evenkeel.snapshot/1\"",
        "\"evenkeel.snapshot/2\"",
        true,
        "schema is \"evenkeel.snapshot/2\", expected \"evenkeel.snapshot/1\" (write",
    ),
    (
        "\"state\": \"active\"",
        "\"state\": \"drained\"",
        false,
        "unknown variant `drained`, expected one of `active`, `cordoned`, `draining`, `absent`",
    ),
    (
        "\"vcpus\": 4",
        "\"vcpus\": 4.5",
        false,
        "invalid type: floating point `4.5`, expected u32",
    ),
    (
        "\"2026-11-23T01:00:00Z\"",
        "\"yesterday\"",
        false,
        "failed to parse",
    ),
    (
        "\"uuid\"",
        "uuid",
        false,
        "key must be a string (it is no JSON here",
    ),
];

/// A bad snapshot's place and words.
fn told(text: &str) -> ((usize, usize), String) {
    let error = Snapshot::from_json(text).unwrap_err();
    assert!(!error.hint.is_empty());
    (error.position.unwrap(), error.to_string())
}

#[test]
fn a_bad_snapshot_is_told_with_its_place_its_cause_and_what_would_be_right() {
    let sound = without_comments(SNAPSHOT);
    assert!(Snapshot::from_json(&format!("\u{feff}{sound}")).is_ok());
    for (from, to, exact, words) in BAD {
        let text = sound.replacen(from, to, 1);
        assert_ne!(text, sound, "{from}");
        let at = text.find(to).unwrap();
        let line = text[..at].matches('\n').count() + 1;
        let value = at + to.find(": ").map_or(0, |colon| colon + 2);
        let column = value - text[..value].rfind('\n').map_or(0, |end| end + 1) + 1;
        let (place, told) = told(&text);
        assert!(told.starts_with(words), "{told}\n{words}");
        assert_eq!(
            place,
            (line, if *exact { column } else { place.1 }),
            "{told}"
        );
    }
    assert!(told(SNAPSHOT).1.contains("and for comments"));
    assert!(
        told(&sound[..sound.len() / 2])
            .1
            .contains("was it cut off?")
    );
    let lacks = told(&sound.replacen("\"memory_mib\": 524288,", "", 1));
    assert!(lacks.1.contains("missing field `memory_mib`"), "{lacks:?}");
}

/// Keys of an object, and of what it holds, that the page must tell of.
fn keys(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                into.insert(key.clone());
                // Labels and hosts have names of their own.
                if !["labels", "left_lately", "refused_by"].contains(&key.as_str()) {
                    keys(inner, into);
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| keys(inner, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_page_about_snapshots_has_every_field_and_its_example_is_one() {
    let page = include_str!("../../../docs/reference/snapshot.md");
    let example = page
        .split("```json\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let read = Snapshot::from_json(example.unwrap()).unwrap();
    // The example has all that is written when everything is known, so nothing can be missing in it.
    let (mut given, mut written) = (BTreeSet::new(), BTreeSet::new());
    keys(&serde_json::from_str(example.unwrap()).unwrap(), &mut given);
    keys(
        &serde_json::from_str(&read.to_json()).unwrap(),
        &mut written,
    );
    assert_eq!(given, written);
    let unlisted = [
        "schema", "cluster", "taken_at", "hosts", "guests", "guest", "from", "to",
    ];
    let parts = [
        "cpu_some",
        "memory_some",
        "memory_full",
        "io_some",
        "io_full",
    ];
    for key in written.iter().map(String::as_str) {
        let told =
            page.contains(&format!("`{key}`")) || unlisted.contains(&key) || parts.contains(&key);
        assert!(told, "docs/reference/snapshot.md does not explain {key}");
    }
}
