//! `explain`, `policy show` and `policy check --snapshot`: offline and live, with the same answers.

use evenkeel::output::Look;
use evenkeel::output::explain::explanation;
use evenkeel_planner::{BlockReason, Explanation};
use serde_json::json;

use crate::fleet::{POLICY, SNAPSHOT};
use crate::world::{Run, World, binary, run_in};

/// A folder with the recorded fleet; neither scheduler nor configuration is anywhere near.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("s.json"), SNAPSHOT).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn run(&self, args: &[&str]) -> Run {
        run_in(self.0.path(), None, args)
    }

    fn explain(&self, args: &[&str]) -> Run {
        self.run(&[&["explain"], args, &["--snapshot", "s.json"]].concat())
    }
}

/// A recorded answer as people see it.
fn shown(document: &str, wide: bool) -> String {
    let answer: Explanation = serde_json::from_str(document).unwrap();
    let now = answer.taken_at;
    explanation(
        &answer,
        Look {
            colour: false,
            wide,
            now,
        },
    )
}

#[test]
fn answers_as_people_see_them() {
    let moves = include_str!("../fleet/explain-guest-moves.json");
    insta::assert_snapshot!("guest_moves", shown(moves, false));
    insta::assert_snapshot!("guest_moves_wide", shown(moves, true));
    let stays = include_str!("../fleet/explain-guest-stays.json");
    insta::assert_snapshot!("guest_stays", shown(stays, false));
    insta::assert_snapshot!("guest_stays_wide", shown(stays, true));
    let held = include_str!("../fleet/explain-guest-held.json");
    insta::assert_snapshot!("guest_held", shown(held, false));
    let host = include_str!("../fleet/explain-host.json");
    insta::assert_snapshot!("host", shown(host, false));
    let refused = include_str!("../fleet/explain-move-refused.json");
    insta::assert_snapshot!("move_refused", shown(refused, false));
    let without_gain = include_str!("../fleet/explain-move-without-gain.json");
    insta::assert_snapshot!("move_without_gain", shown(without_gain, false));
}

#[test]
fn the_page_about_explaining_shows_what_is_printed() {
    let page = include_str!("../../../../docs/explain.md");
    for (document, wide) in [
        (include_str!("../fleet/explain-guest-moves.json"), false),
        (include_str!("../fleet/explain-guest-stays.json"), true),
        (include_str!("../fleet/explain-guest-held.json"), false),
        (include_str!("../fleet/explain-host.json"), false),
    ] {
        let printed = shown(document, wide);
        assert!(
            page.contains(printed.trim_end()),
            "docs/explain.md lacks:\n{printed}"
        );
    }
    for name in BlockReason::NAMES {
        let reason: BlockReason = name.parse().unwrap();
        let row = format!("| `{name}` | {} | {} |", reason.meaning(), reason.remedy());
        assert!(page.contains(&row), "docs/explain.md lacks: {row}");
    }
}

#[test]
fn a_snapshot_can_come_through_a_pipe() {
    let desk = Desk::new();
    for args in [
        &["plan", "--snapshot", "-"][..],
        &["explain", "guest", "db1", "--snapshot", "-"],
        &["hosts", "--snapshot", "-"],
    ] {
        let mut command = assert_cmd::Command::new(binary());
        let piped = command
            .env_clear()
            .current_dir(desk.0.path())
            .args(args)
            .write_stdin(SNAPSHOT)
            .output()
            .unwrap();
        let from_file: Vec<&str> = args
            .iter()
            .map(|arg| if *arg == "-" { "s.json" } else { arg })
            .collect();
        assert_eq!(
            String::from_utf8(piped.stdout).unwrap(),
            desk.run(&from_file).ok()
        );
    }
}

