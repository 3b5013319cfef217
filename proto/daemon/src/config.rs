//! Layered configuration: file < drop-ins < environment < flags, strict, with the place of every fault.
//!
//! A daemon describes its file as a serde struct with `deny_unknown_fields` and loads it with [`load`]. All
//! layers are merged as TOML tables first; each key remembers where it came from, so that a fault found
//! anywhere later (type, unknown key, range) names file, line and column, variable or flag.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_proto::identity::TlsFiles;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

/// Prefix of environment variables; `EVENKEEL_LISTEN__GRPC` sets `listen.grpc`.
const ENV_PREFIX: &str = "EVENKEEL_";
/// Variables with the prefix that are not configuration keys.
const ENV_RESERVED: [&str; 3] = ["EVENKEEL_CONFIG", "EVENKEEL_LOG", "EVENKEEL_LOG_FORMAT"];

/// The flags every daemon has.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file; `FILE.d/*.toml` are read after it
    #[arg(long, value_name = "FILE", env = "EVENKEEL_CONFIG")]
    pub config: PathBuf,
    /// Override one key, for example `--set listen.grpc=10.0.0.1:7441`
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Check the configuration and exit
    #[arg(long)]
    pub check_config: bool,
    /// Print the configuration with the origin of each value and exit
    #[arg(long)]
    pub print_config: bool,
}

/// A fault in the configuration: where, what, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A value, key or piece of syntax is wrong.
    #[error("{place}: {message}{excerpt}")]
    Fault {
        /// `file:line:column`, a variable's or a flag's name.
        place: String,
        /// What is wrong and what would be right.
        message: String,
        /// The line with a caret under the fault, if it stands in a file.
        excerpt: String,
    },
}

/// Where a layer came from, with its text if it has lines.
#[derive(Debug, Clone)]
enum Origin {
    File { path: PathBuf, text: String },
    Variable(String),
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(text) => write!(f, "flag --set {text}"),
        }
    }
}

/// A configuration and the origin of each of its keys.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The merged configuration.
    pub value: T,
    layers: Layers,
}

#[derive(Debug, Default)]
struct Layers {
    merged: Table,
    origins: BTreeMap<String, Origin>,
    main: PathBuf,
}

/// Reads all layers and deserialises the result.
///
/// # Errors
/// When a file cannot be read, or any layer holds something wrong.
pub fn load<T: DeserializeOwned>(args: &ConfigArgs) -> Result<Loaded<T>, ConfigError> {
    let variables = std::env::vars_os()
        // Variables that are not UTF-8 are none of ours.
        .filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with(ENV_PREFIX) && !ENV_RESERVED.contains(&name.as_str()));
    load_from(&args.config, variables, &args.set)
}

fn load_from<T: DeserializeOwned>(
    file: &Path,
    variables: impl Iterator<Item = (String, String)>,
    sets: &[String],
) -> Result<Loaded<T>, ConfigError> {
    let mut layers = Layers {
        main: file.to_owned(),
        ..Layers::default()
    };
    layers.add_file(file)?;
    for drop_in in drop_ins(file)? {
        layers.add_file(&drop_in)?;
    }
    for (name, text) in variables {
        let key = name[ENV_PREFIX.len()..]
            .to_ascii_lowercase()
            .replace("__", ".");
        layers.add_text(&key, &text, &Origin::Variable(name));
    }
    for set in sets {
        let origin = Origin::Flag(set.clone());
        let Some((key, text)) = set.split_once('=') else {
            let message = "expected KEY=VALUE".to_owned();
            return Err(ConfigError::Fault {
                place: origin.to_string(),
                message,
                excerpt: String::new(),
            });
        };
        layers.add_text(key.trim(), text.trim(), &origin);
    }
    let merged = Value::Table(layers.merged.clone());
    match serde_path_to_error::deserialize(merged) {
        Ok(value) => Ok(Loaded { value, layers }),
        Err(error) => {
            let path = error.path().to_string();
            Err(layers.fault(&path, error.inner().message()))
        }
    }
}

fn drop_ins(file: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let mut folder = file.as_os_str().to_owned();
    folder.push(".d");
    let folder = PathBuf::from(folder);
    let listing = match std::fs::read_dir(&folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(source) => {
            return Err(ConfigError::Unreadable {
                path: folder,
                source,
            });
        }
    };
    let mut files: Vec<PathBuf> = listing
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "toml"))
        .collect();
    files.sort();
    Ok(files)
}

