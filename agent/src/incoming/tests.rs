use evenkeel_types::Outcome;

use super::sweep::sweep;
use super::*;
use crate::driver::bench::{Bench, guest, order_with, until};
use crate::hypervisor::disks::Disks as _;
use crate::hypervisor::fake::{Ending, Script};
use evenkeel_types::{FailureReason, MigrationState};

const DISK: &str = "/pool/web.raw";

/// A guest that runs on h1 with a local disk of these contents, and an order to move it.
fn bench(kind: v1::MoveKind, copy: v1::DiskCopy, contents: &[u8]) -> (Bench, Order) {
    let bench = Bench::new();
    bench.world.add_disk("h1", &guest(), DISK, contents);
    if kind == v1::MoveKind::Offline {
        bench.world.set_presence("h1", &guest(), Presence::ShutOff);
    }
    (bench, order(1, kind, copy))
}

fn order(n: u32, kind: v1::MoveKind, copy: v1::DiskCopy) -> Order {
    order_with(n, |message| {
        let options = message.options.get_or_insert_default();
        options.kind = kind.into();
        options.disks = copy.into();
    })
}

/// Some blocks, of which some are empty.
fn contents() -> Vec<u8> {
    let block = |n: u8| vec![n; 70_000];
    [block(1), block(0), block(0), block(2), block(0)].concat()
}

async fn run(bench: &Bench, order: &Order) -> Outcome {
    let mut updates = bench.order(order).await.unwrap();
    let state = until(&mut updates, |state| state.outcome().is_some()).await;
    bench.idle().await;
    released(bench).await;
    state.outcome().unwrap()
}

