//! From a snapshot to a plan: search, order, price, and look again until nothing more is found.
//!
//! The search is repeated from where its own plan ends, as the next cycle would. A plan is given out only
//! when that finds nothing more, so that carrying it out leaves nothing to do.

mod steps;

use crate::constants::NOTABLE_LOSS;
use crate::explain::{Explain, PlanReport};
use crate::loss::Load;
use crate::model::{Mobility, Model, ShutOffGuests, imbalance_of};
use crate::order::{Detours, Leg, Ordered, order};
use crate::plan::{BlockReason, Blocked, HostChange, Plan, SCHEMA, Step, StepReason};
use crate::policy::Policy;
use crate::search::{Annealing, Effort, Found, Purpose, State, search, without_unpaid};
use crate::snapshot::{GuestState, HostState, Snapshot};
use crate::surrogate::Variance;

/// Candidates per guest that all rounds together may evaluate where no budget is set: a safeguard. In a small fleet
/// each round that finds something anneals with [`ANNEALED_PER_GUEST`]; there are rarely more than two.
const MOST_PER_GUEST: u64 = 40_000;
/// Changes that annealing tries where no budget is set, times the fourth power of the number of guests: a small fleet is
/// where a single guest weighs most, and there is time for it.
const ANNEALED_TIMES_GUESTS_TO_THE_FOURTH: u64 = 24_000_000_000_000_000;
/// The least and the most per guest. More brings little: doubling it in a large fleet less than 1 % of the loss.
const ANNEALED_PER_GUEST: (u64, u64) = (40, 6_000);

/// How to plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where the random part of the search starts.
    pub seed: u64,
    /// Candidates to evaluate at most: a unit of work, not of time (about 0.1 µs each). The more, the better the
    /// plan. `None`: as many as bring most of it, in proportion to the fleet.
    pub budget: Option<u64>,
    /// Threads to search with; the plan does not depend on it.
    pub threads: usize,
    /// Steps to plan at most; what is left is found again by the next plan.
    pub max_moves: Option<usize>,
    /// How far to go.
    pub purpose: Purpose,
    /// Whether shut-off guests leave draining hosts.
    pub shut_off_guests: ShutOffGuests,
    /// Which variance the loss is computed with; anything but the default is for comparisons only.
    pub variance: Variance,
    /// How much the report explains.
    pub explain: Explain,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 0,
            budget: None,
            threads: 1,
            max_moves: None,
            purpose: Purpose::Balance,
            shut_off_guests: ShutOffGuests::Stay,
            variance: Variance::Estimated,
            explain: Explain::Brief,
        }
    }
}

/// Searches from the plan's own end at most so often; each time finds less.
const MAX_ROUNDS: usize = 8;

/// Plans: what to move where, in which order, what it is worth, and what stands in the way.
///
/// Deterministic: the same arguments give the same plan, bit for bit. Time is the snapshot's `taken_at`.
/// A snapshot that does not validate gives an empty plan that says so: nothing is done on a guess.
#[must_use]
pub fn plan(snapshot: &Snapshot, policy: &Policy, options: &Options) -> (Plan, PlanReport) {
    if let Err(error) = snapshot.validate() {
        return (
            unusable(snapshot, &error.to_string()),
            PlanReport::default(),
        );
    }
    let model =
        Model::new(snapshot, policy, options.shut_off_guests).under(options.variance, snapshot);
    let start = model.homes();
    let route = route(&model, &start, options);
    let mut legs = route.ordered.legs;
    if let Some(most) = options.max_moves {
        legs = cut_short(&model, &start, legs, &route.forced, most);
    }
    let (steps, loads) = steps::price(&model, &start, &legs, &route.forced);
    let before = State::new(&model, &start, 0);
    let mut blocked = standing(&model, &before);
    blocked.extend(route.blocked);
    let mut seen = std::collections::BTreeSet::new();
    blocked.retain(|b| seen.insert((b.guest.clone(), b.host.clone(), b.rule.clone(), b.reason)));
    let total = |loads: &[Load]| -> f64 {
        model
            .hosts
            .iter()
            .zip(loads)
            .map(|(h, load)| h.shape.loss(load))
            .sum()
    };
    let mut plan = Plan {
        schema: SCHEMA.to_owned(),
        id: String::new(),
        cluster: snapshot.cluster.clone(),
        loss_before: total(&before.loads),
        loss_after: total(&loads),
        horizon_seconds: model.payback.horizon_seconds,
        imbalance_before: imbalance_of(&model.hosts, &before.loads),
        imbalance_after: imbalance_of(&model.hosts, &loads),
        hosts: changes(&model, &before.loads, &loads, &steps),
        steps,
        blocked,
    };
    plan.seal();
    let report = PlanReport::of(&before, &plan, options.explain, route.evaluations);
    (plan, report)
}

