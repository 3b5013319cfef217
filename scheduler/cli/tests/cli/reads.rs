//! Every command that looks, in every format.

use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::fleet::{DB1, RUNNING};
use crate::world::World;

#[test]
fn status_tells_who_leads_and_what_is_lost() {
    let world = World::new();
    let out = world.run(&["status"]).ok();
    for part in [
        "s1 (epoch 17)",
        "policy rev 41",
        "12.4 guest-seconds/s -> 0.9",
        "1 absent",
        "7f3a0c11",
    ] {
        assert!(out.contains(part), "{part} is not in\n{out}");
    }
    let json = world
        .run(&["status", "-o", "json"])
        .json("evenkeel.status/1");
    assert_eq!(json["leader"], "s1");
    assert_eq!(json["loss_guest_seconds_per_second"], 12.4);
    assert_eq!(json["pause"], json!(null));
    assert_eq!(json["migrations"][0]["id"], RUNNING);
    assert_eq!(world.run(&["status", "-o", "name"]).ok(), "lab\n");
}

#[test]
fn what_holds_the_balancer_back_is_said_and_alarms_come_first() {
    let world = World::new();
    {
        let mut state = world.fake.state();
        state.status.holds = vec!["mode is observe".into(), "2 of 3 hosts are silent".into()];
        state.status.migrations_unknown = 1;
        state.status.etcd_reachable = false;
        state.status.leader.clear();
        state.status.hosts_libvirt_down = 1;
    }
    let out = world.run(&["status"]).ok();
    let first: Vec<&str> = out.lines().take(3).collect();
    assert!(
        first[0].starts_with("!! 1 migration with unknown outcome"),
        "{out}"
    );
    assert!(first[1].starts_with("!! no scheduler leads"), "{out}");
    assert!(first[2].starts_with("!! s2 does not reach etcd"), "{out}");
    assert!(
        out.contains("held back  mode is observe\n           2 of 3 hosts are silent\n"),
        "{out}"
    );
    assert!(out.contains("1 with libvirt down"), "{out}");
}

#[test]
fn only_a_leader_without_etcd_moves_nothing() {
    let world = World::new();
    world.fake.state().status.etcd_reachable = false;
    let out = world.run(&["status"]).ok();
    assert!(out.contains("!! s2 does not reach etcd"), "{out}");
    assert!(!out.contains("nothing is moved"), "{out}");
    world.fake.state().status.replica = "s1".into();
    let out = world.run(&["status"]).ok();
    assert!(out.contains("and nothing is moved"), "{out}");
}

#[test]
fn hosts_with_old_reports_are_counted() {
    let world = World::new();
    for host in &mut world.fake.state().hosts[..2] {
        host.state = "unusable".into();
        host.libvirt_up = host.name == "kvm1";
    }
    let out = world.run(&["status"]).ok();
    assert!(out.contains("1 with stale data"), "{out}");
}

#[test]
fn hosts_are_listed_sorted_and_chosen_by_label() {
    let world = World::new();
    let names = |args: &[&str]| world.run(args).ok().replace('\n', " ");
    assert_eq!(names(&["hosts", "-o", "name"]), "kvm1 kvm2 kvm3 ");
    assert_eq!(
        names(&["hosts", "-o", "name", "--sort", "guests"]),
        "kvm1 kvm2 kvm3 "
    );
    assert_eq!(
        names(&["hosts", "-o", "name", "-l", "rack=r2"]),
        "kvm2 kvm3 "
    );
    assert_eq!(
        names(&["hosts", "-o", "name", "-l", "rack=r2", "-l", "rack=r1"]),
        ""
    );
    let out = world.run(&["hosts"]).ok();
    assert!(
        out.starts_with("NAME  STATE       CPU         MEMORY  STALLED  LOSS"),
        "{out}"
    );
    let wide = world.run(&["hosts", "-o", "wide"]).ok();
    assert!(wide.contains("no_io_pressure"), "{wide}");
    let json = world.run(&["hosts", "-o", "json"]).json("evenkeel.hosts/1");
    assert_eq!(json["hosts"][0]["pressure"]["cpu_some_bp"], 3400);
    assert_eq!(json["hosts"][2]["libvirt_up"], json!(null));
}

