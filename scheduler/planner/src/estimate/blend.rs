//! Four plain opinions of one guest, weighed by how wrong each has been about that guest.
//!
//! Weights are inverse powers of discounted errors: Bates & Granger, *The combination of forecasts* (1969), in
//! the form of Stock & Watson, *Combination forecasts of output growth* (2004). An error is the absolute one,
//! as a squared error would let one spike decide.

use super::HORIZON_WINDOWS;
use crate::num::from_count;

/// Opinions on what a guest will use, cores: the last window's mean; the mean and the median of the last
/// [`HORIZON_WINDOWS`] windows; the discounted mean of all of them. The first follows, the second damps, the
/// third ignores spikes, the last remembers.
pub(super) type Opinions = [f64; 4];

/// How many windows a judgement is remembered (e-folding): a day of windows of five minutes. Shorter: a
/// night's calm makes the day a surprise; longer: a guest that was given another task is weighed by its last.
pub(super) const MEMORY_WINDOWS: f64 = 288.0;
/// What remains of a memory after one window.
pub(super) const DECAY: f64 = 1.0 - 1.0 / MEMORY_WINDOWS;
/// Judgements below which the weights lean towards equal ones: few say little.
const TRUST_AFTER: f64 = 4.0;
/// Added to every relative error, so that an opinion that was never wrong yet does not silence the others
/// for ever.
const DOUBT: f64 = 0.02;
/// The normal distribution's deviation over its mean absolute deviation: the root of π/2.
const NORMAL_RATIO: f64 = 1.253_314_137_315_500_3;

/// What was expected of the time after some moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Forecast {
    pub(super) opinions: Opinions,
    /// What was made of them, cores.
    pub(super) mean: f64,
}

/// How wrong forecasts of one guest have been. Sums are discounted, so that the newest judgements weigh most.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Track {
    /// Discounted number of judgements.
    count: f64,
    /// Of each opinion, its distance from the mean of the windows that came.
    from_mean: Opinions,
    /// Of each opinion, its mean distance from each of these windows.
    from_each: Opinions,
    /// Mean square of the windows' distance from the forecast mean.
    squares: f64,
}

impl Track {
    /// Judges a forecast by the windows that came after it, at least one.
    pub(super) fn judge(&mut self, forecast: &Forecast, came: &[f64]) {
        let actual = mean(came);
        self.count = self.count * DECAY + 1.0;
        for (i, opinion) in forecast.opinions.iter().enumerate() {
            self.from_mean[i] = self.from_mean[i] * DECAY + (opinion - actual).abs();
            self.from_each[i] = self.from_each[i] * DECAY + distance(came, *opinion);
        }
        let squares = came
            .iter()
            .map(|x| (x - forecast.mean).powi(2))
            .sum::<f64>();
        self.squares = self.squares * DECAY + squares / from_count(came.len());
    }

    /// The mean over the horizon, cores: opinions weighed by how they met such means.
    pub(super) fn mean(&self, opinions: &Opinions) -> f64 {
        self.weighed(&self.from_mean, opinions)
    }

    /// What most of the horizon's windows will be near, cores: opinions weighed by how they met single windows.
    pub(super) fn typical(&self, opinions: &Opinions) -> f64 {
        self.weighed(&self.from_each, opinions)
    }

    /// Root of the mean square by which windows missed their forecast, cores; `None` before any judgement.
    pub(super) fn deviation(&self) -> Option<f64> {
        (self.count > 0.0).then(|| (self.squares / self.count).sqrt())
    }

    fn weighed(&self, errors: &Opinions, opinions: &Opinions) -> f64 {
        let total: f64 = errors.iter().sum();
        if total <= 0.0 {
            return mean(opinions);
        }
        let average = total / from_count(errors.len());
        let weights = errors.map(|error| 1.0 / sixteenth_power(error / average + DOUBT));
        let all: f64 = weights.iter().sum();
        let trust = self.count / (self.count + TRUST_AFTER);
        let learned = weights
            .iter()
            .zip(opinions)
            .map(|(w, x)| w * x)
            .sum::<f64>()
            / all;
        trust * learned + (1.0 - trust) * mean(opinions)
    }
}

