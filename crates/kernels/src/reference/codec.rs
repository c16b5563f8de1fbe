//! Stored entries, read number by number.

use half::{bf16, f16};

use crate::codec::{Basis, Codec, Dtype, Found, Levels, Map, Run, Scales, Transform, turns};

fn f16_at(bytes: &[u8], index: usize) -> f64 {
    f16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]).to_f64()
}

/// The number `channel` of entry `entry` of a head, in a part with room for `capacity` entries per head.
pub fn number(
    codec: Codec,
    numbers: &[u8],
    scales: &[u8],
    (head, capacity): (usize, usize),
    entry: usize,
    (channel, dim): (usize, usize),
) -> f64 {
    let row = head * capacity + entry;
    let index = row * dim + channel;
    let stored = match codec.dtype {
        Dtype::F32 => {
            let bytes = &numbers[4 * index..4 * index + 4];
            f64::from(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        }
        Dtype::F16 => f16_at(numbers, index),
        Dtype::Bf16 => bf16::from_le_bytes([numbers[2 * index], numbers[2 * index + 1]]).to_f64(),
        Dtype::F8 => float8(numbers[index]),
        Dtype::U8 | Dtype::U4 | Dtype::U2 => {
            let bits = codec.dtype.bits();
            f64::from(numbers[index * bits / 8] >> (index * bits % 8) & codec.dtype.most())
        }
    };
    match codec.scales {
        Scales::None => stored,
        Scales::Apart { .. } => panic!("a number apart is read with what was found"),
        Scales::PerChannel { group, .. } => {
            let group = usize::from(group);
            let first = (head * (capacity / group) + entry / group) * 2 * dim;
            stored * f16_at(scales, first + channel) + f16_at(scales, first + dim + channel)
        }
        Scales::PerEntry { group, .. } => {
            let shared = (row * dim + channel) / usize::from(group);
            match codec.levels.table(codec.dtype) {
                None => stored * f16_at(scales, 2 * shared) + f16_at(scales, 2 * shared + 1),
                Some(table) => f64::from(table[stored as usize]) * f16_at(scales, shared),
            }
        }
    }
}

/// The number of E4M3FN with these bits, of which two are no number.
pub fn float8(bits: u8) -> f64 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f64::from(bits & 7));
    let size = match (exponent, mantissa) {
        (15, 7.0) => f64::NAN,
        (0, mantissa) => mantissa / 8.0 * 2f64.powi(-6),
        (exponent, mantissa) => (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7),
    };
    if bits < 128 { size } else { -size }
}

/// The nearest number of E4M3FN, at most 448; of two, the one with an even mantissa.
pub fn nearest_float8(x: f32) -> f64 {
    let away = |bits: u8| (float8(bits) - f64::from(x.abs().min(448.0))).abs();
    let nearest = (0..=0x7eu8).min_by(|a, b| away(*a).total_cmp(&away(*b)).then((a & 1).cmp(&(b & 1))));
    nearest.map_or(0.0, float8).copysign(x.into())
}

/// The key and the value of an entry as they were before their codec's transform, but for the rounding of the codes.
pub fn entry(run: &Run<'_, &[u8]>, head: usize, entry: usize, dim: usize) -> (Vec<f64>, Vec<f64>) {
    let (codec, parts) = (run.codec, run.parts);
    let row = |map: Option<&Map>, found: Option<&Found>, codec: Codec, numbers: &[u8], scales: &[u8]| -> Vec<f64> {
        let stored = |row: usize, width: usize| -> Vec<f64> {
            if let (Scales::Apart { .. }, Some(found)) = (codec.scales, found) {
                return apart(codec, found, numbers, scales, (row, row * run.capacity + entry), width);
            }
            let one = |at| number(codec, numbers, scales, (row, run.capacity), entry, (at, width));
            (0..width).map(one).collect()
        };
        let Some(map) = map else { return stored(head, dim) };
        let stored = stored(map.row(head), map.cut().width.into());
        let back =
            |channel| stored.iter().enumerate().map(move |(c, x)| f64::from(map.back(head, channel, c)) * x).sum();
        (0..dim).map(back).collect()
    };
    let back = |through: Transform, row: Vec<f64>| match through {
        Transform::None => row,
        Transform::Hadamard => hadamard(&row),
        Transform::Random => (0..).zip(hadamard(&row)).map(|(i, x)| if turns(i) { -x } else { x }).collect(),
    };
    let key = row(run.key_map(), run.basis.and_then(Basis::found_keys), codec.key, parts.keys, parts.key_scales);
    let value =
        row(run.value_map(), run.basis.and_then(Basis::found_values), codec.value, parts.values, parts.value_scales);
    let scaled = |gains: Option<&[f32]>, row: Vec<f64>| {
        let gain = gains.map_or(1.0, |gains| f64::from(gains[0]));
        row.into_iter().map(|x| x * gain).collect::<Vec<f64>>()
    };
    (
        scaled(run.key_gains(head, entry), back(codec.dual.keys(), key)),
        scaled(run.value_gains(head, entry), back(codec.dual.values(), value)),
    )
}

