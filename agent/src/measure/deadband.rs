//! When a report is worth sending: a pure comparison with the last one that was sent.
//!
//! What changes the picture (a guest came, libvirt went) goes out at once. Values go out when they have left
//! their dead-band around what was sent last, at most every other second unless they leapt. Otherwise a
//! heartbeat. So an idle host writes ten times fewer reports than it takes samples, and a guest that becomes
//! busy is known after one or two.

use std::time::Duration;

use evenkeel_proto::v1::{GuestReport, Pressure, Report};

use super::series::float;

/// Why a report is to be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendReason {
    /// Nothing was sent yet.
    First,
    /// A guest came, went or changed its state, or the host's own state changed.
    Changed,
    /// A value left its dead-band.
    Moved,
    /// Nothing changed, but it is time to be heard of.
    Heartbeat,
}

/// How far values may drift before a report is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Deadband {
    /// Longest silence.
    pub heartbeat: Duration,
    /// Least change of a guest's demand that matters, cores. Idle guests of a lab wander by 0.01; a smaller
    /// band would send noise, a larger one hide a small guest's load.
    pub demand_cores: f64,
    /// The same relative to what was sent, for large guests: 15 % is what a plan does not depend on.
    pub demand_share: f64,
    /// Least change of a pressure, basis points, of what is an average over the window already. On a host
    /// under pressure `demand_share` of what was sent, if that is more.
    pub pressure_bp: f64,
    /// Least change of memory, as a share of the whole.
    pub memory_share: f64,
    /// Least time between a report that is sent for values alone and the last but one of its kind. A restless
    /// host thus writes every other second on average, and one that was quiet may write twice in a row.
    pub pause: Duration,
    /// A change by this many dead-bands does not wait for the pause.
    pub leap: f64,
}

/// How long ago reports were sent; longer than anything if there were none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// Since the last report.
    pub since_any: Duration,
    /// Since the last but one that was sent for values alone.
    pub since_moved_but_one: Duration,
}

impl Default for Deadband {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(10),
            demand_cores: 0.05,
            demand_share: 0.15,
            pressure_bp: 300.0,
            memory_share: 0.02,
            pause: Duration::from_millis(3500),
            leap: 4.0,
        }
    }
}

impl Deadband {
    /// Whether `new` is worth sending after `last` and this silence.
    #[must_use]
    pub fn should_send(
        &self,
        last: Option<&Report>,
        new: &Report,
        silence: Silence,
    ) -> Option<SendReason> {
        let Some(last) = last else {
            return Some(SendReason::First);
        };
        if picture_changed(last, new) {
            return Some(SendReason::Changed);
        }
        let drift = self.drift(last, new);
        if drift >= self.leap || (drift > 1.0 && silence.since_moved_but_one >= self.pause) {
            return Some(SendReason::Moved);
        }
        (silence.since_any >= self.heartbeat).then_some(SendReason::Heartbeat)
    }

    /// The largest change of any value, in dead-bands. The guests of both are the same, in the same order.
    fn drift(&self, last: &Report, new: &Report) -> f64 {
        let guests = last.guests.iter().zip(&new.guests);
        let guests = guests.map(|(last, new)| self.guest_drift(last, new));
        // The host's own load is noisier than a guest's and decides less: twice the band.
        let host = self.cpu_drift(last.host_cpu_cores, new.host_cpu_cores) / 2.0;
        let whole = last
            .memory_used_mib
            .saturating_add(last.memory_available_mib);
        let memory = [
            (last.memory_used_mib, new.memory_used_mib),
            (last.memory_available_mib, new.memory_available_mib),
            (last.swap_used_mib, new.swap_used_mib),
        ];
        let memory = memory.map(|(a, b)| self.memory_drift(a, b, whole));
        let pressure = self.pressure_drift(last.pressure.as_ref(), new.pressure.as_ref());
        let all = guests.chain(memory).chain([host, pressure]);
        all.fold(0.0, f64::max)
    }

    fn guest_drift(&self, last: &GuestReport, new: &GuestReport) -> f64 {
        let demand = |g: &GuestReport| g.cpu_used_cores + g.cpu_delay_cores;
        let whole = new.memory_mib;
        [
            self.cpu_drift(demand(last), demand(new)),
            self.cpu_drift(last.cpu_delay_cores, new.cpu_delay_cores),
            self.memory_drift(last.memory_rss_mib, new.memory_rss_mib, whole),
            self.memory_drift(last.memory_used_mib, new.memory_used_mib, whole),
        ]
        .into_iter()
        .fold(0.0, f64::max)
    }

