//! Conversions of numbers for display, where the last digit does not matter.

/// An integer as a float; above 2^53 the nearest one.
#[must_use]
#[expect(
    clippy::as_conversions,
    reason = "no lossless conversion exists; shown with three digits"
)]
pub fn float(number: u64) -> f64 {
    number as f64
}

/// A part of a whole in thousandths, never above 1000; 0 of nothing is all of it.
#[must_use]
pub fn permille(part: u64, whole: u64) -> u64 {
    if whole == 0 {
        return 1000;
    }
    let thousandths = u128::from(part) * 1000 / u128::from(whole);
    u64::try_from(thousandths).unwrap_or(1000).min(1000)
}

/// A fraction of time in basis points.
#[expect(
    clippy::as_conversions,
    reason = "clamped before; a float has no checked conversion to an integer"
)]
pub(super) fn basis_points(fraction: f64) -> u32 {
    (fraction * 10_000.0).round().clamp(0.0, 10_000.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_within_the_whole() {
        assert_eq!(permille(1, 4), 250);
        assert_eq!(permille(9, 4), 1000);
        assert_eq!(permille(u64::MAX, u64::MAX), 1000);
        assert_eq!(permille(0, 0), 1000);
    }

    #[test]
    fn fractions_become_basis_points() {
        assert_eq!(
            (
                basis_points(0.34),
                basis_points(7.0),
                basis_points(f64::NAN)
            ),
            (3400, 10_000, 0)
        );
    }
}
