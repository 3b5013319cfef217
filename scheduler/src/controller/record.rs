//! Events as they are written: numbered, in the transaction of what they are about or from a bounded queue.
//!
//! Nothing waits for an event of the queue: what does not fit is dropped and counted. Only a leader writes, under its
//! mandate; what a deposed one has not written is dropped, and what still is so its successor tells.

use etcd_client::TxnOp;
use evenkeel_daemon::store::guard;
use evenkeel_daemon::unix_ms;
use evenkeel_proto::v1;
use evenkeel_types::EventKind;
use tokio::sync::mpsc;

use super::write::{Write, WriteError};
use super::{Controller, Reply};
use crate::core::events::{self, Now, Said};
use crate::core::unknown::is_unknown;
use crate::lease::{Mandate, commit};
use crate::metrics::Metrics;
use crate::observe::JournalEntry;

/// Events that wait to be written: more than happen while etcd is away, when little can.
const QUEUE: usize = 256;
/// Events of one write: etcd takes 128 operations, the removal of old ones included.
const MOST_AT_ONCE: usize = 64;
/// Events of the queue that are written along with what an operator asked for.
const MOST_ALONG: usize = 6;

/// What is written with an event when it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    sequence: u64,
    epoch: i64,
    at_ms: i64,
    policy_revision: u64,
}

impl Stamp {
    /// The event, numbered.
    #[must_use]
    pub fn on(self, event: v1::Event) -> v1::Event {
        v1::Event {
            sequence: self.sequence,
            epoch: self.epoch,
            // A queued one knows when it happened, a new policy its own revision.
            at_ms: if event.at_ms > 0 {
                event.at_ms
            } else {
                self.at_ms
            },
            policy_revision: match event.policy_revision {
                0 => self.policy_revision,
                known => known,
            },
            ..event
        }
    }
}

/// Takes events from anywhere, and never keeps anybody waiting.
#[derive(Debug, Clone)]
pub(super) struct Notary {
    queue: mpsc::Sender<v1::Event>,
    metrics: Metrics,
}

impl Notary {
    /// Puts an event into the queue, if there is room.
    pub(super) fn note(&self, event: v1::Event) {
        let at_ms = unix_ms();
        if let Err(error) = self.queue.try_send(v1::Event { at_ms, ..event }) {
            let event = error.into_inner();
            tracing::warn!(
                kind = event.kind,
                why = event.why,
                "an event is dropped: too many wait"
            );
            self.metrics.event_dropped(1);
        }
    }

    fn has_room(&self) -> bool {
        self.queue.capacity() > 0
    }
}

/// The events of one replica.
#[derive(Debug)]
pub(super) struct Recorder {
    pub(super) notary: Notary,
    queued: mpsc::Receiver<v1::Event>,
    /// Numbered, and not known to be written.
    pending: Vec<v1::Event>,
    said: Said,
    last: u64,
    /// The newest event of ours that has come back from etcd: its revision and number.
    told: (i64, u64),
}

impl Recorder {
    pub(super) fn new(metrics: Metrics) -> Self {
        let (queue, queued) = mpsc::channel(QUEUE);
        Self {
            notary: Notary { queue, metrics },
            queued,
            pending: vec![],
            said: Said::default(),
            last: 0,
            told: (0, 0),
        }
    }

    /// Whether an event waits to be written.
    pub(super) fn has_queued(&self) -> bool {
        !self.queued.is_empty()
    }

    /// Another leadership, or none: what waits is not ours to write any more.
    fn start_over(&mut self, said: Said) {
        let mut dropped = self.pending.len();
        self.pending.clear();
        while self.queued.try_recv().is_ok() {
            dropped += 1;
        }
        if dropped > 0 {
            tracing::warn!(dropped, "events are dropped: this replica leads no more");
            self.notary.metrics.event_dropped(dropped);
        }
        self.said = said;
    }
}

