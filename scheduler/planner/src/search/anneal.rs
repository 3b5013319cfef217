//! Annealing: from a local optimum to a better one, through placements that are worse on the way.
//!
//! Moves and exchanges that each pay end where no single one does. Here such changes may also lose a little, less
//! and less as the search goes on (Kirkpatrick, Gelatt, Vecchi: Optimization by Simulated Annealing, Science 220,
//! 1983; a loss is accepted when it is below a draw from the exponential distribution, which is the same as
//! accepting it with probability exp(−loss/heat)). The best placement on the way is what counts.
//!
//! A large fleet is dealt into groups of hosts that are worked on apart. **Invariant:** what happens in one group
//! does not depend on the others, so that any number of threads gives the same placement
//! (`tests/threads.rs`).

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use super::State;
use super::improve::{exchange_cost, exchange_rate, try_swap};
use crate::num::{from_count, order_key};
use crate::plan::StepReason;

/// Hosts in a group at most. Too few: guests that fit each other do not meet; too many: tries are spread thin.
const GROUP: usize = 24;
/// What a change may lose on average when a round begins, as a share of what a migration must bring at least: in the
/// last round, and towards which earlier ones rise. Too low: nothing is ever undone; too high: what is good is lost.
const HEAT: (f64, f64) = (0.2, 10.0);
/// Stands for the price of a migration where the policy sets next to none. Guest-seconds.
const LEAST_PRICE: f64 = 10.0;
/// Changes per unit and round: in each round the hosts are dealt anew.
const PER_ROUND: u64 = 150;
/// Rounds at most.
const MOST_ROUNDS: u64 = 16;
/// Of sixteen tries, so many amend moves that were made. The rest relocates a unit or exchanges two.
const AMENDMENTS: usize = 15;
/// Of four hosts, so many are not chosen by their slopes.
const ANYWHERE: usize = 2;

/// What counts as better, guest-seconds; less is rounding.
const LEAST_GAIN: f64 = 1e-6;

/// How long to anneal, from which seed, with how many threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Annealing {
    pub(crate) seed: u64,
    /// Changes to try at most; the search's budget limits them too.
    pub(crate) most: u64,
    pub(crate) threads: usize,
}

/// A group's part of a round.
#[derive(Debug)]
struct Task {
    hosts: Vec<usize>,
    seed: u64,
    tries: u64,
    /// Whether the group is the whole fleet: only then rules that look at several hosts can be judged.
    alone: bool,
}

