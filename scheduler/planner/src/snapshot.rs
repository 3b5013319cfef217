//! One moment of a fleet: the `evenkeel.snapshot/1` format.
//!
//! Written by `evenkeel snapshot` and by the controller, read by everything that plans. Reading checks
//! the values ([`Snapshot::validate`]); planning does so again, because a snapshot can be built in memory.
//! What the planner concludes from a snapshot stands elsewhere: this module only holds it.

mod flights;
mod locate;
mod validate;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::constants::PEAK_CORRELATION;
pub use validate::{SnapshotError, SnapshotFault};

/// The value of `schema` that this version reads and writes.
pub const SCHEMA: &str = "evenkeel.snapshot/1";

/// A fleet at one moment. Unknown keys are ignored when it is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The cluster's name.
    #[serde(default)]
    pub cluster: String,
    /// When the values were true; cool-downs are judged at this time.
    pub taken_at: Timestamp,
    /// ρ: how far the guests' demands rise together, 0–1, as learned from host sums; at least 0.1 is used.
    #[serde(
        default = "known_correlation",
        skip_serializing_if = "is_known_correlation"
    )]
    pub peak_correlation: f64,
    /// Every known host, also silent ones.
    #[serde(default)]
    pub hosts: Vec<Host>,
    /// Every guest, each on one of `hosts`.
    #[serde(default)]
    pub guests: Vec<Guest>,
    /// Migrations that are running now; they are counted on both hosts.
    #[serde(default)]
    pub in_flight: Vec<InFlight>,
}

/// What may be done with a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// Takes and gives guests.
    #[default]
    Active,
    /// Takes no new guests, keeps its own.
    Cordoned,
    /// Takes no new guests and must lose its own.
    Draining,
    /// Silent: nothing is known about it, nothing is done to it.
    Absent,
}

impl HostState {
    /// The name in the snapshot format.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
            Self::Absent => "absent",
        }
    }
}

/// A physical machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Unique in the snapshot.
    pub name: String,
    /// What may be done with it.
    #[serde(default)]
    pub state: HostState,
    /// Cores offered to guests, after the host's own reserve.
    pub cpu_cores: f64,
    /// Memory offered to guests, MiB, after the host's own reserve.
    #[serde(deserialize_with = "mib")]
    pub memory_mib: u64,
    /// Free labels such as `rack`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What the migration link really gives, MiB/s.
    #[serde(default = "default_bandwidth")]
    pub migration_bandwidth_mib_s: f64,
    /// Hosts of one class take each other's guests.
    #[serde(default)]
    pub cpu_class: String,
    /// Networks present here; empty means not restricted.
    #[serde(default)]
    pub networks: Vec<String>,
    /// Storage reachable from here; empty means not restricted.
    #[serde(default)]
    pub storage: Vec<String>,
    /// Measured pressure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
    /// CPU used by the host's own threads, cores; when absent 2 % of the cores are assumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_cpu_cores: Option<f64>,
    /// Measured over predicted CPU loss, smoothed; held within 0.5–2 when used. 1 where nothing is known.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub calibration: f64,
    /// The same of the memory loss, by memory pressure.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub memory_calibration: f64,
    /// Whether shut-off guests have to leave it, too, while it is draining.
    #[serde(default, skip_serializing_if = "is_false")]
    pub offline_too: bool,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            name: String::new(),
            state: HostState::Active,
            cpu_cores: 0.0,
            memory_mib: 0,
            labels: BTreeMap::new(),
            migration_bandwidth_mib_s: default_bandwidth(),
            cpu_class: String::new(),
            networks: Vec::new(),
            storage: Vec::new(),
            pressure: None,
            own_cpu_cores: None,
            calibration: 1.0,
            memory_calibration: 1.0,
            offline_too: false,
        }
    }
}

/// Pressure stall information of a host: fractions of time, 0–1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Pressure {
    /// Some task waited for a CPU.
    pub cpu_some: f64,
    /// Some task waited for memory.
    pub memory_some: f64,
    /// All tasks waited for memory.
    pub memory_full: f64,
    /// Some task waited for IO.
    pub io_some: f64,
    /// All tasks waited for IO.
    pub io_full: f64,
}