#[test]
fn guests_hosts_and_moves_are_explained_without_scheduler_or_configuration() {
    let desk = Desk::new();
    let moves = desk.explain(&["guest", "db1"]).ok();
    assert!(
        moves.contains("guest db1 on kvm1: moves to kvm2\nstep 1: kvm1 -> kvm2"),
        "{moves}"
    );
    assert!(
        moves.contains("costs ") && moves.contains("paid back in"),
        "{moves}"
    );
    let stays = desk.explain(&["guest", "web3"]).ok();
    assert!(stays.contains("guest web3 on kvm1: stays"), "{stays}");
    assert!(stays.contains("host closed: kvm3 is cordoned"), "{stays}");
    let held = desk.explain(&["guest", "gpu0"]).ok();
    assert!(
        held.contains("held, unmovable: host device 3b:00.0\n"),
        "{held}"
    );
    let host = desk.explain(&["host", "kvm1"]).ok();
    assert!(
        host.contains("host kvm1, active\n") && host.contains("Its guests"),
        "{host}"
    );
    let refused = desk.explain(&["move", "web3", "kvm3"]).ok();
    assert!(refused.contains("kvm3  impossible"), "{refused}");
    let wide = desk
        .run(&["plan", "-o", "wide", "--snapshot", "s.json"])
        .ok();
    assert!(
        wide.contains("PAID BACK") && wide.contains("Spread of CPU use"),
        "{wide}"
    );
}

#[test]
fn the_document_agrees_with_the_plan() {
    let desk = Desk::new();
    let plan = desk
        .run(&["plan", "--snapshot", "s.json", "-o", "json"])
        .json("evenkeel.plan/1");
    let told = desk
        .explain(&["guest", "db1", "-o", "json"])
        .json("evenkeel.explain/1");
    assert_eq!(told["guests"][0]["moves"][0]["step"], plan["steps"][0]);
    assert_eq!(told["plan"]["id"], plan["id"]);
    assert_eq!(told["about"], json!({"kind": "guest", "name": "db1"}));
}

#[test]
fn the_policy_counts_and_what_is_not_there_is_said() {
    let desk = Desk::new();
    desk.write("p.toml", POLICY);
    let out = desk.explain(&["guest", "db1", "--policy", "p.toml"]).ok();
    assert!(out.contains("held, opted out: opt_out.db"), "{out}");
    desk.explain(&["guest", "nobody"])
        .fails(1, "no guest \"nobody\" in s.json");
    desk.explain(&["host", "nowhere"])
        .fails(1, "no host \"nowhere\" in s.json");
    desk.explain(&["move", "db1", "nowhere"])
        .fails(1, "no host \"nowhere\" in s.json");
    desk.explain(&["guest", "db1", "-o", "name"])
        .fails(64, "cannot be printed as name");
    desk.run(&["explain"]).fails(64, "");
}

#[test]
fn a_name_that_stands_on_two_hosts_is_asked_back() {
    let desk = Desk::new();
    let both = SNAPSHOT
        .replace("\"name\": \"web3\"", "\"name\": \"kvm1/db1\"")
        .replace("\"name\": \"db1\"", "\"name\": \"kvm2/db1\"");
    desk.write("s.json", &both);
    desk.explain(&["guest", "db1"]).fails(64, "kvm1/db1");
    let out = desk.explain(&["guest", "kvm2/db1"]).ok();
    assert!(out.contains("guest kvm2/db1 on kvm1"), "{out}");
    desk.write(
        "s.json",
        &SNAPSHOT.replace("\"name\": \"web3\"", "\"name\": \"kvm1/web3\""),
    );
    assert!(
        desk.explain(&["guest", "web3"])
            .ok()
            .contains("guest kvm1/web3 on kvm1")
    );
}

#[test]
fn the_live_fleet_is_explained_by_the_policy_in_force() {
    let world = World::new();
    let out = world.run(&["explain", "guest", "db1"]).ok();
    assert!(out.contains("held, opted out: opt_out.db"), "{out}");
    world.file("s.json", SNAPSHOT);
    world.file("p.toml", POLICY);
    for about in [
        &["guest", "web3"][..],
        &["host", "kvm1"],
        &["move", "web3", "kvm2"],
    ] {
        let live = world.run(&[&["explain"], about].concat()).ok();
        let files = ["--snapshot", "s.json", "--policy", "p.toml"];
        let offline = world.run(&[&["explain"], about, &files].concat()).ok();
        assert_eq!(live, offline);
    }
    world
        .run(&["explain", "guest", "nobody"])
        .fails(1, "no guest \"nobody\" in the fleet");
}

