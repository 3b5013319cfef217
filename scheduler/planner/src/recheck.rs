//! One step on a fresh snapshot, just before it starts.

use crate::model::{Mobility, Model, ShutOffGuests};
use crate::num::index;
use crate::plan::{BlockReason, Step, StepReason};
use crate::policy::Policy;
use crate::search::{Block, State};
use crate::snapshot::{HostState, Snapshot};

/// Why a step should not start now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct NotNow {
    /// The named reason.
    pub reason: BlockReason,
    /// What decided.
    pub detail: String,
}

fn not_now(reason: BlockReason, detail: impl Into<String>) -> NotNow {
    NotNow {
        reason,
        detail: detail.into(),
    }
}

/// Whether a planned step still is what should be done: the guest is where the plan says and can move, it
/// fits, no must-rule or limit forbids it, and it still saves more than it costs (not asked of drains,
/// repairs, detours and manual moves; a payback factor is not asked either: what was worth starting
/// should not flap).
///
/// # Errors
/// The first reason that speaks against it.
pub fn step_is_still_good(snapshot: &Snapshot, policy: &Policy, step: &Step) -> Result<(), NotNow> {
    snapshot
        .validate()
        .map_err(|e| not_now(BlockReason::StaleData, e.to_string()))?;
    let model = Model::new(snapshot, policy, ShutOffGuests::Move);
    let start: Vec<usize> = model.guests.iter().map(|g| g.home).collect();
    let state = State::new(&model, &start, u64::MAX);
    let guest = find_guest(&model, step)?;
    let unit = state.unit_of[guest];
    let host = |name: &str| {
        let found = model.hosts.iter().position(|h| h.data.name == name);
        found.ok_or_else(|| not_now(BlockReason::NotThere, format!("no host {name:?}")))
    };
    let (from, to) = (host(&step.from)?, host(&step.to)?);
    may_move(&state, unit, step)?;
    if state.at[unit] != from {
        let here = &model.hosts[state.at[unit]].data.name;
        return Err(not_now(
            BlockReason::NotThere,
            format!("is on {here}, not on {}", step.from),
        ));
    }
    within_limits(&model, from, to)?;
    if let Some(block) = state.block(unit, to) {
        let (reason, detail) = state.words(block, unit, to);
        return Err(not_now(reason, detail));
    }
    worth_it(&state, unit, from, to, step.reason)
}

fn find_guest(model: &Model<'_>, step: &Step) -> Result<usize, NotNow> {
    let same = |g: &crate::model::GuestModel<'_>| match (&step.uuid, &g.data.uuid) {
        (Some(planned), Some(known)) => planned == known,
        (Some(_), None) | (None, Some(_)) | (None, None) => g.data.name == step.guest,
    };
    let found = model.guests.iter().position(same);
    found.ok_or_else(|| not_now(BlockReason::NotThere, format!("no guest {:?}", step.guest)))
}

fn is_for_gain(reason: StepReason) -> bool {
    match reason {
        StepReason::RelieveCpu | StepReason::RelieveMemory | StepReason::Spread => true,
        StepReason::Consolidate
        | StepReason::Drain
        | StepReason::RepairRule
        | StepReason::MakeRoom
        | StepReason::Manual => false,
    }
}

fn may_move(state: &State<'_, '_>, unit: usize, step: &Step) -> Result<(), NotNow> {
    match &state.units[unit].mobility {
        Mobility::Fixed(reason, detail) => Err(not_now(*reason, detail.as_str())),
        // Torn groups are whole again when the plan is done.
        Mobility::ForcedOnly(reason, detail)
            if is_for_gain(step.reason)
                && *reason != BlockReason::RuleForbids
                && !above_limit(state, state.at[unit], step.reason) =>
        {
            Err(not_now(*reason, detail.as_str()))
        }
        Mobility::ForcedOnly(..) | Mobility::Free => Ok(()),
    }
}

/// Memory above its limit has to go, whether that pays or not.
fn above_limit(state: &State<'_, '_>, from: usize, reason: StepReason) -> bool {
    reason == StepReason::RelieveMemory && state.excess_memory(from) > 0
}

fn within_limits(model: &Model<'_>, from: usize, to: usize) -> Result<(), NotNow> {
    let limits = &model.policy.limits;
    for host in [from, to] {
        let running = model
            .flights
            .iter()
            .filter(|f| f.from == host || f.to == host)
            .count();
        if running >= index(limits.migrations_per_host) {
            let name = &model.hosts[host].data.name;
            return Err(not_now(
                BlockReason::MigrationLimit,
                format!("{name} has {running} running"),
            ));
        }
    }
    let running = model.flights.len();
    if running >= index(limits.migrations_per_cluster) {
        return Err(not_now(
            BlockReason::MigrationLimit,
            format!("the cluster has {running} running"),
        ));
    }
    Ok(())
}

fn worth_it(
    state: &State<'_, '_>,
    unit: usize,
    from: usize,
    to: usize,
    reason: StepReason,
) -> Result<(), NotNow> {
    let host = state.model.hosts[from].data;
    if reason == StepReason::Drain && host.state != HostState::Draining {
        return Err(not_now(
            BlockReason::DoesNotPay,
            format!("{} is no longer drained", host.name),
        ));
    }
    let Some(found) = state.judge(unit, to) else {
        let (reason, detail) = state.words(Block::NotConverging, unit, to);
        return Err(not_now(reason, detail));
    };
    if !is_for_gain(reason) || above_limit(state, from, reason) || found.gain > found.cost {
        return Ok(());
    }
    let minutes = state.model.payback.horizon_seconds / 60.0;
    let detail = format!(
        "would save {:.1} guest-seconds in {minutes:.0} min now and cost {:.1}",
        found.gain, found.cost
    );
    Err(not_now(BlockReason::DoesNotPay, detail))
}
