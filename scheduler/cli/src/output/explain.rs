//! Why, and why not, as operators see it.

use std::time::Duration;

use evenkeel_planner::explain::{
    Candidate, CostReport, Explanation, GuestExplanation, HostEffect, HostExplanation, Judgement,
    MoveExplanation, Subject, Verdict,
};

use super::paint::{Tone, paint};
use super::table::{Cell, Side, Table};
use super::text::{amount, bytes, cores, harmless, hundredths, tenths, words};
use super::{Look, time};

/// Hosts that are listed for a guest unless all are asked for.
const SHOWN: usize = 12;

/// An explanation as lines.
#[must_use]
pub fn explanation(answer: &Explanation, look: Look) -> String {
    let plan = &answer.plan;
    let steps = match plan.steps {
        0 => "nothing to move".to_owned(),
        1 => format!("1 step, plan {}", plan.id),
        many => format!("{many} steps, plan {}", plan.id),
    };
    let mut out = harmless(&format!(
        "fleet {}   losing {} guest-seconds/s -> {}   {steps}\n",
        answer.cluster,
        tenths(plan.loss_before),
        tenths(plan.loss_after)
    ));
    out.push_str(&format!(
        "A move has to save {} times its cost within {}.\n\n",
        plan.payback_factor,
        span(plan.horizon_seconds)
    ));
    if let Some(host) = &answer.host {
        out.push_str(&host_part(host));
        out.push_str(&guests_of_host(&answer.guests, look));
        return out;
    }
    let one = matches!(answer.about, Subject::Move { .. });
    for guest in &answer.guests {
        out.push_str(&guest_part(guest, plan.steps, one, look));
    }
    out
}

/// Seconds as people say them.
fn span(seconds: f64) -> String {
    time::duration(Duration::try_from_secs_f64(seconds.round()).unwrap_or(Duration::MAX))
}

fn guest_part(guest: &GuestExplanation, steps: usize, one: bool, look: Look) -> String {
    let mut out = verdict_of(guest, one, look);
    for explained in &guest.moves {
        out.push_str(&move_part(explained));
    }
    if !guest.moves_with.is_empty() {
        let mates = guest.moves_with.join(", ");
        out.push_str(&harmless(&format!(
            "A must-rule keeps it together with {mates}: they move as one, and the numbers are for all of them.\n"
        )));
    }
    if guest.candidates.is_empty() {
        out.push_str("There is no other host.\n");
        return out;
    }
    let (all, others) = (guest.candidates.len(), steps > guest.moves.len());
    let judged = match (others, guest.moves.is_empty()) {
        (false, _) => "",
        (true, true) => ", with the plan carried out",
        (true, false) => ", with the plan's other steps carried out",
    };
    let head = if one { "That move" } else { "Other hosts" };
    out.push_str(&format!("\n{head}{judged}:\n"));
    let shown = if look.wide { all } else { SHOWN };
    out.push_str(&table(guest.candidates.iter().take(shown), look));
    if all > shown {
        out.push_str(&format!("  and {} more (-o wide shows all)\n", all - shown));
    }
    if one {
        let ends = guest.candidates.iter().filter(|_| guest.moves.is_empty());
        ends.for_each(|candidate| out.push_str(&ends_part(&candidate.judgement)));
    }
    out.push_str(&meanings(guest, one));
    out
}

/// The first sentence: it goes, it is held, or it stays.
fn verdict_of(guest: &GuestExplanation, one: bool, look: Look) -> String {
    let mut head = format!("guest {} on {}: ", guest.guest, guest.host);
    let pays = |c: &&Candidate| c.judgement.verdict == Verdict::Pays;
    let best = guest.candidates.first();
    let (tone, word, rest) = if let Some(last) = guest.moves.last() {
        let forced = match &guest.held {
            Some(held) => format!(
                ", although for gain it would stay ({})",
                words(&held.reason.to_string())
            ),
            None => String::new(),
        };
        (
            Tone::Strong,
            "moves",
            format!(" to {}{forced}", last.step.to),
        )
    } else if let Some(held) = &guest.held {
        let (name, meaning) = (words(held.reason.as_str()), held.reason.meaning());
        let rest = format!(
            ", {name}: {}\n  {meaning}; what can be done: {}",
            held.detail,
            held.reason.remedy()
        );
        (Tone::Warn, "held", rest)
    } else if one {
        (Tone::Strong, "stays", String::new())
    } else if let Some(found) = best.filter(pays) {
        let rest = format!(
            ", though {} would pay: the plan has found no better as a whole",
            found.host
        );
        (Tone::Strong, "stays", rest)
    } else if best.is_some_and(|c| c.judgement.effect.is_some()) {
        (
            Tone::Strong,
            "stays",
            ": no other host is worth the move".to_owned(),
        )
    } else {
        (
            Tone::Warn,
            "stays",
            ": no other host can take it".to_owned(),
        )
    };
    head = harmless(&head);
    format!(
        "{head}{}{}\n",
        paint(word, tone, look.colour),
        harmless(&rest)
    )
}