/// What is asked for, as an event if it should be refused; `None`: a rehearsal.
pub(super) fn attempt(write: &Write) -> Option<v1::Event> {
    let refused = |is_dry: bool, by: &str, what: &str| {
        let event = events::event(EventKind::RequestRefused, by, what);
        (!is_dry).then_some(event)
    };
    let of_hosts = |hosts: &[String], event: Option<v1::Event>| {
        let hosts = hosts.to_vec();
        event.map(|event| v1::Event { hosts, ..event })
    };
    match write {
        Write::SetMode(r, by, _) => refused(r.dry_run, by, &format!("mode {}", r.mode)),
        Write::SetPause(r, by, _) => refused(r.dry_run, by, "pause"),
        Write::Resume(r, by, _) => refused(r.dry_run, by, "resume"),
        Write::Migrate(r, by, _) => {
            let event = events::event(EventKind::MigrationRefused, by, "migrate");
            let hosts = Some(r.target.clone()).filter(|target| !target.is_empty());
            let event = v1::Event {
                guest: r.guest.chars().take(256).collect(),
                hosts: hosts.into_iter().collect(),
                ..event
            };
            (!r.dry_run).then_some(event)
        }
        Write::Cancel(r, by, _) => refused(r.dry_run, by, &format!("cancel {}", r.id)),
        Write::SetIntent(r, by, _) => of_hosts(&r.hosts, refused(r.dry_run, by, verb_of(r.kind()))),
        Write::ClearIntent(r, by, _) => of_hosts(&r.hosts, refused(r.dry_run, by, "uncordon")),
        Write::ApplyPolicy(r, by, _) => refused(r.dry_run, by, "policy apply"),
        Write::Resolve(r, by, _) => {
            let event = refused(r.dry_run, by, "guest resolve");
            let guest = r.guest.chars().take(256).collect();
            event.map(|event| v1::Event { guest, ..event })
        }
    }
}

/// What an operator asks of hosts, in a word.
pub(super) fn verb_of(kind: v1::IntentKind) -> &'static str {
    match kind {
        v1::IntentKind::Drain => "drain",
        v1::IntentKind::Cordon | v1::IntentKind::Unspecified => "cordon",
    }
}

/// Answers, and tells of a refusal. That a name was mistyped is none.
pub(super) fn conclude<T>(
    (notary, attempt): (Notary, Option<v1::Event>),
    reply: Reply<T>,
    result: Result<T, WriteError>,
) {
    if let (Some(attempt), Err(error)) = (attempt, &result)
        && matches!(error, WriteError::Refused(_) | WriteError::Conflict(_))
    {
        let why = format!("{}: {error}", attempt.why);
        let told = events::event(EventKind::RequestRefused, &attempt.by, &why);
        let why = told.why;
        notary.note(v1::Event { why, ..attempt });
    }
    super::write::answer(reply, result);
}

/// An event as a line of the log, in fields.
fn log(event: &v1::Event) {
    let prediction = event.prediction.unwrap_or_default();
    let measured = event.measured.unwrap_or_default();
    tracing::info!(
        target: "audit",
        sequence = event.sequence,
        epoch = event.epoch,
        kind = event.kind,
        by = event.by,
        guest = event.guest,
        guest_uuid = event.guest_uuid,
        hosts = event.hosts.join(","),
        migration = event.migration,
        reason = event.reason,
        why = event.why,
        policy_revision = event.policy_revision,
        mode = event.mode,
        saves_guest_seconds_per_hour = prediction.saves_guest_seconds_per_hour,
        costs_guest_seconds = prediction.costs_guest_seconds,
        duration_ms = measured.duration_ms,
        downtime_ms = measured.downtime_ms,
        transferred_bytes = measured.transferred_bytes,
        "event"
    );
}

impl Controller {
    /// The number of the next event. One whose write fails is left out.
    pub(super) fn stamp(&mut self, mandate: &Mandate) -> Stamp {
        let kept = self.fleet.events.keys().next_back();
        let last = kept.map_or(0, |(sequence, _)| *sequence);
        self.recorder.last = self.recorder.last.max(last).saturating_add(1);
        Stamp {
            sequence: self.recorder.last,
            epoch: mandate.epoch.0,
            at_ms: unix_ms(),
            policy_revision: self.active.revision(),
        }
    }

    /// An event for a transaction that writes what it is about.
    pub(super) fn numbered(&mut self, mandate: &Mandate, event: v1::Event) -> (v1::Event, TxnOp) {
        let event = self.stamp(mandate).on(event);
        let write = guard::put(&self.keys.event(event.sequence, event.epoch), &event);
        (event, write)
    }

    /// An event stands in etcd, as far as we know from our own write.
    pub(super) fn recorded(&mut self, event: &v1::Event) {
        self.recorder.said.note(event);
    }

