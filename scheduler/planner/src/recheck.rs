//! The last look at steps just before they start, on a fresh snapshot.
//!
//! The scheduler asks for steps one by one, and for the members of a must-affinity together: what holds
//! together is worth moving together or not at all. Which steps are asked about, and whether a hot spot has
//! lasted, is decided there.

use crate::model::{Flight, Mobility, Model, ShutOffGuests};
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

/// The fleet as it is now, with the steps that were admitted counted as under way.
#[derive(Debug)]
pub struct LastLook<'a> {
    model: Model<'a>,
}

impl<'a> LastLook<'a> {
    /// Looks at a snapshot.
    ///
    /// # Errors
    /// When nothing can be decided on it.
    pub fn new(snapshot: &'a Snapshot, policy: &'a Policy) -> Result<Self, NotNow> {
        snapshot
            .validate()
            .map_err(|e| not_now(BlockReason::StaleData, e.to_string()))?;
        Ok(Self {
            model: Model::new(snapshot, policy, ShutOffGuests::Move),
        })
    }

    /// The steps in batches to be admitted as one: guests that a must-affinity holds together on their
    /// host, in the order of their first steps.
    #[must_use]
    pub fn batches<'s>(&self, steps: &[&'s Step]) -> Vec<Vec<&'s Step>> {
        let state = self.state();
        let mut batches: Vec<(Option<usize>, Vec<&Step>)> = Vec::new();
        for &step in steps {
            let found = find_guest(&self.model, step).ok();
            let unit = found.map(|guest| state.unit_of[guest]);
            let mates = batches
                .iter_mut()
                .find(|(other, _)| unit.is_some() && *other == unit);
            match mates {
                Some((_, batch)) => batch.push(step),
                None => batches.push((unit, vec![step])),
            }
        }
        batches.into_iter().map(|(_, batch)| batch).collect()
    }

    /// Admits a batch if each of its steps still is what should be done: the guest is where the plan says
    /// and can move, it fits, no must-rule or limit forbids it, and the guests that move as one still save
    /// more than they cost (not asked of drains, repairs and manual moves, of steps that pay only with
    /// others, as for room or to empty a host, nor of a guest that follows its group; a payback factor is
    /// not asked either: what was worth starting should not flap). What was admitted counts as under way
    /// from then on.
    ///
    /// # Errors
    /// The first reason that speaks against it; then no step of the batch is admitted.
    pub fn admit(&mut self, batch: &[&Step]) -> Result<(), NotNow> {
        let flights = self.judge(batch)?;
        flights.into_iter().for_each(|f| self.model.take_off(f));
        Ok(())
    }

    fn state(&self) -> State<'_, 'a> {
        State::new(&self.model, &self.model.homes(), u64::MAX)
    }

    fn judge(&self, batch: &[&Step]) -> Result<Vec<Flight>, NotNow> {
        let state = self.state();
        let flights = batch
            .iter()
            .map(|step| can_leave(&state, step))
            .collect::<Result<Vec<Flight>, NotNow>>()?;
        within_limits(&self.model, &flights)?;
        for (flight, step) in flights.iter().zip(batch) {
            let unit = state.unit_of[flight.guest];
            if let Some(block) = state.block(unit, flight.to) {
                let (reason, detail) = state.words(block, unit, flight.to);
                return Err(not_now(reason, detail));
            }
            worth_it(&state, *flight, step.reason)?;
        }
        Ok(flights)
    }
}

/// Whether a single step still is what should be done, as [`LastLook::admit`] judges it.
///
/// # Errors
/// The first reason that speaks against it.
pub fn step_is_still_good(snapshot: &Snapshot, policy: &Policy, step: &Step) -> Result<(), NotNow> {
    LastLook::new(snapshot, policy)?.admit(&[step])
}

/// The step as a flight, if its guest is where the plan says and may move.
fn can_leave(state: &State<'_, '_>, step: &Step) -> Result<Flight, NotNow> {
    let hosts = &state.model.hosts;
    let guest = find_guest(state.model, step)?;
    let unit = state.unit_of[guest];
    let host = |name: &str| {
        let found = hosts.iter().position(|h| h.data.name == name);
        found.ok_or_else(|| not_now(BlockReason::NotThere, format!("no host {name:?}")))
    };
    let (from, to) = (host(&step.from)?, host(&step.to)?);
    may_move(state, unit, step)?;
    if state.at[unit] != from {
        let here = &hosts[state.at[unit]].data.name;
        return Err(not_now(
            BlockReason::NotThere,
            format!("is on {here}, not on {}", step.from),
        ));
    }
    Ok(Flight { guest, from, to })
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
        // A torn group is to become whole again.
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

/// Whether these migrations may run beside those that run.
fn within_limits(model: &Model<'_>, starting: &[Flight]) -> Result<(), NotNow> {
    let limits = &model.policy.limits;
    let at = |host: usize| move |f: &&Flight| f.from == host || f.to == host;
    for host in starting.iter().flat_map(|f| [f.from, f.to]) {
        let running = model.flights.iter().filter(at(host)).count();
        let wanted = starting.iter().filter(at(host)).count();
        if running + wanted > index(limits.migrations_per_host) {
            let name = &model.hosts[host].data.name;
            return Err(not_now(
                BlockReason::MigrationLimit,
                format!("{name} has {running} running"),
            ));
        }
    }
    let links = |f: &Flight| model.links(f.from, f.to).collect::<Vec<_>>();
    for link in starting.iter().flat_map(links) {
        let takes = |f: &&Flight| links(f).contains(&link);
        let running = model.flights.iter().filter(takes).count();
        let wanted = starting.iter().filter(takes).count();
        if running + wanted > index(limits.migrations_per_link) {
            return Err(not_now(
                BlockReason::MigrationLimit,
                format!(
                    "the link of {} {link} has {running} running",
                    limits.link_label
                ),
            ));
        }
    }
    let running = model.flights.len();
    if running + starting.len() > index(limits.migrations_per_cluster) {
        return Err(not_now(
            BlockReason::MigrationLimit,
            format!("the cluster has {running} running"),
        ));
    }
    Ok(())
}

fn worth_it(state: &State<'_, '_>, flight: Flight, reason: StepReason) -> Result<(), NotNow> {
    let Flight { guest, from, to } = flight;
    let unit = state.unit_of[guest];
    let Some(found) = state.judge(unit, to) else {
        let (reason, detail) = state.words(Block::NotConverging, unit, to);
        return Err(not_now(reason, detail));
    };
    if follows_its_group(state, guest, to) {
        return Ok(());
    }
    let host = state.model.hosts[from].data;
    if reason == StepReason::Drain && host.state != HostState::Draining {
        return Err(not_now(
            BlockReason::DoesNotPay,
            format!("{} is no longer drained", host.name),
        ));
    }
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

/// Whether a guest that a must-affinity holds together with it is there already, or on its way: a group
/// that was begun has to be finished.
fn follows_its_group(state: &State<'_, '_>, guest: usize, to: usize) -> bool {
    let rules = &state.model.rules;
    let mut groups = rules.together_of[guest].iter().map(|&r| &rules.together[r]);
    groups.any(|group| {
        group.hard
            && group
                .members
                .iter()
                .any(|&mate| state.at[state.unit_of[mate]] == to)
    })
}
