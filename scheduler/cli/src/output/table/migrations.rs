//! The list of migrations.

use super::{Cell, Side, Table};
use crate::output::paint::Tone;
use crate::output::text::{bytes, words};
use crate::output::{Look, time};
use crate::view::{Migration, Phase};

/// The migrations as a table.
#[must_use]
pub fn migrations(migrations: &[Migration], look: Look) -> String {
    let mut columns = vec![
        ("ID", Side::Left),
        ("GUEST", Side::Left),
        ("FROM -> TO", Side::Left),
        ("PHASE", Side::Left),
        ("COPIED", Side::Right),
        ("TOOK", Side::Right),
        ("AGE", Side::Right),
    ];
    if look.wide {
        columns.extend([
            ("BYTES", Side::Right),
            ("PAUSE", Side::Right),
            ("TRIGGER", Side::Left),
            ("BY", Side::Left),
        ]);
    }
    columns.push(("WHY", Side::Left));
    if look.wide {
        columns.push(("DETAIL", Side::Left));
    }
    let mut table = Table::new(columns);
    for migration in migrations {
        table.row(row(migration, look));
    }
    table.render(0, look.colour)
}

fn row(migration: &Migration, look: Look) -> Vec<Cell> {
    let copied = migration
        .copied_permille()
        .map(|copied| format!("{}%", copied / 10));
    let age = migration
        .created_at
        .or(migration.started_at)
        .map(|at| time::age(time::between(at, look.now)));
    let id = Some(migration.short_id()).filter(|id| !id.is_empty());
    let mut cells = vec![
        Cell::or_dash(id),
        migration.guest.clone().into(),
        format!("{} -> {}", migration.source, migration.target).into(),
        phase(migration),
        Cell::or_dash(copied),
        Cell::or_dash(took(migration, look)),
        Cell::or_dash(age),
    ];
    let trigger = migration.trigger.as_ref();
    if look.wide {
        let progress = migration.progress;
        let pause = progress
            .and_then(|p| p.downtime_ms)
            .map(|ms| format!("{ms} ms"));
        cells.extend([
            Cell::or_dash(progress.map(|p| bytes(p.transferred_bytes))),
            Cell::or_dash(pause),
            Cell::or_dash(trigger.map(|t| t.kind.clone())),
            Cell::or_dash(trigger.and_then(|t| t.by.clone())),
        ]);
    }
    cells.push(Cell::or_dash(
        trigger.map(|t| t.why.clone().unwrap_or_else(|| words(&t.reason))),
    ));
    if look.wide {
        cells.push(Cell::or_dash(migration.detail.clone()));
    }
    cells
}

/// How long it has taken, or took, in whole units.
fn took(migration: &Migration, look: Look) -> Option<String> {
    let end = match migration.ended_at {
        Some(end) => end,
        None if migration.is_over() => return None,
        None => look.now,
    };
    let start = migration.started_at.or(migration.created_at)?;
    Some(time::age(time::between(start, end)))
}

/// The phase, and behind it what made it end so.
pub(crate) fn phase(migration: &Migration) -> Cell {
    let Some(phase) = migration.phase else {
        return Cell::or_dash(None::<String>);
    };
    let mut text = phase.as_str().to_owned();
    if let Some(reason) = &migration.outcome_reason {
        text.push_str(": ");
        text.push_str(&words(reason));
    } else if let Some(abort) = migration.abort.as_ref().filter(|_| !phase.is_over()) {
        text.push_str(&format!(", aborting: {abort}"));
    }
    let elsewhere = migration
        .whereabouts
        .as_ref()
        .filter(|place| place.as_str() != "source");
    if let Some(place) = elsewhere {
        text.push_str(&format!(" (guest: {place})"));
    }
    let tone = match phase {
        Phase::Unknown | Phase::Failed => Tone::Bad,
        Phase::Refused | Phase::Cancelled | Phase::Newer => Tone::Warn,
        Phase::Done => Tone::Good,
        Phase::Ordered | Phase::Preparing | Phase::Running | Phase::Switching => Tone::Plain,
    };
    Cell::toned(text, tone)
}
