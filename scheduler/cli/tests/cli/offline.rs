//! Read verbs and plans on a snapshot file: no scheduler, no configuration.

use std::path::Path;

use serde_json::json;

use crate::fleet::SNAPSHOT;
use crate::world::{Run, run_in};

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
        run_in(self.0.path(), Some(Path::new("/nowhere")), args)
    }

    fn read(&self, args: &[&str]) -> Run {
        self.run(&[args, &["--snapshot", "s.json"]].concat())
    }
}

#[test]
fn lists_and_details_come_from_the_file() {
    let desk = Desk::new();
    assert_eq!(
        desk.read(&["hosts", "-o", "name", "-l", "rack=r2"]).ok(),
        "kvm2\nkvm3\n"
    );
    let json = desk.read(&["hosts", "-o", "json"]).json("evenkeel.hosts/1");
    assert_eq!(json["hosts"][0]["pressure"]["cpu_some_bp"], 3400);
    assert_eq!(json["hosts"][0]["agent_version"], json!(null));
    assert!(
        json["hosts"][0]["loss_guest_seconds_per_second"]
            .as_f64()
            .unwrap()
            > 3.0
    );
    assert_eq!(
        desk.read(&["guests", "-o", "name", "-l", "group=web"]).ok(),
        "web3\n"
    );
    assert_eq!(desk.read(&["migrations", "-o", "name"]).ok(), "");
    assert!(desk.read(&["host", "show", "kvm1"]).ok().contains("gpu0"));
    assert!(
        desk.read(&["guest", "show", "gpu0"])
            .ok()
            .contains("host device 3b:00.0")
    );
    desk.read(&["guest", "show", "nobody"])
        .fails(1, "no guest \"nobody\" in s.json");
    let status = desk.read(&["status"]).ok();
    assert!(
        status.contains("1 active") || status.contains("2 active"),
        "{status}"
    );
    assert!(!status.contains("!!"), "{status}");
    let json = desk
        .read(&["status", "-o", "json"])
        .json("evenkeel.status/1");
    assert_eq!(
        (&json["hosts_closed"], &json["leader"]),
        (&json!(1), &json!(null))
    );
}

#[test]
fn a_plan_is_made_offline_and_the_policy_counts() {
    let desk = Desk::new();
    let plan = desk.read(&["plan", "-o", "json"]).json("evenkeel.plan/1");
    let moved = plan["steps"].as_array().unwrap();
    assert!(!moved.is_empty(), "{plan}");
    assert_eq!(moved[0]["to"], "kvm2");
    let run = desk.read(&["plan", "--detailed-exitcode", "--max-moves", "1"]);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.out.starts_with("fleet lab   losing "), "{run:?}");
    desk.write("p.toml", "schema = 1\n[opt_out.all]\nguests = [\"*\"]\n");
    let kept = desk.run(&[
        "plan",
        "--snapshot",
        "s.json",
        "--policy",
        "p.toml",
        "-o",
        "json",
    ]);
    let kept = kept.json("evenkeel.plan/1");
    assert_eq!(kept["steps"], json!([]), "{kept}");
    let written = desk.read(&["plan", "--out", "plan.json"]);
    assert_eq!(written.code, 0);
    assert_eq!(desk.run(&["plan", "show", "plan.json"]).ok(), written.out);
}

#[test]
fn files_that_are_something_else_are_named() {
    let desk = Desk::new();
    desk.write(
        "s.json",
        "{\"schema\": \"evenkeel.snapshot/9\", \"taken_at\": \"2026-11-23T01:00:00Z\"}",
    );
    desk.read(&["hosts"]).fails(
        1,
        "s.json:1:12: no usable snapshot: schema is \"evenkeel.snapshot/9\", expected \"evenkeel.snapshot/1\" (write ",
    );
    desk.write("s.json", "[");
    desk.read(&["plan"]).fails(
        1,
        "s.json:1:1: no usable snapshot: EOF while parsing a list (the text ends",
    );
    desk.write(
        "s.json",
        &SNAPSHOT.replace("\"vcpus\": 2, ", "\"vcpus\": 2.5, "),
    );
    desk.read(&["plan"]).fails(
        1,
        "s.json:24:50: no usable snapshot: invalid type: floating point",
    );
    let line =
        "s.json:22:70: no usable snapshot: guests[ci1].cpu_demand_cores: -0.4 is negative (write";
    desk.write(
        "s.json",
        &SNAPSHOT.replace("0.4, \"memory_mib\"", "-0.4, \"memory_mib\""),
    );
    desk.read(&["explain", "guest", "db1"]).fails(1, line);
    desk.write("s.json", SNAPSHOT);
    desk.write("p.toml", "schema = 1\naggressiveness = 9\n");
    desk.run(&["plan", "--snapshot", "s.json", "--policy", "p.toml"])
        .fails(78, "p.toml:2:18: ");
    desk.run(&["hosts", "--snapshot", "gone.json"])
        .fails(1, "cannot read gone.json");
}

