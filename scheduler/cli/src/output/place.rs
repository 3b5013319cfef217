//! Where a guest that is to be made goes, as operators see it.

use evenkeel_planner::Placement;
use evenkeel_planner::newcomer::{Berth, Turned};

use super::Look;
use super::paint::{Tone, paint};
use super::table::{Cell, Side, Table};
use super::text::{amount, harmless, hundredths, mib, words};

/// Hosts that are listed unless all are asked for: of those that take it, and of those that do not.
const SHOWN: usize = 12;

/// A placement as lines.
#[must_use]
pub fn placement(placement: &Placement, look: Look) -> String {
    let assumed = match placement.cpu_demand_assumed {
        true => ", as the fleet's guests use per vCPU",
        false => "",
    };
    let demand = hundredths(placement.cpu_demand_cores);
    let (tone, best) = match &placement.host {
        Some(host) => (Tone::Strong, format!("best host: {host}")),
        None => (Tone::Bad, "no host can take it".to_owned()),
    };
    let best = paint(&harmless(&best), tone, look.colour);
    let mut out = format!("{best}   (taken to use {demand} cores{assumed})\n");
    let limit = |all: usize| if look.wide { all } else { all.min(SHOWN) };
    let list = |out: &mut String, title: &str, table: &Table, all: usize| {
        if all == 0 {
            return;
        }
        out.push_str(&format!("\n{title}:\n{}", table.render(2, look.colour)));
        if all > limit(all) {
            let more = all - limit(all);
            out.push_str(&format!("  and {more} more (-o wide shows all)\n"));
        }
    };
    let (takes, turns) = (&placement.candidates, &placement.rejected);
    let table = berths(&takes[..limit(takes.len())]);
    list(&mut out, "Hosts that can take it", &table, takes.len());
    let table = turned(&turns[..limit(turns.len())]);
    list(&mut out, "Hosts that cannot", &table, turns.len());
    out
}

fn berths(berths: &[Berth]) -> Table {
    let mut table = Table::new(vec![
        ("HOST", Side::Left),
        ("ADDS", Side::Right),
        ("RULES", Side::Right),
        ("LOSES", Side::Right),
        ("CPU", Side::Right),
        ("MEMORY", Side::Right),
        ("FREE", Side::Right),
    ]);
    for berth in berths {
        let soft = berth.soft_rules_guest_seconds_per_hour;
        let rules = (soft > 0.0).then(|| format!("{} s/h", amount(soft)));
        let share = |of: f64| format!("{:.0}%", 100.0 * of);
        table.row(vec![
            Cell::from(berth.host.clone()),
            Cell::from(format!("{} s/h", amount(berth.adds_guest_seconds_per_hour))),
            Cell::or_dash(rules),
            Cell::from(hundredths(berth.loss_after)),
            Cell::from(share(berth.cpu_utilisation_after)),
            Cell::from(share(berth.memory_utilisation_after)),
            Cell::from(mib(u64::try_from(berth.free_memory_mib_after).unwrap_or(0))),
        ]);
    }
    table
}

fn turned(turned: &[Turned]) -> Table {
    let mut table = Table::new(vec![("HOST", Side::Left), ("WHY", Side::Left)]);
    for host in turned {
        let why = format!("{} ({})", words(host.reason.as_str()), host.detail);
        table.row(vec![Cell::from(host.host.clone()), Cell::from(why)]);
    }
    table
}
