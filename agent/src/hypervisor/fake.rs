//! An in-memory stand-in for libvirt: several hosts that share a [`FakeWorld`], so that a migration really
//! moves a guest from one to the other. Used by unit tests of `driver`, `service` and `measure`.
//!
//! It keeps libvirt's manners, also the bad ones: a call may fail although the guest has moved, leave a
//! paused half behind or never return ([`Ending`]). It draws nothing at random; a test says what happens.

mod copying;
mod dirty;
mod disks;
mod script;

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_types::{GuestId, Presence, Refusal};
use tokio::sync::broadcast;

pub use self::dirty::Dirtying;
use self::disks::Store;
pub use self::script::{Ending, Hold, Script};
use super::disks::LocalDisk;
use super::{
    CallGate, Coming, GuestCounters, GuestTraits, HostFacts, Hypervisor, HypervisorError,
    HypervisorEvent, JobProgress, LiveMigration, RunState,
};

/// Events kept for a slow receiver.
const EVENT_CAPACITY: usize = 256;
/// libvirt's error numbers that the stand-in answers with (`VIR_ERR_*`).
const ERR_INTERNAL: i32 = 1;
const ERR_SYSTEM: i32 = 38;
const ERR_OPERATION_INVALID: i32 = 55;
const ERR_OPERATION_ABORTED: i32 = 78;
/// A call that a test holds goes on after this time.
const LONGEST_HOLD: Duration = Duration::from_secs(20);
/// libvirt's error domain of the QEMU driver.
const FROM_QEMU: i32 = 10;

#[derive(Debug, Clone)]
struct FakeGuest {
    counters: GuestCounters,
    traits: GuestTraits,
    presence: Presence,
    job: Option<Job>,
    /// A job of somebody else's: a backup.
    backup: bool,
    disks: Vec<LocalDisk>,
    autostart: bool,
    dirtying: Dirtying,
}

#[derive(Debug, Clone, Default)]
struct Job {
    progress: JobProgress,
    abort: bool,
    pauses: Vec<Duration>,
    post_copy: bool,
}

#[derive(Debug)]
struct HostState {
    up: bool,
    facts: HostFacts,
    guests: BTreeMap<GuestId, FakeGuest>,
    refusal: Option<(Refusal, String)>,
    script: Script,
    hold: Option<Hold>,
    /// Calls of `migrate` that were let in: a test proves with it that nothing was started twice.
    migrations: u32,
    events: broadcast::Sender<HypervisorEvent>,
    store: Store,
}

#[derive(Debug, Default)]
struct Shared {
    hosts: Mutex<BTreeMap<String, HostState>>,
    changed: Condvar,
}

/// Several fake hosts and the guests on them.
#[derive(Debug, Clone, Default)]
pub struct FakeWorld {
    shared: Arc<Shared>,
}

/// One host of a [`FakeWorld`].
#[derive(Debug, Clone)]
pub struct FakeHypervisor {
    world: FakeWorld,
    host: String,
}

type Hosts<'a> = MutexGuard<'a, BTreeMap<String, HostState>>;

impl FakeWorld {
    /// An empty world.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a host (or takes the one of that name).
    #[must_use]
    pub fn host(&self, name: &str) -> Arc<FakeHypervisor> {
        self.lock()
            .entry(name.to_owned())
            .or_insert_with(|| HostState {
                up: true,
                facts: HostFacts {
                    libvirt_version: "9.0.0".into(),
                    hypervisor_version: "QEMU 7.2.22".into(),
                    host_uuid: format!("fake-{name}"),
                    cpu_class: "x86_64/qemu64".into(),
                    cpus: 4,
                    networks: vec!["br0".into()],
                    storage: vec![],
                },
                guests: BTreeMap::new(),
                refusal: None,
                script: Script::default(),
                hold: None,
                migrations: 0,
                events: broadcast::Sender::new(EVENT_CAPACITY),
                store: Store::default(),
            });
        Arc::new(FakeHypervisor {
            world: self.clone(),
            host: name.to_owned(),
        })
    }

    /// The peer URI by which a fake host is reached.
    #[must_use]
    pub fn peer_uri(host: &str) -> String {
        format!("fake://{host}/system")
    }

