//! What a host's guests lose to each other: the loss model.
//!
//! **CPU.** A work-conserving host with c cores and X runnable vCPUs keeps (X − c)⁺ of them waiting; that
//! is also what vCPU run delay measures. With X normal of mean D = Σdᵢ + own and variance
//! V = Σ vᵢpᵢ(1 − pᵢ) + Σσᵢ² + ρ(Σσᵢ)² + own, pᵢ = dᵢ/vᵢ, ρ as learned and at least 0.1, the expectation is
//! √V·φ(z) + (D − c)·Φ(z), z = (D − c)/√V ([`unit_loss`]), at most (Σvᵢ + own − c)⁺, times the host's
//! calibration.
//!
//! **Memory.** Zero while the working sets leave the headroom h, above it the stalled fraction of time
//! is `STALL_AT_FULL`·x², x = (u − (1 − h))/max(h, 0.01) with u = working sets over memory, times
//! the host's memory calibration, at most 1; the loss is that fraction of the guests' demand.
//!
//! All values are guest-seconds per second. The model is a sum over hosts, so a move changes two terms.

use crate::constants::{
    CALIBRATION_RANGE, DEVIATION_FLOOR, LEAST_HEADROOM, OWN_DEVIATION, OWN_SHARE, PEAK_CORRELATION,
    STALL_AT_FULL,
};
use crate::normal::{cumulative, density_at, unit_loss};
use crate::num::{from_mib, signed};
use crate::policy::Policy;
use crate::snapshot::{Guest, GuestState, Host, HostState, Snapshot};

/// The sums over guests that a host's loss depends on. Adding and subtracting takes constant time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    /// Σ dᵢ, cores.
    pub demand: f64,
    /// Σ vᵢpᵢ(1 − pᵢ), cores².
    pub binomial: f64,
    /// Σ σᵢ, cores.
    pub sigma: f64,
    /// Σ σᵢ², cores².
    pub sigma_sq: f64,
    /// Σ vᵢ.
    pub vcpus: f64,
    /// Allocated memory, MiB.
    pub memory: i64,
    /// Working sets, MiB.
    pub active: i64,
    /// Number of guests, shut-off ones included.
    pub guests: i64,
}

impl Load {
    /// What one guest adds to its host.
    #[must_use]
    pub fn of(guest: &Guest) -> Self {
        match guest.state {
            GuestState::Running => Self::running(guest),
            GuestState::Paused => Self {
                guests: 1,
                ..Self::memory_of(guest)
            },
            GuestState::Shutoff => Self {
                guests: 1,
                ..Self::default()
            },
        }
    }

    fn running(guest: &Guest) -> Self {
        let vcpus = f64::from(guest.vcpus.max(1));
        let demand = guest.demand_cores();
        let share = (demand / vcpus).min(1.0);
        let sigma = guest.cpu_demand_stddev_cores.max(DEVIATION_FLOOR * demand);
        Self {
            demand,
            binomial: vcpus * share * (1.0 - share),
            sigma,
            sigma_sq: sigma * sigma,
            vcpus,
            guests: 1,
            ..Self::memory_of(guest)
        }
    }

    fn memory_of(guest: &Guest) -> Self {
        let memory = signed(guest.memory_mib);
        let active = signed(guest.active_mib()).min(memory);
        Self {
            memory,
            active,
            ..Self::default()
        }
    }

    /// The sum of two loads.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            demand: self.demand + other.demand,
            binomial: self.binomial + other.binomial,
            sigma: self.sigma + other.sigma,
            sigma_sq: self.sigma_sq + other.sigma_sq,
            vcpus: self.vcpus + other.vcpus,
            memory: self.memory + other.memory,
            active: self.active + other.active,
            guests: self.guests + other.guests,
        }
    }

    /// The difference of two loads, which may be negative.
    #[must_use]
    pub(crate) fn less(&self, other: &Self) -> Self {
        Self {
            demand: self.demand - other.demand,
            binomial: self.binomial - other.binomial,
            sigma: self.sigma - other.sigma,
            sigma_sq: self.sigma_sq - other.sigma_sq,
            vcpus: self.vcpus - other.vcpus,
            memory: self.memory - other.memory,
            active: self.active - other.active,
            guests: self.guests - other.guests,
        }
    }

    /// The load without a part of it; rounding below zero is cut off.
    #[must_use]
    pub fn minus(&self, part: &Self) -> Self {
        Self {
            demand: (self.demand - part.demand).max(0.0),
            binomial: (self.binomial - part.binomial).max(0.0),
            sigma: (self.sigma - part.sigma).max(0.0),
            sigma_sq: (self.sigma_sq - part.sigma_sq).max(0.0),
            vcpus: (self.vcpus - part.vcpus).max(0.0),
            memory: self.memory - part.memory,
            active: self.active - part.active,
            guests: self.guests - part.guests,
        }
    }
}

