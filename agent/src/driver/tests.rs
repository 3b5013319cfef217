use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use evenkeel_daemon::unix_ms;
use evenkeel_proto::v1;
use evenkeel_types::lifecycle::CopyFacts;
use evenkeel_types::{
    AbortCause, CallResult, Epoch, FailureReason, MigrationState, Outcome, Presence, Refusal,
    Whereabouts,
};

use super::bench::{Bench, BenchDriver, LEADER, guest, order, order_with, until, within};
use super::copy::is_ours;
use super::refused_update;
use crate::hypervisor::fake::{Ending, FakeWorld, Hold};
use crate::hypervisor::{CallGate, Hypervisor, JobProgress, LiveMigration, Stream};
use crate::journal::{Stored, opened};

/// A deadline that passes soon, but not before the migration has begun.
const SHORT_MS: i64 = 1_000;

fn ended(state: MigrationState) -> bool {
    state.outcome().is_some()
}

fn failed(reason: FailureReason, guest: Whereabouts) -> Option<MigrationState> {
    Some(MigrationState::Ended(Outcome::Failed { reason, guest }))
}

async fn look(bench: &Bench) -> Result<usize, evenkeel_daemon::StoreError> {
    crate::adopt::look(&bench.driver, &mut Default::default()).await
}

async fn adopt(driver: &std::sync::Arc<BenchDriver>, stored: Stored<v1::Journal>) {
    let order = stored.value.order.clone().unwrap().try_into().unwrap();
    let state = crate::journal::state_of(&stored.value).unwrap();
    driver.adopt(order, state, stored).await;
}

async fn run(bench: &Bench) -> MigrationState {
    let mut updates = bench.order(&order(1)).await.unwrap();
    let state = until(&mut updates, ended).await;
    bench.idle().await;
    assert_eq!(bench.state(), Some(state), "the journal says otherwise");
    state
}

#[tokio::test]
async fn a_migration_moves_the_guest_and_every_phase_is_journalled() {
    let bench = Bench::new();
    assert_eq!(run(&bench).await, MigrationState::Ended(Outcome::Done));
    assert_eq!(
        (bench.at("h1"), bench.at("h2")),
        (Presence::Absent, Presence::Running)
    );
    let phases = bench.records.phases();
    assert_eq!(phases.first(), Some(&"preparing"));
    assert!(
        phases.contains(&"running") && phases.last() == Some(&"done"),
        "{phases:?}"
    );
    assert_eq!(bench.peers.released.load(SeqCst), 1);
    assert_eq!(bench.world.migrations_started("h1"), 1);
    let journal = bench.records.journal(&guest()).unwrap();
    assert_eq!(journal.progress.unwrap().downtime_ms, 10);
    assert!(journal.ended_at_ms >= journal.started_at_ms);
}

#[tokio::test]
async fn the_place_of_the_guest_decides_and_not_what_the_call_said() {
    let cases = [
        (
            Ending::FailsThoughMoved,
            Some(MigrationState::Ended(Outcome::Done)),
        ),
        (
            Ending::Fails,
            failed(FailureReason::Libvirt, Whereabouts::Source),
        ),
        (
            Ending::Dies,
            failed(FailureReason::GuestDied, Whereabouts::Nowhere),
        ),
    ];
    for (ending, outcome) in cases {
        let bench = Bench::new();
        bench.script(ending);
        assert_eq!(Some(run(&bench).await), outcome, "{ending:?}");
    }
}

#[tokio::test]
async fn a_failed_calls_words_are_in_the_journal() {
    let bench = Bench::new();
    bench.script(Ending::Fails);
    run(&bench).await;
    let detail = bench.records.journal(&guest()).unwrap().detail;
    assert!(detail.contains("migration failed as scripted"), "{detail}");
}

#[tokio::test]
async fn nothing_is_copied_before_running_stands_in_etcd() {
    let bench = Bench::new();
    bench.peers.etcd_goes_after_prepare.store(true, SeqCst);
    let mut updates = bench.order(&order(1)).await.unwrap();
    until(&mut updates, |s| matches!(s, MigrationState::Running(_))).await;
    tokio::time::sleep(Duration::from_millis(80)).await;
    assert_eq!(bench.world.migrations_started("h1"), 0);
    assert_eq!(bench.state(), Some(MigrationState::Preparing));
    bench.records.away.store(false, SeqCst);
    assert_eq!(
        until(&mut updates, ended).await,
        MigrationState::Ended(Outcome::Done)
    );
}

