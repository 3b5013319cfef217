//! `cordon`, `uncordon`, `drain` and `roll`.

use std::io::{BufRead, BufReader, Read};
use std::process::Command;

use evenkeel_proto::v1;

use crate::fleet;
use crate::world::World;

/// kvm1 while it is drained: how that stands, and who is left.
fn kvm1(state: &str, left: u32, edit: impl FnOnce(&mut v1::DrainView)) -> Vec<v1::HostView> {
    let mut hosts = fleet::hosts();
    let host = &mut hosts[0];
    host.state = "draining".into();
    let mut drain = v1::DrainView {
        state: state.into(),
        left,
        ..Default::default()
    };
    edit(&mut drain);
    host.drain = Some(drain);
    host.intent = Some(v1::Intent {
        host: "kvm1".into(),
        kind: v1::IntentKind::Drain.into(),
        by: "operator/alice".into(),
        reason: "new fan".into(),
        since_ms: fleet::NOW_MS,
        ..Default::default()
    });
    hosts
}

fn pinned(drain: &mut v1::DrainView) {
    drain.obstacles = vec![v1::DrainObstacle {
        guest: "gpu0".into(),
        reason: "unmovable".into(),
        detail: "host device 3b:00.0".into(),
        retry_at_ms: 0,
    }];
}

fn open() -> Vec<v1::HostView> {
    fleet::hosts()
}

fn log(world: &World) -> Vec<String> {
    world.fake.state().log.clone()
}

#[test]
fn hosts_are_closed_and_opened_by_name_and_pattern() {
    let world = World::new();
    let out = world
        .run(&["cordon", "kvm2", "kvm1", "--reason", "fan"])
        .ok();
    assert_eq!(out, "kvm2: cordoned\nkvm1: cordoned\n");
    let expected = r#"cordon ["kvm2", "kvm1"] "fan" deadline=0 offline=false dry=false"#;
    assert_eq!(log(&world), [expected]);
    let out = world.run(&["uncordon", "kvm*", "kvm1"]).ok();
    let expected = "kvm1: open again\nkvm2: open again\n\
                    kvm3: nothing to change, it is neither cordoned nor drained\n";
    assert_eq!(out, expected);
    world
        .run(&["cordon", "kvm1", "kvm9"])
        .fails(1, "no host \"kvm9\" in the fleet");
    assert_eq!(
        log(&world).len(),
        2,
        "nothing is changed of a list with a mistake"
    );
    let json = world
        .run(&["cordon", "kvm1", "--dry-run", "-o", "json"])
        .json("evenkeel.intents/1");
    assert_eq!(json["hosts"][0]["now"]["kind"], "cordon");
    assert_eq!(json["dry_run"], true);
    world.become_("viewer/bob");
    world.run(&["cordon", "kvm1"]).fails(77, "may not");
}

#[test]
fn a_drain_is_followed_to_libvirts_word() {
    let world = World::new();
    world.fake.state().next_hosts = [
        kvm1("draining", 3, |d| d.moving = 2),
        kvm1("held", 2, |d| {
            d.holds = vec!["paused by operator/bob: lunch".into()]
        }),
        kvm1("draining", 0, |_| {}),
        kvm1("drained", 0, |_| {}),
    ]
    .into();
    let args = ["drain", "kvm1", "--deadline", "30m", "--reason", "new fan"];
    let run = world.run(&args);
    assert_eq!(
        run.err,
        "kvm1: 3 left, 2 moving\n\
         kvm1: 2 left, held: paused by operator/bob: lunch\n\
         kvm1: 0 left, waiting for libvirt's word\n\
         kvm1: drained\n"
    );
    assert_eq!((run.out.as_str(), run.code), ("kvm1 is drained\n", 0));
    let expected = r#"drain ["kvm1"] "new fan" deadline=1800 offline=false dry=false"#;
    assert_eq!(log(&world), [expected]);
}

#[test]
fn a_drain_that_nobody_left_can_end_names_them_and_fails() {
    let world = World::new();
    world.fake.state().hosts = kvm1("stuck", 1, pinned);
    let run = world.run(&["drain", "kvm1", "-o", "json"]);
    let run = run.fails(
        4,
        "kvm1: 1 guest left; gpu0 cannot go: unmovable: host device 3b:00.0",
    );
    let told = run.err.matches("gpu0 cannot go").count();
    assert_eq!(
        told, 2,
        "once while it is followed, once in the end: {}",
        run.err
    );
    let json = run.json("evenkeel.drain/1");
    assert_eq!(json["hosts"][0]["drain"]["obstacles"][0]["guest"], "gpu0");
}

#[test]
fn a_drain_that_is_late_or_ended_by_somebody_fails_with_a_code_of_its_own() {
    let world = World::new();
    world.fake.state().hosts = kvm1("draining", 2, |d| d.overdue = true);
    world
        .run(&["drain", "kvm1"])
        .fails(5, "kvm1: 2 guests left");
    world.fake.state().next_hosts = [kvm1("draining", 2, |_| {}), open()].into();
    world
        .run(&["drain", "kvm1"])
        .fails(3, "kvm1 is not being drained any more");
}

