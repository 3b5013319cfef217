//! Synthetic fleets: recorded guests on equal hosts, placed by seed.

use evenkeel_types::HostName;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::fleet::{Fleet, FleetError, SimGuest, SimHost};
use crate::load::Pattern;
use crate::num::{count, whole};
use crate::trace::{GuestSpec, Trace};

/// No guest has more than this share of a host's memory: the few giants of a trace are cut down to it.
const LARGEST_SHARE: f64 = 0.25;
/// Share of the mean that the first host of a skewed start has of the load; the last has 2 less this.
const SKEW: f64 = 1.8;

/// How guests stand at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Each host has about the same mean load.
    Balanced,
    /// The hosts' mean loads fall evenly from 1.8 times the fleet's mean on the first to 0.2 times on the last.
    Skewed,
    /// Anywhere memory allows.
    Random,
}

/// Equal hosts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hosts {
    /// How many.
    pub count: usize,
    /// Cores of each.
    pub cpu_cores: f64,
    /// Memory of each, MiB.
    pub memory_mib: u64,
    /// Migration link of each, MiB/s.
    pub bandwidth_mib_s: f64,
}

impl Fleet {
    /// The guests of a trace on equal hosts. A guest without a spec has one vCPU and 2 GiB.
    ///
    /// # Errors
    /// When the trace is empty or memory does not suffice.
    pub fn of_trace(
        trace: &Trace,
        specs: &[GuestSpec],
        hosts: Hosts,
        start: Start,
        seed: u64,
    ) -> Result<Self, FleetError> {
        if trace.is_empty() {
            return Err(FleetError::EmptyTrace);
        }
        let mut fleet = Self::default();
        for number in 1..=hosts.count {
            let name = format!("h{number:03}");
            let name: HostName = name.parse().map_err(|_| FleetError::Name {
                what: "host",
                name: name.clone(),
            })?;
            fleet.hosts.push(SimHost::new(
                name,
                hosts.cpu_cores,
                hosts.memory_mib,
                hosts.bandwidth_mib_s,
            ));
        }
        let first = fleet.hosts.first().map(|host| host.facts.name.clone());
        let first = first.ok_or(FleetError::EmptyTrace)?;
        for (number, (name, samples)) in (1..).zip(trace.guests.iter().zip(&trace.samples)) {
            let spec = specs.iter().find(|spec| spec.name == *name);
            let vcpus = spec.map_or(1, |spec| spec.vcpus).min(cores(&hosts));
            let largest = whole(crate::num::mib(hosts.memory_mib) * LARGEST_SHARE);
            let memory = spec.map_or(2048, |spec| spec.memory_mib).min(largest);
            let scale = f64::from(spec.map_or(1, |spec| spec.vcpus));
            let pattern = Pattern::recorded(samples, trace.interval, scale, vcpus);
            let mut guest = SimGuest::new(number, &first, (vcpus, memory), pattern, seed)?;
            guest.reading.name.clone_from(name);
            fleet.guests.push(guest);
        }
        fleet.place(start, seed)?;
        Ok(fleet)
    }

    /// Places the guests anew.
    ///
    /// # Errors
    /// When a guest finds no room.
    pub fn place(&mut self, start: Start, seed: u64) -> Result<(), FleetError> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut desk = Desk::new(self, start);
        let mut order = shuffled(self.guests.len(), &mut rng);
        // The large ones first, or none has room left for them; those of about one size in random order.
        order.sort_by_key(|&at| {
            std::cmp::Reverse(self.guests[at].reading.memory_mib.max(1).ilog2())
        });
        for at in order {
            let guest = &self.guests[at];
            let host = desk.seat(guest, start, &mut rng)?;
            self.guests[at].host = self.hosts[host].facts.name.clone();
        }
        Ok(())
    }
}

fn cores(hosts: &Hosts) -> u32 {
    u32::try_from(whole(hosts.cpu_cores))
        .unwrap_or(u32::MAX)
        .max(1)
}

/// The numbers below `n` in random order.
pub(crate) fn shuffled(n: usize, rng: &mut StdRng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for at in (1..n).rev() {
        order.swap(at, rng.random_range(0..=at));
    }
    order
}

/// Hosts that are being filled.
struct Desk {
    room: Vec<u64>,
    /// Mean load so far over the share that the host is to have.
    demand: Vec<f64>,
    weight: Vec<f64>,
}

