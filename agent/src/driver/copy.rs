//! Before and during the copy: checking here and there, libvirt's call, following and aborting its job.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_daemon::retry::Backoff;
use evenkeel_daemon::unix_ms;
use evenkeel_proto::order::Order;
use evenkeel_proto::v1;
use evenkeel_types::{CallResult, Event, GuestId, MigrationState};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Driver;
use super::disks::{self, Copying};
use super::leaving::{self, Leaving};
use super::task::{Signal, Task};
use super::verdict;
use crate::calls::Calls;
use crate::hypervisor::disks::LocalDisk;
use crate::hypervisor::{
    CallGate, Hypervisor, HypervisorError, JobProgress, LiveMigration, Stream,
};
use crate::journal::{Records, Refused};
use crate::peer::{Peers, Prepared};

/// Answers "no job" in a row after which a followed job is over: one may fall between two of libvirt's phases.
const GONE: u32 = 2;
/// The same while our own call has not come back: after as many (60 s at the usual pace) it never will, or was
/// never made.
const CALL_LOST: u32 = 120;
/// For people: the guest was not touched.
const NOT_MADE: &str = "libvirt was never asked: there was no connection to it before the end";

impl<H: Hypervisor, R: Records, P: Peers> Task<H, R, P> {
    /// Looks at the guest here, then asks the target.
    pub(super) fn prepare_target(&self) {
        let (driver, order) = (self.driver.clone(), self.order.clone());
        let signals = self.signals.clone();
        tokio::spawn(async move {
            let signal = match prepare(&driver, &order).await {
                Ok((prepared, disks)) => Signal::Ready(prepared, disks),
                Err((reason, words)) => Signal::Happened(Event::Refused(reason), words),
            };
            // A task that is over wants no answer.
            drop(signals.send(signal).await);
        });
    }

    /// Starts libvirt's migration once `Running` stands in etcd.
    pub(super) fn start_copy(&self) {
        let work = self.work();
        disks::note_leaving(&self.driver, &self.order, &self.disks);
        let call = Call {
            watch: self.watch(CALL_LOST),
            gate: Arc::default(),
            aborted: self.aborted.clone(),
        };
        let (mut written, version) = (self.written.clone(), self.version);
        tokio::spawn(async move {
            let durable = tokio::select! {
                biased;
                () = call.aborted.cancelled() => false,
                durable = written.wait_for(|v| *v >= version) => durable.is_ok(),
            };
            let signals = call.watch.signals.clone();
            let (result, words) = if durable {
                call.make(work).await
            } else {
                let words = "nothing was started: the journal was not in etcd before the end";
                (CallResult::Error, words.to_owned())
            };
            let signal = Signal::Happened(Event::CallReturned(result), words);
            drop(signals.send(signal).await);
        });
    }

    fn watch(&self, gone: u32) -> Watch<H, R, P> {
        Watch {
            driver: self.driver.clone(),
            guest: self.order.guest.clone(),
            signals: self.signals.clone(),
            over: self.over.clone(),
            gone,
        }
    }

    /// What is to be done, by what the order says and the target has prepared.
    fn work(&self) -> Work<H, R, P> {
        let prepared = self.prepared.clone();
        let (peer_uri, migration_uri) =
            prepared.map_or_else(Default::default, |p| (p.peer_uri, p.migration_uri));
        match self.order.options.kind {
            v1::MoveKind::Offline => Work::Offline {
                peer_uri,
                copying: Copying {
                    driver: self.driver.clone(),
                    order: self.order.clone(),
                    disks: self.disks.clone(),
                    signals: self.signals.clone(),
                    aborted: self.aborted.clone(),
                },
            },
            v1::MoveKind::Live | v1::MoveKind::Unspecified => {
                Work::Live(self.migration(peer_uri, migration_uri))
            }
        }
    }

    fn migration(&self, peer_uri: String, migration_uri: Option<String>) -> LiveMigration {
        let options = &self.order.options;
        LiveMigration {
            guest: self.order.guest.clone(),
            peer_uri,
            migration_uri,
            downtime_limit: options.downtime_limit,
            bandwidth_limit_mib_s: options.bandwidth_limit_mib_s,
            auto_converge: options.auto_converge,
            post_copy: options.post_copy,
            stream: Stream {
                connections: options.connections,
                compression: options.compression,
                tls: options.tls,
            },
            disks: self.disks.iter().map(|disk| disk.name.clone()).collect(),
            incremental: options.disks == v1::DiskCopy::Incremental,
        }
    }

