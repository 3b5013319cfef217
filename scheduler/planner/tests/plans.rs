//! What plans are like, on fleets small enough to judge by eye.

mod fleet;

use evenkeel_planner::{
    BlockReason, GuestState, HostState, Options, Policy, Purpose, Snapshot, StepReason, plan,
};
use fleet::{fleet, guest, host, plan_and_judge};

fn lab(demands: &[(&str, &[f64])]) -> evenkeel_planner::Snapshot {
    let hosts = demands
        .iter()
        .map(|(name, _)| host(name, 0.5, 512))
        .collect();
    let guests = demands.iter().flat_map(|(name, list)| {
        list.iter()
            .enumerate()
            .map(move |(n, &d)| guest(&format!("{name}-g{n}"), name, d, 32))
    });
    fleet(hosts, guests.collect())
}

#[test]
fn a_hot_host_beside_idle_ones_is_relieved() {
    let snapshot = lab(&[("h1", &[0.3, 0.3, 0.2, 0.1]), ("h2", &[]), ("h3", &[])]);
    let found = plan_and_judge(&snapshot, &Policy::default());
    assert!(!found.steps.is_empty());
    assert!(found.loss_after < 0.75 * found.loss_before);
    assert!(
        found
            .steps
            .iter()
            .all(|s| s.from == "h1" && s.reason == StepReason::RelieveCpu)
    );
}

#[test]
fn a_balanced_fleet_is_left_alone() {
    for load in [0.1, 0.2, 0.3] {
        let each: &[f64] = &[load, load];
        let snapshot = lab(&[("h1", each), ("h2", each), ("h3", each)]);
        assert_eq!(
            plan_and_judge(&snapshot, &Policy::default()).steps,
            vec![],
            "{load}"
        );
    }
    let uneven = lab(&[
        ("h1", &[0.2, 0.15]),
        ("h2", &[0.1, 0.2]),
        ("h3", &[0.15, 0.1]),
    ]);
    assert_eq!(plan_and_judge(&uneven, &Policy::default()).steps, vec![]);
}

#[test]
fn a_drain_takes_shut_off_guests_along_where_that_was_asked() {
    let mut snapshot = lab(&[("h1", &[0.1, 0.1]), ("h2", &[0.1]), ("h3", &[0.1])]);
    snapshot.guests[1].state = GuestState::Shutoff;
    snapshot.guests[2].state = GuestState::Shutoff;
    snapshot.hosts[0].state = HostState::Draining;
    let drain = Options {
        purpose: Purpose::Drain,
        ..Options::default()
    };
    let moved = |snapshot: &Snapshot| -> Vec<String> {
        let (found, _) = plan(snapshot, &Policy::default(), &drain);
        found.steps.into_iter().map(|step| step.guest).collect()
    };
    assert_eq!(moved(&snapshot), ["h1-g0"]);
    snapshot.hosts[0].offline_too = true;
    assert_eq!(moved(&snapshot), ["h1-g0", "h1-g1"]);
    snapshot.hosts[0].state = HostState::Cordoned;
    assert_eq!(moved(&snapshot), Vec::<String>::new());
}

#[test]
fn a_guest_that_failed_to_leave_waits_and_holds_up_nobody() {
    let mut snapshot = lab(&[("h1", &[0.1, 0.1]), ("h2", &[]), ("h3", &[])]);
    snapshot.hosts[0].state = HostState::Draining;
    snapshot.guests[0].retry_after = Some("1970-01-01T00:00:40.2Z".parse().unwrap());
    let found = plan_and_judge(&snapshot, &Policy::default());
    let moved: Vec<&str> = found.steps.iter().map(|s| s.guest.as_str()).collect();
    assert_eq!(moved, ["h1-g1"]);
    let named = found.blocked.iter().find(|b| b.guest.is_some()).unwrap();
    assert_eq!(named.guest.as_deref(), Some("h1-g0"));
    assert_eq!(named.reason, BlockReason::CoolDown);
    assert!(named.detail.ends_with("tried again in 41 s"), "{named:?}");
    snapshot.guests[0].retry_after = Some(snapshot.taken_at);
    assert_eq!(plan_and_judge(&snapshot, &Policy::default()).steps.len(), 2);
}

#[test]
fn a_drain_empties_its_host() {
    let mut snapshot = lab(&[("h1", &[0.1, 0.1]), ("h2", &[0.1]), ("h3", &[])]);
    snapshot.hosts[0].state = HostState::Draining;
    let found = plan_and_judge(&snapshot, &Policy::default());
    assert_eq!(found.steps.len(), 2);
    assert!(found.steps.iter().all(|s| s.reason == StepReason::Drain));
}

