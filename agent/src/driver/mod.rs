//! Migrations away from this host: one task each, detached from whoever asked, driving
//! [`evenkeel_types::lifecycle`] and carrying out its commands.
//!
//! ```text
//!  service::Migrate ──start──▶ Driver ──admit──▶ Records (etcd)
//!  service::Cancel ──cancel──▶   │
//!  adopt ──────────── adopt ──▶  └─ Task: state ─step─▶ commands
//!                                     copy:   prepare, start, follow, abort, poll
//!                                     ladder: what a copy without headway is allowed
//!                                     settle: ask both hosts until they agree; verdict: what they mean
//!                                     resolve: an operator's word; tidying up
//!                                     write:  the journal, phases until etcd takes them
//! ```
//!
//! A task owns its state; everything else it starts sends it signals over one bounded channel. It is never
//! stopped from outside: a stream that breaks, a caller that leaves and a daemon that ends change nothing
//! about the migration, which libvirt drives.

mod copy;
mod disks;
mod figures;
mod ladder;
mod leaving;
mod resolve;
mod settle;
mod task;
pub mod verdict;
mod write;

#[cfg(test)]
pub(crate) mod bench;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_daemon::unix_ms;
use evenkeel_proto::order::Order;
use evenkeel_proto::v1;
use evenkeel_types::{Epoch, Event, GuestId, HostName, MigrationState, OrderId, Outcome, Refusal};
use tokio::sync::{mpsc, watch};

pub use figures::Figures;
pub(crate) use resolve::Closed;
pub use resolve::Word;

use crate::calls::Calls;
use crate::epoch::EpochFloor;
use crate::hypervisor::Hypervisor;
use crate::journal::{self, Records, Refused, Stored};
use crate::ledger::Ledger;
use crate::peer::Peers;
use task::{Signal, Task};

/// Signals that may wait for a task. Progress is dropped when it is full; events wait.
const SIGNALS: usize = 16;

/// Waits and limits of a migration. Tests shorten them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// Between two looks at a running job.
    pub poll: Duration,
    /// Between two writings of mere progress: a put of etcd per migration and this time.
    pub progress: Duration,
    /// After this time a closing answer is asked for again when libvirt's call did not succeed.
    pub confirm: Duration,
    /// First and longest wait between two askings of both hosts.
    pub ask: (Duration, Duration),
    /// After this time without a settling answer the migration is `Unknown`.
    pub give_up: Duration,
    /// After this time in which both hosts have answered, libvirt has had no job for it, and nothing was settled all the
    /// same it is `Unknown`, too: libvirt has left a half behind, and nobody is tidying it up.
    pub left_behind: Duration,
    /// Longest wait between askings of an unknown one.
    pub unknown: Duration,
    /// Between repeats of an abort: one that comes before libvirt's job has begun is lost.
    pub abort: Duration,
    /// How long the end waits for the figures of the completed job.
    pub figures: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            poll: Duration::from_millis(500),
            progress: Duration::from_secs(2),
            confirm: Duration::from_millis(500),
            ask: (Duration::from_millis(200), Duration::from_secs(5)),
            give_up: Duration::from_secs(60),
            left_behind: Duration::from_secs(15),
            unknown: Duration::from_secs(15),
            abort: Duration::from_secs(1),
            figures: Duration::from_millis(500),
        }
    }
}

/// What all migrations of this host share.
#[derive(Debug)]
pub struct Driver<H, R, P> {
    /// This host.
    pub host: HostName,
    /// Its hypervisor.
    pub calls: Calls<H>,
    /// What stands in etcd.
    pub records: Arc<R>,
    /// The other hosts' agents.
    pub peers: Arc<P>,
    /// The highest epoch obeyed.
    pub floor: EpochFloor,
    /// Migrations that may leave at one time.
    pub most: u32,
    /// Waits.
    pub timings: Timings,
    /// Metrics.
    pub figures: Figures,
    /// Those under way.
    pub running: Running,
    /// What guests leave behind here.
    pub ledger: Arc<Ledger>,
}

/// The migrations under way, by guest.
#[derive(Debug, Default)]
pub struct Running(Mutex<HashMap<GuestId, Slot>>);