    fn cpu_drift(&self, last: f64, new: f64) -> f64 {
        (new - last).abs() / self.demand_cores.max(self.demand_share * last.abs())
    }

    fn memory_drift(&self, last: u64, new: u64, whole: u64) -> f64 {
        /// Below this, pages that come and go would be news.
        const LEAST_MIB: f64 = 16.0;
        float(last.abs_diff(new)) / (self.memory_share * float(whole)).max(LEAST_MIB)
    }

    fn pressure_drift(&self, last: Option<&Pressure>, new: Option<&Pressure>) -> f64 {
        let (Some(last), Some(new)) = (last, new) else {
            return 0.0;
        };
        let pairs = [
            (last.cpu_some_bp, new.cpu_some_bp),
            (last.cpu_full_bp, new.cpu_full_bp),
            (last.memory_some_bp, new.memory_some_bp),
            (last.memory_full_bp, new.memory_full_bp),
            (last.io_some_bp, new.io_some_bp),
            (last.io_full_bp, new.io_full_bp),
        ];
        let drift = |(last, new): (u32, u32)| {
            let band = self.pressure_bp.max(self.demand_share * f64::from(last));
            f64::from(last.abs_diff(new)) / band
        };
        pairs.into_iter().map(drift).fold(0.0, f64::max)
    }
}

/// Whether anything but a measured value differs.
fn picture_changed(last: &Report, new: &Report) -> bool {
    let available = |r: &Report| r.pressure.as_ref().is_some_and(|p| p.available);
    last.libvirt_up != new.libvirt_up
        || last.troubles != new.troubles
        || last.migrations_running != new.migrations_running
        || available(last) != available(new)
        || last.guests.len() != new.guests.len()
        || last
            .guests
            .iter()
            .zip(&new.guests)
            .any(|(a, b)| identity(a) != identity(b))
}

