//! A placement with the sums that make judging a move cheap.
//!
//! **Invariant:** after every move the two hosts' sums are added up anew from their units in a fixed
//! order, so that a placement has the same value whichever way it was reached
//! (`tests::a_placement_has_one_value_whichever_way_it_was_reached`).

use std::collections::BTreeSet;

use super::unit::{self, Unit};
use crate::loss::Load;
use crate::model::{Held, Model};
use crate::num::order_key;

/// A placement of all units.
#[derive(Debug)]
pub(crate) struct State<'m, 'a> {
    pub(crate) model: &'m Model<'a>,
    pub(crate) units: Vec<Unit>,
    /// Per guest: its unit.
    pub(crate) unit_of: Vec<usize>,
    /// Per unit: its host.
    pub(crate) at: Vec<usize>,
    /// Per host: its units, ascending.
    pub(crate) members: Vec<Vec<usize>>,
    /// Per host: what migrations in flight still hold there.
    leaving: Vec<Held>,
    /// Per host: the load of its units, guests in flight to it included.
    pub(crate) loads: Vec<Load>,
    /// Per host: its share of the objective, guest-seconds per second.
    pub(crate) values: Vec<f64>,
    /// Per host: what one more core of demand costs there.
    pub(crate) slopes: Vec<f64>,
    /// The CPU slopes when the search began: what copying costs is judged by them.
    pub(crate) first_slopes: Vec<f64>,
    /// Per `apart` rule and place: guests there.
    pub(crate) apart_count: Vec<Vec<u32>>,
    /// Per `together` rule and host: guests there.
    pub(crate) together_count: Vec<Vec<u32>>,
    /// Hosts that take guests, cheapest slope first.
    pub(crate) targets: BTreeSet<(u64, usize)>,
    pub(crate) evaluations: u64,
    budget: u64,
}

impl<'m, 'a> State<'m, 'a> {
    pub(crate) fn new(model: &'m Model<'a>, placement: &[usize], budget: u64) -> Self {
        let units = unit::build(model, placement);
        let mut unit_of = vec![0; model.guests.len()];
        let mut members = vec![Vec::new(); model.hosts.len()];
        for (at, unit) in units.iter().enumerate() {
            members[unit.home].push(at);
            for &guest in &unit.guests {
                unit_of[guest] = at;
            }
        }
        let at = units.iter().map(|u| u.home).collect();
        let hosts = model.hosts.len();
        let mut state = Self {
            model,
            units,
            unit_of,
            at,
            members,
            leaving: model.leaving(),
            loads: vec![Load::default(); hosts],
            values: vec![0.0; hosts],
            slopes: vec![0.0; hosts],
            first_slopes: Vec::new(),
            apart_count: model
                .rules
                .apart
                .iter()
                .map(|r| vec![0; r.places])
                .collect(),
            together_count: model
                .rules
                .together
                .iter()
                .map(|_| vec![0; hosts])
                .collect(),
            targets: BTreeSet::new(),
            evaluations: 0,
            budget,
        };
        state.count_rules(placement);
        for host in 0..hosts {
            state.refresh(host);
        }
        state.first_slopes = cpu_slopes(model, &state.loads);
        state
    }

    fn count_rules(&mut self, placement: &[usize]) {
        let rules = &self.model.rules;
        for (r, rule) in rules.apart.iter().enumerate() {
            for &member in &rule.members {
                self.apart_count[r][rule.place[placement[member]]] += 1;
            }
            // A guest in flight stands on both ends.
            for flight in self
                .model
                .flights
                .iter()
                .filter(|f| rule.members.contains(&f.guest))
            {
                if rule.place[flight.from] != rule.place[flight.to] {
                    self.apart_count[r][rule.place[flight.from]] += 1;
                }
            }
        }
        for (r, rule) in rules.together.iter().enumerate() {
            for &member in &rule.members {
                self.together_count[r][placement[member]] += 1;
            }
        }
    }

    /// Adds a host's sums up anew.
    fn refresh(&mut self, host: usize) {
        let units = &self.units;
        let sum = |load: Load, &u: &usize| load.plus(&units[u].load);
        self.loads[host] = self.members[host].iter().fold(Load::default(), sum);
        let old = (order_key(self.slopes[host]), host);
        self.values[host] = self.model.value(host, &self.loads[host]);
        self.slopes[host] = self.model.slope(host, &self.loads[host]);
        if self.model.hosts[host].takes {
            self.targets.remove(&old);
            self.targets.insert((order_key(self.slopes[host]), host));
        }
    }

    /// Moves a unit. Takes time linear in the two hosts' units.
    pub(crate) fn apply(&mut self, unit: usize, to: usize) {
        let from = self.at[unit];
        if from == to {
            return;
        }
        self.at[unit] = to;
        if let Ok(place) = self.members[from].binary_search(&unit) {
            self.members[from].remove(place);
        }
        if let Err(place) = self.members[to].binary_search(&unit) {
            self.members[to].insert(place, unit);
        }
        let rules = &self.model.rules;
        for &guest in &self.units[unit].guests {
            for &r in &rules.apart_of[guest] {
                self.apart_count[r][rules.apart[r].place[from]] -= 1;
                self.apart_count[r][rules.apart[r].place[to]] += 1;
            }
            for &r in &rules.together_of[guest] {
                self.together_count[r][from] -= 1;
                self.together_count[r][to] += 1;
            }
        }
        self.refresh(from);
        self.refresh(to);
    }

    /// Per guest: its host.
    pub(crate) fn placement(&self) -> Vec<usize> {
        self.unit_of.iter().map(|&unit| self.at[unit]).collect()
    }

    /// Memory above a host's limit, MiB, once the migrations in flight have left.
    pub(crate) fn excess_memory(&self, host: usize) -> i64 {
        self.loads[host].memory - self.model.hosts[host].capacity
    }

    /// What is held on a host as long as nothing in flight has left: what arrivals must fit beside.
    pub(crate) fn held(&self, host: usize) -> Held {
        let (load, leaving) = (&self.loads[host], &self.leaving[host]);
        Held {
            memory: load.memory + leaving.memory,
            guests: load.guests + leaving.guests,
        }
    }

    /// Counts one evaluated candidate.
    pub(crate) fn count(&mut self) {
        self.evaluations += 1;
    }

    /// Whether the budget is used up.
    pub(crate) fn exhausted(&self) -> bool {
        self.evaluations >= self.budget
    }
}

/// Per host: the chance that a vCPU waits there.
pub(crate) fn cpu_slopes(model: &Model<'_>, loads: &[Load]) -> Vec<f64> {
    model
        .hosts
        .iter()
        .zip(loads)
        .map(|(host, load)| host.shape.cpu_slope(load))
        .collect()
}