/// Whether a guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestState {
    /// Runs: uses CPU and memory.
    #[default]
    Running,
    /// Holds its memory, uses no CPU.
    Paused,
    /// Holds neither memory nor CPU but obeys rules.
    Shutoff,
}

impl GuestState {
    /// The name in the snapshot format.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Shutoff => "shutoff",
        }
    }
}

/// Why a host did not take a guest, and for how long that is believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedBy {
    /// The refusal's name, as `evenkeel migrations` shows it.
    pub reason: String,
    /// Until when.
    pub until: Timestamp,
}

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Guest {
    /// Unique in the snapshot.
    pub name: String,
    /// libvirt's UUID, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// The host it is on.
    pub host: String,
    /// Whether it runs.
    #[serde(default)]
    pub state: GuestState,
    /// Number of virtual CPUs.
    #[serde(default = "one_vcpu")]
    pub vcpus: u32,
    /// CPU demand, cores: run time and run delay over elapsed time.
    #[serde(default)]
    pub cpu_demand_cores: f64,
    /// Standard deviation of the demand over the horizon, cores.
    #[serde(default)]
    pub cpu_demand_stddev_cores: f64,
    /// Most CPU it may use (its quota), cores; when absent all of its vCPUs. Demand above it is throttled and
    /// not starved: no move would help, so it does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_limit_cores: Option<f64>,
    /// Memory it may use, MiB.
    #[serde(deserialize_with = "mib")]
    pub memory_mib: u64,
    /// Working set, MiB; when absent all of `memory_mib`.
    #[serde(
        default,
        deserialize_with = "optional_mib",
        skip_serializing_if = "Option::is_none"
    )]
    pub memory_active_mib: Option<u64>,
    /// Rate at which it dirties memory, MiB/s.
    #[serde(default)]
    pub dirty_rate_mib_s: f64,
    /// Local disks that must be copied when it moves, MiB.
    #[serde(default, deserialize_with = "mib")]
    pub local_disk_mib: u64,
    /// Networks that the target must have.
    #[serde(default)]
    pub networks: Vec<String>,
    /// Storage that the target must reach.
    #[serde(default)]
    pub storage: Vec<String>,
    /// Free labels that rules can select.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The group named in its metadata; rules select it as the label `group`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Whether it can be migrated at all.
    #[serde(default = "yes")]
    pub movable: bool,
    /// Why not, when it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmovable_reason: Option<String>,
    /// CPU classes that take it; empty means its host's class.
    #[serde(default)]
    pub cpu_classes: Vec<String>,
    /// Measured curve of unique dirty memory: `[seconds, MiB]` points; empty means `dirty_rate_mib_s`.
    #[serde(default)]
    pub dirty_curve: Vec<(f64, f64)>,
    /// It rests until then after a move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown_until: Option<Timestamp>,
    /// Hosts that it has left: until then it does not return there for gain.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_lately: BTreeMap<String, Timestamp>,
    /// Hosts whose agents refused it lately: until then it is not sent there but by hand.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused_by: BTreeMap<String, RefusedBy>,
    /// Its last copy did not converge: until then it is not moved for gain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconverged_until: Option<Timestamp>,
    /// Its last moves off a draining host came to nothing: it is not tried again before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Timestamp>,
    /// The owner's word on its weight against others. Carried for people and later versions: plans do not
    /// look at it yet.
    #[serde(default)]
    pub priority: i32,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            name: String::new(),
            uuid: None,
            host: String::new(),
            state: GuestState::Running,
            vcpus: 1,
            cpu_demand_cores: 0.0,
            cpu_demand_stddev_cores: 0.0,
            cpu_limit_cores: None,
            memory_mib: 0,
            memory_active_mib: None,
            dirty_rate_mib_s: 0.0,
            local_disk_mib: 0,
            networks: Vec::new(),
            storage: Vec::new(),
            labels: BTreeMap::new(),
            group: None,
            movable: true,
            unmovable_reason: None,
            cpu_classes: Vec::new(),
            dirty_curve: Vec::new(),
            cooldown_until: None,
            left_lately: BTreeMap::new(),
            refused_by: BTreeMap::new(),
            unconverged_until: None,
            retry_after: None,
            priority: 0,
        }
    }
}

