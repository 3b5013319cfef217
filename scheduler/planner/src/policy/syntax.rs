//! Faults of a text that is no TOML, and what would be right.
//!
//! The parser names what it expected; what people meant is guessed from the place. The first fault is told
//! only: the others mostly follow from it.

use std::ops::Range;

use toml::de::Error;

use super::error::{Fault, PolicyError, Related};

/// The first fault, if there is one.
pub(super) fn first(text: &str, errors: &[Error]) -> Option<Fault> {
    let place = |error: &&Error| error.span().map_or(0, |span| span.start);
    let error = errors.iter().min_by_key(place)?;
    let span = error.span().unwrap_or(0..0);
    let cause = error.message().trim().replace('\n', ", ");
    let mut fault = Fault::at(text, span.clone(), format!("not TOML: {cause}"));
    fault.hint = hint(text, &span, &cause, &fault);
    if cause.contains("duplicate key") {
        fault.related.extend(defined_first(text, &span));
    }
    Some(fault)
}

/// What each cause mostly comes from, the more special first.
const HINTS: &[(&str, &str)] = &[
    (
        "duplicate key",
        "remove one of the two, or give it another name",
    ),
    (
        "escape",
        "write \\\\ for a backslash, or put the text in single quotes",
    ),
    (
        "unexpected key or value",
        "write one KEY = VALUE a line, with nothing but a comment (#) behind it",
    ),
    ("newline", "end it on the line that it begins on"),
    ("leading zero", "write the number without leading zeros"),
    ("unclosed table", "close the table's name with ]"),
    ("unclosed array", "close the list with ]"),
    (
        "array",
        "close the list with ], and put a comma between its entries",
    ),
    (
        "inline table",
        "write { key = \"value\", other = \"value\" }",
    ),
    ("visible characters", "remove the control character"),
    (
        "date",
        "put texts in quotes; no key of a policy takes a date",
    ),
    ("time", "put texts in quotes, durations as in \"30s\""),
    ("recursion", "nothing in a policy is nested that deep"),
    ("nest", "nothing in a policy is nested that deep"),
    (
        "string, expected `\"`",
        "close the text with a \" on the same line",
    ),
    ("key with no value", "write KEY = VALUE"),
];

fn hint(text: &str, span: &Range<usize>, cause: &str, fault: &Fault) -> String {
    let given = text.get(span.clone()).unwrap_or_default();
    if cause.contains("must be quoted") {
        let word = given.trim_matches([
            '\u{201c}', '\u{201d}', '\u{201e}', '\u{2018}', '\u{2019}', ' ',
        ]);
        return if word.is_empty() {
            "write a value behind the =".to_owned()
        } else {
            format!("did you mean {word:?}?")
        };
    }
    let begins_with_colon = text[span.start.min(text.len())..].starts_with(':');
    if cause.contains("unquoted key") && begins_with_colon {
        let meant = fault.source_line.trim().replacen(':', " =", 1);
        return format!("did you mean: {meant}");
    }
    let known = HINTS.iter().find(|(part, _)| cause.contains(part));
    let general = "a line is KEY = VALUE, a [table] or a # comment";
    known.map_or(general, |(_, hint)| hint).to_owned()
}

/// The line that defines the same table or key before, as far as it can be seen from the lines.
fn defined_first(text: &str, span: &Range<usize>) -> Option<Related> {
    let here = text[..span.start.min(text.len())]
        .rfind('\n')
        .map_or(0, |at| at + 1);
    let name = |line: &str| -> String {
        let table = line
            .trim()
            .strip_prefix('[')
            .and_then(|rest| rest.split(']').next());
        let name = table.or_else(|| line.split('=').next());
        name.unwrap_or_default()
            .trim_matches(['[', ' ', '\t', '\r'])
            .to_owned()
    };
    let wanted = name(text[here..].lines().next()?);
    let is_table = text[here..].trim_start().starts_with('[');
    let mut found = None;
    let mut at = 0;
    for line in text[..here].split_inclusive('\n') {
        let begins_table = line.trim_start().starts_with('[');
        // A key counts within its own table only.
        if begins_table && !is_table {
            found = None;
        }
        if name(line) == wanted && (found.is_none() || begins_table == is_table) {
            let blanks = line.len() - line.trim_start().len();
            let span = at + blanks..at + blanks + line.trim().len();
            found.get_or_insert(Fault::at(text, span, "defined here first".to_owned()));
        }
        at += line.len();
    }
    found.map(Fault::into_related)
}

/// The bytes of a file as text.
pub(super) fn text_of(bytes: &[u8]) -> Result<&str, PolicyError> {
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => error,
    };
    let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
    // What stands before the fault is text; the rest of its line is shown as well as it can be.
    let rest = bytes.get(error.valid_up_to()..).unwrap_or_default();
    let line_end = rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
    let shown = String::from_utf8_lossy(good) + String::from_utf8_lossy(&rest[..line_end]);
    let wide = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    let (message, hint) = if wide {
        ("the file is UTF-16".to_owned(), "save it as UTF-8")
    } else {
        let byte = rest.first().copied().unwrap_or_default();
        (
            format!("the byte 0x{byte:02x} is no UTF-8"),
            "save the file as UTF-8: it may have been written as Latin-1",
        )
    };
    // Nobody could read that in another encoding.
    let shown = if wide { "" } else { &shown };
    let mut fault = Fault::at(shown, good.len()..good.len(), message);
    fault.hint = hint.to_owned();
    Err(PolicyError {
        faults: vec![fault],
    })
}
