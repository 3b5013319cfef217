//! When to plan next: by the policy's cycle, and at once when something asks for it.

use std::time::Duration;

use super::choose::{Choice, Postponed};
use super::millis;

/// The next planning cycle. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    next_ms: i64,
}

impl Pace {
    /// A first cycle at `now_ms`.
    #[must_use]
    pub fn new(now_ms: i64) -> Self {
        Self { next_ms: now_ms }
    }

    /// Plans no later than `at_ms`.
    pub fn hasten(&mut self, at_ms: i64) {
        self.next_ms = self.next_ms.min(at_ms);
    }

    /// Whether it is time; the next cycle is then one period away.
    pub fn take(&mut self, cycle: Duration, now_ms: i64) -> bool {
        // A clock that went back must not put the next cycle further away than one period.
        self.hasten(now_ms.saturating_add(millis(cycle)));
        let due = now_ms >= self.next_ms;
        if due {
            self.next_ms = now_ms.saturating_add(millis(cycle));
        }
        due
    }

    /// A step that only waits for time to pass gets its cycle when that time is over, not at the next tick.
    pub fn wake_for(&mut self, choice: &Choice, now_ms: i64) {
        for (_, postponed) in &choice.postponed {
            if let Postponed::HoldTime { left } | Postponed::Settling { left, .. } = postponed {
                self.hasten(now_ms.saturating_add(millis(*left)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_come_by_the_period_or_sooner_when_asked() {
        let cycle = Duration::from_secs(30);
        let mut pace = Pace::new(0);
        assert!(pace.take(cycle, 0));
        assert!(!pace.take(cycle, 29_999));
        assert!(pace.take(cycle, 30_000));
        pace.hasten(35_000);
        pace.hasten(50_000);
        assert!(!pace.take(cycle, 34_999));
        assert!(pace.take(cycle, 35_000));
        assert!(!pace.take(cycle, 64_999));
        assert!(!pace.take(cycle, 1_000), "the clock went back");
        assert!(pace.take(cycle, 31_000));
    }
}
