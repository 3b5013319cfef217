//! Why, and why not: a plan's report, and the answer to a question about one guest, host or move.
//!
//! Everything here is data; the command line renders it. The judgement is the search's own
//! ([`crate::search`]), so that an explanation cannot disagree with a plan.

mod answer;
mod document;
mod judge;
mod replay;
mod words;

use serde::{Deserialize, Serialize};

use crate::model::Mobility;
use crate::plan::{BlockReason, Plan};
use crate::search::State;

pub use answer::{ExplainError, explain};
pub use document::{
    Candidate, CostReport, Effect, Explanation, GuestExplanation, HostEffect, HostExplanation,
    Judgement, MoveExplanation, PlanFrame, RejectedCount, RunnerUp, SCHEMA, Subject, Verdict,
};

/// How much a report explains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Explain {
    /// Hosts, and the best alternatives of the guests that move.
    #[default]
    Brief,
    /// Every guest on every host: guests × hosts entries.
    Full,
}

/// What a plan was made from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PlanReport {
    /// Candidates that the search evaluated.
    pub evaluations: u64,
    /// Per host, by name.
    pub hosts: Vec<HostReport>,
    /// Per guest, by name; in a brief report only those that move.
    pub guests: Vec<GuestReport>,
}

/// A host before the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostReport {
    /// The host's name.
    pub host: String,
    /// Expected CPU contention, guest-seconds per second.
    pub cpu_loss: f64,
    /// Loss for want of memory, guest-seconds per second.
    pub memory_loss: f64,
    /// Mean CPU demand of its guests, cores.
    pub demand_cores: f64,
    /// Chance that a runnable vCPU waits: what one more core of demand costs there.
    pub marginal_loss: f64,
    /// Memory below its limit, MiB; negative when above.
    pub free_memory_mib: i64,
    /// Guests on it.
    pub guests: i64,
}

/// A guest, and what each host would mean for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuestReport {
    /// The guest's name.
    pub guest: String,
    /// Where it is.
    pub host: String,
    /// Where the plan brings it, if it moves.
    pub moves_to: Option<String>,
    /// Why it is not moved for gain, whatever the target.
    pub held: Option<Rejection>,
    /// Per host, those that could take it first, best first.
    pub candidates: Vec<Candidate>,
}

/// A named reason with the number or name that decided; `host` is empty when no target is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// The target.
    #[serde(default)]
    pub host: String,
    /// The named reason.
    pub reason: BlockReason,
    /// What decided.
    pub detail: String,
}

/// Hosts that a brief report looks at per guest: those that would take demand at the least loss.
const BRIEF_CANDIDATES: usize = 5;

impl PlanReport {
    pub(crate) fn of(
        state: &State<'_, '_>,
        plan: &Plan,
        explain: Explain,
        evaluations: u64,
    ) -> Self {
        let model = state.model;
        let hosts = (0..model.hosts.len())
            .map(|h| host_report(state, h))
            .collect();
        let mut goes: std::collections::BTreeMap<&str, &str> = std::collections::BTreeMap::new();
        for step in &plan.steps {
            goes.insert(&step.guest, &step.to);
        }
        let mut guests = Vec::new();
        for (at, guest) in model.guests.iter().enumerate() {
            let to = goes.get(guest.data.name.as_str()).map(|&to| to.to_owned());
            if explain == Explain::Full || to.is_some() {
                let report = match explain {
                    Explain::Full => guest_report(state, at),
                    Explain::Brief => {
                        let cheapest = state.targets.iter().map(|&(_, host)| host);
                        report_on(state, at, cheapest.take(BRIEF_CANDIDATES))
                    }
                };
                guests.push(GuestReport {
                    moves_to: to,
                    ..report
                });
            }
        }
        Self {
            evaluations,
            hosts,
            guests,
        }
    }
}

fn host_report(state: &State<'_, '_>, host: usize) -> HostReport {
    let (model, load) = (&state.model.hosts[host], &state.loads[host]);
    HostReport {
        host: model.data.name.clone(),
        cpu_loss: model.shape.cpu_loss(load),
        memory_loss: model.shape.memory_loss(load),
        demand_cores: load.demand,
        marginal_loss: model.shape.cpu_slope(load),
        free_memory_mib: state.free_memory(host),
        guests: load.guests,
    }
}

fn guest_report(state: &State<'_, '_>, guest: usize) -> GuestReport {
    report_on(state, guest, 0..state.model.hosts.len())
}

/// The report of a guest on these hosts, its own left out.
fn report_on(
    state: &State<'_, '_>,
    guest: usize,
    hosts: impl Iterator<Item = usize>,
) -> GuestReport {
    let model = state.model;
    let unit = state.unit_of[guest];
    let here = state.at[unit];
    let others = hosts.filter(|&h| h != here);
    let candidates = others.map(|to| judge::candidate(state, unit, to));
    GuestReport {
        guest: model.guests[guest].data.name.clone(),
        host: model.hosts[here].data.name.clone(),
        moves_to: None,
        held: held(state, unit),
        candidates: judge::ranked(candidates.collect()),
    }
}

/// Why a unit is not moved for gain, whatever the target.
fn held(state: &State<'_, '_>, unit: usize) -> Option<Rejection> {
    let (reason, detail) = match &state.units[unit].mobility {
        Mobility::Free if state.model.payback.balances => return None,
        Mobility::Free => (
            BlockReason::DoesNotPay,
            "aggressiveness 1: only drains, must-rules and memory above its limit".to_owned(),
        ),
        Mobility::ForcedOnly(reason, detail) | Mobility::Fixed(reason, detail) => {
            (*reason, detail.clone())
        }
    };
    Some(Rejection {
        host: String::new(),
        reason,
        detail,
    })
}
