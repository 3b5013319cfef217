//! Who may do what: roles by certificate, also behind a forwarding follower; strangers get nowhere.

use std::process::Command;

use evenkeel_proto::ON_BEHALF_OF;
use evenkeel_proto::identity::TlsPem;
use evenkeel_proto::v1;
use evenkeel_proto::v1::agent_service_client::AgentServiceClient;
use evenkeel_proto::v1::scheduler_service_client::SchedulerServiceClient;
use evenkeel_tests::etcd::keys;
use evenkeel_tests::lab::repository;
use evenkeel_tests::network::Caller;
use evenkeel_tests::schedulers::ask;
use evenkeel_tests::{Lab, LabOptions, until};
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::SOON;

const LEADER_ADDRESS: [&str; 3] = ["10.90.0.2:7440", "10.90.0.3:7440", "10.90.0.4:7440"];
const AGENT_ADDRESS: &str = "10.90.0.11:7441";

#[test]
fn roles_are_held_to_directly_and_through_followers() {
    let lab = Lab::up(&LabOptions::default());
    viewers_look_and_operators_change(&lab);
    only_schedulers_speak_for_others(&lab);
    agents_obey_schedulers_only(&lab);
    strangers_get_nowhere(&lab);
}

fn viewers_look_and_operators_change(lab: &Lab) {
    let (leader, follower) = (lab.some_leader(), lab.some_follower());
    for scheduler in [&leader, &follower] {
        let looked = lab.inside(|| async {
            let mut client = lab.scheduler(Caller::Viewer, scheduler);
            client.get_status(ask(v1::GetStatusRequest {})).await
        });
        assert!(looked.is_ok(), "a viewer looks at {scheduler}: {looked:?}");
        let changed = lab.set_mode(Caller::Viewer, scheduler, "off");
        let code = changed.map_err(|status| status.code());
        assert_eq!(
            code,
            Err(Code::PermissionDenied),
            "a viewer, by {scheduler}"
        );
        let moved = lab.migrate(Caller::Viewer, scheduler, "g", "h2");
        assert_eq!(
            moved.map_err(|status| status.code()),
            Err(Code::PermissionDenied)
        );
        // Agents have no business with schedulers at all.
        let agent = lab.set_mode(Caller::Agent("h1"), scheduler, "off");
        assert_eq!(
            agent.map_err(|status| status.code()),
            Err(Code::PermissionDenied)
        );
        let own = lab.set_mode(Caller::Scheduler("s1"), scheduler, "off");
        assert_eq!(
            own.map_err(|status| status.code()),
            Err(Code::PermissionDenied)
        );
    }
    assert_eq!(policy(lab), None, "nothing was changed");

    lab.set_mode(Caller::Operator, &follower, "off").unwrap();
    let record = policy(lab).expect("the follower passed it on");
    assert_eq!(record.author, "operator/lab", "by whom, in etcd");
    let followed = || lab.status(&follower).is_some_and(|s| s.mode == "off");
    until("the follower to know the mode", SOON, followed);
}

fn policy(lab: &Lab) -> Option<v1::PolicyRecord> {
    let entries = lab.list(&keys().policy_active());
    entries.first().map(|entry| entry.decode().unwrap())
}

/// What a follower does, done by hand: the identity it passes on is judged again, and believed of nobody else.
fn only_schedulers_speak_for_others(lab: &Lab) {
    let leader = lab.some_leader();
    let on_behalf = |caller: Caller, behind: &'static str| {
        lab.inside(|| async {
            let mut request = ask(v1::SetModeRequest {
                mode: "observe".to_owned(),
                reason: "test".to_owned(),
                dry_run: false,
            });
            let behind = behind.parse().unwrap();
            request.metadata_mut().insert(ON_BEHALF_OF, behind);
            let mut client = lab.scheduler(caller, &leader);
            let answer = client.set_mode(request).await;
            answer.map(|a| a.into_inner().policy_revision)
        })
        .map_err(|status| status.code())
    };
    let scheduler = Caller::Scheduler("s1");
    let before = policy(lab).unwrap().revision;
    for (caller, behind) in [
        (scheduler, "viewer/guest"),
        (scheduler, "agent/h1"),
        (scheduler, "nobody"),
        (Caller::Viewer, "operator/lab"),
        (Caller::Operator, "operator/other"),
        (Caller::Agent("h1"), "operator/lab"),
    ] {
        let answer = on_behalf(caller, behind);
        assert_eq!(
            answer,
            Err(Code::PermissionDenied),
            "{caller:?} for {behind}"
        );
    }
    assert_eq!(policy(lab).unwrap().revision, before, "nothing was changed");
    on_behalf(scheduler, "operator/anna").expect("a scheduler for an operator");
    assert_eq!(policy(lab).unwrap().author, "operator/anna");
}

