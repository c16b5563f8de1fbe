//! Single layers against products in f64.

use std::path::Path;

use candle_core::{Device, Tensor};
use prefixkv_core::backend::cpu::Matrix;
use prefixkv_core::device::Cpu;
use prefixkv_core::nn::{Linear, Loader};
use prefixkv_core::weights::Checkpoint;
use prefixkv_core::weights::WeightFormat;
use rayon::prelude::*;
use safetensors::Dtype;

use super::files::{FORMATS, Named, exact, write};

const HELD: [WeightFormat; 4] = [WeightFormat::F32, WeightFormat::F16, WeightFormat::Q8_0, WeightFormat::Q4K];

/// Every tensor in one format, and three in all orders of the formats.
const FILES: [[Dtype; 3]; 9] = {
    use Dtype::{BF16, F16, F32};
    [
        [F32, F32, F32],
        [F16, F16, F16],
        [BF16, BF16, BF16],
        [F32, F16, BF16],
        [F32, BF16, F16],
        [F16, F32, BF16],
        [F16, BF16, F32],
        [BF16, F32, F16],
        [BF16, F16, F32],
    ]
};

/// Activations that 8 bits hold exactly: integers, the largest of each 32 being 127.
fn activations(n: usize, columns: usize) -> Vec<f32> {
    exact(99, n * columns, 1.0)
}

fn forward(layer: &Linear, x: &[f32], columns: usize) -> Vec<f32> {
    let x = Tensor::from_slice(x, (x.len() / columns, columns), &Device::Cpu).expect("a matrix");
    layer.forward(&Matrix(x)).and_then(|y| y.to_vec()).expect("a product")
}

/// `x W^T + b` in f64.
fn product(x: &[f32], weight: &[f32], bias: Option<&[f32]>, columns: usize) -> Vec<f64> {
    let rows = weight.len() / columns;
    let one = |(at, weight): (usize, &[f32]), x: &[f32]| -> f64 {
        let sum: f64 = x.iter().zip(weight).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
        sum + bias.map_or(0.0, |bias| f64::from(bias[at % rows]))
    };
    x.chunks_exact(columns)
        .flat_map(|x| weight.par_chunks_exact(columns).enumerate().map(|row| one(row, x)).collect::<Vec<_>>())
        .collect()
}

/// Compares a product of [`exact`] weights and [`activations`] with f64. q4_k alone is not exact: its steps are 1/15 of a range,
/// which gives uniform weights an error of 1/15 of their own size.
fn check(held: WeightFormat, got: &[f32], want: &[f64], columns: usize, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let size = (want.iter().map(|x| x * x).sum::<f64>() / want.len() as f64).sqrt();
    let errors: Vec<f64> = got.iter().zip(want).map(|(got, want)| f64::from(*got) - want).collect();
    let worst = errors.iter().fold(0.0, |worst: f64, error| worst.max(error.abs()));
    let rms = (errors.iter().map(|x| x * x).sum::<f64>() / errors.len() as f64).sqrt();
    if held == WeightFormat::Q4K && columns.is_multiple_of(256) {
        assert!(rms < 0.08 * size && worst < 0.5 * size, "{what}: errors of {rms} and up to {worst} of {size}");
    } else {
        assert!(worst < 1e-4 * size, "{what}: an error of {worst} of {size}");
    }
}

fn loader(checkpoint: &Checkpoint, format: WeightFormat) -> Loader<'_, Cpu> {
    Loader::new(checkpoint, format, Cpu)
}

fn checkpoint(dir: &Path, tensors: &[Named], dtype: impl Fn(usize) -> Dtype) -> Checkpoint {
    write(dir, tensors, dtype);
    Checkpoint::open(dir).expect("opens")
}

/// A layer of three tensors with and without biases from each kind of file in each format.
fn fused(rows: usize, columns: usize) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let parts = [rows / 2, rows / 4, rows - rows / 2 - rows / 4];
    let (mut tensors, mut weight, mut bias) = (Vec::new(), Vec::new(), Vec::new());
    for (index, rows) in parts.iter().enumerate() {
        let numbers = exact(index as u64, rows * columns, 1.0 / 1024.0);
        weight.extend_from_slice(&numbers);
        tensors.push(Named::new(format!("{index}.weight"), &[*rows, columns], numbers));
    }
    for (index, rows) in parts.iter().enumerate() {
        let numbers = exact(9 + index as u64, *rows, 1.0);
        bias.extend_from_slice(&numbers);
        tensors.push(Named::new(format!("{index}.bias"), &[*rows], numbers));
    }
    let names: Vec<(String, usize)> = (0..3).map(|index| (index.to_string(), parts[index])).collect();
    let names: Vec<(&str, usize)> = names.iter().map(|(name, rows)| (name.as_str(), *rows)).collect();
    let x = activations(2, columns);
    let mut first: Vec<Option<Vec<f32>>> = vec![None; 2 * HELD.len()];
    for file in FILES {
        let checkpoint = checkpoint(dir.path(), &tensors, |index| file[index % 3]);
        for (held, biased) in HELD.into_iter().flat_map(|held| [(held, false), (held, true)]) {
            let what = format!("{file:?} as {held:?}, {rows} x {columns}, biases: {biased}");
            let loader = loader(&checkpoint, held);
            let layer = loader.linear(&names, columns, biased).unwrap_or_else(|error| panic!("{what}: {error}"));
            let got = forward(&layer, &x, columns);
            let slot = HELD.iter().position(|of| *of == held).expect("one of them") * 2 + usize::from(biased);
            match &first[slot] {
                // The same numbers in other formats: the same bits.
                Some(first) => assert!(*first == got, "{what}: differs from {:?}", FILES[0]),
                None => {
                    check(held, &got, &product(&x, &weight, biased.then_some(&bias), columns), columns, &what);
                    first[slot] = Some(got);
                }
            }
        }
    }
}

