use super::super::budget::Claim;
use super::rows::{Rows, by_head};
use super::{LaneInput, PromptView, Score};
use crate::error::Result;

/// The attention that an entry has got from the positions behind the last image; without such, from the last queries. A lane claims as much
/// as its attention is spread.
///
/// VL-Cache (Tu et al. 2024, arXiv 2410.23317).
#[derive(Debug)]
pub struct PostVision {
    /// The last queries whose attention is looked at for the claim, and all that count where nothing is behind an image.
    pub queries: usize,
    /// The share of a row's largest probability from which on one counts as attention.
    pub threshold: f32,
}

impl PostVision {
    fn asking(&self, prompt: &PromptView<'_>) -> usize {
        match prompt.behind_images().len() {
            0 => self.queries.min(prompt.n),
            behind => behind,
        }
    }
}

impl Score for PostVision {
    fn name(&self) -> &'static str {
        "post-vision"
    }

    fn words(&self) -> &'static str {
        "attention from the text behind the last image"
    }

    fn queries(&self, prompt: &PromptView<'_>) -> Option<Vec<f32>> {
        let mut weights = vec![0.0; prompt.n];
        weights[prompt.n - self.asking(prompt)..].fill(1.0);
        Some(weights)
    }

    fn last_queries(&self) -> usize {
        self.queries
    }

    fn has_mass(&self) -> bool {
        true
    }

    fn score(&self, input: &LaneInput<'_>) -> Result<Vec<f32>> {
        Ok(input.mean_sums())
    }

    fn score_and_claim(&self, input: &LaneInput<'_>) -> Result<(Vec<f32>, Claim)> {
        let attended = |rows: &Rows| -> [usize; 2] {
            let of = |(row, seen): (&[f32], &(usize, usize))| {
                let row = &row[seen.0..seen.1];
                let most = row.iter().copied().fold(0.0, f32::max);
                row.iter().filter(|share| **share >= self.threshold * most).count()
            };
            let seen: usize = rows.seen.iter().map(|(first, end)| end - first).sum();
            [rows.iter().zip(&rows.seen).map(of).sum(), seen]
        };
        let heads = by_head(input, self.asking(input.prompt).min(self.queries), attended)?;
        let [some, all] = heads.iter().fold([0, 0], |sum, of| [sum[0] + of[0], sum[1] + of[1]]);
        Ok((self.score(input)?, Claim { factors: [some as f64 / all.max(1) as f64, 1.0], before: 0 }))
    }
}
