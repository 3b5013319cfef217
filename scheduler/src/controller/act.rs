//! What the leader does: starts the chosen steps of a plan and looks after orders until they are settled.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use evenkeel_daemon::unix_ms;
use evenkeel_planner::{Plan, Purpose, Step, StepReason};
use evenkeel_proto::order::Order;
use evenkeel_proto::v1;
use evenkeel_proto::v1::agent_service_client::AgentServiceClient;
use evenkeel_types::{GuestId, HostName, MigrationState, OrderId, Outcome};
use tonic::transport::Channel;

use super::{Controller, Made, Planned, Stamp};
use crate::core::Choice;
use crate::core::choose::{Situation, choose};
use crate::core::events;
use crate::execute::agents::deliver;
use crate::execute::orders::{Cause, Look, Moved, order_for};
use crate::execute::reconcile::explain;
use crate::execute::{Delivery, OrderAction, reconcile};
use crate::lease::{CommitError, Mandate};
use crate::observe::OrderEntry;

impl Controller {
    /// A plan has been made: starts what may start, remembers why the rest does not.
    pub(super) async fn take_plan(&mut self, made: Option<Made>) {
        let Some(Made {
            plan,
            report,
            purpose,
            draining,
            fault,
            rules,
            took,
        }) = made
        else {
            self.parts.metrics.cycle("failed", &[], seconds_now());
            return;
        };
        let Some(mandate) = self.parts.standing.mandate() else {
            return;
        };
        let started = Instant::now();
        let now_ms = unix_ms();
        if let Some(fault) = &fault {
            tracing::error!(%fault, "nothing of this plan is started");
        }
        self.plan_fault = fault;
        self.look_again(now_ms);
        let Some(now_for) = self.purpose() else {
            return; // the mode changed while it was being made
        };
        if now_for != purpose {
            self.pace.hasten(now_ms); // so did what holds, and the other kind is due
        }
        let situation = Situation {
            fleet: &self.fleet,
            assessment: &self.assessment,
            policy: self.active.policy(),
            purpose,
        };
        let choice = choose(situation, &plan);
        // A plan for drains says nothing about hot spots.
        if purpose == Purpose::Balance {
            self.core.want(&plan);
        }
        self.pace.wake_for(&choice, now_ms);
        self.wake_for_retries(now_ms);
        for (_, postponed) in &choice.postponed {
            self.parts.metrics.rejected(postponed.as_str());
        }
        let moves = plan.steps.len();
        self.parts.metrics.plan(moves, plan.loss_after, &rules);
        self.say_plan(&plan, &choice);
        let ordered = self.start_chosen(&mandate, &choice, purpose).await;
        // After the orders: who is moved now is not measured.
        self.measure_candidates(&plan, now_ms);
        let outcome = match (plan.steps.is_empty(), choice.start.is_empty(), ordered) {
            (true, _, _) => "idle",
            (false, true, _) => "held",
            (false, false, 0) => "failed",
            (false, false, _) => "moves",
        };
        let phases = [
            ("plan", took.as_secs_f64()),
            ("order", started.elapsed().as_secs_f64()),
        ];
        self.parts.metrics.cycle(outcome, &phases, seconds_now());
        self.last_cycle_ms = now_ms;
        self.planned = Some(Planned {
            plan,
            report,
            choice,
            draining,
        });
    }

    /// Orders the chosen steps; says how many.
    async fn start_chosen(
        &mut self,
        mandate: &Mandate,
        choice: &Choice,
        purpose: Purpose,
    ) -> usize {
        let mut ordered = 0;
        for step in &choice.start {
            let cause = Cause {
                trigger: trigger_of(purpose, step.reason),
                by: format!("scheduler/{}", self.parts.name),
                reason: String::new(),
                disks: v1::DiskCopy::None,
            };
            match self.order(mandate, step, &cause).await {
                Ok(_) => ordered += 1,
                // What could not be ordered is planned again in the next cycle.
                Err(error) => self.note_failed_write("order", mandate, &error),
            }
        }
        ordered
    }

    /// A guest that waits to be tried again gets its cycle when its time has come, not at the next tick.
    fn wake_for_retries(&mut self, now_ms: i64) {
        let guests = self.assessment.snapshot.guests.iter();
        let waits = guests.filter_map(|guest| Some(guest.retry_after?.as_millisecond()));
        if let Some(first_ms) = waits.filter(|at_ms| *at_ms > now_ms).min() {
            self.pace.hasten(first_ms);
        }
    }

    fn say_plan(&self, plan: &Plan, choice: &Choice) {
        if plan.steps.is_empty() {
            return;
        }
        let postponed: Vec<String> = choice
            .postponed
            .iter()
            .map(|(step, why)| format!("{}: {why}", step.guest))
            .collect();
        tracing::info!(
            plan = plan.id,
            loss = plan.loss_before,
            loss_after = plan.loss_after,
            steps = plan.steps.len(),
            start = choice.start.len(),
            postponed = postponed.join("; "),
            policy = self.active.revision(),
            "planned"
        );
    }