/// A step with all its numbers.
fn move_part(explained: &MoveExplanation) -> String {
    let step = &explained.step;
    let mut lines = vec![format!(
        "step {}: {} -> {}   {}   ({})",
        explained.number,
        step.from,
        step.to,
        step.why,
        words(&step.reason.to_string())
    )];
    lines.push(format!("  {}", end_line(&explained.source)));
    lines.push(format!("  {}", end_line(&explained.target)));
    let saved =
        |of: fn(&HostEffect) -> f64| (of(&explained.source) + of(&explained.target)) * 3600.0;
    lines.push(format!(
        "  saves {} s/h: cpu {}, memory {}",
        amount(step.saves_guest_seconds_per_hour),
        amount(saved(|e| e.cpu_loss_before - e.cpu_loss_after)),
        amount(saved(|e| e.memory_loss_before - e.memory_loss_after))
    ));
    lines.push(format!(
        "  {}",
        cost_line(&explained.cost, explained.payback_seconds)
    ));
    lines.push(format!(
        "  copies {} in ~{:.0} s, pauses {:.0} ms",
        bytes(step.bytes),
        step.copy_seconds,
        step.downtime_seconds * 1000.0
    ));
    if !step.after.is_empty() {
        let after: Vec<String> = step.after.iter().map(ToString::to_string).collect();
        lines.push(format!("  starts after step {}", after.join(", ")));
    }
    if let Some(next) = &explained.runner_up {
        let (word, by) = match next.worse_guest_seconds < 0.0 {
            true => (
                "better on paper, but not surely so",
                -next.worse_guest_seconds,
            ),
            false => ("worse", next.worse_guest_seconds),
        };
        lines.push(format!(
            "  next best: {}, {} s {word}",
            next.host,
            amount(by)
        ));
    }
    harmless(&(lines.join("\n") + "\n"))
}

fn end_line(end: &HostEffect) -> String {
    format!(
        "{}: {} -> {} of {} cores wanted, loses {} -> {} (cpu {} -> {}, memory {} -> {}), {} -> {} of {} MiB",
        end.host,
        cores(end.demand_cores_before, end.cpu_cores),
        cores(end.demand_cores_after, end.cpu_cores),
        cores(end.cpu_cores, end.cpu_cores),
        hundredths(end.loss_before()),
        hundredths(end.loss_after()),
        hundredths(end.cpu_loss_before),
        hundredths(end.cpu_loss_after),
        hundredths(end.memory_loss_before),
        hundredths(end.memory_loss_after),
        end.memory_mib_before,
        end.memory_mib_after,
        end.memory_mib
    )
}

fn cost_line(cost: &CostReport, payback: Option<f64>) -> String {
    let back = match payback {
        Some(seconds) => format!("paid back in {}", span(seconds)),
        None => "not paid back by itself".to_owned(),
    };
    format!(
        "costs {} s: pause {}, slower while copied {}, CPU of the copy {}, fixed price {}; {back}",
        amount(cost.total),
        hundredths(cost.pause),
        hundredths(cost.brown_out),
        hundredths(cost.copy_cpu),
        amount(cost.price)
    )
}

