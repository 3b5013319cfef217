//! Events: what is worth keeping of what happens, derived from facts. Pure.
//!
//! What is written anyway (an order, a journal's end, a policy …) has its event in the same transaction: the one
//! stands if the other does, whoever leads. What merely is so for a time (a guest on two hosts, a hold …) is
//! told by comparing it with what was [`Said`]; a new leader reads that from the events that are kept. The shell is
//! in `controller::record`.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_proto::v1;
use evenkeel_types::{EventKind, MigrationState, Outcome};

use super::holds::Hold;
use super::{Assessment, Trouble};
use crate::observe::{EventEntry, Fleet, JournalEntry};

/// Events that are kept: a year of a quiet fleet, a day of one that is drained host by host.
const MOST_KEPT: usize = 1000;
/// How long they are kept, milliseconds: a quarter, as audits are held.
const KEPT_MS: i64 = 92 * 86_400_000;
/// Old events that are removed by one write: etcd bounds a transaction.
const MOST_REMOVED: usize = 32;
/// … and of those that are too old only so many, for a leader whose clock is wrong sees everything as too old.
const MOST_AGED: usize = 4;
/// What was so and is not has ended after this long: reports come and go, and a new leader must see them first.
const QUIET_MS: i64 = 10_000;
/// Characters of one text of an event.
const MOST_TEXT: usize = 1000;

/// An event of a kind, caused by somebody; its number comes with its writing.
#[must_use]
pub fn event(kind: EventKind, by: &str, why: &str) -> v1::Event {
    v1::Event {
        kind: kind.as_str().to_owned(),
        by: bounded(by),
        why: bounded(why),
        ..v1::Event::default()
    }
}

/// The kind of an event; `None`: a newer version wrote it.
#[must_use]
pub fn kind_of(event: &v1::Event) -> Option<EventKind> {
    event.kind.parse().ok()
}

/// An order is in place.
#[must_use]
pub fn ordered(order: &v1::Order) -> v1::Event {
    about_order(EventKind::MigrationOrdered, order)
}

/// A migration is over, as its journal says.
#[must_use]
pub fn ended(journal: &v1::Journal) -> v1::Event {
    let order = journal.order.clone().unwrap_or_default();
    let state = journal.state.as_ref();
    let outcome = state.and_then(|state| MigrationState::try_from(state).ok()?.outcome());
    let (kind, reason) = match outcome {
        Some(Outcome::Done) => (EventKind::MigrationDone, ""),
        Some(Outcome::Refused(reason)) => (EventKind::MigrationRefused, reason.as_str()),
        Some(Outcome::Cancelled) => (EventKind::MigrationCancelled, ""),
        Some(Outcome::Failed { reason, .. }) => (EventKind::MigrationFailed, reason.as_str()),
        None => (EventKind::MigrationUnknown, ""),
    };
    let progress = journal.progress.unwrap_or_default();
    let mut event = about_order(kind, &order);
    if kind != EventKind::MigrationDone {
        reason.clone_into(&mut event.reason);
        event.why = bounded(&journal.detail);
    }
    if kind != EventKind::MigrationRefused {
        event.measured = Some(v1::EventMeasures {
            duration_ms: journal.ended_at_ms.saturating_sub(journal.started_at_ms),
            downtime_ms: progress.downtime_ms,
            transferred_bytes: progress.transferred_bytes,
        });
    }
    event
}

fn about_order(kind: EventKind, order: &v1::Order) -> v1::Event {
    v1::Event {
        guest: order.guest_name.clone(),
        guest_uuid: order.guest_uuid.clone(),
        hosts: vec![order.source.clone(), order.target.clone()],
        migration: order.id.clone(),
        reason: order.reason.clone(),
        prediction: order.prediction,
        ..event(kind, &order.by, &order.why)
    }
}

