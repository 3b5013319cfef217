//! What the service manager is told: that a daemon is ready, that its loop goes round, how it is, that it ends.
//!
//! Without a service manager (`NOTIFY_SOCKET` is not set) all of this does nothing.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// A daemon is called ready without etcd after this time: it works as far as it can, and its status says what is
/// missing. Were it not, systemd would end and start it over and over for as long as etcd is away.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two signs of life: a loop may go round a thousand times a second.
const APART: Duration = Duration::from_secs(1);

/// The daemon serves: what was ordered to start after it may.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// The daemon ends because it was told to.
pub fn stopping() {
    notify(&[
        NotifyState::Stopping,
        NotifyState::Status("stopping; migrations go on without it"),
    ]);
}

/// Signs of life of a daemon's main loop. Only that loop gives them, so that one that hangs is found out.
#[derive(Debug, Default)]
pub struct Pulse {
    last: Option<Instant>,
    said: String,
}

impl Pulse {
    /// The loop has gone round. `status` makes the line that `systemctl status` shows; it is asked for once a
    /// second at most.
    pub fn beat(&mut self, status: impl FnOnce() -> String) {
        let now = Instant::now();
        if !self.is_due(now) {
            return;
        }
        self.last = Some(now);
        notify(&[NotifyState::Watchdog]);
        let status = status();
        if status != self.said {
            notify(&[NotifyState::Status(&status)]);
            self.said = status;
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.last
            .is_none_or(|last| now.saturating_duration_since(last) >= APART)
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "service manager not notified");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_spins_gives_one_sign_a_second() {
        let now = Instant::now();
        let pulse = |since: Duration| Pulse {
            last: now.checked_sub(since),
            ..Pulse::default()
        };
        assert!(Pulse::default().is_due(now));
        assert!(!pulse(Duration::from_millis(999)).is_due(now));
        assert!(pulse(Duration::from_secs(1)).is_due(now));
    }

    #[test]
    fn the_status_is_not_asked_for_before_its_time() {
        let mut pulse = Pulse::default();
        let mut asked = 0;
        for _ in 0..3 {
            pulse.last = pulse.last.map(|_| Instant::now());
            pulse.beat(|| {
                asked += 1;
                "well".to_owned()
            });
        }
        assert_eq!(asked, 1);
        assert_eq!(pulse.said, "well");
    }
}
