//! libvirt as a [`Hypervisor`].
//!
//! ```text
//!  callers ──▶ mod (this file) ──▶ link: the session, or `Unreachable` at once
//!                │   │   └───────▶ host: facts, traits, admission   (xml, storage: pure)
//!                │   └───────────▶ collect: counters, with a deadline
//!                └───────────────▶ raw: the C library
//!  event loop thread ──▶ hub ──▶ broadcast of `HypervisorEvent`
//! ```
//!
//! Two threads live as long as the adapter: one runs libvirt's event loop, one keeps the connection. It does
//! not decide anything about guests: no retries of migrations, no cleaning up.

mod collect;
mod dirty;
mod host;
mod link;
mod raw;
mod state;
mod storage;
mod volumes;
mod xml;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use evenkeel_types::{GuestId, Presence, Refusal};
use tokio::sync::broadcast;
use tracing::{debug, warn};

use self::collect::Collector;
use self::link::{Link, Session};
use self::raw::{
    Connection, Domain, ERR_NO_DOMAIN, ERR_OPERATION_ABORTED, ERR_OPERATION_INVALID, LookupTarget,
    MigrateParameters, Params, RawError, RawEvent, RawResult, Sink,
};
use super::{
    CallGate, Coming, GuestCounters, GuestTraits, HostFacts, Hypervisor, HypervisorError,
    HypervisorEvent, JobProgress, LiveMigration,
};

/// Events kept for a slow receiver; it looks again for itself when it has missed some.
const EVENT_CAPACITY: usize = 1024;
/// libvirt's own allowed downtime: setting it again would be a call for nothing.
const DEFAULT_DOWNTIME: Duration = Duration::from_millis(300);
/// How often a copy that has just started is looked at until its downtime can be set.
const DOWNTIME_LOOK: Duration = Duration::from_millis(50);
/// `VIR_FROM_QEMU`
const FROM_QEMU: i32 = 10;
/// `virDomainEventType` and `virDomainEventSuspendedDetailType`
const EVENT_SUSPENDED: i32 = 3;
const SUSPENDED_MIGRATED: i32 = 1;
const SUSPENDED_POST_COPY: i32 = 7;

/// `virDomainMigrateFlags`
const LIVE: u32 = 1;
const PEER2PEER: u32 = 1 << 1;
const PERSIST_DEST: u32 = 1 << 3;
const UNDEFINE_SOURCE: u32 = 1 << 4;
const NON_SHARED_DISK: u32 = 1 << 6;
const NON_SHARED_INC: u32 = 1 << 7;
/// Never beside [`LIVE`], and only for a guest that is shut off: see [`move_definition`].
const OFFLINE: u32 = 1 << 10;
const COMPRESSED: u32 = 1 << 11;
const ABORT_ON_ERROR: u32 = 1 << 12;
const AUTO_CONVERGE: u32 = 1 << 13;
const POST_COPY: u32 = 1 << 15;
const TLS: u32 = 1 << 16;
const PARALLEL: u32 = 1 << 17;

/// How the adapter talks to libvirt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibvirtConfig {
    /// Connection URI, `qemu:///system`. It must be this machine's: bridges, mounts and files are looked at
    /// here, not asked for.
    pub uri: String,
    /// How long one reading of the counters may take before the agent goes on without it.
    pub stats_deadline: Duration,
}

