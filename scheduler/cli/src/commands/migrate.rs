//! `migrate`: orders a move and follows it. Ctrl-C detaches; only `cancel` cancels.

use evenkeel_proto::v1;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use tokio::signal::unix::{SignalKind, signal};

use super::Session;
use super::follow::{Ending, follow};
use crate::args::{CopyStorage, Format, MigrateArgs};
use crate::client::ClientError;
use crate::exit::{Exit, Failure};
use crate::output::Look;
use crate::output::progress::{Narrator, beside_bar, ending, intent};
use crate::view::{Migration, MigrationChange, MigrationDetail, Phase};

/// The bar counts thousandths of the copy.
const BAR_LENGTH: u64 = 1000;

pub(super) async fn migrate(
    session: &mut Session<'_>,
    args: &MigrateArgs,
) -> Result<Exit, Failure> {
    let dry_run = args.dry_run.dry_run;
    let client = session.client()?;
    let request = v1::OperatorMigrateRequest {
        guest: args.guest.clone(),
        target: args.to.clone().unwrap_or_default(),
        reason: session.reason(),
        dry_run,
        override_pause: args.override_pause,
        offline: args.offline,
        disks: match args.copy_storage {
            None => v1::DiskCopy::None,
            Some(CopyStorage::Whole) => v1::DiskCopy::Whole,
            Some(CopyStorage::Inc) => v1::DiskCopy::Incremental,
        }
        .into(),
    };
    // From here on Ctrl-C ends the waiting, not the process: what was ordered must be said.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let order = client.write(|mut scheduler| {
        let request = request.clone();
        async move { scheduler.migrate(request).await }
    });
    let reply = tokio::select! {
        reply = order => reply?,
        _ = interrupt.recv() => {
            session.io.say("interrupted before an answer came; see `evenkeel migrations --open`");
            return Ok(Exit::Interrupted);
        }
    };
    let ordered: Migration = reply.order.unwrap_or_default().into();
    let id = ordered.id.clone();
    let Some(id) = id.filter(|_| !dry_run && !args.detach) else {
        let change = MigrationChange {
            schema: MigrationChange::SCHEMA,
            migration: ordered,
            dry_run,
        };
        session.print(&change, ordered_words, |change| {
            change
                .migration
                .id
                .clone()
                .unwrap_or_else(|| change.migration.guest.clone())
        })?;
        return Ok(Exit::Ok);
    };
    let mut display = Display::new(session);
    display.show(session, &ordered);
    let mut show = |seen: &Migration| display.show(session, seen);
    let ended = tokio::select! {
        ended = follow(&client, &id, &mut show) => Some(ended),
        _ = interrupt.recv() => None,
    };
    display.clear();
    conclude(session, &ordered, ended)
}

/// What is said and done when the following is over, for whatever reason.
fn conclude(
    session: &mut Session<'_>,
    ordered: &Migration,
    ended: Option<Result<Ending, ClientError>>,
) -> Result<Exit, Failure> {
    let (guest, id) = (ordered.guest.clone(), ordered.short_id().to_owned());
    match ended {
        None => {
            session.io.say(&format!(
                "detached: the migration of {guest} goes on; see it with `evenkeel migration show \
                 {id}`, stop it with `evenkeel cancel {id}`"
            ));
            Ok(Exit::Interrupted)
        }
        Some(Ok(Ending::Over(migration))) => finish(session, *migration),
        Some(Ok(Ending::Unknown)) => Err(Failure::OutcomeUnknown { guest, id }),
        Some(Err(source)) => Err(Failure::OutOfSight {
            guest,
            id,
            source: Box::new(source),
        }),
    }
}

fn ordered_words(change: &MigrationChange, _: Look) -> String {
    let intent = intent(&change.migration);
    if change.dry_run {
        return format!("would move {intent}\n");
    }
    let id = change.migration.short_id();
    format!("ordered {intent}; follow it with `evenkeel migration show {id}`\n")
}

/// Prints how it ended, and fails unless the guest lives at its target.
fn finish(session: &mut Session<'_>, migration: Migration) -> Result<Exit, Failure> {
    let (phase, message) = (migration.phase, ending(&migration));
    let is_done = phase == Some(Phase::Done);
    // Words of failure are talk; the document is data either way.
    if is_done || session.format() == Format::Json {
        let detail = MigrationDetail::new(migration);
        session.print(
            &detail,
            |_, _| format!("{message}\n"),
            |detail| detail.migration.id.clone().unwrap_or_default(),
        )?;
    }
    if is_done {
        return Ok(Exit::Ok);
    }
    Err(Failure::Migration {
        message,
        refused: phase == Some(Phase::Refused),
    })
}

/// A bar for people who watch, lines for logs.
enum Display {
    Bar(ProgressBar),
    Lines(Narrator),
}

impl Display {
    fn new(session: &Session<'_>) -> Self {
        let style = ProgressStyle::with_template("{prefix} [{bar:30}] {percent:>3}%  {msg}");
        match style {
            Ok(style) if session.io.err_is_terminal => {
                let target = ProgressDrawTarget::stderr();
                let bar = ProgressBar::with_draw_target(Some(BAR_LENGTH), target);
                bar.set_style(style.progress_chars("=> "));
                Self::Bar(bar)
            }
            Ok(_) | Err(_) => Self::Lines(Narrator::default()),
        }
    }

    fn show(&mut self, session: &mut Session<'_>, migration: &Migration) {
        match self {
            Self::Bar(bar) => {
                let Migration {
                    guest,
                    source,
                    target,
                    ..
                } = migration;
                bar.set_prefix(format!("{guest} {source} -> {target}"));
                bar.set_position(migration.copied_permille().unwrap_or(0));
                bar.set_message(beside_bar(migration));
            }
            Self::Lines(narrator) => {
                if let Some(line) = narrator.tell(migration) {
                    session.io.say(&line);
                }
            }
        }
    }

    fn clear(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