    /// Puts an order for a step into etcd; the next look delivers it, and is due at once.
    pub(super) async fn order(
        &mut self,
        mandate: &Mandate,
        step: &Step,
        cause: &Cause,
    ) -> Result<v1::Order, CommitError> {
        // By UUID: a guest that was renamed since it was planned is still the one that was meant.
        let found = self
            .assessment
            .snapshot
            .guest(step.uuid.as_deref().unwrap_or(&step.guest));
        let guest = found
            .and_then(|g| self.assessment.guests.get(&g.name))
            .cloned();
        let (Some(guest), Some(found)) = (guest, found) else {
            return Err(CommitError::Conflict);
        };
        let policy = self.active.policy();
        let moved = Moved::of(guest.clone(), found, policy, cause.disks);
        let order = order_for(step, &moved, policy, cause, unix_ms());
        let stamp = self.stamp(mandate);
        let (order, mod_revision) = self.orders.create(mandate, (order, stamp), &guest).await?;
        self.recorded(&stamp.on(events::ordered(&order)));
        self.fleet.note_written(mod_revision);
        self.is_due = true;
        // In our picture at once: what is judged next must count it.
        if let Ok(order) = Order::try_from(order.clone()) {
            self.fleet.orders.insert(
                guest,
                OrderEntry {
                    order,
                    mod_revision,
                },
            );
        }
        tracing::info!(
            order = order.id,
            guest = order.guest_name,
            source = order.source,
            target = order.target,
            trigger = order.trigger,
            reason = order.reason,
            why = order.why,
            saves_per_hour = step.saves_guest_seconds_per_hour,
            costs = step.costs_guest_seconds,
            copy_seconds = step.copy_seconds,
            by = order.by,
            epoch = order.epoch,
            "ordered a migration"
        );
        Ok(order)
    }

    /// Orders whose end has reached our picture; the next plan can count on it.
    pub(super) fn note_gone_orders(&mut self, now_ms: i64) {
        let standing: BTreeSet<&OrderId> = self
            .fleet
            .orders
            .values()
            .map(|entry| &entry.order.id)
            .collect();
        let before = self.settled.len();
        self.settled.retain(|id| standing.contains(id));
        if self.settled.len() < before {
            self.pace.hasten(now_ms);
        }
    }

    /// One look at every order that stands.
    pub(super) async fn look_after_orders(&mut self, mandate: &Mandate, now_ms: i64) {
        let guests: Vec<GuestId> = self.fleet.orders.keys().cloned().collect();
        for guest in guests {
            let Some(entry) = self.fleet.orders.get(&guest).cloned() else {
                continue;
            };
            if self.settled.contains(&entry.order.id) {
                continue;
            }
            let journal = self.fleet.journal_of(&entry);
            let delivered = self
                .deliveries
                .get(&entry.order.id)
                .cloned()
                .unwrap_or_default();
            match reconcile(&entry, journal, mandate.epoch, &delivered, now_ms) {
                OrderAction::Wait => {}
                OrderAction::Deliver => self.deliver(mandate, &entry),
                OrderAction::Settle => self.settle(mandate, &entry, now_ms).await,
                OrderAction::Withdraw(refusal) => {
                    let detail = explain(&entry, refusal, &delivered);
                    let outcome = Outcome::Refused(refusal);
                    self.withdraw(mandate, &entry, outcome, &detail).await;
                }
            }
            if !*self.parts.store.health().borrow() {
                return; // without etcd each further order would only wait for its deadline
            }
        }
    }

    /// Calls the source agent from a task of its own; the answer comes back to the loop.
    fn deliver(&mut self, mandate: &Mandate, entry: &OrderEntry) {
        let id = entry.order.id.clone();
        let client = self.client_of(&entry.order.source);
        let memory = self.deliveries.entry(id.clone()).or_default();
        let client = match client {
            Ok(client) => client,
            Err(detail) => {
                memory.last_ms = Some(unix_ms());
                tracing::warn!(order = %id, detail, "order not delivered");
                memory.detail = detail;
                return;
            }
        };
        memory.under_way = true;
        let (order, key) = (entry.order.message.clone(), mandate.key.clone());
        let answers = self.delivered.0.clone();
        tokio::spawn(async move {
            let delivery = deliver(client, order, key).await;
            // The loop is gone only when the process ends.
            drop(answers.send((id, delivery)).await);
        });
    }

