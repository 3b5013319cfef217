//! The list of guests.

use super::{Cell, Side, Table};
use crate::output::paint::Tone;
use crate::output::text::{hundredths, mib};
use crate::output::{Look, time};
use crate::view::Guest;

/// The guests as a table.
#[must_use]
pub fn guests(guests: &[Guest], look: Look) -> String {
    let mut columns = vec![
        ("NAME", Side::Left),
        ("HOST", Side::Left),
        ("STATE", Side::Left),
        ("CPU", Side::Right),
        ("MEMORY", Side::Right),
    ];
    if look.wide {
        columns.extend([
            ("USED", Side::Right),
            ("DEVIATION", Side::Right),
            ("HELD", Side::Right),
            ("DIRTY", Side::Right),
            ("UUID", Side::Left),
        ]);
    }
    columns.push(("NOTE", Side::Left));
    let mut table = Table::new(columns);
    for guest in guests {
        table.row(row(guest, look));
    }
    table.render(0, look.colour)
}

fn row(guest: &Guest, look: Look) -> Vec<Cell> {
    let state = match guest.state.as_str() {
        "running" => Tone::Plain,
        _ => Tone::Faint,
    };
    let mut cells = vec![
        guest.name.clone().into(),
        guest.host.clone().into(),
        Cell::toned(guest.state.clone(), state),
        format!("{}/{}", hundredths(guest.cpu_demand_cores), guest.vcpus).into(),
        mib(guest.memory_mib).into(),
    ];
    if look.wide {
        cells.extend([
            Cell::or_dash(guest.cpu_used_cores.map(hundredths)),
            hundredths(guest.cpu_demand_stddev_cores).into(),
            Cell::or_dash(guest.memory_rss_mib.map(mib)),
            Cell::or_dash(
                guest
                    .dirty_rate_mib_s
                    .map(|rate| format!("{rate:.0} MiB/s")),
            ),
            Cell::or_dash(guest.uuid.clone()),
        ]);
    }
    cells.push(note(guest, look));
    cells
}

/// The one thing about a guest that decides whether it moves.
pub(crate) fn note(guest: &Guest, look: Look) -> Cell {
    if let Some(target) = &guest.migrating_to {
        return Cell::toned(format!("moving to {target}"), Tone::Good);
    }
    if let Some(reason) = &guest.unmovable_reason {
        return Cell::toned(format!("unmovable: {reason}"), Tone::Warn);
    }
    let rests = guest.cooldown_until.filter(|until| *until > look.now);
    match rests.map(|until| time::between(look.now, until)) {
        Some(left) => Cell::toned(format!("rests, {} left", time::age(left)), Tone::Faint),
        None => Cell::default(),
    }
}
