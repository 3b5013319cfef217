//! The loop by hand, over an etcd that is not there.

use evenkeel_daemon::install_crypto;
use evenkeel_daemon::metrics::Registry;
use evenkeel_proto::identity::TlsPem;
use evenkeel_proto::v1;
use evenkeel_types::Epoch;
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::watch;

use super::*;

/// A loop that does nothing by itself.
struct Bench {
    controller: Controller,
    mandate: watch::Sender<Option<Mandate>>,
}

fn certificate() -> TlsPem {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["s1".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    TlsPem {
        ca: certificate.clone().into(),
        certificate: certificate.into(),
        key: key.serialize_pem().into(),
    }
}

/// A replica over an etcd that is not there, and what makes it lead.
pub(crate) async fn parts() -> (watch::Sender<Option<Mandate>>, Parts) {
    install_crypto();
    let (tls, registry) = (certificate(), Registry::new());
    let endpoints = ["https://127.0.0.1:1".to_owned()];
    let (mandate, standing) = Standing::told();
    let parts = Parts {
        cluster: "lab".parse().unwrap(),
        name: "s1".parse().unwrap(),
        store: Store::connect(&endpoints, &tls, &registry).await.unwrap(),
        standing,
        agents: Agents::new(tls),
        metrics: Metrics::new(&registry).unwrap(),
        readiness: Readiness::default(),
    };
    (mandate, parts)
}

impl Bench {
    /// A leader that has read an empty fleet.
    async fn leading() -> Self {
        let (mandate, parts) = parts().await;
        let mut controller = Controller::new(parts);
        controller.fleet.complete = true;
        let bench = Self {
            controller,
            mandate,
        };
        bench.elect(7);
        bench
    }

    fn elect(&self, epoch: i64) {
        self.mandate.send_replace(Some(Mandate {
            epoch: Epoch(epoch),
            key: "leader".to_owned(),
            valid_until: tokio::time::Instant::now() + Duration::from_secs(600),
        }));
    }

    /// A policy stands in etcd from now on.
    fn govern(&mut self, text: &str, revision: u64) {
        let record = v1::PolicyRecord {
            text: text.to_owned(),
            revision,
            ..Default::default()
        };
        let mod_revision = 100 + i64::try_from(revision).unwrap();
        self.controller.fleet.policy = Some((record, mod_revision));
    }

    /// Ticks until a plan has been made, if one is being made.
    async fn plan(&mut self) {
        self.controller.tick().await;
        if self.controller.planning.is_some() {
            let plan = made(&mut self.controller.planning).await;
            self.controller.take_plan(plan).await;
        }
    }
}

#[tokio::test]
async fn in_mode_off_nothing_is_planned_and_no_plan_stands() {
    let mut bench = Bench::leading().await;
    bench.plan().await;
    assert!(bench.controller.planned().is_some());
    bench.govern("schema = 1\nmode = \"off\"\n", 1);
    bench.controller.tick().await;
    assert!(bench.controller.planned().is_none());
    bench.controller.pace.hasten(0);
    bench.controller.tick().await;
    assert!(bench.controller.planning.is_none());
}

#[tokio::test]
async fn what_a_plan_wanted_ends_with_the_leadership_it_was_made_under() {
    let mut bench = Bench::leading().await;
    bench.controller.tick().await;
    bench.controller.core.wanted.insert("h1".parse().unwrap());
    bench.elect(8);
    bench.controller.tick().await;
    assert!(bench.controller.core.wanted.is_empty());
}

#[tokio::test]
async fn when_the_clock_was_set_nothing_moves_until_enough_was_watched_again() {
    let mut bench = Bench::leading().await;
    bench.govern("schema = 1\nmode = \"automatic\"\n", 1);
    bench.controller.tick().await;
    let warming = |c: &Controller| {
        c.assessment
            .holds
            .iter()
            .any(|h| h.as_str() == "warming_up")
    };
    let long_ago = unix_ms() - 3_600_000;
    bench.controller.core = Core::new(bench.controller.active.policy());
    let (fleet, active) = (&bench.controller.fleet, &bench.controller.active);
    drop(bench.controller.core.assess(fleet, active, long_ago));
    bench.controller.tick().await;
    assert!(!warming(&bench.controller), "it has watched for an hour");
    bench.controller.clock = Clock::new(unix_ms() + 60_000, Instant::now());
    bench.controller.tick().await;
    assert!(warming(&bench.controller));
}

#[tokio::test]
async fn a_broken_policy_is_replaced_at_its_own_revision_and_moves_nothing_by_hand() {
    let mut bench = Bench::leading().await;
    bench.govern("schema = 1\nmode = \"fast\"\n", 4);
    let kept = (1..=6).map(|n| (n, v1::PolicyRecord::default()));
    bench.controller.fleet.policy_history.extend(kept);
    bench.controller.tick().await;
    let controller = &mut bench.controller;
    assert_eq!(controller.active.revision(), 4);
    let request = |expected_revision| v1::ApplyPolicyRequest {
        text: "schema = 1\n".to_owned(),
        expected_revision,
        dry_run: true,
        ..Default::default()
    };
    let mandate = || Ok(controller.parts.standing.mandate().unwrap());
    let (first, second) = (mandate(), mandate());
    let reply = controller.apply_policy(first, request(4), "alice").await;
    assert_eq!(
        reply.unwrap().policy_revision,
        7,
        "no revision is used twice"
    );
    let moved = controller
        .migrate(
            second,
            v1::OperatorMigrateRequest::default(),
            "alice".to_owned(),
        )
        .await;
    assert!(
        moved
            .unwrap_err()
            .to_string()
            .contains("the policy in etcd is broken")
    );
}

#[tokio::test]
async fn a_mode_that_is_in_force_already_is_not_written_again() {
    let mut bench = Bench::leading().await;
    bench.govern("schema = 1\nmode = \"automatic\"\n", 4);
    bench.controller.tick().await;
    let controller = &mut bench.controller;
    let request = v1::SetModeRequest {
        mode: "automatic".to_owned(),
        ..Default::default()
    };
    let mandate = Ok(controller.parts.standing.mandate().unwrap());
    let reply = controller.set_mode(mandate, request, "alice").await;
    assert_eq!(
        reply.unwrap().policy_revision,
        4,
        "there is no etcd to write to"
    );
}

#[tokio::test]
async fn a_policy_that_no_key_should_hold_is_refused() {
    let mut bench = Bench::leading().await;
    let request = v1::ApplyPolicyRequest {
        text: format!("schema = 1\n{}", "# x\n".repeat(70_000)),
        ..Default::default()
    };
    let mandate = Ok(bench.controller.parts.standing.mandate().unwrap());
    let refused = bench
        .controller
        .apply_policy(mandate, request, "alice")
        .await;
    assert!(
        matches!(refused, Err(WriteError::Invalid(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn who_asks_after_a_write_is_told_of_it() {
    let mut bench = Bench::leading().await;
    let controller = &mut bench.controller;
    controller.tick().await;
    let facts = crate::core::tests::facts("h1");
    controller.fleet.hosts.insert(facts.name.clone(), facts);
    let (reply, answer) = oneshot::channel();
    let request = v1::SetPauseRequest {
        dry_run: true,
        ..Default::default()
    };
    let write = Write::SetPause(request, "alice".to_owned(), reply);
    assert!(controller.assessment.snapshot.host("h1").is_none());
    controller.write(write).await;
    assert!(answer.await.unwrap().is_ok());
    assert!(
        controller.assessment.snapshot.host("h1").is_some(),
        "no tick has come since"
    );
}

#[tokio::test]
async fn the_loop_ends_with_the_feed_of_its_picture() {
    let (_, parts) = parts().await;
    let (changes, mirrored) = mpsc::channel(1);
    let (_handle, running) = start(parts, mirrored, CancellationToken::new());
    drop(changes);
    let ended = tokio::time::timeout(Duration::from_secs(30), running).await;
    assert!(
        ended.is_ok(),
        "main ends the process when the loop has ended"
    );
}

#[tokio::test]
async fn intents_are_for_hosts_that_are_known_and_a_dry_run_writes_none() {
    let mut bench = Bench::leading().await;
    let mandate = || bench.controller.parts.standing.mandate().unwrap();
    let (first, second, third) = (mandate(), mandate(), mandate());
    let request = |dry_run| v1::SetIntentRequest {
        hosts: vec!["h1".to_owned()],
        kind: v1::IntentKind::Drain.into(),
        dry_run,
        ..Default::default()
    };
    let controller = &mut bench.controller;
    let unknown = controller
        .set_intent(Ok(first), request(true), "alice")
        .await;
    assert!(
        matches!(unknown, Err(WriteError::NotFound(_))),
        "{unknown:?}"
    );
    let facts = crate::core::tests::facts("h1");
    controller.fleet.hosts.insert(facts.name.clone(), facts);
    let dry = controller
        .set_intent(Ok(second), request(true), "alice")
        .await;
    assert_eq!(dry.unwrap().intents[0].by, "alice");
    assert!(controller.fleet.intents.is_empty(), "nothing was asked for");
    let written = controller
        .set_intent(Ok(third), request(false), "alice")
        .await;
    assert!(matches!(written, Err(WriteError::Commit(_))), "{written:?}");
    assert!(controller.fleet.intents.is_empty(), "etcd is not there");
}
