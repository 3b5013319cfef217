//! The scheduler's metrics. Labels are bounded: hosts and closed sets, never guests or ids.

mod ended;
mod make;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use evenkeel_daemon::metrics::Registry;
use evenkeel_planner::{Mode, RuleStanding};
use evenkeel_types::{FailureReason, HostName, MigrationState, Outcome, Refusal};
use prometheus::{Gauge, GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use self::make::Maker;
use crate::core::drains::{Drain, census};
use crate::core::{Assessment, Hold, Postponed, Trouble};
use crate::observe::{Fleet, IntentEntry, Remembered};

mod events;

use events::EventMetrics;

/// What to do with guests of unknown whereabouts is the operator's decision: this gauge raises the alert.
const UNKNOWN_HELP: &str = "Migrations whose outcome is not known; their guests are untouchable.";

/// The one thing that must never be.
const DOUBLES_HELP: &str =
    "Guests that run on two hosts, and disks that several running guests write to; must be 0.";

/// Rules are the policy's, so their number is bounded by it.
const VIOLATIONS_HELP: &str = "Guests that would have to move for a rule to hold, by rule and kind (must, should); \
    as of the leader's newest plan.";

/// Time within which a guest's moves are counted together.
const DAY_MS: i64 = 24 * 3_600_000;

/// Where a migration ended that was refused, as a label value.
const REFUSED: &str = "prepare";
/// Where a migration ended that failed, as a label value.
const FAILED: &str = "copy";

/// States of a host, as label values.
const HOST_STATES: [&str; 4] = ["active", "cordoned", "draining", "absent"];

/// All metrics of one replica.
#[derive(Debug, Clone)]
pub struct Metrics {
    replica: ReplicaMetrics,
    fleet: FleetMetrics,
    moves: MoveMetrics,
    events: EventMetrics,
    /// Hosts whose drains have series.
    last_drains: Arc<Mutex<BTreeSet<HostName>>>,
    /// Rules that have series, with their kinds.
    last_rules: Arc<Mutex<BTreeSet<[String; 2]>>>,
}

/// About this replica and its loop.
#[derive(Debug, Clone)]
struct ReplicaMetrics {
    leader: IntGauge,
    transitions: IntCounter,
    epoch: IntGauge,
    last_led: Arc<AtomicI64>,
    cycle_seconds: HistogramVec,
    cycles: IntCounterVec,
    last_cycle: Gauge,
    last_look: Gauge,
    hold: IntGaugeVec,
    etcd_up: IntGauge,
    malformed: IntGauge,
}

/// About the fleet and what governs it.
#[derive(Debug, Clone)]
struct FleetMetrics {
    loss: GaugeVec,
    host_loss: GaugeVec,
    host_utilisation: GaugeVec,
    host_state: IntGaugeVec,
    drains: IntGaugeVec,
    drain_left: IntGaugeVec,
    drain_overdue: IntGaugeVec,
    mode: IntGaugeVec,
    policy_info: IntGaugeVec,
    last_revision: Arc<AtomicU64>,
    violations: IntGaugeVec,
}

/// About planned, running and ended moves.
#[derive(Debug, Clone)]
struct MoveMetrics {
    planned: IntGauge,
    rejected: IntCounterVec,
    running: IntGauge,
    running_limit: IntGauge,
    unknown: IntGauge,
    doubles: IntGauge,
    foreign: IntGauge,
    foreign_ever: IntCounter,
    most_moved: IntGauge,
    ended: IntCounterVec,
    duration: HistogramVec,
    downtime: HistogramVec,
    bytes: HistogramVec,
    prediction_error: HistogramVec,
    failures: IntCounterVec,
}

impl ReplicaMetrics {
    fn new(make: &Maker<'_>) -> Result<Self, prometheus::Error> {
        let phases = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];
        Ok(Self {
            leader: make.gauge("scheduler_leader", "1 on the replica that leads.")?,
            transitions: make.counter(
                "scheduler_leader_transitions_total",
                "Times this replica took the lead.",
            )?,
            epoch: make.gauge(
                "scheduler_epoch",
                "Epoch of this replica's leadership; 0: none.",
            )?,
            last_led: Arc::default(),
            cycle_seconds: make.histogram(
                "scheduler_cycle_duration_seconds",
                "Time of a planning cycle, by phase.",
                &["phase"],
                &phases,
            )?,
            cycles: make.counters("scheduler_cycles_total", "Planning cycles.", &["outcome"])?,
            last_cycle: make.float(
                "scheduler_last_cycle_timestamp_seconds",
                "When the last planning cycle ended.",
            )?,
            last_look: make.float(
                "scheduler_last_look_timestamp_seconds",
                "When the replica last looked at the fleet, which it does each half second, leader or not.",
            )?,
            hold: make.gauges(
                "scheduler_hold",
                "1: holds automatic moves back.",
                &["reason"],
            )?,
            etcd_up: make.gauge("scheduler_etcd_up", "1: etcd answered last time.")?,
            malformed: make.gauge(
                "scheduler_malformed_values",
                "Values in etcd that are not used.",
            )?,
        })
    }
}

