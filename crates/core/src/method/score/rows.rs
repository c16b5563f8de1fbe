//! Attention of a prompt's last queries, row by row: for scores that need more of it than its sums.

use std::ops::Range;

use prefixkv_kernels::attention::AttentionParams;
use prefixkv_kernels::simd;
use rayon::prelude::*;

use super::LaneInput;
use crate::error::{Error, Result};

/// The probabilities of one query head: a row per query over all entries of the lane, 0 where the query sees none.
pub(super) struct Rows {
    pub(super) entries: usize,
    probabilities: Vec<f32>,
    /// The first entry that each query sees, and the one behind its last.
    pub(super) seen: Vec<(usize, usize)>,
}

impl Rows {
    pub(super) fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.probabilities.chunks_exact(self.entries.max(1))
    }
}

/// The queries of a prompt at work on a lane.
struct Asked<'a> {
    params: AttentionParams,
    /// The query heads of the lane, and the KV heads.
    heads: Range<usize>,
    own: Range<usize>,
    rows: &'a [f32],
    /// `[KV heads, entries, dim]`.
    keys: Vec<f32>,
    entries: usize,
    /// The last queries that count, of those that were kept.
    count: usize,
    kept: usize,
    seen: Vec<(usize, usize)>,
}

impl<'a> Asked<'a> {
    fn new(input: &LaneInput<'a>, count: usize) -> Result<Asked<'a>> {
        let missing = || Error::Internal("a score that looks at queries got none".into());
        let params = input.queries.params.ok_or_else(missing)?;
        let kept = input.queries.rows.len() / (params.query_heads * params.dim);
        let count = count.min(kept);
        let next = input.prompt.past + input.prompt.n;
        let seen = |position: usize| {
            let before = |position: u32| input.sorted.partition_point(|entry| entry.position < position);
            (before(params.since(position as u32)), before(input.prompt.block(position).end as u32))
        };
        let seen = (next - count..next).map(seen).collect();
        let (own, group) = (input.lane.heads(), params.group());
        let heads = own.start * group..own.end * group;
        let (rows, entries) = (&input.queries.rows[..], input.sorted.len());
        let keys = heads_apart(&input.lane.keys(input.sorted)?, own.len(), params.dim);
        Ok(Asked { params, heads, own, rows, keys, entries, count, kept, seen })
    }

    /// The probabilities of a query in a query head, into a row of zeros.
    fn attend(&self, query: usize, head: usize, row: &mut [f32]) {
        let dim = self.params.dim;
        let own = head / self.params.group() - self.own.start;
        let at = ((self.kept - self.count + query) * self.params.query_heads + head) * dim;
        let asked = &self.rows[at..at + dim];
        let (first, end) = self.seen[query];
        let keys = &self.keys[own * self.entries * dim..];
        attend(&self.params, asked, &keys[first * dim..end * dim], &mut row[first..end]);
    }
}

/// Shows the rows of each query head of a lane, of the last `count` queries that were kept, to `of`: attention as it was, computed anew from
/// queries and keys. Takes `count` x entries numbers for each thread.
pub(super) fn by_head<T: Send>(input: &LaneInput<'_>, count: usize, of: impl Fn(&Rows) -> T + Sync) -> Result<Vec<T>> {
    let asked = Asked::new(input, count)?;
    let entries = input.sorted.len();
    let rows = |head: usize| {
        let mut probabilities = vec![0.0; asked.count * entries];
        for (query, row) in probabilities.chunks_exact_mut(entries.max(1)).enumerate() {
            asked.attend(query, head, row);
        }
        of(&Rows { entries, probabilities, seen: asked.seen.clone() })
    };
    Ok(asked.heads.clone().into_par_iter().map(rows).collect())
}

/// As [`by_head`], the mean over all query heads of the lane.
pub(super) fn mean(input: &LaneInput<'_>, count: usize) -> Result<Rows> {
    let asked = Asked::new(input, count)?;
    let entries = input.sorted.len();
    let heads = asked.heads.clone();
    let row = |(query, mean): (usize, &mut [f32])| {
        let mut row = vec![0.0; entries];
        for head in heads.clone() {
            asked.attend(query, head, &mut row);
            mean.iter_mut().zip(&row).for_each(|(mean, share)| *mean += share / heads.len() as f32);
        }
    };
    let mut probabilities = vec![0.0; asked.count * entries];
    probabilities.par_chunks_exact_mut(entries.max(1)).enumerate().for_each(row);
    Ok(Rows { entries, probabilities, seen: asked.seen })
}

/// The probabilities of a query over some keys, `[entries, dim]`, in `row`.
pub(crate) fn attend(params: &AttentionParams, query: &[f32], keys: &[f32], row: &mut [f32]) {
    simd::scores(query, params.dim, keys, params.scale, row, row.len());
    if let Some(cap) = params.softcap {
        simd::softcap(row, cap);
    }
    let (most, total) = simd::softmax(row, &[]);
    // A score that has run over is none, and is not to look like one.
    let total = if most.is_finite() { total } else { f32::NAN };
    row.iter_mut().for_each(|share| *share /= total);
}

/// `[entries, heads, dim]` as `[heads, entries, dim]`.
pub(crate) fn heads_apart(rows: &[f32], heads: usize, dim: usize) -> Vec<f32> {
    let entries = rows.chunks_exact(heads * dim);
    (0..heads)
        .flat_map(|head| entries.clone().flat_map(move |row| &row[head * dim..(head + 1) * dim]))
        .copied()
        .collect()
}

/// Sums of eight lanes, so that it is computed several numbers at a time.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    let mut sums = [0.0f32; 8];
    for (a, b) in a.zip(b) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    rest + sums.iter().sum::<f32>()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::super::{PromptView, Score, Window};
    use super::*;
    use crate::backend::Backend;
    use crate::device::Cpu;
    use crate::method::budget::Uniform;
    use crate::method::guard::{Protected, Recent};
    use crate::method::keep::Keep;
    use crate::method::score::Pooling;
    use crate::method::{Chooser, Eviction, Lanes, Method, Positions, Recipe};
    use crate::model::{Features, LoadOptions, Model};

