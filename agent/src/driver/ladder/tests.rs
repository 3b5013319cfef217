use std::time::Duration;

use evenkeel_proto::order::Order;
use evenkeel_types::{FailureReason, MigrationState, Outcome, Presence, Whereabouts};

use crate::driver::bench::{Bench, guest, order_with, until};
use crate::hypervisor::fake::{Ending, Script};

/// An order that is patient for 40 ms.
fn impatient(post_copy: bool) -> Order {
    order_with(1, |order| {
        let options = order.options.get_or_insert_default();
        options.downtime_steps_ms = vec![600, 1200];
        options.patience_ms = 40;
        options.post_copy = post_copy;
    })
}

/// Carries an order out on a guest whose copy ends only when it is allowed `pause_needed`.
async fn carry_out(order: &Order, pause_needed: Option<Duration>) -> (Bench, MigrationState) {
    let bench = Bench::new();
    let script = Script {
        ending: Ending::NeverConverges,
        pause_needed,
        ..Script::default()
    };
    bench.world.script("h1", script);
    let mut updates = bench.order(order).await.unwrap();
    let state = until(&mut updates, |s| s.outcome().is_some()).await;
    bench.idle().await;
    (bench, state)
}

fn detail(bench: &Bench) -> String {
    bench.records.journal(&guest()).unwrap().detail
}

#[tokio::test]
async fn a_copy_without_headway_is_allowed_more_until_it_ends() {
    let (bench, state) = carry_out(&impatient(false), Some(Duration::from_millis(1200))).await;
    assert_eq!(state, MigrationState::Ended(Outcome::Done));
    let detail = detail(&bench);
    assert!(detail.contains("allowed a pause of 600ms"), "{detail}");
    assert!(detail.contains("allowed a pause of 1.2s"), "{detail}");
}

#[tokio::test]
async fn a_copy_that_nothing_helps_is_given_up_and_the_guest_stays() {
    let (bench, state) = carry_out(&impatient(false), None).await;
    let reason = FailureReason::NotConverging;
    let guest = Whereabouts::Source;
    let expected = Outcome::Failed { reason, guest };
    assert_eq!(state, MigrationState::Ended(expected));
    assert_eq!(bench.at("h1"), Presence::Running);
    assert_eq!(bench.at("h2"), Presence::Absent);
    assert!(detail(&bench).contains("given up"));
}

#[tokio::test]
async fn where_it_may_be_a_guest_is_handed_over_early() {
    let (bench, state) = carry_out(&impatient(true), None).await;
    assert_eq!(state, MigrationState::Ended(Outcome::Done));
    assert_eq!(bench.at("h2"), Presence::Running);
    assert!(detail(&bench).contains("handed over early"));
}
