use std::sync::atomic::{AtomicUsize, Ordering};

use evenkeel_daemon::metrics::Registry;

use super::*;
use crate::hypervisor::fake::FakeWorld;
use crate::pressure::Sources;

fn watcher(world: &FakeWorld) -> Watcher<crate::hypervisor::fake::FakeHypervisor> {
    let host: HostName = "h1".parse().unwrap();
    let metrics = AgentMetrics::new(&Registry::new(), &host, true).unwrap();
    let parts = WatcherParts {
        host,
        reader: HostReader::new(Sources::default()),
        pace: ReportPace {
            interval: Duration::from_millis(5),
            ..crate::config::sample("h1").report
        },
        metrics,
        curves: Arc::default(),
    };
    Watcher::new(Calls::new(world.host("h1")), parts)
}

async fn next(reports: &mut watch::Receiver<Report>, wanted: impl Fn(&Report) -> bool) -> Report {
    let wait = reports.wait_for(|r| r.sequence > 0 && wanted(r));
    let report = tokio::time::timeout(Duration::from_secs(5), wait).await;
    report.expect("such a report").unwrap().clone()
}

#[tokio::test]
async fn a_libvirtd_that_goes_and_comes_back_is_reported_each_time() {
    let world = FakeWorld::new();
    let guest: GuestId = crate::driver::bench::GUEST.parse().unwrap();
    let watcher = watcher(&world);
    world.add_guest("h1", &guest, "web", 64);
    let (sender, mut reports) = watch::channel(Report::default());
    let stop = CancellationToken::new();
    let beats = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&beats);
    let beat = move |_: &Report| {
        counted.fetch_add(1, Ordering::Relaxed);
    };
    let running = tokio::spawn(watcher.run(sender, || 0, beat, stop.clone()));
    let first = next(&mut reports, |r| r.libvirt_up).await;
    assert_eq!(first.guests.len(), 1);
    world.set_up("h1", false);
    next(&mut reports, |r| !r.libvirt_up).await;
    world.set_up("h1", true);
    let back = next(&mut reports, |r| r.libvirt_up).await;
    assert!(back.sequence > first.sequence);
    assert!(beats.load(Ordering::Relaxed) >= 3, "the watchdog is fed");
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn definitions_that_came_too_late_are_not_read_once_more() {
    let world = FakeWorld::new();
    let guest: GuestId = crate::driver::bench::GUEST.parse().unwrap();
    let mut watcher = watcher(&world);
    world.add_guest("h1", &guest, "web", 64);
    let traits = GuestTraits {
        group: Some("late".into()),
        ..GuestTraits::default()
    };
    let late = Look {
        counters: vec![],
        traits: vec![(guest.clone(), traits)],
    };
    let pending = tokio::spawn(async { Ok(late) });
    while !pending.is_finished() {
        tokio::task::yield_now().await;
    }
    watcher.pending = Some(pending);
    watcher.changed.insert(guest);
    let report = watcher.look(0).await;
    assert_eq!(report.guests.len(), 1, "counters are asked for anew");
    assert_eq!(report.guests[0].group, "late");
}

/// A watcher that has seen one guest, whose group then changes without an event.
async fn edited_unseen(world: &FakeWorld) -> Watcher<crate::hypervisor::fake::FakeHypervisor> {
    let guest: GuestId = crate::driver::bench::GUEST.parse().unwrap();
    let mut watcher = watcher(world);
    world.add_guest("h1", &guest, "web", 64);
    watcher.look(0).await;
    world.edit_traits("h1", &guest, |t| t.group = Some("new".into()));
    // Definitions of guests that are new to it are read in the second look.
    watcher.look(0).await;
    world.edit_traits("h1", &guest, |t| t.group = Some("newer".into()));
    let report = watcher.look(0).await;
    assert_eq!(report.guests[0].group, "new", "no event, no reading");
    watcher
}

#[tokio::test]
async fn every_definition_is_read_again_when_events_may_have_been_missed() {
    for lagged in [false, true] {
        let world = FakeWorld::new();
        let mut watcher = edited_unseen(&world).await;
        let mut events = world.host("h1").events();
        if lagged {
            let other = "11111111-0000-0000-0000-000000000000".parse().unwrap();
            for _ in 0..500 {
                world.set_presence("h1", &other, evenkeel_types::Presence::Absent);
            }
        } else {
            world.set_up("h1", false);
            world.set_up("h1", true);
        }
        watcher.drain(&mut events);
        let report = watcher.look(0).await;
        assert_eq!(report.guests[0].group, "newer", "lagged: {lagged}");
    }
}

#[tokio::test]
async fn a_guest_that_is_gone_is_forgotten() {
    let world = FakeWorld::new();
    let mut watcher = edited_unseen(&world).await;
    let mut events = world.host("h1").events();
    let guest = crate::driver::bench::GUEST.parse().unwrap();
    world.set_presence("h1", &guest, evenkeel_types::Presence::Absent);
    watcher.drain(&mut events);
    assert_eq!(watcher.changed.len(), 1);
    world.set_up("h1", false);
    watcher.look(0).await;
    assert_eq!(watcher.changed.len(), 1, "nobody knows what is here");
    world.set_up("h1", true);
    watcher.look(0).await;
    assert!(watcher.changed.is_empty() && watcher.asked.is_empty());
}

#[tokio::test]
async fn every_definition_is_read_again_after_a_while() {
    let world = FakeWorld::new();
    let mut watcher = edited_unseen(&world).await;
    tokio::time::pause();
    tokio::time::advance(TRAITS_EVERY).await;
    let report = watcher.look(0).await;
    assert_eq!(report.guests[0].group, "newer");
}

#[tokio::test]
async fn an_idle_host_reports_once_and_then_at_its_heartbeat() {
    let world = FakeWorld::new();
    let watcher = watcher(&world);
    let (sender, mut reports) = watch::channel(Report::default());
    let stop = CancellationToken::new();
    let beats = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&beats);
    let beat = move |_: &Report| {
        counted.fetch_add(1, Ordering::Relaxed);
    };
    let running = tokio::spawn(watcher.run(sender, || 0, beat, stop.clone()));
    next(&mut reports, |r| r.libvirt_up).await;
    while beats.load(Ordering::Relaxed) < 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The machine that runs the test is not idle: its own figures may leave a dead-band now and then.
    assert!(
        reports.borrow().sequence <= 10,
        "{} of 20 looks",
        reports.borrow().sequence
    );
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_curve_that_is_left_goes_out_with_the_next_report() {
    let world = FakeWorld::new();
    let guest: GuestId = crate::driver::bench::GUEST.parse().unwrap();
    let watcher = watcher(&world);
    let curves = Arc::clone(&watcher.curves);
    world.add_guest("h1", &guest, "web", 64);
    let (sender, mut reports) = watch::channel(Report::default());
    let stop = CancellationToken::new();
    let running = tokio::spawn(watcher.run(sender, || 0, |_| {}, stop.clone()));
    let first = next(&mut reports, |r| !r.guests.is_empty()).await;
    assert_eq!(first.guests[0].dirty_curve, None);
    let curve = evenkeel_proto::v1::DirtyCurve {
        points: vec![evenkeel_proto::v1::DirtyPoint {
            seconds: 1.0,
            mib: 20.0,
        }],
        measured_at_ms: 1000,
    };
    curves.put(&guest, curve.clone());
    let with_it = next(&mut reports, |r| r.guests[0].dirty_curve.is_some()).await;
    assert_eq!(with_it.guests[0].dirty_curve, Some(curve));
    stop.cancel();
    running.await.unwrap();
}
