//! Hosts are taken out of service and put back: drained by libvirt's own word, whatever becomes of the leader.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_proto::v1;
use evenkeel_tests::network::Caller;
use evenkeel_tests::schedulers::{answer, ask};
use evenkeel_tests::{Lab, LabOptions, tell, until, wait_for};

use crate::{END, QUICK_POLICY, SOON, ends_with, is_copying};

/// A drain of a dozen small guests, also on a busy machine.
const DOZEN: Duration = Duration::from_secs(300);

/// A host as the schedulers see it.
fn host(lab: &Lab, name: &str) -> v1::HostView {
    wait_for(&format!("a scheduler to know {name}"), SOON, || {
        let scheduler = lab.leader()?;
        lab.inside(|| async {
            let mut client = lab.scheduler(Caller::Operator, &scheduler);
            let request = v1::ListHostsRequest {
                names: vec![name.to_owned()],
            };
            let reply = answer(client.list_hosts(ask(request))).await.ok()?;
            reply.hosts.into_iter().next()
        })
    })
}

/// Guests that libvirt has on a host, whatever their state.
fn defined_on(lab: &Lab, host: &str) -> Vec<String> {
    let listed = lab.run(&["virsh", host, "list", "--all", "--name"]);
    listed.split_whitespace().map(str::to_owned).collect()
}

/// How often each guest was moved. What a leader had ordered when it died, and no agent had taken up, is withdrawn and
/// ordered again; nothing else may have come to nothing.
fn moved(lab: &Lab) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for migration in lab.migrations() {
        let state = migration.state.clone().unwrap_or_default();
        let withdrawn =
            state.phase() == v1::MigrationPhase::Refused && state.reason == "stale_epoch";
        if !withdrawn {
            assert_eq!(state.phase(), v1::MigrationPhase::Done, "{migration:?}");
            let order = migration.order.unwrap_or_default();
            *count.entry(order.guest_name).or_default() += 1;
        }
    }
    count
}

#[test]
fn a_fleet_that_is_only_observed_is_drained_and_put_back() {
    let lab = Lab::up(&LabOptions::default());
    for name in ["a", "b"] {
        lab.add_guest("h1", name, &[]);
    }
    lab.run(&["guest", "add", "h1", "off", "--no-start"]);
    lab.wait_for_guest("b");
    assert_eq!(lab.status_of(&lab.some_leader()).mode, "observe");

    let plan = ends_with(&lab, 0, &["drain", "h1", "--dry-run"]);
    assert!(plan.contains("h1 -> h2"), "{plan}");
    assert_eq!(lab.orders_ever(), [], "a dry run moves nothing");
    let said = ends_with(&lab, 0, &["drain", "h1", "--reason", "new fan"]);
    assert!(said.contains("h1 is drained"), "{said}");
    for name in ["a", "b"] {
        lab.assert_lives_on(name, "h2");
    }
    assert_eq!(defined_on(&lab, "h1"), ["off"], "nobody asked to move it");
    let triggers: Vec<String> = lab.orders_ever().into_iter().map(|o| o.trigger).collect();
    assert_eq!(triggers, ["drain", "drain"]);
    let drain = host(&lab, "h1").drain.expect("a drain");
    assert_eq!((drain.state.as_str(), drain.shut_off_stay), ("drained", 1));

    // A guest that comes back by other hands takes the word back.
    lab.run(&["virsh", "h1", "start", "off"]);
    until("the drain to see it", SOON, || {
        let drain = host(&lab, "h1").drain.unwrap_or_default();
        drain.left + drain.moving > 0 || lab.running_on("off") == ["h2"]
    });
    ends_with(&lab, 0, &["drain", "h1"]);
    lab.assert_lives_on("off", "h2");

    ends_with(&lab, 0, &["uncordon", "h1"]);
    until("the host to be open", SOON, || {
        host(&lab, "h1").state == "active"
    });
    let why = lab.run(&["evenkeel", "explain", "guest", "a", "-o", "wide"]);
    assert!(!why.contains("left h1 lately"), "it may come back: {why}");
}

#[test]
fn a_drain_is_cancelled_and_the_host_is_what_it_was() {
    let lab = Lab::up(&LabOptions::default());
    ends_with(&lab, 0, &["cordon", "h1", "--reason", "noise"]);
    lab.add_guest("h1", "second", &[]);
    lab.add_slow_guest("h1", "first"); // the larger one goes first
    lab.wait_for_guest("first");
    lab.apply_policy("schema = 1\n[limits]\nmigrations_per_host = 1\n", 0)
        .expect("a policy");
    ends_with(&lab, 0, &["drain", "h1", "--detach"]);
    until("memory to be copied", SOON, || {
        is_copying(&lab, "h1", "first")
    });
    let said = ends_with(&lab, 0, &["drain", "h1", "--cancel"]);
    assert!(said.contains("cordoned as before"), "{said}");
    lab.full_speed("h1");
    until("the running migration to end", END, || {
        lab.orders().is_empty()
    });
    lab.assert_lives_on("first", "h2");
    assert_eq!(host(&lab, "h1").state, "cordoned");
    let nothing_more = moved(&lab);
    assert_eq!(nothing_more, [("first".to_owned(), 1)].into());
    lab.assert_lives_on("second", "h1");
}