    const ASKED: usize = 7;

    /// Gathers the sums of attention and computes them anew, and keeps how far they are apart.
    #[derive(Debug)]
    struct Both(Arc<std::sync::Mutex<(usize, f32)>>);

    impl Score for Both {
        fn name(&self) -> &'static str {
            "both"
        }

        fn words(&self) -> &'static str {
            "two ways"
        }

        fn queries(&self, prompt: &PromptView<'_>) -> Option<Vec<f32>> {
            Window { queries: ASKED, kept: false, pool: Pooling::None, size: 1 }.queries(prompt)
        }

        fn last_queries(&self) -> usize {
            ASKED + 2
        }

        fn has_mass(&self) -> bool {
            true
        }

        fn score(&self, input: &LaneInput<'_>) -> Result<Vec<f32>> {
            let gathered = input.mean_sums();
            let column = |rows: &Rows| -> Vec<f32> {
                let mut sums = vec![0.0; gathered.len()];
                rows.iter().for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, share)| *sum += share));
                sums
            };
            let heads = by_head(input, ASKED, column)?;
            let together = column(&mean(input, ASKED)?);
            let mut seen = self.0.lock().unwrap();
            for (entry, gathered) in gathered.iter().enumerate() {
                let anew = heads.iter().map(|sums| sums[entry]).sum::<f32>() / heads.len() as f32;
                seen.0 += 1;
                seen.1 = seen.1.max((anew - gathered).abs()).max((together[entry] - gathered).abs());
            }
            Ok(gathered)
        }
    }

    /// Grouped heads, windows, normalised heads, layers without rotation, biases, scales and caps, and positions that see each other; whole prompts and
    /// pieces; one lane for all heads and one each.
    #[test]
    fn rows_add_up_to_the_sums_that_attention_gathers() {
        for fixture in [
            "llama-planted",
            "mistral-window",
            "ministral-types",
            "qwen3-norms",
            "smollm3-nope",
            "qwen2-mixed",
            "phi3-long",
            "gemma2-caps",
            "gemma3-local",
            "gemma3-vision",
        ] {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/fixtures").join(fixture);
            let model = Model::load(&LoadOptions::new(dir), &mut |_| Ok(())).expect("loads");
            for (lanes, pieces) in [(Lanes::PerLayer, false), (Lanes::PerHead, false), (Lanes::PerHead, true)] {
                let seen = Arc::default();
                let recipe = Recipe {
                    score: Box::new(Both(Arc::clone(&seen))),
                    budget: Box::new(Uniform),
                    protected: Protected { sinks: 1, recent: Recent::Entries(1), text: false },
                    eviction: Eviction::Never,
                    lanes,
                    positions: Positions::True,
                };
                let chooser = Chooser::Recipe { keep: Keep::Share(0.5), recipe: Arc::new(recipe) };
                let method = Method::new("both", chooser);
                let mut sequence = model.new_sequence_with(Some(Arc::new(method)), false).expect("a sequence");
                let mut tokens: Vec<u32> = (0..40).map(|i| 20 + i * 7 % 61).collect();
                let mut features = Vec::new();
                if let Some(placeholder) = model.placeholder() {
                    // The queries are of the second image, but for two.
                    (tokens[5], tokens[37]) = (placeholder, placeholder);
                    let width = model.info().hidden_size;
                    let rows = (0..16 * width).map(|i| (i * 7 % 31) as f32 / 15.0 - 1.0).collect();
                    features = vec![Features::whole(Cpu.matrix(rows, 16, width).expect("rows")); 2];
                }
                let prompt = model.expand(&tokens, features.len()).expect("a prompt");
                if pieces {
                    let mut prefill = model.begin_prefill(&prompt, &features, &mut sequence, 16).expect("begins");
                    while model.prefill_piece(&mut prefill, &mut sequence, &|| Ok(())).expect("reads").is_none() {}
                } else {
                    model.prefill(&prompt, &features, &mut sequence, &|| Ok(())).expect("reads");
                }
                let (entries, apart) = *seen.lock().unwrap();
                assert!(entries >= 40, "{fixture}: {entries} entries were compared");
                assert!(apart < 1e-5, "{fixture}, {lanes:?}, pieces {pieces}: {apart}");
            }
        }
    }
}
