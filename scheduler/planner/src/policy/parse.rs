//! From the policy text to the policy: the top level of the file.
//!
//! A text without `schema` is read as version 1, so that an empty file is the default policy.

use toml::Spanned;
use toml::de::DeTable;

use super::error::{Fault, PolicyError};
use super::reader::{Reader, Value};
use super::{Mode, Policy, SCHEMA, Strategy, conflict, tables};

const TOP: &[&str] = &[
    "schema",
    "mode",
    "strategy",
    "aggressiveness",
    "limits",
    "control",
    "migration",
    "price",
    "affinity",
    "anti_affinity",
    "pin",
    "opt_out",
];

pub(super) fn parse(text: &str) -> Result<Policy, PolicyError> {
    let mut reader = Reader::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        let message = error.message().trim().replace('\n', ", ");
        reader
            .faults
            .push(Fault::at(text, span, format!("not TOML: {message}")));
    }
    let mut policy = Policy::default();
    if errors.is_empty() {
        read(&mut reader, document.get_ref(), &mut policy);
        conflict::find(&mut reader, &policy);
    }
    let mut faults = reader.faults;
    if faults.is_empty() {
        return Ok(policy);
    }
    faults.sort_by_key(|fault| (fault.line, fault.column));
    faults.dedup();
    Err(PolicyError { faults })
}

fn read(r: &mut Reader<'_>, table: &DeTable<'_>, policy: &mut Policy) {
    for (key, value) in table.iter() {
        match key.get_ref().as_ref() {
            "schema" => schema(r, value),
            "mode" => {
                r.choice(value, Mode::NAMES, &mut policy.mode);
            }
            "strategy" => {
                r.choice(value, Strategy::NAMES, &mut policy.strategy);
            }
            "aggressiveness" => aggressiveness(r, value, &mut policy.aggressiveness),
            "limits" => tables::limits(r, value, &mut policy.limits),
            "control" => tables::control(r, value, &mut policy.control),
            "migration" => tables::migration(r, value, &mut policy.migration),
            "price" => tables::price(r, value, &mut policy.price),
            kind @ ("affinity" | "anti_affinity" | "pin" | "opt_out") => {
                tables::rules(r, kind, value, &mut policy.rules);
            }
            _ => r.unknown(key, "", TOP),
        }
    }
}

fn schema(r: &mut Reader<'_>, value: &Value<'_>) {
    match r.integer(value) {
        Some(SCHEMA) | None => {}
        Some(newer) if newer > SCHEMA => {
            let message =
                format!("schema {newer} is newer than this version understands ({SCHEMA})");
            r.fault(
                value.span(),
                message,
                Some("upgrade evenkeel before applying it".to_owned()),
            );
        }
        Some(other) => {
            let hint = Some(format!("write schema = {SCHEMA}"));
            r.fault(value.span(), format!("there is no schema {other}"), hint);
        }
    }
}

fn aggressiveness(r: &mut Reader<'_>, value: &Value<'_>, into: &mut u8) {
    let mut given = u32::from(*into);
    r.count(value, 1..=5, &mut given);
    *into = u8::try_from(given).unwrap_or(*into);
}

pub(super) fn with_mode(text: &str, mode: Mode) -> String {
    let (document, errors) = DeTable::parse_recoverable(text);
    let line = format!("mode = \"{mode}\"");
    if errors.is_empty()
        && let Some(span) = document.get_ref().get("mode").map(Spanned::span)
    {
        return format!("{}\"{mode}\"{}", &text[..span.start], &text[span.end..]);
    }
    let at = insertion_point(text);
    format!("{}{line}\n{}", &text[..at], &text[at..])
}

/// Behind the line of `schema`, else behind the leading comments.
fn insertion_point(text: &str) -> usize {
    let mut at = 0;
    let mut behind_comments = 0;
    let mut only_comments = true;
    for line in text.split_inclusive('\n') {
        at += line.len();
        let content = line.trim();
        if content.starts_with('[') {
            break;
        }
        if content.starts_with("schema") && line.ends_with('\n') {
            return at;
        }
        only_comments &= content.is_empty() || content.starts_with('#');
        if only_comments && line.ends_with('\n') {
            behind_comments = at;
        }
    }
    behind_comments
}
