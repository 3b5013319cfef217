//! Every exit code, from the situation that leads to it.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use tonic::Code;

use crate::fake::Fake;
use crate::world::{World, binary, run_in};

#[test]
fn answers_of_the_scheduler_become_exit_codes() {
    let world = World::new();
    let cases = [
        (Code::Internal, 1),
        (Code::NotFound, 1),
        (Code::Aborted, 3),
        (Code::FailedPrecondition, 4),
        (Code::DeadlineExceeded, 5),
        (Code::Unavailable, 6),
        (Code::InvalidArgument, 64),
        (Code::PermissionDenied, 77),
    ];
    for (code, exit) in cases {
        world.fake.refuse("migrate", code, "the reason given");
        world
            .run(&["migrate", "db1"])
            .fails(exit, "the reason given");
        world.fake.refuse("list_hosts", code, "the reason given");
        world.run(&["hosts"]).fails(exit, "the reason given");
    }
}

#[test]
fn wrong_usage_is_64_and_help_is_not() {
    let world = World::new();
    for args in [
        &["frobnicate"][..],
        &["hosts", "--sort", "colour"],
        &["mode", "fast"],
        &[],
        &["hosts", "-l", "rack"],
        &["plan", "--max-moves", "0"],
        &["hosts", "--policy", "x"],
        &["mode", "--reason", " "],
    ] {
        assert_eq!(world.run(args).code, 64, "{args:?}");
    }
    assert!(world.run(&["--help"]).ok().contains("Usage: evenkeel"));
    assert!(
        world
            .run(&["plan", "--help"])
            .ok()
            .contains("--detailed-exitcode")
    );
    assert!(world.run(&["--version"]).ok().starts_with("evenkeel "));
}

#[test]
fn a_typing_error_gets_a_suggestion() {
    let world = World::new();
    world.run(&["hots"]).fails(64, "hosts");
}

#[test]
fn a_viewer_may_not_change_anything() {
    let world = World::new();
    world.become_("viewer/grafana");
    world
        .run(&["mode", "off"])
        .fails(77, "not permitted: viewer/grafana may not set_mode");
}

#[test]
fn a_certificate_of_another_authority_is_not_permitted() {
    let world = World::new();
    world.become_a_stranger();
    world
        .run(&["status"])
        .fails(77, "does not accept our certificate");
}

#[test]
fn a_scheduler_that_is_not_trusted_is_not_believed() {
    let world = World::new();
    world.trust_somebody_else();
    world.run(&["status"]).fails(6, "invalid peer certificate");
}

#[test]
fn the_certificate_must_be_for_the_address_or_for_the_name_given() {
    let world = World::new();
    let address = world.another(&Fake::recorded(), &["s3.example"]);
    world.configure(&[&address]);
    world
        .run(&["status"])
        .fails(6, "certificate not valid for name \"127.0.0.1\"");
    let text = std::fs::read_to_string(world.path("evenkeel.toml")).unwrap();
    world.file(
        "evenkeel.toml",
        &format!("server_names = [\"s3.example\"]\n{text}"),
    );
    world.run(&["status"]).ok();
    world.run(&["status", "--scheduler", &address]).ok();
}

#[test]
fn nobody_there_is_6() {
    let world = World::new();
    world.configure(&["https://127.0.0.1:1", "https://127.0.0.1:2"]);
    let run = world.run(&["status"]).fails(6, "no scheduler answers: ");
    assert!(
        run.err.contains("127.0.0.1:1: Connection refused"),
        "{run:?}"
    );
    assert!(
        run.err.contains("127.0.0.1:2: Connection refused"),
        "{run:?}"
    );
}

#[test]
fn nobody_leading_is_6_for_changes_and_no_hindrance_for_reads() {
    let world = World::new();
    world.fake.state().status.leader.clear();
    world
        .run(&["mode", "off"])
        .fails(6, "s2 knows of no leader");
    assert!(
        world
            .run(&["status"])
            .ok()
            .contains("!! no scheduler leads")
    );
    world.run(&["hosts"]).ok();
}

#[test]
fn a_replica_that_does_not_reach_etcd_is_given_no_change() {
    let world = World::new();
    world.fake.state().status.etcd_reachable = false;
    world
        .run(&["mode", "off"])
        .fails(6, "s2 does not reach etcd");
    assert!(world.fake.state().log.is_empty());
    let other = world.another(&Fake::recorded(), &["127.0.0.1"]);
    world.configure(&[&format!("https://127.0.0.1:{}", world.port), &other]);
    world.run(&["mode", "off"]).ok();
}