/// What the loss depends on besides the guests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Cores offered to guests.
    pub cores: f64,
    /// Mean use of the host's own threads, cores.
    pub own: f64,
    /// Its variance, cores².
    pub own_variance: f64,
    /// Measured over predicted CPU loss.
    pub calibration: f64,
    /// The same of the memory loss.
    pub memory_calibration: f64,
    /// ρ: correlation of the guests' demands.
    pub correlation: f64,
    /// Memory offered to guests, MiB.
    pub memory: f64,
    /// Fraction of the memory that should stay free.
    pub headroom: f64,
    /// Whether anything is known of the host: an absent one has no loss.
    pub present: bool,
    /// A variance that stays whatever guests the host has, cores²: the loss is then a convex function of
    /// the mean demand alone, also because its cap is off. `None` in all planning but comparisons with an
    /// exact solver ([`crate::surrogate`]).
    pub frozen_variance: Option<f64>,
}

impl Shape {
    /// The shape of a host under a policy, in a fleet of which no correlation is known.
    #[must_use]
    pub fn of(host: &Host, policy: &Policy) -> Self {
        let deviation = OWN_DEVIATION * host.cpu_cores;
        Self {
            cores: host.cpu_cores,
            own: host.own_cpu_cores.unwrap_or(OWN_SHARE * host.cpu_cores),
            own_variance: deviation * deviation,
            calibration: bounded(host.calibration),
            memory_calibration: bounded(host.memory_calibration),
            correlation: PEAK_CORRELATION,
            memory: from_mib(signed(host.memory_mib)),
            headroom: policy.limits.memory_headroom,
            present: host.state != HostState::Absent,
            frozen_variance: None,
        }
    }

    /// The shape with the fleet's correlation of demands, not below the floor.
    #[must_use]
    pub fn correlated(self, peak_correlation: f64) -> Self {
        Self {
            correlation: peak_correlation.clamp(PEAK_CORRELATION, 1.0),
            ..self
        }
    }

    fn deviation(&self, load: &Load) -> f64 {
        if let Some(variance) = self.frozen_variance {
            return variance.sqrt();
        }
        let correlated = self.correlation * load.sigma * load.sigma;
        (load.binomial + load.sigma_sq + self.own_variance + correlated).sqrt()
    }

    /// Expected number of waiting vCPUs: guest-seconds per second.
    #[must_use]
    pub fn cpu_loss(&self, load: &Load) -> f64 {
        let frozen = self.frozen_variance.is_some();
        if !self.present || (load.demand <= 0.0 && !frozen) {
            return 0.0;
        }
        let excess = load.demand + self.own - self.cores;
        let cap = if frozen {
            f64::INFINITY
        } else {
            (load.vcpus + self.own - self.cores).max(0.0)
        };
        let deviation = self.deviation(load);
        let expected = if deviation > 0.0 {
            deviation * unit_loss(excess / deviation)
        } else {
            excess.max(0.0)
        };
        expected.min(cap) * self.calibration
    }

    /// Probability that a runnable vCPU waits: the slope of the CPU loss in the demand.
    #[must_use]
    pub fn cpu_slope(&self, load: &Load) -> f64 {
        if !self.present {
            return 0.0;
        }
        let deviation = self.deviation(load);
        let excess = load.demand + self.own - self.cores;
        if deviation > 0.0 {
            cumulative(excess / deviation) * self.calibration
        } else if excess >= 0.0 {
            self.calibration
        } else {
            0.0
        }
    }

    /// Slope of the CPU loss in the variance, per core: φ(z)/(2√V).
    #[must_use]
    pub fn variance_slope(&self, load: &Load) -> f64 {
        let deviation = self.deviation(load);
        if !self.present || self.frozen_variance.is_some() || deviation <= 0.0 {
            return 0.0;
        }
        let excess = load.demand + self.own - self.cores;
        density_at(excess / deviation) / (2.0 * deviation) * self.calibration
    }

    /// Stalled fraction of time for want of memory, 0–1.
    #[must_use]
    pub fn memory_stall(&self, load: &Load) -> f64 {
        if !self.present || load.active <= 0 {
            return 0.0;
        }
        let free = self.memory * self.headroom;
        let over = from_mib(load.active) - (self.memory - free);
        if over <= 0.0 {
            return 0.0;
        }
        // Without headroom there is still no cliff: the loss begins at zero and grows within a hundredth.
        let x = over / free.max(LEAST_HEADROOM * self.memory);
        (STALL_AT_FULL * x * x * self.memory_calibration).min(1.0)
    }

