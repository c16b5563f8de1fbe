//! Operations between the matrix products of a network.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use crate::activation::Gate;

/// Rows as wide as `weight`: `x / sqrt(mean(x^2) + eps) * weight`.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f64> {
    let rows = x.chunks_exact(weight.len()).map(widen);
    rows.flat_map(|row| {
        let inverse = 1.0 / (mean(row.iter().map(|x| x * x)) + f64::from(eps)).sqrt();
        row.iter().zip(weight).map(|(x, weight)| x * inverse * f64::from(*weight)).collect::<Vec<_>>()
    })
    .collect()
}

/// Rows as wide as `weight` and `bias`: `(x - mean(x)) / sqrt(variance(x) + eps) * weight + bias`.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f64> {
    let rows = x.chunks_exact(weight.len()).map(widen);
    rows.flat_map(|row| {
        let centre = mean(row.iter().copied());
        let inverse = 1.0 / (mean(row.iter().map(|x| (x - centre).powi(2))) + f64::from(eps)).sqrt();
        let affine = weight.iter().zip(bias);
        let one =
            |(x, (weight, bias)): (&f64, (&f32, &f32))| (x - centre) * inverse * f64::from(*weight) + f64::from(*bias);
        row.iter().zip(affine).map(one).collect::<Vec<_>>()
    })
    .collect()
}

/// `both` is `[n, 2 * width]`, gate and then up in every row: the function of the gate times up.
pub fn glu(both: &[f32], width: usize, gate: Gate) -> Vec<f64> {
    let function = match gate {
        Gate::Silu => silu,
        Gate::GeluTanh => gelu_tanh,
    };
    both.chunks_exact(2 * width)
        .flat_map(|row| row[..width].iter().zip(&row[width..]))
        .map(|(gate, up)| function(f64::from(*gate)) * f64::from(*up))
        .collect()
}

/// Hendrycks and Gimpel 2016, arXiv 1606.08415: x times the probability that a normal number is less than x.
pub fn gelu(x: f64) -> f64 {
    0.5 * x * erfc(-x * FRAC_1_SQRT_2)
}

/// The approximation of [`gelu`] by tanh.
pub fn gelu_tanh(x: f64) -> f64 {
    // (1 + tanh(u)) / 2 = 1 / (1 + e^(-2u)), which loses no digits where tanh is near -1.
    let u = (2.0 / PI).sqrt() * (x + 0.044_715 * x.powi(3));
    x / (1.0 + (-2.0 * u).exp())
}

pub fn quick_gelu(x: f64) -> f64 {
    x / (1.0 + (-1.702 * x).exp())
}

pub fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// `cap * tanh(x / cap)`.
pub fn cap(x: f64, cap: f64) -> f64 {
    cap * (x / cap).tanh()
}

pub fn relu(x: f64) -> f64 {
    if x < 0.0 { 0.0 } else { x }
}

/// The complement of the error function, with all its digits where it is small.
fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    if x < 2.0 { 1.0 - erf_series(x) } else { erfc_fraction(x) }
}

/// `2 / sqrt(pi) * e^(-x^2) * (x + 2x^3/3 + 4x^5/15 + ...)`: Abramowitz and Stegun 7.1.6.
fn erf_series(x: f64) -> f64 {
    let (mut term, mut sum) = (x, 0.0);
    for n in 0..100 {
        sum += term;
        term *= 2.0 * x * x / f64::from(2 * n + 3);
    }
    2.0 / PI.sqrt() * (-x * x).exp() * sum
}

/// `e^(-x^2) / sqrt(pi) / (x + (1/2) / (x + (2/2) / (x + (3/2) / (x + ...))))`: Abramowitz and Stegun 7.1.14.
fn erfc_fraction(x: f64) -> f64 {
    let fraction = (1..200).rev().fold(x, |below, n| x + f64::from(n) / 2.0 / below);
    (-x * x).exp() / PI.sqrt() / fraction
}

fn widen(row: &[f32]) -> Vec<f64> {
    row.iter().map(|x| f64::from(*x)).collect()
}

fn mean(numbers: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = numbers.len() as f64;
    numbers.sum::<f64>() / n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_function_is_that_of_the_tables() {
        // Python's math.erfc.
        for (x, want) in [
            (0.0, 1.0),
            (0.5, 0.479_500_122_186_953_5),
            (1.0, 0.157_299_207_050_285_13),
            (2.0, 0.004_677_734_981_047_266),
            (4.0, 1.541_725_790_028_002e-8),
            (-1.0, 1.842_700_792_949_714_8),
        ] {
            assert!((erfc(x) - want).abs() <= 1e-13 * want, "{x}: {} for {want}", erfc(x));
        }
        for x in [1.9, 2.0, 2.2] {
            assert!((1.0 - erf_series(x) - erfc_fraction(x)).abs() < 1e-14);
        }
    }

    #[test]
    fn activations_are_those_of_known_points() {
        for (got, want) in [
            (gelu(1.0), 0.841_344_746_068_542_9),
            (gelu_tanh(1.0), 0.841_191_990_608_276_8),
            (silu(1.0), 0.731_058_578_630_004_9),
            (quick_gelu(1.0), 0.845_795_765_932_821_2),
        ] {
            assert!((got - want).abs() < 1e-14, "{got} for {want}");
        }
        assert_eq!([relu(-1.0), relu(2.0)], [0.0, 2.0]);
    }
}
