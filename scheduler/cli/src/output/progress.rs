//! A migration while it runs: what the bar says, what plain lines say, and how it ended.

use super::text::{amount, bytes, words};
use super::time;
use crate::view::{Migration, Phase, Prediction};

/// Plain lines come at every such part of the copy, in thousandths.
const STEP_PERMILLE: u64 = 250;

/// What stands beside the bar.
#[must_use]
pub fn beside_bar(migration: &Migration) -> String {
    let phase = migration.phase.map_or("", Phase::as_str);
    let Some(progress) = migration.progress.filter(|_| phase == "running") else {
        return match migration.phase {
            Some(Phase::Unknown) => "outcome unknown, asking both hosts".to_owned(),
            _ => phase.to_owned(),
        };
    };
    let speed = progress.bandwidth_bytes_per_second;
    let mut text = format!("{} left", bytes(progress.remaining_bytes));
    if speed > 0 {
        text.push_str(&format!(", {}/s", bytes(speed)));
        // It ends when what is dirtied meanwhile is copied, too.
        let gain = speed.saturating_sub(progress.dirty_bytes_per_second);
        match progress.remaining_bytes.checked_div(gain) {
            Some(seconds) => text.push_str(&format!(", ~{} s", seconds.max(1))),
            None => text.push_str(", dirtied as fast as copied"),
        }
    }
    if progress.iteration > 1 {
        text.push_str(&format!(", round {}", progress.iteration));
    }
    text
}

/// Decides which changes are worth a line where no bar can be drawn.
#[derive(Debug, Default)]
pub struct Narrator {
    last: Option<(Option<Phase>, u64)>,
}

impl Narrator {
    /// The line to print, if this is news.
    pub fn tell(&mut self, migration: &Migration) -> Option<String> {
        let part = migration.copied_permille().unwrap_or(0) / STEP_PERMILLE;
        let part = if migration.phase == Some(Phase::Running) {
            part
        } else {
            0
        };
        let seen = (migration.phase, part);
        if migration.is_over() || self.last.as_ref() == Some(&seen) {
            return None;
        }
        self.last = Some(seen);
        let phase = migration.phase.map_or("-", Phase::as_str);
        let mut line = format!("{}: {phase}", migration.guest);
        if let Some(copied) = migration.copied_permille().filter(|_| phase == "running") {
            line.push_str(&format!(
                ", {}% copied, {}",
                copied / 10,
                beside_bar(migration)
            ));
        } else if migration.phase == Some(Phase::Unknown) {
            line.push_str(", asking both hosts");
        }
        Some(line)
    }
}

/// What a migration that is over has come to.
#[must_use]
pub fn ending(migration: &Migration) -> String {
    let Migration {
        guest,
        source,
        target,
        ..
    } = migration;
    let mut because = String::new();
    if let Some(reason) = &migration.outcome_reason {
        because.push_str(&format!(": {}", words(reason)));
    }
    if let Some(detail) = &migration.detail {
        because.push_str(&format!(": {detail}"));
    }
    match migration.phase {
        Some(Phase::Done) => format!("{guest} runs on {target}{}", figures(migration)),
        Some(Phase::Refused) => {
            format!("{guest} was not moved{because}; it stays on {source}")
        }
        Some(Phase::Cancelled) => {
            format!("the migration of {guest} was cancelled{because}; it stays on {source}")
        }
        Some(Phase::Failed) => {
            format!(
                "the migration of {guest} failed{because}; {}",
                whereabouts(migration)
            )
        }
        Some(
            Phase::Ordered
            | Phase::Preparing
            | Phase::Running
            | Phase::Switching
            | Phase::Unknown
            | Phase::Newer,
        )
        | None => format!("the migration of {guest} from {source} to {target} is not over"),
    }
}

fn figures(migration: &Migration) -> String {
    let mut parts = vec![];
    if let Some(progress) = migration.progress {
        parts.push(format!("{} copied", bytes(progress.transferred_bytes)));
    }
    if let (Some(start), Some(end)) = (migration.started_at, migration.ended_at) {
        parts.push(format!("in {}", time::duration(time::between(start, end))));
    }
    if let Some(pause) = migration.progress.and_then(|p| p.downtime_ms) {
        parts.push(format!("paused for {pause} ms"));
    }
    if parts.is_empty() {
        String::new()
    } else {
        format!(": {}", parts.join(", "))
    }
}

/// Where a guest is whose migration failed.
fn whereabouts(migration: &Migration) -> String {
    let Migration { source, target, .. } = migration;
    match migration.whereabouts.as_deref() {
        Some("source") => format!("it stays on {source}"),
        Some("target") => format!("it is on {target}"),
        Some("nowhere") => format!("it runs on neither {source} nor {target}"),
        Some("both") => format!("IT RUNS ON BOTH {source} AND {target}"),
        Some(_) | None => format!("look for it on {source} and on {target}"),
    }
}

/// What a migration would be, or was ordered to be.
#[must_use]
pub fn intent(migration: &Migration) -> String {
    let Migration {
        guest,
        source,
        target,
        ..
    } = migration;
    let expected = migration.prediction.map(prediction).unwrap_or_default();
    format!("{guest}: {source} -> {target}{expected}")
}

fn prediction(prediction: Prediction) -> String {
    let Prediction {
        bytes: size,
        copy_seconds,
        downtime_seconds,
        ..
    } = prediction;
    let saves = prediction.saves_guest_seconds_per_hour;
    let costs = prediction.costs_guest_seconds;
    format!(
        ", {} in ~{copy_seconds:.0} s, pause {:.0} ms, saves {} s/h, costs {} s",
        bytes(size),
        downtime_seconds * 1000.0,
        amount(saves),
        amount(costs)
    )
}
