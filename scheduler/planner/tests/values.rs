//! Values at the border: snapshots, predictions, the loss, re-checks and manual moves.

mod fleet;

use evenkeel_planner::policy::Policy;
use evenkeel_planner::{
    BlockReason, Guest, HostState, InFlight, Options, RefusedBy, Snapshot, StepReason, Subject,
    explain, fleet_loss, loss, place_one, plan, precopy, step_is_still_good,
};
use fleet::{fleet, guest, host};

const MINIMAL: &str = r#"{"schema": "evenkeel.snapshot/1", "cluster": "lab", "taken_at": "2026-11-23T01:00:00Z",
  "hosts": [{"name": "h1", "cpu_cores": 64.0, "memory_mib": 524288.0, "later": true}],
  "guests": [{"name": "web-1", "host": "h1", "vcpus": 4, "cpu_demand_cores": 1.7, "memory_mib": 8192}]}"#;

#[test]
fn omitted_fields_take_their_defaults_and_unknown_ones_are_ignored() {
    let snapshot = Snapshot::from_json(MINIMAL).unwrap();
    let (host, guest) = (&snapshot.hosts[0], &snapshot.guests[0]);
    assert_eq!((host.state, host.memory_mib), (HostState::Active, 524_288));
    assert!((host.migration_bandwidth_mib_s - 1000.0).abs() < 1e-9);
    assert_eq!(
        (guest.active_mib(), guest.movable, guest.key()),
        (8192, true, "web-1")
    );
    assert_eq!(Snapshot::from_json(&snapshot.to_json()).unwrap(), snapshot);
}

#[test]
fn values_that_cannot_be_true_are_refused_by_place() {
    for (from, to, place) in [
        ("evenkeel.snapshot/1", "evenkeel.snapshot/2", "schema is"),
        (
            "\"host\": \"h1\"",
            "\"host\": \"h9\"",
            "guests[web-1].host: no host \"h9\"",
        ),
        (
            "1.7",
            "-1.7",
            "guests[web-1].cpu_demand_cores: -1.7 is negative",
        ),
        ("64.0", "1e300", "hosts[h1].cpu_cores"),
        ("8192", "-5", "size in MiB"),
        ("8192", "9000000000000000", "guests[web-1].memory_mib"),
        (
            "\"name\": \"h1\"",
            "\"name\": \"\"",
            "hosts[0].name: is empty",
        ),
    ] {
        let text = MINIMAL.replacen(from, to, 1);
        let error = Snapshot::from_json(&text).unwrap_err().to_string();
        assert!(error.contains(place), "{to}: {error}");
    }
    let mut twice = Snapshot::from_json(MINIMAL).unwrap();
    twice.guests.push(twice.guests[0].clone());
    assert!(
        twice
            .validate()
            .unwrap_err()
            .to_string()
            .contains("\"web-1\" stands twice")
    );
    twice.guests[1].name = "web-2".into();
    twice.guests[1].cpu_demand_cores = f64::NAN;
    assert!(twice.validate().unwrap_err().to_string().contains("web-2"));
    let (found, _) = plan(&twice, &Policy::default(), &Options::default());
    assert_eq!(
        (found.steps.len(), found.blocked[0].reason),
        (0, BlockReason::StaleData)
    );
}

#[test]
fn a_calm_guest_is_copied_once_and_a_wild_one_only_under_throttle() {
    let policy = Policy::default();
    let calm = Guest {
        dirty_rate_mib_s: 20.0,
        ..guest("calm", "h", 0.5, 8192)
    };
    let copy = precopy::predict(&calm, 1000.0, &policy);
    assert!(
        (copy.copy_seconds - 8.192).abs() < 1e-9 && copy.converges,
        "{copy:?}"
    );
    assert!(
        copy.downtime_seconds < 0.3 && copy.throttled_seconds < 1e-12,
        "{copy:?}"
    );
    let wild = Guest {
        dirty_rate_mib_s: 2000.0,
        ..calm.clone()
    };
    let copy = precopy::predict(&wild, 1000.0, &policy);
    assert!(copy.converges && copy.throttled_seconds > 1.0, "{copy:?}");
    let strict = Policy::parse("[migration]\nauto_converge = false").unwrap();
    assert!(!precopy::predict(&wild, 1000.0, &strict).converges);
    let curve = Guest {
        dirty_curve: vec![(1.0, 100.0), (10.0, 200.0)],
        ..wild
    };
    assert!(precopy::predict(&curve, 1000.0, &strict).converges);
}

