//! Typed values of what stands in etcd. Generated messages are kept only where they are passed on whole.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_proto::order::Order;
use evenkeel_proto::v1;
use evenkeel_types::{GuestId, HostName, MigrationState};

/// What a host is.
#[derive(Debug, Clone, PartialEq)]
pub struct HostFacts {
    /// Its name.
    pub name: HostName,
    /// `host:port` of its agent.
    pub agent_address: String,
    /// Version of its agent.
    pub agent_version: String,
    /// Cores offered to guests.
    pub cpu_cores: f64,
    /// Memory offered to guests, MiB.
    pub memory_mib: u64,
    /// Class of CPU.
    pub cpu_class: String,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Networks and bridges.
    pub networks: Vec<String>,
    /// Storage identities.
    pub storage: Vec<String>,
    /// What its migration link gives, MiB/s; `None`: not known.
    pub migration_bandwidth_mib_s: Option<f64>,
    /// Whether its libvirt takes locks on disks.
    pub disk_locks: v1::DiskLocks,
}

/// What a host measures.
#[derive(Debug, Clone, PartialEq)]
pub struct HostReport {
    /// Revision of its key: what was written at a lower one, the host had not reported after.
    pub revision: i64,
    /// Counts reports of one agent process.
    pub sequence: u64,
    /// When, by the host's clock.
    pub measured_at_ms: i64,
    /// Whether libvirt answers there.
    pub libvirt_up: bool,
    /// CPU used by guests, cores.
    pub guests_cpu_cores: f64,
    /// CPU used by everything, cores.
    pub host_cpu_cores: f64,
    /// Stalled shares of time, basis points.
    pub pressure: v1::Pressure,
    /// Its guests.
    pub guests: Vec<GuestReading>,
    /// Migrations that touch it, also foreign ones.
    pub migrations_running: u32,
    /// What is wrong with measuring, by name.
    pub troubles: Vec<String>,
}

/// Whether a reported guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// Runs.
    Running,
    /// Paused.
    Paused,
    /// Defined only.
    ShutOff,
    /// The half of a migration that is coming in: no guest yet.
    Incoming,
}

/// What is measured of a guest.
#[derive(Debug, Clone, PartialEq)]
pub struct GuestReading {
    /// Its id.
    pub id: GuestId,
    /// libvirt's name.
    pub name: String,
    /// Whether it runs.
    pub state: RunState,
    /// vCPUs.
    pub vcpus: u32,
    /// CPU used, cores.
    pub cpu_used_cores: f64,
    /// CPU asked for and not given, cores.
    pub cpu_delay_cores: f64,
    /// Most CPU it may use, cores.
    pub cpu_limit_cores: f64,
    /// Memory it may use, MiB.
    pub memory_mib: u64,
    /// Resident memory, MiB.
    pub memory_rss_mib: u64,
    /// In use by its own account, MiB; `None`: it does not say.
    pub memory_used_mib: Option<u64>,
    /// Dirty rate of the last sample that was taken for anyone, MiB/s; `None`: none was.
    pub dirty_rate_mib_s: Option<f64>,
    /// Seconds, and unique MiB changed within them; empty: not measured lately.
    pub dirty_curve: Vec<(f64, f64)>,
    /// What hinders a migration, by name.
    pub hindrances: Vec<String>,
    /// Networks it needs.
    pub networks: Vec<String>,
    /// Storage it needs.
    pub storage: Vec<String>,
    /// Identities of the disks that it writes to and that other hosts reach.
    pub written_disks: Vec<String>,
    /// Whether a migration takes it away, ours or not.
    pub migrating_out: bool,
    /// Disks to be copied, MiB.
    pub local_disk_mib: u64,
    /// Measured during a migration.
    pub during_migration: bool,
    /// Group of its metadata.
    pub group: Option<String>,
    /// Labels of its metadata.
    pub labels: BTreeMap<String, String>,
    /// Priority of its metadata.
    pub priority: i32,
}

/// What operators want of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntentKind {
    /// It takes no new guests.
    Cordon,
    /// The same, and its guests have to go.
    Drain,
}

/// An intent in etcd.
#[derive(Debug, Clone, PartialEq)]
pub struct IntentEntry {
    /// What is wanted.
    pub kind: IntentKind,
    /// The whole intent; by whom, why, since when.
    pub message: v1::Intent,
    /// Revision of its key, for guarded replacement.
    pub mod_revision: i64,
}

impl IntentEntry {
    /// An intent that stands at a revision; of a kind that is not known it closes the host at least.
    #[must_use]
    pub fn new(message: v1::Intent, mod_revision: i64) -> Self {
        let kind = match message.kind() {
            v1::IntentKind::Drain => IntentKind::Drain,
            v1::IntentKind::Cordon | v1::IntentKind::Unspecified => IntentKind::Cordon,
        };
        Self {
            kind,
            message,
            mod_revision,
        }
    }
}

/// An order in etcd.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderEntry {
    /// The order.
    pub order: Order,
    /// Revision of its key, for guarded removal.
    pub mod_revision: i64,
}

/// A journal in etcd.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalEntry {
    /// The order it belongs to.
    pub order: Order,
    /// Where the migration stands.
    pub state: MigrationState,
    /// The whole journal, for people.
    pub message: v1::Journal,
    /// Revision of its key, for guarded decisions.
    pub mod_revision: i64,
}

/// What is remembered of a guest.
#[derive(Debug, Clone, PartialEq)]
pub struct Remembered {
    /// It rests until then, milliseconds since the Unix epoch.
    pub cooldown_until_ms: i64,
    /// Ended moves, oldest first.
    pub moves: Vec<Past>,
    /// The whole record, to be written back with additions.
    pub message: v1::GuestRecord,
    /// Revision of its key, for guarded replacement.
    pub mod_revision: i64,
}

/// One ended move of a guest.
#[derive(Debug, Clone, PartialEq)]
pub struct Past {
    /// Where it was.
    pub source: String,
    /// Where it was to go.
    pub target: String,
    /// When it ended, milliseconds since the Unix epoch.
    pub ended_ms: i64,
    /// What started it: `drain` …, as in its order.
    pub trigger: String,
    /// How; `None` if a newer version wrote something we do not know.
    pub state: Option<MigrationState>,
    /// The longest pause that its copy was allowed; none: an older version wrote this.
    pub longest_pause: Duration,
    /// Whether it could have been handed over early.
    pub post_copy: bool,
}

impl From<&v1::MoveRecord> for Past {
    fn from(record: &v1::MoveRecord) -> Self {
        let state = record.state.as_ref();
        Self {
            source: record.source.clone(),
            target: record.target.clone(),
            ended_ms: record.ended_at_ms,
            trigger: record.trigger.clone(),
            state: state.and_then(|s| MigrationState::try_from(s).ok()),
            longest_pause: Duration::from_millis(record.longest_pause_ms),
            post_copy: record.post_copy,
        }
    }
}

/// An event as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct EventEntry {
    /// What happened; with the revision.
    pub message: v1::Event,
    /// Revision of its writing: events are never changed.
    pub revision: i64,
}
