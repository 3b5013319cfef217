//! A lease that is always there: kept alive while etcd answers, granted anew when it was lost.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::retry::Backoff;
use crate::store::{Store, StoreError};

/// Pause after a renewal that failed.
const RETRY: Duration = Duration::from_millis(100);

/// Keeps one lease. The current id is published; `None` while there is none.
#[derive(Debug)]
pub struct LeaseKeeper {
    store: Store,
    ttl: Duration,
    id: watch::Sender<Option<Held>>,
}

/// A lease that was alive at `renewed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// etcd's id.
    pub id: i64,
    /// Start of the last renewal that etcd confirmed: it cannot have expired before this + TTL.
    pub renewed: Instant,
}

impl LeaseKeeper {
    /// A keeper of leases of `ttl` (whole seconds, at least 2).
    #[must_use]
    pub fn new(store: Store, ttl: Duration) -> Self {
        Self {
            store,
            ttl: ttl.max(Duration::from_secs(2)),
            id: watch::channel(None).0,
        }
    }

    /// The current lease.
    #[must_use]
    pub fn current(&self) -> watch::Receiver<Option<Held>> {
        self.id.subscribe()
    }

    /// Runs until `stop`; the lease is then revoked, so that what stands on it goes at once.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = self.keep_forever() => {}
            () = stop.cancelled() => self.revoke().await,
        }
    }

    async fn keep_forever(&self) {
        let mut backoff = Backoff::default();
        loop {
            match self.grant().await {
                Ok(held) => {
                    backoff.reset();
                    self.id.send_replace(Some(held));
                    self.keep(held).await;
                    self.id.send_replace(None);
                }
                Err(error) => tracing::debug!(%error, "no lease"),
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    async fn grant(&self) -> Result<Held, StoreError> {
        let renewed = Instant::now();
        let seconds = i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX);
        let mut client = self.store.client();
        let grant = async move { client.lease_grant(seconds, None).await };
        let id = self.store.once("lease_grant", grant).await?.id();
        Ok(Held { id, renewed })
    }

    /// Renews until the lease is gone: by etcd's word, or because our own clock says that it must be.
    async fn keep(&self, mut held: Held) {
        let mut wait = self.ttl / 3;
        loop {
            tokio::time::sleep(wait).await;
            let renewed = Instant::now();
            match self.renew(held.id).await {
                Ok(()) => {
                    held.renewed = renewed;
                    self.id.send_replace(Some(held));
                    wait = self.ttl / 3;
                }
                Err(error) if error.is_lease_gone() => {
                    return tracing::warn!(lease = held.id, "lease is gone");
                }
                Err(error) => {
                    tracing::debug!(%error, "lease not renewed");
                    // The next endpoint may answer; there is no time to wait for the regular turn.
                    wait = RETRY;
                }
            }
            if held.renewed.elapsed() > self.ttl {
                return tracing::warn!(lease = held.id, "lease not renewed within its time");
            }
        }
    }

    /// One renewal on a stream of its own: the client's keeper neither ticks nor reconnects. Opening the
    /// stream renews; an expired lease is an error.
    async fn renew(&self, id: i64) -> Result<(), StoreError> {
        let mut client = self.store.client();
        let renewal = async move { client.lease_keep_alive(id).await.map(drop) };
        let attempt = self.store.once("lease_keep_alive", renewal);
        // A frozen member must leave time for another: several attempts fit into one lease.
        let timeout = StoreError::Timeout {
            operation: "lease_keep_alive",
        };
        tokio::time::timeout(self.ttl / 5, attempt)
            .await
            .unwrap_or(Err(timeout))
    }

    async fn revoke(&self) {
        let Some(held) = *self.id.borrow() else {
            return;
        };
        let mut client = self.store.client();
        let revoke = async move { client.lease_revoke(held.id).await };
        if let Err(error) = self.store.once("lease_revoke", revoke).await {
            tracing::debug!(%error, "lease not revoked; it will expire");
        }
    }
}
