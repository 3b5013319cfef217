use std::sync::atomic::Ordering::SeqCst;

use evenkeel_types::{Epoch, FailureReason, MigrationState, Outcome, Place, Presence, Whereabouts};

use super::Word;
use crate::adopt;
use crate::driver::Updates;
use crate::driver::bench::{Bench, EPOCH, LEADER, guest, order, until, within};
use crate::hypervisor::fake::Ending;
use crate::journal::state_of;

fn is_unknown(state: MigrationState) -> bool {
    matches!(state, MigrationState::Unknown { .. })
}

fn ended(state: MigrationState) -> bool {
    state.outcome().is_some()
}

fn resolved(guest: Whereabouts) -> MigrationState {
    let reason = FailureReason::Resolved;
    MigrationState::Ended(Outcome::Failed { reason, guest })
}

fn word(place: Place) -> Word {
    Word {
        place,
        discard_source: false,
        by: "operator/alice".to_owned(),
    }
}

/// A migration whose outcome is unknown after `ending`.
async fn unknown(ending: Ending) -> (Bench, Updates) {
    let bench = Bench::new();
    bench.script(ending);
    let mut updates = bench.order(&order(1)).await.unwrap();
    until(&mut updates, is_unknown).await;
    (bench, updates)
}

async fn say(bench: &Bench, word: &Word) -> Result<String, String> {
    let id = order(1).id;
    let leader = (LEADER, EPOCH);
    bench.driver.resolve(&guest(), &id, leader, word).await
}

#[tokio::test]
async fn an_operators_word_closes_what_the_hosts_cannot() {
    let (bench, mut updates) = unknown(Ending::LeavesPausedSource).await;
    let said = say(&bench, &word(Place::Target)).await.unwrap();
    assert!(
        said.contains("h1: paused_by_migration, h2: running"),
        "{said}"
    );
    let state = until(&mut updates, ended).await;
    assert_eq!(state, resolved(Whereabouts::Target));
    bench.idle().await;
    let journal = bench.records.journal(&guest()).unwrap();
    assert_eq!(state_of(&journal), Some(state));
    assert!(journal.detail.contains("resolved by operator/alice"));
    let places = (bench.at("h1"), bench.at("h2"));
    assert_eq!(
        places,
        (Presence::PausedByMigration, Presence::Running),
        "nothing is destroyed unasked"
    );
}

#[tokio::test]
async fn the_paused_half_goes_with_its_definition_when_the_operator_says_so() {
    for (persistent, left) in [(true, Presence::Absent), (false, Presence::ShutOff)] {
        let (bench, mut updates) = unknown(Ending::LeavesPausedSource).await;
        bench
            .world
            .edit_counters("h2", &guest(), |c| c.persistent = persistent);
        let word = Word {
            discard_source: true,
            ..word(Place::Target)
        };
        let said = say(&bench, &word).await.unwrap();
        assert!(said.contains("was destroyed"), "{said}");
        assert_eq!(said.contains("definition was not"), !persistent, "{said}");
        until(&mut updates, ended).await;
        assert_eq!(bench.at("h1"), left);
        assert_eq!(bench.at("h2"), Presence::Running);
    }
}

#[tokio::test]
async fn what_the_operator_says_is_the_guest_is_not_destroyed() {
    // Both hosts agree with the word, for the target is silent and the half at the source is all that is left.
    let (bench, _updates) = unknown(Ending::LeavesPausedSource).await;
    bench.peers.away.store(true, SeqCst);
    let word = Word {
        discard_source: true,
        ..word(Place::Source)
    };
    let denied = say(&bench, &word).await.unwrap_err();
    assert!(denied.contains("it is the guest"), "{denied}");
    assert_eq!(bench.at("h1"), Presence::PausedByMigration);
    assert!(bench.state().is_some_and(is_unknown));
}