    /// Loss for want of memory: guest-seconds per second.
    #[must_use]
    pub fn memory_loss(&self, load: &Load) -> f64 {
        self.memory_stall(load) * load.demand
    }

    /// CPU and memory loss: guest-seconds per second.
    #[must_use]
    pub fn loss(&self, load: &Load) -> f64 {
        self.cpu_loss(load) + self.memory_loss(load)
    }

    /// CPU demand over cores; 0 for a host without cores.
    #[must_use]
    pub fn cpu_utilisation(&self, load: &Load) -> f64 {
        if self.cores > 0.0 {
            load.demand / self.cores
        } else {
            0.0
        }
    }

    /// Allocated over offered memory; 0 for a host without memory.
    #[must_use]
    pub fn memory_utilisation(&self, load: &Load) -> f64 {
        if self.memory > 0.0 {
            from_mib(load.memory) / self.memory
        } else {
            0.0
        }
    }
}

fn bounded(calibration: f64) -> f64 {
    calibration.clamp(CALIBRATION_RANGE.0, CALIBRATION_RANGE.1)
}

/// The loss of a host with these guests, guest-seconds per second, where no correlation is known.
#[must_use]
pub fn host_loss(host: &Host, guests: &[&Guest], policy: &Policy) -> f64 {
    let load = guests
        .iter()
        .fold(Load::default(), |sum, g| sum.plus(&Load::of(g)));
    Shape::of(host, policy).loss(&load)
}

/// The loss of one host, and how full it is.
#[derive(Debug, Clone, PartialEq)]
pub struct HostLoss {
    /// The host's name.
    pub name: String,
    /// CPU and memory loss, guest-seconds per second.
    pub loss: f64,
    /// The CPU part of it.
    pub cpu_loss: f64,
    /// The memory part of it.
    pub memory_loss: f64,
    /// CPU demand over cores.
    pub cpu_utilisation: f64,
    /// Allocated over offered memory.
    pub memory_utilisation: f64,
    /// Number of guests.
    pub guests: i64,
}

/// The loss of a fleet.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FleetLoss {
    /// Guest-seconds per second.
    pub total: f64,
    /// Every host of the snapshot, sorted by name.
    pub per_host: Vec<HostLoss>,
}

/// The load of every host of the snapshot, in the order of [`Snapshot::hosts`], guests summed by name.
///
/// A guest in flight counts on the host it goes to: that it leaves the other is decided.
pub(crate) fn loads(snapshot: &Snapshot) -> Vec<Load> {
    let index: std::collections::BTreeMap<&str, usize> = snapshot
        .hosts
        .iter()
        .enumerate()
        .map(|(i, h)| (h.name.as_str(), i))
        .collect();
    let mut loads = vec![Load::default(); snapshot.hosts.len()];
    let goes: std::collections::BTreeMap<&str, &str> = snapshot
        .flights()
        .counted
        .into_iter()
        .map(|f| (f.guest.as_str(), f.to.as_str()))
        .collect();
    let mut guests: Vec<&Guest> = snapshot.guests.iter().collect();
    guests.sort_by(|a, b| a.name.cmp(&b.name));
    for guest in guests {
        let host = goes.get(guest.name.as_str()).copied();
        if let Some(&at) = index.get(host.unwrap_or(&guest.host)) {
            loads[at] = loads[at].plus(&Load::of(guest));
        }
    }
    loads
}

/// The loss of every host and of the fleet, hosts summed by name.
#[must_use]
pub fn fleet_loss(snapshot: &Snapshot, policy: &Policy) -> FleetLoss {
    let loads = loads(snapshot);
    let mut per_host: Vec<HostLoss> = snapshot
        .hosts
        .iter()
        .zip(&loads)
        .map(|(host, load)| {
            let shape = Shape::of(host, policy).correlated(snapshot.peak_correlation);
            let (cpu_loss, memory_loss) = (shape.cpu_loss(load), shape.memory_loss(load));
            HostLoss {
                name: host.name.clone(),
                loss: cpu_loss + memory_loss,
                cpu_loss,
                memory_loss,
                cpu_utilisation: shape.cpu_utilisation(load),
                memory_utilisation: shape.memory_utilisation(load),
                guests: load.guests,
            }
        })
        .collect();
    per_host.sort_by(|a, b| a.name.cmp(&b.name));
    let total = per_host.iter().map(|h| h.loss).sum();
    FleetLoss { total, per_host }
}