/// Waits until the target was told that the migration is over.
async fn released(bench: &Bench) {
    use std::sync::atomic::Ordering::SeqCst;
    crate::driver::bench::within(async {
        while bench.peers.released.load(SeqCst) == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    bench.peers.released.store(0, SeqCst);
}

fn refused(reason: Refusal) -> Outcome {
    Outcome::Refused(reason)
}

fn stayed() -> Outcome {
    Outcome::Failed {
        reason: FailureReason::Libvirt,
        guest: Whereabouts::Source,
    }
}

const LIVE: v1::MoveKind = v1::MoveKind::Live;
const OFFLINE: v1::MoveKind = v1::MoveKind::Offline;
const NONE: v1::DiskCopy = v1::DiskCopy::None;
const WHOLE: v1::DiskCopy = v1::DiskCopy::Whole;
const INCREMENTAL: v1::DiskCopy = v1::DiskCopy::Incremental;

#[tokio::test]
async fn a_disk_goes_along_whether_the_guest_runs_or_not() {
    for (kind, presence) in [(LIVE, Presence::Running), (OFFLINE, Presence::ShutOff)] {
        let (bench, order) = bench(kind, WHOLE, &contents());
        bench.world.start_with("h1", &guest());
        assert_eq!(run(&bench, &order).await, Outcome::Done);
        assert_eq!(
            (bench.at("h1"), bench.at("h2")),
            (Presence::Absent, presence)
        );
        assert_eq!(bench.world.file("h2", DISK), Some(contents()));
        assert_eq!(
            bench.world.file("h1", DISK),
            Some(contents()),
            "it stays where it was, too"
        );
        assert!(
            bench.world.starts_with("h2", &guest()),
            "{kind:?}: not started with its host"
        );
        assert_eq!(
            bench.peers.incomings.all(),
            [],
            "nothing is left to remember"
        );
    }
}

#[tokio::test]
async fn a_guest_is_moved_only_in_the_state_that_the_order_is_for() {
    let (running, _) = bench(LIVE, WHOLE, &[1]);
    let outcome = run(&running, &order(1, OFFLINE, WHOLE)).await;
    assert_eq!(outcome, refused(Refusal::GuestRunning));
    assert_eq!(running.at("h1"), Presence::Running);
    let (off, _) = bench(OFFLINE, WHOLE, &[1]);
    let outcome = run(&off, &order(1, LIVE, WHOLE)).await;
    assert_eq!(outcome, refused(Refusal::WrongState));
    let outcome = run(&off, &order(2, OFFLINE, NONE)).await;
    assert_eq!(
        outcome,
        refused(Refusal::Unmovable),
        "its disk stays behind"
    );
}

#[tokio::test]
async fn what_no_move_takes_along_is_refused_by_name() {
    let (bench, order) = bench(OFFLINE, WHOLE, &[1]);
    let hinder = |names: &[&str], offline: &[&str]| {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        bench.world.edit_traits("h1", &guest(), |traits| {
            traits.hindrances = own(names);
            traits.offline_hindrances = own(offline);
        });
    };
    hinder(&["local_disk", "snapshots"], &[]);
    assert_eq!(run(&bench, &order).await, refused(Refusal::HasSnapshots));
    let order = self::order(2, OFFLINE, WHOLE);
    hinder(&["local_disk"], &["nvram"]);
    assert_eq!(run(&bench, &order).await, refused(Refusal::Unmovable));
    let detail = bench.records.journal(&guest()).unwrap().detail;
    assert!(detail.contains("nvram"), "{detail}");
}

#[tokio::test]
async fn a_failed_copy_leaves_nothing_at_the_target() {
    let endings = [(Ending::Fails, false), (Ending::Fails, true)];
    for (ending, away) in endings {
        let (bench, order) = bench(LIVE, WHOLE, &contents());
        bench.script(ending);
        let mut updates = bench.order(&order).await.unwrap();
        until(&mut updates, |s| matches!(s, MigrationState::Running(_))).await;
        assert!(
            bench.world.file("h2", DISK).is_some(),
            "it was made before the copy"
        );
        until(&mut updates, |s| s.outcome().is_some()).await;
        bench
            .peers
            .away
            .store(away, std::sync::atomic::Ordering::SeqCst);
        bench.idle().await;
        released(&bench).await;
        bench
            .peers
            .away
            .store(false, std::sync::atomic::Ordering::SeqCst);
        bench.records.drop_order(&guest());
        sweep(&bench.driver_of("h2"), &bench.peers.incomings).await;
        assert_eq!(bench.world.file("h2", DISK), None);
        assert_eq!(bench.world.file("h1", DISK), Some(contents()));
        assert_eq!(bench.peers.incomings.all(), []);
    }
}

#[tokio::test]
async fn a_copy_that_breaks_off_or_arrives_otherwise_moves_no_definition() {
    type Break = fn(&Bench);
    let breaks: [(Break, &str); 3] = [
        (|b| b.world.break_disks("h1", Some(2)), "reading broke off"),
        (|b| b.world.break_disks("h2", Some(2)), "writing broke off"),
        (|b| b.world.corrupt_disks("h2"), "checksum"),
    ];
    for (break_it, words) in breaks {
        let (bench, order) = bench(OFFLINE, WHOLE, &contents());
        break_it(&bench);
        assert_eq!(run(&bench, &order).await, stayed(), "{words}");
        let detail = bench.records.journal(&guest()).unwrap().detail;
        assert!(detail.contains(words), "{detail}");
        assert_eq!(
            (bench.at("h1"), bench.at("h2")),
            (Presence::ShutOff, Presence::Absent)
        );
        assert_eq!(bench.world.migrations_started("h1"), 0);
        assert_eq!(bench.world.file("h2", DISK), None);
    }
}

#[tokio::test]
async fn a_definition_on_both_hosts_is_settled_at_the_target() {
    let (bench, order) = bench(OFFLINE, WHOLE, &contents());
    bench.script(Ending::FailsThoughMoved);
    assert_eq!(run(&bench, &order).await, Outcome::Done);
    assert_eq!(
        (bench.at("h1"), bench.at("h2")),
        (Presence::Absent, Presence::ShutOff)
    );
}

#[tokio::test]
async fn what_others_made_is_never_removed() {
    let (bench, order) = bench(LIVE, WHOLE, &contents());
    let image = DiskImage {
        path: DISK.into(),
        format: "raw".into(),
        capacity_bytes: 3,
    };
    bench.world.put_file("h2", image, b"old");
    assert_eq!(run(&bench, &order).await, refused(Refusal::DiskInUse));
    bench.records.drop_order(&guest());
    sweep(&bench.driver_of("h2"), &bench.peers.incomings).await;
    assert_eq!(bench.world.file("h2", DISK).as_deref(), Some(&b"old"[..]));
}

#[tokio::test]
async fn nothing_is_removed_while_it_is_not_certain_where_the_guest_is() {
    let (bench, order) = bench(LIVE, WHOLE, &contents());
    let luggage = crate::incoming::Luggage {
        disks: bench
            .world
            .host("h1")
            .local_disks(&guest())
            .unwrap()
            .unwrap(),
        autostart: false,
    };
    let incomings = &bench.peers.incomings;
    bench.records.put_order(&order);
    incomings
        .make(&order.source, &order, &luggage)
        .await
        .unwrap();
    let there = || bench.world.file("h2", DISK).is_some();
    let driver = bench.driver_of("h2");
    let look = async |why: &str| {
        sweep(&driver, incomings).await;
        assert!(there(), "{why}");
    };
    look("its order stands").await;
    bench.records.drop_order(&guest());
    bench
        .peers
        .away
        .store(true, std::sync::atomic::Ordering::SeqCst);
    look("its source does not answer").await;
    bench
        .peers
        .away
        .store(false, std::sync::atomic::Ordering::SeqCst);
    bench
        .records
        .away
        .store(true, std::sync::atomic::Ordering::SeqCst);
    look("etcd does not answer").await;
    bench
        .records
        .away
        .store(false, std::sync::atomic::Ordering::SeqCst);
    bench.world.set_presence("h1", &guest(), Presence::ShutOff);
    look("it may have been here").await;
    bench.world.set_presence("h1", &guest(), Presence::Running);
    bench.world.add_guest("h2", &guest(), "web", 64);
    look("it is here").await;
    let close = incomings.close(&order.id, Whereabouts::Source);
    assert!(!close.await.unwrap() && there(), "whatever its source says");
    bench.world.set_presence("h2", &guest(), Presence::Absent);
    let other = "11111111-0000-0000-0000-000000000000".parse().unwrap();
    bench.world.add_guest("h2", &other, "other", 64);
    bench.world.add_disk("h2", &other, DISK, b"its own");
    look("another guest uses it").await;
    bench.world.set_presence("h2", &other, Presence::Absent);
    sweep(&driver, incomings).await;
    assert!(!there(), "now it is certain");
}

#[tokio::test]
async fn what_a_guest_left_behind_gives_way_unless_it_was_written_to() {
    let (bench, there) = bench(OFFLINE, WHOLE, &contents());
    assert_eq!(run(&bench, &there).await, Outcome::Done);
    // The way back, seen from h1: h1's ledger knows what was left there.
    let calls = Calls::new(bench.world.host("h1"));
    let home = Incomings::new(calls, bench.driver.ledger.clone());
    let luggage = Luggage {
        disks: bench
            .world
            .host("h2")
            .local_disks(&guest())
            .unwrap()
            .unwrap(),
        autostart: false,
    };
    let back = order_with(2, |message| {
        (message.source, message.target) = ("h2".into(), "h1".into());
        message.options.get_or_insert_default().kind = OFFLINE.into();
    });
    home.make(&back.source, &back, &luggage).await.unwrap();
    assert_eq!(
        bench.world.file("h1", DISK).as_deref(),
        Some(&[][..]),
        "it has given way"
    );
    assert!(home.close(&back.id, Whereabouts::Source).await.unwrap());
    assert_eq!(bench.world.file("h1", DISK), None);
    let image = luggage.disks[0].image.clone();
    bench.world.put_file("h1", image, b"somebody's");
    let again = home.make(&back.source, &back, &luggage).await;
    assert_eq!(again.unwrap_err().0, Refusal::DiskInUse);
}

#[tokio::test]
async fn room_is_counted_with_what_is_promised_already() {
    let (bench, first) = bench(LIVE, WHOLE, &[1; 1000]);
    let luggage = Luggage {
        disks: bench
            .world
            .host("h1")
            .local_disks(&guest())
            .unwrap()
            .unwrap(),
        autostart: false,
    };
    let incomings = &bench.peers.incomings;
    let spared = (1 << 40) / SPARED;
    bench.world.set_free("h2", spared + 1099);
    let refused = incomings
        .make(&first.source, &first, &luggage)
        .await
        .unwrap_err();
    assert_eq!(refused.0, Refusal::NoDiskSpace);
    bench.world.set_free("h2", spared + 1100 + 1099);
    incomings
        .make(&first.source, &first, &luggage)
        .await
        .unwrap();
    let other = order_with(2, |message| {
        message.guest_uuid = "11111111-0000-0000-0000-000000000000".into();
    });
    let mut elsewhere = luggage.clone();
    elsewhere.disks[0].image.path = "/pool/other.raw".into();
    let refused = incomings
        .make(&other.source, &other, &elsewhere)
        .await
        .unwrap_err();
    assert_eq!(refused.0, Refusal::NoDiskSpace, "{}", refused.1);
    bench.world.set_free("h2", spared + 1100 + 1100);
    incomings
        .make(&other.source, &other, &elsewhere)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_overlay_comes_only_where_its_base_is_the_same() {
    let base = DiskImage {
        path: "/pool/base.raw".into(),
        format: "raw".into(),
        capacity_bytes: 500,
    };
    let (bench, order) = bench(LIVE, INCREMENTAL, &contents());
    bench.world.add_backing("h1", &guest(), base.clone());
    assert_eq!(run(&bench, &order).await, refused(Refusal::MissingStorage));
    let smaller = DiskImage {
        capacity_bytes: 400,
        ..base.clone()
    };
    bench.world.put_file("h2", smaller, b"");
    let order = self::order(2, LIVE, INCREMENTAL);
    assert_eq!(run(&bench, &order).await, refused(Refusal::MissingStorage));
    bench.world.put_file("h2", base, b"");
    let order = self::order(3, LIVE, INCREMENTAL);
    assert_eq!(run(&bench, &order).await, Outcome::Done);
}

#[tokio::test]
async fn a_disk_outside_every_pool_is_refused() {
    let bench = Bench::new();
    bench
        .world
        .add_disk("h1", &guest(), "/elsewhere/web.raw", &[1]);
    let outcome = run(&bench, &order(1, LIVE, WHOLE)).await;
    assert_eq!(outcome, refused(Refusal::MissingStorage));
}

#[tokio::test]
async fn a_disk_is_taken_of_its_own_source_only_and_must_end() {
    let (bench, order) = bench(OFFLINE, WHOLE, &contents());
    let luggage = Luggage {
        disks: bench
            .world
            .host("h1")
            .local_disks(&guest())
            .unwrap()
            .unwrap(),
        autostart: false,
    };
    let incomings = &bench.peers.incomings;
    incomings
        .make(&order.source, &order, &luggage)
        .await
        .unwrap();
    let send = async |source: &str, path: &str, all: Vec<Arrival>| {
        let (arrivals, arriving) = mpsc::channel(8);
        for arrival in all {
            arrivals.send(arrival).await.unwrap();
        }
        drop(arrivals);
        let source = source.parse().unwrap();
        incomings.receive(&source, &order.id, path, arriving).await
    };
    let piece = || Arrival::Piece(Piece::Data(vec![7]));
    let refused = send("h3", DISK, vec![piece(), Arrival::End]).await;
    assert!(refused.unwrap_err().contains("not expected"));
    let refused = send("h1", "/pool/other.raw", vec![piece(), Arrival::End]).await;
    assert!(refused.unwrap_err().contains("was not made"));
    let refused = send("h1", DISK, vec![piece()]).await;
    assert!(refused.unwrap_err().contains("the sender is gone"));
    let taken = send("h1", DISK, vec![piece(), Arrival::End]).await.unwrap();
    assert_eq!(taken.length, 1);
}

#[tokio::test]
async fn an_offline_copy_is_aborted_in_its_middle() {
    let bytes = vec![1; 4 << 20];
    let (bench, _) = bench(OFFLINE, WHOLE, &bytes);
    bench.world.script("h1", Script::default());
    let slow = order_with(1, |message| {
        let options = message.options.get_or_insert_default();
        options.kind = OFFLINE.into();
        options.disks = WHOLE.into();
        options.bandwidth_limit_mib_s = 1;
    });
    let mut updates = bench.order(&slow).await.unwrap();
    until(&mut updates, |s| matches!(s, MigrationState::Running(_))).await;
    let progressed = updates.wait_for(|u| u.progress.is_some_and(|p| p.disk_transferred_bytes > 0));
    crate::driver::bench::within(progressed).await.unwrap();
    let leader = (crate::driver::bench::LEADER, crate::driver::bench::EPOCH);
    bench
        .driver
        .cancel(&guest(), &slow.id, leader, "me")
        .await
        .unwrap();
    let state = until(&mut updates, |s| s.outcome().is_some()).await;
    assert_eq!(state.outcome(), Some(Outcome::Cancelled));
    bench.idle().await;
    released(&bench).await;
    assert_eq!(bench.world.file("h2", DISK), None);
    assert_eq!(
        (bench.at("h1"), bench.at("h2")),
        (Presence::ShutOff, Presence::Absent)
    );
}

#[tokio::test]
async fn a_file_that_somebody_else_was_quicker_to_make_is_not_ours() {
    let (bench, order) = bench(LIVE, WHOLE, &contents());
    bench.world.outrun_disks("h2");
    let outcome = run(&bench, &order).await;
    assert_eq!(outcome, refused(Refusal::MissingStorage));
    assert!(bench.world.file("h2", DISK).is_some(), "theirs is gone");
    assert_eq!(bench.peers.incomings.all(), []);
}

#[tokio::test]
async fn a_disk_that_is_written_to_while_it_is_copied_was_not_copied() {
    type Touch = fn(&Bench);
    let touches: [Touch; 2] = [
        |b| b.world.set_presence("h1", &guest(), Presence::Running),
        |b| {
            let image = DiskImage {
                path: DISK.into(),
                format: "raw".into(),
                capacity_bytes: 2 << 20,
            };
            b.world.put_file("h1", image, &vec![1; 2 << 20]);
        },
    ];
    for touch in touches {
        let (bench, _) = bench(OFFLINE, WHOLE, &vec![1; 2 << 20]);
        let slow = order_with(1, |message| {
            let options = message.options.get_or_insert_default();
            options.kind = OFFLINE.into();
            options.disks = WHOLE.into();
            options.bandwidth_limit_mib_s = 4;
        });
        let mut updates = bench.order(&slow).await.unwrap();
        let begun = updates.wait_for(|u| u.progress.is_some_and(|p| p.disk_transferred_bytes > 0));
        crate::driver::bench::within(begun).await.unwrap();
        touch(&bench);
        let state = until(&mut updates, |s| s.outcome().is_some()).await;
        assert_eq!(state.outcome(), Some(stayed()));
        bench.idle().await;
        released(&bench).await;
        let detail = bench.records.journal(&guest()).unwrap().detail;
        assert!(detail.contains("written to meanwhile"), "{detail}");
        assert_eq!(bench.world.migrations_started("h1"), 0);
        assert_eq!(bench.world.file("h2", DISK), None);
    }
}
