//! What the scheduler sees: etcd mirrored into typed values. Every replica does this, leader or not, so
//! that a standby's picture is warm when it takes over.
//!
//! [`Fleet`] is pure: it takes changes and answers questions. The tasks that feed it are in [`feed`].

mod decode;
pub mod feed;
pub mod model;

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_daemon::{Change, Entry};
use evenkeel_proto::keys::{Key, Keys};
use evenkeel_proto::v1;
use evenkeel_types::{GuestId, HostName, OrderId, Outcome};

pub use model::{
    EventEntry, GuestReading, HostFacts, HostReport, IntentEntry, IntentKind, JournalEntry,
    OrderEntry, Past, Remembered, RunState,
};

/// A report is stamped when all is read; what was read first may be older by so much.
const READING_MS: i64 = 1000;
/// A report that is older than a migration's end by more than this comes from a clock that was set back.
const LATE_REPORT_MS: i64 = 60_000;

/// Everything etcd says of one cluster, as far as it could be understood.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// Hosts that an agent ever announced.
    pub hosts: BTreeMap<HostName, HostFacts>,
    /// Reports whose agent is alive.
    pub reports: BTreeMap<HostName, HostReport>,
    /// Journals of migrations, by source and guest.
    pub journals: BTreeMap<(HostName, GuestId), JournalEntry>,
    /// Orders that stand.
    pub orders: BTreeMap<GuestId, OrderEntry>,
    /// What is remembered of guests.
    pub remembered: BTreeMap<GuestId, Remembered>,
    /// What operators want of hosts; a host without one is nothing special.
    pub intents: BTreeMap<HostName, IntentEntry>,
    /// The pause, if there is one (it may have run out).
    pub pause: Option<v1::Pause>,
    /// The policy's text and revision, with the revision of its key. A value that cannot be understood is an
    /// empty record: something stands there, and it is no policy.
    pub policy: Option<(v1::PolicyRecord, i64)>,
    /// Policies that are kept, by revision. One that cannot be understood is an empty record.
    pub policy_history: BTreeMap<u64, v1::PolicyRecord>,
    /// Replicas that campaign, by key, with the revision at which each did: the oldest leads.
    pub candidates: BTreeMap<String, (i64, v1::LeaderInfo)>,
    /// What happened, by number and epoch.
    pub events: BTreeMap<(u64, i64), EventEntry>,
    /// Keys whose value could not be understood, with the reason. Nothing is guessed from them.
    pub malformed: BTreeMap<String, String>,
    /// Revision that this picture is true at.
    pub revision: i64,
    /// Whether the cluster's prefix has been read, and not as it was before our own newest write.
    pub complete: bool,
    /// Revision of our own newest write that was put into the picture ahead of the mirror.
    pub written: i64,
}

/// What a change was about, for who must react at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// A host's report came or went.
    Report(HostName),
    /// A host's inventory came or went.
    Host(HostName),
    /// A journal or order of this guest changed.
    Migration(GuestId),
    /// The policy, the pause or an intent changed.
    Control,
    /// An event was recorded.
    Event(u64, i64),
    /// Something else, or a whole listing.
    Other,
}

impl Fleet {
    /// Takes one change; says what it touched.
    pub fn apply(&mut self, keys: &Keys, change: Change) -> Vec<Touched> {
        match change {
            Change::Reset(listing) => {
                let policy = self.policy.take();
                *self = Self {
                    revision: listing.revision,
                    complete: listing.revision >= self.written,
                    written: self.written,
                    ..Self::default()
                };
                let touched = listing.entries.iter().map(|e| self.put(keys, e)).collect();
                tracing::debug!(
                    revision = self.revision,
                    hosts = self.hosts.len(),
                    policy_changed = policy.map(|p| p.1) != self.policy.as_ref().map(|p| p.1),
                    "read the fleet from etcd"
                );
                touched
            }
            Change::Put(entry) => {
                self.reach(entry.mod_revision);
                vec![self.put(keys, &entry)]
            }
            Change::Deleted { key, revision } => {
                self.reach(revision);
                vec![self.delete(keys, &key)]
            }
        }
    }

