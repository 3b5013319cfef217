//! Moves and swaps that pay, the hottest hosts first.
//!
//! A unit is tried on a bounded number of hosts, those first where one more core of demand costs least:
//! the loss is convex, so the gain of a small move is the difference of the two hosts' slopes.

use std::collections::BTreeMap;

use super::{Block, Candidate, State, chain};
use crate::constants::STANDARD_ERRORS;
use crate::num::{from_count, order_key};
use crate::policy::Strategy;

/// Hosts that a unit is tried on, and as many more that its demand would overload.
const TARGETS: u64 = 24;
/// Hosts without room for a unit that are passed by before it is given up: exchanges are for those.
const FULL_TARGETS: u64 = 64;
/// Hosts that a unit is tried on in exchanges.
const SWAP_TARGETS: usize = 6;

/// Exchanges made from one host before the next is looked at.
const EXCHANGES: usize = 32;

/// Improves until nothing more pays or the budget is used up.
pub(super) fn run(state: &mut State<'_, '_>) {
    loop {
        moves(state);
        if state.exhausted() || !exchanges(state) {
            return;
        }
    }
}

/// Swaps and chains from every host that is worth it; says whether any was made.
fn exchanges(state: &mut State<'_, '_>) -> bool {
    let mut any = false;
    for host in sources(state) {
        for _ in 0..EXCHANGES {
            if state.exhausted()
                || !state.is_worth_a_look(host)
                || !worth_two_migrations(state, host)
            {
                break;
            }
            if !exchange(state, host) {
                state.looked_at(host);
                break;
            }
            any = true;
        }
    }
    any
}

fn exchange(state: &mut State<'_, '_>, host: usize) -> bool {
    if let Some((_, unit, to)) = best_move(state, host) {
        state.apply(unit, to);
        return true;
    }
    (state.model.hosts[host].takes && best_swap(state, host)) || chain::relieve(state, host)
}

/// Whether a host's whole share of the objective would pay for an exchange.
fn worth_two_migrations(state: &State<'_, '_>, host: usize) -> bool {
    let price = 2.0 * state.model.policy.price.migration_guest_seconds;
    state.values[host] * state.model.payback.horizon_seconds > state.model.payback.factor * price
}

/// Hosts whose guests lose something, the steepest first.
pub(super) fn sources(state: &State<'_, '_>) -> Vec<usize> {
    let mut hosts: Vec<usize> = (0..state.model.hosts.len())
        .filter(|&h| state.model.hosts[h].shape.present && !state.members[h].is_empty())
        .collect();
    hosts.sort_by_key(|&h| (u64::MAX - order_key(state.slopes[h]), h));
    hosts
}

/// A move that pays, as it was when `moves` moves had been made.
#[derive(Debug, Clone, Copy)]
struct Offer {
    score: f64,
    host: usize,
    unit: usize,
    to: usize,
    moves: u64,
}

impl Offer {
    fn key(&self) -> (u64, usize) {
        (u64::MAX - order_key(self.score), self.host)
    }

    /// Whether nothing has happened since that it depends on: at its own two hosts, or anywhere if a rule about its unit
    /// looks at several hosts at once.
    fn is_fresh(&self, state: &State<'_, '_>) -> bool {
        let same = |host: usize| state.changed[host] <= self.moves;
        if state.units[self.unit].reaches_far {
            self.moves == state.moves
        } else {
            same(self.host) && same(self.to)
        }
    }
}

/// Moves that pay, of the whole fleet's the best one first: it may spare those that bring less. Each host offers
/// its best; an offer that has become old is made anew before it is taken.
fn moves(state: &mut State<'_, '_>) {
    loop {
        let mut offers = BTreeMap::new();
        for host in sources(state) {
            renew(state, host, &mut offers);
        }
        if offers.is_empty() {
            return;
        }
        while let Some((_, offer)) = offers.pop_first() {
            if state.exhausted() {
                return;
            }
            if offer.is_fresh(state) {
                state.apply(offer.unit, offer.to);
            }
            renew(state, offer.host, &mut offers);
        }
    }
}

fn renew(state: &mut State<'_, '_>, host: usize, offers: &mut BTreeMap<(u64, usize), Offer>) {
    if let Some((candidate, unit, to)) = best_move(state, host) {
        let (score, moves) = (candidate.score, state.moves);
        let offer = Offer {
            score,
            host,
            unit,
            to,
            moves,
        };
        offers.insert(offer.key(), offer);
    }
}

