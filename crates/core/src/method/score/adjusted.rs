use super::{LaneInput, PromptView, Score};
use crate::cache::Entry;
use crate::error::Result;
use crate::method::view::ReadLane;

/// Another score, whose entries count by the size of their values, or whose numbers fade while tokens are generated.
#[derive(Debug)]
pub struct Adjusted {
    pub score: Box<dyn Score>,
    /// Each entry of a prompt counts by the size of its value, over the mean of the lane, so that scores stay comparable with the attention of
    /// generated tokens: what an entry adds to the output of attention is its value times its share.
    ///
    /// Guo et al. 2024, Attention Score is not All You Need for Token Importance Indicator in KV Cache Reduction, arXiv 2406.12335.
    pub values: bool,
    /// The share of a score that is left when a generated token's attention is added.
    pub left: f32,
}

impl Score for Adjusted {
    fn name(&self) -> &'static str {
        self.score.name()
    }

    fn words(&self) -> &'static str {
        self.score.words()
    }

    fn queries(&self, prompt: &PromptView<'_>) -> Option<Vec<f32>> {
        self.score.queries(prompt)
    }

    fn last_queries(&self) -> usize {
        self.score.last_queries()
    }

    fn has_mass(&self) -> bool {
        self.score.has_mass()
    }

    fn accumulates(&self) -> bool {
        self.score.accumulates()
    }

    fn left(&self) -> f32 {
        self.left * self.score.left()
    }

    fn score(&self, input: &LaneInput<'_>) -> Result<Vec<f32>> {
        let mut scores = self.score.score(input)?;
        if !self.values {
            return Ok(scores);
        }
        let heads = input.lane.heads().len();
        let values = input.lane.values(input.sorted)?;
        let dim = values.len() / (heads * input.sorted.len()).max(1);
        let norm = |value: &[f32]| value.iter().map(|x| x * x).sum::<f32>().sqrt();
        let of_entry = |heads: &[f32]| heads.chunks_exact(dim).map(norm).sum::<f32>();
        let sizes: Vec<f32> = values.chunks_exact((heads * dim).max(1)).map(of_entry).collect();
        let mean = sizes.iter().sum::<f32>() / sizes.len().max(1) as f32;
        if mean > 0.0 {
            scores.iter_mut().zip(&sizes).for_each(|(score, size)| *score *= size / mean);
        }
        Ok(scores)
    }

    fn ranks_generated(&self) -> bool {
        self.score.ranks_generated()
    }

    fn fresh(&self, lane: &dyn ReadLane, layer: usize, entry: Entry) -> Result<f32> {
        self.score.fresh(lane, layer, entry)
    }
}
