//! The control loop's shell: one task that owns the picture of the fleet and does everything in turn.
//!
//! Every replica runs it; only the one with a mandate plans by the clock and writes. The API reads through
//! [`Handle::read`] and writes through [`Handle::write`], so no lock guards the picture and nothing sees it
//! half changed. Planning runs on a thread of its own; its result is chosen from on the newest picture.

mod act;
mod clock;
mod intents;
mod measure;
mod policy;
mod pulse;
mod record;
mod resolve;
mod sweep;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use evenkeel_daemon::metrics::Readiness;
use evenkeel_daemon::supervision::Pulse;
use evenkeel_daemon::{Change, Store, unix_ms};
use evenkeel_planner::{Options, Plan, PlanReport, Purpose, RuleStanding, plan, rules_standing};
use evenkeel_proto::keys::Keys;
use evenkeel_types::{HostName, OrderId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use record::Stamp;
pub use write::{Reply, Write, WriteError};

use clock::Clock;
use measure::Measurements;
use record::Recorder;

use crate::core::drains;
use crate::core::holds::faulty_plan;
use crate::core::unknown::is_unknown;
use crate::core::{ActivePolicy, Assessment, Choice, Core, Hold, Pace};
use crate::execute::orders::Orders;
use crate::execute::reconcile::Delivered;
use crate::execute::{Agents, Delivery};
use crate::lease::{Mandate, Standing};
use crate::metrics::Metrics;
use crate::observe::{Fleet, Touched};

/// How often the picture is priced and orders are looked after.
const TICK: Duration = Duration::from_millis(500);
/// Questions waiting for the loop.
const QUEUE: usize = 256;
/// A question is answered within this time or refused.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// The planner's seed: any constant; plans are to be repeatable.
const SEED: u64 = 1;

/// A question about the picture.
type Read = Box<dyn FnOnce(&Controller) + Send>;

/// What the loop is asked.
enum Ask {
    Read(Read),
    Write(Write),
}

/// The way into the loop, for the API.
#[derive(Debug, Clone)]
pub struct Handle {
    asks: mpsc::Sender<Ask>,
}

/// The loop did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// It is gone or has too much to do: it never heard the question.
    #[error("the control loop takes no more questions")]
    NotHeard,
    /// It has the question and may be about to answer.
    #[error("the control loop did not answer in time")]
    Late,
}

impl Handle {
    /// Asks about the picture as it is now.
    ///
    /// # Errors
    /// When the loop is gone or too busy.
    pub async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Controller) -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        let (reply, answer) = oneshot::channel();
        let read: Read = Box::new(move |controller| drop(reply.send(question(controller))));
        self.ask(Ask::Read(read), answer).await
    }

    /// Asks for a change; only the leader carries it out.
    ///
    /// # Errors
    /// When the loop is gone or too busy, or the change is refused.
    pub async fn write<T: Send>(
        &self,
        make: impl FnOnce(Reply<T>) -> Write,
    ) -> Result<T, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Write(make(reply)), answer)
            .await
            .map_err(WriteError::NoAnswer)?
    }

    async fn ask<T>(&self, ask: Ask, answer: oneshot::Receiver<T>) -> Result<T, NoAnswer> {
        let deadline = tokio::time::Instant::now() + ANSWER_DEADLINE;
        let Ok(Ok(())) = tokio::time::timeout_at(deadline, self.asks.send(ask)).await else {
            return Err(NoAnswer::NotHeard);
        };
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(NoAnswer::Late),
        }
    }
}

/// A plan and what it was made of.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// Why each step, and why not the others.
    pub report: PlanReport,
    /// What was started and what was postponed.
    pub choice: Choice,
    /// Hosts that were draining in the picture it was made of.
    pub draining: BTreeSet<String>,
}

/// A plan as it comes from its thread.
struct Made {
    plan: Plan,
    report: PlanReport,
    purpose: Purpose,
    draining: BTreeSet<String>,
    /// What the referee objects to.
    fault: Option<Hold>,
    /// How the policy's rules stand.
    rules: Vec<RuleStanding>,
    took: Duration,
}

/// A plan that is being made.
type Planning = JoinHandle<Made>;

