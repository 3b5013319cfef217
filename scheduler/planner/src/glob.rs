//! Name patterns of a policy: `*` stands for any run of characters, `?` for any one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::str::Chars;

/// Whether `pattern` matches the whole of `name`. Linear in practice, quadratic at worst; copies nothing, as
/// every rule asks it of every guest.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    if !is_pattern(pattern) {
        return pattern == name;
    }
    let (mut wanted, mut rest) = (pattern.chars(), name.chars());
    // Where to go on after a mismatch: behind the last star, one character further in the name.
    let mut retry: Option<(Chars<'_>, Chars<'_>)> = None;
    loop {
        let (before, mut after) = (rest.clone(), wanted.clone());
        let Some(found) = rest.next() else {
            return wanted.all(|c| c == '*');
        };
        match after.next() {
            Some('*') => {
                rest = before;
                wanted = after;
                retry = Some((wanted.clone(), rest.clone()));
            }
            Some(c) if c == '?' || c == found => wanted = after,
            Some(_) | None => {
                let Some((behind_star, from)) = retry.as_mut() else {
                    return false;
                };
                from.next();
                (wanted, rest) = (behind_star.clone(), from.clone());
            }
        }
    }
}

/// Whether the text is a pattern rather than one name.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// Patterns that are longer than this many characters are not compared with each other: no name is.
const LONGEST: usize = 256;

/// States of a comparison at most; beyond them nothing is claimed.
const MOST_STATES: usize = 20_000;

