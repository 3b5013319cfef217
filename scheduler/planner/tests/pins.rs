//! Pins in all their forms: hosts by name and label, allowed and forbidden, demanded and wished for.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

mod fleet;

use evenkeel_planner::{Guest, Policy, Snapshot, StepReason};

/// Three hosts, the first two of room r1, and one guest on the first.
fn rooms() -> Snapshot {
    let hosts = [("a", "r1"), ("b", "r1"), ("c", "r2")].map(|(name, room)| {
        let mut host = fleet::host(name, 8.0, 8192);
        host.labels.insert("room".into(), room.into());
        host
    });
    let guest = Guest {
        labels: [("app".into(), "db".into())].into(),
        ..fleet::guest("g", "a", 0.5, 1024)
    };
    fleet::fleet(hosts.to_vec(), vec![guest])
}

/// Where the guest goes, and why, when a pin says this.
fn goes(pin: &str) -> Option<(String, StepReason)> {
    let text = format!("[price]\nshould_rule = 1.0\n[pin.p]\n{pin}\n");
    let policy = Policy::parse(&text).unwrap();
    let plan = fleet::plan_and_judge(&rooms(), &policy);
    plan.steps.first().map(|s| (s.to.clone(), s.reason))
}

#[test]
fn a_pin_names_hosts_that_are_allowed_or_forbidden() {
    let must = "strength = \"must\"";
    let to = |host: &str| Some((host.to_owned(), StepReason::RepairRule));
    for (hosts, expected) in [
        ("hosts = [\"b\"]", to("b")),
        ("hosts = [\"a\", \"c\"]", None),
        ("host_labels = { room = \"r2\" }", to("c")),
        ("not_hosts = [\"a\", \"c\"]", to("b")),
        ("not_hosts = [\"b\"]", None),
        ("not_host_labels = { room = \"r1\" }", to("c")),
        ("not_host_labels = { room = \"r2\" }", None),
    ] {
        for guests in ["guests = [\"g*\"]", "guest_labels = { app = \"db\" }"] {
            assert_eq!(
                goes(&format!("{guests}\n{hosts}\n{must}")),
                expected,
                "{hosts}"
            );
            let wished = goes(&format!("{guests}\n{hosts}\nstrength = \"should\""));
            assert_eq!(wished, expected, "{hosts}, wished for");
        }
    }
}

#[test]
fn a_pin_to_hosts_that_another_forbids_is_a_contradiction() {
    let text = |second: &str| {
        format!(
            "[pin.a]\nguests = [\"g\"]\nhosts = [\"h1\"]\nstrength = \"must\"\n\
             [pin.b]\nguests = [\"g\"]\n{second}\nstrength = \"must\"\n"
        )
    };
    let error = Policy::parse(&text("not_hosts = [\"h1\"]")).unwrap_err();
    assert!(
        error.to_string().contains("pin.b contradicts pin.a"),
        "{error}"
    );
    Policy::parse(&text("not_hosts = [\"h2\"]")).unwrap();
}

#[test]
fn a_pin_says_in_one_way_which_hosts_it_is_about() {
    let pin = |hosts: &str| {
        Policy::parse(&format!(
            "[pin.a]\nguests = [\"g\"]\n{hosts}\nstrength = \"must\"\n"
        ))
    };
    let both = pin("hosts = [\"h1\"]\nnot_hosts = [\"h2\"]").unwrap_err();
    assert!(
        both.to_string()
            .contains("hosts and not_hosts stand in one rule"),
        "{both}"
    );
    let nothing = pin("not_hosts = []").unwrap_err();
    assert!(!nothing.faults.is_empty());
}
