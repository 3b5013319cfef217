//! From the policy text to the policy: the top level of the file.
//!
//! A text without `schema` is read as version 1, so that an empty file is the default policy.

use toml::Spanned;
use toml::de::DeTable;

use super::error::{Fault, PolicyCheck};
use super::reader::{Reader, Value};
use super::{Mode, Policy, SCHEMA, Strategy, conflict, syntax, tables};

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

/// Longer texts are no policies: 1 MiB.
const LONGEST: usize = 1 << 20;

pub(super) fn check(text: &str) -> PolicyCheck {
    let mut reader = Reader::new(text);
    let mut policy = Policy::default();
    if text.len() > LONGEST {
        let message = format!(
            "the text has {} bytes, at most {LONGEST} are read",
            text.len()
        );
        let hint =
            "select guests by pattern or label instead of listing them, or take the right file";
        reader.fault(0..0, message, hint);
    } else {
        let (document, errors) = DeTable::parse_recoverable(text);
        match syntax::first(text, &errors) {
            Some(fault) => reader.faults.push(fault),
            None => {
                read(&mut reader, document.get_ref(), &mut policy);
                conflict::find(&mut reader, &policy);
            }
        }
    }
    let sorted = |mut faults: Vec<Fault>| {
        faults.iter_mut().for_each(Fault::shorten);
        faults.sort_by_key(|fault| (fault.line, fault.column));
        faults.dedup();
        faults
    };
    let faults = sorted(reader.faults);
    // What is no policy yet is not worth advice.
    if !faults.is_empty() {
        reader.warnings.clear();
    }
    PolicyCheck {
        policy: faults.is_empty().then_some(policy),
        faults,
        warnings: sorted(reader.warnings),
    }
}

fn read(r: &mut Reader<'_>, table: &DeTable<'_>, policy: &mut Policy) {
    if !table.contains_key("schema") && !table.is_empty() {
        let message = format!("the text does not say its schema; it is read as {SCHEMA}");
        r.warn(0..0, message, format!("begin it with schema = {SCHEMA}"));
    }
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
            _ => r.unknown(key, "", TOP, tables::home_of(key)),
        }
    }
}

fn schema(r: &mut Reader<'_>, value: &Value<'_>) {
    let hint = format!("write schema = {SCHEMA}");
    let given = value.get_ref().as_integer();
    let number = given.and_then(|n| i64::from_str_radix(n.as_str(), n.radix()).ok());
    match number {
        Some(SCHEMA) => {}
        Some(newer) if newer > SCHEMA => {
            let message =
                format!("schema {newer} is newer than this version understands ({SCHEMA})");
            let hint = format!("upgrade evenkeel before applying it, or {hint}");
            r.fault(value.span(), message, hint);
        }
        Some(other) => r.fault(value.span(), format!("there is no schema {other}"), hint),
        None => {
            let found = value.get_ref().type_str();
            r.fault(
                value.span(),
                format!("expected the schema's number, found {found}"),
                hint,
            );
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