/// What operators want of a host has changed.
#[must_use]
pub fn intent_changed(
    host: &str,
    (before, after): (Option<&v1::Intent>, Option<&v1::Intent>),
    (by, reason): (&str, &str),
) -> v1::Event {
    use v1::IntentKind::Drain;
    let drains = |intent: Option<&v1::Intent>| intent.is_some_and(|i| i.kind() == Drain);
    let drained = |intent: Option<&v1::Intent>| intent.is_some_and(|i| i.drained_at_ms > 0);
    let asked = |intent: Option<&v1::Intent>| {
        intent.map(|i| (i.deadline_ms, i.offline_too, i.reason.clone()))
    };
    let kind = match (drains(before), drains(after)) {
        (false, true) => EventKind::DrainBegan,
        (true, false) => EventKind::DrainCancelled,
        (true, true) if asked(before) != asked(after) => EventKind::DrainChanged,
        (true, true) => match (drained(before), drained(after)) {
            (false, true) => EventKind::Drained,
            (true, false) => EventKind::DrainReopened,
            _ => EventKind::Cordoned, // within the drain
        },
        (false, false) if after.is_some() => EventKind::Cordoned,
        (false, false) => EventKind::Uncordoned,
    };
    v1::Event {
        hosts: vec![host.to_owned()],
        ..event(kind, by, reason)
    }
}

/// A text of bounded length, in whole characters.
fn bounded(text: &str) -> String {
    text.chars().take(MOST_TEXT).collect()
}

/// Something that is so for a time: what it is (by the kind that begins it), and of whom.
pub type Subject = (EventKind, String);

/// What begins or ends with an event.
enum Mark {
    Begins(Subject),
    Ends(Vec<Subject>),
    Neither,
}

fn mark(event: &v1::Event) -> Mark {
    use EventKind as K;
    let Some(kind) = kind_of(event) else {
        return Mark::Neither;
    };
    let host = || event.hosts.first().cloned().unwrap_or_default();
    let foreign = || {
        (
            K::ForeignMigrationBegan,
            format!("{}/{}", host(), event.guest),
        )
    };
    let overdue = || (K::DrainOverdue, host());
    match kind {
        K::GuestOnTwoHostsBegan => Mark::Begins((kind, event.guest.clone())),
        K::DiskWrittenTwiceBegan | K::HoldBegan => Mark::Begins((kind, event.reason.clone())),
        K::ForeignMigrationBegan => Mark::Begins(foreign()),
        K::MigrationUnknown => Mark::Begins((kind, event.migration.clone())),
        K::DrainOverdue => Mark::Begins(overdue()),
        K::Paused => Mark::Begins((kind, String::new())),
        K::GuestOnTwoHostsEnded => Mark::Ends(vec![(K::GuestOnTwoHostsBegan, event.guest.clone())]),
        K::DiskWrittenTwiceEnded => {
            Mark::Ends(vec![(K::DiskWrittenTwiceBegan, event.reason.clone())])
        }
        K::HoldEnded => Mark::Ends(vec![(K::HoldBegan, event.reason.clone())]),
        K::ForeignMigrationEnded => Mark::Ends(vec![foreign()]),
        K::MigrationDone | K::MigrationFailed | K::MigrationCancelled | K::MigrationRefused => {
            Mark::Ends(vec![(K::MigrationUnknown, event.migration.clone())])
        }
        K::Resumed => Mark::Ends(vec![(K::Paused, String::new())]),
        K::DrainBegan | K::DrainChanged | K::DrainCancelled | K::Drained | K::Uncordoned => {
            Mark::Ends(vec![overdue()])
        }
        K::MigrationOrdered
        | K::CancelAsked
        | K::GuestResolved
        | K::RequestRefused
        | K::PolicyChanged
        | K::ModeChanged
        | K::Cordoned
        | K::DrainReopened
        | K::LeaderChanged => Mark::Neither,
    }
}

/// What the events so far say to be so. Read from those that are kept by a new leader, then kept up by itself.
#[derive(Debug, Clone, Default)]
pub struct Said {
    standing: BTreeMap<Subject, v1::Event>,
    /// Since when what stands has not been seen.
    gone_since: BTreeMap<Subject, i64>,
    /// The newest leadership that was told, and whose it was.
    led: (i64, String),
}

impl Said {
    /// What the events that are kept say.
    #[must_use]
    pub fn read(fleet: &Fleet) -> Self {
        let mut said = Self::default();
        for entry in in_order(fleet) {
            said.note(&entry.message);
        }
        said
    }

