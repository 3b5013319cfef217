//! [`Records`] in etcd. Every write is guarded by the revision it follows, so that a request that was given up
//! and lands late cannot overwrite what came after it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Compare, GetOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse};
use evenkeel_daemon::store::guard;
use evenkeel_daemon::{Entry, Store, StoreError};
use evenkeel_proto::keys::{Key, Keys};
use evenkeel_proto::order::Order;
use evenkeel_proto::v1;
use evenkeel_types::{Epoch, GuestId, HostName, OrderId, Refusal};

use super::{
    JournalError, Leader, Records, Refused, Seen, Standing, Stored, confirm_leader, decide,
    may_follow, standing,
};

/// Looks and tries of one admission or write. The keys have one writer each, so a second round is rare
/// (a request that timed out and landed) and a fourth means that something else is wrong.
const ROUNDS: usize = 4;
/// Tries that etcd does not answer, after which it is away.
const FAILURES: usize = 2;
/// Pause before looking again after etcd did not answer.
const PAUSE: Duration = Duration::from_millis(300);

/// One host's view of the cluster's records.
#[derive(Debug, Clone)]
pub struct EtcdRecords {
    store: Store,
    keys: Keys,
    host: HostName,
    /// Journals that could not be read, by key and revision: each is logged once.
    unreadable: Arc<Mutex<BTreeSet<(String, i64)>>>,
}

fn no_etcd(error: &StoreError) -> Refused {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    let detail = format!("{error}: {}", cause.unwrap_or_default());
    (Refusal::NoEtcd, detail)
}

