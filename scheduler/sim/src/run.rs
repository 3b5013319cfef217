//! The scheduler's loop over a simulated fleet, second by second.

use evenkeel_planner::{Options, Step, plan};
use evenkeel_proto::order::Order;
use evenkeel_proto::v1;
use evenkeel_scheduler::core::choose::{Situation, choose};
use evenkeel_scheduler::core::cooldown::{after_move, never_started};
use evenkeel_scheduler::core::{ActivePolicy, Core, Pace};
use evenkeel_scheduler::execute::orders::{Cause, order_for};
use evenkeel_scheduler::observe::{Fleet, OrderEntry, Past, Remembered};
use evenkeel_types::{GuestId, MigrationState};

use crate::world::World;

/// A move that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// When it ended, seconds of virtual time.
    pub ended_second: i64,
    /// The guest.
    pub guest: String,
    /// Where it was.
    pub source: String,
    /// Where it went.
    pub target: String,
}

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Guest-seconds lost.
    pub lost: f64,
    /// Moves in the order of their ends.
    pub moves: Vec<Move>,
}

/// A simulated fleet under a policy.
#[derive(Debug)]
pub struct Simulation {
    /// The fleet; a scenario may change it between runs.
    pub world: World,
    fleet: Fleet,
    core: Core,
    active: ActivePolicy,
    pace: Pace,
    now_ms: i64,
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
        for host in world.hosts.values() {
            fleet.hosts.insert(host.name.clone(), World::facts(host));
        }
        let core = Core::new(active.policy());
        Self {
            world,
            fleet,
            core,
            active,
            pace: Pace::new(0),
            now_ms: 0,
        }
    }

    /// Why the policy text was not taken, if it was not.
    #[must_use]
    pub fn policy_fault(&self) -> Option<&str> {
        self.active.fault()
    }

    /// Runs for `seconds` of virtual time.
    pub fn run(&mut self, seconds: u32) -> Outcome {
        let mut outcome = Outcome::default();
        for _ in 0..seconds {
            self.now_ms += 1000;
            outcome.lost += self.world.second();
            for guest in self.world.copy_second() {
                outcome.moves.extend(self.settle(&guest));
            }
            self.observe();
            self.act();
        }
        outcome
    }

    fn observe(&mut self) {
        for host in self.world.hosts.keys() {
            let report = self.world.report(host);
            self.core.note(host, &report, self.now_ms);
            self.fleet.reports.insert(host.clone(), report);
        }
    }

    fn act(&mut self) {
        let assessment = self.core.assess(&self.fleet, &self.active, self.now_ms);
        let policy = self.active.policy();
        if let Some(end_ms) = self.core.next_hold_end(policy.control.hold, self.now_ms) {
            self.pace.hasten(end_ms);
        }
        if !self.pace.take(policy.control.cycle, self.now_ms) {
            return;
        }
        let (plan, _) = plan(&assessment.snapshot, policy, &Options::default());
        let situation = Situation {
            fleet: &self.fleet,
            assessment: &assessment,
            policy,
        };
        let choice = choose(situation, &plan);
        self.core.want(&plan);
        self.pace.wake_for(&choice, self.now_ms);
        for step in &choice.start {
            if let Some(guest) = assessment.guests.get(&step.guest) {
                self.start(step, guest);
            }
        }
    }

    fn start(&mut self, step: &Step, guest: &GuestId) {
        let cause = Cause {
            trigger: "balance",
            by: "scheduler/sim".into(),
            reason: String::new(),
        };
        let message = order_for(step, guest, 0, self.active.policy(), &cause, self.now_ms);
        let Ok(order) = Order::try_from(message) else {
            return;
        };
        self.world.migrate(guest, &order.target);
        self.fleet.orders.insert(
            guest.clone(),
            OrderEntry {
                order,
                mod_revision: 1,
            },
        );
    }

    /// A guest has arrived: what the leader would remember of it.
    fn settle(&mut self, guest: &GuestId) -> Option<Move> {
        let order = self.fleet.orders.remove(guest)?.order;
        let state = MigrationState::Ended(evenkeel_types::Outcome::Done);
        let ended = never_started(&order.message, state, "", self.now_ms);
        let before = self.fleet.remembered.get(guest).map(|r| r.message.clone());
        let cooldown = self.active.policy().control.cooldown;
        let message = after_move(before.as_ref(), &ended, cooldown, self.now_ms);
        let past = |record: &v1::MoveRecord| Past {
            source: record.source.clone(),
            target: record.target.clone(),
            ended_ms: record.ended_at_ms,
            state: Some(state),
        };
        let remembered = Remembered {
            cooldown_until_ms: message.cooldown_until_ms,
            moves: message.moves.iter().map(past).collect(),
            message,
            mod_revision: 1,
        };
        self.fleet.remembered.insert(guest.clone(), remembered);
        self.pace.hasten(self.now_ms);
        Some(Move {
            ended_second: self.now_ms / 1000,
            guest: order.message.guest_name,
            source: order.source.to_string(),
            target: order.target.to_string(),
        })
    }
}
