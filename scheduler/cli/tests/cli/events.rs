//! `events`: the list, its filters, and following over the end of a stream.

use evenkeel_proto::v1;

use crate::world::World;

fn event(sequence: u64, kind: &str) -> v1::Event {
    v1::Event {
        sequence,
        revision: 100 + i64::try_from(sequence).unwrap(),
        at_ms: 1_790_000_000_000,
        epoch: 7,
        kind: kind.to_owned(),
        by: "operator/alice".to_owned(),
        guest: "db1".to_owned(),
        hosts: vec!["kvm1".to_owned(), "kvm2".to_owned()],
        reason: "no_memory".to_owned(),
        why: "12 MiB are free".to_owned(),
        policy_revision: 41,
        ..Default::default()
    }
}

#[test]
fn events_are_listed_with_who_and_why() {
    let world = World::new();
    world.fake.state().events = vec![event(3, "migration_refused"), event(4, "migration_done")];
    let out = world.run(&["events"]).ok();
    assert!(out.starts_with("TIME"), "{out}");
    let line = out.lines().nth(1).unwrap();
    for part in [
        "migration_refused",
        "operator/alice",
        "db1",
        "kvm1 kvm2",
        "no_memory: 12 MiB are free",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(world.run(&["events", "-o", "name"]).ok(), "3\n4\n");
    let json = world
        .run(&["events", "-o", "json"])
        .json("evenkeel.events/1");
    assert_eq!(json["events"][0]["sequence"], 3);
    assert_eq!(json["events"][0]["hosts"][1], "kvm2");
    assert_eq!(
        json["events"][0]["costs_guest_seconds"],
        serde_json::Value::Null
    );
    let wide = world.run(&["events", "-o", "wide"]).ok();
    assert!(wide.contains("POLICY") && wide.contains("41"), "{wide}");
}

#[test]
fn filters_go_to_the_scheduler_and_a_wrong_kind_is_told_the_right_one() {
    let world = World::new();
    let args = [
        "events", "--kind", "paused", "--kind", "resumed", "--guest", "db1", "--host", "kvm1",
        "--limit", "5",
    ];
    world.run(&args).ok();
    let log = world.fake.state().log.join("\n");
    assert!(
        log.contains(r#"events ["paused", "resumed"] db1 kvm1 5"#),
        "{log}"
    );
    world
        .run(&["events", "--kind", "migration_don"])
        .fails(64, "did you mean migration_done?");
    world
        .run(&["events", "--kind", "xyz"])
        .fails(64, "expected one of migration_ordered");
    world.run(&["events", "--since", "soon"]).fails(64, "soon");
}

#[test]
fn following_goes_on_after_the_last_event_seen() {
    let world = World::new();
    {
        let mut state = world.fake.state();
        state.events = vec![event(3, "paused")];
        state.followed = vec![vec![event(4, "resumed")], vec![event(6, "paused")]];
    }
    let run = world.run(&["events", "--follow", "-o", "json"]);
    assert_eq!(run.code, 77, "the scheduler ends it: {}", run.err);
    let kinds: Vec<String> = run
        .out
        .lines()
        .map(|line| {
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(json["schema"], "evenkeel.event/1");
            format!("{} {}", json["sequence"], json["kind"].as_str().unwrap())
        })
        .collect();
    assert_eq!(kinds, ["3 paused", "4 resumed", "6 paused"]);
    let log = world.fake.state().log.join("\n");
    let places = [
        "follow after 103/3",
        "follow after 104/4",
        "follow after 106/6",
    ];
    assert!(places.iter().all(|place| log.contains(place)), "{log}");
}

#[test]
fn without_a_scheduler_there_are_no_events() {
    let world = World::new();
    world.configure(&["127.0.0.1:1"]);
    world.run(&["events"]).fails(6, "no scheduler answers");
    world
        .run(&["events", "--follow"])
        .fails(6, "no scheduler answers");
}
