//! Slow, readable twins of the kernels, in f64. The tests hold the fast versions against these.

use crate::attention::{AnyRun, LaneView, Mask};
use crate::element::Element;

/// The keys and values of one head of a lane as plain rows, `[len][dim]`.
fn entries(lane: &LaneView<'_>, head: usize, dim: usize) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for run in &lane.runs {
        for entry in 0..run.len() {
            let (key, value): (Vec<f64>, Vec<f64>) = match run {
                AnyRun::F32(run) => {
                    let at = (head * run.capacity + entry) * dim;
                    (widen(&run.keys[at..at + dim]), widen(&run.values[at..at + dim]))
                }
                AnyRun::F16(run) => {
                    let at = (head * run.capacity + entry) * dim;
                    (widen(&run.keys[at..at + dim]), widen(&run.values[at..at + dim]))
                }
            };
            keys.push(key);
            values.push(value);
        }
    }
    (keys, values)
}

fn widen<T: Element>(slice: &[T]) -> Vec<f64> {
    slice.iter().map(|x| f64::from(x.widen())).collect()
}

/// softmax(scale * q K^T) V, head by head and query by query. `queries` is `[n, query_heads, dim]`, and so is the result.
pub fn attention(
    queries: &[f32],
    n: usize,
    query_heads: usize,
    dim: usize,
    lanes: &[LaneView<'_>],
    scale: f32,
    mask: Mask,
) -> Vec<f32> {
    let kv_heads: usize = lanes.iter().map(|lane| lane.heads).sum();
    let group = query_heads / kv_heads;
    let mut out = vec![0.0; n * query_heads * dim];
    let mut kv_head = 0;
    for lane in lanes {
        for lane_head in 0..lane.heads {
            let (keys, values) = entries(lane, lane_head, dim);
            for query_head in kv_head * group..(kv_head + 1) * group {
                for i in 0..n {
                    let at = (i * query_heads + query_head) * dim;
                    let query = &queries[at..at + dim];
                    let visible = match mask {
                        Mask::Causal => keys.len() - n + i + 1,
                        Mask::None => keys.len(),
                    };
                    let scores: Vec<f64> = keys[..visible]
                        .iter()
                        .map(|key| {
                            f64::from(scale) * query.iter().zip(key).map(|(q, k)| f64::from(*q) * k).sum::<f64>()
                        })
                        .collect();
                    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let total: f64 = scores.iter().map(|score| (score - max).exp()).sum();
                    for j in 0..dim {
                        let mixed: f64 = scores.iter().zip(&values).map(|(s, v)| (s - max).exp() / total * v[j]).sum();
                        out[at + j] = mixed as f32;
                    }
                }
            }
            kv_head += 1;
        }
    }
    out
}
