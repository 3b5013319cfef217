//! What has to happen whether it pays or not: drains, broken must-rules, memory above its limit.
//!
//! Each takes the way of least loss. What finds no place is named and stops nothing else.

use super::chain;
use super::{Block, Purpose, State};
use crate::model::Mobility;
use crate::plan::{BlockReason, Blocked, StepReason};
use crate::snapshot::HostState;

/// Repairs what the purpose allows and says what could not be helped.
pub(super) fn run(state: &mut State<'_, '_>, purpose: Purpose) -> Vec<Blocked> {
    let mut blocked = drains(state);
    if purpose == Purpose::Drain {
        return blocked;
    }
    blocked.extend(pins(state));
    blocked.extend(apart(state));
    blocked.extend(together(state));
    blocked.extend(crowds(state));
    blocked.extend(memory(state));
    blocked
}

fn drains(state: &mut State<'_, '_>) -> Vec<Blocked> {
    let draining = |u: &usize| state.model.hosts[state.at[*u]].data.state == HostState::Draining;
    let mut units: Vec<usize> = (0..state.units.len()).filter(draining).collect();
    // The largest first: small ones find a place later.
    units.sort_by_key(|&u| (-state.units[u].load.memory, u));
    units
        .into_iter()
        .filter_map(|u| match resting(state, u) {
            Some(detail) => Some(report(state, u, BlockReason::CoolDown, &detail)),
            None => force(state, u, StepReason::Drain),
        })
        .flatten()
        .collect()
}

/// Until when a unit waits whose last moves off its host came to nothing. It takes no turn from others meanwhile.
fn resting(state: &State<'_, '_>, unit: usize) -> Option<String> {
    let guests = state.units[unit].guests.iter();
    let left = guests
        .filter_map(|&g| state.model.guests[g].retry_seconds)
        .max()?;
    Some(format!("its last move failed, tried again in {left} s"))
}

/// Moves a unit to its best target; returns what to report when it cannot.
fn force(state: &mut State<'_, '_>, unit: usize, reason: StepReason) -> Option<Vec<Blocked>> {
    if let Mobility::Fixed(why, detail) = &state.units[unit].mobility {
        return Some(report(state, unit, *why, detail));
    }
    if let Some(to) = best_target(state, unit) {
        state.apply(unit, to);
        state.units[unit].forced = Some(reason);
        return None;
    }
    if chain::make_room(state, unit) {
        state.units[unit].forced = Some(reason);
        return None;
    }
    let (why, detail) = no_target(state, unit);
    Some(report(state, unit, why, &detail))
}

fn report(state: &State<'_, '_>, unit: usize, why: BlockReason, detail: &str) -> Vec<Blocked> {
    let model = state.model;
    let name = |&g: &usize| Blocked::guest(&model.guests[g].data.name, why, detail);
    state.units[unit].guests.iter().map(name).collect()
}

