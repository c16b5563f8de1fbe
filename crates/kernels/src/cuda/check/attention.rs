//! decode.cu and prefill.cu beside their twins. Stored values are read alike on both sides, so formats add no error: what differs is
//! the order of sums in f32, fused multiplications, and 2^x for e^x. 2e-5 of the largest result, beside what rounding results to f16
//! costs, and 1e-4 of each probability sum.

use half::f16;

use super::numbers::{Format, Random, noise, of_each, of_largest, twice, widened};
use super::{Case, Check};
use crate::attention::{self, AttentionParams, LaneView, Mask};
use crate::codec::{Codec, Dtype, Dual, KvCodec, Levels, OwnedRun, Run};
use crate::cuda::{self, Buffer, Gpu, Result};

pub(super) fn all(check: &mut Check<'_>) {
    for storage in STORAGES {
        let name = |kernel: &str| format!("{kernel} {}", storage.0);
        let (decode, prefill) = (decode_cases(), prefill_cases());
        check.kernel(name("decode"), 2e-5, &decode, |gpu, case| decodes::<f32>(gpu, case, storage, false));
        check.kernel(format!("decode {} to f16", storage.0), 2e-5 + f16::ROUNDING, &decode, |gpu, case| {
            decodes::<f16>(gpu, case, storage, false)
        });
        check.kernel(name("decode sums"), 1e-4, &decode, |gpu, case| decodes::<f32>(gpu, case, storage, true));
        check.kernel(name("prefill"), 2e-5, &prefill, |gpu, case| prefills(gpu, case, storage, false));
        check.kernel(name("prefill sums"), 1e-4, &prefill, |gpu, case| prefills(gpu, case, storage, true));
    }
}

/// How the runs of a lane are stored, by their number, and what it is called.
type Storage = (&'static str, fn(usize, usize) -> KvCodec);

const STORAGES: [Storage; 8] = [
    ("f32", |_, _| KvCodec::F32),
    ("f16", |_, _| KvCodec::F16),
    ("floats", |run, _| KvCodec::plain([Dtype::Bf16, Dtype::F8][run % 2])),
    ("levels", |run, dim| {
        let dual = if dim.is_power_of_two() { Dual::Random } else { Dual::None };
        let [key, value] = [Dtype::U4, Dtype::U2].map(|dtype| Codec::of_levels(dtype, Levels::Normal, dim as u16));
        [KvCodec::new(key, value, dual), KvCodec::new(value, key, dual)][run % 2]
    }),
    ("codes", |run, dim| codes([Dtype::U4, Dtype::U2, Dtype::U8][run % 3], dim, Dual::None)),
    ("mixed", |run, dim| {
        let dual = if dim.is_power_of_two() { Dual::Hadamard } else { Dual::None };
        match run % 3 {
            1 => KvCodec { dual, ..KvCodec::F16 },
            run => codes([Dtype::U4, Dtype::U4, Dtype::U2][run], dim, dual),
        }
    }),
    ("codes of transformed keys", |_, dim| codes(Dtype::U4, dim, alone(Dual::HadamardKeys, dim))),
    ("codes of transformed values", |_, dim| codes(Dtype::U4, dim, alone(Dual::HadamardValues, dim))),
];

fn alone(dual: Dual, dim: usize) -> Dual {
    if dim.is_power_of_two() { dual } else { Dual::None }
}

/// Codes with a scale per channel in the keys, for those of eight bits per entry, and per entry in the values.
fn codes(dtype: Dtype, dim: usize, dual: Dual) -> KvCodec {
    let value = Codec::per_entry(dtype, Codec::channels(dim, 32).unwrap_or(8));
    let key = if dtype == Dtype::U8 { value } else { Codec::per_channel(dtype, 32) };
    KvCodec::new(key, value, dual)
}

const WINDOWS: [Option<u32>; 4] = [None, None, Some(60), Some(200)];
const SOFTCAPS: [Option<f32>; 3] = [None, None, Some(1.5)];
const DIMS: [usize; 8] = [8, 32, 64, 80, 96, 128, 136, 256];

/// A lane of the host, in runs of unequal lengths; what is behind the entries of a run is NaN.
struct Lane {
    heads: usize,
    dim: usize,
    runs: Vec<OwnedRun>,
    dead: Option<Vec<bool>>,
    positions: Vec<u32>,
    ends: Option<Vec<u32>>,
}

impl Lane {
    /// The last `own` entries are in the order of their positions.
    fn new(storage: Storage, seed: u64, (heads, dim): (usize, usize), len: usize, dead: bool, own: usize) -> Self {
        let lens = match seed % 3 {
            0 => vec![len],
            1 => vec![len - len / 7 - len / 3, len / 7, len / 3],
            _ => vec![len / 2, 0, len - len / 2],
        };
        let runs = lens.iter().enumerate().flat_map(|(i, &len)| {
            let codec = storage.1(i, dim);
            // The rest of a group is not encoded.
            let coded = len / codec.group() * codec.group();
            let plain = KvCodec { dual: codec.dual, ..KvCodec::F16 };
            let spare = if codec.group() == 1 { 1 } else { 0 };
            [(codec, coded, coded + spare), (plain, len - coded, len - coded + 1)].into_iter().zip(0..).map(
                move |((codec, len, capacity), part)| {
                    let mut run = OwnedRun::new(codec, heads, dim, capacity);
                    let seed = seed + 4 * i as u64 + 2 * part;
                    run.push(&noise(seed, heads * len * dim), &noise(seed + 1, heads * len * dim));
                    run
                },
            )
        });
        let dead = dead.then(|| (0..len).map(|entry| (entry * 7919 + seed as usize) % 101 % 3 == 1).collect());
        // Some are missing, and of those before the last some are out of order.
        let mut positions: Vec<u32> = (0..len as u32).map(|entry| entry + entry / 5 * (seed % 3) as u32).collect();
        if seed.is_multiple_of(2) && len > own {
            (0..(len - own) / 4).for_each(|i| positions.swap(i, (i * 7919 + seed as usize) % (len - own)));
        }
        Lane { heads, dim, runs: runs.collect(), dead, positions, ends: None }
    }

    fn len(&self) -> usize {
        self.runs.iter().map(OwnedRun::len).sum()
    }

    fn view(&self) -> LaneView<'_> {
        let positions = Some(&self.positions[..]);
        let runs = self.runs.iter().map(OwnedRun::run).collect();
        let ends = self.ends.as_deref();
        LaneView { dead: self.dead.as_deref(), positions, ends, ..LaneView::new(self.heads, runs) }
    }

    fn upload(&self, gpu: &Gpu) -> Result<Uploaded<'_>> {
        Ok(Uploaded {
            lane: self,
            runs: self.runs.iter().map(|run| Buffer::from_slice(gpu, run.bytes())).collect::<Result<_>>()?,
        })
    }
}

