//! Attention on a GPU: the keys and values of all sequences in one launch, their attention in a few.

use half::f16;
use prefixkv_kernels::codec::{KvCodec, Run};
use prefixkv_kernels::cuda::{
    self, Angles, AppendItem, Buffer, Element, Gather, Gpu, New, Number, Queries, Rows, SliceMut,
};

use super::matrix::{Array, Input, Matrix};
use super::plan::Rotary;
use super::write::write;
use crate::backend::{Activations, Heads, LayerKind};
use crate::cache::Lane;
use crate::device::Cuda;
use crate::error::{Error, Result};
use crate::metrics;
use crate::sequence::{BatchItem, Sequence};

/// Where queries, keys and values of a fused projection are.
fn parts(fused: &Matrix, heads: Heads) -> [Rows<'_, f32>; 3] {
    let at = |head: usize| Rows { data: fused.all(), offset: head * heads.dim, stride: fused.columns() };
    [at(0), at(heads.query), at(heads.query + heads.kv)]
}

fn rotated(gpu: &Gpu, fused: &Matrix, heads: Heads, angles: &Angles) -> Result<Buffer<f32>> {
    let [queries, _, _] = parts(fused, heads);
    let mut out = Buffer::working(gpu, fused.rows() * heads.width())?;
    cuda::rotate(gpu, queries, heads.query, heads.dim, angles, out.all_mut())?;
    Ok(out)
}

/// The queries of a fused projection, to be rotated into `out`.
fn turned<'a>(fused: &'a Matrix, heads: Heads, out: SliceMut<'a, f32>) -> Queries<'a, f32> {
    let [rows, _, _] = parts(fused, heads);
    Queries { rows, heads: heads.query, out }
}

fn new<'a>(fused: &'a Matrix, heads: Heads, angles: &'a Angles) -> New<'a, f32> {
    let [_, keys, values] = parts(fused, heads);
    New { keys, values, rows: fused.rows(), heads: heads.kv, angles: Some(angles) }
}

pub(super) fn prompt(
    cuda: &Cuda,
    fused: &Matrix,
    kind: &LayerKind,
    angles: &Angles,
    sequence: &mut Sequence<Cuda>,
) -> Result<Input> {
    let gpu = &cuda.gpu;
    let (layer, heads, n) = (kind.layer, kind.heads, fused.rows());
    let rotated = if kind.stores() {
        let entries = sequence.reserve(layer)?;
        let mut rotated = Buffer::working(gpu, n * heads.width())?;
        write(gpu, sequence, layer, new(fused, heads, angles), turned(fused, heads, rotated.all_mut()), heads.dim)?;
        sequence.written(layer, &entries)?;
        rotated
    } else {
        rotated(gpu, fused, heads, angles)?
    };
    let queries = Rows { data: rotated.all(), offset: 0, stride: heads.width() };
    let mut out = Buffer::<f32>::working(gpu, n * heads.width())?;

    let weights = sequence.query_weights(layer);
    let lanes = sequence.lanes(layer);
    let (positions, ends) = (kind.positions(lanes), sequence.ends(n));
    let mut views = lanes.iter().map(Lane::runs).collect::<Result<Vec<_>>>()?;
    for (view, positions) in views.iter_mut().zip(&positions) {
        (view.positions, view.ends) = (positions.as_deref(), ends.as_deref());
    }
    let sizes: Vec<usize> = lanes.iter().map(|lane| lane.heads().len() * lane.places()).collect();
    let mut sums = Buffer::<f32>::working(gpu, if weights.is_some() { sizes.iter().sum() } else { 0 })?;
    let _workspace = match &weights {
        Some(_) => Some(sequence.charge_sums(layer)?),
        None => None,
    };
    let gather = weights.as_deref().map(|weights| Gather { weights, sums: cut(sums.all_mut(), &sizes) });
    cuda::prefill(gpu, &kind.params(), queries, n, &views, gather, out.all_mut())?;
    drop(views);
    metrics::PAIRS_RUN.add(kind.pairs(0..n, (n, ends.as_deref()), lanes));
    let sums = match weights {
        Some(_) => {
            let (all, places) = (sums.read()?, lanes.iter().flat_map(|lane| vec![lane.places(); lane.heads().len()]));
            per_part(&all, places)
        }
        None => Vec::new(),
    };
    let wanted = sequence.wanted_queries().min(n);
    if wanted > 0 {
        let queries = rotated.read()?;
        sequence.keep_queries(layer, &kind.params(), &queries[queries.len() - wanted * heads.width()..])?;
    }
    sequence.attended(layer, &sums)?;
    Ok(Input::F32(Matrix::new(out, n, heads.width())))
}

