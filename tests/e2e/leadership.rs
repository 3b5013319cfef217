//! Leaders die, and leaders that do not know that they are deposed do no harm.

use std::time::Duration;

use etcd_client::TxnOp;
use evenkeel_proto::v1;
use evenkeel_proto::v1::MigrationPhase;
use evenkeel_scheduler::lease::{CommitError, Mandate, commit};
use evenkeel_tests::etcd::{guest_id, keys};
use evenkeel_tests::network::Caller;
use evenkeel_tests::schedulers::ask;
use evenkeel_tests::{Lab, LabOptions, tell, until, wait_for};
use evenkeel_types::Epoch;
use tokio::time::Instant;

use crate::{END, SOON, assert_done_once, begin_slow_migration, is_copying};

/// A standby leads within this time of its leader's death: twice what the lease and an election take.
const TAKEOVER: Duration = Duration::from_secs(10);

/// A key that no daemon knows.
const SPARE_KEY: &str = "/evenkeel/v1/lab/test/fenced";

#[test]
fn a_killed_leaders_migration_is_adopted_and_completes_once() {
    let lab = Lab::up(&LabOptions::default());
    let order = begin_slow_migration(&lab, "g", "h1", "h2");
    let leader = lab.some_leader();
    lab.fault(&["scheduler", &leader, "kill"]);
    let took = until("a standby to lead", TAKEOVER, || lab.leader().is_some());
    assert!(
        is_copying(&lab, "h1", "g"),
        "the migration was over too soon to be adopted"
    );
    tell!(
        "a standby led {:.1} s after its leader was killed",
        took.as_secs_f64()
    );
    lab.full_speed("h1");
    let migration = lab.wait_for_end(&order.id, END);
    assert_done_once(&lab, &migration, "g");
}

#[test]
fn a_deposed_leader_is_refused_by_agents_and_by_etcd() {
    let lab = Lab::up(&LabOptions::default());
    lab.add_guest("h1", "g", &[]);
    lab.add_guest("h1", "stale", &[]);
    lab.wait_for_guest("g");
    let leader = lab.some_leader();
    let (old_key, old_epoch, info) = lab.leader_key().expect("a leader");
    assert_eq!(info.name, leader);

    lab.fault(&["scheduler", &leader, "stop"]);
    let (key, _) = wait_for("another to lead", SOON, || newer(&lab, old_epoch));
    the_agent_refuses_its_order(&lab, &leader, old_epoch, &[&old_key, &key]);

    wait_for("another to lead again", SOON, || lab.leader());
    let (new_key, new_epoch) = newer(&lab, old_epoch).expect("a newer leader");
    etcd_fences(&lab, (&old_key, old_epoch), (&new_key, new_epoch));

    lab.fault(&["scheduler", &leader, "cont"]);
    let name = leader.as_str();
    until("the deposed leader to know it", SOON, || {
        lab.status(name).is_some_and(|s| s.leader != name)
    });
    // Asked for a write, it passes it on; whatever is ordered now carries an epoch that leads.
    let asked = wait_for("the deposed leader to follow", SOON, || {
        lab.migrate(Caller::Operator, name, "g", "h2").ok()
    });
    assert!(asked.epoch >= new_epoch, "the order that it passed on");
    let migration = lab.wait_for_end(&asked.id, END);
    assert_done_once(&lab, &migration, "g");
}

/// Key and epoch that lead, if they are newer than that.
fn newer(lab: &Lab, epoch: i64) -> Option<(String, i64)> {
    let (key, leading, _) = lab.leader_key()?;
    (leading > epoch).then_some((key, leading))
}

/// The order even stands in etcd, as if it had been put there in time: the other schedulers are frozen for a
/// moment, so that they do not tidy it away.
fn the_agent_refuses_its_order(lab: &Lab, deposed: &str, epoch: i64, leader_keys: &[&str]) {
    let stale = order_by_hand(lab, epoch);
    let key = keys().order(&guest_id(&stale.guest_uuid));
    let others = || ["s1", "s2", "s3"].into_iter().filter(|s| *s != deposed);
    others().for_each(|other| lab.fault(&["scheduler", other, "stop"]));
    lab.inside(|| async {
        let store = lab.store(Caller::Operator).await;
        store.put(&key, &stale, None).await.unwrap();
    });
    for leader_key in leader_keys {
        let (phase, reason) = send_order(lab, &stale, leader_key);
        assert_eq!(
            (phase, reason.as_str()),
            (MigrationPhase::Refused, "stale_epoch"),
            "an order of epoch {epoch} under {leader_key}"
        );
    }
    assert_eq!(lab.journal("h1", &stale.guest_uuid), None, "nothing began");
    lab.inside(|| async {
        let store = lab.store(Caller::Operator).await;
        store.delete(&key).await.unwrap();
    });
    others().for_each(|other| lab.fault(&["scheduler", other, "cont"]));
    lab.assert_lives_on("stale", "h1");
}

fn order_by_hand(lab: &Lab, epoch: i64) -> v1::Order {
    let now = evenkeel_daemon::unix_ms();
    v1::Order {
        id: evenkeel_types::OrderId::from_random(7).to_string(),
        guest_uuid: lab.uuid("stale"),
        guest_name: "stale".to_owned(),
        source: "h1".to_owned(),
        target: "h2".to_owned(),
        options: Some(v1::MoveOptions {
            kind: v1::MoveKind::Live.into(),
            downtime_limit_ms: 300,
            ..Default::default()
        }),
        created_at_ms: now,
        deadline_ms: now + 60_000,
        epoch,
        trigger: "manual".to_owned(),
        memory_mib: 32,
        ..Default::default()
    }
}

/// Sends an order straight to the source agent, with a scheduler's certificate; its first answer.
pub(crate) fn send_order(
    lab: &Lab,
    order: &v1::Order,
    leader_key: &str,
) -> (MigrationPhase, String) {
    lab.inside(|| async {
        let request = v1::MigrateRequest {
            order: Some(order.clone()),
            leader_key: leader_key.to_owned(),
        };
        let mut agent = lab.agent(Caller::Scheduler("s1"), "h1");
        let mut answers = agent.migrate(ask(request)).await.unwrap().into_inner();
        let update = answers.message().await.unwrap().expect("an answer");
        let state = update.state.unwrap_or_default();
        (state.phase(), state.reason)
    })
}

/// A write under the old mandate fails as deposed, one under the new mandate goes through.
fn etcd_fences(lab: &Lab, old: (&str, i64), new: (&str, i64)) {
    let mandate = |(key, epoch): (&str, i64), seconds: u64| Mandate {
        epoch: Epoch(epoch),
        key: key.to_owned(),
        valid_until: Instant::now() + Duration::from_secs(seconds),
    };
    let write = |value: &'static str| vec![TxnOp::put(SPARE_KEY, value, None)];
    lab.inside(|| async {
        let store = lab.store(Caller::Scheduler("s1")).await;
        let deposed = commit(&store, &mandate(old, 9), vec![], write("old")).await;
        assert!(
            matches!(deposed, Err(CommitError::Deposed(Epoch(e))) if e == old.1),
            "{deposed:?}"
        );
        let run_out = commit(&store, &mandate(new, 0), vec![], write("late")).await;
        assert!(
            matches!(run_out, Err(CommitError::RunOut(_))),
            "{run_out:?}"
        );
        assert_eq!(store.get(SPARE_KEY).await.unwrap(), None);
        commit(&store, &mandate(new, 9), vec![], write("new"))
            .await
            .unwrap();
        let entry = store.get(SPARE_KEY).await.unwrap().unwrap();
        assert_eq!(entry.value, b"new");
    });
}
