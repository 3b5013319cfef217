//! What a name or pattern of a policy may look like.

/// What is wrong with a name or pattern, and what would be right.
///
/// Only `*` and `?` stand for other characters. What looks like another kind of pattern would choose nothing
/// without a word, so it is refused.
pub(super) fn fault(text: &str) -> Option<(String, String)> {
    if text.is_empty() {
        let hint = "write a name such as \"web-1\", or a pattern such as \"web-*\"";
        return Some(("a name is empty".to_owned(), hint.to_owned()));
    }
    if text.trim() != text {
        let message = format!("{text:?} begins or ends with a blank");
        return Some((message, format!("did you mean {:?}?", text.trim())));
    }
    if text.contains(char::is_control) {
        let message = format!("{text:?} has a control character");
        return Some((message, "remove it, or write ? in its place".to_owned()));
    }
    if let Some(meant) = regular_expression(text) {
        let message = format!("{text:?} looks like a regular expression");
        return Some((message, meant));
    }
    for (open, close) in [('[', ']'), ('{', '}')] {
        let Some((before, rest)) = text.split_once(open) else {
            continue;
        };
        let Some((inner, behind)) = rest.split_once(close) else {
            continue;
        };
        let message =
            format!("{text:?}: only * and ? stand for other characters, not {open}{close}");
        return Some((message, spelt_out(before, inner, behind, open)));
    }
    None
}

/// Alternatives that are spelt out at most.
const MOST: usize = 4;

fn spelt_out(before: &str, inner: &str, behind: &str, open: char) -> String {
    let parts: Vec<String> = if open == '{' {
        inner
            .split(',')
            .map(|part| part.trim().to_owned())
            .collect()
    } else {
        inner.chars().map(String::from).collect()
    };
    if inner.contains('-') && open == '[' || parts.len() > MOST || inner.is_empty() {
        return format!(
            "write {:?}, or list the names",
            format!("{before}?{behind}")
        );
    }
    let names: Vec<String> = parts
        .iter()
        .map(|part| format!("{:?}", format!("{before}{part}{behind}")))
        .collect();
    format!("write {}", names.join(", "))
}

/// `^`, `$` and `.*` are no parts of names.
fn regular_expression(text: &str) -> Option<String> {
    let inner = text.trim_start_matches('^').trim_end_matches('$');
    let looks_so = inner.len() < text.len() || text.contains(".*") || text.contains(".+");
    let meant = inner.replace(".*", "*").replace(".+", "?*");
    looks_so.then(|| format!("did you mean {meant:?}? * stands for any characters, ? for one"))
}

#[cfg(test)]
mod tests {
    use super::fault;

    #[test]
    fn names_and_shell_patterns_are_sound() {
        for text in [
            "web-1", "db-*", "h1/db-?", "größe", "a b", "a.b", "x$y", "a{b", "a]b[",
        ] {
            assert_eq!(fault(text), None, "{text}");
        }
    }

    #[test]
    fn other_patterns_get_one_that_does() {
        for (text, hint) in [
            ("db-[12]", "write \"db-1\", \"db-2\""),
            ("db-[0-9]x", "write \"db-?x\", or list the names"),
            ("{db,pg}-*", "write \"db-*\", \"pg-*\""),
            (
                "^db-.*$",
                "did you mean \"db-*\"? * stands for any characters, ? for one",
            ),
            (" a ", "did you mean \"a\"?"),
        ] {
            assert_eq!(
                fault(text).map(|(_, hint)| hint).as_deref(),
                Some(hint),
                "{text}"
            );
        }
    }
}
