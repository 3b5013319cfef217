//! Two plain searches to compare with: greedy single moves, and long annealing. Both know nothing of the order in
//! which guests can move.

use crate::dice::Dice;
use crate::instance::{Instance, Placement, mib};

/// A placement with its sums.
struct Position<'i> {
    instance: &'i Instance,
    at: Placement,
    sums: Vec<(f64, i64)>,
    values: Vec<f64>,
    /// Per rule and place: members there.
    crowd: Vec<Vec<u32>>,
    /// Per guest: its rules.
    rules_of: Vec<Vec<usize>>,
}

impl<'i> Position<'i> {
    fn new(instance: &'i Instance, at: Placement) -> Self {
        let sums = instance.sums(&at);
        let mut rules_of = vec![Vec::new(); at.len()];
        let mut crowd = Vec::new();
        for (r, rule) in instance.apart.iter().enumerate() {
            let mut count = vec![0; instance.hosts.len()];
            for &member in &rule.members {
                rules_of[member].push(r);
                count[rule.place[at[member]]] += 1;
            }
            crowd.push(count);
        }
        let values = sums.iter().enumerate();
        Self {
            values: values
                .map(|(host, &(d, m))| instance.value(host, d, m))
                .collect(),
            instance,
            at,
            sums,
            crowd,
            rules_of,
        }
    }

    /// Puts a guest somewhere, whether it may be there or not.
    fn put(&mut self, guest: usize, to: usize) {
        let from = std::mem::replace(&mut self.at[guest], to);
        let g = &self.instance.guests[guest];
        self.sums[from] = (
            self.sums[from].0 - g.demand,
            self.sums[from].1 - g.memory_mib,
        );
        self.sums[to] = (self.sums[to].0 + g.demand, self.sums[to].1 + g.memory_mib);
        for host in [from, to] {
            let (demand, memory) = self.sums[host];
            self.values[host] = self.instance.value(host, demand, memory);
        }
        for &r in &self.rules_of[guest] {
            let place = &self.instance.apart[r].place;
            self.crowd[r][place[from]] -= 1;
            self.crowd[r][place[to]] += 1;
        }
    }

    /// Whether memory and a guest's rules hold where it is.
    fn holds(&self, guest: usize) -> bool {
        let host = self.at[guest];
        let alone = |&r: &usize| self.crowd[r][self.instance.apart[r].place[host]] <= 1;
        self.instance.guests[guest].cost[host].is_some()
            && self.sums[host].1 <= self.instance.hosts[host].capacity_mib
            && self.rules_of[guest].iter().all(alone)
    }

    fn cost(&self, guest: usize) -> f64 {
        let cost = self.instance.guests[guest].cost[self.at[guest]];
        self.instance.factor * cost.unwrap_or(f64::INFINITY)
    }

    /// What J becomes less by a move; none if the guest may not be there. The position stays.
    fn gain(&mut self, guest: usize, to: usize) -> Option<f64> {
        let from = self.at[guest];
        if from == to {
            return None;
        }
        let fits = self.sums[to].1 + self.instance.guests[guest].memory_mib
            <= self.instance.hosts[to].capacity_mib;
        if !fits || self.instance.guests[guest].cost[to].is_none() {
            return None;
        }
        let before = (self.values[from] + self.values[to], self.cost(guest));
        self.put(guest, to);
        let after = (self.values[from] + self.values[to], self.cost(guest));
        let holds = self.holds(guest);
        self.put(guest, from);
        // Whoever may not stay where it is gains whatever it costs to leave; both are compared by loss alone then.
        let paid = if before.1.is_finite() {
            before.1 - after.1
        } else {
            -after.1
        };
        holds.then_some(self.instance.horizon * (before.0 - after.0) + paid)
    }
}

/// A gain below this is rounding. Guest-seconds.
const LEAST_GAIN: f64 = 1e-6;

/// Where the comparison starts: the fleet as it is; guests that must leave have been taken, by name, to the open host
/// with the most free memory that may take them. That is what a drain without a loss model does.
///
/// None if somebody finds no place that way.
#[must_use]
pub fn start(instance: &Instance) -> Option<Placement> {
    evacuated(instance, |position, _, host| {
        let free = instance.hosts[host].capacity_mib - position.sums[host].1;
        Some(mib(free))
    })
}

