//! The fleet in the planner's words: estimates instead of readings, names instead of ids, and whatever
//! must not be moved marked so, with the reason.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_planner::estimate::Reading;
use evenkeel_planner::{Guest, GuestState, Host, HostState, InFlight, Policy, Pressure, Snapshot};
use evenkeel_types::{GuestId, HostName};
use jiff::Timestamp;

use super::Core;
use crate::observe::{Fleet, GuestReading, HostReport, RunState};

/// Basis points in one.
const BASIS_POINTS: f64 = 10_000.0;

/// Builds the snapshot, and the ids behind its guests' names.
pub(super) fn build(
    core: &Core,
    fleet: &Fleet,
    policy: &Policy,
    now_ms: i64,
) -> (Snapshot, BTreeMap<String, GuestId>) {
    let taken_at = Timestamp::from_millisecond(now_ms).unwrap_or_default();
    let mut snapshot = Snapshot::new("", taken_at);
    snapshot.hosts = fleet
        .hosts
        .keys()
        .map(|name| host(core, fleet, policy, name, now_ms))
        .collect();
    let mut ids = BTreeMap::new();
    let names = unique_names(fleet);
    for (host, report) in &fleet.reports {
        if !fleet.hosts.contains_key(host) {
            continue; // a report without an inventory: nothing is known of the host yet
        }
        for reading in &report.guests {
            if reading.state == RunState::Incoming {
                continue;
            }
            let Some(name) = names.get(&(host, &reading.id)) else {
                continue;
            };
            ids.insert(name.clone(), reading.id.clone());
            snapshot
                .guests
                .push(guest(core, fleet, policy, host, reading, name, now_ms));
        }
    }
    snapshot.in_flight = in_flight(fleet, &names);
    (snapshot, ids)
}

/// Names that are unique in the snapshot: a name on two hosts becomes `host/name`.
fn unique_names(fleet: &Fleet) -> BTreeMap<(&HostName, &GuestId), String> {
    let everyone = || {
        fleet.reports.iter().flat_map(|(host, report)| {
            report
                .guests
                .iter()
                .filter(|g| g.state != RunState::Incoming)
                .map(move |g| (host, g))
        })
    };
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, guest) in everyone() {
        *uses.entry(guest.name.as_str()).or_default() += 1;
    }
    everyone()
        .map(|(host, guest)| {
            let alone = uses.get(guest.name.as_str()) == Some(&1);
            let name = if alone {
                guest.name.clone()
            } else {
                format!("{host}/{}", guest.name)
            };
            ((host, &guest.id), name)
        })
        .collect()
}

/// Whether a host's data can be used: its agent lives, its libvirt answers, its report is fresh.
fn is_usable(
    core: &Core,
    policy: &Policy,
    name: &HostName,
    report: &HostReport,
    now_ms: i64,
) -> bool {
    let fresh = core
        .report_age(name, now_ms)
        .is_some_and(|age| age <= policy.control.max_report_age);
    report.libvirt_up && fresh
}

fn host(core: &Core, fleet: &Fleet, policy: &Policy, name: &HostName, now_ms: i64) -> Host {
    let report = fleet.reports.get(name);
    let usable = report.is_some_and(|r| is_usable(core, policy, name, r, now_ms));
    let mut host = Host {
        name: name.to_string(),
        state: if usable {
            HostState::Active
        } else {
            HostState::Absent
        },
        ..Host::default()
    };
    if let Some(facts) = fleet.hosts.get(name) {
        host.cpu_cores = facts.cpu_cores;
        host.memory_mib = facts.memory_mib;
        host.labels = facts.labels.clone();
        host.cpu_class = facts.cpu_class.clone();
        host.networks = facts.networks.clone();
        host.storage = facts.storage.clone();
        if let Some(bandwidth) = facts.migration_bandwidth_mib_s {
            host.migration_bandwidth_mib_s = bandwidth;
        }
    }
    if let Some(report) = report {
        host.pressure = report.pressure.available.then(|| pressure(report));
        let own = report.host_cpu_cores - report.guests_cpu_cores;
        host.own_cpu_cores = Some(own.max(0.0));
    }
    host
}

