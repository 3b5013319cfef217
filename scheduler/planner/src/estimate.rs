//! From readings to demand: what a guest will use over the horizon if nobody stands in its way, and how far
//! off that may be.
//!
//! A reading holds until the next. Readings make windows ([`Estimator::new`]: five minutes by default), and
//! the last [`HORIZON_WINDOWS`] of them the horizon: an hour, as far ahead as plans look. Four opinions are
//! blended: the last window's mean follows, the horizon's mean damps, its median ignores spikes, the discounted
//! mean of a day remembers. Each is weighed by how wrong it has been about this very guest (`blend`). A guest
//! of which little is known is what was read of it. When a whole window, by more than one reading, lies far
//! from what was expected, the guest has changed and what was before is forgotten: a step is believed after
//! one window, a shorter spike never. The deviation has three parts: how far forecasts have missed, how much
//! the last hour's windows differ, and how much readings vary within the window.
//!
//! What a guest asked for and did not get (run delay) counts in part ([`DELAY_WEIGHT`]). It is not learned: one
//! learns it from what moved guests use where nothing is in their way, but guests are moved *because* they were
//! seen high, and fall back by themselves; the two cannot be told apart without moving guests at random.
//!
//! Measured against plain rules on recorded load in `docs/reference/estimator.md`. Called by the controller's core; it
//! does not know hosts, so correlation between guests is not its business.

use std::collections::BTreeMap;
use std::time::Duration;

mod blend;
mod history;

use history::History;

/// Share of run delay that counts as demand. 0 would believe that a starved guest wants no more than it
/// gets; 1 takes every moment in the run queue for work left undone, an upper bound.
pub const DELAY_WEIGHT: f64 = 0.5;
/// Windows in the horizon that is estimated for: an hour of windows of five minutes.
pub const HORIZON_WINDOWS: usize = 12;
/// Mean plus this many deviations is what a guest's peaks over the horizon stay below more often than not. Of
/// twelve independent normal windows the highest stands 1.6 deviations above the mean (Tippett 1925); windows
/// of guests have longer tails. Lower: more peaks above; higher: headroom that nobody uses.
pub const PEAK_DEVIATIONS: f64 = 2.0;
/// Using so many times what it may use is no use but a counter that jumped. Above 1, as a guest's own
/// emulator threads are counted too.
const ABSURD: f64 = 4.0;
/// A reading this much older than the newest one is no straggler: the clock was set back. Readings of a guest
/// come one after the other, seconds apart, so that only a clock that is being slewed lets one fall behind,
/// by far less. Too low: a corrected clock costs the windows' history; too high: for so long nothing
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

    /// Whether the values can be: `min` and `max` would make a demand even of what is no number, and of a
    /// counter that began anew or jumped.
    fn is_a_measurement(&self) -> bool {
        let values = [self.used_cores, self.delay_cores, self.limit_cores];
        let possible = values.into_iter().all(|x| x.is_finite() && x >= 0.0);
        possible && self.used_cores <= ABSURD * self.limit_cores
    }
}

/// What a guest is expected to use over the horizon.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Demand {
    /// Mean, cores: what sums over guests are made of.
    pub mean_cores: f64,
    /// Standard deviation over time, cores: of readings about that mean, whose own error it includes.
    pub stddev_cores: f64,
    /// What it is near at most moments, cores: the best guess of a single one. Less than the mean where rare
    /// bursts make up much of it.
    pub typical_cores: f64,
    /// How much of the last window readings cover.
    pub covered: Duration,
}

impl Demand {
    /// What its peaks over the horizon stay below more often than not, cores, see [`PEAK_DEVIATIONS`].
    #[must_use]
    pub fn peak_cores(&self) -> f64 {
        self.mean_cores + PEAK_DEVIATIONS * self.stddev_cores
    }
}

/// Estimates the demand of every guest of a fleet, in about a kibibyte each.
#[derive(Debug, Clone)]
pub struct Estimator {
    window_ms: i64,
    guests: BTreeMap<String, Box<History>>,
}

impl Estimator {
    /// With windows of this length.
    #[must_use]
    pub fn new(window: Duration) -> Self {
        Self {
            window_ms: millis(window),
            guests: BTreeMap::new(),
        }
    }

    /// Windows have another length from now on. Those of the old length are forgotten.
    pub fn set_window(&mut self, window: Duration) {
        let window_ms = millis(window);
        if window_ms == self.window_ms {
            return;
        }
        self.window_ms = window_ms;
        for history in self.guests.values_mut() {
            history.restart(window_ms, history.settled_ms());
        }
    }