#[test]
fn the_next_replica_answers_when_one_is_gone_or_frozen() {
    let world = World::new();
    // Accepts connections (in the backlog) and never says a word.
    let frozen = TcpListener::bind("127.0.0.1:0").unwrap();
    let frozen = format!("https://{}", frozen.local_addr().unwrap());
    let good = format!("https://127.0.0.1:{}", world.port);
    world.configure(&["https://127.0.0.1:1", &good]);
    for _ in 0..4 {
        world.run(&["status"]).ok();
        world.run(&["mode", "observe"]).ok();
    }
    world.configure(&[&frozen, &good]);
    for _ in 0..3 {
        world.run(&["status"]).ok();
    }
}

#[test]
fn a_change_whose_answer_is_late_is_not_sent_again() {
    let world = World::new();
    let other = world.another(&world.fake, &["127.0.0.1"]);
    world.configure(&[&format!("https://127.0.0.1:{}", world.port), &other]);
    world.fake.state().hang.push("set_mode");
    world
        .run(&["mode", "off"])
        .fails(5, "may or may not have been made");
    let calls = world.fake.state().calls.get("set_mode").copied();
    assert_eq!(calls, Some(1), "it was sent to the other one, too");
}

#[test]
fn a_change_of_unknown_outcome_is_said_to_be_one() {
    let world = World::new();
    for code in [Code::DeadlineExceeded, Code::Cancelled] {
        world.fake.refuse("set_mode", code, "etcd did not answer");
        world
            .run(&["mode", "off"])
            .fails(5, "may or may not have been made")
            .fails(5, "etcd did not answer");
    }
}

#[test]
fn one_scheduler_can_be_picked() {
    let world = World::new();
    world.configure(&["https://127.0.0.1:1"]);
    let address = format!("127.0.0.1:{}", world.port);
    world.run(&["status", "--scheduler", &address]).ok();
    world
        .run(&["status", "--scheduler", "http://x"])
        .fails(64, "expected https://HOST:PORT");
}

#[test]
fn a_wrong_configuration_is_78_with_its_place() {
    let world = World::new();
    let broken = world.file(
        "evenkeel.toml",
        "schedulers = [\"s1\"]\n[tsl]\nca = \"x\"\n",
    );
    let run = world
        .run(&["status"])
        .fails(78, ":2:2: unknown key \"tsl\": did you mean \"tls\"?");
    assert!(
        run.err.contains(&format!("{}:2:2", broken.display())),
        "{run:?}"
    );
    std::fs::remove_file(&broken).unwrap();
    world.run(&["status"]).fails(78, "cannot read");
    if !std::path::Path::new("/etc/evenkeel/evenkeel.toml").exists() {
        run_in(world.folder.path(), None, &["status"]).fails(78, ".config/evenkeel.toml or /etc");
    }
}

#[test]
fn missing_or_broken_certificates_are_78() {
    let world = World::new();
    world.file("me.pem", "not a certificate");
    world.run(&["status"]).fails(78, "cannot be used");
    std::fs::remove_file(world.path("me.key")).unwrap();
    world.run(&["status"]).fails(78, "me.key");
}

#[test]
fn answers_that_are_no_documents_are_an_error() {
    let world = World::new();
    world.fake.state().plan = "{}".into();
    world.run(&["plan"]).fails(1, "no evenkeel.plan/1 document");
    world.fake.state().plan =
        r#"{"schema":"evenkeel.plan/9","loss_before":0,"loss_after":0,"steps":[]}"#.into();
    world.run(&["plan"]).fails(1, "evenkeel.plan/9");
}

#[test]
fn a_file_that_cannot_be_written_or_read_is_1() {
    let world = World::new();
    world
        .run(&["plan", "--out", "/nowhere/plan.json"])
        .fails(1, "cannot write /nowhere/plan.json");
    world
        .run(&["plan", "show", "/nowhere/plan.json"])
        .fails(1, "cannot read");
    world
        .run(&["policy", "check", "/nowhere/p.toml"])
        .fails(1, "cannot read /nowhere/p.toml");
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let world = World::new();
    for args in [
        &["guests"][..],
        &["guests", "--watch"],
        &["snapshot"],
        &["plan"],
    ] {
        let (read_end, write_end) = std::io::pipe().unwrap();
        drop(read_end);
        let mut command = Command::new(binary());
        command
            .env("EVENKEEL_CONFIG", world.path("evenkeel.toml"))
            .args(args);
        let child = command
            .stdout(write_end)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(
            output.stderr.is_empty(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
