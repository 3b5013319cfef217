//! `evenkeel doctor` against the recorded fleet: its checks, its words and its exit codes.

use evenkeel_proto::v1;
use serde_json::{Value, json};
use tonic::Code;

use crate::world::World;

/// All that is wrong with the recorded fleet is mended.
fn mended() -> World {
    let world = World::new();
    for host in &mut world.fake.state().hosts {
        host.state = "active".into();
        host.libvirt_up = true;
        host.agent_version = "0.1.0".into();
        host.troubles.clear();
        host.disk_locks = v1::DiskLocks::Lockd.into();
    }
    world
}

fn result_of<'a>(doctor: &'a Value, check: &str) -> &'a Value {
    let checks = doctor["checks"].as_array().expect("checks");
    let found = checks.iter().find(|c| c["check"] == check);
    &found.expect("the check")["result"]
}

#[test]
fn a_check_that_fails_is_exit_1_and_says_what_would_mend_it() {
    let world = World::new();
    let run = world.run(&["doctor"]);
    assert_eq!(run.code, 1, "{run:?}");
    // When the world's certificate ends, and which of its schedulers answers, differs.
    let steady: Vec<&str> = run
        .out
        .lines()
        .filter(|line| !line.starts_with("certificate"))
        .collect();
    insta::assert_snapshot!("doctor", steady.join("\n"));
    let json = world.run(&["doctor", "-o", "json"]);
    let doctor = json.json("evenkeel.doctor/1");
    assert_eq!(doctor["result"], "failed");
    assert_eq!(result_of(&doctor, "reports"), "failed");
    assert_eq!(result_of(&doctor, "disk locks"), "warning");
    assert_eq!(result_of(&doctor, "leader"), "ok");
}

#[test]
fn warnings_are_exit_0() {
    let world = mended();
    let doctor = world.run(&["doctor", "-o", "json"]);
    assert_eq!(doctor.code, 0, "{doctor:?}");
    assert_eq!(doctor.json("evenkeel.doctor/1")["result"], "ok");
    world.fake.state().hosts[0].disk_locks = v1::DiskLocks::Unknown.into();
    let doctor = world.run(&["doctor", "-o", "json"]);
    assert_eq!(doctor.code, 0, "{doctor:?}");
    let doctor = doctor.json("evenkeel.doctor/1");
    assert_eq!(doctor["result"], "warning");
    let checks = doctor["checks"].as_array().unwrap();
    let unwell: Vec<&Value> = checks.iter().filter(|c| c["result"] != "ok").collect();
    assert_eq!(unwell.len(), 1, "{unwell:?}");
    assert_eq!(unwell[0]["check"], "disk locks");
    assert!(
        checks
            .iter()
            .all(|c| (c["mend"] == json!(null)) == (c["result"] == "ok"))
    );
}

#[test]
fn guests_in_danger_fail_and_others_migrations_do_not() {
    let world = mended();
    let run = |troubles: &[&str], foreign: &[&str]| {
        {
            let status = &mut world.fake.state().status;
            status.troubles = troubles.iter().map(|said| (*said).to_owned()).collect();
            status.foreign_migrations = foreign.iter().map(|said| (*said).to_owned()).collect();
        }
        let run = world.run(&["doctor", "-o", "json"]);
        let doctor = serde_json::from_str(&run.out).unwrap();
        (
            run.code,
            result_of(&doctor, "doubles").clone(),
            result_of(&doctor, "foreign").clone(),
        )
    };
    let expected = |code, doubles, foreign| (code, json!(doubles), json!(foreign));
    assert_eq!(run(&["a", "b"], &["b"]), expected(1, "failed", "warning"));
    assert_eq!(run(&["b"], &["b"]), expected(0, "ok", "warning"));
    world.fake.state().policy_fault = "line 3".into();
    assert_eq!(run(&[], &[]), expected(1, "ok", "ok"));
}

#[test]
fn without_a_scheduler_nothing_is_said_of_the_fleet() {
    let world = World::new();
    let nobody = ["--scheduler", "https://127.0.0.1:1", "doctor"];
    assert_eq!(world.run(&nobody).fails(6, "no scheduler answers").out, "");
    world
        .fake
        .refuse("get_status", Code::PermissionDenied, "not you");
    world.run(&["doctor"]).fails(77, "not you");
    world
        .run(&["doctor", "-o", "name"])
        .fails(64, "doctor cannot be printed as name");
}
