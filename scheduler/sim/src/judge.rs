//! The estimator's judgement: how far off it is on recorded load, beside plain rules, an hour ahead.
//!
//! At every sample of every guest, each rule says what the guest will use over the next hour, knowing only what
//! was before. Five measures, the first three in per cent of the guest's capacity, over all guests and moments:
//!
//! - *error*: mean absolute distance from the sample one hour later, and from the mean of that hour;
//! - *coverage*: how often the hour's peak is at most the rule's bound, and the *over-provision* that takes: bound
//!   less the hour's mean use;
//! - *coverage at equal over-provision*: the bound is moved by one number of deviations for all guests and moments,
//!   until its over-provision is that of the last hour's maximum. What then covers more sees better where peaks
//!   will be;
//! - *unrest foreseen*: how much of the mean square by which the hour's samples miss the forecast mean, and which is what
//!   hosts lose by, the forecast's variance tells;
//! - *samples*: how many independent ones would know the hour's mean as well, by the forecast's variance.
//!
//! Recorded samples are whole per cents: a peak that equals the bound is as likely above it as below. So coverage
//! is given twice, with such ties as covered and with half of them. A missing sample is judged by nobody and
//! known to nobody: the one before it holds.

use std::fmt;
use std::time::Duration;

use evenkeel_planner::estimate::{Estimator, HORIZON_WINDOWS, PEAK_DEVIATIONS, Reading};

use crate::trace::Trace;

/// Samples in an hour of samples of five minutes.
const HOUR: usize = HORIZON_WINDOWS;
/// Halvings that find a number of deviations: to less than a ten-thousandth.
const HALVINGS: u32 = 20;
/// Most deviations looked for.
const MOST_DEVIATIONS: f64 = 32.0;
/// Bounds nearer to a peak than this, in capacities, equal it: sums of decimals are no closer.
const TIE: f64 = 1e-9;

/// A way to say what a guest will use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// The last sample; with samples as long as the estimator's window also that window's mean.
    LastValue,
    /// The mean of the last hour.
    HourMean,
    /// The maximum of the last hour.
    HourMax,
    /// Exponential smoothing with this weight of the newest sample.
    Smoothed(f64),
    /// The estimator's mean, for single samples too.
    EstimatorMean,
    /// Evenkeel's estimator: its mean, and for single samples what it calls typical.
    Estimator,
}

impl Rule {
    /// What the estimator is compared with.
    pub const PLAIN: [Self; 6] = [
        Self::LastValue,
        Self::HourMean,
        Self::HourMax,
        Self::Smoothed(0.1),
        Self::Smoothed(0.3),
        Self::Smoothed(0.5),
    ];
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LastValue => f.write_str("last value, last window's mean"),
            Self::HourMean => f.write_str("mean of the last hour"),
            Self::HourMax => f.write_str("maximum of the last hour"),
            Self::Smoothed(weight) => write!(f, "exponential smoothing, {weight}"),
            Self::EstimatorMean => f.write_str("Evenkeel, by its mean alone"),
            Self::Estimator => f.write_str("Evenkeel"),
        }
    }
}

/// How often a bound covered the hour's peak, per cent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Coverage {
    /// A peak that equals the bound is covered.
    pub with_ties: f64,
    /// Of such peaks half are.
    pub half_ties: f64,
}

/// How a rule did on a trace; all but the counts in per cent of the guests' capacity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Which rule.
    pub rule: Rule,
    /// Forecasts judged.
    pub forecasts: usize,
    /// Mean absolute error against the sample one hour later.
    pub sample_error: f64,
    /// Mean absolute error of the mean against the mean of the next hour.
    pub mean_error: f64,
    /// Mean of the forecast mean less the mean of the next hour.
    pub bias: f64,
    /// Coverage by the rule's own bound: for the estimator [`PEAK_DEVIATIONS`] above the mean.
    pub coverage: Coverage,
    /// Over-provision of that bound.
    pub over_provision: f64,
    /// Coverage at the over-provision of the last hour's maximum.
    pub equal_coverage: Coverage,
    /// Deviations above the forecast mean that lead there.
    pub equal_deviations: f64,
    /// Of the variation of squared misses, what the forecast variance explains, per cent: 100 is all of it, 0 no better
    /// than one number for all guests and moments, less is worse than that.
    pub unrest: f64,
    /// Forecast variance over the mean square by which the forecast mean misses the hour's: as many independent samples
    /// know a mean as well.
    pub samples: f64,
}