#[test]
fn loss_is_what_waits_on_average() {
    let hosts = vec![host("h1", 4.0, 65_536), host("h2", 4.0, 65_536)];
    let guests = (0..10).map(|n| Guest {
        vcpus: 1,
        ..guest(&format!("g{n}"), "h1", 1.0, 1024)
    });
    let mut snapshot = fleet(hosts, guests.collect());
    let loss = fleet_loss(&snapshot, &Policy::default());
    // Ten vCPUs that always run on four cores: six wait.
    assert!((loss.total - 6.0).abs() < 0.15, "{loss:?}");
    assert!((loss.per_host[0].cpu_utilisation - 2.5).abs() < 1e-9);
    snapshot.hosts[0].state = HostState::Absent;
    assert!(fleet_loss(&snapshot, &Policy::default()).total < 1e-12);
}

#[test]
fn on_a_host_without_cores_every_vcpu_waits() {
    let none = loss::Shape::of(&host("h", 0.0, 1024), &Policy::default());
    assert!((none.cpu_slope(&loss::Load::default()) - 1.0).abs() < 1e-12);
}

fn hot() -> Snapshot {
    let hosts = vec![
        host("h1", 0.5, 512),
        host("h2", 0.5, 512),
        host("h3", 0.5, 512),
    ];
    let guests = (0..4)
        .map(|n| guest(&format!("g{n}"), "h1", 0.25, 32))
        .collect();
    fleet(hosts, guests)
}

#[test]
fn a_step_is_checked_once_more_on_what_is_true_when_it_starts() {
    let policy = Policy::default();
    let (found, _) = plan(&hot(), &policy, &Options::default());
    let step = &found.steps[0];
    assert_eq!(step_is_still_good(&hot(), &policy, step), Ok(()));
    let reason = |change: fn(&mut Snapshot)| {
        let mut snapshot = hot();
        change(&mut snapshot);
        step_is_still_good(&snapshot, &policy, step)
            .unwrap_err()
            .reason
    };
    assert_eq!(
        reason(|s| s.guests[0].host = "h3".into()),
        BlockReason::NotThere
    );
    assert_eq!(
        reason(|s| s.guests[0].movable = false),
        BlockReason::Unmovable
    );
    assert_eq!(
        reason(|s| s.hosts[1].state = HostState::Cordoned),
        BlockReason::HostClosed
    );
    assert_eq!(
        reason(|s| s.hosts[1].memory_mib = 16),
        BlockReason::NoCapacity
    );
    assert_eq!(
        reason(|s| s.guests.iter_mut().for_each(|g| g.cpu_demand_cores = 0.01)),
        BlockReason::DoesNotPay
    );
    assert_eq!(
        reason(|s| s.guests[0].cooldown_until = Some("2030-01-01T00:00:00Z".parse().unwrap())),
        BlockReason::CoolDown
    );
    assert_eq!(
        reason(|s| s.guests[0].unconverged_until = Some("2030-01-01T00:00:00Z".parse().unwrap())),
        BlockReason::NotConverging
    );
    assert_eq!(
        reason(|s| s.in_flight.extend([1, 2].map(|n| InFlight {
            guest: format!("g{n}"),
            from: "h1".into(),
            to: "h3".into()
        }))),
        BlockReason::MigrationLimit
    );
}

#[test]
fn a_host_that_refused_a_guest_is_not_asked_again_but_by_hand() {
    let mut two = hot();
    two.hosts.retain(|host| host.name != "h3");
    let planned = |snapshot: &Snapshot| {
        let (found, _) = plan(snapshot, &Policy::default(), &Options::default());
        (found.steps.len(), found.blocked)
    };
    assert_eq!(planned(&two).0, 1);
    let refused = |until: &str| {
        let mut refused = two.clone();
        for guest in &mut refused.guests {
            let by = RefusedBy {
                reason: "missing_network".into(),
                until: until.parse().unwrap(),
            };
            guest.refused_by.insert("h2".into(), by.clone());
            // That its own host refused it once is no reason to leave it.
            guest.refused_by.insert("h1".into(), by);
        }
        refused
    };
    let now = refused("1970-01-01T01:00:00Z");
    let (steps, blocked) = planned(&now);
    assert_eq!(steps, 0);
    let why = blocked.iter().find(|b| b.reason == BlockReason::Refused);
    let why = &why.expect("it is named").detail;
    assert!(why.contains("h2 refused it (missing_network)"), "{why}");
    assert_eq!(planned(&refused("1969-12-31T23:00:00Z")).0, 1, "it is over");

    let mut draining = now.clone();
    draining.hosts[0].state = HostState::Draining;
    assert_eq!(planned(&draining).0, 0, "a drain finds it closed, too");
    let policy = Policy::default();
    assert!(place_one(&now, &policy, "g1", None).is_err());
    assert!(place_one(&now, &policy, "g1", Some("h2")).is_ok());
}

