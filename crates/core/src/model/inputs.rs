//! The rows that come into a network: embeddings, those of images in their places, and those that images add further on.

use super::{Features, Model, Prompt};
use crate::backend::{Activations, Backend};
use crate::cache::Modality;
use crate::error::{Error, Result};
use crate::nn::Matrix;
use crate::sequence::Repeat;

/// Rows on their way into a network.
pub struct Inputs<B: Backend> {
    /// `[n, hidden]`.
    pub rows: Matrix<B>,
    /// Added to the rows behind each of the first layers, `[n, hidden]` each, zeros for all that is no image. None without images,
    /// and for most families. Meng et al. 2024, arXiv 2406.04334.
    pub behind: Vec<Matrix<B>>,
}

impl<B: Backend> Inputs<B> {
    /// Rows of text.
    pub fn text(rows: Matrix<B>) -> Self {
        Inputs { rows, behind: Vec::new() }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.rows()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows `start .. start + len`.
    pub fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        let behind = self.behind.iter().map(|rows| rows.narrow(start, len)).collect::<Result<_>>()?;
        Ok(Inputs { rows: self.rows.narrow(start, len)?, behind })
    }
}

impl<B: Backend> Model<B> {
    /// The positions of the prompt that go on.
    pub(super) fn inputs(&self, prompt: &Prompt, features: &[Features<B>]) -> Result<Inputs<B>> {
        self.require_file()?;
        if features.is_empty() {
            return Ok(Inputs::text(self.network.embed(&prompt.tokens)?));
        }
        // Rows of images come from elsewhere, and the token that stands for them may be none of the table's.
        let vocab = self.network.shape().vocab_size as u32;
        let tokens: Vec<u32> = prompt.tokens.iter().map(|token| if *token < vocab { *token } else { 0 }).collect();
        let x = self.network.embed(&tokens)?;
        let levels = features.iter().map(|image| image.behind().len()).max().unwrap_or(0);
        let behind = (0..levels).map(|level| {
            let zeros = |_, len| self.zeros(len, x.columns());
            with_images(prompt, features, |image| image.behind().get(level), zeros)
        });
        let behind = behind.collect::<Result<_>>()?;
        let text = |start, len| x.narrow(start, len);
        Ok(Inputs { rows: with_images(prompt, features, |image| Some(image.rows()), text)?, behind })
    }

    /// The rows of a prompt and, behind them, those that repeat it. Refuses a prompt for which the model has too few positions.
    pub(super) fn repeated(&self, x: Inputs<B>, prompt: &Prompt, repeat: Repeat, reach: usize) -> Result<Inputs<B>> {
        let (needed, available) = (reach + repeat.rows, self.max_positions());
        if needed > available {
            return Err(Error::ContextOverflow { needed, available, image_tokens: prompt.image_tokens });
        }
        let instruction = self.network.embed(&self.instruction()?)?;
        let twice = |rows: &Matrix<B>, between: Matrix<B>| {
            let again = rows.narrow(repeat.first, rows.rows() - repeat.first)?;
            B::Matrix::cat(&[rows.clone(), between, again])
        };
        let behind = |rows: &Matrix<B>| twice(rows, self.zeros(instruction.rows(), rows.columns())?);
        let behind = x.behind.iter().map(behind).collect::<Result<_>>()?;
        Ok(Inputs { rows: twice(&x.rows, instruction)?, behind })
    }

    fn zeros(&self, rows: usize, columns: usize) -> Result<Matrix<B>> {
        self.backend.matrix(vec![0.0; rows * columns], rows, columns)
    }
}

/// The rows of images, `of` each, in their places, and `text` from a position on, so many rows, where none are.
fn with_images<'f, B: Backend>(
    prompt: &Prompt,
    features: &'f [Features<B>],
    of: impl Fn(&'f Features<B>) -> Option<&'f Matrix<B>>,
    text: impl Fn(usize, usize) -> Result<Matrix<B>>,
) -> Result<Matrix<B>> {
    let mut parts = Vec::new();
    // Positions of each image that earlier pieces took.
    let mut taken = vec![0; features.len()];
    for span in &prompt.spans {
        match span.modality {
            Modality::Image { index, .. } => {
                let image = features
                    .get(index)
                    .ok_or_else(|| Error::Internal(format!("no features for image {index} of {}", features.len())))?;
                let first = taken[index];
                taken[index] += span.len;
                let (from, to) = image.going_on(first, span.len);
                match of(image) {
                    _ if from == to => {}
                    Some(rows) => parts.push(rows.narrow(from, to - from)?),
                    None => parts.push(text(span.start, to - from)?),
                }
            }
            _ => parts.push(text(span.start, span.len)?),
        }
    }
    B::Matrix::cat(&parts)
}
