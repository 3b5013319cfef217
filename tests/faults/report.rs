//! Lines and tables about what came of the faults.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::Done;
use crate::plan::{FAULTS, Kind, PHASES, Phase, Victim, allowed};
use crate::run::Hit;

/// The page has the summary between these lines.
const BEGIN: &str = "<!-- measured: make fault-test -->";
const END: &str = "<!-- end -->";

/// One case on one line.
pub(crate) fn line(done: &Done) -> String {
    let case = &done.case;
    let head = format!(
        "fault {:>3} of seed {}  {case} {} +{} ms",
        case.number, case.seed, case.moment, case.delay_ms
    );
    match &done.verdict {
        Ok(verdict) => {
            let left = verdict.left.as_ref();
            let left = left.map(|left| format!("; libvirt: {left}, told"));
            format!(
                "{head:<72} {} ({}){} in {:.0} s",
                verdict.place,
                verdict.said,
                left.unwrap_or_default(),
                verdict.took.as_secs_f64()
            )
        }
        Err(why) => format!("{head:<72} WRONG: {why}"),
    }
}

/// What may come of each fault, and what came.
pub(crate) fn summary(done: &[Done], seeds: &[u64], took: Duration) -> String {
    let hits = |hit: Hit| {
        let all = done.iter().filter_map(|done| done.verdict.as_ref().ok());
        all.filter(|verdict| verdict.hit == hit).count()
    };
    let left = done.iter().filter(|done| {
        let verdict = done.verdict.as_ref();
        verdict.is_ok_and(|verdict| verdict.left.is_some())
    });
    let aimed = done
        .iter()
        .filter(|done| done.case.phase == Phase::HandOver);
    let inside = aimed.clone().filter(|done| {
        let verdict = done.verdict.as_ref();
        verdict.is_ok_and(|verdict| verdict.is_in_hand_over)
    });
    let seeds: Vec<String> = seeds.iter().map(ToString::to_string).collect();
    format!(
        "{} faults, seeds {}, {:.0} min: {} went wrong. {} hit before the migration was over, {} when it had just been, \
         {} kept it from being ordered, {} found nothing to hit. Of {} that were aimed at the hand-over {} hit while the guest had been stopped at the source and \
         was not let go of. After {} libvirt had left something behind, which was \
         told.\n\nWhere the guest may be afterwards:\n\n{}\nWhere it was, and how often:\n\n{}",
        done.len(),
        seeds.join(", "),
        took.as_secs_f64() / 60.0,
        done.iter().filter(|done| done.verdict.is_err()).count(),
        hits(Hit::Before),
        hits(Hit::After),
        hits(Hit::NotOrdered),
        hits(Hit::Nothing),
        aimed.count(),
        inside.count(),
        left.count(),
        table(|kind, victim, phase| {
            let places = allowed(kind, victim, phase).iter();
            places
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        }),
        table(|kind, victim, phase| came(done, kind, victim, phase)),
    )
}

/// What came of one fault in one phase.
fn came(done: &[Done], kind: Kind, victim: Victim, phase: Phase) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let is_it = |done: &&Done| {
        let case = &done.case;
        (case.kind, case.victim, case.phase) == (kind, victim, phase)
    };
    for done in done.iter().filter(is_it) {
        let words = match &done.verdict {
            Ok(verdict) => {
                let left = verdict.left.as_ref().map(|left| format!(" ({left})"));
                format!("{}{}", verdict.place, left.unwrap_or_default())
            }
            Err(_) => "WRONG".to_owned(),
        };
        *counts.entry(words).or_default() += 1;
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(words, n)| format!("{n} {words}"))
        .collect();
    if counts.is_empty() {
        "–".to_owned()
    } else {
        counts.join(", ")
    }
}

/// A row for each fault, a column for each phase.
fn table(cell: impl Fn(Kind, Victim, Phase) -> String) -> String {
    let mut text = format!(
        "| fault | {} |\n|---|---|---|---|\n",
        PHASES.map(|phase| phase.to_string()).join(" | ")
    );
    for (kind, victim) in FAULTS {
        let cells = PHASES.map(|phase| cell(kind, victim, phase));
        writeln!(text, "| {kind} {victim} | {} |", cells.join(" | ")).expect("writing to a string");
    }
    text
}

/// Puts the summary into the page.
pub(crate) fn write(page: &Path, summary: &str) -> std::io::Result<()> {
    let text = std::fs::read_to_string(page)?;
    let (head, rest) = text.split_once(BEGIN).unwrap_or((&text, END));
    let tail = rest.split_once(END).map_or("\n", |(_, tail)| tail);
    std::fs::write(page, format!("{head}{BEGIN}\n\n{summary}\n{END}{tail}"))
}