fn agents_obey_schedulers_only(lab: &Lab) {
    for caller in [Caller::Agent("h2"), Caller::Operator, Caller::Viewer] {
        let (migrate, cancel, measure) = lab.inside(|| async {
            let mut agent = lab.agent(caller, "h1");
            let order = v1::MigrateRequest::default();
            let migrate = agent.migrate(ask(order)).await.map(|_| ());
            let cancel = agent.cancel(ask(v1::CancelRequest::default())).await;
            let measure = v1::MeasureDirtyRateRequest::default();
            let measure = agent.measure_dirty_rate(ask(measure)).await;
            (migrate, cancel.map(|_| ()), measure.map(|_| ()))
        });
        let codes = [migrate, cancel, measure].map(|answer| answer.map_err(|status| status.code()));
        let denied = Err(Code::PermissionDenied);
        assert_eq!(codes, [denied, denied, denied], "{caller:?}");
    }
    // An agent may ask another to prepare; without an order of its own it is refused.
    let prepared = lab.inside(|| async {
        let mut agent = lab.agent(Caller::Agent("h2"), "h1");
        let mut order = some_order(lab);
        order.source = "h3".to_owned();
        let request = v1::PrepareRequest {
            order: Some(order),
            ..Default::default()
        };
        agent.prepare(ask(request)).await
    });
    let accepted = prepared.is_ok_and(|reply| reply.into_inner().accepted);
    assert!(!accepted, "h2 prepared a move from h3");
}

fn some_order(lab: &Lab) -> v1::Order {
    v1::Order {
        id: evenkeel_types::OrderId::from_random(9).to_string(),
        guest_uuid: "6ba7b810-9dad-11d1-80b4-00c04fd430c8".to_owned(),
        source: "h2".to_owned(),
        target: "h1".to_owned(),
        options: Some(v1::MoveOptions {
            kind: v1::MoveKind::Live.into(),
            ..Default::default()
        }),
        deadline_ms: evenkeel_daemon::unix_ms() + 60_000,
        epoch: lab.leader_key().map_or(1, |(_, epoch, _)| epoch),
        memory_mib: 32,
        ..Default::default()
    }
}

/// Without a certificate, with one of another authority, or with one that has expired: no answer from anyone.
fn strangers_get_nowhere(lab: &Lab) {
    make_certificates(lab, &["--ca", "other", "--suffix", "-other"]);
    let past = ["--from", "-2 days", "--until", "-1 day"];
    make_certificates(lab, &[&past[..], &["--suffix", "-expired"]].concat());
    let authority = lab.identity(Caller::Operator).ca;
    let with = |name: &str| {
        let mut tls = lab.tls(name, "ca");
        tls.ca.clone_from(&authority);
        Some(tls)
    };
    let known = with("operator-lab");
    assert!(answers(lab, known.as_ref()), "the way of asking is right");
    assert_eq!(
        agent_code(lab, known.as_ref()),
        Some(Code::InvalidArgument),
        "an agent answers an operator"
    );
    for (who, tls) in [
        ("no certificate", None),
        ("another authority", with("operator-lab-other")),
        ("an expired certificate", with("operator-lab-expired")),
    ] {
        assert!(!answers(lab, tls.as_ref()), "{who}: a scheduler answered");
        // The handshake fails, or the connection ends with the first request.
        let agent = agent_code(lab, tls.as_ref());
        let broken = [Code::Unavailable, Code::Cancelled, Code::Unknown];
        assert!(
            agent.is_some_and(|code| broken.contains(&code)),
            "{who}: an agent answered {agent:?}"
        );
    }
    // And etcd itself.
    let plain = lab.attempt(&[
        "rt",
        "env",
        "ETCDCTL_API=3",
        "etcdctl",
        "--endpoints=https://10.90.0.1:2379",
        "--insecure-skip-tls-verify",
        "--command-timeout=2s",
        "get",
        "/evenkeel",
    ]);
    assert!(!plain.status.success(), "etcd answered without certificate");
}

fn make_certificates(lab: &Lab, options: &[&str]) {
    let done = Command::new(repository().join("deploy/certs/make-certs"))
        .args(options)
        .arg(lab.path("certs".as_ref()))
        .args(["operator/lab", "scheduler/s1=10.90.0.2"])
        .output()
        .expect("make-certs");
    assert!(done.status.success(), "{done:?}");
}

fn channel(lab: &Lab, address: &str, name: &str, tls: Option<&TlsPem>) -> Channel {
    match tls {
        Some(tls) => tls.channel(address, name).unwrap(),
        None => {
            let authority = Certificate::from_pem(lab.identity(Caller::Operator).ca);
            let config = ClientTlsConfig::new()
                .ca_certificate(authority)
                .domain_name(name);
            Endpoint::from_shared(format!("https://{address}"))
                .unwrap()
                .tls_config(config)
                .unwrap()
                .connect_lazy()
        }
    }
}

/// Whether any scheduler answers a caller with these files.
fn answers(lab: &Lab, tls: Option<&TlsPem>) -> bool {
    lab.inside(|| async {
        for (address, name) in LEADER_ADDRESS.into_iter().zip(["s1", "s2", "s3"]) {
            let mut client = SchedulerServiceClient::new(channel(lab, address, name, tls));
            if client
                .get_status(ask(v1::GetStatusRequest {}))
                .await
                .is_ok()
            {
                return true;
            }
        }
        false
    })
}

/// How an agent refuses a caller with these files.
fn agent_code(lab: &Lab, tls: Option<&TlsPem>) -> Option<Code> {
    lab.inside(|| async {
        let mut client = AgentServiceClient::new(channel(lab, AGENT_ADDRESS, "h1", tls));
        let asked = client.inspect(ask(v1::InspectRequest::default())).await;
        asked.err().map(|status| status.code())
    })
}
