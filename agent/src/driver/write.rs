//! The journal's writer: phases until etcd takes them, progress when it may.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_daemon::retry::Backoff;
use evenkeel_proto::order::Order;
use evenkeel_proto::v1;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::journal::{JournalError, Records};

/// A journal as it is to stand.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    /// The value.
    pub(super) journal: v1::Journal,
    /// Counts changes of state: a draft of a version that etcd has differs in progress only.
    pub(super) version: u64,
}

/// Writes drafts until the task is over and its last state stands in etcd. `durable` tells the version
/// that etcd has; it is dropped when the journal can never be written again.
pub(super) async fn write_journal<R: Records>(
    records: Arc<R>,
    order: Arc<Order>,
    mut revision: i64,
    mut drafts: watch::Receiver<Draft>,
    durable: watch::Sender<u64>,
    pace: Duration,
) {
    let mut backoff = Backoff::default();
    let mut last = Instant::now();
    let mut told = false;
    let mut stands = 0;
    while next_draft(&mut drafts, stands, last + pace).await {
        let draft = drafts.borrow_and_update().clone();
        let urgent = draft.version > stands;
        last = Instant::now();
        match records.write(&order.guest, &draft.journal, revision).await {
            Ok(now) => {
                revision = now;
                backoff.reset();
                told = false;
                stands = draft.version;
                durable.send_replace(stands);
            }
            Err(error @ (JournalError::Replaced { .. } | JournalError::Closed { .. })) => {
                return tracing::error!(order = %order.id, guest = %order.guest, %error,
                    "journal given up");
            }
            Err(error) if urgent => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(order = %order.id, %error, "journal not written; trying on");
                }
                tokio::time::sleep(backoff.next_wait()).await;
            }
            Err(error) => tracing::debug!(order = %order.id, %error, "progress not written"),
        }
    }
}

/// Waits until there is something to write: a new state at once, progress not before `due`.
/// `false`: the task is gone and its last state is written.
async fn next_draft(drafts: &mut watch::Receiver<Draft>, durable: u64, due: Instant) -> bool {
    loop {
        if drafts.borrow().version > durable {
            return true;
        }
        if !drafts.has_changed().unwrap_or(false) {
            if drafts.changed().await.is_err() {
                return false;
            }
            drafts.mark_changed();
            continue;
        }
        if Instant::now() >= due {
            return true;
        }
        let mut ahead = drafts.clone();
        ahead.mark_unchanged();
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            gone = ahead.changed() => if gone.is_err() { return drafts.borrow().version > durable },
        }
    }
}