    /// Watches a job whose call nobody waits for.
    pub(super) fn follow_job(&mut self) {
        self.over.cancel();
        self.over = CancellationToken::new();
        self.aborting = false;
        tokio::spawn(poll(self.watch(GONE), None));
    }

    /// Aborts the job, again and again until libvirt's call is over: an abort that comes before the job has
    /// begun, or while libvirtd restarts, is lost.
    pub(super) fn abort_job(&mut self) {
        self.aborted.cancel();
        if std::mem::replace(&mut self.aborting, true) {
            return;
        }
        let (driver, order, over) = (self.driver.clone(), self.order.clone(), self.over.clone());
        tokio::spawn(async move {
            let mut told = false;
            while !over.is_cancelled() {
                let guest = order.guest.clone();
                let answer = driver.calls.call(move |h| h.abort(&guest)).await;
                if let Err(error) = answer
                    && !std::mem::replace(&mut told, true)
                {
                    tracing::warn!(order = %order.id, %error, "abort not taken; trying on");
                }
                tokio::select! {
                    () = over.cancelled() => {}
                    () = tokio::time::sleep(driver.timings.abort) => {}
                }
            }
        });
    }
}

/// Asks first here, then there, whether the guest may go.
async fn prepare<H: Hypervisor, R: Records, P: Peers>(
    driver: &Driver<H, R, P>,
    order: &Order,
) -> Result<(Prepared, Vec<LocalDisk>), Refused> {
    let Leaving {
        definition,
        luggage,
    } = leaving::check_here(&driver.calls, order).await?;
    let prepared = driver.peers.prepare(order, definition, &luggage).await?;
    Ok((prepared, luggage.disks))
}

/// What libvirt is to be asked for.
enum Work<H, R, P> {
    Live(LiveMigration),
    Offline {
        peer_uri: String,
        /// What goes before it.
        copying: Copying<H, R, P>,
    },
}

/// A call of libvirt's that is to be made once.
struct Call<H, R, P> {
    watch: Watch<H, R, P>,
    gate: Arc<CallGate>,
    aborted: CancellationToken,
}

impl<H: Hypervisor, R: Records, P: Peers> Call<H, R, P> {
    /// Makes the call on a thread of its own and waits for it, however long; an abort that comes before it is
    /// made ends it at once, for it is then never made.
    async fn make(self, work: Work<H, R, P>) -> (CallResult, String) {
        let hypervisor = self.watch.driver.calls.hypervisor().clone();
        let gate = self.gate.clone();
        let mut call = match work {
            Work::Live(migration) => {
                tokio::task::spawn_blocking(move || hypervisor.migrate(&migration, &gate))
            }
            Work::Offline { peer_uri, copying } => {
                // Before the call: it hands over a definition whose disks are there.
                if let Err(words) = copying.run().await {
                    return (CallResult::Error, words);
                }
                let guest = self.watch.guest.clone();
                let call = move || hypervisor.move_definition(&guest, &peer_uri, &gate);
                tokio::task::spawn_blocking(call)
            }
        };
        tokio::spawn(poll(self.watch, Some(self.gate.clone())));
        let returned = tokio::select! {
            biased;
            returned = &mut call => returned,
            () = self.aborted.cancelled() => {
                if self.gate.give_up() {
                    return (CallResult::Error, NOT_MADE.to_owned());
                }
                call.await
            }
        };
        match returned {
            Ok(Ok(())) => (CallResult::Ok, String::new()),
            Ok(Err(error)) => (CallResult::Error, error.to_string()),
            Err(error) => {
                let words = format!("the call's thread ended: {error}");
                (CallResult::Error, words)
            }
        }
    }
}

/// What it takes to look at a job until it is over.
struct Watch<H, R, P> {
    driver: Arc<Driver<H, R, P>>,
    guest: GuestId,
    signals: mpsc::Sender<Signal>,
    over: CancellationToken,
    /// Answers "no job" in a row that mean that it is gone.
    gone: u32,
}

