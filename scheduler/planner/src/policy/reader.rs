//! Typed access to a parsed TOML table that collects faults instead of stopping at the first.

use std::ops::{Range, RangeInclusive};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::error::Fault;
use super::{patterns, quantity};

pub(super) type Key<'t> = Spanned<DeString<'t>>;
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// Reads values and keeps what is wrong with them.
#[derive(Debug)]
pub(super) struct Reader<'t> {
    pub(super) text: &'t str,
    /// What makes the text unusable.
    pub(super) faults: Vec<Fault>,
    /// What is allowed, but hardly meant.
    pub(super) warnings: Vec<Fault>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            faults: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn made(&self, span: Range<usize>, message: String, hint: impl Into<String>) -> Fault {
        Fault {
            hint: hint.into(),
            ..Fault::at(self.text, span, message)
        }
    }

    pub(super) fn fault(&mut self, span: Range<usize>, message: String, hint: impl Into<String>) {
        let fault = self.made(span, message, hint);
        self.faults.push(fault);
    }

    pub(super) fn warn(&mut self, span: Range<usize>, message: String, hint: impl Into<String>) {
        let fault = self.made(span, message, hint);
        self.warnings.push(fault);
    }

    fn wrong_type(&mut self, value: &Value<'_>, expected: &str, hint: impl Into<String>) {
        let found = value.get_ref().type_str();
        let message = format!("expected {expected}, found {}", article(found));
        self.fault(value.span(), message, hint);
    }

    /// A key that this table does not have; `elsewhere` is the table that has it.
    pub(super) fn unknown(
        &mut self,
        key: &Key<'_>,
        place: &str,
        known: &[&str],
        elsewhere: Option<&str>,
    ) {
        let name: &str = key.get_ref();
        let hint = match (nearest(name, known), elsewhere) {
            (_, Some(table)) => format!("it belongs into [{table}]"),
            (Some(near), None) => format!("did you mean {near:?}?"),
            (None, None) => format!("known here: {}", known.join(", ")),
        };
        let place = if place.is_empty() {
            String::new()
        } else {
            format!(" in [{place}]")
        };
        let before = self.text.get(..key.span().start).unwrap_or_default();
        let kind = if before.ends_with('[') {
            "table"
        } else {
            "key"
        };
        let message = format!("unknown {kind} {name:?}{place}");
        self.fault(key.span(), message, hint);
    }

    /// A whole number within a range.
    pub(super) fn count(&mut self, value: &Value<'_>, range: RangeInclusive<i64>, into: &mut u32) {
        let (low, high) = (*range.start(), *range.end());
        let hint = format!("write a whole number from {low} to {high}");
        let Some(number) = value.get_ref().as_integer() else {
            let meant = self.number_meant(value).map(f64::round);
            let fits = |n: &f64| (from_small(low)..=from_small(high)).contains(n);
            let hint = meant
                .filter(fits)
                .map_or(hint, |n| format!("did you mean {n}?"));
            return self.wrong_type(value, "a whole number", hint);
        };
        let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok();
        match parsed.filter(|n| range.contains(n)).map(u32::try_from) {
            Some(Ok(fits)) => *into = fits,
            Some(Err(_)) | None => {
                let message = format!("{} is out of range", self.source(value));
                self.fault(value.span(), message, hint);
            }
        }
    }

    /// A number, whole or not, within a range.
    pub(super) fn number(&mut self, value: &Value<'_>, range: RangeInclusive<f64>, into: &mut f64) {
        let (low, high) = (*range.start(), *range.end());
        let mut hint = format!("write a number from {low} to {high}");
        let inner = value.get_ref();
        let parsed = match (inner.as_float(), inner.as_integer()) {
            (Some(float), _) => float.as_str().parse::<f64>().ok(),
            (None, Some(whole)) => i32::from_str_radix(whole.as_str(), whole.radix())
                .ok()
                .map(f64::from),
            (None, None) => {
                let meant = self.number_meant(value).filter(|n| range.contains(n));
                let hint = meant.map_or(hint, |n| format!("did you mean {n}?"));
                return self.wrong_type(value, "a number", hint);
            }
        };
        if let Some(number) = parsed.filter(|n| range.contains(n)) {
            *into = number;
            return;
        }
        // A fraction of something is often written in per cent.
        if let Some(share) = parsed.map(|n| n / 100.0)
            && high < 1.0
            && range.contains(&share)
        {
            hint = format!("did you mean {share}? {hint}");
        }
        let message = format!("{} is out of range", self.source(value));
        self.fault(value.span(), message, hint);
    }

    /// A value as it stands in the text.
    fn source(&self, value: &Value<'_>) -> &'t str {
        self.text.get(value.span()).unwrap_or_default()
    }

    /// The number at the beginning of a text such as "3", "150%" or "800MiB/s", or a float.
    fn number_meant(&self, value: &Value<'_>) -> Option<f64> {
        if let Some(float) = value.get_ref().as_float() {
            return float.as_str().parse().ok();
        }
        let text = value.get_ref().as_str()?.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, unit) = text.split_at(end.unwrap_or(text.len()));
        let number: f64 = number.parse().ok()?;
        Some(if unit.trim() == "%" {
            number / 100.0
        } else {
            number
        })
    }

    pub(super) fn boolean(&mut self, value: &Value<'_>, into: &mut bool) {
        if let Some(given) = value.get_ref().as_bool() {
            *into = given;
            return;
        }
        let word = self.source(value).trim_matches(['"', '\'']).to_lowercase();
        let hint = match word.as_str() {
            "true" | "yes" | "on" | "1" => "did you mean true?",
            "false" | "no" | "off" | "0" => "did you mean false?",
            _ => "write true or false, without quotes",
        };
        self.wrong_type(value, "true or false", hint);
    }

    pub(super) fn string(
        &mut self,
        value: &Value<'_>,
        expected: &str,
        hint: impl Into<String>,
    ) -> Option<String> {
        let text = value.get_ref().as_str().map(str::to_owned);
        if text.is_none() {
            self.wrong_type(value, expected, hint);
        }
        text
    }

    /// A duration of at least `least`.
    pub(super) fn duration(&mut self, value: &Value<'_>, least: Duration, into: &mut Duration) {
        if let Some(given) = self.one_duration(value, least) {
            *into = given;
        }
    }

    fn one_duration(&mut self, value: &Value<'_>, least: Duration) -> Option<Duration> {
        let inner = value.get_ref();
        if inner.is_integer() || inner.is_float() {
            let given = quantity::seconds(self.source(value));
            let hint = given.map_or(quantity::SHAPE.to_owned(), |d| {
                format!("did you mean {d:?}?")
            });
            let message = "a duration needs a unit and quotes".to_owned();
            self.fault(value.span(), message, hint);
            return None;
        }
        let text = self.string(value, "a duration such as \"30s\"", quantity::SHAPE)?;
        match quantity::duration(&text) {
            Ok(given) if given >= least => return Some(given),
            Ok(_) => {
                let hint = format!("write at least {:?}", quantity::written(least));
                self.fault(value.span(), format!("{text:?} is too short"), hint);
            }
            Err((message, hint)) => self.fault(value.span(), message, hint),
        }
        None
    }

    /// A list of durations of at least `least` each; it may be empty.
    pub(super) fn durations(
        &mut self,
        value: &Value<'_>,
        least: Duration,
        into: &mut Vec<Duration>,
    ) {
        let Some(list) = value.get_ref().as_array() else {
            let hint = "write a list: [\"600ms\", \"1s\"]";
            return self.wrong_type(value, "a list of durations", hint);
        };
        let read = list.iter().map(|value| self.one_duration(value, least));
        *into = read.flatten().collect();
    }

    /// One of an enum's names.
    pub(super) fn choice<T: FromStr>(
        &mut self,
        value: &Value<'_>,
        names: &[&str],
        into: &mut T,
    ) -> bool {
        let all = names.join(", ");
        let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        let hint = format!("write one of {}", quoted.join(", "));
        let Some(text) = self.string(value, &format!("one of {all}"), hint.as_str()) else {
            return false;
        };
        if let Ok(known) = text.parse() {
            *into = known;
            return true;
        }
        let hint = match nearest(&text, names) {
            Some(near) => format!("did you mean {near:?}?"),
            None => hint,
        };
        self.fault(value.span(), format!("{text:?} is none of {all}"), hint);
        false
    }

    /// A non-empty list of names and patterns.
    pub(super) fn patterns(&mut self, value: &Value<'_>, into: &mut Vec<String>) {
        let Some(list) = value.get_ref().as_array() else {
            let meant = value
                .get_ref()
                .as_str()
                .map(|s| format!("did you mean [{s:?}]?"));
            let hint = meant.unwrap_or_else(|| "write a list such as [\"web-1\", \"db-*\"]".into());
            return self.wrong_type(value, "a list of names", hint);
        };
        if list.is_empty() {
            let message = "the list is empty: nothing is chosen".to_owned();
            let hint = "name at least one, such as [\"web-1\", \"db-*\"], or remove the rule";
            self.fault(value.span(), message, hint);
        }
        for item in list.iter() {
            match item.get_ref().as_str() {
                Some(text) => match patterns::fault(text) {
                    Some((message, hint)) => self.fault(item.span(), message, hint),
                    None if into.iter().any(|known| known == text) => {
                        let message = format!("{text:?} stands twice in the list");
                        self.warn(item.span(), message, "remove one of the two");
                    }
                    None => into.push(text.to_owned()),
                },
                None => {
                    let hint = format!("did you mean {:?}?", self.source(item));
                    self.wrong_type(item, "a name", hint);
                }
            }
        }
    }

    /// A table of labels: `{ rack = "r1" }`.
    pub(super) fn labels(&mut self, value: &Value<'_>, into: &mut Vec<(String, String)>) {
        let example = "write { rack = \"r1\" }, with quotes around the value";
        if value.get_ref().as_table().is_none() {
            let pair = value
                .get_ref()
                .as_str()
                .and_then(|text| text.split_once(['=', ':']));
            let hint = pair.map_or(example.to_owned(), |(key, value)| {
                format!("did you mean {{ {} = {:?} }}?", key.trim(), value.trim())
            });
            return self.wrong_type(value, "a table of labels", hint);
        }
        let Some(table) = value.get_ref().as_table() else {
            return;
        };
        if table.is_empty() {
            let message = "no label is given: nothing is chosen".to_owned();
            self.fault(value.span(), message, example);
        }
        for (key, value) in table.iter() {
            let meant = format!("did you mean {:?}?", self.source(value));
            let hint = match value.get_ref() {
                DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => meant.as_str(),
                DeValue::String(_)
                | DeValue::Datetime(_)
                | DeValue::Array(_)
                | DeValue::Table(_) => example,
            };
            if let Some(text) = self.string(value, "a label's value", hint) {
                match patterns::fault(&text) {
                    Some((message, hint)) => self.fault(value.span(), message, hint),
                    None => into.push((key.get_ref().to_string(), text)),
                }
            }
        }
    }

    /// A table of keys, `[name]`.
    pub(super) fn table<'v, 'd>(
        &mut self,
        value: &'v Value<'d>,
        expected: &str,
        hint: &str,
    ) -> Option<&'v DeTable<'d>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(value, expected, hint);
        }
        table
    }
}

