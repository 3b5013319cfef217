//! Commands that change something, except `migrate`.

use serde_json::json;

use crate::fleet::RUNNING;
use crate::world::World;

#[test]
fn the_mode_is_shown_and_set() {
    let world = World::new();
    assert_eq!(world.run(&["mode"]).ok(), "automatic\n");
    let dry = world.run(&["mode", "observe", "--dry-run"]).ok();
    assert_eq!(dry, "mode would change from automatic to observe\n");
    let out = world
        .run(&["mode", "observe", "--reason", "kernel upgrade"])
        .ok();
    assert_eq!(
        out,
        "mode changed from automatic to observe, policy rev 42\n"
    );
    assert_eq!(
        world.fake.state().log.last().unwrap(),
        "mode observe \"kernel upgrade\" false"
    );
    assert_eq!(
        world.run(&["mode", "observe"]).ok(),
        "mode is observe already\n"
    );
    let json = world
        .run(&["mode", "off", "-o", "json"])
        .json("evenkeel.mode/1");
    assert_eq!(
        (&json["mode"], &json["previous"]),
        (&json!("off"), &json!("observe"))
    );
    assert_eq!(world.run(&["mode", "-o", "name"]).ok(), "off\n");
}

#[test]
fn a_pause_has_a_reason_and_an_end() {
    let world = World::new();
    world.run(&["pause", "--for", "2h"]).fails(64, "--reason");
    world
        .run(&["pause", "--for", "2", "--reason", "x"])
        .fails(64, "such as 2h");
    let out = world
        .run(&[
            "pause",
            "--for",
            "2h",
            "--reason",
            "switch swap",
            "--dry-run",
        ])
        .ok();
    assert!(out.starts_with("would be paused until "), "{out}");
    assert!(world.fake.state().status.pause.is_none());
    let out = world
        .run(&["pause", "--for", "2h", "--reason", "switch swap"])
        .ok();
    assert!(out.contains("by operator/alice: switch swap"), "{out}");
    let status = world.run(&["status"]).ok();
    assert!(status.contains("paused     until "), "{status}");
    let json = world
        .run(&["pause", "--reason", "x", "-o", "json"])
        .json("evenkeel.pause/1");
    assert_eq!(json["pause"]["until"], json!(null));
    assert_eq!(
        world.run(&["resume", "--dry-run"]).ok(),
        "would be resumed\n"
    );
    assert_eq!(world.run(&["resume"]).ok(), "resumed\n");
    assert_eq!(world.run(&["resume"]).ok(), "was not paused\n");
    let json = world
        .run(&["resume", "-o", "json"])
        .json("evenkeel.pause/1");
    assert_eq!(json["was_paused"], false);
}

#[test]
fn a_migration_is_cancelled_by_its_first_characters() {
    let world = World::new();
    let out = world.run(&["cancel", "7f3a"]).ok();
    assert!(
        out.starts_with("migration 7f3a0c11 of db1 is being cancelled"),
        "{out}"
    );
    let dry = world.run(&["cancel", "7f3a", "--dry-run"]).ok();
    assert_eq!(dry, "migration 7f3a0c11 of db1 would be cancelled\n");
    let json = world
        .run(&["cancel", RUNNING, "-o", "json"])
        .json("evenkeel.migration_change/1");
    assert_eq!(json["migration"]["id"], RUNNING);
    assert!(
        world
            .run(&["cancel", "0a1b"])
            .ok()
            .contains("is over: done")
    );
    world.run(&["cancel", "ffff"]).fails(1, "no migration ffff");
}

#[test]
fn a_guest_of_unknown_whereabouts_is_resolved_by_a_word() {
    let world = World::new();
    world
        .run(&["guest", "resolve", "db1"])
        .fails(64, "--host <HOST>");
    world
        .run(&["guest", "resolve", "db1", "--host", "h2", "--gone"])
        .fails(64, "cannot be used with");
    let resolve = ["guest", "resolve", "db1", "--host", "h2"];
    let out = world.run(&resolve).ok();
    assert!(
        out.starts_with(
            "db1 is taken to be on h2 (h1: paused_by_migration, h2: running); migration "
        ),
        "{out}"
    );
    let dry = [&resolve[..], &["--discard-source", "--dry-run"]].concat();
    let out = world.run(&dry).ok();
    assert!(out.contains("would be taken to be on h2"), "{out}");
    let json = world
        .run(&[
            "guest", "resolve", "db1", "--gone", "--reason", "h1 burnt", "-o", "json",
        ])
        .json("evenkeel.resolved/1");
    assert_eq!(json["host"], json!(null));
    assert_eq!(
        world.fake.state().log[..],
        [
            "resolve db1 \"h2\" gone=false discard=false \"\"",
            "resolve db1 \"h2\" gone=false discard=true \"\"",
            "resolve db1 \"\" gone=true discard=false \"h1 burnt\""
        ]
    );
    let denied = "h2 has it running: it is not on h1";
    let refused = evenkeel_proto::Code::FailedPrecondition;
    world.fake.refuse("resolve_guest", refused, denied);
    world
        .run(&["guest", "resolve", "db1", "--host", "h1"])
        .fails(4, denied);
}

#[test]
fn a_policy_is_checked_before_it_is_sent() {
    let world = World::new();
    let good = world.file("good.toml", "schema = 1\nmode = \"observe\"\n");
    let bad = world.file("bad.toml", "schema = 1\nmdoe = \"observe\"\n");
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());
    assert_eq!(
        world.run(&["policy", "check", good]).ok(),
        format!("{good}: sound\n")
    );
    let faulty = world.run(&["policy", "check", bad]);
    assert_eq!(faulty.code, 78);
    assert!(
        faulty.out.starts_with(&format!("{bad}:2:1: ")),
        "{faulty:?}"
    );
    assert!(
        faulty.out.contains("2 | mdoe = \"observe\"\n   | ^^^^"),
        "{faulty:?}"
    );
    let json = world
        .run(&["policy", "check", bad, "-o", "json"])
        .json("evenkeel.policy_check/1");
    assert_eq!(json["faults"][0]["line"], 2);
    world
        .run(&["policy", "apply", bad])
        .fails(78, "bad.toml:2:1: ");
    assert!(world.fake.state().log.is_empty());
}

#[test]
fn a_policy_is_applied_over_the_revision_it_was_made_from() {
    let world = World::new();
    let good = world.file("good.toml", "schema = 1\n");
    let good = good.to_str().unwrap();
    let dry = world.run(&["policy", "apply", good, "--dry-run"]).ok();
    assert!(dry.ends_with("would replace policy rev 41\n"), "{dry}");
    let out = world.run(&["policy", "apply", good]).ok();
    assert!(out.starts_with("policy rev 42 is in force"), "{out}");
    world
        .run(&["policy", "apply", good, "--if-revision", "41"])
        .fails(3, "policy rev 42 is in force");
    let json = world.run(&["policy", "apply", good, "--if-revision", "42", "-o", "json"]);
    assert_eq!(
        json.json("evenkeel.policy_applied/1")["policy_revision"],
        43
    );
}

#[test]
fn completions_are_printed_without_a_configuration() {
    let world = World::new();
    std::fs::remove_file(world.path("evenkeel.toml")).unwrap();
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            world.run(&["completion", shell]).ok().contains("migrate"),
            "{shell}"
        );
    }
}
