//! etcd goes away for 20 s: nothing new moves, nobody crashes, what runs completes, all go on.

use std::time::Duration;

use evenkeel_tests::network::Caller;
use evenkeel_tests::{Lab, LabOptions, tell, until};

use crate::{END, assert_done_once, begin_slow_migration};

/// How long etcd is away.
const OUTAGE: Duration = Duration::from_secs(20);
/// All work again this long after etcd came back.
const RECOVERY: Duration = Duration::from_secs(30);

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
    until("the running migration to complete", OUTAGE, || {
        lab.running_on("g") == ["h2"]
    });
    std::thread::sleep(OUTAGE.saturating_sub(begun.elapsed()));
    assert_eq!(lab.running_on("idle"), ["h1"], "moved without etcd");
    assert_eq!(lab.daemons(), daemons, "a daemon has crashed");

    lab.fault(&["etcd", end]);
    let back = until("the leader to see both hosts again", RECOVERY, || {
        let leader = lab.leader();
        let status = leader.and_then(|leader| lab.status(&leader));
        status.is_some_and(|s| s.etcd_reachable && s.hosts_active == 2)
    });
    tell!(
        "after etcd was gone ({begin}) for {} s, all was well again in {:.1} s",
        OUTAGE.as_secs(),
        back.as_secs_f64()
    );
    let migration = lab.wait_for_end(&order.id, END);
    assert_done_once(&lab, &migration, "g");
    assert_eq!(lab.daemons(), daemons, "a daemon has crashed");
    // And new ones move.
    lab.wait_for_guest("idle");
    let leader = lab.some_leader();
    let order = lab
        .migrate(Caller::Operator, &leader, "idle", "h2")
        .unwrap();
    let migration = lab.wait_for_end(&order.id, END);
    assert_done_once(&lab, &migration, "idle");
}