/// Brings every guest that must leave, by name, to the best host by a score.
fn evacuated(
    instance: &Instance,
    score: impl Fn(&mut Position<'_>, usize, usize) -> Option<f64>,
) -> Option<Placement> {
    let mut position = Position::new(instance, instance.homes());
    for guest in 0..instance.guests.len() {
        if instance.guests[guest].cost[position.at[guest]].is_some() {
            continue;
        }
        let mut best: Option<(f64, usize)> = None;
        for host in 0..instance.hosts.len() {
            if position.gain(guest, host).is_none() {
                continue;
            }
            let Some(score) = score(&mut position, guest, host) else {
                continue;
            };
            if best.is_none_or(|(known, _)| score > known) {
                best = Some((score, host));
            }
        }
        position.put(guest, best?.1);
    }
    Some(position.at)
}

/// Plain greedy: guests that must leave go, by name, where they cost least; then always the one move that brings most,
/// until none brings anything.
///
/// None if somebody finds no place that way.
#[must_use]
pub fn greedy(instance: &Instance) -> Option<Placement> {
    let first = evacuated(instance, |position, guest, host| position.gain(guest, host))?;
    let mut position = Position::new(instance, first);
    // Each move lowers J; the bound is a safeguard.
    for _ in 0..4 * instance.guests.len() {
        let mut best = (LEAST_GAIN, 0, 0);
        for guest in 0..instance.guests.len() {
            for host in 0..instance.hosts.len() {
                match position.gain(guest, host) {
                    Some(gain) if gain > best.0 => best = (gain, guest, host),
                    Some(_) | None => {}
                }
            }
        }
        if best.0 <= LEAST_GAIN {
            break;
        }
        position.put(best.1, best.2);
    }
    Some(position.at)
}

/// Trials of one annealing run for each guest, where time is no matter.
pub const TRIALS_PER_GUEST: usize = 20_000;
/// Temperatures at the beginning and at the end, guest-seconds.
const TEMPERATURE: (f64, f64) = (15.0, 1.0);

/// The best placement that annealing finds from a placement: random moves, swaps and moves home, seeded, so many of
/// them for each guest.
#[must_use]
pub fn anneal(instance: &Instance, from: &[usize], seed: u64, per_guest: usize) -> Placement {
    let mut dice = Dice::new(seed);
    let mut position = Position::new(instance, from.to_vec());
    let (mut best, mut below) = (from.to_vec(), 0.0);
    let mut change = 0.0;
    let trials = per_guest * instance.guests.len();
    let cooling = (TEMPERATURE.1 / TEMPERATURE.0).ln() / mib(i64::try_from(trials).unwrap_or(1));
    let mut temperature = TEMPERATURE.0;
    for _ in 0..trials {
        temperature *= cooling.exp();
        let threshold = temperature * dice.unit().max(1e-12).ln();
        let moves = proposal(&position, &mut dice);
        let gain = trial(&mut position, &moves, threshold);
        change -= gain;
        if change < below - LEAST_GAIN {
            below = change;
            best.clone_from(&position.at);
        }
    }
    best
}

/// A random move, move home, exchange of two guests' places, or exchange of a guest that has left with one
/// that has stayed or with one that has gone elsewhere from the same host.
fn proposal(position: &Position<'_>, dice: &mut Dice) -> Vec<(usize, usize)> {
    let instance = position.instance;
    let mut any = || dice.below(instance.guests.len());
    let (one, mut other) = (any(), any());
    let home = |guest: usize| instance.guests[guest].home;
    let kind = dice.below(4);
    if kind == 3 && position.at[one] != home(one) {
        // Bounded search for somebody from the same host.
        for _ in 0..64 {
            if home(other) == home(one) && other != one {
                break;
            }
            other = dice.below(instance.guests.len());
        }
    }
    match kind {
        0 => vec![(one, dice.below(instance.hosts.len()))],
        1 => vec![(one, home(one))],
        _ => vec![(one, position.at[other]), (other, position.at[one])],
    }
}

/// Makes some moves together if all are allowed then and bring more than the threshold; returns what they brought.
fn trial(position: &mut Position<'_>, moves: &[(usize, usize)], threshold: f64) -> f64 {
    let back: Vec<(usize, usize)> = moves.iter().map(|&(g, _)| (g, position.at[g])).collect();
    if moves.iter().zip(&back).any(|(to, from)| to.1 == from.1) {
        return 0.0;
    }
    let touched = |p: &Position<'_>| {
        let mut hosts: Vec<usize> = moves.iter().chain(&back).map(|&(_, host)| host).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let values: f64 = hosts.iter().map(|&host| p.values[host]).sum();
        let costs: f64 = moves.iter().map(|&(g, _)| p.cost(g)).sum();
        p.instance.horizon * values + costs
    };
    let before = touched(position);
    moves.iter().for_each(|&(g, to)| position.put(g, to));
    let gain = before - touched(position);
    if gain > threshold && moves.iter().all(|&(g, _)| position.holds(g)) {
        return gain;
    }
    back.iter().for_each(|&(g, from)| position.put(g, from));
    0.0
}
