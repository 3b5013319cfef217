//! Rules that a fleet cannot fulfil.
//!
//! Exact for one rule and for pairs of rules; a contradiction that needs three rules shows as guests that
//! find no target.

use std::collections::BTreeSet;

use super::{Apart, Rules};
use crate::plan::{BlockReason, Blocked};
use crate::snapshot::{Host, HostState};

/// A rule, or a pair of them, that cannot be fulfilled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RuleFault {
    /// `RuleImpossible` or `RuleConflict`.
    pub(crate) reason: BlockReason,
    /// Full names of the rules concerned.
    pub(crate) rules: Vec<String>,
    /// Why, with numbers.
    pub(crate) detail: String,
}

impl RuleFault {
    /// The fault as entries of a plan, one per rule, each naming the other.
    pub(crate) fn blocked(&self) -> impl Iterator<Item = Blocked> + '_ {
        self.rules.iter().map(|name| {
            let others: Vec<&str> = self
                .rules
                .iter()
                .filter(|r| *r != name)
                .map(String::as_str)
                .collect();
            let with = match others.as_slice() {
                [] => String::new(),
                names => format!("contradicts {}: ", names.join(", ")),
            };
            Blocked::rule(name, self.reason, format!("{with}{}", self.detail))
        })
    }
}

pub(super) fn find(rules: &mut Rules, hosts: &[&Host]) {
    pins_without_hosts(rules, hosts);
    pins_that_share_no_host(rules);
    together_and_apart(rules);
    together_but_pinned_apart(rules);
    apart_without_places(rules, hosts);
}

fn conflict(rules: &mut Rules, names: Vec<String>, detail: String, guests: &[usize]) {
    for &guest in guests {
        rules.conflict[guest].get_or_insert(rules.faults.len());
    }
    rules.faults.push(RuleFault {
        reason: BlockReason::RuleConflict,
        rules: names,
        detail,
    });
}

fn pins_without_hosts(rules: &mut Rules, hosts: &[&Host]) {
    for pin in rules
        .pins
        .iter()
        .filter(|p| p.hard && !p.members.is_empty())
    {
        let usable =
            |(at, host): (usize, &&Host)| pin.allowed[at] && host.state != HostState::Absent;
        if !hosts.iter().enumerate().any(usable) {
            rules.faults.push(RuleFault {
                reason: BlockReason::RuleImpossible,
                rules: vec![pin.name.clone()],
                detail: format!(
                    "none of its hosts is there, for {} guests",
                    pin.members.len()
                ),
            });
        }
    }
}

fn pins_that_share_no_host(rules: &mut Rules) {
    let mut found: Vec<(usize, usize, Vec<usize>)> = Vec::new();
    for (guest, pins) in rules.pins_of.iter().enumerate() {
        for (at, &a) in pins.iter().enumerate() {
            for &b in &pins[at + 1..] {
                let (first, second) = (&rules.pins[a], &rules.pins[b]);
                let both = first
                    .allowed
                    .iter()
                    .zip(&second.allowed)
                    .any(|(x, y)| *x && *y);
                if !first.hard || !second.hard || both {
                    continue;
                }
                match found.iter_mut().find(|(x, y, _)| (*x, *y) == (a, b)) {
                    Some((_, _, guests)) => guests.push(guest),
                    None => found.push((a, b, vec![guest])),
                }
            }
        }
    }
    for (a, b, guests) in found {
        let names = vec![rules.pins[a].name.clone(), rules.pins[b].name.clone()];
        let detail = format!("no host is allowed by both, for {} guests", guests.len());
        conflict(rules, names, detail, &guests);
    }
}

fn together_and_apart(rules: &mut Rules) {
    for t in 0..rules.together.len() {
        for a in 0..rules.apart.len() {
            let (together, apart) = (&rules.together[t], &rules.apart[a]);
            if !together.hard || !apart.hard {
                continue;
            }
            let shared: Vec<usize> = together
                .members
                .iter()
                .filter(|m| apart.members.contains(m))
                .copied()
                .collect();
            if shared.len() >= 2 {
                let names = vec![together.name.clone(), apart.name.clone()];
                let detail = format!("{} guests both together and apart", shared.len());
                // The whole group stays: moving the rest of it would break what still holds.
                let group = together.members.clone();
                conflict(rules, names, detail, &group);
            }
        }
    }
}

