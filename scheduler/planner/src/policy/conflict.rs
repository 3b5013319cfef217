//! Rules that contradict each other, as far as the text alone shows it.
//!
//! Only what is certain for every fleet is a fault here: the same guests kept together and apart, or
//! pinned to hosts that no list shares. What depends on the fleet is found by [`crate::rules`].

use std::collections::BTreeSet;

use super::reader::Reader;
use super::{Policy, Rule, RuleKind, Selector, Strength};
use crate::glob::is_pattern;

pub(super) fn find(r: &mut Reader<'_>, policy: &Policy) {
    let must: Vec<&Rule> = policy
        .rules
        .iter()
        .filter(|rule| rule.strength == Strength::Must)
        .collect();
    for (at, first) in must.iter().enumerate() {
        for second in &must[at + 1..] {
            if let Some(why) = contradiction(first, second) {
                report(r, first, second, &why);
            }
        }
    }
}

/// The fault stands at the rule that comes later in the text and names both.
fn report(r: &mut Reader<'_>, first: &Rule, second: &Rule, why: &str) {
    let (earlier, later) = if first.line <= second.line {
        (first, second)
    } else {
        (second, first)
    };
    let start = line_start(r.text, later.line);
    let width = r.text[start..]
        .lines()
        .next()
        .map_or(0, |line| line.trim_end().len());
    let message = format!(
        "{} contradicts {} (line {}): {why}",
        later.full_name(),
        earlier.full_name(),
        earlier.line
    );
    let hint = Some("make one of them strength = \"should\", or remove it".to_owned());
    r.fault(start..start + width, message, hint);
}

fn line_start(text: &str, line: usize) -> usize {
    let mut lines = text.split_inclusive('\n');
    lines
        .by_ref()
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum()
}

fn contradiction(a: &Rule, b: &Rule) -> Option<String> {
    match (&a.kind, &b.kind) {
        (RuleKind::Affinity, RuleKind::AntiAffinity { .. })
        | (RuleKind::AntiAffinity { .. }, RuleKind::Affinity) => {
            let shared = shared_guests(&a.guests, &b.guests)?;
            Some(format!("{shared} would have to be both together and apart"))
        }
        (RuleKind::Pin { hosts: first }, RuleKind::Pin { hosts: second }) => {
            let shared = shared_names(&a.guests, &b.guests).into_iter().next()?;
            disjoint(first, second).then(|| format!("no host is allowed to {shared} by both"))
        }
        (
            RuleKind::Affinity
            | RuleKind::AntiAffinity { .. }
            | RuleKind::Pin { .. }
            | RuleKind::OptOut,
            _,
        ) => None,
    }
}

/// Patterns and names that stand in both.
fn shared_names(a: &Selector, b: &Selector) -> BTreeSet<String> {
    a.patterns
        .iter()
        .filter(|p| b.patterns.contains(p))
        .cloned()
        .collect()
}

/// Two names that stand in both, or a pattern or a label that does.
fn shared_guests(a: &Selector, b: &Selector) -> Option<String> {
    let shared = shared_names(a, b);
    if let Some(pattern) = shared.iter().find(|name| is_pattern(name)) {
        return Some(format!("guests {pattern:?}"));
    }
    let selects_two: Vec<&String> = a
        .patterns
        .iter()
        .filter(|n| !is_pattern(n) && b.patterns.iter().any(|p| crate::glob::matches(p, n)))
        .chain(b.patterns.iter().filter(|n| {
            !is_pattern(n)
                && a.patterns
                    .iter()
                    .any(|p| is_pattern(p) && crate::glob::matches(p, n))
        }))
        .collect();
    if let [first, second, ..] = selects_two.as_slice() {
        return Some(format!("{first:?} and {second:?}"));
    }
    let same_labels = !a.labels.is_empty() && a.labels == b.labels;
    same_labels.then(|| format!("guests with {} = {:?}", a.labels[0].0, a.labels[0].1))
}

/// Whether two choices by plain names share no host.
fn disjoint(a: &Selector, b: &Selector) -> bool {
    let plain = |s: &Selector| s.labels.is_empty() && !s.patterns.iter().any(|p| is_pattern(p));
    plain(a) && plain(b) && !a.patterns.iter().any(|name| b.patterns.contains(name))
}