    /// Puts a running, persistent guest of one vCPU and `memory_mib` on a host.
    pub fn add_guest(&self, host: &str, id: &GuestId, name: &str, memory_mib: u64) {
        let guest = FakeGuest {
            counters: GuestCounters {
                id: id.clone(),
                name: name.to_owned(),
                state: RunState::Running,
                persistent: true,
                generation: 1,
                vcpus: 1,
                cpu_time_ns: 0,
                vcpu_time_ns: 0,
                vcpu_delay_ns: 0,
                memory_mib,
                memory_rss_mib: memory_mib,
                memory_used_mib: None,
                block_bytes: Some(0),
                net_bytes: Some(0),
                dirty_rate_mib_s: None,
                migrating_out: false,
                complete: true,
            },
            traits: GuestTraits::default(),
            presence: Presence::Running,
            job: None,
            backup: false,
            disks: vec![],
            autostart: false,
            dirtying: Dirtying::default(),
        };
        self.on(host, |state| {
            state.guests.insert(id.clone(), guest);
        });
        self.say(host, HypervisorEvent::GuestChanged(id.clone()));
    }

    /// Changes a guest's counters (load, name, vCPUs …).
    pub fn edit_counters(&self, host: &str, id: &GuestId, edit: impl FnOnce(&mut GuestCounters)) {
        self.on(host, |state| {
            if let Some(guest) = state.guests.get_mut(id) {
                edit(&mut guest.counters);
            }
        });
    }

    /// Changes a guest's traits (hindrances, networks …).
    pub fn edit_traits(&self, host: &str, id: &GuestId, edit: impl FnOnce(&mut GuestTraits)) {
        self.on(host, |state| {
            if let Some(guest) = state.guests.get_mut(id) {
                edit(&mut guest.traits);
            }
        });
    }

    /// Begins or ends somebody's backup of a guest.
    pub fn back_up(&self, host: &str, id: &GuestId, begin: bool) {
        self.on(host, |state| {
            if let Some(guest) = state.guests.get_mut(id) {
                guest.backup = begin;
            }
        });
    }

    /// Says what a host has of a guest; `Absent` removes it.
    pub fn set_presence(&self, host: &str, id: &GuestId, presence: Presence) {
        self.on(host, |state| set_presence(state, id, presence));
        self.say(host, HypervisorEvent::GuestChanged(id.clone()));
    }

    /// What a host has of a guest, whether its libvirtd is up or not.
    #[must_use]
    pub fn presence(&self, host: &str, id: &GuestId) -> Presence {
        let hosts = self.lock();
        let guest = hosts.get(host).and_then(|state| state.guests.get(id));
        guest.map_or(Presence::Absent, |guest| guest.presence)
    }

    /// Scripts the migrations that start at `host` from now on.
    pub fn script(&self, host: &str, script: Script) {
        self.on(host, |state| state.script = script);
    }

    /// Lets calls of `migrate` hang at `host`; `None`: those that hang go on.
    pub fn hold(&self, host: &str, hold: Option<Hold>) {
        self.on(host, |state| state.hold = hold);
    }

    /// Makes a host refuse every definition; `None`: admit again.
    pub fn refuse(&self, host: &str, refusal: Option<(Refusal, String)>) {
        self.on(host, |state| state.refusal = refusal);
    }

    /// Stops or starts a host's libvirtd; its guests go on.
    pub fn set_up(&self, host: &str, up: bool) {
        self.on(host, |state| state.up = up);
        let event = if up {
            HypervisorEvent::Connected
        } else {
            HypervisorEvent::ConnectionLost
        };
        self.say(host, event);
    }

    /// How many migrations a host has let in: a second start of the same order shows here.
    #[must_use]
    pub fn migrations_started(&self, host: &str) -> u32 {
        self.lock().get(host).map_or(0, |state| state.migrations)
    }

    fn lock(&self) -> Hosts<'_> {
        self.shared
            .hosts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes one host and wakes whoever waits. Unknown hosts are left alone.
    fn on(&self, host: &str, change: impl FnOnce(&mut HostState)) {
        if let Some(state) = self.lock().get_mut(host) {
            change(state);
        }
        self.shared.changed.notify_all();
    }

    fn say(&self, host: &str, event: HypervisorEvent) {
        if let Some(state) = self.lock().get(host) {
            // No receiver is no error: nobody listens yet.
            let _ = state.events.send(event);
        }
    }
}

fn set_presence(state: &mut HostState, id: &GuestId, presence: Presence) {
    if presence == Presence::Absent {
        state.guests.remove(id);
        return;
    }
    if let Some(guest) = state.guests.get_mut(id) {
        guest.presence = presence;
        guest.counters.state = match presence {
            Presence::Running => RunState::Running,
            Presence::Paused => RunState::Paused,
            Presence::PausedByMigration => RunState::Migrating,
            Presence::ShutOff | Presence::Absent => RunState::ShutOff,
        };
    }
}

