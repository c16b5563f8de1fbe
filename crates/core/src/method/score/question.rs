use super::pool::{Pooling, pool};
use super::{LaneInput, PromptView, Score};
use crate::cache::Modality;
use crate::error::Result;

/// The attention that an entry has got from the text among the last queries of the prompt: from the question, where an image
/// comes before it.
#[derive(Debug)]
pub struct Question {
    /// The last positions whose text counts. Where all of them are image, they count.
    pub queries: usize,
    pub pool: Pooling,
    /// Entries of a neighbourhood.
    pub size: usize,
    /// First entries that neighbours get nothing of: attention sinks hold most of some layers' mass.
    pub sinks: usize,
}

impl Question {
    fn start(&self, prompt: &PromptView<'_>) -> usize {
        prompt.n - self.queries.min(prompt.n)
    }
}

impl Score for Question {
    fn name(&self) -> &'static str {
        "question"
    }

    fn words(&self) -> &'static str {
        "attention from the text among the last queries of the prompt"
    }

    fn queries(&self, prompt: &PromptView<'_>) -> Option<Vec<f32>> {
        let start = self.start(prompt);
        let mut weights = vec![0.0; prompt.n];
        weights[start..].fill(1.0);
        for span in prompt.spans.iter().filter(|span| matches!(span.modality, Modality::Image { .. })) {
            let end = (span.start + span.len).saturating_sub(prompt.past);
            weights[span.start.saturating_sub(prompt.past)..end].fill(0.0);
        }
        if weights[start..].iter().all(|weight| *weight == 0.0) {
            weights[start..].fill(1.0);
        }
        Some(weights)
    }

    fn has_mass(&self) -> bool {
        true
    }

    fn score(&self, input: &LaneInput<'_>) -> Result<Vec<f32>> {
        let mut scores = input.mean_sums();
        if self.pool != Pooling::None {
            // Queries look at themselves most; that must not leak into what stands before them.
            let asked = input.prompt.past + self.start(input.prompt);
            let before = input.sorted.partition_point(|entry| (entry.position as usize) < asked);
            let joined = self.sinks.min(before)..before;
            let pooled = pool(&scores[joined.clone()], self.pool, self.size);
            scores[joined].copy_from_slice(&pooled);
        }
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Piece, Span};

    fn weights(queries: usize, past: usize, spans: &[(bool, usize)]) -> String {
        let mut start = 0;
        let spans: Vec<Span> = spans
            .iter()
            .map(|(image, len)| {
                start += len;
                let modality =
                    if *image { Modality::Image { index: 0, piece: Piece::base(1, *len) } } else { Modality::Text };
                Span { modality, start: start - len, len: *len }
            })
            .collect();
        let prompt = PromptView { past, n: start - past, spans: &spans, allowance: 0, blocks: false };
        let score = Question { queries, pool: Pooling::None, size: 1, sinks: 0 };
        let weights = score.queries(&prompt).unwrap();
        weights.iter().map(|weight| if *weight == 1.0 { '1' } else { '0' }).collect()
    }

    #[test]
    fn the_question_is_the_text_at_the_end() {
        assert_eq!(weights(3, 0, &[(false, 2), (true, 3), (false, 4)]), "000000111");
        // The window reaches into the image, and does not look over it.
        assert_eq!(weights(6, 0, &[(false, 2), (true, 3), (false, 4)]), "000001111");
        assert_eq!(weights(9, 0, &[(false, 2), (true, 3), (false, 4)]), "110001111");
        assert_eq!(weights(20, 0, &[(false, 5)]), "11111");
        // An image after the question: what little text comes last, or the image itself.
        assert_eq!(weights(4, 0, &[(false, 4), (true, 3), (false, 1)]), "00000001");
        assert_eq!(weights(2, 0, &[(false, 4), (true, 3)]), "0000011");
        assert_eq!(weights(2, 0, &[(true, 3)]), "011");
        // A later turn, with an image before it and one inside.
        assert_eq!(weights(4, 5, &[(false, 2), (true, 3), (false, 2), (true, 2), (false, 1)]), "01001");
        assert_eq!(weights(4, 5, &[(false, 2), (true, 3), (false, 1)]), "1");
    }
}
