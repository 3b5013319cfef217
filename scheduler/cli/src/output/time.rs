//! Times and durations for people. Two units at most: nobody reads the third.

use std::time::Duration;

use jiff::Timestamp;

/// `90 s` becomes `1 min 30 s`, `50 h` becomes `2 d 2 h`.
#[must_use]
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let two = |first: u64, unit: &str, second: u64, below: &str| match second {
        0 => format!("{first} {unit}"),
        _ => format!("{first} {unit} {second} {below}"),
    };
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// In one unit, for narrow columns: `42s`, `7m`, `3h`, `2d`.
#[must_use]
pub fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// From `earlier` to `later`; none if that is negative.
#[must_use]
pub fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

/// Milliseconds as a duration; none if negative.
#[must_use]
pub fn milliseconds(milliseconds: i64) -> Duration {
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
}

/// To the second, in UTC: `2026-11-23T01:00:00Z`.
#[must_use]
pub fn stamp(time: Timestamp) -> String {
    format!("{time:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        let cases = [
            (0, "0 ms"),
            (59, "59 s"),
            (60, "1 min"),
            (90, "1 min 30 s"),
            (2520, "42 min"),
            (7200, "2 h"),
            (7261, "2 h 1 min"),
            (180_000, "2 d 2 h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
        assert_eq!(duration(Duration::from_millis(140)), "140 ms");
    }

    #[test]
    fn ages_are_short() {
        for (seconds, text) in [
            (3, "3s"),
            (119, "119s"),
            (120, "2m"),
            (7200, "2h"),
            (172_800, "2d"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_clock_that_went_back_gives_no_time() {
        let now = Timestamp::UNIX_EPOCH;
        let later = Timestamp::from_second(5).unwrap();
        assert_eq!(between(later, now), Duration::ZERO);
        assert_eq!(between(now, later), Duration::from_secs(5));
        assert_eq!(milliseconds(-5), Duration::ZERO);
    }
}