    /// Hosts that are being drained, and how.
    pub fn drains(&self) -> impl Iterator<Item = (&HostName, &IntentEntry)> {
        let intents = self.intents.iter();
        intents.filter(|(_, intent)| intent.kind == IntentKind::Drain)
    }

    /// How a host is being drained; `None`: it is not.
    #[must_use]
    pub fn drain_of(&self, host: &HostName) -> Option<&IntentEntry> {
        let intent = self.intents.get(host);
        intent.filter(|intent| intent.kind == IntentKind::Drain)
    }

    /// We have written something at `revision` and put it into the picture. A listing from before would take it
    /// out again for a moment, in which a pause or an order would not be seen.
    pub fn note_written(&mut self, revision: i64) {
        self.written = self.written.max(revision);
    }

    /// Changes come in order: with one at or after our own newest write, that is in the picture again.
    fn reach(&mut self, revision: i64) {
        self.revision = self.revision.max(revision);
        self.complete |= self.written > 0 && self.revision >= self.written;
    }

    fn put(&mut self, keys: &Keys, entry: &Entry) -> Touched {
        let Some(key) = keys.parse(&entry.key) else {
            return Touched::Other;
        };
        match self.put_parsed(key, entry) {
            Ok(touched) => {
                self.malformed.remove(&entry.key);
                touched
            }
            Err(reason) => {
                let before = self.malformed.insert(entry.key.clone(), reason.clone());
                if before.as_ref() != Some(&reason) {
                    tracing::warn!(key = entry.key, reason, "value in etcd is not used");
                }
                Touched::Other
            }
        }
    }

    fn put_parsed(&mut self, key: Key, entry: &Entry) -> Result<Touched, String> {
        Ok(match key {
            Key::Inventory(host) => {
                self.hosts
                    .insert(host.clone(), decode::inventory(&host, entry)?);
                Touched::Host(host)
            }
            Key::Report(host) => {
                // A report that makes no sense must not leave an older one standing.
                self.reports.remove(&host);
                self.reports
                    .insert(host.clone(), decode::report(&host, entry)?);
                Touched::Report(host)
            }
            Key::Progress(host, guest) => {
                let journal = decode::journal(&host, &guest, entry)?;
                self.journals.insert((host, guest.clone()), journal);
                Touched::Migration(guest)
            }
            Key::Order(guest) => {
                let order = decode::order(&guest, entry)?;
                self.orders.insert(guest.clone(), order);
                Touched::Migration(guest)
            }
            Key::Guest(guest) => {
                self.remembered.insert(guest, decode::remembered(entry)?);
                Touched::Other
            }
            Key::Intent(host) => {
                let (intent, fault) = decode::intent(&host, entry);
                self.intents.insert(host, intent);
                fault.map_or(Ok(()), Err)?;
                Touched::Control
            }
            Key::Pause => {
                self.pause = Some(decode::message(entry)?);
                Touched::Control
            }
            Key::PolicyActive => {
                let record: Result<v1::PolicyRecord, String> = decode::message(entry);
                let standing = record.clone().unwrap_or_default();
                self.policy = Some((standing, entry.mod_revision));
                record?;
                Touched::Control
            }
            Key::Leader => {
                let candidate = (entry.create_revision, decode::message(entry)?);
                self.candidates.insert(entry.key.clone(), candidate);
                Touched::Other
            }
            Key::Event(sequence, epoch) => {
                let event = decode::event((sequence, epoch), entry)?;
                self.events.insert((sequence, epoch), event);
                Touched::Event(sequence, epoch)
            }
            Key::PolicyHistory(n) => {
                let record: Result<v1::PolicyRecord, String> = decode::message(entry);
                let kept = record.clone().unwrap_or_default();
                self.policy_history.insert(n, kept);
                record?;
                Touched::Other
            }
        })
    }