#[test]
fn one_unmovable_guest_does_not_stop_a_drain() {
    let mut snapshot = lab(&[("h1", &[0.1, 0.1]), ("h2", &[0.1]), ("h3", &[])]);
    snapshot.hosts[0].state = HostState::Draining;
    snapshot.guests[0].movable = false;
    snapshot.guests[0].unmovable_reason = Some("host device 0000:3b:00.0".into());
    let found = plan_and_judge(&snapshot, &Policy::default());
    assert_eq!(found.steps.len(), 1);
    let blocked = &found.blocked[0];
    assert_eq!(
        (blocked.guest.as_deref(), blocked.reason),
        (Some("h1-g0"), BlockReason::Unmovable)
    );
    assert!(blocked.detail.contains("3b:00.0"));
}

#[test]
fn two_full_hosts_exchange_guests_over_a_third() {
    let policy = Policy::parse(
        "schema = 1\n[pin.a]\nguests=[\"a\"]\nhosts=[\"h2\",\"h3\"]\nstrength=\"must\"\n\
         [pin.b]\nguests=[\"b\"]\nhosts=[\"h1\",\"h3\"]\nstrength=\"must\"\n\
         [pin.c]\nguests=[\"c\"]\nhosts=[\"h3\"]\nstrength=\"must\"\n",
    )
    .unwrap();
    let hosts = vec![
        host("h1", 8.0, 1000),
        host("h2", 8.0, 1000),
        host("h3", 8.0, 1500),
    ];
    let guests = vec![
        guest("a", "h1", 0.5, 800),
        guest("b", "h2", 0.5, 800),
        guest("c", "h3", 0.5, 600),
    ];
    let found = plan_and_judge(&fleet(hosts, guests), &policy);
    assert_eq!(found.steps.len(), 2);
}

#[test]
fn anti_affine_guests_are_parted_and_affine_ones_move_as_one() {
    let policy = Policy::parse(
        "schema = 1\n[anti_affinity.db]\nguests=[\"db-*\"]\nstrength=\"must\"\n\
         [affinity.app]\nguests=[\"app-*\"]\nstrength=\"must\"\n",
    )
    .unwrap();
    let hosts = vec![
        host("h1", 8.0, 8192),
        host("h2", 8.0, 8192),
        host("h3", 8.0, 8192),
    ];
    let mut hosts = hosts;
    hosts[2].state = HostState::Draining;
    let guests = vec![
        guest("db-1", "h1", 0.5, 800),
        guest("db-2", "h1", 0.5, 800),
        guest("app-1", "h3", 0.5, 600),
        guest("app-2", "h3", 0.5, 600),
    ];
    let found = plan_and_judge(&fleet(hosts, guests), &policy);
    let app: Vec<_> = found
        .steps
        .iter()
        .filter(|s| s.guest.starts_with("app"))
        .collect();
    assert_eq!(
        (app.len(), &app[0].to, app[0].wave),
        (2, &app[1].to, app[1].wave)
    );
    assert!(
        found
            .steps
            .iter()
            .any(|s| s.guest.starts_with("db") && s.reason == StepReason::RepairRule)
    );
}

#[test]
fn the_same_input_gives_the_same_bytes_in_any_order_of_the_file() {
    let snapshot = fleet::skewed(7, 12, 10, 0.7);
    let mut shuffled = snapshot.clone();
    shuffled.guests.reverse();
    shuffled.hosts.reverse();
    let options = Options::default();
    let policy = Policy::default();
    let first = plan(&snapshot, &policy, &options);
    assert!(!first.0.steps.is_empty());
    assert_eq!(first, plan(&snapshot, &policy, &options));
    assert_eq!(
        first.0.to_json(),
        plan(&shuffled, &policy, &options).0.to_json()
    );
}

#[test]
fn a_skewed_fleet_is_evened_out() {
    for (hosts, load) in [(5, 0.6), (10, 0.75), (20, 0.7)] {
        let snapshot = fleet::skewed(1, hosts, 15, load);
        let found = plan_and_judge(&snapshot, &Policy::default());
        println!(
            "{hosts} hosts: {} -> {} in {} steps, imbalance {} -> {}",
            found.loss_before,
            found.loss_after,
            found.steps.len(),
            found.imbalance_before,
            found.imbalance_after
        );
        assert!(found.loss_after < 0.5 * found.loss_before);
    }
}

#[test]
fn a_hot_host_whose_guests_have_nowhere_to_go_is_explained() {
    let hot = || {
        let mut snapshot = lab(&[("h1", &[0.3, 0.4, 0.2, 0.1]), ("h2", &[])]);
        let guests = snapshot.guests.iter_mut();
        guests.for_each(|g| g.networks = vec!["br0".into()]);
        snapshot
    };
    let mut full = hot();
    full.hosts[1].memory_mib = 16;
    let mut other_class = hot();
    other_class.hosts[1].cpu_class = "old".into();
    let mut other_network = hot();
    other_network.hosts[1].networks = vec!["br1".into()];
    for (snapshot, reason) in [
        (full, BlockReason::NoCapacity),
        (other_class, BlockReason::IncompatibleCpu),
        (other_network, BlockReason::MissingNetwork),
    ] {
        let found = plan_and_judge(&snapshot, &Policy::default());
        let why: Vec<_> = found
            .blocked
            .iter()
            .map(|b| (b.guest.as_deref(), b.reason))
            .collect();
        assert_eq!(why, [(Some("h1-g1"), reason)], "{}", found.to_json());
    }
}

