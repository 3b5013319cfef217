//! One guest, one target: what `evenkeel migrate GUEST [--to HOST]` asks for.

use crate::explain::Rejection;
use crate::model::{Mobility, Model, ShutOffGuests};
use crate::plan::{BlockReason, Blocked, Step, StepReason};
use crate::planning::price_one;
use crate::policy::Policy;
use crate::search::{Block, State};
use crate::snapshot::Snapshot;

fn reject(host: &str, reason: BlockReason, detail: impl Into<String>) -> Rejection {
    Rejection {
        host: host.to_owned(),
        reason,
        detail: detail.into(),
    }
}

/// A priced step that brings a guest (by name or UUID) to a host, or to the host that costs least.
///
/// Must-rules and capacity decide; whether it pays does not, nor does a cool-down. Whoever names the target may
/// try again where the guest was refused.
///
/// # Errors
/// A named rejection per candidate; one without a host where the guest itself cannot be moved.
pub fn place_one(
    snapshot: &Snapshot,
    policy: &Policy,
    guest: &str,
    target: Option<&str>,
) -> Result<Step, Vec<Rejection>> {
    let one = |reason, detail: String| vec![reject("", reason, detail)];
    snapshot
        .validate()
        .map_err(|e| one(BlockReason::StaleData, e.to_string()))?;
    let Some(found) = snapshot.guest(guest) else {
        return Err(one(BlockReason::NotThere, format!("no guest {guest:?}")));
    };
    let asked = target.map(|_| without_refusals(snapshot, &found.name));
    let snapshot = asked.as_ref().unwrap_or(snapshot);
    let model = Model::new(snapshot, policy, ShutOffGuests::Move);
    let start = model.homes();
    let state = State::new(&model, &start, u64::MAX);
    let name = &found.name;
    let Some(at) = model.guests.iter().position(|g| g.data.name == *name) else {
        return Err(one(BlockReason::NotThere, format!("no guest {guest:?}")));
    };
    let unit = state.unit_of[at];
    held(&state, unit).map_err(|r| vec![r])?;
    let hosts: Vec<usize> = match target {
        None => (0..model.hosts.len()).filter(|&h| h != start[at]).collect(),
        Some(name) => match model.hosts.iter().position(|h| h.data.name == name) {
            Some(host) => vec![host],
            None => return Err(vec![reject(name, BlockReason::NotThere, "no such host")]),
        },
    };
    let mut rejections = Vec::new();
    let mut best: Option<(f64, usize)> = None;
    for to in hosts {
        match judge(&state, unit, to) {
            Ok(score) if best.is_none_or(|(most, _)| score > most) => best = Some((score, to)),
            Ok(_) => {}
            Err(rejection) => rejections.push(rejection),
        }
    }
    match best {
        Some((_, to)) => Ok(price_one(&model, &start, at, to, StepReason::Manual)),
        None if rejections.is_empty() => Err(one(
            BlockReason::NoCapacity,
            "there is no other host".into(),
        )),
        None => Err(rejections),
    }
}

fn without_refusals(snapshot: &Snapshot, guest: &str) -> Snapshot {
    let mut snapshot = snapshot.clone();
    let guests = snapshot.guests.iter_mut();
    for found in guests.filter(|found| found.name == guest) {
        found.refused_by.clear();
    }
    snapshot
}

/// Why the guest itself cannot be moved, not even by hand.
fn held(state: &State<'_, '_>, unit: usize) -> Result<(), Rejection> {
    if let Mobility::Fixed(reason, detail) = &state.units[unit].mobility {
        return Err(reject("", *reason, detail.as_str()));
    }
    if state.units[unit].guests.len() > 1 {
        let first = state.units[unit].guests[0];
        let rules = &state.model.rules;
        let rule = rules.together_of[first]
            .iter()
            .map(|&r| &rules.together[r])
            .find(|r| r.hard);
        let detail = rule.map_or("", |r| r.name.as_str()).to_owned();
        return Err(reject(
            "",
            BlockReason::RuleForbids,
            format!("{detail} keeps it with others"),
        ));
    }
    Ok(())
}

fn judge(state: &State<'_, '_>, unit: usize, to: usize) -> Result<f64, Rejection> {
    let block = match state.block(unit, to) {
        Some(block) => block,
        None => match state.judge(unit, to) {
            Some(candidate) => return Ok(candidate.score),
            None => Block::NotConverging,
        },
    };
    let (reason, detail) = state.words(block, unit, to);
    Err(reject(&state.model.hosts[to].data.name, reason, detail))
}

/// Rules that this fleet cannot fulfil, alone or together, each by name.
#[must_use]
pub fn rule_faults(snapshot: &Snapshot, policy: &Policy) -> Vec<Blocked> {
    if snapshot.validate().is_err() {
        return Vec::new();
    }
    let model = Model::new(snapshot, policy, ShutOffGuests::Stay);
    model
        .rules
        .faults
        .iter()
        .flat_map(|f| f.blocked().collect::<Vec<_>>())
        .collect()
}
