//! What a simulated fleet is made of.

use std::collections::BTreeMap;

use evenkeel_planner::{GuestState, Host, Snapshot};
use evenkeel_scheduler::observe::{GuestReading, HostFacts, RunState};
use evenkeel_types::{GuestId, HostName};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::load::{Pattern, normal};
use crate::num::{mib, whole};
use crate::trace::Trace;

/// Writes of a busy core, MiB/s: the middle, and the log-deviation from guest to guest.
const WRITES_PER_CORE: (f64, f64) = (20.0, 0.8);
/// Memory that a guest writes to at all, as a share of its memory: least and most.
const WRITTEN: (f64, f64) = (0.05, 0.4);
/// Memory in use, as a share of what is allocated: least and most, where nothing is recorded.
const IN_USE: (f64, f64) = (0.4, 0.9);

/// A simulated host.
#[derive(Debug, Clone)]
pub struct SimHost {
    /// What its agent announces.
    pub facts: HostFacts,
    /// Whether it is silent for the whole run: its guests are there and nobody sees them.
    pub absent: bool,
}

/// A simulated guest.
#[derive(Debug, Clone)]
pub struct SimGuest {
    /// What its host's agent reports of it, but for what is measured.
    pub reading: GuestReading,
    /// Where it is at the start.
    pub host: HostName,
    /// What it wants.
    pub pattern: Pattern,
    /// Memory that it writes at its usual load, MiB/s.
    pub writes_mib_s: f64,
    /// Memory that it writes to at all, MiB.
    pub written_mib: f64,
    /// Memory in use, MiB.
    pub active_mib: u64,
}

/// A fleet at the start of a run.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// Hosts.
    pub hosts: Vec<SimHost>,
    /// Guests.
    pub guests: Vec<SimGuest>,
    /// What of the source is not simulated, for people.
    pub notes: Vec<String>,
}

/// Why no fleet can be made.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A name is none, or a UUID.
    #[error("{what} {name:?} cannot be simulated")]
    Name {
        /// host or guest.
        what: &'static str,
        /// As it stands there.
        name: String,
    },
    /// The hosts' memory does not hold the guests.
    #[error("no host has {memory_mib} MiB left for guest {guest:?}")]
    NoRoom {
        /// The guest.
        guest: String,
        /// What it needs.
        memory_mib: u64,
    },
    /// A guest stands on a host that is not there.
    #[error("guest {guest:?} is on {host:?}, which is no host of the fleet")]
    NoHost {
        /// The guest.
        guest: String,
        /// The host.
        host: String,
    },
    /// A trace without samples, or of nobody.
    #[error("the trace holds no samples")]
    EmptyTrace,
}

impl SimHost {
    /// A host without labels and restrictions.
    #[must_use]
    pub fn new(name: HostName, cpu_cores: f64, memory_mib: u64, bandwidth_mib_s: f64) -> Self {
        let facts = HostFacts {
            agent_address: format!("{name}:7441"),
            name,
            agent_version: "sim".to_owned(),
            cpu_cores,
            memory_mib,
            cpu_class: "sim".to_owned(),
            labels: BTreeMap::new(),
            networks: vec![],
            storage: vec![],
            migration_bandwidth_mib_s: Some(bandwidth_mib_s),
            disk_locks: Default::default(),
        };
        Self {
            facts,
            absent: false,
        }
    }
}

impl SimGuest {
    /// A guest number `number` (below 10¹²) that wants what `pattern` says. How it uses its memory follows from the seed.
    ///
    /// # Errors
    /// When the number is too long to be part of a UUID.
    pub fn new(
        number: u64,
        host: &HostName,
        size: (u32, u64),
        pattern: Pattern,
        seed: u64,
    ) -> Result<Self, FleetError> {
        let (vcpus, memory_mib) = size;
        // Multiplied by an odd constant, so that ids differ at their beginnings as real ones do.
        let first = number.wrapping_mul(0x9e37_79b1) & 0xffff_ffff;
        let id = format!("{first:08x}-0000-4000-8000-{number:012}");
        let id = id.parse().map_err(|_| unusable("guest", &id))?;
        let habits = Habits::drawn(&pattern, memory_mib, seed ^ number);
        Ok(Self {
            reading: reading(
                id,
                format!("g{number}"),
                vcpus,
                memory_mib,
                habits.dirty_rate_mib_s(),
            ),
            host: host.clone(),
            pattern,
            writes_mib_s: habits.writes_mib_s,
            written_mib: habits.written_mib,
            active_mib: habits.active_mib,
        })
    }
}

fn unusable(what: &'static str, name: &str) -> FleetError {
    FleetError::Name {
        what,
        name: name.to_owned(),
    }
}

/// How a guest uses its memory; nothing records it, so it is drawn.
#[derive(Debug, Clone, Copy)]
struct Habits {
    writes_mib_s: f64,
    written_mib: f64,
    active_mib: u64,
}

