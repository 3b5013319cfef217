//! Ejection chains: a unit takes the place of another, which goes elsewhere.
//!
//! They are what helps where memory is nearly full, or where a rule's places are taken: looking one step
//! ahead finds nothing there. Chains are judged by their sums first; only the best few are tried in
//! earnest, with all rules.

use std::collections::BTreeMap;

use super::improve::{arrival_bonus, least_gain, most_gain, movable};
use super::{Block, State};
use crate::constants::STANDARD_ERRORS;

/// Hosts on which a place is sought for the unit that comes.
const FIRST_TARGETS: usize = 8;
/// Hosts on which a place is sought for the unit that goes.
const SECOND_TARGETS: usize = 8;
/// Chains tried in earnest; most of those that fail do so for the same reason.
const TRIED: usize = 8;

/// A chain: `ejected` leaves `host` for `refuge`, `unit` takes its place.
#[derive(Debug, Clone, Copy)]
struct Chain {
    score: f64,
    unit: usize,
    ejected: usize,
    refuge: usize,
    host: usize,
}

/// Per unit that could go: the hosts that could take it.
type Refuges = BTreeMap<usize, Vec<usize>>;

/// What is sought: any way at all, or one that pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    Gain,
    Room,
}

/// Carries out the best paying chain from a host; says whether there was one.
pub(super) fn relieve(state: &mut State<'_, '_>, host: usize) -> bool {
    let (mut found, mut refuges) = (Vec::new(), Refuges::new());
    for unit in movable(state, host) {
        if most_gain(state, unit) > least_gain(state, unit) {
            collect(state, unit, Aim::Gain, &mut refuges, &mut found);
        }
    }
    carry_out_best(state, found)
}

/// Finds a place for a unit that has to move by sending one other away; does it, if there is a way.
pub(super) fn make_room(state: &mut State<'_, '_>, unit: usize) -> bool {
    let mut found = Vec::new();
    collect(state, unit, Aim::Room, &mut Refuges::new(), &mut found);
    carry_out_best(state, found)
}

fn carry_out_best(state: &mut State<'_, '_>, mut found: Vec<Chain>) -> bool {
    found.sort_by(|x, y| {
        let key = |c: &Chain| (c.unit, c.ejected, c.refuge);
        y.score
            .total_cmp(&x.score)
            .then_with(|| key(x).cmp(&key(y)))
    });
    found
        .into_iter()
        .take(TRIED)
        .any(|chain| try_chain(state, chain))
}

fn try_chain(state: &mut State<'_, '_>, chain: Chain) -> bool {
    state.apply(chain.ejected, chain.refuge);
    if state.block(chain.unit, chain.host).is_none() {
        state.apply(chain.unit, chain.host);
        return true;
    }
    state.apply(chain.ejected, chain.host);
    false
}

/// Adds the best chain of a unit over each host that lacks only room for it.
fn collect(
    state: &mut State<'_, '_>,
    unit: usize,
    aim: Aim,
    refuges: &mut Refuges,
    found: &mut Vec<Chain>,
) {
    let most = if aim == Aim::Gain {
        FIRST_TARGETS
    } else {
        usize::MAX
    };
    let hosts: Vec<(usize, Block)> = state
        .targets
        .iter()
        .filter(|&&(_, t)| aim == Aim::Room || !state.stays_away(unit, t))
        .filter_map(|&(_, t)| Some((t, state.block(unit, t).filter(lacks_room)?)))
        .take(most)
        .collect();
    let from = state.at[unit];
    let load = state.units[unit].load;
    let left = state.values[from] - state.model.value(from, &state.loads[from].minus(&load))
        + state.soft(unit, from);
    for (host, block) in hosts {
        let mut best: Option<Chain> = None;
        for ejected in movable(state, host) {
            if state.exhausted() {
                return;
            }
            state.count();
            // Each one's soft rules are weighed as if the other stayed.
            let blurred = state.units[unit].has_soft && state.units[ejected].has_soft;
            if (aim == Aim::Room || !blurred) && gives_room(state, unit, ejected, block) {
                let floor = best.map_or(0.0, |c| c.score);
                let bar = Bar { left, aim, floor };
                let chain = best_refuge(state, unit, ejected, bar, refuges);
                best = chain
                    .filter(|c| best.is_none_or(|b| c.score > b.score))
                    .or(best);
            }
        }
        found.extend(best);
    }
}

/// Whether a place for the unit is all that is missing.
fn lacks_room(block: &Block) -> bool {
    matches!(block, Block::Memory | Block::Apart(_) | Block::Guests)
}

