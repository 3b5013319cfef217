//! Durations and sizes as people write them in a policy: "30s", "1h30m", "4GiB".

use std::time::Duration;

/// Units of time in milliseconds, longest name first where one is another's beginning.
const TIME_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// How a duration is written.
pub(super) const SHAPE: &str =
    "write a duration as a number and a unit (ms, s, m, h, d), for example \"30s\"";

/// A year, milliseconds.
const LONGEST: u64 = 365 * 86_400_000;

/// Reads "300ms", "30s", "5m", "1h30m". At most 365 days.
///
/// Returns what is wrong and what would be right.
pub(super) fn duration(text: &str) -> Result<Duration, (String, String)> {
    let bad = |why: &str, hint: String| (format!("{text:?} is not a duration: {why}"), hint);
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad("it is empty", SHAPE.to_owned()));
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let Ok(number) = rest[..digits].parse::<u64>() else {
            let hint = positive_decimal(text).unwrap_or_else(|| SHAPE.to_owned());
            return Err(bad("a whole number is missing", hint));
        };
        rest = &rest[digits..];
        let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_alphabetic()).len();
        let unit = &rest[..letters];
        let Some(&(_, millis)) = TIME_UNITS.iter().find(|(name, _)| *name == unit) else {
            if let Some(hint) = positive_decimal(text) {
                return Err(bad("it is no whole number", hint));
            }
            let letters = rest.trim_start().chars().take_while(|c| c.is_alphabetic());
            let word: String = letters.collect();
            let hint = unit_hint(number, &word).unwrap_or_else(|| SHAPE.to_owned());
            return Err((unit_problem(text, &word), hint));
        };
        rest = &rest[letters..];
        total = number
            .checked_mul(millis)
            .and_then(|part| total.checked_add(part))
            .unwrap_or(u64::MAX);
    }
    if total > LONGEST {
        return Err(bad(
            "it is longer than a year",
            "write at most \"365d\"".to_owned(),
        ));
    }
    Ok(Duration::from_millis(total))
}

/// "1.5h" and "-5m" as they can be written.
fn positive_decimal(text: &str) -> Option<String> {
    let text = text.trim().trim_start_matches('-');
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let number: f64 = text[..end].parse().ok()?;
    let unit = text[end..].trim();
    let millis = TIME_UNITS.iter().find(|(name, _)| *name == unit)?.1;
    let exact = Duration::try_from_secs_f64(number * Duration::from_millis(millis).as_secs_f64());
    let year = Duration::from_millis(LONGEST);
    let sensible = exact.ok().filter(|d| *d <= year)?;
    Some(format!("did you mean {:?}?", written(sensible)))
}

/// A bare number as a duration in seconds, as it is written.
pub(super) fn seconds(number: &str) -> Option<String> {
    let exact = Duration::try_from_secs_f64(number.parse::<f64>().ok()?.abs()).ok()?;
    Some(written(exact))
}

/// A duration as it is written, milliseconds and below rounded.
pub(super) fn written(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis())
        .unwrap_or(LONGEST)
        .min(LONGEST);
    if left.is_multiple_of(1_000) && left / 1_000 < 120 {
        return format!("{}s", left / 1_000);
    }
    let mut text = String::new();
    for (unit, millis) in [TIME_UNITS[3], TIME_UNITS[2], TIME_UNITS[1], TIME_UNITS[0]] {
        if left >= millis {
            text.push_str(&format!("{}{unit}", left / millis));
            left %= millis;
        }
    }
    text
}

fn unit_problem(text: &str, unit: &str) -> String {
    if unit.is_empty() {
        format!("{text:?} is not a duration: the unit is missing")
    } else {
        format!("{text:?} is not a duration: {unit:?} is no unit of time")
    }
}

/// What was probably meant by a unit that is none.
fn unit_hint(number: u64, unit: &str) -> Option<String> {
    let meant = match unit.to_ascii_lowercase().as_str() {
        "" | "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "m" | "min" | "mins" | "minute" | "minutes" => "m",
        "h" | "hr" | "hrs" | "hour" | "hours" => "h",
        "d" | "day" | "days" => "d",
        "ms" | "msec" | "millis" | "milliseconds" => "ms",
        _ => return None,
    };
    Some(format!("did you mean \"{number}{meant}\"?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_written() {
        for (text, millis) in [
            ("30s", 30_000),
            ("300ms", 300),
            ("1h30m", 5_400_000),
            ("0s", 0),
            ("2d", 172_800_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn bad_durations_are_refused_with_a_suggestion() {
        for (text, hint) in [
            ("1.5h", "1h30m"),
            ("-3m", "3m"),
            ("30", "30s"),
            ("5min", "5m"),
            ("2 hours", "2h"),
            ("", "unit"),
            ("s", "unit"),
            ("-3s", "3s"),
            ("1.5 h", "1h30m"),
            ("99999999999999999999s", "unit"),
            ("5000000000000000d", "365d"),
            ("400d", "365d"),
        ] {
            let (_, help) = duration(text).unwrap_err();
            assert!(help.contains(hint), "{text}: {help:?}");
        }
    }
}
