//! What the agent asks of a hypervisor, and nothing libvirt-shaped beyond it.
//!
//! [`libvirt`] is the real one; [`fake`] stands in for it in unit tests and benchmarks. Every method blocks:
//! callers run them on threads of their own (see `driver` and `measure`), never on the async workers. A method
//! that hangs (a stopped QEMU blocks libvirt's statistics) hangs only its caller's thread.

pub mod dirty;
pub mod disks;
pub mod fake;
pub mod libvirt;

use std::sync::OnceLock;
use std::time::Duration;

use evenkeel_proto::order::Compression;
use evenkeel_types::{GuestId, Presence, Refusal};

/// A hypervisor's answer that is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HypervisorError {
    /// The hypervisor's daemon cannot be reached; the caller retries later.
    #[error("hypervisor unreachable: {detail}")]
    Unreachable {
        /// Its words.
        detail: String,
    },
    /// No such guest here.
    #[error("guest {guest} is not here")]
    NoSuchGuest {
        /// The guest.
        guest: GuestId,
    },
    /// It answered with an error of its own.
    #[error("hypervisor refused: {detail} (code {code}, domain {domain})")]
    Failed {
        /// libvirt's error number.
        code: i32,
        /// libvirt's error domain.
        domain: i32,
        /// Its words.
        detail: String,
    },
}

/// What a host is, as far as the hypervisor knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostFacts {
    /// `9.0.0`
    pub libvirt_version: String,
    /// `QEMU 7.2.22`
    pub hypervisor_version: String,
    /// The hypervisor's UUID of the host.
    pub host_uuid: String,
    /// Name of the host's CPU model with vendor: hosts of one class take each other's guests.
    pub cpu_class: String,
    /// Threads of the machine.
    pub cpus: u32,
    /// Names of active networks and of host bridges that guests can use.
    pub networks: Vec<String>,
    /// Identities (never bare names) of active storage that is shared between hosts.
    pub storage: Vec<String>,
}

/// State of a guest on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// Executes.
    Running,
    /// Paused by an operator, an error or a snapshot.
    Paused,
    /// Paused by a migration: the incoming half, or a source after switch-over.
    Migrating,
    /// Defined, no process.
    ShutOff,
}

/// Raw counters of one guest at one moment. Rates are made of two of them by `measure`.
#[derive(Debug, Clone, PartialEq)]
pub struct GuestCounters {
    /// The guest.
    pub id: GuestId,
    /// libvirt's name.
    pub name: String,
    /// Its state.
    pub state: RunState,
    /// Whether a definition stays when it is shut off.
    pub persistent: bool,
    /// Process generation: changes when the guest was restarted (counters then start again).
    pub generation: i64,
    /// vCPUs online.
    pub vcpus: u32,
    /// CPU time of the whole process, ns.
    pub cpu_time_ns: u64,
    /// Sum over vCPUs of time executed, ns.
    pub vcpu_time_ns: u64,
    /// Sum over vCPUs of time runnable but not running, ns.
    pub vcpu_delay_ns: u64,
    /// MiB it may use now.
    pub memory_mib: u64,
    /// Resident, MiB.
    pub memory_rss_mib: u64,
    /// In use by its own account (balloon driver with statistics), MiB.
    pub memory_used_mib: Option<u64>,
    /// Bytes read and written by all disks; `None`: not read this time (it is read more rarely).
    pub block_bytes: Option<u64>,
    /// Bytes received and sent by all interfaces; `None`: not read this time.
    pub net_bytes: Option<u64>,
    /// Dirty rate of the last sample that was taken for anyone, MiB/s.
    pub dirty_rate_mib_s: Option<f64>,
    /// Whether a migration job takes it away from here now, ours or foreign.
    pub migrating_out: bool,
    /// Whether its counters could be read now. `false`: its QEMU does not answer; only id, name,
    /// state and `persistent` hold, the rest is from the last good reading or zero.
    pub complete: bool,
}