fn pressure(report: &HostReport) -> Pressure {
    let share = |bp: u32| f64::from(bp) / BASIS_POINTS;
    let p = &report.pressure;
    Pressure {
        cpu_some: share(p.cpu_some_bp),
        memory_some: share(p.memory_some_bp),
        memory_full: share(p.memory_full_bp),
        io_some: share(p.io_some_bp),
        io_full: share(p.io_full_bp),
    }
}

fn guest(
    core: &Core,
    fleet: &Fleet,
    policy: &Policy,
    host: &HostName,
    reading: &GuestReading,
    name: &str,
    now_ms: i64,
) -> Guest {
    let demand = core.estimator.demand(reading.id.as_str(), now_ms);
    let reading_alone = Reading {
        at_ms: now_ms,
        used_cores: reading.cpu_used_cores,
        delay_cores: reading.cpu_delay_cores,
        limit_cores: reading.cpu_limit_cores,
        during_migration: false,
    };
    let rests_until = fleet
        .remembered
        .get(&reading.id)
        .map_or(0, |r| r.cooldown_until_ms);
    let obstacle = obstacle(core, fleet, policy, host, reading, now_ms);
    let learned = fleet
        .remembered
        .get(&reading.id)
        .map_or(0.0, |r| r.message.dirty_rate_mib_s);
    Guest {
        name: name.to_owned(),
        uuid: Some(reading.id.to_string()),
        host: host.to_string(),
        state: match reading.state {
            RunState::Running => GuestState::Running,
            RunState::Paused | RunState::Incoming => GuestState::Paused,
            RunState::ShutOff => GuestState::Shutoff,
        },
        vcpus: reading.vcpus,
        cpu_demand_cores: demand.map_or(reading_alone.demand_cores(), |d| d.mean_cores),
        cpu_demand_stddev_cores: demand.map_or(0.0, |d| d.stddev_cores),
        memory_mib: reading.memory_mib,
        memory_active_mib: reading.memory_used_mib,
        dirty_rate_mib_s: reading.dirty_rate_mib_s.unwrap_or(learned),
        local_disk_mib: reading.local_disk_mib,
        networks: reading.networks.clone(),
        storage: reading.storage.clone(),
        labels: reading.labels.clone(),
        group: reading.group.clone(),
        movable: obstacle.is_none(),
        unmovable_reason: obstacle,
        cooldown_until: (rests_until > now_ms)
            .then(|| Timestamp::from_millisecond(rests_until).ok())
            .flatten(),
        priority: reading.priority,
        ..Guest::default()
    }
}

/// Why a guest must not be moved now, by name; `None`: nothing is known against it.
fn obstacle(
    core: &Core,
    fleet: &Fleet,
    policy: &Policy,
    host: &HostName,
    reading: &GuestReading,
    now_ms: i64,
) -> Option<String> {
    let places = fleet
        .sightings(&reading.id)
        .filter(|(_, g)| g.state != RunState::Incoming)
        .count();
    if places > 1 {
        return Some("duplicate_uuid".to_owned());
    }
    if let Some(hindrance) = reading.hindrances.first() {
        return Some(hindrance.clone());
    }
    let usable = fleet
        .reports
        .get(host)
        .is_some_and(|r| is_usable(core, policy, host, r, now_ms));
    (!usable).then(|| "stale_data".to_owned())
}

/// Guests that are being moved: they count on both hosts, and nothing else is ordered for them.
fn in_flight(fleet: &Fleet, names: &BTreeMap<(&HostName, &GuestId), String>) -> Vec<InFlight> {
    let mut moving = BTreeSet::new();
    let mut flights = vec![];
    for order in fleet.open_migrations().values() {
        let known =
            fleet.hosts.contains_key(&order.source) && fleet.hosts.contains_key(&order.target);
        let name = names
            .get(&(&order.source, &order.guest))
            .or_else(|| names.get(&(&order.target, &order.guest)));
        if let (true, Some(name)) = (known && moving.insert(order.guest.clone()), name) {
            flights.push(InFlight {
                guest: name.clone(),
                from: order.source.to_string(),
                to: order.target.to_string(),
            });
        }
    }
    flights
}