impl Habits {
    fn drawn(pattern: &Pattern, memory_mib: u64, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let memory = mib(memory_mib);
        let per_core = WRITES_PER_CORE.0 * (WRITES_PER_CORE.1 * normal(&mut rng)).exp();
        Self {
            writes_mib_s: per_core * pattern.mean_cores().max(0.05),
            written_mib: memory * rng.random_range(WRITTEN.0..WRITTEN.1),
            active_mib: whole(memory * rng.random_range(IN_USE.0..IN_USE.1)),
        }
    }

    /// What an agent would measure: unique memory written to within a second.
    fn dirty_rate_mib_s(&self) -> f64 {
        unique(self.writes_mib_s, self.written_mib, 1.0)
    }
}

/// Unique memory written to within `time` seconds, MiB.
fn unique(writes_mib_s: f64, written_mib: f64, time: f64) -> f64 {
    let set = written_mib.max(1.0);
    set * (1.0 - (-writes_mib_s * time / set).exp())
}

fn reading(
    id: GuestId,
    name: String,
    vcpus: u32,
    memory_mib: u64,
    dirty_rate_mib_s: f64,
) -> GuestReading {
    GuestReading {
        id,
        name,
        state: RunState::Running,
        vcpus,
        cpu_used_cores: 0.0,
        cpu_delay_cores: 0.0,
        cpu_limit_cores: f64::from(vcpus),
        memory_mib,
        memory_rss_mib: memory_mib,
        memory_used_mib: None,
        dirty_rate_mib_s: Some(dirty_rate_mib_s),
        dirty_curve: vec![],
        hindrances: vec![],
        networks: vec![],
        storage: vec![],
        written_disks: vec![],
        migrating_out: false,
        local_disk_mib: 0,
        during_migration: false,
        group: None,
        labels: BTreeMap::new(),
        priority: 0,
    }
}

impl Fleet {
    /// The fleet of a snapshot: each guest's demand goes on with its mean and deviation, or, with a trace, follows
    /// the shape of a recorded guest (chosen by seed) at its own mean.
    ///
    /// # Errors
    /// When a name is none, a guest is on no host, or the trace is empty.
    pub fn of_snapshot(
        snapshot: &Snapshot,
        trace: Option<&Trace>,
        seed: u64,
    ) -> Result<Self, FleetError> {
        if trace.is_some_and(|t| t.is_empty()) {
            return Err(FleetError::EmptyTrace);
        }
        let mut fleet = Self {
            notes: not_simulated(snapshot),
            ..Self::default()
        };
        for host in &snapshot.hosts {
            fleet.hosts.push(host_of(host)?);
        }
        let mut rng = StdRng::seed_from_u64(seed);
        for (number, guest) in (1..).zip(&snapshot.guests) {
            let shape = trace.map(|t| (t, rng.random_range(0..t.samples.len())));
            fleet.guests.push(guest_of(guest, number, shape, seed)?);
        }
        Ok(fleet)
    }
}

fn not_simulated(snapshot: &Snapshot) -> Vec<String> {
    use evenkeel_planner::HostState;
    let closed = |h: &&Host| matches!(h.state, HostState::Cordoned | HostState::Draining);
    let closed = snapshot.hosts.iter().filter(closed);
    let mut notes: Vec<String> = closed
        .map(|h| {
            format!(
                "host {} is {} and simulated as active",
                h.name,
                h.state.as_str()
            )
        })
        .collect();
    if !snapshot.in_flight.is_empty() {
        let n = snapshot.in_flight.len();
        notes.push(format!("{n} migrations in flight are not gone on with"));
    }
    notes
}

fn host_of(host: &Host) -> Result<SimHost, FleetError> {
    let name: HostName = host
        .name
        .parse()
        .map_err(|_| unusable("host", &host.name))?;
    let mut sim = SimHost::new(
        name,
        host.cpu_cores,
        host.memory_mib,
        host.migration_bandwidth_mib_s,
    );
    sim.facts.cpu_class = host.cpu_class.clone();
    sim.facts.labels = host.labels.clone();
    sim.facts.networks = host.networks.clone();
    sim.facts.storage = host.storage.clone();
    sim.absent = host.state == evenkeel_planner::HostState::Absent;
    Ok(sim)
}

