//! One guest's past: readings become parts of a window, parts become windows, windows become opinions.
//!
//! ```text
//!  reading ──holds──▶ part (a tenth of the window) ──10──▶ window ──12──▶ horizon ──▶ discounted mean
//!                       └─ a run of parts far off ─▶ step: older windows are no evidence
//! ```

use super::blend::{DECAY, Forecast, Opinions, Track, mean, median, spread};
use super::{HORIZON_WINDOWS, seconds};

/// Parts of a window: how finely its edge moves. Also how many in a row make a step.
const PARTS: usize = 10;
/// The same as milliseconds are divided by it.
const PARTS_PER_WINDOW: i64 = 10;
/// Parts that fill every window there is, the open one too.
const MOST_PARTS: i64 = PARTS_PER_WINDOW * 13;
/// A part this many usual deviations from what was expected is off.
const STEP_DEVIATIONS: f64 = 4.0;
/// A part less than this share of what the guest may use from what was expected is never off: the blend
/// follows such steps soon enough.
const STEP_SHARE: f64 = 0.05;

/// Shares of the variance that is expected: what forecasts missed by, and the last windows' spread. What least squares
/// give for the next hour on both recorded traces, between 0.72 + 0.18 and 0.82 + 0.12. Together below 1: what is seen
/// high falls back.
const MISSED_SHARE: f64 = 0.8;
const RECENT_SHARE: f64 = 0.15;

/// Time-weighted sums over a stretch of time.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    /// How much of it readings cover.
    seconds: f64,
    /// Cores × seconds.
    sum: f64,
    /// Cores² × seconds.
    squares: f64,
}

impl Part {
    fn add(&mut self, value: f64, seconds: f64) {
        self.seconds += seconds;
        self.sum += value * seconds;
        self.squares += value * value * seconds;
    }

    fn plus(self, other: Self, share: f64) -> Self {
        Self {
            seconds: self.seconds + share * other.seconds,
            sum: self.sum + share * other.sum,
            squares: self.squares + share * other.squares,
        }
    }

    fn mean(&self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.sum / self.seconds)
    }
}

/// A run of parts that are all far off, on one side of what was expected before it.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    /// What was expected before it, and how far from that a part may be, cores: a step must not make room
    /// for itself.
    expected: Option<(f64, f64)>,
    above: bool,
    parts: usize,
    /// Whether a reading since its start confirms it: one alone that holds is a spike.
    confirmed: bool,
}

/// What a history makes of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Summary {
    /// Cores, as all values.
    pub(super) mean: f64,
    pub(super) typical: f64,
    pub(super) stddev: f64,
    /// Seconds of the window that readings cover.
    pub(super) covered_seconds: f64,
}

/// What is remembered of a guest: about a kibibyte, whatever comes.
#[derive(Debug, Clone, Copy)]
pub(super) struct History {
    window_ms: i64,
    /// What the latest reading said, cores; holds until the next.
    value: Option<f64>,
    /// The most it may use, cores.
    limit: f64,
    /// Up to when time is accounted for.
    settled_ms: i64,
    /// When the newest part began.
    part_began_ms: i64,
    /// Oldest first; the newest is still filling, the oldest leaves the window as it fills.
    parts: [Part; PARTS + 1],
    /// Parts since a window was closed.
    parts_closed: usize,
    /// Means of the last closed windows, oldest first; `None` where too little was read.
    windows: [Option<f64>; HORIZON_WINDOWS],
    /// Discounted sum of closed windows' means, cores, and its weight.
    long: (f64, f64),
    /// What was expected when these windows were closed.
    forecasts: [Option<Forecast>; HORIZON_WINDOWS],
    track: Track,
    run: Run,
}

/// **Invariant:** 90,000 guests fit in 180 MiB; held by this very line.
const _: () = assert!(size_of::<History>() <= 2_048);

