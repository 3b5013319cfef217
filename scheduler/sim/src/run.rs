//! The scheduler's loop over a simulated fleet: the real estimator, planner and controller core, tick by tick.
//!
//! What the daemon does between etcd and the agents is done here in one step: a report that was made has arrived, an
//! order that was given is taken up, an end that was reached is remembered.

use std::collections::BTreeMap;

use evenkeel_planner::{Options, Policy, Step, plan};
use evenkeel_proto::order::Order;
use evenkeel_proto::v1;
use evenkeel_scheduler::core::choose::{Situation, choose};
use evenkeel_scheduler::core::cooldown::{after_move, never_started};
use evenkeel_scheduler::core::holds::faulty_plan;
use evenkeel_scheduler::core::{ActivePolicy, Assessment, Core, Hold, Pace};
use evenkeel_scheduler::execute::orders::{Cause, Moved, order_for};
use evenkeel_scheduler::observe::{Fleet, OrderEntry, Past, Remembered};
use evenkeel_types::{
    FailureReason, GuestId, HostName, MigrationState, OrderId, Outcome as Ending, Whereabouts,
};

use crate::agents::Agents;
use crate::migration::{Fault, Terms};
use crate::score::{Outcome, Promise, Scorer};
use crate::world::{Ended, World};

/// A simulated fleet under a policy.
#[derive(Debug)]
pub struct Simulation {
    /// The fleet; a scenario may change it between runs.
    pub world: World,
    agents: Agents,
    fleet: Fleet,
    core: Core,
    active: ActivePolicy,
    pace: Pace,
    /// Places of guests in the world.
    places: BTreeMap<GuestId, usize>,
    hosts: BTreeMap<HostName, usize>,
    /// What was promised of the moves that are under way.
    promised: BTreeMap<GuestId, Promise>,
    plan_fault: Option<Hold>,
    scorer: Scorer,
    orders: u128,
}

impl Simulation {
    /// A simulation that starts at second 0 under the policy in `policy_text`.
    #[must_use]
    pub fn new(world: World, policy_text: &str) -> Self {
        let record = v1::PolicyRecord {
            text: policy_text.to_owned(),
            revision: 1,
            ..Default::default()
        };
        let active = ActivePolicy::default().follow(Some(&(record, 1)));
        let mut fleet = Fleet {
            complete: true,
            ..Fleet::default()
        };
        for host in world.hosts() {
            fleet
                .hosts
                .insert(host.facts.name.clone(), host.facts.clone());
        }
        let names = world.hosts().iter().map(|host| host.facts.name.clone());
        let ids = world.guests().iter().map(|guest| guest.reading.id.clone());
        Self {
            agents: Agents::new(&world),
            core: Core::new(active.policy()),
            pace: Pace::new(0),
            places: ids.zip(0..).collect(),
            hosts: names.zip(0..).collect(),
            promised: BTreeMap::new(),
            plan_fault: None,
            scorer: Scorer::new(&world),
            orders: 0,
            world,
            fleet,
            active,
        }
    }

    /// Why the policy text was not taken, if it was not.
    #[must_use]
    pub fn policy_fault(&self) -> Option<&str> {
        self.active.fault()
    }

    /// Runs for `duration_seconds` of virtual time; says what came of everything since the start.
    pub fn run(&mut self, duration_seconds: u32) -> Outcome {
        let end_ms = self
            .world
            .now_ms()
            .saturating_add(i64::from(duration_seconds) * 1000);
        while self.world.now_ms() < end_ms {
            self.step();
        }
        self.scorer.outcome(&self.world)
    }

    /// One tick of the world, and what the scheduler makes of it.
    pub fn step(&mut self) {
        let toll = self.world.tick();
        for ended in self.world.take_ended() {
            self.settle(&ended);
        }
        self.scorer.tick(&self.world, &toll);
        self.observe();
        self.act();
    }

    fn observe(&mut self) {
        let now_ms = self.world.now_ms();
        for host in self.agents.report(&self.world, &mut self.fleet.reports) {
            if let Some(report) = self.fleet.reports.get(host) {
                self.core.note(host, report, now_ms);
            }
        }
    }

    fn act(&mut self) {
        let now_ms = self.world.now_ms();
        let mut assessment = self.core.assess(&self.fleet, &self.active, now_ms);
        assessment.holds.extend(self.plan_fault.clone());
        let policy = self.active.policy().clone();
        if let Some(end_ms) = self.core.next_hold_end(policy.control.hold, now_ms) {
            self.pace.hasten(end_ms);
        }
        if !self.pace.take(policy.control.cycle, now_ms) {
            return;
        }
        self.cycle(assessment, &policy);
    }

