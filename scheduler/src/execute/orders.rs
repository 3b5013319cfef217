//! Orders in etcd: created, settled, withdrawn; each in one fenced transaction.

use std::time::Duration;

use etcd_client::{Compare, TxnOp};
use evenkeel_daemon::Store;
use evenkeel_daemon::store::guard;
use evenkeel_planner::policy::{LocalDisks, StreamCompression};
use evenkeel_planner::{Guest, GuestState, Policy, Step};
use evenkeel_proto::keys::Keys;
use evenkeel_proto::v1;
use evenkeel_types::{GuestId, MigrationState, OrderId, Outcome};

use crate::controller::Stamp;
use crate::core::{cooldown, events};
use crate::lease::{CommitError, Mandate, commit};
use crate::observe::{Fleet, JournalEntry, OrderEntry};

/// A migration gets this many times its predicted copy time …
const DEADLINE_FACTOR: f64 = 10.0;
/// … but never less than this: small guests on a busy host take their time to prepare,
const SHORTEST_DEADLINE: Duration = Duration::from_secs(120);
/// … nor more than this.
const LONGEST_DEADLINE: Duration = Duration::from_secs(4 * 3600);

/// Who asks for a move, and why it is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// `balance`, `repair`, `drain` or `manual`.
    pub trigger: &'static str,
    /// `scheduler/s1`, `operator/alice`.
    pub by: String,
    /// What a person gave as the reason; empty: the step's own words.
    pub reason: String,
    /// How local disks are to be copied, whatever the policy says; `None`: as that says.
    pub disks: v1::DiskCopy,
}

/// The guest of a step, as far as its order must know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The guest.
    pub id: GuestId,
    /// Memory that it holds, MiB.
    pub memory_mib: u64,
    /// Whether it is shut off.
    pub shut_off: bool,
    /// How its local disks are copied.
    pub disks: v1::DiskCopy,
}

impl Moved {
    /// A guest that is moved as the policy says, unless `asked` says otherwise about its disks.
    #[must_use]
    pub fn of(id: GuestId, guest: &Guest, policy: &Policy, asked: v1::DiskCopy) -> Self {
        let copied = guest.local_disk_mib > 0 && policy.migration.local_disks == LocalDisks::Copy;
        Self {
            id,
            memory_mib: guest.memory_mib,
            shut_off: guest.state == GuestState::Shutoff,
            disks: match asked {
                v1::DiskCopy::None if copied => v1::DiskCopy::Whole,
                v1::DiskCopy::None | v1::DiskCopy::Whole | v1::DiskCopy::Incremental => asked,
            },
        }
    }
}

/// How a guest is moved, by the policy.
fn options_for(moved: &Moved, policy: &Policy) -> v1::MoveOptions {
    let migration = &policy.migration;
    let kind = if moved.shut_off {
        v1::MoveKind::Offline
    } else {
        v1::MoveKind::Live
    };
    v1::MoveOptions {
        kind: kind.into(),
        downtime_limit_ms: whole_ms(migration.downtime_limit),
        bandwidth_limit_mib_s: whole(migration.bandwidth_limit_mib_s),
        auto_converge: migration.auto_converge,
        downtime_steps_ms: migration
            .downtime_steps
            .iter()
            .copied()
            .map(whole_ms)
            .collect(),
        patience_ms: whole_ms(migration.patience),
        post_copy: migration.post_copy,
        disks: moved.disks.into(),
        connections: migration.connections,
        compression: match migration.compression {
            StreamCompression::None => String::new(),
            StreamCompression::Xbzrle | StreamCompression::Mt => {
                migration.compression.as_str().to_owned()
            }
        },
        tls: migration.tls,
        allow_older_target: migration.allow_older_target,
    }
}