impl History {
    /// Nothing yet, from `at_ms` on.
    pub(super) fn new(window_ms: i64, at_ms: i64) -> Self {
        Self {
            window_ms,
            value: None,
            limit: f64::INFINITY,
            settled_ms: at_ms,
            part_began_ms: at_ms,
            parts: [Part::default(); PARTS + 1],
            parts_closed: 0,
            windows: [None; HORIZON_WINDOWS],
            long: (0.0, 0.0),
            forecasts: [None; HORIZON_WINDOWS],
            track: Track::default(),
            run: Run::default(),
        }
    }

    /// Up to when time is accounted for: the latest reading.
    pub(super) fn settled_ms(&self) -> i64 {
        self.settled_ms
    }

    /// From now on it uses `value`, at most `limit`, cores.
    pub(super) fn read(&mut self, at_ms: i64, value: f64, limit: f64) {
        self.pass(at_ms);
        self.value = Some(value);
        self.limit = limit;
        self.run.confirmed |= self.run.parts > 0;
    }

    /// Begins anew at `at_ms` with the value that holds. How far off forecasts are is kept: a guest's unrest
    /// is its own.
    pub(super) fn restart(&mut self, window_ms: i64, at_ms: i64) {
        *self = Self {
            value: self.value,
            limit: self.limit,
            track: self.track,
            ..Self::new(window_ms, at_ms)
        };
    }

    /// Until the next reading nothing is known. Closed windows stay evidence, the open one does not.
    pub(super) fn lapse(&mut self) {
        self.value = None;
        self.parts = [Part::default(); PARTS + 1];
        self.run = Run::default();
    }

    /// Time passes up to `now_ms`; what was read last holds. Bounded: of a longer time the end is accounted
    /// for, which fills every window there is.
    pub(super) fn pass(&mut self, now_ms: i64) {
        let part_ms = self.part_ms();
        let most = part_ms.saturating_mul(MOST_PARTS);
        if now_ms.saturating_sub(self.part_began_ms) > most.saturating_add(part_ms) {
            self.part_began_ms = now_ms - most;
            self.settled_ms = self.part_began_ms;
        }
        while now_ms >= self.part_began_ms + part_ms {
            let end = self.part_began_ms + part_ms;
            self.settle(end);
            self.part_began_ms = end;
            self.close_part();
        }
        self.settle(now_ms);
    }

    /// What is to be expected from now on; `None` if nothing is known.
    pub(super) fn summary(&self) -> Option<Summary> {
        let window = self.window();
        let opinions = self.opinions(&window)?;
        let mean = self.track.mean(&opinions);
        let between = self.between(mean);
        let within = window
            .mean()
            .map_or(0.0, |m| (window.squares / window.seconds - m * m).max(0.0));
        Some(Summary {
            mean: mean.min(self.limit),
            typical: self.track.typical(&opinions).min(self.limit),
            stddev: (between * between + within).sqrt(),
            covered_seconds: window.seconds,
        })
    }

    fn part_ms(&self) -> i64 {
        (self.window_ms / PARTS_PER_WINDOW).max(1)
    }

    fn settle(&mut self, until_ms: i64) {
        if until_ms <= self.settled_ms {
            return;
        }
        if let Some(value) = self.value {
            self.parts[PARTS].add(value, seconds(until_ms - self.settled_ms));
        }
        self.settled_ms = until_ms;
    }

    fn close_part(&mut self) {
        if let Some(mean) = self.parts[PARTS].mean() {
            self.watch_for_a_step(mean);
        }
        self.parts.rotate_left(1);
        self.parts[PARTS] = Part::default();
        self.parts_closed += 1;
        if self.parts_closed == PARTS {
            self.parts_closed = 0;
            self.close_window();
        }
    }

    /// Sums over the window that ends now: the oldest part counts by the share of it that is still inside.
    fn window(&self) -> Part {
        let into = seconds(self.settled_ms - self.part_began_ms) / seconds(self.part_ms());
        let start = Part::default().plus(self.parts[0], (1.0 - into).clamp(0.0, 1.0));
        self.parts[1..]
            .iter()
            .fold(start, |sum, part| sum.plus(*part, 1.0))
    }

