//! The table of events.

use super::{Cell, Side, Table};
use crate::output::{Look, time};
use crate::view::Event;

/// Events, newest last.
#[must_use]
pub fn events(events: &[Event], look: Look) -> String {
    let mut columns = vec![("TIME", Side::Left), ("KIND", Side::Left)];
    if look.wide {
        columns.extend([("NUMBER", Side::Right), ("EPOCH", Side::Right)]);
    }
    columns.extend([
        ("BY", Side::Left),
        ("GUEST", Side::Left),
        ("HOSTS", Side::Left),
    ]);
    if look.wide {
        columns.extend([
            ("MIGRATION", Side::Left),
            ("POLICY", Side::Right),
            ("SAVES/H", Side::Right),
            ("COSTS", Side::Right),
        ]);
    }
    columns.push(("WHY", Side::Left));
    let mut table = Table::new(columns);
    for event in events {
        table.row(row(event, look.wide));
    }
    table.render(0, look.colour)
}

/// One event as a line by itself, as it is followed.
#[must_use]
pub fn event_line(event: &Event, look: Look) -> String {
    let text = events(std::slice::from_ref(event), look);
    text.split_once('\n')
        .map_or(String::new(), |(_, line)| line.to_owned())
}

fn row(event: &Event, wide: bool) -> Vec<Cell> {
    let dash = |text: &Option<String>| Cell::or_dash(text.clone());
    let seconds = |number: Option<f64>| Cell::or_dash(number.map(|s| format!("{s:.1} s")));
    let mut cells = vec![
        Cell::or_dash(event.at.map(time::stamp)),
        event.kind.clone().into(),
    ];
    if wide {
        cells.extend([
            event.sequence.to_string().into(),
            event.epoch.to_string().into(),
        ]);
    }
    let hosts = (!event.hosts.is_empty()).then(|| event.hosts.join(" "));
    cells.extend([dash(&event.by), dash(&event.guest), Cell::or_dash(hosts)]);
    if wide {
        let policy = event.policy_revision;
        cells.extend([
            dash(&event.migration),
            Cell::or_dash((policy > 0).then(|| policy.to_string())),
            seconds(event.saves_guest_seconds_per_hour),
            seconds(event.costs_guest_seconds),
        ]);
    }
    cells.push(Cell::or_dash(why(event)));
    cells
}

/// The name of the reason, the words and the new mode, as far as there are any.
fn why(event: &Event) -> Option<String> {
    let mode = event.mode.as_ref().map(|mode| format!("mode {mode}"));
    let parts = [mode, event.reason.clone(), event.why.clone()];
    let said: Vec<String> = parts.into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join(": "))
}
