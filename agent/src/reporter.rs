//! The loop that looks at host and guests once a second and says what it sees when that is worth saying.
//!
//! Two halves, so that an etcd that does not answer never stops the looking: [`Watcher`] samples, [`publish`]
//! puts the newest report on the agent's lease. A hypervisor that hangs or is gone is itself reported
//! (`libvirt_up = false`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_daemon::lease::Held;
use evenkeel_daemon::retry::Backoff;
use evenkeel_daemon::{Store, unix_ms};
use evenkeel_proto::v1::Report;
use evenkeel_types::{GuestId, HostName};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::calls::Calls;
use crate::config::ReportPace;
use crate::dirtying::Curves;
use crate::hypervisor::{GuestCounters, GuestTraits, Hypervisor, HypervisorError, HypervisorEvent};
use crate::measure::deadband::{Deadband, SendReason, Silence};
use crate::measure::{Reading, Sampler};
use crate::metrics::AgentMetrics;
use crate::pressure::{HostReader, HostSample};

/// How long one look at all guests may take; the adapter itself gives up a little earlier.
const LOOK: Duration = Duration::from_secs(4);
/// Definitions read in one look: after a start of many guests the rest follows in the next ones.
const TRAITS_AT_ONCE: usize = 16;
/// No further definition is begun after this time: the counters are waited for.
const TRAITS_PATIENCE: Duration = Duration::from_secs(1);

/// A definition is read again after this time although no event named it: what it says of the host, such as
/// where a disk lies, changes without one.
const TRAITS_EVERY: Duration = Duration::from_secs(600);

/// What one look at the hypervisor brought.
#[derive(Debug)]
struct Look {
    counters: Vec<GuestCounters>,
    traits: Vec<(GuestId, GuestTraits)>,
}

/// Looks at the host and makes reports.
pub struct Watcher<H> {
    calls: Calls<H>,
    reader: HostReader,
    sampler: Sampler,
    deadband: Deadband,
    pace: ReportPace,
    metrics: AgentMetrics,
    curves: Arc<Curves>,
    started: Instant,
    /// A look that was not over in time.
    pending: Option<JoinHandle<Result<Look, HypervisorError>>>,
    /// Guests whose definitions have changed.
    changed: BTreeSet<GuestId>,
    /// When each guest's definition was asked for last.
    asked: BTreeMap<GuestId, Instant>,
    /// The report that was handed over last.
    last: Option<Report>,
    /// When it was.
    sent: Option<Instant>,
    /// When the last two were that went out for values alone, newest first.
    moved: [Option<Instant>; 2],
    sequence: u64,
    libvirt_up: Option<bool>,
}

/// What the watcher needs beside the hypervisor.
#[derive(Debug)]
pub struct WatcherParts {
    /// This host.
    pub host: HostName,
    /// Reads the kernel's files.
    pub reader: HostReader,
    /// How often.
    pub pace: ReportPace,
    /// Where figures are shown.
    pub metrics: AgentMetrics,
    /// Where dirty curves are left.
    pub curves: Arc<Curves>,
}

impl<H> std::fmt::Debug for Watcher<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher")
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

impl<H: Hypervisor> Watcher<H> {
    /// A watcher that has seen nothing yet.
    #[must_use]
    pub fn new(calls: Calls<H>, parts: WatcherParts) -> Self {
        Self {
            calls,
            reader: parts.reader,
            sampler: Sampler::new(parts.host, parts.pace.window, parts.pace.interval),
            deadband: Deadband {
                heartbeat: parts.pace.heartbeat,
                ..Deadband::default()
            },
            pace: parts.pace,
            metrics: parts.metrics,
            curves: parts.curves,
            started: Instant::now(),
            pending: None,
            changed: BTreeSet::new(),
            asked: BTreeMap::new(),
            last: None,
            sent: None,
            moved: [None; 2],
            sequence: 0,
            libvirt_up: None,
        }
    }

