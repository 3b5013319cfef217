//! Ejection chains: a unit takes the place of another, which goes elsewhere.
//!
//! They are what helps where memory is nearly full, or where a rule's places are taken: looking one step
//! ahead finds nothing there.

use super::improve::{least_gain, most_gain, movable, sources};
use super::{Block, Candidate, State};

/// Hosts on which a place is sought for the unit that comes.
const FIRST_TARGETS: usize = 8;
/// Hosts on which a place is sought for the unit that goes.
const SECOND_TARGETS: usize = 8;

/// A chain: `ejected` leaves `host` for `refuge`, `unit` takes its place.
#[derive(Debug, Clone, Copy)]
struct Chain {
    score: f64,
    ejected: usize,
    refuge: usize,
    host: usize,
}

/// One paying chain per hot host; says whether any was made.
pub(super) fn run(state: &mut State<'_, '_>) -> bool {
    let mut any = false;
    for host in sources(state) {
        let price =
            2.0 * state.model.payback.factor * state.model.policy.price.migration_guest_seconds;
        if state.values[host] * state.model.payback.horizon_seconds <= price {
            continue;
        }
        let mut best: Option<(Chain, usize)> = None;
        for unit in movable(state, host) {
            if state.exhausted() {
                break;
            }
            let floor = best.map_or(0.0, |(c, _)| c.score);
            // The one that is ejected costs a migration too; its gain is hoped to be small.
            if most_gain(state, unit) - least_gain(state, unit) <= floor {
                continue;
            }
            let found = best_chain(state, unit, FIRST_TARGETS, true);
            if let Some(chain) = found.filter(|c| c.score > floor) {
                best = Some((chain, unit));
            }
        }
        if let Some((chain, unit)) = best {
            state.apply(chain.ejected, chain.refuge);
            state.apply(unit, chain.host);
            any = true;
        }
    }
    any
}

/// Finds a place for a unit that has to move by sending one other away; does it, if there is a way.
pub(super) fn make_room(state: &mut State<'_, '_>, unit: usize) -> bool {
    let Some(chain) = best_chain(state, unit, usize::MAX, false) else {
        return false;
    };
    state.apply(chain.ejected, chain.refuge);
    state.apply(unit, chain.host);
    true
}

/// The best chain that gives a unit a place; it must pay only where `for_gain`.
fn best_chain(
    state: &mut State<'_, '_>,
    unit: usize,
    targets: usize,
    for_gain: bool,
) -> Option<Chain> {
    let mut best: Option<Chain> = None;
    let room =
        |b: Option<Block>| matches!(b, Some(Block::Memory | Block::Apart(_) | Block::Guests));
    let hosts: Vec<usize> = state
        .targets
        .iter()
        .map(|&(_, t)| t)
        .filter(|&t| room(state.block(unit, t)))
        .take(targets)
        .collect();
    for host in hosts {
        for ejected in movable(state, host) {
            if state.exhausted() {
                return best;
            }
            if !gives_room(state, unit, ejected, host) {
                continue;
            }
            let found = try_chain(state, unit, ejected, host, for_gain);
            if let Some(chain) = found.filter(|c| best.is_none_or(|b| c.score > b.score)) {
                best = Some(chain);
            }
        }
    }
    best
}

/// Whether the host could take the unit if the other left: memory first, as it decides most often.
fn gives_room(state: &State<'_, '_>, unit: usize, ejected: usize, host: usize) -> bool {
    let freed = state.loads[host].minus(&state.units[ejected].load);
    let after = freed.plus(&state.units[unit].load);
    after.memory <= state.model.hosts[host].open_capacity
}

fn try_chain(
    state: &mut State<'_, '_>,
    unit: usize,
    ejected: usize,
    host: usize,
    for_gain: bool,
) -> Option<Chain> {
    let from = state.at[unit];
    let refuges: Vec<usize> = state
        .targets
        .iter()
        .map(|&(_, t)| t)
        .filter(|&t| t != host && t != from && state.block(ejected, t).is_none())
        .take(SECOND_TARGETS)
        .collect();
    let mut best: Option<Chain> = None;
    for refuge in refuges {
        state.count();
        let Some(first) = state.judge(ejected, refuge) else {
            continue;
        };
        state.apply(ejected, refuge);
        let second = match state.block(unit, host) {
            None => state.judge(unit, host),
            Some(_) => None,
        };
        state.apply(ejected, host);
        let Some(second) = second else { continue };
        let both = sum(first, second);
        if for_gain && !both.pays() {
            continue;
        }
        if best.is_none_or(|b| both.score > b.score) {
            best = Some(Chain {
                score: both.score,
                ejected,
                refuge,
                host,
            });
        }
    }
    best
}

fn sum(a: Candidate, b: Candidate) -> Candidate {
    let error = (a.error * a.error + b.error * b.error).sqrt();
    Candidate {
        gain: a.gain + b.gain,
        cost: a.cost + b.cost,
        score: a.score + b.score,
        error,
    }
}