/// Judges the plain rules and, last, the estimator on the guests of a trace that `take` picks by their place
/// in it.
#[must_use]
pub fn judge(trace: &Trace, take: impl Fn(usize) -> bool) -> Vec<Score> {
    let guests: Vec<Vec<Option<f64>>> = (0..trace.guests.len())
        .filter(|place| take(*place))
        .map(|place| capped(&trace.samples[place]))
        .collect();
    let truth: Vec<Truth> = guests.iter().flat_map(|samples| truths(samples)).collect();
    let forecasts = |rule: Rule| -> Vec<Forecast> {
        let of_guest = |samples: &Vec<Option<f64>>| rule.forecasts(samples, trace.interval);
        let all = guests
            .iter()
            .flat_map(|samples| judged(samples, of_guest(samples)));
        all.collect()
    };
    let yardstick = over_provision(&truth, &forecasts(Rule::HourMax), 0.0);
    let plain = Rule::PLAIN.into_iter().map(|rule| (rule, forecasts(rule)));
    // The estimator takes by far the longest: it is asked once.
    let ours = forecasts(Rule::Estimator);
    let by_mean = |f: &Forecast| Forecast {
        sample: f.mean,
        ..*f
    };
    let by_mean = ours.iter().map(by_mean).collect();
    let estimator = [(Rule::EstimatorMean, by_mean), (Rule::Estimator, ours)];
    plain
        .chain(estimator)
        .map(|(rule, forecasts)| score(rule, &truth, &forecasts, yardstick))
        .collect()
}

/// The scores as a table in Markdown.
#[must_use]
pub fn table(scores: &[Score]) -> String {
    let mut text = String::from(
        "| rule | error, sample in 1 h | error, next hour's mean | bias | covers, own bound | over-provision | \
         covers at equal over-provision | same, ties by half | deviations for that | unrest foreseen | samples |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for s in scores {
        text += &format!(
            "| {} | {:.2} | {:.2} | {:+.2} | {:.1} | {:.2} | {:.1} | {:.1} | {:.2} | {:.0} | {:.1} |\n",
            s.rule,
            s.sample_error,
            s.mean_error,
            s.bias,
            s.coverage.with_ties,
            s.over_provision,
            s.equal_coverage.with_ties,
            s.equal_coverage.half_ties,
            s.equal_deviations,
            s.unrest,
            s.samples,
        );
    }
    text
}

/// What came in the hour after a sample.
#[derive(Debug, Clone, Copy)]
struct Truth {
    /// The sample one hour later.
    sample: Option<f64>,
    mean: f64,
    peak: f64,
    /// Of its samples about that mean.
    variance: f64,
}

/// What a rule said of that hour.
#[derive(Debug, Clone, Copy)]
struct Forecast {
    sample: f64,
    mean: f64,
    /// From where `deviation` counts when bounds are moved.
    base: f64,
    deviation: f64,
    /// Deviations of the rule's own bound.
    own: f64,
}

/// Samples as the estimator would see them: a guest uses at most what it has.
fn capped(samples: &[Option<f64>]) -> Vec<Option<f64>> {
    let cap = |sample: &Option<f64>| sample.map(|value| value.min(1.0));
    samples.iter().map(cap).collect()
}