    fn delete(&mut self, keys: &Keys, key: &str) -> Touched {
        self.malformed.remove(key);
        match keys.parse(key) {
            Some(Key::Inventory(host)) => {
                self.hosts.remove(&host);
                Touched::Host(host)
            }
            Some(Key::Report(host)) => {
                self.reports.remove(&host);
                Touched::Report(host)
            }
            Some(Key::Progress(host, guest)) => {
                self.journals.remove(&(host, guest.clone()));
                Touched::Migration(guest)
            }
            Some(Key::Order(guest)) => {
                self.orders.remove(&guest);
                Touched::Migration(guest)
            }
            Some(Key::Guest(guest)) => {
                self.remembered.remove(&guest);
                Touched::Other
            }
            Some(Key::Intent(host)) => {
                self.intents.remove(&host);
                Touched::Control
            }
            Some(Key::Pause) => {
                self.pause = None;
                Touched::Control
            }
            Some(Key::PolicyActive) => {
                self.policy = None;
                Touched::Control
            }
            Some(Key::Leader) => {
                self.candidates.remove(key);
                Touched::Other
            }
            Some(Key::PolicyHistory(n)) => {
                self.policy_history.remove(&n);
                Touched::Other
            }
            Some(Key::Event(sequence, epoch)) => {
                self.events.remove(&(sequence, epoch));
                Touched::Other
            }
            None => Touched::Other,
        }
    }

    /// Who leads, and under which epoch: the candidate that came first.
    #[must_use]
    pub fn leader(&self) -> Option<(i64, &v1::LeaderInfo)> {
        let first = self
            .candidates
            .values()
            .min_by_key(|(revision, _)| *revision)?;
        Some((first.0, &first.1))
    }

    /// The journal that belongs to an order, if its agent has written one.
    #[must_use]
    pub fn journal_of(&self, entry: &OrderEntry) -> Option<&JournalEntry> {
        let key = (entry.order.source.clone(), entry.order.guest.clone());
        self.journals
            .get(&key)
            .filter(|journal| journal.order.id == entry.order.id)
    }

    /// Whether an order stands for a guest whose migration is over.
    #[must_use]
    pub fn has_ended(&self, guest: &GuestId) -> bool {
        let order = self.orders.get(guest);
        let journal = order.and_then(|entry| self.journal_of(entry));
        journal.is_some_and(|journal| journal.state.outcome().is_some())
    }

    /// Migrations that are over and whose end their source's report does not know yet: what it says of the guest is from
    /// before. By revision, and by the source's own clock, for what is written later may have been measured earlier; a
    /// clock that was set back counts for a minute only.
    #[must_use]
    pub fn unreported_ends(&self) -> BTreeMap<(&HostName, &GuestId), Outcome> {
        let ends = self
            .journals
            .iter()
            .filter_map(|((source, guest), journal)| {
                let outcome = journal.state.outcome()?;
                let report = self.reports.get(source)?;
                let behind_ms = journal.message.ended_at_ms - report.measured_at_ms;
                let is_older = report.revision < journal.mod_revision
                    || (-READING_MS..=LATE_REPORT_MS).contains(&behind_ms);
                is_older.then_some(((source, guest), outcome))
            });
        ends.collect()
    }

    /// Guests whose hosts report that a migration takes them away which is none of ours.
    pub fn foreign(&self) -> impl Iterator<Item = (&HostName, &GuestReading)> {
        let open = self.open_migrations();
        let open: BTreeSet<&GuestId> = open.into_values().map(|order| &order.guest).collect();
        let ended = self.unreported_ends();
        let everyone = self.reports.iter();
        let everyone = everyone.flat_map(|(host, r)| r.guests.iter().map(move |g| (host, g)));
        everyone.filter(move |(host, guest)| {
            let is_ours = || open.contains(&guest.id) || ended.contains_key(&(*host, &guest.id));
            guest.migrating_out && !is_ours()
        })
    }

    /// Migrations that are not over: orders that stand and journals that are open.
    #[must_use]
    pub fn open_migrations(&self) -> BTreeMap<OrderId, &evenkeel_proto::order::Order> {
        let ordered = self.orders.values().map(|entry| &entry.order);
        let journalled = self
            .journals
            .values()
            .filter(|j| j.state.outcome().is_none())
            .map(|j| &j.order);
        ordered
            .chain(journalled)
            .map(|order| (order.id.clone(), order))
            .collect()
    }
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
