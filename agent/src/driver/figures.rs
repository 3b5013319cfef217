//! Metrics of migrations away from this host.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use evenkeel_daemon::metrics::Registry;
use evenkeel_proto::v1;
use evenkeel_types::{GuestId, HostName, Outcome, Refusal};
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts};

/// The metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Figures {
    two_hosts: IntGauge,
    on_two: Arc<Mutex<HashSet<GuestId>>>,
    refused: IntCounterVec,
    ended: IntCounterVec,
    total: IntGaugeVec,
    transferred: IntGaugeVec,
    remaining: IntGaugeVec,
}

impl Figures {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(registry: &Registry, host: &HostName) -> Result<Self, prometheus::Error> {
        let opts =
            |name: &str, help: &str| Opts::new(name, help).const_label("host", host.as_str());
        let two_hosts = IntGauge::with_opts(opts(
            "evenkeel_agent_guest_on_two_hosts",
            "Guests of migrations from here that were found running on two hosts; must be 0.",
        ))?;
        registry.register(Box::new(two_hosts.clone()))?;
        let counter = |name: &str, help: &str, label: &str| {
            let counter = IntCounterVec::new(opts(name, help), &[label])?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |part: &str, help: &str| {
            let name = format!("evenkeel_migration_progress_{part}_bytes");
            let gauge = IntGaugeVec::new(opts(&name, help), &["domain"])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let figures = Self {
            two_hosts,
            on_two: Arc::default(),
            refused: counter(
                "evenkeel_agent_orders_refused_total",
                "Orders that this agent refused as their source, by reason.",
                "reason",
            )?,
            ended: counter(
                "evenkeel_agent_migrations_total",
                "Migrations away from here that are over, by result.",
                "result",
            )?,
            total: gauge(
                "total",
                "Bytes to be copied; gone when the migration is over.",
            )?,
            transferred: gauge(
                "transferred",
                "Bytes copied; gone when the migration is over.",
            )?,
            remaining: gauge(
                "remaining",
                "Bytes left in this iteration; gone when the migration is over.",
            )?,
        };
        figures.start_at_zero();
        Ok(figures)
    }

    /// Series exist before their first event, or `increase()` misses it.
    fn start_at_zero(&self) {
        for reason in Refusal::ALL {
            self.refused.with_label_values(&[reason.as_str()]).inc_by(0);
        }
        for result in Outcome::NAMES {
            self.ended.with_label_values(&[result]).inc_by(0);
        }
    }

    /// Counts a refusal.
    pub fn refused(&self, reason: Refusal) {
        self.refused.with_label_values(&[reason.as_str()]).inc();
    }

    /// Counts an end.
    pub fn ended(&self, outcome: Outcome) {
        self.ended.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Says whether a guest was found running on two hosts.
    pub fn on_two_hosts(&self, guest: &GuestId, both: bool) {
        let mut guests = self.on_two.lock().unwrap_or_else(PoisonError::into_inner);
        if both {
            guests.insert(guest.clone());
        } else {
            guests.remove(guest);
        }
        self.two_hosts
            .set(i64::try_from(guests.len()).unwrap_or(i64::MAX));
    }

    /// Guests that run on two hosts.
    #[must_use]
    pub fn guests_on_two_hosts(&self) -> i64 {
        self.two_hosts.get()
    }

    /// The progress of the migration of `domain`; its metrics are gone when the value is dropped.
    pub(super) fn of(&self, domain: &str) -> Progress {
        Progress {
            figures: self.clone(),
            domain: domain.to_owned(),
        }
    }
}

/// One migration's progress metrics.
#[derive(Debug)]
pub(super) struct Progress {
    figures: Figures,
    domain: String,
}

impl Progress {
    pub(super) fn show(&mut self, progress: Option<&v1::CopyProgress>) {
        let Some(progress) = progress else { return };
        let pairs = [
            (&self.figures.total, progress.total_bytes),
            (&self.figures.transferred, progress.transferred_bytes),
            (&self.figures.remaining, progress.remaining_bytes),
        ];
        for (gauge, bytes) in pairs {
            gauge
                .with_label_values(&[&self.domain])
                .set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        for gauge in [
            &self.figures.total,
            &self.figures.transferred,
            &self.figures.remaining,
        ] {
            // Absent when no progress was ever shown.
            drop(gauge.remove_label_values(&[&self.domain]));
        }
    }
}