#[test]
fn longer_pauses_and_post_copy_let_a_busy_writer_move() {
    let mut snapshot = hot();
    for host in &mut snapshot.hosts {
        host.memory_mib = 65_536;
    }
    for guest in &mut snapshot.guests {
        // 400 MiB are left at 1,000 MiB/s, however often they are copied.
        guest.memory_mib = 1_000;
        guest.dirty_curve = vec![(0.1, 400.0), (10.0, 400.0)];
    }
    let step = |text: &str| {
        let text = format!("schema = 1\n[migration]\nauto_converge = false\n{text}");
        let policy = Policy::parse(&text).unwrap();
        place_one(&snapshot, &policy, "g1", None)
    };
    let refused = step("").unwrap_err();
    assert_eq!(refused[0].reason, BlockReason::NotConverging);
    let longer = step("downtime_steps = [\"350ms\", \"500ms\"]").unwrap();
    assert!((0.4..0.5).contains(&longer.downtime_seconds), "{longer:?}");
    let early = step("post_copy = true").unwrap();
    assert!(early.downtime_seconds < 0.1, "{early:?}");
}

#[test]
fn what_left_a_host_lately_does_not_return_for_gain_but_by_force_or_by_hand() {
    let target = |snapshot: &Snapshot| {
        let (found, _) = plan(snapshot, &Policy::default(), &Options::default());
        found.steps.first().map(|step| step.to.clone())
    };
    let away = |snapshot: &Snapshot, until: &str| {
        let mut away = snapshot.clone();
        for guest in &mut away.guests {
            guest
                .left_lately
                .insert("h2".into(), until.parse().unwrap());
        }
        away
    };
    let mut two = hot();
    two.hosts.retain(|host| host.name != "h3");
    assert_eq!(target(&two).as_deref(), Some("h2"));
    let later = "1970-01-01T05:00:00Z";
    assert_eq!(target(&away(&two, later)), None);
    assert_eq!(target(&away(&hot(), later)).as_deref(), Some("h3"));
    let over = "1970-01-01T00:00:00Z";
    assert_eq!(target(&away(&two, over)).as_deref(), Some("h2"));
    let mut drained = away(&two, later);
    drained.hosts[0].state = HostState::Draining;
    assert_eq!(target(&drained).as_deref(), Some("h2"));
    let by_hand = place_one(&away(&two, later), &Policy::default(), "g0", Some("h2"));
    assert_eq!(by_hand.unwrap().to, "h2");
    let about = Subject::Guest { name: "g0".into() };
    let told = explain(
        &away(&two, later),
        &Policy::default(),
        &Options::default(),
        &about,
    );
    let text = format!("{told:?}");
    assert!(
        text.contains("left h2 lately, stays away until 1970-01-01T05:00:00Z"),
        "{text}"
    );
}

#[test]
fn a_group_that_was_begun_is_finished_although_its_last_guest_gains_nothing() {
    let policy =
        Policy::parse("[affinity.pair]\nguests=[\"g0\",\"idle\"]\nstrength=\"must\"").unwrap();
    let mut snapshot = hot();
    snapshot.guests.push(guest("idle", "h1", 0.0, 32));
    let (found, _) = plan(&snapshot, &policy, &Options::default());
    let mut last = found.steps[0].clone();
    last.guest = "idle".into();
    last.reason = StepReason::RelieveCpu;
    let alone = step_is_still_good(&snapshot, &Policy::default(), &last);
    assert_eq!(alone.unwrap_err().reason, BlockReason::DoesNotPay);
    let mut arrived = snapshot.clone();
    arrived.guests[0].host = last.to.clone();
    assert_eq!(step_is_still_good(&arrived, &policy, &last), Ok(()));
    snapshot.in_flight.push(InFlight {
        guest: "g0".into(),
        from: "h1".into(),
        to: last.to.clone(),
    });
    assert_eq!(step_is_still_good(&snapshot, &policy, &last), Ok(()));
}