fn together_but_pinned_apart(rules: &mut Rules) {
    for t in 0..rules.together.len() {
        let group = rules.together[t].clone();
        if !group.hard || group.members.is_empty() {
            continue;
        }
        let pins: BTreeSet<usize> = group
            .members
            .iter()
            .flat_map(|&m| rules.pins_of[m].iter().copied())
            .filter(|&p| rules.pins[p].hard)
            .collect();
        let hosts = pins
            .iter()
            .map(|&p| rules.pins[p].allowed.len())
            .max()
            .unwrap_or(0);
        let open = |h: usize| pins.iter().all(|&p| rules.pins[p].allowed[h]);
        if hosts > 0 && !(0..hosts).any(open) {
            let mut names = vec![group.name.clone()];
            names.extend(pins.iter().map(|&p| rules.pins[p].name.clone()));
            conflict(
                rules,
                names,
                "no host is allowed to all of the group".to_owned(),
                &group.members,
            );
        }
    }
}

/// More guests than places, or than places that their pins leave (a bipartite matching decides).
fn apart_without_places(rules: &mut Rules, hosts: &[&Host]) {
    let present = |at: usize| hosts[at].state != HostState::Absent;
    let mut found = Vec::new();
    for apart in rules.apart.iter().filter(|a| a.hard) {
        let usable: BTreeSet<usize> = (0..hosts.len())
            .filter(|&h| present(h))
            .map(|h| apart.place[h])
            .collect();
        if apart.members.len() > usable.len() {
            let detail = format!("{} guests, {} places", apart.members.len(), usable.len());
            found.push((
                BlockReason::RuleImpossible,
                vec![apart.name.clone()],
                detail,
                Vec::new(),
            ));
            continue;
        }
        if let Some(guest) = unmatched(rules, apart, &present) {
            let mut names = vec![apart.name.clone()];
            let pins = rules.pins_of[guest].iter().map(|&p| &rules.pins[p]);
            names.extend(pins.filter(|p| p.hard).map(|p| p.name.clone()));
            let detail = "their pins leave too few places to keep the guests apart".to_owned();
            found.push((BlockReason::RuleConflict, names, detail, vec![guest]));
        }
    }
    for (reason, names, detail, guests) in found {
        if reason == BlockReason::RuleConflict {
            conflict(rules, names, detail, &guests);
        } else {
            rules.faults.push(RuleFault {
                reason,
                rules: names,
                detail,
            });
        }
    }
}

/// A member that finds no place of its own when each of them takes one its pins allow.
fn unmatched(rules: &Rules, apart: &Apart, present: &impl Fn(usize) -> bool) -> Option<usize> {
    let pinned = apart.members.iter().any(|&m| !rules.pins_of[m].is_empty());
    if !pinned {
        return None;
    }
    let places_of = |guest: usize| -> BTreeSet<usize> {
        let open = |h: &usize| present(*h) && rules.pin_against(guest, *h).is_none();
        (0..apart.place.len())
            .filter(open)
            .map(|h| apart.place[h])
            .collect()
    };
    let options: Vec<BTreeSet<usize>> = apart.members.iter().map(|&m| places_of(m)).collect();
    let mut holder: Vec<Option<usize>> = vec![None; apart.places];
    for member in 0..options.len() {
        let mut seen = vec![false; apart.places];
        if !augment(member, &options, &mut holder, &mut seen) {
            return Some(apart.members[member]);
        }
    }
    None
}

/// One augmenting path of the bipartite matching; depth is at most the number of members. A free place is
/// taken before anybody is asked to move on.
fn augment(
    member: usize,
    options: &[BTreeSet<usize>],
    holder: &mut [Option<usize>],
    seen: &mut [bool],
) -> bool {
    if let Some(&free) = options[member].iter().find(|p| holder[**p].is_none()) {
        holder[free] = Some(member);
        return true;
    }
    for &place in &options[member] {
        if std::mem::replace(&mut seen[place], true) {
            continue;
        }
        let moves_on = match holder[place] {
            None => true,
            Some(other) => augment(other, options, holder, seen),
        };
        if moves_on {
            holder[place] = Some(member);
            return true;
        }
    }
    false
}