impl Default for LibvirtConfig {
    fn default() -> Self {
        Self {
            uri: "qemu:///system".into(),
            // The first reading after a start of libvirtd takes up to 0.8 s, for it probes QEMU.
            stats_deadline: Duration::from_secs(2),
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
    uri: String,
    link: Arc<Link>,
    collector: Arc<Collector>,
    events: broadcast::Sender<HypervisorEvent>,
}

impl LibvirtHypervisor {
    /// Starts the adapter; it connects, and reconnects, by itself.
    ///
    /// # Errors
    /// When the client library or a thread does not start; not when libvirtd is down.
    pub fn start(config: LibvirtConfig) -> Result<Arc<Self>, StartError> {
        raw::initialise().map_err(|error| StartError::Library {
            detail: error.message,
        })?;
        run_event_loop()?;
        let (link, keeper) = Link::new();
        let collector = Arc::new(Collector::new(config.stats_deadline));
        let events = broadcast::Sender::new(EVENT_CAPACITY);
        let sink = hub(&link, &collector, &events);
        let tell = {
            let (collector, events) = (Arc::clone(&collector), events.clone());
            move |event| {
                collector.reconnected();
                let _ = events.send(event);
            }
        };
        let (kept, uri) = (Arc::clone(&link), config.uri.clone());
        std::thread::Builder::new()
            .name("libvirt-link".into())
            .spawn(move || kept.keep(&config.uri, &keeper, &sink, tell))
            .map_err(StartError::Thread)?;
        Ok(Arc::new(Self {
            uri,
            link,
            collector,
            events,
        }))
    }

    /// Whether the connection stands.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.link.is_up()
    }

    /// Runs a call on the current session and translates its failure.
    fn call<T>(&self, call: impl FnOnce(&Session) -> RawResult<T>) -> Result<T, HypervisorError> {
        let session = self.link.session()?;
        call(&session).map_err(|error| self.link.failure(&session, error))
    }

    /// Runs a call on a guest that must be here.
    fn on_guest<T>(
        &self,
        guest: &GuestId,
        call: impl FnOnce(&Domain) -> RawResult<T>,
    ) -> Result<T, HypervisorError> {
        let answer = self.call(|session| {
            let target = LookupTarget::Uuid(guest.as_str());
            match session
                .control
                .lookup(target)?
                .as_ref()
                .map(call)
                .transpose()
            {
                // It went away between the two calls.
                Err(error) if error.code == ERR_NO_DOMAIN => Ok(None),
                other => other,
            }
        })?;
        answer.ok_or_else(|| HypervisorError::NoSuchGuest {
            guest: guest.clone(),
        })
    }
}

impl Drop for LibvirtHypervisor {
    fn drop(&mut self) {
        self.link.stop();
    }
}

/// Starts the thread that runs libvirt's event loop, once per process. It serves every connection.
fn run_event_loop() -> Result<(), StartError> {
    static STARTED: OnceLock<()> = OnceLock::new();
    static STARTING: AtomicBool = AtomicBool::new(false);
    if STARTED.get().is_some() || STARTING.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    let turn = || {
        let mut failing = false;
        loop {
            match raw::run_event_loop_once() {
                Ok(()) => failing = false,
                Err(error) => {
                    if !failing {
                        warn!(%error, "libvirt's event loop fails");
                        failing = true;
                    }
                    std::thread::sleep(raw::EVENT_LOOP_PAUSE);
                }
            }
        }
    };
    let thread = std::thread::Builder::new().name("libvirt-events".into());
    match thread.spawn(turn) {
        Ok(_runs_for_ever) => {
            let _ = STARTED.set(());
            Ok(())
        }
        Err(error) => {
            STARTING.store(false, Ordering::Release);
            Err(StartError::Thread(error))
        }
    }
}

/// Translates libvirt's events. Called on the event loop's thread: quick, and no calls of libvirt.
fn hub(
    link: &Arc<Link>,
    collector: &Arc<Collector>,
    events: &broadcast::Sender<HypervisorEvent>,
) -> Sink {
    let (link, collector, events) = (Arc::clone(link), Arc::clone(collector), events.clone());
    Arc::new(move |event| {
        debug!(?event, "libvirt event");
        // No receiver is no error: nobody listens yet.
        let tell = |event| drop(events.send(event));
        match event {
            RawEvent::Lifecycle {
                guest,
                event,
                detail,
            } => {
                collector.something_changed();
                let Ok(guest) = guest.parse::<GuestId>() else {
                    return;
                };
                let hands_over = matches!(detail, SUSPENDED_MIGRATED | SUSPENDED_POST_COPY);
                if event == EVENT_SUSPENDED && hands_over {
                    tell(HypervisorEvent::SwitchoverBegan(guest.clone()));
                }
                tell(HypervisorEvent::GuestChanged(guest));
            }
            RawEvent::Edited { guest } => {
                if let Ok(guest) = guest.parse() {
                    tell(HypervisorEvent::GuestChanged(guest));
                }
            }
            RawEvent::Iteration { guest } => collector.may_migrate(&guest),
            RawEvent::JobCompleted { guest, figures } => {
                let Ok(guest) = guest.parse::<GuestId>() else {
                    return;
                };
                if state::is_outgoing_migration(&figures) {
                    tell(HypervisorEvent::JobCompleted(
                        guest,
                        state::completed(&figures),
                    ));
                }
            }
            RawEvent::Closed => link.look(),
        }
    })
}

/// Sets the allowed downtime as soon as the copy has begun: before, libvirt says yes and forgets it.
fn set_downtime(domain: &Domain, downtime: Duration, over: &AtomicBool) {
    while !over.load(Ordering::Acquire) {
        let begun = domain
            .job()
            .is_ok_and(|(kind, f)| state::outgoing(kind, &f).is_some_and(|job| job.iteration > 0));
        if begun {
            if let Err(error) = domain.set_max_downtime(downtime) {
                warn!(guest = domain.name(), %error, "the allowed downtime could not be set");
            }
            return;
        }
        std::thread::sleep(DOWNTIME_LOOK);
    }
}

fn given_up() -> RawError {
    RawError {
        code: ERR_OPERATION_ABORTED,
        domain: FROM_QEMU,
        message: "the call was given up before it was made".into(),
    }
}

fn wrong_state(message: &str) -> RawError {
    RawError {
        code: ERR_OPERATION_INVALID,
        domain: FROM_QEMU,
        message: message.into(),
    }
}

const NOT_RUNNING: &str = "guest is not running";
const STARTED: &str = "the guest was started: it is not moved as one that is shut off";

/// The job that holds a guest. A guest that is shut off has none: libvirt says so by an error.
fn job(domain: &Domain) -> RawResult<(i32, Params)> {
    match domain.job() {
        Err(error) if error.code == ERR_OPERATION_INVALID => {
            Ok((state::JOB_NONE, Params::default()))
        }
        other => other,
    }
}

/// The flags of a live migration. Never OFFLINE: libvirt takes it for a running guest, moves the definition
/// and leaves the guest without one. PERSIST_DEST would make a transient guest persistent.
fn flags(persistent: bool, migration: &LiveMigration) -> u32 {
    let stream = &migration.stream;
    let disks = !migration.disks.is_empty();
    let wanted = [
        (persistent, PERSIST_DEST | UNDEFINE_SOURCE),
        (migration.auto_converge, AUTO_CONVERGE),
        (disks && migration.incremental, NON_SHARED_INC),
        (disks && !migration.incremental, NON_SHARED_DISK),
        (stream.connections > 1, PARALLEL),
        (stream.compression.is_some(), COMPRESSED),
        (stream.tls, TLS),
        (migration.post_copy, POST_COPY),
    ];
    wanted
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .fold(LIVE | PEER2PEER | ABORT_ON_ERROR, |all, (_, flag)| {
            all | flag
        })
}

/// libvirt's parameters of a live migration.
fn parameters(migration: &LiveMigration) -> MigrateParameters {
    let stream = &migration.stream;
    let connections = i32::try_from(stream.connections).ok();
    MigrateParameters {
        uri: migration.migration_uri.clone(),
        bandwidth: migration.bandwidth_limit_mib_s,
        migrate_disks: migration.disks.clone(),
        parallel_connections: connections.filter(|count| *count > 1),
        compression: stream.compression.map(|method| method.as_str().to_owned()),
        ..MigrateParameters::default()
    }
}

/// Hands over the definition of a guest that is shut off.
///
/// libvirt takes OFFLINE for a running guest, too: it moves the definition and leaves the process without one.
/// So the state is read right before the call, and again after it: a guest that was started in between gets
/// its definition back.
fn move_definition(
    connection: &Connection,
    domain: &Domain,
    peer_uri: &str,
    gate: &CallGate,
) -> RawResult<()> {
    let definition = domain.kept_definition()?;
    if !gate.pass() {
        return Err(given_up());
    }
    if presence(domain)? != Presence::ShutOff {
        return Err(wrong_state(STARTED));
    }
    let flags = OFFLINE | PEER2PEER | PERSIST_DEST | UNDEFINE_SOURCE | ABORT_ON_ERROR;
    domain.migrate(peer_uri, MigrateParameters::default(), flags)?;
    let target = domain.uuid().unwrap_or_default();
    match connection.lookup(LookupTarget::Uuid(&target))? {
        Some(here) if presence(&here)? != Presence::ShutOff => {
            if !here.is_persistent()? {
                connection.define(&definition)?;
            }
            Err(wrong_state(STARTED))
        }
        Some(_) | None => Ok(()),
    }
}

fn presence(domain: &Domain) -> RawResult<Presence> {
    let (state, reason) = domain.state()?;
    Ok(state::presence(state, reason))
}

/// Migrates `domain`; `aside` is the same guest on another connection, for what is asked meanwhile.
fn migrate(
    domain: &Domain,
    aside: &Domain,
    migration: &LiveMigration,
    gate: &CallGate,
) -> RawResult<()> {
    if presence(domain)? != Presence::Running {
        return Err(wrong_state(NOT_RUNNING));
    }
    let params = parameters(migration);
    let flags = flags(domain.is_persistent()?, migration);
    if !gate.pass() {
        return Err(given_up());
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        if migration.downtime_limit != DEFAULT_DOWNTIME {
            scope.spawn(|| set_downtime(aside, migration.downtime_limit, &over));
        }
        let result = domain.migrate(&migration.peer_uri, params, flags);
        over.store(true, Ordering::Release);
        result
    })
}

