//! Rules that contradict each other, as far as the text alone shows it.
//!
//! A fault is what no fleet can fulfil: the same guests kept together and apart, pinned to hosts that no two
//! lists share, more names kept apart than their pin has hosts. Patterns that merely overlap contradict
//! each other for some names only; that is a warning with such a name. What depends on the fleet is found
//! by [`crate::rules`].

use super::error::Fault;
use super::overlap::{Comparer, Shared};
use super::reader::Reader;
use super::{Policy, Rule, RuleKind, Strength};
use crate::glob::is_pattern;

/// Faults and warnings told at most; nobody reads more.
const MOST: usize = 100;

pub(super) fn find(r: &mut Reader<'_>, policy: &Policy) {
    let is_must = |rule: &&Rule| rule.strength == Strength::Must;
    let must: Vec<&Rule> = policy.rules.iter().filter(is_must).collect();
    let comparer = Comparer::new();
    let mut found = Vec::new();
    let mut doubts = Vec::new();
    for (at, first) in must.iter().enumerate() {
        for second in &must[at + 1..] {
            match between(&comparer, first, second) {
                Some(finding) if finding.certain => found.push(finding),
                Some(finding) if doubts.len() < MOST => doubts.push(finding),
                Some(_) | None => {}
            }
        }
        if found.len() >= MOST {
            break;
        }
    }
    found.extend(pinned_apart(&comparer, &must));
    found.truncate(MOST);
    for finding in found.iter().chain(&doubts) {
        report(r, finding);
    }
    alone(r, policy);
}

/// Rules that do not go together.
struct Finding<'p> {
    rules: Vec<&'p Rule>,
    why: String,
    certain: bool,
}

fn certain<'p>(rules: &[&'p Rule], why: String) -> Finding<'p> {
    Finding {
        rules: rules.to_vec(),
        why,
        certain: true,
    }
}

fn perhaps<'p>(rules: &[&'p Rule], why: String) -> Finding<'p> {
    Finding {
        rules: rules.to_vec(),
        why,
        certain: false,
    }
}

fn between<'p>(comparer: &Comparer, a: &'p Rule, b: &'p Rule) -> Option<Finding<'p>> {
    let shared = || comparer.shared(&a.guests, &b.guests);
    match (&a.kind, &b.kind) {
        (RuleKind::Affinity, RuleKind::AntiAffinity { .. })
        | (RuleKind::AntiAffinity { .. }, RuleKind::Affinity) => {
            together_and_apart(a, b, &shared())
        }
        (RuleKind::Pin { hosts: first }, RuleKind::Pin { hosts: second }) => {
            let both = comparer.disjoint(first, second).then(shared)?;
            two_pins(a, b, &both)
        }
        (RuleKind::AntiAffinity { .. }, RuleKind::Pin { .. }) => too_few_hosts(a, b, &shared()),
        (RuleKind::Pin { .. }, RuleKind::AntiAffinity { .. }) => too_few_hosts(b, a, &shared()),
        (RuleKind::OptOut, RuleKind::Pin { .. }) | (RuleKind::Pin { .. }, RuleKind::OptOut) => {
            let guests = shared().one()?;
            let why = format!("{guests} would be held where they are, also off the pinned hosts");
            Some(perhaps(&[a, b], why))
        }
        (RuleKind::Affinity, RuleKind::Affinity | RuleKind::Pin { .. } | RuleKind::OptOut)
        | (RuleKind::AntiAffinity { .. }, RuleKind::AntiAffinity { .. } | RuleKind::OptOut)
        | (RuleKind::Pin { .. }, RuleKind::Affinity)
        | (
            RuleKind::OptOut,
            RuleKind::Affinity | RuleKind::AntiAffinity { .. } | RuleKind::OptOut,
        ) => None,
    }
}

fn together_and_apart<'p>(a: &'p Rule, b: &'p Rule, shared: &Shared) -> Option<Finding<'p>> {
    if let Some(guests) = shared.two() {
        let why = format!("{guests} would have to be both together and apart");
        return Some(certain(&[a, b], why));
    }
    let name = shared.possible.as_ref()?;
    let why =
        format!("guests with names such as {name:?} would have to be both together and apart");
    Some(perhaps(&[a, b], why))
}

fn two_pins<'p>(a: &'p Rule, b: &'p Rule, shared: &Shared) -> Option<Finding<'p>> {
    if let Some(guests) = shared.one() {
        let why = format!("no host is allowed to {guests} by both");
        return Some(certain(&[a, b], why));
    }
    let name = shared.possible.as_ref()?;
    let why = format!("a guest with a name such as {name:?} would have no host");
    Some(perhaps(&[a, b], why))
}

