//! Typed access to a parsed TOML table that collects faults instead of stopping at the first.

use std::ops::{Range, RangeInclusive};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::error::Fault;
use super::quantity;

pub(super) type Key<'t> = Spanned<DeString<'t>>;
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// Reads values and keeps what is wrong with them.
#[derive(Debug)]
pub(super) struct Reader<'t> {
    pub(super) text: &'t str,
    pub(super) faults: Vec<Fault>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            faults: Vec::new(),
        }
    }

    pub(super) fn fault(&mut self, span: Range<usize>, message: String, hint: Option<String>) {
        self.faults.push(Fault {
            hint,
            ..Fault::at(self.text, span, message)
        });
    }

    fn wrong_type(&mut self, value: &Value<'_>, expected: &str) {
        let found = value.get_ref().type_str();
        self.fault(
            value.span(),
            format!("expected {expected}, found {}", article(found)),
            None,
        );
    }

    /// A key that this table does not have.
    pub(super) fn unknown(&mut self, key: &Key<'_>, place: &str, known: &[&str]) {
        let name: &str = key.get_ref();
        let place = if place.is_empty() {
            String::new()
        } else {
            format!(" in [{place}]")
        };
        let hint = match nearest(name, known) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("known here: {}", known.join(", ")),
        };
        self.fault(
            key.span(),
            format!("unknown key {name:?}{place}"),
            Some(hint),
        );
    }

    /// A whole number within a range.
    pub(super) fn count(&mut self, value: &Value<'_>, range: RangeInclusive<i64>, into: &mut u32) {
        let Some(number) = self.integer(value) else {
            return;
        };
        match u32::try_from(number) {
            Ok(fits) if range.contains(&number) => *into = fits,
            Ok(_) | Err(_) => {
                self.out_of_range(value, &number.to_string(), *range.start(), *range.end())
            }
        }
    }

    pub(super) fn integer(&mut self, value: &Value<'_>) -> Option<i64> {
        let Some(number) = value.get_ref().as_integer() else {
            self.wrong_type(value, "a whole number");
            return None;
        };
        let parsed = i64::from_str_radix(number.as_str(), number.radix());
        if parsed.is_err() {
            self.fault(
                value.span(),
                format!("{} is too large", number.as_str()),
                None,
            );
        }
        parsed.ok()
    }

    /// A number, whole or not, within a range.
    pub(super) fn number(&mut self, value: &Value<'_>, range: RangeInclusive<f64>, into: &mut f64) {
        let inner = value.get_ref();
        let parsed = match (inner.as_float(), inner.as_integer()) {
            (Some(float), _) => float.as_str().parse::<f64>().ok(),
            (None, Some(_)) => self
                .integer(value)
                .and_then(|n| i32::try_from(n).ok())
                .map(f64::from),
            (None, None) => return self.wrong_type(value, "a number"),
        };
        match parsed {
            Some(number) if range.contains(&number) => *into = number,
            Some(_) | None => {
                let given = self.text.get(value.span()).unwrap_or_default().to_owned();
                self.out_of_range(value, &given, *range.start(), *range.end());
            }
        }
    }

    fn out_of_range<T: std::fmt::Display>(
        &mut self,
        value: &Value<'_>,
        given: &str,
        low: T,
        high: T,
    ) {
        let hint = format!("write a number from {low} to {high}");
        self.fault(value.span(), format!("{given} is out of range"), Some(hint));
    }

    pub(super) fn boolean(&mut self, value: &Value<'_>, into: &mut bool) {
        match value.get_ref().as_bool() {
            Some(given) => *into = given,
            None => self.wrong_type(value, "true or false"),
        }
    }

    pub(super) fn string(&mut self, value: &Value<'_>, expected: &str) -> Option<String> {
        let text = value.get_ref().as_str().map(str::to_owned);
        if text.is_none() {
            self.wrong_type(value, expected);
        }
        text
    }

    /// A duration of at least `least`.
    pub(super) fn duration(&mut self, value: &Value<'_>, least: Duration, into: &mut Duration) {
        let inner = value.get_ref();
        if inner.is_integer() || inner.is_float() {
            let given = self.text.get(value.span()).unwrap_or_default();
            let hint = Some(format!("did you mean \"{given}s\"?"));
            return self.fault(
                value.span(),
                "a duration needs a unit and quotes".to_owned(),
                hint,
            );
        }
        let Some(text) = self.string(value, "a duration such as \"30s\"") else {
            return;
        };
        match quantity::duration(&text) {
            Ok(given) if given >= least => *into = given,
            Ok(_) => {
                let hint = Some(format!("write at least {least:?}"));
                self.fault(value.span(), format!("{text:?} is too short"), hint);
            }
            Err((message, hint)) => self.fault(value.span(), message, hint),
        }
    }

    /// One of an enum's names.
    pub(super) fn choice<T: FromStr>(
        &mut self,
        value: &Value<'_>,
        names: &[&str],
        into: &mut T,
    ) -> bool {
        let Some(text) = self.string(value, &format!("one of {}", names.join(", "))) else {
            return false;
        };
        if let Ok(known) = text.parse() {
            *into = known;
            return true;
        }
        let hint = match nearest(&text, names) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("write one of {}", names.join(", ")),
        };
        self.fault(
            value.span(),
            format!("{text:?} is none of {}", names.join(", ")),
            Some(hint),
        );
        false
    }

    /// A non-empty list of non-empty texts.
    pub(super) fn strings(&mut self, value: &Value<'_>, into: &mut Vec<String>) {
        let Some(list) = value.get_ref().as_array() else {
            let hint = value
                .get_ref()
                .as_str()
                .map(|s| format!("did you mean [{s:?}]?"));
            let found = value.get_ref().type_str();
            let message = format!("expected a list of names, found {}", article(found));
            return self.fault(value.span(), message, hint);
        };
        if list.is_empty() {
            self.fault(
                value.span(),
                "the list is empty: nothing is chosen".to_owned(),
                None,
            );
        }
        for item in list.iter() {
            match item.get_ref().as_str() {
                Some("") => self.fault(item.span(), "a name is empty".to_owned(), None),
                Some(text) => into.push(text.to_owned()),
                None => self.wrong_type(item, "a name"),
            }
        }
    }

    /// A table of labels: `{ rack = "r1" }`.
    pub(super) fn labels(&mut self, value: &Value<'_>, into: &mut Vec<(String, String)>) {
        let Some(table) = self.table(value, "a table of labels such as { rack = \"r1\" }") else {
            return;
        };
        if table.is_empty() {
            self.fault(
                value.span(),
                "no label is given: nothing is chosen".to_owned(),
                None,
            );
        }
        for (key, value) in table.iter() {
            if let Some(text) = self.string(value, "a label's value") {
                into.push((key.get_ref().to_string(), text));
            }
        }
    }

    pub(super) fn table<'v, 'd>(
        &mut self,
        value: &'v Value<'d>,
        expected: &str,
    ) -> Option<&'v DeTable<'d>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(value, expected);
        }
        table
    }
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