#[test]
fn the_policy_in_force_is_shown_as_it_was_written() {
    let world = World::new();
    world.become_("viewer/grafana");
    assert_eq!(world.run(&["policy", "show"]).ok(), POLICY);
    let json = world
        .run(&["policy", "show", "-o", "json"])
        .json("evenkeel.policy/1");
    assert_eq!(
        (&json["policy_revision"], &json["text"], &json["fault"]),
        (&json!(41), &json!(POLICY), &json!(null))
    );
}

#[test]
fn rules_that_a_fleet_cannot_fulfil_are_named_with_their_lines() {
    let desk = Desk::new();
    let policy = "schema = 1\n\n[anti_affinity.all]\nguests = [\"*\"]\nstrength = \"must\"\n\n\
                  [pin.gpu]\nguests = [\"gpu0\"]\nhosts = [\"kvm9\"]\nstrength = \"must\"\n";
    desk.write("p.toml", policy);
    assert_eq!(
        desk.run(&["policy", "check", "p.toml"]).ok(),
        "p.toml: sound\n"
    );
    let run = desk.run(&["policy", "check", "p.toml", "--snapshot", "s.json"]);
    assert_eq!(run.code, 4, "{run:?}");
    insta::assert_snapshot!("policy_check_snapshot", run.out);
    let json = desk.run(&[
        "policy",
        "check",
        "p.toml",
        "--snapshot",
        "s.json",
        "-o",
        "json",
    ]);
    let json = json.json("evenkeel.policy_check/1");
    assert_eq!(
        (
            &json["unfulfilled"][0]["rule"],
            &json["unfulfilled"][0]["line"]
        ),
        (&json!("pin.gpu"), &json!(7))
    );
    desk.write("sound.toml", POLICY);
    assert_eq!(
        desk.run(&["policy", "check", "sound.toml", "--snapshot", "s.json"])
            .ok(),
        "sound.toml: sound\n"
    );
}

#[test]
fn contradictions_and_advice_come_with_both_places() {
    let desk = Desk::new();
    let pins = "schema = 1\n[pin.x]\nguests = [\"ora-*\"]\nhosts = [\"h1\"]\nstrength = \"must\"\n\
                [pin.y]\nguests = [\"ora-1\"]\nhosts = [\"h2\"]\nstrength = \"must\"\n";
    desk.write("p.toml", pins);
    let run = desk.run(&["policy", "check", "p.toml"]);
    assert_eq!(run.code, 78, "{run:?}");
    assert!(
        run.out
            .starts_with("p.toml:6:1: pin.y contradicts pin.x (line 2): "),
        "{run:?}"
    );
    let json = desk
        .run(&["policy", "check", "p.toml", "-o", "json"])
        .json("evenkeel.policy_check/1");
    assert_eq!(
        json["faults"][0]["related"],
        json!([{"line": 2, "column": 1, "what": "pin.x"}])
    );
    desk.write("p.toml", "mode = \"off\"\n");
    let out = desk.run(&["policy", "check", "p.toml"]).ok();
    assert!(
        out.starts_with("p.toml:1:1: warning: the text does not say its schema"),
        "{out}"
    );
    assert!(out.ends_with("p.toml: sound\n"), "{out}");
    std::fs::write(desk.0.path().join("p.toml"), b"mode = \"\xff\"\n").unwrap();
    let run = desk.run(&["policy", "check", "p.toml"]);
    assert_eq!(
        (
            run.code,
            run.out.contains("p.toml:1:9: the byte 0xff is no UTF-8")
        ),
        (78, true),
        "{run:?}"
    );
}