#[tokio::test]
async fn a_copy_that_waits_for_etcd_can_be_aborted_and_then_never_starts() {
    let bench = Bench::new();
    bench.peers.etcd_goes_after_prepare.store(true, SeqCst);
    let late = order_with(1, |o| o.deadline_ms = unix_ms() + SHORT_MS);
    let mut updates = bench.order(&late).await.unwrap();
    let state = until(&mut updates, ended).await;
    assert_eq!(
        Some(state),
        failed(FailureReason::Deadline, Whereabouts::Source)
    );
    bench.records.away.store(false, SeqCst);
    bench.idle().await;
    assert_eq!(bench.world.migrations_started("h1"), 0);
    assert_eq!(bench.state(), Some(state));
}

#[tokio::test]
async fn an_end_without_etcd_is_journalled_when_etcd_is_back() {
    let bench = Bench::new();
    bench.script_slow_copies();
    let mut updates = bench.order(&order(1)).await.unwrap();
    until(&mut updates, |s| matches!(s, MigrationState::Running(_))).await;
    bench.started().await;
    bench.records.away.store(true, SeqCst);
    assert_eq!(
        until(&mut updates, ended).await,
        MigrationState::Ended(Outcome::Done)
    );
    assert!(
        bench.driver.running.has(&guest()),
        "no new order before the end is known"
    );
    bench.records.away.store(false, SeqCst);
    bench.idle().await;
    assert_eq!(bench.state(), Some(MigrationState::Ended(Outcome::Done)));
}

#[tokio::test]
async fn an_endless_copy_is_cancelled_in_the_leaders_name_only() {
    let bench = Bench::new();
    bench.script(Ending::NeverConverges);
    let order = order(1);
    let mut updates = bench.order(&order).await.unwrap();
    until(&mut updates, |s| matches!(s, MigrationState::Running(_))).await;
    let cancel = |epoch| {
        bench
            .driver
            .cancel(&order.guest, &order.id, (LEADER, epoch), "operator/a")
    };
    let stale = cancel(Epoch(6)).await.unwrap_err();
    assert!(stale.contains("stale_epoch"), "{stale}");
    cancel(Epoch(7)).await.unwrap();
    let state = until(&mut updates, ended).await;
    assert_eq!(state, MigrationState::Ended(Outcome::Cancelled));
    assert_eq!(bench.at("h1"), Presence::Running);
    bench.idle().await;
    let detail = bench.records.journal(&guest()).unwrap().detail;
    assert!(detail.contains("cancelled by operator/a"), "{detail}");
    assert!(cancel(Epoch(7)).await.is_err(), "nothing is under way");
}

#[tokio::test]
async fn no_copy_goes_on_past_its_deadline() {
    let bench = Bench::new();
    bench.script(Ending::NeverConverges);
    let short = order_with(1, |o| o.deadline_ms = unix_ms() + SHORT_MS);
    let mut updates = bench.order(&short).await.unwrap();
    let state = until(&mut updates, ended).await;
    assert_eq!(
        Some(state),
        failed(FailureReason::Deadline, Whereabouts::Source)
    );
}

