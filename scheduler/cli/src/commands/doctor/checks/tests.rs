use evenkeel_proto::v1;

use super::*;
use crate::view::CheckResult::{Failed, Ok, Warning};

const NOW_S: i64 = 1_800_000_000;

fn at(seconds: i64) -> Option<Timestamp> {
    Timestamp::from_second(NOW_S + seconds).ok()
}

fn status(replica: &str) -> Status {
    let message = v1::Status {
        replica: replica.into(),
        leader: "s1".into(),
        epoch: 17,
        version: "0.1.0".into(),
        etcd_reachable: true,
        ..Default::default()
    };
    Status::new(message, vec![])
}

fn host(name: &str) -> Host {
    v1::HostView {
        name: name.into(),
        state: "active".into(),
        libvirt_up: true,
        report_age_ms: 900,
        agent_version: "0.1.0".into(),
        disk_locks: v1::DiskLocks::Lockd.into(),
        ..Default::default()
    }
    .into()
}

/// Nothing has to be mended.
fn sound() -> Seen {
    Seen {
        answers: vec![status("s1"), status("s2")],
        silent: vec![],
        hosts: vec![host("h1"), host("h2")],
        policy_revision: 41,
        policy_fault: String::new(),
        certificate_ends: at(90 * 24 * 3600),
        now: Timestamp::from_second(NOW_S).unwrap(),
    }
}

/// What differs from a sound fleet is found by this check, so graded, in these words, and by no other.
fn check(name: &str, result: crate::view::CheckResult, found: &str, change: impl Fn(&mut Seen)) {
    let mut seen = sound();
    change(&mut seen);
    for check in all(&seen) {
        let expected = if check.check == name { result } else { Ok };
        assert_eq!(check.result, expected, "{check:?}");
        assert_eq!(check.mend.is_none(), expected == Ok, "{check:?}");
        assert!(
            check.check != name || check.found.contains(found),
            "{check:?}"
        );
    }
}

#[test]
fn a_sound_fleet_has_nothing_to_mend() {
    let checks = all(&sound());
    assert!(checks.iter().all(|check| check.result == Ok), "{checks:?}");
    check("disk locks", Ok, "lockd on 2 hosts", |_| {});
    check("leader", Ok, "s1 (epoch 17)", |_| {});
}

#[test]
fn schedulers_and_etcd() {
    check(
        "schedulers",
        Warning,
        "2 of 3 answer; s3:7440: refused",
        |seen| {
            seen.silent = vec!["s3:7440: refused".into()];
        },
    );
    check("leader", Failed, "none", |seen| {
        seen.answers.iter_mut().for_each(|s| s.leader = None);
    });
    check("leader", Warning, "1 of 2 know of none", |seen| {
        seen.answers[1].leader = None
    });
    check("leader", Warning, "s1 (epoch 17), s2 (epoch 17)", |seen| {
        seen.answers[1].leader = Some("s2".into());
    });
    check("etcd", Warning, "by 1 of 2", |seen| {
        seen.answers[0].etcd_reachable = Some(false)
    });
    check("etcd", Failed, "by 0 of 2", |seen| {
        seen.answers
            .iter_mut()
            .for_each(|s| s.etcd_reachable = Some(false));
    });
    check("policy", Failed, "line 3", |seen| {
        seen.policy_fault = "line 3".into()
    });
    check("policy", Ok, "none was ever applied", |seen| {
        seen.policy_revision = 0
    });
    check(
        "versions",
        Warning,
        "0.1.0 on s2, h1, h2; 0.2.0 on s1",
        |seen| {
            seen.answers[0].version = Some("0.2.0".into());
        },
    );
}

#[test]
fn a_leaders_word_that_followers_pass_on_counts_once() {
    let echoes = |seen: &mut Seen| seen.answers = vec![status("s1"); 3];
    check("schedulers", Ok, "3 of 3 answer", echoes);
    check("etcd", Ok, "by 1 of 1", echoes);
    check("versions", Ok, "0.1.0 on s1, h1, h2", echoes);
}

