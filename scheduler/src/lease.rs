//! Who leads: etcd's Election API, a mandate with a local deadline, and writes fenced by it.
//!
//! The create revision of the leader's key is the epoch. Two fences stand between a deposed leader and the
//! fleet: its own monotonic clock (a mandate is void before the lease can expire), and the guard in every
//! write (the key must still be the one that won).

use std::time::Duration;

use etcd_client::{Compare, Txn, TxnOp, TxnOpResponse};
use evenkeel_daemon::lease::Held;
use evenkeel_daemon::retry::Backoff;
use evenkeel_daemon::store::guard;
use evenkeel_daemon::{LeaseKeeper, Store, StoreError};
use evenkeel_proto::keys::Keys;
use evenkeel_proto::v1;
use evenkeel_types::Epoch;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A mandate ends this long before the lease could: time for a request that is under way, and for clocks
/// that tick a little differently.
const SAFETY_MARGIN: Duration = Duration::from_secs(1);

/// The right to lead, until the local deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mandate {
    /// The fencing token: create revision of [`Mandate::key`].
    pub epoch: Epoch,
    /// Our key in the election.
    pub key: String,
    /// Void from then on, by this machine's monotonic clock.
    pub valid_until: Instant,
}

impl Mandate {
    /// Whether it may still be acted upon.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        Instant::now() < self.valid_until
    }
}

/// Why a leader's write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The mandate had run out by our own clock; nothing was sent.
    #[error("the mandate of epoch {0} has run out")]
    RunOut(Epoch),
    /// Another leads, or nobody: our key is gone.
    #[error("deposed: epoch {0} is over")]
    Deposed(Epoch),
    /// Something that the write was built on has changed.
    #[error("the state it was built on has changed")]
    Conflict,
    /// etcd did not answer; the write may or may not have happened.
    #[error("not known whether the write happened")]
    Store(#[source] StoreError),
}

/// Writes `operations` if the mandate holds and all `guards` do, in one transaction; returns its revision.
///
/// # Errors
/// When nothing was written, or when that is not known.
pub async fn commit(
    store: &Store,
    mandate: &Mandate,
    guards: Vec<Compare>,
    operations: Vec<TxnOp>,
) -> Result<i64, CommitError> {
    if !mandate.is_valid() {
        return Err(CommitError::RunOut(mandate.epoch));
    }
    let mut all = vec![guard::created_at(&mandate.key, mandate.epoch.0)];
    all.extend(guards);
    let look = TxnOp::get(mandate.key.as_str(), None);
    let txn = Txn::new().when(all).and_then(operations).or_else([look]);
    let response = store.txn(txn).await.map_err(CommitError::Store)?;
    if response.succeeded() {
        return Ok(response.header().map_or(0, |header| header.revision()));
    }
    let still_ours = response.op_responses().into_iter().any(|answer| {
        let TxnOpResponse::Get(found) = answer else {
            return false;
        };
        found
            .kvs()
            .first()
            .is_some_and(|kv| kv.create_revision() == mandate.epoch.0)
    });
    Err(if still_ours {
        CommitError::Conflict
    } else {
        CommitError::Deposed(mandate.epoch)
    })
}

/// Campaigns for as long as the process lives.
#[derive(Debug)]
pub struct Election {
    store: Store,
    name: String,
    info: v1::LeaderInfo,
    ttl: Duration,
    mandate: watch::Sender<Option<Mandate>>,
    deposed: mpsc::Receiver<Epoch>,
    sees: watch::Receiver<bool>,
}

/// What the rest of the scheduler holds of the election.
#[derive(Debug, Clone)]
pub struct Standing {
    mandate: watch::Receiver<Option<Mandate>>,
    deposed: mpsc::Sender<Epoch>,
    sees: watch::Sender<bool>,
}

impl Standing {
    /// The mandate, if we lead and it has not run out.
    #[must_use]
    pub fn mandate(&self) -> Option<Mandate> {
        self.mandate.borrow().clone().filter(Mandate::is_valid)
    }

    /// Says that etcd no longer knows this leadership: campaign again.
    pub fn report_deposed(&self, epoch: Epoch) {
        // A full queue means that it is known already.
        let _known = self.deposed.try_send(epoch);
    }

    /// Says whether the fleet has been read: who cannot see it must not be the one to lead it.
    pub fn report_sight(&self, sees: bool) {
        self.sees.send_if_modified(|said| {
            let changed = *said != sees;
            *said = sees;
            changed
        });
    }
}

#[cfg(test)]
impl Standing {
    /// What the sender says, without an election behind it.
    pub(crate) fn told() -> (watch::Sender<Option<Mandate>>, Self) {
        let (say, mandate) = watch::channel(None);
        let standing = Self {
            mandate,
            deposed: mpsc::channel(1).0,
            sees: watch::channel(false).0,
        };
        (say, standing)
    }
}