impl Guest {
    /// What the guest is known by across snapshots: its UUID, or its name where it has none.
    #[must_use]
    pub fn key(&self) -> &str {
        self.uuid.as_deref().unwrap_or(&self.name)
    }

    /// What counts of its demand: all of it, at most its quota. Cores.
    #[must_use]
    pub fn demand_cores(&self) -> f64 {
        let limit = self.cpu_limit_cores.unwrap_or(f64::INFINITY);
        self.cpu_demand_cores.min(limit)
    }

    /// Working set, MiB.
    #[must_use]
    pub fn active_mib(&self) -> u64 {
        self.memory_active_mib.unwrap_or(self.memory_mib)
    }

    /// The value of a label, the metadata's group counting as the label `group`.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        let group = if key == "group" {
            self.group.as_deref()
        } else {
            None
        };
        self.labels.get(key).map(String::as_str).or(group)
    }
}

/// A migration that is running when the snapshot is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// The guest's name.
    pub guest: String,
    /// The host it leaves.
    pub from: String,
    /// The host it goes to.
    pub to: String,
}

impl Snapshot {
    /// An empty snapshot of a cluster.
    #[must_use]
    pub fn new(cluster: &str, taken_at: Timestamp) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            cluster: cluster.to_owned(),
            taken_at,
            peak_correlation: PEAK_CORRELATION,
            hosts: Vec::new(),
            guests: Vec::new(),
            in_flight: Vec::new(),
        }
    }

    /// Reads and validates the JSON format.
    ///
    /// # Errors
    /// When the text is no such JSON, is of another schema, or holds a value that cannot be true.
    pub fn from_json(text: &str) -> Result<Self, SnapshotError> {
        // Some editors write a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let read = serde_json::from_str(text);
        let snapshot: Self = read.map_err(|error| validate::unreadable(&error))?;
        snapshot.validate_text(Some(text))?;
        Ok(snapshot)
    }

    /// The snapshot as indented JSON, ending in a newline.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Only a non-finite float could fail to be written, and serde_json writes those as null.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The host of that name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|h| h.name == name)
    }

    /// The guest of that name or UUID.
    #[must_use]
    pub fn guest(&self, name_or_uuid: &str) -> Option<&Guest> {
        let by_name = self.guests.iter().find(|g| g.name == name_or_uuid);
        by_name.or_else(|| self.guests.iter().find(|g| g.key() == name_or_uuid))
    }
}

fn default_bandwidth() -> f64 {
    1000.0
}

fn known_correlation() -> f64 {
    PEAK_CORRELATION
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_known_correlation(value: &f64) -> bool {
    (*value - PEAK_CORRELATION).abs() < f64::EPSILON
}

fn one() -> f64 {
    1.0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_one(value: &f64) -> bool {
    (*value - 1.0).abs() < f64::EPSILON
}

fn one_vcpu() -> u32 {
    1
}

fn yes() -> bool {
    true
}

/// MiB as any JSON number: some tools write whole numbers as floats. Fractions round up.
fn mib<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    optional_mib(from)?.ok_or_else(|| serde::de::Error::custom("null is not a size in MiB"))
}

fn optional_mib<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(from)? else {
        return Ok(None);
    };
    if let Some(whole) = number.as_u64() {
        return Ok(Some(whole));
    }
    let bad = || serde::de::Error::custom(format!("{number} is not a size in MiB"));
    let value = number
        .as_f64()
        .filter(|v| (0.0..=validate::MAX_MIB).contains(v))
        .ok_or_else(bad)?;
    Ok(Some(crate::num::round_bytes(value.ceil())))
}
