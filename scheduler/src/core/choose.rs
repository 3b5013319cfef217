//! Which steps of a plan start now. A plan is a recommendation; this is the last look before an order.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use evenkeel_planner::{LastLook, Limits, Plan, Policy, Purpose, Step, StepReason};
use evenkeel_types::{MigrationState, Outcome};

use super::{Assessment, Hold, millis};
use crate::observe::Fleet;

/// What came of a plan.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Steps to be ordered now, all of the first wave.
    pub start: Vec<Step>,
    /// Steps that are not, and why.
    pub postponed: Vec<(Step, Postponed)>,
}

/// Why a step of the plan does not start now.
#[derive(Debug, Clone, PartialEq)]
pub enum Postponed {
    /// Automatic moves are held back.
    Held(Hold),
    /// An earlier wave comes first; the next cycle plans again.
    LaterWave,
    /// The hot spot has not lasted long enough.
    HoldTime {
        /// How much longer it must last.
        left: Duration,
    },
    /// A guest left or reached this host a moment ago: what is measured there is still settling.
    Settling {
        /// The host.
        host: String,
        /// How much longer.
        left: Duration,
    },
    /// As many migrations as the policy allows are running.
    Limit {
        /// Of a host, or of the cluster.
        of: String,
        /// The limit.
        limit: u32,
    },
    /// It is no longer right.
    NotNow(String),
}

impl Postponed {
    /// Every name but those of holds, for metrics that must exist before they happen.
    pub const NAMES: [&'static str; 5] = [
        "later_wave",
        "hold_time",
        "settling",
        "migration_limit",
        "not_now",
    ];

    /// The fixed name used as a metric label.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Held(hold) => hold.as_str(),
            Self::LaterWave => "later_wave",
            Self::HoldTime { .. } => "hold_time",
            Self::Settling { .. } => "settling",
            Self::Limit { .. } => "migration_limit",
            Self::NotNow(_) => "not_now",
        }
    }
}

impl fmt::Display for Postponed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(hold) => hold.fmt(f),
            Self::LaterWave => f.write_str("a later wave"),
            Self::HoldTime { left } => write!(f, "hot for too short, {} s left", left.as_secs()),
            Self::Settling { host, left } => {
                write!(
                    f,
                    "{host} is settling after a move, {} s left",
                    left.as_secs()
                )
            }
            Self::Limit { of, limit } => write!(f, "{of} runs {limit} migrations already"),
            Self::NotNow(why) => f.write_str(why),
        }
    }
}

/// What `choose` looks at.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// etcd's picture.
    pub fleet: &'a Fleet,
    /// The fleet as it is now; may be newer than the one the plan was made of.
    pub assessment: &'a Assessment,
    /// The values in force.
    pub policy: &'a Policy,
    /// How far the plan goes: one for drains alone is held by less.
    pub purpose: Purpose,
}

/// Chooses the steps that start now. Each is judged as if those chosen before it were under way; guests
/// that must stay together start together or not at all.
#[must_use]
pub fn choose(situation: Situation<'_>, plan: &Plan) -> Choice {
    if plan.steps.is_empty() {
        return Choice::default();
    }
    let first_wave = plan.steps.iter().map(|step| step.wave).min().unwrap_or(0);
    let (first, later): (Vec<&Step>, Vec<&Step>) =
        plan.steps.iter().partition(|step| step.wave == first_wave);
    let mut choice = Choice::default();
    match last_look(situation) {
        Ok(look) => start_what_may(Turn { situation, plan }, look, &first, &mut choice),
        Err(why) => choice.postpone(&first, &why),
    }
    choice.postpone(&later, &Postponed::LaterWave);
    choice
}

impl Choice {
    fn postpone(&mut self, steps: &[&Step], why: &Postponed) {
        let postponed = steps.iter().map(|&step| (step.clone(), why.clone()));
        self.postponed.extend(postponed);
    }
}

fn last_look(situation: Situation<'_>) -> Result<LastLook<'_>, Postponed> {
    let assessment = situation.assessment;
    let hold = match situation.purpose {
        Purpose::Drain => assessment.drain_holds().next(),
        Purpose::Repair | Purpose::Balance => assessment.holds.first(),
    };
    match hold {
        Some(hold) => Err(Postponed::Held(hold.clone())),
        None => LastLook::new(&assessment.snapshot, situation.policy)
            .map_err(|not_now| Postponed::NotNow(not_now.to_string())),
    }
}

/// A plan and the situation in which its steps are chosen.
#[derive(Clone, Copy)]
struct Turn<'a> {
    situation: Situation<'a>,
    plan: &'a Plan,
}

