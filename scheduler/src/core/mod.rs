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
mod dirty;
pub mod drains;
pub mod events;
pub mod holds;
mod learn;
pub mod lessons;
pub mod measuring;
pub mod pace;
pub mod policy;
pub mod returns;
pub mod snapshot;
pub mod trouble;
pub mod unknown;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_planner::estimate::{Estimator, Reading};
use evenkeel_planner::{FleetLoss, HostLoss, HostState, Plan, Policy, Snapshot, fleet_loss};
use evenkeel_types::{GuestId, HostName};

use crate::observe::{Fleet, HostReport, RunState};

pub use choose::{Choice, Postponed};
pub use holds::Hold;
pub use pace::Pace;
pub use policy::ActivePolicy;
pub use trouble::Trouble;

/// A host whose guests lose less than this is hot only if a plan wants to relieve it: half a guest-second in
/// ten seconds is noise of the measurement (run delay of a host that is merely busy).
const HOT_LOSS: f64 = 0.05;
/// A guest that no host has reported for an hour is forgotten.
const FORGET_AFTER_MS: i64 = 3_600_000;

/// What the core remembers between cycles. It can be lost at any time: a new leader builds it from reports.
#[derive(Debug, Clone)]
pub struct Core {
    estimator: Estimator,
    /// When each host's current report arrived here, by our clock: agents' clocks are not compared.
    arrivals: BTreeMap<HostName, Arrival>,
    /// Hosts that the newest plan wants to relieve.
    pub(crate) wanted: BTreeSet<HostName>,
    /// Age beyond which a report is no evidence.
    max_report_age: Duration,
    /// Since when each host has been hot without a break.
    hot_since: BTreeMap<HostName, i64>,
    /// Where each guest was seen last, to notice that it moved.
    places: BTreeMap<GuestId, HostName>,
    /// What watching tells about the loss model.
    learned: learn::Learned,
    /// Hosts that are being drained: who leaves them does not come back and forth.
    draining: BTreeSet<HostName>,
    /// Which hosts guests were seen to leave.
    departures: returns::Departures,
    /// When this core first saw a complete picture.
    watching_since_ms: Option<i64>,
    /// Guests that may run twice or are moved by others.
    trouble: trouble::Watch,
}

/// A report as it was told apart from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    at_ms: i64,
    sequence: u64,
    measured_at_ms: i64,
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
    /// What somebody must know at once.
    pub troubles: Vec<Trouble>,
}

impl Assessment {
    /// Why drains are held back, too; none: they are not.
    pub fn drain_holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.iter().filter(|hold| hold.holds_drains())
    }
}

impl Core {
    /// A core that knows nothing yet.
    #[must_use]
    pub fn new(policy: &Policy) -> Self {
        Self {
            estimator: Estimator::new(policy.control.window),
            arrivals: BTreeMap::new(),
            wanted: BTreeSet::new(),
            max_report_age: policy.control.max_report_age,
            hot_since: BTreeMap::new(),
            places: BTreeMap::new(),
            learned: learn::Learned::default(),
            draining: BTreeSet::new(),
            departures: returns::Departures::default(),
            watching_since_ms: None,
            trouble: trouble::Watch::default(),
        }
    }