struct Uploaded<'a> {
    lane: &'a Lane,
    runs: Vec<Buffer<u8>>,
}

impl Uploaded<'_> {
    fn lane(&self) -> cuda::Lane<'_> {
        let Lane { heads, dim, .. } = *self.lane;
        let runs = self
            .lane
            .runs
            .iter()
            .zip(&self.runs)
            .map(|(run, bytes)| Run::of_slice(run.codec(), bytes.all(), heads, dim, run.len(), run.capacity()));
        let (dead, ends) = (self.lane.dead.as_deref(), self.lane.ends.as_deref());
        cuda::Lane { heads, runs: runs.collect(), dead, positions: Some(&self.lane.positions), ends }
    }
}

#[derive(Debug)]
struct Decode {
    dim: usize,
    /// Query heads per KV head.
    group: usize,
    /// KV heads, entries, and whether some are dead.
    lanes: Vec<(usize, usize, bool)>,
    window: Option<u32>,
    softcap: Option<f32>,
    seed: u64,
}

impl Case for Decode {
    fn work(&self) -> usize {
        self.lanes.iter().map(|(heads, len, _)| heads * self.group * len * self.dim).sum()
    }
}

fn decode_cases() -> Vec<Decode> {
    let mut random = Random::new(3);
    let mut all = vec![
        Decode { dim: 128, group: 1, lanes: vec![(32, 640, false)], window: None, softcap: None, seed: 3 },
        Decode {
            dim: 128,
            group: 4,
            lanes: vec![(1, 2100, true), (7, 40, false)],
            window: None,
            softcap: None,
            seed: 4,
        },
        Decode { dim: 256, group: 2, lanes: vec![(2, 900, false)], window: Some(512), softcap: Some(2.0), seed: 5 },
    ];
    all.extend(DIMS.into_iter().zip(5..).map(|(dim, seed)| {
        let lens = [1, 2, 31, 33, 63, 64, 65, 127, 128, 129, 511, 512, 513];
        let mut lane = || (1 + random.below(3), random.pick(&lens), random.below(2) == 1);
        let lanes = (0..1 + seed % 3).map(|_| lane()).collect();
        let group = random.pick(&[1, 2, 3, 4, 5, 8, 11]);
        let (window, softcap) = (random.pick(&WINDOWS), random.pick(&SOFTCAPS));
        Decode { dim, group, lanes, window, softcap, seed }
    }));
    all
}

