//! When a report is worth sending.

use std::time::Duration;

use evenkeel_proto::v1::Report;

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
}

impl Default for Deadband {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(10),
        }
    }
}

impl Deadband {
    /// Whether `new` is worth sending, `elapsed` after `last` was sent.
    #[must_use]
    pub fn should_send(
        &self,
        last: Option<&Report>,
        _new: &Report,
        elapsed: Duration,
    ) -> Option<SendReason> {
        if last.is_none() {
            return Some(SendReason::First);
        }
        (elapsed >= self.heartbeat).then_some(SendReason::Heartbeat)
    }
}
