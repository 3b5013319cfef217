//! From readings to demand: what a guest would use if nobody stood in its way, and how much that varies.
//!
//! Readings come on change, so each one holds until the next: mean and deviation are weighted by time. What
//! a guest asked for and did not get (run delay) counts in part: a vCPU that waited would not have computed
//! all of that time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Share of run delay that counts as demand. 0 would believe that a starved guest wants no more than it
/// gets; 1 takes every moment in the run queue for work left undone. Half, until it is learned per guest.
pub const DELAY_WEIGHT: f64 = 0.5;
/// Readings kept per guest: more than one a second over the longest sensible window is noise.
const MOST_READINGS: usize = 600;
/// A reading this much older than the newest one is no straggler: the clock was set back. Readings of a guest
/// come one after the other, seconds apart, so that only a clock that is being slewed lets one fall behind,
/// by far less. Too low: a corrected clock costs the window's history; too high: for so long nothing
/// new is believed.
const CLOCK_SET_BACK_MS: i64 = 5_000;

/// What was measured of a guest at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// When, milliseconds on any steady scale.
    pub at_ms: i64,
    /// CPU used, cores.
    pub used_cores: f64,
    /// CPU asked for and not given, cores.
    pub delay_cores: f64,
    /// Most that it may use: its vCPUs or its quota, cores.
    pub limit_cores: f64,
    /// Taken while it was migrating: that load is not demand.
    pub during_migration: bool,
}

impl Reading {
    /// The demand this reading speaks for, cores.
    #[must_use]
    pub fn demand_cores(&self) -> f64 {
        let wanted = self.used_cores + DELAY_WEIGHT * self.delay_cores;
        wanted.min(self.limit_cores).max(0.0)
    }

    /// Whether the values can be: `min` and `max` would make a demand even of what is no number.
    fn is_a_measurement(&self) -> bool {
        let values = [self.used_cores, self.delay_cores, self.limit_cores];
        values.into_iter().all(f64::is_finite)
    }
}

/// An estimate over the window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Demand {
    /// Cores.
    pub mean_cores: f64,
    /// Standard deviation over time, cores.
    pub stddev_cores: f64,
    /// How much of the window readings cover.
    pub covered: Duration,
}

/// Readings of one guest, oldest first; each holds until the next.
type Series = VecDeque<(i64, f64)>;

/// Estimates the demand of every guest of a fleet.
#[derive(Debug, Clone)]
pub struct Estimator {
    window_ms: i64,
    series: BTreeMap<String, Series>,
}

impl Estimator {
    /// Looks back over `window`.
    #[must_use]
    pub fn new(window: Duration) -> Self {
        Self {
            window_ms: millis(window),
            series: BTreeMap::new(),
        }
    }

    /// Looks back over another window from now on.
    pub fn set_window(&mut self, window: Duration) {
        self.window_ms = millis(window);
    }

    /// Takes a reading. Values that cannot be, readings of a migration and readings out of order are left
    /// out: the value before them goes on to hold. After the clock was set back the series begins anew, as
    /// no reading before would ever be older than those that come.
    pub fn record(&mut self, guest: &str, reading: &Reading) {
        if reading.during_migration || !reading.is_a_measurement() {
            return;
        }
        let series = self.series.entry(guest.to_owned()).or_default();
        let newest = series.back().map_or(reading.at_ms, |&(at, _)| at);
        if newest.saturating_sub(reading.at_ms) > CLOCK_SET_BACK_MS {
            series.clear();
        } else if newest > reading.at_ms {
            return;
        }
        series.push_back((reading.at_ms, reading.demand_cores()));
        let horizon = reading.at_ms - self.window_ms;
        // The reading before the window's start still holds at its start.
        while series.len() > MOST_READINGS || series.get(1).is_some_and(|&(at, _)| at <= horizon) {
            series.pop_front();
        }
    }

    /// Forgets what was read before `at_ms`, but for the value that held then: the guest was moved, and
    /// what it did under other neighbours is no evidence.
    pub fn restart(&mut self, guest: &str, at_ms: i64) {
        let Some(series) = self.series.get_mut(guest) else {
            return;
        };
        while series.get(1).is_some_and(|&(at, _)| at <= at_ms) {
            series.pop_front();
        }
        if let Some(first) = series.front_mut() {
            first.0 = first.0.max(at_ms);
        }
    }

    /// Keeps only the guests for which `keep` holds, asked with the time of their newest reading.
    pub fn retain(&mut self, keep: impl Fn(&str, i64) -> bool) {
        self.series.retain(|guest, series| {
            series
                .back()
                .is_some_and(|&(newest, _)| keep(guest, newest))
        });
    }

    /// Forgets a guest: nothing that was read of it speaks for what it does now.
    pub fn forget(&mut self, guest: &str) {
        self.series.remove(guest);
    }

    /// Whether there is any reading of a guest.
    #[must_use]
    pub fn knows(&self, guest: &str) -> bool {
        self.series.contains_key(guest)
    }