/// The error of the results or, with `sums`, of the sums of probabilities.
fn decodes<O: Format>(gpu: &Gpu, case: &Decode, storage: Storage, sums: bool) -> Result<f64> {
    let Decode { dim, group, ref lanes, window, softcap, seed } = *case;
    let kv_heads = lanes.iter().map(|lane| lane.0).sum::<usize>();
    let scale = 1.7 / (dim as f32).sqrt();
    let params = AttentionParams { scale, window, softcap, ..AttentionParams::new(kv_heads * group, kv_heads, dim) };
    let lanes: Vec<Lane> = lanes
        .iter()
        .zip(0..)
        .map(|(&(heads, len, dead), i)| Lane::new(storage, seed + 100 * i, (heads, dim), len, dead, 0))
        .collect();
    let queries: Vec<Vec<f32>> =
        lanes.iter().zip(7..).map(|(lane, i)| noise(seed + i, lane.heads * group * dim)).collect();

    let got = twice(|| {
        let uploaded = lanes.iter().map(|lane| lane.upload(gpu)).collect::<Result<Vec<_>>>()?;
        let queries = queries.iter().map(|queries| Buffer::from_slice(gpu, queries)).collect::<Result<Vec<_>>>()?;
        let zeros = |len: usize| Buffer::from_slice(gpu, &vec![0.0; len]);
        let empty = |queries: &Buffer<f32>| Buffer::from_slice(gpu, &vec![O::narrow(0.0); queries.len()]);
        let mut outs = queries.iter().map(empty).collect::<Result<Vec<_>>>()?;
        let mut totals = lanes.iter().map(|lane| zeros(lane.len())).collect::<Result<Vec<_>>>()?;
        let mut items: Vec<cuda::DecodeItem<'_, O>> = Vec::new();
        for (((lane, queries), out), total) in uploaded.iter().zip(&queries).zip(&mut outs).zip(&mut totals) {
            let (lane, queries, sums) = (lane.lane(), queries.all(), sums.then(|| total.all_mut()));
            items.push(cuda::DecodeItem { lane, queries, out: out.all_mut(), sums });
        }
        cuda::decode(gpu, &params, &mut items)?;
        drop(items);
        if sums {
            return Ok(totals.iter().map(Buffer::read).collect::<Result<Vec<_>>>()?.concat());
        }
        Ok(widened(&outs.iter().map(Buffer::read).collect::<Result<Vec<_>>>()?.concat()))
    })?;

    let mut outs: Vec<Vec<f32>> = queries.iter().map(|queries| vec![0.0; queries.len()]).collect();
    let mut totals: Vec<Vec<f32>> = lanes.iter().map(|lane| vec![0.0; lane.len()]).collect();
    let mut items: Vec<attention::DecodeItem<'_>> = Vec::new();
    for (((lane, queries), out), total) in lanes.iter().zip(&queries).zip(&mut outs).zip(&mut totals) {
        items.push(attention::DecodeItem { lane: lane.view(), queries, out, sums: Some(total) });
    }
    attention::decode(&params, &mut items);
    drop(items);
    Ok(if sums { of_each(&got, &wide(&totals.concat())) } else { of_largest(&got, &outs.concat()) })
}

#[derive(Debug)]
struct Prefill {
    dim: usize,
    group: usize,
    n: usize,
    past: usize,
    /// KV heads of each lane; the second has half of the past.
    lanes: Vec<usize>,
    dead: bool,
    causal: bool,
    /// Positions of a block, all of which see each other; 1: none do.
    block: usize,
    window: Option<u32>,
    softcap: Option<f32>,
    seed: u64,
}

impl Case for Prefill {
    fn work(&self) -> usize {
        let heads = self.group * self.lanes.iter().sum::<usize>();
        heads * self.n * (self.n + self.past) * self.dim
    }
}

