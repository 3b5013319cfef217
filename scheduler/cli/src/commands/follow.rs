//! Follows a migration to its end, over scheduler restarts and changes of leader.
//!
//! The migration does not depend on it: when every scheduler is away, the source agent carries on.

use std::time::Duration;

use evenkeel_proto::{Code, v1};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Status, Streaming};

use crate::client::{Client, ClientError, QUICK};
use crate::view::{Migration, Phase};

/// A change of leader takes up to 10 s; as long again for a slow one.
const SILENCE: Duration = Duration::from_secs(20);
/// A stream that tells nothing new for so long may have stopped: another replica is asked, which says at once
/// what it knows, while there is time left before all of them count as silent.
const QUIET: Duration = Duration::from_secs(10);
/// Time between two attempts to see it again.
const RETRY: Duration = Duration::from_millis(500);
/// Agents ask both hosts again and again; what they do not answer within a minute needs a person.
const UNKNOWN: Duration = Duration::from_secs(60);

/// How the following ended.
pub(super) enum Ending {
    /// The migration is over.
    Over(Box<Migration>),
    /// Its outcome has been unknown for long.
    Unknown,
}

/// Shows the migration as it changes, until it is over.
pub(super) async fn follow(
    client: &Client,
    id: &str,
    show: &mut dyn FnMut(&Migration),
) -> Result<Ending, ClientError> {
    let mut watcher = Watcher {
        unknown: None,
        seen: Instant::now(),
        show,
    };
    loop {
        let opened = client
            .read(QUICK, async |mut scheduler| {
                scheduler
                    .watch_migration(v1::WatchMigrationRequest { id: id.to_owned() })
                    .await
            })
            .await;
        match opened {
            Ok(stream) => {
                let said = match watcher.drain(stream).await {
                    Ok(ending) => return Ok(ending),
                    Err(said) => said,
                };
                client.turn_away();
                if watcher.seen.elapsed() >= SILENCE {
                    return Err(said.map_or(ClientError::Mute, ClientError::Refused));
                }
            }
            Err(error) if watcher.seen.elapsed() < SILENCE && is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        sleep(RETRY).await;
    }
}

/// A replica may not have seen a fresh order yet.
fn is_passing(error: &ClientError) -> bool {
    let not_yet = matches!(error, ClientError::Refused(status) if status.code() == Code::NotFound);
    error.may_pass() || not_yet
}

struct Watcher<'a> {
    /// Since when its outcome has been unknown.
    unknown: Option<Instant>,
    seen: Instant,
    show: &'a mut dyn FnMut(&Migration),
}

impl Watcher<'_> {
    /// Reads the stream until the migration is over; fails, with what was said, when the stream ended or
    /// fell silent before.
    async fn drain(
        &mut self,
        mut stream: Streaming<v1::Migration>,
    ) -> Result<Ending, Option<Status>> {
        loop {
            let quiet = Instant::now() + QUIET;
            let given_up = self.unknown.map(|since| since + UNKNOWN);
            let until = given_up.map_or(quiet, |end| end.min(quiet));
            let migration: Migration = match timeout_at(until, stream.message()).await {
                Ok(Ok(Some(message))) => message.into(),
                Ok(Ok(None)) => return Err(None),
                Ok(Err(status)) => return Err(Some(status)),
                Err(_) if given_up == Some(until) => return Ok(Ending::Unknown),
                Err(_) => return Err(None),
            };
            self.seen = Instant::now();
            (self.show)(&migration);
            if migration.is_over() {
                return Ok(Ending::Over(Box::new(migration)));
            }
            self.unknown = match self.unknown {
                _ if migration.phase != Some(Phase::Unknown) => None,
                Some(since) => Some(since),
                None => Some(Instant::now()),
            };
        }
    }
}
