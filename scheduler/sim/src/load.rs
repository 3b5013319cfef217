//! What guests want: a stationary load that wanders around its mean, or recorded samples with noise between them.
//!
//! What a guest wants depends on the seed and the time only, never on where it is: every strategy that is compared
//! meets the same load.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::num::{count, index, seconds};

/// How long a deviation lasts: after this time 1/e of it is left. The noise of services is a matter of minutes;
/// shorter, and every estimate averages it away; longer, and it is a change of load, which traces bring.
const MEMORY_SECONDS: f64 = 60.0;
/// Noise between recorded samples, as a fraction of the sample.
const JITTER: f64 = 0.1;
/// Uniform draws in a normal one, and what makes their variance 1: 12/4, rooted.
const DRAWS: usize = 4;
const NORMAL_SCALE: f64 = 1.732_050_807_568_877_2;

/// Roughly normal with mean 0 and variance 1, and bounded: within ±3.5.
pub(crate) fn normal(rng: &mut StdRng) -> f64 {
    let sum: f64 = (0..DRAWS).map(|_| rng.random_range(-0.5..0.5)).sum();
    NORMAL_SCALE * sum
}

/// What a guest wants over time.
#[derive(Debug, Clone, PartialEq)]
pub enum Pattern {
    /// The same on average for all time.
    Stationary {
        /// Mean, cores.
        mean_cores: f64,
        /// Standard deviation over time, cores.
        stddev_cores: f64,
    },
    /// Recorded samples, each the mean over its interval; when they are over they begin again.
    Recorded {
        /// Cores, one per interval.
        cores: Vec<f64>,
        /// Time between samples.
        interval: Duration,
    },
}

impl Pattern {
    /// Samples as a pattern of cores: missing ones hold the value before them (0 at the start), and none is more
    /// than the guest's vCPUs. `scale` turns a sample into cores.
    #[must_use]
    pub fn recorded(samples: &[Option<f64>], interval: Duration, scale: f64, vcpus: u32) -> Self {
        let mut held = 0.0;
        let cores = samples.iter().map(|sample| {
            held = sample.map_or(held, |s| (s * scale).clamp(0.0, f64::from(vcpus)));
            held
        });
        Self::Recorded {
            cores: cores.collect(),
            interval,
        }
    }

    /// Mean and deviation from one moment to another, cores: what only a clairvoyant can know.
    #[must_use]
    pub fn truth(&self, from_ms: i64, until_ms: i64) -> (f64, f64) {
        match self {
            Self::Stationary {
                mean_cores,
                stddev_cores,
            } => (*mean_cores, *stddev_cores),
            Self::Recorded { cores, interval } => {
                let first = slot(from_ms, *interval);
                let last = slot(until_ms.saturating_sub(1), *interval).max(first);
                let values = (first..=last).map(|at| at_slot(cores, at));
                let n = count(last - first + 1);
                let mean = values.clone().sum::<f64>() / n;
                let squares = values.map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
                let jitter = JITTER * mean;
                (mean, (squares + jitter * jitter).sqrt())
            }
        }
    }

    /// The mean over all that is recorded, cores.
    #[must_use]
    pub fn mean_cores(&self) -> f64 {
        match self {
            Self::Stationary { mean_cores, .. } => *mean_cores,
            Self::Recorded { cores, .. } => cores.iter().sum::<f64>() / count(cores.len()).max(1.0),
        }
    }

    fn around(&self, at_ms: i64) -> (f64, f64) {
        match self {
            Self::Stationary {
                mean_cores,
                stddev_cores,
            } => (*mean_cores, *stddev_cores),
            Self::Recorded { cores, interval } => {
                let sample = at_slot(cores, slot(at_ms, *interval));
                (sample, JITTER * sample)
            }
        }
    }
}

fn slot(at_ms: i64, interval: Duration) -> usize {
    index(seconds(at_ms) / interval.as_secs_f64().max(1.0))
}

fn at_slot(cores: &[f64], slot: usize) -> f64 {
    let at = slot.checked_rem(cores.len()).unwrap_or(0);
    cores.get(at).copied().unwrap_or(0.0)
}

/// A guest's want at each moment, drawn from its pattern.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    /// Deviation now, in units of the pattern's.
    mood: f64,
}

impl Want {
    pub(crate) fn new(rng: &mut StdRng) -> Self {
        Self { mood: normal(rng) }
    }

    /// What is wanted at `at_ms`, `tick_seconds` after the last time, cores.
    pub(crate) fn next(
        &mut self,
        pattern: &Pattern,
        vcpus: u32,
        at: Moment,
        rng: &mut StdRng,
    ) -> f64 {
        self.mood = at.kept * self.mood + (1.0 - at.kept * at.kept).sqrt() * normal(rng);
        let (mean, deviation) = pattern.around(at.ms);
        (mean + self.mood * deviation).clamp(0.0, f64::from(vcpus))
    }
}

/// A moment, and how much of a deviation has lasted since the one before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    ms: i64,
    kept: f64,
}

impl Moment {
    pub(crate) fn after(ms: i64, tick_seconds: f64) -> Self {
        Self {
            ms,
            kept: (-tick_seconds / MEMORY_SECONDS).exp(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_stationary_load_has_the_mean_and_deviation_it_was_given() {
        let pattern = Pattern::Stationary {
            mean_cores: 2.0,
            stddev_cores: 0.5,
        };
        let mut rng = StdRng::seed_from_u64(1);
        let mut want = Want::new(&mut rng);
        let values: Vec<f64> = (0..20_000)
            .map(|n| want.next(&pattern, 4, Moment::after(n * 10_000, 10.0), &mut rng))
            .collect();
        let mean = values.iter().sum::<f64>() / 20_000.0;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!((mean - 2.0).abs() < 0.05, "{mean}");
        assert!((variance.sqrt() - 0.5).abs() < 0.03, "{variance}");
        assert!(values.iter().all(|v| (0.0..=4.0).contains(v)));
    }

    #[test]
    fn recorded_samples_hold_over_gaps_and_begin_again() {
        let interval = Duration::from_secs(300);
        let samples = [None, Some(0.5), None, Some(1.5)];
        let pattern = Pattern::recorded(&samples, interval, 2.0, 2);
        let cores = |slot: i64| pattern.around(slot * 300_000).0;
        let read: Vec<f64> = (0..6).map(cores).collect();
        assert_eq!(read, [0.0, 1.0, 1.0, 2.0, 0.0, 1.0]);
        assert!((pattern.mean_cores() - 1.0).abs() < 1e-12);
        let (mean, deviation) = pattern.truth(300_000, 1_200_000);
        assert!((mean - 4.0 / 3.0).abs() < 1e-12, "{mean}");
        assert!(deviation > 0.47 && deviation < 0.5, "{deviation}");
        assert_eq!(
            Pattern::recorded(&[], interval, 1.0, 1).around(0),
            (0.0, 0.0)
        );
    }
}
