//! Ordered legs as priced steps: savings, costs, reasons.

use std::collections::BTreeMap;

use crate::loss::Load;
use crate::model::{Held, Model};
use crate::order::{Leg, Ordered};
use crate::plan::{Step, StepReason};
use crate::policy::Strategy;
use crate::precopy;
use crate::search::{State, cpu_slopes};

/// How many of the first legs to keep, at most `most`, without tearing a must-affinity group apart.
pub(super) fn whole_groups(model: &Model<'_>, legs: &[Leg], most: usize) -> usize {
    let mut keep = most.min(legs.len());
    let grouped = |leg: &Leg| {
        model.rules.together_of[leg.guest].iter().any(|&r| {
            let rule = &model.rules.together[r];
            rule.hard
                && legs[keep.min(legs.len())..]
                    .iter()
                    .any(|l| rule.members.contains(&l.guest))
        })
    };
    let cut = legs[..keep].iter().position(grouped);
    if let Some(first_torn) = cut {
        keep = first_torn;
    }
    keep
}

/// What a way brings net within the horizon, guest-seconds: gain less factor × costs of all its legs.
pub(super) fn score(model: &Model<'_>, start: &[usize], ordered: &Ordered) -> f64 {
    let before = State::new(model, start, 0);
    let after = State::new(model, &ordered.end, 0);
    let value = |state: &State<'_, '_>| state.values.iter().sum::<f64>() + state.soft_in_all();
    let slopes = cpu_slopes(model, &before.loads);
    let cost: f64 = ordered
        .legs
        .iter()
        .map(|leg| cost_of(model, leg, &slopes))
        .sum();
    model.payback.horizon_seconds * (value(&before) - value(&after)) - model.payback.factor * cost
}

fn cost_of(model: &Model<'_>, leg: &Leg, slopes: &[f64]) -> f64 {
    let (copy, bandwidth) = model.precopy(leg.guest, leg.from, leg.to);
    let slopes = (slopes[leg.from], slopes[leg.to]);
    precopy::cost(model.guests[leg.guest].data, &copy, bandwidth, slopes)
        + model.policy.price.migration_guest_seconds
}

/// The steps with their savings, each given the steps before it, and the hosts' loads in the end.
pub(super) fn price(
    model: &Model<'_>,
    start: &[usize],
    legs: &[Leg],
    forced: &[Option<StepReason>],
) -> (Vec<Step>, Vec<Load>) {
    let mut desk = Desk::new(model, start);
    let mut steps: Vec<Step> = Vec::with_capacity(legs.len());
    for (at, leg) in legs.iter().enumerate() {
        let change = desk.carry_out(leg);
        let later = &legs[at + 1..];
        let reason = desk.reason(leg, &change, forced[leg.guest], legs, later);
        let mut step = desk.step(leg, &change, reason);
        step.after = waits_for(legs, at, &desk);
        steps.push(step);
    }
    (steps, desk.loads)
}

/// Earlier steps that this one needs: its own first leg, and those that leave its target when it would not
/// fit there without any of them.
fn waits_for(legs: &[Leg], at: usize, desk: &Desk<'_, '_>) -> Vec<usize> {
    let (model, leg) = (desk.model, &legs[at]);
    let rules = &model.rules;
    let crowded = !desk.fits_without_departures(legs, leg);
    let frees = |e: &Leg| {
        let parts = |&r: &usize| {
            let apart = &rules.apart[r];
            apart.hard
                && rules.apart_of[leg.guest].contains(&r)
                && apart.place[e.from] == apart.place[leg.to]
                && apart.place[e.to] != apart.place[leg.to]
        };
        (crowded && e.from == leg.to) || rules.apart_of[e.guest].iter().any(parts)
    };
    let needed = |e: &Leg| e.wave < leg.wave && (e.guest == leg.guest || frees(e));
    let earlier = legs[..at].iter().enumerate();
    earlier
        .filter(|(_, e)| needed(e))
        .map(|(at, _)| at + 1)
        .collect()
}

/// What one leg changes, guest-seconds per second saved.
struct Change {
    cpu: f64,
    memory: f64,
    objective: f64,
    source_loss: f64,
    source_demand: f64,
    source_memory: i64,
}

/// Loads while the legs are carried out in order.
struct Desk<'m, 'a> {
    model: &'m Model<'a>,
    members: Vec<Vec<usize>>,
    loads: Vec<Load>,
    first_slopes: Vec<f64>,
    /// What was held before the first leg.
    first_held: Vec<Held>,
}

impl<'m, 'a> Desk<'m, 'a> {
    fn new(model: &'m Model<'a>, start: &[usize]) -> Self {
        let mut members = vec![Vec::new(); model.hosts.len()];
        for (guest, &host) in start.iter().enumerate() {
            members[host].push(guest);
        }
        let mut desk = Self {
            model,
            members,
            loads: vec![Load::default(); model.hosts.len()],
            first_slopes: Vec::new(),
            first_held: model.leaving(),
        };
        (0..model.hosts.len()).for_each(|host| desk.add_up(host));
        desk.first_slopes = cpu_slopes(model, &desk.loads);
        for (held, load) in desk.first_held.iter_mut().zip(&desk.loads) {
            held.memory += load.memory;
            held.guests += load.guests;
        }
        desk
    }

