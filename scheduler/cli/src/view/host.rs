//! Hosts: `evenkeel.hosts/1` and `evenkeel.host/1`.

use evenkeel_proto::v1;
use serde::Serialize;

use super::{Drain, Guest, Intent, some_text};

/// `evenkeel.hosts/1`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hosts {
    /// Always `evenkeel.hosts/1`.
    pub schema: &'static str,
    /// The hosts, in the order asked for.
    pub hosts: Vec<Host>,
}

/// `evenkeel.host/1`: one host and its guests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HostDetail {
    /// Always `evenkeel.host/1`.
    pub schema: &'static str,
    /// The host.
    pub host: Host,
    /// The guests on it, by name.
    pub guests: Vec<Guest>,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// active, cordoned, draining, absent, or unusable: it reports, and its data cannot be used.
    pub state: String,
    /// Whether its libvirt answers.
    pub libvirt_up: Option<bool>,
    /// Offered to guests.
    pub cpu_cores: f64,
    /// What its guests would use uncontended.
    pub cpu_demand_cores: f64,
    /// What the host uses.
    pub cpu_used_cores: Option<f64>,
    /// Offered to guests.
    pub memory_mib: u64,
    /// Given to its guests.
    pub memory_allocated_mib: u64,
    /// How much of the time something waited; null where the kernel does not say.
    pub pressure: Option<Pressure>,
    /// Guests on it.
    pub guests: u32,
    /// Guest-seconds lost per second.
    pub loss_guest_seconds_per_second: f64,
    /// Migrations from and to it that run now.
    pub migrations_running: Option<u32>,
    /// Age of what is known of it.
    pub report_age_ms: Option<i64>,
    /// Where its agent listens.
    pub agent_address: Option<String>,
    /// Its agent's version.
    pub agent_version: Option<String>,
    /// What keeps two guests from one disk by its libvirt's configuration: lockd, sanlock, off, or unknown where that
    /// cannot be read; null: its agent is too old to say.
    pub disk_locks: Option<String>,
    /// What is wrong with its measuring.
    pub troubles: Vec<String>,
    /// What operators want of it; null: nothing special.
    pub intent: Option<Intent>,
    /// How its drain stands; null: it is not being drained.
    pub drain: Option<Drain>,
}

/// Stalled shares of time in basis points (10000 = always).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Pressure {
    /// Something waited for a CPU.
    pub cpu_some_bp: u32,
    /// Something waited for memory.
    pub memory_some_bp: u32,
    /// Everything waited for memory.
    pub memory_full_bp: u32,
    /// Something waited for IO.
    pub io_some_bp: u32,
    /// Everything waited for IO.
    pub io_full_bp: u32,
}

impl Hosts {
    /// A list of hosts.
    #[must_use]
    pub fn new(hosts: Vec<Host>) -> Self {
        Self {
            schema: "evenkeel.hosts/1",
            hosts,
        }
    }

    /// Without what changes although nothing happens.
    #[must_use]
    pub fn steady(mut self) -> Self {
        self.hosts
            .iter_mut()
            .for_each(|host| host.report_age_ms = None);
        self
    }
}

impl HostDetail {
    /// One host; of `guests` those on it are kept.
    #[must_use]
    pub fn new(host: Host, mut guests: Vec<Guest>) -> Self {
        guests.retain(|guest| guest.host == host.name);
        guests.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            schema: "evenkeel.host/1",
            host,
            guests,
        }
    }
}

impl From<v1::HostView> for Host {
    fn from(host: v1::HostView) -> Self {
        let pressure = host.pressure.filter(|pressure| pressure.available);
        let disk_locks = match v1::DiskLocks::try_from(host.disk_locks) {
            Ok(v1::DiskLocks::Unspecified) => None,
            Ok(v1::DiskLocks::Off) => Some("off"),
            Ok(v1::DiskLocks::Lockd) => Some("lockd"),
            Ok(v1::DiskLocks::Sanlock) => Some("sanlock"),
            Ok(v1::DiskLocks::Unknown) | Err(_) => Some("unknown"),
        };
        // Nothing stands behind the figures of a silent host.
        let silent = host.state == "absent";
        Self {
            name: host.name,
            state: host.state,
            libvirt_up: (!silent).then_some(host.libvirt_up),
            cpu_cores: host.cpu_cores,
            cpu_demand_cores: host.cpu_demand_cores,
            cpu_used_cores: (!silent).then_some(host.cpu_used_cores),
            memory_mib: host.memory_mib,
            memory_allocated_mib: host.memory_allocated_mib,
            pressure: pressure.filter(|_| !silent).map(Into::into),
            guests: host.guests,
            loss_guest_seconds_per_second: host.loss,
            migrations_running: Some(host.migrations_running),
            report_age_ms: (host.report_age_ms >= 0).then_some(host.report_age_ms),
            agent_address: some_text(host.agent_address),
            agent_version: some_text(host.agent_version),
            disk_locks: disk_locks.map(str::to_owned),
            troubles: host.troubles,
            intent: host.intent.map(Into::into),
            drain: host.drain.map(Into::into),
        }
    }
}

impl From<v1::Pressure> for Pressure {
    fn from(pressure: v1::Pressure) -> Self {
        Self {
            cpu_some_bp: pressure.cpu_some_bp,
            memory_some_bp: pressure.memory_some_bp,
            memory_full_bp: pressure.memory_full_bp,
            io_some_bp: pressure.io_some_bp,
            io_full_bp: pressure.io_full_bp,
        }
    }
}