impl FleetMetrics {
    fn new(make: &Maker<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            loss: make.floats(
                "fleet_loss_guest_seconds_per_second",
                "Loss of the fleet: how many vCPUs are waiting, on average.",
                &["state"],
            )?,
            host_loss: make.floats(
                "host_loss_guest_seconds_per_second",
                "Loss of a host: how many of its vCPUs are waiting, on average.",
                &["host"],
            )?,
            host_utilisation: make.floats(
                "host_utilisation_ratio",
                "Demand over what a host offers.",
                &["host", "resource"],
            )?,
            host_state: make.gauges("host_state", "State of a host.", &["host", "state"])?,
            drains: make.gauges(
                "drains",
                "Hosts being drained, by how that stands.",
                &["state"],
            )?,
            drain_left: make.gauges(
                "drain_guests_left",
                "Guests that have to leave a draining host.",
                &["host"],
            )?,
            drain_overdue: make.gauges(
                "drain_overdue",
                "1: the deadline of a host's drain has passed.",
                &["host"],
            )?,
            mode: make.gauges("mode", "What the scheduler does by itself.", &["mode"])?,
            policy_info: make.gauges("policy_info", "The policy in force.", &["revision"])?,
            last_revision: Arc::default(),
            violations: make.gauges("policy_violations", VIOLATIONS_HELP, &["rule", "kind"])?,
        })
    }
}

impl MoveMetrics {
    fn new(make: &Maker<'_>) -> Result<Self, prometheus::Error> {
        let seconds = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0];
        let pauses = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];
        let bytes = [1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12];
        let ratios = [0.1, 0.25, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0, 10.0];
        let limit_help = "Most migrations the policy allows at a time.";
        let rejected_help = "Planned moves that were not started, by reason.";
        let ended_help = "Migrations that ended, by what started them and how they ended.";
        let duration_help = "Time from a migration's start to its settled end.";
        let downtime_help = "Pause at switch-over of completed migrations.";
        let bytes_help = "Bytes copied by completed migrations.";
        let error_help = "Measured over predicted, of completed migrations.";
        let failures_help = "Migrations that were refused or failed.";
        Ok(Self {
            planned: make.gauge("plan_moves", "Moves in the newest plan.")?,
            rejected: make.counters("moves_rejected_total", rejected_help, &["reason"])?,
            running: make.gauge("migrations_running", "Migrations under way.")?,
            running_limit: make.gauge("migrations_running_limit", limit_help)?,
            unknown: make.gauge("migrations_unknown", UNKNOWN_HELP)?,
            doubles: make.gauge("guests_on_two_hosts", DOUBLES_HELP)?,
            foreign: make.gauge(
                "foreign_migrations",
                "Migrations under way that Evenkeel did not order; their guests are left alone.",
            )?,
            foreign_ever: make.counter(
                "foreign_migrations_total",
                "Migrations that this replica has seen and Evenkeel did not order.",
            )?,
            most_moved: make.gauge(
                "guest_moves_day_max",
                "Most moves that any one guest has made within 24 hours; 16 at most are remembered.",
            )?,
            ended: make.counters("migrations_total", ended_help, &["trigger", "result"])?,
            duration: make.histogram(
                "migration_duration_seconds",
                duration_help,
                &["result"],
                &seconds,
            )?,
            downtime: make.histogram("migration_downtime_seconds", downtime_help, &[], &pauses)?,
            bytes: make.histogram("migration_bytes", bytes_help, &[], &bytes)?,
            prediction_error: make.histogram(
                "migration_prediction_error_ratio",
                error_help,
                &["quantity"],
                &ratios,
            )?,
            failures: make.counters(
                "migration_failures_total",
                failures_help,
                &["phase", "reason"],
            )?,
        })
    }
}