/// A bound of a whole number as a float; the bounds of policies are small.
fn from_small(n: i64) -> f64 {
    i32::try_from(n).map_or(f64::MAX, f64::from)
}

fn article(kind: &str) -> String {
    let vowel = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}

/// The known name that was probably meant: at most a third of its letters differ.
pub(super) fn nearest<'k>(given: &str, known: &[&'k str]) -> Option<&'k str> {
    let given: Vec<char> = given
        .chars()
        .flat_map(char::to_lowercase)
        .take(64)
        .collect();
    let scored = known
        .iter()
        .map(|&name| (distance(&given, &name.chars().collect::<Vec<_>>()), name));
    let (best, name) = scored.min_by_key(|&(d, _)| d)?;
    let allowed = (name.chars().count() / 3).max(1);
    (best <= allowed).then_some(name)
}

/// Edits (insert, delete, replace, swap neighbours) from one name to the other.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_of_the_pen_are_recognised_and_other_words_are_not() {
        let known = ["migrations_per_host", "memory_overcommit", "mode", "pin"];
        for (given, meant) in [
            ("migration_per_host", Some("migrations_per_host")),
            ("Mode", Some("mode")),
            ("mdoe", Some("mode")),
            ("memory_over_commit", Some("memory_overcommit")),
            ("banana", None),
        ] {
            assert_eq!(nearest(given, &known), meant, "{given}");
        }
    }
}
