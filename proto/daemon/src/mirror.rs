//! A prefix of etcd, mirrored: a list, then every change, then a fresh list whenever the watch was lost.
//!
//! A watch dies with its member, goes silent after a compaction and when its connection is half dead. All of
//! these end in the same way here: list again. The receiver sees [`Change::Reset`] and never needs to know.

use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::retry::Backoff;
use crate::store::{Entry, Listing, Store, StoreError};

/// How often a silent watch is asked whether it lives.
const PROBE: Duration = Duration::from_secs(3);
/// Unanswered probes after which it is given up.
const PROBES: u32 = 3;

/// What happened to the mirrored prefix.
#[derive(Debug, Clone)]
pub enum Change {
    /// Everything below the prefix, as it is now: forget what was before.
    Reset(Listing),
    /// A key was written.
    Put(Entry),
    /// A key was deleted, or its lease expired.
    Deleted {
        /// The key.
        key: String,
        /// Revision of the deletion.
        revision: i64,
    },
}

/// Why a watch ended.
#[derive(Debug, thiserror::Error)]
enum WatchEnd {
    #[error("the receiver is gone")]
    ReceiverGone,
    #[error("etcd cancelled the watch: {0}")]
    Cancelled(String),
    #[error("the watch went silent")]
    Silent,
    #[error("the watch broke")]
    Broken(#[source] etcd_client::Error),
    #[error("the listing failed")]
    List(#[source] StoreError),
}

/// Mirrors `prefix` into `sink` until `stop` or until the receiver is dropped.
pub async fn mirror(
    store: Store,
    prefix: String,
    sink: mpsc::Sender<Change>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::default();
    let mut blind = false;
    loop {
        let end = tokio::select! {
            end = list_and_watch(&store, &prefix, &sink, &mut backoff) => end,
            () = stop.cancelled() => return,
        };
        let fails = match &end {
            WatchEnd::ReceiverGone => return,
            WatchEnd::List(_) => true,
            WatchEnd::Cancelled(_) | WatchEnd::Silent | WatchEnd::Broken(_) => false,
        };
        note(&prefix, &end, std::mem::replace(&mut blind, fails), fails);
        tokio::select! {
            () = tokio::time::sleep(backoff.next_wait()) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Logs why mirroring starts again; what is worth a look, that nothing can be mirrored, once per change.
fn note(prefix: &str, end: &WatchEnd, was_blind: bool, is_blind: bool) {
    let causes = std::iter::successors(std::error::Error::source(end), |cause| cause.source());
    let cause = causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ");
    if is_blind && !was_blind {
        tracing::warn!(prefix, error = %end, cause, "nothing is mirrored until this succeeds");
    } else {
        tracing::debug!(prefix, error = %end, cause, "mirroring starts again");
    }
}

async fn list_and_watch(
    store: &Store,
    prefix: &str,
    sink: &mpsc::Sender<Change>,
    backoff: &mut Backoff,
) -> WatchEnd {
    let listing = match store.list(prefix).await {
        Ok(listing) => listing,
        Err(error) => return WatchEnd::List(error),
    };
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(listing.revision + 1);
    let mut client = store.client();
    let watch = async move { client.watch(prefix, Some(options)).await };
    let mut stream = match store.once("watch", watch).await {
        Ok(stream) => stream,
        Err(error) => return WatchEnd::List(error),
    };
    backoff.reset();
    if sink.send(Change::Reset(listing)).await.is_err() {
        return WatchEnd::ReceiverGone;
    }
    follow(&mut stream, sink).await
}

/// Passes on changes until the watch ends, probing it when it is silent.
async fn follow(stream: &mut WatchStream, sink: &mpsc::Sender<Change>) -> WatchEnd {
    let mut unanswered = 0;
    loop {
        let message = match tokio::time::timeout(PROBE, stream.message()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return WatchEnd::Cancelled("stream closed".to_owned()),
            Ok(Err(error)) => return WatchEnd::Broken(error),
            Err(_) if unanswered == PROBES => return WatchEnd::Silent,
            Err(_) => {
                unanswered += 1;
                match tokio::time::timeout(PROBE, stream.request_progress()).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => return WatchEnd::Broken(error),
                    Err(_) => return WatchEnd::Silent,
                }
            }
        };
        unanswered = 0;
        if message.canceled() {
            let at = message.compact_revision();
            let reason = message.cancel_reason();
            return WatchEnd::Cancelled(format!("{reason} (compacted at {at})"));
        }
        for event in message.events() {
            let Some(kv) = event.kv() else { continue };
            let change = match event.event_type() {
                EventType::Put => Change::Put(Entry::of(kv)),
                EventType::Delete => {
                    let entry = Entry::of(kv);
                    Change::Deleted {
                        key: entry.key,
                        revision: entry.mod_revision,
                    }
                }
            };
            if sink.send(change).await.is_err() {
                return WatchEnd::ReceiverGone;
            }
        }
    }
}
