//! The limits of a device, and how near the kernels come to them. The types of the rates cross the doors as they stand here
//! (docs/design/wire.md).

use std::time::Instant;

use half::f16;
use serde::Serialize;

use super::Step;
use super::numbers::{narrowed, noise};
use crate::attention::AttentionParams;
use crate::codec::{Codec, Run};
use crate::cuda::{self, Buffer, Geometry, Gpu, NormItem, Result, args};

/// The measurements, and how long they take.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizes {
    /// Bytes that are copied or read on the device, and those that cross from the host.
    pub copied: usize,
    pub uploaded: usize,
    /// Rows and columns of the factors of a product, in f16 and in f32.
    pub product_f16: usize,
    pub product_f32: usize,
    /// Heads of the attention, of `dim` elements.
    pub heads: usize,
    pub dim: usize,
    /// Sequences and entries of each.
    pub decode: Vec<(usize, usize)>,
    /// Positions of a prompt.
    pub prefill: Vec<usize>,
    /// The median of so many is taken, each over at least so many seconds.
    pub samples: usize,
    pub seconds: f64,
}

impl Default for Sizes {
    /// Large enough for any GPU of today, and done within seconds.
    fn default() -> Self {
        Sizes {
            copied: 1 << 30,
            uploaded: 256 << 20,
            product_f16: 8192,
            product_f32: 4096,
            heads: 32,
            dim: 128,
            decode: vec![(1, 512), (1, 2048), (1, 8192), (8, 2048), (32, 512), (32, 2048)],
            prefill: vec![1024, 4096],
            samples: 5,
            seconds: 0.05,
        }
    }
}

impl Sizes {
    /// Sizes that tell nothing of speed, for the tests.
    pub fn small() -> Self {
        Sizes {
            copied: 64 << 10,
            uploaded: 64 << 10,
            product_f16: 32,
            product_f32: 16,
            heads: 2,
            dim: 32,
            decode: vec![(1, 40), (2, 70)],
            prefill: vec![20],
            samples: 3,
            seconds: 0.0,
        }
    }
}

/// The speed of a device, measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename = "DeviceCeilings", rename_all = "camelCase")]
pub struct Ceilings {
    /// GB (10^9 bytes) per second that copies within the device read and write.
    pub copy: f64,
    /// GB per second that a kernel reads that writes next to nothing.
    pub read: f64,
    /// GB per second of weights that a product of one row reads, in f16.
    pub row: f64,
    /// GB per second from the host.
    pub upload: f64,
    /// TFLOP (10^12 additions and multiplications) per second of products of f16 matrices.
    pub product_f16: f64,
    /// The same for f32.
    pub product_f32: f64,
    /// Launches of a kernel that does next to nothing, per second.
    pub launches: f64,
    /// Writes of 1 KiB from the host, per second.
    pub writes: f64,
    /// Attention of a decode step to 32 heads of 128 elements, in f16.
    pub decode: Vec<DecodeRate>,
    /// Causal attention over a prompt, in f16.
    pub prefill: Vec<PrefillRate>,
}

/// The speed of a decode step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DecodeRate {
    /// Sequences in one launch.
    pub sequences: usize,
    /// Entries of each.
    pub entries: usize,
    // Lanes that fit the device's cache are read faster than its memory is.
    /// GB per second of keys and values.
    pub read: f64,
}

/// The speed of reading a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PrefillRate {
    /// Positions of the prompt.
    pub positions: usize,
    // Of the pairs that see each other only.
    /// TFLOP per second.
    pub tflops: f64,
}

