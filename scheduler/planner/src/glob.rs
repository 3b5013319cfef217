//! Name patterns of a policy: `*` stands for any run of characters, `?` for any one.

/// Whether `pattern` matches the whole of `name`. Linear in practice, quadratic at worst.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where to go on after a mismatch: behind the last star, one character further in the name.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p + 1, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            Some(_) | None => match retry {
                Some((after_star, from)) => {
                    retry = Some((after_star, from + 1));
                    p = after_star;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
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
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