#[test]
fn guests_are_listed_sorted_and_chosen_by_label() {
    let world = World::new();
    let names = |args: &[&str]| world.run(args).ok().replace('\n', " ");
    assert_eq!(names(&["guests", "-o", "name"]), "ci1 db1 gpu0 web3 ");
    assert_eq!(
        names(&["guests", "-o", "name", "--sort", "cpu"]),
        "db1 web3 gpu0 ci1 "
    );
    assert_eq!(names(&["guests", "-o", "name", "-l", "app=db"]), "db1 ");
    assert_eq!(names(&["guests", "-o", "name", "-l", "group=web"]), "web3 ");
    let out = world.run(&["guests"]).ok();
    for part in [
        "moving to kvm2",
        "unmovable: host device 3b:00.0",
        "rests, 42m left",
    ] {
        assert!(out.contains(part), "{part} is not in\n{out}");
    }
    let json = world
        .run(&["guests", "-o", "json"])
        .json("evenkeel.guests/1");
    assert_eq!(json["guests"][1]["uuid"], DB1);
    assert_eq!(json["guests"][1]["unmovable_reason"], json!(null));
}

#[test]
fn migrations_are_listed_newest_last() {
    let world = World::new();
    let out = world.run(&["migrations"]).ok();
    let lines: Vec<&str> = out.lines().collect();
    assert!(
        lines[1].starts_with("0a1b2c3d  ci1    kvm1 -> kvm2  done"),
        "{out}"
    );
    assert!(
        lines[2].starts_with("7f3a0c11  db1    kvm1 -> kvm2  running"),
        "{out}"
    );
    let open = world.run(&["migrations", "--open", "-o", "name"]).ok();
    assert_eq!(open, format!("{RUNNING}\n"));
    let sorted = world.run(&["migrations", "--sort", "guest", "-o", "json"]);
    assert_eq!(
        sorted.json("evenkeel.migrations/1")["migrations"][0]["guest"],
        "ci1"
    );
}

#[test]
fn one_thing_is_shown_with_what_belongs_to_it() {
    let world = World::new();
    let out = world.run(&["host", "show", "kvm1"]).ok();
    assert!(out.contains("stalled     cpu 34%"), "{out}");
    assert!(out.contains("web3") && !out.contains("ci1"), "{out}");
    let json = world
        .run(&["host", "show", "kvm1", "-o", "json"])
        .json("evenkeel.host/1");
    assert_eq!(json["guests"].as_array().unwrap().len(), 3);
    for name in ["db1", "kvm1/db1", DB1] {
        let json = world
            .run(&["guest", "show", name, "-o", "json"])
            .json("evenkeel.guest/1");
        assert_eq!(json["guest"]["name"], "db1");
        assert_eq!(json["migrations"].as_array().unwrap().len(), 1);
    }
    let out = world.run(&["migration", "show", "7f3a"]).ok();
    assert!(
        out.contains("why         cpu: kvm1 is 34% stalled"),
        "{out}"
    );
    let json = world.run(&["migration", "show", RUNNING, "-o", "json"]);
    assert_eq!(
        json.json("evenkeel.migration/1")["migration"]["phase"],
        "running"
    );
}

#[test]
fn what_is_not_there_or_not_unique_is_an_error() {
    let world = World::new();
    world
        .run(&["host", "show", "kvm9"])
        .fails(1, "no host \"kvm9\"");
    world.run(&["guest", "show", "nobody"]).fails(1, "no guest");
    world
        .run(&["migration", "show", "ffff"])
        .fails(1, "no migration");
    {
        // As the scheduler names guests whose name stands on two hosts.
        let mut state = world.fake.state();
        let mut twin = state.guests[0].clone();
        twin.host = "kvm2".into();
        twin.uuid = "6ba7b810-9dad-11d1-80b4-00c04fd43999".into();
        twin.name = "kvm2/db1".into();
        state.guests[0].name = "kvm1/db1".into();
        state.guests.push(twin);
    }
    world
        .run(&["guest", "show", "db1"])
        .fails(64, "kvm1/db1, kvm2/db1");
    assert!(
        world
            .run(&["guest", "show", "kvm2/db1"])
            .ok()
            .contains("43999")
    );
}

