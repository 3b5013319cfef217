//! Evenkeel end to end: real daemons, etcd, libvirt, QEMU guests and migrations, in labs of their own.
//!
//! Needs root and what `deploy/setup-debian --lab` installs; built only with the feature `lab`. Without
//! these it fails: a claim that was not tested is not shown. docs/testing.md says what each module shows.

#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod abort;
mod alerts;
mod apply;
#[path = "../monitoring/catalogue.rs"]
mod catalogue;
mod configuration;
mod converge;
mod dashboards;
mod demo;
mod dirty;
mod drain;
mod events;
mod identity;
mod kinds;
mod leadership;
mod locks;
mod measuring;
mod metrics;
mod modes;
mod outage;
mod policy;
mod prometheus;
mod resolve;
mod source_agent;
mod steady;
mod trouble;

use std::time::Duration;

use evenkeel_proto::v1::{Migration, MigrationPhase, MoveKind, MoveOptions, Order};
use evenkeel_tests::etcd::{guest_id, keys};
use evenkeel_tests::network::Caller;
use evenkeel_tests::schedulers::phase_of;
use evenkeel_tests::{Lab, until};

/// Something that follows from what was done has come about within this time, however busy the machine is.
const SOON: Duration = Duration::from_secs(60);
/// A slowed migration is over within this time once its link is fast again.
const END: Duration = SOON;
/// The demo's policy: the patience of somebody who watches.
const QUICK_POLICY: &str = include_str!("../../deploy/lab/demo-policy.toml");

/// What `evenkeel WORDS` said, which must end with this code.
fn ends_with(lab: &Lab, code: i32, words: &[&str]) -> String {
    let done = lab.attempt(&[&["evenkeel"], words].concat());
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    assert_eq!(done.status.code(), Some(code), "evenkeel {words:?}: {said}");
    said
}

/// Orders a migration over a slowed link and waits until memory is being copied.
fn begin_slow_migration(lab: &Lab, guest: &str, source: &str, target: &str) -> Order {
    lab.add_slow_guest(source, guest);
    lab.wait_for_guest(guest);
    let leader = lab.some_leader();
    let order = lab
        .migrate(Caller::Operator, &leader, guest, target)
        .expect("the leader orders it");
    until("memory to be copied", SOON, || {
        is_copying(lab, source, guest)
    });
    order
}

/// Orders a migration from h1 to h2 over a slowed link that must be over within `ms`.
fn order_with_deadline(lab: &Lab, guest: &str, ms: i64) -> Order {
    lab.add_slow_guest("h1", guest);
    lab.wait_for_guest(guest);
    let (_, epoch, _) = lab.leader_key().expect("a leader");
    let now = evenkeel_daemon::unix_ms();
    let order = Order {
        id: evenkeel_types::OrderId::from_random(11).to_string(),
        guest_uuid: lab.uuid(guest),
        guest_name: guest.to_owned(),
        source: "h1".to_owned(),
        target: "h2".to_owned(),
        options: Some(MoveOptions {
            kind: MoveKind::Live.into(),
            downtime_limit_ms: 300,
            ..Default::default()
        }),
        created_at_ms: now,
        deadline_ms: now + ms,
        epoch,
        trigger: "manual".to_owned(),
        memory_mib: 96,
        ..Default::default()
    };
    // Under the leader's epoch, so that it takes it for its own and delivers it.
    lab.inside(|| async {
        let key = keys().order(&guest_id(&order.guest_uuid));
        let store = lab.store(Caller::Operator).await;
        store.put(&key, &order, None).await.expect("etcd takes it");
    });
    order
}

fn is_copying(lab: &Lab, source: &str, guest: &str) -> bool {
    let journal = lab.journal(source, &lab.uuid(guest));
    journal.is_some_and(|journal| {
        let phase = journal.state.as_ref().map(|state| state.phase());
        phase == Some(MigrationPhase::Running) && journal.ended_at_ms == 0
    })
}

/// It was ordered once and carried out once, to its end, and nothing is left of it.
fn assert_done_once(lab: &Lab, migration: &Migration, guest: &str) {
    assert_carried_out_once(lab, migration, guest);
    let uuid = lab.uuid(guest);
    let for_guest: Vec<String> = lab
        .orders_ever()
        .into_iter()
        .filter(|other| other.guest_uuid == uuid)
        .map(|other| other.id)
        .collect();
    let order = migration.order.as_ref().expect("its order");
    assert_eq!(for_guest, [order.id.as_str()], "orders for {guest}, ever");
}

/// Of all orders for the guest only this was taken up, once, and carried out to its end; nothing is left of it.
fn assert_carried_out_once(lab: &Lab, migration: &Migration, guest: &str) {
    assert_eq!(phase_of(migration), MigrationPhase::Done, "{migration:?}");
    let order = migration.order.as_ref().expect("its order");
    let uuid = lab.uuid(guest);
    until("the order to be removed", SOON, || {
        lab.orders().iter().all(|left| left.guest_uuid != uuid)
    });
    let journals = lab.journal_ever(&order.source, &uuid);
    let ids: Vec<&str> = journals
        .iter()
        .filter_map(|journal| journal.order.as_ref().map(|o| o.id.as_str()))
        .collect();
    assert!(ids.iter().all(|id| *id == order.id), "journals: {ids:?}");
    let ends = journals.iter().filter(|j| j.ended_at_ms > 0).count();
    assert_eq!(ends, 1, "the journal closes once");
    lab.assert_lives_on(guest, &order.target);
}