#[test]
fn anti_affine_guests_are_parted_by_moving_whichever_of_them_can_go() {
    let policy =
        Policy::parse("[anti_affinity.db]\nguests=[\"db-*\"]\nstrength=\"must\"\n").unwrap();
    let mut hosts = vec![host("h1", 8.0, 8192), host("h2", 8.0, 8192)];
    hosts[1].networks = vec!["br0".into()];
    let mut guests = vec![guest("db-1", "h1", 0.5, 800), guest("db-2", "h1", 0.5, 400)];
    guests[1].networks = vec!["br1".into()];
    let found = plan_and_judge(&fleet(hosts, guests), &policy);
    let moved: Vec<&str> = found.steps.iter().map(|s| s.guest.as_str()).collect();
    assert_eq!((moved, found.blocked.len()), (vec!["db-1"], 0));
}

#[test]
fn a_pin_that_is_mended_by_making_room_for_another_is_not_repaired_again() {
    let policy = Policy::parse(
        "schema = 1\n[pin.a]\nguests=[\"a\"]\nhosts=[\"h2\"]\nstrength=\"must\"\n\
         [pin.b]\nguests=[\"b\"]\nhosts=[\"h3\", \"h4\"]\nstrength=\"must\"\n",
    )
    .unwrap();
    let hosts = ["h1", "h2", "h3", "h4"].map(|name| host(name, 4.0, 1000));
    let guests = vec![
        guest("a", "h1", 0.5, 800),
        guest("b", "h2", 0.5, 800),
        guest("busy", "h4", 3.5, 100),
    ];
    let found = plan_and_judge(&fleet(hosts.to_vec(), guests), &policy);
    let moved: Vec<_> = found
        .steps
        .iter()
        .map(|s| (s.guest.as_str(), s.to.as_str()))
        .collect();
    // h3 is idle; a second repair would send b on to h4.
    assert_eq!(moved, [("b", "h3"), ("a", "h2")], "{}", found.to_json());
}

#[test]
fn idle_hosts_that_are_too_small_do_not_hide_the_one_that_helps() {
    let mut hosts = vec![host("hot", 8.0, 65_536), host("large", 16.0, 65_536)];
    hosts.extend((0..20).map(|n| host(&format!("small-{n}"), 0.5, 65_536)));
    let mut guests: Vec<_> = (0..4)
        .map(|n| guest(&format!("g{n}"), "hot", 3.0, 1024))
        .collect();
    guests.extend((0..3).map(|n| guest(&format!("l{n}"), "large", 2.0, 1024)));
    let found = plan_and_judge(&fleet(hosts, guests), &Policy::default());
    assert!(
        found.steps.iter().any(|s| s.to == "large"),
        "{}",
        found.to_json()
    );
    assert!(found.loss_after < 0.2 * found.loss_before);
}

const OVER_RACKS: &str =
    "[anti_affinity.db]\nguests=[\"db-*\"]\nstrength=\"must\"\nover=\"rack\"\n";

/// Two members of an anti-affinity over racks on h1 and h2 of rack r1; h3 is in r1 too, h4 in `other`.
fn shared_rack(other: &str) -> evenkeel_planner::Snapshot {
    let mut hosts = ["h1", "h2", "h3", "h4"].map(|name| host(name, 4.0, 8192));
    for host in &mut hosts {
        let rack = if host.name == "h4" { other } else { "r1" };
        host.labels.insert("rack".into(), rack.into());
    }
    let guests = vec![
        guest("busy", "h4", 3.5, 800),
        guest("db-1", "h1", 0.5, 800),
        guest("db-2", "h2", 0.5, 800),
    ];
    fleet(hosts.to_vec(), guests)
}

#[test]
fn a_drain_may_keep_a_guest_in_the_rack_that_it_shares_already() {
    let mut snapshot = shared_rack("r1");
    let policy = Policy::parse(OVER_RACKS).unwrap();
    snapshot.hosts[0].state = HostState::Draining;
    let found = plan_and_judge(&snapshot, &policy);
    let moved: Vec<_> = found
        .steps
        .iter()
        .map(|s| (s.guest.as_str(), s.to.as_str(), s.reason))
        .collect();
    assert_eq!(
        moved,
        [("db-1", "h3", StepReason::Drain)],
        "{}",
        found.to_json()
    );
}

#[test]
fn guests_that_share_a_rack_are_parted_into_another_one_however_busy() {
    let policy = Policy::parse(OVER_RACKS).unwrap();
    let found = plan_and_judge(&shared_rack("r2"), &policy);
    let repairs = found
        .steps
        .iter()
        .filter(|s| s.reason == StepReason::RepairRule);
    let targets: Vec<&str> = repairs.map(|s| s.to.as_str()).collect();
    assert_eq!(targets, ["h4"], "{}", found.to_json());
}
