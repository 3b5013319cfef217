//! Measures on request how much of its memory a guest changes within a time.
//!
//! A rate alone prices a copy wrongly: who writes the same 100 MiB again and again leaves little to copy, however
//! fast it writes. So a guest is sampled for growing times, each several times over, and the answer is a curve. It
//! is given to whoever asked, and left in [`Curves`] for the host's reports.
//!
//! One guest at a time, and nobody waits in line: who comes second is refused. A curve counts only if the guest ran and
//! nothing else was going on all the while.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_daemon::unix_ms;
use evenkeel_proto::v1;
use evenkeel_types::{GuestId, Presence};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::calls::Calls;
use crate::hypervisor::{Hypervisor, HypervisorError};

/// Lengths of the samples, s. The last two give the slope by which a planner goes on; longer ones would make who
/// asks wait for what a copy of a fast link never needs.
const LENGTHS: [u32; 3] = [1, 2, 4];
/// Samples of each length.
const REPEATS: u8 = 3;
/// How often a sample is looked at whose time is over.
const LOOK: Duration = Duration::from_millis(250);
/// How long it may be late: comparing the pages of a large guest takes a second or two.
const LATE: Duration = Duration::from_secs(5);
/// A curve takes 21 s, and no longer than this.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Why a guest was not measured.
#[derive(Debug, thiserror::Error)]
pub enum NotMeasured {
    /// One at a time.
    #[error("another guest of this host is being measured")]
    Occupied,
    /// It is in no state to be measured, or was not all the while.
    #[error("{0}")]
    Unfit(&'static str),
    /// The hypervisor took the wish and did not come back with an answer.
    #[error("the hypervisor did not finish in time")]
    Late,
    /// What the hypervisor said.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
}

/// Curves that were measured and are not in a report yet: the newest of each guest.
#[derive(Debug, Default)]
pub struct Curves(Mutex<BTreeMap<GuestId, v1::DirtyCurve>>);

impl Curves {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<GuestId, v1::DirtyCurve>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a guest's newest curve.
    pub fn put(&self, guest: &GuestId, curve: v1::DirtyCurve) {
        self.lock().insert(guest.clone(), curve);
    }

    /// Takes them all away.
    #[must_use]
    pub fn take(&self) -> BTreeMap<GuestId, v1::DirtyCurve> {
        std::mem::take(&mut *self.lock())
    }
}

/// The one who measures.
#[derive(Debug)]
pub struct Meter<H> {
    calls: Calls<H>,
    curves: Arc<Curves>,
    /// Held by every call of a measurement, too: one that hangs keeps others from hanging beside it.
    place: Arc<Semaphore>,
}

/// A place that is given back with its last holder.
type Place = Arc<OwnedSemaphorePermit>;

impl<H: Hypervisor> Meter<H> {
    /// A meter that leaves its results in `curves`.
    #[must_use]
    pub fn new(calls: Calls<H>, curves: Arc<Curves>) -> Self {
        Self {
            calls,
            curves,
            place: Arc::new(Semaphore::new(1)),
        }
    }

    /// Measures a guest while `calm` says that no migration touches this host. Ends early when it is dropped.
    ///
    /// # Errors
    /// See [`NotMeasured`]; nothing is left behind then.
    pub async fn measure(
        &self,
        guest: &GuestId,
        calm: impl Fn() -> bool + Send,
    ) -> Result<v1::DirtyCurve, NotMeasured> {
        let permit = Arc::clone(&self.place).try_acquire_owned();
        let place = Arc::new(permit.map_err(|_| NotMeasured::Occupied)?);
        let series = self.series(guest, &place, calm);
        let samples = tokio::time::timeout(DEADLINE, series).await;
        let curve = v1::DirtyCurve {
            points: curve(&samples.map_err(|_| NotMeasured::Late)??),
            measured_at_ms: unix_ms(),
        };
        self.curves.put(guest, curve.clone());
        Ok(curve)
    }

    /// Samples of each length.
    async fn series(
        &self,
        guest: &GuestId,
        place: &Place,
        calm: impl Fn() -> bool + Send,
    ) -> Result<Vec<(u32, f64)>, NotMeasured> {
        let mut samples = vec![];
        self.confirm(guest, place, &calm).await?;
        for seconds in LENGTHS {
            for _ in 0..REPEATS {
                samples.push((seconds, self.sample(guest, place, seconds).await?));
                // After each: what began meanwhile has spoilt it.
                self.confirm(guest, place, &calm).await?;
            }
        }
        Ok(samples)
    }

    /// The guest runs, and nothing else is going on.
    async fn confirm(
        &self,
        guest: &GuestId,
        place: &Place,
        calm: &(impl Fn() -> bool + Send),
    ) -> Result<(), NotMeasured> {
        if !calm() {
            return Err(NotMeasured::Unfit("a migration touches this host"));
        }
        let look = self.call(guest, place, |h, guest| {
            let (presence, _) = h.presence(guest)?;
            Ok((presence, presence == Presence::Running && h.is_busy(guest)?))
        });
        match look.await? {
            (Presence::Running, false) => Ok(()),
            (Presence::Running, true) => Err(NotMeasured::Unfit("a job holds the guest")),
            (Presence::Absent, _) => {
                let guest = guest.clone();
                Err(HypervisorError::NoSuchGuest { guest }.into())
            }
            (Presence::Paused | Presence::PausedByMigration | Presence::ShutOff, _) => {
                Err(NotMeasured::Unfit("the guest is not running"))
            }
        }
    }

    /// MiB that changed within so many seconds.
    async fn sample(
        &self,
        guest: &GuestId,
        place: &Place,
        seconds: u32,
    ) -> Result<f64, NotMeasured> {
        let start = move |h: &H, guest: &GuestId| h.start_dirty_sample(guest, seconds);
        self.call(guest, place, start).await?;
        tokio::time::sleep(Duration::from_secs(seconds.into())).await;
        let patience = Instant::now() + LATE;
        while Instant::now() < patience {
            let look = move |h: &H, guest: &GuestId| h.dirty_sample(guest, seconds);
            if let Some(mib) = self.call(guest, place, look).await? {
                return Ok(mib);
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(NotMeasured::Late)
    }

    async fn call<T: Send + 'static>(
        &self,
        guest: &GuestId,
        place: &Place,
        call: impl FnOnce(&H, &GuestId) -> Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let (guest, place) = (guest.clone(), Arc::clone(place));
        let call = move |h: &H| {
            let answer = call(h, &guest);
            drop(place);
            answer
        };
        self.calls.call(call).await
    }
}

/// The curve through samples that are sorted by their length: the mean of each length, never below a shorter one's.
///
/// The mean and not the median: of few pages looked at, most samples may miss what changes rarely.
fn curve(samples: &[(u32, f64)]) -> Vec<v1::DirtyPoint> {
    let mut points: Vec<v1::DirtyPoint> = vec![];
    for length in samples.chunk_by(|a, b| a.0 == b.0) {
        let Some(&(seconds, _)) = length.first() else {
            continue;
        };
        let count: f64 = length.iter().map(|_| 1.0).sum();
        let mean = length.iter().map(|(_, mib)| mib).sum::<f64>() / count;
        let below = points.last().map_or(0.0, |point| point.mib);
        points.push(v1::DirtyPoint {
            seconds: seconds.into(),
            // What has changed stays changed: a longer time that saw less is an error of measurement.
            mib: mean.max(below),
        });
    }
    points
}

#[cfg(test)]
mod tests;
