//! Events for those who ask: what is kept, and what happens from there on.
//!
//! Every replica answers from its own mirror. The place of a reader is the revision and number of the last event
//! it has: it can go on at another replica, and misses and repeats nothing.

use std::time::Duration;

use evenkeel_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::WATCH_LONGEST;
use crate::controller::{Controller, Handle};
use crate::core::events::{Filter, in_order};

/// Readers that are served at one time.
pub(super) const READERS: usize = 64;
/// Events that wait for a slow reader …
const QUEUE: usize = 64;
/// … and how long, before it is cut off.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked for news.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// After which event: its revision and its number within.
type Place = (i64, u64);

/// What is kept, the newest last.
pub(super) fn list(c: &Controller, filter: &Filter, limit: u32) -> v1::ListEventsReply {
    let (mut events, (revision, sequence)) = after(c, (0, 0), filter);
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    if limit > 0 && events.len() > most {
        events.drain(..events.len() - most);
    }
    v1::ListEventsReply {
        events,
        revision,
        sequence,
    }
}

/// Wanted events after a place, and the place of the last of all.
fn after(c: &Controller, place: Place, filter: &Filter) -> (Vec<v1::Event>, Place) {
    let mut last = place;
    let mut events = vec![];
    for entry in in_order(c.fleet()) {
        let here = (entry.revision, entry.message.sequence);
        if here > place {
            last = here;
            if filter.takes(&entry.message) {
                events.push(entry.message.clone());
            }
        }
    }
    (events, last)
}

/// What a look finds: nothing is known while etcd is not reached.
fn look(c: &Controller, place: Place, filter: &Filter) -> Result<(Vec<v1::Event>, Place), Status> {
    if !c.etcd_reachable() || !c.fleet().complete {
        let message = format!("{} does not reach etcd", c.name());
        return Err(Status::unavailable(message));
    }
    Ok(after(c, place, filter))
}

/// Who follows, what, and from where.
pub(super) struct Follower {
    pub(super) name: String,
    pub(super) filter: Filter,
    pub(super) place: Place,
    /// Its seat among the readers.
    pub(super) seat: OwnedSemaphorePermit,
}

/// Follows in a task of its own. What has been sent comes first, then why there is no more.
pub(super) fn serve(
    handle: Handle,
    follower: Follower,
    stop: CancellationToken,
) -> impl Stream<Item = Result<v1::Event, Status>> + Send + 'static {
    let (sink, updates) = mpsc::channel(QUEUE);
    let (end, ended) = mpsc::channel(1);
    tokio::spawn(async move {
        let status = tokio::select! {
            status = follow(handle, follower, sink) => status,
            () = tokio::time::sleep(WATCH_LONGEST) => Status::unavailable("call again"),
            () = stop.cancelled() => Status::unavailable("this scheduler is stopping"),
        };
        drop(end.send(status).await); // a reader that is gone needs none
    });
    ReceiverStream::new(updates).chain(ReceiverStream::new(ended).map(Err))
}

/// Sends events as they come, until nobody listens any more; returns why it ends, for the reader.
async fn follow(
    handle: Handle,
    follower: Follower,
    sink: mpsc::Sender<Result<v1::Event, Status>>,
) -> Status {
    let Follower {
        name,
        filter,
        mut place,
        seat: _seat,
    } = follower;
    let mut tick = tokio::time::interval(LOOK_EVERY);
    loop {
        tick.tick().await;
        if sink.is_closed() {
            return Status::cancelled("nobody listens");
        }
        let wanted = filter.clone();
        let found = match handle.read(move |c| look(c, place, &wanted)).await {
            Ok(found) => found,
            Err(error) => Err(Status::unavailable(error.to_string())),
        };
        let (events, last) = match found {
            Ok(found) => found,
            Err(status) => return status,
        };
        for event in events {
            if sink.send_timeout(Ok(event), PATIENCE).await.is_err() {
                if !sink.is_closed() {
                    tracing::warn!(reader = name, "cut off: it does not read its events");
                }
                return Status::resource_exhausted(format!("{name} reads too slowly"));
            }
        }
        place = last;
    }
}