/// The places from which an hour lies behind and an hour with any sample ahead.
fn places(samples: &[Option<f64>]) -> impl Iterator<Item = usize> {
    let last = samples.len().saturating_sub(HOUR);
    let first = samples.iter().position(Option::is_some).unwrap_or(last) + HOUR - 1;
    (first..last).filter(|at| samples[at + 1..=at + HOUR].iter().any(Option::is_some))
}

fn truths(samples: &[Option<f64>]) -> Vec<Truth> {
    let truth = |at: usize| {
        let ahead: Vec<f64> = samples[at + 1..=at + HOUR]
            .iter()
            .flatten()
            .copied()
            .collect();
        Truth {
            sample: samples[at + HOUR],
            mean: mean(&ahead),
            peak: max(&ahead),
            variance: deviation(&ahead).powi(2),
        }
    };
    places(samples).map(truth).collect()
}

fn judged(samples: &[Option<f64>], forecasts: Vec<Forecast>) -> Vec<Forecast> {
    places(samples).map(|at| forecasts[at]).collect()
}

impl Rule {
    /// What the rule says after each sample of a guest.
    fn forecasts(self, samples: &[Option<f64>], interval: Duration) -> Vec<Forecast> {
        match self {
            Self::LastValue => plain(samples, last),
            Self::HourMean => plain(samples, mean),
            Self::HourMax => plain(samples, max),
            Self::Smoothed(weight) => {
                let mut smooth = None;
                plain(samples, |hour| {
                    let before = smooth.unwrap_or(last(hour));
                    *smooth.insert(before + weight * (last(hour) - before))
                })
            }
            Self::Estimator | Self::EstimatorMean => estimates(samples, interval),
        }
    }
}

/// A rule that says one thing of everything, asked after each sample with the hour up to it; its deviation is
/// that hour's.
fn plain(samples: &[Option<f64>], mut rule: impl FnMut(&[f64]) -> f64) -> Vec<Forecast> {
    let mut seen: Vec<f64> = vec![];
    let step = |sample: &Option<f64>| {
        seen.push(sample.or(seen.last().copied()).unwrap_or(0.0));
        let hour = &seen[seen.len().saturating_sub(HOUR)..];
        let value = rule(hour);
        Forecast {
            sample: value,
            mean: value,
            base: value,
            deviation: deviation(hour),
            own: 0.0,
        }
    };
    samples.iter().map(step).collect()
}

/// What the estimator says at the end of each sample's interval.
fn estimates(samples: &[Option<f64>], interval: Duration) -> Vec<Forecast> {
    let step_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX / 1_000_000);
    let mut estimator = Estimator::new(interval);
    let mut now_ms = 0;
    let step = |sample: &Option<f64>| {
        if let Some(used_cores) = *sample {
            let reading = Reading {
                at_ms: now_ms,
                used_cores,
                delay_cores: 0.0,
                limit_cores: 1.0,
                during_migration: false,
            };
            estimator.record("guest", &reading);
        }
        now_ms += step_ms;
        let demand = estimator.demand("guest", now_ms);
        let read = |part: fn(&evenkeel_planner::estimate::Demand) -> f64| {
            demand.as_ref().map_or(0.0, part)
        };
        Forecast {
            sample: read(|demand| demand.typical_cores),
            mean: read(|demand| demand.mean_cores),
            base: read(|demand| demand.mean_cores),
            deviation: read(|demand| demand.stddev_cores),
            own: PEAK_DEVIATIONS,
        }
    };
    samples.iter().map(step).collect()
}

fn score(rule: Rule, truth: &[Truth], forecasts: &[Forecast], yardstick: f64) -> Score {
    let pairs = || truth.iter().zip(forecasts);
    let sample_errors = pairs().filter_map(|(t, f)| Some((f.sample - t.sample?).abs()));
    let mean_errors = pairs().map(|(t, f)| (f.mean - t.mean).abs());
    let biases = pairs().map(|(t, f)| f.mean - t.mean);
    let own = forecasts.first().map_or(0.0, |f| f.own);
    let equal = deviations_for(truth, forecasts, yardstick);
    Score {
        rule,
        forecasts: forecasts.len(),
        sample_error: 100.0 * average(sample_errors),
        mean_error: 100.0 * average(mean_errors),
        bias: 100.0 * average(biases),
        coverage: coverage(truth, forecasts, own),
        over_provision: 100.0 * over_provision(truth, forecasts, own),
        equal_coverage: coverage(truth, forecasts, equal),
        equal_deviations: equal,
        unrest: 100.0 * unrest(truth, forecasts),
        samples: samples(truth, forecasts),
    }
}