    /// The demand over the window that ends at `now_ms`; `None` without a reading.
    #[must_use]
    pub fn demand(&self, guest: &str, now_ms: i64) -> Option<Demand> {
        let series = self.series.get(guest)?;
        let start = now_ms - self.window_ms;
        let mut weight = 0.0;
        let mut sum = 0.0;
        let mut squares = 0.0;
        for (i, &(at, value)) in series.iter().enumerate() {
            let until = series
                .get(i + 1)
                .map_or(now_ms, |&(next, _)| next)
                .min(now_ms);
            // The newest reading weighs at least a little, or a first one would weigh nothing.
            let least = if i + 1 == series.len() { 1 } else { 0 };
            let held = seconds((until - at.max(start)).max(least));
            weight += held;
            sum += held * value;
            squares += held * value * value;
        }
        if weight <= 0.0 {
            return None;
        }
        let mean = sum / weight;
        let variance = (squares / weight - mean * mean).max(0.0);
        let covered = Duration::from_secs_f64(weight);
        Some(Demand {
            mean_cores: mean,
            stddev_cores: variance.sqrt(),
            covered,
        })
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

fn seconds(ms: i64) -> f64 {
    let ms = u64::try_from(ms).unwrap_or(0);
    Duration::from_millis(ms).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reading(at_ms: i64, used_cores: f64) -> Reading {
        Reading {
            at_ms,
            used_cores,
            delay_cores: 0.0,
            limit_cores: 4.0,
            during_migration: false,
        }
    }

    fn estimator(readings: &[Reading]) -> Estimator {
        let mut estimator = Estimator::new(Duration::from_secs(10));
        for r in readings {
            estimator.record("g", r);
        }
        estimator
    }

    #[test]
    fn a_reading_holds_until_the_next() {
        let demand = estimator(&[reading(0, 1.0), reading(7_500, 3.0)])
            .demand("g", 10_000)
            .unwrap();
        assert!((demand.mean_cores - 1.5).abs() < 1e-9, "{demand:?}");
        assert!(
            (demand.stddev_cores - 0.75f64.sqrt()).abs() < 1e-9,
            "{demand:?}"
        );
    }

    #[test]
    fn what_lies_before_the_window_does_not_count() {
        let estimator = estimator(&[reading(0, 4.0), reading(20_000, 1.0)]);
        assert!((estimator.demand("g", 30_000).unwrap().mean_cores - 1.0).abs() < 1e-9);
        assert!((estimator.demand("g", 25_000).unwrap().mean_cores - 2.5).abs() < 1e-9);
    }

    #[test]
    fn half_of_the_run_delay_is_demand_and_the_limit_caps_it() {
        let starved = Reading {
            delay_cores: 1.0,
            ..reading(0, 0.25)
        };
        assert!((starved.demand_cores() - 0.75).abs() < 1e-12);
        assert!(
            (Reading {
                limit_cores: 0.5,
                ..starved
            }
            .demand_cores()
                - 0.5)
                .abs()
                < 1e-12
        );
    }

    #[test]
    fn a_migrations_own_load_is_left_out() {
        let copying = Reading {
            during_migration: true,
            ..reading(5_000, 4.0)
        };
        let demand = estimator(&[reading(0, 1.0), copying])
            .demand("g", 10_000)
            .unwrap();
        assert!((demand.mean_cores - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_restarted_series_forgets_the_other_host() {
        let mut estimator = estimator(&[reading(0, 4.0), reading(5_000, 2.0)]);
        estimator.restart("g", 6_000);
        assert!((estimator.demand("g", 10_000).unwrap().mean_cores - 2.0).abs() < 1e-9);
        estimator.retain(|_, _| false);
        assert_eq!(estimator.demand("g", 10_000), None);
    }

    #[test]
    fn what_is_no_number_is_no_demand() {
        for broken in [
            Reading {
                used_cores: f64::NAN,
                ..reading(5_000, 0.0)
            },
            Reading {
                delay_cores: f64::INFINITY,
                ..reading(5_000, 0.0)
            },
            Reading {
                limit_cores: f64::NAN,
                ..reading(5_000, 9.0)
            },
        ] {
            let demand = estimator(&[reading(0, 1.0), broken]).demand("g", 10_000);
            assert!(
                (demand.unwrap().mean_cores - 1.0).abs() < 1e-9,
                "{broken:?}"
            );
        }
    }

    #[test]
    fn a_clock_that_was_set_back_freezes_no_estimate_and_a_straggler_changes_none() {
        let hour = 3_600_000;
        let set_back = [reading(hour, 4.0), reading(1_000, 1.0), reading(2_000, 1.0)];
        let demand = estimator(&set_back).demand("g", 3_000).unwrap();
        assert!((demand.mean_cores - 1.0).abs() < 1e-9, "{demand:?}");
        let straggler = [reading(hour, 4.0), reading(hour - 1_000, 1.0)];
        let demand = estimator(&straggler).demand("g", hour + 1_000).unwrap();
        assert!((demand.mean_cores - 4.0).abs() < 1e-9, "{demand:?}");
    }

    proptest! {
        #[test]
        fn estimates_stay_within_what_was_read(
            values in prop::collection::vec((0i64..2_000, -1.0f64..9.0), 1..80),
        ) {
            let mut at = 0;
            let mut estimator = Estimator::new(Duration::from_secs(10));
            for (step, value) in values {
                at += step;
                estimator.record("g", &reading(at, value));
            }
            let demand = estimator.demand("g", at + 100).unwrap();
            prop_assert!((0.0..=4.0 + 1e-9).contains(&demand.mean_cores));
            prop_assert!(demand.stddev_cores <= 4.0);
        }
    }
}