/// A shortest name that both patterns match, if there is one. Exact for patterns of at most 256 characters;
/// `None` for longer ones.
///
/// Walks through pairs of places in the two patterns, fewest characters first.
pub(crate) fn common(a: &str, b: &str) -> Option<String> {
    match (is_pattern(a), is_pattern(b)) {
        (_, false) => return matches(a, b).then(|| b.to_owned()),
        (false, true) => return matches(b, a).then(|| a.to_owned()),
        (true, true) => {}
    }
    if differ_at_once(a, b) {
        return None;
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().max(b.len()) > LONGEST {
        return None;
    }
    // Each pair of places with the pair before it and the character between them.
    type Place = (usize, usize);
    let mut seen: BTreeMap<Place, (Place, Option<char>)> = BTreeMap::new();
    let mut open: VecDeque<(Place, Place, Option<char>)> = VecDeque::from([((0, 0), (0, 0), None)]);
    while let Some((place, before, by)) = open.pop_front() {
        if seen.contains_key(&place) {
            continue;
        }
        seen.insert(place, (before, by));
        let (i, j) = place;
        if place == (a.len(), b.len()) {
            return Some(spell(&seen, place));
        }
        let (x, y) = (a.get(i).copied(), b.get(j).copied());
        if x == Some('*') {
            open.push_front(((i + 1, j), place, None));
        }
        if y == Some('*') {
            open.push_front(((i, j + 1), place, None));
        }
        if let (Some(x), Some(y)) = (x, y)
            && let Some(c) = one_of_both(x, y)
        {
            let next = (i + usize::from(x != '*'), j + usize::from(y != '*'));
            open.push_back((next, place, Some(c)));
        }
    }
    None
}

/// Whether two patterns obviously have nothing in common: they begin or end with different letters.
pub(crate) fn differ_at_once(a: &str, b: &str) -> bool {
    begin_apart(a.chars(), b.chars()) || begin_apart(a.chars().rev(), b.chars().rev())
}

/// Whether two patterns differ before the first sign that stands for others: most pairs do.
fn begin_apart(mut a: impl Iterator<Item = char>, mut b: impl Iterator<Item = char>) -> bool {
    let plain = |c: Option<char>| c.filter(|c| !matches!(c, '*' | '?'));
    while let (Some(x), Some(y)) = (plain(a.next()), plain(b.next())) {
        if x != y {
            return true;
        }
    }
    false
}

/// A character that both signs stand for.
fn one_of_both(x: char, y: char) -> Option<char> {
    let any = |c: char| c == '*' || c == '?';
    match (any(x), any(y)) {
        (true, true) => Some('1'),
        (true, false) => Some(y),
        (false, true) => Some(x),
        (false, false) => (x == y).then_some(x),
    }
}

type Steps = BTreeMap<(usize, usize), ((usize, usize), Option<char>)>;

/// The characters on the way to a pair of places. Bounded by the number of pairs.
fn spell(seen: &Steps, mut place: (usize, usize)) -> String {
    let mut letters = Vec::new();
    while place != (0, 0) {
        let Some(&(before, by)) = seen.get(&place) else {
            break;
        };
        letters.extend(by);
        place = before;
    }
    letters.iter().rev().collect()
}

/// Whether every name that `narrow` matches is matched by `wide`, too. Exact when true; false also when
/// the patterns are too long or too tangled to tell.
///
/// Walks through the places of `narrow`, with all places that `wide` could be at after the same characters.
pub(crate) fn covers(wide: &str, narrow: &str) -> bool {
    if !is_pattern(narrow) {
        return matches(wide, narrow);
    }
    if wide == narrow {
        return true;
    }
    let (wide, narrow): (Vec<char>, Vec<char>) = (wide.chars().collect(), narrow.chars().collect());
    if wide.len().max(narrow.len()) > LONGEST {
        return false;
    }
    let mut letters: BTreeSet<char> = wide.iter().chain(&narrow).copied().collect();
    letters.retain(|c| !matches!(c, '*' | '?'));
    // One that stands in neither, for all others.
    letters
        .extend(('\u{1}'..='\u{ffff}').find(|c| !letters.contains(c) && !matches!(c, '*' | '?')));
    let mut seen = BTreeSet::new();
    let mut open = vec![(0, closure(&wide, BTreeSet::from([0])))];
    while let Some((at, others)) = open.pop() {
        if seen.len() > MOST_STATES {
            return false;
        }
        if !seen.insert((at, others.clone())) {
            continue;
        }
        let Some(&sign) = narrow.get(at) else {
            if others.contains(&wide.len()) {
                continue;
            }
            return false;
        };
        if sign == '*' {
            open.push((at + 1, others.clone()));
        }
        for &c in letters
            .iter()
            .filter(|&&c| sign == c || matches!(sign, '*' | '?'))
        {
            let next = at + usize::from(sign != '*');
            open.push((next, closure(&wide, after(&wide, &others, c))));
        }
    }
    true
}

/// Places behind one more character.
fn after(pattern: &[char], places: &BTreeSet<usize>, c: char) -> BTreeSet<usize> {
    let next = |&at: &usize| match pattern.get(at) {
        Some('*') => Some(at),
        Some(&sign) if sign == '?' || sign == c => Some(at + 1),
        Some(_) | None => None,
    };
    places.iter().filter_map(next).collect()
}

/// With the places that are reached over stars that stand for nothing.
fn closure(pattern: &[char], mut places: BTreeSet<usize>) -> BTreeSet<usize> {
    for (at, &sign) in pattern.iter().enumerate() {
        if sign == '*' && places.contains(&at) {
            places.insert(at + 1);
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::{common, covers, matches};

    /// All names of up to four of these letters.
    fn names() -> Vec<String> {
        let mut all = vec![String::new()];
        let mut longest = all.clone();
        for _ in 0..4 {
            longest = longest
                .iter()
                .flat_map(|n| ["a", "b", "z"].map(|c| format!("{n}{c}")))
                .collect();
            all.extend(longest.clone());
        }
        all
    }

    #[test]
    fn overlap_and_cover_agree_with_trying_all_names() {
        let patterns = [
            "", "a", "*", "?", "a*", "*a", "a*b", "?b", "a?", "*a*", "a*a", "ab*ba", "*?*", "??",
            "b*?a", "**b",
        ];
        let names = names();
        for a in patterns {
            for b in patterns {
                let both: Vec<&String> = names
                    .iter()
                    .filter(|n| matches(a, n) && matches(b, n))
                    .collect();
                let found = common(a, b);
                assert_eq!(found.is_some(), !both.is_empty(), "{a} {b} {found:?}");
                if let Some(name) = found {
                    assert!(matches(a, &name) && matches(b, &name), "{a} {b} {name}");
                    assert_eq!(
                        Some(name.len()),
                        both.iter().map(|n| n.len()).min(),
                        "{a} {b}"
                    );
                }
                let covered = names.iter().all(|n| !matches(b, n) || matches(a, n));
                assert_eq!(covers(a, b), covered, "{a} {b}");
            }
        }
    }

    #[test]
    fn monsters_are_not_compared_but_end() {
        let monster = "*a?".repeat(85);
        assert!(common(&monster, &monster).is_some());
        let _ = covers(&monster, &"?*b".repeat(85));
        let longer = "*a".repeat(1000);
        assert_eq!(common(&longer, "*"), None);
        assert!(!covers("*", &longer));
    }

    #[test]
    fn stars_and_question_marks_match_what_shells_match() {
        for (pattern, name) in [
            ("db-*", "db-1"),
            ("*", ""),
            ("a*b*c", "axxbyyc"),
            ("db-?", "db-9"),
            ("db-?", "db-é"),
            ("*-é?*", "größe-éß"),
            ("**", ""),
            ("*ab", "aab"),
            ("x", "x"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("db-*", "xdb-1"),
            ("db-?", "db-10"),
            ("a*b", "abc"),
            ("", "x"),
            ("x", ""),
            ("?", ""),
            ("?", "éé"),
            ("a*b?", "aab"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
