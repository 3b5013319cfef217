//! Reads the counters of all guests without letting one that hangs hold up the rest.
//!
//! A stopped QEMU blocks the first statistics call that enters its monitor, for as long as it is stopped. So
//! each reading runs on a thread of its own and is given up after a deadline; the next one finds the guest
//! busy, skips it (`NOWAIT`) and has all others. Threads that hang are counted and bounded; when there are
//! too many, states alone are read, which never enters a monitor. Jobs are asked for apart ([`jobs`]).

mod jobs;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evenkeel_types::GuestId;
use tracing::{debug, info, warn};

use self::jobs::Jobs;
use super::dirty::Sample;
use super::link::{Link, Session};
use super::raw::{LookupTarget, Params, RawResult, StatsGroups, StatsRecord};
use super::state;
use crate::hypervisor::{GuestCounters, HypervisorError, RunState};

/// Readings that may hang at once. libvirtd works on five calls of a client at a time; two are left for
/// states.
const MOST_HANGING: usize = 3;
/// Readings of states that may hang at once: only a stopped libvirtd lets them.
const MOST_STATES_HANGING: usize = 2;
/// Disks, interfaces, whole-process CPU and dirty rates are read this often: together they cost libvirtd more
/// than the rest, and no decision needs them faster.
const RARE_EVERY: Duration = Duration::from_secs(10);
/// Which guests are transient, and whether any has a job, is asked for at least this often.
const KINDS_EVERY: Duration = Duration::from_secs(30);
/// A QEMU that hangs makes one reading late now and then, and the next ones pass it by: only after this time
/// without one is it over, or the log would be full of it.
const CALM: Duration = Duration::from_secs(120);

/// What is known between readings.
#[derive(Debug, Default)]
struct Memory {
    last: HashMap<GuestId, GuestCounters>,
    transient: BTreeSet<String>,
    /// Guests whose jobs are to be looked at, as UUID text.
    maybe_migrating: BTreeSet<String>,
    rare_at: Option<Instant>,
    kinds_at: Option<Instant>,
    /// When every guest's job was asked for.
    jobs_at: Option<Instant>,
    /// When the statistics were last late.
    late_at: Option<Instant>,
}

/// Reads counters; one per adapter.
#[derive(Debug)]
pub(super) struct Collector {
    deadline: Duration,
    memory: Mutex<Memory>,
    hanging: Arc<AtomicUsize>,
    states_hanging: Arc<AtomicUsize>,
    jobs: Jobs,
}

/// What one reading asks for.
#[derive(Debug, Clone)]
struct Wish {
    groups: StatsGroups,
    kinds: bool,
    /// Whether every running guest's job is looked at, not only those of `jobs_of`.
    all_jobs: bool,
    jobs_of: BTreeSet<String>,
}

/// What one reading brought.
#[derive(Debug)]
struct Brought {
    records: Vec<StatsRecord>,
    transient: Option<BTreeSet<String>>,
}

