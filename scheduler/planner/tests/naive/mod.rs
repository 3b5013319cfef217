//! The rules of the game, written down a second time: naive, straight on, and without a line of the
//! planner's own judgement. Only the formats' types are shared. Used to judge what the planner claims.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![expect(
    clippy::as_conversions,
    clippy::unwrap_used,
    reason = "sizes in tests are small, and a panic is a failed test"
)]

pub(crate) mod loss;
pub(crate) mod objective;
pub(crate) mod run;

use evenkeel_planner::policy::{Rule, RuleKind, Selector};
use evenkeel_planner::{Guest, GuestState, Host, HostState, Policy, Snapshot, Strength};

/// A shell pattern of `*` and `?`, by recursion.
pub(crate) fn glob(pattern: &[char], text: &[char]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some('*'), _) if glob(&pattern[1..], text) => true,
        (Some('*'), Some(_)) => glob(pattern, &text[1..]),
        (Some(p), Some(t)) if *p == '?' || p == t => glob(&pattern[1..], &text[1..]),
        _ => false,
    }
}

fn fits(pattern: &str, text: &str) -> bool {
    let chars = |s: &str| s.chars().collect::<Vec<char>>();
    glob(&chars(pattern), &chars(text))
}

fn chooses<'a>(s: &Selector, name: &str, label: impl Fn(&str) -> Option<&'a String>) -> bool {
    let short = name.split('/').next_back().unwrap();
    let named = s.patterns.iter().any(|p| fits(p, name) || fits(p, short));
    let labelled = !s.labels.is_empty()
        && s.labels
            .iter()
            .all(|(key, value)| label(key).is_some_and(|v| fits(value, v)));
    named || labelled
}

/// The guests that a rule is about.
pub(crate) fn members<'a>(rule: &Rule, snapshot: &'a Snapshot) -> Vec<&'a Guest> {
    let label = |g: &'a Guest, key: &str| {
        let group = g.group.as_ref().filter(|_| key == "group");
        g.labels.get(key).or(group)
    };
    let guests = snapshot.guests.iter();
    guests
        .filter(|g| chooses(&rule.guests, &g.name, |key| label(g, key)))
        .collect()
}

/// Whether a pin allows a host.
pub(crate) fn allows(hosts: &Selector, host: &Host) -> bool {
    let named = chooses(hosts, &host.name, |key| host.labels.get(key));
    if hosts.inverted { !named } else { named }
}

/// The place of a host for a rule that keeps apart: its name, or the value of the label. Hosts without the
/// label are all in one place.
pub(crate) fn place(over: Option<&str>, host: &Host) -> Option<String> {
    match over {
        None => Some(host.name.clone()),
        Some(label) => host.labels.get(label).cloned(),
    }
}

pub(crate) fn must(rule: &Rule) -> bool {
    rule.strength == Strength::Must
}

pub(crate) fn host<'a>(snapshot: &'a Snapshot, name: &str) -> &'a Host {
    snapshot.hosts.iter().find(|h| h.name == name).unwrap()
}

pub(crate) fn guest<'a>(snapshot: &'a Snapshot, name: &str) -> &'a Guest {
    snapshot.guests.iter().find(|g| g.name == name).unwrap()
}

/// MiB that a guest holds wherever it is.
pub(crate) fn held_mib(guest: &Guest) -> u64 {
    if guest.state == GuestState::Shutoff {
        0
    } else {
        guest.memory_mib
    }
}

/// MiB that are never exceeded on a host.
pub(crate) fn limit_mib(host: &Host, policy: &Policy) -> u64 {
    (host.memory_mib as f64 * policy.limits.memory_overcommit + 1e-6).floor() as u64
}

/// MiB that arrivals may fill: the limit less what the fleet needs to take over the guests of the largest
/// hosts, spread over all hosts by their size.
pub(crate) fn open_mib(host: &Host, snapshot: &Snapshot, policy: &Policy) -> u64 {
    let limit = limit_mib(host, policy);
    let mut sizes: Vec<u64> = snapshot
        .hosts
        .iter()
        .filter(|h| h.state == HostState::Active)
        .map(|h| limit_mib(h, policy))
        .collect();
    sizes.sort_unstable();
    sizes.reverse();
    let failures = policy.limits.reserve_host_failures as usize;
    let all: u64 = sizes.iter().sum();
    let lost: u64 = sizes.iter().take(failures).sum();
    if lost == 0 {
        return limit;
    }
    (limit as f64 * ((all - lost) as f64 / all as f64)).floor() as u64
}

/// Where a guest counts: where it is going, if it is in flight.
pub(crate) fn counts_on<'a>(snapshot: &'a Snapshot, guest: &'a Guest) -> &'a str {
    let flight = snapshot.in_flight.iter().find(|f| f.guest == guest.name);
    flight.map_or(guest.host.as_str(), |f| f.to.as_str())
}

/// Whether the host has what the guest needs, pins included; `home` is where the guest was measured.
pub(crate) fn suits(policy: &Policy, snapshot: &Snapshot, guest: &Guest, to: &Host) -> bool {
    let home = host(snapshot, counts_on(snapshot, guest));
    let class = if guest.cpu_classes.is_empty() {
        to.cpu_class == home.cpu_class
    } else {
        guest.cpu_classes.contains(&to.cpu_class)
    };
    let has = |needs: &[String], there: &[String]| {
        there.is_empty() || needs.iter().all(|n| there.contains(n))
    };
    class
        && has(&guest.networks, &to.networks)
        && has(&guest.storage, &to.storage)
        && pinned_well(policy, snapshot, guest, to)
}

/// Whether no must-pin of the guest forbids the host.
pub(crate) fn pinned_well(policy: &Policy, snapshot: &Snapshot, guest: &Guest, on: &Host) -> bool {
    policy.rules.iter().filter(|r| must(r)).all(|rule| {
        let RuleKind::Pin { hosts } = &rule.kind else {
            return true;
        };
        let concerned = members(rule, snapshot).iter().any(|m| m.name == guest.name);
        !concerned || allows(hosts, on)
    })
}
