//! Totals that somebody else counts, shown as Prometheus counters.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use prometheus::CounterVec;

/// Counters that follow foreign totals. A total that went back was reset (a restarted guest): counting goes on
/// from its new value, so the counter never shrinks.
#[derive(Debug)]
pub(super) struct Totals<const N: usize> {
    counters: CounterVec,
    last: Mutex<HashMap<[String; N], u64>>,
}

impl<const N: usize> Totals<N> {
    /// Wraps registered counters of `N` labels.
    pub(super) fn new(counters: CounterVec) -> Self {
        Self {
            counters,
            last: Mutex::default(),
        }
    }

    /// Brings a counter up to `total`, in units of `unit` each.
    pub(super) fn set(&self, labels: [&str; N], total: u64, unit: f64) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last.insert(labels.map(str::to_owned), total).unwrap_or(0);
        let grown = total.checked_sub(before).unwrap_or(total);
        // Nanoseconds of one step fit into 52 bits for fifty days; `Duration` would not be more exact.
        let high = u32::try_from(grown >> 32).unwrap_or(u32::MAX);
        let low = u32::try_from(grown & 0xffff_ffff).unwrap_or(u32::MAX);
        let grown = f64::from(high) * 4_294_967_296.0 + f64::from(low);
        self.counters
            .with_label_values(&labels)
            .inc_by(grown * unit);
    }

    /// Takes a counter away.
    pub(super) fn remove(&self, labels: [&str; N]) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.remove(&labels.map(str::to_owned));
        // One that never had a value is no error.
        let _ = self.counters.remove_label_values(&labels);
    }
}