impl Collector {
    /// A collector that gives a reading up after `deadline`.
    pub(super) fn new(deadline: Duration) -> Self {
        Self {
            deadline,
            memory: Mutex::default(),
            hanging: Arc::default(),
            states_hanging: Arc::default(),
            jobs: Jobs::default(),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A guest was started, stopped, defined …: kinds and jobs are asked for at the next reading.
    pub(super) fn something_changed(&self) {
        let mut memory = self.memory();
        memory.kinds_at = None;
        memory.jobs_at = None;
    }

    /// A guest may have an outgoing migration: its job is looked at until it has none.
    pub(super) fn may_migrate(&self, guest: &str) {
        self.memory().maybe_migrating.insert(guest.to_owned());
    }

    /// The connection is new: everything is asked for.
    pub(super) fn reconnected(&self) {
        let mut memory = self.memory();
        memory.kinds_at = None;
        memory.jobs_at = None;
        memory.rare_at = None;
    }

    /// Counters of all guests.
    ///
    /// # Errors
    /// When libvirt does not answer, not even with states.
    pub(super) fn read(&self, link: &Link) -> Result<Vec<GuestCounters>, HypervisorError> {
        let session = link.session()?;
        let wish = self.wish();
        let task = {
            let (session, wish) = (Arc::clone(&session), wish.clone());
            move || bring(&session, &wish)
        };
        match within(self.deadline, &self.hanging, MOST_HANGING, task) {
            Some(Ok(brought)) => {
                let jobs = self.ask_for_jobs(&session, &wish, &brought.records);
                Ok(self.remember(&wish, brought, &jobs))
            }
            Some(Err(error)) => Err(link.failure(&session, error)),
            None => self.states_only(link, &session),
        }
    }

    /// Asks those that have just answered in full: another one's job cannot be told either.
    fn ask_for_jobs(
        &self,
        session: &Arc<Session>,
        wish: &Wish,
        records: &[StatsRecord],
    ) -> HashMap<String, bool> {
        let guests = records
            .iter()
            .filter(|record| record.id.is_some() && vcpu_times(&record.params).is_some())
            .filter(|record| wish.all_jobs || wish.jobs_of.contains(&record.uuid))
            .map(|record| record.uuid.clone())
            .collect();
        let session = Arc::clone(session);
        self.jobs
            .ask(guests, move |uuid| migrates_away(&session, uuid))
    }

    fn wish(&self) -> Wish {
        let now = Instant::now();
        let mut memory = self.memory();
        let due = |at: Option<Instant>, every| at.is_none_or(|at| now.duration_since(at) >= every);
        let all_jobs = due(memory.jobs_at, KINDS_EVERY);
        if all_jobs {
            // Set when asking: a guest that does not answer must not be asked at every reading.
            memory.jobs_at = Some(now);
        }
        Wish {
            groups: if due(memory.rare_at, RARE_EVERY) {
                StatsGroups::ALL
            } else {
                StatsGroups::FREQUENT
            },
            kinds: due(memory.kinds_at, KINDS_EVERY),
            all_jobs,
            jobs_of: memory.maybe_migrating.clone(),
        }
    }

    /// Takes what was brought; a guest whose job was not told keeps what was known of it.
    fn remember(
        &self,
        wish: &Wish,
        brought: Brought,
        jobs: &HashMap<String, bool>,
    ) -> Vec<GuestCounters> {
        let now = Instant::now();
        let mut memory = self.memory();
        if memory
            .late_at
            .is_some_and(|at| now.duration_since(at) >= CALM)
        {
            memory.late_at = None;
            info!("libvirt's statistics have been in time for {CALM:?} again");
        }
        if wish.groups == StatsGroups::ALL {
            memory.rare_at = Some(now);
        }
        if let Some(transient) = brought.transient {
            memory.transient = transient;
            memory.kinds_at = Some(now);
        }
        let counters: Vec<_> = brought
            .records
            .iter()
            .filter_map(|record| {
                let id: GuestId = record.uuid.parse().ok()?;
                let persistent = !memory.transient.contains(&record.uuid);
                let last = memory.last.get(&id);
                let told = jobs.get(&record.uuid).copied();
                let migrating = record.id.is_some()
                    && told.unwrap_or_else(|| last.is_some_and(|l| l.migrating_out));
                let mut counters = counters_of(id, record, last);
                counters.persistent = persistent;
                counters.migrating_out = migrating;
                Some(counters)
            })
            .collect();
        let run = brought.records.iter().filter(|record| record.id.is_some());
        let here: BTreeSet<&str> = run.map(|record| record.uuid.as_str()).collect();
        // Those that an event named while this reading ran may not be here yet.
        let open = |uuid: &String| !jobs.contains_key(uuid);
        let may_be_here =
            |uuid: &String| here.contains(uuid.as_str()) || !wish.jobs_of.contains(uuid);
        memory
            .maybe_migrating
            .retain(|uuid| open(uuid) && may_be_here(uuid));
        let migrating = jobs.iter().filter(|(_, migrates)| **migrates);
        memory
            .maybe_migrating
            .extend(migrating.map(|(uuid, _)| uuid.clone()));
        memory.last = counters.iter().map(|c| (c.id.clone(), c.clone())).collect();
        counters
    }

    /// States of all guests, everything else as it was last.
    fn states_only(
        &self,
        link: &Link,
        session: &Arc<Session>,
    ) -> Result<Vec<GuestCounters>, HypervisorError> {
        let task = {
            let session = Arc::clone(session);
            move || session.stats.all_stats(StatsGroups::STATE)
        };
        let records = within(
            // States take no time at all; half the patience keeps both together within one look.
            self.deadline / 2,
            &self.states_hanging,
            MOST_STATES_HANGING,
            task,
        )
        .ok_or_else(|| HypervisorError::Unreachable {
            detail: "libvirtd accepts calls but does not answer them".into(),
        })?
        .map_err(|error| link.failure(session, error))?;
        let mut memory = self.memory();
        if memory.late_at.replace(Instant::now()).is_none() {
            warn!(
                "libvirt's statistics are late: a guest's QEMU does not answer; using states only"
            );
        }
        let stale = |record: &StatsRecord| {
            let id: GuestId = record.uuid.parse().ok()?;
            let last = memory.last.get(&id);
            let mut counters = counters_of(id, record, last);
            counters.persistent = !memory.transient.contains(&record.uuid);
            counters.migrating_out = memory.maybe_migrating.contains(&record.uuid);
            counters.complete = counters.state == RunState::ShutOff;
            Some(counters)
        };
        Ok(records.iter().filter_map(stale).collect())
    }
}

/// One of the readings that may hang; given back when dropped, whatever ended its thread.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Runs `task` on a thread of its own; `None`: not done within `deadline`, or too many hang already.
fn within<T: Send + 'static>(
    deadline: Duration,
    hanging: &Arc<AtomicUsize>,
    most: usize,
    task: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, result) = sync_channel(1);
    // A receiver that has given up needs no answer.
    let started = on_a_thread(hanging, most, move || drop(done.send(task())));
    started.then(|| result.recv_timeout(deadline).ok())?
}