impl Metrics {
    /// Makes and registers all metrics.
    ///
    /// # Errors
    /// When one of the names is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let make = Maker(registry);
        let metrics = Self {
            replica: ReplicaMetrics::new(&make)?,
            fleet: FleetMetrics::new(&make)?,
            moves: MoveMetrics::new(&make)?,
            events: EventMetrics::new(&make)?,
            last_drains: Arc::default(),
            last_rules: Arc::default(),
        };
        metrics.start_at_zero();
        Ok(metrics)
    }

    /// Series exist before their first event, or `rate()` misses it.
    fn start_at_zero(&self) {
        for name in Hold::NAMES {
            self.replica.hold.with_label_values(&[name]).set(0);
        }
        for trigger in ["balance", "repair", "drain", "manual"] {
            for result in Outcome::NAMES {
                self.moves
                    .ended
                    .with_label_values(&[trigger, result])
                    .inc_by(0);
            }
        }
        let refusals = Refusal::ALL.iter().map(|reason| (REFUSED, reason.as_str()));
        let failures = FailureReason::ALL.iter();
        for (phase, reason) in refusals.chain(failures.map(|reason| (FAILED, reason.as_str()))) {
            let series = self.moves.failures.with_label_values(&[phase, reason]);
            series.inc_by(0);
        }
        for reason in Hold::NAMES.iter().chain(&Postponed::NAMES) {
            self.moves.rejected.with_label_values(&[reason]).inc_by(0);
        }
        for outcome in ["idle", "moves", "held", "failed"] {
            self.replica.cycles.with_label_values(&[outcome]).inc_by(0);
        }
    }

    /// Whether this replica leads, and under which epoch.
    pub fn leadership(&self, epoch: Option<i64>) {
        // A mandate that lapsed and came back under the same epoch is no transition.
        if let Some(epoch) = epoch
            && self.replica.last_led.swap(epoch, Ordering::Relaxed) != epoch
        {
            self.replica.transitions.inc();
        }
        self.replica.leader.set(i64::from(epoch.is_some()));
        self.replica.epoch.set(epoch.unwrap_or(0));
    }

    /// Whether etcd answers.
    pub fn etcd(&self, up: bool) {
        self.replica.etcd_up.set(i64::from(up));
    }

    /// Removes the series of hosts that are gone; those that stay are never missing from a scrape.
    fn forget_hosts(&self, before: &Assessment, now: &Assessment) {
        for host in names(before).difference(&names(now)) {
            // A label that is not there is what we want.
            drop(self.fleet.host_loss.remove_label_values(&[*host]));
            for resource in ["cpu", "memory"] {
                drop(
                    self.fleet
                        .host_utilisation
                        .remove_label_values(&[host, resource]),
                );
            }
            for state in HOST_STATES {
                drop(self.fleet.host_state.remove_label_values(&[host, state]));
            }
        }
    }

    /// This replica has no plan (any more), and does not know how rules stand.
    pub fn no_plan(&self) {
        self.rules(&[]);
        self.moves.planned.set(0);
        drop(self.fleet.loss.remove_label_values(&["planned"]));
    }

    /// The fleet as assessed, after what was said of it before.
    pub fn assessment(&self, before: &Assessment, assessment: &Assessment) {
        self.fleet
            .loss
            .with_label_values(&["now"])
            .set(assessment.loss.total);
        self.forget_hosts(before, assessment);
        let doubles = assessment.troubles.iter().filter(|t| t.is_double()).count();
        self.moves.doubles.set(count(doubles));
        let foreign = |of: &Trouble| !of.is_double();
        let now = assessment.troubles.iter().filter(|t| foreign(t));
        self.moves.foreign.set(count(now.clone().count()));
        let new = now.filter(|trouble| !before.troubles.contains(trouble));
        let new = u64::try_from(new.count()).unwrap_or(u64::MAX);
        self.moves.foreign_ever.inc_by(new);
        for host in &assessment.loss.per_host {
            self.fleet
                .host_loss
                .with_label_values(&[&host.name])
                .set(host.loss);
            let ratio = |resource| {
                self.fleet
                    .host_utilisation
                    .with_label_values(&[host.name.as_str(), resource])
            };
            ratio("cpu").set(host.cpu_utilisation);
            ratio("memory").set(host.memory_utilisation);
        }
        for host in &assessment.snapshot.hosts {
            for state in HOST_STATES {
                let is = i64::from(host.state.as_str() == state);
                self.fleet
                    .host_state
                    .with_label_values(&[host.name.as_str(), state])
                    .set(is);
            }
        }
        let held: BTreeSet<&str> = assessment.holds.iter().map(Hold::as_str).collect();
        for name in Hold::NAMES {
            self.replica
                .hold
                .with_label_values(&[name])
                .set(i64::from(held.contains(name)));
        }
    }

    /// How the drains stand.
    pub fn drains(&self, drains: &[(&HostName, &IntentEntry, Drain)]) {
        for (state, number) in census(drains.iter().map(|(_, _, drain)| drain)) {
            let gauge = self.fleet.drains.with_label_values(&[state.as_str()]);
            gauge.set(count(number));
        }
        let mut known = self
            .last_drains
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now: BTreeSet<HostName> = drains.iter().map(|(host, ..)| (*host).clone()).collect();
        for host in known.difference(&now) {
            // A label that is not there is what we want.
            drop(self.fleet.drain_left.remove_label_values(&[host.as_str()]));
            drop(
                self.fleet
                    .drain_overdue
                    .remove_label_values(&[host.as_str()]),
            );
        }
        *known = now;
        drop(known);
        for (host, _, drain) in drains {
            let left = self.fleet.drain_left.with_label_values(&[host.as_str()]);
            left.set(count(drain.left));
            let overdue = self.fleet.drain_overdue.with_label_values(&[host.as_str()]);
            overdue.set(i64::from(drain.overdue));
        }
    }

    /// What governs.
    pub fn policy(&self, mode: Mode, revision: u64, running_limit: u32) {
        for known in [Mode::Observe, Mode::Automatic, Mode::Off] {
            self.fleet
                .mode
                .with_label_values(&[known.as_str()])
                .set(i64::from(known == mode));
        }
        let before = self.fleet.last_revision.swap(revision, Ordering::Relaxed);
        if before != revision {
            drop(
                self.fleet
                    .policy_info
                    .remove_label_values(&[&before.to_string()]),
            );
        }
        self.fleet
            .policy_info
            .with_label_values(&[&revision.to_string()])
            .set(1);
        self.moves.running_limit.set(i64::from(running_limit));
    }

    /// Migrations under way, and those of unknown outcome.
    pub fn running(&self, running: usize, unknown: usize, malformed: usize) {
        self.moves.running.set(count(running));
        self.moves.unknown.set(count(unknown));
        self.replica.malformed.set(count(malformed));
    }

    /// The replica has looked at the fleet.
    pub fn looked(&self, fleet: &Fleet, now_ms: i64) {
        self.replica.last_look.set(ms_to_seconds(now_ms));
        let since = now_ms.saturating_sub(DAY_MS);
        let moves = |guest: &Remembered| {
            let recent = guest.moves.iter().filter(|m| m.ended_ms >= since);
            let moved = |state: &MigrationState| state.outcome().is_some_and(Outcome::has_moved);
            recent
                .filter(|m| m.state.as_ref().is_some_and(moved))
                .count()
        };
        let most = fleet.remembered.values().map(moves).max();
        self.moves.most_moved.set(count(most.unwrap_or(0)));
    }

    /// A cycle's plan, and how the rules stand that it was made under.
    pub fn plan(&self, moves: usize, loss_after: f64, rules: &[RuleStanding]) {
        self.moves.planned.set(count(moves));
        self.rules(rules);
        self.fleet
            .loss
            .with_label_values(&["planned"])
            .set(loss_after);
    }

    /// How rules stand. Series of rules that are no more go, those that stay are never missing from a scrape.
    fn rules(&self, rules: &[RuleStanding]) {
        let labels = |rule: &RuleStanding| {
            let kind = if rule.must { "must" } else { "should" };
            [rule.rule.clone(), kind.to_owned()]
        };
        let violations = &self.fleet.violations;
        let mut known = self
            .last_rules
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now: BTreeSet<[String; 2]> = rules.iter().map(labels).collect();
        for gone in known.difference(&now) {
            // A label that is not there is what we want.
            drop(violations.remove_label_values(gone));
        }
        *known = now;
        for rule in rules {
            violations
                .with_label_values(&labels(rule))
                .set(count(rule.guests));
        }
    }

    /// A cycle that ended.
    pub fn cycle(&self, outcome: &str, phases: &[(&str, f64)], ended_seconds: f64) {
        self.replica.cycles.with_label_values(&[outcome]).inc();
        for (phase, seconds) in phases {
            self.replica
                .cycle_seconds
                .with_label_values(&[phase])
                .observe(*seconds);
        }
        self.replica.last_cycle.set(ended_seconds);
    }

    /// A planned move that was not started.
    pub fn rejected(&self, reason: &str) {
        self.moves.rejected.with_label_values(&[reason]).inc();
    }
}

fn names(assessment: &Assessment) -> BTreeSet<&str> {
    let hosts = assessment.snapshot.hosts.iter();
    hosts.map(|host| host.name.as_str()).collect()
}

fn ms_to_seconds(ms: i64) -> f64 {
    std::time::Duration::from_millis(u64::try_from(ms).unwrap_or(0)).as_secs_f64()
}

/// A count as a gauge takes it.
fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