    fn close_window(&mut self) {
        let window = self.window();
        let enough = window.seconds * 2.0 >= seconds(self.window_ms);
        let closed = window.mean().filter(|_| enough);
        self.windows.rotate_left(1);
        self.windows[HORIZON_WINDOWS - 1] = closed;
        if let Some(mean) = closed {
            self.long = (self.long.0 * DECAY + mean, self.long.1 * DECAY + 1.0);
        }
        self.judge();
        let forecast = self.opinions(&window).map(|opinions| Forecast {
            opinions,
            mean: self.track.mean(&opinions),
        });
        self.forecasts.rotate_left(1);
        self.forecasts[HORIZON_WINDOWS - 1] = forecast;
    }

    /// Judges what was expected a horizon ago, if most of the windows since are known.
    fn judge(&mut self) {
        let (known, came) = self.known();
        if let (Some(forecast), true) = (self.forecasts[0], known * 2 > HORIZON_WINDOWS) {
            self.track.judge(&forecast, &came[..known]);
        }
    }

    /// The closed windows that are known, packed, and how many they are.
    fn known(&self) -> (usize, [f64; HORIZON_WINDOWS]) {
        let mut packed = [0.0; HORIZON_WINDOWS];
        let mut known = 0;
        for value in self.windows.iter().flatten() {
            packed[known] = *value;
            known += 1;
        }
        (known, packed)
    }

    /// An opinion that has nothing to go by says what the next shorter one says.
    fn opinions(&self, window: &Part) -> Option<Opinions> {
        let (known, windows) = self.known();
        let windows = &windows[..known];
        let horizon = (known > 0).then(|| (mean(windows), median(windows)));
        let long = (self.long.1 > 0.0).then(|| self.long.0 / self.long.1);
        let newest = window.mean().or(self.value);
        let first = newest.or(horizon.map(|(mean, _)| mean)).or(long)?;
        let (middle, typical) = horizon.unwrap_or((first, first));
        Some([first, middle, typical, long.unwrap_or(middle)])
    }

    /// Deviation between windows, cores: of what forecasts missed by so far, which knows rare bursts, and of the last
    /// windows' spread, which knows the present mood; whichever there is, if one is not.
    fn between(&self, centre: f64) -> f64 {
        let (known, windows) = self.known();
        let recent = (known > 1).then(|| spread(&windows[..known], centre));
        match (self.track.deviation(), recent) {
            (Some(missed), Some(recent)) => {
                (MISSED_SHARE * missed * missed + RECENT_SHARE * recent * recent).sqrt()
            }
            (missed, recent) => missed.or(recent).unwrap_or(0.0),
        }
    }

    /// A full window of parts that are all far off on one side, by more than one reading, is a step, not a
    /// spike: what was before is no evidence any more.
    fn watch_for_a_step(&mut self, part: f64) {
        let off = |(expected, tolerance): &(f64, f64)| (part - expected).abs() > *tolerance;
        let Some(expected) = self.run.expected.filter(off) else {
            let summary = self.summary();
            self.run = Run {
                expected: summary.map(|summary| (summary.mean, self.tolerance())),
                ..Run::default()
            };
            return;
        };
        let above = part > expected.0;
        if self.run.parts > 0 && self.run.above != above {
            self.run = Run {
                expected: Some(expected),
                ..Run::default()
            };
        }
        self.run.above = above;
        self.run.parts += 1;
        if self.run.parts >= PARTS && self.run.confirmed {
            self.windows = [None; HORIZON_WINDOWS];
            self.long = (0.0, 0.0);
            self.run = Run::default();
        }
    }

    /// How far from what was expected a part may be, cores.
    fn tolerance(&self) -> f64 {
        let (known, windows) = self.known();
        let recent = || {
            let windows = &windows[..known];
            (known > 1).then(|| spread(windows, mean(windows)))
        };
        let usual = self.track.deviation().or_else(recent).unwrap_or(0.0);
        let least = if self.limit.is_finite() {
            STEP_SHARE * self.limit
        } else {
            0.0
        };
        least.max(STEP_DEVIATIONS * usual)
    }
}