#[tokio::test]
async fn a_word_that_a_host_denies_closes_nothing() {
    let (bench, _updates) = unknown(Ending::RunsTwice).await;
    for place in Place::ALL {
        let denied = say(&bench, &word(place)).await.unwrap_err();
        assert!(denied.contains("has it running"), "{place:?}: {denied}");
    }
    let no_half = Word {
        discard_source: true,
        ..word(Place::Source)
    };
    bench
        .world
        .set_presence("h2", &guest(), Presence::PausedByMigration);
    let denied = say(&bench, &no_half).await.unwrap_err();
    assert!(denied.contains("no half of it is paused"), "{denied}");
    assert!(bench.state().is_some_and(is_unknown));
    assert_eq!(bench.at("h1"), Presence::Running);
}

#[tokio::test]
async fn only_the_leader_brings_a_word_and_only_to_what_is_unknown() {
    let (bench, mut updates) = unknown(Ending::LeavesPausedTarget).await;
    let (guest, id) = (guest(), order(1).id);
    let deposed = (LEADER, Epoch(EPOCH.0 - 1));
    let source = word(Place::Source);
    let refused = bench.driver.resolve(&guest, &id, deposed, &source).await;
    assert!(refused.unwrap_err().contains("stale_epoch"));
    say(&bench, &source).await.unwrap();
    assert_eq!(
        until(&mut updates, ended).await,
        resolved(Whereabouts::Source)
    );
    bench.idle().await;
    let again = say(&bench, &source).await.unwrap_err();
    assert!(again.contains("not under way"), "{again}");

    let bench = Bench::new();
    bench.script_slow_copies();
    let mut updates = bench.order(&order(1)).await.unwrap();
    until(&mut updates, |s| matches!(s, MigrationState::Running(_))).await;
    bench.started().await;
    let early = say(&bench, &word(Place::Source)).await.unwrap_err();
    assert!(early.contains("has a job for it"), "{early}");
    assert_eq!(
        until(&mut updates, ended).await,
        MigrationState::Ended(Outcome::Done)
    );
}

#[tokio::test]
async fn a_silent_target_denies_nothing() {
    let (bench, mut updates) = unknown(Ending::LeavesPausedTarget).await;
    bench.peers.away.store(true, SeqCst);
    say(&bench, &word(Place::Source)).await.unwrap();
    assert_eq!(
        until(&mut updates, ended).await,
        resolved(Whereabouts::Source)
    );
}

#[tokio::test]
async fn a_journal_that_the_leader_has_closed_ends_the_task() {
    let (bench, mut updates) = unknown(Ending::LeavesPausedSource).await;
    // The agent was cut off from etcd; an operator has spoken to the leader meanwhile.
    bench.records.away.store(true, SeqCst);
    let mut journal = bench.records.journal(&guest()).unwrap();
    journal.state = Some(resolved(Whereabouts::Target).into());
    bench.records.put_journal(&guest(), &journal);
    bench.records.away.store(false, SeqCst);
    within(async {
        while bench.driver.running.has(&guest()) {
            adopt::look(&bench.driver, &mut Default::default())
                .await
                .unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    })
    .await;
    assert_eq!(
        until(&mut updates, ended).await,
        resolved(Whereabouts::Target)
    );
}

#[tokio::test]
async fn a_definition_left_behind_goes_unless_it_is_the_only_one() {
    for (persistent, left) in [(true, Presence::Absent), (false, Presence::ShutOff)] {
        let bench = Bench::new();
        bench.script(Ending::LeavesPausedSource);
        let mut updates = bench.order(&order(1)).await.unwrap();
        until(&mut updates, is_unknown).await;
        bench
            .world
            .edit_counters("h2", &guest(), |c| c.persistent = persistent);
        bench.world.set_presence("h1", &guest(), Presence::ShutOff);
        let state = until(&mut updates, ended).await;
        assert_eq!(state, MigrationState::Ended(Outcome::Done));
        bench.idle().await;
        assert_eq!(bench.at("h1"), left);
    }
}
