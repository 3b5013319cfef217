//! The answer to a question about one guest, host or move.
//!
//! The plan is made first; then every candidate is judged as the search judged it last: with all other steps of
//! the plan carried out, the guest itself where it is now.

use std::collections::BTreeMap;

use super::document::{
    Candidate, Explanation, GuestExplanation, HostExplanation, MoveExplanation, PlanFrame,
    RejectedCount, RunnerUp, SCHEMA, Subject, Verdict,
};
use super::judge::{candidate, ranked, score};
use super::replay::{Replayed, replay};
use super::{held, host_report};
use crate::model::Model;
use crate::plan::{Blocked, Plan};
use crate::planning::{Options, plan};
use crate::policy::Policy;
use crate::search::State;
use crate::snapshot::{Snapshot, SnapshotError};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// Nothing can be concluded from the snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// There is no such guest.
    #[error("no guest {0:?}")]
    NoGuest(String),
    /// There is no such host.
    #[error("no host {0:?}")]
    NoHost(String),
}

/// Candidates that are told of each guest of a host.
const TOLD: usize = 3;

/// Explains a guest, a host or a move by the plan that the fleet would get now.
///
/// Deterministic as the plan is.
///
/// # Errors
/// When the snapshot does not validate, or the guest or host is not in it.
pub fn explain(
    snapshot: &Snapshot,
    policy: &Policy,
    options: &Options,
    about: &Subject,
) -> Result<Explanation, ExplainError> {
    snapshot.validate()?;
    let model =
        Model::new(snapshot, policy, options.shut_off_guests).under(options.variance, snapshot);
    let (found, _) = plan(snapshot, policy, options);
    let view = View::new(&model, &found);
    let (host, guests) = match about {
        Subject::Guest { name } => {
            let guest = view.guest(snapshot, name)?;
            (None, vec![view.explain(guest, None, usize::MAX)])
        }
        Subject::Move { guest, target } => {
            let guest = view.guest(snapshot, guest)?;
            let to = target.as_deref().map(|name| view.host(name)).transpose()?;
            (None, vec![view.explain(guest, to, 1)])
        }
        Subject::Host { name } => {
            let host = view.host(name)?;
            let here = (0..model.guests.len()).filter(|&g| view.start[g] == host);
            let guests = here.map(|g| view.explain(g, None, TOLD)).collect();
            (Some(view.explain_host(host)), guests)
        }
    };
    Ok(Explanation {
        schema: SCHEMA.to_owned(),
        cluster: snapshot.cluster.clone(),
        taken_at: snapshot.taken_at,
        about: about.clone(),
        plan: PlanFrame {
            id: found.id.clone(),
            steps: found.steps.len(),
            loss_before: found.loss_before,
            loss_after: found.loss_after,
            horizon_seconds: model.payback.horizon_seconds,
            payback_factor: model.payback.factor,
        },
        host,
        guests,
    })
}

/// A fleet with its plan.
struct View<'m, 'a> {
    model: &'m Model<'a>,
    plan: &'m Plan,
    first: State<'m, 'a>,
    start: Vec<usize>,
    end: Vec<usize>,
    moves: Vec<Replayed>,
}

impl<'m, 'a> View<'m, 'a> {
    fn new(model: &'m Model<'a>, plan: &'m Plan) -> Self {
        let start = model.homes();
        let first = State::new(model, &start, u64::MAX);
        let moves = replay(model, &start, &first.first_slopes, plan);
        let mut end = start.clone();
        for step in &moves {
            end[step.guest] = step.to;
        }
        Self {
            model,
            plan,
            first,
            start,
            end,
            moves,
        }
    }

    fn guest(&self, snapshot: &Snapshot, name: &str) -> Result<usize, ExplainError> {
        let none = || ExplainError::NoGuest(name.to_owned());
        let found = snapshot.guest(name).ok_or_else(none)?;
        let mut guests = self.model.guests.iter();
        let at = guests.position(|g| g.data.name == found.name);
        at.ok_or_else(none)
    }

    fn host(&self, name: &str) -> Result<usize, ExplainError> {
        let mut hosts = self.model.hosts.iter();
        let found = hosts.position(|h| h.data.name == name);
        found.ok_or_else(|| ExplainError::NoHost(name.to_owned()))
    }

    /// The fleet after the plan, but with these guests where they are now. What copying costs is judged by
    /// the fleet as it is, as in the plan.
    fn without(&self, guests: &[usize]) -> State<'m, 'a> {
        let mut placement = self.end.clone();
        for &guest in guests {
            placement[guest] = self.start[guest];
        }
        let mut state = State::new(self.model, &placement, u64::MAX);
        state.first_slopes.clone_from(&self.first.first_slopes);
        state
    }

