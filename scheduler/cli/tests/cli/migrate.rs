//! `migrate`: followed, detached, interrupted, refused, failed, on a terminal and off it.

use std::io::{BufRead, BufReader, Read};
use std::process::Command;

use evenkeel_proto::v1::{Migration, MigrationPhase};
use serde_json::json;

use crate::fleet::{RUNNING, ended, running};
use crate::world::{World, binary};

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn copied(percent: u64) -> Migration {
    running(RUNNING, percent, now_ms())
}

fn over(phase: MigrationPhase, reason: &str, whereabouts: &str) -> Migration {
    ended(RUNNING, phase, reason, whereabouts, now_ms())
}

fn done() -> Migration {
    over(MigrationPhase::Done, "", "")
}

fn unknown() -> Migration {
    let mut migration = copied(100);
    migration
        .state
        .as_mut()
        .unwrap()
        .set_phase(MigrationPhase::Unknown);
    migration
}

#[test]
fn it_is_followed_in_lines_off_a_terminal() {
    let world = World::new();
    world.fake.state().watched = vec![vec![copied(3), copied(12), copied(62), done()]];
    let run = world.run(&["migrate", "db1", "--to", "kvm2", "--reason", "try it"]);
    assert_eq!(
        run.out,
        "db1 runs on kvm2: 4.0 GiB copied, in 21 s, paused for 140 ms\n"
    );
    assert_eq!(
        run.err,
        "db1: ordered\n\
         db1: running, 3% copied, 3.9 GiB left, 320.0 MiB/s, ~13 s\n\
         db1: running, 62% copied, 1.5 GiB left, 320.0 MiB/s, ~5 s\n"
    );
    let log = world.fake.state().log.clone();
    assert_eq!(log, ["migrate db1 \"kvm2\" \"try it\" override=false"]);
    assert_eq!(run.code, 0);
}

#[test]
fn kind_and_disks_of_the_move_are_said() {
    for (words, said) in [
        (&["--offline"][..], " offline"),
        (&["--copy-storage"], " Whole"),
        (&["--copy-storage=whole"], " Whole"),
        (&["--offline", "--copy-storage=inc"], " offline Incremental"),
    ] {
        let world = World::new();
        let run = world.run(&[&["migrate", "db1", "--detach"], words].concat());
        assert_eq!(run.code, 0, "{run:?}");
        let log = world.fake.state().log.clone();
        assert_eq!(log, [format!("migrate db1 \"\" \"\" override=false{said}")]);
    }
    let world = World::new();
    world
        .run(&["migrate", "db1", "--copy-storage=half"])
        .fails(64, "whole, inc");
}

#[test]
fn its_end_is_a_document_too() {
    let world = World::new();
    world.fake.state().watched = vec![vec![done()]];
    let json = world
        .run(&["migrate", "db1", "-o", "json"])
        .json("evenkeel.migration/1");
    assert_eq!(json["migration"]["phase"], "done");
    assert_eq!(json["migration"]["progress"]["downtime_ms"], 140);
    world.fake.state().watched = vec![vec![done()]];
    assert_eq!(
        world.run(&["migrate", "db1", "-o", "name"]).ok(),
        format!("{RUNNING}\n")
    );
    world.fake.state().watched = vec![vec![over(MigrationPhase::Refused, "no_memory", "")]];
    let run = world
        .run(&["migrate", "db1", "-o", "json"])
        .fails(4, "no memory");
    assert_eq!(
        run.json("evenkeel.migration/1")["migration"]["outcome_reason"],
        "no_memory"
    );
}

#[test]
fn an_end_elsewhere_fails_and_says_where_the_guest_is() {
    let world = World::new();
    let cases = [
        (
            MigrationPhase::Refused,
            "no_memory",
            "",
            4,
            "db1 was not moved: no memory; it stays on kvm1",
        ),
        (
            MigrationPhase::Cancelled,
            "",
            "",
            1,
            "was cancelled: operation aborted: migration out job; it stays on kvm1",
        ),
        (
            MigrationPhase::Failed,
            "deadline",
            "source",
            1,
            "failed: deadline: operation aborted: migration out job; it stays on kvm1",
        ),
        (
            MigrationPhase::Failed,
            "guest_died",
            "nowhere",
            1,
            "it runs on neither kvm1 nor kvm2",
        ),
        (
            MigrationPhase::Failed,
            "libvirt",
            "both",
            1,
            "IT RUNS ON BOTH kvm1 AND kvm2",
        ),
    ];
    for (phase, reason, whereabouts, code, message) in cases {
        world.fake.state().watched = vec![vec![copied(5), over(phase, reason, whereabouts)]];
        let run = world.run(&["migrate", "db1"]).fails(code, message);
        assert_eq!(run.out, "");
    }
}

#[test]
fn a_broken_stream_is_taken_up_again() {
    let world = World::new();
    let other = world.another(&world.fake, &["127.0.0.1"]);
    world.configure(&[&format!("https://127.0.0.1:{}", world.port), &other]);
    world.fake.state().watched = vec![vec![copied(10)], vec![], vec![copied(60), done()]];
    let run = world.run(&["migrate", "db1"]);
    assert!(run.err.contains("running, 60% copied"), "{run:?}");
    assert!(run.ok().starts_with("db1 runs on kvm2"));
}

