//! Numbers with their units, for people.

use crate::view::float;

const KIB: f64 = 1024.0;

/// `6.1 GiB`
#[must_use]
pub fn bytes(bytes: u64) -> String {
    let mut value = float(bytes);
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        // 1023.95 would be rounded to 1024.0 of the smaller unit.
        if value < KIB - 0.05 {
            break;
        }
        value /= KIB;
        unit = larger;
    }
    if unit == "B" {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// MiB as `512.0 MiB` or `6.1 GiB`.
#[must_use]
pub fn mib(mib: u64) -> String {
    bytes(mib.saturating_mul(1024 * 1024))
}

/// Two amounts in the unit of the second: `12.0/16.0 GiB`.
#[must_use]
pub fn of_mib(part: u64, whole: u64) -> String {
    if whole < 1024 {
        return format!("{part}/{whole} MiB");
    }
    format!("{:.1}/{:.1} GiB", float(part) / KIB, float(whole) / KIB)
}

/// Basis points as `34%`, below one per cent with a digit more.
#[must_use]
pub fn percent(basis_points: u32) -> String {
    let tenths = (basis_points + 5) / 10;
    if (1..10).contains(&tenths) {
        format!("0.{tenths}%")
    } else {
        format!("{}%", (basis_points + 50) / 100)
    }
}

/// With a digit behind the point below 10, without above: `0.9`, `410`; never `-0.0`.
#[must_use]
pub fn amount(number: f64) -> String {
    let text = if number.abs() < 9.95 {
        format!("{number:.1}")
    } else {
        format!("{number:.0}")
    };
    if text == "-0.0" {
        "0.0".to_owned()
    } else {
        text
    }
}

/// With one digit behind the point: `12.4`; never `-0.0`.
#[must_use]
pub fn tenths(number: f64) -> String {
    let text = format!("{number:.1}");
    if text == "-0.0" {
        "0.0".to_owned()
    } else {
        text
    }
}

/// With two digits behind the point: `0.13`; never `-0.00`.
#[must_use]
pub fn hundredths(number: f64) -> String {
    let text = format!("{number:.2}");
    if text == "-0.00" {
        "0.00".to_owned()
    } else {
        text
    }
}

/// Cores of a host: the smaller it is, the more a hundredth of a core matters.
#[must_use]
pub fn cores(number: f64, of_host: f64) -> String {
    if of_host < 4.0 {
        hundredths(number)
    } else {
        tenths(number)
    }
}

/// A fixed name such as `cool_down` as words.
#[must_use]
pub fn words(name: &str) -> String {
    match name {
        "cool_down" => "cool-down".to_owned(),
        other => other.replace('_', " "),
    }
}

/// `1 guest`, `2 guests`
#[must_use]
pub fn count(number: u32, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

/// From a scheduler or a file: what would move the cursor or colour the terminal is shown as `?`.
#[must_use]
pub fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_carry_their_units() {
        assert_eq!(bytes(9_126_805_504), "8.5 GiB");
        assert_eq!(
            (bytes(0), bytes(1023), bytes(1024)),
            ("0 B".into(), "1023 B".into(), "1.0 KiB".into())
        );
        assert_eq!(bytes(1024 * 1024 - 1), "1.0 MiB");
        assert_eq!(of_mib(512, 16_384), "0.5/16.0 GiB");
        assert_eq!(of_mib(300, 512), "300/512 MiB");
        assert_eq!(
            (amount(0.94), amount(9.96), amount(410.4), amount(-0.01)),
            ("0.9".into(), "10".into(), "410".into(), "0.0".into())
        );
    }

    #[test]
    fn small_pressure_is_not_none() {
        let shown = [0, 4, 30, 95, 149, 3400, 10_000].map(percent);
        assert_eq!(shown, ["0%", "0%", "0.3%", "1%", "1%", "34%", "100%"]);
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\tc\nd"), "a?[2Jb?c\nd");
    }
}