impl Layers {
    fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let origin = Origin::File {
            path: path.to_owned(),
            text: text.clone(),
        };
        let table: Table = toml::from_str(&text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            fault_in_file(path, &text, at, error.message())
        })?;
        self.merge(table, &origin);
        Ok(())
    }

    /// Adds one key given as text: a TOML value if it parses as one, else a string.
    fn add_text(&mut self, key: &str, text: &str, origin: &Origin) {
        let value = toml::from_str::<Table>(&format!("value = {text}"))
            .ok()
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(|| Value::String(text.to_owned()));
        let nested = key.rsplit('.').fold(value, |inner, part| {
            Value::Table(Table::from_iter([(part.to_owned(), inner)]))
        });
        if let Value::Table(table) = nested {
            self.merge(table, origin);
        }
    }

    fn merge(&mut self, table: Table, origin: &Origin) {
        merge_into(&mut self.merged, table, "", origin, &mut self.origins);
    }

    /// A fault at `path` (dotted), placed where the key stands or, if it is missing, its parent.
    fn fault(&self, path: &str, message: &str) -> ConfigError {
        let mut known = path;
        let origin = loop {
            if let Some(origin) = self.origins.get(known) {
                break Some(origin);
            }
            // `endpoints[1]` has its place where `endpoints` stands.
            match known.rsplit_once(['.', '[']) {
                Some((parent, _)) => known = parent,
                None => break None,
            }
        };
        let message = if path == "." || path.is_empty() {
            message.to_owned()
        } else {
            format!("{path}: {message}")
        };
        match origin {
            Some(Origin::File { path: file, text }) => {
                let at = position_of(text, known).unwrap_or(0);
                fault_in_file(file, text, at, &message)
            }
            Some(other) => ConfigError::Fault {
                place: other.to_string(),
                message,
                excerpt: String::new(),
            },
            None => ConfigError::Fault {
                place: self.main.display().to_string(),
                message,
                excerpt: String::new(),
            },
        }
    }
}

fn merge_into(
    base: &mut Table,
    over: Table,
    prefix: &str,
    origin: &Origin,
    origins: &mut BTreeMap<String, Origin>,
) {
    for (key, value) in over {
        let path = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}.{key}")
        };
        origins.insert(path.clone(), origin.clone());
        match (base.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => {
                merge_into(below, above, &path, origin, origins);
            }
            (_, Value::Table(above)) => {
                let mut fresh = Table::new();
                merge_into(&mut fresh, above, &path, origin, origins);
                base.insert(key, Value::Table(fresh));
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Byte offset of the key at dotted `path` in `text`.
fn position_of(text: &str, path: &str) -> Option<usize> {
    let parsed = DeTable::parse(text).ok()?;
    let mut table = parsed.into_inner();
    let mut at = None;
    for part in path.split('.') {
        let (key, value) = table.into_iter().find(|(key, _)| key.get_ref() == part)?;
        at = Some(key.span().start);
        let DeValue::Table(inner) = Spanned::into_inner(value) else {
            table = DeTable::new();
            continue;
        };
        table = inner;
    }
    at
}

fn fault_in_file(path: &Path, text: &str, at: usize, message: &str) -> ConfigError {
    let at = at.min(text.len());
    let before = text.get(..at).unwrap_or("");
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    let column = before[start..].chars().count() + 1;
    let shown = text[start..].lines().next().unwrap_or("");
    let caret = format!("{}^", " ".repeat(column - 1));
    ConfigError::Fault {
        place: format!("{}:{line}:{column}", path.display()),
        message: message.to_owned(),
        excerpt: format!(
            "\n  {line} | {shown}\n  {} | {caret}",
            " ".repeat(line.to_string().len())
        ),
    }
}

impl<T> Loaded<T> {
    /// A fault in the value at `path` (dotted), for what only the daemon can judge, such as a range.
    #[must_use]
    pub fn fault(&self, path: &str, message: &str) -> ConfigError {
        self.layers.fault(path, message)
    }

    /// Every key with its value and origin, a line each, as `--print-config` shows it.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut out = String::new();
        describe_into(&self.layers.merged, "", &self.layers.origins, &mut out);
        out
    }
}

fn describe_into(
    table: &Table,
    prefix: &str,
    origins: &BTreeMap<String, Origin>,
    out: &mut String,
) {
    for (key, value) in table {
        let path = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}.{key}")
        };
        if let Value::Table(inner) = value {
            describe_into(inner, &path, origins, out);
        } else {
            let origin = origins
                .get(&path)
                .map(ToString::to_string)
                .unwrap_or_default();
            out.push_str(&format!("{path} = {value}  # {origin}\n"));
        }
    }
}

/// A duration written as `"500ms"`, `"30s"`, `"5m"`, `"2h"` or `"1d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || format!("{text:?} is no duration: expected a number and ms, s, m, h or d");
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .ok_or_else(expected)?;
        let number: u64 = text[..digits].parse().map_err(|_| expected())?;
        let unit_ms = match &text[digits..] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(expected()),
        };
        let ms = number.checked_mul(unit_ms).ok_or_else(expected)?;
        Ok(Self(Duration::from_millis(ms)))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// `[etcd]`: where etcd is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdSection {
    /// `https://host:port`, one per member.
    pub endpoints: Vec<String>,
}

impl EtcdSection {
    /// What is wrong with the endpoints, and what would be right; every connection is TLS.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if self.endpoints.is_empty() {
            return Some("expected at least one https://host:port".to_owned());
        }
        let plain = self.endpoints.iter().find(|e| !e.starts_with("https://"))?;
        Some(format!("{plain:?}: expected https://host:port"))
    }
}

/// `[tls]`: who we are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSection {
    /// PEM of the authority.
    pub ca: PathBuf,
    /// PEM of our certificate.
    pub certificate: PathBuf,
    /// PEM of our key.
    pub key: PathBuf,
}

impl From<TlsSection> for TlsFiles {
    fn from(section: TlsSection) -> Self {
        Self {
            ca: section.ca,
            certificate: section.certificate,
            key: section.key,
        }
    }
}

#[cfg(test)]
mod tests;
