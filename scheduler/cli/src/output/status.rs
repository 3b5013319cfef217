//! The fleet at a glance. What is wrong comes first, and loudly.

use super::paint::{Tone, paint};
use super::text::{amount, count, harmless, tenths};
use super::{Look, table, time};
use crate::view::{Pause, Status};

/// The status as lines.
#[must_use]
pub fn status(status: &Status, look: Look) -> String {
    let mut out = String::new();
    for line in alarms(status) {
        out.push_str(&paint(
            &format!("!! {}", harmless(&line)),
            Tone::Bad,
            look.colour,
        ));
        out.push('\n');
    }
    for (label, line) in facts(status, look) {
        out.push_str(&paint(&format!("{label:<11}"), Tone::Strong, look.colour));
        out.push_str(&harmless(&line));
        out.push('\n');
    }
    if !status.migrations.is_empty() {
        out.push('\n');
        out.push_str(&table::migrations(&status.migrations, look));
    }
    out
}

/// What somebody must look at now.
pub(super) fn alarms(status: &Status) -> Vec<String> {
    let mut alarms = status.troubles.clone();
    if status.migrations_unknown > 0 {
        let count = count(status.migrations_unknown, "migration");
        alarms.push(format!(
            "{count} with unknown outcome: their guests are not touched until both hosts answer, or you say where they \
             are: evenkeel guest resolve"
        ));
    }
    if status.taken_at.is_none() && status.leader.is_none() {
        alarms.push("no scheduler leads: nothing is moved".to_owned());
    }
    if status.etcd_reachable == Some(false) {
        let who = status.replica.as_deref().unwrap_or("the scheduler");
        // Of a follower's own trouble the fleet takes no notice.
        let moved = if status.is_the_leaders() {
            ", and nothing is moved"
        } else {
            ""
        };
        alarms.push(format!(
            "{who} does not reach etcd: what it says may be old{moved}"
        ));
    }
    alarms
}

fn facts(status: &Status, look: Look) -> Vec<(&'static str, String)> {
    let mut facts = vec![("cluster", cluster(status))];
    if let Some(taken) = status.taken_at {
        facts.push(("taken", time::stamp(taken)));
    }
    if status.taken_at.is_none() {
        facts.push(("leader", leader(status)));
        facts.push(("mode", mode(status)));
    }
    if let Some(paused) = &status.pause {
        facts.push(("paused", pause(paused, look)));
    }
    facts.push(("losing", loss(status)));
    facts.push(("hosts", hosts(status)));
    facts.push(("guests", status.guests.to_string()));
    facts.push((
        "migrations",
        format!("{} running", status.migrations_running),
    ));
    if let Some(last) = status.last_cycle_at {
        let ago = time::duration(time::between(last, look.now));
        facts.push(("planned", format!("{ago} ago")));
    }
    for (at, drain) in status.drains.iter().enumerate() {
        facts.push((if at == 0 { "drains" } else { "" }, drain.clone()));
    }
    for (at, hold) in status.holds.iter().enumerate() {
        facts.push((if at == 0 { "held back" } else { "" }, hold.clone()));
    }
    facts
}

fn cluster(status: &Status) -> String {
    if status.cluster.is_empty() {
        "-".to_owned()
    } else {
        status.cluster.clone()
    }
}

fn leader(status: &Status) -> String {
    let mut text = match (&status.leader, status.epoch) {
        (Some(leader), Some(epoch)) => format!("{leader} (epoch {epoch})"),
        (Some(leader), None) => leader.clone(),
        (None, _) => "none".to_owned(),
    };
    if let Some(replica) = status
        .replica
        .as_ref()
        .filter(|r| Some(*r) != status.leader.as_ref())
    {
        text.push_str(&format!("   answered by {replica}"));
    }
    if let Some(version) = &status.version {
        text.push_str(&format!("   version {version}"));
    }
    text
}

fn mode(status: &Status) -> String {
    let mode = status.mode.as_deref().unwrap_or("-");
    match status.policy_revision {
        Some(0) => format!("{mode}   no policy applied"),
        Some(revision) => format!("{mode}   policy rev {revision}"),
        None => mode.to_owned(),
    }
}

/// A pause in one line.
#[must_use]
pub fn pause(pause: &Pause, look: Look) -> String {
    let until = match pause.until {
        Some(until) => {
            let left = time::duration(time::between(look.now, until));
            format!("until {}, {left} left", time::stamp(until))
        }
        None => "until resumed".to_owned(),
    };
    let by = pause.by.as_deref().unwrap_or("somebody");
    match &pause.reason {
        Some(reason) => format!("{until}, by {by}: {reason}"),
        None => format!("{until}, by {by}"),
    }
}

fn loss(status: &Status) -> String {
    let now = tenths(status.loss_guest_seconds_per_second);
    match (
        status.loss_planned_guest_seconds_per_second,
        status.plan_moves,
    ) {
        (Some(planned), Some(moves)) if moves > 0 => {
            let moves = count(moves, "move");
            format!(
                "{now} guest-seconds/s -> {} with the plan that stands ({moves})",
                amount(planned)
            )
        }
        _ => format!("{now} guest-seconds/s"),
    }
}

fn hosts(status: &Status) -> String {
    let mut parts = vec![format!("{} active", status.hosts_active)];
    let mut add = |number: u32, what: &str| {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    };
    add(status.hosts_closed.unwrap_or(0), "cordoned or draining");
    add(status.hosts_absent, "absent");
    add(status.hosts_libvirt_down.unwrap_or(0), "with libvirt down");
    add(status.hosts_stale.unwrap_or(0), "with stale data");
    parts.join(", ")
}