fn start_what_may<'a>(
    turn: Turn<'a>,
    mut look: LastLook<'_>,
    steps: &[&'a Step],
    choice: &mut Choice,
) {
    let situation = turn.situation;
    let mut running = Running::of(situation.fleet, &situation.policy.limits);
    let mut batches = look.batches(steps);
    // Room for a step of the same wave is made only if that one starts, which is known once it was judged.
    batches.sort_by_key(|batch| batch.iter().any(|step| turn.partners(step).count() > 0));
    for batch in batches {
        let due = turn.all_due(&batch, choice);
        match due.and_then(|()| admit(turn.situation, &mut look, &running, &batch)) {
            Ok(with_these) => {
                running = with_these;
                choice.start.extend(batch.into_iter().cloned());
            }
            Err(why) => choice.postpone(&batch, &why),
        }
    }
}

/// What runs when all steps of a batch have started, or why none of them does.
fn admit<'a>(
    situation: Situation<'a>,
    look: &mut LastLook<'_>,
    running: &Running<'a>,
    batch: &[&Step],
) -> Result<Running<'a>, Postponed> {
    let mut running = running.clone();
    for step in batch {
        running.admits(situation.policy, &step.from, &step.to)?;
        running.add(&situation.policy.limits, &step.from, &step.to);
    }
    look.admit(batch)
        .map_err(|not_now| Postponed::NotNow(not_now.to_string()))?;
    Ok(running)
}

impl<'a> Turn<'a> {
    /// Whether each of these steps is due now, by itself or for a partner that starts.
    fn all_due(self, batch: &[&'a Step], choice: &Choice) -> Result<(), Postponed> {
        batch.iter().try_for_each(|step| {
            let partners: Vec<&Step> = self.partners(step).collect();
            let due = self.due(step, &mut partners.clone());
            let starts = |partner: &&Step| choice.start.contains(partner);
            if due.is_ok() || partners.iter().any(starts) {
                return Ok(());
            }
            let waits = |(other, _): &&(Step, Postponed)| partners.contains(&other);
            let partners = choice.postponed.iter().find(waits);
            partners.map_or(due, |(_, why)| Err(why.clone()))
        })
    }

    /// Whether a step has waited for what it has to. Room has no urgency of its own: it is due when one of
    /// those that need it is, those `seen` left out, and when none is in the plan: one that is cut short
    /// keeps room only for what is forced.
    fn due(self, step: &'a Step, seen: &mut Vec<&'a Step>) -> Result<(), Postponed> {
        let Situation {
            fleet,
            assessment,
            policy,
            purpose: _,
        } = self.situation;
        if needs_patience(step.reason) {
            lasting_enough(assessment, policy, step, origin(self.plan, step))?;
            return settled(fleet, policy, step, assessment.at_ms);
        }
        if step.reason != StepReason::MakeRoom || self.served(step).next().is_none() {
            return Ok(());
        }
        seen.push(step);
        let mut why = None;
        for other in self.served(step) {
            if !seen.contains(&other) {
                match self.due(other, seen) {
                    Ok(()) => return Ok(()),
                    Err(not_due) => why = why.or(Some(not_due)),
                }
            }
        }
        Err(why.unwrap_or_else(|| Postponed::NotNow("nothing needs the room".to_owned())))
    }

    /// Steps that need the room which this one makes, of its own wave or a later one.
    fn served(self, step: &Step) -> impl Iterator<Item = &'a Step> {
        let steps = &self.plan.steps;
        let number = steps.iter().position(|s| s == step).map_or(0, |at| at + 1);
        let (wave, from) = (step.wave, step.from.clone());
        steps
            .iter()
            .filter(move |s| s.wave >= wave && (s.after.contains(&number) || s.to == from))
    }

    /// Those of them that are to run beside it.
    fn partners(self, step: &Step) -> impl Iterator<Item = &'a Step> {
        let makes_room = step.reason == StepReason::MakeRoom;
        let wave = step.wave;
        self.served(step)
            .filter(move |other| makes_room && other.wave == wave)
    }
}

/// Where a step's guest is now: the second leg of a detour begins elsewhere.
pub(super) fn origin<'a>(plan: &'a Plan, step: &'a Step) -> &'a str {
    let first = plan.steps.iter().find(|s| s.guest == step.guest);
    first.map_or(&step.from, |first| &first.from)
}

/// Whether a step answers to measured load, which must last; rules and drains need no patience, and room is
/// made when it is needed.
pub(super) fn needs_patience(reason: StepReason) -> bool {
    match reason {
        StepReason::RelieveCpu
        | StepReason::RelieveMemory
        | StepReason::Spread
        | StepReason::Consolidate => true,
        StepReason::Drain | StepReason::RepairRule | StepReason::MakeRoom | StepReason::Manual => {
            false
        }
    }
}

