//! Eigenvalues and eigenvectors of symmetric matrices of a head's size.

/// Those of a symmetric matrix, by falling eigenvalue.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spectrum {
    pub(crate) values: Vec<f64>,
    /// Orthonormal, a row each: `[n, n]`. The number with the largest magnitude in each is positive.
    pub(crate) vectors: Vec<f64>,
}

/// Turns of all pairs of rows; a matrix of 512 needs about 10.
const SWEEPS: usize = 40;

impl Spectrum {
    /// Of a symmetric matrix, `[n, n]`, by Jacobi's method (Golub and Van Loan, Matrix Computations, 8.5): about 60 n^3 FLOPs, and
    /// small eigenvalues are as exact as large ones. There is a library for this in nalgebra, which is compiled for half a minute.
    pub(crate) fn new(mut matrix: Vec<f64>, n: usize) -> Spectrum {
        assert_eq!(matrix.len(), n * n, "a square matrix");
        let mut vectors = vec![0.0; n * n];
        (0..n).for_each(|i| vectors[i * n + i] = 1.0);
        let whole: f64 = matrix.iter().map(|x| x * x).sum();
        for _ in 0..SWEEPS {
            let off: f64 =
                (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| matrix[i * n + j].powi(2)).sum();
            if off <= whole * 1e-26 {
                break;
            }
            for p in 0..n {
                for q in p + 1..n {
                    turn(&mut matrix, &mut vectors, n, p, q);
                }
            }
        }
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|a, b| matrix[b * n + b].total_cmp(&matrix[a * n + a]));
        let values = order.iter().map(|i| matrix[i * n + i]).collect();
        let row = |i: &usize| {
            let row = &vectors[i * n..(i + 1) * n];
            let largest = row.iter().copied().fold(0.0, |most: f64, x| if x.abs() > most.abs() { x } else { most });
            row.iter().map(move |x| if largest < 0.0 { -x } else { *x })
        };
        Spectrum { values, vectors: order.iter().flat_map(row).collect() }
    }
}

/// Turns rows and columns `p` and `q` so that they have nothing in common.
fn turn(matrix: &mut [f64], vectors: &mut [f64], n: usize, p: usize, q: usize) {
    let (off, apart) = (matrix[p * n + q], matrix[q * n + q] - matrix[p * n + p]);
    if off == 0.0 {
        return;
    }
    let ratio = apart / (2.0 * off);
    let tangent = ratio.signum() / (ratio.abs() + (ratio * ratio + 1.0).sqrt());
    let tangent = if ratio == 0.0 { 1.0 } else { tangent };
    let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
    let sine = tangent * cosine;
    let rows = |of: &mut [f64]| {
        let (head, tail) = of.split_at_mut(q * n);
        for (a, b) in head[p * n..(p + 1) * n].iter_mut().zip(&mut tail[..n]) {
            (*a, *b) = (cosine * *a - sine * *b, sine * *a + cosine * *b);
        }
    };
    rows(matrix);
    for row in matrix.chunks_exact_mut(n) {
        (row[p], row[q]) = (cosine * row[p] - sine * row[q], sine * row[p] + cosine * row[q]);
    }
    rows(vectors);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_orthonormal_and_make_the_matrix_again() {
        for n in [1, 2, 7, 64] {
            let row = |i: usize, j: usize| ((i * 37 + j * 11) % 23) as f64 / 7.0 - 1.5;
            // A Gram matrix of rank n - n / 4.
            let gram = |i: usize, j: usize| (0..n - n / 4).map(|k| row(i, k) * row(j, k)).sum::<f64>();
            let matrix: Vec<f64> = (0..n * n).map(|at| gram(at / n, at % n)).collect();
            let Spectrum { values, vectors } = Spectrum::new(matrix.clone(), n);
            assert!(values.is_sorted_by(|a, b| a >= b));
            let largest = values[0].abs().max(1.0);
            for i in 0..n {
                for j in 0..n {
                    let (a, b) = (&vectors[i * n..][..n], &vectors[j * n..][..n]);
                    let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                    assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-10, "rows {i} and {j} of {n}");
                    let again: f64 = (0..n).map(|k| values[k] * vectors[k * n + i] * vectors[k * n + j]).sum();
                    assert!((again - matrix[i * n + j]).abs() < 1e-10 * largest, "element {i}, {j} of {n}");
                }
            }
        }
    }

    #[test]
    fn nothing_has_no_directions_of_its_own() {
        let Spectrum { values, vectors } = Spectrum::new(vec![0.0; 9], 3);
        assert_eq!((values, vectors), (vec![0.0; 3], vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]));
    }
}