pub(super) fn step(
    cuda: &Cuda,
    fused: &Matrix,
    kind: &LayerKind,
    rotary: &Rotary,
    members: &mut [BatchItem<'_, Cuda>],
) -> Result<Input> {
    let gpu = &cuda.gpu;
    let (rows, columns) = (members.len(), kind.heads.width());
    Ok(match cuda.factors {
        Number::F16 => {
            let data = step_of::<f16>(gpu, fused, kind, rotary, members)?;
            Input::F16(Array { data, rows, columns })
        }
        Number::F32 | Number::Bf16 => {
            let data = step_of::<f32>(gpu, fused, kind, rotary, members)?;
            Input::F32(Matrix::new(data, rows, columns))
        }
    })
}

fn step_of<O: Element>(
    gpu: &Gpu,
    fused: &Matrix,
    kind: &LayerKind,
    rotary: &Rotary,
    members: &mut [BatchItem<'_, Cuda>],
) -> Result<Buffer<O>> {
    let (heads, angles) = (kind.heads, rotary.angles(kind.rope)?);
    rotary.step(gpu, kind, members, |planned, members| {
        let mut queries = if planned.stores {
            let mut queries = Buffer::working(gpu, members.len() * heads.width())?;
            let turned = turned(fused, heads, queries.all_mut());
            planned.step.append(planned.number, new(fused, heads, angles), turned)?;
            planned.written(kind.layer, members);
            queries
        } else {
            rotated(gpu, fused, heads, angles)?
        };
        let mut out = Buffer::<O>::working(gpu, members.len() * heads.width())?;
        planned.step.decode(planned.number, &mut queries, out.all_mut())?;
        Ok(out)
    })
}

pub(super) fn bidirectional(cuda: &Cuda, fused: &Matrix, heads: Heads) -> Result<Buffer<f32>> {
    let (gpu, n) = (&cuda.gpu, fused.rows());
    let [queries, keys, values] = parts(fused, heads);
    let size = n * heads.kv * heads.dim;
    let (mut to_keys, mut to_values) = (Buffer::<f32>::working(gpu, size)?, Buffer::<f32>::working(gpu, size)?);
    let item = AppendItem {
        first_head: 0,
        heads: heads.kv,
        first_row: 0,
        n,
        codec: KvCodec::F32,
        keys: to_keys.all_mut().bytes(),
        values: to_values.all_mut().bytes(),
        capacity: n,
        at: 0,
    };
    let new = New { keys, values, rows: n, heads: heads.kv, angles: None };
    cuda::append(gpu, new, &mut [item], heads.dim)?;
    let run = Run::of_plain(to_keys.all(), to_values.all(), n, n);
    let lane = cuda::Lane::new(heads.kv, vec![run]);
    let mut out = Buffer::<f32>::working(gpu, n * heads.width())?;
    cuda::prefill(gpu, &heads.every(), queries, n, &[lane], None, out.all_mut())?;
    Ok(out)
}

/// The keys and values of all segments in one launch, their attention in one each.
pub(super) fn segmented(
    cuda: &Cuda,
    fused: &Matrix,
    heads: Heads,
    angles: &Angles,
    segments: &[usize],
) -> Result<Buffer<f32>> {
    let (gpu, n, kv) = (&cuda.gpu, fused.rows(), heads.kv * heads.dim);
    if segments.iter().sum::<usize>() != n {
        return Err(Error::Internal(format!("segments of {segments:?} rows for {n}")));
    }
    let (mut to_keys, mut to_values) = (Buffer::<f32>::working(gpu, n * kv)?, Buffer::<f32>::working(gpu, n * kv)?);
    let sizes: Vec<usize> = segments.iter().map(|len| len * kv).collect();
    let each = cut(to_keys.all_mut(), &sizes).into_iter().zip(cut(to_values.all_mut(), &sizes));
    let mut first_row = 0;
    let mut items = Vec::with_capacity(segments.len());
    for (&len, (keys, values)) in segments.iter().zip(each) {
        let (keys, values) = (keys.bytes(), values.bytes());
        let (first_head, codec) = (0, KvCodec::F32);
        items.push(AppendItem {
            first_head,
            heads: heads.kv,
            first_row,
            n: len,
            codec,
            keys,
            values,
            capacity: len,
            at: 0,
        });
        first_row += len;
    }
    let (width, mut first) = (heads.width(), 0);
    let mut rotated = Buffer::working(gpu, n * width)?;
    let queries = turned(fused, heads, rotated.all_mut());
    cuda::append_and_rotate(gpu, new(fused, heads, angles), queries, &mut items, heads.dim)?;
    drop(items);
    let mut out = Buffer::<f32>::working(gpu, n * width)?;
    let rows: Vec<usize> = segments.iter().map(|len| len * width).collect();
    for (&len, to) in segments.iter().zip(cut(out.all_mut(), &rows)) {
        let held = first * kv..(first + len) * kv;
        let run = Run::of_plain(to_keys.slice(held.clone()), to_values.slice(held), len, len);
        let queries = Rows { data: rotated.all(), offset: first * width, stride: width };
        cuda::prefill(gpu, &heads.every(), queries, len, &[cuda::Lane::new(heads.kv, vec![run])], None, to)?;
        first += len;
    }
    Ok(out)
}

/// Parts of so many elements, one behind the other.
fn cut<'a, T>(mut whole: SliceMut<'a, T>, sizes: &[usize]) -> Vec<SliceMut<'a, T>> {
    let mut parts = Vec::with_capacity(sizes.len());
    for size in sizes {
        let (part, left) = whole.split_at(*size);
        parts.push(part);
        whole = left;
    }
    parts
}

fn per_part(all: &[f32], sizes: impl Iterator<Item = usize>) -> Vec<Vec<f32>> {
    let mut at = 0;
    sizes
        .map(|size| {
            at += size;
            all[at - size..at].to_vec()
        })
        .collect()
}