    /// Takes a reading. Values that cannot be, readings of a migration and readings out of order are left
    /// out: the value before them goes on to hold. After the clock was set back the guest's windows begin
    /// anew, as no reading before would ever be older than those that come.
    pub fn record(&mut self, guest: &str, reading: &Reading) {
        if reading.during_migration || !reading.is_a_measurement() {
            return;
        }
        let window_ms = self.window_ms;
        let new = || Box::new(History::new(window_ms, reading.at_ms));
        let history = self.guests.entry(guest.to_owned()).or_insert_with(new);
        let behind = history.settled_ms().saturating_sub(reading.at_ms);
        if behind > CLOCK_SET_BACK_MS {
            history.restart(window_ms, reading.at_ms);
        } else if behind > 0 {
            return;
        }
        history.read(reading.at_ms, reading.demand_cores(), reading.limit_cores);
    }

    /// Forgets what was read before `at_ms`, but for the value that held then: the guest was moved, and
    /// what it did under other neighbours is no evidence.
    pub fn restart(&mut self, guest: &str, at_ms: i64) {
        let window_ms = self.window_ms;
        if let Some(history) = self.guests.get_mut(guest) {
            history.restart(window_ms, at_ms.max(history.settled_ms()));
        }
    }

    /// Nothing is known of a guest from its last reading to the next: it was off, or nobody looked. The value
    /// that was read last does not hold; what it used to do is still known.
    pub fn lapse(&mut self, guest: &str) {
        if let Some(history) = self.guests.get_mut(guest) {
            history.lapse();
        }
    }

    /// Keeps only the guests for which `keep` holds, asked with the time of their newest reading.
    pub fn retain(&mut self, keep: impl Fn(&str, i64) -> bool) {
        self.guests
            .retain(|guest, history| keep(guest, history.settled_ms()));
    }

    /// Whether there is any reading of a guest.
    #[must_use]
    pub fn knows(&self, guest: &str) -> bool {
        self.guests.contains_key(guest)
    }

