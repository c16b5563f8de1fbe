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
        let heads = input.lane.heads().len();
        let (keys, values) = (input.lane.keys(input.sorted)?, input.lane.values(input.sorted)?);
        let dim = keys.len() / (heads * scores.len()).max(1);
        let votes = scores[..before].to_vec();
        let mean = votes.iter().map(|vote| f64::from(*vote)).sum::<f64>() / before.max(1) as f64;
        let mut mixed = vec![0.0; before];
        for head in 0..heads {
            let Compared { cosines, alike } = compared(&rows(&keys, heads, head, dim));
            let different: Vec<f64> = cosines[..before].iter().map(|cosine| -cosine).collect();
            let norm = |row: &[f32]| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            let norms: Vec<f64> = rows(&values, heads, head, dim)[..before].iter().map(|row| norm(row)).collect();
            let (different, norms) = (rescaled(&different, mean), rescaled(&norms, mean));
            for (((mixed, vote), norm), different) in mixed.iter_mut().zip(&votes).zip(&norms).zip(&different) {
                *mixed += ((1.0 - alike) * (f64::from(*vote) + norm) + alike * different) / heads as f64;
            }
        }
        scores[..before].iter_mut().zip(&mixed).for_each(|(score, mixed)| *score = *mixed as f32);
        Ok(scores)
    }
}

/// The rows of one head of `[entries, heads, dim]`.
fn rows(all: &[f32], heads: usize, head: usize, dim: usize) -> Vec<&[f32]> {
    all.chunks_exact((heads * dim).max(1)).map(|row| &row[head * dim..(head + 1) * dim]).collect()
}

/// Keys of a head beside each other.
struct Compared {
    /// With the mean of all keys of length 1.
    cosines: Vec<f64>,
    /// The mean cosine of two keys, from 0 to 1.
    alike: f64,
}

fn compared(keys: &[&[f32]]) -> Compared {
    let unit = |key: &&[f32]| -> Vec<f64> {
        let length = key.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        key.iter().map(|x| if length > 0.0 { f64::from(*x) / length } else { 0.0 }).collect()
    };
    let units: Vec<Vec<f64>> = keys.iter().map(unit).collect();
    let n = units.len() as f64;
    let mut mean = vec![0.0; units.first().map_or(0, Vec::len)];
    units.iter().for_each(|key| mean.iter_mut().zip(key).for_each(|(mean, x)| *mean += x / n));
    let cosine = |key: &Vec<f64>| key.iter().zip(&mean).map(|(x, mean)| x * mean).sum::<f64>();
    let square: f64 = mean.iter().map(|x| x * x).sum();
    // Of all pairs of different keys, from the length of the mean alone.
    let alike = if n > 1.0 { ((n * square - 1.0) / (n - 1.0)).clamp(0.0, 1.0) } else { 0.0 };
    Compared { cosines: units.iter().map(cosine).collect(), alike }
}

/// Scaled to the range from 0 to 1, and then so that the mean is `mean`.
fn rescaled(numbers: &[f64], mean: f64) -> Vec<f64> {
    let range = |(least, most): (f64, f64), x: &f64| (least.min(*x), most.max(*x));
    let (least, most) = numbers.iter().fold((f64::INFINITY, f64::NEG_INFINITY), range);
    // As in the published code.
    const SMALL: f64 = 1e-8;
    let scaled: Vec<f64> = numbers.iter().map(|x| (x - least) / (most - least + SMALL)).collect();
    let own = scaled.iter().sum::<f64>() / scaled.len().max(1) as f64;
    scaled.iter().map(|x| x * mean / (own + SMALL)).collect()
}
