//! The fleet in the planner's words: estimates instead of readings, names instead of ids, and whatever
//! must not be moved marked so, with the reason.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_planner::estimate::Reading;
use evenkeel_planner::policy::LocalDisks;
use evenkeel_planner::{Guest, GuestState, Host, HostState, InFlight, Policy, Pressure, Snapshot};
use evenkeel_proto::order::Order;
use evenkeel_types::{GuestId, HostName, Outcome};
use jiff::Timestamp;

use super::dirty::Dirt;
use super::{Core, drains, lessons, trouble};
use crate::observe::{Fleet, GuestReading, HostReport, IntentKind, RunState};

/// Basis points in one.
const BASIS_POINTS: f64 = 10_000.0;

/// The hindrance of guests whose disks only their host reaches.
pub const LOCAL_DISK: &str = "local_disk";

/// What a snapshot is made from.
#[derive(Clone, Copy)]
struct Picture<'a> {
    core: &'a Core,
    fleet: &'a Fleet,
    policy: &'a Policy,
    now_ms: i64,
    /// Guests whose UUID stands on several hosts.
    doubles: &'a BTreeSet<&'a GuestId>,
    /// Guests that may run twice or are moved by others.
    involved: &'a trouble::Involved,
    /// Migrations whose end is not in their source's report yet.
    ended: &'a BTreeMap<(&'a HostName, &'a GuestId), Outcome>,
}

/// Builds the snapshot, and the ids behind its guests' names.
pub(super) fn build(
    core: &Core,
    fleet: &Fleet,
    policy: &Policy,
    now_ms: i64,
) -> (Snapshot, BTreeMap<String, GuestId>) {
    let doubles = doubles(fleet);
    let involved = trouble::involved(fleet);
    let ended = fleet.unreported_ends();
    let picture = Picture {
        core,
        fleet,
        policy,
        now_ms,
        doubles: &doubles,
        involved: &involved,
        ended: &ended,
    };
    let taken_at = Timestamp::from_millisecond(now_ms).unwrap_or_default();
    let mut snapshot = Snapshot::new("", taken_at);
    snapshot.peak_correlation = core.learned.peak_correlation();
    snapshot.hosts = fleet.hosts.keys().map(|name| picture.host(name)).collect();
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
            snapshot.guests.push(picture.guest(host, reading, name));
        }
    }
    add_flights(fleet, &names, &mut snapshot);
    (snapshot, ids)
}

