//! Strategy `consolidate`: emptying a host pays only as a whole, so it is tried as a whole.

use super::State;
use super::improve::movable;
use crate::num::order_key;
use crate::policy::Strategy;

/// Empties hosts, the emptiest first, as long as each pays for all its migrations.
pub(super) fn run(state: &mut State<'_, '_>) {
    if state.model.policy.strategy != Strategy::Consolidate {
        return;
    }
    let mut hosts: Vec<usize> = (0..state.model.hosts.len())
        .filter(|&h| state.model.hosts[h].shape.present && !state.members[h].is_empty())
        .collect();
    hosts.sort_by_key(|&h| (order_key(state.memory_share(h)), h));
    for host in hosts {
        if state.exhausted() {
            return;
        }
        try_to_empty(state, host);
    }
}

/// Moves everything off a host to hosts that are powered anyway; undoes it when that does not pay.
fn try_to_empty(state: &mut State<'_, '_>, host: usize) {
    let mut units = movable(state, host);
    if units.len() != state.members[host].len() {
        return;
    }
    units.sort_by_key(|&u| (-state.units[u].load.memory, u));
    let mut moved = Vec::new();
    let mut score = 0.0;
    for &unit in &units {
        let Some((gained, to)) = best_powered(state, unit) else {
            break;
        };
        state.apply(unit, to);
        moved.push(unit);
        score += gained;
    }
    if moved.len() < units.len() || score <= 0.0 {
        for unit in moved {
            state.apply(unit, host);
        }
    }
}

fn best_powered(state: &mut State<'_, '_>, unit: usize) -> Option<(f64, usize)> {
    let mut best: Option<(f64, usize)> = None;
    for to in 0..state.model.hosts.len() {
        if state.members[to].is_empty() || state.block_for_gain(unit, to).is_some() {
            continue;
        }
        state.count();
        let Some(candidate) = state.judge(unit, to) else {
            continue;
        };
        if best.is_none_or(|(score, _)| candidate.score > score) {
            best = Some((candidate.score, to));
        }
    }
    best
}
