//! What a copy that makes no headway is allowed, rung by rung. Pure: time is an argument.
//!
//! Pre-copy goes round after round over what the guest has written meanwhile. It converges when what a round
//! leaves shrinks until it fits the allowed pause. It makes headway as long as a round leaves less than any
//! before; when none has for the order's patience, the next rung is climbed: longer pauses in turn, then handing
//! the guest over before the copy is complete (post-copy, where it is allowed), else giving up. The first round
//! copies everything, and says nothing about that.

use std::time::Duration;

/// A round makes headway when it leaves at least this much less than the best before it, in parts of a hundred.
const HEADWAY_PERCENT: u64 = 10;

/// What a copy is allowed next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rung {
    /// To pause the guest for so long.
    Pause(Duration),
    /// To hand the guest over before the copy is complete.
    PostCopy,
    /// Nothing more: it is aborted.
    GiveUp,
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// Since the copy began.
    pub elapsed: Duration,
    /// The round that runs, from 1; 0: none yet.
    pub iteration: u32,
    /// Bytes that are left of it.
    pub remaining_bytes: u64,
}

/// One copy's way up.
#[derive(Debug, Clone)]
pub struct Ladder {
    rungs: std::vec::IntoIter<Rung>,
    /// `None`: it is never judged.
    patience: Option<Duration>,
    /// When it made headway last, or was allowed something.
    since: Duration,
    iteration: u32,
    /// Most that was seen to be left of the round that runs.
    volume: u64,
    /// Least that a round had to copy.
    best: u64,
}

impl Ladder {
    /// The ladder of an order; without `patience` nothing is ever allowed or given up.
    #[must_use]
    pub fn new(pauses: &[Duration], post_copy: bool, patience: Option<Duration>) -> Self {
        let last = if post_copy {
            Rung::PostCopy
        } else {
            Rung::GiveUp
        };
        let mut rungs: Vec<Rung> = pauses.iter().copied().map(Rung::Pause).collect();
        rungs.push(last);
        Self {
            rungs: rungs.into_iter(),
            patience,
            since: Duration::ZERO,
            iteration: 0,
            volume: 0,
            best: u64::MAX,
        }
    }

    /// Takes a look at the copy; answers with what it is to be allowed now.
    pub fn look(&mut self, round: &Round) -> Option<Rung> {
        let patience = self.patience?;
        if round.iteration <= 1 {
            self.since = round.elapsed;
            return None;
        }
        if round.iteration == self.iteration {
            self.volume = self.volume.max(round.remaining_bytes);
            return None;
        }
        // The round before is over: what it had to copy is known.
        if self.iteration > 1 && self.is_headway(self.volume) {
            self.best = self.volume;
            self.since = round.elapsed;
        }
        self.iteration = round.iteration;
        self.volume = round.remaining_bytes;
        if round.elapsed.saturating_sub(self.since) < patience {
            return None;
        }
        self.since = round.elapsed;
        self.rungs.next()
    }

    fn is_headway(&self, volume: u64) -> bool {
        volume < self.best - self.best / 100 * HEADWAY_PERCENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Looks twice a second at a copy whose rounds after the first take `round_ms` each and have to copy what
    /// `volume` says; returns what it was allowed, and when.
    fn climb(ladder: &mut Ladder, round_ms: u64, volume: impl Fn(u32) -> u64) -> Vec<(u64, Rung)> {
        const FIRST_MS: u64 = 100_000;
        let looks = (0..800).map(|n| n * 500);
        let round = |at: u64| {
            let (iteration, done) = if at < FIRST_MS {
                (1, at * 1000 / FIRST_MS)
            } else {
                let after = at - FIRST_MS;
                let n = u32::try_from(after / round_ms).unwrap() + 2;
                (n, after % round_ms * 1000 / round_ms)
            };
            Round {
                elapsed: ms(at),
                iteration,
                remaining_bytes: volume(iteration) / 1000 * (1000 - done),
            }
        };
        looks
            .filter_map(|at| Some((at / 1000, ladder.look(&round(at))?)))
            .collect()
    }

    fn ladder(post_copy: bool) -> Ladder {
        Ladder::new(&[ms(600), ms(1200)], post_copy, Some(ms(30_000)))
    }

    #[test]
    fn a_copy_without_headway_is_allowed_more_and_more_and_then_given_up() {
        let climbed = climb(&mut ladder(false), 4_000, |_| 400 * MIB);
        let expected = [Rung::Pause(ms(600)), Rung::Pause(ms(1200)), Rung::GiveUp];
        assert_eq!(climbed.iter().map(|c| c.1).collect::<Vec<_>>(), expected);
        let times: Vec<u64> = climbed.iter().map(|c| c.0).collect();
        assert!((130..145).contains(&times[0]), "{times:?}");
        assert!(
            times.windows(2).all(|t| (30..40).contains(&(t[1] - t[0]))),
            "{times:?}"
        );
        let climbed = climb(&mut ladder(true), 4_000, |_| 400 * MIB);
        assert_eq!(climbed.last().unwrap().1, Rung::PostCopy);
    }

    #[test]
    fn a_copy_that_shrinks_is_left_alone_however_long_it_takes() {
        let shrinking = |n: u32| (0..n.min(9)).fold(4_000 * MIB, |volume, _| volume / 100 * 85);
        let climbed = climb(&mut ladder(false), 25_000, shrinking);
        // It has shrunk for eight rounds, 200 s, and not since.
        assert!(climbed.iter().all(|c| c.0 > 300), "{climbed:?}");
    }

    #[test]
    fn rounds_that_last_longer_than_the_patience_are_judged_when_they_are_over() {
        let climbed = climb(&mut ladder(false), 85_000, |_| 40 * MIB);
        assert_eq!(climbed[0], (270, Rung::Pause(ms(600))));
    }

    #[test]
    fn rounds_shorter_than_a_look_end_as_well() {
        let climbed = climb(&mut ladder(false), 130, |_| 40 * MIB);
        assert_eq!(climbed.last().unwrap().1, Rung::GiveUp, "{climbed:?}");
    }

    #[test]
    fn the_first_round_and_an_order_without_patience_are_not_judged() {
        let mut old = Ladder::new(&[ms(600)], false, None);
        assert_eq!(climb(&mut old, 4_000, |_| 400 * MIB), []);
        let mut fresh = ladder(false);
        let first = |at| Round {
            elapsed: ms(at),
            iteration: 1,
            remaining_bytes: MIB,
        };
        assert!((0..1000).all(|n| fresh.look(&first(n * 1000)).is_none()));
    }
}
