//! Counters to rates to reports.

pub mod deadband;

use std::time::Duration;

use evenkeel_proto::v1::Report;
use evenkeel_types::{GuestId, HostName};

use crate::hypervisor::{GuestCounters, GuestTraits};
use crate::pressure::HostSample;

/// One moment's readings.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// Monotonic time of the reading, since any fixed start.
    pub at: Duration,
    /// Wall clock, ms since the Unix epoch: only shown, never computed with.
    pub wall_ms: i64,
    /// Counters of all guests; `None`: the hypervisor does not answer.
    pub guests: Option<&'a [GuestCounters]>,
    /// The host's own figures.
    pub host: &'a HostSample,
    /// Migrations towards this host that the agent has prepared for, beside what the counters show.
    pub incoming: u32,
}

/// Makes reports out of readings.
#[derive(Debug)]
pub struct Sampler {
    host: HostName,
}

impl Sampler {
    /// A sampler whose rates are averages over the last `window` readings.
    #[must_use]
    pub fn new(host: HostName, _window: usize) -> Self {
        Self { host }
    }

    /// Remembers what changes rarely about a guest; it is repeated in every report.
    pub fn set_traits(&mut self, _guest: &GuestId, _traits: GuestTraits) {}

    /// Guests of the last reading whose traits are not known yet.
    #[must_use]
    pub fn without_traits(&self) -> Vec<GuestId> {
        vec![]
    }

    /// Takes a reading and answers with the report as of now. `sequence` is the sender's to set.
    pub fn push(&mut self, _reading: &Reading<'_>) -> Report {
        Report {
            host: self.host.to_string(),
            ..Report::default()
        }
    }
}