fn unusable(snapshot: &Snapshot, why: &str) -> Plan {
    let mut plan = Plan {
        schema: SCHEMA.to_owned(),
        id: String::new(),
        cluster: snapshot.cluster.clone(),
        loss_before: 0.0,
        loss_after: 0.0,
        horizon_seconds: 0.0,
        imbalance_before: 0.0,
        imbalance_after: 0.0,
        steps: Vec::new(),
        blocked: vec![Blocked {
            guest: None,
            host: None,
            rule: None,
            reason: BlockReason::StaleData,
            detail: why.to_owned(),
        }],
        hosts: Vec::new(),
    };
    plan.seal();
    plan
}

/// What all rounds together found.
struct Route {
    ordered: Ordered,
    forced: Vec<Option<StepReason>>,
    blocked: Vec<Blocked>,
    evaluations: u64,
}

fn route(model: &Model<'_>, start: &[usize], options: &Options) -> Route {
    let mut forced = vec![None; model.guests.len()];
    let mut all = Ordered::nothing(start);
    let mut blocked = Vec::new();
    let mut evaluations = 0;
    let mut rounds = 0;
    let budget = options.budget.unwrap_or(MOST_PER_GUEST * guests(model));
    while rounds < MAX_ROUNDS {
        rounds += 1;
        let effort = Effort {
            purpose: options.purpose,
            budget: budget.saturating_sub(evaluations),
            annealing: annealing(model, options),
        };
        let mut found = search(model, &all.end, effort);
        evaluations += found.evaluations;
        blocked = std::mem::take(&mut found.blocked);
        let ordered = realise(model, &all.end, &found);
        blocked.extend(given_up(model, &found, &ordered));
        if ordered.legs.is_empty() {
            break;
        }
        for (known, new) in forced.iter_mut().zip(&found.forced) {
            *known = known.or(*new);
        }
        append(&mut all, ordered);
    }
    if rounds > 2 {
        all = shorten(model, start, all, &forced);
    }
    // Each round pays by itself; what is left of them after they were shortened has to as well.
    let must = all.legs.iter().any(|leg| forced[leg.guest].is_some());
    if !must && !all.legs.is_empty() && steps::score(model, start, &all) <= 0.0 {
        all = Ordered::nothing(start);
    }
    Route {
        ordered: all,
        forced,
        blocked,
        evaluations,
    }
}

/// What annealing may take. Each round has the same, so that the last one sees what the next plan would.
fn annealing(model: &Model<'_>, options: &Options) -> Annealing {
    let most = match options.budget {
        Some(_) => u64::MAX,
        None => {
            let (least, most) = ANNEALED_PER_GUEST;
            let guests = guests(model);
            (ANNEALED_TIMES_GUESTS_TO_THE_FOURTH / guests.saturating_pow(4).max(1))
                .clamp(least * guests, most * guests)
        }
    };
    Annealing {
        seed: options.seed,
        most,
        threads: options.threads,
    }
}

fn guests(model: &Model<'_>) -> u64 {
    u64::try_from(model.guests.len()).unwrap_or(u64::MAX)
}

/// Appends the waves of a later round.
fn append(all: &mut Ordered, later: Ordered) {
    let waves = all.legs.last().map_or(0, |leg| leg.wave);
    all.legs.extend(later.legs.into_iter().map(|leg| Leg {
        wave: leg.wave + waves,
        ..leg
    }));
    all.end = later.end;
}

/// Orders the whole way from start to end anew: a guest that moved twice may go there at once.
fn shorten(
    model: &Model<'_>,
    start: &[usize],
    all: Ordered,
    forced: &[Option<StepReason>],
) -> Ordered {
    let state = State::new(model, start, 0);
    let is_forced: Vec<bool> = forced.iter().map(Option::is_some).collect();
    let direct = order(&state, &all.end, &is_forced, Detours::Refused);
    if direct.complete && direct.legs.len() <= all.legs.len() {
        direct
    } else {
        all
    }
}

