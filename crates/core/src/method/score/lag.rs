use super::{LaneInput, PromptView, Score};
use crate::error::Result;

/// How much keys and values stand out from those of the next part of the prompt.
///
/// LagKV (Liang et al. 2025, arXiv 2504.04704), ranked part by part as in kvpress: every part keeps the same share.
#[derive(Debug)]
pub struct Lag {
    /// Entries of a part.
    pub size: usize,
    /// First entries, which belong to no part.
    pub sinks: usize,
}

impl Score for Lag {
    fn name(&self) -> &'static str {
        "lag"
    }

    fn words(&self) -> &'static str {
        "how far key and value stand out from the next part"
    }

    fn queries(&self, _: &PromptView<'_>) -> Option<Vec<f32>> {
        None
    }

    fn has_mass(&self) -> bool {
        false
    }

    fn score(&self, input: &LaneInput<'_>) -> Result<Vec<f32>> {
        let entries = input.sorted.len();
        let parts = entries.saturating_sub(self.sinks) / self.size;
        if parts < 2 {
            // Nothing to compare with: the latest are the best.
            let sinks = self.sinks.min(entries);
            let later = (sinks..entries).map(|rank| (rank - sinks) as f32 / (entries - sinks) as f32);
            return Ok(std::iter::repeat_n(1.0, sinks).chain(later).collect());
        }
        let mut scores = vec![1.0; entries];
        let heads = input.lane.heads().len();
        let compared = &input.sorted[self.sinks..self.sinks + parts * self.size];
        let (keys, values) = (input.lane.keys(compared)?, input.lane.values(compared)?);
        let width = keys.len() / compared.len();
        let part = self.size * width;
        for (index, scores) in scores[self.sinks..].chunks_exact_mut(self.size).take(parts - 1).enumerate() {
            let of = |rows: &[f32]| outliers(&rows[index * part..(index + 2) * part], self.size, heads, width / heads);
            let (keys, values) = (of(&keys), of(&values));
            let both: Vec<f64> = keys.iter().zip(&values).map(|(key, value)| (key + value) / 2.0).collect();
            let mut order: Vec<usize> = (0..self.size).collect();
            order.sort_by(|a, b| both[*a].total_cmp(&both[*b]).then(a.cmp(b)));
            order.iter().enumerate().for_each(|(rank, at)| scores[*at] = rank as f32 / self.size as f32);
        }
        Ok(scores)
    }
}

/// For each row of the first of two parts the spread of its channels, scaled to the range that each has in the second, as a share of the
/// part's (a softmax); the mean over the heads.
fn outliers(rows: &[f32], size: usize, heads: usize, dim: usize) -> Vec<f64> {
    let width = heads * dim;
    let (own, next) = rows.split_at(size * width);
    let mut shares = vec![0.0; size];
    for head in 0..heads {
        let channel = |rows: &[f32], row: usize, c: usize| f64::from(rows[row * width + head * dim + c]);
        let range = |c: usize| {
            let of = (0..size).map(|row| channel(next, row, c));
            of.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), x| (least.min(x), most.max(x)))
        };
        let ranges: Vec<(f64, f64)> = (0..dim).map(range).collect();
        let spread = |row: usize| {
            let scaled = |c: usize| {
                let (least, most) = ranges[c];
                // A channel without a range says nothing.
                if most > least { (channel(own, row, c) - least) / (most - least) } else { 0.0 }
            };
            let mean = (0..dim).map(scaled).sum::<f64>() / dim as f64;
            let squares: f64 = (0..dim).map(|c| (scaled(c) - mean).powi(2)).sum();
            (squares / (dim - 1).max(1) as f64).sqrt()
        };
        let spreads: Vec<f64> = (0..size).map(spread).collect();
        let most = spreads.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = spreads.iter().map(|spread| (spread - most).exp()).sum();
        shares.iter_mut().zip(&spreads).for_each(|(share, spread)| *share += (spread - most).exp() / total);
    }
    shares.iter().map(|share| share / heads as f64).collect()
}
