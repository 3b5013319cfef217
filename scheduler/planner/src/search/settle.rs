//! The end of a search: moves that no longer pay are dropped, hosts that stay hot are explained.

use super::forced::{best_target, no_target};
use super::improve::movable;
use super::{Candidate, State};
use crate::constants::{NOTABLE_LOSS, STANDARD_ERRORS};
use crate::plan::{BlockReason, Blocked};

/// Hosts that are explained at most; the rest is in the report.
const EXPLAINED_HOSTS: usize = 16;

/// A host that loses less and has no better place for any guest is simply in use. Guest-seconds per second.
const HIGH_LOSS: f64 = 0.5;

/// Takes back every move that, the others given, does not pay for itself. Says whether there was any.
pub(super) fn drop_what_does_not_pay(state: &mut State<'_, '_>) -> bool {
    let mut any = false;
    loop {
        let mut dropped = false;
        for unit in 0..state.units.len() {
            let home = state.units[unit].home;
            let moved = state.at[unit] != home && state.units[unit].forced.is_none();
            if moved && state.could_stay_at(unit, home) && !still_pays(state, unit, home) {
                state.apply(unit, home);
                dropped = true;
            }
        }
        any |= dropped;
        if !dropped {
            return any;
        }
    }
}

/// Whether taking the move back would be worse than its cost. A hair of score keeps ties from flapping.
fn still_pays(state: &mut State<'_, '_>, unit: usize, home: usize) -> bool {
    state.count();
    let Some(back) = state.judge(unit, home) else {
        return true;
    };
    back.score < 0.0 && -back.gain > STANDARD_ERRORS * back.error
}

/// Names hosts that stay hot, and why they are not relieved.
pub(super) fn unhelped_hosts(state: &mut State<'_, '_>) -> Vec<Blocked> {
    let mut hot: Vec<(f64, usize)> = (0..state.model.hosts.len())
        .map(|h| (state.model.hosts[h].shape.loss(&state.loads[h]), h))
        .filter(|&(loss, _)| loss > NOTABLE_LOSS)
        .collect();
    hot.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    hot.truncate(EXPLAINED_HOSTS);
    hot.into_iter()
        .filter_map(|(loss, host)| explain(state, loss, host))
        .collect()
}

/// The best move that does not pay; where no guest can go anywhere, what stands in the way of the one that
/// demands most.
fn explain(state: &mut State<'_, '_>, loss: f64, host: usize) -> Option<Blocked> {
    let mut best: Option<(f64, String)> = None;
    let mut stuck: Option<(f64, usize)> = None;
    for unit in movable(state, host) {
        let Some((to, candidate)) = best_candidate(state, unit) else {
            let demand = state.units[unit].load.demand;
            if demand > stuck.map_or(0.0, |(most, _)| most) {
                stuck = Some((demand, unit));
            }
            continue;
        };
        if best
            .as_ref()
            .is_some_and(|(score, _)| candidate.score <= *score)
        {
            continue;
        }
        if candidate.gain <= 0.0 && loss < HIGH_LOSS {
            continue;
        }
        let model = state.model;
        let detail = format!(
            "loses {loss:.2} guest-seconds/s; the best move, {} to {}, would save {:.0} guest-seconds in {:.0} min and cost {:.0} (must pay {} times)",
            model.guests[state.units[unit].guests[0]].data.name,
            model.hosts[to].data.name,
            candidate.gain,
            model.payback.horizon_seconds / 60.0,
            candidate.cost,
            model.payback.factor,
        );
        best = Some((candidate.score, detail));
    }
    if let Some((_, detail)) = best {
        let name = &state.model.hosts[host].data.name;
        return Some(Blocked::host(name, BlockReason::DoesNotPay, detail));
    }
    let (_, unit) = stuck?;
    let (reason, detail) = no_target(state, unit);
    let name = &state.model.guests[state.units[unit].guests[0]].data.name;
    Some(Blocked::guest(name, reason, detail))
}

fn best_candidate(state: &mut State<'_, '_>, unit: usize) -> Option<(usize, Candidate)> {
    let to = best_target(state, unit)?;
    Some((to, state.judge(unit, to)?))
}
