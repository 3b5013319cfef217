//! `cordon` and `uncordon`, and what they share with `drain` and `roll`: names, requests and answers.

use std::collections::BTreeMap;

use evenkeel_planner::name_matches;
use evenkeel_proto::v1;

use super::Session;
use super::session::lines;
use crate::args::HostNames;
use crate::client::{Client, ClientError, QUICK, Scheduler};
use crate::exit::{Exit, Failure};
use crate::output::drain::changed;
use crate::view::{Host, HostIntent, IntentsChange};

pub(super) async fn cordon(session: &mut Session<'_>, args: &HostNames) -> Result<Exit, Failure> {
    let client = session.client()?;
    let hosts = names(&client, &args.hosts).await?;
    let request = v1::SetIntentRequest {
        hosts,
        kind: v1::IntentKind::Cordon.into(),
        reason: session.reason(),
        dry_run: args.dry_run.dry_run,
        ..Default::default()
    };
    let change = set(&client, &request).await?;
    print(session, &change, "cordoned")
}

pub(super) async fn uncordon(session: &mut Session<'_>, args: &HostNames) -> Result<Exit, Failure> {
    let client = session.client()?;
    let hosts = names(&client, &args.hosts).await?;
    let request = v1::ClearIntentRequest {
        hosts,
        drain_only: false,
        reason: session.reason(),
        dry_run: args.dry_run.dry_run,
    };
    let change = clear(&client, &request).await?;
    print(session, &change, "open again")
}

/// Prints what has become of each host.
pub(super) fn print(
    session: &mut Session<'_>,
    change: &IntentsChange,
    verb: &str,
) -> Result<Exit, Failure> {
    let names = |change: &IntentsChange| {
        let names = lines(change.hosts.iter().map(|host| host.host.clone()));
        names.trim_end().to_owned()
    };
    session.print(change, |change, _| changed(change, verb), names)?;
    Ok(Exit::Ok)
}

/// The hosts, or those of these names.
pub(super) async fn hosts(client: &Client, names: &[String]) -> Result<Vec<Host>, ClientError> {
    let request = v1::ListHostsRequest {
        names: names.to_vec(),
    };
    let ask = async |mut scheduler: Scheduler| scheduler.list_hosts(request.clone()).await;
    let reply = client.read(QUICK, ask).await?;
    Ok(reply.hosts.into_iter().map(Into::into).collect())
}

/// The names of the hosts that were meant, each once, in the order given.
///
/// # Errors
/// When a name or pattern fits none.
pub(super) async fn names(client: &Client, given: &[String]) -> Result<Vec<String>, Failure> {
    let known = hosts(client, &[]).await?;
    let mut found: Vec<String> = vec![];
    for pattern in given {
        let before = found.len();
        let fitting = known
            .iter()
            .filter(|host| name_matches(pattern, &host.name));
        let fitting: Vec<&Host> = fitting.collect();
        if fitting.is_empty() {
            return Err(Failure::NotThere {
                kind: "host",
                name: pattern.clone(),
                place: "the fleet".to_owned(),
            });
        }
        found.extend(fitting.iter().map(|host| host.name.clone()));
        found[before..].sort();
    }
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|name| seen.insert(name.clone()));
    Ok(found)
}

/// Asks for cordons or drains.
pub(super) async fn set(
    client: &Client,
    request: &v1::SetIntentRequest,
) -> Result<IntentsChange, ClientError> {
    let reply = client
        .write(|mut scheduler| {
            let request = request.clone();
            async move { scheduler.set_intent(request).await }
        })
        .await?;
    Ok(change(
        &request.hosts,
        request.dry_run,
        reply.previous,
        reply.intents,
    ))
}

/// Ends cordons or drains.
pub(super) async fn clear(
    client: &Client,
    request: &v1::ClearIntentRequest,
) -> Result<IntentsChange, ClientError> {
    let reply = client
        .write(|mut scheduler| {
            let request = request.clone();
            async move { scheduler.clear_intent(request).await }
        })
        .await?;
    Ok(change(
        &request.hosts,
        request.dry_run,
        reply.ended,
        reply.standing,
    ))
}

fn change(
    hosts: &[String],
    dry_run: bool,
    before: Vec<v1::Intent>,
    now: Vec<v1::Intent>,
) -> IntentsChange {
    let by_host = |intents: Vec<v1::Intent>| -> BTreeMap<String, v1::Intent> {
        intents.into_iter().map(|i| (i.host.clone(), i)).collect()
    };
    let (mut before, mut now) = (by_host(before), by_host(now));
    let host = |name: &String| HostIntent {
        host: name.clone(),
        before: before.remove(name).map(Into::into),
        now: now.remove(name).map(Into::into),
    };
    IntentsChange {
        schema: IntentsChange::SCHEMA,
        hosts: hosts.iter().map(host).collect(),
        dry_run,
    }
}

/// The names of the guests on these hosts.
pub(super) async fn guests_of(
    client: &Client,
    hosts: &[String],
) -> Result<Vec<String>, ClientError> {
    let ask =
        async |mut scheduler: Scheduler| scheduler.list_guests(v1::ListGuestsRequest {}).await;
    let reply = client.read(QUICK, ask).await?;
    let here = reply.guests.into_iter().filter(|g| hosts.contains(&g.host));
    Ok(here.map(|guest| guest.name).collect())
}