    /// A guest on all hosts or one, with at most so many candidates told.
    fn explain(&self, guest: usize, only: Option<usize>, most: usize) -> GuestExplanation {
        let mates = &self.first.units[self.first.unit_of[guest]].guests;
        let state = self.without(mates);
        let unit = state.unit_of[guest];
        let here = self.start[guest];
        let others = (0..self.model.hosts.len()).filter(|&h| h != here);
        let candidates = ranked(others.map(|to| self.candidate(&state, guest, to)).collect());
        let rejected = counts(&candidates);
        let moves = self.moves_of(guest, &candidates);
        let all = candidates.len();
        let wanted = |c: &Candidate| only.is_none_or(|to| self.model.hosts[to].data.name == c.host);
        let told: Vec<Candidate> = candidates.into_iter().filter(wanted).take(most).collect();
        let data = self.model.guests[guest].data;
        let mates = state.units[unit].guests.iter().filter(|g| **g != guest);
        GuestExplanation {
            guest: data.name.clone(),
            uuid: data.uuid.clone(),
            host: self.model.hosts[here].data.name.clone(),
            moves_with: mates
                .map(|&g| self.model.guests[g].data.name.clone())
                .collect(),
            held: held(&state, unit),
            moves,
            hosts_left_out: all - told.len(),
            candidates: told,
            rejected,
        }
    }

    fn candidate(&self, state: &State<'_, '_>, guest: usize, to: usize) -> Candidate {
        let mut found = candidate(state, state.unit_of[guest], to);
        if !self.plan.steps.is_empty() {
            let now = candidate(&self.first, self.first.unit_of[guest], to).judgement;
            let reason = |j: &super::Judgement| j.rejected.as_ref().map(|r| r.reason);
            let differs =
                now.verdict != found.judgement.verdict || reason(&now) != reason(&found.judgement);
            found.before_plan = differs.then_some(now);
        }
        if self.end[guest] == to {
            found.judgement.verdict = Verdict::Planned;
            found.judgement.rejected = None;
        }
        found
    }

    /// The steps of a guest; the last, which brings it to its place, with its runner-up.
    fn moves_of(&self, guest: usize, candidates: &[Candidate]) -> Vec<MoveExplanation> {
        let own = self.moves.iter().filter(|m| m.guest == guest);
        let mut moves: Vec<MoveExplanation> = own.map(|m| m.explained.clone()).collect();
        let is_planned = |c: &&Candidate| c.judgement.verdict == Verdict::Planned;
        let possible = || candidates.iter().filter(|c| c.judgement.effect.is_some());
        let chosen = possible().find(is_planned);
        let other = possible()
            .filter(|c| !is_planned(c))
            .max_by(|a, b| score(a).total_cmp(&score(b)));
        if let (Some(last), Some(chosen), Some(other)) = (moves.last_mut(), chosen, other) {
            last.runner_up = Some(RunnerUp {
                host: other.host.clone(),
                worse_guest_seconds: score(chosen) - score(other),
            });
        }
        moves
    }

    fn explain_host(&self, host: usize) -> HostExplanation {
        let data = self.model.hosts[host].data;
        let after = State::new(self.model, &self.end, u64::MAX);
        let steps = self.moves.iter().map(|m| &m.explained);
        let touching = steps.filter(|m| m.step.from == data.name || m.step.to == data.name);
        let about_it = |b: &&Blocked| b.host.as_ref() == Some(&data.name);
        HostExplanation {
            host: data.name.clone(),
            state: data.state.as_str().to_owned(),
            cpu_cores: data.cpu_cores,
            memory_mib: data.memory_mib,
            before: host_report(&self.first, host),
            after: host_report(&after, host),
            moves: touching.cloned().collect(),
            blocked: self.plan.blocked.iter().filter(about_it).cloned().collect(),
        }
    }
}

/// How many hosts are refused for which reason, most frequent first.
fn counts(candidates: &[Candidate]) -> Vec<RejectedCount> {
    let mut by_reason = BTreeMap::new();
    let rejections = candidates
        .iter()
        .filter_map(|c| c.judgement.rejected.as_ref());
    for rejection in rejections {
        *by_reason.entry(rejection.reason).or_insert(0_usize) += 1;
    }
    let mut counts: Vec<RejectedCount> = by_reason
        .into_iter()
        .map(|(reason, hosts)| RejectedCount { reason, hosts })
        .collect();
    counts.sort_by_key(|count| std::cmp::Reverse(count.hosts));
    counts
}
