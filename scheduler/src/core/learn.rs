//! What the core learns about the loss model by watching: how far each host's losses are from what the
//! model predicts, and how far the guests' demands rise together.
//!
//! Called by [`super::Core`] with every report and every assessment; what was learned goes into the snapshot
//! that plans are made from. It can be lost at any time: a new leader's core has watched too.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_planner::constants::{CALIBRATION_RANGE, PEAK_CORRELATION};
use evenkeel_planner::estimate::Reading;
use evenkeel_planner::{FleetLoss, Host, HostLoss, HostState, Snapshot};
use evenkeel_types::{GuestId, HostName};

use crate::observe::{Fleet, GuestReading, HostReport, RunState};

/// Time constant of calibrations and of what is usual for a guest: a horizon. Shorter, and the noise of one
/// window moves guests; longer, and a host that was changed is misjudged for hours.
const MEMORY_SECONDS: f64 = 1800.0;
/// Time constant of the correlation, which is the fleet's and changes slowly.
const FLEET_MEMORY_SECONDS: f64 = 6.0 * 3600.0;
/// A predicted CPU loss below this (guest-seconds per second) says nothing: it is less than the noise.
const LEAST_CPU_LOSS: f64 = 0.1;
/// The same of the predicted stalled fraction of time for want of memory.
const LEAST_STALL: f64 = 0.01;
/// A guest that uses this share of its quota is throttled: its run delay is not the host's doing.
const AT_QUOTA: f64 = 0.9;
/// A guest is watched for so long before its deviations count: what is usual for it is not known earlier.
const USUAL_AFTER_SECONDS: f64 = 600.0;
/// Host-seconds of evidence before the correlation is believed.
const LEAST_EVIDENCE_SECONDS: f64 = 3600.0;
/// No step in time counts for more: what was between is not known.
const MOST_SECONDS: f64 = 60.0;
/// Basis points in one.
const BASIS_POINTS: f64 = 10_000.0;

/// Measured and predicted, both smoothed alike, so that the ratio is that of the sums and not of moments.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ratio {
    measured: f64,
    predicted: f64,
}

impl Ratio {
    /// Takes a pair into account for the time it held. The first one is taken to be as predicted.
    fn learn(known: &mut Option<Self>, measured: f64, predicted: f64, seconds: f64) {
        let ratio = known.get_or_insert(Self {
            measured: predicted,
            predicted,
        });
        let weight = seconds / (MEMORY_SECONDS + seconds);
        ratio.measured += weight * (measured - ratio.measured);
        ratio.predicted += weight * (predicted - ratio.predicted);
    }

    /// The factor, within its bounds; 1 where nothing is known.
    fn factor(known: Option<Self>) -> f64 {
        let (least, most) = CALIBRATION_RANGE;
        known.map_or(1.0, |ratio| {
            (ratio.measured / ratio.predicted).clamp(least, most)
        })
    }
}

/// How far a host is from the model.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Scales {
    cpu: Option<Ratio>,
    memory: Option<Ratio>,
}

/// What is usual for a guest.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Habit {
    mean_cores: f64,
    variance: f64,
    seen_seconds: f64,
}

/// What was learned.
#[derive(Debug, Clone, Default)]
pub(super) struct Learned {
    hosts: BTreeMap<HostName, Scales>,
    habits: BTreeMap<GuestId, Habit>,
    /// ∫ (Σ deviation)² − Σ deviation², and ∫ (Σσ)², cores²·s: their ratio is the correlation.
    together: f64,
    spread: f64,
    evidence_seconds: f64,
    looked_ms: Option<i64>,
}

impl Learned {
    /// Measured over predicted CPU loss of a host.
    pub(super) fn calibration(&self, host: &HostName) -> f64 {
        Ratio::factor(self.hosts.get(host).and_then(|scales| scales.cpu))
    }

    /// Measured over predicted memory loss of a host.
    pub(super) fn memory_calibration(&self, host: &HostName) -> f64 {
        Ratio::factor(self.hosts.get(host).and_then(|scales| scales.memory))
    }

    /// How far the guests' demands rise together, never below the floor.
    pub(super) fn peak_correlation(&self) -> f64 {
        if self.evidence_seconds < LEAST_EVIDENCE_SECONDS || self.spread <= 0.0 {
            return PEAK_CORRELATION;
        }
        (self.together / self.spread).clamp(PEAK_CORRELATION, 1.0)
    }

    /// Takes a host's report that comes `gap` after the one before.
    pub(super) fn note(&mut self, report: &HostReport, gap: Duration) {
        let seconds = gap.as_secs_f64().min(MOST_SECONDS);
        if is_migrating(report) || seconds <= 0.0 {
            return;
        }
        let (mut sum, mut squares, mut sigma) = (0.0, 0.0, 0.0);
        for guest in running(report) {
            let demand = demand(guest);
            let Some(habit) = self.habits.get_mut(&guest.id) else {
                self.habits.insert(guest.id.clone(), Habit::new(demand));
                continue;
            };
            let deviation = demand - habit.mean_cores;
            if habit.seen_seconds >= USUAL_AFTER_SECONDS {
                sum += deviation;
                squares += deviation * deviation;
                sigma += habit.variance.sqrt();
            }
            habit.learn(deviation, seconds);
        }
        if sigma > 0.0 {
            self.together += seconds * (sum * sum - squares);
            self.spread += seconds * sigma * sigma;
            self.evidence_seconds += seconds;
        }
    }