    /// Whether a leg's target would have room if nobody had left it: with all that have come by then.
    fn fits_without_departures(&self, legs: &[Leg], leg: &Leg) -> bool {
        let model = self.model;
        let mut held = self.first_held[leg.to];
        for come in legs.iter().filter(|l| l.to == leg.to && l.wave <= leg.wave) {
            held.memory += model.guests[come.guest].load.memory;
            held.guests += 1;
        }
        let most = i64::from(model.policy.limits.max_guests_per_host);
        held.memory <= model.hosts[leg.to].open_capacity && (most == 0 || held.guests <= most)
    }

    fn add_up(&mut self, host: usize) {
        let guests = &self.model.guests;
        let sum = |load: Load, &g: &usize| load.plus(&guests[g].load);
        self.loads[host] = self.members[host].iter().fold(Load::default(), sum);
    }

    fn pair(&self, leg: &Leg, of: impl Fn(usize, &Load) -> f64) -> f64 {
        of(leg.from, &self.loads[leg.from]) + of(leg.to, &self.loads[leg.to])
    }

    fn carry_out(&mut self, leg: &Leg) -> Change {
        let model = self.model;
        let cpu = |h: usize, load: &Load| model.hosts[h].shape.cpu_loss(load);
        let memory = |h: usize, load: &Load| model.hosts[h].shape.memory_loss(load);
        let value = |h: usize, load: &Load| model.value(h, load);
        let source = self.loads[leg.from];
        let before = (
            self.pair(leg, cpu),
            self.pair(leg, memory),
            self.pair(leg, value),
        );
        self.members[leg.from].retain(|&g| g != leg.guest);
        if let Err(place) = self.members[leg.to].binary_search(&leg.guest) {
            self.members[leg.to].insert(place, leg.guest);
        }
        self.add_up(leg.from);
        self.add_up(leg.to);
        Change {
            cpu: before.0 - self.pair(leg, cpu),
            memory: before.1 - self.pair(leg, memory),
            objective: before.2 - self.pair(leg, value),
            source_loss: model.hosts[leg.from].shape.loss(&source),
            source_demand: source.demand,
            source_memory: source.memory,
        }
    }

    fn reason(
        &self,
        leg: &Leg,
        change: &Change,
        forced: Option<StepReason>,
        all: &[Leg],
        later: &[Leg],
    ) -> StepReason {
        if leg.detour {
            return StepReason::MakeRoom;
        }
        if let Some(reason) = forced {
            return reason;
        }
        let saved = change.cpu + change.memory;
        let cost = cost_of(self.model, leg, &self.first_slopes);
        let pays = change.objective * self.model.payback.horizon_seconds > cost;
        let makes_room = later.iter().any(|l| l.to == leg.from)
            || all.iter().any(|l| l.wave == leg.wave && l.to == leg.from);
        let emptied = self.members[leg.from].is_empty() || later.iter().any(|l| l.from == leg.from);
        let strategy = self.model.policy.strategy;
        let by_strategy = change.objective - saved > saved;
        if strategy == Strategy::Consolidate && ((!pays && emptied) || by_strategy) {
            StepReason::Consolidate
        } else if !pays && makes_room {
            StepReason::MakeRoom
        } else if strategy == Strategy::Spread && by_strategy {
            StepReason::Spread
        } else if !pays && self.has_soft_rule(leg.guest) {
            StepReason::RepairRule
        } else if change.memory > change.cpu {
            StepReason::RelieveMemory
        } else {
            StepReason::RelieveCpu
        }
    }

    fn has_soft_rule(&self, guest: usize) -> bool {
        let rules = &self.model.rules;
        rules.apart_of[guest].iter().any(|&r| !rules.apart[r].hard)
            || rules.together_of[guest]
                .iter()
                .any(|&r| !rules.together[r].hard)
            || rules.pins_of[guest].iter().any(|&r| !rules.pins[r].hard)
    }

    fn step(&self, leg: &Leg, change: &Change, reason: StepReason) -> Step {
        let model = self.model;
        let guest = model.guests[leg.guest].data;
        let (copy, bandwidth) = model.precopy(leg.guest, leg.from, leg.to);
        let slopes = (self.first_slopes[leg.from], self.first_slopes[leg.to]);
        Step {
            wave: leg.wave,
            guest: guest.name.clone(),
            uuid: guest.uuid.clone(),
            from: model.hosts[leg.from].data.name.clone(),
            to: model.hosts[leg.to].data.name.clone(),
            reason,
            why: self.why(leg, change, reason),
            saves_guest_seconds_per_hour: (change.cpu + change.memory) * 3600.0,
            costs_guest_seconds: precopy::cost(guest, &copy, bandwidth, slopes),
            price_guest_seconds: model.policy.price.migration_guest_seconds,
            copy_seconds: copy.copy_seconds,
            downtime_seconds: copy.downtime_seconds,
            bytes: copy.bytes,
            after: Vec::new(),
        }
    }