/// What at least must be gained by moving a unit, guest-seconds: its price times the payback factor,
/// less what its present place has cost already.
pub(super) fn least_gain(state: &State<'_, '_>, unit: usize) -> f64 {
    let u = &state.units[unit];
    let price = from_count(u.guests.len()) * state.model.policy.price.migration_guest_seconds;
    let spent = if state.at[unit] == u.home {
        0.0
    } else {
        state.cost(unit, state.at[unit]).unwrap_or(0.0)
    };
    state.model.payback.factor * (price - spent)
}

/// Upper bound of what leaving its host can bring, guest-seconds. Exact for contention: a target only
/// loses by an arrival. Under `spread` a target below the mean gains, which the bound adds.
pub(super) fn most_gain(state: &State<'_, '_>, unit: usize) -> f64 {
    let from = state.at[unit];
    let u = &state.units[unit];
    let model = state.model;
    let left = model.value(from, &state.loads[from].minus(&u.load));
    let rate = state.values[from] - left + state.soft(unit, from) + arrival_bonus(state, unit);
    model.payback.horizon_seconds * rate
}

/// What a unit's arrival can save at a target at most, guest-seconds per second: under `spread` only,
/// where c·(u − ū)² falls by at most 2·d·ū, and likewise for memory, which is weighed by the cores per MiB
/// of the hosts: twice the source's are allowed for.
pub(super) fn arrival_bonus(state: &State<'_, '_>, unit: usize) -> f64 {
    let (model, load) = (state.model, &state.units[unit].load);
    if model.policy.strategy != Strategy::Spread {
        return 0.0;
    }
    let shape = &model.hosts[state.at[unit]].shape;
    let cores_per_mib = shape.cores / shape.memory.max(1.0);
    let memory = 2.0 * cores_per_mib * crate::num::from_mib(load.memory);
    let most = load.demand * model.mean.0 + memory * model.mean.1;
    2.0 * model.policy.price.balance * most
}

/// The best paying move from a host.
fn best_move(state: &mut State<'_, '_>, host: usize) -> Option<(Candidate, usize, usize)> {
    let mut best: Option<(Candidate, usize, usize)> = None;
    for at in 0..state.members[host].len() {
        let unit = state.members[host][at];
        if !state.units[unit].is_free() || state.units[unit].forced.is_some() {
            continue;
        }
        let floor = best.map_or(0.0, |(c, _, _)| c.score);
        if most_gain(state, unit) - least_gain(state, unit) <= floor {
            continue;
        }
        if let Some((candidate, to)) = best_target(state, unit, floor)
            && candidate.score > floor
        {
            best = Some((candidate, unit, to));
        }
    }
    best
}

/// The best paying target of a unit with a score above `floor`.
pub(super) fn best_target(
    state: &mut State<'_, '_>,
    unit: usize,
    floor: f64,
) -> Option<(Candidate, usize)> {
    let least = least_gain(state, unit);
    let (horizon, from) = (state.model.payback.horizon_seconds, state.at[unit]);
    let u = &state.units[unit];
    let even = state.model.policy.strategy == Strategy::Spread;
    let leaving = if u.has_soft {
        f64::INFINITY
    } else {
        state.most_saved_by_leaving(&u.load, from)
    };
    let mut best: Option<(Candidate, usize)> = None;
    let (mut tried, mut overloaded, mut full) = (0, 0, 0);
    for &(_, to) in &state.targets {
        let bar = best.map_or(floor, |(c, _)| c.score);
        // Cheapest first: what one more core costs here at least ends it, where demand is all that counts.
        let dear = horizon * (leaving - u.load.demand * state.slopes[to]) - least <= bar;
        // The loss is convex: nothing is gained where one more core costs more than here.
        let dearer = state.slopes[to] >= state.slopes[from];
        if tried >= TARGETS || full >= FULL_TARGETS || (!even && !u.has_soft && (dear || dearer)) {
            break;
        }
        // However idle, a host that is too small must not stand in for one that helps.
        let holds = state.has_cores_for(unit, to);
        if !holds && overloaded >= TARGETS {
            continue;
        }
        match state.block_for_gain(unit, to) {
            None => {}
            Some(Block::Memory | Block::Guests) => {
                full += 1;
                continue;
            }
            Some(_) => continue,
        }
        if holds {
            tried += 1;
        } else {
            overloaded += 1;
        }
        if !u.has_soft && horizon * state.most_saved(&u.load, from, to) - least <= bar {
            continue;
        }
        let gain = horizon * state.gain_rate(unit, to);
        if gain - least <= bar {
            continue;
        }
        if let Some(candidate) = state.judge_gain(unit, to, gain)
            && candidate.pays()
            && candidate.score > bar
        {
            best = Some((candidate, to));
        }
    }
    state.evaluations += tried + overloaded;
    best
}

