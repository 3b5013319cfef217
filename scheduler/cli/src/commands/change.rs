//! `mode`, `pause`, `resume` and `cancel`: one request, one answer.

use evenkeel_proto::v1;

use super::Session;
use super::fleet::status;
use crate::args::{CancelArgs, DryRun, ModeArgs, PauseArgs};
use crate::exit::{Exit, Failure};
use crate::output::Look;
use crate::output::status::pause as pause_words;
use crate::view::{MigrationChange, ModeChange, PauseChange};

pub(super) async fn mode(session: &mut Session<'_>, args: &ModeArgs) -> Result<Exit, Failure> {
    let client = session.client()?;
    let dry_run = args.dry_run.dry_run;
    let change = match args.mode {
        None => {
            let status = status(&client).await?;
            ModeChange {
                schema: ModeChange::SCHEMA,
                mode: status.mode,
                previous: None,
                policy_revision: status.policy_revision,
                dry_run,
            }
        }
        Some(mode) => {
            let (mode, reason) = (mode.as_str().to_owned(), session.reason());
            let request = v1::SetModeRequest {
                mode: mode.clone(),
                reason,
                dry_run,
            };
            let reply = client
                .write(|mut scheduler| {
                    let request = request.clone();
                    async move { scheduler.set_mode(request).await }
                })
                .await?;
            ModeChange {
                schema: ModeChange::SCHEMA,
                mode,
                previous: Some(reply.previous),
                policy_revision: reply.policy_revision,
                dry_run,
            }
        }
    };
    session.print(&change, mode_words, |change| change.mode.clone())?;
    Ok(Exit::Ok)
}

fn mode_words(change: &ModeChange, _: Look) -> String {
    let ModeChange {
        mode,
        previous,
        policy_revision,
        dry_run,
        ..
    } = change;
    match previous {
        None => format!("{mode}\n"),
        Some(previous) if previous == mode => format!("mode is {mode} already\n"),
        Some(previous) if *dry_run => format!("mode would change from {previous} to {mode}\n"),
        Some(previous) => {
            format!("mode changed from {previous} to {mode}, policy rev {policy_revision}\n")
        }
    }
}

pub(super) async fn pause(session: &mut Session<'_>, args: &PauseArgs) -> Result<Exit, Failure> {
    let Some(reason) = session.global.reason.clone() else {
        let message = "pause needs --reason: others will wonder why nothing moves";
        return Err(Failure::Usage(message.to_owned()));
    };
    let dry_run = args.dry_run.dry_run;
    let for_seconds = args.duration.map_or(0, |duration| duration.as_secs());
    let request = v1::SetPauseRequest {
        for_seconds,
        reason,
        dry_run,
    };
    let reply = session
        .client()?
        .write(|mut scheduler| {
            let request = request.clone();
            async move { scheduler.set_pause(request).await }
        })
        .await?;
    let change = PauseChange {
        schema: PauseChange::SCHEMA,
        pause: reply.pause.map(Into::into),
        was_paused: None,
        dry_run,
    };
    let words = |change: &PauseChange, look: Look| {
        let verb = if change.dry_run {
            "would be paused"
        } else {
            "paused"
        };
        let span = change
            .pause
            .as_ref()
            .map_or(String::new(), |pause| pause_words(pause, look));
        format!("{verb} {span}; running migrations go on\n")
    };
    session.print(&change, words, |_| "paused".to_owned())?;
    Ok(Exit::Ok)
}

pub(super) async fn resume(session: &mut Session<'_>, args: DryRun) -> Result<Exit, Failure> {
    let request = v1::ResumeRequest {
        reason: session.reason(),
        dry_run: args.dry_run,
    };
    let reply = session
        .client()?
        .write(|mut scheduler| {
            let request = request.clone();
            async move { scheduler.resume(request).await }
        })
        .await?;
    let change = PauseChange {
        schema: PauseChange::SCHEMA,
        pause: None,
        was_paused: Some(reply.was_paused),
        dry_run: args.dry_run,
    };
    let words = |change: &PauseChange, _: Look| {
        let text = match (change.was_paused == Some(true), change.dry_run) {
            (false, _) => "was not paused",
            (true, true) => "would be resumed",
            (true, false) => "resumed",
        };
        format!("{text}\n")
    };
    session.print(&change, words, |_| "resumed".to_owned())?;
    Ok(Exit::Ok)
}

pub(super) async fn cancel(session: &mut Session<'_>, args: &CancelArgs) -> Result<Exit, Failure> {
    let dry_run = args.dry_run.dry_run;
    let request = v1::CancelMigrationRequest {
        id: args.id.clone(),
        reason: session.reason(),
        dry_run,
    };
    let reply = session
        .client()?
        .write(|mut scheduler| {
            let request = request.clone();
            async move { scheduler.cancel_migration(request).await }
        })
        .await?;
    let migration = reply.migration.unwrap_or_default().into();
    let change = MigrationChange {
        schema: MigrationChange::SCHEMA,
        migration,
        dry_run,
    };
    session.print(&change, cancel_words, |change| {
        change
            .migration
            .id
            .clone()
            .unwrap_or_else(|| args.id.clone())
    })?;
    Ok(Exit::Ok)
}

fn cancel_words(change: &MigrationChange, _: Look) -> String {
    let migration = &change.migration;
    let (guest, id) = (&migration.guest, migration.short_id());
    if change.dry_run {
        return format!("migration {id} of {guest} would be cancelled\n");
    }
    if migration.is_over() {
        let phase = migration.phase.map_or("over", |phase| phase.as_str());
        return format!("migration {id} of {guest} is over: {phase}\n");
    }
    format!(
        "migration {id} of {guest} is being cancelled; it stays on {} unless it has just been \
         handed over: evenkeel migration show {id}\n",
        migration.source
    )
}