    /// A client of a host's agent.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(super) fn client_of(
        &mut self,
        host: &HostName,
    ) -> Result<AgentServiceClient<Channel>, String> {
        let facts = self.fleet.hosts.get(host);
        let facts = facts.ok_or_else(|| format!("host {host} is not known"))?;
        let client = self.parts.agents.client(&facts.name, &facts.agent_address);
        client.map_err(|error| error.to_string())
    }

    pub(super) fn note_delivery(&mut self, id: &OrderId, delivery: Delivery) {
        let memory = self.deliveries.entry(id.clone()).or_default();
        memory.under_way = false;
        memory.last_ms = Some(unix_ms());
        match delivery {
            Delivery::TakenUp => tracing::debug!(order = %id, "taken up"),
            Delivery::Refused(refusal, detail) => {
                tracing::warn!(order = %id, %refusal, detail, "the agent refused the order");
                memory.refused = Some(refusal);
                memory.detail = detail;
            }
            Delivery::Unreachable(detail) => {
                tracing::warn!(order = %id, detail, "the agent does not answer");
                memory.detail = detail;
            }
        }
    }

    async fn settle(&mut self, mandate: &Mandate, entry: &OrderEntry, now_ms: i64) {
        let stamp = self.stamp(mandate);
        let Some(journal) = self.fleet.journal_of(entry) else {
            return;
        };
        let look = Look {
            stamp,
            fleet: &self.fleet,
            entry,
            policy: self.active.policy(),
            now_ms,
        };
        let settled = self.orders.settle(mandate, look, journal).await;
        self.note_settled(mandate, entry, (settled, stamp));
    }

    async fn withdraw(
        &mut self,
        mandate: &Mandate,
        entry: &OrderEntry,
        outcome: Outcome,
        detail: &str,
    ) {
        let stamp = self.stamp(mandate);
        let look = Look {
            fleet: &self.fleet,
            entry,
            policy: self.active.policy(),
            now_ms: unix_ms(),
            stamp,
        };
        let withdrawn = self.orders.withdraw(mandate, look, outcome, detail).await;
        self.note_settled(mandate, entry, (withdrawn, stamp));
    }

    pub(super) fn note_settled(
        &mut self,
        mandate: &Mandate,
        entry: &OrderEntry,
        (settled, stamp): (Result<v1::Journal, CommitError>, Stamp),
    ) {
        let order = &entry.order;
        match settled {
            Ok(journal) => {
                self.parts.metrics.settled(&journal);
                self.recorded(&stamp.on(events::ended(&journal)));
                self.deliveries.remove(&order.id);
                // It stays in our picture until the mirror has brought the record of its end: a guest
                // without order and without cool-down would look free to be moved again.
                self.settled.insert(order.id.clone());
                let progress = journal.progress.unwrap_or_default();
                tracing::info!(
                    order = %order.id,
                    guest = order.message.guest_name,
                    source = %order.source,
                    target = %order.target,
                    outcome = outcome_of(&journal),
                    detail = journal.detail,
                    seconds = (journal.ended_at_ms - journal.started_at_ms) / 1000,
                    downtime_ms = progress.downtime_ms,
                    bytes = progress.transferred_bytes,
                    "migration settled"
                );
            }
            Err(error) => self.note_failed_write("settle", mandate, &error),
        }
    }

    pub(super) fn note_failed_write(&self, what: &str, mandate: &Mandate, error: &CommitError) {
        match error {
            CommitError::Deposed(epoch) => {
                self.parts.standing.report_deposed(*epoch);
                tracing::warn!(what, %epoch, "a write was refused: another leads");
            }
            // Our picture was older than etcd's; the next look has the newer one.
            CommitError::Conflict => tracing::debug!(what, "a write met a change"),
            CommitError::RunOut(_) | CommitError::Store(_) => {
                tracing::warn!(what, epoch = %mandate.epoch, %error, "a write did not happen");
            }
        }
    }
}

/// What started a step, as operators sort migrations by. Where only drains are planned, room is made for them.
fn trigger_of(purpose: Purpose, reason: StepReason) -> &'static str {
    match reason {
        _ if purpose == Purpose::Drain => "drain",
        StepReason::RelieveCpu
        | StepReason::RelieveMemory
        | StepReason::Spread
        | StepReason::Consolidate
        | StepReason::MakeRoom => "balance",
        StepReason::Drain => "drain",
        StepReason::RepairRule => "repair",
        StepReason::Manual => "manual",
    }
}

/// How a migration ended, in words.
fn outcome_of(journal: &v1::Journal) -> String {
    let state = journal
        .state
        .as_ref()
        .and_then(|state| MigrationState::try_from(state).ok());
    state
        .and_then(|state| state.outcome())
        .map_or_else(String::new, |outcome| outcome.to_string())
}

fn seconds_now() -> f64 {
    let ms = u64::try_from(unix_ms()).unwrap_or(0);
    Duration::from_millis(ms).as_secs_f64()
}
