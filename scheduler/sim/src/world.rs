//! The simulated fleet: what really happens, which the scheduler only sees through reports.

use std::collections::BTreeMap;

use evenkeel_proto::v1;
use evenkeel_scheduler::observe::{GuestReading, HostFacts, HostReport, RunState};
use evenkeel_types::{GuestId, HostName};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How much of a guest's deviation lasts from one second to the next.
const PERSISTENCE: f64 = 0.9;
/// A copy ends when this little is left, MiB: it fits into the pause.
const LAST_ROUND_MIB: f64 = 16.0;

/// A simulated host.
#[derive(Debug, Clone)]
pub struct SimHost {
    /// Its name.
    pub name: HostName,
    /// Cores for guests.
    pub cpu_cores: f64,
    /// Memory for guests, MiB.
    pub memory_mib: u64,
    /// Bandwidth of its migration link, MiB/s.
    pub bandwidth_mib_s: f64,
}

/// A simulated guest.
#[derive(Debug, Clone)]
pub struct SimGuest {
    /// Its id.
    pub id: GuestId,
    /// Its name.
    pub name: String,
    /// Where it runs.
    pub host: HostName,
    /// vCPUs.
    pub vcpus: u32,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Mean of what it wants, cores.
    pub mean_cores: f64,
    /// Standard deviation of what it wants, cores.
    pub stddev_cores: f64,
    /// Memory it dirties, MiB/s.
    pub dirty_mib_s: f64,
    /// Deviation at this second, in units of `stddev_cores`.
    mood: f64,
    wanted: f64,
    given: f64,
}

impl SimGuest {
    /// A guest that wants `mean_cores`, give or take `stddev_cores`.
    #[must_use]
    pub fn new(number: u32, host: &HostName, mean_cores: f64, stddev_cores: f64) -> Option<Self> {
        Some(Self {
            id: format!("00000000-0000-4000-8000-{number:012}")
                .parse()
                .ok()?,
            name: format!("g{number}"),
            host: host.clone(),
            vcpus: 2,
            memory_mib: 2048,
            mean_cores,
            stddev_cores,
            dirty_mib_s: 10.0,
            mood: 0.0,
            wanted: mean_cores,
            given: 0.0,
        })
    }
}

/// A copy under way.
#[derive(Debug, Clone)]
struct Copy {
    target: HostName,
    left_mib: f64,
}

/// The fleet.
#[derive(Debug)]
pub struct World {
    /// Hosts by name.
    pub hosts: BTreeMap<HostName, SimHost>,
    /// Guests by id.
    pub guests: BTreeMap<GuestId, SimGuest>,
    copies: BTreeMap<GuestId, Copy>,
    rng: StdRng,
    sequence: u64,
}

impl World {
    /// A fleet whose chance follows from `seed`.
    #[must_use]
    pub fn new(hosts: Vec<SimHost>, guests: Vec<SimGuest>, seed: u64) -> Self {
        Self {
            hosts: hosts
                .into_iter()
                .map(|host| (host.name.clone(), host))
                .collect(),
            guests: guests
                .into_iter()
                .map(|guest| (guest.id.clone(), guest))
                .collect(),
            copies: BTreeMap::new(),
            rng: StdRng::seed_from_u64(seed),
            sequence: 0,
        }
    }

    /// One second passes. Returns the guest time lost in it, guest-seconds.
    pub fn second(&mut self) -> f64 {
        self.sequence += 1;
        for guest in self.guests.values_mut() {
            // Sum of uniforms: close enough to normal, and bounded.
            let shock: f64 = (0..12).map(|_| self.rng.random_range(-0.5..0.5)).sum();
            guest.mood =
                PERSISTENCE * guest.mood + (1.0 - PERSISTENCE * PERSISTENCE).sqrt() * shock;
            let wanted = guest.mean_cores + guest.mood * guest.stddev_cores;
            guest.wanted = wanted.clamp(0.0, f64::from(guest.vcpus));
        }
        let mut lost = 0.0;
        for host in self.hosts.values() {
            let here = || self.guests.values().filter(|guest| guest.host == host.name);
            let wanted: f64 = here().map(|guest| guest.wanted).sum();
            let share = if wanted > host.cpu_cores {
                host.cpu_cores / wanted
            } else {
                1.0
            };
            lost += wanted * (1.0 - share);
            let ids: Vec<GuestId> = here().map(|guest| guest.id.clone()).collect();
            for id in ids {
                if let Some(guest) = self.guests.get_mut(&id) {
                    guest.given = guest.wanted * share;
                }
            }
        }
        lost
    }

