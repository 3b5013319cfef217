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
fn policies_that_were_applied_are_listed_and_shown() {
    let world = World::new();
    let out = world.run(&["policy", "history"]).ok();
    let rows: Vec<Vec<&str>> = out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows.len(), 4, "{out}");
    assert_eq!(rows[1][..3], ["41", "*", "2026-11-22T22:00:00Z"], "{out}");
    assert!(
        rows[1].ends_with(&["operator/anna", "db1", "stays"]),
        "{out}"
    );
    assert!(rows[2].ends_with(&["operator/anna", "-"]), "{out}");
    let names = world.run(&["policy", "history", "-o", "name"]).ok();
    assert_eq!(names, "41\n40\n38\n");
    let json = world
        .run(&["policy", "history", "-o", "json"])
        .json("evenkeel.policy_history/1");
    assert_eq!(json["policies"][0]["active"], true);
    assert_eq!(json["policies"][1]["reason"], serde_json::Value::Null);
    assert_eq!(
        world.run(&["policy", "show", "--revision", "40"]).ok(),
        "schema = 1\nmode = \"observe\"\n"
    );
    world
        .run(&["policy", "show", "--revision", "7"])
        .fails(1, "policy rev 7 is not kept");
    world
        .run(&["policy", "show", "--revision", "0"])
        .fails(64, "0 is not in 1..");
}

#[test]
fn what_a_policy_would_change_is_shown() {
    let world = World::new();
    let new = world.file("new.toml", &crate::fleet::POLICY.replace("db1", "db2"));
    let new = new.to_str().unwrap();
    let run = world.run(&["policy", "diff", new]);
    let expected = format!(
        "--- policy rev 41\n+++ {new}\n@@ -2,4 +2,4 @@\n mode = \"automatic\"\n \n [opt_out.db]\n\
         -guests = [\"db1\"]\n+guests = [\"db2\"]\n"
    );
    assert_eq!(run.ok(), expected);
    let pending = world.run(&["policy", "diff", new, "--detailed-exitcode"]);
    assert_eq!(pending.code, 2);
    let json = world
        .run(&["policy", "diff", new, "--revision", "40", "-o", "json"])
        .json("evenkeel.policy_diff/1");
    assert_eq!(
        (&json["policy_revision"], &json["differs"]),
        (&40.into(), &true.into())
    );
    let same = world.file("same.toml", crate::fleet::POLICY);
    let run = world.run(&[
        "policy",
        "diff",
        same.to_str().unwrap(),
        "--detailed-exitcode",
    ]);
    assert_eq!((run.code, run.out.as_str()), (0, ""));
    assert!(run.err.contains("is what policy rev 41 is"), "{run:?}");
    let bad = world.file("bad.toml", "schema = 1\nmdoe = 1\n");
    world
        .run(&["policy", "diff", bad.to_str().unwrap()])
        .fails(78, "bad.toml:2:1: ");
}

#[test]
fn an_earlier_policy_is_put_into_force_again() {
    let world = World::new();
    let dry = world.run(&["policy", "rollback", "40", "--dry-run"]);
    assert_eq!(dry.ok(), "policy rev 40 would replace policy rev 41\n");
    let run = world.run(&["policy", "rollback", "40", "--reason", "too many moves"]);
    assert_eq!(run.out, "policy rev 42 is in force, from policy rev 40\n");
    let told = "the mode changes with it, from automatic to observe";
    assert!(run.err.contains(told), "{run:?}");
    let applied = world.fake.state().log.last().cloned().unwrap();
    assert!(
        applied.ends_with("\"rollback to rev 40: too many moves\""),
        "{applied}"
    );
    world
        .run(&["policy", "rollback", "40", "--if-revision", "41"])
        .fails(3, "policy rev 42 is in force");
    world
        .run(&["policy", "rollback", "38"])
        .fails(78, "policy rev 38:2:8: ");
    world
        .run(&["policy", "rollback", "7"])
        .fails(1, "policy rev 7 is not kept");
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

#[test]
fn manual_pages_are_printed_and_written_without_a_configuration() {
    let world = World::new();
    std::fs::remove_file(world.path("evenkeel.toml")).unwrap();
    let page = world.run(&["man"]).ok();
    assert!(page.contains(".TH evenkeel 1"), "{page}");
    let dir = world.path("man1");
    let words = ["man", "--dir", dir.to_str().unwrap()];
    world.run(&words).fails(1, "cannot write");
    std::fs::create_dir(&dir).unwrap();
    assert_eq!(world.run(&words).ok(), "");
    for page in ["evenkeel", "evenkeel-drain", "evenkeel-policy-rollback"] {
        let text = std::fs::read_to_string(dir.join(format!("{page}.1"))).unwrap();
        assert!(text.contains(&format!(".TH {page} 1")), "{text}");
    }
}