/// One guest's place among the migrations under way.
#[derive(Debug, Clone)]
struct Slot {
    order: OrderId,
    /// `None` while etcd is asked whether it may start.
    signals: Option<mpsc::Sender<Signal>>,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, HashMap<GuestId, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Migrations under way.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Whether the guest has a migration under way.
    #[must_use]
    pub fn has(&self, guest: &GuestId) -> bool {
        self.lock().contains_key(guest)
    }

    /// Takes the guest's place, before anyone is asked: a second order for it finds it taken.
    fn take(&self, order: &Order, most: u32) -> Result<(), Refused> {
        let mut slots = self.lock();
        if let Some(slot) = slots.get(&order.guest) {
            let detail = format!("order {} is under way here", slot.order);
            let reason = if slot.order == order.id {
                Refusal::Duplicate
            } else {
                Refusal::Busy
            };
            return Err((reason, detail));
        }
        let leaving = slots.len();
        if u32::try_from(leaving).unwrap_or(u32::MAX) >= most {
            let detail = format!("{leaving} guests are leaving already, at most {most} may");
            return Err((Refusal::TooManyMigrations, detail));
        }
        let slot = Slot {
            order: order.id.clone(),
            signals: None,
        };
        slots.insert(order.guest.clone(), slot);
        Ok(())
    }

    fn give_back(&self, guest: &GuestId) {
        self.lock().remove(guest);
    }

    fn connect(&self, order: &Order, signals: mpsc::Sender<Signal>) {
        let slot = Slot {
            order: order.id.clone(),
            signals: Some(signals),
        };
        self.lock().insert(order.guest.clone(), slot);
    }

    fn signals(&self, guest: &GuestId, order: &OrderId) -> Option<mpsc::Sender<Signal>> {
        let slots = self.lock();
        let slot = slots.get(guest).filter(|slot| slot.order == *order)?;
        slot.signals.clone()
    }
}

/// What a caller sees of a migration; the last value stays readable after its end.
pub type Updates = watch::Receiver<v1::MigrationUpdate>;

impl<H: Hypervisor, R: Records, P: Peers> Driver<H, R, P> {
    /// Admits an order and starts its migration.
    ///
    /// On success the journal stands in etcd and the migration goes on whatever becomes of the caller. On
    /// refusal nothing has happened to the guest.
    ///
    /// # Errors
    /// The refusal, with its numbers.
    pub async fn start(
        self: &Arc<Self>,
        order: Order,
        leader_key: String,
    ) -> Result<Updates, Refused> {
        let driver = Arc::clone(self);
        // Detached: a caller that leaves between etcd's yes and the start must not leave an orphan.
        let admission = tokio::spawn(async move { driver.admit(order, &leader_key).await });
        match admission.await {
            Ok(outcome) => outcome,
            Err(error) => Err((Refusal::NoEtcd, format!("admission ended early: {error}"))),
        }
    }

    async fn admit(self: Arc<Self>, order: Order, leader_key: &str) -> Result<Updates, Refused> {
        let outcome = self.try_admit(&order, leader_key).await;
        match &outcome {
            Ok(_) => self.floor.raise(order.epoch),
            Err((reason, detail)) => {
                self.figures.refused(*reason);
                tracing::warn!(
                    order = %order.id, guest = %order.guest, to = %order.target,
                    epoch = %order.epoch, %reason, detail, "order refused"
                );
            }
        }
        let stored = outcome?;
        tracing::info!(
            order = %order.id, guest = %order.guest, name = order.message.guest_name,
            to = %order.target, epoch = %order.epoch, trigger = order.message.trigger,
            why = order.message.why, by = order.message.by, "order admitted"
        );
        Ok(self.spawn(order, stored, MigrationState::Ordered, Event::Admitted))
    }