/// What changes rarely about a guest: read from its definition.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GuestTraits {
    /// Names of what hinders a live migration: `host_device`, `local_disk` …
    pub hindrances: Vec<String>,
    /// Names of what hinders a move while it is shut off, beside those: state that lives in files of the host.
    pub offline_hindrances: Vec<String>,
    /// Networks and bridges it needs.
    pub networks: Vec<String>,
    /// Identities of the storage it needs.
    pub storage: Vec<String>,
    /// Identities of the disks that it writes to and that other hosts reach, too, but for those that are meant to be
    /// shared.
    pub written_disks: Vec<String>,
    /// Disks that would have to be copied, MiB.
    pub local_disk_mib: u64,
    /// Most CPU it may use (quota), cores; `None`: all its vCPUs.
    pub cpu_limit_cores: Option<f64>,
    /// From `<evenkeel:guest>` metadata.
    pub group: Option<String>,
    /// From metadata.
    pub labels: std::collections::BTreeMap<String, String>,
    /// From metadata.
    pub priority: i32,
    /// From metadata: the owner wants it left where it is.
    pub opted_out: bool,
}

/// How one live migration is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveMigration {
    /// The guest.
    pub guest: GuestId,
    /// URI of the target's libvirtd, as the source's libvirtd reaches it.
    pub peer_uri: String,
    /// Where the memory goes (`tcp://10.0.1.2`); `None`: libvirt decides.
    pub migration_uri: Option<String>,
    /// Longest pause the copy may aim at.
    pub downtime_limit: Duration,
    /// MiB/s; `None`: no limit.
    pub bandwidth_limit_mib_s: Option<u64>,
    /// Whether the guest may be slowed down to converge.
    pub auto_converge: bool,
    /// Whether it may be handed over before the copy is complete, when [`Hypervisor::start_post_copy`] says so.
    pub post_copy: bool,
    /// How what is sent is sent.
    pub stream: Stream,
    /// Names of the disks that are copied along; the target has made their files.
    pub disks: Vec<String>,
    /// Whether only what lies above their backing images is.
    pub incremental: bool,
}

/// How a live copy's bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stream {
    /// Connections side by side; 0 and 1 are one.
    pub connections: u32,
    /// How they are made fewer.
    pub compression: Option<Compression>,
    /// Whether they are encrypted, with the certificates that the hypervisor has for it.
    pub tls: bool,
}

/// What a definition is to be admitted for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coming {
    /// Whether the guest is shut off.
    pub shut_off: bool,
    /// Names of the disks that are copied along: they need not be reachable yet.
    pub copied: Vec<String>,
}

/// Decides between a migration's call and its giving up: one of them happens, never both.
///
/// The call waits for a connection first, which may take any time. An order that was given up meanwhile, and
/// whose journal is closed, must not act when the connection comes.
#[derive(Debug, Default)]
pub struct CallGate(OnceLock<Fate>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Made,
    GivenUp,
}

impl CallGate {
    /// Asked right before the call is made; `false`: it was given up and must never be made.
    pub fn pass(&self) -> bool {
        *self.0.get_or_init(|| Fate::Made) == Fate::Made
    }

    /// Gives the call up; `false`: it was made already.
    pub fn give_up(&self) -> bool {
        *self.0.get_or_init(|| Fate::GivenUp) == Fate::GivenUp
    }
}

/// Progress of a running migration job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobProgress {
    /// Bytes to be copied in all (grows with dirtying).
    pub total_bytes: u64,
    /// Bytes copied.
    pub transferred_bytes: u64,
    /// Bytes left in this iteration.
    pub remaining_bytes: u64,
    /// Newly dirtied, bytes per second.
    pub dirty_bytes_per_second: u64,
    /// Copied, bytes per second.
    pub bandwidth_bytes_per_second: u64,
    /// Iteration; 0 while preparing.
    pub iteration: u32,
    /// Pause to be expected now.
    pub expected_downtime: Duration,
    /// Pause that was measured; only of a completed job.
    pub downtime: Option<Duration>,
    /// Since the start.
    pub elapsed: Duration,
    /// Of the bytes above, those of disks.
    pub disks: DiskProgress,
}

/// Progress of the disks that are copied along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskProgress {
    /// Bytes to be copied in all.
    pub total_bytes: u64,
    /// Bytes copied.
    pub transferred_bytes: u64,
    /// Bytes left.
    pub remaining_bytes: u64,
}

/// Something that a guest did, pushed by the hypervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HypervisorEvent {
    /// A guest was started, stopped, defined, paused, resumed …: look again.
    GuestChanged(GuestId),
    /// The source paused for a hand-over.
    SwitchoverBegan(GuestId),
    /// Final figures of a completed migration away from here.
    JobCompleted(GuestId, JobProgress),
    /// The connection broke; the adapter reconnects by itself.
    ConnectionLost,
    /// The connection stands (again).
    Connected,
}

