//! The audit trail: what was done stands there once each, in order, with who and why; a follower sees it live.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use evenkeel_proto::v1::MigrationPhase;
use evenkeel_tests::network::Caller;
use evenkeel_tests::schedulers::phase_of;
use evenkeel_tests::{Lab, LabOptions, tell, until};
use serde_json::Value;

use crate::{END, QUICK_POLICY, SOON, ends_with};

/// What the story below leaves in the trail. The first leader is told before anybody can be.
const STORY: [&str; 12] = [
    "leader_changed",
    "policy_changed",
    "migration_ordered",
    "migration_done",
    "paused",
    "migration_refused",
    "resumed",
    "cordoned",
    "uncordoned",
    "drain_began",
    "drained",
    "leader_changed",
];

/// `evenkeel events --follow`, line by line.
struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    fn start(lab: &Lab) -> Self {
        let mut command = lab.command(&["evenkeel", "events", "--follow", "-o", "json"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sink, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sink.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    fn await_kind(&self, seen: &mut Vec<Value>, kind: &str) {
        loop {
            let line = self.lines.recv_timeout(SOON);
            let line = line.unwrap_or_else(|_| panic!("no {kind} after {seen:?}"));
            seen.push(serde_json::from_str(&line).unwrap());
            if seen.last().unwrap()["kind"] == kind {
                return;
            }
        }
    }
}

fn told(lab: &Lab) -> Vec<Value> {
    let text = lab.run(&["evenkeel", "events", "-o", "json"]);
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["schema"], "evenkeel.events/1");
    // How the fleet looks to a fresh leader depends on when its hosts report.
    let all = document["events"].as_array().unwrap().iter();
    let story = all.filter(|event| !event["kind"].as_str().unwrap().starts_with("hold_"));
    story.cloned().collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    let kinds = events.iter().map(|event| event["kind"].as_str().unwrap());
    kinds.filter(|kind| !kind.starts_with("hold_")).collect()
}

/// Does all that is to be told; the leader dies last.
fn act(lab: &Lab) {
    lab.apply_policy(QUICK_POLICY, 0).unwrap();
    let leader = lab.some_leader();
    let order = lab.migrate(Caller::Operator, &leader, "g", "h2").unwrap();
    let ended = lab.wait_for_end(&order.id, END);
    assert_eq!(phase_of(&ended), MigrationPhase::Done);
    let asked = |code, words: &[&str]| ends_with(lab, code, words);
    asked(0, &["pause", "--for", "1h", "--reason", "night"]);
    asked(4, &["migrate", "g", "--to", "h1"]);
    asked(0, &["resume"]);
    asked(0, &["cordon", "h1", "--reason", "fan"]);
    asked(0, &["uncordon", "h1"]);
    asked(0, &["drain", "h1", "--reason", "firmware"]);
    until("the drain to be told", SOON, || {
        kinds(&told(lab)).last() == Some(&"drained")
    });
    lab.fault(&["scheduler", &leader, "kill"]);
    until("a standby to lead and to say so", SOON, || {
        lab.leader().is_some() && told(lab).len() == STORY.len()
    });
}

#[test]
fn what_happens_is_told_once_in_order_with_who_and_why_and_followed_live() {
    let lab = Lab::up(&LabOptions::default());
    lab.add_guest("h1", "g", &[]);
    lab.wait_for_guest("g");
    assert!(!lab.some_leader().is_empty());
    let mut seen = vec![];
    let mut follower = Follower::start(&lab);
    follower.await_kind(&mut seen, "leader_changed");
    act(&lab);
    let events = told(&lab);
    assert_eq!(kinds(&events), STORY);
    follower.await_kind(&mut seen, "leader_changed");
    assert_eq!(kinds(&seen), STORY, "followed over the change of leader");
    explain_themselves(&events);

    let filtered = lab.run(&[
        "evenkeel",
        "events",
        "--kind",
        "migration_done",
        "-o",
        "name",
    ]);
    assert_eq!(filtered.lines().count(), 1);
    let table = lab.run(&["evenkeel", "events", "--guest", "g"]);
    assert!(
        table.contains("migration_ordered") && !table.contains("cordoned"),
        "{table}"
    );
    tell!("{}", lab.run(&["evenkeel", "events"]));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(kinds(&told(&lab)), STORY, "nothing is told again");

    let pid = follower.child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert!(sent.success());
    assert_eq!(follower.child.wait().unwrap().code(), Some(0));
}

fn explain_themselves(events: &[Value]) {
    let of = |kind: &str| events.iter().find(|event| event["kind"] == kind).unwrap();
    for kind in ["policy_changed", "migration_ordered", "paused", "cordoned"] {
        let by = of(kind)["by"].as_str().unwrap();
        assert!(by.starts_with("operator/"), "{kind} by {by}");
    }
    let sequences: Vec<u64> = events
        .iter()
        .map(|e| e["sequence"].as_u64().unwrap())
        .collect();
    assert!(sequences.is_sorted(), "{sequences:?}");
    assert_eq!(of("policy_changed")["policy_revision"], 1);
    assert_eq!(of("paused")["why"], "night");
    assert_eq!(of("cordoned")["why"], "fan");
    assert_eq!(
        of("migration_done")["hosts"],
        serde_json::json!(["h1", "h2"])
    );
    assert!(of("migration_done")["transferred_bytes"].as_u64().unwrap() > 0);
    let refused = of("migration_refused");
    assert_eq!(refused["guest"], "g");
    let why = refused["why"].as_str().unwrap();
    assert!(why.contains("paused by"), "{why}");
    let (first, second) = (&events[0], events.last().unwrap());
    assert!(second["epoch"].as_i64() > first["epoch"].as_i64());
    let why = second["why"].as_str().unwrap();
    assert!(why.contains("before it scheduler/"), "{why}");
}
