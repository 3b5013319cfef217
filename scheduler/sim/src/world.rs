//! The simulated fleet: what really happens, which the scheduler only sees through reports.
//!
//! Time goes in ticks. Within a tick what guests want is constant and everything else follows: they share their
//! host's cores, migrations go on in steps of [`crate::migration`], hosts fail.
//!
//! **Invariant:** a guest stands on one host at every moment, whatever fails, and memory is held on both ends of a
//! migration (`guests_are_neither_lost_nor_doubled_and_memory_suffices_whatever_fails` in tests/stability.rs).

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use evenkeel_scheduler::observe::RunState;

use crate::contention::Crowd;
use crate::faults::{Faults, HostFaults, Trouble};
use crate::fleet::{Fleet, FleetError, SimGuest, SimHost};
use crate::load::{Moment, Want};
use crate::migration::{
    Body, Burden, Event, Fault, Migration, STEP_SECONDS, Taken, Terms, step_ms, steps_in,
};
use crate::num::{mib, seconds};

/// CPU that a host's own threads use, as a share of its cores.
const OWN_SHARE: f64 = 0.01;
/// Least and most of a guest's memory that is sent before the hypervisor gives up.
const GIVES_UP: (f64, f64) = (0.05, 0.95);

/// What chance there is in a world: each kind of event has its own, so that one does not shift another.
#[derive(Debug)]
struct Chance {
    load: StdRng,
    migrations: StdRng,
}

/// What was lost in a tick.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Toll {
    /// Guest-seconds lost because guests waited for each other (and for copying), in a tick.
    pub contention: f64,
    /// Guest-seconds lost by guests that were migrated: paused, slowed down, throttled.
    pub migrations: f64,
    /// Guest-seconds of guests whose host was lost; no strategy can help that.
    pub dead: f64,
}

impl Toll {
    /// What strategies are measured by: contention and migrations.
    #[must_use]
    pub fn lost(&self) -> f64 {
        self.contention + self.migrations
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.contention += other.contention;
        self.migrations += other.migrations;
        self.dead += other.dead;
    }
}

/// How a migration ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ended {
    /// The guest, by its place in the fleet.
    pub guest: usize,
    /// Where it was.
    pub source: usize,
    /// Where it was to go.
    pub target: usize,
    /// Why it failed; `None`: it has arrived.
    pub fault: Option<Fault>,
    /// What it took.
    pub taken: Taken,
}

/// The fleet.
#[derive(Debug)]
pub struct World {
    hosts: Vec<SimHost>,
    guests: Vec<SimGuest>,
    tick_ms: i64,
    now_ms: i64,
    at: Vec<usize>,
    wants: Vec<Want>,
    /// Of each guest in this tick: wanted, and got, cores.
    wanted: Vec<f64>,
    given: Vec<f64>,
    members: Vec<Vec<usize>>,
    /// Counts changes of `members`.
    changes: Vec<u64>,
    migrations: Vec<Migration>,
    /// CPU that copying took in this tick, cores.
    copying: Vec<f64>,
    troubles: Vec<Trouble>,
    host_faults: Vec<HostFaults>,
    failing: f64,
    chance: Chance,
    ended: Vec<Ended>,
}

impl World {
    /// A fleet whose chance follows from `seed`, in ticks of `tick_ms`.
    ///
    /// # Errors
    /// When a guest is on no host.
    pub fn new(fleet: Fleet, faults: &Faults, tick_ms: i64, seed: u64) -> Result<Self, FleetError> {
        let (hosts, guests) = (fleet.hosts, fleet.guests);
        let mut at = Vec::with_capacity(guests.len());
        let mut members = vec![vec![]; hosts.len()];
        for (number, guest) in guests.iter().enumerate() {
            let host = hosts.iter().position(|host| host.facts.name == guest.host);
            let host = host.ok_or_else(|| FleetError::NoHost {
                guest: guest.reading.name.clone(),
                host: guest.host.to_string(),
            })?;
            at.push(host);
            members[host].push(number);
        }
        let mut load = StdRng::seed_from_u64(seed);
        let wants = guests.iter().map(|_| Want::new(&mut load)).collect();
        let host_faults = (1..)
            .zip(&hosts)
            .map(|(n, _)| HostFaults::new(faults, seed ^ (n << 32)));
        Ok(Self {
            tick_ms: tick_ms.max(step_ms(1)),
            now_ms: 0,
            wanted: vec![0.0; guests.len()],
            given: vec![0.0; guests.len()],
            changes: vec![0; hosts.len()],
            migrations: vec![],
            copying: vec![0.0; hosts.len()],
            troubles: vec![Trouble::default(); hosts.len()],
            host_faults: host_faults.collect(),
            failing: faults.failing_migrations,
            chance: Chance {
                load,
                migrations: StdRng::seed_from_u64(seed.wrapping_add(1)),
            },
            ended: vec![],
            hosts,
            guests,
            at,
            wants,
            members,
        })
    }

