use super::super::budget::Claim;
use super::rows::{Rows, by_head};
use super::text_first::BEHIND;
use super::{LaneInput, PromptView, Score};
use crate::error::Result;

/// For images the attention from those positions behind the last image that the last one looks at most, over images and these positions alone;
/// for text, which comes before all images, the attention from all positions behind the last image. A lane claims by how much its images get,
/// and by how few of them.
///
/// AirCache (Huang et al. 2025, arXiv 2503.23956).
#[derive(Debug)]
pub struct Elite {
    /// The last queries that may be chosen, and all that count in a prompt without an image.
    pub queries: usize,
    /// The share of the largest attention from which on a position is chosen.
    pub threshold: f32,
}

impl Elite {
    fn asking(&self, prompt: &PromptView<'_>) -> usize {
        match prompt.behind_images().len() {
            0 => self.queries.min(prompt.n),
            behind => behind.min(self.queries),
        }
    }

    /// The mean over the chosen queries of a head; 0 for all but images.
    fn found(&self, rows: &Rows, images: &[bool]) -> Vec<f64> {
        let rows: Vec<&[f32]> = rows.iter().collect();
        let mut found = vec![0.0; images.len()];
        let Some(last) = rows.last() else { return found };
        // The newest entries are those of the queries.
        let own = images.len() - rows.len();
        let most = last[own..].iter().copied().fold(0.0, f32::max);
        let chosen: Vec<usize> = (0..rows.len()).filter(|query| last[own + query] >= self.threshold * most).collect();
        for query in &chosen {
            let row = rows[*query];
            let seen = |(share, is_image): (&f32, &bool)| if *is_image { f64::from(*share) } else { 0.0 };
            let on_images: f64 = row.iter().zip(images).map(seen).sum();
            let on_chosen: f64 = chosen.iter().map(|query| f64::from(row[own + query])).sum();
            let all = (on_images + on_chosen).max(f64::MIN_POSITIVE) * chosen.len() as f64;
            let shares = found.iter_mut().zip(row).zip(images);
            shares.filter(|(_, is_image)| **is_image).for_each(|((sum, share), _)| *sum += f64::from(*share) / all);
        }
        found
    }
}

/// Strength and skewness of the importance of images, and how many other entries there are.
fn claim(found: &[f64], images: &[bool]) -> Claim {
    let of_images: Vec<f64> =
        found.iter().zip(images).filter(|(_, is_image)| **is_image).map(|(number, _)| *number).collect();
    let n = of_images.len() as f64;
    let strength: f64 = of_images.iter().sum();
    let mean = strength / n;
    let moment = |power: i32| of_images.iter().map(|number| (number - mean).powi(power)).sum::<f64>();
    let deviation = (moment(2) / (n - 1.0)).sqrt();
    let skewness = n / ((n - 1.0) * (n - 2.0)) * moment(3) / deviation.powi(3);
    // Too few images for a skewness, or all alike, or most above the mean: no claim from it.
    let skewness = if skewness.is_finite() { skewness.max(0.0) } else { 0.0 };
    Claim { factors: [strength, skewness], before: images.len() - of_images.len() }
}

impl Score for Elite {
    fn name(&self) -> &'static str {
        "elite"
    }

    fn words(&self) -> &'static str {
        "attention from the text that the end of the prompt looks at"
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
        false
    }

    fn score(&self, input: &LaneInput<'_>) -> Result<Vec<f32>> {
        Ok(self.score_and_claim(input)?.0)
    }

    fn score_and_claim(&self, input: &LaneInput<'_>) -> Result<(Vec<f32>, Claim)> {
        let mut scores = input.mean_sums();
        if input.prompt.behind_images().is_empty() {
            return Ok((scores, Claim::default()));
        }
        let images = input.prompt.are_images(input.sorted);
        let heads = by_head(input, self.asking(input.prompt), |rows| self.found(rows, &images))?;
        let mut found = vec![0.0; scores.len()];
        for head in &heads {
            found.iter_mut().zip(head).for_each(|(sum, number)| *sum += number / heads.len() as f64);
        }
        for ((score, number), _) in scores.iter_mut().zip(&found).zip(&images).filter(|(_, is_image)| **is_image) {
            *score = *number as f32 * BEHIND;
        }
        Ok((scores, claim(&found, &images)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_strength_and_skewness() {
        let images = [false, true, true, true, true, false];
        let found = [0.0, 0.1, 0.1, 0.1, 0.5, 0.0];
        let Claim { factors: [strength, skewness], before } = claim(&found, &images);
        // scipy.stats.skew([0.1, 0.1, 0.1, 0.5], bias=False) is 2.
        assert!(
            (strength - 0.8).abs() < 1e-12 && (skewness - 2.0).abs() < 1e-9 && before == 2,
            "{strength} {skewness}"
        );
        assert_eq!(claim(&[0.1; 6], &images).factors[1], 0.0, "all alike");
        assert_eq!(claim(&[0.5, 0.5, 0.5, 0.5, 0.1, 0.0], &images).factors[1], 0.0, "the other way");
        assert_eq!(claim(&[0.5, 0.2], &[true, true]).factors, [0.7, 0.0], "too few");
    }
}
