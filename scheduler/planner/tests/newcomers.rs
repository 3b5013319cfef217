//! Where a guest that is not there yet goes.

#![allow(clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod fleet;

use std::collections::BTreeMap;

use evenkeel_planner::policy::Policy;
use evenkeel_planner::{
    BlockReason, HostState, Newcomer, Placement, Snapshot, fleet_loss, place_new,
};
use fleet::{fleet, guest, host};

/// h1 is busy, h2 calm, h3 empty, small and cordoned.
fn three() -> Snapshot {
    let mut small = host("h3", 8.0, 2048);
    small.state = HostState::Cordoned;
    let mut web = guest("web-1", "h2", 1.0, 1024);
    web.group = Some("web".into());
    fleet(
        vec![host("h1", 8.0, 65_536), host("h2", 8.0, 65_536), small],
        vec![
            guest("a", "h1", 3.5, 4096),
            guest("b", "h1", 3.5, 4096),
            web,
        ],
    )
}

fn newcomer() -> Newcomer {
    Newcomer {
        vcpus: 4,
        memory_mib: 4096,
        cpu_demand_cores: Some(2.0),
        ..Newcomer::default()
    }
}

fn placed(policy: &str, newcomer: &Newcomer) -> Placement {
    let policy = Policy::parse(policy).expect("a good policy");
    place_new(&three(), &policy, newcomer).expect("a fleet that can be planned for")
}

fn why_not(placement: &Placement, host: &str) -> (BlockReason, String) {
    let found = placement.rejected.iter().find(|r| r.host == host);
    let found = found.expect("a host that does not take it");
    (found.reason, found.detail.clone())
}

#[test]
fn it_goes_where_the_least_is_lost_and_the_rest_is_named() {
    let placement = placed("schema = 1", &newcomer());
    assert_eq!(placement.host.as_deref(), Some("h2"));
    let order: Vec<&str> = placement
        .candidates
        .iter()
        .map(|c| c.host.as_str())
        .collect();
    assert_eq!(order, ["h2", "h1"]);
    let (reason, detail) = why_not(&placement, "h3");
    assert_eq!(
        (reason, detail.as_str()),
        (BlockReason::HostClosed, "h3 is cordoned")
    );
    assert_eq!(
        placement.rejected.len(),
        1,
        "nowhere is no host: {placement:?}"
    );
}

#[test]
fn what_it_adds_is_what_the_evaluator_finds_with_it_there() {
    let (now, policy) = (three(), Policy::default());
    let placement = place_new(&now, &policy, &newcomer()).unwrap();
    let before = fleet_loss(&now, &policy).total;
    assert!((placement.loss_before - before).abs() < 1e-9);
    for berth in &placement.candidates {
        let mut with = now.clone();
        let mut new = guest("new", &berth.host, 2.0, 4096);
        new.vcpus = 4;
        // The deviation that the fleet's guests have, as `place_new` assumes it.
        let running = now.guests.iter();
        let (sigma, demand) = running.fold((0.0, 0.0), |(s, d), g| {
            (s + g.cpu_demand_stddev_cores, d + g.cpu_demand_cores)
        });
        new.cpu_demand_stddev_cores = 2.0 * sigma / demand;
        with.guests.push(new);
        let added = 3600.0 * (fleet_loss(&with, &policy).total - before);
        let claimed = berth.adds_guest_seconds_per_hour;
        assert!(
            (added - claimed).abs() < 1e-6 * (1.0 + added),
            "{berth:?}: {added}"
        );
    }
}

#[test]
fn must_rules_hold_for_a_newcomer_and_should_rules_cost() {
    let web = Newcomer {
        group: Some("web".into()),
        ..newcomer()
    };
    let apart = "schema = 1\n[anti_affinity.web]\nguest_labels = {group = \"web\"}\nstrength = ";
    let placement = placed(&format!("{apart}\"must\""), &web);
    assert_eq!(placement.host.as_deref(), Some("h1"));
    let (reason, detail) = why_not(&placement, "h2");
    assert_eq!(
        (reason, detail.as_str()),
        (BlockReason::RuleForbids, "anti_affinity.web")
    );
    let together =
        "schema = 1\n[affinity.web]\nguest_labels = {group = \"web\"}\nstrength = \"must\"";
    let placement = placed(together, &web);
    assert_eq!(placement.candidates.len(), 1);
    assert_eq!(why_not(&placement, "h1").0, BlockReason::RuleForbids);
    assert_eq!(
        placed(together, &newcomer()).candidates.len(),
        2,
        "not of the group"
    );
    let placement = placed(&format!("{apart}\"should\""), &web);
    let on = |host: &str| {
        let found = placement.candidates.iter().find(|c| c.host == host);
        found.unwrap().soft_rules_guest_seconds_per_hour
    };
    assert!(on("h1") == 0.0 && on("h2") > 0.0, "{placement:?}");
}

#[test]
fn rules_select_it_by_name_and_what_it_needs_counts() {
    let named = Newcomer {
        name: "db-7".into(),
        ..newcomer()
    };
    let pinned = "schema = 1\n[pin.db]\nguests = [\"db-*\"]\nhosts = [\"h1\"]\nstrength = \"must\"";
    let placement = placed(pinned, &named);
    assert_eq!(placement.host.as_deref(), Some("h1"));
    assert_eq!(why_not(&placement, "h2").0, BlockReason::Pinned);
    let large = Newcomer {
        memory_mib: 65_000,
        ..newcomer()
    };
    let placement = placed("schema = 1", &large);
    assert_eq!(
        (placement.host.as_deref(), placement.candidates.len()),
        (None, 0)
    );
    assert_eq!(
        why_not(&placement, "h2"),
        (
            BlockReason::NoCapacity,
            "needs 65000 MiB, h2 has 64512 free".into()
        ),
    );
}

#[test]
fn a_name_that_is_taken_and_an_empty_fleet_are_no_trouble() {
    let taken = Newcomer {
        name: "web-1".into(),
        cpu_demand_cores: None,
        ..newcomer()
    };
    let placement = placed("schema = 1", &taken);
    assert_eq!(placement.host.as_deref(), Some("h2"));
    assert!(placement.cpu_demand_assumed && placement.cpu_demand_cores > 0.0);
    let empty = fleet(vec![], vec![]);
    let placement = place_new(&empty, &Policy::default(), &taken).unwrap();
    assert_eq!((placement.host, placement.rejected.len()), (None, 0));
}

#[test]
fn absurd_wishes_are_refused() {
    for newcomer in [
        Newcomer {
            cpu_demand_cores: Some(f64::NAN),
            ..newcomer()
        },
        Newcomer {
            cpu_demand_cores: Some(-1.0),
            ..newcomer()
        },
        Newcomer {
            memory_mib: u64::MAX,
            ..newcomer()
        },
    ] {
        assert!(
            place_new(&three(), &Policy::default(), &newcomer).is_err(),
            "{newcomer:?}"
        );
    }
    let labels = BTreeMap::from([("rack".to_owned(), "r1".to_owned())]);
    let labelled = Newcomer {
        labels,
        ..newcomer()
    };
    assert!(place_new(&three(), &Policy::default(), &labelled).is_ok());
}
