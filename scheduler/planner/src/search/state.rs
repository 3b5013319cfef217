//! A placement with the sums that make judging a move cheap.
//!
//! **Invariant:** after every move the two hosts' sums are added up anew from their units in a fixed
//! order, so that a placement has the same value whichever way it was reached
//! (`tests::a_placement_has_one_value_whichever_way_it_was_reached`).

use std::cell::Cell;
use std::collections::BTreeSet;

use super::unit::{self, Unit};
use crate::loss::Load;
use crate::model::{Held, Model};
use crate::num::{from_mib, order_key};
use crate::policy::Strategy;
use crate::precopy::Precopy;

/// By how much more than the first order says a move may save, as a share of what leaving saves.
const SLACK: f64 = 0.1;

/// A placement of all units.
#[derive(Debug, Clone)]
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
    /// Per host: what one more core² of variance, and one more MiB, costs there.
    further_slopes: Vec<(f64, f64)>,
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
    /// Moves made so far; per host, the number of the last one that changed it, and how many there had been when
    /// it was last found that no exchange pays.
    pub(super) moves: u64,
    pub(super) changed: Vec<u64>,
    looked_at: Vec<Option<u64>>,
    /// Per guest: its last predicted copy and the bandwidth assumed.
    copies: Vec<Cell<Option<(f64, Precopy)>>>,
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
            further_slopes: vec![(0.0, 0.0); hosts],
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
            moves: 0,
            changed: vec![0; hosts],
            looked_at: vec![None; hosts],
            copies: vec![Cell::new(None); model.guests.len()],
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
            // A guest in flight stands on both ends; what it should leave it does leave already.
            let flights = self.model.flights.iter();
            for flight in flights.filter(|f| rule.hard && rule.members.contains(&f.guest)) {
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
        self.further_slopes[host] = (
            self.model.hosts[host]
                .shape
                .variance_slope(&self.loads[host]),
            self.model.memory_slope(host, &self.loads[host]),
        );
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
        self.moves += 1;
        self.changed[from] = self.moves;
        self.changed[to] = self.moves;
        self.refresh(from);
        self.refresh(to);
    }

    /// Whether a host has changed since no exchange was found for it.
    pub(crate) fn is_worth_a_look(&self, host: usize) -> bool {
        self.looked_at[host].is_none_or(|then| then < self.changed[host])
    }

    /// Every host may be worth a look again.
    pub(crate) fn look_again(&mut self) {
        self.looked_at.fill(None);
    }

    /// No exchange was found for a host.
    pub(crate) fn looked_at(&mut self, host: usize) {
        self.looked_at[host] = Some(self.moves);
    }

    /// The predicted migration of a guest between two hosts, and the bandwidth assumed.
    pub(crate) fn copy(&self, guest: usize, from: usize, to: usize) -> (Precopy, f64) {
        let bandwidth = self.model.bandwidth(from, to);
        match self.copies[guest].get() {
            Some((known, copy)) if known == bandwidth => (copy, bandwidth),
            Some(_) | None => {
                let copy = self.model.copy(guest, bandwidth);
                self.copies[guest].set(Some((bandwidth, copy)));
                (copy, bandwidth)
            }
        }
    }

    /// Whether any unit is elsewhere than it was.
    pub(crate) fn has_moved(&self) -> bool {
        self.at
            .iter()
            .zip(&self.units)
            .any(|(&at, unit)| at != unit.home)
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

    /// What bringing `more` from one host to another can save at most, guest-seconds per second.
    ///
    /// The loss is convex in the demand, so that a move never saves more than the difference of the slopes, but
    /// for what the variance bends: [`SLACK`] allows for that.
    pub(crate) fn most_saved(&self, more: &Load, from: usize, to: usize) -> f64 {
        self.most_saved_by_leaving(more, from) - self.first_order(more, to)
    }

    /// The part of it that leaving has; infinite where no slope tells.
    pub(crate) fn most_saved_by_leaving(&self, more: &Load, from: usize) -> f64 {
        let model = self.model;
        let steep = model.policy.strategy == Strategy::Consolidate
            || model.hosts[from].shape.memory_stall(&self.loads[from]) > 0.0;
        if steep {
            return f64::INFINITY;
        }
        let left = self.first_order(more, from);
        left + SLACK * left.abs()
    }

    /// What a little more of `more` costs on a host, by its slopes.
    fn first_order(&self, more: &Load, host: usize) -> f64 {
        let (variance, memory) = self.further_slopes[host];
        let correlation = self.model.hosts[host].shape.correlation;
        let peaks = 2.0 * correlation * self.loads[host].sigma * more.sigma;
        more.demand * self.slopes[host]
            + variance * (more.binomial + more.sigma_sq + peaks)
            + memory * from_mib(more.memory)
    }

    /// The open host where one more core of demand costs least, some left out.
    pub(crate) fn cheapest_target(&self, without: &[usize]) -> Option<usize> {
        let mut hosts = self.targets.iter().map(|&(_, host)| host);
        hosts.find(|host| !without.contains(host))
    }

    /// Counts one evaluated candidate.
    pub(crate) fn count(&mut self) {
        self.evaluations += 1;
    }

    /// Candidates that may still be evaluated.
    pub(crate) fn budget_left(&self) -> u64 {
        self.budget.saturating_sub(self.evaluations)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ShutOffGuests;
    use crate::policy::Policy;
    use crate::snapshot::{Guest, Host, Snapshot};

    /// Three hosts, the first one overloaded by guests that are more or less busy and steady.
    fn fleet(peak_correlation: f64) -> Snapshot {
        let mut snapshot = Snapshot::new("test", jiff::Timestamp::UNIX_EPOCH);
        snapshot.peak_correlation = peak_correlation;
        for (host, guests) in [("h1", 14_u32), ("h2", 5), ("h3", 3)] {
            snapshot.hosts.push(Host {
                name: host.into(),
                cpu_cores: 8.0,
                memory_mib: 65_536,
                ..Host::default()
            });
            let guest = |n: u32| Guest {
                name: format!("{host}-{n}"),
                host: host.into(),
                vcpus: 4,
                cpu_demand_cores: 0.1 * f64::from(1 + n % 7),
                cpu_demand_stddev_cores: 0.2 * f64::from(n % 5),
                memory_mib: 512,
                ..Guest::default()
            };
            snapshot.guests.extend((0..guests).map(guest));
        }
        snapshot
    }

    #[test]
    fn a_placement_has_one_value_whichever_way_it_was_reached() {
        let (snapshot, policy) = (fleet(0.1), Policy::default());
        let model = Model::new(&snapshot, &policy, ShutOffGuests::Stay);
        let mut direct = State::new(&model, &model.homes(), 0);
        let mut astray = direct.clone();
        for unit in [1, 4, 6] {
            direct.apply(unit, 2);
        }
        for (unit, to) in [(6, 1), (4, 2), (9, 1), (1, 1), (6, 2), (9, 0), (1, 2)] {
            astray.apply(unit, to);
        }
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(direct.at, astray.at);
        assert_eq!(direct.loads, astray.loads);
        assert_eq!(bits(&direct.values), bits(&astray.values));
        assert_eq!(bits(&direct.slopes), bits(&astray.slopes));
        assert_eq!(direct.targets, astray.targets);
    }

    #[test]
    fn no_move_saves_more_than_the_slopes_allow() {
        for correlation in [0.1, 0.5, 1.0] {
            let (snapshot, policy) = (fleet(correlation), Policy::default());
            let model = Model::new(&snapshot, &policy, ShutOffGuests::Stay);
            let state = State::new(&model, &model.homes(), 0);
            for unit in 0..state.units.len() {
                for to in 0..model.hosts.len() {
                    if state.block(unit, to).is_some() {
                        continue;
                    }
                    let most = state.most_saved(&state.units[unit].load, state.at[unit], to);
                    let saved = state.gain_rate(unit, to);
                    assert!(saved <= most + 1e-9, "{correlation}: {saved} above {most}");
                }
            }
        }
    }
}
