//! A plan as operators see it: what it is worth, what moves and why, what does not and why not.

use super::Look;
use super::table::{Cell, Side, Table};
use super::text::{amount, bytes, harmless, tenths, words};
use crate::view::{Blocked, Plan, Step};

/// How many reasons for not moving are listed unless all are asked for.
const SHOWN: usize = 8;

/// The plan as lines. `revision` is the policy's, where it is known.
#[must_use]
pub fn plan(plan: &Plan, revision: Option<u64>, look: Look) -> String {
    let mut head = format!(
        "fleet {}   losing {} guest-seconds/s -> {}",
        plan.cluster,
        tenths(plan.loss_before),
        tenths(plan.loss_after)
    );
    if let Some(revision) = revision.filter(|revision| *revision > 0) {
        head.push_str(&format!("   policy rev {revision}"));
    }
    if !plan.id.is_empty() {
        head.push_str(&format!("   plan {}", plan.id));
    }
    let mut out = harmless(&head);
    out.push('\n');
    if plan.steps.is_empty() {
        out.push_str("Nothing to move.\n");
    } else {
        out.push_str(&steps(&plan.steps, look));
    }
    out.push_str(&not_moved(&plan.blocked, look));
    out
}

fn steps(steps: &[Step], look: Look) -> String {
    let mut columns = vec![("#", Side::Right)];
    if look.wide {
        columns.push(("WAVE", Side::Right));
    }
    columns.extend([
        ("GUEST", Side::Left),
        ("FROM -> TO", Side::Left),
        ("WHY", Side::Left),
        ("SAVES", Side::Left),
        ("COSTS", Side::Left),
    ]);
    if look.wide {
        columns.extend([("PRICE", Side::Left), ("PAUSE", Side::Left)]);
    }
    columns.extend([("COPY", Side::Left), ("AFTER", Side::Left)]);
    let mut table = Table::new(columns);
    for (at, step) in steps.iter().enumerate() {
        table.row(row(at + 1, step, look.wide));
    }
    table.render(2, look.colour)
}

fn row(number: usize, step: &Step, wide: bool) -> Vec<Cell> {
    let why = if step.why.is_empty() {
        words(&step.reason)
    } else {
        step.why.clone()
    };
    let after: Vec<String> = step.after.iter().map(ToString::to_string).collect();
    let mut cells: Vec<Cell> = vec![number.to_string().into()];
    if wide {
        cells.push(step.wave.to_string().into());
    }
    cells.extend([
        step.guest.clone().into(),
        format!("{} -> {}", step.from, step.to).into(),
        why.into(),
        format!("{} s/h", amount(step.saves_guest_seconds_per_hour)).into(),
        format!("{} s", amount(step.costs_guest_seconds)).into(),
    ]);
    if wide {
        cells.push(format!("{} s", amount(step.price_guest_seconds)).into());
        cells.push(format!("{:.0} ms", step.downtime_seconds * 1000.0).into());
    }
    let copy = format!("{}, ~{:.0} s", bytes(step.bytes), step.copy_seconds);
    cells.push(copy.into());
    cells.push(Cell::or_dash((!after.is_empty()).then(|| after.join(","))));
    cells
}

fn not_moved(blocked: &[Blocked], look: Look) -> String {
    if blocked.is_empty() {
        return String::new();
    }
    let shown = if look.wide { blocked.len() } else { SHOWN };
    let mut parts: Vec<String> = blocked.iter().take(shown).map(reason).collect();
    let left = blocked.len().saturating_sub(shown);
    if left > 0 {
        parts.push(format!("and {left} more (-o wide shows all)"));
    }
    harmless(&format!("Not moved: {}", parts.join(", "))) + "\n"
}

fn reason(blocked: &Blocked) -> String {
    let name = [&blocked.guest, &blocked.host, &blocked.rule]
        .into_iter()
        .flatten()
        .next();
    let name = name.map_or("-", String::as_str);
    let named = words(&blocked.reason);
    let detail = &blocked.detail;
    // A detail that begins with the reason, or explains "unmovable", says it all.
    if detail.is_empty() {
        format!("{name} ({named})")
    } else if blocked.reason == "unmovable" || detail.starts_with(&named) {
        format!("{name} ({detail})")
    } else {
        format!("{name} ({named}, {detail})")
    }
}
