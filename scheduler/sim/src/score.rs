//! What came of a run: guest-seconds lost, moves, guests that went back and forth, and whether promises were kept.

use std::collections::BTreeMap;

use evenkeel_planner::Step;

use crate::migration::{Fault, Taken};
use crate::num::{count, index, ratio, seconds};
use crate::world::{Ended, Toll, World};

/// A guest that is back where it was within this time has gone back and forth …
pub const PING_PONG_SECONDS: f64 = 6.0 * 3600.0;
/// … unless its load has changed: its means over so long before it left and before it came back …
pub const LOAD_SECONDS: f64 = 1800.0;
/// … differ by more than this share of the larger one …
pub const LOAD_CHANGE: f64 = 0.25;
/// … and by more than this many cores.
pub const LOAD_CHANGE_CORES: f64 = 0.1;
/// A move's saving is followed for so long: the default horizon of plans.
const FOLLOWED_MS: i64 = 1_800_000;
/// Time between points of a history.
pub const BIN_SECONDS: f64 = 300.0;

/// What a step promised when it was ordered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Promise {
    /// When, s.
    pub ordered_seconds: f64,
    /// Time to switch-over, s.
    pub copy_seconds: f64,
    /// Pause, s.
    pub downtime_seconds: f64,
    /// Saved from then on, guest-seconds per hour.
    pub saves_per_hour: f64,
    /// Cost without the fixed price, guest-seconds.
    pub costs: f64,
}

impl Promise {
    pub(crate) fn of(step: &Step, now_ms: i64) -> Self {
        Self {
            ordered_seconds: seconds(now_ms),
            copy_seconds: step.copy_seconds,
            downtime_seconds: step.downtime_seconds,
            saves_per_hour: step.saves_guest_seconds_per_hour,
            costs: step.costs_guest_seconds,
        }
    }
}

/// A move that was carried out.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    /// When it ended, seconds of virtual time.
    pub ended_seconds: f64,
    /// The guest.
    pub guest: String,
    /// Where it was.
    pub source: String,
    /// Where it went.
    pub target: String,
    /// What was promised.
    pub promise: Promise,
    /// What it took.
    pub taken: Taken,
    /// What it really saved within the horizon, against the guest being where it was and everything else the same,
    /// guest-seconds per hour.
    pub saved_per_hour: f64,
    /// Mean of what the guest wanted before it was ordered, cores.
    pub load_cores: f64,
}

/// A guest that came back within [`PING_PONG_SECONDS`].
#[derive(Debug, Clone, PartialEq)]
pub struct Return {
    /// The guest.
    pub guest: String,
    /// Where it was and is again.
    pub host: String,
    /// How long it was away, s.
    pub away_seconds: f64,
    /// Whether its load had changed, so that it is no ping-pong.
    pub load_changed: bool,
}

/// One point of a run's history.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bin {
    /// Lost in it, guest-seconds.
    pub toll: Toll,
    /// Wanted by guests in it, core-seconds.
    pub wanted: f64,
    /// Moves that ended in it.
    pub moves: u32,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    /// Virtual time, s.
    pub seconds: f64,
    /// Guests.
    pub guests: usize,
    /// What was lost, guest-seconds.
    pub toll: Toll,
    /// What guests wanted, core-seconds.
    pub wanted: f64,
    /// The same in pieces of [`BIN_SECONDS`].
    pub history: Vec<Bin>,
    /// Moves in the order of their ends.
    pub moves: Vec<Move>,
    /// Migrations that failed, by cause.
    pub failed: BTreeMap<Fault, usize>,
    /// Guests that came back soon.
    pub returns: Vec<Return>,
    /// Plans made, and plans that the referee objected to.
    pub plans: usize,
    /// See `plans`.
    pub faulty_plans: usize,
    /// Orders that no agent took up.
    pub refusals: usize,
}

impl Outcome {
    /// Guest-seconds lost, migrations' own cost included.
    #[must_use]
    pub fn lost(&self) -> f64 {
        self.toll.lost()
    }