#[test]
fn a_stream_that_stands_still_is_left_for_another_replica() {
    let world = World::new();
    let other = world.another(&world.fake, &["127.0.0.1"]);
    world.configure(&[&format!("https://127.0.0.1:{}", world.port), &other]);
    {
        let mut state = world.fake.state();
        state.watched = vec![vec![copied(10)], vec![copied(60), done()]];
        state.hold_open = true;
    }
    world.run(&["migrate", "db1"]).ok();
}

#[test]
fn a_replica_that_has_not_seen_the_order_yet_is_asked_again() {
    let world = World::new();
    world.fake.refuse(
        "watch_migration",
        tonic::Code::NotFound,
        "no migration 7f3a0c11",
    );
    let fake = world.fake.clone();
    let mend = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(1500));
        let mut state = fake.state();
        state.watched = vec![vec![done()]];
        state.refuse.clear();
    });
    world.run(&["migrate", "db1"]).ok();
    mend.join().unwrap();
}

#[test]
fn a_dry_run_and_a_detached_one_do_not_wait() {
    let world = World::new();
    let expected = "db1: kvm1 -> kvm2, 6.1 GiB in ~21 s, pause 120 ms, saves 410 s/h, costs 0.9 s";
    let dry = world.run(&["migrate", "db1", "--dry-run"]).ok();
    assert_eq!(dry, format!("would move {expected}\n"));
    let json = world.run(&["migrate", "db1", "--dry-run", "-o", "json"]);
    let json = json.json("evenkeel.migration_change/1");
    assert_eq!(
        (&json["migration"]["id"], &json["dry_run"]),
        (&json!(null), &json!(true))
    );
    let out = world
        .run(&["migrate", "db1", "--detach", "--override-pause"])
        .ok();
    assert!(
        out.starts_with(&format!("ordered {expected}; follow it with ")),
        "{out}"
    );
    assert!(
        world
            .fake
            .state()
            .log
            .last()
            .unwrap()
            .ends_with("override=true")
    );
    assert_eq!(
        world
            .run(&["migrate", "db1", "--detach", "-o", "name"])
            .ok(),
        format!("{RUNNING}\n")
    );
}

#[test]
fn ctrl_c_detaches_and_never_cancels() {
    let world = World::new();
    {
        let mut state = world.fake.state();
        state.watched = vec![vec![copied(10)]];
        state.hold_open = true;
    }
    let mut child = world.spawn(&["migrate", "db1"]);
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("10% copied") {
        assert_ne!(err.read_line(&mut said).unwrap(), 0, "{said}");
    }
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    err.read_to_string(&mut said).unwrap();
    assert!(
        said.contains("detached: the migration of db1 goes on"),
        "{said}"
    );
    assert!(said.contains("`evenkeel cancel 7f3a0c11`"), "{said}");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(
        !world
            .fake
            .state()
            .log
            .iter()
            .any(|call| call.starts_with("cancel"))
    );
}

#[test]
fn an_unknown_outcome_is_said_and_may_still_settle() {
    let world = World::new();
    world.fake.state().watched = vec![vec![copied(90), unknown(), done()]];
    let run = world.run(&["migrate", "db1"]);
    assert!(
        run.err.contains("db1: unknown, asking both hosts"),
        "{run:?}"
    );
    assert_eq!(run.code, 0);
}

/// util-linux's `script` gives the binary a terminal.
fn on_a_terminal(world: &World, args: &str) -> String {
    let line = format!("{} {args}", binary().display());
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]);
    command
        .env("EVENKEEL_CONFIG", world.path("evenkeel.toml"))
        .env("TERM", "xterm");
    command
        .env_remove("NO_COLOR")
        .stdin(std::process::Stdio::null());
    let output = command.output().expect("script(1) of util-linux");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_terminal_gets_a_bar_and_colours_unless_told_otherwise() {
    let world = World::new();
    let again =
        || world.fake.state().watched = vec![vec![copied(10), copied(62), copied(80), done()]];
    again();
    let seen = on_a_terminal(&world, "migrate db1");
    assert!(seen.contains("db1 kvm1 -> kvm2 [==="), "{seen:?}");
    assert!(seen.contains("db1 runs on kvm2"), "{seen:?}");
    assert!(!seen.contains("db1: running"), "{seen:?}");
    assert!(on_a_terminal(&world, "hosts").contains("\u{1b}[1;31mabsent"));
    assert!(!on_a_terminal(&world, "hosts --no-color").contains('\u{1b}'));
    assert!(!world.run(&["hosts"]).ok().contains('\u{1b}'));
}

#[test]
fn schedulers_that_tell_nothing_are_not_waited_for_forever() {
    let world = World::new();
    let started = std::time::Instant::now();
    world
        .run(&["migrate", "db1"])
        .fails(6, "lost sight of the migration of db1, which goes on");
    assert!(
        started.elapsed() > std::time::Duration::from_secs(15),
        "a new leader takes 10 s"
    );
}
