//! A policy's rules, resolved to the guests and hosts of one fleet.
//!
//! Also finds what no text shows: rules that this fleet cannot fulfil, alone or together. Such a rule
//! stops nothing else: it is reported by name, its guests are never moved into a new breach, and guests
//! that stand between two contradicting rules stay where they are.

mod broken;
mod faults;

use crate::policy::{Policy, RuleKind, Selector, Strength};
use crate::snapshot::{Guest, Host};

pub use broken::{RuleStanding, rules_standing};
pub(crate) use faults::RuleFault;

/// Guests that must (or should) not share a place.
#[derive(Debug, Clone)]
pub(crate) struct Apart {
    pub(crate) name: String,
    /// Guest indices, ascending.
    pub(crate) members: Vec<usize>,
    /// Place of each host: itself, or the hosts that share the label's value.
    pub(crate) place: Vec<usize>,
    /// Number of places.
    pub(crate) places: usize,
    pub(crate) hard: bool,
}

/// Guests that must (or should) share a host.
#[derive(Debug, Clone)]
pub(crate) struct Together {
    pub(crate) name: String,
    pub(crate) members: Vec<usize>,
    pub(crate) hard: bool,
}

/// Guests that may only be on some hosts.
#[derive(Debug, Clone)]
pub(crate) struct Pinned {
    pub(crate) name: String,
    pub(crate) members: Vec<usize>,
    /// Per host.
    pub(crate) allowed: Vec<bool>,
    pub(crate) hard: bool,
}

/// All rules of a policy for one fleet; guests and hosts by index.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    pub(crate) apart: Vec<Apart>,
    pub(crate) together: Vec<Together>,
    pub(crate) pins: Vec<Pinned>,
    /// Per guest: its rules in `apart`, `together` and `pins`.
    pub(crate) apart_of: Vec<Vec<usize>>,
    pub(crate) together_of: Vec<Vec<usize>>,
    pub(crate) pins_of: Vec<Vec<usize>>,
    /// Per guest: the `opt_out` rule that holds it.
    pub(crate) opted_out: Vec<Option<String>>,
    /// What cannot be fulfilled.
    pub(crate) faults: Vec<RuleFault>,
    /// Per guest: the fault that it stands in the middle of.
    pub(crate) conflict: Vec<Option<usize>>,
}

impl Rules {
    /// Resolves a policy's rules for hosts and guests in this order.
    pub(crate) fn resolve(policy: &Policy, hosts: &[&Host], guests: &[&Guest]) -> Self {
        let mut rules = Self {
            apart_of: vec![Vec::new(); guests.len()],
            together_of: vec![Vec::new(); guests.len()],
            pins_of: vec![Vec::new(); guests.len()],
            opted_out: vec![None; guests.len()],
            conflict: vec![None; guests.len()],
            ..Self::default()
        };
        for rule in &policy.rules {
            let name = rule.full_name();
            let hard = rule.strength == Strength::Must;
            let members = select_guests(&rule.guests, guests);
            match &rule.kind {
                RuleKind::AntiAffinity { over } => {
                    note(&mut rules.apart_of, &members, rules.apart.len());
                    let (place, places) = places(over.as_deref(), hosts);
                    rules.apart.push(Apart {
                        name,
                        members,
                        place,
                        places,
                        hard,
                    });
                }
                RuleKind::Affinity => {
                    note(&mut rules.together_of, &members, rules.together.len());
                    rules.together.push(Together {
                        name,
                        members,
                        hard,
                    });
                }
                RuleKind::Pin { hosts: chosen } => {
                    note(&mut rules.pins_of, &members, rules.pins.len());
                    let allowed = hosts.iter().map(|h| selects_host(chosen, h)).collect();
                    rules.pins.push(Pinned {
                        name,
                        members,
                        allowed,
                        hard,
                    });
                }
                RuleKind::OptOut => {
                    for guest in members {
                        rules.opted_out[guest] = Some(name.clone());
                    }
                }
            }
        }
        faults::find(&mut rules, hosts);
        rules
    }

    /// Whether a guest's must-pins allow a host, or the name of the first that does not.
    pub(crate) fn pin_against(&self, guest: usize, host: usize) -> Option<&str> {
        let pins = self.pins_of[guest].iter().map(|&p| &self.pins[p]);
        pins.filter(|p| p.hard && !p.allowed[host])
            .map(|p| p.name.as_str())
            .next()
    }
}

fn note(of: &mut [Vec<usize>], members: &[usize], rule: usize) {
    for &guest in members {
        of[guest].push(rule);
    }
}

fn select_guests(selector: &Selector, guests: &[&Guest]) -> Vec<usize> {
    let chosen = guests.iter().enumerate();
    chosen
        .filter(|(_, g)| selector.selects(&g.name, |key| g.label(key)))
        .map(|(at, _)| at)
        .collect()
}

fn selects_host(selector: &Selector, host: &Host) -> bool {
    selector.selects(&host.name, |key| host.labels.get(key).map(String::as_str))
}

/// The place of each host. Hosts without the label share one place: unknown is never "not restricted".
fn places(over: Option<&str>, hosts: &[&Host]) -> (Vec<usize>, usize) {
    let Some(label) = over else {
        return ((0..hosts.len()).collect(), hosts.len());
    };
    let mut values: Vec<Option<&String>> = hosts.iter().map(|h| h.labels.get(label)).collect();
    values.sort_unstable();
    values.dedup();
    let place_of = |host: &&Host| values.binary_search(&host.labels.get(label)).unwrap_or(0);
    (hosts.iter().map(place_of).collect(), values.len())
}