#[tokio::test]
async fn a_guest_on_two_hosts_is_shown_and_touched_by_nobody() {
    let bench = Bench::new();
    bench.script(Ending::RunsTwice);
    let mut updates = bench.order(&order(1)).await.unwrap();
    let unknown = |s: MigrationState| {
        matches!(
            s,
            MigrationState::Unknown {
                last: Whereabouts::Both,
                ..
            }
        )
    };
    until(&mut updates, unknown).await;
    within(async {
        while bench.driver.figures.guests_on_two_hosts() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(
        (bench.at("h1"), bench.at("h2")),
        (Presence::Running, Presence::Running)
    );
    // A host that falls silent disproves nothing.
    bench.peers.away.store(true, SeqCst);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bench.driver.figures.guests_on_two_hosts(), 1);
    bench.peers.away.store(false, SeqCst);
    // An operator ends one of them.
    bench.world.set_presence("h1", &guest(), Presence::ShutOff);
    assert_eq!(
        until(&mut updates, ended).await,
        MigrationState::Ended(Outcome::Done)
    );
    assert_eq!(bench.driver.figures.guests_on_two_hosts(), 0);
}

#[tokio::test]
async fn half_states_are_unknown_until_the_hosts_tidy_up() {
    let cases = [
        (
            Ending::LeavesPausedSource,
            "h1",
            Some(MigrationState::Ended(Outcome::Done)),
        ),
        (
            Ending::LeavesPausedTarget,
            "h2",
            failed(FailureReason::Libvirt, Whereabouts::Source),
        ),
    ];
    for (ending, host, outcome) in cases {
        let bench = Bench::new();
        bench.script(ending);
        let mut updates = bench.order(&order(1)).await.unwrap();
        until(&mut updates, |s| {
            matches!(s, MigrationState::Unknown { .. })
        })
        .await;
        assert_eq!(
            bench.peers.released.load(SeqCst),
            0,
            "what is unknown stays reserved"
        );
        bench.world.set_presence(host, &guest(), Presence::Absent);
        assert_eq!(Some(until(&mut updates, ended).await), outcome);
    }
}

#[tokio::test]
async fn a_target_that_does_not_answer_leaves_the_end_open() {
    let bench = Bench::new();
    bench.script_slow_copies();
    let mut updates = bench.order(&order(1)).await.unwrap();
    until(&mut updates, |s| matches!(s, MigrationState::Running(_))).await;
    bench.peers.away.store(true, SeqCst);
    until(&mut updates, |s| {
        matches!(s, MigrationState::Unknown { .. })
    })
    .await;
    bench.peers.away.store(false, SeqCst);
    assert_eq!(
        until(&mut updates, ended).await,
        MigrationState::Ended(Outcome::Done)
    );
}

#[tokio::test]
async fn a_libvirtd_that_goes_in_the_middle_is_waited_for() {
    let bench = Bench::new();
    bench.script(Ending::NeverConverges);
    let mut updates = bench.order(&order(1)).await.unwrap();
    until(&mut updates, |s| matches!(s, MigrationState::Running(_))).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    bench.world.set_up("h1", false);
    until(&mut updates, |s| matches!(s, MigrationState::Switching(_))).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    bench.world.set_up("h1", true);
    let state = until(&mut updates, ended).await;
    assert_eq!(
        Some(state),
        failed(FailureReason::Libvirt, Whereabouts::Source)
    );
}

#[tokio::test]
async fn a_refusal_names_its_reason_and_starts_nothing() {
    type Break = fn(&Bench);
    let cases: [(Refusal, Break); 8] = [
        (Refusal::Unmovable, |b| {
            b.world.edit_traits("h1", &guest(), |t| t.opted_out = true);
        }),
        (Refusal::Busy, |b| b.world.back_up("h1", &guest(), true)),
        (Refusal::Unmovable, |b| {
            b.world
                .edit_traits("h1", &guest(), |t| t.hindrances.push("host_device".into()));
        }),
        (Refusal::WrongState, |b| {
            b.world.set_presence("h1", &guest(), Presence::Paused)
        }),
        (Refusal::GuestNotHere, |b| {
            b.world.set_presence("h1", &guest(), Presence::Absent)
        }),
        (Refusal::NoLibvirt, |b| b.world.set_up("h1", false)),
        (Refusal::TargetUnreachable, |b| {
            b.peers.away.store(true, SeqCst)
        }),
        (Refusal::NoMemory, |b| {
            *b.peers.refusal.lock().unwrap() = Some(Refusal::NoMemory)
        }),
    ];
    for (reason, break_it) in cases {
        let bench = Bench::new();
        break_it(&bench);
        assert_eq!(
            run(&bench).await,
            MigrationState::Ended(Outcome::Refused(reason))
        );
        assert_eq!(bench.world.migrations_started("h1"), 0);
    }
}

#[tokio::test]
async fn orders_that_must_not_start_are_refused_before_anything_is_written() {
    let bench = Bench::new();
    let reason = async |order| bench.order(&order).await.unwrap_err().0;
    assert_eq!(
        reason(order_with(1, |o| o.deadline_ms = 1)).await,
        Refusal::DeadlinePassed
    );
    assert_eq!(
        reason(order_with(1, |o| o.source = "h3".into())).await,
        Refusal::NoSuchOrder
    );
    assert_eq!(
        reason(order_with(1, |o| o.epoch = 6)).await,
        Refusal::StaleEpoch
    );
    bench.records.away.store(true, SeqCst);
    assert_eq!(reason(order(1)).await, Refusal::NoEtcd);
    bench.driver.floor.raise(Epoch(8));
    assert_eq!(
        reason(order(1)).await,
        Refusal::StaleEpoch,
        "without asking etcd"
    );
    assert_eq!(bench.records.phases(), Vec::<&str>::new());
    assert_eq!(bench.driver.running.count(), 0);
}

#[tokio::test]
async fn a_guest_has_one_migration_and_a_host_no_more_than_may_leave() {
    let bench = Bench::new();
    bench.script(Ending::NeverConverges);
    let first = order(1);
    let mut updates = bench.order(&first).await.unwrap();
    let again = bench
        .driver
        .start(first.clone(), LEADER.into())
        .await
        .unwrap_err();
    assert_eq!(again.0, Refusal::Duplicate);
    let other = bench
        .driver
        .start(order(2), LEADER.into())
        .await
        .unwrap_err();
    assert_eq!(other.0, Refusal::Busy);
    let guest_of = |n: u32| {
        order_with(n, |o| {
            o.guest_uuid = format!("{n:08}-0000-0000-0000-000000000000")
        })
    };
    let second = bench.order(&guest_of(2)).await;
    assert!(second.is_ok(), "two may leave");
    let third = bench.order(&guest_of(3)).await.map(drop);
    // The second is refused soon, for its guest is not here; until then there is no place.
    assert!(matches!(
        third,
        Ok(()) | Err((Refusal::TooManyMigrations, _))
    ));
    until(&mut updates, |s| matches!(s, MigrationState::Running(_))).await;
    bench
        .driver
        .cancel(&guest(), &first.id, (LEADER, Epoch(7)), "t")
        .await
        .unwrap();
    until(&mut updates, ended).await;
    bench.idle().await;
    let late = bench
        .driver
        .start(first.clone(), LEADER.into())
        .await
        .unwrap_err();
    assert_eq!(late.0, Refusal::Duplicate, "its journal stands: {}", late.1);
}

#[tokio::test]
async fn a_restarted_agent_follows_the_job_and_starts_nothing() {
    let bench = Bench::new();
    bench.script_slow_copies();
    let mut journal = opened(&order(1), unix_ms());
    journal.state = Some(MigrationState::Running(CopyFacts::default()).into());
    bench.records.put_order(&order(1));
    bench.records.put_journal(&guest(), &journal);
    let hypervisor = bench.world.host("h1");
    let job = std::thread::spawn(move || {
        let migration = LiveMigration {
            guest: guest(),
            peer_uri: FakeWorld::peer_uri("h2"),
            migration_uri: None,
            downtime_limit: Duration::from_millis(300),
            bandwidth_limit_mib_s: None,
            auto_converge: false,
            post_copy: false,
            stream: Stream::default(),
            disks: vec![],
            incremental: false,
        };
        hypervisor.migrate(&migration, &CallGate::default())
    });
    bench.started().await;
    let bench = bench.restarted();
    look(&bench).await.unwrap();
    look(&bench).await.unwrap();
    let standing = bench.world.host("h1").outgoing_job(&guest());
    assert!(standing.unwrap().is_some(), "there is nothing to follow");
    within(async {
        while !bench.state().is_some_and(ended) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    job.join().unwrap().unwrap();
    assert_eq!(bench.state(), Some(MigrationState::Ended(Outcome::Done)));
    assert_eq!(bench.world.migrations_started("h1"), 1);
}

#[tokio::test]
async fn a_restarted_agent_goes_on_aborting_what_was_to_be_aborted() {
    let bench = Bench::new();
    bench.script(Ending::NeverConverges);
    let mut updates = bench.order(&order(1)).await.unwrap();
    until(&mut updates, |s| matches!(s, MigrationState::Running(_))).await;
    bench.started().await;
    let facts = CopyFacts {
        abort: Some(AbortCause::Cancelled),
        call: None,
    };
    let mut journal = opened(&order(1), unix_ms());
    journal.state = Some(MigrationState::Running(facts).into());
    let other = Bench::new();
    let stored = other.records.put_journal(&guest(), &journal);
    // An agent whose hypervisor has the endless job of the first one, and whose journal says "abort".
    let second = bench.second_driver(&other);
    adopt(&second, stored).await;
    within(async {
        while !other.state().is_some_and(ended) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert_eq!(
        other.state(),
        Some(MigrationState::Ended(Outcome::Cancelled))
    );
}

#[tokio::test]
async fn a_copy_that_outlives_its_call_keeps_its_deadline() {
    let bench = Bench::new();
    bench.script_broken_calls();
    let short = order_with(1, |o| o.deadline_ms = unix_ms() + SHORT_MS);
    let mut updates = bench.order(&short).await.unwrap();
    let state = until(&mut updates, ended).await;
    assert_eq!(
        Some(state),
        failed(FailureReason::Deadline, Whereabouts::Source)
    );
    assert_eq!(bench.at("h1"), Presence::Running);
}

#[tokio::test]
async fn a_copy_that_outlives_its_call_can_be_cancelled() {
    let bench = Bench::new();
    bench.script_broken_calls();
    let order = order(1);
    let mut updates = bench.order(&order).await.unwrap();
    until(&mut updates, |s| matches!(s, MigrationState::Running(_))).await;
    bench.started().await;
    let cancel = bench
        .driver
        .cancel(&order.guest, &order.id, (LEADER, Epoch(7)), "t");
    cancel.await.unwrap();
    let state = until(&mut updates, ended).await;
    assert_eq!(state, MigrationState::Ended(Outcome::Cancelled));
}

#[tokio::test]
async fn an_adopted_end_whose_job_stands_is_a_copy_again() {
    for unknown in [false, true] {
        let bench = Bench::new();
        bench.script_broken_calls();
        let mut updates = bench.order(&order(1)).await.unwrap();
        until(&mut updates, |s| matches!(s, MigrationState::Running(_))).await;
        bench.started().await;
        let order = order_with(1, |o| o.deadline_ms = unix_ms() + SHORT_MS);
        let facts = CopyFacts {
            abort: None,
            call: Some(CallResult::Error),
        };
        let last = Whereabouts::Unanswered;
        let mut journal = opened(&order, unix_ms());
        journal.state = Some(if unknown {
            MigrationState::Unknown { facts, last }.into()
        } else {
            MigrationState::Switching(facts).into()
        });
        let other = Bench::new();
        let stored = other.records.put_journal(&guest(), &journal);
        let second = bench.second_driver(&other);
        adopt(&second, stored).await;
        other
            .journalled(|s| matches!(s, MigrationState::Running(_)))
            .await;
        other.journalled(ended).await;
        assert_eq!(
            other.state(),
            failed(FailureReason::Deadline, Whereabouts::Source)
        );
    }
}

#[tokio::test]
async fn a_call_that_waits_for_a_connection_is_given_up_and_then_never_made() {
    let given_up = failed(FailureReason::Libvirt, Whereabouts::Source);
    for (cancel, end) in [
        (true, Some(MigrationState::Ended(Outcome::Cancelled))),
        // Without an abort it is given up when there was no sign of it for long.
        (false, given_up),
    ] {
        let bench = Bench::new();
        bench.world.hold("h1", Some(Hold::BeforeCall));
        let order = order(1);
        let mut updates = bench.order(&order).await.unwrap();
        until(&mut updates, |s| matches!(s, MigrationState::Running(_))).await;
        if cancel {
            let leader = (LEADER, Epoch(7));
            let cancelled = bench.driver.cancel(&order.guest, &order.id, leader, "t");
            cancelled.await.unwrap();
        }
        let state = until(&mut updates, ended).await;
        assert_eq!(Some(state), end);
        bench.idle().await;
        bench.world.hold("h1", None);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(
            bench.world.migrations_started("h1"),
            0,
            "the order acts late"
        );
    }
}

#[tokio::test]
async fn a_call_that_was_made_keeps_the_journal_open_until_it_is_over() {
    let bench = Bench::new();
    bench.world.hold("h1", Some(Hold::InCall));
    let mut updates = bench.order(&order(1)).await.unwrap();
    until(&mut updates, |s| {
        matches!(
            s,
            MigrationState::Unknown {
                last: Whereabouts::Source,
                ..
            }
        )
    })
    .await;
    bench.world.hold("h1", None);
    let state = until(&mut updates, ended).await;
    assert_eq!(state, MigrationState::Ended(Outcome::Done));
}

#[tokio::test]
async fn somebody_elses_migration_is_neither_followed_nor_aborted() {
    let job = |elapsed_ms| JobProgress {
        elapsed: Duration::from_millis(elapsed_ms),
        ..JobProgress::default()
    };
    let over = unix_ms() - 10_000;
    assert!(is_ours(&job(60_000), Some(over)));
    assert!(!is_ours(&job(5_000), Some(over)));
    assert!(is_ours(&job(0), None), "its call is out");
}

#[tokio::test]
async fn a_journal_that_was_closed_since_it_was_listed_stays_closed() {
    let bench = Bench::new();
    let mut journal = opened(&order(1), unix_ms());
    journal.state = Some(MigrationState::Running(CopyFacts::default()).into());
    let listed = bench.records.put_journal(&guest(), &journal);
    let closed = MigrationState::Ended(Outcome::Done);
    journal.state = Some(closed.into());
    let stands = bench.records.put_journal(&guest(), &journal);
    adopt(&bench.driver, listed).await;
    assert_eq!(bench.driver.running.count(), 0, "its place is free");
    bench.records.away.store(true, SeqCst);
    adopt(&bench.driver, stands).await;
    assert_eq!(bench.driver.running.count(), 0);
    assert_eq!(bench.state(), Some(closed));
}

#[tokio::test]
async fn an_adopted_preparation_never_began() {
    let bench = Bench::new();
    bench.records.put_order(&order(1));
    bench
        .records
        .put_journal(&guest(), &opened(&order(1), unix_ms()));
    look(&bench).await.unwrap();
    within(async {
        while !bench.state().is_some_and(ended) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert_eq!(
        bench.state(),
        failed(FailureReason::Interrupted, Whereabouts::Source)
    );
    assert_eq!(bench.world.migrations_started("h1"), 0);
}

#[tokio::test]
async fn a_closed_journal_goes_when_the_leader_has_removed_the_order() {
    let bench = Bench::new();
    run(&bench).await;
    assert_eq!(look(&bench).await.unwrap(), 1);
    assert!(
        bench.records.journal(&guest()).is_some(),
        "the leader has not read it yet"
    );
    bench.records.drop_order(&guest());
    assert_eq!(look(&bench).await.unwrap(), 0);
    assert!(bench.records.journal(&guest()).is_none());
}

#[tokio::test]
async fn a_journal_that_is_not_understood_is_left_alone_and_known() {
    let bench = Bench::new();
    let mut journal = opened(&order(1), unix_ms());
    journal.state = None;
    let stored = bench.records.put_journal(&guest(), &journal);
    let mut strange = crate::adopt::Strange::default();
    for _ in 0..2 {
        let waiting = crate::adopt::look(&bench.driver, &mut strange).await;
        assert_eq!(waiting.unwrap(), 0);
        let known = (order(1).id.to_string(), stored.revision);
        assert_eq!(strange.iter().collect::<Vec<_>>(), [&known]);
    }
    assert_eq!(bench.records.journal(&guest()), Some(journal));
    assert_eq!(bench.driver.running.count(), 0);
}

#[test]
fn a_refusal_is_told_as_an_end() {
    let update = refused_update(&order(1).id, (Refusal::NoMemory, "why".into()));
    let state = super::state_of_update(&update).unwrap();
    assert_eq!(
        state,
        MigrationState::Ended(Outcome::Refused(Refusal::NoMemory))
    );
}
