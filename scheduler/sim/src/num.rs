//! Numbers from one type to another, without silent loss.

use std::time::Duration;

/// A count as a float; beyond 2³² it stays there.
pub(crate) fn count(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

/// MiB as a float; 4 PiB is the most.
pub(crate) fn mib(size: u64) -> f64 {
    f64::from(u32::try_from(size).unwrap_or(u32::MAX))
}

/// A float as a whole number, cut off; 0 for what is none.
pub(crate) fn whole(value: f64) -> u64 {
    Duration::try_from_secs_f64(value.max(0.0)).map_or(0, |d| d.as_secs())
}

/// A float as an index, cut off.
pub(crate) fn index(value: f64) -> usize {
    usize::try_from(whole(value)).unwrap_or(usize::MAX)
}

/// Milliseconds as seconds; none below 0.
pub(crate) fn seconds(ms: i64) -> f64 {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0)).as_secs_f64()
}

/// Seconds as whole milliseconds.
pub(crate) fn millis(seconds: f64) -> i64 {
    i64::try_from(whole(seconds * 1000.0)).unwrap_or(i64::MAX / 4)
}

/// `part` of `whole`; 0 of nothing.
pub(crate) fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}