/// Independent samples that would know the hour's mean as well as the forecast does.
fn samples(truth: &[Truth], forecasts: &[Forecast]) -> f64 {
    let missed = truth
        .iter()
        .zip(forecasts)
        .map(|(t, f)| (t.mean - f.mean).powi(2));
    let variance = average(forecasts.iter().map(|f| f.deviation * f.deviation));
    let missed = average(missed);
    if missed > 0.0 { variance / missed } else { 0.0 }
}

/// Share of the variation of squared misses that the forecast variance explains (coefficient of determination).
fn unrest(truth: &[Truth], forecasts: &[Forecast]) -> f64 {
    let came = |(t, f): (&Truth, &Forecast)| (t.variance + (t.mean - f.mean).powi(2), f.deviation);
    let pairs = || truth.iter().zip(forecasts).map(came);
    let centre = average(pairs().map(|(came, _)| came));
    let missed = average(pairs().map(|(came, deviation)| (came - deviation * deviation).powi(2)));
    let varied = average(pairs().map(|(came, _)| (came - centre).powi(2)));
    if varied > 0.0 {
        1.0 - missed / varied
    } else {
        0.0
    }
}

/// A guest needs no more than all it has.
fn bound(forecast: &Forecast, deviations: f64) -> f64 {
    (forecast.base + deviations * forecast.deviation).min(1.0)
}

fn over_provision(truth: &[Truth], forecasts: &[Forecast], deviations: f64) -> f64 {
    let pairs = truth.iter().zip(forecasts);
    average(pairs.map(|(t, f)| bound(f, deviations) - t.mean))
}

