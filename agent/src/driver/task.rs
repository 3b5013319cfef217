//! One migration's task: takes signals, steps the state machine, carries out its commands.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_daemon::unix_ms;
use evenkeel_proto::order::Order;
use evenkeel_proto::v1;
use evenkeel_types::{Command, Event, Ladder, MigrationState, Outcome, Place, Whereabouts};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::settle::{Answer, Asker};
use super::write::{Draft, write_journal};
use super::{Driver, Updates, copy, settle};
use crate::hypervisor::disks::LocalDisk;
use crate::hypervisor::{Hypervisor, HypervisorEvent, JobProgress};
use crate::journal::{Records, Stored};
use crate::peer::{Peers, Prepared};

/// Longest text kept for people in a journal, characters.
const DETAIL: usize = 512;

/// What a task is told.
#[derive(Debug)]
pub(super) enum Signal {
    /// Something happened, with words for people.
    Happened(Event, String),
    /// Both hosts were asked.
    Answered(Answer),
    /// The target has prepared; these disks go along.
    Ready(Prepared, Vec<LocalDisk>),
    /// The running job's figures.
    Progress(JobProgress),
    /// An operator says where the guest is; the answer says whether that has closed the migration.
    Resolve(Place, String, oneshot::Sender<Result<(), String>>),
}

/// One migration under way.
pub(super) struct Task<H, R, P> {
    pub(super) driver: Arc<Driver<H, R, P>>,
    pub(super) order: Arc<Order>,
    pub(super) state: MigrationState,
    /// The journal as it is to stand.
    journal: v1::Journal,
    /// Counts changes of state; the journal writer says up to which one etcd has them.
    pub(super) version: u64,
    draft: watch::Sender<Draft>,
    pub(super) written: watch::Receiver<u64>,
    updates: watch::Sender<v1::MigrationUpdate>,
    pub(super) signals: mpsc::Sender<Signal>,
    pub(super) prepared: Option<Prepared>,
    /// Disks that are copied along.
    pub(super) disks: Vec<LocalDisk>,
    pub(super) asker: Asker,
    /// Cancelled by the first abort: a copy that has not started never will.
    pub(super) aborted: CancellationToken,
    /// Cancelled once libvirt's call is over: polling and aborting end. A job that is followed has another.
    pub(super) over: CancellationToken,
    /// When libvirt's call was over, milliseconds since the Unix epoch; `None`: it is out.
    pub(super) over_ms: Option<i64>,
    /// Whether the job is being aborted until it is over.
    pub(super) aborting: bool,
    /// What the copy is allowed when it makes no headway.
    pub(super) ladder: Ladder,
}

impl<H: Hypervisor, R: Records, P: Peers> Task<H, R, P> {
    pub(super) fn new(
        driver: Arc<Driver<H, R, P>>,
        order: Order,
        stored: Stored<v1::Journal>,
        state: MigrationState,
        signals: mpsc::Sender<Signal>,
    ) -> (Self, Updates) {
        let order = Arc::new(order);
        let first = Draft {
            journal: stored.value.clone(),
            version: 0,
        };
        let (draft, drafts) = watch::channel(first);
        let (durable, written) = watch::channel(0);
        tokio::spawn(write_journal(
            Arc::clone(&driver.records),
            Arc::clone(&order),
            stored.revision,
            drafts,
            durable,
            driver.timings.progress,
        ));
        let (updates, watched) = watch::channel(v1::MigrationUpdate::default());
        let asker = Asker::new(&driver.timings);
        let over_ms = copy::over_ms(&state, &stored.value);
        let options = &order.options;
        let ladder = Ladder::new(&options.downtime_steps, options.post_copy, options.patience);
        let task = Self {
            driver,
            order,
            state,
            journal: stored.value,
            version: 0,
            draft,
            written,
            updates,
            signals,
            prepared: None,
            disks: vec![],
            asker,
            aborted: CancellationToken::new(),
            over: CancellationToken::new(),
            over_ms,
            aborting: false,
            ladder,
        };
        (task, watched)
    }