/// Both ends of a move that is not in the plan.
fn ends_part(judged: &Judgement) -> String {
    let Some(effect) = &judged.effect else {
        return String::new();
    };
    let lines = [
        String::new(),
        end_line(&effect.source),
        end_line(&effect.target),
        format!(
            "saves {} s within the time, needs {} s and more than twice its error of {} s",
            amount(effect.gain_guest_seconds),
            amount(effect.needed_guest_seconds),
            amount(effect.error_guest_seconds)
        ),
        cost_line(&effect.cost, effect.payback_seconds),
        format!(
            "would copy {} in ~{:.0} s, pause {:.0} ms",
            bytes(effect.bytes),
            effect.copy_seconds,
            effect.downtime_seconds * 1000.0
        ),
    ];
    harmless(&(lines.join("\n  ").trim_start_matches([' ']).to_owned() + "\n"))
}

fn table<'c>(candidates: impl Iterator<Item = &'c Candidate>, look: Look) -> String {
    let mut columns = vec![
        ("HOST", Side::Left),
        ("VERDICT", Side::Left),
        ("BOTH LOSE", Side::Left),
        ("SAVES", Side::Right),
        ("COSTS", Side::Right),
        ("PAID BACK", Side::Right),
    ];
    if look.wide {
        columns.extend([
            ("GAIN", Side::Right),
            ("NEEDS", Side::Right),
            ("ERROR", Side::Right),
        ]);
        columns.extend([("COPY", Side::Left), ("PAUSE", Side::Right)]);
    }
    columns.push(("WHY", Side::Left));
    if look.wide {
        columns.push(("AS IT IS NOW", Side::Left));
    }
    let mut table = Table::new(columns);
    candidates.for_each(|candidate| table.row(row(candidate, look.wide)));
    table.render(2, look.colour)
}

fn row(candidate: &Candidate, wide: bool) -> Vec<Cell> {
    let judged = &candidate.judgement;
    let effect = judged.effect.as_ref();
    let number =
        |of: fn(&evenkeel_planner::explain::Effect) -> String| Cell::or_dash(effect.map(of));
    let back = effect.and_then(|e| e.payback_seconds).map(span);
    let mut cells = vec![
        Cell::from(candidate.host.clone()),
        verdict(judged.verdict),
        number(|e| {
            format!(
                "{} -> {}",
                hundredths(e.loss_before),
                hundredths(e.loss_after)
            )
        }),
        number(|e| format!("{} s/h", amount(e.saves_guest_seconds_per_hour))),
        number(|e| format!("{} s", amount(e.cost.total))),
        Cell::or_dash(back),
    ];
    if wide {
        cells.push(number(|e| format!("{} s", amount(e.gain_guest_seconds))));
        cells.push(number(|e| format!("{} s", amount(e.needed_guest_seconds))));
        cells.push(number(|e| format!("±{} s", amount(e.error_guest_seconds))));
        cells.push(number(|e| {
            format!("{}, ~{:.0} s", bytes(e.bytes), e.copy_seconds)
        }));
        cells.push(number(|e| format!("{:.0} ms", e.downtime_seconds * 1000.0)));
    }
    cells.push(Cell::or_dash(why(judged)));
    if wide {
        let now = candidate.before_plan.as_ref();
        cells.push(Cell::or_dash(
            now.map(|j| why(j).unwrap_or_else(|| "pays".to_owned())),
        ));
    }
    cells
}

fn verdict(verdict: Verdict) -> Cell {
    match verdict {
        Verdict::Planned => Cell::toned("planned", Tone::Good),
        Verdict::Pays => Cell::toned("pays", Tone::Good),
        Verdict::DoesNotPay => "no gain".into(),
        Verdict::Impossible => Cell::toned("impossible", Tone::Warn),
    }
}

/// The reason by name and the number that decided.
fn why(judged: &Judgement) -> Option<String> {
    let rejected = judged.rejected.as_ref()?;
    Some(match judged.verdict {
        // The verdict has said so.
        Verdict::DoesNotPay => rejected.detail.clone(),
        Verdict::Planned | Verdict::Pays | Verdict::Impossible => {
            format!(
                "{}: {}",
                words(&rejected.reason.to_string()),
                rejected.detail
            )
        }
    })
}