/// Betters a placement as far as the budget goes.
pub(super) fn run(state: &mut State<'_, '_>, annealing: Annealing) {
    // A tenth is left for what annealing leaves to do.
    let budget = state.budget_left();
    let tries = annealing.most.min(budget - budget / 10);
    let units = count(state.units.len()).max(1);
    let rounds = (tries / units / PER_ROUND).clamp(1, MOST_ROUNDS);
    let price = state.model.policy.price.migration_guest_seconds;
    let unit = state.model.payback.factor * price.max(LEAST_PRICE);
    for round in 0..rounds {
        let seed = annealing.seed.wrapping_mul(MOST_ROUNDS).wrapping_add(round);
        let tasks = deal(state, seed, tries / rounds);
        let (last, first) = HEAT;
        let heat = unit * (last + (first - last) * part(rounds - 1 - round, MOST_ROUNDS));
        work(state, &tasks, heat, annealing.threads);
    }
    state.look_again();
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// A part of a whole as a fraction.
fn part(part: u64, whole: u64) -> f64 {
    let float = |n: u64| from_count(usize::try_from(n).unwrap_or(usize::MAX));
    float(part) / float(whole.max(1))
}

/// Deals the present hosts into groups, each with some of the hot and some of the idle ones.
fn deal(state: &State<'_, '_>, seed: u64, tries: u64) -> Vec<Task> {
    let mut hosts: Vec<usize> = (0..state.model.hosts.len())
        .filter(|&h| state.model.hosts[h].shape.present)
        .collect();
    hosts.sort_by_key(|&h| (u64::MAX - order_key(state.slopes[h]), h));
    let groups = hosts.len().div_ceil(GROUP).max(1);
    let mut dealt = vec![Vec::new(); groups];
    let mut rng = Chance::new(seed);
    for row in hosts.chunks(groups) {
        let turn = rng.below(groups);
        for (at, &host) in row.iter().enumerate() {
            dealt[(at + turn) % groups].push(host);
        }
    }
    let units = count(state.units.len()).max(1);
    let task = |(number, hosts): (usize, Vec<usize>)| {
        let here: usize = hosts.iter().map(|&h| state.members[h].len()).sum();
        let odd = 0x9e37_79b9_7f4a_7c15_u64;
        Task {
            seed: seed.wrapping_mul(odd).wrapping_add(count(number)),
            tries: count(here) * tries / units,
            alone: groups == 1,
            hosts,
        }
    };
    dealt.into_iter().enumerate().map(task).collect()
}

/// Works on all groups: here, or each thread on its share of them in a copy of the state.
fn work(state: &mut State<'_, '_>, tasks: &[Task], heat: f64, threads: usize) {
    let shares = threads.clamp(1, tasks.len().max(1));
    if shares == 1 {
        for task in tasks {
            Group::new(state, task).anneal(heat);
        }
        return;
    }
    let (at, before) = (state.at.clone(), state.evaluations);
    let copies: Vec<State<'_, '_>> = std::thread::scope(|scope| {
        let start = |tasks| {
            let mut copy = state.clone();
            scope.spawn(move || {
                work(&mut copy, tasks, heat, 1);
                copy
            })
        };
        let running: Vec<_> = tasks
            .chunks(tasks.len().div_ceil(shares))
            .map(start)
            .collect();
        let done = running.into_iter().map(|thread| thread.join());
        done.map(|copy| copy.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    for copy in &copies {
        state.evaluations += copy.evaluations - before;
        let moved = |unit: &usize| copy.at[*unit] != at[*unit];
        for unit in (0..at.len()).filter(moved) {
            state.apply(unit, copy.at[unit]);
        }
    }
}

/// A stream of chance that follows from its seed alone, on every machine; no entropy comes in.
struct Chance(Xoshiro256PlusPlus);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `n`, all (but for one part in 2⁶⁴) alike likely; 0 when `n` is 0. Source: Lemire, Fast Random
    /// Integer Generation in an Interval, ACM TOMACS 29, 2019, without its last correction.
    fn below(&mut self, n: usize) -> usize {
        let scaled = u128::from(self.bits()) * u128::try_from(n).unwrap_or(0);
        usize::try_from(scaled >> 64).unwrap_or(0)
    }

    /// One of several, which must not be none.
    fn one_of(&mut self, several: &[usize]) -> usize {
        several[self.below(several.len())]
    }
}

/// A draw from the exponential distribution of mean 1 (about: the logarithm is taken to be straight between powers
/// of two, so that no platform's `ln` decides).
fn exponential(bits: u64) -> f64 {
    let halvings = f64::from(bits.leading_zeros());
    let rest = bits.checked_shl(bits.leading_zeros() + 1).unwrap_or(0);
    let fraction = f64::from(u32::try_from(rest >> 32).unwrap_or(0)) / f64::from(u32::MAX);
    std::f64::consts::LN_2 * (halvings + 1.0 - fraction)
}

/// A group of hosts while it is worked on.
struct Group<'g, 's, 'm, 'a> {
    state: &'s mut State<'m, 'a>,
    task: &'g Task,
    /// Those of its hosts that take guests.
    open: Vec<usize>,
    rng: Chance,
    /// What a change may lose now, guest-seconds.
    threshold: f64,
    /// Units that are not at home, perhaps some that are.
    moved: Vec<usize>,
    /// What was changed since the best placement: unit and where it was.
    log: Vec<(usize, usize)>,
    /// By how much the objective is above the best one, guest-seconds.
    above_best: f64,
}

impl<'g, 's, 'm, 'a> Group<'g, 's, 'm, 'a> {
    fn new(state: &'s mut State<'m, 'a>, task: &'g Task) -> Self {
        let takes = |&h: &usize| state.model.hosts[h].takes;
        let open = task.hosts.iter().copied().filter(takes).collect();
        Self {
            state,
            task,
            open,
            rng: Chance::new(task.seed),
            threshold: 0.0,
            moved: Vec::new(),
            log: Vec::new(),
            above_best: 0.0,
        }
    }

    /// Leaves the best placement that was met.
    fn anneal(&mut self, heat: f64) {
        if self.open.is_empty() || self.task.hosts.len() < 2 {
            return;
        }
        let tries = self.task.tries;
        let here = self.task.hosts.iter().flat_map(|&h| &self.state.members[h]);
        let away = |u: &usize| self.state.at[*u] != self.state.units[*u].home;
        self.moved = here
            .copied()
            .filter(away)
            .filter(|&u| self.may_move(u))
            .collect();
        for done in 0..tries {
            let left = 1.0 - part(done, tries);
            self.threshold = heat * left * left * exponential(self.rng.bits());
            self.state.count();
            self.try_once();
        }
        for (unit, back) in std::mem::take(&mut self.log).into_iter().rev() {
            self.state.apply(unit, back);
        }
    }

    fn try_once(&mut self) {
        if self.rng.below(16) < AMENDMENTS {
            return self.amend();
        }
        let (from, to) = (self.source(), self.target());
        if from == to {
            return;
        }
        let Some(unit) = self.member(from) else {
            return;
        };
        if self.rng.below(2) == 0 {
            self.relocate(unit, to);
        } else if let Some(other) = self.member(to) {
            self.exchange(unit, other);
        }
    }

    /// Takes back one of the moves that were made, sends its unit elsewhere, or has another unit make it: as many
    /// migrations as before or one less.
    fn amend(&mut self) {
        if self.moved.is_empty() {
            return;
        }
        let place = self.rng.below(self.moved.len());
        let unit = self.moved[place];
        let (home, at) = (self.state.units[unit].home, self.state.at[unit]);
        if at == home {
            self.moved.swap_remove(place);
            return;
        }
        let local = self.task.hosts.contains(&home);
        match self.rng.below(4) {
            0 if local => self.relocate(unit, home),
            1 | 2 if local => {
                if let Some(other) = self.member(home) {
                    self.exchange(other, unit);
                }
            }
            _ => {
                let to = self.target();
                if to != at {
                    self.relocate(unit, to);
                }
            }
        }
    }

    /// Any host, or of two the one where one more core costs more.
    fn source(&mut self) -> usize {
        let (a, b) = (
            self.rng.one_of(&self.task.hosts),
            self.rng.one_of(&self.task.hosts),
        );
        self.first_if(self.state.slopes[a] >= self.state.slopes[b], a, b)
    }

    /// Any open host, or of two the one where one more core costs less.
    fn target(&mut self) -> usize {
        let (a, b) = (self.rng.one_of(&self.open), self.rng.one_of(&self.open));
        self.first_if(self.state.slopes[a] <= self.state.slopes[b], a, b)
    }

    /// The first of two hosts if it is the better one, and sometimes although it is not.
    fn first_if(&mut self, better: bool, a: usize, b: usize) -> usize {
        if better || self.rng.below(4) < ANYWHERE {
            a
        } else {
            b
        }
    }

    /// A unit of a host, if it may be moved and judged here. What has to leave a draining host may go anywhere.
    fn member(&mut self, host: usize) -> Option<usize> {
        let members = &self.state.members[host];
        if members.is_empty() {
            return None;
        }
        let unit = self.rng.one_of(members);
        self.may_move(unit).then_some(unit)
    }

    fn may_move(&self, unit: usize) -> bool {
        let u = &self.state.units[unit];
        let may_move = match u.forced {
            None => u.is_free(),
            Some(reason) => reason == StepReason::Drain,
        };
        may_move && (self.task.alone || !u.reaches_far)
    }

    fn relocate(&mut self, unit: usize, to: usize) {
        let (state, from) = (&*self.state, self.state.at[unit]);
        let u = &state.units[unit];
        let allowed = if to == u.home {
            u.forced.is_none() && state.could_stay_at(unit, to)
        } else {
            state.block_for_gain(unit, to).is_none()
        };
        let (true, Some(there), Some(here)) =
            (allowed, state.cost(unit, to), state.cost(unit, from))
        else {
            return;
        };
        let payback = state.model.payback;
        let cost = payback.factor * (there - here);
        let saved_at_most = || payback.horizon_seconds * state.most_saved(&u.load, from, to);
        if !u.has_soft && cost - saved_at_most() >= self.threshold {
            return;
        }
        let worse = cost - payback.horizon_seconds * state.gain_rate(unit, to);
        if worse < self.threshold {
            self.state.apply(unit, to);
            self.log.push((unit, from));
            self.moved.push(unit);
            self.note(worse);
        }
    }

    fn exchange(&mut self, a: usize, b: usize) {
        let state = &*self.state;
        let (s, t) = (state.at[a], state.at[b]);
        let (ua, ub) = (&state.units[a], &state.units[b]);
        let Some(cost) = exchange_cost(state, a, b) else {
            return;
        };
        let payback = state.model.payback;
        let cost = payback.factor * cost;
        let more = ua.load.less(&ub.load);
        let saved_at_most = || payback.horizon_seconds * state.most_saved(&more, s, t);
        let soft = ua.has_soft || ub.has_soft;
        if !soft && cost - saved_at_most() >= self.threshold {
            return;
        }
        let Some(rate) = exchange_rate(state, a, b) else {
            return;
        };
        let worse = cost - payback.horizon_seconds * rate;
        if worse < self.threshold && try_swap(self.state, a, b) {
            self.log.push((a, s));
            self.log.push((b, t));
            self.moved.extend([a, b]);
            self.note(worse);
        }
    }

    /// A change was made: remembers the best placement by forgetting how it was reached.
    fn note(&mut self, worse: f64) {
        self.above_best += worse;
        if self.above_best < -LEAST_GAIN {
            self.above_best = 0.0;
            self.log.clear();
        }
    }
}