/// The open host where a unit costs least, whether or not that pays.
pub(crate) fn best_target(state: &mut State<'_, '_>, unit: usize) -> Option<usize> {
    let mut best: Option<(f64, usize)> = None;
    for to in 0..state.model.hosts.len() {
        if state.block(unit, to).is_some() {
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
    best.map(|(_, to)| to)
}

/// Which of several obstacles to name: the one that an operator can mend most easily.
fn weight(block: Block) -> u8 {
    match block {
        Block::Memory | Block::Guests | Block::LeftLately => 6,
        Block::NotConverging => 5,
        Block::Apart(_) => 4,
        Block::Profile(BlockReason::Pinned) => 3,
        Block::Profile(_) => 2,
        Block::Closed => 1,
        Block::AlreadyThere => 0,
    }
}

/// Why a unit has no target at all.
pub(crate) fn no_target(state: &State<'_, '_>, unit: usize) -> (BlockReason, String) {
    let hosts = 0..state.model.hosts.len();
    let block = |to| state.block(unit, to).unwrap_or(Block::NotConverging);
    let worst = hosts
        .map(|to| (block(to), to))
        .max_by_key(|&(b, to)| (weight(b), usize::MAX - to));
    let Some((block, to)) = worst else {
        return (BlockReason::NoCapacity, "no host".to_owned());
    };
    let (reason, detail) = state.words(block, unit, to);
    if reason == BlockReason::RuleForbids {
        (
            BlockReason::RuleImpossible,
            format!("{detail} leaves no host"),
        )
    } else if reason == BlockReason::AlreadyThere {
        (BlockReason::NoCapacity, "there is no other host".to_owned())
    } else if reason == BlockReason::NoCapacity {
        (reason, format!("no host has room: {detail}"))
    } else {
        (reason, format!("no host takes it: {detail}"))
    }
}

fn pins(state: &mut State<'_, '_>) -> Vec<Blocked> {
    let mut blocked = Vec::new();
    for unit in 0..state.units.len() {
        // Asked just before: making room for another may have mended it.
        if is_pinned_elsewhere(state, unit) {
            blocked.extend(force(state, unit, StepReason::RepairRule).unwrap_or_default());
        }
    }
    blocked
}

fn is_pinned_elsewhere(state: &State<'_, '_>, unit: usize) -> bool {
    let at = state.at[unit];
    let against = |&guest: &usize| state.model.rules.pin_against(guest, at).is_some();
    state.units[unit].guests.iter().any(against)
}

fn apart(state: &mut State<'_, '_>) -> Vec<Blocked> {
    let mut blocked = Vec::new();
    for rule in 0..state.model.rules.apart.len() {
        if state.model.rules.apart[rule].hard {
            for place in 0..state.model.rules.apart[rule].places {
                blocked.extend(thin_out(state, rule, place));
            }
        }
    }
    blocked
}

/// Leaves one member in a place: the one that can move least, else the one that costs most to move. Where
/// too few of the others find another place, that one goes as well.
fn thin_out(state: &mut State<'_, '_>, rule: usize, place: usize) -> Vec<Blocked> {
    let mut units = members_in(state, rule, place);
    units.sort_by_key(|&u| {
        let unit = &state.units[u];
        (unit.can_be_forced(), unit.is_free(), -unit.load.memory, u)
    });
    // The one that should stay is asked last.
    if !units.is_empty() {
        units.rotate_left(1);
    }
    let mut blocked = Vec::new();
    for unit in units {
        let here = members_in(state, rule, place);
        if here.len() > 1 && here.contains(&unit) {
            state.units[unit].parting = Some(rule);
            blocked.extend(force(state, unit, StepReason::RepairRule).unwrap_or_default());
            state.units[unit].parting = None;
        }
    }
    let rules = &state.model.rules;
    let name = &rules.apart[rule].name;
    let impossible = rules.faults.iter().any(|f| f.rules.contains(name));
    if impossible || members_in(state, rule, place).len() < 2 {
        blocked.clear();
    }
    blocked
}

/// The units with a member of an `apart` rule in a place, or on its way there.
fn members_in(state: &State<'_, '_>, rule: usize, place: usize) -> Vec<usize> {
    let apart = &state.model.rules.apart[rule];
    let units = apart.members.iter().map(|&guest| state.unit_of[guest]);
    let mut here: Vec<usize> = units
        .filter(|&unit| apart.place[state.at[unit]] == place)
        .collect();
    here.dedup();
    here
}

fn together(state: &mut State<'_, '_>) -> Vec<Blocked> {
    let mut blocked = Vec::new();
    for rule in 0..state.model.rules.together.len() {
        let group = &state.model.rules.together[rule];
        let hosts: Vec<usize> = group
            .members
            .iter()
            .map(|&g| state.at[state.unit_of[g]])
            .collect();
        let torn = hosts.windows(2).any(|w| w[0] != w[1]);
        let in_conflict = group
            .members
            .iter()
            .any(|&g| state.model.rules.conflict[g].is_some());
        if group.hard && torn && !in_conflict && !gather(state, rule) {
            let detail = format!("no host can take all {} guests", group.members.len());
            blocked.push(Blocked::rule(
                &group.name,
                BlockReason::RuleImpossible,
                detail,
            ));
        }
    }
    blocked
}

/// Brings a group together on the host where that costs least.
fn gather(state: &mut State<'_, '_>, rule: usize) -> bool {
    let mut units: Vec<usize> = state.model.rules.together[rule]
        .members
        .iter()
        .map(|&g| state.unit_of[g])
        .collect();
    units.sort_unstable();
    units.dedup();
    let mut best: Option<(f64, usize)> = None;
    for host in 0..state.model.hosts.len() {
        let before: Vec<usize> = units.iter().map(|&u| state.at[u]).collect();
        if let Some(score) = gather_on(state, &units, host)
            && best.is_none_or(|(most, _)| score > most)
        {
            best = Some((score, host));
        }
        for (&unit, &host) in units.iter().zip(&before) {
            state.apply(unit, host);
        }
    }
    let Some((_, host)) = best else { return false };
    for unit in units {
        if state.at[unit] != host {
            state.apply(unit, host);
            state.units[unit].forced = Some(StepReason::RepairRule);
        }
    }
    true
}

/// Moves all units to a host and says what that brings; stops where one cannot go.
fn gather_on(state: &mut State<'_, '_>, units: &[usize], host: usize) -> Option<f64> {
    let mut score = 0.0;
    for &unit in units {
        if state.at[unit] == host {
            continue;
        }
        if !state.units[unit].can_be_forced() || state.block(unit, host).is_some() {
            return None;
        }
        state.count();
        score += state.judge(unit, host)?.score;
        state.apply(unit, host);
    }
    Some(score)
}

/// More guests on a host than the policy allows.
fn crowds(state: &mut State<'_, '_>) -> Vec<Blocked> {
    let most = i64::from(state.model.policy.limits.max_guests_per_host);
    let mut blocked = Vec::new();
    if most == 0 {
        return blocked;
    }
    for host in 0..state.model.hosts.len() {
        while state.model.hosts[host].shape.present && state.loads[host].guests > most {
            if !send_one_away(state, host, 0, StepReason::RepairRule) {
                let name = &state.model.hosts[host].data.name;
                let detail = format!("{} guests, at most {most}", state.loads[host].guests);
                blocked.push(Blocked::host(name, BlockReason::NoCapacity, detail));
                break;
            }
        }
    }
    blocked
}

/// More memory allocated on a host than its limit.
fn memory(state: &mut State<'_, '_>) -> Vec<Blocked> {
    let mut blocked = Vec::new();
    for host in 0..state.model.hosts.len() {
        while state.model.hosts[host].shape.present && state.excess_memory(host) > 0 {
            let excess = state.excess_memory(host);
            if !send_one_away(state, host, excess, StepReason::RelieveMemory) {
                let name = &state.model.hosts[host].data.name;
                let detail = format!("{excess} MiB above its memory limit, and nothing can leave");
                blocked.push(Blocked::host(name, BlockReason::NoCapacity, detail));
                break;
            }
        }
    }
    blocked
}

/// Moves the unit away that costs least, those first that end the excess alone.
fn send_one_away(state: &mut State<'_, '_>, host: usize, excess: i64, reason: StepReason) -> bool {
    let mut best: Option<((bool, f64), usize, usize)> = None;
    for unit in state.members[host].clone() {
        let u = &state.units[unit];
        let torn = matches!(
            u.mobility,
            Mobility::ForcedOnly(BlockReason::RuleForbids, _)
        );
        if !u.can_be_forced() || torn || (excess > 0 && u.load.memory == 0) {
            continue;
        }
        let ends = u.load.memory >= excess;
        let Some(to) = best_target(state, unit) else {
            continue;
        };
        let Some(candidate) = state.judge(unit, to) else {
            continue;
        };
        let rank = (ends, candidate.score);
        if best.is_none_or(|(most, _, _)| rank > most) {
            best = Some((rank, unit, to));
        }
    }
    let Some((_, unit, to)) = best else {
        return false;
    };
    state.apply(unit, to);
    state.units[unit].forced = Some(reason);
    true
}