/// A host's hypervisor.
pub trait Hypervisor: disks::Disks + dirty::DirtySamples + Send + Sync + 'static {
    /// Facts about the host, for its inventory.
    ///
    /// # Errors
    /// When the hypervisor does not answer.
    fn host_facts(&self) -> Result<HostFacts, HypervisorError>;

    /// Counters of every guest that is defined or runs here.
    ///
    /// # Errors
    /// When the hypervisor does not answer.
    fn counters(&self) -> Result<Vec<GuestCounters>, HypervisorError>;

    /// The rarely changing traits of one guest.
    ///
    /// # Errors
    /// When the guest is not here or the hypervisor does not answer.
    fn traits(&self, guest: &GuestId) -> Result<GuestTraits, HypervisorError>;

    /// What this host has of a guest; `Absent` is an answer, not an error.
    ///
    /// # Errors
    /// When the hypervisor does not answer.
    fn presence(&self, guest: &GuestId) -> Result<(Presence, Option<String>), HypervisorError>;

    /// Whether a definition of this guest stays here when it is shut off.
    ///
    /// # Errors
    /// When the guest is not here or the hypervisor does not answer.
    fn is_persistent(&self, guest: &GuestId) -> Result<bool, HypervisorError>;

    /// Removes the definition of a guest that is shut off here and that its caller knows to have moved away;
    /// its disks and its firmware's variables stay.
    ///
    /// # Errors
    /// When it is not here, not shut off, or the hypervisor refuses or does not answer.
    fn undefine(&self, guest: &GuestId) -> Result<(), HypervisorError>;

    /// Destroys a half that a migration has left paused here, on an operator's order; nothing else.
    ///
    /// # Errors
    /// When it is not such a half or a job holds it, or the hypervisor does not answer.
    fn discard_half(&self, guest: &GuestId) -> Result<(), HypervisorError>;

    /// The definition that a migration hands over (live XML).
    ///
    /// # Errors
    /// When the guest is not here or the hypervisor does not answer.
    fn definition(&self, guest: &GuestId) -> Result<String, HypervisorError>;

    /// Whether a guest with this definition could come here (everything but memory, which the
    /// agent's reservations decide): CPU, machine type, networks, storage, name and UUID.
    ///
    /// # Errors
    /// When the hypervisor does not answer. A "no" is `Ok(Err((reason, detail)))`.
    fn admits(
        &self,
        definition: &str,
        coming: &Coming,
    ) -> Result<Result<(), (Refusal, String)>, HypervisorError>;

    /// Migrates if `gate` lets it; returns when libvirt's call does. The result is evidence, not proof.
    ///
    /// # Errors
    /// Whatever the hypervisor said, or that the call was given up.
    fn migrate(&self, migration: &LiveMigration, gate: &CallGate) -> Result<(), HypervisorError>;

    /// Progress of the migration job that takes this guest away; `None`: no such job.
    ///
    /// # Errors
    /// When the guest is not here or the hypervisor does not answer.
    fn outgoing_job(&self, guest: &GuestId) -> Result<Option<JobProgress>, HypervisorError>;

    /// Whether any job holds the guest: a migration, a backup, a save, a snapshot, ours or not.
    ///
    /// # Errors
    /// When the guest is not here or the hypervisor does not answer.
    fn is_busy(&self, guest: &GuestId) -> Result<bool, HypervisorError>;

    /// Aborts the guest's outgoing migration, and no other job. No such job is no error.
    ///
    /// # Errors
    /// When the guest is not here or the hypervisor does not answer.
    fn abort(&self, guest: &GuestId) -> Result<(), HypervisorError>;

    /// Sets the longest pause that the guest's running copy may aim at.
    ///
    /// # Errors
    /// When no migration takes it away from here, or the hypervisor does not answer.
    fn allow_pause(&self, guest: &GuestId, pause: Duration) -> Result<(), HypervisorError>;

    /// Hands the guest over before its copy is complete. From then on nothing can stop the migration, and a link
    /// that breaks loses the guest.
    ///
    /// # Errors
    /// When no migration takes it away from here or it does not allow this, or the hypervisor does not answer.
    fn start_post_copy(&self, guest: &GuestId) -> Result<(), HypervisorError>;

    /// Events from now on. Bounded: a receiver that lags must look again for itself.
    fn events(&self) -> tokio::sync::broadcast::Receiver<HypervisorEvent>;
}