#[test]
fn layers_of_few_and_of_many_rows_are_right_from_every_file() {
    // Below, at and above the rows that are quantised as one task; several such tasks; numbers that nothing divides.
    for rows in [3, 100, 511, 512, 513, 1024, 1301, 2048] {
        fused(rows, 576);
    }
}

/// The first rows of a layer are those of the whole, for few and for many rows of activations.
#[test]
fn the_first_rows_are_those_of_the_whole_layer() {
    for (rows, columns) in [(48, 256), (101, 300), (1030, 576)] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let tensors = [
            Named::new("a.weight", &[rows, columns], exact(3, rows * columns, 1.0 / 1024.0)),
            Named::new("a.bias", &[rows], exact(4, rows, 1.0)),
        ];
        let checkpoint = checkpoint(dir.path(), &tensors, |_| Dtype::F32);
        for (held, biased) in HELD.into_iter().flat_map(|held| [(held, false), (held, true)]) {
            let layer = loader(&checkpoint, held).linear(&[("a", rows)], columns, biased).expect("loads");
            for n in [1, 2, 33, 70] {
                let x = activations(n, columns);
                let whole = forward(&layer, &x, columns);
                for some in [1, 16, 17, rows / 3, rows] {
                    let x = Tensor::from_slice(&x, (n, columns), &Device::Cpu).expect("a matrix");
                    let got = layer.first(&Matrix(x), some).and_then(|y| y.to_vec()).expect("a product");
                    let want: Vec<f32> = whole.chunks_exact(rows).flat_map(|row| &row[..some]).copied().collect();
                    // Of exact numbers, so a general product has the same bits as well.
                    assert_eq!(got, want, "{held:?}, {some} of {rows} x {columns}, {n} rows, biases: {biased}");
                }
            }
        }
    }
}

#[test]
fn layers_of_the_widths_of_models_are_right_from_every_file() {
    for (rows, columns) in [(960, 1536), (1100, 2048), (1030, 4096)] {
        fused(rows, columns);
    }
}

#[test]
fn rows_that_no_block_divides_are_right_from_every_file() {
    for columns in [1, 31, 100, 300, 577] {
        fused(1030, columns);
    }
}

/// The output layer of a vocabulary of 32,064, tied to the embeddings and not.
fn output(columns: usize, files: &[Dtype]) {
    const ROWS: usize = 32_064;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let tensors = [Named::new("head.weight", &[ROWS, columns], exact(1, ROWS * columns, 1.0 / 1024.0))];
    let x = activations(1, columns);
    let want = product(&x, &tensors[0].numbers, None, columns);
    for file in files {
        let checkpoint = checkpoint(dir.path(), &tensors, |_| *file);
        for held in HELD {
            let loader = loader(&checkpoint, held);
            let table = loader.table("head.weight", ROWS, columns).expect("a table");
            let tied = loader.tied(&table, "head.weight", ROWS, columns).expect("a tied layer");
            let own = loader.linear(&[("head", ROWS)], columns, false).expect("a layer");
            let got = forward(&tied, &x, columns);
            check(held, &got, &want, columns, &format!("{file:?} as {held:?}, {columns} columns"));
            assert!(got == forward(&own, &x, columns), "{file:?} as {held:?}: tied and not tied differ");
        }
    }
}

#[test]
fn output_layers_are_right_tied_and_not() {
    output(576, &FORMATS);
    output(2048, &FORMATS[..1]);
}

#[test]
fn numbers_that_another_format_cannot_hold_keep_their_value() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let columns = 64;
    // 24 bits of precision, more than f16 can hold, smaller than f16 can hold.
    let wide = |scale: f32| (0..columns).map(|i| scale * (1.0 + i as f32 * 1.1e-6)).collect::<Vec<f32>>();
    for scale in [1.0, 1e6, 1e-9] {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let formats = [Dtype::F32, Dtype::F16, Dtype::BF16];
            let number = |kind: usize| match kind {
                0 => wide(scale),
                // A step that bf16 has not, and a number that f16 has not.
                1 => vec![1.0 + 1.0 / 1024.0; columns],
                _ => vec![1e10; columns],
            };
            let mut tensors = Vec::new();
            for (place, kind) in order.into_iter().enumerate() {
                tensors.push(Named::new(format!("{place}.weight"), &[1, columns], number(kind)));
                tensors.push(Named::new(format!("{place}.bias"), &[1], number(kind)[..1].to_vec()));
            }
            let checkpoint = checkpoint(dir.path(), &tensors, |index| formats[order[index / 2]]);
            let loader = loader(&checkpoint, WeightFormat::F32);
            let layer = loader.linear(&[("0", 1), ("1", 1), ("2", 1)], columns, true).expect("a layer");
            // Each row of the identity gives one column of the weights, and zeros the biases.
            let zeros = forward(&layer, &vec![0.0; columns], columns);
            for column in 0..columns {
                let mut one = vec![0.0; columns];
                one[column] = 1.0;
                for (place, (got, bias)) in forward(&layer, &one, columns).iter().zip(&zeros).enumerate() {
                    let want = match order[place] {
                        0 => wide(scale),
                        1 => vec![1.0 + 1.0 / 1024.0; columns],
                        _ => vec![half::bf16::from_f32(1e10).to_f32(); columns],
                    };
                    assert_eq!((*got, *bias), (want[column] + want[0], want[0]), "{order:?}, scale {scale}");
                }
            }
        }
    }
}
