//! etcd goes away for 20 s: nothing new moves, nobody crashes, what runs completes, all go on.

use std::time::Duration;

use evenkeel_tests::network::Caller;
use evenkeel_tests::{Lab, LabOptions, tell, until};

use crate::{END, SOON, assert_carried_out_once, assert_done_once, begin_slow_migration};

/// How long etcd is away.
const OUTAGE: Duration = Duration::from_secs(20);

#[test]
fn a_frozen_etcd_stops_new_moves_only() {
    outage("stop", "cont");
}

#[test]
fn a_killed_etcd_stops_new_moves_only() {
    outage("kill", "start");
}

fn outage(begin: &str, end: &str) {
    let lab = Lab::up(&LabOptions::default());
    lab.add_guest("h1", "idle", &[]);
    let order = begin_slow_migration(&lab, "g", "h1", "h2");
    let daemons = lab.daemons();
    assert!(daemons.iter().all(|(_, pid)| pid.is_some()), "{daemons:?}");

    lab.fault(&["etcd", begin]);
    let begun = std::time::Instant::now();
    lab.full_speed("h1");
    for scheduler in ["s1", "s2", "s3"] {
        let asked = lab.migrate(Caller::Operator, scheduler, "idle", "h2");
        assert!(asked.is_err(), "{scheduler} ordered without etcd");
    }
    // The copy is libvirt's, and goes on.
    until("the running migration to complete", SOON, || {
        lab.running_on("g") == ["h2"]
    });
    std::thread::sleep(OUTAGE.saturating_sub(begun.elapsed()));
    assert_eq!(lab.running_on("idle"), ["h1"], "moved without etcd");
    assert_eq!(lab.daemons(), daemons, "a daemon has crashed");

    lab.fault(&["etcd", end]);
    let gone = begun.elapsed();
    let back = until("the leader to see both hosts again", SOON, || {
        let leader = lab.leader();
        let status = leader.and_then(|leader| lab.status(&leader));
        status.is_some_and(|s| s.etcd_reachable && s.hosts_active == 2)
    });
    tell!(
        "after etcd was gone ({begin}) for {:.0} s, all was well again in {:.1} s",
        gone.as_secs_f64(),
        back.as_secs_f64()
    );
    let migration = lab.wait_for_end(&order.id, END);
    assert_done_once(&lab, &migration, "g");
    assert_eq!(lab.daemons(), daemons, "a daemon has crashed");
    new_ones_move(&lab);
}

fn new_ones_move(lab: &Lab) {
    lab.wait_for_guest("idle");
    // What was asked for while etcd was frozen may have lain in its socket, and stand after all. Its epoch is over.
    let uuid = lab.uuid("idle");
    until("no order of the outage to be left", SOON, || {
        lab.orders().iter().all(|left| left.guest_uuid != uuid)
    });
    assert_eq!(lab.journal_ever("h1", &uuid), [], "one was taken up");
    let leader = lab.some_leader();
    let order = lab
        .migrate(Caller::Operator, &leader, "idle", "h2")
        .unwrap();
    let migration = lab.wait_for_end(&order.id, END);
    assert_carried_out_once(lab, &migration, "idle");
}
