//! Why, and why not: a plan's report, and the candidates of one guest.
//!
//! Everything here is data; the command line renders it. The judgement is the search's own
//! ([`crate::search`]), so that an explanation cannot disagree with a plan.

use serde::{Deserialize, Serialize};

use crate::model::{Mobility, Model, ShutOffGuests};
use crate::plan::{BlockReason, Plan};
use crate::policy::Policy;
use crate::search::State;
use crate::snapshot::Snapshot;

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
    pub candidates: Vec<CandidateReport>,
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

/// What one host would mean for a guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CandidateReport {
    /// The host.
    pub host: String,
    /// The first rule that forbids it, or that it does not pay; none when it is worth moving there.
    pub rejected: Option<Rejection>,
    /// Both hosts' loss as it is, guest-seconds per second; 0 where a rule forbids the target.
    pub loss_before: f64,
    /// Both hosts' loss after the move.
    pub loss_after: f64,
    /// Cost of the migration with its fixed price, guest-seconds.
    pub cost_guest_seconds: f64,
    /// Time until the move has paid its cost; none when it never does.
    pub payback_seconds: Option<f64>,
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

/// What every host would mean for one guest, as the fleet is now. `None` if there is no such guest.
///
/// The guest is found by name or UUID. A snapshot that does not validate has no guests.
#[must_use]
pub fn explain_guest(snapshot: &Snapshot, policy: &Policy, guest: &str) -> Option<GuestReport> {
    snapshot.validate().ok()?;
    let name = &snapshot.guest(guest)?.name;
    let model = Model::new(snapshot, policy, ShutOffGuests::Move);
    let start = model.homes();
    let state = State::new(&model, &start, 0);
    let at = model.guests.iter().position(|g| g.data.name == *name)?;
    Some(guest_report(&state, at))
}

/// A host as it is now, with the guests that weigh on it. `None` if there is no such host.
#[must_use]
pub fn explain_host(
    snapshot: &Snapshot,
    policy: &Policy,
    host: &str,
) -> Option<(HostReport, Vec<GuestReport>)> {
    snapshot.validate().ok()?;
    let model = Model::new(snapshot, policy, ShutOffGuests::Move);
    let start = model.homes();
    let state = State::new(&model, &start, 0);
    let at = model.hosts.iter().position(|h| h.data.name == host)?;
    let here = (0..start.len()).filter(|&g| start[g] == at);
    Some((
        host_report(&state, at),
        here.map(|g| guest_report(&state, g)).collect(),
    ))
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
    let mut ranked: Vec<(bool, f64, CandidateReport)> =
        others.map(|to| candidate(state, unit, to)).collect();
    ranked.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)));
    let held = match &state.units[unit].mobility {
        Mobility::Free => None,
        Mobility::ForcedOnly(reason, detail) | Mobility::Fixed(reason, detail) => Some(Rejection {
            host: String::new(),
            reason: *reason,
            detail: detail.clone(),
        }),
    };
    GuestReport {
        guest: model.guests[guest].data.name.clone(),
        host: model.hosts[here].data.name.clone(),
        moves_to: None,
        held,
        candidates: ranked.into_iter().map(|(_, _, report)| report).collect(),
    }
}

/// The candidate with its rank: whether the target is possible, and what it brings net.
fn candidate(state: &State<'_, '_>, unit: usize, to: usize) -> (bool, f64, CandidateReport) {
    let model = state.model;
    let host = model.hosts[to].data.name.clone();
    let mut report = CandidateReport {
        host: host.clone(),
        rejected: None,
        loss_before: 0.0,
        loss_after: 0.0,
        cost_guest_seconds: 0.0,
        payback_seconds: None,
    };
    let judged = match state.block(unit, to) {
        Some(block) => Err(block),
        None => state
            .judge(unit, to)
            .ok_or(crate::search::Block::NotConverging),
    };
    let found = match judged {
        Err(block) => {
            let (reason, detail) = state.words(block, unit, to);
            report.rejected = Some(Rejection {
                host,
                reason,
                detail,
            });
            return (false, 0.0, report);
        }
        Ok(found) => found,
    };
    let from = state.at[unit];
    let load = &state.units[unit].load;
    let loss = |h: usize, load: &crate::loss::Load| model.hosts[h].shape.loss(load);
    report.loss_before = loss(from, &state.loads[from]) + loss(to, &state.loads[to]);
    report.loss_after =
        loss(from, &state.loads[from].minus(load)) + loss(to, &state.loads[to].plus(load));
    report.cost_guest_seconds = found.cost;
    let rate = found.gain / model.payback.horizon_seconds;
    report.payback_seconds = (rate > 0.0).then(|| found.cost / rate);
    if !found.pays() {
        let detail = why_not(model, &found);
        report.rejected = Some(Rejection {
            host,
            reason: BlockReason::DoesNotPay,
            detail,
        });
    }
    (true, found.score, report)
}

fn why_not(model: &Model<'_>, found: &crate::search::Candidate) -> String {
    let minutes = model.payback.horizon_seconds / 60.0;
    let needed = model.payback.factor * found.cost;
    if found.gain > needed {
        return format!(
            "saves {:.1} guest-seconds in {minutes:.0} min, within its error of ±{:.1}",
            found.gain,
            crate::constants::STANDARD_ERRORS * found.error
        );
    }
    format!(
        "saves {:.1} guest-seconds in {minutes:.0} min, must save {needed:.1}",
        found.gain
    )
}
