use evenkeel_proto::v1;
use evenkeel_types::lifecycle::CopyFacts;

use super::*;
use crate::core::tests::{reading, report};
use crate::observe::JournalEntry;
use crate::observe::samples::order_entry;

/// The guest of [`order_entry`].
const GUEST: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

fn fleet(guests: &[(&str, GuestReading)]) -> Fleet {
    let mut fleet = Fleet::default();
    for (host, guest) in guests {
        let name: HostName = host.parse().unwrap();
        let told = fleet.reports.entry(name).or_insert_with(|| report(vec![]));
        told.guests.push(guest.clone());
    }
    fleet
}

fn arrivals(at_ms: &[(&str, i64)]) -> BTreeMap<HostName, Arrival> {
    let arrival = |at_ms| Arrival {
        at_ms,
        sequence: 1,
        measured_at_ms: at_ms,
    };
    let all = at_ms.iter();
    all.map(|(host, at)| (host.parse().unwrap(), arrival(*at)))
        .collect()
}

fn guest(edit: impl FnOnce(&mut GuestReading)) -> GuestReading {
    let mut guest = reading(1, 0.1, 0.0);
    guest.id = GUEST.parse().unwrap();
    edit(&mut guest);
    guest
}

fn told(watch: &mut Watch, fleet: &Fleet, at: &[(&str, i64)], now_ms: i64) -> Vec<String> {
    let certain = watch.look(fleet, &arrivals(at), now_ms);
    certain.iter().map(ToString::to_string).collect()
}

#[test]
fn a_guest_on_two_hosts_is_certain_once_both_have_said_so_again() {
    let both = fleet(&[("h1", guest(|_| {})), ("h2", guest(|_| {}))]);
    let mut watch = Watch::default();
    assert_eq!(
        told(&mut watch, &both, &[("h1", 90), ("h2", 100)], 100),
        [""; 0]
    );
    assert_eq!(
        told(&mut watch, &both, &[("h1", 90), ("h2", 110)], 110),
        [""; 0]
    );
    let words = told(&mut watch, &both, &[("h1", 120), ("h2", 110)], 120);
    assert!(words[0].starts_with("g1 runs on h1 and h2"), "{words:?}");
    let moved = fleet(&[
        ("h1", guest(|g| g.state = RunState::ShutOff)),
        ("h2", guest(|_| {})),
    ]);
    assert_eq!(
        told(&mut watch, &moved, &[("h1", 130), ("h2", 130)], 130),
        [""; 0]
    );
    // It begins anew.
    assert_eq!(
        told(&mut watch, &both, &[("h1", 130), ("h2", 130)], 140),
        [""; 0]
    );
}

#[test]
fn a_journal_that_knows_it_is_believed_at_once() {
    let mut both = fleet(&[("h1", guest(|_| {})), ("h2", guest(|_| {}))]);
    let order = order_entry(5, |_| {}).order;
    let facts = CopyFacts::default();
    let last = Whereabouts::Both;
    let journal = JournalEntry {
        state: MigrationState::Unknown { facts, last },
        message: v1::Journal::default(),
        mod_revision: 4,
        order: order.clone(),
    };
    both.journals
        .insert((order.source.clone(), order.guest), journal);
    let words = told(&mut Watch::default(), &both, &[("h1", 1), ("h2", 1)], 100);
    assert_eq!(words.len(), 1);
}

#[test]
fn halves_and_guests_that_are_handed_over_are_no_doubles() {
    let handing = guest(|g| {
        g.state = RunState::Paused;
        g.migrating_out = true;
    });
    let incoming = guest(|g| g.state = RunState::Incoming);
    for (here, there) in [
        (guest(|_| {}), incoming),
        (handing, guest(|_| {})),
        (guest(|g| g.state = RunState::ShutOff), guest(|_| {})),
    ] {
        let mut seen = fleet(&[("h1", here), ("h2", there)]);
        let entry = order_entry(5, |_| {});
        seen.orders.insert(entry.order.guest.clone(), entry);
        assert!(sights(&seen).is_empty());
        assert!(involved(&seen).in_double.is_empty());
    }
}

#[test]
fn guests_that_write_to_one_disk_are_told_and_left_alone() {
    let writer = |n: u32, disk: &str| {
        let mut guest = reading(n, 0.1, 0.0);
        guest.written_disks = vec![disk.to_owned()];
        guest
    };
    let seen = fleet(&[
        ("h1", writer(1, "nfs /vm/a")),
        ("h2", writer(2, "nfs /vm/a")),
        ("h2", writer(3, "nfs /vm/b")),
    ]);
    let mut watch = Watch::default();
    told(&mut watch, &seen, &[("h1", 1), ("h2", 1)], 5);
    let words = told(&mut watch, &seen, &[("h1", 9), ("h2", 9)], 10);
    assert_eq!(words.len(), 1, "{words:?}");
    assert!(words[0].starts_with("h1/g1 and h2/g2 write to the same disk nfs /vm/a"));
    assert_eq!(involved(&seen).in_double.len(), 2);
    let mut off = seen.clone();
    for report in off.reports.values_mut() {
        report.guests[0].state = RunState::ShutOff;
    }
    assert!(sights(&off).is_empty(), "a definition writes to nothing");
}

#[test]
fn a_migration_that_is_not_ours_is_respected() {
    let leaving = fleet(&[("h1", guest(|g| g.migrating_out = true))]);
    let mut watch = Watch::default();
    told(&mut watch, &leaving, &[("h1", 1)], 5);
    let words = told(&mut watch, &leaving, &[("h1", 9)], 10);
    assert_eq!(words, ["g1 is migrated from h1 by somebody else"]);
    assert_eq!(involved(&leaving).moved_by_others.len(), 1);
    let mut ours = leaving;
    let entry = order_entry(5, |_| {});
    ours.orders.insert(entry.order.guest.clone(), entry);
    assert!(involved(&ours).moved_by_others.is_empty());
}