/// Whether what keeps the unit out goes when the other leaves its host, and the memory is enough then.
fn gives_room(state: &State<'_, '_>, unit: usize, ejected: usize, block: Block) -> bool {
    let host = state.at[ejected];
    if let Block::Apart(rule) = block
        && !state.units[ejected].hard_apart.contains(&rule)
    {
        return false;
    }
    let freed = state.held(host).memory - state.units[ejected].load.memory;
    freed + state.units[unit].load.memory <= state.model.hosts[host].open_capacity
}

/// What a chain has to be measured by.
#[derive(Debug, Clone, Copy)]
struct Bar {
    /// What the unit's own leaving saves, guest-seconds per second.
    left: f64,
    aim: Aim,
    /// The best score so far.
    floor: f64,
}

/// The hosts that could take a unit, cheapest first, the two ends of the chain left out.
/// Whoever only makes room, be it for what must move, rests and stays away as for gain.
fn refuges_of(state: &State<'_, '_>, ejected: usize, from: usize) -> Vec<usize> {
    let host = state.at[ejected];
    state
        .targets
        .iter()
        .map(|&(_, t)| t)
        .filter(|&t| t != host && t != from && state.block_for_gain(ejected, t).is_none())
        .take(SECOND_TARGETS)
        .collect()
}

/// The best place for the one that leaves.
fn best_refuge(
    state: &mut State<'_, '_>,
    unit: usize,
    ejected: usize,
    bar: Bar,
    refuges: &mut Refuges,
) -> Option<Chain> {
    let Bar { left, aim, floor } = bar;
    let (model, from, host) = (state.model, state.at[unit], state.at[ejected]);
    let horizon = model.payback.horizon_seconds;
    let (goes, comes) = (state.units[ejected].load, state.units[unit].load);
    let least = least_gain(state, unit) + least_gain(state, ejected);
    let soft = state.units[unit].has_soft || state.units[ejected].has_soft;
    let weighed = aim == Aim::Gain && !soft;
    if weighed && let Some(cheapest) = state.cheapest_target(&[from, host]) {
        let most = state.most_saved(&comes, from, host) + state.most_saved(&goes, host, cheapest);
        if horizon * most - least <= floor {
            return None;
        }
    }
    let changed = state.loads[host].minus(&goes).plus(&comes);
    let there = state.values[host] - model.value(host, &changed) + state.soft(ejected, host)
        - state.soft(unit, host);
    let bound = horizon * (left + there + arrival_bonus(state, ejected)) - least;
    if aim == Aim::Gain && bound <= floor {
        return None;
    }
    let refuges = refuges
        .entry(ejected)
        .or_insert_with(|| refuges_of(state, ejected, from));
    let mut best: Option<Chain> = None;
    for &refuge in refuges.iter() {
        state.evaluations += 1;
        let arrived = model.value(refuge, &state.loads[refuge].plus(&goes));
        let right = state.values[refuge] - arrived - state.soft(ejected, refuge);
        let gain = horizon * (left + there + right);
        let bar = best.map_or(floor, |c| c.score);
        if aim == Aim::Gain && gain - least <= bar {
            continue;
        }
        let Some(cost) = cost(state, unit, host, ejected, refuge) else {
            continue;
        };
        let score = gain - model.payback.factor * cost;
        let sure = gain > STANDARD_ERRORS * error(state, unit, ejected, refuge);
        let pays = aim == Aim::Room || (score > bar && sure);
        if pays && best.is_none_or(|c| score > c.score) {
            best = Some(Chain {
                score,
                unit,
                ejected,
                refuge,
                host,
            });
        }
    }
    best
}

/// What both migrations cost more than has been spent on the two units already.
fn cost(
    state: &State<'_, '_>,
    unit: usize,
    host: usize,
    ejected: usize,
    refuge: usize,
) -> Option<f64> {
    let comes = state.cost(unit, host)? - state.cost(unit, state.at[unit])?;
    Some(comes + state.cost(ejected, refuge)? - state.cost(ejected, host)?)
}

/// Standard error of a chain's gain: each unit's demand weighs by the slopes of its two hosts.
fn error(state: &State<'_, '_>, unit: usize, ejected: usize, refuge: usize) -> f64 {
    let (from, host) = (state.at[unit], state.at[ejected]);
    let comes = state.slopes[from] - state.slopes[host];
    let goes = state.slopes[host] - state.slopes[refuge];
    let variance = comes * comes * state.units[unit].load.sigma_sq
        + goes * goes * state.units[ejected].load.sigma_sq;
    state.standard_error(variance)
}
