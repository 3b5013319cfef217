//! Whether the system's clock was set: times are kept by it, and estimates and patience hang on them.

use std::time::{Duration, Instant};

/// A clock that is being slewed stays well below this between two looks; one that was set does not.
const TOLERANCE: Duration = Duration::from_secs(3);

/// The wall clock beside the monotonic one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    wall_ms: i64,
    at: Instant,
}

impl Clock {
    /// Both clocks as they are read now.
    pub(super) fn new(wall_ms: i64, at: Instant) -> Self {
        Self { wall_ms, at }
    }

    /// Looks again; how far the wall clock was set since the last look, milliseconds, if it was.
    pub(super) fn was_set(&mut self, wall_ms: i64, at: Instant) -> Option<i64> {
        let passed = i64::try_from(at.saturating_duration_since(self.at).as_millis());
        let by_ms = wall_ms
            .saturating_sub(self.wall_ms)
            .saturating_sub(passed.unwrap_or(i64::MAX));
        *self = Self { wall_ms, at };
        (u128::from(by_ms.unsigned_abs()) > TOLERANCE.as_millis()).then_some(by_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_noticed_once_and_a_slow_loop_is_none() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut clock = Clock::new(1_000_000, start);
        assert_eq!(clock.was_set(1_000_700, after(1)), None);
        assert_eq!(clock.was_set(1_060_700, after(61)), None, "a slow loop");
        assert_eq!(clock.was_set(61_700, after(62)), Some(-1_000_000));
        assert_eq!(clock.was_set(62_700, after(63)), None);
        assert_eq!(clock.was_set(3_663_700, after(64)), Some(3_600_000));
    }
}