impl EtcdRecords {
    /// The records of `host`.
    #[must_use]
    pub fn new(store: Store, keys: Keys, host: HostName) -> Self {
        Self {
            store,
            keys,
            host,
            unreadable: Arc::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeSet<(String, i64)>> {
        self.unreadable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest key of the election.
    fn leader_op(&self) -> TxnOp {
        let options = GetOptions::new()
            .with_prefix()
            .with_sort(SortTarget::Create, SortOrder::Ascend)
            .with_limit(1);
        TxnOp::get(format!("{}/", self.keys.election()), Some(options))
    }

    /// Reads several keys at one revision; one answer per operation.
    async fn read(&self, operations: Vec<TxnOp>) -> Result<Vec<Option<Entry>>, StoreError> {
        let response = self.store.read(operations).await?;
        let first = |response: &TxnOpResponse| match response {
            TxnOpResponse::Get(get) => get.kvs().first().map(Entry::of),
            TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
        };
        Ok(response.op_responses().iter().map(first).collect())
    }

    fn leader_of(entry: Option<Entry>) -> Option<Leader> {
        entry.map(|entry| Leader {
            epoch: Epoch(entry.create_revision),
            key: entry.key,
        })
    }

    async fn look(&self, guest: &GuestId, order: &OrderId) -> Result<Seen, StoreError> {
        let order_op = TxnOp::get(self.keys.order(guest), None);
        let journal_op = TxnOp::get(self.keys.journal(&self.host, guest), None);
        let mut entries = self
            .read(vec![self.leader_op(), order_op, journal_op])
            .await?
            .into_iter();
        let mut next = || entries.next().flatten();
        let leader = Self::leader_of(next());
        let standing_order = next()
            .map(|entry| {
                entry.decode().map(|value| Stored {
                    value,
                    revision: entry.mod_revision,
                })
            })
            .transpose()?;
        let journal = next().map(|entry| Stored {
            value: entry
                .decode()
                .map_or(Standing::Unreadable, |j| standing(&j, order)),
            revision: entry.mod_revision,
        });
        Ok(Seen {
            leader,
            order: standing_order,
            journal,
        })
    }

    /// The admitting transaction; `None` when a guard did not hold.
    async fn try_admit(
        &self,
        order: &Order,
        leader_key: &str,
        journal: &v1::Journal,
    ) -> Result<Option<i64>, AdmitError> {
        let seen = self.look(&order.guest, &order.id).await?;
        let grounds = decide(&seen, order, leader_key)?;
        let key = self.keys.journal(&self.host, &order.guest);
        let guards = vec![
            guard::created_at(leader_key, order.epoch.0),
            guard::unchanged(&self.keys.order(&order.guest), grounds.order_revision),
            guard::unchanged(&key, grounds.journal_revision),
        ];
        let (written, revision) = self.put_if(guards, &key, journal).await?;
        Ok(written.then_some(revision))
    }

    async fn put_if(
        &self,
        guards: Vec<Compare>,
        key: &str,
        journal: &v1::Journal,
    ) -> Result<(bool, i64), StoreError> {
        let txn = Txn::new()
            .when(guards)
            .and_then(vec![guard::put(key, journal)]);
        let response = self.store.txn(txn).await?;
        let revision = response.header().map_or(0, |header| header.revision());
        Ok((response.succeeded(), revision))
    }

    /// After an admission that etcd did not answer: whether it has happened after all.
    async fn landed(&self, order: &Order, journal: &v1::Journal) -> Option<i64> {
        tokio::time::sleep(PAUSE).await;
        let key = self.keys.journal(&self.host, &order.guest);
        let entry = self.store.get(&key).await.ok()??;
        let stands: v1::Journal = entry.decode().ok()?;
        (stands == *journal).then_some(entry.mod_revision)
    }
}

/// Why one try of an admission came to nothing.
enum AdmitError {
    Refused(Refused),
    Store(StoreError),
}

impl From<StoreError> for AdmitError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Refused> for AdmitError {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl Records for EtcdRecords {
    async fn admit(
        &self,
        order: &Order,
        leader_key: &str,
        journal: &v1::Journal,
    ) -> Result<i64, Refused> {
        if self.keys.parse(leader_key) != Some(Key::Leader) {
            let detail = format!("{leader_key:?} is no leader's key");
            return Err((Refusal::StaleEpoch, detail));
        }
        let detail = "order, journal or leader changed at every look".to_owned();
        let mut refused = (Refusal::NoSuchOrder, detail);
        let mut failures = 0;
        for _ in 0..ROUNDS {
            match self.try_admit(order, leader_key, journal).await {
                Ok(Some(revision)) => return Ok(revision),
                Ok(None) => {}
                Err(AdmitError::Refused((Refusal::Duplicate, _))) if failures > 0 => {
                    // What stands may be what a request wrote whose answer was lost.
                    let landed = self.landed(order, journal).await;
                    return landed.ok_or(refused);
                }
                Err(AdmitError::Refused(refused)) => return Err(refused),
                Err(AdmitError::Store(error)) => {
                    if let Some(revision) = self.landed(order, journal).await {
                        return Ok(revision);
                    }
                    // One member of several that dies takes the requests with it that it was to carry.
                    refused = no_etcd(&error);
                    failures += 1;
                    if failures >= FAILURES {
                        break;
                    }
                }
            }
        }
        Err(refused)
    }

    async fn confirm(&self, leader_key: &str, epoch: Epoch) -> Result<(), Refused> {
        let entries = self
            .read(vec![self.leader_op()])
            .await
            .map_err(|error| no_etcd(&error))?;
        let leader = Self::leader_of(entries.into_iter().next().flatten());
        confirm_leader(leader.as_ref(), leader_key, epoch)
    }

    async fn write(
        &self,
        guest: &GuestId,
        journal: &v1::Journal,
        revision: i64,
    ) -> Result<i64, JournalError> {
        let key = self.keys.journal(&self.host, guest);
        let mut follows = revision;
        for _ in 0..ROUNDS {
            let guards = vec![guard::unchanged(&key, follows)];
            let (written, now) = self.put_if(guards, &key, journal).await?;
            if written {
                return Ok(now);
            }
            let Some(entry) = self.store.get(&key).await? else {
                tracing::warn!(%guest, "the journal was removed by someone else; writing it anew");
                follows = 0;
                continue;
            };
            let stands: v1::Journal = entry.decode()?;
            if stands == *journal {
                return Ok(entry.mod_revision);
            }
            may_follow(guest, &stands, journal)?;
            follows = entry.mod_revision;
        }
        Err(JournalError::Contended {
            guest: guest.clone(),
        })
    }

    async fn order(&self, guest: &GuestId) -> Result<Option<v1::Order>, StoreError> {
        self.store.get_message(&self.keys.order(guest)).await
    }

    async fn journal(&self, guest: &GuestId) -> Result<Option<Stored<v1::Journal>>, StoreError> {
        let entry = self
            .store
            .get(&self.keys.journal(&self.host, guest))
            .await?;
        let stored = |entry: Entry| {
            entry.decode().map(|value| Stored {
                value,
                revision: entry.mod_revision,
            })
        };
        entry.map(stored).transpose()
    }

    async fn journals(&self) -> Result<Vec<Stored<v1::Journal>>, StoreError> {
        let listing = self.store.list(&self.keys.journals(&self.host)).await?;
        let (mut journals, mut unreadable) = (vec![], BTreeSet::new());
        let mut known = self.known();
        for entry in listing.entries {
            match entry.decode() {
                Ok(value) => journals.push(Stored {
                    value,
                    revision: entry.mod_revision,
                }),
                Err(error) => {
                    let journal = (entry.key, entry.mod_revision);
                    if !known.contains(&journal) {
                        tracing::error!(%error, "a journal cannot be read and is left alone");
                    }
                    unreadable.insert(journal);
                }
            }
        }
        *known = unreadable;
        Ok(journals)
    }

    async fn remove(&self, guest: &GuestId, revision: i64) -> Result<(), StoreError> {
        let key = self.keys.journal(&self.host, guest);
        let txn = Txn::new()
            .when(vec![guard::unchanged(&key, revision)])
            .and_then(vec![guard::delete(&key)]);
        self.store.txn(txn).await.map(drop)
    }
}

#[cfg(test)]
mod tests;
