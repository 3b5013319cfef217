//! The list of hosts.

use super::{Cell, Side, Table};
use crate::output::drain::state as words;
use crate::output::paint::Tone;
use crate::output::text::{cores, of_mib, percent, tenths};
use crate::output::{Look, time};
use crate::view::Host;

/// Stalled longer than this share of the time, a host's guests feel it.
const STALLED_WARN_BP: u32 = 1000;
const STALLED_BAD_BP: u32 = 3000;

/// The hosts as a table.
#[must_use]
pub fn hosts(hosts: &[Host], look: Look) -> String {
    let mut columns = vec![
        ("NAME", Side::Left),
        ("STATE", Side::Left),
        ("CPU", Side::Right),
        ("MEMORY", Side::Right),
        ("STALLED", Side::Right),
        ("LOSS", Side::Right),
        ("GUESTS", Side::Right),
        ("MOVING", Side::Right),
    ];
    if look.wide {
        columns.extend([
            ("USED", Side::Right),
            ("MEM STALLED", Side::Right),
            ("IO STALLED", Side::Right),
            ("REPORT", Side::Right),
            ("AGENT", Side::Left),
            ("VERSION", Side::Left),
            ("LOCKS", Side::Left),
            ("TROUBLES", Side::Left),
        ]);
    }
    let mut table = Table::new(columns);
    for host in hosts {
        table.row(row(host, look.wide));
    }
    table.render(0, look.colour)
}

fn row(host: &Host, wide: bool) -> Vec<Cell> {
    let mut cells = vec![
        host.name.clone().into(),
        state(host),
        format!(
            "{}/{}",
            cores(host.cpu_demand_cores, host.cpu_cores),
            cores(host.cpu_cores, host.cpu_cores)
        )
        .into(),
        of_mib(host.memory_allocated_mib, host.memory_mib).into(),
        stalled(host.pressure.map(|p| p.cpu_some_bp)),
        tenths(host.loss_guest_seconds_per_second).into(),
        host.guests.to_string().into(),
        Cell::or_dash(host.migrations_running.map(|n| n.to_string())),
    ];
    if wide {
        let age = host
            .report_age_ms
            .map(|ms| time::age(time::milliseconds(ms)));
        cells.extend([
            Cell::or_dash(host.cpu_used_cores.map(|used| cores(used, host.cpu_cores))),
            stalled(host.pressure.map(|p| p.memory_some_bp)),
            stalled(host.pressure.map(|p| p.io_some_bp)),
            Cell::or_dash(age),
            Cell::or_dash(host.agent_address.clone()),
            Cell::or_dash(host.agent_version.clone()),
            Cell::or_dash(host.disk_locks.clone()),
            troubles(&host.troubles),
        ]);
    }
    cells
}

/// A host's state; what is wrong with it comes with it.
pub(crate) fn state(host: &Host) -> Cell {
    if host.libvirt_up == Some(false) {
        return Cell::toned(format!("{}, libvirt down", words(host)), Tone::Bad);
    }
    let tone = match host.state.as_str() {
        "active" => Tone::Plain,
        "absent" | "unusable" => Tone::Bad,
        _ => Tone::Warn,
    };
    Cell::toned(words(host), tone)
}

fn stalled(basis_points: Option<u32>) -> Cell {
    match basis_points {
        None => Cell::or_dash(None::<String>),
        Some(share) if share >= STALLED_BAD_BP => Cell::toned(percent(share), Tone::Bad),
        Some(share) if share >= STALLED_WARN_BP => Cell::toned(percent(share), Tone::Warn),
        Some(share) => percent(share).into(),
    }
}

fn troubles(troubles: &[String]) -> Cell {
    if troubles.is_empty() {
        return Cell::or_dash(None::<String>);
    }
    Cell::toned(troubles.join(", "), Tone::Bad)
}