    /// Guests that were back within six hours although their load was the same.
    #[must_use]
    pub fn ping_pongs(&self) -> usize {
        self.returns.iter().filter(|r| !r.load_changed).count()
    }

    /// Migrations per guest and day between two moments, s.
    #[must_use]
    pub fn moves_per_guest_day(&self, from: f64, until: f64) -> f64 {
        let until = until.min(self.seconds);
        let within = |m: &&Move| m.ended_seconds > from && m.ended_seconds <= until;
        let days = count(self.guests) * (until - from) / 86_400.0;
        ratio(count(self.moves.iter().filter(within).count()), days)
    }
}

/// Follows a run.
#[derive(Debug)]
pub(crate) struct Scorer {
    outcome: Outcome,
    /// Of each guest: what it wanted, core-seconds per bin.
    loads: Vec<Vec<f64>>,
    followed: Vec<Followed>,
}

/// A move whose saving is being measured.
#[derive(Debug)]
struct Followed {
    number: usize,
    guest: usize,
    source: usize,
    target: usize,
    until_ms: i64,
    saved: f64,
    seconds: f64,
}

impl Scorer {
    pub(crate) fn new(world: &World) -> Self {
        let guests = world.guests().len();
        Self {
            outcome: Outcome {
                guests,
                ..Outcome::default()
            },
            loads: vec![vec![]; guests],
            followed: vec![],
        }
    }

    pub(crate) fn note_plan(&mut self, faulty: bool) {
        self.outcome.plans += 1;
        self.outcome.faulty_plans += usize::from(faulty);
    }

    pub(crate) fn note_refusal(&mut self) {
        self.outcome.refusals += 1;
    }

    /// A tick has passed.
    pub(crate) fn tick(&mut self, world: &World, toll: &Toll) {
        let tick = seconds(world.tick_ms());
        // A tick belongs to the bin it began in.
        let at = index((seconds(world.now_ms()) - tick) / BIN_SECONDS);
        let history = &mut self.outcome.history;
        history.resize(history.len().max(at + 1), Bin::default());
        history[at].toll.add(toll);
        self.outcome.toll.add(toll);
        self.outcome.seconds = seconds(world.now_ms());
        for (load, wanted) in self.loads.iter_mut().zip(world.wanted()) {
            load.resize(load.len().max(at + 1), 0.0);
            load[at] += wanted * tick;
            history[at].wanted += wanted * tick;
            self.outcome.wanted += wanted * tick;
        }
        let now_ms = world.now_ms();
        for move_ in &mut self.followed {
            move_.saved += tick * world.saves_now(move_.guest, move_.source);
            move_.seconds += tick;
        }
        let over = |f: &Followed| now_ms >= f.until_ms || world.placement()[f.guest] != f.target;
        let (over, going): (Vec<_>, Vec<_>) = std::mem::take(&mut self.followed)
            .into_iter()
            .partition(over);
        self.followed = going;
        over.iter().for_each(|followed| self.close(followed));
    }

    fn close(&mut self, followed: &Followed) {
        if let Some(move_) = self.outcome.moves.get_mut(followed.number) {
            move_.saved_per_hour = ratio(followed.saved * 3600.0, followed.seconds);
        }
    }

    /// A migration that was promised something is over.
    pub(crate) fn note_end(&mut self, world: &World, ended: &Ended, promise: Promise) {
        if let Some(fault) = ended.fault {
            *self.outcome.failed.entry(fault).or_default() += 1;
            return;
        }
        let name = |host: usize| world.hosts()[host].facts.name.to_string();
        let now_ms = world.now_ms();
        let at = index((seconds(now_ms) - 1.0).max(0.0) / BIN_SECONDS);
        let history = &mut self.outcome.history;
        history.resize(history.len().max(at + 1), Bin::default());
        history[at].moves += 1;
        let move_ = Move {
            ended_seconds: seconds(now_ms),
            guest: world.guests()[ended.guest].reading.name.clone(),
            source: name(ended.source),
            target: name(ended.target),
            promise,
            taken: ended.taken,
            saved_per_hour: 0.0,
            load_cores: self.load_before(ended.guest, promise.ordered_seconds),
        };
        self.note_return(&move_);
        self.followed.push(Followed {
            number: self.outcome.moves.len(),
            guest: ended.guest,
            source: ended.source,
            target: ended.target,
            until_ms: now_ms + FOLLOWED_MS,
            saved: 0.0,
            seconds: 0.0,
        });
        self.outcome.moves.push(move_);
    }