/// Makes the best paying exchange of a host's unit with another host's; says whether there was one.
fn best_swap(state: &mut State<'_, '_>, host: usize) -> bool {
    let targets: Vec<usize> = state
        .targets
        .iter()
        .map(|&(_, t)| t)
        .filter(|&t| t != host)
        .take(SWAP_TARGETS)
        .collect();
    let mut ranked: Vec<(f64, usize, usize)> = Vec::new();
    for a in movable(state, host) {
        if most_gain(state, a) <= least_gain(state, a) {
            continue;
        }
        for &to in &targets {
            for b in movable(state, to) {
                state.count();
                if let Some(score) = swap_score(state, a, b) {
                    ranked.push((score, a, b));
                }
            }
        }
    }
    ranked.sort_by(|x, y| y.0.total_cmp(&x.0).then((x.1, x.2).cmp(&(y.1, y.2))));
    // Only the best few are tried in earnest; the rest mostly fail for the same reason.
    ranked
        .into_iter()
        .take(16)
        .any(|(_, a, b)| try_swap(state, a, b))
}

pub(super) fn movable(state: &State<'_, '_>, host: usize) -> Vec<usize> {
    let free = |u: &&usize| state.units[**u].is_free() && state.units[**u].forced.is_none();
    state.members[host].iter().filter(free).copied().collect()
}

/// What exchanging two units saves, guest-seconds per second; `None` when memory forbids it, or when rules of both
/// would have to be weighed at once.
pub(super) fn exchange_rate(state: &State<'_, '_>, a: usize, b: usize) -> Option<f64> {
    let model = state.model;
    let (s, t) = (state.at[a], state.at[b]);
    let (ua, ub) = (&state.units[a], &state.units[b]);
    if ua.has_soft && ub.has_soft {
        return None;
    }
    let more = ua.load.memory - ub.load.memory;
    let fits =
        |host: usize, more: i64| state.held(host).memory + more <= model.hosts[host].open_capacity;
    if !fits(s, -more) || !fits(t, more) {
        return None;
    }
    let on_s = state.loads[s].minus(&ua.load).plus(&ub.load);
    let on_t = state.loads[t].minus(&ub.load).plus(&ua.load);
    Some(
        state.values[s] + state.values[t] - model.value(s, &on_s) - model.value(t, &on_t)
            + state.soft(a, s)
            - state.soft(a, t)
            + state.soft(b, t)
            - state.soft(b, s),
    )
}

/// What exchanging two units costs more than has been spent on them already, guest-seconds; `None` when a copy
/// does not converge or one of them has left lately where it would go.
pub(super) fn exchange_cost(state: &State<'_, '_>, a: usize, b: usize) -> Option<f64> {
    let (s, t) = (state.at[a], state.at[b]);
    if state.stays_away(a, t) || state.stays_away(b, s) {
        return None;
    }
    Some(state.cost(a, t)? - state.cost(a, s)? + state.cost(b, s)? - state.cost(b, t)?)
}

/// What exchanging two units brings net; `None` when it does not pay or memory forbids it.
fn swap_score(state: &State<'_, '_>, a: usize, b: usize) -> Option<f64> {
    let model = state.model;
    let (s, t) = (state.at[a], state.at[b]);
    let (ua, ub) = (&state.units[a], &state.units[b]);
    if ub.load.demand >= ua.load.demand {
        return None;
    }
    let least = least_gain(state, a) + least_gain(state, b);
    if !ua.has_soft
        && !ub.has_soft
        && model.payback.horizon_seconds * state.most_saved(&ua.load.less(&ub.load), s, t) <= least
    {
        return None;
    }
    let gain = model.payback.horizon_seconds * exchange_rate(state, a, b)?;
    if gain <= least {
        return None;
    }
    let spread = state.slopes[s] - state.slopes[t];
    let sigma_sq = ua.load.sigma_sq + ub.load.sigma_sq;
    let error = state.standard_error(spread * spread * sigma_sq);
    let score = gain - model.payback.factor * exchange_cost(state, a, b)?;
    (score > 1e-6 && gain > STANDARD_ERRORS * error).then_some(score)
}

pub(super) fn try_swap(state: &mut State<'_, '_>, a: usize, b: usize) -> bool {
    let (s, t) = (state.at[a], state.at[b]);
    state.apply(a, t);
    if state.block(b, s).is_none() {
        state.apply(b, s);
        if state.holds(a) {
            return true;
        }
        state.apply(b, t);
    }
    state.apply(a, s);
    false
}
