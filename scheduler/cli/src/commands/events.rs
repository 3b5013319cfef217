//! `events`: what has happened, and with `--follow` what happens, over restarts and changes of leader.

use std::io::Write;
use std::time::Duration;

use evenkeel_proto::v1;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};
use tonic::Streaming;

use super::Session;
use super::session::lines;
use crate::args::{EventsArgs, Format};
use crate::client::{Client, ClientError, QUICK};
use crate::exit::{Exit, Failure};
use crate::output::{json, table};
use crate::view::{Event, EventLine, Events};

/// A change of leader takes up to 10 s; as long again for a slow one.
const SILENCE: Duration = Duration::from_secs(20);
/// Time between two attempts to go on: doubled with each, up to …
const RETRY: Duration = Duration::from_millis(250);
/// … this.
const LONGEST_RETRY: Duration = Duration::from_secs(4);

pub(super) async fn events(session: &mut Session<'_>, args: &EventsArgs) -> Result<Exit, Failure> {
    let client = session.client()?;
    let filter = filter(args);
    let request = v1::ListEventsRequest {
        filter: Some(filter.clone()),
        limit: args.limit,
    };
    let ask = async |mut scheduler: crate::client::Scheduler| {
        scheduler.list_events(request.clone()).await
    };
    if !args.follow {
        let reply = client.read(QUICK, ask).await?;
        let list = Events {
            schema: Events::SCHEMA,
            events: reply.events.into_iter().map(Event::from).collect(),
        };
        let names = |list: &Events| {
            let numbers = list.events.iter().map(|event| event.sequence.to_string());
            numbers.collect::<Vec<_>>().join("\n")
        };
        if list.events.is_empty() {
            session.io.say("nothing of that kind has been recorded");
        }
        session.print(&list, |list, look| table::events(&list.events, look), names)?;
        return Ok(Exit::Ok);
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        ended = follow(session, &client, &ask, filter) => ended,
        _ = interrupt.recv() => Ok(Exit::Ok),
    }
}

fn filter(args: &EventsArgs) -> v1::EventFilter {
    let since = args.since.map(|span| {
        let span_ms = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Timestamp::now().as_millisecond().saturating_sub(span_ms)
    });
    v1::EventFilter {
        since_ms: since.unwrap_or(0),
        kinds: args
            .kinds
            .iter()
            .map(|kind| kind.as_str().to_owned())
            .collect(),
        guest: args.guest.clone().unwrap_or_default(),
        host: args.host.clone().unwrap_or_default(),
    }
}

/// Shows what there is, then what comes. The place of the last one seen says where another scheduler goes on.
async fn follow<F>(
    session: &mut Session<'_>,
    client: &Client,
    list: impl Fn(crate::client::Scheduler) -> F,
    filter: v1::EventFilter,
) -> Result<Exit, Failure>
where
    F: Future<Output = Result<tonic::Response<v1::ListEventsReply>, tonic::Status>>,
{
    let reply = client.read(QUICK, list).await?;
    let mut place = (reply.revision, reply.sequence);
    for event in reply.events {
        print(session, event.into())?;
    }
    let (mut seen, mut wait) = (Instant::now(), RETRY);
    loop {
        let request = v1::FollowEventsRequest {
            filter: Some(filter.clone()),
            after_revision: place.0,
            after_sequence: place.1,
        };
        let opened = client
            .read(QUICK, async |mut scheduler| {
                scheduler.follow_events(request.clone()).await
            })
            .await;
        let error = match opened {
            Ok(stream) => {
                let opened = Instant::now();
                let error = read(session, stream, &mut place).await?;
                if opened.elapsed() > LONGEST_RETRY {
                    (seen, wait) = (Instant::now(), RETRY);
                }
                client.turn_away();
                error
            }
            Err(error) => error,
        };
        if !error.may_pass() || seen.elapsed() >= SILENCE {
            return Err(error.into());
        }
        sleep(wait).await;
        wait = (wait * 2).min(LONGEST_RETRY);
    }
}

/// Prints what a stream brings, and says why there is no more.
async fn read(
    session: &mut Session<'_>,
    mut stream: Streaming<v1::Event>,
    place: &mut (i64, u64),
) -> Result<ClientError, Failure> {
    loop {
        match stream.message().await {
            Ok(Some(event)) => {
                *place = (event.revision, event.sequence);
                print(session, event.into())?;
            }
            Ok(None) => return Ok(ClientError::Mute),
            // The connection broke: another scheduler may have a whole one.
            Err(status) if std::error::Error::source(&status).is_some() => {
                return Ok(ClientError::Mute);
            }
            Err(status) => return Ok(ClientError::Refused(status)),
        }
    }
}

fn print(session: &mut Session<'_>, event: Event) -> Result<(), Failure> {
    let text = match session.format() {
        Format::Table | Format::Wide => table::event_line(&event, session.look()),
        Format::Name => lines([event.sequence.to_string()]),
        Format::Json => {
            let line = EventLine {
                schema: EventLine::SCHEMA,
                event,
            };
            json::line(&line).map_err(std::io::Error::from)?
        }
    };
    session.io.out.write_all(text.as_bytes())?;
    session.io.out.flush()?;
    Ok(())
}
