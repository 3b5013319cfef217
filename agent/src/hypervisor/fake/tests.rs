use super::*;
use crate::hypervisor::Stream;

fn id(n: u8) -> GuestId {
    format!("00000000-0000-0000-0000-0000000000{n:02}")
        .parse()
        .unwrap()
}

fn world() -> (FakeWorld, Arc<FakeHypervisor>, Arc<FakeHypervisor>) {
    let world = FakeWorld::new();
    let (h1, h2) = (world.host("h1"), world.host("h2"));
    world.add_guest("h1", &id(1), "g1", 64);
    (world, h1, h2)
}

fn to_h2() -> LiveMigration {
    LiveMigration {
        guest: id(1),
        peer_uri: FakeWorld::peer_uri("h2"),
        migration_uri: None,
        downtime_limit: Duration::from_millis(300),
        bandwidth_limit_mib_s: None,
        auto_converge: false,
        post_copy: false,
        stream: Stream::default(),
        disks: vec![],
        incremental: false,
    }
}

/// Runs one scripted migration: (error code, presence at the source, presence at the target).
fn ends(ending: Ending) -> (Option<i32>, Presence, Presence) {
    let (world, h1, _h2) = world();
    let script = Script {
        ending,
        ..Script::default()
    };
    world.script("h1", script);
    let code = match h1.migrate(&to_h2(), &CallGate::default()) {
        Ok(()) => None,
        Err(HypervisorError::Failed { code, .. }) => Some(code),
        Err(other) => panic!("{other}"),
    };
    (
        code,
        world.presence("h1", &id(1)),
        world.presence("h2", &id(1)),
    )
}

#[test]
fn every_ending_leaves_the_hosts_as_it_says() {
    use Presence::{Absent, PausedByMigration, Running, ShutOff};
    for (ending, left) in [
        (Ending::Moves, (None, Absent, Running)),
        (Ending::Fails, (Some(1), Running, Absent)),
        (Ending::FailsThoughMoved, (Some(38), ShutOff, Running)),
        (
            Ending::LeavesPausedSource,
            (Some(38), PausedByMigration, Running),
        ),
        (
            Ending::LeavesPausedTarget,
            (Some(1), Running, PausedByMigration),
        ),
        (Ending::RunsTwice, (Some(1), Running, Running)),
        (Ending::Dies, (Some(55), ShutOff, Absent)),
    ] {
        assert_eq!(ends(ending), left, "{ending:?}");
    }
}

#[test]
fn a_moved_guest_comes_with_its_events_and_stays_persistent() {
    let (_world, h1, h2) = world();
    let mut events = h1.events();
    h1.migrate(&to_h2(), &CallGate::default()).unwrap();
    assert_eq!(
        events.try_recv().unwrap(),
        HypervisorEvent::SwitchoverBegan(id(1))
    );
    let mut completed = false;
    while let Ok(event) = events.try_recv() {
        completed |= matches!(event, HypervisorEvent::JobCompleted(_, p) if p.downtime.is_some());
    }
    assert!(completed);
    assert!(h2.counters().unwrap()[0].persistent);
}

#[test]
fn an_endless_copy_is_seen_refuses_a_second_one_and_ends_by_abort() {
    let (world, h1, h2) = world();
    let script = Script {
        ending: Ending::NeverConverges,
        ..Script::default()
    };
    world.script("h1", script);
    let copy = std::thread::spawn({
        let h1 = h1.clone();
        move || h1.migrate(&to_h2(), &CallGate::default())
    });
    while h1
        .outgoing_job(&id(1))
        .unwrap()
        .is_none_or(|job| job.iteration == 0)
    {
        std::thread::yield_now();
    }
    assert_eq!(h2.presence(&id(1)).unwrap().0, Presence::PausedByMigration);
    assert!(h1.counters().unwrap()[0].migrating_out);
    assert!(matches!(
        h1.migrate(&to_h2(), &CallGate::default()),
        Err(HypervisorError::Failed { code: 55, .. })
    ));
    h1.abort(&id(1)).unwrap();
    assert!(matches!(
        copy.join().unwrap(),
        Err(HypervisorError::Failed { code: 78, .. })
    ));
    assert_eq!(world.presence("h1", &id(1)), Presence::Running);
    assert_eq!(world.presence("h2", &id(1)), Presence::Absent);
    assert_eq!(world.migrations_started("h1"), 1);
}

#[test]
fn a_stopped_libvirtd_answers_nothing_and_breaks_its_copy() {
    let (world, h1, _h2) = world();
    let script = Script {
        ending: Ending::NeverConverges,
        ..Script::default()
    };
    world.script("h1", script);
    let copy = std::thread::spawn({
        let h1 = h1.clone();
        move || h1.migrate(&to_h2(), &CallGate::default())
    });
    while world.migrations_started("h1") == 0 {
        std::thread::yield_now();
    }
    world.set_up("h1", false);
    assert!(matches!(
        copy.join().unwrap(),
        Err(HypervisorError::Failed { code: 38, .. })
    ));
    assert!(matches!(
        h1.counters(),
        Err(HypervisorError::Unreachable { .. })
    ));
    assert_eq!(world.presence("h1", &id(1)), Presence::Running);
}

#[test]
fn a_host_refuses_as_told_and_never_takes_a_guest_it_has() {
    let (world, h1, h2) = world();
    let definition = h1.definition(&id(1)).unwrap();
    assert_eq!(h2.admits(&definition, &Coming::default()).unwrap(), Ok(()));
    world.refuse("h2", Some((Refusal::MissingNetwork, "lan".into())));
    assert_eq!(
        h2.admits(&definition, &Coming::default())
            .unwrap()
            .unwrap_err()
            .0,
        Refusal::MissingNetwork
    );
    assert_eq!(
        h1.admits(&definition, &Coming::default())
            .unwrap()
            .unwrap_err()
            .0,
        Refusal::NameClash
    );
}