fn failed(code: i32, detail: &str) -> HypervisorError {
    HypervisorError::Failed {
        code,
        domain: FROM_QEMU,
        detail: detail.to_owned(),
    }
}

impl FakeHypervisor {
    /// This host's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.host
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&mut HostState) -> Result<T, HypervisorError>,
    ) -> Result<T, HypervisorError> {
        match self.world.lock().get_mut(&self.host) {
            Some(state) if state.up => read(state),
            _ => Err(HypervisorError::Unreachable {
                detail: format!("fake libvirtd of {} is down", self.host),
            }),
        }
    }

    fn guest<T>(
        &self,
        id: &GuestId,
        read: impl FnOnce(&mut FakeGuest) -> T,
    ) -> Result<T, HypervisorError> {
        self.read(|state| match state.guests.get_mut(id) {
            Some(guest) => Ok(read(guest)),
            None => Err(HypervisorError::NoSuchGuest { guest: id.clone() }),
        })
    }

    /// Allows the guest's running copy something.
    fn allow(&self, id: &GuestId, allow: impl FnOnce(&mut Job)) -> Result<(), HypervisorError> {
        let allowed = self.guest(id, |g| g.job.as_mut().map(allow))?;
        self.world.shared.changed.notify_all();
        allowed.ok_or_else(|| failed(ERR_OPERATION_INVALID, "no migration job"))
    }

    /// Takes a guest away that is `wanted` here.
    fn remove(&self, id: &GuestId, wanted: Presence) -> Result<(), HypervisorError> {
        self.end(id, wanted, false)
    }

    /// Ends a guest, whose definition may stay.
    fn end(&self, id: &GuestId, wanted: Presence, stays: bool) -> Result<(), HypervisorError> {
        if self.guest(id, |g| g.presence)? != wanted {
            return Err(failed(ERR_OPERATION_INVALID, "domain is in another state"));
        }
        let left = if stays {
            Presence::ShutOff
        } else {
            Presence::Absent
        };
        self.world.set_presence(&self.host, id, left);
        Ok(())
    }

    /// Lets a migration in: the job stands at the source, the paused half at the target.
    fn begin(&self, migration: &LiveMigration) -> Result<(String, Script), HypervisorError> {
        let id = &migration.guest;
        let mut hosts = self.world.lock();
        let target = hosts
            .iter()
            .find(|(name, host)| host.up && FakeWorld::peer_uri(name) == migration.peer_uri)
            .map(|(name, _)| name.clone())
            .ok_or_else(|| failed(ERR_SYSTEM, "unable to connect to server: No route to host"))?;
        let source = hosts
            .get_mut(&self.host)
            .ok_or_else(|| failed(ERR_SYSTEM, "no such host"))?;
        let guest = source
            .guests
            .get_mut(id)
            .ok_or_else(|| HypervisorError::NoSuchGuest { guest: id.clone() })?;
        if guest.presence != Presence::Running || guest.job.is_some() || guest.backup {
            return Err(failed(
                ERR_OPERATION_INVALID,
                "domain is not running or has a job",
            ));
        }
        guest.job = Some(Job::default());
        guest.counters.migrating_out = true;
        let mut half = guest.clone();
        half.job = None;
        half.counters.migrating_out = false;
        half.counters.generation += 1;
        half.counters.persistent = false;
        half.autostart = false;
        source.migrations += 1;
        let script = source.script.clone();
        if let Some(state) = hosts.get_mut(&target) {
            let clash = state
                .guests
                .get(id)
                .is_some_and(|g| g.presence != Presence::ShutOff);
            if clash {
                drop(hosts);
                self.finish(id);
                return Err(failed(ERR_OPERATION_INVALID, "domain is already active"));
            }
            state.guests.insert(id.clone(), half);
            set_presence(state, id, Presence::PausedByMigration);
        }
        Ok((target, script))
    }

    /// Hangs as long as the host holds calls at this point, but not for ever: a test that fails must end.
    fn wait_while_held(&self, at: Hold) {
        let held = |hosts: &mut BTreeMap<String, HostState>| {
            let state = hosts.get(&self.host);
            state.is_some_and(|state| state.hold == Some(at))
        };
        let changed = &self.world.shared.changed;
        drop(changed.wait_timeout_while(self.world.lock(), LONGEST_HOLD, held));
    }
}

