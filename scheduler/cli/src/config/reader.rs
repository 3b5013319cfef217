//! From TOML text to the configuration, with the place of every fault.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use evenkeel_proto::identity::TlsFiles;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Address, Config, Replica};

const TOP: [&str; 3] = ["schedulers", "server_names", "tls"];
const TLS: [&str; 3] = ["ca", "certificate", "key"];
/// One fault of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file's name.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub message: String,
    /// The line, and below it a caret under the fault.
    pub excerpt: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            column,
            message,
            excerpt,
        } = self;
        write!(f, "{file}:{line}:{column}: {message}\n{excerpt}")
    }
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    faults: Vec<Fault>,
}

type Entry<'a> = Spanned<DeValue<'a>>;

pub(super) fn read(file: &str, text: &str) -> Result<Config, Vec<Fault>> {
    let mut reader = Reader {
        file,
        text,
        faults: vec![],
    };
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let message = format!("not TOML: {}", error.message().trim().replace('\n', ", "));
        reader.fault(error.span().unwrap_or(0..0), message);
    }
    if !errors.is_empty() {
        return Err(reader.faults);
    }
    let config = reader.config(document.get_ref());
    match config {
        Some(config) if reader.faults.is_empty() => Ok(config),
        Some(_) | None => Err(reader.faults),
    }
}

impl Reader<'_> {
    fn fault(&mut self, span: Range<usize>, message: String) {
        let start = (0..=span.start.min(self.text.len()))
            .rev()
            .find(|at| self.text.is_char_boundary(*at))
            .unwrap_or(0);
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        let column = before[line_start..].chars().count() + 1;
        let shown = self.text[line_start..].lines().next().unwrap_or("");
        let room = shown.chars().count().saturating_sub(column - 1).max(1);
        let width = span.end.saturating_sub(span.start).clamp(1, room);
        let margin = " ".repeat(line.to_string().len());
        let excerpt = format!(
            "  {line} | {shown}\n  {margin} | {}{}",
            " ".repeat(column - 1),
            "^".repeat(width)
        );
        let file = self.file.to_owned();
        self.faults.push(Fault {
            file,
            line,
            column,
            message,
            excerpt,
        });
    }

    /// Faults every key that is none of `known`.
    fn strangers(&mut self, table: &DeTable<'_>, known: &[&str]) {
        for (key, _) in table.iter() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                self.fault(
                    key.span(),
                    format!("unknown key {name:?}: {}", suggestion(name, known)),
                );
            }
        }
    }

    fn config(&mut self, table: &DeTable<'_>) -> Option<Config> {
        self.strangers(table, &TOP);
        let schedulers = match table.get("schedulers") {
            Some(value) => self.strings(value, "schedulers"),
            None => {
                let message = "schedulers is missing: expected a list such as \
                               [\"https://scheduler-1:7440\"]";
                self.fault(0..0, message.to_owned());
                None
            }
        };
        let names = table
            .get("server_names")
            .map(|value| (value, self.strings(value, "server_names")));
        let tls = self.tls(table);
        let addresses = self.addresses(schedulers?, table.get("schedulers").map(Spanned::span));
        let names = match names {
            Some((value, Some(names))) if names.len() != addresses.len() => {
                let message = format!(
                    "server_names has {} names for {} schedulers: expected one for each",
                    names.len(),
                    addresses.len()
                );
                self.fault(value.span(), message);
                None
            }
            Some((_, names)) => names,
            None => None,
        };
        let named = |(at, address): (usize, Address)| {
            let given = names.as_ref().and_then(|names| names.get(at));
            let server_name = given.map_or(address.host().to_owned(), |name| name.0.clone());
            Replica {
                address,
                server_name,
            }
        };
        Some(Config {
            schedulers: addresses.into_iter().enumerate().map(named).collect(),
            tls: tls?,
        })
    }

    fn addresses(
        &mut self,
        texts: Vec<(String, Range<usize>)>,
        list: Option<Range<usize>>,
    ) -> Vec<Address> {
        if texts.is_empty() {
            let message = "schedulers is empty: expected at least one address".to_owned();
            self.fault(list.unwrap_or(0..0), message);
        }
        let mut addresses = vec![];
        for (text, span) in texts {
            match text.parse() {
                Ok(address) => addresses.push(address),
                Err(error) => self.fault(span, format!("{error}")),
            }
        }
        addresses
    }

    fn tls(&mut self, table: &DeTable<'_>) -> Option<TlsFiles> {
        let Some(value) = table.get("tls") else {
            let message = "[tls] is missing: expected ca, certificate and key".to_owned();
            self.fault(self.text.len()..self.text.len(), message);
            return None;
        };
        let DeValue::Table(inner) = value.get_ref() else {
            self.fault(value.span(), "tls: expected a table [tls]".to_owned());
            return None;
        };
        self.strangers(inner, &TLS);
        let [ca, certificate, key] = TLS.map(|key| match inner.get(key) {
            Some(file) => self.string(file, key).map(|(text, _)| PathBuf::from(text)),
            None => {
                let message = format!("tls.{key} is missing: expected the path of a PEM file");
                self.fault(value.span(), message);
                None
            }
        });
        Some(TlsFiles {
            ca: ca?,
            certificate: certificate?,
            key: key?,
        })
    }

    fn strings(&mut self, value: &Entry<'_>, key: &str) -> Option<Vec<(String, Range<usize>)>> {
        let DeValue::Array(items) = value.get_ref() else {
            self.fault(value.span(), format!("{key}: expected a list of strings"));
            return None;
        };
        items.iter().map(|item| self.string(item, key)).collect()
    }

    fn string(&mut self, value: &Entry<'_>, key: &str) -> Option<(String, Range<usize>)> {
        if let DeValue::String(text) = value.get_ref() {
            return Some((text.as_ref().to_owned(), value.span()));
        }
        self.fault(value.span(), format!("{key}: expected a string in quotes"));
        None
    }
}

/// "did you mean …" for a near miss, else everything that would do.
fn suggestion(given: &str, known: &[&str]) -> String {
    // With more than half of it mistyped, a suggestion would be a guess that misleads.
    let nearest = known
        .iter()
        .map(|name| (strsim::osa_distance(given, name), *name))
        .filter(|(distance, name)| distance * 2 <= name.len())
        .min();
    match nearest {
        Some((_, name)) => format!("did you mean {name:?}?"),
        None => format!("expected {}", known.join(", ")),
    }
}