    /// Looks at every tick until `stop`; `incoming` tells how many guests are on their way here, `beat` is
    /// called with what every look has brought.
    pub async fn run(
        mut self,
        reports: watch::Sender<Report>,
        incoming: impl Fn() -> usize,
        mut beat: impl FnMut(&Report),
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(self.pace.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut events = self.calls.hypervisor().events();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.drain(&mut events);
            let report = self.look(incoming()).await;
            beat(&report);
            if let Some(reason) = self.worth_sending(&report) {
                tracing::trace!(?reason, "report goes out");
                let now = Instant::now();
                self.sent = Some(now);
                if reason == SendReason::Moved {
                    self.moved = [Some(now), self.moved[0]];
                }
                self.sequence += 1;
                let report = Report {
                    sequence: self.sequence,
                    ..report
                };
                self.last = Some(report.clone());
                reports.send_replace(report);
            }
        }
    }

    /// Notes which definitions are to be read again: all of them when events may have been missed.
    fn drain(&mut self, events: &mut broadcast::Receiver<HypervisorEvent>) {
        use broadcast::error::TryRecvError;
        loop {
            match events.try_recv() {
                Ok(HypervisorEvent::GuestChanged(guest)) => {
                    self.changed.insert(guest);
                }
                Ok(HypervisorEvent::Connected) | Err(TryRecvError::Lagged(_)) => {
                    self.changed.extend(self.sampler.guests().cloned());
                }
                Ok(
                    HypervisorEvent::SwitchoverBegan(_)
                    | HypervisorEvent::JobCompleted(..)
                    | HypervisorEvent::ConnectionLost,
                ) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn worth_sending(&self, report: &Report) -> Option<SendReason> {
        let since = |at: Option<Instant>| at.map_or(Duration::MAX, |at| at.elapsed());
        let silence = Silence {
            since_any: since(self.sent),
            since_moved_but_one: since(self.moved[1]),
        };
        self.deadband
            .should_send(self.last.as_ref(), report, silence)
    }

    /// One look at host and guests.
    async fn look(&mut self, incoming: usize) -> Report {
        let begun = Instant::now();
        let reader = self.reader.clone();
        let host = tokio::task::spawn_blocking(move || reader.read());
        let looked = self.look_at_guests().await;
        let host = host.await.unwrap_or_else(|_| HostSample::default());
        self.note_libvirt(looked.as_ref().err());
        let look = looked.ok();
        for (guest, traits) in look.iter().flat_map(|l| &l.traits) {
            self.take_traits(guest, traits.clone());
        }
        if let Some(look) = &look {
            self.forget_the_gone(&look.counters);
        }
        let at = begun.duration_since(self.started);
        for (guest, curve) in self.curves.take() {
            self.sampler.set_curve(&guest, at, curve);
        }
        let guests = look.as_ref().map(|l| l.counters.as_slice());
        let report = self.sampler.push(&Reading {
            at,
            wall_ms: unix_ms(),
            guests,
            host: &host,
            incoming: u32::try_from(incoming).unwrap_or(u32::MAX),
        });
        self.metrics
            .observe(&report, guests, &host, begun.elapsed());
        report
    }

    /// A guest that is gone has no definition to be read; were it kept, every one that ever was would be.
    fn forget_the_gone(&mut self, counters: &[GuestCounters]) {
        let here: BTreeSet<&GuestId> = counters.iter().map(|c| &c.id).collect();
        self.changed.retain(|guest| here.contains(guest));
        self.asked.retain(|guest, _| here.contains(guest));
    }

    fn take_traits(&mut self, guest: &GuestId, traits: GuestTraits) {
        self.changed.remove(guest);
        self.sampler.set_traits(guest, traits);
    }

    /// Asks the hypervisor, unless an earlier question still hangs.
    async fn look_at_guests(&mut self) -> Result<Look, HypervisorError> {
        let mut asked = match self.pending.take() {
            Some(pending) if !pending.is_finished() => {
                self.pending = Some(pending);
                let detail = "an earlier look still hangs".to_owned();
                return Err(HypervisorError::Unreachable { detail });
            }
            // Its counters are old, but its definitions need not be read once more, which made it late.
            Some(late) => {
                let late = late.await.ok().and_then(Result::ok);
                for (guest, traits) in late.into_iter().flat_map(|look| look.traits) {
                    self.take_traits(&guest, traits);
                }
                self.ask()
            }
            None => self.ask(),
        };
        match tokio::time::timeout(LOOK, &mut asked).await {
            Ok(Ok(look)) => look,
            Ok(Err(error)) => Err(HypervisorError::Unreachable {
                detail: format!("the look ended early: {error}"),
            }),
            Err(_) => {
                self.pending = Some(asked);
                let detail = format!("no answer within {LOOK:?}");
                Err(HypervisorError::Unreachable { detail })
            }
        }
    }

    fn ask(&mut self) -> JoinHandle<Result<Look, HypervisorError>> {
        let unknown = self.sampler.without_traits();
        let mut wanted: BTreeSet<GuestId> = self.changed.iter().cloned().chain(unknown).collect();
        wanted.extend(self.due_again());
        let now = Instant::now();
        self.asked
            .extend(wanted.iter().map(|guest| (guest.clone(), now)));
        let hypervisor = Arc::clone(self.calls.hypervisor());
        tokio::task::spawn_blocking(move || look_blocking(hypervisor.as_ref(), wanted))
    }

    /// The guest whose definition was not asked for the longest, if that is long enough: one at a look.
    fn due_again(&self) -> Option<GuestId> {
        let (guest, asked) = self.asked.iter().min_by_key(|(_, asked)| **asked)?;
        (asked.elapsed() >= TRAITS_EVERY).then(|| guest.clone())
    }

    /// Logs once per change whether the hypervisor answers.
    fn note_libvirt(&mut self, error: Option<&HypervisorError>) {
        let up = error.is_none();
        if self.libvirt_up.replace(up) == Some(up) {
            return;
        }
        match error {
            None => tracing::info!("the hypervisor answers"),
            Some(error) => tracing::warn!(%error, "the hypervisor does not answer"),
        }
    }
}

fn look_blocking<H: Hypervisor>(
    hypervisor: &H,
    wanted: BTreeSet<GuestId>,
) -> Result<Look, HypervisorError> {
    let counters = hypervisor.counters()?;
    let begun = Instant::now();
    let here = |guest: &GuestId| counters.iter().any(|c| c.id == *guest && c.complete);
    let traits = wanted
        .into_iter()
        .filter(here)
        .take(TRAITS_AT_ONCE)
        .take_while(|_| begun.elapsed() < TRAITS_PATIENCE)
        .filter_map(|guest| {
            // A guest that has just gone has none; the next look asks again for the others.
            let traits = hypervisor.traits(&guest).ok()?;
            Some((guest, traits))
        })
        .collect();
    Ok(Look { counters, traits })
}

/// Puts the newest report on the newest lease until `stop`.
pub async fn publish(
    (store, key): (Store, String),
    mut reports: watch::Receiver<Report>,
    mut lease: watch::Receiver<Option<Held>>,
    metrics: AgentMetrics,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::default();
    let mut put = None;
    loop {
        let held = lease.borrow_and_update().map(|held| held.id);
        let report = reports.borrow_and_update().clone();
        let due = report.sequence > 0 && held.is_some() && put != Some((report.sequence, held));
        let mut wait = None;
        if due {
            let outcome = store.put(&key, &report, held).await;
            metrics.published(outcome.is_ok(), unix_ms());
            match outcome {
                Ok(()) => {
                    put = Some((report.sequence, held));
                    backoff.reset();
                }
                Err(error) => {
                    tracing::debug!(%error, "report not published");
                    wait = Some(backoff.next_wait());
                }
            }
        }
        let changed = async {
            tokio::select! {
                changed = reports.changed() => changed,
                changed = lease.changed() => changed,
            }
        };
        let go_on = async {
            match wait {
                Some(wait) => {
                    tokio::time::sleep(wait).await;
                    Ok(())
                }
                None => changed.await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            gone = go_on => if gone.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests;
