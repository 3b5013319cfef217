//! The few lossy number conversions of the crate, each with its bound stated once.

/// A count as a float. Exact below 2^53, far above any fleet.
#[expect(clippy::as_conversions, reason = "exact for every count below 2^53")]
pub(crate) fn from_count(n: usize) -> f64 {
    n as f64
}

/// MiB as a float. Exact below 2^53 MiB; snapshots are limited to far less.
#[expect(
    clippy::as_conversions,
    reason = "exact below 2^53 MiB, snapshots are limited to less"
)]
pub(crate) fn from_mib(mib: i64) -> f64 {
    mib as f64
}

/// MiB of a snapshot as a signed number, so that differences can be negative.
pub(crate) fn signed(mib: u64) -> i64 {
    i64::try_from(mib).unwrap_or(i64::MAX)
}

/// The whole part of a non-negative float; saturates.
#[expect(
    clippy::as_conversions,
    reason = "float to integer `as` saturates, which is what is wanted"
)]
pub(crate) fn floor_mib(value: f64) -> i64 {
    value.floor() as i64
}

/// A non-negative float as bytes, rounded; saturates.
#[expect(
    clippy::as_conversions,
    reason = "float to integer `as` saturates, which is what is wanted"
)]
pub(crate) fn round_bytes(value: f64) -> u64 {
    value.round() as u64
}

/// A `u32` as an index.
#[expect(
    clippy::as_conversions,
    reason = "usize holds at least 32 bits on every supported target"
)]
pub(crate) fn index(n: u32) -> usize {
    n as usize
}

/// The whole part of a small non-negative float as an index; saturates.
#[expect(
    clippy::as_conversions,
    reason = "float to integer `as` saturates, which is what is wanted"
)]
pub(crate) fn floor_index(value: f64) -> usize {
    value as usize
}

/// A key that orders floats as integers do: total, also for negative values.
pub(crate) fn order_key(value: f64) -> u64 {
    let bits = (value + 0.0).to_bits();
    if bits >> 63 == 0 {
        bits | (1 << 63)
    } else {
        !bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_keys_sort_like_the_floats() {
        let values = [-1e9, -2.5, -0.1, 0.0, 1e-12, 0.5, 3.0, 1e12];
        for pair in values.windows(2) {
            assert!(order_key(pair[0]) < order_key(pair[1]), "{pair:?}");
        }
        assert_eq!(order_key(-0.0), order_key(0.0));
    }
}