fn guest_of(
    guest: &evenkeel_planner::Guest,
    number: u64,
    shape: Option<(&Trace, usize)>,
    seed: u64,
) -> Result<SimGuest, FleetError> {
    let host: HostName = guest
        .host
        .parse()
        .map_err(|_| unusable("host", &guest.host))?;
    let pattern = match shape {
        None => Pattern::Stationary {
            mean_cores: guest.cpu_demand_cores,
            stddev_cores: guest.cpu_demand_stddev_cores,
        },
        Some((trace, row)) => shaped(trace, row, guest),
    };
    let size = (guest.vcpus, guest.memory_mib);
    let mut sim = SimGuest::new(number, &host, size, pattern, seed)?;
    if let Some(uuid) = guest.uuid.as_deref() {
        sim.reading.id = uuid.parse().map_err(|_| unusable("guest", uuid))?;
    }
    let short = guest
        .name
        .rsplit_once('/')
        .map_or(guest.name.as_str(), |(_, name)| name);
    sim.reading.name = short.to_owned();
    sim.reading.state = match guest.state {
        GuestState::Running => RunState::Running,
        GuestState::Paused => RunState::Paused,
        GuestState::Shutoff => RunState::ShutOff,
    };
    sim.reading.networks = guest.networks.clone();
    sim.reading.storage = guest.storage.clone();
    sim.reading.labels = guest.labels.clone();
    sim.reading.group = guest.group.clone();
    sim.reading.priority = guest.priority;
    sim.reading.local_disk_mib = guest.local_disk_mib;
    if !guest.movable {
        let reason = guest.unmovable_reason.clone();
        sim.reading.hindrances = vec![reason.unwrap_or_else(|| "no reason given".to_owned())];
    }
    remember_memory(&mut sim, guest);
    Ok(sim)
}

/// What the snapshot says of a guest's memory.
fn remember_memory(sim: &mut SimGuest, guest: &evenkeel_planner::Guest) {
    sim.active_mib = guest.active_mib();
    sim.reading.memory_used_mib = guest.memory_active_mib;
    sim.written_mib = sim.written_mib.min(mib(sim.active_mib));
    sim.writes_mib_s = guest.dirty_rate_mib_s;
    sim.reading.dirty_rate_mib_s = Some(guest.dirty_rate_mib_s);
}

/// A recorded guest's ups and downs at this guest's mean.
fn shaped(trace: &Trace, row: usize, guest: &evenkeel_planner::Guest) -> Pattern {
    let samples = trace.samples.get(row).map_or(&[][..], Vec::as_slice);
    let plain = Pattern::recorded(samples, trace.interval, 1.0, u32::MAX);
    let mean = plain.mean_cores();
    let scale = if mean > 0.0 {
        guest.cpu_demand_cores / mean
    } else {
        0.0
    };
    Pattern::recorded(samples, trace.interval, scale, guest.vcpus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::FIVE_MINUTES;

    const SNAPSHOT: &str = r#"{
        "schema": "evenkeel.snapshot/1", "cluster": "lab", "taken_at": "2026-11-23T01:00:00Z",
        "hosts": [
            {"name": "h1", "cpu_cores": 8, "memory_mib": 32768, "labels": {"rack": "r1"}},
            {"name": "h2", "cpu_cores": 8, "memory_mib": 32768, "state": "draining"}],
        "guests": [
            {"name": "a", "host": "h1", "vcpus": 4, "memory_mib": 4096, "cpu_demand_cores": 1.0,
             "cpu_demand_stddev_cores": 0.25, "dirty_rate_mib_s": 12, "memory_active_mib": 1024},
            {"name": "b", "host": "h2", "memory_mib": 1024, "movable": false, "state": "shutoff"}]}"#;

    #[test]
    fn a_snapshots_fleet_keeps_what_the_planner_asks_about() {
        let snapshot = Snapshot::from_json(SNAPSHOT).unwrap();
        let fleet = Fleet::of_snapshot(&snapshot, None, 1).unwrap();
        assert_eq!(fleet.notes, ["host h2 is draining and simulated as active"]);
        assert_eq!(fleet.hosts[0].facts.labels["rack"], "r1");
        let a = &fleet.guests[0];
        let pattern = Pattern::Stationary {
            mean_cores: 1.0,
            stddev_cores: 0.25,
        };
        assert_eq!((&a.pattern, a.active_mib), (&pattern, 1024));
        assert_eq!(a.reading.dirty_rate_mib_s, Some(12.0));
        assert!(a.written_mib <= 1024.0);
        assert_eq!(fleet.guests[1].reading.hindrances, ["no reason given"]);
        assert_eq!(fleet.guests[1].reading.state, RunState::ShutOff);
    }

    #[test]
    fn a_trace_lends_its_shape_and_the_guest_keeps_its_mean() {
        let snapshot = Snapshot::from_json(SNAPSHOT).unwrap();
        let trace = Trace::parse("t.csv", "guest,t0,t1\nx,10,30\n", FIVE_MINUTES).unwrap();
        let fleet = Fleet::of_snapshot(&snapshot, Some(&trace), 1).unwrap();
        let Pattern::Recorded { cores, .. } = &fleet.guests[0].pattern else {
            panic!("{:?}", fleet.guests[0].pattern);
        };
        assert!(
            (cores[0] - 0.5).abs() < 1e-9 && (cores[1] - 1.5).abs() < 1e-9,
            "{cores:?}"
        );
        let empty = Trace::parse("t.csv", "guest,t0\n", FIVE_MINUTES).unwrap();
        assert!(Fleet::of_snapshot(&snapshot, Some(&empty), 1).is_err());
    }
}