    /// Now, ms since the start.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Length of a tick, ms.
    #[must_use]
    pub fn tick_ms(&self) -> i64 {
        self.tick_ms
    }

    /// The hosts.
    #[must_use]
    pub fn hosts(&self) -> &[SimHost] {
        &self.hosts
    }

    /// The guests.
    #[must_use]
    pub fn guests(&self) -> &[SimGuest] {
        &self.guests
    }

    /// Of each guest: its host.
    #[must_use]
    pub fn placement(&self) -> &[usize] {
        &self.at
    }

    /// Of each guest: what it wants in this tick, cores. None of it is wanted by the dead.
    #[must_use]
    pub fn wanted(&self) -> &[f64] {
        &self.wanted
    }

    /// Of each guest: what it gets, cores.
    pub(crate) fn given(&self) -> &[f64] {
        &self.given
    }

    /// The guests on a host, in the order of their numbers.
    #[must_use]
    pub fn members(&self, host: usize) -> &[usize] {
        &self.members[host]
    }

    pub(crate) fn changes(&self, host: usize) -> u64 {
        self.changes[host]
    }

    pub(crate) fn trouble(&self, host: usize) -> Trouble {
        self.troubles[host]
    }

    /// CPU that a host uses for itself, copying included, cores.
    pub(crate) fn own_cores(&self, host: usize) -> f64 {
        OWN_SHARE * self.hosts[host].facts.cpu_cores + self.copying[host]
    }

    /// Guests that are being migrated.
    pub(crate) fn is_migrating(&self, guest: usize) -> bool {
        self.migrations.iter().any(|m| m.guest == guest)
    }

    /// Migrations that a host takes part in.
    pub(crate) fn migrations_at(&self, host: usize) -> usize {
        let touches = |m: &&Migration| m.source == host || m.target == host;
        self.migrations.iter().filter(touches).count()
    }

    /// Memory held on a host, MiB: by its guests and by those that are coming.
    #[must_use]
    pub fn memory_held(&self, host: usize) -> u64 {
        let coming = self
            .migrations
            .iter()
            .filter(|m| m.target == host)
            .map(|m| m.guest);
        self.members[host]
            .iter()
            .copied()
            .chain(coming)
            .map(|g| memory_of(&self.guests[g]))
            .sum()
    }

    /// Begins to migrate a guest; `false` if it is not where the order says, or cannot be.
    pub fn migrate(&mut self, guest: usize, target: usize, terms: Terms) -> bool {
        let Some(&source) = self.at.get(guest) else {
            return false;
        };
        let sound = |host: usize| {
            self.troubles
                .get(host)
                .is_some_and(|t| !t.lost && !t.agent_down)
        };
        if source == target || self.is_migrating(guest) || !sound(source) || !sound(target) {
            return false;
        }
        let sim = &self.guests[guest];
        let body = Body {
            vcpus: f64::from(sim.reading.vcpus),
            memory_mib: memory_of(sim),
            written_mib: sim.written_mib,
            writes_mib_s: if sim.reading.state == RunState::Running {
                sim.writes_mib_s
            } else {
                0.0
            },
            usual_cores: sim.pattern.mean_cores(),
        };
        let rng = &mut self.chance.migrations;
        let fails = rng.random_range(0.0..1.0) < self.failing;
        let when = rng.random_range(GIVES_UP.0..GIVES_UP.1);
        let migration = Migration::new(
            (guest, source, target),
            body,
            terms,
            fails.then_some(when),
            rng,
        );
        self.migrations.push(migration);
        true
    }

