//! A repack by one who knows the future: the yardstick that nobody can reach who has to forecast and to migrate.
//!
//! At each full hour it knows every guest's true mean and deviation in the hour to come, and moves whatever it likes
//! at once and for free. It is a local search over the planner's loss (moves, and exchanges with the idlest hosts, of
//! the host where one more core costs most), until nothing is found: not the optimum, but close to it. Memory is its
//! only limit: it knows no rules, no cool-downs and no payback.

use evenkeel_planner::loss::{Load, Shape};
use evenkeel_planner::{Guest, GuestState, Host, Policy};
use evenkeel_scheduler::observe::RunState;

use crate::world::{World, memory_of};

/// Changes in one repack at most.
const MOST_CHANGES: usize = 2000;
/// Hosts that exchanges are tried with.
const PARTNERS: usize = 6;
/// A change that saves less than this, guest-seconds per second, is none.
const LEAST: f64 = 1e-4;

/// Repacks for the load between two moments.
pub(crate) fn repack(world: &mut World, policy: &Policy, span_ms: (i64, i64)) {
    let mut desk = Desk::new(world, policy, span_ms);
    for _ in 0..MOST_CHANGES {
        if !desk.improve() {
            break;
        }
    }
    for (guest, host) in desk.at.into_iter().enumerate() {
        world.teleport(guest, host);
    }
}

struct Desk {
    shapes: Vec<Shape>,
    /// Memory of each host, MiB; none of one that takes nothing.
    capacity: Vec<i64>,
    guests: Vec<Load>,
    /// Whether each guest may move.
    free: Vec<bool>,
    at: Vec<usize>,
    members: Vec<Vec<usize>>,
    loads: Vec<Load>,
}

/// Guests that change places; one alone moves.
#[derive(Clone, Copy)]
struct Change {
    gain: f64,
    guest: usize,
    to: usize,
    back: Option<usize>,
}

impl Desk {
    fn new(world: &World, policy: &Policy, span_ms: (i64, i64)) -> Self {
        let open = |at: usize| !world.hosts()[at].absent && !world.trouble(at).lost;
        let hosts = world.hosts();
        let shape = |host: &crate::fleet::SimHost| {
            let described = Host {
                cpu_cores: host.facts.cpu_cores,
                memory_mib: host.facts.memory_mib,
                ..Host::default()
            };
            Shape::of(&described, policy)
        };
        let memory = |mib: u64| i64::try_from(mib).unwrap_or(i64::MAX / 4);
        let guests = world.guests().iter().map(|guest| load_of(guest, span_ms));
        let mut desk = Self {
            shapes: hosts.iter().map(shape).collect(),
            capacity: (0..hosts.len())
                .map(|at| {
                    if open(at) {
                        memory(hosts[at].facts.memory_mib)
                    } else {
                        0
                    }
                })
                .collect(),
            guests: guests.collect(),
            free: world
                .guests()
                .iter()
                .map(|g| g.reading.hindrances.is_empty())
                .collect(),
            at: world.placement().to_vec(),
            members: (0..hosts.len())
                .map(|at| world.members(at).to_vec())
                .collect(),
            loads: vec![Load::default(); hosts.len()],
        };
        for (guest, &host) in desk.at.iter().enumerate() {
            desk.free[guest] &= open(host);
        }
        (0..hosts.len()).for_each(|host| desk.add_up(host));
        desk
    }

    fn add_up(&mut self, host: usize) {
        let sum = |load: Load, &guest: &usize| load.plus(&self.guests[guest]);
        self.loads[host] = self.members[host].iter().fold(Load::default(), sum);
    }

    fn loss(&self, host: usize, load: &Load) -> f64 {
        self.shapes[host].loss(load)
    }

    /// Makes the best change for the steepest host that has one.
    fn improve(&mut self) -> bool {
        let slope = |host: &usize| self.shapes[*host].cpu_slope(&self.loads[*host]);
        let mut order: Vec<usize> = (0..self.shapes.len()).collect();
        order.sort_by(|a, b| slope(b).total_cmp(&slope(a)));
        for &host in &order {
            if self.loss(host, &self.loads[host]) < LEAST {
                continue;
            }
            if let Some(change) = self.best_change(host, &order) {
                self.make(change);
                return true;
            }
        }
        false
    }

    fn best_change(&self, host: usize, order: &[usize]) -> Option<Change> {
        let mut best = Change {
            gain: LEAST,
            guest: 0,
            to: host,
            back: None,
        };
        for &guest in self.members[host].iter().filter(|&&g| self.free[g]) {
            for &to in order.iter().filter(|&&to| to != host) {
                self.judge(guest, to, None, &mut best);
            }
            for &to in order.iter().rev().take(PARTNERS).filter(|&&to| to != host) {
                for &back in self.members[to].iter().filter(|&&g| self.free[g]) {
                    self.judge(guest, to, Some(back), &mut best);
                }
            }
        }
        (best.gain > LEAST).then_some(best)
    }

    fn judge(&self, guest: usize, to: usize, back: Option<usize>, best: &mut Change) {
        let from = self.at[guest];
        let returned = back.map_or_else(Load::default, |b| self.guests[b]);
        let here = self.loads[from].minus(&self.guests[guest]).plus(&returned);
        let there = self.loads[to].minus(&returned).plus(&self.guests[guest]);
        if there.memory > self.capacity[to] || (back.is_some() && here.memory > self.capacity[from])
        {
            return;
        }
        let before = self.loss(from, &self.loads[from]) + self.loss(to, &self.loads[to]);
        let gain = before - self.loss(from, &here) - self.loss(to, &there);
        if gain > best.gain {
            *best = Change {
                gain,
                guest,
                to,
                back,
            };
        }
    }

    fn make(&mut self, change: Change) {
        let from = self.at[change.guest];
        self.shift(change.guest, change.to);
        if let Some(back) = change.back {
            self.shift(back, from);
        }
        self.add_up(from);
        self.add_up(change.to);
    }

    fn shift(&mut self, guest: usize, to: usize) {
        let from = self.at[guest];
        self.members[from].retain(|&g| g != guest);
        self.members[to].push(guest);
        self.at[guest] = to;
    }
}

/// A guest as it is between two moments.
fn load_of(guest: &crate::fleet::SimGuest, span_ms: (i64, i64)) -> Load {
    let (mean, deviation) = guest.pattern.truth(span_ms.0, span_ms.1);
    let state = match guest.reading.state {
        RunState::Running => GuestState::Running,
        RunState::Paused | RunState::Incoming => GuestState::Paused,
        RunState::ShutOff => GuestState::Shutoff,
    };
    Load::of(&Guest {
        state,
        vcpus: guest.reading.vcpus,
        cpu_demand_cores: mean,
        cpu_demand_stddev_cores: deviation,
        memory_mib: memory_of(guest),
        memory_active_mib: Some(guest.active_mib),
        ..Guest::default()
    })
}
