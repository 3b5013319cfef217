//! The controller's core: what to do next, given state and time. Pure and deterministic; the daemon's loop
//! and the simulator drive the very same code.
//!
//! ```text
//!  reports ─▶ Core::note ─▶ estimates, hot spots
//!  Core::assess(fleet, policy, now) ─▶ Assessment { snapshot, loss, holds }
//!  evenkeel_planner::plan(snapshot, policy) ─▶ plan
//!  Core::choose(assessment, plan, now) ─▶ steps to start now, or the reason why none
//! ```
//!
//! Only the first wave of a plan is ever started; the next cycle plans again from what then is true.

pub mod choose;
pub mod cooldown;
pub mod holds;
pub mod pace;
pub mod policy;
pub mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_planner::estimate::{Estimator, Reading};
use evenkeel_planner::{FleetLoss, Policy, Snapshot, fleet_loss};
use evenkeel_types::{GuestId, HostName};

use crate::observe::{Fleet, HostReport, RunState};

pub use choose::{Choice, Postponed};
pub use holds::Hold;
pub use pace::Pace;
pub use policy::ActivePolicy;

/// A host whose guests lose less than this is not hot: half a guest-second in ten seconds is noise of the
/// measurement (run delay of a host that is merely busy), and no move pays for it within any horizon.
const HOT_LOSS: f64 = 0.05;

/// What the core remembers between cycles. It can be lost at any time: a new leader builds it from reports.
#[derive(Debug, Clone)]
pub struct Core {
    estimator: Estimator,
    /// When each host's current report arrived here, by our clock: agents' clocks are not compared.
    arrivals: BTreeMap<HostName, i64>,
    /// Since when each host has been hot without a break.
    hot_since: BTreeMap<HostName, i64>,
    /// Where each guest was seen last, to notice that it moved.
    places: BTreeMap<GuestId, HostName>,
    /// When this core began to watch.
    started_ms: i64,
}

/// The fleet as it is now, priced.
#[derive(Debug, Clone)]
pub struct Assessment {
    /// When, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The fleet in the planner's format.
    pub snapshot: Snapshot,
    /// Its loss, per host and in all.
    pub loss: FleetLoss,
    /// Snapshot names of guests and their ids.
    pub guests: BTreeMap<String, GuestId>,
    /// Why automatic moves are held back; empty: they are not.
    pub holds: Vec<Hold>,
    /// Since when each hot host has been hot, milliseconds since the Unix epoch.
    pub hot_since: BTreeMap<String, i64>,
}

impl Core {
    /// A core that knows nothing yet.
    #[must_use]
    pub fn new(policy: &Policy, now_ms: i64) -> Self {
        Self {
            estimator: Estimator::new(policy.control.window),
            arrivals: BTreeMap::new(),
            hot_since: BTreeMap::new(),
            places: BTreeMap::new(),
            started_ms: now_ms,
        }
    }

    /// Takes a host's report that has just arrived.
    pub fn note(&mut self, host: &HostName, report: &HostReport, now_ms: i64) {
        self.arrivals.insert(host.clone(), now_ms);
        if !report.libvirt_up {
            return;
        }
        for guest in &report.guests {
            if guest.state == RunState::Incoming {
                continue;
            }
            let before = self.places.insert(guest.id.clone(), host.clone());
            if before.is_some_and(|place| place != *host) {
                self.estimator.restart(guest.id.as_str(), now_ms);
            }
            let reading = Reading {
                at_ms: now_ms,
                used_cores: guest.cpu_used_cores,
                delay_cores: guest.cpu_delay_cores,
                limit_cores: guest.cpu_limit_cores,
                during_migration: guest.during_migration,
            };
            self.estimator.record(guest.id.as_str(), &reading);
        }
    }

    /// Prices the fleet as it is, and says what holds automatic moves back.
    pub fn assess(&mut self, fleet: &Fleet, active: &ActivePolicy, now_ms: i64) -> Assessment {
        let policy = active.policy();
        self.estimator.set_window(policy.control.window);
        self.forget_the_gone(fleet);
        let (snapshot, guests) = snapshot::build(self, fleet, policy, now_ms);
        let loss = fleet_loss(&snapshot, policy);
        self.time_hot_spots(&loss, now_ms);
        let hot_since = self
            .hot_since
            .iter()
            .map(|(host, since)| (host.to_string(), *since))
            .collect();
        let holds = holds::judge(fleet, active, now_ms - self.started_ms, now_ms);
        Assessment {
            at_ms: now_ms,
            snapshot,
            loss,
            guests,
            holds,
            hot_since,
        }
    }

    /// Age of a host's current report, by our clock; `None` if none stands.
    #[must_use]
    pub fn report_age(&self, host: &HostName, now_ms: i64) -> Option<Duration> {
        let arrived = self.arrivals.get(host)?;
        Some(Duration::from_millis(
            u64::try_from(now_ms - arrived).unwrap_or(0),
        ))
    }

    /// When the first hot spot that is not yet old enough will be; `None` if no host is hot.
    #[must_use]
    pub fn next_hold_end(&self, hold: Duration, now_ms: i64) -> Option<i64> {
        let hold_ms = i64::try_from(hold.as_millis()).unwrap_or(i64::MAX / 4);
        self.hot_since
            .values()
            .map(|since| since + hold_ms)
            .filter(|end| *end > now_ms)
            .min()
    }

    fn time_hot_spots(&mut self, loss: &FleetLoss, now_ms: i64) {
        let hot: BTreeSet<HostName> = loss
            .per_host
            .iter()
            .filter(|host| host.loss >= HOT_LOSS)
            .filter_map(|host| host.name.parse().ok())
            .collect();
        self.hot_since.retain(|host, _| hot.contains(host));
        for host in hot {
            self.hot_since.entry(host).or_insert(now_ms);
        }
    }

    fn forget_the_gone(&mut self, fleet: &Fleet) {
        self.arrivals
            .retain(|host, _| fleet.reports.contains_key(host));
        let here: BTreeSet<&str> = fleet
            .reports
            .values()
            .flat_map(|report| report.guests.iter().map(|guest| guest.id.as_str()))
            .collect();
        // A host that is silent for a moment must not cost its guests their history.
        let any_silent = fleet.hosts.len() > fleet.reports.len();
        if !any_silent {
            self.estimator.retain(|guest| here.contains(guest));
            self.places.retain(|guest, _| here.contains(guest.as_str()));
        }
    }
}

#[cfg(test)]
mod tests;