    /// Puts a guest elsewhere at once and for free: for strategies that only real fleets forbid.
    pub fn teleport(&mut self, guest: usize, target: usize) {
        let source = self.at[guest];
        if source == target || self.is_migrating(guest) {
            return;
        }
        self.members[source].retain(|&g| g != guest);
        if let Err(place) = self.members[target].binary_search(&guest) {
            self.members[target].insert(place, guest);
        }
        self.at[guest] = target;
        self.changes[source] += 1;
        self.changes[target] += 1;
    }

    /// Migrations that have ended since this was asked last.
    pub fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// One tick passes; says what was lost in it.
    pub fn tick(&mut self) -> Toll {
        self.now_ms += self.tick_ms;
        for (trouble, faults) in self.troubles.iter_mut().zip(&mut self.host_faults) {
            *trouble = faults.at(self.now_ms);
        }
        let mut toll = Toll {
            dead: self.want(),
            ..Toll::default()
        };
        let mut slowed = vec![
            0.0;
            if self.migrations.is_empty() {
                0
            } else {
                self.guests.len()
            }
        ];
        toll.migrations = self.copy(&mut slowed);
        toll.contention = self.share(&slowed);
        toll
    }

    /// What everybody wants; returns guest-seconds of the dead.
    fn want(&mut self) -> f64 {
        let at = Moment::after(self.now_ms, seconds(self.tick_ms));
        let mut dead = 0.0;
        for (number, guest) in self.guests.iter().enumerate() {
            let wanted = self.wants[number].next(
                &guest.pattern,
                guest.reading.vcpus,
                at,
                &mut self.chance.load,
            );
            let runs = guest.reading.state == RunState::Running;
            let lost = self.troubles[self.at[number]].lost;
            if runs && lost {
                dead += wanted * seconds(self.tick_ms);
            }
            self.wanted[number] = if runs && !lost { wanted } else { 0.0 };
        }
        dead
    }

    /// A tick of migrations; returns guest-seconds lost by those that were migrated, and in `slowed` the share of
    /// the tick that each of them could not use.
    fn copy(&mut self, slowed: &mut [f64]) -> f64 {
        self.copying.iter_mut().for_each(|cores| *cores = 0.0);
        let before: f64 = self.migrations.iter().map(|m| m.taken.guest_seconds).sum();
        let mut over = 0.0;
        let steps = steps_in(self.tick_ms);
        for step in 0..steps {
            if self.migrations.is_empty() {
                break;
            }
            let now_ms = self.now_ms - self.tick_ms + step_ms(step);
            for (at, burden) in self.copy_step(now_ms).into_iter().enumerate() {
                let Some(migration) = self.migrations.get(at) else {
                    break;
                };
                let part = 1.0 / f64::from(steps);
                slowed[migration.guest] += burden.slowdown * part;
                self.copying[migration.source] += burden.cores.0 * part;
                self.copying[migration.target] += burden.cores.1 * part;
            }
            over += self.let_go();
        }
        over + self
            .migrations
            .iter()
            .map(|m| m.taken.guest_seconds)
            .sum::<f64>()
            - before
    }

    fn copy_step(&mut self, now_ms: i64) -> Vec<Burden> {
        let mut users = vec![(0.0, 0.0); self.hosts.len()];
        for migration in self.migrations.iter().filter(|m| m.sends()) {
            users[migration.source].0 += 1.0;
            users[migration.target].1 += 1.0;
        }
        let mut burdens = Vec::with_capacity(self.migrations.len());
        for migration in &mut self.migrations {
            let (source, target) = (migration.source, migration.target);
            let mut event = Event::GoesOn;
            let mut burden = Burden::default();
            if self.troubles[source].lost {
                // It has failed, but nobody is there to say so.
                migration.taken.seconds += STEP_SECONDS;
                migration.lose_source();
            } else if migration.lost_source() || self.troubles[target].lost {
                event = Event::Failed(Fault::HostLost);
            } else {
                // Links are full duplex: what leaves a host does not slow down what reaches it.
                let link = |host: usize, n: f64| bandwidth(&self.hosts[host]) / n.max(1.0);
                let share = link(source, users[source].0).min(link(target, users[target].1));
                let wanted = self.wanted[migration.guest];
                (event, burden) =
                    migration.step(share, wanted, now_ms, &mut self.chance.migrations);
            }
            if event != Event::GoesOn {
                migration.end(event);
            }
            burdens.push(burden);
        }
        burdens
    }