    /// Begins to copy a guest; does nothing if it is being copied already.
    pub fn migrate(&mut self, guest: &GuestId, target: &HostName) {
        if let (Some(found), false) = (self.guests.get(guest), self.copies.contains_key(guest)) {
            let memory = u32::try_from(found.memory_mib).unwrap_or(u32::MAX);
            let copy = Copy {
                target: target.clone(),
                left_mib: f64::from(memory),
            };
            self.copies.insert(guest.clone(), copy);
        }
    }

    /// One second of copying; returns the guests that have arrived.
    pub fn copy_second(&mut self) -> Vec<GuestId> {
        let mut users: BTreeMap<HostName, f64> = BTreeMap::new();
        for (id, copy) in &self.copies {
            let source = self.guests.get(id).map(|guest| guest.host.clone());
            for host in source.into_iter().chain([copy.target.clone()]) {
                *users.entry(host).or_default() += 1.0;
            }
        }
        let mut arrived = vec![];
        for (id, copy) in &mut self.copies {
            let Some(guest) = self.guests.get(id) else {
                continue;
            };
            let share = |host: &HostName| {
                let bandwidth = self.hosts.get(host).map_or(0.0, |h| h.bandwidth_mib_s);
                bandwidth / users.get(host).copied().unwrap_or(1.0)
            };
            let bandwidth = share(&guest.host).min(share(&copy.target));
            copy.left_mib += guest.dirty_mib_s - bandwidth;
            if copy.left_mib <= LAST_ROUND_MIB {
                arrived.push(id.clone());
            }
        }
        for id in &arrived {
            let Some(copy) = self.copies.remove(id) else {
                continue;
            };
            if let Some(guest) = self.guests.get_mut(id) {
                guest.host = copy.target;
            }
        }
        arrived
    }

    /// What a host is.
    #[must_use]
    pub fn facts(host: &SimHost) -> HostFacts {
        HostFacts {
            name: host.name.clone(),
            agent_address: format!("{}:7441", host.name),
            agent_version: "sim".to_owned(),
            cpu_cores: host.cpu_cores,
            memory_mib: host.memory_mib,
            cpu_class: "sim".to_owned(),
            labels: BTreeMap::new(),
            networks: vec![],
            storage: vec![],
            migration_bandwidth_mib_s: Some(host.bandwidth_mib_s),
        }
    }

    /// What a host's agent would report now.
    #[must_use]
    pub fn report(&self, host: &HostName) -> HostReport {
        let guests: Vec<GuestReading> = self
            .guests
            .values()
            .filter(|guest| guest.host == *host)
            .map(|guest| self.reading(guest))
            .collect();
        let used = guests.iter().map(|guest| guest.cpu_used_cores).sum();
        HostReport {
            sequence: self.sequence,
            measured_at_ms: 0,
            libvirt_up: true,
            guests_cpu_cores: used,
            host_cpu_cores: used,
            pressure: v1::Pressure::default(),
            guests,
            migrations_running: 0,
            troubles: vec![],
        }
    }

    fn reading(&self, guest: &SimGuest) -> GuestReading {
        GuestReading {
            id: guest.id.clone(),
            name: guest.name.clone(),
            state: RunState::Running,
            vcpus: guest.vcpus,
            cpu_used_cores: guest.given,
            cpu_delay_cores: guest.wanted - guest.given,
            cpu_limit_cores: f64::from(guest.vcpus),
            memory_mib: guest.memory_mib,
            memory_rss_mib: guest.memory_mib,
            memory_used_mib: None,
            dirty_rate_mib_s: Some(guest.dirty_mib_s),
            hindrances: vec![],
            networks: vec![],
            storage: vec![],
            local_disk_mib: 0,
            during_migration: self.copies.contains_key(&guest.id),
            group: None,
            labels: BTreeMap::new(),
            priority: 0,
        }
    }
}
