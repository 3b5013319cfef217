//! Every constant of the loss model, with its reason, in one table.
//!
//! | constant | value | unit |
//! |---|---|---|
//! | [`PEAK_CORRELATION`] | 0.1 | – |
//! | [`DEVIATION_FLOOR`] | 0.1 | fraction of demand |
//! | [`OWN_SHARE`], [`OWN_DEVIATION`] | 0.02, 0.02 | fraction of the host's cores |
//! | [`CALIBRATION_RANGE`] | 0.5–2 | – |
//! | [`SAMPLES`] | 10 | independent samples per estimate |
//! | [`STALL_AT_FULL`] | 0.1 | fraction of time |
//! | [`LEAST_HEADROOM`] | 0.01 | fraction of the memory |
//! | [`BROWN_OUT`] | 0.05 | fraction of demand |
//! | [`DOWNTIME_WEIGHT`] | 0.1 | of a guest's vCPUs |
//! | [`SWITCH_OVER_SECONDS`] | 0.03 | s |
//! | [`COPY_CORES_PER_MIB_S`] | 0.0005 | cores per MiB/s |
//! | [`LEAST_BANDWIDTH`] | 0.01 | MiB/s |
//! | [`MAX_ROUNDS`] | 30 | pre-copy rounds |
//! | [`PAYBACK`] | see there | s, – |
//!
//! Prices that operators set (a migration's, a `should` rule's, balance, a powered host) are in the policy.

/// ρ: correlation of the guests' peaks. Measured host sums of shared services rarely show less; the floor
/// of what the estimator may learn. Too low: synchronous peaks surprise; too high: headroom lies idle.
pub const PEAK_CORRELATION: f64 = 0.1;

/// A guest's deviation is never taken below this fraction of its demand: a short calm is no steadiness.
pub const DEVIATION_FLOOR: f64 = 0.1;

/// CPU used by the host's own threads (emulator, vhost, migration) where it is not measured.
pub const OWN_SHARE: f64 = 0.02;

/// Least deviation of the host's own use, as a fraction of its cores.
pub const OWN_DEVIATION: f64 = 0.02;

/// Bounds of measured over predicted loss: outside of them the measurement is doubted, not the model.
pub const CALIBRATION_RANGE: (f64, f64) = (0.5, 2.0);

/// Independent samples behind a demand estimate: the standard error of a guest's mean demand is its deviation over the
/// root of this. Recorded load gives 6 (PlanetLab) and 2 (Bitbrains), by the estimator's judge. Lower: fewer moves, and what
/// pays is left undone; higher: moves follow what passes by itself. Of 5, 10 and 30, this lost least in simulated
/// weeks at 20 cores a host, the moves at their price (`cargo run -p evenkeel-sim --example stability`).
pub const SAMPLES: f64 = 10.0;

/// A gain must exceed this many standard errors of its own estimate.
pub const STANDARD_ERRORS: f64 = 2.0;

/// Stalled fraction of time when the working sets fill the memory exactly. Between the headroom's edge
/// and there, and beyond, the fraction grows with the square. Calibrated by memory PSI
/// where the host measures it.
pub const STALL_AT_FULL: f64 = 0.1;

/// Scale of the memory loss, as a fraction of the memory, where the headroom is smaller: the loss must begin
/// at zero and be convex under any policy.
pub const LEAST_HEADROOM: f64 = 0.01;

/// Fraction of its demand that a guest loses while it is copied, by faults on pages that are watched for
/// writes. Not learned: such a guest uses as much CPU as before and does less with it, which no report shows.
pub const BROWN_OUT: f64 = 0.05;

/// A pause is weighed by demand, at least by this share of the vCPUs: an idle guest has clients too.
pub const DOWNTIME_WEIGHT: f64 = 0.1;

/// Fixed part of the pause at switch-over.
pub const SWITCH_OVER_SECONDS: f64 = 0.03;

/// CPU that copying takes from each of the two hosts: one core per 2,000 MiB/s.
pub const COPY_CORES_PER_MIB_S: f64 = 0.0005;

/// A link that gives less carries no migration: a GiB would take more than a day.
pub const LEAST_BANDWIDTH: f64 = 0.01;

/// Pre-copy rounds before a migration is said not to converge.
pub const MAX_ROUNDS: u32 = 30;

/// Throttling of auto-converge: first step, further steps and limit, as in QEMU.
pub const THROTTLE: (f64, f64, f64) = (0.2, 0.1, 0.99);

/// A round that leaves more than this share of the last one's volume counts as no progress.
pub const PROGRESS: f64 = 0.5;

/// Guests on hosts that lose more than this (guest-seconds per second) are accounted for in a plan's
/// `blocked` list when they cannot move.
pub const NOTABLE_LOSS: f64 = 0.01;

/// What a move must bring at a level of aggressiveness.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Payback {
    /// Seconds over which savings are counted: how long the estimated demand is trusted to last.
    pub horizon_seconds: f64,
    /// How many times its cost (price included) a move must save within the horizon.
    pub factor: f64,
    /// Whether moves that only improve things are made at all.
    pub balances: bool,
}

/// The levels of `aggressiveness`, 1 to 5.
///
/// | level | horizon | factor | meaning |
/// |---|---|---|---|
/// | 1 | 30 min | – | only drains, must-rules and memory above its limit |
/// | 2 | 15 min | 3 | what pays soon and threefold |
/// | 3 | 30 min | 2 | what pays twice in half an hour |
/// | 4 | 60 min | 1.5 | what pays in an hour, with a margin |
/// | 5 | 60 min | 1 | any gain that pays |
pub const PAYBACK: [Payback; 5] = [
    Payback {
        horizon_seconds: 1800.0,
        factor: 1.0,
        balances: false,
    },
    Payback {
        horizon_seconds: 900.0,
        factor: 3.0,
        balances: true,
    },
    Payback {
        horizon_seconds: 1800.0,
        factor: 2.0,
        balances: true,
    },
    Payback {
        horizon_seconds: 3600.0,
        factor: 1.5,
        balances: true,
    },
    Payback {
        horizon_seconds: 3600.0,
        factor: 1.0,
        balances: true,
    },
];

/// The payback rule of a level; levels outside of 1–5 count as the nearest.
#[must_use]
pub fn payback(aggressiveness: u8) -> Payback {
    PAYBACK[usize::from(aggressiveness.clamp(1, 5)) - 1]
}