impl Election {
    /// A candidate that leads under `info`, with a lease of `ttl`.
    #[must_use]
    pub fn new(store: Store, keys: &Keys, info: v1::LeaderInfo, ttl: Duration) -> (Self, Standing) {
        let (mandate, standing) = watch::channel(None);
        let (report, deposed) = mpsc::channel(1);
        let (sight, sees) = watch::channel(false);
        let election = Self {
            store,
            name: keys.election(),
            info,
            ttl,
            mandate,
            deposed,
            sees,
        };
        let standing = Standing {
            mandate: standing,
            deposed: report,
            sees: sight,
        };
        (election, standing)
    }

    /// Runs until `stop`; then resigns, so that a standby takes over at once.
    pub async fn run(mut self, stop: CancellationToken) {
        let keeper = LeaseKeeper::new(self.store.clone(), self.ttl);
        let mut lease = keeper.current();
        let keeping = tokio::spawn(keeper.run(stop.clone()));
        let mut backoff = Backoff::default();
        let mut said = String::new();
        while !stop.is_cancelled() {
            let turn = tokio::select! {
                turn = self.lead_once(&mut lease) => turn,
                () = stop.cancelled() => break,
            };
            self.mandate.send_replace(None);
            match turn {
                Ok(()) => {
                    backoff.reset();
                    said.clear();
                }
                Err(error) if said != error.to_string() => {
                    said = error.to_string();
                    tracing::warn!(%error, "not elected; trying on");
                }
                Err(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_wait()) => {}
                () = stop.cancelled() => break,
            }
        }
        self.mandate.send_replace(None);
        drop(keeping.await); // revokes the lease, which removes our key
    }

    /// Waits for a lease and for the fleet to be read, campaigns, and leads until the lease is lost.
    async fn lead_once(
        &mut self,
        lease: &mut watch::Receiver<Option<Held>>,
    ) -> Result<(), etcd_client::Error> {
        let held = lease
            .wait_for(Option::is_some)
            .await
            .map_or(None, |held| *held);
        let Some(held) = held else { return Ok(()) };
        if !saw_first(&mut self.sees, lost(lease, held.id)).await {
            return Ok(());
        }
        let (key, epoch) = tokio::select! {
            won = self.campaign(held.id) => won?,
            () = lost(lease, held.id) => return Ok(()),
        };
        tracing::info!(%epoch, key, "leading");
        self.lead(lease, held.id, &key, epoch).await;
        tracing::warn!(%epoch, "no longer leading");
        Ok(())
    }

    /// Blocks until elected. Dropping the future cancels the campaign.
    async fn campaign(&self, lease: i64) -> Result<(String, Epoch), etcd_client::Error> {
        let mut client = self.store.client();
        let value = self.info.encode_to_vec();
        let won = client.campaign(self.name.as_str(), value, lease).await?;
        let leader = won.leader().ok_or_else(|| {
            etcd_client::Error::ElectError("campaign ended without a leader key".to_owned())
        })?;
        Ok((leader.key_str()?.to_owned(), Epoch(leader.rev())))
    }

    /// Renews the mandate with every renewal of the lease, until the lease or the key is lost.
    async fn lead(
        &mut self,
        lease: &mut watch::Receiver<Option<Held>>,
        id: i64,
        key: &str,
        epoch: Epoch,
    ) {
        loop {
            let held = *lease.borrow_and_update();
            let Some(held) = held.filter(|held| held.id == id) else {
                return;
            };
            let valid_until = held.renewed + self.ttl.saturating_sub(SAFETY_MARGIN);
            self.mandate.send_replace(Some(Mandate {
                epoch,
                key: key.to_owned(),
                valid_until,
            }));
            tokio::select! {
                changed = lease.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                over = self.deposed.recv() => {
                    if over.is_none_or(|over| over == epoch) {
                        return;
                    }
                }
            }
        }
    }
}

/// Resolves when the lease `id` is no longer the current one.
async fn lost(lease: &mut watch::Receiver<Option<Held>>, id: i64) {
    // An error means that the keeper is gone, and the lease with it.
    drop(
        lease
            .wait_for(|held| held.is_none_or(|held| held.id != id))
            .await,
    );
}

/// Resolves to true once the fleet has been read, to false if that cannot be or `lost` comes first.
async fn saw_first(sees: &mut watch::Receiver<bool>, lost: impl Future<Output = ()>) -> bool {
    tokio::select! {
        seen = sees.wait_for(|sees| *sees) => seen.is_ok(),
        () = lost => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_replica_campaigns_only_once_it_has_read_the_fleet() {
        let (sight, mut sees) = watch::channel(false);
        assert!(!saw_first(&mut sees, std::future::ready(())).await);
        let blind = saw_first(&mut sees, std::future::pending());
        let waited = tokio::time::timeout(Duration::from_millis(20), blind).await;
        assert!(waited.is_err(), "it waits");
        sight.send_replace(true);
        assert!(saw_first(&mut sees, std::future::pending()).await);
        drop(sight);
    }
}