/// How many deviations make a rule's over-provision `yardstick`. It grows with them.
fn deviations_for(truth: &[Truth], forecasts: &[Forecast], yardstick: f64) -> f64 {
    let (mut low, mut high) = (0.0, MOST_DEVIATIONS);
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        if over_provision(truth, forecasts, middle) < yardstick {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

fn coverage(truth: &[Truth], forecasts: &[Forecast], deviations: f64) -> Coverage {
    let room = |(t, f): (&Truth, &Forecast)| bound(f, deviations) - t.peak;
    let rooms = || truth.iter().zip(forecasts).map(room);
    let share =
        |holds: fn(f64) -> bool| 100.0 * average(rooms().map(|r| if holds(r) { 1.0 } else { 0.0 }));
    let with_ties = share(|room| room >= -TIE);
    let above = share(|room| room > TIE);
    Coverage {
        with_ties,
        half_ties: (with_ties + above) / 2.0,
    }
}

/// Mean of what comes; nothing for nothing.
fn average(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}

fn mean(values: &[f64]) -> f64 {
    average(values.iter().copied())
}

fn last(values: &[f64]) -> f64 {
    values.last().copied().unwrap_or(0.0)
}

fn max(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

fn deviation(values: &[f64]) -> f64 {
    let centre = mean(values);
    average(values.iter().map(|x| (x - centre).powi(2))).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{FIVE_MINUTES, folder};

    fn score(scores: &[Score], rule: Rule) -> Score {
        *scores.iter().find(|score| score.rule == rule).unwrap()
    }

    fn trace_of(samples: Vec<Option<f64>>) -> Trace {
        Trace {
            guests: vec!["g".into()],
            samples: vec![samples],
            interval: FIVE_MINUTES,
        }
    }

    #[test]
    fn a_steady_guest_is_foreseen_by_every_rule() {
        let scores = judge(&trace_of(vec![Some(0.25); 40]), |_| true);
        assert_eq!(scores.len(), Rule::PLAIN.len() + 2);
        for s in scores {
            assert_eq!(s.forecasts, 40 - 12 - 11, "{s:?}");
            assert!(s.sample_error < 1e-9 && s.mean_error < 1e-9, "{s:?}");
            assert!((s.coverage.with_ties - 100.0).abs() < 1e-9, "{s:?}");
            assert!((s.coverage.half_ties - 50.0).abs() < 1e-9, "{s:?}");
        }
    }

    #[test]
    fn errors_and_over_provision_are_what_they_are_called() {
        // An hour at 10 %, one at 40 %: judged once, from the end of the first.
        let mut samples = vec![Some(0.1); 12];
        samples.extend(vec![Some(0.4); 12]);
        let scores = judge(&trace_of(samples.clone()), |_| true);
        let s = score(&scores, Rule::HourMean);
        assert_eq!(s.forecasts, 1);
        assert!((s.sample_error - 30.0).abs() < 1e-9 && (s.mean_error - 30.0).abs() < 1e-9);
        assert!((s.bias + 30.0).abs() < 1e-9 && (s.over_provision + 30.0).abs() < 1e-9);
        assert!(s.coverage.with_ties < 1e-9);
        // A missing sample is not judged, the others of its hour are.
        samples[23] = None;
        let s = score(&judge(&trace_of(samples), |_| true), Rule::HourMean);
        assert!(s.sample_error.abs() < 1e-9 && (s.mean_error - 30.0).abs() < 1e-9);
    }

    /// Every `nth` guest of a recorded trace, so that a debug build takes seconds.
    fn recorded(file: &str, nth: usize) -> Vec<Score> {
        let trace = Trace::read(&folder().join(file), FIVE_MINUTES).unwrap();
        judge(&trace, |place| place % nth == 0)
    }

    /// The best value of a measure among the plain rules.
    fn best(scores: &[Score], measure: fn(&Score) -> f64) -> f64 {
        let is_plain = |s: &&Score| !matches!(s.rule, Rule::Estimator | Rule::EstimatorMean);
        let plain = scores.iter().filter(is_plain);
        plain.map(measure).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn on_planetlab_errors_are_smaller_and_coverage_is_larger_than_any_plain_rules() {
        let scores = recorded("planetlab-20110303.csv", 6);
        let ours = score(&scores, Rule::Estimator);
        let mean = score(&scores, Rule::EstimatorMean);
        assert!(
            ours.sample_error < 0.97 * best(&scores, |s| s.sample_error),
            "{ours:?}"
        );
        assert!(
            mean.sample_error < best(&scores, |s| s.sample_error),
            "{mean:?}"
        );
        assert!(
            ours.mean_error < best(&scores, |s| s.mean_error),
            "{ours:?}"
        );
        let covered = -best(&scores, |s| -s.equal_coverage.with_ties);
        assert!(ours.equal_coverage.with_ties > covered + 3.0, "{ours:?}");
        // The fixed number of deviations is the right one to within a tenth.
        assert!(
            (ours.equal_deviations - PEAK_DEVIATIONS).abs() < 0.2,
            "{ours:?}"
        );
    }

    #[test]
    fn on_bitbrains_it_foresees_hours_better_and_samples_as_well_as_the_best_plain_rule() {
        let scores = recorded("bitbrains-rnd-cpu-7d.csv", 10);
        let ours = score(&scores, Rule::Estimator);
        assert!(
            ours.mean_error < 0.98 * best(&scores, |s| s.mean_error),
            "{ours:?}"
        );
        assert!(
            ours.sample_error < 1.02 * best(&scores, |s| s.sample_error),
            "{ours:?}"
        );
        let covered = -best(&scores, |s| -s.equal_coverage.half_ties);
        assert!(ours.equal_coverage.half_ties > covered + 3.0, "{ours:?}");
    }
}
