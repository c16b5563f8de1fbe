//! Weights and activations in blocks.

use half::f16;

use crate::quant::stored::{BlockType, Stored};
use crate::quant::{BLOCK, Weights};

/// Numbers in steps of `step`, at most `most` of them.
fn rounded(block: &[f32], step: f32, most: f64) -> impl Iterator<Item = f64> {
    let (inverse, step) = (if step == 0.0 { 0.0 } else { 1.0 / step }, f64::from(step));
    // The product in f32, as in the kernel, so that a tie goes the same way.
    block.iter().map(move |x| f64::from(x * inverse).round_ties_even().clamp(-most, most) * step)
}

fn largest(block: &[f32]) -> f32 {
    block.iter().fold(0.0, |largest, x| largest.max(x.abs()))
}

/// Finite weights in q8_0.
pub fn q8_0(x: &[f32]) -> Vec<f64> {
    x.chunks(BLOCK).flat_map(|block| rounded(block, f16::from_f32(largest(block) / 127.0).to_f32(), 127.0)).collect()
}

/// Finite activations in 8 bits.
pub fn activations(x: &[f32]) -> Vec<f64> {
    let block = |block: &[f32]| -> Vec<f64> {
        let (largest, inverse) = (largest(block), 127.0 / largest(block));
        let codes = block.iter().map(|x| f64::from(x * inverse).round_ties_even());
        if largest == 0.0 {
            vec![0.0; block.len()]
        } else {
            codes.map(|code| code * f64::from(largest / 127.0)).collect()
        }
    };
    x.chunks(BLOCK).flat_map(block).collect()
}

/// `[n, rows]` products of rows of activations in 8 bits with weights in blocks.
pub fn product(weights: &Weights, x: &[f32]) -> Vec<f64> {
    products(weights.rows(), weights.columns(), x, |row, to| weights.dequantise(row, to))
}

/// As [`product`], with weights as they lie in a file.
pub fn stored_product(weights: &Stored, x: &[f32]) -> Vec<f64> {
    products(weights.rows(), weights.columns(), x, |row, to| weights.dequantise(row, to))
}

fn products(rows: usize, columns: usize, x: &[f32], dequantise: impl Fn(usize, &mut [f32])) -> Vec<f64> {
    let mut row = vec![0.0; columns];
    let rows: Vec<Vec<f64>> = (0..rows)
        .map(|index| {
            dequantise(index, &mut row);
            row.iter().map(|w| f64::from(*w)).collect()
        })
        .collect();
    let dot = |x: &[f64], row: &Vec<f64>| x.iter().zip(row).map(|(x, w)| x * w).sum::<f64>();
    x.chunks(columns).map(activations).flat_map(|x| rows.iter().map(|row| dot(&x, row)).collect::<Vec<_>>()).collect()
}

/// The numbers of a block of a type, each by its own place in the block.
pub fn numbers(kind: BlockType, block: &[u8]) -> Vec<f64> {
    (0..kind.weights()).map(|i| number(kind, block, i)).collect()
}

fn number(kind: BlockType, block: &[u8], i: usize) -> f64 {
    /// The numbers that four bits stand for in iq4_nl and iq4_xs.
    const LEVELS: [f64; 16] =
        [-127., -104., -83., -65., -49., -35., -22., -10., 1., 13., 25., 38., 53., 69., 89., 113.];
    let half = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f64();
    // Some bits of a byte from one on.
    let bits = |at: usize, from: usize, n: usize| usize::from(block[at]) >> from & ((1 << n) - 1);
    let signed = |code: usize, bias: i32| f64::from(code as i32 - bias);
    // Four bits of blocks of 32, whose first sixteen columns are in the low halves of bytes.
    let nibble = |at: usize, i: usize| bits(at + i % 16, i / 16 * 4, 4);
    // The bit of 32 that is column i's.
    let fifth = |at: usize| bits(at + i / 8, i % 8, 1) << 4;
    // In blocks of 256: the block of 32, the half, and the place in the block.
    let (of_32, of_128, place) = (i / 32, i / 128, i % 32);
    let pair = |at: usize| bits(at + 32 * of_128 + place, 2 * (of_32 % 4), 2);
    // The small scale of q4_k and q5_k with bytes from 4 on, and their small minimum with those from 8 on.
    let six = |of: usize| match of_32 {
        0..4 => bits(4 + 4 * of + of_32, 0, 6),
        _ => bits(8 + of_32, 4 * of, 4) | bits(4 * of + of_32, 6, 2) << 4,
    };
    let with_minimum = |code: usize| half(0) * six(0) as f64 * code as f64 - half(2) * six(1) as f64;
    match kind {
        BlockType::Q4_0 => half(0) * signed(nibble(2, i), 8),
        BlockType::Q4_1 => half(0) * nibble(4, i) as f64 + half(2),
        BlockType::Q5_0 => half(0) * signed(nibble(6, i) | fifth(2), 16),
        BlockType::Q5_1 => half(0) * (nibble(8, i) | fifth(4)) as f64 + half(2),
        BlockType::Q8_0 => half(0) * f64::from(block[2 + i] as i8),
        BlockType::Q2K => half(80) * (bits(i / 16, 0, 4) * pair(16)) as f64 - half(82) * bits(i / 16, 4, 4) as f64,
        BlockType::Q3K => {
            let (part, third) = (i / 16, bits(place, of_32, 1) << 2);
            let scale = bits(96 + part % 8, part / 8 * 4, 4) | bits(104 + part % 4, part / 4 * 2, 2) << 4;
            half(108) * signed(scale, 32) * signed(pair(32) | third, 4)
        }
        BlockType::Q4K => with_minimum(bits(16 + i / 64 * 32 + place, of_32 % 2 * 4, 4)),
        BlockType::Q5K => {
            with_minimum(bits(48 + i / 64 * 32 + place, of_32 % 2 * 4, 4) | bits(16 + place, of_32, 1) << 4)
        }
        BlockType::Q6K => {
            let low = bits(64 * of_128 + i % 64, i % 128 / 64 * 4, 4);
            half(208) * f64::from(block[192 + i / 16] as i8) * signed(low | pair(128) << 4, 32)
        }
        BlockType::Iq4Nl => half(0) * LEVELS[nibble(2, i)],
        BlockType::Iq4Xs => {
            let scale = bits(4 + of_32 / 2, of_32 % 2 * 4, 4) | bits(2 + of_32 / 4, of_32 % 4 * 2, 2) << 4;
            half(0) * signed(scale, 32) * LEVELS[nibble(8 + 16 * of_32, place)]
        }
    }
}