/// Orders what a search found; gives up what cannot be ordered, and what then does not pay any more. Where that is much,
/// what was found before annealing may be worth more: it was reached by moves that each fitted.
fn realise(model: &Model<'_>, start: &[usize], found: &Found) -> Ordered {
    let state = State::new(model, start, 0);
    let forced: Vec<bool> = found.forced.iter().map(Option::is_some).collect();
    let direct = order(&state, &found.placement, &forced, Detours::Refused);
    if direct.complete {
        return direct;
    }
    let detoured = order(&state, &found.placement, &forced, Detours::Allowed);
    let reduced = without_unpaid(model, start, &direct.end, &found.forced);
    let mut ways = vec![order(&state, &reduced, &forced, Detours::Refused)];
    if let Some(unannealed) = &found.unannealed {
        ways.push(order(&state, unannealed, &forced, Detours::Refused));
        ways.push(order(&state, unannealed, &forced, Detours::Allowed));
    }
    ways.push(detoured);
    let moved_forced = |o: &Ordered| {
        let moved = |&g: &usize| forced[g] && o.end[g] != start[g];
        (0..forced.len()).filter(moved).count()
    };
    let rank = |o: &Ordered| (moved_forced(o), steps::score(model, start, o));
    let mut best = ways.swap_remove(0);
    for way in ways.into_iter().filter(|way| way.complete) {
        let (a, b) = (rank(&best), rank(&way));
        if b.0 > a.0 || (b.0 == a.0 && b.1 > a.1) {
            best = way;
        }
    }
    best
}

/// The first legs, at most `most`, without those that do not pay now that the rest is missing: room for
/// somebody who does not come, half an exchange. Room for a forced move is kept.
fn cut_short(
    model: &Model<'_>,
    start: &[usize],
    mut legs: Vec<Leg>,
    forced: &[Option<StepReason>],
    most: usize,
) -> Vec<Leg> {
    let keep = steps::whole_groups(model, &legs, most);
    let missing = legs.split_off(keep);
    let mut forced = forced.to_vec();
    let mut end = start.to_vec();
    for leg in &legs {
        end[leg.guest] = leg.to;
        let waits = |m: &Leg| m.to == leg.from && forced[m.guest].is_some();
        if missing.iter().any(waits) {
            forced[leg.guest].get_or_insert(StepReason::MakeRoom);
        }
    }
    if missing.is_empty() {
        return legs;
    }
    let paying = without_unpaid(model, start, &end, &forced);
    let is_forced: Vec<bool> = forced.iter().map(Option::is_some).collect();
    let ordered = order(
        &State::new(model, start, 0),
        &paying,
        &is_forced,
        Detours::Refused,
    );
    if paying == end || !ordered.complete {
        legs
    } else {
        ordered.legs
    }
}

/// Guests that have to move and have a place to go, but no way there.
fn given_up<'s>(
    model: &'s Model<'_>,
    found: &'s Found,
    ordered: &'s Ordered,
) -> impl Iterator<Item = Blocked> + 's {
    let stays = |&g: &usize| found.forced[g].is_some() && ordered.end[g] != found.placement[g];
    (0..found.placement.len()).filter(stays).map(|g| {
        let to = &model.hosts[found.placement[g]].data.name;
        let detail = format!("should go to {to}, but no order of moves fits");
        Blocked::guest(&model.guests[g].data.name, BlockReason::NoCapacity, detail)
    })
}

