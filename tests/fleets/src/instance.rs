//! A fleet as numbers, and what a placement of it costs under the frozen-variance surrogate.
//!
//! J = horizon × Σ value of hosts + factor × Σ cost of migrations, guest-seconds. A host's value is its
//! contention loss with its variance frozen, and with the strategy `spread` the balance terms. This is computed
//! here anew from the formulae of the model, not by the planner's search: the two must agree. `exact.py` computes
//! it a third time.
//!
//! Memory loss is no part of it: in the families no host can lose any (a test holds them to that).

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use evenkeel_planner::constants::payback;
use evenkeel_planner::loss::{Load, Shape};
use evenkeel_planner::normal::unit_loss;
use evenkeel_planner::policy::RuleKind;
use evenkeel_planner::{
    HostState, Policy, Snapshot, Strategy, Strength, Variance, frozen_variances, migration_costs,
};
use serde::{Deserialize, Serialize};

/// A host in numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostNumbers {
    /// Its name.
    pub name: String,
    /// Cores offered.
    pub cores: f64,
    /// Mean use of the host's own threads, cores.
    pub own: f64,
    /// Frozen variance, cores².
    pub variance: f64,
    /// Measured over predicted loss.
    pub calibration: f64,
    /// Memory that is never exceeded, MiB.
    pub capacity_mib: i64,
    /// Whether its utilisation should be even with the others'.
    pub counted: bool,
}

/// A guest in numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuestNumbers {
    /// Its name.
    pub name: String,
    /// Mean demand, cores.
    pub demand: f64,
    /// Allocated memory, MiB.
    pub memory_mib: i64,
    /// The host it is on.
    pub home: usize,
    /// Per host: cost of bringing it there with the price of a migration, guest-seconds; 0 at home; none where it
    /// may not end: also at home when that is being drained.
    pub cost: Vec<Option<f64>>,
}

/// Guests of which no two may share a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apart {
    /// The guests.
    pub members: Vec<usize>,
    /// Per host: its place.
    pub place: Vec<usize>,
}

/// A fleet in numbers, hosts and guests in the order of the snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Seconds over which savings count.
    pub horizon: f64,
    /// How many times its cost a migration must save.
    pub factor: f64,
    /// Price of balance, guest-seconds per second and core; 0 unless the strategy is `spread`.
    pub balance: f64,
    /// Demand over cores, allocation over memory: of the counted hosts together.
    pub mean: (f64, f64),
    /// The hosts.
    pub hosts: Vec<HostNumbers>,
    /// The guests.
    pub guests: Vec<GuestNumbers>,
    /// The must anti-affinity rules.
    pub apart: Vec<Apart>,
}

/// A placement: per guest its host.
pub type Placement = Vec<usize>;

impl Instance {
    /// The numbers of a fleet.
    ///
    /// # Errors
    /// When the fleet or the policy has something that the families do not have and that is not modelled here.
    pub fn new(snapshot: &Snapshot, policy: &Policy) -> anyhow::Result<Self> {
        refuse_what_is_not_modelled(snapshot, policy)?;
        let variances = frozen_variances(snapshot, policy);
        let at: BTreeMap<&str, usize> = numbered(snapshot.hosts.iter().map(|h| h.name.as_str()));
        let hosts: Vec<HostNumbers> = snapshot
            .hosts
            .iter()
            .zip(variances)
            .map(|(host, variance)| {
                let shape = Shape::of(host, policy);
                Ok(HostNumbers {
                    name: host.name.clone(),
                    cores: shape.cores,
                    own: shape.own,
                    variance,
                    calibration: shape.calibration,
                    capacity_mib: i64::try_from(host.memory_mib)?,
                    counted: host.state == HostState::Active,
                })
            })
            .collect::<anyhow::Result<_>>()?;
        let costs = migration_costs(snapshot, policy, Variance::Frozen);
        let guests: Vec<GuestNumbers> = snapshot
            .guests
            .iter()
            .zip(costs)
            .map(|(guest, mut cost)| {
                let home = *at.get(guest.host.as_str()).context("a guest's host")?;
                if snapshot.hosts[home].state == HostState::Draining {
                    cost[home] = None;
                }
                Ok(GuestNumbers {
                    name: guest.name.clone(),
                    demand: guest.cpu_demand_cores,
                    memory_mib: Load::of(guest).memory,
                    home,
                    cost,
                })
            })
            .collect::<anyhow::Result<_>>()?;
        let payback = payback(policy.aggressiveness);
        let mut instance = Self {
            horizon: payback.horizon_seconds,
            factor: payback.factor,
            balance: match policy.strategy {
                Strategy::Spread => policy.price.balance,
                Strategy::Contention | Strategy::Consolidate => 0.0,
            },
            mean: (0.0, 0.0),
            apart: apart(snapshot, policy),
            hosts,
            guests,
        };
        instance.mean = instance.mean_utilisation();
        Ok(instance)
    }

