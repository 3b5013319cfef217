//! The referee: carries a plan out wave by wave and says what it would break.
//!
//! It shares the loss model, the resolved rules and the formats with the planner, but neither its search
//! nor its bookkeeping: everything is added up anew, slowly, from the snapshot. Runs in every planner
//! test, and before a plan is carried out.

mod wave;

use crate::loss::fleet_loss;
use crate::plan::Plan;
use crate::policy::Policy;
use crate::rules::Rules;
use crate::snapshot::{Guest, Host, Snapshot};

pub use crate::recheck::{LastLook, NotNow, step_is_still_good};

/// What a plan would break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Number of the step in the plan, from 1; 0 when it is about the plan as a whole.
    pub step: usize,
    /// What kind of thing is broken.
    pub kind: ViolationKind,
    /// Names and numbers.
    pub detail: String,
}

/// Kinds of things a plan can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ViolationKind {
    /// The snapshot cannot be used.
    Snapshot,
    /// The step names something that is not there, or not there at that time.
    Reference,
    /// Waves do not rise, or one guest moves twice in one.
    Waves,
    /// The guest or the target cannot be part of a migration.
    NotAllowed,
    /// The target lacks what the guest needs.
    Compatibility,
    /// Memory above a host's limit.
    Memory,
    /// More guests than a host may have.
    Guests,
    /// More migrations at a time than allowed.
    Limits,
    /// A must-rule that held before.
    Rule,
    /// Claimed numbers that are not the evaluator's.
    Numbers,
}

/// Losses may differ by this much from the evaluator's: sums in another order, guest-seconds per second.
const LOSS_TOLERANCE: f64 = 1e-6;

/// A fleet while a plan is carried out: hosts and guests in the order of their names.
pub(crate) struct Fleet<'a> {
    policy: &'a Policy,
    taken_at: jiff::Timestamp,
    hosts: Vec<&'a Host>,
    guests: Vec<&'a Guest>,
    rules: Rules,
    at: Vec<usize>,
    start: Vec<usize>,
    /// Memory that guests in flight hold where they leave: (guest, host).
    flights: Vec<(usize, usize)>,
}

/// Carries a plan out and lists everything that is wrong with it; a good plan gives an empty list.
#[must_use]
pub fn check(snapshot: &Snapshot, policy: &Policy, plan: &Plan) -> Vec<Violation> {
    if let Err(error) = snapshot.validate() {
        let detail = error.to_string();
        let unusable = Violation {
            step: 0,
            kind: ViolationKind::Snapshot,
            detail,
        };
        return if plan.steps.is_empty() {
            Vec::new()
        } else {
            vec![unusable]
        };
    }
    let mut fleet = Fleet::new(snapshot, policy);
    let mut found = Vec::new();
    let mut at = 0;
    let mut last_wave = 0;
    while at < plan.steps.len() {
        let wave = plan.steps[at].wave;
        let end = plan.steps[at..]
            .iter()
            .position(|s| s.wave != wave)
            .map_or(plan.steps.len(), |n| at + n);
        if wave <= last_wave {
            let detail = format!("wave {wave} comes after wave {last_wave}");
            found.push(Violation {
                step: at + 1,
                kind: ViolationKind::Waves,
                detail,
            });
        }
        found.extend(fleet.run_wave(plan, at, end));
        last_wave = wave;
        at = end;
    }
    found.extend(fleet.reserve());
    found.extend(numbers(snapshot, policy, plan));
    found
}

impl<'a> Fleet<'a> {
    fn new(snapshot: &'a Snapshot, policy: &'a Policy) -> Self {
        let mut hosts: Vec<&Host> = snapshot.hosts.iter().collect();
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        let mut guests: Vec<&Guest> = snapshot.guests.iter().collect();
        guests.sort_by(|a, b| a.name.cmp(&b.name));
        let host_at = |name: &str| {
            hosts
                .binary_search_by(|h| h.name.as_str().cmp(name))
                .unwrap_or(0)
        };
        let guest_at = |name: &str| {
            guests
                .binary_search_by(|g| g.name.as_str().cmp(name))
                .unwrap_or(0)
        };
        let mut start: Vec<usize> = guests.iter().map(|g| host_at(&g.host)).collect();
        let mut flights = Vec::new();
        for flight in snapshot.flights().counted {
            let guest = guest_at(&flight.guest);
            start[guest] = host_at(&flight.to);
            flights.push((guest, host_at(&flight.from)));
        }
        let rules = Rules::resolve(policy, &hosts, &guests);
        Self {
            policy,
            taken_at: snapshot.taken_at,
            hosts,
            guests,
            rules,
            at: start.clone(),
            start,
            flights,
        }
    }
}

/// The snapshot as it is when the plan has been carried out.
#[must_use]
pub fn carried_out(snapshot: &Snapshot, plan: &Plan) -> Snapshot {
    let mut after = snapshot.clone();
    let mut goes = std::collections::BTreeMap::new();
    for step in &plan.steps {
        goes.insert(step.guest.as_str(), step.to.as_str());
    }
    for guest in &mut after.guests {
        if let Some(&to) = goes.get(guest.name.as_str()) {
            to.clone_into(&mut guest.host);
        }
    }
    after
}

fn numbers(snapshot: &Snapshot, policy: &Policy, plan: &Plan) -> Vec<Violation> {
    let before = fleet_loss(snapshot, policy).total;
    let after = fleet_loss(&carried_out(snapshot, plan), policy).total;
    let claimed: f64 = plan
        .steps
        .iter()
        .map(|s| s.saves_guest_seconds_per_hour)
        .sum();
    let tolerance = LOSS_TOLERANCE * (1.0 + before.abs());
    let mut found = Vec::new();
    let mut same = |what: &str, claimed: f64, evaluated: f64, tolerance: f64| {
        let difference = (claimed - evaluated).abs();
        if difference.is_nan() || difference > tolerance {
            let detail = format!("{what} is claimed as {claimed}, evaluated as {evaluated}");
            found.push(Violation {
                step: 0,
                kind: ViolationKind::Numbers,
                detail,
            });
        }
    };
    same("loss_before", plan.loss_before, before, tolerance);
    same("loss_after", plan.loss_after, after, tolerance);
    same(
        "the sum of savings per hour",
        claimed,
        (before - after) * 3600.0,
        3600.0 * tolerance,
    );
    found
}
