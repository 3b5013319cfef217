//! `guest resolve`: an operator's word on a guest whose migration's outcome is unknown.

use evenkeel_proto::v1;

use super::Session;
use crate::args::ResolveArgs;
use crate::exit::{Exit, Failure};
use crate::output::Look;
use crate::view::Resolved;

pub(super) async fn resolve(
    session: &mut Session<'_>,
    args: &ResolveArgs,
) -> Result<Exit, Failure> {
    let dry_run = args.dry_run.dry_run;
    let request = v1::ResolveGuestRequest {
        guest: args.guest.clone(),
        host: args.host.clone().unwrap_or_default(),
        gone: args.gone,
        discard_source: args.discard_source,
        reason: session.reason(),
        dry_run,
    };
    let reply = session
        .client()?
        .write(|mut scheduler| {
            let request = request.clone();
            async move { scheduler.resolve_guest(request).await }
        })
        .await?;
    let resolved = Resolved {
        schema: Resolved::SCHEMA,
        migration: reply.migration.unwrap_or_default().into(),
        host: args.host.clone(),
        said: reply.detail,
        dry_run,
    };
    session.print(&resolved, words, |resolved| {
        resolved.migration.guest.clone()
    })?;
    Ok(Exit::Ok)
}

fn words(resolved: &Resolved, _: Look) -> String {
    let Resolved {
        migration,
        host,
        said,
        dry_run,
        ..
    } = resolved;
    let (guest, id) = (&migration.guest, migration.short_id());
    let place = host
        .as_ref()
        .map_or("gone".to_owned(), |host| format!("on {host}"));
    let verb = if *dry_run { "would be" } else { "is" };
    format!("{guest} {verb} taken to be {place} ({said}); migration {id} {verb} closed\n")
}