impl Hypervisor for FakeHypervisor {
    fn host_facts(&self) -> Result<HostFacts, HypervisorError> {
        self.read(|state| Ok(state.facts.clone()))
    }

    fn counters(&self) -> Result<Vec<GuestCounters>, HypervisorError> {
        self.read(|state| Ok(state.guests.values().map(|g| g.counters.clone()).collect()))
    }

    fn traits(&self, guest: &GuestId) -> Result<GuestTraits, HypervisorError> {
        self.guest(guest, |g| g.traits.clone())
    }

    fn presence(&self, guest: &GuestId) -> Result<(Presence, Option<String>), HypervisorError> {
        self.read(|state| {
            let here = state.guests.get(guest);
            Ok(here.map_or((Presence::Absent, None), |g| {
                (g.presence, Some(g.counters.name.clone()))
            }))
        })
    }

    fn is_persistent(&self, guest: &GuestId) -> Result<bool, HypervisorError> {
        self.guest(guest, |g| g.counters.persistent)
    }

    fn undefine(&self, guest: &GuestId) -> Result<(), HypervisorError> {
        self.remove(guest, Presence::ShutOff)
    }

    fn discard_half(&self, guest: &GuestId) -> Result<(), HypervisorError> {
        let is_persistent = self.is_persistent(guest)?;
        self.end(guest, Presence::PausedByMigration, is_persistent)
    }

    fn definition(&self, guest: &GuestId) -> Result<String, HypervisorError> {
        self.guest(guest, |g| {
            format!(
                "<domain type='fake'><name>{}</name><uuid>{guest}</uuid></domain>",
                g.counters.name
            )
        })
    }

    fn admits(
        &self,
        definition: &str,
        coming: &Coming,
    ) -> Result<Result<(), (Refusal, String)>, HypervisorError> {
        self.read(|state| {
            if let Some(refusal) = &state.refusal {
                return Ok(Err(refusal.clone()));
            }
            let clash = state.guests.iter().find(|(id, guest)| {
                (coming.shut_off || guest.presence != Presence::ShutOff)
                    && definition.contains(id.as_str())
            });
            Ok(clash.map_or(Ok(()), |(id, _)| {
                Err((Refusal::NameClash, format!("guest {id} is here already")))
            }))
        })
    }

    fn migrate(&self, migration: &LiveMigration, gate: &CallGate) -> Result<(), HypervisorError> {
        let id = &migration.guest;
        self.read(|_| Ok(()))?;
        self.wait_while_held(Hold::BeforeCall);
        if !gate.pass() {
            return Err(failed(ERR_OPERATION_ABORTED, "given up before the call"));
        }
        self.wait_while_held(Hold::InCall);
        let (target, script) = self.begin(migration)?;
        if script.call_breaks {
            let (alone, id) = (self.clone(), id.clone());
            std::thread::spawn(move || alone.carry_on(&id, &target, &script));
            return Err(failed(ERR_SYSTEM, "connection reset by peer"));
        }
        self.carry_on(id, &target, &script)?;
        self.mirror(&target, migration);
        Ok(())
    }

    fn outgoing_job(&self, guest: &GuestId) -> Result<Option<JobProgress>, HypervisorError> {
        self.guest(guest, |g| g.job.as_ref().map(|job| job.progress))
    }

    fn is_busy(&self, guest: &GuestId) -> Result<bool, HypervisorError> {
        self.guest(guest, |g| g.job.is_some() || g.backup)
    }

    fn abort(&self, guest: &GuestId) -> Result<(), HypervisorError> {
        let done = self.guest(guest, |g| {
            if let Some(job) = g.job.as_mut() {
                job.abort = true;
            }
        });
        self.world.shared.changed.notify_all();
        done
    }

    fn allow_pause(&self, guest: &GuestId, pause: Duration) -> Result<(), HypervisorError> {
        self.allow(guest, |job| job.pauses.push(pause))
    }

    fn start_post_copy(&self, guest: &GuestId) -> Result<(), HypervisorError> {
        self.allow(guest, |job| job.post_copy = true)
    }

    fn events(&self) -> broadcast::Receiver<HypervisorEvent> {
        let hosts = self.world.lock();
        hosts.get(&self.host).map_or_else(
            || broadcast::Sender::new(1).subscribe(),
            |state| state.events.subscribe(),
        )
    }
}

#[cfg(test)]
mod tests;
