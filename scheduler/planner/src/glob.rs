//! Name patterns of a policy: `*` stands for any run of characters, `?` for any one.

use std::str::Chars;

/// Whether `pattern` matches the whole of `name`. Linear in practice, quadratic at worst; copies nothing, as
/// every rule asks it of every guest.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::matches;

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