    /// Another event was recorded.
    pub fn note(&mut self, event: &v1::Event) {
        match mark(event) {
            Mark::Begins(subject) => {
                self.standing.insert(subject, event.clone());
            }
            Mark::Ends(subjects) => {
                for subject in subjects {
                    self.standing.remove(&subject);
                    self.gone_since.remove(&subject);
                }
            }
            Mark::Neither => {}
        }
        if kind_of(event) == Some(EventKind::LeaderChanged) {
            self.led = (event.epoch, event.by.clone());
        }
    }

    /// Events that follow from what is so now and was not said, or was said and is so no more.
    pub fn news(&mut self, now: &Now<'_>) -> Vec<v1::Event> {
        let mut news: Vec<v1::Event> = self.new_leader(now).into_iter().collect();
        let mut current = BTreeSet::new();
        for event in conditions(now) {
            if let Mark::Begins(subject) = mark(&event) {
                if !self.standing.contains_key(&subject) {
                    news.push(event);
                }
                current.insert(subject);
            }
        }
        self.gone_since
            .retain(|subject, _| !current.contains(subject));
        let gone = self.standing.iter().filter(|(s, _)| !current.contains(*s));
        for (subject, began) in gone {
            let Some(end) = end_of(subject.0) else {
                continue;
            };
            let since = *self
                .gone_since
                .entry(subject.clone())
                .or_insert(now.at_ms());
            // A pause runs out by the clock, not by what reports say.
            let is_over = subject.0 == EventKind::Paused
                || now.at_ms().abs_diff(since) >= QUIET_MS.unsigned_abs();
            if is_over {
                let words = if subject.0 == EventKind::Paused {
                    "the pause ran out"
                } else {
                    ""
                };
                news.push(v1::Event {
                    guest: began.guest.clone(),
                    guest_uuid: began.guest_uuid.clone(),
                    hosts: began.hosts.clone(),
                    reason: began.reason.clone(),
                    ..event(end, now.by, words)
                });
            }
        }
        news
    }

    fn new_leader(&self, now: &Now<'_>) -> Option<v1::Event> {
        let (epoch, before) = &self.led;
        if *epoch >= now.epoch {
            return None;
        }
        let why = if before.is_empty() {
            format!("{} leads", now.by)
        } else {
            format!("{} leads, before it {before} in epoch {epoch}", now.by)
        };
        Some(event(EventKind::LeaderChanged, now.by, &why))
    }
}

/// What ends something that is told by looking; `None`: another event does.
fn end_of(began: EventKind) -> Option<EventKind> {
    use EventKind as K;
    [
        (K::GuestOnTwoHostsBegan, K::GuestOnTwoHostsEnded),
        (K::DiskWrittenTwiceBegan, K::DiskWrittenTwiceEnded),
        (K::ForeignMigrationBegan, K::ForeignMigrationEnded),
        (K::HoldBegan, K::HoldEnded),
        (K::Paused, K::Resumed),
    ]
    .into_iter()
    .find_map(|(kind, end)| (kind == began).then_some(end))
}

/// The picture that events are derived from.
#[derive(Debug, Clone, Copy)]
pub struct Now<'a> {
    /// etcd's picture.
    pub fleet: &'a Fleet,
    /// The fleet, priced.
    pub assessment: &'a Assessment,
    /// Migrations whose outcome is not known.
    pub unknown: &'a [&'a JournalEntry],
    /// Hosts whose drain is late, with what is left.
    pub overdue: &'a [(String, String)],
    /// This leadership.
    pub epoch: i64,
    /// This replica: `scheduler/s1`.
    pub by: &'a str,
}

impl Now<'_> {
    fn at_ms(&self) -> i64 {
        self.assessment.at_ms
    }
}

/// Everything that is so now, each as the event that begins it.
fn conditions(now: &Now<'_>) -> Vec<v1::Event> {
    let mut all: Vec<v1::Event> = vec![];
    all.extend(now.assessment.troubles.iter().map(|t| trouble(now, t)));
    all.extend(now.assessment.holds.iter().filter_map(|h| hold(now, h)));
    all.extend(now.unknown.iter().map(|journal| {
        let order = &journal.order.message;
        v1::Event {
            why: bounded(&journal.message.detail),
            ..about_order(EventKind::MigrationUnknown, order)
        }
    }));
    all.extend(now.overdue.iter().map(|(host, left)| v1::Event {
        hosts: vec![host.clone()],
        ..event(EventKind::DrainOverdue, now.by, left)
    }));
    all
}

