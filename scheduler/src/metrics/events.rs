//! Metrics of events.

use evenkeel_types::EventKind;
use prometheus::{IntCounter, IntCounterVec};

use super::{Maker, Metrics};

#[derive(Debug, Clone)]
pub(super) struct EventMetrics {
    kinds: IntCounterVec,
    dropped: IntCounter,
}

impl EventMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            kinds: make.counters(
                "events_total",
                "Events that this replica recorded in etcd as the leader.",
                &["kind"],
            )?,
            dropped: make.counter(
                "events_dropped_total",
                "Events that were not recorded: too many waited, or the lead was lost.",
            )?,
        };
        for kind in EventKind::ALL {
            metrics.kinds.with_label_values(&[kind.as_str()]).inc_by(0);
        }
        Ok(metrics)
    }
}

impl Metrics {
    /// An event stands in etcd.
    pub fn event(&self, kind: EventKind) {
        self.events.kinds.with_label_values(&[kind.as_str()]).inc();
    }

    /// Events are not going to be recorded.
    pub fn event_dropped(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.events.dropped.inc_by(count);
    }
}
