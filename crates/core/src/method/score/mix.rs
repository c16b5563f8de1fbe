use super::{LaneInput, PromptView, Score};
use crate::error::Result;

/// SnapKV's votes and the norm of the value, mixed with how little the key resembles the others: the more alike a head's keys are, the more that
/// counts. All three have the scale of the votes, so sums mean something, and the attention of later tokens can be added.
///
/// MixKV (Liu et al. 2025, arXiv 2510.20707).
#[derive(Debug)]
pub struct Mix(pub super::Window);

impl Score for Mix {
    fn name(&self) -> &'static str {
        "mix"
    }

    fn words(&self) -> &'static str {
        "attention from the last queries, size of the value and difference of the key"
    }

    fn queries(&self, prompt: &PromptView<'_>) -> Option<Vec<f32>> {
        self.0.queries(prompt)
    }

    fn has_mass(&self) -> bool {
        true
    }

    fn score(&self, input: &LaneInput<'_>) -> Result<Vec<f32>> {
        let mut scores = self.0.score(input)?;
        let before = scores.len() - self.0.of(input.prompt).min(scores.len());
        if before == 0 {
            return Ok(scores);
        }
        let heads = input.lane.heads().len();
        let means = means(input, heads)?;
        // The mean cosine of two different keys, from the length of the mean alone.
        let n = scores.len() as f64;
        let alike: Vec<f64> = means
            .chunks(means.len() / heads)
            .map(|mean| mean.iter().map(|x| x * x).sum::<f64>())
            .map(|square| if n > 1.0 { ((n * square - 1.0) / (n - 1.0)).clamp(0.0, 1.0) } else { 0.0 })
            .collect();
        let (different, norms) = measured(input, heads, before, &means)?;
        let mean = scores[..before].iter().map(|vote| f64::from(*vote)).sum::<f64>() / before as f64;
        let scale = |all: &[f32]| all.chunks(before).map(|of| Scale::to(mean, of)).collect::<Vec<_>>();
        let (of_different, of_norms) = (scale(&different), scale(&norms));
        for (entry, score) in scores[..before].iter_mut().enumerate() {
            let vote = f64::from(*score);
            let mixed = (0..heads).map(|head| {
                let at = head * before + entry;
                let important = vote + of_norms[head].of(norms[at]);
                (1.0 - alike[head]) * important + alike[head] * of_different[head].of(different[at])
            });
            *score = (mixed.sum::<f64>() / heads as f64) as f32;
        }
        Ok(scores)
    }
}

/// The factor that gives a key length 1.
fn unit(key: &[f32]) -> f64 {
    let length = key.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 { 1.0 / length } else { 0.0 }
}

/// The mean of all keys of length 1, head by head.
fn means(input: &LaneInput<'_>, heads: usize) -> Result<Vec<f64>> {
    let mut means = Vec::new();
    let n = input.sorted.len() as f64;
    for entries in input.sorted.chunks(input.lane.at_once()) {
        let keys = input.lane.keys(entries)?;
        let width = keys.len() / entries.len();
        means.resize(width, 0.0);
        for row in keys.chunks_exact(width) {
            for (key, mean) in row.chunks_exact(width / heads).zip(means.chunks_exact_mut(width / heads)) {
                let unit = unit(key);
                mean.iter_mut().zip(key).for_each(|(mean, x)| *mean += f64::from(*x) * unit / n);
            }
        }
    }
    Ok(means)
}

/// How little the keys of the first entries are like the mean key, from -1 to 1, and the norms of their values, each `[heads, before]`.
fn measured(input: &LaneInput<'_>, heads: usize, before: usize, means: &[f64]) -> Result<(Vec<f32>, Vec<f32>)> {
    let (mut different, mut norms) = (vec![0.0; heads * before], vec![0.0; heads * before]);
    let dim = means.len() / heads;
    // They are read from the cache, where they may be encoded or on a device.
    let together = input.lane.at_once();
    for (block, entries) in input.sorted[..before].chunks(together).enumerate() {
        for (row, keys) in input.lane.keys(entries)?.chunks_exact(means.len()).enumerate() {
            for (head, (key, mean)) in keys.chunks_exact(dim).zip(means.chunks_exact(dim)).enumerate() {
                let cosine = key.iter().zip(mean).map(|(x, mean)| f64::from(*x) * mean).sum::<f64>() * unit(key);
                different[head * before + block * together + row] = -cosine as f32;
            }
        }
        for (row, values) in input.lane.values(entries)?.chunks_exact(means.len()).enumerate() {
            for (head, value) in values.chunks_exact(dim).enumerate() {
                let square: f64 = value.iter().map(|x| f64::from(*x).powi(2)).sum();
                norms[head * before + block * together + row] = square.sqrt() as f32;
            }
        }
    }
    Ok((different, norms))
}

/// Brings numbers to the range from 0 to 1, and then to another mean.
struct Scale {
    least: f64,
    by: f64,
}

impl Scale {
    fn to(mean: f64, numbers: &[f32]) -> Scale {
        // As in the published code.
        const SMALL: f64 = 1e-8;
        let range = |(least, most): (f64, f64), x: &f32| (least.min(f64::from(*x)), most.max(f64::from(*x)));
        let (least, most) = numbers.iter().fold((f64::INFINITY, f64::NEG_INFINITY), range);
        let width = most - least + SMALL;
        let own = numbers.iter().map(|x| (f64::from(*x) - least) / width).sum::<f64>() / numbers.len() as f64;
        Scale { least, by: mean / (own + SMALL) / width }
    }

    fn of(&self, number: f32) -> f64 {
        (f64::from(number) - self.least) * self.by
    }
}
