//! A few successive readings of counters, and the rates between them.

use std::collections::VecDeque;
use std::time::Duration;

/// Readings older than this say nothing of now, even when there are no newer ones. Where a whole window takes
/// longer, because readings are rare, it is the window that counts.
const OLDEST: Duration = Duration::from_secs(30);

/// How far back a series goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// Intervals between readings that a rate spans.
    intervals: usize,
    /// Age at which a reading is forgotten.
    oldest: Duration,
}

impl Window {
    /// A window of so many intervals of that length.
    pub(super) fn new(intervals: usize, interval: Duration) -> Self {
        let intervals = intervals.max(1);
        let whole = interval.saturating_mul(u32::try_from(intervals).unwrap_or(u32::MAX));
        Self {
            intervals,
            // A reading may be late by one interval.
            oldest: OLDEST.max(whole.saturating_add(interval)),
        }
    }

    /// The same for a series whose last two readings are window enough.
    pub(super) fn of_one(self) -> Self {
        Self {
            intervals: 1,
            ..self
        }
    }

    /// Intervals between readings that a rate spans.
    pub(super) fn intervals(self) -> usize {
        self.intervals
    }
}

/// The last readings of `N` counters that only grow. When one of them shrinks, all were reset (the guest or
/// the host was restarted) and the series begins anew.
#[derive(Debug, Clone)]
pub(super) struct Series<const N: usize> {
    readings: VecDeque<(Duration, [u64; N])>,
    window: Window,
}

impl<const N: usize> Series<N> {
    /// A series whose rates span at most `window`.
    pub(super) fn over(window: Window) -> Self {
        Self {
            readings: VecDeque::new(),
            window,
        }
    }

    /// Takes a reading. One that is not later than the last is dropped: time does not stand still.
    pub(super) fn push(&mut self, at: Duration, values: [u64; N]) {
        if let Some((last_at, last)) = self.readings.back() {
            if at <= *last_at {
                return;
            }
            if last.iter().zip(&values).any(|(old, new)| new < old) {
                self.readings.clear();
            }
        }
        self.readings.push_back((at, values));
        let Window { intervals, oldest } = self.window;
        let stale = |first: &(Duration, [u64; N])| at.saturating_sub(first.0) > oldest;
        while self.readings.len() > intervals + 1 || self.readings.front().is_some_and(stale) {
            self.readings.pop_front();
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.readings.clear();
    }

    /// Growth of each counter over the series, and the time it took; `None`: not two readings yet.
    pub(super) fn growth(&self) -> Option<([u64; N], Duration)> {
        let (first_at, first) = self.readings.front()?;
        let (last_at, last) = self.readings.back()?;
        let elapsed = last_at.checked_sub(*first_at).filter(|e| !e.is_zero())?;
        let mut grown = *last;
        for (grown, first) in grown.iter_mut().zip(first) {
            *grown = grown.saturating_sub(*first);
        }
        Some((grown, elapsed))
    }
}

/// Nanoseconds of CPU per time: cores.
pub(super) fn cores(grown_ns: u64, elapsed: Duration) -> f64 {
    Duration::from_nanos(grown_ns).as_secs_f64() / elapsed.as_secs_f64()
}

/// Bytes per time in MiB/s.
pub(super) fn mib_per_second(grown_bytes: u64, elapsed: Duration) -> f64 {
    float(grown_bytes) / 1_048_576.0 / elapsed.as_secs_f64()
}

/// Share of the time in basis points, 0 to 10000.
pub(super) fn basis_points(grown_us: u64, elapsed: Duration) -> u32 {
    let share = u128::from(grown_us) * 10_000 / elapsed.as_micros().max(1);
    u32::try_from(share.min(10_000)).unwrap_or(10_000)
}

/// A whole number as a float; exact below 2^53.
pub(super) fn float(number: u64) -> f64 {
    let half = |bits: u64| f64::from(u32::try_from(bits & 0xffff_ffff).unwrap_or(u32::MAX));
    half(number >> 32) * 4_294_967_296.0 + half(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn rates_span_the_window_and_no_more() {
        let mut series = Series::over(Window::new(2, secs(1)));
        assert_eq!(series.growth(), None);
        for (at, value) in [(1, 0), (2, 100), (3, 110), (4, 120)] {
            series.push(secs(at), [value]);
        }
        assert_eq!(series.growth(), Some(([20], secs(2))));
    }

    #[test]
    fn a_reset_begins_anew_and_a_standing_clock_is_no_reading() {
        let mut series = Series::over(Window::new(5, secs(1)));
        series.push(secs(1), [100, 5]);
        series.push(secs(2), [200, 4]);
        assert_eq!(series.growth(), None);
        series.push(secs(2), [900, 900]);
        series.push(secs(1), [900, 900]);
        assert_eq!(series.growth(), None);
        series.push(secs(3), [210, 4]);
        assert_eq!(series.growth(), Some(([10, 0], secs(1))));
    }

    #[test]
    fn what_is_too_old_is_forgotten() {
        let mut series = Series::over(Window::new(5, secs(1)));
        series.push(secs(1), [0]);
        series.push(secs(20), [10]);
        series.push(secs(45), [20]);
        assert_eq!(series.growth(), Some(([10], secs(25))));
        series.push(secs(500), [30]);
        assert_eq!(series.growth(), None);
    }

    #[test]
    fn rare_readings_are_averaged_over_their_window_too() {
        for interval in [secs(1), secs(31), secs(60)] {
            let mut series = Series::over(Window::new(3, interval));
            for n in 0..5_u32 {
                series.push(interval * (n + 1), [u64::from(n)]);
            }
            assert_eq!(series.growth(), Some(([3], interval * 3)), "{interval:?}");
        }
    }

    #[test]
    fn units_are_what_their_names_say() {
        assert!((cores(1_500_000_000, secs(3)) - 0.5).abs() < 1e-9);
        assert!((mib_per_second(3 << 20, secs(2)) - 1.5).abs() < 1e-9);
        assert_eq!(basis_points(500_000, secs(1)), 5_000);
        assert_eq!(basis_points(u64::MAX, secs(1)), 10_000);
        assert!((float(1 << 40) - 1_099_511_627_776.0).abs() < 1.0);
    }

    proptest! {
        #[test]
        fn growth_is_never_more_than_the_counters_and_rates_are_finite(
            readings in proptest::collection::vec((0_u64..200, any::<u64>()), 0..30)
        ) {
            let mut series = Series::over(Window::new(5, secs(1)));
            let mut most = 0;
            for (at, value) in readings {
                most = value.max(most);
                series.push(secs(at), [value]);
                if let Some(([grown], elapsed)) = series.growth() {
                    prop_assert!(grown <= most);
                    prop_assert!(cores(grown, elapsed).is_finite());
                    prop_assert!(basis_points(grown, elapsed) <= 10_000);
                }
            }
        }
    }
}