/// A guest without its measured values. What is added to the message must be named here or there.
fn identity(guest: &GuestReport) -> GuestReport {
    GuestReport {
        cpu_used_cores: 0.0,
        cpu_delay_cores: 0.0,
        memory_rss_mib: 0,
        memory_used_mib: 0,
        dirty_rate_mib_s: 0.0,
        block_mib_s: 0.0,
        net_mib_s: 0.0,
        // Only whether it was measured at all.
        measured_at_ms: guest.measured_at_ms.signum(),
        ..guest.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(demands: &[f64]) -> Report {
        Report {
            libvirt_up: true,
            memory_used_mib: 500,
            memory_available_mib: 500,
            pressure: Some(Pressure {
                available: true,
                ..Pressure::default()
            }),
            guests: demands
                .iter()
                .enumerate()
                .map(|(n, &cpu_used_cores)| GuestReport {
                    uuid: n.to_string(),
                    cpu_used_cores,
                    memory_mib: 64,
                    ..GuestReport::default()
                })
                .collect(),
            ..Report::default()
        }
    }

    fn edited(edit: impl FnOnce(&mut Report)) -> Report {
        let mut new = report(&[0.5]);
        edit(&mut new);
        new
    }

    fn silence(since_any: u64, since_moved_but_one: u64) -> Silence {
        Silence {
            since_any: Duration::from_secs(since_any),
            since_moved_but_one: Duration::from_secs(since_moved_but_one),
        }
    }

    /// What is said of `new`, so many seconds after a report of one guest with half a core was sent, and another
    /// the second before it.
    fn said(new: &Report, secs: u64) -> Option<SendReason> {
        let last = report(&[0.5]);
        Deadband::default().should_send(Some(&last), new, silence(secs, secs + 1))
    }

    #[test]
    fn silence_is_broken_by_the_heartbeat_only() {
        let same = report(&[0.5]);
        assert_eq!(
            Deadband::default().should_send(None, &same, silence(0, 0)),
            Some(SendReason::First)
        );
        assert_eq!(said(&same, 9), None);
        assert_eq!(said(&same, 10), Some(SendReason::Heartbeat));
        assert_eq!(said(&report(&[0.54]), 9), None);
    }

    #[test]
    fn what_changes_the_picture_does_not_wait() {
        let changes: [fn(&mut Report); 9] = [
            |r| r.libvirt_up = false,
            |r| r.troubles.push("no_pressure".into()),
            |r| r.migrations_running = 1,
            |r| r.guests.clear(),
            |r| r.guests[0].uuid = "other".into(),
            |r| r.guests[0].state = 3,
            |r| r.guests[0].hindrances.push("local_disk".into()),
            |r| r.guests[0].during_migration = true,
            |r| r.guests[0].measured_at_ms = 5,
        ];
        for (n, change) in changes.into_iter().enumerate() {
            assert_eq!(said(&edited(change), 0), Some(SendReason::Changed), "{n}");
        }
    }

    #[test]
    fn values_go_out_once_they_leave_their_band() {
        let moves: [fn(&mut Report); 6] = [
            |r| r.guests[0].cpu_used_cores = 0.6,
            |r| {
                r.guests[0].cpu_used_cores = 0.4;
                r.guests[0].cpu_delay_cores = 0.1;
            },
            |r| r.guests[0].memory_rss_mib = 20,
            |r| r.pressure.as_mut().unwrap().cpu_some_bp = 301,
            |r| r.memory_available_mib = 479,
            |r| r.host_cpu_cores = 0.11,
        ];
        for (n, change) in moves.into_iter().enumerate() {
            let new = edited(change);
            assert_eq!(said(&new, 2), None, "{n}");
            assert_eq!(said(&new, 3), Some(SendReason::Moved), "{n}");
        }
    }

    #[test]
    fn a_leap_does_not_wait_either() {
        assert_eq!(said(&report(&[0.9]), 0), Some(SendReason::Moved));
    }

    /// Feeds a demand series, one value a second; answers the seconds at which reports went out.
    fn sent(series: impl Iterator<Item = f64>) -> Vec<u64> {
        let deadband = Deadband::default();
        let mut last: Option<Report> = None;
        let (mut sent, mut moved): (Vec<u64>, Vec<u64>) = (vec![], vec![]);
        for (second, demand) in (0..).zip(series) {
            let new = report(&[demand, 0.005]);
            let since = |times: &[u64], back: usize| {
                let at = times.iter().rev().nth(back);
                at.map_or(u64::MAX, |at| second - at)
            };
            let silence = silence(since(&sent, 0), since(&moved, 1));
            let Some(reason) = deadband.should_send(last.as_ref(), &new, silence) else {
                continue;
            };
            sent.push(second);
            if reason == SendReason::Moved {
                moved.push(second);
            }
            last = Some(new);
        }
        sent
    }

    #[test]
    fn an_idle_guest_writes_at_the_heartbeat_alone() {
        // What idle emulated guests were seen to do: 0 to 4 ticks of 10 ms in five seconds.
        let noise = [0.004, 0.006, 0.002, 0.008, 0.004, 0.0, 0.006].into_iter();
        assert_eq!(sent(noise.cycle().take(60)), [0, 10, 20, 30, 40, 50]);
    }

    #[test]
    fn a_jump_to_busy_is_out_with_the_first_sample_and_settles_in_few_reports() {
        let climb = [0.2, 0.4, 0.6, 0.8, 1.0];
        let series = std::iter::repeat_n(0.005, 5).chain(climb);
        let series = series.chain(std::iter::repeat_n(1.0, 30));
        let sent = sent(series);
        // The jump takes place between seconds 4 and 5.
        let after: Vec<_> = sent.iter().copied().filter(|&s| s >= 5).collect();
        assert!(after[0] <= 6, "{sent:?}");
        assert!(after.iter().filter(|&&s| s <= 12).count() <= 4, "{sent:?}");
    }

    #[test]
    fn the_report_of_a_first_moment_does_not_hold_up_the_next() {
        // The first sample after the jump saw it for a third of a second only.
        let climb = [0.06, 0.22, 0.38, 0.54, 0.7];
        // Nor does the heartbeat in the moment before.
        let series = std::iter::repeat_n(0.005, 11).chain(climb);
        assert_eq!(sent(series), [0, 10, 11, 12, 14]);
    }

    #[test]
    fn a_restless_host_writes_every_other_second() {
        let restless = (0..60).map(|second| if second % 2 == 0 { 0.4 } else { 0.5 });
        let count = sent(restless).len();
        assert!((28..=32).contains(&count), "{count} in a minute");
    }
}