    /// Drives the migration to its end and until etcd knows it.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Signal>, first: Event) {
        let mut events = Some(self.driver.calls.hypervisor().events());
        let left_ms = self.order.deadline_ms.saturating_sub(unix_ms());
        let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
        let deadline = Instant::now() + left;
        let mut deadline_stands = true;
        let mut domain = self.driver.figures.of(&self.order.message.guest_name);
        self.feed(first, String::new(), &mut events).await;
        while self.state.outcome().is_none() {
            tokio::select! {
                Some(signal) = inbox.recv() => self.take(signal, &mut events).await,
                event = next_event(&mut events) => self.hear(&event, &mut events).await,
                () = tokio::time::sleep_until(deadline), if deadline_stands => {
                    deadline_stands = false;
                    let words = "the order's deadline passed".to_owned();
                    self.feed(Event::DeadlinePassed, words, &mut events).await;
                }
            }
            domain.show(self.journal.progress.as_ref());
        }
        self.finish().await;
    }

    async fn take(&mut self, signal: Signal, events: &mut Events) {
        match signal {
            Signal::Answered(answer) => {
                let (place, said) = (answer.place, answer.words);
                self.asker.log(&self.order, place, &said);
                let event = self.asker.answer(&self.state, place, answer.has_job);
                // Kept where a person must look; otherwise the outcome says it all.
                let needs_a_person = event == Event::GaveUp
                    || matches!(place, Whereabouts::Both | Whereabouts::Nowhere);
                let words = if needs_a_person { said } else { String::new() };
                self.feed(event, words, events).await;
            }
            Signal::Happened(Event::JobSeen, _) => {
                self.asker.job_seen();
                let words = "the copy goes on without its call".to_owned();
                self.feed(Event::JobSeen, words, events).await;
                if matches!(self.state, MigrationState::Running(_)) {
                    self.asker.begin_anew();
                }
            }
            Signal::Happened(event, words) => self.feed(event, words, events).await,
            Signal::Ready(prepared, disks) => {
                self.prepared = Some(prepared);
                self.disks = disks;
                self.feed(Event::Prepared, String::new(), events).await;
            }
            Signal::Progress(progress) => {
                self.note_progress(&progress);
                if let Some((words, event)) = self.climb(&progress) {
                    self.add_detail(words);
                    self.show();
                    if let Some(event) = event {
                        self.feed(event, String::new(), events).await;
                    }
                }
            }
            Signal::Resolve(place, words, reply) => {
                let may = self.may_resolve(place);
                if may.is_ok() {
                    self.feed(Event::Resolved(place), words, events).await;
                }
                // A caller that has gone away sees the journal.
                drop(reply.send(may));
            }
        }
    }

    async fn hear(&mut self, event: &HypervisorEvent, events: &mut Events) {
        match event {
            HypervisorEvent::SwitchoverBegan(guest) if *guest == self.order.guest => {
                self.feed(Event::SwitchoverSeen, String::new(), events)
                    .await;
            }
            HypervisorEvent::JobCompleted(guest, last) if *guest == self.order.guest => {
                self.note_progress(last);
            }
            HypervisorEvent::SwitchoverBegan(_)
            | HypervisorEvent::JobCompleted(..)
            | HypervisorEvent::GuestChanged(_)
            | HypervisorEvent::ConnectionLost
            | HypervisorEvent::Connected => {}
        }
    }

    /// Steps the machine; the new state is drafted before its commands are carried out.
    async fn feed(&mut self, event: Event, words: String, events: &mut Events) {
        if matches!(event, Event::CallReturned(_)) {
            self.note_return();
        }
        let (next, commands) = self.state.step(event);
        self.add_detail(words);
        if next != self.state {
            if next == MigrationState::Ended(Outcome::Done) {
                self.await_figures(events).await;
            }
            self.enter(next);
        }
        for command in commands {
            self.carry_out(command);
        }
    }

    fn enter(&mut self, next: MigrationState) {
        let was = self.state.as_str();
        self.state = next;
        self.version += 1;
        self.journal.state = Some(next.into());
        if let Some(outcome) = next.outcome() {
            self.journal.ended_at_ms = unix_ms();
            self.log_end(outcome);
        } else {
            self.log_step(was);
        }
        self.show();
    }

    fn log_step(&self, was: &str) {
        let (order, guest, to) = (&self.order.id, &self.order.guest, &self.order.target);
        match self.state {
            MigrationState::Unknown { last, .. } if was != self.state.as_str() => {
                let detail = &self.journal.detail;
                tracing::error!(%order, %guest, %to, %last, detail,
                    "nobody knows where the guest is; it is left alone and asked about");
            }
            state if was != state.as_str() => {
                tracing::info!(%order, %guest, was, now = state.as_str(), "migration goes on");
            }
            MigrationState::Ordered
            | MigrationState::Preparing
            | MigrationState::Running(_)
            | MigrationState::Switching(_)
            | MigrationState::Unknown { .. }
            | MigrationState::Ended(_) => {}
        }
    }

    fn log_end(&self, outcome: Outcome) {
        let progress = self.journal.progress.unwrap_or_default();
        tracing::info!(
            order = %self.order.id, guest = %self.order.guest, to = %self.order.target,
            %outcome, seconds = seconds_between(&self.journal),
            transferred_bytes = progress.transferred_bytes, downtime_ms = progress.downtime_ms,
            detail = self.journal.detail, "migration is over"
        );
    }

    /// Hands the journal to its writer and the update to whoever watches.
    fn show(&mut self) {
        self.journal.updated_at_ms = unix_ms();
        self.draft.send_replace(Draft {
            journal: self.journal.clone(),
            version: self.version,
        });
        self.updates.send_replace(v1::MigrationUpdate {
            order_id: self.order.id.to_string(),
            state: self.journal.state.clone(),
            progress: self.journal.progress,
            detail: self.journal.detail.clone(),
        });
    }

    fn note_progress(&mut self, job: &JobProgress) {
        let before = self.journal.progress.unwrap_or_default();
        self.journal.progress = Some(copy::progress(job, &before));
        self.show();
    }

    fn add_detail(&mut self, words: String) {
        let detail = &mut self.journal.detail;
        if words.is_empty() || detail.contains(&words) {
            return;
        }
        if !detail.is_empty() {
            detail.push_str("; ");
        }
        detail.push_str(&words);
        *detail = detail.chars().take(DETAIL).collect();
    }

    /// libvirt's completed figures (the downtime) come as an event beside the call's return.
    async fn await_figures(&mut self, events: &mut Events) {
        let known = |task: &Self| task.journal.progress.is_some_and(|p| p.downtime_ms > 0);
        let until = Instant::now() + self.driver.timings.figures;
        while !known(self) {
            let next = tokio::time::timeout_at(until, next_event(events)).await;
            let Ok(event) = next else { return };
            if let HypervisorEvent::JobCompleted(guest, last) = event
                && guest == self.order.guest
            {
                return self.note_progress(&last);
            }
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::PrepareTarget => self.prepare_target(),
            Command::StartCopy => self.start_copy(),
            Command::FollowJob => self.follow_job(),
            Command::AbortJob => self.abort_job(),
            Command::AskBothHosts => self.ask_both_hosts(),
            Command::ReleaseTarget => {
                settle::release(&self.driver, &self.order, self.state.outcome());
            }
        }
    }

    /// Waits until etcd has the closed journal, then gives the guest's place back.
    async fn finish(mut self) {
        self.over.cancel();
        self.tidy_up().await;
        let version = self.version;
        if self.written.wait_for(|v| *v >= version).await.is_err() {
            tracing::error!(order = %self.order.id, "the journal's end is not in etcd");
        }
        if let Some(outcome) = self.state.outcome() {
            self.driver.figures.ended(outcome);
        }
        self.driver.running.give_back(&self.order.guest);
    }

    /// Shows in a metric whether the guest runs on two hosts, as far as an answer has said so.
    pub(super) fn mark_two_hosts(&self) {
        if let MigrationState::Unknown { last, .. } = self.state {
            let both = last == Whereabouts::Both;
            self.driver.figures.on_two_hosts(&self.order.guest, both);
        }
    }
}

fn seconds_between(journal: &v1::Journal) -> f64 {
    let ms = journal.ended_at_ms.saturating_sub(journal.started_at_ms);
    Duration::from_millis(u64::try_from(ms).unwrap_or(0)).as_secs_f64()
}

/// The hypervisor's events; `None` once nobody sends any.
pub(super) type Events = Option<broadcast::Receiver<HypervisorEvent>>;

/// The next event; waits for ever when nobody sends any.
async fn next_event(events: &mut Events) -> HypervisorEvent {
    while let Some(receiver) = events {
        match receiver.recv().await {
            Ok(event) => return event,
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => *events = None,
        }
    }
    std::future::pending().await
}