/// The order that carries out a step.
#[must_use]
pub fn order_for(
    step: &Step,
    moved: &Moved,
    policy: &Policy,
    cause: &Cause,
    now_ms: i64,
) -> v1::Order {
    let predicted = Duration::try_from_secs_f64(step.copy_seconds.max(0.0) * DEADLINE_FACTOR)
        .unwrap_or(LONGEST_DEADLINE);
    let time = predicted.clamp(SHORTEST_DEADLINE, LONGEST_DEADLINE);
    let options = options_for(moved, policy);
    let why = if cause.reason.is_empty() {
        step.why.clone()
    } else {
        cause.reason.clone()
    };
    v1::Order {
        id: OrderId::from_random(rand::random()).to_string(),
        guest_uuid: moved.id.to_string(),
        guest_name: step.guest.clone(),
        source: step.from.clone(),
        target: step.to.clone(),
        options: Some(options),
        created_at_ms: now_ms,
        deadline_ms: now_ms.saturating_add(i64::try_from(whole_ms(time)).unwrap_or(i64::MAX)),
        epoch: 0, // set under the mandate
        trigger: cause.trigger.to_owned(),
        reason: step.reason.as_str().to_owned(),
        why,
        by: cause.by.clone(),
        prediction: Some(v1::Prediction {
            saves_guest_seconds_per_hour: step.saves_guest_seconds_per_hour,
            costs_guest_seconds: step.costs_guest_seconds,
            copy_seconds: step.copy_seconds,
            downtime_seconds: step.downtime_seconds,
            bytes: step.bytes,
        }),
        memory_mib: moved.memory_mib,
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// MiB/s rounded up, so that a small limit does not become "none".
fn whole(rate: f64) -> u64 {
    let rounded = Duration::try_from_secs_f64(rate.max(0.0).ceil()).map_or(0, |d| d.as_secs());
    rounded.max(u64::from(rate > 0.0))
}

/// Orders of one cluster in etcd.
#[derive(Debug, Clone)]
pub struct Orders {
    store: Store,
    keys: Keys,
}

impl Orders {
    /// Orders below `keys`.
    #[must_use]
    pub fn new(store: Store, keys: Keys) -> Self {
        Self { store, keys }
    }

    /// Puts an order in place, if the guest has none; returns it with its revision.
    ///
    /// # Errors
    /// When it was not created, or when that is not known (then it is adopted or withdrawn later).
    pub async fn create(
        &self,
        mandate: &Mandate,
        (mut order, stamp): (v1::Order, Stamp),
        guest: &GuestId,
    ) -> Result<(v1::Order, i64), CommitError> {
        order.epoch = mandate.epoch.0;
        let key = self.keys.order(guest);
        let told = self.told(stamp.on(events::ordered(&order)));
        let writes = vec![guard::put(&key, &order), told];
        let revision = commit(&self.store, mandate, vec![guard::absent(&key)], writes).await?;
        Ok((order, revision))
    }

    /// Remembers how a migration ended and removes its order.
    ///
    /// # Errors
    /// When nothing was written, or when that is not known; the next look tries again.
    pub async fn settle(
        &self,
        mandate: &Mandate,
        look: Look<'_>,
        journal: &JournalEntry,
    ) -> Result<v1::Journal, CommitError> {
        let also = (vec![], vec![]);
        self.close(mandate, look, journal.message.clone(), also)
            .await
    }

    /// Removes an order that no agent has taken up; a guard sees to it that none has.
    ///
    /// # Errors
    /// When nothing was written (an agent was quicker), or when that is not known.
    pub async fn withdraw(
        &self,
        mandate: &Mandate,
        look: Look<'_>,
        outcome: Outcome,
        detail: &str,
    ) -> Result<v1::Journal, CommitError> {
        let state = MigrationState::Ended(outcome);
        let message = &look.entry.order.message;
        let ended = cooldown::never_started(message, state, detail, look.now_ms);
        let also = (vec![self.untaken(look)], vec![]);
        self.close(mandate, look, ended, also).await
    }

    /// Closes a migration whose source is silent on an operator's word: its journal as `ended`, its order removed.
    /// An agent that comes back finds the journal closed.
    ///
    /// # Errors
    /// When nothing was written (the agent was quicker), or when that is not known.
    pub async fn resolve(
        &self,
        mandate: &Mandate,
        look: Look<'_>,
        journal: &JournalEntry,
        ended: v1::Journal,
    ) -> Result<v1::Journal, CommitError> {
        let order = &look.entry.order;
        let key = self.keys.journal(&order.source, &order.guest);
        let also = (
            vec![guard::unchanged(&key, journal.mod_revision)],
            vec![guard::put(&key, &ended)],
        );
        self.close(mandate, look, ended, also).await
    }

    /// Removes records of guests, each at the revision given, unless an order has come to stand for one.
    ///
    /// # Errors
    /// When nothing was written, or when that is not known; the next look tries again.
    pub async fn forget(
        &self,
        mandate: &Mandate,
        records: &[(GuestId, i64)],
    ) -> Result<(), CommitError> {
        let guards = records.iter().flat_map(|(guest, mod_revision)| {
            let record = guard::unchanged(&self.keys.guest(guest), *mod_revision);
            [record, guard::absent(&self.keys.order(guest))]
        });
        let writes = records
            .iter()
            .map(|(guest, _)| guard::delete(&self.keys.guest(guest)));
        commit(&self.store, mandate, guards.collect(), writes.collect()).await?;
        Ok(())
    }

    /// Guard that the source has not begun: no journal, or the closed one of an earlier order unchanged.
    fn untaken(&self, look: Look<'_>) -> Compare {
        let order = &look.entry.order;
        let key = self.keys.journal(&order.source, &order.guest);
        match look
            .fleet
            .journals
            .get(&(order.source.clone(), order.guest.clone()))
        {
            Some(earlier) if earlier.order.id != order.id => {
                guard::unchanged(&key, earlier.mod_revision)
            }
            Some(_) | None => guard::absent(&key),
        }
    }

    /// Writes an event along with what it is about.
    fn told(&self, event: v1::Event) -> TxnOp {
        guard::put(&self.keys.event(event.sequence, event.epoch), &event)
    }

    async fn close(
        &self,
        mandate: &Mandate,
        look: Look<'_>,
        ended: v1::Journal,
        (mut guards, mut writes): (Vec<Compare>, Vec<TxnOp>),
    ) -> Result<v1::Journal, CommitError> {
        let guest = &look.entry.order.guest;
        let before = look.fleet.remembered.get(guest);
        let cooldown = look.policy.control.cooldown;
        let record =
            cooldown::after_move(before.map(|r| &r.message), &ended, cooldown, look.now_ms);
        let (order_key, guest_key) = (self.keys.order(guest), self.keys.guest(guest));
        guards.push(guard::unchanged(&order_key, look.entry.mod_revision));
        guards.push(match before {
            Some(remembered) => guard::unchanged(&guest_key, remembered.mod_revision),
            None => guard::absent(&guest_key),
        });
        let told = self.told(look.stamp.on(events::ended(&ended)));
        writes.extend([
            guard::put(&guest_key, &record),
            guard::delete(&order_key),
            told,
        ]);
        commit(&self.store, mandate, guards, writes).await?;
        Ok(ended)
    }
}

/// An order and the picture in which it is judged.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// etcd's picture.
    pub fleet: &'a Fleet,
    /// The order.
    pub entry: &'a OrderEntry,
    /// The values in force.
    pub policy: &'a Policy,
    /// Now, milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// Of the event that tells the end.
    pub stamp: Stamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(
        state: GuestState,
        local_disk_mib: u64,
        policy: &str,
        asked: v1::DiskCopy,
    ) -> v1::MoveOptions {
        let policy = Policy::parse(policy).unwrap();
        let guest = Guest {
            state,
            local_disk_mib,
            ..Guest::default()
        };
        let id = "6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap();
        options_for(&Moved::of(id, &guest, &policy, asked), &policy)
    }

    #[test]
    fn kind_and_disks_of_a_move_follow_the_guest_the_policy_and_who_asks() {
        use v1::{DiskCopy, MoveKind};
        let (stay, copy) = ("", "[migration]\nlocal_disks = \"copy\"\n");
        let running = |disk, policy, asked| moved(GuestState::Running, disk, policy, asked);
        assert_eq!(running(9, stay, DiskCopy::None).disks(), DiskCopy::None);
        assert_eq!(running(9, copy, DiskCopy::None).disks(), DiskCopy::Whole);
        assert_eq!(running(0, copy, DiskCopy::None).disks(), DiskCopy::None);
        let asked = running(9, stay, DiskCopy::Incremental);
        assert_eq!(asked.disks(), DiskCopy::Incremental);
        assert_eq!(asked.kind(), MoveKind::Live);
        let off = moved(GuestState::Shutoff, 9, copy, DiskCopy::None);
        assert_eq!(
            (off.kind(), off.disks()),
            (MoveKind::Offline, DiskCopy::Whole)
        );
    }

    #[test]
    fn how_a_copy_travels_is_the_policys_to_say() {
        let policy = "[migration]\ntls = true\nconnections = 4\nallow_older_target = true\n";
        let options = moved(GuestState::Running, 0, policy, v1::DiskCopy::None);
        assert!(options.tls && options.allow_older_target);
        assert_eq!((options.connections, options.compression.as_str()), (4, ""));
        let policy = "[migration]\ncompression = \"xbzrle\"\n";
        let options = moved(GuestState::Running, 0, policy, v1::DiskCopy::None);
        assert_eq!(
            (options.connections, options.compression.as_str()),
            (1, "xbzrle")
        );
        assert!(!options.tls);
    }
}
