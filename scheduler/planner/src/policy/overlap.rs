//! Which guests two selectors of a policy share, as far as the text shows it.

use std::cell::Cell;

use super::Selector;
use crate::glob::{common, covers, differ_at_once, is_pattern};

/// What two selectors have in common.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shared {
    /// Names that both select, whatever the fleet.
    pub(super) names: Vec<String>,
    /// Patterns and labels of one whose guests the other selects as well, every one of them; in words.
    pub(super) groups: Vec<String>,
    /// A name that both would select, if there were such a guest; where nothing is certain.
    pub(super) possible: Option<String>,
}

impl Shared {
    /// One thing that both select for certain.
    pub(super) fn one(&self) -> Option<String> {
        let name = self.names.first().map(|name| format!("{name:?}"));
        name.or_else(|| self.groups.first().cloned())
    }

    /// Two guests, or a group of them, that both select for certain.
    pub(super) fn two(&self) -> Option<String> {
        match self.names.as_slice() {
            [first, second, ..] => Some(format!("{first:?} and {second:?}")),
            [] | [_] => self.groups.first().cloned(),
        }
    }
}

/// Compares selectors, at most for so much work: a policy of thousands of long lists is left to what is
/// found on the fleet.
#[derive(Debug)]
pub(super) struct Comparer {
    left: Cell<usize>,
}

/// Pairs of characters that are compared at most: less than a second of work.
const MOST_WORK: usize = 1_500_000;

impl Comparer {
    pub(super) fn new() -> Self {
        Self {
            left: Cell::new(MOST_WORK),
        }
    }

    fn pay(&self, a: &str, b: &str) -> bool {
        let cost = match is_pattern(a) && is_pattern(b) && !differ_at_once(a, b) {
            true => (a.len() + 1) * (b.len() + 1),
            false => 1 + a.len().min(b.len()),
        };
        let left = self.left.get().checked_sub(cost);
        self.left.set(left.unwrap_or(0));
        left.is_some()
    }

    /// What two selectors share.
    pub(super) fn shared(&self, a: &Selector, b: &Selector) -> Shared {
        let mut shared = Shared::default();
        for first in &a.patterns {
            for second in &b.patterns {
                if self.pay(first, second) {
                    compare(first, second, &mut shared);
                }
            }
        }
        for (wide, narrow) in [(a, b), (b, a)] {
            if shared.groups.is_empty() && labels_cover(wide, narrow) {
                shared.groups.push(labels_in_words(narrow));
            }
        }
        shared.names.sort_unstable();
        shared.names.dedup();
        shared
    }

    /// Whether no host can be chosen by both.
    pub(super) fn disjoint(&self, a: &Selector, b: &Selector) -> bool {
        if a.inverted || b.inverted {
            // Of all but some, only those some are surely none.
            return a.inverted != b.inverted && a.patterns == b.patterns && a.labels == b.labels;
        }
        if !a.labels.is_empty() && !b.labels.is_empty() {
            // A host has one value of a label.
            let excludes = |(key, value): &(String, String)| {
                let other = b.labels.iter().find(|(k, _)| k == key);
                other.is_some_and(|(_, v)| common(value, v).is_none())
            };
            return a.labels.iter().any(excludes);
        }
        let by_name = a.labels.is_empty() && b.labels.is_empty();
        by_name
            && a.patterns.iter().all(|first| {
                let apart =
                    |second: &String| self.pay(first, second) && common(first, second).is_none();
                b.patterns.iter().all(apart)
            })
    }
}

fn compare(a: &str, b: &str, shared: &mut Shared) {
    match (is_pattern(a), is_pattern(b)) {
        (false, false) if a == b => shared.names.push(a.to_owned()),
        (false, true) if covers(b, a) => shared.names.push(a.to_owned()),
        (true, false) if covers(a, b) => shared.names.push(b.to_owned()),
        (true, true) => {
            // Rarely any: nothing more is asked then.
            let Some(name) = common(a, b) else {
                return;
            };
            if covers(a, b) {
                shared.groups.push(format!("guests {b:?}"));
            } else if covers(b, a) {
                shared.groups.push(format!("guests {a:?}"));
            } else {
                shared.possible.get_or_insert(name);
            }
        }
        (false, false | true) | (true, false) => {}
    }
}

/// Whether every guest that `narrow` selects by labels is selected by `wide`.
fn labels_cover(wide: &Selector, narrow: &Selector) -> bool {
    let demands = |(key, value): &(String, String)| {
        let other = narrow.labels.iter().find(|(k, _)| k == key);
        other.is_some_and(|(_, v)| covers(value, v))
    };
    !wide.labels.is_empty() && wide.labels.iter().all(demands)
}

fn labels_in_words(selector: &Selector) -> String {
    let pairs: Vec<String> = selector
        .labels
        .iter()
        .map(|(key, value)| format!("{key} = {value:?}"))
        .collect();
    format!("guests with {}", pairs.join(" and "))
}