/// Reports the job's progress until `over`, or says what it means that there is none any more. `gate` is that
/// of a call that has not come back.
async fn poll<H: Hypervisor, R: Records, P: Peers>(
    watch: Watch<H, R, P>,
    gate: Option<Arc<CallGate>>,
) {
    let (mut seen, mut without) = (false, 0);
    while !watch.over.is_cancelled() {
        match job(&watch.driver.calls, &watch.guest).await {
            Ok(Some(progress)) => {
                (seen, without) = (true, 0);
                // Dropped when the task is busy: the next one comes soon.
                drop(watch.signals.try_send(Signal::Progress(progress)));
            }
            Ok(None) => without += 1,
            Err(_) => {}
        }
        if without >= watch.gone {
            let (event, words) = gone(gate.filter(|_| !seen).as_deref());
            let signal = Signal::Happened(event, words.to_owned());
            return drop(watch.signals.send(signal).await);
        }
        tokio::select! {
            () = watch.over.cancelled() => {}
            () = tokio::time::sleep(watch.driver.timings.poll) => {}
        }
    }
}

/// What it means that there is no job. A call that has shown no sign of one is given up if it was not made yet;
/// one that was made may still act.
fn gone(unseen: Option<&CallGate>) -> (Event, &'static str) {
    match unseen {
        Some(gate) if gate.give_up() => (Event::CallReturned(CallResult::Error), NOT_MADE),
        Some(_) => (Event::GaveUp, "libvirt has the call and does not begin"),
        None => (
            Event::CallReturned(CallResult::Unseen),
            "the end of libvirt's call was not seen",
        ),
    }
}

/// The guest's job here; a guest that is not here has none.
pub(super) async fn job<H: Hypervisor>(
    calls: &Calls<H>,
    guest: &GuestId,
) -> Result<Option<JobProgress>, HypervisorError> {
    let id = guest.clone();
    match calls.call(move |h| h.outgoing_job(&id)).await {
        Err(HypervisorError::NoSuchGuest { .. }) => Ok(None),
        other => other,
    }
}

/// The guest's job here, for adopting: waits until libvirt answers, and believes "no job" only when it was
/// said [`GONE`] times in a row.
pub(super) async fn standing_job<H: Hypervisor>(
    calls: &Calls<H>,
    guest: &GuestId,
    pause: Duration,
) -> Option<JobProgress> {
    let mut backoff = Backoff::default();
    let (mut told, mut without) = (false, 0);
    loop {
        match job(calls, guest).await {
            Ok(Some(job)) => return Some(job),
            Ok(None) => without += 1,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%guest, %error, "adopting waits for the hypervisor");
                }
                tokio::time::sleep(backoff.next_wait()).await;
                continue;
            }
        }
        if without >= GONE {
            return None;
        }
        tokio::time::sleep(pause).await;
    }
}

/// When the call of a journal that is taken up was over; the journal was written at that moment or later.
pub(super) fn over_ms(state: &MigrationState, journal: &v1::Journal) -> Option<i64> {
    verdict::call_of(state).map(|_| journal.updated_at_ms)
}

/// Whether a job may be the one that our call started: one that began after the call was over is not. Somebody
/// else's migration is neither followed nor aborted.
pub(super) fn is_ours(job: &JobProgress, over_ms: Option<i64>) -> bool {
    /// Both clocks may be read a little late.
    const SLACK_MS: i64 = 2_000;
    let elapsed_ms = i64::try_from(job.elapsed.as_millis()).unwrap_or(i64::MAX);
    let began_ms = unix_ms().saturating_sub(elapsed_ms);
    over_ms.is_none_or(|over| began_ms <= over.saturating_add(SLACK_MS))
}

/// A job's figures as they are told; what only an earlier figure knew is kept.
pub(super) fn progress(job: &JobProgress, before: &v1::CopyProgress) -> v1::CopyProgress {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    v1::CopyProgress {
        total_bytes: job.total_bytes.max(before.total_bytes),
        transferred_bytes: job.transferred_bytes.max(before.transferred_bytes),
        remaining_bytes: job.remaining_bytes,
        dirty_bytes_per_second: job.dirty_bytes_per_second,
        peak_dirty_bytes_per_second: job
            .dirty_bytes_per_second
            .max(before.peak_dirty_bytes_per_second),
        bandwidth_bytes_per_second: job.bandwidth_bytes_per_second,
        iteration: job.iteration.max(before.iteration),
        expected_downtime_ms: ms(job.expected_downtime),
        downtime_ms: job.downtime.map_or(before.downtime_ms, ms),
        elapsed_ms: ms(job.elapsed).max(before.elapsed_ms),
        disk_total_bytes: job.disks.total_bytes.max(before.disk_total_bytes),
        disk_transferred_bytes: (job.disks.transferred_bytes).max(before.disk_transferred_bytes),
        disk_remaining_bytes: job.disks.remaining_bytes,
    }
}
