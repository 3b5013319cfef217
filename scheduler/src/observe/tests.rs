//! What the picture takes in, and what it refuses to guess from.

use evenkeel_daemon::store::Listing;
use prost::Message;

use super::*;

const GUEST: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

fn keys() -> Keys {
    Keys::new(&"lab".parse().unwrap())
}

fn entry(key: String, value: &impl Message, revision: i64) -> Entry {
    Entry {
        key,
        value: value.encode_to_vec(),
        create_revision: revision,
        mod_revision: revision,
    }
}

fn report(guest_cpu: f64) -> v1::Report {
    let mut guest = v1::GuestReport {
        uuid: GUEST.into(),
        name: "web".into(),
        vcpus: 2,
        memory_mib: 64,
        cpu_used_cores: guest_cpu,
        ..Default::default()
    };
    guest.set_state(v1::GuestState::Running);
    v1::Report {
        host: "h1".into(),
        sequence: 1,
        libvirt_up: true,
        guests: vec![guest],
        ..Default::default()
    }
}

fn order(id: u128) -> v1::Order {
    v1::Order {
        id: OrderId::from_random(id).to_string(),
        guest_uuid: GUEST.into(),
        guest_name: "web".into(),
        source: "h1".into(),
        target: "h2".into(),
        epoch: 4,
        options: Some(v1::MoveOptions {
            kind: v1::MoveKind::Live.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn put(fleet: &mut Fleet, entry: Entry) -> Vec<Touched> {
    fleet.apply(&keys(), Change::Put(entry))
}

#[test]
fn a_report_comes_and_goes_with_its_key() {
    let (keys, mut fleet) = (keys(), Fleet::default());
    let host: HostName = "h1".parse().unwrap();
    let touched = put(&mut fleet, entry(keys.report(&host), &report(0.5), 7));
    assert_eq!(touched, [Touched::Report(host.clone())]);
    assert_eq!(fleet.reports[&host].guests[0].vcpus, 2);
    fleet.apply(
        &keys,
        Change::Deleted {
            key: keys.report(&host),
            revision: 9,
        },
    );
    assert!(fleet.reports.is_empty());
    assert_eq!(fleet.revision, 9);
}

#[test]
fn absurd_numbers_make_a_report_unusable_and_leave_no_older_one_standing() {
    let (keys, mut fleet) = (keys(), Fleet::default());
    let host: HostName = "h1".parse().unwrap();
    for absurd in [f64::NAN, -1.0, f64::INFINITY, 1e9] {
        put(&mut fleet, entry(keys.report(&host), &report(0.5), 7));
        put(&mut fleet, entry(keys.report(&host), &report(absurd), 8));
        assert!(fleet.reports.is_empty(), "{absurd}");
        let reason = &fleet.malformed[&keys.report(&host)];
        assert!(reason.contains("guest web: cpu_used_cores"), "{reason}");
    }
    put(&mut fleet, entry(keys.report(&host), &report(0.5), 9));
    assert!(fleet.malformed.is_empty());
}

#[test]
fn a_value_written_for_another_host_or_guest_is_not_used() {
    let (keys, mut fleet) = (keys(), Fleet::default());
    let other: HostName = "h2".parse().unwrap();
    put(&mut fleet, entry(keys.report(&other), &report(0.5), 7));
    let stranger: GuestId = "00000000-9dad-11d1-80b4-00c04fd430c8".parse().unwrap();
    put(&mut fleet, entry(keys.order(&stranger), &order(1), 8));
    assert!(fleet.reports.is_empty() && fleet.orders.is_empty());
    assert_eq!(fleet.malformed.len(), 2);
}

#[test]
fn garbage_is_remembered_by_key_and_nothing_else() {
    let (keys, mut fleet) = (keys(), Fleet::default());
    let guest: GuestId = GUEST.parse().unwrap();
    let garbage = Entry {
        key: keys.order(&guest),
        value: vec![0xff, 0xff, 0xff],
        create_revision: 1,
        mod_revision: 1,
    };
    put(&mut fleet, garbage);
    assert_eq!(fleet.malformed.len(), 1);
    assert!(fleet.orders.is_empty());
}

#[test]
fn a_fresh_listing_forgets_everything_before() {
    let (keys, mut fleet) = (keys(), Fleet::default());
    let (host, guest) = ("h1".parse().unwrap(), GUEST.parse().unwrap());
    put(&mut fleet, entry(keys.report(&host), &report(0.5), 7));
    let entries = vec![entry(keys.order(&guest), &order(1), 20)];
    fleet.apply(
        &keys,
        Change::Reset(Listing {
            entries,
            revision: 21,
        }),
    );
    assert!(fleet.reports.is_empty() && fleet.complete);
    assert_eq!((fleet.orders.len(), fleet.revision), (1, 21));
}

#[test]
fn a_migration_is_open_from_its_order_to_the_end_of_its_journal() {
    let (keys, mut fleet) = (keys(), Fleet::default());
    let (host, guest): (HostName, GuestId) = ("h1".parse().unwrap(), GUEST.parse().unwrap());
    put(&mut fleet, entry(keys.order(&guest), &order(1), 5));
    assert_eq!(fleet.open_migrations().len(), 1);
    let journal = |phase: v1::MigrationPhase| {
        let mut state = v1::MigrationState::default();
        state.set_phase(phase);
        v1::Journal {
            order: Some(order(1)),
            state: Some(state),
            ..Default::default()
        }
    };
    let running = journal(v1::MigrationPhase::Running);
    put(&mut fleet, entry(keys.journal(&host, &guest), &running, 6));
    assert_eq!(
        fleet.open_migrations().len(),
        1,
        "order and journal are one migration"
    );
    let entry_of = fleet.orders[&guest].clone();
    assert!(fleet.journal_of(&entry_of).is_some());
    assert!(!fleet.has_ended(&guest));
    fleet.apply(
        &keys,
        Change::Deleted {
            key: keys.order(&guest),
            revision: 8,
        },
    );
    assert_eq!(
        fleet.open_migrations().len(),
        1,
        "a journal alone keeps it open"
    );
    let done = journal(v1::MigrationPhase::Done);
    put(&mut fleet, entry(keys.journal(&host, &guest), &done, 9));
    assert!(fleet.open_migrations().is_empty());
    assert!(!fleet.has_ended(&guest), "no order is left to be removed");
    put(&mut fleet, entry(keys.order(&guest), &order(1), 5));
    assert!(fleet.has_ended(&guest));
}

#[test]
fn a_report_from_before_a_migrations_end_is_known_as_such() {
    let (keys, mut fleet) = (keys(), Fleet::default());
    let (host, guest): (HostName, GuestId) = ("h1".parse().unwrap(), GUEST.parse().unwrap());
    let mut state = v1::MigrationState::default();
    state.set_phase(v1::MigrationPhase::Cancelled);
    let journal = v1::Journal {
        order: Some(order(1)),
        state: Some(state),
        ended_at_ms: 500_000,
        ..Default::default()
    };
    put(&mut fleet, entry(keys.journal(&host, &guest), &journal, 9));
    let mut told = |revision, measured_at_ms| {
        let mut report = v1::Report {
            measured_at_ms,
            ..report(0.5)
        };
        for guest in &mut report.guests {
            guest.uuid = GUEST.into();
            guest.migrating_out = true;
        }
        put(&mut fleet, entry(keys.report(&host), &report, revision));
        let foreign = fleet.foreign().count() > 0;
        (
            fleet.unreported_ends().contains_key(&(&host, &guest)),
            foreign,
        )
    };
    let (before, after) = ((true, false), (false, true));
    assert_eq!(told(8, 510_000), before, "written before");
    assert_eq!(told(10, 499_000), before, "measured before");
    assert_eq!(told(10, 500_500), before, "perhaps read before");
    assert_eq!(told(10, 501_500), after, "somebody else's, then");
    assert_eq!(told(10, 400_000), after, "by a clock that was set back");
}

#[test]
fn a_journal_of_another_order_is_not_this_orders() {
    let (keys, mut fleet) = (keys(), Fleet::default());
    let (host, guest): (HostName, GuestId) = ("h1".parse().unwrap(), GUEST.parse().unwrap());
    let mut state = v1::MigrationState::default();
    state.set_phase(v1::MigrationPhase::Done);
    let old = v1::Journal {
        order: Some(order(1)),
        state: Some(state),
        ..Default::default()
    };
    put(&mut fleet, entry(keys.journal(&host, &guest), &old, 5));
    put(&mut fleet, entry(keys.order(&guest), &order(2), 6));
    assert!(fleet.journal_of(&fleet.orders[&guest]).is_none());
}

#[test]
fn the_candidate_that_came_first_leads() {
    let (keys, mut fleet) = (keys(), Fleet::default());
    for (name, revision) in [("s2", 12), ("s1", 10), ("s3", 15)] {
        let info = v1::LeaderInfo {
            name: name.into(),
            ..Default::default()
        };
        put(
            &mut fleet,
            entry(format!("{}/{name}", keys.election()), &info, revision),
        );
    }
    assert_eq!(
        fleet
            .leader()
            .map(|(epoch, info)| (epoch, info.name.as_str())),
        Some((10, "s1"))
    );
    let key = format!("{}/s1", keys.election());
    fleet.apply(&keys, Change::Deleted { key, revision: 20 });
    assert_eq!(fleet.leader().map(|(epoch, _)| epoch), Some(12));
}

#[test]
fn a_policy_that_is_no_message_stands_with_its_own_revision() {
    let (keys, mut fleet) = (keys(), Fleet::default());
    let sound = v1::PolicyRecord {
        text: "schema = 1\n".into(),
        revision: 3,
        ..Default::default()
    };
    put(&mut fleet, entry(keys.policy_active(), &sound, 5));
    put(&mut fleet, entry(keys.policy_history(3), &sound, 5));
    let garbage = Entry {
        value: vec![0xff; 9],
        ..entry(keys.policy_active(), &sound, 8)
    };
    put(&mut fleet, garbage);
    let standing = (v1::PolicyRecord::default(), 8);
    assert_eq!(fleet.policy, Some(standing), "to be replaced at revision 8");
    assert!(fleet.malformed.contains_key(&keys.policy_active()));
    assert_eq!(fleet.policy_history[&3], sound);
    let garbage = Entry {
        value: vec![0xff; 9],
        ..entry(keys.policy_history(4), &sound, 9)
    };
    put(&mut fleet, garbage);
    let newest = fleet.policy_history.last_key_value();
    assert_eq!(
        newest,
        Some((&4, &v1::PolicyRecord::default())),
        "no revision is used twice"
    );
}

#[test]
fn a_listing_from_before_our_own_write_is_not_the_whole_picture() {
    let (keys, mut fleet) = (keys(), Fleet::default());
    let listing = |revision| {
        let entries = vec![];
        Change::Reset(Listing { entries, revision })
    };
    fleet.apply(&keys, listing(10));
    assert!(fleet.complete);
    fleet.pause = Some(v1::Pause::default());
    fleet.note_written(15);
    assert!(fleet.complete, "it is in the picture");
    fleet.apply(&keys, listing(12));
    assert!(!fleet.complete, "the pause is not in this listing");
    let host: HostName = "h1".parse().unwrap();
    put(&mut fleet, entry(keys.report(&host), &report(0.5), 13));
    assert!(!fleet.complete);
    put(&mut fleet, entry(keys.pause(), &v1::Pause::default(), 15));
    assert!(fleet.complete && fleet.pause.is_some());
    fleet.apply(&keys, listing(20));
    assert!(fleet.complete);
}

#[test]
fn an_intent_that_is_not_understood_closes_its_host_and_opens_it_when_it_is_gone() {
    let mut fleet = Fleet::default();
    let host: HostName = "h1".parse().unwrap();
    let key = || keys().intent(&host);
    let intent = |edit: fn(&mut v1::Intent)| {
        let mut intent = v1::Intent {
            host: "h1".into(),
            kind: v1::IntentKind::Drain.into(),
            ..Default::default()
        };
        edit(&mut intent);
        intent
    };
    let sound = entry(key(), &intent(|_| {}), 5);
    assert_eq!(put(&mut fleet, sound), [Touched::Control]);
    assert_eq!(fleet.intents[&host].kind, IntentKind::Drain);
    let edits: [fn(&mut v1::Intent); 3] =
        [|i| i.kind = 9, |i| i.kind = 0, |i| i.host = "h2".into()];
    for edit in edits {
        put(&mut fleet, entry(key(), &intent(edit), 6));
        assert_eq!(fleet.intents[&host].kind, IntentKind::Cordon);
        assert!(fleet.malformed.contains_key(&key()));
    }
    let mut garbage = entry(key(), &intent(|_| {}), 7);
    garbage.value = vec![0xff; 9];
    put(&mut fleet, garbage);
    assert_eq!(fleet.intents[&host].kind, IntentKind::Cordon);
    let gone = Change::Deleted {
        key: key(),
        revision: 8,
    };
    fleet.apply(&keys(), gone);
    assert!(fleet.intents.is_empty() && fleet.malformed.is_empty());
}

/// The dirty curve of a report's only guest as it is read: points, age in its report and the fault, if any.
fn curve_read(points: &[(f64, f64)], age_ms: i64) -> Result<Vec<(f64, f64)>, String> {
    let (keys, mut fleet) = (keys(), Fleet::default());
    let host: HostName = "h1".parse().unwrap();
    let mut told = report(0.5);
    told.measured_at_ms = 10_000_000;
    let points = points.iter();
    told.guests[0].dirty_curve = Some(v1::DirtyCurve {
        points: points
            .map(|&(seconds, mib)| v1::DirtyPoint { seconds, mib })
            .collect(),
        measured_at_ms: told.measured_at_ms - age_ms,
    });
    put(&mut fleet, entry(keys.report(&host), &told, 7));
    match fleet.malformed.remove(&keys.report(&host)) {
        Some(fault) => Err(fault),
        None => Ok(fleet.reports[&host].guests[0].dirty_curve.clone()),
    }
}

#[test]
fn a_dirty_curve_counts_while_it_is_fresh() {
    let curve = [(1.0, 0.0), (2.0, 30.0), (4.0, 30.0)];
    assert_eq!(curve_read(&curve, 0), Ok(curve.to_vec()));
    assert_eq!(curve_read(&curve, 1_800_000), Ok(curve.to_vec()));
    assert_eq!(curve_read(&curve, 1_800_001), Ok(vec![]));
    assert_eq!(curve_read(&curve, -1), Ok(vec![]), "the clock was set");
    assert_eq!(curve_read(&[], 0), Ok(vec![]));
}

#[test]
fn a_dirty_curve_that_cannot_be_is_absurd() {
    let many: Vec<(f64, f64)> = (1..=17).map(|n| (f64::from(n), 1.0)).collect();
    for (curve, fault) in [
        (&[(1.0, f64::NAN)][..], "dirty_curve.mib"),
        (&[(f64::INFINITY, 1.0)], "dirty_curve.seconds"),
        (&[(1.0, -1.0)], "dirty_curve.mib"),
        (&[(0.0, 1.0)], "does not rise"),
        (&[(1.0, 1.0), (1.0, 2.0)], "does not rise"),
        (&[(1.0, 2.0), (2.0, 1.0)], "does not rise"),
        (&many, "17 points"),
    ] {
        let read = curve_read(curve, 0);
        let said = read.as_ref().err().is_some_and(|said| said.contains(fault));
        assert!(said, "{curve:?}: {read:?}");
    }
}
