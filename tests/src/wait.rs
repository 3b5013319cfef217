//! Waiting for something to become true: never by sleeping and hoping.

use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(150);

/// Looks until `look` finds something; panics after `limit` with what was waited for.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            start.elapsed() < limit,
            "waited {} s in vain for: {what}",
            limit.as_secs()
        );
        std::thread::sleep(PAUSE);
    }
}

/// Looks until `is_true`; returns how long that took.
pub fn until(what: &str, limit: Duration, mut is_true: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    wait_for(what, limit, || is_true().then_some(()));
    start.elapsed()
}
