use super::super::budget::Claim;
use super::text_first::BEHIND;
use super::{LaneInput, PromptView, Score, Text, rows};
use crate::error::Result;

/// For text the attention from all text; for images the attention from the text behind them, each query counting as much as later text looks at
/// it. Images come behind all text, and a layer claims as much as its text looks at images.
///
/// TGV-KV (arXiv 2606.03075).
#[derive(Debug)]
pub struct TextWeighted {
    /// The last queries that may count for images.
    pub queries: usize,
}

impl Score for TextWeighted {
    fn name(&self) -> &'static str {
        "text-weighted"
    }

    fn words(&self) -> &'static str {
        "attention from text, weighted by the attention that it gets itself"
    }

    fn queries(&self, prompt: &PromptView<'_>) -> Option<Vec<f32>> {
        Text.queries(prompt)
    }

    fn last_queries(&self) -> usize {
        self.queries
    }

    fn has_mass(&self) -> bool {
        false
    }

    fn score(&self, input: &LaneInput<'_>) -> Result<Vec<f32>> {
        Ok(self.score_and_claim(input)?.0)
    }

    fn score_and_claim(&self, input: &LaneInput<'_>) -> Result<(Vec<f32>, Claim)> {
        let mut scores = Text.score(input)?;
        let asking = input.prompt.behind_images();
        if asking.is_empty() {
            return Ok((scores, Claim::default()));
        }
        let images = input.prompt.are_images(input.sorted);
        let rows = rows::mean(input, asking.len().min(self.queries))?;
        let rows: Vec<&[f32]> = rows.iter().collect();
        let first = input.sorted.len() - rows.len();
        let weight = |query: usize| {
            let looks: f64 = rows[query..].iter().map(|row| f64::from(row[first + query])).sum();
            looks / (rows.len() - query) as f64
        };
        let weights: Vec<f64> = (0..rows.len()).map(weight).collect();
        let mut claim = 0.0;
        for (at, score) in scores.iter_mut().enumerate().filter(|(at, _)| images[*at]) {
            claim += rows.iter().map(|row| f64::from(row[at])).sum::<f64>();
            let weighted: f64 = rows.iter().zip(&weights).map(|(row, weight)| f64::from(row[at]) * weight).sum();
            *score = weighted as f32 * BEHIND;
        }
        Ok((scores, Claim { factors: [claim, 1.0], before: 0 }))
    }
}