/// A row of a head, the `index`-th of all, whose levels were found.
fn apart(
    codec: Codec,
    found: &Found,
    numbers: &[u8],
    scales: &[u8],
    (head, index): (usize, usize),
    dim: usize,
) -> Vec<f64> {
    let words = codec.scales_row(dim) / 2;
    let word = |at: usize| f16_at(scales, index * words + at);
    let own = found.channels().is_none();
    let code = |channel: usize| {
        let (bits, at) = (codec.dtype.bits(), index * dim + channel);
        usize::from(numbers[at * bits / 8] >> (at * bits % 8) & codec.dtype.most())
    };
    let number = |channel: usize| {
        let (scale, zero) = match found.channels() {
            Some(of) => (f64::from(of.scales[head * dim + channel]), f64::from(of.zeros[head * dim + channel])),
            None => (word(0), word(1)),
        };
        f64::from(found.levels()[code(channel)]) * scale + zero
    };
    let mut row: Vec<f64> = (0..dim).map(number).collect();
    for at in (2 * usize::from(own)..words).step_by(2) {
        let bytes = 2 * (index * words + at);
        row[usize::from(u16::from_le_bytes([scales[bytes], scales[bytes + 1]]))] = word(at + 1);
    }
    row
}

/// The orthonormal Walsh-Hadamard transform: element (i, j) of the matrix is negative where i and j share an odd number of bits.
pub fn hadamard(row: &[f64]) -> Vec<f64> {
    let sign = |i: usize, j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
    let sum = |i: usize| row.iter().enumerate().map(|(j, x)| sign(i, j) * x).sum::<f64>();
    (0..row.len()).map(|i| sum(i) / (row.len() as f64).sqrt()).collect()
}

/// Rows `[heads, n, dim]` after a codec; scales and codes are chosen as [`crate::codec`] says.
pub fn encoded(codec: Codec, rows: &[f32], n: usize, dim: usize) -> Vec<f64> {
    // The numbers that share a scale with number i.
    let sharing = |i: usize| -> Vec<f32> {
        match codec.scales {
            Scales::None => vec![rows[i]],
            Scales::Apart { .. } => panic!("the twin of such codes is in their tests"),
            Scales::PerEntry { group, .. } => {
                let group = usize::from(group);
                rows[i / group * group..][..group].to_vec()
            }
            Scales::PerChannel { group, .. } => {
                let (group, row, channel) = (usize::from(group), i / dim, i % dim);
                let first = row / n * n + row % n / group * group;
                (first..first + group).map(|row| rows[row * dim + channel]).collect()
            }
        }
    };
    let one = |i: usize| {
        let (x, group) = (rows[i], sharing(i));
        let (min, max) = group.iter().fold((f32::MAX, f32::MIN), |(min, max), x| (min.min(*x), max.max(*x)));
        let (min, max, most) = (codec.clip() * min, codec.clip() * max, f64::from(codec.dtype.most()));
        match codec.dtype {
            Dtype::F32 => f64::from(x),
            Dtype::F16 => f16::from_f32(x).to_f64(),
            Dtype::Bf16 => bf16::from_f32(x).to_f64(),
            Dtype::F8 => nearest_float8(x),
            dtype if codec.levels != Levels::Even => {
                let squares: f64 = group.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
                let scale = f16::from_f64((squares / group.len() as f64).sqrt()).to_f64();
                let levels = codec.levels.table(dtype).expect("a table of this width");
                let numbers = levels[..=usize::from(dtype.most())].iter().map(|level| f64::from(*level) * scale);
                let away = |number: &f64| (number - f64::from(x)).abs();
                numbers.min_by(|a, b| away(a).total_cmp(&away(b))).expect("some levels")
            }
            _ => {
                let (zero, scale) = (f16::from_f32(min).to_f64(), f16::from_f32((max - min) / most as f32).to_f64());
                let code = if scale == 0.0 { 0.0 } else { ((f64::from(x) - zero) / scale).round().clamp(0.0, most) };
                code * scale + zero
            }
        }
    };
    (0..rows.len()).map(one).collect()
}