    /// An event has come back from etcd: now it is certain. Ours are counted, logged and passed on, each once.
    pub(super) fn tell(&mut self, sequence: u64, epoch: i64) {
        let Some(entry) = self.fleet.events.get(&(sequence, epoch)) else {
            return;
        };
        let place = (entry.revision, sequence);
        if self.led_epoch != Some(epoch) || place <= self.recorder.told {
            return;
        }
        self.recorder.told = place;
        let event = &entry.message;
        if let Some(kind) = events::kind_of(event) {
            self.parts.metrics.event(kind);
        }
        log(event);
    }

    /// Who leads has changed: what was said so far stands in etcd.
    pub(super) fn read_events_again(&mut self) {
        self.recorder.start_over(Said::read(&self.fleet));
    }

    /// Finds what is new and writes what waits, a bounded number at a time.
    pub(super) async fn look_after_events(&mut self, mandate: &Mandate, now_ms: i64) {
        if !*self.parts.store.health().borrow() {
            return; // it would only wait for its deadline
        }
        if self.recorder.pending.is_empty() {
            // What is found is in the queue until it is written: it must not be found again.
            if self.recorder.queued.is_empty() {
                self.find_news(mandate);
            }
            self.take_queued(mandate, MOST_AT_ONCE);
        }
        let old = events::surplus(&self.fleet, now_ms);
        if self.recorder.pending.is_empty() && old.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.recorder.pending);
        let puts = pending
            .iter()
            .map(|event| guard::put(&self.keys.event(event.sequence, event.epoch), event));
        let removals = old
            .iter()
            .map(|(sequence, epoch)| guard::delete(&self.keys.event(*sequence, *epoch)));
        let writes = puts.chain(removals).collect();
        match commit(&self.parts.store, mandate, vec![], writes).await {
            Ok(_) => {
                for id in &old {
                    self.fleet.events.remove(id);
                }
                for event in &pending {
                    self.recorded(event);
                }
            }
            Err(error) => {
                // The same again, under the same keys: written twice, it is still one.
                self.recorder.pending = pending;
                self.note_failed_write("events", mandate, &error);
            }
        }
    }

    /// What is so now and was not told, and the other way round.
    fn find_news(&mut self, mandate: &Mandate) {
        let (snapshot, at_ms) = (&self.assessment.snapshot, self.assessment.at_ms);
        let journals = self.fleet.journals.values();
        let unknown: Vec<&JournalEntry> = journals
            .filter(|journal| is_unknown(journal, snapshot, at_ms))
            .collect();
        let overdue: Vec<(String, String)> = self
            .drains()
            .into_iter()
            .filter(|(_, _, drain)| drain.overdue)
            .map(|(host, _, drain)| (host.to_string(), format!("{} guests left", drain.left)))
            .collect();
        let now = Now {
            fleet: &self.fleet,
            assessment: &self.assessment,
            unknown: &unknown,
            overdue: &overdue,
            epoch: mandate.epoch.0,
            by: &format!("scheduler/{}", self.parts.name),
        };
        for event in self.recorder.said.news(&now) {
            // Without room it stays unsaid, and the next look finds it again.
            if self.recorder.notary.has_room() {
                self.recorder.notary.note(event);
            }
        }
    }

    fn take_queued(&mut self, mandate: &Mandate, most: usize) {
        while self.recorder.pending.len() < most {
            let Ok(event) = self.recorder.queued.try_recv() else {
                return;
            };
            let event = self.stamp(mandate).on(event);
            self.recorder.pending.push(event);
        }
    }

    /// Commits what an operator asked for, with its events.
    pub(super) async fn commit_with(
        &mut self,
        mandate: &Mandate,
        what: &str,
        (guards, mut writes): (Vec<etcd_client::Compare>, Vec<TxnOp>),
        told: Vec<v1::Event>,
    ) -> Result<i64, WriteError> {
        // What happened before goes before it.
        let mut waiting = vec![];
        if self.recorder.pending.is_empty() {
            self.take_queued(mandate, MOST_ALONG);
            waiting = std::mem::take(&mut self.recorder.pending);
        }
        for event in &waiting {
            writes.push(guard::put(
                &self.keys.event(event.sequence, event.epoch),
                event,
            ));
        }
        let mut numbered = vec![];
        for event in told {
            let (event, write) = self.numbered(mandate, event);
            writes.push(write);
            numbered.push(event);
        }
        let committed = self.commit(mandate, what, guards, writes).await;
        if committed.is_err() {
            self.recorder.pending = waiting; // written by the next look, under the same keys
            return committed;
        }
        for event in waiting.iter().chain(&numbered) {
            self.recorded(event);
        }
        committed
    }
}