/// What stands in the way whatever is planned: rules that cannot be fulfilled, guests that cannot move.
fn standing(model: &Model<'_>, state: &State<'_, '_>) -> Vec<Blocked> {
    let mut blocked: Vec<Blocked> = model
        .rules
        .faults
        .iter()
        .flat_map(|f| f.blocked())
        .collect();
    for (guest, why) in &model.strays {
        blocked.push(Blocked::guest(guest, BlockReason::StaleData, why.as_str()));
    }
    for (at, host) in model.hosts.iter().enumerate() {
        if host.data.state == HostState::Absent && !state.members[at].is_empty() {
            let detail = format!("is silent, with {} guests", state.loads[at].guests);
            blocked.push(Blocked::host(
                &host.data.name,
                BlockReason::HostAbsent,
                detail,
            ));
        }
    }
    for (at, guest) in model.guests.iter().enumerate() {
        let host = &model.hosts[guest.home];
        let hot = host.shape.loss(&state.loads[guest.home]) > NOTABLE_LOSS;
        let name = &guest.data.name;
        match &guest.mobility {
            Mobility::Fixed(BlockReason::HostAbsent | BlockReason::InFlight, _) => {}
            Mobility::Fixed(BlockReason::ShutOff, detail) => {
                if host.data.state == HostState::Draining {
                    blocked.push(Blocked::guest(name, BlockReason::ShutOff, detail.as_str()));
                }
            }
            Mobility::Fixed(reason, detail) => {
                blocked.push(Blocked::guest(name, *reason, detail.as_str()))
            }
            Mobility::ForcedOnly(reason, detail) => {
                if hot && guest.data.state == GuestState::Running {
                    blocked.push(Blocked::guest(name, *reason, detail.as_str()));
                }
            }
            Mobility::Free => blocked.extend(hot.then(|| pinned(model, at)).flatten()),
        }
    }
    blocked
}

/// A guest whose pins leave no host but its own.
fn pinned(model: &Model<'_>, guest: usize) -> Option<Blocked> {
    let home = model.guests[guest].home;
    let others = || (0..model.hosts.len()).filter(|&h| h != home && model.hosts[h].takes);
    let pin = others()
        .map(|h| model.rules.pin_against(guest, h))
        .collect::<Option<Vec<_>>>()?;
    let rule = pin.first()?;
    let name = &model.guests[guest].data.name;
    Some(Blocked::guest(
        name,
        BlockReason::Pinned,
        format!("{rule} holds it on {}", model.hosts[home].data.name),
    ))
}

fn changes(model: &Model<'_>, before: &[Load], after: &[Load], steps: &[Step]) -> Vec<HostChange> {
    let touched: std::collections::BTreeSet<&str> = steps
        .iter()
        .flat_map(|s| [s.from.as_str(), s.to.as_str()])
        .collect();
    let hosts = model.hosts.iter().zip(before.iter().zip(after));
    hosts
        .filter(|(host, _)| touched.contains(host.data.name.as_str()))
        .map(|(host, (before, after))| HostChange {
            host: host.data.name.clone(),
            loss_before: host.shape.loss(before),
            loss_after: host.shape.loss(after),
            cpu_utilisation_before: host.shape.cpu_utilisation(before),
            cpu_utilisation_after: host.shape.cpu_utilisation(after),
            memory_utilisation_before: host.shape.memory_utilisation(before),
            memory_utilisation_after: host.shape.memory_utilisation(after),
        })
        .collect()
}

/// One migration by itself, priced.
pub(crate) fn price_one(
    model: &Model<'_>,
    start: &[usize],
    guest: usize,
    to: usize,
    reason: StepReason,
) -> Step {
    let leg = Leg {
        wave: 1,
        guest,
        from: start[guest],
        to,
        detour: false,
    };
    steps::one(model, start, &leg, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Guest, Host};

    #[test]
    fn a_forced_move_that_cannot_be_ordered_is_named() {
        let mut snapshot = Snapshot::new("test", jiff::Timestamp::UNIX_EPOCH);
        for (host, guest) in [("h1", "a"), ("h2", "b")] {
            snapshot.hosts.push(Host {
                name: host.into(),
                cpu_cores: 4.0,
                memory_mib: 1000,
                ..Host::default()
            });
            snapshot.guests.push(Guest {
                name: guest.into(),
                host: host.into(),
                memory_mib: 800,
                ..Guest::default()
            });
        }
        let policy = Policy::default();
        let model = Model::new(&snapshot, &policy, ShutOffGuests::Stay);
        // Two full hosts and no third one: neither guest can go first.
        let found = Found {
            placement: vec![1, 0],
            forced: vec![Some(StepReason::RepairRule), None],
            ..Found::default()
        };
        let ordered = realise(&model, &model.homes(), &found);
        assert_eq!(ordered.legs, []);
        let named: Vec<Blocked> = given_up(&model, &found, &ordered).collect();
        let detail = "should go to h2, but no order of moves fits";
        assert_eq!(
            named,
            [Blocked::guest("a", BlockReason::NoCapacity, detail)]
        );
    }
}