#[test]
fn a_drain_is_detached_from_and_ended() {
    let world = World::new();
    let out = world
        .run(&["drain", "kvm1", "--detach", "--offline-too"])
        .ok();
    assert_eq!(out, "kvm1: being drained\n");
    let out = world.run(&["drain", "kvm1", "kvm2", "--cancel"]).ok();
    assert_eq!(
        out,
        "kvm1: no longer drained\nkvm2: nothing to change, it is neither cordoned nor drained\n"
    );
    assert_eq!(log(&world)[1], r#"cancel ["kvm1", "kvm2"] dry=false"#);
    world
        .run(&["drain", "kvm1", "--cancel", "--deadline", "1h"])
        .fails(64, "--deadline");
}

#[test]
fn a_cordon_from_before_outlives_a_drain() {
    let world = World::new();
    world.run(&["cordon", "kvm1"]).ok();
    world.run(&["drain", "kvm1", "--detach"]).ok();
    let out = world.run(&["drain", "kvm1", "--cancel"]).ok();
    assert_eq!(out, "kvm1: no longer drained, cordoned as before\n");
}

#[test]
fn ctrl_c_detaches_from_a_drain_and_says_how_to_see_it_again() {
    let world = World::new();
    world.fake.state().hosts = kvm1("draining", 3, |_| {});
    let mut child = world.spawn(&["drain", "kvm1"]);
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    err.read_line(&mut said).unwrap();
    interrupt(child.id());
    err.read_to_string(&mut said).unwrap();
    assert!(
        said.contains("detached: the drain goes on; follow it again with `evenkeel drain kvm1`"),
        "{said}"
    );
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(log(&world).iter().all(|call| call.starts_with("drain")));
}

fn interrupt(pid: u32) {
    let sent = Command::new("kill")
        .args(["-INT", &pid.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

#[test]
fn a_dry_run_shows_who_goes_where_and_fails_when_somebody_cannot() {
    let world = World::new();
    let run = world.run(&["drain", "kvm1", "--dry-run"]);
    assert!(run.out.contains("kvm1 -> kvm2"), "{}", run.out);
    assert!(run.out.contains("Copying takes about"), "{}", run.out);
    let log = log(&world);
    assert!(log[0].ends_with("dry=true"), "{log:?}");
    assert_eq!(log[1], r#"drain plan ["kvm1"] false"#);
    run.fails(4, "cannot go: gpu0");
    world.fake.state().plan = fleet::PLAN.replace("gpu0", "elsewhere");
    world.run(&["drain", "kvm1", "--dry-run"]).ok();
}

#[test]
fn lists_and_status_show_how_drains_stand() {
    let world = World::new();
    let states = [
        (kvm1("draining", 3, |_| {}), "draining, 3 left"),
        (kvm1("stuck", 1, pinned), "draining, 1 stuck"),
        (kvm1("drained", 0, |_| {}), "drained"),
    ];
    for (hosts, state) in states {
        world.fake.state().hosts = hosts;
        let out = world.run(&["hosts"]).ok();
        assert!(out.contains(&format!("kvm1  {state}")), "{out}");
    }
    let mut away = kvm1("drained", 0, |_| {});
    away[0].state = "absent".into();
    world.fake.state().hosts = away;
    let out = world.run(&["hosts"]).ok();
    assert!(out.contains("kvm1  absent, drained"), "{out}");
    world.fake.state().hosts = kvm1("stuck", 1, pinned);
    let out = world.run(&["host", "show", "kvm1"]).ok();
    assert!(out.contains("drain by operator/alice"), "{out}");
    assert!(
        out.contains("gpu0 cannot go: unmovable: host device 3b:00.0"),
        "{out}"
    );
    world.fake.state().status.drains = vec!["kvm1: draining, 1 left".into()];
    world.fake.state().status.hosts_closed = Some(1);
    let out = world.run(&["status"]).ok();
    assert!(out.contains("drains     kvm1: draining, 1 left"), "{out}");
    assert!(out.contains("1 cordoned or draining"), "{out}");
}

/// Both hosts that answer are drained at once when that is asked for, and healthy when it is over.
fn obliging() -> Vec<v1::HostView> {
    let mut hosts = kvm1("drained", 0, |_| {});
    hosts[1].drain = hosts[0].drain.clone();
    for host in &mut hosts {
        host.report_age_ms = 0;
    }
    hosts
}

/// A world in which nothing is being drained at the first look, and all hosts are drained from then on.
fn rolling() -> World {
    let world = World::new();
    world.fake.state().next_hosts = [open(), obliging()].into();
    world
}

#[test]
fn a_roll_works_on_each_host_and_puts_it_back() {
    let world = rolling();
    world
        .fake
        .state()
        .next_hosts
        .extend([obliging(), obliging()]);
    let log_file = world.path("worked");
    let command = format!("echo $EVENKEEL_HOST >> {}; echo talk", log_file.display());
    // The hosts lose their drains when they are put back, so each has its own roll.
    for host in ["kvm1", "kvm2"] {
        world.fake.state().next_hosts = [open(), obliging(), obliging()].into();
        let run = world.run(&["roll", "--hosts", host, "--exec", &command]);
        assert_eq!(
            (run.code, run.out),
            (0, format!("{host}: done\n")),
            "{}",
            run.err
        );
        assert!(run.err.contains("talk"), "{}", run.err);
    }
    assert_eq!(std::fs::read_to_string(log_file).unwrap(), "kvm1\nkvm2\n");
    let log = log(&world);
    assert!(log[0].starts_with(r#"drain ["kvm1"] "roll""#), "{log:?}");
    assert_eq!(log[1], r#"cancel ["kvm1"] dry=false"#);
}

#[test]
fn a_roll_stops_at_the_first_failure_and_says_how_to_go_on() {
    let world = rolling();
    let run = world.run(&[
        "roll",
        "--hosts",
        "kvm1,kvm2",
        "--exec",
        "exit 3",
        "-o",
        "json",
    ]);
    let json: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(json["schema"], "evenkeel.roll/1");
    assert_eq!(json["failed"][0]["host"], "kvm1");
    assert_eq!(json["remaining"][0], "kvm2");
    let run = run.fails(1, "kvm1: the command ended with exit status: 3");
    for part in [
        "kvm1 is left closed: `evenkeel uncordon kvm1` puts it back",
        "not done: kvm2",
        "go on with: evenkeel roll --hosts kvm2 --max 1 --exec 'exit 3'",
    ] {
        assert!(run.err.contains(part), "{part}: {}", run.err);
    }
    assert!(
        log(&world).iter().all(|call| !call.starts_with("cancel")),
        "it stays closed"
    );
}

#[test]
fn a_roll_that_cannot_drain_a_host_puts_back_those_that_nothing_was_done_to() {
    let world = World::new();
    let mut hosts = kvm1("draining", 1, |d| d.overdue = true);
    hosts[1].drain = Some(v1::DrainView {
        state: "draining".into(),
        left: 1,
        ..Default::default()
    });
    world.fake.state().next_hosts = [open(), hosts].into();
    let run = world.run(&[
        "roll", "--hosts", "kvm1", "--hosts", "kvm2", "--max", "2", "--exec", "true",
    ]);
    let run = run.fails(1, "kvm1: kvm1: 1 guest left");
    assert!(
        run.err.contains("kvm2: its drain is cancelled"),
        "{}",
        run.err
    );
    assert_eq!(log(&world).last().unwrap(), r#"cancel ["kvm2"] dry=false"#);
}

#[test]
fn a_roll_kills_a_command_that_takes_too_long_with_all_it_has_started() {
    let world = rolling();
    let left = world.path("left");
    let command = format!("(sleep 6; touch {}) & sleep 60", left.display());
    let run = world.run(&[
        "roll",
        "--hosts",
        "kvm1",
        "--exec",
        &command,
        "--timeout",
        "2s",
    ]);
    run.fails(1, "the command took longer than 2 s");
    std::thread::sleep(std::time::Duration::from_secs(7));
    assert!(!left.exists(), "what it has started went with it");
}

#[test]
fn a_roll_waits_for_a_report_from_after_the_command() {
    let world = rolling();
    let stale =
        |hosts: &mut Vec<v1::HostView>| hosts.iter_mut().for_each(|h| h.report_age_ms = 60_000);
    let mut hosts = obliging();
    stale(&mut hosts);
    world.fake.state().next_hosts = [open(), hosts].into();
    let run = world.run(&[
        "roll",
        "--hosts",
        "kvm1",
        "--exec",
        "true",
        "--timeout",
        "3s",
    ]);
    run.fails(1, "it was not healthy within 3 s after the command");
}

#[test]
fn a_drain_from_before_a_roll_is_left_as_it_was() {
    let world = World::new();
    world.fake.state().hosts = obliging();
    world
        .run(&["roll", "--hosts", "kvm1", "--exec", "true"])
        .ok();
    assert!(log(&world).iter().all(|call| !call.starts_with("cancel")));
}

#[test]
fn a_roll_that_is_interrupted_says_how_each_host_is_left() {
    let world = rolling();
    let mut child = world.spawn(&["roll", "--hosts", "kvm1,kvm2", "--exec", "sleep 20"]);
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("running the command") {
        assert_ne!(err.read_line(&mut said).unwrap(), 0, "{said}");
    }
    interrupt(child.id());
    while !said.contains("interrupted") {
        assert_ne!(err.read_line(&mut said).unwrap(), 0, "{said}");
    }
    assert!(
        said.contains("the command for kvm1 goes on as process"),
        "{said}"
    );
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_dry_roll_names_its_hosts() {
    let world = World::new();
    let args = ["roll", "--hosts", "kvm?", "--exec", "true", "--dry-run"];
    let out = world.run(&args).ok();
    assert_eq!(
        out,
        "kvm1: would be rolled\nkvm2: would be rolled\nkvm3: would be rolled\n"
    );
    assert_eq!(log(&world), Vec::<String>::new());
}