    /// Takes out the migrations that are over, and puts those that have arrived in their places; returns what their
    /// guests lost.
    fn let_go(&mut self) -> f64 {
        let (over, going): (Vec<_>, Vec<_>) = std::mem::take(&mut self.migrations)
            .into_iter()
            .partition(|migration| migration.ended().is_some());
        self.migrations = going;
        let mut lost = 0.0;
        for migration in over {
            let fault = match migration.ended() {
                Some(Event::Failed(fault)) => Some(fault),
                Some(Event::Arrived | Event::GoesOn) | None => None,
            };
            if fault.is_none() {
                self.teleport(migration.guest, migration.target);
            }
            lost += migration.taken.guest_seconds;
            self.ended.push(Ended {
                guest: migration.guest,
                source: migration.source,
                target: migration.target,
                fault,
                taken: migration.taken,
            });
        }
        lost
    }

    /// Hosts share their cores; returns guest-seconds lost to others.
    fn share(&mut self, slowed: &[f64]) -> f64 {
        let mut lost = 0.0;
        for host in 0..self.hosts.len() {
            let crowd = self.crowd(host, slowed, None);
            let starved = self.starved(host, &crowd);
            for &guest in &self.members[host] {
                let slow = slowed.get(guest).copied().unwrap_or(0.0);
                self.given[guest] = self.wanted[guest] * (1.0 - slow) * (1.0 - starved);
            }
            lost += crowd.wanted * starved * seconds(self.tick_ms);
        }
        lost
    }

    fn crowd(&self, host: usize, slowed: &[f64], without: Option<usize>) -> Crowd {
        let mut crowd = Crowd::default();
        for &guest in self.members[host].iter().filter(|&&g| Some(g) != without) {
            self.join(&mut crowd, guest, slowed.get(guest).copied().unwrap_or(0.0));
        }
        crowd
    }

    fn join(&self, crowd: &mut Crowd, guest: usize, slow: f64) {
        let sim = &self.guests[guest];
        let runs = sim.reading.state == RunState::Running;
        let vcpus = if runs {
            f64::from(sim.reading.vcpus)
        } else {
            0.0
        };
        let active = if sim.reading.state == RunState::ShutOff {
            0
        } else {
            sim.active_mib
        };
        crowd.add(self.wanted[guest] * (1.0 - slow), vcpus, mib(active));
    }

    fn starved(&self, host: usize, crowd: &Crowd) -> f64 {
        let facts = &self.hosts[host].facts;
        crowd.starved(facts.cpu_cores, mib(facts.memory_mib), self.own_cores(host))
    }

    /// Guest-seconds per second that a guest saves now by being where it is and not at `elsewhere`.
    pub(crate) fn saves_now(&self, guest: usize, elsewhere: usize) -> f64 {
        let here = self.at[guest];
        let loss = |host: usize, crowd: &Crowd| crowd.wanted * self.starved(host, crowd);
        let (with, without) = (
            self.crowd(here, &[], None),
            self.crowd(here, &[], Some(guest)),
        );
        let there = self.crowd(elsewhere, &[], None);
        let mut back = there;
        self.join(&mut back, guest, 0.0);
        loss(here, &without) + loss(elsewhere, &back) - loss(here, &with) - loss(elsewhere, &there)
    }
}

fn bandwidth(host: &SimHost) -> f64 {
    host.facts.migration_bandwidth_mib_s.unwrap_or(1000.0)
}

/// Memory that a guest holds, MiB.
pub(crate) fn memory_of(guest: &SimGuest) -> u64 {
    match guest.reading.state {
        RunState::ShutOff => 0,
        RunState::Running | RunState::Paused | RunState::Incoming => guest.reading.memory_mib,
    }
}
