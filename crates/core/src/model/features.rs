//! Images as they come to the language model.

use std::sync::Arc;

use super::{Model, Prompt, Seen, in_pool, numbers};
use crate::backend::{Activations, Backend};
use crate::cache::Modality;
use crate::check::Check;
use crate::error::{Error, Result};
use crate::media::Prepared;
use crate::method::pictures::{Chosen, Pictures, Shown};
use crate::nn::Matrix;

/// An image in the language model's space.
#[derive(Clone, Debug)]
pub struct Features<B: Backend> {
    rows: Matrix<B>,
    /// Added to the rows behind each of the first layers; mostly nothing.
    behind: Vec<Matrix<B>>,
    /// Which of the image's positions the rows are, and what has become of the others; None: all.
    chosen: Option<Arc<Chosen>>,
}

impl<B: Backend> Features<B> {
    /// An image of which every position has a row, `[positions, hidden]`.
    pub fn whole(rows: Matrix<B>) -> Self {
        Features { rows, behind: Vec::new(), chosen: None }
    }

    /// Those of a video from those of its groups of frames, one behind the other.
    ///
    /// # Errors
    /// [`Error::Internal`] where there is nothing, or where not all positions go on.
    pub fn joined(parts: Vec<Self>) -> Result<Self> {
        let levels = parts.first().map(|part| part.behind.len());
        let Some(levels) = levels.filter(|_| parts.iter().all(|part| part.chosen.is_none())) else {
            return Err(Error::Internal("a video whose frames do not all go on".into()));
        };
        let cat =
            |of: &dyn Fn(&Self) -> Option<Matrix<B>>| B::Matrix::cat(&parts.iter().filter_map(of).collect::<Vec<_>>());
        let rows = cat(&|part| Some(part.rows.clone()))?;
        let behind = (0..levels).map(|level| cat(&|part| part.behind.get(level).cloned())).collect::<Result<_>>()?;
        Ok(Features { rows, behind, chosen: None })
    }

    /// `[positions that go on, hidden]`.
    pub fn rows(&self) -> &Matrix<B> {
        &self.rows
    }

    /// Added to the rows behind each of the first layers of the network, `[positions that go on, hidden]` each.
    pub fn behind(&self) -> &[Matrix<B>] {
        &self.behind
    }

    /// The fate of the image's positions, where fewer than all may go on.
    pub fn chosen(&self) -> Option<&Chosen> {
        self.chosen.as_deref()
    }

    /// Which rows are those of the image's positions `first .. first + len`: from one up to another.
    pub(super) fn going_on(&self, first: usize, len: usize) -> (usize, usize) {
        match &self.chosen {
            None => (first, first + len),
            Some(chosen) => {
                let before = |end: usize| chosen.rows.partition_point(|row| (*row as usize) < end);
                (before(first), before(first + len))
            }
        }
    }
}

impl<B: Backend> Model<B> {
    /// The features of each image in the language model's space, `[image tokens, hidden]`.
    ///
    /// # Errors
    /// [`Error::Numbers`] when the tower computes NaN or infinity.
    pub fn encode_images(&self, images: &[Prepared], check: Check<'_>) -> Result<Vec<Features<B>>> {
        self.encode_images_for(images, None, check)
    }

    /// As [`Model::encode_images`] for a sequence whose method chooses [`pictures`](Sequence::pictures): only the positions that go on.
    ///
    /// # Errors
    /// [`Error::Option`] when the tower has nothing to choose by.
    pub fn encode_images_for(
        &self,
        images: &[Prepared],
        pictures: Option<&dyn Pictures>,
        check: Check<'_>,
    ) -> Result<Vec<Features<B>>> {
        let one = |image: &Prepared| {
            check()?;
            let Seen { mut features, mut behind, notes } =
                self.network.image_features(image, pictures.is_some(), check)?;
            let chosen = match (pictures, notes) {
                (Some(pictures), Some(notes)) => Some(Arc::new(pictures.choose(&notes))),
                (Some(_), None) => return Err(Error::Internal("a tower has noted nothing of an image".into())),
                (None, _) => None,
            };
            if let Some(chosen) = &chosen {
                for rows in std::iter::once(&mut features).chain(&mut behind) {
                    let width = rows.columns();
                    let gathered = chosen.gather(&rows.to_vec()?, width);
                    *rows = self.backend.matrix(gathered, chosen.rows.len(), width)?;
                }
            }
            let rows = self.network.assemble(self.network.project(&features)?, image)?;
            for rows in std::iter::once(&rows).chain(&behind) {
                numbers::require_finite("features of an image", &rows.to_vec()?, self.info.weights)?;
            }
            Ok(Features { rows, behind, chosen })
        };
        in_pool(|| images.iter().map(one).collect())
    }

    /// The vision tower's selected features before the projector: for tests and analysis.
    pub fn image_features(&self, image: &Prepared) -> Result<Matrix<B>> {
        Ok(self.network.image_features(image, false, &|| Ok(()))?.features)
    }
}

/// The images of a prompt for a method that `chooses` from them; None for another one and without images.
pub(super) fn shown<B: Backend>(prompt: &Prompt, features: &[Features<B>], chooses: bool) -> Result<Option<Shown>> {
    if features.iter().any(|image| image.chosen.is_some() != chooses) {
        return Err(Error::Internal("features of images that were made for another method".into()));
    }
    if !chooses || features.is_empty() {
        return Ok(None);
    }
    let mut shown = Shown::default();
    // Positions of each image that earlier pieces took.
    let mut taken = vec![0; features.len()];
    for span in &prompt.spans {
        let end = span.start + span.len;
        let image = match span.modality {
            Modality::Image { index, .. } => features.get(index).and_then(Features::chosen).map(|image| (index, image)),
            _ => None,
        };
        match image {
            Some((index, chosen)) => {
                let first = taken[index];
                taken[index] += span.len;
                let own = chosen.rows.iter().map(|row| *row as usize).filter(|row| (first..taken[index]).contains(row));
                shown.rows.extend(own.map(|row| (span.start + row - first) as u32));
                shown.attention.extend(chosen.attention.iter().skip(first).take(span.len));
            }
            None => shown.rows.extend(span.start as u32..end as u32),
        }
        shown.attention.resize(end, 0.0);
    }
    Ok(Some(shown))
}
