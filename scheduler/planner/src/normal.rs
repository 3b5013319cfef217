//! The unit normal loss function, from a table that is built when the crate is compiled.
//!
//! `unit_loss(z) = φ(z) + z·Φ(z)` is E[(Z + z)⁺] for a standard normal Z. The table is computed in
//! constant evaluation with nothing but additions, multiplications and divisions, so that the planner's
//! numbers do not depend on any platform's `exp`: the same input gives the same bits everywhere.

use crate::num::{floor_index, from_count};

/// Beyond this |z| the tail is below 1e-14 and the function is its asymptote.
const Z_LIMIT: f64 = 8.0;
/// Table steps per unit of z: the cubic Hermite error is below 3e-10 (h⁴/384 · max|φ″|).
const STEPS_PER_UNIT: usize = 64;
/// Number of knots between −8 and 8, both included.
const KNOTS: usize = 1025;
/// 1/√(2π).
const INV_SQRT_TAU: f64 = 0.398_942_280_401_432_7;

/// At each knot: φ, Φ and the unit loss.
static TABLE: [[f64; 3]; KNOTS] = build_table();

const fn exp_of_negative(x: f64) -> f64 {
    // exp(-x) = (exp(-x/64))^64, the inner one by its Taylor series (x/64 ≤ 0.5).
    let y = -x / 64.0;
    let mut term = 1.0;
    let mut sum = 1.0;
    let mut n = 1.0;
    while n < 20.0 {
        term *= y / n;
        sum += term;
        n += 1.0;
    }
    let mut power = sum;
    let mut doublings = 0;
    while doublings < 6 {
        power *= power;
        doublings += 1;
    }
    power
}

const fn density(z: f64) -> f64 {
    INV_SQRT_TAU * exp_of_negative(z * z / 2.0)
}

/// Φ(z) for z ≥ 0 by the series ½ + φ(z)·(z + z³/3 + z⁵/15 + …).
const fn distribution(z: f64) -> f64 {
    let mut term = z;
    let mut sum = z;
    let mut odd = 3.0;
    while odd < 401.0 {
        term *= z * z / odd;
        sum += term;
        odd += 2.0;
    }
    let value = 0.5 + density(z) * sum;
    if value > 1.0 { 1.0 } else { value }
}

const fn build_table() -> [[f64; 3]; KNOTS] {
    let mut table = [[0.0; 3]; KNOTS];
    let mut k = 0;
    let mut step = 0.0;
    while k <= KNOTS / 2 {
        let z = step / 64.0;
        let (phi, cdf) = (density(z), distribution(z));
        let loss = phi + z * cdf;
        table[KNOTS / 2 + k] = [phi, cdf, loss];
        let below = if loss > z { loss - z } else { 0.0 };
        table[KNOTS / 2 - k] = [phi, 1.0 - cdf, below];
        k += 1;
        step += 1.0;
    }
    table
}

/// Position of z in the table: index of the knot below and the fraction of a step above it.
fn locate(z: f64) -> (usize, f64) {
    let at = (z + Z_LIMIT) * from_count(STEPS_PER_UNIT);
    let knot = floor_index(at).min(KNOTS - 2);
    (knot, at - from_count(knot))
}

/// Cubic Hermite interpolation between two knots; `slope_*` per unit of z.
fn hermite(t: f64, value: (f64, f64), slope: (f64, f64)) -> f64 {
    let h = 1.0 / from_count(STEPS_PER_UNIT);
    let (t2, t3) = (t * t, t * t * t);
    let rise = 3.0 * t2 - 2.0 * t3;
    value.0 * (1.0 - rise)
        + value.1 * rise
        + h * (slope.0 * (t3 - 2.0 * t2 + t) + slope.1 * (t3 - t2))
}

/// φ(z) + z·Φ(z): the expected positive part of a normal variable with mean z and deviation 1.
///
/// Never negative, convex, error below 1e-9. Source: the "unit normal loss function" of inventory
/// theory, e.g. Silver, Pyke, Thomas: Inventory and Production Management, appendix II.
#[must_use]
pub fn unit_loss(z: f64) -> f64 {
    if z >= Z_LIMIT {
        return z;
    }
    if z <= -Z_LIMIT {
        return 0.0;
    }
    let (knot, t) = locate(z);
    let (low, high) = (TABLE[knot], TABLE[knot + 1]);
    hermite(t, (low[2], high[2]), (low[1], high[1])).max(0.0)
}

/// Φ(z), the slope of [`unit_loss`]: the probability that a runnable vCPU finds no core free.
#[must_use]
pub fn cumulative(z: f64) -> f64 {
    if z >= Z_LIMIT {
        return 1.0;
    }
    if z <= -Z_LIMIT {
        return 0.0;
    }
    let (knot, t) = locate(z);
    let (low, high) = (TABLE[knot], TABLE[knot + 1]);
    hermite(t, (low[1], high[1]), (low[0], high[0])).clamp(0.0, 1.0)
}

/// φ(z), the slope of [`cumulative`].
#[must_use]
pub fn density_at(z: f64) -> f64 {
    if z.abs() >= Z_LIMIT {
        return 0.0;
    }
    let (knot, t) = locate(z);
    TABLE[knot][0] * (1.0 - t) + TABLE[knot + 1][0] * t
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values_are_met() {
        // Standard tables.
        for (z, expected) in [
            (0.0, 0.398_942_280_4),
            (1.0, 1.083_315_470_6),
            (-1.0, 0.083_315_470_6),
            (-3.0, 0.000_382_154_3),
            (2.5, 2.502_004_137_2),
        ] {
            let got = unit_loss(z);
            assert!(
                (got - expected).abs() < 2e-9,
                "unit_loss({z}) = {got}, expected {expected}"
            );
        }
        assert!((cumulative(1.96) - 0.975_002_104_9).abs() < 1e-8);
        assert!((cumulative(-0.5) - 0.308_537_538_7).abs() < 1e-8);
    }

    #[test]
    fn the_loss_is_monotone_and_convex() {
        let points: Vec<f64> = (-1000..1000)
            .map(|i| unit_loss(f64::from(i) * 0.011))
            .collect();
        for w in points.windows(3) {
            assert!(w[1] >= w[0] - 1e-13);
            assert!(w[2] - w[1] >= w[1] - w[0] - 1e-11);
        }
    }
}