/// Starts `task` on a thread of its own; `false`: too many hang already.
fn on_a_thread(
    hanging: &Arc<AtomicUsize>,
    most: usize,
    task: impl FnOnce() + Send + 'static,
) -> bool {
    if hanging.fetch_add(1, Ordering::AcqRel) >= most {
        hanging.fetch_sub(1, Ordering::AcqRel);
        return false;
    }
    let place = Place(Arc::clone(hanging));
    let thread = std::thread::Builder::new().name("counters".into());
    let started = thread.spawn(move || {
        let _place = place;
        task();
    });
    if let Err(error) = &started {
        debug!(%error, "no thread for a reading");
    }
    started.is_ok()
}

/// The calls of one reading.
fn bring(session: &Session, wish: &Wish) -> RawResult<Brought> {
    let records = session.stats.all_stats(wish.groups)?;
    let transient = if wish.kinds {
        let domains = session.stats.transient_guests()?;
        Some(
            domains
                .iter()
                .filter_map(super::raw::Domain::uuid)
                .collect(),
        )
    } else {
        None
    };
    Ok(Brought { records, transient })
}

/// Whether a guest has an outgoing migration; one that vanished has none.
fn migrates_away(session: &Session, uuid: &str) -> bool {
    // Not on the statistics' connection, where readings that hang take up the places.
    let Ok(Some(domain)) = session.control.lookup(LookupTarget::Uuid(uuid)) else {
        return false;
    };
    domain
        .job()
        .is_ok_and(|(kind, figures)| state::outgoing(kind, &figures).is_some())
}