/// A host's relief needs a hot spot that has lasted; evening out (`spread`) needs none.
fn lasting_enough(
    assessment: &Assessment,
    policy: &Policy,
    step: &Step,
    from: &str,
) -> Result<(), Postponed> {
    if matches!(step.reason, StepReason::Spread | StepReason::Consolidate) {
        return Ok(());
    }
    let hold = policy.control.hold;
    let lasted = assessment
        .hot_since
        .get(from)
        .map_or(Duration::ZERO, |since| {
            Duration::from_millis(u64::try_from(assessment.at_ms - since).unwrap_or(0))
        });
    let left = hold.saturating_sub(lasted);
    if left.is_zero() {
        Ok(())
    } else {
        Err(Postponed::HoldTime { left })
    }
}

/// One full window after a move, a host's figures speak of the time since.
fn settled(fleet: &Fleet, policy: &Policy, step: &Step, now_ms: i64) -> Result<(), Postponed> {
    let window_ms = millis(policy.control.window);
    for host in [&step.from, &step.to] {
        let left_ms = last_move_ms(fleet, host).map_or(0, |ended| {
            ended.saturating_add(window_ms).saturating_sub(now_ms)
        });
        if let (Ok(left), true) = (u64::try_from(left_ms), left_ms > 0) {
            let left = Duration::from_millis(left);
            return Err(Postponed::Settling {
                host: host.clone(),
                left,
            });
        }
    }
    Ok(())
}

/// When the last guest left or reached a host.
fn last_move_ms(fleet: &Fleet, host: &str) -> Option<i64> {
    let moved = |state: &Option<MigrationState>| {
        state.as_ref().and_then(MigrationState::outcome) == Some(Outcome::Done)
    };
    fleet
        .remembered
        .values()
        .flat_map(|guest| guest.moves.iter())
        .filter(|past| (past.source == host || past.target == host) && moved(&past.state))
        .map(|past| past.ended_ms)
        .max()
}

/// Migrations that run, per host and in all.
#[derive(Debug, Clone)]
pub(crate) struct Running<'a> {
    fleet: &'a Fleet,
    cluster: u32,
    hosts: BTreeMap<String, u32>,
    links: BTreeMap<&'a str, u32>,
}

impl<'a> Running<'a> {
    /// What runs now.
    pub(crate) fn of(fleet: &'a Fleet, limits: &Limits) -> Self {
        let mut load = Self {
            fleet,
            cluster: 0,
            hosts: BTreeMap::new(),
            links: BTreeMap::new(),
        };
        for order in fleet.open_migrations().values() {
            load.add(limits, order.source.as_str(), order.target.as_str());
        }
        load.add_foreign();
        load
    }

    /// Migrations that are not ours take their host's place, too; where they go is not known.
    fn add_foreign(&mut self) {
        for (host, _) in self.fleet.foreign() {
            *self.hosts.entry(host.to_string()).or_default() += 1;
            self.cluster = self.cluster.saturating_add(1);
        }
    }

    /// The limited links between two hosts; a host that is not known takes none.
    fn links_between(&self, limits: &Limits, from: &str, to: &str) -> Vec<&'a str> {
        let labels = |host: &str| {
            let facts = self.fleet.hosts.get(&host.parse().ok()?)?;
            Some(&facts.labels)
        };
        let both = labels(from).zip(labels(to));
        both.map_or_else(Vec::new, |(from, to)| limits.links(from, to).collect())
    }

    fn add(&mut self, limits: &Limits, from: &str, to: &str) {
        for link in self.links_between(limits, from, to) {
            *self.links.entry(link).or_default() += 1;
        }
        self.cluster += 1;
        for host in [from, to] {
            *self.hosts.entry(host.to_owned()).or_default() += 1;
        }
    }

    /// Whether one more may run between these hosts.
    pub(crate) fn admits(&self, policy: &Policy, from: &str, to: &str) -> Result<(), Postponed> {
        let cluster_limit = policy.limits.migrations_per_cluster;
        if self.cluster >= cluster_limit {
            return Err(Postponed::Limit {
                of: "the cluster".to_owned(),
                limit: cluster_limit,
            });
        }
        let limit = policy.limits.migrations_per_host;
        for host in [from, to] {
            if self.hosts.get(host).copied().unwrap_or(0) >= limit {
                return Err(Postponed::Limit {
                    of: host.to_owned(),
                    limit,
                });
            }
        }
        let limit = policy.limits.migrations_per_link;
        for link in self.links_between(&policy.limits, from, to) {
            if self.links.get(link).copied().unwrap_or(0) >= limit {
                return Err(Postponed::Limit {
                    of: format!("the link of {} {link}", policy.limits.link_label),
                    limit,
                });
            }
        }
        Ok(())
    }
}