/// What the names of the reasons mean, once each.
fn meanings(guest: &GuestExplanation, one: bool) -> String {
    let told: Vec<String> = guest
        .rejected
        .iter()
        .filter(|count| count.reason.as_str() != "does_not_pay")
        .filter(|count| {
            let mut shown = guest
                .candidates
                .iter()
                .filter_map(|c| c.judgement.rejected.as_ref());
            !one || shown.any(|r| r.reason == count.reason)
        })
        .map(|count| {
            let hosts = if count.hosts == 1 { "host" } else { "hosts" };
            let (name, reason) = (words(count.reason.as_str()), count.reason);
            format!(
                "  {name} ({} {hosts}): {}; {}\n",
                count.hosts,
                reason.meaning(),
                reason.remedy()
            )
        })
        .collect();
    if told.is_empty() {
        String::new()
    } else {
        format!("\n{}", told.concat())
    }
}

fn host_part(host: &HostExplanation) -> String {
    let (before, after) = (&host.before, &host.after);
    let mut out = format!("host {}, {}\n", host.host, host.state);
    let loss = |cpu: f64, memory: f64| hundredths(cpu + memory);
    out.push_str(&format!(
        "  loses {} -> {} guest-seconds/s: cpu {} -> {}, memory {} -> {}\n",
        loss(before.cpu_loss, before.memory_loss),
        loss(after.cpu_loss, after.memory_loss),
        hundredths(before.cpu_loss),
        hundredths(after.cpu_loss),
        hundredths(before.memory_loss),
        hundredths(after.memory_loss)
    ));
    out.push_str(&format!(
        "  {} -> {} of {} cores wanted, {} -> {} MiB free of {}, {} -> {} guests\n",
        cores(before.demand_cores, host.cpu_cores),
        cores(after.demand_cores, host.cpu_cores),
        cores(host.cpu_cores, host.cpu_cores),
        before.free_memory_mib,
        after.free_memory_mib,
        host.memory_mib,
        before.guests,
        after.guests
    ));
    out.push_str(&format!(
        "  one more core of demand here would lose {} guest-seconds/s -> {}\n",
        hundredths(before.marginal_loss),
        hundredths(after.marginal_loss)
    ));
    for blocked in &host.blocked {
        let (meaning, detail) = (blocked.reason.meaning(), &blocked.detail);
        out.push_str(&format!("  in the way: {meaning} ({detail})\n"));
    }
    let mut out = harmless(&out);
    for explained in &host.moves {
        out.push('\n');
        out.push_str(&harmless(&format!("guest {}, ", explained.step.guest)));
        out.push_str(&move_part(explained));
    }
    out
}

/// One line a guest: where it goes, what holds it, or its best other host and why not that.
fn guests_of_host(guests: &[GuestExplanation], look: Look) -> String {
    if guests.is_empty() {
        return "\nNo guest is on it.\n".to_owned();
    }
    let mut table = Table::new(vec![
        ("GUEST", Side::Left),
        ("VERDICT", Side::Left),
        ("BEST OTHER HOST", Side::Left),
        ("SAVES", Side::Right),
        ("COSTS", Side::Right),
        ("WHY", Side::Left),
    ]);
    for guest in guests {
        let best = guest.candidates.first();
        let effect = best.and_then(|c| c.judgement.effect.as_ref());
        let word = match (guest.moves.last(), &guest.held) {
            (Some(last), _) => Cell::toned(format!("moves, step {}", last.number), Tone::Good),
            (None, Some(_)) => Cell::toned("held", Tone::Warn),
            (None, None) => "stays".into(),
        };
        let reason = match (guest.moves.last(), &guest.held) {
            (Some(last), _) => Some(last.step.why.clone()),
            (None, Some(held)) => Some(format!("{}: {}", words(held.reason.as_str()), held.detail)),
            (None, None) => best.and_then(|c| why(&c.judgement)),
        };
        table.row(vec![
            guest.guest.clone().into(),
            word,
            Cell::or_dash(best.map(|c| c.host.clone())),
            Cell::or_dash(
                effect.map(|e| format!("{} s/h", amount(e.saves_guest_seconds_per_hour))),
            ),
            Cell::or_dash(effect.map(|e| format!("{} s", amount(e.cost.total)))),
            Cell::or_dash(reason),
        ]);
    }
    format!(
        "\nIts guests, with the plan's other steps carried out:\n{}",
        table.render(2, look.colour)
    )
}