/// Answers of delivery tasks, and the way back for them.
type Answers = (
    mpsc::Sender<(OrderId, Delivery)>,
    mpsc::Receiver<(OrderId, Delivery)>,
);

/// What a controller is made of.
#[derive(Debug)]
pub struct Parts {
    /// The cluster.
    pub cluster: HostName,
    /// This replica's name.
    pub name: HostName,
    /// etcd.
    pub store: Store,
    /// Our place in the election.
    pub standing: Standing,
    /// Channels to agents.
    pub agents: Agents,
    /// Metrics.
    pub metrics: Metrics,
    /// Set once etcd has been read.
    pub readiness: Readiness,
}

/// The state of the loop.
pub struct Controller {
    parts: Parts,
    keys: Keys,
    orders: Orders,
    fleet: Fleet,
    core: Core,
    active: ActivePolicy,
    assessment: Assessment,
    planned: Option<Planned>,
    /// What the referee objects to in the newest plan; holds until there is another.
    plan_fault: Option<Hold>,
    planning: Option<Planning>,
    deliveries: BTreeMap<OrderId, Delivered>,
    delivered: Answers,
    /// Orders are to be looked after at once: there is a new one, or a migration has ended.
    is_due: bool,
    measurements: Measurements,
    /// Orders whose end we have written and not yet seen.
    settled: BTreeSet<OrderId>,
    /// Epoch of the mandate we acted under last.
    led_epoch: Option<i64>,
    pace: Pace,
    clock: Clock,
    /// When records were last looked through for guests that are gone.
    swept_ms: i64,
    last_cycle_ms: i64,
    holds_said: Vec<String>,
    recorder: Recorder,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller")
            .field("name", &self.parts.name)
            .finish_non_exhaustive()
    }
}

/// Starts the loop; it runs until `stop`, or until nothing feeds it `changes` any more.
#[must_use]
pub fn start(
    parts: Parts,
    changes: mpsc::Receiver<Change>,
    stop: CancellationToken,
) -> (Handle, JoinHandle<()>) {
    let (asks, asked) = mpsc::channel(QUEUE);
    let running = tokio::spawn(Controller::new(parts).run(changes, asked, stop));
    (Handle { asks }, running)
}

impl Controller {
    fn new(parts: Parts) -> Self {
        let now_ms = unix_ms();
        let keys = Keys::new(&parts.cluster);
        let active = ActivePolicy::default();
        let fleet = Fleet::default();
        let mut core = Core::new(active.policy());
        let assessment = core.assess(&fleet, &active, now_ms);
        Self {
            orders: Orders::new(parts.store.clone(), keys.clone()),
            keys,
            fleet,
            core,
            active,
            assessment,
            planned: None,
            plan_fault: None,
            planning: None,
            deliveries: BTreeMap::new(),
            delivered: mpsc::channel(QUEUE),
            is_due: false,
            measurements: Measurements::default(),
            settled: BTreeSet::new(),
            led_epoch: None,
            pace: Pace::new(now_ms),
            clock: Clock::new(now_ms, Instant::now()),
            swept_ms: 0,
            last_cycle_ms: 0,
            holds_said: vec![],
            recorder: Recorder::new(parts.metrics.clone()),
            parts,
        }
    }