    /// Compares what the hosts measure with what the model predicts for them.
    pub(super) fn compare(
        &mut self,
        fleet: &Fleet,
        snapshot: &Snapshot,
        loss: &FleetLoss,
        now_ms: i64,
    ) {
        let before = self.looked_ms.replace(now_ms).unwrap_or(now_ms);
        let passed = u64::try_from(now_ms.saturating_sub(before)).unwrap_or(0);
        let seconds = Duration::from_millis(passed)
            .as_secs_f64()
            .min(MOST_SECONDS);
        let kept = FLEET_MEMORY_SECONDS / (FLEET_MEMORY_SECONDS + seconds);
        self.together *= kept;
        self.spread *= kept;
        let hosts: BTreeMap<&str, &Host> = snapshot
            .hosts
            .iter()
            .map(|h| (h.name.as_str(), h))
            .collect();
        for judged in &loss.per_host {
            let Some(host) = hosts.get(judged.name.as_str()) else {
                continue;
            };
            let Some((name, report)) = reported(fleet, &judged.name) else {
                continue;
            };
            if host.state != HostState::Absent && !is_migrating(report) {
                self.scale(name, report, (judged, host.cpu_cores), seconds);
            }
        }
    }

    /// One host: predicted loss without its calibration against what its guests waited.
    fn scale(
        &mut self,
        name: &HostName,
        report: &HostReport,
        (judged, cores): (&HostLoss, f64),
        seconds: f64,
    ) {
        let predicted = judged.cpu_loss / self.calibration(name);
        let demand = judged.cpu_utilisation * cores;
        let stall = if demand > 0.0 {
            judged.memory_loss / demand / self.memory_calibration(name)
        } else {
            0.0
        };
        let scales = self.hosts.entry(name.clone()).or_default();
        if predicted > LEAST_CPU_LOSS {
            Ratio::learn(&mut scales.cpu, waiting(report), predicted, seconds);
        }
        if stall > LEAST_STALL && report.pressure.available {
            // `some` of memory is the stalled share of the tasks that want to run (kernel/sched/psi.c).
            let measured = f64::from(report.pressure.memory_some_bp) / BASIS_POINTS;
            Ratio::learn(&mut scales.memory, measured, stall, seconds);
        }
    }

    /// Forgets hosts and guests that are gone.
    pub(super) fn retain(&mut self, fleet: &Fleet, guest: impl Fn(&GuestId) -> bool) {
        self.hosts.retain(|host, _| fleet.hosts.contains_key(host));
        self.habits.retain(|id, _| guest(id));
    }
}

impl Habit {
    fn new(demand: f64) -> Self {
        Self {
            mean_cores: demand,
            variance: 0.0,
            seen_seconds: 0.0,
        }
    }

    fn learn(&mut self, deviation: f64, seconds: f64) {
        self.seen_seconds += seconds;
        // A mean of all that was seen first, of the newest horizon later.
        let weight = seconds / self.seen_seconds.min(MEMORY_SECONDS).max(2.0 * seconds);
        self.mean_cores += weight * deviation;
        self.variance += weight * (deviation * deviation - self.variance);
    }
}

fn reported<'f>(fleet: &'f Fleet, host: &str) -> Option<(&'f HostName, &'f HostReport)> {
    let name: HostName = host.parse().ok()?;
    fleet.reports.get_key_value(&name)
}

/// A migration's load is no demand, and what waits beside it waits for the copy.
fn is_migrating(report: &HostReport) -> bool {
    report.migrations_running > 0 || report.guests.iter().any(|g| g.during_migration)
}

fn running(report: &HostReport) -> impl Iterator<Item = &GuestReading> {
    let guests = report.guests.iter();
    guests.filter(|g| g.state == RunState::Running && report.libvirt_up)
}

fn demand(guest: &GuestReading) -> f64 {
    let reading = Reading {
        at_ms: 0,
        used_cores: guest.cpu_used_cores,
        delay_cores: guest.cpu_delay_cores,
        limit_cores: guest.cpu_limit_cores,
        during_migration: false,
    };
    reading.demand_cores()
}

/// vCPUs that wait for a core: run delay, but for guests that their quota holds back.
fn waiting(report: &HostReport) -> f64 {
    let throttled = |g: &&GuestReading| {
        g.cpu_limit_cores < f64::from(g.vcpus) && g.cpu_used_cores >= AT_QUOTA * g.cpu_limit_cores
    };
    let guests = running(report).filter(|g| !throttled(g));
    guests.map(|g| g.cpu_delay_cores).sum()
}

#[cfg(test)]
mod tests;