    fn note_return(&mut self, back: &Move) {
        let earliest = back.ended_seconds - PING_PONG_SECONDS;
        let left = self.outcome.moves.iter().rev().find(|m| {
            m.guest == back.guest && m.source == back.target && m.ended_seconds >= earliest
        });
        if let Some(left) = left {
            self.outcome.returns.push(Return {
                guest: back.guest.clone(),
                host: back.target.clone(),
                away_seconds: back.ended_seconds - left.ended_seconds,
                load_changed: differs(left.load_cores, back.load_cores),
            });
        }
    }

    /// Mean of what a guest wanted in the [`LOAD_SECONDS`] before a moment, cores.
    fn load_before(&self, guest: usize, moment: f64) -> f64 {
        let load = self.loads.get(guest).map_or(&[][..], Vec::as_slice);
        let end = (index(moment / BIN_SECONDS) + 1).min(load.len());
        let start = end.saturating_sub(index(LOAD_SECONDS / BIN_SECONDS));
        // The last bin may be filled in part only: what is in it counts by the time it covers.
        let covered = (moment - count(start) * BIN_SECONDS).max(1.0);
        load[start..end].iter().sum::<f64>() / covered
    }

    /// What has come of it so far.
    pub(crate) fn outcome(&self, world: &World) -> Outcome {
        let mut outcome = self.outcome.clone();
        outcome.seconds = seconds(world.now_ms());
        for followed in &self.followed {
            if let Some(move_) = outcome.moves.get_mut(followed.number) {
                move_.saved_per_hour = ratio(followed.saved * 3600.0, followed.seconds);
            }
        }
        outcome
    }
}

/// Whether a load is another one than before.
fn differs(before: f64, now: f64) -> bool {
    let change = (before - now).abs();
    change > LOAD_CHANGE * before.max(now) && change > LOAD_CHANGE_CORES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_has_changed_when_it_did_so_both_in_cores_and_in_proportion() {
        assert!(differs(1.0, 0.5));
        assert!(differs(0.5, 1.0));
        assert!(!differs(1.0, 0.8), "a fifth");
        assert!(!differs(0.05, 0.1), "a twentieth of a core");
    }

    fn move_at(ended_seconds: f64) -> Move {
        Move {
            ended_seconds,
            guest: "g".into(),
            source: "a".into(),
            target: "b".into(),
            promise: Promise {
                ordered_seconds: 0.0,
                copy_seconds: 0.0,
                downtime_seconds: 0.0,
                saves_per_hour: 0.0,
                costs: 0.0,
            },
            taken: Taken::default(),
            saved_per_hour: 0.0,
            load_cores: 1.0,
        }
    }

    #[test]
    fn moves_are_counted_per_guest_and_day() {
        let outcome = Outcome {
            seconds: 2.0 * 86_400.0,
            guests: 10,
            moves: [10.0, 20.0, 90_000.0].map(move_at).to_vec(),
            ..Outcome::default()
        };
        assert!((outcome.moves_per_guest_day(0.0, 86_400.0) - 0.2).abs() < 1e-12);
        assert!((outcome.moves_per_guest_day(86_400.0, 9e9) - 0.1).abs() < 1e-12);
        assert_eq!(Outcome::default().moves_per_guest_day(0.0, 1.0), 0.0);
    }
}