impl Desk {
    fn new(fleet: &Fleet, start: Start) -> Self {
        let hosts = &fleet.hosts;
        let last = count(hosts.len().saturating_sub(1)).max(1.0);
        let skew = |at: usize| SKEW - 2.0 * (SKEW - 1.0) * count(at) / last;
        let weight = |(at, host): (usize, &SimHost)| match start {
            Start::Skewed if hosts.len() > 1 => host.facts.cpu_cores * skew(at),
            Start::Skewed | Start::Balanced | Start::Random => host.facts.cpu_cores,
        };
        Self {
            room: hosts
                .iter()
                .map(|host| {
                    if host.absent {
                        0
                    } else {
                        host.facts.memory_mib
                    }
                })
                .collect(),
            demand: vec![0.0; hosts.len()],
            weight: hosts.iter().enumerate().map(weight).collect(),
        }
    }

    fn seat(
        &mut self,
        guest: &SimGuest,
        start: Start,
        rng: &mut StdRng,
    ) -> Result<usize, FleetError> {
        let (memory, mean) = (guest.reading.memory_mib, guest.pattern.mean_cores());
        let open: Vec<usize> = (0..self.room.len())
            .filter(|&h| self.room[h] >= memory)
            .collect();
        let filled = |h: &usize| (self.demand[*h] + mean) / self.weight[*h].max(1e-9);
        let host = match start {
            Start::Random if !open.is_empty() => Some(open[rng.random_range(0..open.len())]),
            Start::Random | Start::Balanced | Start::Skewed => open
                .into_iter()
                .min_by(|a, b| filled(a).total_cmp(&filled(b))),
        };
        let host = host.ok_or_else(|| FleetError::NoRoom {
            guest: guest.reading.name.clone(),
            memory_mib: memory,
        })?;
        self.room[host] -= memory;
        self.demand[host] += mean;
        Ok(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::FIVE_MINUTES;

    fn fleet(start: Start, seed: u64) -> Fleet {
        let rows: String = (0..60)
            .map(|n| format!("g{n},{},{}\n", n % 30, n % 30))
            .collect();
        let trace = Trace::parse("t.csv", &format!("guest,t0,t1\n{rows}"), FIVE_MINUTES).unwrap();
        let hosts = Hosts {
            count: 5,
            cpu_cores: 8.0,
            memory_mib: 40_960,
            bandwidth_mib_s: 1000.0,
        };
        Fleet::of_trace(&trace, &[], hosts, start, seed).unwrap()
    }

    /// Of each host: mean load and memory.
    fn loads(fleet: &Fleet) -> Vec<(f64, u64)> {
        let on = |host: &SimHost| {
            let here = fleet
                .guests
                .iter()
                .filter(|guest| guest.host == host.facts.name);
            here.fold((0.0, 0), |sum, guest| {
                (
                    sum.0 + guest.pattern.mean_cores(),
                    sum.1 + guest.reading.memory_mib,
                )
            })
        };
        fleet.hosts.iter().map(on).collect()
    }

    #[test]
    fn starts_are_balanced_skewed_or_random_and_fit() {
        for seed in 0..5 {
            for start in [Start::Balanced, Start::Skewed, Start::Random] {
                let loads = loads(&fleet(start, seed));
                assert!(loads.iter().all(|load| load.1 <= 40_960), "{loads:?}");
                let ends = loads[0].0 / loads[4].0;
                match start {
                    Start::Balanced => assert!((0.8..1.25).contains(&ends), "{loads:?}"),
                    Start::Skewed => assert!(ends > 4.0, "{loads:?}"),
                    Start::Random => {}
                }
            }
        }
        assert_eq!(
            loads(&fleet(Start::Random, 1)),
            loads(&fleet(Start::Random, 1))
        );
        assert_ne!(
            loads(&fleet(Start::Random, 1)),
            loads(&fleet(Start::Random, 2))
        );
    }

    #[test]
    fn a_fleet_without_room_is_refused_by_name() {
        let mut tight = fleet(Start::Balanced, 1);
        for host in &mut tight.hosts {
            host.facts.memory_mib = 3000;
        }
        let error = tight.place(Start::Balanced, 1).unwrap_err().to_string();
        assert!(
            error.starts_with("no host has 2048 MiB left for guest "),
            "{error}"
        );
    }
}