impl Hypervisor for LibvirtHypervisor {
    fn host_facts(&self) -> Result<HostFacts, HypervisorError> {
        self.call(host::facts)
    }

    fn counters(&self) -> Result<Vec<GuestCounters>, HypervisorError> {
        self.collector.read(&self.link)
    }

    fn traits(&self, guest: &GuestId) -> Result<GuestTraits, HypervisorError> {
        self.call(|session| host::traits(session, guest))?
            .ok_or_else(|| HypervisorError::NoSuchGuest {
                guest: guest.clone(),
            })
    }

    fn presence(&self, guest: &GuestId) -> Result<(Presence, Option<String>), HypervisorError> {
        match self.on_guest(guest, |domain| Ok((presence(domain)?, domain.name()))) {
            Ok((presence, name)) => Ok((presence, Some(name))),
            Err(HypervisorError::NoSuchGuest { .. }) => Ok((Presence::Absent, None)),
            Err(error) => Err(error),
        }
    }

    fn is_persistent(&self, guest: &GuestId) -> Result<bool, HypervisorError> {
        self.on_guest(guest, Domain::is_persistent)
    }

    fn undefine(&self, guest: &GuestId) -> Result<(), HypervisorError> {
        self.on_guest(guest, |domain| {
            if presence(domain)? != Presence::ShutOff {
                return Err(wrong_state("guest is not shut off"));
            }
            domain.undefine()
        })
    }