/// Measures, in seconds for the default sizes; what does not fit a quarter of the free memory is made smaller or left out. None when
/// `progress` answered false. Times are those of the host from a wait to the next, each with many calls between.
pub fn ceilings(gpu: &Gpu, sizes: &Sizes, progress: &mut dyn FnMut(Step<'_>) -> bool) -> Result<Option<Ceilings>> {
    let room = usize::try_from(gpu.memory()?.free / 4).unwrap_or(usize::MAX);
    let mut found = Ceilings::default();
    let total = 8 + sizes.decode.len() + sizes.prefill.len();
    let mut done = 0;
    let mut told = |what: String, rate: f64, unit: &str| {
        done += 1;
        progress(Step { line: &format!("{what}: {rate:.1} {unit}"), done, total })
    };
    // Each buffer lives for its measurement only.
    macro_rules! measure {
        ($place:expr, $rate:expr, $what:expr, $unit:literal) => {
            $place = $rate?;
            if !told($what.to_string(), $place, $unit) {
                return Ok(None);
            }
        };
    }
    measure!(found.copy, copy(gpu, sizes, room), "copy", "GB/s");
    measure!(found.read, read(gpu, sizes, room), "read", "GB/s");
    measure!(found.row, row(gpu, sizes, room), "product of one row", "GB/s");
    measure!(found.upload, upload(gpu, sizes, room), "upload", "GB/s");
    measure!(found.product_f16, square::<f16>(gpu, sizes, sizes.product_f16, room), "product f16", "TFLOP/s");
    measure!(found.product_f32, square::<f32>(gpu, sizes, sizes.product_f32, room), "product f32", "TFLOP/s");
    measure!(found.launches, launches(gpu, sizes), "launches", "per second");
    measure!(found.writes, writes(gpu, sizes), "writes", "per second");
    for &(sequences, entries) in &sizes.decode {
        let what = format!("decode of {sequences} x {entries}");
        let go_on = match decode(gpu, sizes, sequences, entries, room)? {
            Some(read) => {
                found.decode.push(DecodeRate { sequences, entries, read });
                told(what, read, "GB/s")
            }
            None => told(format!("{what}, which does not fit"), 0.0, "GB/s"),
        };
        if !go_on {
            return Ok(None);
        }
    }
    for &positions in &sizes.prefill {
        let what = format!("prefill of {positions}");
        let go_on = match prefill(gpu, sizes, positions, room)? {
            Some(tflops) => {
                found.prefill.push(PrefillRate { positions, tflops });
                told(what, tflops, "TFLOP/s")
            }
            None => told(format!("{what}, which does not fit"), 0.0, "TFLOP/s"),
        };
        if !go_on {
            return Ok(None);
        }
    }
    gpu.trim()?;
    Ok(Some(found))
}

/// Most calls between two waits.
const MOST: usize = 20_000;

/// The median of the seconds that one call takes.
fn time(gpu: &Gpu, sizes: &Sizes, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut sample = |times: usize| -> Result<f64> {
        gpu.synchronize()?;
        let start = Instant::now();
        for _ in 0..times {
            work()?;
        }
        gpu.synchronize()?;
        Ok(start.elapsed().as_secs_f64().max(1e-9))
    };
    // The first call loads and chooses kernels. Then as many as take long enough, by doubling: one call alone is mostly waiting.
    sample(1)?;
    let mut times = 1;
    while times < MOST && sample(times)? < sizes.seconds {
        times *= 2;
    }
    let mut seconds = Vec::new();
    for _ in 0..sizes.samples.max(1) {
        seconds.push(sample(times)? / times as f64);
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}

/// An allocation of noise: a block of it from the host, copied over and over.
fn filled<T: super::numbers::Format>(gpu: &Gpu, len: usize) -> Result<Buffer<T>> {
    let block = narrowed::<T>(&noise(1, len.min(1 << 20)));
    let mut buffer = Buffer::<T>::new(gpu, len)?;
    let from = Buffer::from_slice(gpu, &block)?;
    for at in (0..len).step_by(block.len().max(1)) {
        buffer.copy(at, from.slice(0..block.len().min(len - at)))?;
    }
    Ok(buffer)
}

fn copy(gpu: &Gpu, sizes: &Sizes, room: usize) -> Result<f64> {
    let bytes = sizes.copied.min(room / 2);
    let (from, mut to) = (filled::<f16>(gpu, bytes / 2)?, Buffer::<f16>::new(gpu, bytes / 2)?);
    let seconds = time(gpu, sizes, || to.copy(0, from.all()))?;
    Ok(2.0 * bytes as f64 / seconds / 1e9)
}

fn read(gpu: &Gpu, sizes: &Sizes, room: usize) -> Result<f64> {
    let keys = sizes.copied.min(room) / (sizes.dim * 2);
    let from = filled::<f16>(gpu, keys * sizes.dim)?;
    let (mut out, none) = (Buffer::<f32>::new(gpu, keys)?, Buffer::new(gpu, 0)?);
    let seconds = time(gpu, sizes, || {
        let item = NormItem {
            codec: Codec::F16,
            keys: from.all().bytes(),
            scales: none.all(),
            capacity: keys,
            len: keys,
            heads: 1,
            out: out.all_mut(),
        };
        cuda::key_norms(gpu, &mut [item], sizes.dim)
    })?;
    Ok((keys * sizes.dim * 2) as f64 / seconds / 1e9)
}

fn row(gpu: &Gpu, sizes: &Sizes, room: usize) -> Result<f64> {
    let columns = sizes.product_f16;
    let rows = (sizes.copied.min(room) / (columns * 2)).max(1);
    let (x, weight) = (filled::<f16>(gpu, columns)?, filled::<f16>(gpu, rows * columns)?);
    let mut y = Buffer::<f32>::new(gpu, rows)?;
    let seconds = time(gpu, sizes, || cuda::product(gpu, x.all(), weight.all(), columns, y.all_mut()))?;
    Ok((rows * columns * 2) as f64 / seconds / 1e9)
}

fn upload(gpu: &Gpu, sizes: &Sizes, room: usize) -> Result<f64> {
    let from = noise(1, sizes.uploaded.min(room) / 4);
    let mut to = Buffer::<f32>::new(gpu, from.len())?;
    let seconds = time(gpu, sizes, || to.write(0, &from))?;
    Ok((from.len() * 4) as f64 / seconds / 1e9)
}

fn square<T: super::numbers::Format>(gpu: &Gpu, sizes: &Sizes, size: usize, room: usize) -> Result<f64> {
    let bytes = |size: usize| size * size * (2 * size_of::<T>() + size_of::<f32>());
    let mut size = size.max(1);
    while size > 1 && bytes(size) > room {
        size /= 2;
    }
    let (x, weight) = (filled::<T>(gpu, size * size)?, filled::<T>(gpu, size * size)?);
    let mut y = Buffer::<f32>::new(gpu, size * size)?;
    let seconds = time(gpu, sizes, || cuda::product(gpu, x.all(), weight.all(), size, y.all_mut()))?;
    Ok(2.0 * (size as f64).powi(3) / seconds / 1e12)
}

/// The norm of one short key, with everything that a launch needs there already.
fn launches(gpu: &Gpu, sizes: &Sizes) -> Result<f64> {
    let (keys, mut out) = (filled::<f32>(gpu, 8)?, Buffer::<f32>::new(gpu, 1)?);
    let item = args::NormItem {
        keys: keys.all().address(),
        scales: 0,
        out: out.all_mut().address(),
        capacity: 1,
        len: 1,
        heads: 1,
        unused: 0,
        codec: Codec::F32.into(),
    };
    let items = Buffer::from_slice(gpu, &[item])?;
    let args = args::NormArgs { items: items.all().address(), tables: 0, dim: 8, unused: 0 };
    let geometry = Geometry { grid: [1, 1], threads: 256, shared: 0 };
    let seconds = time(gpu, sizes, || {
        // SAFETY: one item of one key of 8 elements and its norm, as the contract of the kernel asks; all live until the last wait.
        unsafe { gpu.launch("key_norms", geometry, &args) }
    })?;
    Ok(1.0 / seconds)
}

fn writes(gpu: &Gpu, sizes: &Sizes) -> Result<f64> {
    let from = noise(1, 256);
    let mut to = Buffer::<f32>::new(gpu, from.len())?;
    Ok(1.0 / time(gpu, sizes, || to.write(0, &from))?)
}

fn decode(gpu: &Gpu, sizes: &Sizes, sequences: usize, entries: usize, room: usize) -> Result<Option<f64>> {
    let Sizes { heads, dim, .. } = *sizes;
    let elements = heads * entries * dim;
    if sequences * elements * 4 > room {
        return Ok(None);
    }
    let all = |_| -> Result<_> { Ok((filled::<f16>(gpu, elements)?, filled::<f16>(gpu, elements)?)) };
    let lanes = (0..sequences).map(all).collect::<Result<Vec<_>>>()?;
    let queries = filled::<f32>(gpu, sequences * heads * dim)?;
    let mut out = Buffer::<f32>::new(gpu, sequences * heads * dim)?;
    let seconds = time(gpu, sizes, || {
        let mut rest = out.all_mut();
        let mut items = Vec::new();
        for (i, (keys, values)) in lanes.iter().enumerate() {
            let run = Run::of_plain(keys.all(), values.all(), entries, entries);
            let (out, behind) = rest.split_at(heads * dim);
            rest = behind;
            items.push(cuda::DecodeItem {
                lane: cuda::Lane::new(heads, vec![run]),
                queries: queries.slice(i * heads * dim..(i + 1) * heads * dim),
                out,
                sums: None,
            });
        }
        cuda::decode(gpu, &AttentionParams::new(heads, heads, dim), &mut items)
    })?;
    Ok(Some((sequences * elements * 4) as f64 / seconds / 1e9))
}

fn prefill(gpu: &Gpu, sizes: &Sizes, n: usize, room: usize) -> Result<Option<f64>> {
    let Sizes { heads, dim, .. } = *sizes;
    let elements = n * heads * dim;
    if elements * 12 > room {
        return Ok(None);
    }
    let (keys, values) = (filled::<f16>(gpu, elements)?, filled::<f16>(gpu, elements)?);
    let (queries, mut out) = (filled::<f32>(gpu, elements)?, Buffer::<f32>::new(gpu, elements)?);
    let run = Run::of_plain(keys.all(), values.all(), n, n);
    let lanes = [cuda::Lane::new(heads, vec![run])];
    let rows = cuda::Rows { data: queries.all(), offset: 0, stride: heads * dim };
    let params = AttentionParams::new(heads, heads, dim);
    let seconds = time(gpu, sizes, || cuda::prefill(gpu, &params, rows, n, &lanes, None, out.all_mut()))?;
    let pairs = n as f64 * (n as f64 + 1.0) / 2.0;
    Ok(Some(4.0 * pairs * (heads * dim) as f64 / seconds / 1e12))
}