#[test]
fn hours_are_simulated_on_a_file_alone() {
    let desk = Desk::new();
    let simulate = |more: &[&str]| {
        let args = ["simulate", "--duration", "1h"];
        desk.read(&[&args, more].concat())
    };
    let text = simulate(&[]).ok();
    assert!(text.contains("evenkeel"), "{text}");
    assert_eq!(simulate(&[]).ok(), text, "one seed, one outcome");
    assert_ne!(simulate(&["--seed", "2"]).ok(), text);
    let json = simulate(&["-o", "json", "--svg", "loss.svg"]).json("evenkeel.simulation/1");
    let lost = |at: usize| {
        json["strategies"][at]["lost_guest_seconds"]
            .as_f64()
            .unwrap()
    };
    assert_eq!(json["strategies"][1]["strategy"], "evenkeel");
    assert!(lost(0) > 0.0 && lost(1) < lost(0), "{json}");
    assert!(
        json["strategies"][1]["moves"].as_u64().unwrap() > 0,
        "{json}"
    );
    let picture = std::fs::read_to_string(desk.0.path().join("loss.svg")).unwrap();
    assert!(picture.starts_with("<svg "), "{picture}");
    desk.write("t.csv", "guest,t0,t1\na,10,90\nb,50,50\n");
    let shaped = simulate(&["--trace", "t.csv", "--faults"]).ok();
    assert_ne!(shaped, text);
}

#[test]
fn what_cannot_be_simulated_is_named() {
    let desk = Desk::new();
    desk.write("t.csv", "guest,t0\na,much\n");
    desk.read(&["simulate", "--trace", "t.csv"]).fails(
        1,
        "t.csv:2: \"much\" in column 2 is not a share in per cent",
    );
    desk.write("t.csv", "guest\n");
    desk.read(&["simulate", "--trace", "t.csv"])
        .fails(1, "cannot simulate s.json: the trace holds no samples");
    desk.write("p.toml", "schema = 1\naggressiveness = 9\n");
    desk.read(&["simulate", "--policy", "p.toml"])
        .fails(78, "p.toml:2:18: ");
    desk.read(&["simulate", "-o", "name"])
        .fails(64, "simulate cannot be printed as name");
    desk.run(&["simulate"]).fails(64, "");
}

#[test]
fn a_guest_that_is_to_be_made_is_placed_and_every_other_host_is_named() {
    let desk = Desk::new();
    let wish = [
        "place", "--vcpus", "2", "--memory", "8GiB", "--group", "web",
    ];
    insta::assert_snapshot!(desk.read(&wish).ok());
    assert_eq!(
        desk.read(&[&wish[..], &["-o", "name"]].concat()).ok(),
        "kvm2\n"
    );
    let json = desk.read(&[&wish[..], &["-o", "json"]].concat());
    let json = json.json("evenkeel.placement/1");
    assert_eq!(json["host"], "kvm2");
    assert_eq!(json["rejected"][1]["reason"], "host_absent");
    let none = desk.read(&["place", "--vcpus", "2", "--memory", "1TiB"]);
    assert_eq!(none.code, 4, "{none:?}");
    assert!(none.out.starts_with("no host can take it"), "{none:?}");
    let greedy = [
        "place",
        "--vcpus",
        "2",
        "--memory",
        "1GiB",
        "--cpu-demand",
        "3",
    ];
    desk.read(&greedy)
        .fails(64, "a guest of 2 vCPUs uses from 0 to 2 cores");
    desk.read(&["place", "--vcpus", "2", "--memory", "8GB"])
        .fails(64, "expected a whole number and MiB, GiB or TiB");
}