/// Inverse of this power of its error weighs an opinion: one that errs by a twentieth more weighs half as
/// much. Lower: the best opinion is watered down; higher: chance decides between two good ones.
fn sixteenth_power(x: f64) -> f64 {
    let square = x * x;
    let fourth = square * square;
    let eighth = fourth * fourth;
    eighth * eighth
}

/// Deviation of some windows about `centre`, cores: from the mean distance, so that one spike counts once
/// and not squared.
pub(super) fn spread(windows: &[f64], centre: f64) -> f64 {
    NORMAL_RATIO * distance(windows, centre)
}

fn distance(windows: &[f64], centre: f64) -> f64 {
    windows.iter().map(|x| (x - centre).abs()).sum::<f64>() / from_count(windows.len())
}

/// Mean of at least one value.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / from_count(values.len())
}

/// Median of at least one value, at most [`HORIZON_WINDOWS`].
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = [f64::INFINITY; HORIZON_WINDOWS];
    for (place, value) in sorted.iter_mut().zip(values) {
        *place = *value;
    }
    sorted.sort_unstable_by(f64::total_cmp);
    let n = values.len().clamp(1, HORIZON_WINDOWS);
    (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(times: u32, opinions: Opinions, came: &[f64]) -> Track {
        let mut track = Track::default();
        for _ in 0..times {
            let mean = track.mean(&opinions);
            track.judge(&Forecast { opinions, mean }, came);
        }
        track
    }

    #[test]
    fn the_opinion_that_was_right_is_followed_and_none_before_that() {
        let opinions = [1.0, 2.0, 3.0, 4.0];
        assert!((Track::default().mean(&opinions) - 2.5).abs() < 1e-12);
        let once = judged(1, opinions, &[2.0; 12]).mean(&opinions);
        let often = judged(200, opinions, &[2.0; 12]).mean(&opinions);
        assert!(once > often && once < 2.5, "{once} {often}");
        assert!((often - 2.0).abs() < 0.1, "{often}");
    }

    #[test]
    fn a_skewed_guest_has_a_mean_above_what_is_typical() {
        let mut came = [0.0; 12];
        came[7] = 12.0;
        let opinions = [0.0, mean(&came), median(&came), mean(&came)];
        let track = judged(300, opinions, &came);
        assert!((track.mean(&opinions) - 1.0).abs() < 0.05);
        assert!(track.typical(&opinions) < 0.05);
        assert!((track.deviation().unwrap() - 11f64.sqrt()).abs() < 0.1);
    }

    #[test]
    fn equal_opinions_are_what_they_say_whatever_their_errors() {
        for errors in [0.0, 3.0] {
            let track = judged(20, [1.0; 4], &[1.0 + errors; 12]);
            assert!((track.mean(&[0.7; 4]) - 0.7).abs() < 1e-12);
        }
    }

    #[test]
    fn medians_lie_in_the_middle() {
        assert!((median(&[3.0]) - 3.0).abs() < 1e-12);
        assert!((median(&[9.0, 1.0]) - 5.0).abs() < 1e-12);
        assert!((median(&[9.0, 1.0, 2.0]) - 2.0).abs() < 1e-12);
    }

    #[test]
    fn the_spread_of_a_normal_sample_is_its_deviation() {
        // Twelve evenly spaced quantiles of the unit normal distribution.
        let half = [0.104, 0.319, 0.549, 0.812, 1.150, 1.732];
        let sample: Vec<f64> = half.iter().flat_map(|x| [*x, -x]).collect();
        assert!((spread(&sample, 0.0) - 0.975).abs() < 0.01);
    }
}