    fn discard_half(&self, guest: &GuestId) -> Result<(), HypervisorError> {
        self.on_guest(guest, |domain| {
            let is_half = presence(domain)? == Presence::PausedByMigration;
            if !is_half || state::is_running(job(domain)?.0) {
                return Err(wrong_state("no half that a migration has left paused"));
            }
            domain.destroy()
        })
    }

    fn definition(&self, guest: &GuestId) -> Result<String, HypervisorError> {
        self.on_guest(guest, Domain::definition)
    }

    fn admits(
        &self,
        definition: &str,
        coming: &Coming,
    ) -> Result<Result<(), (Refusal, String)>, HypervisorError> {
        self.call(|session| host::admits(session, definition, coming))
    }

    fn migrate(&self, migration: &LiveMigration, gate: &CallGate) -> Result<(), HypervisorError> {
        self.collector.may_migrate(migration.guest.as_str());
        // This call lasts as long as the copy, and it gets a connection to itself: the caller that waits on
        // one also carries the others' messages, and libvirt before 10.1 may lose the wake-up that tells it
        // so. Progress and aborts then waited behind it for many seconds.
        self.on_guest(&migration.guest, |aside| {
            let own = Connection::open(&self.uri)?;
            let target = LookupTarget::Uuid(migration.guest.as_str());
            let domain = own
                .lookup(target)?
                .ok_or_else(|| wrong_state(NOT_RUNNING))?;
            migrate(&domain, aside, migration, gate)
        })
    }

    fn outgoing_job(&self, guest: &GuestId) -> Result<Option<JobProgress>, HypervisorError> {
        let job = self.on_guest(guest, job)?;
        Ok(state::outgoing(job.0, &job.1))
    }

    fn is_busy(&self, guest: &GuestId) -> Result<bool, HypervisorError> {
        Ok(state::is_running(self.on_guest(guest, job)?.0))
    }

    fn abort(&self, guest: &GuestId) -> Result<(), HypervisorError> {
        self.on_guest(guest, |domain| {
            let (kind, figures) = job(domain)?;
            // libvirt aborts whatever job there is: somebody's backup, too.
            if state::outgoing(kind, &figures).is_none() {
                return Ok(());
            }
            match domain.abort_job() {
                Err(error) if error.code == ERR_OPERATION_INVALID => Ok(()),
                other => other,
            }
        })
    }

    fn allow_pause(&self, guest: &GuestId, pause: Duration) -> Result<(), HypervisorError> {
        self.on_guest(guest, |domain| domain.set_max_downtime(pause))
    }

    fn start_post_copy(&self, guest: &GuestId) -> Result<(), HypervisorError> {
        self.on_guest(guest, Domain::start_post_copy)
    }

    fn events(&self) -> broadcast::Receiver<HypervisorEvent> {
        self.events.subscribe()
    }
}
