//! Guests that change their memory as a test says.

use std::collections::VecDeque;

use evenkeel_types::{GuestId, Presence};

use super::{ERR_OPERATION_INVALID, FakeHypervisor, FakeWorld, failed};
use crate::hypervisor::HypervisorError;
use crate::hypervisor::dirty::DirtySamples;

/// How a guest changes its memory, and what its samples are like.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Dirtying {
    /// MiB it writes in a second.
    pub mib_per_second: f64,
    /// MiB that it writes again and again; 0: ever new ones.
    pub working_set_mib: f64,
    /// What samples say instead, one after the other; then as above.
    pub said: VecDeque<f64>,
    /// Samples never end.
    pub endless: bool,
    /// Samples that were begun.
    pub samples: u32,
    /// After so many samples a backup of the guest begins in the middle of the next.
    pub backup_after: Option<u32>,
}

impl FakeWorld {
    /// Says how a guest changes its memory.
    pub fn edit_dirtying(&self, host: &str, id: &GuestId, edit: impl FnOnce(&mut Dirtying)) {
        self.on(host, |state| {
            if let Some(guest) = state.guests.get_mut(id) {
                edit(&mut guest.dirtying);
            }
        });
    }

    /// Samples of a guest's memory that were begun.
    #[must_use]
    pub fn dirty_samples(&self, host: &str, id: &GuestId) -> u32 {
        let hosts = self.lock();
        let guest = hosts.get(host).and_then(|state| state.guests.get(id));
        guest.map_or(0, |guest| guest.dirtying.samples)
    }
}

impl DirtySamples for FakeHypervisor {
    fn start_dirty_sample(&self, guest: &GuestId, _seconds: u32) -> Result<(), HypervisorError> {
        self.guest(guest, |g| {
            if g.presence == Presence::ShutOff {
                return Err(failed(ERR_OPERATION_INVALID, "domain is not running"));
            }
            let dirtying = &mut g.dirtying;
            if dirtying.backup_after == Some(dirtying.samples) {
                g.backup = true;
            }
            dirtying.samples += 1;
            Ok(())
        })?
    }

    fn dirty_sample(&self, guest: &GuestId, seconds: u32) -> Result<Option<f64>, HypervisorError> {
        self.guest(guest, |g| {
            let dirtying = &mut g.dirtying;
            if dirtying.endless {
                return None;
            }
            if let Some(said) = dirtying.said.pop_front() {
                return Some(said);
            }
            let written = dirtying.mib_per_second * f64::from(seconds);
            let most = dirtying.working_set_mib;
            Some(if most > 0.0 {
                written.min(most)
            } else {
                written
            })
        })
    }
}
