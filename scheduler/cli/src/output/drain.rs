//! Cordons and drains in words.

use super::Look;
use super::text::{count, words};
use super::time;
use crate::view::{Drain, Host, HostIntent, IntentsChange, Obstacle};

/// What has become of each host, a line each; `verb` is what was asked for, as in "cordoned".
#[must_use]
pub fn changed(change: &IntentsChange, verb: &str) -> String {
    let line = |host: &HostIntent| {
        let name = &host.host;
        if host.before == host.now {
            return format!("{name}: nothing to change, {}\n", stands(host));
        }
        let would = if change.dry_run { "would be " } else { "" };
        match &host.now {
            Some(now) if now.kind == "drain" && verb == "cordoned" => {
                format!("{name}: is being drained, {would}{verb} after that\n")
            }
            Some(now) if now.kind == "cordon" && verb != "cordoned" => {
                format!("{name}: {would}{verb}, cordoned as before\n")
            }
            Some(_) | None => format!("{name}: {would}{verb}\n"),
        }
    };
    change.hosts.iter().map(line).collect()
}

fn stands(host: &HostIntent) -> &'static str {
    match host.now.as_ref().map(|now| now.kind.as_str()) {
        Some("drain") => "it is being drained",
        Some(_) => "it is cordoned",
        None => "it is neither cordoned nor drained",
    }
}

/// A host's state for tables: what comes of a drain with how many are left.
#[must_use]
pub fn state(host: &Host) -> String {
    let Some(drain) = &host.drain else {
        return host.state.clone();
    };
    let what = match drain.state.as_str() {
        "drained" => "drained".to_owned(),
        "stuck" => format!("draining, {} stuck", drain.left),
        _ => format!("draining, {} left", drain.left),
    };
    if host.state == "draining" {
        what
    } else {
        format!("{}, {what}", host.state)
    }
}

/// How a drain stands, as a line of its progress.
#[must_use]
pub fn progress(host: &str, drain: &Drain) -> String {
    if drain.state == "drained" {
        return format!("{host}: drained");
    }
    let mut line = format!("{host}: {} left", drain.left);
    if drain.moving > 0 {
        line.push_str(&format!(", {} moving", drain.moving));
    }
    if drain.left == 0 {
        line.push_str(", waiting for libvirt's word");
    }
    if let Some(hold) = drain.holds.first() {
        line.push_str(&format!(", held: {hold}"));
    }
    line
}

/// Why a guest cannot go.
#[must_use]
pub fn obstacle(obstacle: &Obstacle) -> String {
    let mut line = format!("{} cannot go: {}", obstacle.guest, words(&obstacle.reason));
    if !obstacle.detail.is_empty() {
        line.push_str(&format!(": {}", obstacle.detail));
    }
    line
}

/// A drain that is not over, with everybody who cannot go: what a failure says.
#[must_use]
pub fn left_over(host: &str, drain: &Drain) -> String {
    let mut text = format!("{host}: {} left", count(drain.left, "guest"));
    for each in &drain.obstacles {
        text.push_str(&format!("; {}", obstacle(each)));
    }
    text
}

/// Facts of a host's intent, for `host show`.
#[must_use]
pub fn intent(host: &Host, look: Look) -> Option<String> {
    let intent = host.intent.as_ref()?;
    let kind = match intent.kind.as_str() {
        "drain" => "drain",
        _ => "cordoned",
    };
    let mut text = kind.to_owned();
    if let Some(by) = &intent.by {
        text.push_str(&format!(" by {by}"));
    }
    if let Some(since) = intent.since {
        let ago = time::duration(time::between(since, look.now));
        text.push_str(&format!(", since {ago}"));
    }
    if let Some(deadline) = intent.deadline {
        text.push_str(&format!(", deadline {}", time::stamp(deadline)));
    }
    if intent.offline_too {
        text.push_str(", shut-off guests too");
    }
    if let Some(reason) = &intent.reason {
        text.push_str(&format!(": {reason}"));
    }
    Some(text)
}