fn trouble(now: &Now<'_>, trouble: &Trouble) -> v1::Event {
    let why = trouble.to_string();
    match trouble {
        Trouble::TwoHosts { guest, hosts } => v1::Event {
            guest: guest.clone(),
            hosts: hosts.clone(),
            ..event(EventKind::GuestOnTwoHostsBegan, now.by, &why)
        },
        Trouble::SharedDisk { disk, guests } => {
            let hosts = guests.iter().filter_map(|name| name.split_once('/'));
            v1::Event {
                guest: bounded(&guests.join(", ")),
                hosts: hosts.map(|(host, _)| host.to_owned()).collect(),
                reason: bounded(disk),
                ..event(EventKind::DiskWrittenTwiceBegan, now.by, &why)
            }
        }
        Trouble::ForeignMigration { guest, host } => v1::Event {
            guest: guest.clone(),
            hosts: vec![host.clone()],
            ..event(EventKind::ForeignMigrationBegan, now.by, &why)
        },
    }
}

/// Mode and pause have events of their own, and every new leader warms up.
fn hold(now: &Now<'_>, hold: &Hold) -> Option<v1::Event> {
    match hold {
        Hold::Mode(_) | Hold::NotReady | Hold::WarmingUp { .. } => None,
        // As long as it is in force it stands.
        Hold::Paused { by, reason, .. } => Some(event(EventKind::Paused, by, reason)),
        Hold::BrokenPolicy(_)
        | Hold::BadPicture(_)
        | Hold::FaultyPlan(_)
        | Hold::HostsMissing { .. }
        | Hold::Failures { .. } => Some(v1::Event {
            reason: hold.as_str().to_owned(),
            ..event(EventKind::HoldBegan, now.by, &hold.to_string())
        }),
    }
}

/// Events as they were written: by etcd's revision, and by number within one.
pub fn in_order(fleet: &Fleet) -> impl Iterator<Item = &EventEntry> {
    let mut all: Vec<&EventEntry> = fleet.events.values().collect();
    all.sort_by_key(|entry| (entry.revision, entry.message.sequence));
    all.into_iter()
}

/// Numbers of the events that are not kept any longer, the oldest first; the newest always is.
#[must_use]
pub fn surplus(fleet: &Fleet, now_ms: i64) -> Vec<(u64, i64)> {
    let too_many = fleet
        .events
        .len()
        .saturating_sub(MOST_KEPT)
        .min(MOST_REMOVED);
    let mut all = fleet.events.iter();
    let mut old: Vec<(u64, i64)> = all.by_ref().take(too_many).map(|(id, _)| *id).collect();
    let oldest_ms = now_ms.saturating_sub(KEPT_MS);
    let room = MOST_AGED.min(fleet.events.len().saturating_sub(too_many + 1));
    let aged = all.take(room);
    old.extend(
        aged.take_while(|(_, entry)| entry.message.at_ms < oldest_ms)
            .map(|(id, _)| *id),
    );
    old
}

/// What somebody wants to see of the events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter(v1::EventFilter);

impl From<v1::EventFilter> for Filter {
    fn from(filter: v1::EventFilter) -> Self {
        Self(filter)
    }
}

impl Filter {
    /// Whether an event is wanted.
    #[must_use]
    pub fn takes(&self, event: &v1::Event) -> bool {
        let v1::EventFilter {
            since_ms,
            kinds,
            guest,
            host,
        } = &self.0;
        let names = |guest: &str| event.guest.split(", ").any(|name| name == guest);
        event.at_ms >= *since_ms
            && (kinds.is_empty() || kinds.contains(&event.kind))
            && (guest.is_empty() || names(guest) || event.guest_uuid == guest.to_lowercase())
            && (host.is_empty() || event.hosts.contains(host))
    }
}

#[cfg(test)]
mod tests;