#[test]
fn a_guest_in_flight_holds_memory_on_both_hosts_and_weighs_where_it_goes() {
    let hosts = vec![host("h1", 8.0, 1024), host("h2", 8.0, 4096)];
    let full = |name| Guest {
        memory_active_mib: Some(512),
        ..guest(name, "h1", 0.5, 512)
    };
    let mut snapshot = fleet(hosts, vec![full("a"), full("b")]);
    assert!(fleet_loss(&snapshot, &Policy::default()).total > 0.05);
    snapshot.in_flight.push(InFlight {
        guest: "a".into(),
        from: "h1".into(),
        to: "h2".into(),
    });
    let loss = fleet_loss(&snapshot, &Policy::default());
    assert!(loss.total < 1e-6, "{loss:?}");
    // Until it has left, its place is not free.
    snapshot.guests.push(guest("c", "h2", 0.1, 64));
    let refused = place_one(&snapshot, &Policy::default(), "c", Some("h1")).unwrap_err();
    assert_eq!(refused[0].reason, BlockReason::NoCapacity);
}

#[test]
fn a_guest_that_is_leaving_a_crowded_host_sends_no_other_away() {
    let mut snapshot = hot();
    snapshot
        .guests
        .iter_mut()
        .for_each(|g| g.cpu_demand_cores = 0.01);
    snapshot.in_flight.push(InFlight {
        guest: "g0".into(),
        from: "h1".into(),
        to: "h2".into(),
    });
    let policy = Policy::parse("[limits]\nmax_guests_per_host = 3").unwrap();
    let (found, _) = plan(&snapshot, &policy, &Options::default());
    assert_eq!(found.steps, [], "{}", found.to_json());
    assert_eq!(found.blocked, []);
}

#[test]
fn a_manual_move_takes_the_best_host_or_says_why_each_is_refused() {
    let policy =
        Policy::parse("[pin.x]\nguests=[\"g1\"]\nhosts=[\"h1\",\"h3\"]\nstrength=\"must\"")
            .unwrap();
    let snapshot = hot();
    assert_eq!(place_one(&snapshot, &policy, "g1", None).unwrap().to, "h3");
    let refused = |guest: &str, to: Option<&str>, s: &Snapshot| {
        let list = place_one(s, &policy, guest, to).unwrap_err();
        list.into_iter()
            .map(|r| (r.host, r.reason))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        refused("g1", Some("h2"), &snapshot),
        [("h2".into(), BlockReason::Pinned)]
    );
    assert_eq!(
        refused("g0", Some("h1"), &snapshot),
        [("h1".into(), BlockReason::AlreadyThere)]
    );
    assert_eq!(
        refused("g9", None, &snapshot),
        [(String::new(), BlockReason::NotThere)]
    );
    let mut full = snapshot;
    full.hosts[1].memory_mib = 8;
    full.hosts[2].state = HostState::Draining;
    assert_eq!(
        refused("g0", None, &full),
        [
            ("h2".into(), BlockReason::NoCapacity),
            ("h3".into(), BlockReason::HostClosed)
        ]
    );
}

#[test]
fn a_migration_that_does_not_fit_the_rest_is_named_and_its_guest_left_alone() {
    let flight = |guest: &str, from: &str, to: &str| InFlight {
        guest: guest.into(),
        from: from.into(),
        to: to.into(),
    };
    for (flight, guest, part) in [
        (flight("web-9", "h1", "h2"), "web-9", "no such guest"),
        (flight("g1", "h1", "h9"), "g1", "no host \"h9\""),
        (flight("g1", "h9", "h2"), "g1", "no host \"h9\""),
        (flight("g1", "h2", "h3"), "g1", "but is on h1"),
        (flight("g1", "h1", "h1"), "g1", "no way"),
    ] {
        let mut snapshot = hot();
        snapshot.in_flight.push(flight);
        assert_eq!(snapshot.validate().map_err(|e| e.to_string()), Ok(()));
        let policy = Policy::default();
        let (found, _) = plan(&snapshot, &policy, &Options::default());
        let named = found
            .blocked
            .iter()
            .find(|b| b.guest.as_deref() == Some(guest));
        let named = named.unwrap_or_else(|| panic!("{}", found.to_json()));
        assert_eq!(named.reason, BlockReason::StaleData);
        assert!(named.detail.contains(part), "{named:?}");
        assert!(!found.steps.is_empty() && found.steps.iter().all(|s| s.guest != guest));
        assert_eq!(evenkeel_planner::check(&snapshot, &policy, &found), vec![]);
        let loss = fleet_loss(&snapshot, &policy).total;
        assert!((loss - fleet_loss(&hot(), &policy).total).abs() < 1e-12);
    }
}