/// Twelve guests on h1: seven that run, two more with a local disk, two that are shut off, one of them with a local
/// disk, and one that a rule holds there.
fn add_a_dozen(lab: &Lab) -> Vec<String> {
    let mut movers = vec![];
    for n in 1..=7 {
        movers.push((format!("run{n}"), vec![]));
    }
    for n in 1..=2 {
        movers.push((format!("disk{n}"), vec!["--disk", "local", "--size", "16"]));
    }
    movers.push(("off1".to_owned(), vec!["--no-start"]));
    let off_disk = vec!["--no-start", "--disk", "local", "--size", "16"];
    movers.push(("off2".to_owned(), off_disk));
    for (name, options) in &movers {
        if options.contains(&"--no-start") {
            lab.run(&[&["guest", "add", "h1", name], &options[..]].concat());
        } else {
            lab.add_guest("h1", name, options);
        }
    }
    lab.add_guest("h1", "pinned", &[]);
    until("the leader to know all", SOON, || {
        lab.guest_views(&lab.some_leader()).len() == 12
    });
    movers.into_iter().map(|(name, _)| name).collect()
}

#[test]
fn of_twelve_guests_eleven_leave_and_one_is_named_whoever_leads() {
    let lab = Lab::up(&LabOptions {
        cpu_percent: 80,
        ..LabOptions::default()
    });
    let movers = add_a_dozen(&lab);
    let rules = "[migration]\nlocal_disks = \"copy\"\n\
                 [pin.licence]\nguests = [\"pinned\"]\nhosts = [\"h1\"]\nstrength = \"must\"\n";
    lab.apply_policy(&format!("{QUICK_POLICY}\n{rules}"), 0)
        .expect("a policy");
    let foreseen = ends_with(&lab, 4, &["drain", "h1", "--offline-too", "--dry-run"]);
    assert!(foreseen.contains("cannot go: pinned"), "{foreseen}");

    let began = std::time::Instant::now();
    ends_with(&lab, 0, &["drain", "h1", "--offline-too", "--detach"]);
    until("the first to have left", SOON, || {
        lab.migrations().iter().any(|m| m.ended_at_ms > 0)
    });
    let leader = lab.some_leader();
    lab.fault(&["scheduler", &leader, "kill"]);
    until("a standby to lead", SOON, || {
        lab.leader().is_some_and(|l| l != leader)
    });
    let said = ends_with(&lab, 4, &["drain", "h1", "--offline-too"]);
    tell!(
        "eleven guests left in {:.0} s",
        began.elapsed().as_secs_f64()
    );
    assert!(
        said.contains("1 guest left; pinned cannot go: pinned"),
        "{said}"
    );
    assert!(began.elapsed() < DOZEN);

    assert_eq!(defined_on(&lab, "h1"), ["pinned"]);
    let mut there = defined_on(&lab, "h2");
    there.sort();
    let mut expected = movers.clone();
    expected.sort();
    assert_eq!(there, expected);
    let once: BTreeMap<String, usize> = movers.iter().map(|name| (name.clone(), 1)).collect();
    assert_eq!(moved(&lab), once, "a killed leader changes nothing");
    for name in movers.iter().filter(|name| !name.starts_with("off")) {
        lab.assert_lives_on(name, "h2");
    }
    lab.assert_lives_on("pinned", "h1");
    let drain = host(&lab, "h1").drain.expect("a drain");
    assert_eq!((drain.state.as_str(), drain.left), ("stuck", 1));
    let why = lab.run(&["evenkeel", "explain", "host", "h1"]);
    assert!(why.contains("licence"), "{why}");
    let why = lab.run(&["evenkeel", "explain", "guest", "pinned"]);
    assert!(why.contains("licence"), "{why}");
    let late = ends_with(&lab, 5, &["drain", "h1", "--deadline", "1s"]);
    assert!(late.contains("pinned cannot go"), "{late}");
}

#[test]
fn a_roll_works_on_one_host_after_the_other_and_stops_where_it_fails() {
    let lab = Lab::up(&LabOptions::default());
    lab.add_guest("h1", "a", &[]);
    lab.add_guest("h2", "b", &[]);
    lab.wait_for_guest("b");
    // What is to be done with a host: that no guest runs there is what a roll is for.
    let work = lab.path(std::path::Path::new("worked"));
    let note = format!("echo $EVENKEEL_HOST >> {}", work.display());
    let said = ends_with(&lab, 0, &["roll", "--hosts", "h*", "--exec", &note]);
    assert!(
        said.contains("h1: done") && said.contains("h2: done"),
        "{said}"
    );
    assert_eq!(lab.text("worked"), "h1\nh2\n");
    for name in ["h1", "h2"] {
        assert_eq!(host(&lab, name).state, "active", "{name}");
    }
    for name in ["a", "b"] {
        lab.assert_lives_on(name, "h1"); // both went to h2, and then away from it
    }

    let said = ends_with(
        &lab,
        1,
        &[
            "roll",
            "--hosts",
            "h*",
            "--exec",
            "test $EVENKEEL_HOST != h1",
        ],
    );
    assert!(
        said.contains("h1: the command ended with exit status: 1"),
        "{said}"
    );
    assert!(said.contains("not done: h2"), "{said}");
    let left = host(&lab, "h1");
    assert_eq!(left.state, "draining");
    assert_eq!(left.drain.unwrap_or_default().state, "drained");
    assert_eq!(host(&lab, "h2").state, "active");
    ends_with(&lab, 0, &["uncordon", "h1"]);
}
