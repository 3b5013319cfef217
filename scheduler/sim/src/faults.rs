//! What goes wrong, by seed: the same faults at the same times whatever the strategy.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::num::millis;

/// How often things go wrong. Rates are per day of virtual time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// Losses of each host: it is silent and its guests are dead until it comes back.
    pub host_losses_per_day: f64,
    /// Gaps in each host's reports: the agent lives, nothing arrives.
    pub report_gaps_per_day: f64,
    /// Restarts of each host's agent: its report is gone for a moment and its counters begin anew.
    pub agent_restarts_per_day: f64,
    /// Share of migrations that the hypervisor gives up.
    pub failing_migrations: f64,
}

impl Faults {
    /// Nothing goes wrong.
    pub const NONE: Self = Self {
        host_losses_per_day: 0.0,
        report_gaps_per_day: 0.0,
        agent_restarts_per_day: 0.0,
        failing_migrations: 0.0,
    };
    /// A bad week: each host is lost every 20 days, reports and agents stumble daily, one migration in 20 fails.
    pub const BAD_WEEK: Self = Self {
        host_losses_per_day: 0.05,
        report_gaps_per_day: 1.0,
        agent_restarts_per_day: 1.0,
        failing_migrations: 0.05,
    };
}

/// What is wrong with a host at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Trouble {
    /// The host is down.
    pub(crate) lost: bool,
    /// No new report arrives.
    pub(crate) silent: bool,
    /// The agent is gone, and its report with it.
    pub(crate) agent_down: bool,
}

/// Shortest and longest time that each kind lasts, s.
const LOST: (f64, f64) = (300.0, 3600.0);
const SILENT: (f64, f64) = (20.0, 400.0);
const RESTART: (f64, f64) = (10.0, 60.0);

/// The faults of one host.
#[derive(Debug)]
pub(crate) struct HostFaults {
    rng: StdRng,
    kinds: [Kind; 3],
}

#[derive(Debug, Clone, Copy)]
struct Kind {
    per_day: f64,
    lasts: (f64, f64),
    until_ms: i64,
    next_ms: i64,
}

impl HostFaults {
    pub(crate) fn new(faults: &Faults, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut kind = |per_day, lasts| Kind {
            per_day,
            lasts,
            until_ms: i64::MIN,
            next_ms: wait(per_day, &mut rng),
        };
        let kinds = [
            kind(faults.host_losses_per_day, LOST),
            kind(faults.report_gaps_per_day, SILENT),
            kind(faults.agent_restarts_per_day, RESTART),
        ];
        Self { rng, kinds }
    }

    /// What is wrong at `now_ms`; asked with times that never go back.
    pub(crate) fn at(&mut self, now_ms: i64) -> Trouble {
        let rng = &mut self.rng;
        let [lost, silent, agent_down] = self.kinds.each_mut().map(|kind| {
            if now_ms >= kind.next_ms {
                kind.until_ms = kind.next_ms + millis(rng.random_range(kind.lasts.0..kind.lasts.1));
                kind.next_ms = kind.until_ms.saturating_add(wait(kind.per_day, rng));
            }
            now_ms < kind.until_ms
        });
        Trouble {
            lost,
            silent,
            agent_down,
        }
    }
}

/// Time to the next fault, ms: exponential.
fn wait(per_day: f64, rng: &mut StdRng) -> i64 {
    let uniform: f64 = rng.random_range(f64::EPSILON..1.0);
    if per_day > 0.0 {
        millis(-uniform.ln() * 86_400.0 / per_day)
    } else {
        i64::MAX / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_at_their_rate_and_pass() {
        let faults = Faults {
            host_losses_per_day: 4.0,
            ..Faults::NONE
        };
        let mut host = HostFaults::new(&faults, 5);
        let lost: Vec<bool> = (0..50 * 8640).map(|n| host.at(n * 10_000).lost).collect();
        let begun = lost.windows(2).filter(|w| !w[0] && w[1]).count();
        assert!((100..300).contains(&begun), "{begun} in 50 days");
        assert!(lost.iter().filter(|l| **l).count() > begun * 30);
        let mut sound = HostFaults::new(&Faults::NONE, 5);
        assert!((0..10_000).all(|n| sound.at(n * 60_000) == Trouble::default()));
    }
}