#[test]
fn certificates() {
    check("certificate", Failed, "ended", |seen| {
        seen.certificate_ends = at(-1)
    });
    check("certificate", Failed, "ended", |seen| {
        seen.certificate_ends = at(0)
    });
    check("certificate", Warning, "13 d", |seen| {
        seen.certificate_ends = at(13 * 24 * 3600 + 7200);
    });
    check("certificate", Ok, "15 d", |seen| {
        seen.certificate_ends = at(15 * 24 * 3600)
    });
    check("certificate", Warning, "cannot be read", |seen| {
        seen.certificate_ends = None
    });
}

#[test]
fn hosts_that_are_not_well() {
    let silent = |seen: &mut Seen| {
        seen.hosts[1].state = "absent".into();
        seen.hosts[1].libvirt_up = None;
        seen.hosts[1].agent_version = Some("0.0.9".into());
    };
    check("reports", Failed, "silent: 1 of 2 hosts: h2", silent);
    check("reports", Ok, "2 hosts report", |seen| {
        silent(seen);
        let drained = v1::DrainView {
            state: "drained".into(),
            ..Default::default()
        };
        seen.hosts[1].drain = Some(drained.into());
    });
    check("reports", Failed, "absurd: 1 of 2 hosts: h1", |seen| {
        seen.hosts[0].state = "unusable".into();
    });
    check("libvirt", Failed, "1 of 2 hosts: h1", |seen| {
        seen.hosts[0].libvirt_up = Some(false)
    });
    check("measuring", Warning, "h2 (no_pressure, no_cpu)", |seen| {
        seen.hosts[1].troubles = vec!["no_pressure".into(), "no_cpu".into()];
    });
    check("reports", Warning, "no host", |seen| seen.hosts.clear());
}

#[test]
fn guests_in_danger_are_told_by_the_leader() {
    // The follower's picture may be old.
    check("migrations", Ok, "0 running", |seen| {
        seen.answers[1].migrations_unknown = 3
    });
    check("migrations", Failed, "3 of unknown", |seen| {
        seen.answers[0].migrations_unknown = 3
    });
    check("foreign", Warning, "1: web is migrated", |seen| {
        let said = vec!["web is migrated".to_owned()];
        seen.answers[0].troubles.clone_from(&said);
        seen.answers[0].foreign_migrations = said;
    });
    check("doubles", Failed, "1: db runs on h1 and h2", |seen| {
        seen.answers[0].troubles = vec!["db runs on h1 and h2".into()];
    });
}

#[test]
fn disk_locks_that_are_off_or_unknown_are_warned_of() {
    let locks = |what: Option<&str>| {
        let what = what.map(str::to_owned);
        move |seen: &mut Seen| seen.hosts[1].disk_locks.clone_from(&what)
    };
    let found = |other: &str| format!("lockd on 1 of 2 hosts: h1; {other} on 1 of 2 hosts: h2");
    check("disk locks", Warning, &found("off"), locks(Some("off")));
    check(
        "disk locks",
        Warning,
        &found("unknown"),
        locks(Some("unknown")),
    );
    check(
        "disk locks",
        Warning,
        &found("unknown"),
        locks(Some("of another kind")),
    );
    check("disk locks", Warning, &found("unknown"), locks(None));
    check(
        "disk locks",
        Warning,
        &found("sanlock"),
        locks(Some("sanlock")),
    );
    check("disk locks", Ok, "sanlock on 2 hosts", |seen| {
        seen.hosts
            .iter_mut()
            .for_each(|h| h.disk_locks = Some("sanlock".into()));
    });
}

#[test]
fn long_lists_are_counted() {
    let names = |n: usize| names(&vec!["h".to_owned(); n]);
    assert_eq!(names(5), "h, h, h, h, h");
    assert_eq!(names(1_000), "h, h, h, h, h and 995 more");
}