    /// Sixteen hexadecimal digits of its content (FNV-1a over its JSON): a bound belongs to one fleet only.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{hash:016x}")
    }

    fn mean_utilisation(&self) -> (f64, f64) {
        let counted = || self.hosts.iter().filter(|h| h.counted);
        let demand: f64 = self.guests.iter().map(|g| g.demand).sum();
        let memory: i64 = self.guests.iter().map(|g| g.memory_mib).sum();
        let cores: f64 = counted().map(|h| h.cores).sum();
        let capacity: i64 = counted().map(|h| h.capacity_mib).sum();
        (demand / cores, mib(memory) / mib(capacity))
    }

    /// Where the guests are.
    #[must_use]
    pub fn homes(&self) -> Placement {
        self.guests.iter().map(|g| g.home).collect()
    }

    /// What a host with that demand (cores) and memory (MiB) costs, guest-seconds per second.
    #[must_use]
    pub fn value(&self, host: usize, demand: f64, memory: i64) -> f64 {
        let h = &self.hosts[host];
        let deviation = h.variance.sqrt();
        let contention =
            deviation * unit_loss((demand + h.own - h.cores) / deviation) * h.calibration;
        if !h.counted {
            return contention;
        }
        let cpu = demand / h.cores - self.mean.0;
        let memory = mib(memory) / mib(h.capacity_mib) - self.mean.1;
        contention + self.balance * h.cores * (cpu * cpu + memory * memory)
    }

    /// Per host: demand and memory of a placement.
    #[must_use]
    pub fn sums(&self, placement: &[usize]) -> Vec<(f64, i64)> {
        let mut sums = vec![(0.0, 0); self.hosts.len()];
        for (guest, &host) in self.guests.iter().zip(placement) {
            sums[host].0 += guest.demand;
            sums[host].1 += guest.memory_mib;
        }
        sums
    }

    /// Σ of the hosts' values of a placement, guest-seconds per second.
    #[must_use]
    pub fn loss(&self, placement: &[usize]) -> f64 {
        let sums = self.sums(placement).into_iter().enumerate();
        sums.map(|(host, (demand, memory))| self.value(host, demand, memory))
            .sum()
    }

    /// What going there costs, guest-seconds, each guest moving once at most; none if one may not be where it is.
    #[must_use]
    pub fn cost(&self, placement: &[usize]) -> Option<f64> {
        let guests = self.guests.iter().zip(placement);
        guests.map(|(guest, &host)| guest.cost[host]).sum()
    }

    /// J of a placement, guest-seconds; none if it is not allowed.
    #[must_use]
    pub fn objective(&self, placement: &[usize]) -> Option<f64> {
        let cost = self.cost(placement)?;
        self.is_allowed(placement)
            .then(|| self.horizon * self.loss(placement) + self.factor * cost)
    }

    /// Whether memory and rules hold in a placement.
    #[must_use]
    pub fn is_allowed(&self, placement: &[usize]) -> bool {
        let fits =
            |(host, (_, memory)): (usize, (f64, i64))| memory <= self.hosts[host].capacity_mib;
        let parted = |rule: &Apart| {
            let mut places: Vec<usize> = rule
                .members
                .iter()
                .map(|&g| rule.place[placement[g]])
                .collect();
            places.sort_unstable();
            places.windows(2).all(|pair| pair[0] != pair[1])
        };
        self.sums(placement).into_iter().enumerate().all(fits) && self.apart.iter().all(parted)
    }
}

fn refuse_what_is_not_modelled(snapshot: &Snapshot, policy: &Policy) -> anyhow::Result<()> {
    snapshot.validate().context("the fleet")?;
    let active_or_draining = |s: HostState| matches!(s, HostState::Active | HostState::Draining);
    if !snapshot.hosts.iter().all(|h| active_or_draining(h.state)) || !snapshot.in_flight.is_empty()
    {
        bail!("cordoned and absent hosts and migrations in flight are not modelled");
    }
    let limits = &policy.limits;
    let plain = limits.max_guests_per_host == 0
        && limits.reserve_host_failures == 0
        && limits.memory_overcommit.to_bits() == 1.0_f64.to_bits();
    let rules = policy.rules.iter().all(|rule| {
        rule.strength == Strength::Must && matches!(rule.kind, RuleKind::AntiAffinity { .. })
    });
    if !plain || !rules || policy.strategy == Strategy::Consolidate {
        bail!("only must anti-affinity, plain limits, contention and spread are modelled");
    }
    Ok(())
}

fn apart(snapshot: &Snapshot, policy: &Policy) -> Vec<Apart> {
    let rules = policy.rules.iter().filter_map(|rule| {
        let RuleKind::AntiAffinity { over } = &rule.kind else {
            return None;
        };
        let chosen = |g: &evenkeel_planner::Guest| {
            let labels = &rule.guests.labels;
            labels
                .iter()
                .all(|(key, value)| g.label(key) == Some(value))
        };
        let guests = snapshot.guests.iter().enumerate();
        let members = guests.filter(|(_, g)| chosen(g)).map(|(at, _)| at);
        let place_of = |host: &evenkeel_planner::Host| match over {
            Some(label) => host.labels.get(label).cloned().unwrap_or_default(),
            None => host.name.clone(),
        };
        let names: Vec<String> = snapshot.hosts.iter().map(place_of).collect();
        let mut sorted = names.clone();
        sorted.sort();
        sorted.dedup();
        Some(Apart {
            members: members.collect(),
            place: names
                .iter()
                .filter_map(|name| sorted.binary_search(name).ok())
                .collect(),
        })
    });
    rules.collect()
}

fn numbered<'n>(names: impl Iterator<Item = &'n str>) -> BTreeMap<&'n str, usize> {
    names.enumerate().map(|(at, name)| (name, at)).collect()
}

/// MiB as a float.
#[expect(clippy::as_conversions, reason = "exact below 2^53 MiB")]
pub(crate) fn mib(value: i64) -> f64 {
    value as f64
}
