//! The task that feeds [`super::Fleet`]: one mirror of the whole cluster prefix.
//!
//! One watch keeps the order of etcd's revisions across prefixes: an order's removal is never seen before
//! the journal's end that caused it.

use evenkeel_daemon::mirror::mirror;
use evenkeel_daemon::{Change, Store};
use evenkeel_proto::keys::Keys;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Changes waiting to be applied; a slow reader slows the watch down, it loses nothing.
const QUEUE: usize = 1024;

/// Starts mirroring; changes arrive in the receiver until `stop`.
pub fn start(store: Store, keys: &Keys, stop: CancellationToken) -> mpsc::Receiver<Change> {
    let (sink, changes) = mpsc::channel(QUEUE);
    tokio::spawn(mirror(store, keys.root().to_owned(), sink, stop));
    changes
}
