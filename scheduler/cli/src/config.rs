//! Where the schedulers are and who we are: the client's configuration file.
//!
//! Read by hand from the spanned TOML, so that every fault has its place and a suggestion; all faults of a
//! file are told at once. It does not look at the environment: `args` does that.

mod reader;

use std::fmt;
use std::path::{Path, PathBuf};

use evenkeel_proto::SCHEDULER_PORT;
use evenkeel_proto::identity::TlsFiles;

pub use reader::Fault;

/// The file used when none is named and the one in the home directory is not there.
const SYSTEM_FILE: &str = "/etc/evenkeel/evenkeel.toml";

/// What a file should look like, for those who have none.
const SAMPLE: &str = "\
  schedulers = [\"https://scheduler-1:7440\", \"https://scheduler-2:7440\"]
  [tls]
  ca = \"/etc/evenkeel/ca.pem\"
  certificate = \"/etc/evenkeel/operator.pem\"
  key = \"/etc/evenkeel/operator.key\"";

/// The client's configuration, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Every replica, with the name its certificate must carry.
    pub schedulers: Vec<Replica>,
    /// Our certificate and key, and the authority that we trust.
    pub tls: TlsFiles,
}

/// One replica of the scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Where it listens.
    pub address: Address,
    /// What its certificate must be for.
    pub server_name: String,
}

/// Where a scheduler listens: host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// The host part as a certificate names it: an IPv6 address has no brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl std::str::FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress(text.chars().take(80).collect());
        let rest = match text.split_once("://") {
            Some(("https", rest)) => rest,
            Some(_) => return Err(invalid()),
            None => text,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = if let Some(inner) = rest.strip_prefix('[') {
            let (host, behind) = inner.split_once(']').ok_or_else(invalid)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| invalid())?;
            (
                host,
                behind.strip_prefix(':').or(behind.is_empty().then_some("")),
            )
        } else {
            let (host, port) = rest.split_once(':').unwrap_or((rest, ""));
            (host, Some(port))
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(plain) {
            return Err(invalid());
        }
        let port = match port.ok_or_else(invalid)? {
            "" => SCHEDULER_PORT,
            digits => digits.parse().map_err(|_| invalid())?,
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// A text that is no scheduler's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address of a scheduler: expected https://HOST:PORT")]
pub struct InvalidAddress(pub String);

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// None was named and none is where one is looked for.
    #[error("no configuration in {}; write one, or name it with --config:\n{SAMPLE}", looked_in.join(" or "))]
    Missing {
        /// Where it was looked for.
        looked_in: Vec<String>,
    },
    /// It cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It says something wrong.
    #[error("{}", Faults(.0))]
    Wrong(Vec<Fault>),
    /// A certificate, key or authority cannot be read.
    #[error(transparent)]
    Tls(#[from] evenkeel_proto::identity::TlsFileError),
    /// A certificate, key or authority is not what it should be.
    #[error("the [tls] files of {path} cannot be used")]
    Unusable {
        /// The configuration file.
        path: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
}

struct Faults<'a>(&'a [Fault]);

impl fmt::Display for Faults<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.0.iter().enumerate() {
            let gap = if at == 0 { "" } else { "\n" };
            write!(f, "{gap}{fault}")?;
        }
        Ok(())
    }
}

impl Config {
    /// Reads and checks a file. TLS files with a relative path are looked for beside it.
    ///
    /// # Errors
    /// When it cannot be read, and with every fault found in it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: shown.clone(),
            source,
        })?;
        let mut config = reader::read(&shown, &text).map_err(ConfigError::Wrong)?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        for file in [
            &mut config.tls.ca,
            &mut config.tls.certificate,
            &mut config.tls.key,
        ] {
            *file = folder.join(&*file);
        }
        Ok(config)
    }
}

/// The file to read: the one named, else the first that exists of the home directory's and the system's.
///
/// # Errors
/// When none is named and none exists.
pub fn locate(named: Option<&Path>, home: Option<&Path>) -> Result<PathBuf, ConfigError> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let mut candidates: Vec<PathBuf> = vec![];
    candidates.extend(home.map(|home| home.join(".config/evenkeel.toml")));
    candidates.push(PathBuf::from(SYSTEM_FILE));
    let looked_in = candidates
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let found = candidates.into_iter().find(|path| path.exists());
    found.ok_or(ConfigError::Missing { looked_in })
}

#[cfg(test)]
mod tests;
