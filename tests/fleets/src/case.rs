//! One comparison: a fleet, a strategy, and what each way of planning reaches.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use evenkeel_planner::{Options, Plan, Policy, Snapshot, Strategy, Variance, plan};
use serde::{Deserialize, Serialize};

use crate::family::{Family, generate};
use crate::instance::{Instance, Placement};
use crate::search::{anneal, greedy, start};

/// Which comparison: enough to repeat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The family of the fleet.
    pub family: Family,
    /// Its number of hosts.
    pub hosts: usize,
    /// Its seed.
    pub seed: u64,
    /// What is minimised.
    pub strategy: Strategy,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (family, strategy) = (self.family.name(), self.strategy);
        write!(f, "{family}-{}-{}-{strategy}", self.hosts, self.seed)
    }
}

impl FromStr for Key {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let parts: Vec<&str> = text.split('-').collect();
        let [family, hosts, seed, strategy] = parts[..] else {
            bail!("{text:?} is no FAMILY-HOSTS-SEED-STRATEGY");
        };
        let family = Family::ALL.into_iter().find(|f| f.name() == family);
        Ok(Self {
            family: family.with_context(|| format!("no family in {text:?}"))?,
            hosts: hosts.parse()?,
            seed: seed.parse()?,
            strategy: strategy.parse()?,
        })
    }
}

/// Where a way of planning ends, and J there, guest-seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reached {
    /// J, guest-seconds.
    pub objective: f64,
    /// Per guest its host.
    pub placement: Placement,
}

/// A comparison as `exact.py` reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// The comparison's [`Key`] as text.
    pub key: String,
    /// [`Instance::fingerprint`].
    pub fingerprint: String,
    /// The fleet in numbers.
    pub instance: Instance,
    /// What is compared against: see [`start`].
    pub start: Reached,
    /// The planner's plan.
    pub ours: Reached,
    /// Plain greedy.
    pub greedy: Reached,
    /// The best that annealing finds, from several beginnings.
    pub annealed: Reached,
}

/// The fleet and policy of a comparison.
///
/// # Errors
/// When the family's policy is none.
pub fn fleet(key: Key) -> anyhow::Result<(Snapshot, Policy)> {
    let fleet = generate(key.family, key.hosts, key.seed);
    let policy = fleet.policy(key.strategy)?;
    Ok((fleet.snapshot, policy))
}

/// What the planner reaches with default settings, and its plan.
///
/// # Errors
/// When its plan leads where nobody may be.
pub fn ours(
    instance: &Instance,
    snapshot: &Snapshot,
    policy: &Policy,
) -> anyhow::Result<(Reached, Plan)> {
    let options = Options {
        variance: Variance::Frozen,
        ..Options::default()
    };
    let (plan, _) = plan(snapshot, policy, &options);
    let placement = end(instance, &plan)?;
    let direct = instance
        .objective(&placement)
        .context("the planner's plan ends where it may not")?;
    let reached = Reached {
        objective: direct + instance.factor * detours(instance, &plan),
        placement,
    };
    Ok((reached, plan))
}

/// Where a plan ends.
fn end(instance: &Instance, plan: &Plan) -> anyhow::Result<Placement> {
    let number = |names: Vec<&String>| -> BTreeMap<String, usize> {
        let numbered = names.into_iter().enumerate();
        numbered.map(|(at, name)| (name.clone(), at)).collect()
    };
    let hosts = number(instance.hosts.iter().map(|h| &h.name).collect());
    let guests = number(instance.guests.iter().map(|g| &g.name).collect());
    let mut placement = instance.homes();
    for step in &plan.steps {
        let guest = guests.get(&step.guest).context("a guest of the plan")?;
        placement[*guest] = *hosts.get(&step.to).context("a host of the plan")?;
    }
    Ok(placement)
}

/// What the migrations of guests that move more than once cost beyond going straight to their last host.
fn detours(instance: &Instance, plan: &Plan) -> f64 {
    let mut legs: BTreeMap<&str, Vec<&evenkeel_planner::Step>> = BTreeMap::new();
    for step in &plan.steps {
        legs.entry(&step.guest).or_default().push(step);
    }
    let host = |name: &str| instance.hosts.iter().position(|h| h.name == name);
    let extra = legs
        .iter()
        .filter(|(_, legs)| legs.len() > 1)
        .map(|(guest, legs)| {
            let all: f64 = legs
                .iter()
                .map(|s| s.costs_guest_seconds + s.price_guest_seconds)
                .sum();
            let last = legs.last().and_then(|s| host(&s.to));
            let known = instance.guests.iter().find(|g| g.name == *guest);
            let direct = known.zip(last).and_then(|(g, to)| g.cost[to]);
            all - direct.unwrap_or(0.0)
        });
    extra.sum()
}

/// Annealing runs from each beginning.
const RUNS: u64 = 2;

impl Case {
    /// Generates the fleet and runs everything but the exact solver. `known` is the result of an earlier run:
    /// what it holds of the same fleet is not made again, but for the planner's plan. `per_guest`: trials of annealing.
    ///
    /// # Errors
    /// When the fleet cannot be planned at all: a fault of the generator or of the planner.
    pub fn run(key: Key, known: Option<Self>, per_guest: usize) -> anyhow::Result<Self> {
        let (snapshot, policy) = fleet(key)?;
        let instance = Instance::new(&snapshot, &policy)?;
        let fingerprint = instance.fingerprint();
        let (ours, _) = ours(&instance, &snapshot, &policy).with_context(|| key.to_string())?;
        if let Some(known) = known.filter(|known| known.fingerprint == fingerprint) {
            return Ok(Self { ours, ..known });
        }
        let reached = |placement: Option<Placement>, what: &str| -> anyhow::Result<Reached> {
            let placement = placement.with_context(|| format!("{key}: {what} finds no place"))?;
            let objective = instance.objective(&placement);
            Ok(Reached {
                objective: objective.with_context(|| format!("{key}: {what} is not allowed"))?,
                placement,
            })
        };
        let start = reached(start(&instance), "the start")?;
        let greedy = reached(greedy(&instance), "greedy")?;
        let mut annealed = greedy.clone();
        for (seed, from) in (0..RUNS).flat_map(|run| [(run, &greedy), (run + RUNS, &ours)]) {
            let found = anneal(&instance, &from.placement, seed, per_guest);
            let found = reached(Some(found), "annealing")?;
            if found.objective < annealed.objective {
                annealed = found;
            }
        }
        Ok(Self {
            key: key.to_string(),
            fingerprint,
            instance,
            start,
            ours,
            greedy,
            annealed,
        })
    }
}
