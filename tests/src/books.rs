//! libvirt's own books about a guest, where a hand-over can be watched step by step. They are files that a libvirtd
//! writes before each step, for itself to read should it die: reading them disturbs nothing and takes no time.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use crate::Lab;

/// Where a host's libvirtd keeps the books of one guest.
#[derive(Debug, Clone)]
pub struct Books(PathBuf);

/// What the books say; all empty: the guest is not active there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// `running`, `paused` …
    pub state: String,
    /// `perform3`, `perform3_done`, `confirm3` at a source; `prepare`, `finish3` at a target; empty: no migration.
    pub phase: String,
}

impl Lab {
    /// The books of `guest` on `host`; they can be read until the host loses power.
    #[must_use]
    pub fn books(&self, host: &str, guest: &str) -> Books {
        let inits = self.processes(host, &["bash", "node-init.sh"]);
        let init = inits.first().map_or(0, |pid| pid.as_raw_nonzero().get());
        Books(format!("/proc/{init}/root/run/libvirt/qemu/{guest}.xml").into())
    }
}

impl Books {
    /// What they say now.
    #[must_use]
    pub fn read(&self) -> Entry {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let of = |element: &str, attribute: &str| {
            let (_, rest) = text.split_once(&format!("<{element} "))?;
            let (attributes, _) = rest.split_once('>')?;
            let (_, value) = attributes.split_once(&format!("{attribute}='"))?;
            value.split_once('\'').map(|(value, _)| value.to_owned())
        };
        let is_migration = of("job", "async").is_some_and(|job| job.starts_with("migration"));
        Entry {
            state: of("domstatus", "state").unwrap_or_default(),
            phase: of("job", "phase")
                .filter(|_| is_migration)
                .unwrap_or_default(),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.state.as_str(), self.phase.as_str()) {
            ("", _) => f.write_str("nothing"),
            (state, "") => f.write_str(state),
            (state, phase) => write!(f, "{state} {phase}"),
        }
    }
}