/// Time executed and time waited, summed over the vCPUs; `None`: QEMU did not tell.
fn vcpu_times(figures: &Params) -> Option<(u64, u64)> {
    let (time, vcpus) = figures.sum("vcpu", "maximum", "time");
    let (delay, _) = figures.sum("vcpu", "maximum", "delay");
    (vcpus > 0).then_some((time, delay))
}

/// One guest's counters. What this reading lacks is taken from the `last` one of the same process.
fn counters_of(id: GuestId, record: &StatsRecord, last: Option<&GuestCounters>) -> GuestCounters {
    let figures = &record.params;
    let number = |name: &str| figures.number(name);
    let code = |name| i32::try_from(figures.signed(name).unwrap_or(0)).unwrap_or(0);
    let state = state::run_state(code("state.state"), code("state.reason"));
    let generation = record.id.map_or(0, i64::from);
    let last = last.filter(|last| last.generation == generation);
    let kept = |value: Option<u64>, old: fn(&GuestCounters) -> u64| {
        value.or_else(|| last.map(old)).unwrap_or(0)
    };
    let times = vcpu_times(figures);
    let kib = |name| number(name).map(|kib| kib / 1024);
    let vcpus = kept(
        number("vcpu.current").or_else(|| number("vcpu.maximum")),
        |l| l.vcpus.into(),
    );
    GuestCounters {
        id,
        name: record.name.clone(),
        state,
        persistent: true,
        generation,
        vcpus: u32::try_from(vcpus).unwrap_or(u32::MAX),
        cpu_time_ns: kept(number("cpu.time"), |l| l.cpu_time_ns),
        vcpu_time_ns: kept(times.map(|t| t.0), |l| l.vcpu_time_ns),
        vcpu_delay_ns: kept(times.map(|t| t.1), |l| l.vcpu_delay_ns),
        memory_mib: kept(
            kib("balloon.current").or_else(|| kib("balloon.maximum")),
            |l| l.memory_mib,
        ),
        memory_rss_mib: kept(kib("balloon.rss"), |l| l.memory_rss_mib),
        memory_used_mib: used_mib(figures).or_else(|| last.and_then(|l| l.memory_used_mib)),
        block_bytes: traffic(figures, "block", ["rd.bytes", "wr.bytes"]),
        net_bytes: traffic(figures, "net", ["rx.bytes", "tx.bytes"]),
        dirty_rate_mib_s: Sample::of(figures)
            .map(Sample::rate)
            .or_else(|| last.and_then(|l| l.dirty_rate_mib_s)),
        migrating_out: false,
        complete: state == RunState::ShutOff || times.is_some(),
    }
}

/// What the guest's own kernel counts as used; `None` without a balloon driver that reports.
fn used_mib(figures: &Params) -> Option<u64> {
    let total = figures.number("balloon.available")?;
    let free = figures
        .number("balloon.usable")
        .or_else(|| figures.number("balloon.unused"))?;
    Some(total.saturating_sub(free) / 1024)
}

/// Bytes both ways; `None` when this reading did not ask for them.
fn traffic(figures: &Params, group: &str, both: [&str; 2]) -> Option<u64> {
    figures.number(&format!("{group}.count"))?;
    let sum = |suffix| figures.sum(group, "count", suffix).0;
    Some(both.into_iter().map(sum).fold(0, u64::saturating_add))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_that_hangs_is_given_up_and_their_number_is_bounded() {
        let hanging = Arc::new(AtomicUsize::new(0));
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let short = Duration::from_millis(20);
        for _ in 0..4 {
            let wait = Arc::clone(&wait);
            let hangs = move || wait.lock().map(|w| w.recv().is_ok()).unwrap_or(false);
            assert_eq!(within(short, &hanging, 2, hangs), None);
        }
        assert_eq!(hanging.load(Ordering::Acquire), 2);
        drop(release);
        while hanging.load(Ordering::Acquire) > 0 {
            std::thread::yield_now();
        }
        let long = Duration::from_secs(10);
        assert_eq!(within(long, &hanging, 2, || 7), Some(7));
    }
}