fn prefill_cases() -> Vec<Prefill> {
    let mut random = Random::new(9);
    let one = |dim, group, n, past, lanes| {
        let (window, softcap) = (None, None);
        Prefill { dim, group, n, past, lanes, dead: false, causal: true, block: 1, window, softcap, seed: 1 }
    };
    let mut all = vec![
        one(128, 1, 130, 0, vec![4]),
        Prefill { causal: false, seed: 2, ..one(64, 1, 257, 0, vec![2]) },
        Prefill { dead: true, seed: 3, ..one(128, 4, 40, 500, vec![1, 1]) },
        Prefill { window: Some(100), softcap: Some(2.0), seed: 4, ..one(256, 2, 300, 200, vec![1]) },
        Prefill { block: 256, window: Some(100), seed: 4, ..one(256, 2, 300, 200, vec![1]) },
        Prefill { block: 70, dead: true, seed: 3, ..one(128, 4, 200, 100, vec![1, 1]) },
    ];
    all.extend(DIMS.into_iter().zip(5..).map(|(dim, seed)| {
        let sizes = [1, 2, 17, 31, 33, 63, 64, 65, 127, 129];
        let past = if random.below(3) == 0 { 0 } else { random.pick(&sizes) };
        let (dead, causal) = (random.below(2) == 1, random.below(3) > 0);
        let lanes = (0..1 + seed as usize % 2).map(|_| 1 + random.below(2)).collect();
        let (group, n) = (random.pick(&[1, 2, 3, 4, 8]), random.pick(&sizes));
        let (window, softcap) = (random.pick(&WINDOWS).filter(|_| causal), random.pick(&SOFTCAPS));
        let block = if causal { random.pick(&[1, 1, 5, 64]) } else { 1 };
        Prefill { dim, group, n, past, lanes, dead, causal, block, window, softcap, seed }
    }));
    all
}

/// The error of the results or, with `sums`, of the column sums.
fn prefills(gpu: &Gpu, case: &Prefill, storage: Storage, sums: bool) -> Result<f64> {
    let Prefill { dim, group, n, past, ref lanes, dead, causal, block, window, softcap, seed } = *case;
    // Every second run of so many queries sees itself whole.
    let end = |row: usize| if row / block % 2 == 1 { n.min((row / block + 1) * block) } else { row + 1 } as u32;
    let ends: Option<Vec<u32>> = (block > 1).then(|| (0..n).map(end).collect());
    let scale = 1.3 / (dim as f32).sqrt();
    let lanes: Vec<Lane> = lanes
        .iter()
        .enumerate()
        .map(|(i, &heads)| {
            let lane = Lane::new(storage, seed + 100 * i as u64, (heads, dim), n + past / (i + 1), dead, n);
            Lane { ends: ends.clone(), ..lane }
        })
        .collect();
    let kv_heads = lanes.iter().map(|lane| lane.heads).sum::<usize>();
    let query_heads = group * kv_heads;
    let mask = if causal { Mask::Causal } else { Mask::None };
    let params = AttentionParams { scale, window, softcap, mask, ..AttentionParams::new(query_heads, kv_heads, dim) };
    let stride = query_heads * dim + 1;
    let rows = noise(seed + 9, n * stride);
    let weights: Vec<f32> = noise(seed + 5, n).iter().map(|x| if *x > -0.6 { x + 1.0 } else { 0.0 }).collect();

    let got = twice(|| {
        let uploaded = lanes.iter().map(|lane| lane.upload(gpu)).collect::<Result<Vec<_>>>()?;
        let views: Vec<_> = uploaded.iter().map(Uploaded::lane).collect();
        let data = Buffer::from_slice(gpu, &rows)?;
        let mut out = Buffer::<f32>::new(gpu, n * query_heads * dim)?;
        let mut totals =
            lanes.iter().map(|lane| Buffer::<f32>::new(gpu, lane.heads * lane.len())).collect::<Result<Vec<_>>>()?;
        let gather =
            sums.then(|| cuda::Gather { weights: &weights, sums: totals.iter_mut().map(Buffer::all_mut).collect() });
        let rows = cuda::Rows { data: data.all(), offset: 0, stride };
        cuda::prefill(gpu, &params, rows, n, &views, gather, out.all_mut())?;
        if !sums {
            return out.read();
        }
        Ok(totals.iter().map(Buffer::read).collect::<Result<Vec<_>>>()?.concat())
    })?;

    let views: Vec<_> = lanes.iter().map(Lane::view).collect();
    let mut want = vec![0.0; n * query_heads * dim];
    let mut totals = Vec::new();
    let gather = Some(attention::Gather { weights: &weights, sums: &mut totals });
    let rows = attention::Rows::strided(&rows, 0, stride);
    attention::prefill(&params, rows, n, &views, gather, &mut want);
    Ok(if sums { of_each(&got, &wide(&totals.concat())) } else { of_largest(&got, &want) })
}

fn wide(from: &[f32]) -> Vec<f64> {
    from.iter().map(|x| f64::from(*x)).collect()
}