    async fn run(
        mut self,
        mut changes: mpsc::Receiver<Change>,
        mut asked: mpsc::Receiver<Ask>,
        stop: CancellationToken,
    ) {
        let mut pulse = Pulse::default();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if std::mem::take(&mut self.is_due) {
                tick.reset_immediately();
            }
            tokio::select! {
                change = changes.recv() => match change {
                    Some(change) => self.take(change),
                    // A loop whose picture stands still must not go on to lead by it.
                    None => return,
                },
                Some(ask) = asked.recv() => match ask {
                    Ask::Read(read) => read(&self),
                    Ask::Write(write) => self.write(write).await,
                },
                Some((id, delivery)) = self.delivered.1.recv() => self.note_delivery(&id, delivery),
                made = made(&mut self.planning) => self.take_plan(made).await,
                _ = tick.tick() => self.tick().await,
                () = stop.cancelled() => return,
            }
            pulse.beat(|| self.status());
        }
    }

    /// Applies a change of etcd, and notes what asks for a cycle at once.
    fn take(&mut self, change: Change) {
        let now_ms = unix_ms();
        for touched in self.fleet.apply(&self.keys, change) {
            match touched {
                Touched::Report(host) => {
                    if let Some(report) = self.fleet.reports.get(&host) {
                        self.core.note(&host, report, now_ms);
                    }
                }
                Touched::Host(_) | Touched::Control => self.pace.hasten(now_ms),
                Touched::Migration(guest) => self.is_due |= self.fleet.has_ended(&guest),
                Touched::Event(sequence, epoch) => self.tell(sequence, epoch),
                Touched::Other => {}
            }
        }
        self.parts.readiness.set(self.fleet.complete);
        self.parts.standing.report_sight(self.fleet.complete);
    }

    async fn tick(&mut self) {
        let now_ms = unix_ms();
        if let Some(by_ms) = self.clock.was_set(now_ms, Instant::now()) {
            self.start_over(now_ms, by_ms);
        }
        let mandate = self.confirmed_mandate();
        self.note_leadership(mandate.as_ref(), now_ms);
        self.note_gone_orders(now_ms);
        self.look_again(now_ms);
        if let Some(mandate) = &mandate
            && self.fleet.complete
        {
            self.look_after_orders(mandate, now_ms).await;
            self.look_after_drains(mandate, now_ms).await;
            self.sweep(mandate, now_ms).await;
            self.look_after_events(mandate, now_ms).await;
            let cycle = self.active.policy().control.cycle;
            if let Some(purpose) = self.purpose()
                && self.planning.is_none()
                && self.pace.take(cycle, now_ms)
            {
                self.start_planning(purpose);
            }
        }
    }

    /// The system's clock was set: ages and estimates that were counted by it are worth nothing, so it is as
    /// if this replica had just been started. What it has watched by then is too short to move anything.
    fn start_over(&mut self, now_ms: i64, by_ms: i64) {
        tracing::warn!(by_ms, "the system's clock was set; estimates start over");
        self.core = Core::new(self.active.policy());
        self.drop_plan();
        self.deliveries.clear();
        self.measurements = Measurements::default();
        self.pace = Pace::new(now_ms);
    }

    /// The mandate, unless our picture shows that another leads: an idle leader writes nothing that would
    /// tell it.
    fn confirmed_mandate(&self) -> Option<Mandate> {
        let mandate = self.parts.standing.mandate()?;
        let leads = self.fleet.leader().map(|(epoch, _)| epoch);
        let seen = self.fleet.complete && self.fleet.revision >= mandate.epoch.0;
        if seen && leads != Some(mandate.epoch.0) {
            self.parts.standing.report_deposed(mandate.epoch);
            return None;
        }
        Some(mandate)
    }

    /// Prices the fleet as it is now.
    fn look_again(&mut self, now_ms: i64) {
        self.active = self.active.follow(self.fleet.policy.as_ref());
        let mut assessment = self.core.assess(&self.fleet, &self.active, now_ms);
        assessment.snapshot.cluster = self.parts.cluster.to_string();
        assessment.holds.extend(self.plan_fault.clone());
        let before = std::mem::replace(&mut self.assessment, assessment);
        for trouble in &self.assessment.troubles {
            if !before.troubles.contains(trouble) {
                tracing::error!(%trouble, "somebody must look at this");
            }
        }
        if self.purpose().is_none() {
            self.drop_plan();
        }
        let policy = self.active.policy();
        if let Some(end_ms) = self.core.next_hold_end(policy.control.hold, now_ms) {
            self.pace.hasten(end_ms);
        }
        let metrics = &self.parts.metrics;
        metrics.assessment(&before, &self.assessment);
        metrics.looked(&self.fleet, now_ms);
        metrics.policy(
            policy.mode,
            self.active.revision(),
            policy.limits.migrations_per_cluster,
        );
        metrics.drains(&self.drains());
        metrics.etcd(*self.parts.store.health().borrow());
        let open = self.fleet.open_migrations().len();
        metrics.running(open, self.unknown_migrations(), self.fleet.malformed.len());
        self.say_holds();
    }

    fn note_leadership(&mut self, mandate: Option<&Mandate>, now_ms: i64) {
        let epoch = mandate.map(|m| m.epoch.0);
        self.parts.metrics.leadership(epoch);
        if epoch != self.led_epoch {
            // What an earlier leader delivered is judged from journals alone.
            self.deliveries.clear();
            self.settled.clear();
            self.drop_plan();
            self.pace.hasten(now_ms);
            self.led_epoch = epoch;
            self.read_events_again();
        }
    }

    /// What moves are looked for, if any: in mode off nothing but drains is even recommended.
    fn purpose(&self) -> Option<Purpose> {
        drains::purpose(&self.assessment, self.active.policy().mode)
    }

    /// Neither the standing plan nor the one that is being made counts any more.
    fn drop_plan(&mut self) {
        self.planning = None;
        self.plan_fault = None;
        self.core.want_nothing();
        if self.planned.take().is_some() {
            self.parts.metrics.no_plan();
        }
    }

    /// Holds are logged when they change, not every half second.
    fn say_holds(&mut self) {
        if self.led_epoch.is_none() {
            return;
        }
        let names: Vec<String> = self
            .assessment
            .holds
            .iter()
            .map(|hold| hold.as_str().to_owned())
            .collect();
        if names != self.holds_said {
            let why: Vec<String> = self
                .assessment
                .holds
                .iter()
                .map(ToString::to_string)
                .collect();
            tracing::info!(holds = why.join("; "), "what holds automatic moves back");
            self.holds_said = names;
        }
    }

    fn start_planning(&mut self, purpose: Purpose) {
        let (snapshot, policy) = (
            self.assessment.snapshot.clone(),
            self.active.policy().clone(),
        );
        self.planning = Some(tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            let options = Options {
                seed: SEED,
                purpose,
                ..Options::default()
            };
            let (plan, report) = plan(&snapshot, &policy, &options);
            Made {
                fault: faulty_plan(&snapshot, &policy, &plan),
                rules: rules_standing(&snapshot, &policy),
                draining: drains::draining(&snapshot),
                purpose,
                plan,
                report,
                took: started.elapsed(),
            }
        }));
    }

    // ---- What the API reads -------------------------------------------------------------------

    /// etcd's picture.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The fleet, priced.
    #[must_use]
    pub fn assessment(&self) -> &Assessment {
        &self.assessment
    }

    /// The policy in force.
    #[must_use]
    pub fn active(&self) -> &ActivePolicy {
        &self.active
    }

    /// The newest plan of this leadership.
    #[must_use]
    pub fn planned(&self) -> Option<&Planned> {
        self.planned.as_ref()
    }

    /// What estimates are made from.
    #[must_use]
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The mandate, if we lead.
    #[must_use]
    pub fn mandate(&self) -> Option<Mandate> {
        self.parts.standing.mandate()
    }

    /// This replica's name.
    #[must_use]
    pub fn name(&self) -> &HostName {
        &self.parts.name
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &HostName {
        &self.parts.cluster
    }

    /// When the last cycle ended, milliseconds since the Unix epoch; 0: none by this replica.
    #[must_use]
    pub fn last_cycle_ms(&self) -> i64 {
        self.last_cycle_ms
    }

    /// Whether etcd answered last time.
    #[must_use]
    pub fn etcd_reachable(&self) -> bool {
        *self.parts.store.health().borrow()
    }

    /// Migrations whose outcome is not known.
    #[must_use]
    pub fn unknown_migrations(&self) -> usize {
        let (snapshot, now_ms) = (&self.assessment.snapshot, self.assessment.at_ms);
        let journals = self.fleet.journals.values();
        journals
            .filter(|journal| is_unknown(journal, snapshot, now_ms))
            .count()
    }
}

/// Resolves when the plan that is being made is there; never while none is.
async fn made(planning: &mut Option<Planning>) -> Option<Made> {
    let Some(running) = planning.as_mut() else {
        return std::future::pending().await;
    };
    let made = running.await;
    *planning = None;
    made.map_err(|error| tracing::error!(%error, "planning ended abnormally"))
        .ok()
}

#[cfg(test)]
pub(crate) mod tests;