    /// The demand over the horizon that begins at `now_ms`; `None` without a reading.
    #[must_use]
    pub fn demand(&self, guest: &str, now_ms: i64) -> Option<Demand> {
        let mut history = **self.guests.get(guest)?;
        history.pass(now_ms);
        let summary = history.summary()?;
        Some(Demand {
            mean_cores: summary.mean,
            stddev_cores: summary.stddev,
            typical_cores: summary.typical,
            covered: Duration::from_secs_f64(summary.covered_seconds.max(0.0)),
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

    /// Readings every second from `from` until before `until`, seconds; noise of a tenth of a core.
    fn every_second(from: i64, until: i64, level: f64) -> Vec<Reading> {
        let noise = |second: i64| if second % 3 == 0 { 0.1 } else { -0.05 };
        (from..until)
            .map(|second| reading(second * 1_000, level + noise(second)))
            .collect()
    }

    fn mean_at(estimator: &Estimator, second: i64) -> f64 {
        estimator.demand("g", second * 1_000).unwrap().mean_cores
    }

    #[test]
    fn what_lies_before_the_window_does_not_count_for_a_guest_of_that_age() {
        let estimator = estimator(&[reading(0, 4.0), reading(2_000, 1.0)]);
        assert!((mean_at(&estimator, 4) - 2.5).abs() < 1e-9);
        assert!((mean_at(&estimator, 8) - 1.75).abs() < 1e-9);
    }

    #[test]
    fn a_step_that_stays_is_believed_after_one_window_whatever_the_history() {
        for hours in [1, 10, 40] {
            let step = hours * 120;
            let mut readings = every_second(0, step, 0.5);
            readings.extend(every_second(step, step + 12, 3.0));
            let estimator = estimator(&readings);
            let mean = mean_at(&estimator, step + 12);
            assert!((mean - 3.0).abs() < 0.1, "{hours}: {mean}");
        }
    }

    #[test]
    fn a_step_down_is_believed_as_well() {
        let mut readings = every_second(0, 500, 3.0);
        readings.extend(every_second(500, 512, 0.2));
        let mean = mean_at(&estimator(&readings), 512);
        assert!((mean - 0.2).abs() < 0.1, "{mean}");
    }

    #[test]
    fn a_short_spike_is_not_believed() {
        let mut readings = every_second(0, 600, 0.5);
        readings.extend(every_second(600, 605, 4.0));
        readings.extend(every_second(605, 660, 0.5));
        let mut estimator = Estimator::new(Duration::from_secs(10));
        let mut worst: f64 = 0.0;
        for r in &readings {
            estimator.record("g", r);
            worst = worst.max(mean_at(&estimator, r.at_ms / 1_000));
        }
        // Half of a window at 3.5 cores above: the window's mean alone would say 2.25.
        assert!(worst < 1.2, "{worst}");
        assert!((mean_at(&estimator, 660) - 0.5).abs() < 0.2);
    }

    #[test]
    fn one_reading_that_holds_for_a_window_is_no_step() {
        let mut readings: Vec<Reading> = (0..40).map(|i| reading(i * 10_000, 0.5)).collect();
        readings.push(reading(400_000, 4.0));
        let spiked = mean_at(&estimator(&readings), 410);
        assert!(spiked < 2.5, "{spiked}");
        readings.push(reading(410_000, 4.0));
        readings.push(reading(420_000, 4.0));
        let stepped = mean_at(&estimator(&readings), 421);
        assert!((stepped - 4.0).abs() < 0.05, "{stepped}");
    }

    #[test]
    fn a_restless_guest_is_given_room_for_it() {
        let calm = estimator(&every_second(0, 600, 1.0));
        let waves = |window: i64| if window % 2 == 0 { 0.5 } else { 1.5 };
        let readings: Vec<Reading> = (0..60)
            .flat_map(|w| every_second(w * 10, w * 10 + 10, waves(w)))
            .collect();
        let restless = estimator(&readings);
        let (calm, restless) = (calm.demand("g", 600_000), restless.demand("g", 600_000));
        let (calm, restless) = (calm.unwrap(), restless.unwrap());
        assert!(calm.stddev_cores < 0.15, "{calm:?}");
        assert!((0.4..0.7).contains(&restless.stddev_cores), "{restless:?}");
        assert!(restless.peak_cores() > 1.55, "{restless:?}");
        assert!((restless.mean_cores - 1.0).abs() < 0.2, "{restless:?}");
    }

    #[test]
    fn a_guest_just_seen_is_what_was_read_of_it() {
        let demand = estimator(&[reading(0, 1.0), reading(4_000, 3.0)])
            .demand("g", 4_000)
            .unwrap();
        assert!((demand.mean_cores - 1.0).abs() < 1e-9, "{demand:?}");
        let first = estimator(&[reading(7_000, 2.0)])
            .demand("g", 7_000)
            .unwrap();
        assert!((first.mean_cores - 2.0).abs() < 1e-9, "{first:?}");
        assert!(first.stddev_cores.abs() < 1e-9, "{first:?}");
    }

    #[test]
    fn through_a_gap_no_value_holds_and_the_guest_is_still_known() {
        let mut estimator = estimator(&every_second(0, 100, 1.0));
        estimator.record("g", &reading(100_000, 4.0));
        estimator.lapse("g");
        let in_the_gap = mean_at(&estimator, 160);
        assert!((in_the_gap - 1.0).abs() < 0.1, "{in_the_gap}");
        estimator.record("g", &reading(160_000, 1.0));
        let after = estimator.demand("g", 163_000).unwrap();
        assert!((after.mean_cores - 1.0).abs() < 0.1, "{after:?}");
        assert_eq!(after.covered, Duration::from_secs(3));
    }

    #[test]
    fn time_without_readings_costs_no_time() {
        let mut estimator = estimator(&[reading(0, 1.0)]);
        let year = 365 * 86_400_000;
        estimator.record("g", &reading(year, 2.0));
        let demand = estimator.demand("g", 2 * year).unwrap();
        assert!((1.5..=2.0).contains(&demand.mean_cores), "{demand:?}");
        assert_eq!(demand.covered, Duration::from_secs(10));
    }

    #[test]
    fn another_window_begins_anew_with_the_value_that_holds() {
        let mut estimator = estimator(&[reading(0, 4.0), reading(5_000, 2.0)]);
        estimator.set_window(Duration::from_secs(20));
        assert!((mean_at(&estimator, 9) - 2.0).abs() < 1e-9);
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
    fn what_cannot_be_is_no_demand() {
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
            // A counter that began anew, and one that jumped.
            reading(5_000, -3.0),
            reading(5_000, 17.0),
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
            values in prop::collection::vec((0i64..40_000, 0.0f64..9.0), 1..80),
        ) {
            let mut at = 0;
            let mut estimator = Estimator::new(Duration::from_secs(10));
            for (step, value) in values {
                at += step;
                estimator.record("g", &reading(at, value));
            }
            let demand = estimator.demand("g", at + 100).unwrap();
            prop_assert!((0.0..=4.0 + 1e-9).contains(&demand.mean_cores));
            prop_assert!((0.0..=4.0 + 1e-9).contains(&demand.typical_cores));
            // Forecast error, spread and the window's own variation: each at most the range.
            prop_assert!(demand.stddev_cores <= 2.0 * 4.0);
        }
    }
}
