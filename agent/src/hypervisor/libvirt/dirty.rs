//! libvirt's samples of changed pages as [`DirtySamples`].
//!
//! QEMU hashes 512 pages a GiB at the beginning and the end of the time and compares: each page that differs stands
//! for 2 MiB, whatever size the guest has. It watches no page, so that the guest does not notice.

use evenkeel_types::GuestId;

use super::raw::{Domain, Params, RawResult, StatsGroups};
use super::{LibvirtHypervisor, wrong_state};
use crate::hypervisor::HypervisorError;
use crate::hypervisor::dirty::DirtySamples;

/// A finished sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    seconds: u64,
    /// Rounded down to whole MiB/s by QEMU.
    mib_per_second: u32,
}

impl Sample {
    /// The sample in a guest's statistics; `None`: none was taken, or one is under way.
    pub(super) fn of(figures: &Params) -> Option<Self> {
        /// `VIR_DOMAIN_DIRTYRATE_MEASURED`
        const MEASURED: i64 = 2;
        let measured = figures.signed("dirtyrate.calc_status") == Some(MEASURED);
        let rate = figures.number("dirtyrate.megabytes_per_second")?;
        measured.then(|| Self {
            seconds: figures.number("dirtyrate.calc_period").unwrap_or(0),
            mib_per_second: u32::try_from(rate).unwrap_or(u32::MAX),
        })
    }

    /// MiB/s.
    pub(super) fn rate(self) -> f64 {
        f64::from(self.mib_per_second)
    }
}

/// What changed in a sample of `seconds`, MiB: the middle of what the rounded rate may stand for.
fn changed(sample: Sample, seconds: u32) -> RawResult<f64> {
    if sample.seconds != u64::from(seconds) {
        let taken = sample.seconds;
        let message = format!("somebody else has measured the guest's dirty rate, over {taken} s");
        return Err(wrong_state(&message));
    }
    Ok((sample.rate() + 0.5) * f64::from(seconds))
}

impl DirtySamples for LibvirtHypervisor {
    fn start_dirty_sample(&self, guest: &GuestId, seconds: u32) -> Result<(), HypervisorError> {
        self.on_guest(guest, |domain| domain.start_dirty_rate_calc(seconds))
    }

    fn dirty_sample(&self, guest: &GuestId, seconds: u32) -> Result<Option<f64>, HypervisorError> {
        self.on_guest(guest, |domain: &Domain| {
            let figures = domain.stats(StatsGroups::DIRTY_RATE)?;
            let sample = Sample::of(&figures);
            sample.map(|sample| changed(sample, seconds)).transpose()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(status: i64, period: i64, rate: i64) -> Params {
        Params::of(&[
            ("dirtyrate.calc_status", status),
            ("dirtyrate.calc_period", period),
            ("dirtyrate.megabytes_per_second", rate),
        ])
    }

    #[test]
    fn only_a_finished_sample_is_one() {
        assert_eq!(Sample::of(&figures(0, 2, 0)), None);
        assert_eq!(Sample::of(&figures(1, 2, 7)), None);
        assert_eq!(Sample::of(&figures(2, 2, -1)), None);
        let sample = Sample::of(&figures(2, 2, 7)).unwrap();
        assert!((sample.rate() - 7.0).abs() < 1e-9);
        assert!((changed(sample, 2).unwrap() - 15.0).abs() < 1e-9);
    }

    #[test]
    fn a_sample_of_another_length_is_somebody_elses() {
        let sample = Sample::of(&figures(2, 30, 7)).unwrap();
        assert!(changed(sample, 2).is_err());
    }
}