/// Guests that two hosts claim; the incoming half of a migration claims nothing.
fn doubles(fleet: &Fleet) -> BTreeSet<&GuestId> {
    let mut seen = BTreeSet::new();
    let everyone = fleet
        .reports
        .values()
        .flat_map(|report| report.guests.iter());
    everyone
        .filter(|guest| guest.state != RunState::Incoming)
        .filter(|guest| !seen.insert(&guest.id))
        .map(|guest| &guest.id)
        .collect()
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

impl Picture<'_> {
    /// Whether a host's data can be used: its agent lives, its libvirt answers, its report is fresh.
    fn is_usable(&self, name: &HostName) -> bool {
        let libvirt_up = self
            .fleet
            .reports
            .get(name)
            .is_some_and(|report| report.libvirt_up);
        let age = self.core.report_age(name, self.now_ms);
        libvirt_up && age.is_some_and(|age| age <= self.policy.control.max_report_age)
    }

    fn host(&self, name: &HostName) -> Host {
        let intent = self.fleet.intents.get(name);
        let state = match intent.map(|intent| intent.kind) {
            _ if !self.is_usable(name) => HostState::Absent,
            Some(IntentKind::Drain) => HostState::Draining,
            Some(IntentKind::Cordon) => HostState::Cordoned,
            None => HostState::Active,
        };
        let mut host = Host {
            name: name.to_string(),
            state,
            offline_too: intent.is_some_and(|intent| intent.message.offline_too),
            calibration: self.core.learned.calibration(name),
            memory_calibration: self.core.learned.memory_calibration(name),
            ..Host::default()
        };
        if let Some(facts) = self.fleet.hosts.get(name) {
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
        if let Some(report) = self.fleet.reports.get(name) {
            host.pressure = report.pressure.available.then(|| pressure(report));
            let own = report.host_cpu_cores - report.guests_cpu_cores;
            host.own_cpu_cores = Some(own.max(0.0));
        }
        host
    }

    fn guest(&self, host: &HostName, reading: &GuestReading, name: &str) -> Guest {
        let remembered = self.fleet.remembered.get(&reading.id);
        let rests_until = remembered.map_or(0, |r| r.cooldown_until_ms);
        let dirt = Dirt::of(reading, remembered);
        let moves = remembered.map_or(&[][..], |r| r.moves.as_slice());
        let left_lately = self
            .core
            .departures
            .left_lately(&reading.id, moves, self.now_ms);
        let obstacle = self.obstacle(host, reading);
        let (demand, deviation) = self.demand(reading);
        let has_quota = reading.cpu_limit_cores < f64::from(reading.vcpus);
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
            cpu_demand_cores: demand,
            cpu_demand_stddev_cores: deviation,
            cpu_limit_cores: has_quota.then_some(reading.cpu_limit_cores),
            memory_mib: reading.memory_mib,
            memory_active_mib: reading.memory_used_mib,
            dirty_rate_mib_s: dirt.rate_mib_s,
            dirty_curve: dirt.curve,
            local_disk_mib: reading.local_disk_mib,
            networks: reading.networks.clone(),
            storage: reading.storage.clone(),
            labels: reading.labels.clone(),
            group: reading.group.clone(),
            movable: obstacle.is_none(),
            unmovable_reason: obstacle,
            cooldown_until: (rests_until > self.now_ms)
                .then(|| Timestamp::from_millisecond(rests_until).ok())
                .flatten(),
            left_lately,
            refused_by: lessons::refused_by(moves, self.now_ms),
            unconverged_until: lessons::unconverged_until(moves, self.policy, self.now_ms),
            retry_after: drains::retry_at(self.fleet, host, &reading.id)
                .filter(|at_ms| *at_ms > self.now_ms)
                .and_then(|at_ms| Timestamp::from_millisecond(at_ms).ok()),
            priority: reading.priority,
            ..Guest::default()
        }
    }

    /// Mean and deviation of a guest's demand, cores; its latest reading where there is no history.
    fn demand(&self, reading: &GuestReading) -> (f64, f64) {
        if let Some(demand) = self.core.estimator.demand(reading.id.as_str(), self.now_ms) {
            return (demand.mean_cores, demand.stddev_cores);
        }
        let latest = Reading {
            at_ms: self.now_ms,
            used_cores: reading.cpu_used_cores,
            delay_cores: reading.cpu_delay_cores,
            limit_cores: reading.cpu_limit_cores,
            during_migration: false,
        };
        (latest.demand_cores(), 0.0)
    }

    /// Why a guest must not be moved now, by name; `None`: nothing is known against it.
    fn obstacle(&self, host: &HostName, reading: &GuestReading) -> Option<String> {
        if self.doubles.contains(&reading.id) {
            return Some("duplicate_uuid".to_owned());
        }
        if self.involved.in_double.contains(&reading.id) {
            return Some("shared_disk".to_owned());
        }
        if self.involved.moved_by_others.contains(&reading.id) {
            return Some("foreign_migration".to_owned());
        }
        let ended = self.ended.get(&(host, &reading.id));
        if ended.is_some_and(|outcome| outcome.has_moved()) {
            return Some("stale_data".to_owned()); // it is reported from where it was
        }
        // One whose size nobody knows cannot be priced.
        let copied = self.policy.migration.local_disks == LocalDisks::Copy;
        let goes_along =
            |name: &&String| copied && reading.local_disk_mib > 0 && *name == LOCAL_DISK;
        if let Some(hindrance) = reading.hindrances.iter().find(|name| !goes_along(name)) {
            return Some(hindrance.clone());
        }
        (!self.is_usable(host)).then(|| "stale_data".to_owned())
    }
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

/// Adds the guests that are being moved: they count on both hosts, and nothing else is ordered for them. One
/// whose source is silent stands in for itself, so that the target's memory stays reserved.
fn add_flights(
    fleet: &Fleet,
    names: &BTreeMap<(&HostName, &GuestId), String>,
    snapshot: &mut Snapshot,
) {
    let mut moving = BTreeSet::new();
    for order in fleet.open_migrations().values() {
        let known =
            fleet.hosts.contains_key(&order.source) && fleet.hosts.contains_key(&order.target);
        if !known || !moving.insert(order.guest.clone()) {
            continue;
        }
        let reported = names
            .get(&(&order.source, &order.guest))
            .or_else(|| names.get(&(&order.target, &order.guest)));
        let name = reported.cloned().unwrap_or_else(|| {
            let stand_in = stand_in(order);
            let name = stand_in.name.clone();
            snapshot.guests.push(stand_in);
            name
        });
        snapshot.in_flight.push(InFlight {
            guest: name,
            from: order.source.to_string(),
            to: order.target.to_string(),
        });
    }
}

/// A guest that no host reports while it is being moved, by what its order says.
fn stand_in(order: &Order) -> Guest {
    Guest {
        name: format!("{}/{}", order.source, order.message.guest_name),
        uuid: Some(order.guest.to_string()),
        host: order.source.to_string(),
        memory_mib: order.message.memory_mib,
        movable: false,
        unmovable_reason: Some("stale_data".to_owned()),
        ..Guest::default()
    }
}
