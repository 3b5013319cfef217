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

/// Reads "300ms", "30s", "5m", "1h30m". At most 365 days.
///
/// Returns what is wrong and, where it can be guessed, what was meant.
pub(super) fn duration(text: &str) -> Result<Duration, (String, Option<String>)> {
    let shape = "write a duration as a number and a unit (ms, s, m, h, d), for example \"30s\"";
    let bad = |why: &str| {
        (
            format!("{text:?} is not a duration: {why}"),
            Some(shape.to_owned()),
        )
    };
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad("it is empty"));
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = rest[..digits]
            .parse()
            .map_err(|_| bad("a whole number is missing"))?;
        rest = &rest[digits..];
        let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_alphabetic()).len();
        let unit = &rest[..letters];
        let Some(&(_, millis)) = TIME_UNITS.iter().find(|(name, _)| *name == unit) else {
            let word: String = rest
                .trim_start()
                .chars()
                .take_while(|c| c.is_alphabetic())
                .collect();
            return Err((
                unit_problem(text, &word),
                unit_hint(number, &word).or(bad("").1),
            ));
        };
        rest = &rest[letters..];
        total = number
            .checked_mul(millis)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| bad("it is too long"))?;
    }
    if total > 365 * 86_400_000 {
        return Err(bad("it is longer than a year"));
    }
    Ok(Duration::from_millis(total))
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
            ("30", "30s"),
            ("5min", "5m"),
            ("2 hours", "2h"),
            ("", "unit"),
            ("s", "unit"),
            ("-3s", "unit"),
            ("99999999999999999999s", "unit"),
            ("400d", "unit"),
        ] {
            let (_, help) = duration(text).unwrap_err();
            assert!(
                help.clone().is_some_and(|h| h.contains(hint)),
                "{text}: {help:?}"
            );
        }
    }
}
