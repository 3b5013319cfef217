//! What planning takes: time, work and memory, and what more time would bring.
//!
//! Planned with the default policy and default options on the `random_skew` family, 18 guests a host. Reading a
//! file is not part of it. Peak memory is the whole process's, the fleet included, so each size needs a process of its
//! own.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use evenkeel_planner::constants::payback;
use evenkeel_planner::{Options, Plan, Policy, plan};
use serde::{Deserialize, Serialize};

use crate::family::{Family, generate_with};

/// Sizes that have a limit, hosts, and the limits, ms.
pub const SIZES: [(usize, f64); 4] = [(50, 10.0), (200, 50.0), (1000, 400.0), (5000, 4000.0)];
/// Guests on every host.
pub const GUESTS: usize = 18;
/// How much better long search may be.
pub const WITHIN: f64 = 0.03;
/// Peak memory may be this much, and so much more for each guest. Bytes.
pub const MEMORY: (u64, u64) = (64 << 20, 1 << 10);

/// How one size is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Plans to make; the median counts.
    pub runs: usize,
    /// How long to search for what the planner could have found, s; 0 means not at all.
    pub long_seconds: u32,
}

/// What one size takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Number of hosts.
    pub hosts: usize,
    /// Number of guests.
    pub guests: usize,
    /// Median time of a plan, ms.
    pub milliseconds: f64,
    /// Steps of the plan.
    pub steps: usize,
    /// Candidates evaluated.
    pub evaluations: u64,
    /// Contention loss before and after, guest-seconds per second.
    pub loss: (f64, f64),
    /// Loss after and the migrations' cost spread over the horizon, guest-seconds per second.
    pub objective: f64,
    /// The same two, of a long search: loss after, and with the migrations' cost.
    pub long: Option<(f64, f64)>,
    /// Seconds that the long search took.
    pub long_seconds: f64,
    /// Peak memory of the process before the first plan, bytes: the fleet.
    pub memory_before: u64,
    /// The same after the plans with default options.
    pub memory: u64,
}

/// Plans a fleet of that size and measures. To be called once in a process.
///
/// # Errors
/// When the process's memory cannot be read.
pub fn measure(hosts: usize, effort: Effort) -> anyhow::Result<Measured> {
    let snapshot = generate_with(Family::RandomSkew, hosts, 1, Some(GUESTS)).snapshot;
    let policy = Policy::default();
    let memory_before = peak_memory()?;
    let mut options = Options::default();
    let mut times: Vec<Duration> = Vec::new();
    let began = Instant::now();
    let (found, report) = plan(&snapshot, &policy, &options);
    times.push(began.elapsed());
    let memory = peak_memory()?;
    for _ in 1..effort.runs {
        let began = Instant::now();
        std::hint::black_box(plan(&snapshot, &policy, &options));
        times.push(began.elapsed());
    }
    times.sort();
    let median = times[times.len() / 2];
    let mut measured = Measured {
        hosts,
        guests: snapshot.guests.len(),
        milliseconds: 1000.0 * median.as_secs_f64(),
        steps: found.steps.len(),
        evaluations: report.evaluations,
        loss: (found.loss_before, found.loss_after),
        objective: objective(&found, &policy),
        long: None,
        long_seconds: 0.0,
        memory_before,
        memory,
    };
    if effort.long_seconds > 0 {
        // The budget counts candidates: as many as the time would allow at the rate just seen.
        let rate = report.evaluations / u64::try_from(median.as_millis())?.max(1);
        options.budget = Some(rate * 1000 * u64::from(effort.long_seconds));
        let began = Instant::now();
        let (found, _) = plan(&snapshot, &policy, &options);
        measured.long_seconds = began.elapsed().as_secs_f64();
        measured.long = Some((found.loss_after, objective(&found, &policy)));
    }
    Ok(measured)
}

/// Loss after a plan with what its migrations cost, guest-seconds per second over the horizon.
fn objective(plan: &Plan, policy: &Policy) -> f64 {
    let payback = payback(policy.aggressiveness);
    let costs = plan.steps.iter();
    let cost: f64 = costs
        .map(|s| s.costs_guest_seconds + s.price_guest_seconds)
        .sum();
    plan.loss_after + payback.factor * cost / payback.horizon_seconds
}

