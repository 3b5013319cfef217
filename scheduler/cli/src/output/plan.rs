//! A plan as operators see it: what it is worth, what moves and why, what does not and why not.

use std::time::Duration;

use super::table::{Cell, Side, Table};
use super::text::{amount, bytes, count, harmless, hundredths, tenths, words};
use super::{Look, time};
use crate::view::{AppliedPlan, Blocked, Plan, Step};

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
    if look.wide {
        out.push_str(&hosts(plan, look));
    }
    out.push_str(&not_moved(&plan.blocked, look));
    if look.wide && !plan.steps.is_empty() {
        out.push_str("All numbers of a step: evenkeel explain move GUEST\n");
    }
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
        columns.extend([
            ("PRICE", Side::Left),
            ("PAID BACK", Side::Left),
            ("PAUSE", Side::Left),
        ]);
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
        cells.push(Cell::or_dash(paid_back(step)));
        cells.push(format!("{:.0} ms", step.downtime_seconds * 1000.0).into());
    }
    let copy = format!("{}, ~{:.0} s", bytes(step.bytes), step.copy_seconds);
    cells.push(copy.into());
    cells.push(Cell::or_dash((!after.is_empty()).then(|| after.join(","))));
    cells
}

/// When a step's own saving has paid its cost; none for those that others pay for.
fn paid_back(step: &Step) -> Option<String> {
    let rate = step.saves_guest_seconds_per_hour / 3600.0;
    let cost = step.costs_guest_seconds + step.price_guest_seconds;
    let seconds = (rate > 0.0).then(|| (cost / rate).round())?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .map(time::duration)
}

/// The hosts that a plan changes, before and after.
fn hosts(plan: &Plan, look: Look) -> String {
    if plan.hosts.is_empty() {
        return String::new();
    }
    let mut table = Table::new(vec![
        ("HOST", Side::Left),
        ("LOSES", Side::Left),
        ("CPU", Side::Left),
        ("MEMORY", Side::Left),
    ]);
    let both = |a: f64, b: f64| format!("{:.0}% -> {:.0}%", a * 100.0, b * 100.0);
    for change in &plan.hosts {
        let loss = (
            hundredths(change.loss_before),
            hundredths(change.loss_after),
        );
        table.row(vec![
            change.host.clone().into(),
            format!("{} -> {}", loss.0, loss.1).into(),
            both(change.cpu_utilisation_before, change.cpu_utilisation_after).into(),
            both(
                change.memory_utilisation_before,
                change.memory_utilisation_after,
            )
            .into(),
        ]);
    }
    let spread = (plan.imbalance_before, plan.imbalance_after);
    let spread = format!(
        "Spread of CPU use over the hosts: {:.3} -> {:.3}",
        spread.0, spread.1
    );
    format!("{}{spread}\n", table.render(2, look.colour))
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

/// How far a plan was carried out, in a line.
#[must_use]
pub fn applied(applied: &AppliedPlan) -> String {
    let all = applied.steps.len();
    let plan = &applied.plan;
    if all == 0 {
        return format!("plan {plan}: nothing to move\n");
    }
    let moves = count(u32::try_from(all).unwrap_or(u32::MAX), "move");
    if applied.dry_run {
        return format!("plan {plan} can be carried out: {moves}\n");
    }
    let done = applied.steps.iter().filter(|step| step.done).count();
    let not_begun = applied
        .steps
        .iter()
        .filter(|step| step.migration.is_none())
        .count();
    let rest = match not_begun {
        0 => String::new(),
        some => format!(", {some} not begun"),
    };
    format!("plan {plan}: {done} of {moves} done{rest}\n")
}