    fn cycle(&mut self, mut assessment: Assessment, policy: &Policy) {
        let now_ms = self.world.now_ms();
        let (plan, _) = plan(&assessment.snapshot, policy, &Options::default());
        self.plan_fault = faulty_plan(&assessment.snapshot, policy, &plan);
        assessment
            .holds
            .retain(|hold| !matches!(hold, Hold::FaultyPlan(_)));
        assessment.holds.extend(self.plan_fault.clone());
        self.scorer.note_plan(self.plan_fault.is_some());
        let situation = Situation {
            purpose: evenkeel_planner::Purpose::Balance,
            fleet: &self.fleet,
            assessment: &assessment,
            policy,
        };
        let choice = choose(situation, &plan);
        self.core.want(&plan);
        self.pace.wake_for(&choice, now_ms);
        for step in &choice.start {
            if let Some(guest) = assessment.guests.get(&step.guest) {
                self.start(step, guest, policy);
            }
        }
    }

    fn start(&mut self, step: &Step, guest: &GuestId, policy: &Policy) {
        let now_ms = self.world.now_ms();
        let Some(&place) = self.places.get(guest) else {
            return;
        };
        let cause = Cause {
            trigger: "balance",
            by: "scheduler/sim".into(),
            reason: String::new(),
            disks: v1::DiskCopy::None,
        };
        let guests = self.world.guests();
        let moved = Moved {
            id: guest.clone(),
            memory_mib: guests.get(place).map_or(0, |g| g.reading.memory_mib),
            shut_off: false,
            disks: v1::DiskCopy::None,
        };
        let mut message = order_for(step, &moved, policy, &cause, now_ms);
        // By number and not by chance: two runs of one seed are the same.
        self.orders += 1;
        message.id = OrderId::from_random(self.orders).to_string();
        let Ok(order) = Order::try_from(message) else {
            return;
        };
        let terms = Terms {
            downtime_limit_seconds: policy.migration.downtime_limit.as_secs_f64(),
            bandwidth_limit_mib_s: policy.migration.bandwidth_limit_mib_s,
            auto_converge: policy.migration.auto_converge,
            deadline_ms: order.message.deadline_ms,
        };
        let target = self.hosts.get(&order.target).copied();
        let entry = OrderEntry {
            order,
            mod_revision: 1,
        };
        self.fleet.orders.insert(guest.clone(), entry);
        if target.is_some_and(|target| self.world.migrate(place, target, terms)) {
            self.promised
                .insert(guest.clone(), Promise::of(step, now_ms));
        } else {
            self.scorer.note_refusal();
            let refused = Ending::Refused(evenkeel_types::Refusal::TargetUnreachable);
            self.remember(guest, MigrationState::Ended(refused), now_ms);
        }
    }

    /// A migration is over: what the leader would remember of it.
    fn settle(&mut self, ended: &Ended) {
        let Some(guest) = self
            .world
            .guests()
            .get(ended.guest)
            .map(|g| g.reading.id.clone())
        else {
            return;
        };
        let outcome = match ended.fault {
            None => Ending::Done,
            Some(fault) => Ending::Failed {
                reason: reason_of(fault),
                guest: Whereabouts::Source,
            },
        };
        let now_ms = self.world.now_ms();
        self.remember(&guest, MigrationState::Ended(outcome), now_ms);
        if let Some(promise) = self.promised.remove(&guest) {
            self.scorer.note_end(&self.world, ended, promise);
        }
        self.pace.hasten(now_ms);
    }

    fn remember(&mut self, guest: &GuestId, state: MigrationState, now_ms: i64) {
        let Some(entry) = self.fleet.orders.remove(guest) else {
            return;
        };
        let ended = never_started(&entry.order.message, state, "", now_ms);
        let before = self.fleet.remembered.get(guest).map(|r| r.message.clone());
        let cooldown = self.active.policy().control.cooldown;
        let message = after_move(before.as_ref(), &ended, cooldown, now_ms);
        let remembered = Remembered {
            cooldown_until_ms: message.cooldown_until_ms,
            moves: message.moves.iter().map(Past::from).collect(),
            message,
            mod_revision: 1,
        };
        self.fleet.remembered.insert(guest.clone(), remembered);
    }
}

fn reason_of(fault: Fault) -> FailureReason {
    match fault {
        Fault::Deadline => FailureReason::Deadline,
        // That a host is gone, libvirt says by a broken connection.
        Fault::Hypervisor | Fault::HostLost => FailureReason::Libvirt,
    }
}