    async fn try_admit(
        &self,
        order: &Order,
        leader_key: &str,
    ) -> Result<Stored<v1::Journal>, Refused> {
        if order.source != self.host {
            let detail = format!("this is {}, the order is for {}", self.host, order.source);
            return Err((Refusal::NoSuchOrder, detail));
        }
        let highest = self.floor.highest();
        if order.epoch < highest {
            let detail = format!(
                "epoch {} given, epoch {highest} was obeyed already",
                order.epoch
            );
            return Err((Refusal::StaleEpoch, detail));
        }
        let late_ms = unix_ms().saturating_sub(order.deadline_ms);
        if late_ms >= 0 {
            let detail = format!("the deadline was {late_ms} ms ago");
            return Err((Refusal::DeadlinePassed, detail));
        }
        self.running.take(order, self.most)?;
        let value = journal::opened(order, unix_ms());
        match self.records.admit(order, leader_key, &value).await {
            Ok(revision) => Ok(Stored { value, revision }),
            Err(refused) => {
                self.running.give_back(&order.guest);
                Err(refused)
            }
        }
    }

    /// Takes up a migration that an earlier life of this agent has begun. Does nothing when it is under way.
    pub async fn adopt(
        self: &Arc<Self>,
        order: Order,
        state: MigrationState,
        stored: Stored<v1::Journal>,
    ) {
        if state.outcome().is_some() || self.running.take(&order, u32::MAX).is_err() {
            return;
        }
        // It was listed a while ago: meanwhile a task may have closed it and given the place back.
        if !self.stands(&order.guest, stored.revision).await {
            return self.running.give_back(&order.guest);
        }
        let job = copy::standing_job(&self.calls, &order.guest, self.timings.poll).await;
        let over_ms = copy::over_ms(&state, &stored.value);
        let job_running = job.is_some_and(|job| copy::is_ours(&job, over_ms));
        tracing::warn!(
            order = %order.id, guest = %order.guest, to = %order.target,
            state = state.as_str(), job_running, "migration adopted"
        );
        self.spawn(order, stored, state, Event::Adopted { job_running });
    }

    /// Whether the guest's journal is still the one of `revision`. When etcd does not say, the next look asks.
    async fn stands(&self, guest: &GuestId, revision: i64) -> bool {
        let journal = self.records.journal(guest).await;
        journal.is_ok_and(|journal| journal.is_some_and(|j| j.revision == revision))
    }

    fn spawn(
        self: &Arc<Self>,
        order: Order,
        stored: Stored<v1::Journal>,
        state: MigrationState,
        first: Event,
    ) -> Updates {
        let (signals, inbox) = mpsc::channel(SIGNALS);
        self.running.connect(&order, signals.clone());
        let (task, updates) = Task::new(Arc::clone(self), order, stored, state, signals);
        tokio::spawn(task.run(inbox, first));
        updates
    }

    /// Asks a migration to stop, in the name of the leader.
    ///
    /// # Errors
    /// Why nothing was asked, in words: not the leader's, etcd does not answer, or nothing is under way.
    pub async fn cancel(
        &self,
        guest: &GuestId,
        order: &OrderId,
        (leader_key, epoch): (&str, Epoch),
        by: &str,
    ) -> Result<(), String> {
        let confirmed = self.records.confirm(leader_key, epoch).await;
        confirmed.map_err(|(reason, detail)| format!("{reason}: {detail}"))?;
        let nothing = || format!("order {order} is not under way on {}", self.host);
        let signals = self.running.signals(guest, order).ok_or_else(nothing)?;
        let detail = format!("cancelled by {by}");
        let signal = Signal::Happened(Event::CancelRequested, detail);
        signals.send(signal).await.map_err(|_| nothing())
    }
}

/// The state in an update; `None` when it is missing or of a newer version.
#[must_use]
pub fn state_of_update(update: &v1::MigrationUpdate) -> Option<MigrationState> {
    update.state.as_ref().and_then(|s| s.try_into().ok())
}

/// The refusal as an update: what a caller of `Migrate` is told instead of progress.
#[must_use]
pub fn refused_update(order: &OrderId, (reason, detail): Refused) -> v1::MigrationUpdate {
    v1::MigrationUpdate {
        order_id: order.to_string(),
        state: Some(MigrationState::Ended(Outcome::Refused(reason)).into()),
        detail,
        ..v1::MigrationUpdate::default()
    }
}

#[cfg(test)]
mod tests;