/// The most memory that this process has had, bytes.
fn peak_memory() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().next());
    Ok(kib.context("no VmHWM")?.parse::<u64>()? << 10)
}

/// The measurements as a Markdown table.
#[must_use]
pub fn table(all: &[Measured]) -> String {
    let mut text = String::from(
        "| hosts | guests | ms | limit | steps | candidates | loss before | loss after | after 60 s | \
         with cost | after 60 s | peak MiB | of it the fleet | limit | bytes a guest |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for m in all {
        let limit = SIZES.iter().find(|(hosts, _)| *hosts == m.hosts);
        let limit = limit.map_or(String::new(), |(_, ms)| format!("{ms:.0}"));
        let long = |of: fn(&(f64, f64)) -> f64| {
            m.long
                .as_ref()
                .map_or(String::new(), |l| format!("{:.3}", of(l)))
        };
        text.push_str(&format!(
            "| {} | {} | {:.1} | {limit} | {} | {} | {:.2} | {:.3} | {} | {:.3} | {} | {} | {} | {} | {} |\n",
            m.hosts,
            m.guests,
            m.milliseconds,
            m.steps,
            m.evaluations,
            m.loss.0,
            m.loss.1,
            long(|l| l.0),
            m.objective,
            long(|l| l.1),
            m.memory >> 20,
            m.memory_before >> 20,
            m.memory_limit() >> 20,
            m.memory / u64::try_from(m.guests).unwrap_or(u64::MAX).max(1),
        ));
    }
    text
}

impl Measured {
    /// What its memory may be, bytes.
    #[must_use]
    pub fn memory_limit(&self) -> u64 {
        let guests = u64::try_from(self.guests).unwrap_or(u64::MAX);
        MEMORY.0 + MEMORY.1 * guests
    }

    /// What the limits demand and this misses, in words.
    #[must_use]
    pub fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        let hosts = self.hosts;
        for (_, limit) in SIZES.iter().filter(|(size, _)| *size == hosts) {
            if self.milliseconds > *limit {
                missed.push(format!("{hosts} hosts take {:.1} ms", self.milliseconds));
            }
        }
        if let Some((loss, _)) = self
            .long
            .filter(|long| self.loss.1 > long.0 * (1.0 + WITHIN))
        {
            let ours = self.loss.1;
            missed.push(format!(
                "{hosts} hosts: {ours:.3} is left, {loss:.3} by long search"
            ));
        }
        if self.memory > self.memory_limit() {
            missed.push(format!("{hosts} hosts need {} MiB", self.memory >> 20));
        }
        missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_missed_by_itself() {
        let good = Measured {
            hosts: 50,
            guests: 900,
            milliseconds: 9.9,
            steps: 10,
            evaluations: 1000,
            loss: (5.0, 0.3),
            objective: 1.0,
            long: Some((0.295, 1.0)),
            long_seconds: 60.0,
            memory_before: 1 << 20,
            memory: 64 << 20,
        };
        assert_eq!(good.missed(), Vec::<String>::new());
        let slow = Measured {
            milliseconds: 10.1,
            ..good.clone()
        };
        let shallow = Measured {
            long: Some((0.29, 1.0)),
            ..good.clone()
        };
        let large = Measured {
            memory: 65 << 20,
            ..good.clone()
        };
        for bad in [slow, shallow, large] {
            assert_eq!(bad.missed().len(), 1, "{bad:?}");
        }
    }

    #[test]
    fn a_small_fleet_is_measured_in_this_process() {
        let effort = Effort {
            runs: 1,
            long_seconds: 0,
        };
        let measured = measure(5, effort).unwrap();
        assert_eq!(measured.guests, 5 * GUESTS);
        assert!(measured.milliseconds > 0.0 && measured.evaluations > 0);
        assert!(measured.memory >= measured.memory_before && measured.memory_before > 0);
        assert!(
            measured.objective > measured.loss.1,
            "migrations cost something"
        );
        assert!(table(&[measured]).contains("| 5 | 90 |"));
    }
}