    /// Takes a host's report. The same one seen again (a fresh listing of etcd) is no news, and does not
    /// make an old report young.
    pub fn note(&mut self, host: &HostName, report: &HostReport, now_ms: i64) {
        let arrival = Arrival {
            at_ms: now_ms,
            sequence: report.sequence,
            measured_at_ms: report.measured_at_ms,
        };
        let before = self.arrivals.get(host).copied();
        let same = |b: Arrival| {
            (b.sequence, b.measured_at_ms) == (arrival.sequence, arrival.measured_at_ms)
        };
        if before.is_some_and(same) {
            return;
        }
        let gap = before.map_or(Duration::ZERO, |b| elapsed(b.at_ms, now_ms));
        self.arrivals.insert(host.clone(), arrival);
        if !report.libvirt_up {
            return;
        }
        self.learned.note(report, gap);
        for guest in &report.guests {
            // What is not executed here says nothing about what it would use.
            if guest.state == RunState::Incoming {
                continue;
            }
            let off = guest.state == RunState::ShutOff;
            let here = self.places.get(&guest.id) == Some(host);
            let unseen = gap > self.max_report_age;
            if (off && here) || unseen {
                // Nothing is known of the time in between: the old value must not fill it.
                self.estimator.lapse(guest.id.as_str());
            }
            if off {
                continue;
            }
            if unseen {
                // Nothing moves on what was before it.
                self.estimator.restart(guest.id.as_str(), now_ms);
            }
            let before = self.places.insert(guest.id.clone(), host.clone());
            if let Some(left) = before.filter(|place| place != host) {
                if !self.draining.contains(&left) {
                    self.departures.note(&guest.id, left, now_ms);
                }
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
        self.max_report_age = policy.control.max_report_age;
        if fleet.complete && self.watching_since_ms.is_none() {
            self.watching_since_ms = Some(now_ms);
        }
        self.draining = fleet.drains().map(|(host, _)| host.clone()).collect();
        self.forget_the_gone(fleet, now_ms);
        let (snapshot, guests) = snapshot::build(self, fleet, policy, now_ms);
        let loss = fleet_loss(&snapshot, policy);
        self.learned.compare(fleet, &snapshot, &loss, now_ms);
        self.time_hot_spots(&snapshot, &loss, policy, now_ms);
        let hot_since = self
            .hot_since
            .iter()
            .map(|(host, since)| (host.to_string(), *since))
            .collect();
        let watched = self
            .watching_since_ms
            .map_or(Duration::ZERO, |ms| elapsed(ms, now_ms));
        let picture = holds::Picture {
            fleet,
            active,
            snapshot: &snapshot,
            watched,
            now_ms,
        };
        let holds = holds::judge(picture);
        let troubles = self.trouble.look(fleet, &self.arrivals, now_ms);
        Assessment {
            at_ms: now_ms,
            snapshot,
            loss,
            guests,
            holds,
            hot_since,
            troubles,
        }
    }

    /// Age of a host's current report, by our clock; `None` if none stands.
    #[must_use]
    pub fn report_age(&self, host: &HostName, now_ms: i64) -> Option<Duration> {
        Some(elapsed(self.arrivals.get(host)?.at_ms, now_ms))
    }

    /// Remembers which hosts a plan wants to relieve: a plan sees what a threshold does not, and their hold
    /// time begins with it.
    pub fn want(&mut self, plan: &Plan) {
        let relieving = plan
            .steps
            .iter()
            .filter(|step| choose::needs_patience(step.reason));
        self.wanted = relieving
            .filter_map(|step| choose::origin(plan, step).parse().ok())
            .collect();
    }

    /// No plan stands that wants to relieve a host.
    pub fn want_nothing(&mut self) {
        self.wanted.clear();
    }

    /// When the first hot spot that is not yet old enough will be; `None` if no host is hot.
    #[must_use]
    pub fn next_hold_end(&self, hold: Duration, now_ms: i64) -> Option<i64> {
        let hold_ms = millis(hold);
        self.hot_since
            .values()
            .map(|since| since + hold_ms)
            .filter(|end| *end > now_ms)
            .min()
    }

    fn time_hot_spots(
        &mut self,
        snapshot: &Snapshot,
        loss: &FleetLoss,
        policy: &Policy,
        now_ms: i64,
    ) {
        let most = policy.limits.memory_overcommit;
        let is_hot = |host: &&HostLoss| host.loss >= HOT_LOSS || host.memory_utilisation > most;
        let mut hot: BTreeSet<HostName> = loss
            .per_host
            .iter()
            .filter(is_hot)
            .filter_map(|host| host.name.parse().ok())
            .collect();
        // Of a host that is not seen, nothing is known to last.
        let is_seen = |host: &&HostName| {
            let seen = snapshot.host(host.as_str());
            seen.is_some_and(|host| host.state != HostState::Absent)
        };
        hot.extend(self.wanted.iter().filter(is_seen).cloned());
        self.hot_since.retain(|host, _| hot.contains(host));
        for host in hot {
            self.hot_since.entry(host).or_insert(now_ms);
        }
    }

    fn forget_the_gone(&mut self, fleet: &Fleet, now_ms: i64) {
        self.arrivals
            .retain(|host, _| fleet.reports.contains_key(host));
        let here: BTreeSet<&str> = fleet
            .reports
            .values()
            .flat_map(|report| report.guests.iter().map(|guest| guest.id.as_str()))
            .collect();
        // A host that is silent for a moment must not cost its guests their history.
        let long_ago = now_ms.saturating_sub(FORGET_AFTER_MS);
        self.estimator
            .retain(|guest, last_ms| last_ms >= long_ago || here.contains(guest));
        self.departures.forget(now_ms);
        let estimator = &self.estimator;
        self.places
            .retain(|guest, _| here.contains(guest.as_str()) || estimator.knows(guest.as_str()));
        let places = &self.places;
        self.learned
            .retain(fleet, |guest| places.contains_key(guest));
    }
}

/// A duration in milliseconds; far below overflow when added to a time.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

/// Time from `then_ms` to `now_ms`; none when the clock went back.
fn elapsed(then_ms: i64, now_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(now_ms.saturating_sub(then_ms)).unwrap_or(0))
}

#[cfg(test)]
pub(crate) mod tests;
