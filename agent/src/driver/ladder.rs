//! The convergence ladder in action: what a copy without headway is allowed, and when it is given up.

use evenkeel_types::{Event, MigrationState, Round, Rung};

use super::task::{Signal, Task};
use crate::hypervisor::{Hypervisor, JobProgress};
use crate::journal::Records;
use crate::peer::Peers;

const MIB: u64 = 1 << 20;

impl<H: Hypervisor, R: Records, P: Peers> Task<H, R, P> {
    /// Judges a look at the running copy; answers with what is said to people, and whether it is given up.
    pub(super) fn climb(&mut self, job: &JobProgress) -> Option<(String, Option<Event>)> {
        let MigrationState::Running(facts) = self.state else {
            return None;
        };
        let round = Round {
            elapsed: job.elapsed,
            iteration: job.iteration,
            // Disks are copied once and then kept equal: only memory goes round.
            remaining_bytes: job
                .remaining_bytes
                .saturating_sub(job.disks.remaining_bytes),
        };
        let rung = self.ladder.look(&round).filter(|_| facts.abort.is_none())?;
        let state = format!(
            "no headway in round {}: {} MiB left, {} MiB/s dirtied, {} MiB/s copied",
            job.iteration,
            job.remaining_bytes / MIB,
            job.dirty_bytes_per_second / MIB,
            job.bandwidth_bytes_per_second / MIB
        );
        tracing::warn!(order = %self.order.id, guest = %self.order.guest, ?rung, state, "ladder climbed");
        match rung {
            Rung::Pause(pause) => {
                let guest = self.order.guest.clone();
                self.try_on(move |h| h.allow_pause(&guest, pause), None);
                Some((format!("{state}; allowed a pause of {pause:?}"), None))
            }
            Rung::PostCopy => {
                let guest = self.order.guest.clone();
                let failed = Some(Event::WillNotConverge);
                self.try_on(move |h| h.start_post_copy(&guest), failed);
                Some((format!("{state}; handed over early"), None))
            }
            Rung::GiveUp => Some((format!("{state}; given up"), Some(Event::WillNotConverge))),
        }
    }

    /// Makes a call beside the copy; `failed` happens when it fails, else that is only logged.
    fn try_on(
        &self,
        call: impl FnOnce(&H) -> Result<(), crate::hypervisor::HypervisorError> + Send + 'static,
        failed: Option<Event>,
    ) {
        let (calls, order) = (self.driver.calls.clone(), self.order.clone());
        let signals = self.signals.clone();
        tokio::spawn(async move {
            let Err(error) = calls.call(call).await else {
                return;
            };
            tracing::warn!(order = %order.id, %error, "a copy could not be allowed more");
            if let Some(event) = failed {
                // A task that is over needs no word.
                drop(
                    signals
                        .send(Signal::Happened(event, error.to_string()))
                        .await,
                );
            }
        });
    }
}

#[cfg(test)]
mod tests;
