//! One guest on one host, in the search's own judgement, with all its numbers.

use super::Rejection;
use super::document::{Candidate, CostReport, Effect, HostEffect, Judgement, Verdict};
use crate::constants::STANDARD_ERRORS;
use crate::loss::Load;
use crate::model::{HostModel, Model};
use crate::num::from_count;
use crate::plan::BlockReason;
use crate::precopy::{CostParts, cost_parts};
use crate::search::{Block, Candidate as Found, State};

/// What a host would mean for a unit.
pub(super) fn candidate(state: &State<'_, '_>, unit: usize, to: usize) -> Candidate {
    Candidate {
        host: state.model.hosts[to].data.name.clone(),
        judgement: judgement(state, unit, to),
        before_plan: None,
    }
}

/// The planned one first, then what pays, what is possible by its score, and what is not by its name.
pub(super) fn ranked(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    let group = |c: &Candidate| match c.judgement.verdict {
        Verdict::Planned => 0,
        Verdict::Pays => 1,
        Verdict::DoesNotPay => 2,
        Verdict::Impossible => 3,
    };
    candidates.sort_by(|a, b| {
        let by_score = score(b).total_cmp(&score(a));
        let by_name = || a.host.cmp(&b.host);
        group(a).cmp(&group(b)).then(by_score).then_with(by_name)
    });
    candidates
}

/// What candidates are ranked by; 0 for those that are impossible.
pub(super) fn score(candidate: &Candidate) -> f64 {
    let effect = candidate.judgement.effect.as_ref();
    effect.map_or(0.0, |effect| effect.score_guest_seconds)
}

fn judgement(state: &State<'_, '_>, unit: usize, to: usize) -> Judgement {
    let model = state.model;
    let reject = |(reason, detail): (BlockReason, String)| Rejection {
        host: model.hosts[to].data.name.clone(),
        reason,
        detail,
    };
    let impossible = |block| Judgement {
        verdict: Verdict::Impossible,
        rejected: Some(reject(state.words(block, unit, to))),
        effect: None,
    };
    if let Some(block) = state.block_for_gain(unit, to) {
        return impossible(block);
    }
    let Some(found) = state.judge(unit, to) else {
        return impossible(Block::NotConverging);
    };
    let pays = found.pays();
    let why_not = || reject((BlockReason::DoesNotPay, why_not(model, &found)));
    Judgement {
        verdict: if pays {
            Verdict::Pays
        } else {
            Verdict::DoesNotPay
        },
        rejected: (!pays).then(why_not),
        effect: Some(effect(state, unit, to, &found)),
    }
}

fn why_not(model: &Model<'_>, found: &Found) -> String {
    let minutes = model.payback.horizon_seconds / 60.0;
    let needed = model.payback.factor * found.cost;
    // Never minus zero.
    let gain = if found.gain.abs() < 0.05 {
        0.0
    } else {
        found.gain
    };
    if found.gain > needed {
        let error = STANDARD_ERRORS * found.error;
        return format!(
            "saves {gain:.1} guest-seconds in {minutes:.0} min, within its error of ±{error:.1}"
        );
    }
    format!("saves {gain:.1} guest-seconds in {minutes:.0} min, must save {needed:.1}")
}

fn effect(state: &State<'_, '_>, unit: usize, to: usize, found: &Found) -> Effect {
    let model = state.model;
    let (from, load) = (state.at[unit], &state.units[unit].load);
    let (left, joined) = (state.loads[from].minus(load), state.loads[to].plus(load));
    let source = host_effect(&model.hosts[from], &state.loads[from], &left);
    let target = host_effect(&model.hosts[to], &state.loads[to], &joined);
    let loss_before = source.loss_before() + target.loss_before();
    let loss_after = source.loss_after() + target.loss_after();
    let rate = found.gain / model.payback.horizon_seconds;
    let (cost, copies) = cost(state, unit, to);
    Effect {
        source,
        target,
        loss_before,
        loss_after,
        saves_guest_seconds_per_hour: (loss_before - loss_after) * 3600.0,
        gain_guest_seconds: found.gain,
        needed_guest_seconds: model.payback.factor * found.cost,
        error_guest_seconds: found.error,
        score_guest_seconds: found.score,
        cost,
        payback_seconds: (rate > 0.0).then(|| found.cost / rate),
        copy_seconds: copies.seconds,
        downtime_seconds: copies.downtime,
        bytes: copies.bytes,
    }
}

/// What the copies of a unit's guests take together.
#[derive(Default)]
struct Copies {
    seconds: f64,
    downtime: f64,
    bytes: u64,
}

fn cost(state: &State<'_, '_>, unit: usize, to: usize) -> (CostReport, Copies) {
    let model = state.model;
    let home = state.units[unit].home;
    let slopes = (state.first_slopes[home], state.first_slopes[to]);
    let mut parts = CostParts::default();
    let mut copies = Copies::default();
    for &guest in &state.units[unit].guests {
        let (copy, bandwidth) = model.precopy(guest, home, to);
        let more = cost_parts(model.guests[guest].data, &copy, bandwidth, slopes);
        parts.pause += more.pause;
        parts.brown_out += more.brown_out;
        parts.copy_cpu += more.copy_cpu;
        copies.seconds += copy.copy_seconds;
        copies.downtime = copies.downtime.max(copy.downtime_seconds);
        copies.bytes = copies.bytes.saturating_add(copy.bytes);
    }
    let moves = from_count(state.units[unit].guests.len());
    let price = moves * model.policy.price.migration_guest_seconds;
    (cost_report(&parts, price), copies)
}

pub(super) fn cost_report(parts: &CostParts, price: f64) -> CostReport {
    CostReport {
        pause: parts.pause,
        brown_out: parts.brown_out,
        copy_cpu: parts.copy_cpu,
        price,
        total: parts.total() + price,
    }
}

pub(super) fn host_effect(host: &HostModel<'_>, before: &Load, after: &Load) -> HostEffect {
    HostEffect {
        host: host.data.name.clone(),
        cpu_loss_before: host.shape.cpu_loss(before),
        cpu_loss_after: host.shape.cpu_loss(after),
        memory_loss_before: host.shape.memory_loss(before),
        memory_loss_after: host.shape.memory_loss(after),
        demand_cores_before: before.demand,
        demand_cores_after: after.demand,
        cpu_cores: host.shape.cores,
        memory_mib_before: before.memory,
        memory_mib_after: after.memory,
        memory_mib: host.data.memory_mib,
    }
}