#[test]
fn the_plan_is_shown_kept_and_priced() {
    let world = World::new();
    let out = world.run(&["plan"]).ok();
    assert!(out.starts_with(
        "fleet lab   losing 12.4 guest-seconds/s -> 0.9   policy rev 41   plan 7f3a51c2\n"
    ));
    let file = world.path("plan.json");
    let with_out = world.run(&[
        "plan",
        "--max-moves",
        "2",
        "--out",
        file.to_str().unwrap(),
        "-o",
        "json",
    ]);
    assert_eq!(
        with_out.ok(),
        crate::fleet::PLAN,
        "the document is passed on untouched"
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), crate::fleet::PLAN);
    assert!(world.fake.state().log.contains(&"plan 2".to_owned()));
    let again = world.run(&["plan", "show", file.to_str().unwrap()]).ok();
    assert!(
        again.contains("1  db1    kvm1 -> kvm3  cpu: kvm1 is 34% stalled  410 s/h"),
        "{again}"
    );
    assert_eq!(world.run(&["plan", "-o", "name"]).ok(), "7f3a51c2\n");
}

#[test]
fn pending_changes_can_be_an_exit_code() {
    let world = World::new();
    assert_eq!(world.run(&["plan", "--detailed-exitcode"]).code, 2);
    world.fake.state().plan =
        r#"{"schema":"evenkeel.plan/1","loss_before":0.1,"loss_after":0.1,"steps":[]}"#.into();
    let quiet = world.run(&["plan", "--detailed-exitcode"]);
    assert_eq!(quiet.code, 0);
    assert!(quiet.out.contains("Nothing to move."), "{quiet:?}");
}

#[test]
fn the_snapshot_is_passed_on_untouched() {
    let world = World::new();
    assert_eq!(world.run(&["snapshot"]).ok(), crate::fleet::SNAPSHOT);
    world
        .run(&["snapshot", "-o", "wide"])
        .fails(64, "cannot be printed as wide");
}

#[test]
fn a_viewer_may_look() {
    let world = World::new();
    world.become_("viewer/grafana");
    world.run(&["hosts"]).ok();
}

/// `timeout` passes the signal on.
fn end(child: &mut std::process::Child) {
    let pid = child.id().to_string();
    assert!(
        std::process::Command::new("kill")
            .arg(pid)
            .status()
            .unwrap()
            .success()
    );
    child.wait().unwrap();
}

#[test]
fn watching_off_a_terminal_prints_a_block_per_change() {
    let world = World::new();
    let mut child = world.spawn(&["hosts", "--watch", "-o", "json"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(first["hosts"][1]["state"], "active");
    // A report that only got older is no change.
    world.fake.state().hosts[1].report_age_ms += 500;
    std::thread::sleep(Duration::from_millis(2500));
    world.fake.state().hosts[1].state = "draining".into();
    let second: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(second["hosts"][1]["state"], "draining");
    end(&mut child);
}

#[test]
fn watching_goes_on_while_no_scheduler_answers() {
    let world = World::new();
    let mut child = world.spawn(&["status", "-w"]);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    world
        .fake
        .refuse("get_status", tonic::Code::Unavailable, "restarting");
    let mut err = BufReader::new(child.stderr.take().unwrap());
    line.clear();
    err.read_line(&mut line).unwrap();
    assert!(line.contains("restarting; trying again"), "{line}");
    {
        let mut state = world.fake.state();
        state.refuse.clear();
        state.status.mode = "off".into();
    }
    let started = Instant::now();
    let mut seen = String::new();
    while !seen.contains("mode       off") {
        assert!(started.elapsed() < Duration::from_secs(20), "{seen}");
        let mut byte = [0; 256];
        let n = out.read(&mut byte).unwrap();
        seen.push_str(&String::from_utf8_lossy(&byte[..n]));
    }
    end(&mut child);
}
