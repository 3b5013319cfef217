//! From the fleet as it is to a better placement: repair, moves, swaps, ejection chains, and dropping
//! what does not pay.
//!
//! The search knows placements, not time: [`crate::order`] turns the difference of two placements into
//! steps that fit when they run. The budget counts evaluated candidates; no clock is looked at.

mod anneal;
mod candidate;
mod chain;
mod empty;
mod forced;
mod improve;
mod settle;
mod state;
mod unit;

use crate::model::Model;
use crate::plan::{Blocked, StepReason};

pub(crate) use anneal::Annealing;
pub(crate) use candidate::{Block, Candidate};
pub(crate) use state::{State, cpu_slopes};

/// How far a search may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Purpose {
    /// Everything the policy asks for.
    #[default]
    Balance,
    /// Drains, broken must-rules and memory above its limit.
    Repair,
    /// Drains only.
    Drain,
}

/// What a search found: a placement and why.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Per guest: the host it should be on.
    pub(crate) placement: Vec<usize>,
    /// What was found before annealing, if that came in.
    pub(crate) unannealed: Option<Vec<usize>>,
    /// Per guest: why it has to move, when it is not for gain.
    pub(crate) forced: Vec<Option<StepReason>>,
    /// What could not be helped.
    pub(crate) blocked: Vec<Blocked>,
    /// Candidates evaluated.
    pub(crate) evaluations: u64,
}

/// How thoroughly to search.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) purpose: Purpose,
    /// Candidates to evaluate at most.
    pub(crate) budget: u64,
    pub(crate) annealing: Annealing,
}

/// Searches from a placement.
pub(crate) fn search(model: &Model<'_>, placement: &[usize], effort: Effort) -> Found {
    let mut state = State::new(model, placement, effort.budget);
    let mut blocked = forced::run(&mut state, effort.purpose);
    let mut unannealed = None;
    if effort.purpose == Purpose::Balance && model.payback.balances {
        improve_until_settled(&mut state);
        // A fleet that nothing can be found for stays as it is: annealing makes a plan better, it does not make one.
        if state.has_moved() {
            unannealed = Some(state.placement());
            anneal::run(&mut state, effort.annealing);
            improve_until_settled(&mut state);
        }
        blocked.extend(settle::unhelped_hosts(&mut state));
    }
    let mut forced = vec![None; model.guests.len()];
    for unit in &state.units {
        for &guest in &unit.guests {
            forced[guest] = unit.forced;
        }
    }
    Found {
        placement: state.placement(),
        unannealed,
        forced,
        blocked,
        evaluations: state.evaluations,
    }
}

/// Rounds of improving and dropping; each strictly lowers the objective, the bound is a safeguard.
const MAX_ROUNDS: usize = 12;

fn improve_until_settled(state: &mut State<'_, '_>) {
    for _ in 0..MAX_ROUNDS {
        improve::run(state);
        empty::run(state);
        if !settle::drop_what_does_not_pay(state) || state.exhausted() {
            return;
        }
    }
}

/// A placement without the moves that, without those that could not be ordered, do not pay any more.
pub(crate) fn without_unpaid(
    model: &Model<'_>,
    start: &[usize],
    reached: &[usize],
    forced: &[Option<StepReason>],
) -> Vec<usize> {
    let mut state = State::new(model, start, u64::MAX);
    for unit in 0..state.units.len() {
        let first = state.units[unit].guests[0];
        state.units[unit].forced = forced[first];
        state.apply(unit, reached[first]);
    }
    settle::drop_what_does_not_pay(&mut state);
    state.placement()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ShutOffGuests;
    use crate::policy::Policy;
    use crate::snapshot::{Guest, Host, Snapshot};

    #[test]
    fn a_move_that_does_not_pay_is_dropped_although_its_home_takes_no_newcomer() {
        let mut snapshot = Snapshot::new("test", jiff::Timestamp::UNIX_EPOCH);
        for name in ["h1", "h2"] {
            snapshot.hosts.push(Host {
                name: name.into(),
                cpu_cores: 4.0,
                memory_mib: 1000,
                ..Host::default()
            });
        }
        snapshot.guests.push(Guest {
            name: "a".into(),
            host: "h1".into(),
            memory_mib: 600,
            cpu_classes: vec!["other".into()],
            ..Guest::default()
        });
        // Half of each host is kept free for the failure of the other.
        let policy = Policy::parse("[limits]\nreserve_host_failures = 1").unwrap();
        let model = Model::new(&snapshot, &policy, ShutOffGuests::Stay);
        assert_eq!(without_unpaid(&model, &[0], &[1], &[None]), [0]);
        let forced = [Some(StepReason::Drain)];
        assert_eq!(without_unpaid(&model, &[0], &[1], &forced), [1]);
    }
}