/// More names that must be apart than the pin that holds them all has hosts.
fn too_few_hosts<'p>(apart: &'p Rule, pin: &'p Rule, shared: &Shared) -> Option<Finding<'p>> {
    let RuleKind::Pin { hosts } = &pin.kind else {
        return None;
    };
    let plain =
        !hosts.inverted && hosts.labels.is_empty() && !hosts.patterns.iter().any(|p| is_pattern(p));
    let (guests, places) = (shared.names.len(), hosts.patterns.len());
    (plain && guests > places).then(|| {
        let why = format!(
            "{guests} guests to be kept apart ({}) may be on {places} hosts only",
            list(&shared.names)
        );
        certain(&[apart, pin], why)
    })
}

fn list(names: &[String]) -> String {
    let quoted: Vec<String> = names
        .iter()
        .take(4)
        .map(|name| format!("{name:?}"))
        .collect();
    let more = if names.len() > 4 { " and more" } else { "" };
    format!("{}{more}", quoted.join(", "))
}

/// Guests that must be together although pins hold them on different hosts.
fn pinned_apart<'p>(comparer: &Comparer, must: &[&'p Rule]) -> Vec<Finding<'p>> {
    let mut found = Vec::new();
    for group in must.iter().filter(|rule| rule.kind == RuleKind::Affinity) {
        let mut pins: Vec<(&Rule, &super::Selector, Shared)> = Vec::new();
        for pin in must {
            if let RuleKind::Pin { hosts } = &pin.kind {
                let shared = comparer.shared(&group.guests, &pin.guests);
                if shared.one().is_some() {
                    pins.push((pin, hosts, shared));
                }
            }
        }
        let pair = pins.iter().enumerate().find_map(|(at, first)| {
            let other = pins[at + 1..]
                .iter()
                .find(|second| comparer.disjoint(first.1, second.1));
            other.map(|second| (first, second))
        });
        if let Some((first, second)) = pair
            && let (Some(one), Some(other)) = (first.2.one(), second.2.one())
        {
            let why = if one == other {
                format!("no host is allowed to {one} by both pins")
            } else {
                format!("no host is allowed to both {one} and {other}")
            };
            found.push(certain(&[group, first.0, second.0], why));
        }
    }
    found
}

/// Rules that say nothing by themselves.
fn alone(r: &mut Reader<'_>, policy: &Policy) {
    for rule in &policy.rules {
        let single = matches!(
            rule.kind,
            RuleKind::Affinity | RuleKind::AntiAffinity { .. }
        ) && rule.guests.labels.is_empty()
            && matches!(rule.guests.patterns.as_slice(), [name] if !is_pattern(name));
        if single {
            let message = format!("{} is about one guest only", rule.full_name());
            r.warn(
                line_of(r.text, rule),
                message,
                "name the others, too, or write a pattern",
            );
        }
    }
}

/// The fault stands at the rule that comes last in the text; all rules are named and shown.
fn report(r: &mut Reader<'_>, finding: &Finding<'_>) {
    let mut rules = finding.rules.clone();
    rules.sort_by_key(|rule| rule.line);
    let Some((last, others)) = rules.split_last() else {
        return;
    };
    let names: Vec<String> = others
        .iter()
        .map(|rule| format!("{} (line {})", rule.full_name(), rule.line))
        .collect();
    let verb = if finding.certain {
        "contradicts"
    } else {
        "may contradict"
    };
    let why = &finding.why;
    let message = format!("{} {verb} {}: {why}", last.full_name(), names.join(" and "));
    let hint = if finding.certain {
        "make one of them strength = \"should\", or take these guests out of it"
    } else {
        "narrow one of them, if such guests are to be"
    };
    let related = others.iter().map(|rule| {
        let what = rule.full_name();
        Fault::at(r.text, line_of(r.text, rule), what).into_related()
    });
    let fault = Fault {
        hint: hint.to_owned(),
        related: related.collect(),
        ..Fault::at(r.text, line_of(r.text, last), message)
    };
    if finding.certain {
        r.faults.push(fault);
    } else {
        r.warnings.push(fault);
    }
}

/// Where the line of a rule's table is in the text.
fn line_of(text: &str, rule: &Rule) -> std::ops::Range<usize> {
    let before = text.split_inclusive('\n').take(rule.line.saturating_sub(1));
    let start: usize = before.map(str::len).sum();
    let line = text[start..].lines().next().unwrap_or_default();
    start..start + line.trim_end().len()
}