    fn why(&self, leg: &Leg, change: &Change, reason: StepReason) -> String {
        let from = &self.model.hosts[leg.from];
        let name = &from.data.name;
        match reason {
            StepReason::RelieveCpu => format!(
                "cpu: {name} loses {:.2} guest-seconds/s at {:.2} of {:.2} cores",
                change.source_loss, change.source_demand, from.shape.cores
            ),
            StepReason::RelieveMemory => {
                format!(
                    "memory: {name} has {} of {} MiB allocated",
                    change.source_memory, from.data.memory_mib
                )
            }
            StepReason::Spread => format!("spread: {name} is above the fleet's mean"),
            StepReason::Consolidate => format!("consolidate: {name} becomes empty"),
            StepReason::Drain => format!("drain: {name} is being drained"),
            StepReason::RepairRule => format!("rule: {}", self.broken_rules(leg)),
            StepReason::MakeRoom => "room: another step needs it".to_owned(),
            StepReason::Manual => "asked for".to_owned(),
        }
    }

    /// The rules of a guest, hard ones first: those it may have been moved for.
    fn broken_rules(&self, leg: &Leg) -> String {
        let rules = &self.model.rules;
        let mut names: BTreeMap<(bool, &str), ()> = BTreeMap::new();
        for &r in &rules.apart_of[leg.guest] {
            names.insert((!rules.apart[r].hard, &rules.apart[r].name), ());
        }
        for &r in &rules.together_of[leg.guest] {
            names.insert((!rules.together[r].hard, &rules.together[r].name), ());
        }
        for &r in &rules.pins_of[leg.guest] {
            names.insert((!rules.pins[r].hard, &rules.pins[r].name), ());
        }
        let names: Vec<&str> = names.keys().map(|&(_, name)| name).collect();
        if names.is_empty() {
            "max_guests_per_host".to_owned()
        } else {
            names.join(", ")
        }
    }
}

/// One migration by itself, priced.
pub(super) fn one(model: &Model<'_>, start: &[usize], leg: &Leg, reason: StepReason) -> Step {
    let mut desk = Desk::new(model, start);
    let change = desk.carry_out(leg);
    desk.step(leg, &change, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ShutOffGuests;
    use crate::policy::Policy;
    use crate::snapshot::{Guest, Host, Snapshot};

    /// What the steps wait for when these guests (name, host, MiB) go these ways (wave, guest, target) over
    /// four hosts of 1000 MiB, the first two in rack r1, the others in r2.
    fn after(
        policy: &str,
        guests: &[(&str, usize, u64)],
        ways: &[(u32, usize, usize)],
    ) -> Vec<Vec<usize>> {
        let mut snapshot = Snapshot::new("test", jiff::Timestamp::UNIX_EPOCH);
        for (name, rack) in [("h0", "r1"), ("h1", "r1"), ("h2", "r2"), ("h3", "r2")] {
            snapshot.hosts.push(Host {
                name: name.into(),
                cpu_cores: 4.0,
                memory_mib: 1000,
                labels: [("rack".into(), rack.into())].into(),
                ..Host::default()
            });
        }
        let guest = |&(name, host, memory_mib): &(&str, usize, u64)| Guest {
            name: name.into(),
            host: format!("h{host}"),
            memory_mib,
            ..Guest::default()
        };
        snapshot.guests = guests.iter().map(guest).collect();
        let policy = Policy::parse(policy).unwrap();
        let model = Model::new(&snapshot, &policy, ShutOffGuests::Stay);
        let leg = |&(wave, guest, to): &(u32, usize, usize)| Leg {
            wave,
            guest,
            from: model.guests[guest].home,
            to,
            detour: false,
        };
        let legs: Vec<Leg> = ways.iter().map(leg).collect();
        let (steps, _) = price(&model, &model.homes(), &legs, &vec![None; guests.len()]);
        steps.into_iter().map(|step| step.after).collect()
    }

    #[test]
    fn an_arrival_waits_for_the_room_that_another_arrival_has_taken() {
        let guests = [("a", 0, 400), ("b", 2, 400), ("c", 1, 400)];
        let ways = [(1, 0, 1), (1, 2, 3), (2, 1, 1)];
        assert_eq!(after("", &guests, &ways), [vec![], vec![], vec![2]]);
        let alone = [(1, 2, 3), (2, 1, 1)];
        assert_eq!(after("", &guests, &alone), vec![Vec::<usize>::new(); 2]);
        let two = "[limits]\nmax_guests_per_host = 1";
        assert_eq!(after(two, &guests, &alone), [vec![], vec![1]]);
    }

    #[test]
    fn a_member_of_an_anti_affinity_waits_for_the_one_that_leaves_the_rack() {
        let rule = "[anti_affinity.db]\nguests=[\"db-*\"]\nstrength=\"must\"\nover=\"rack\"";
        let guests = [("db-1", 0, 100), ("db-2", 2, 100)];
        assert_eq!(
            after(rule, &guests, &[(1, 0, 3), (2, 1, 1)]),
            [vec![], vec![1]]
        );
    }
}
