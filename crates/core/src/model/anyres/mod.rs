//! Pictures of any shape through a tower of squares, for LLaVA-NeXT and LLaVA-OneVision: which tiles a picture becomes, and how their
//! features become one grid again. Liu et al. 2024, LLaVA-NeXT; Li et al. 2024, arXiv 2408.03326.

mod images;
mod rows;
mod sizes;

pub(super) use images::ProcessorClass;
pub(super) use sizes::Sizes;

use super::config::ConfigFile;
use super::info::ImageInfo;
use super::llama::LlamaConfig;
use super::llava::{self, Class, LlavaConfig};
use super::network::{Loaded, Network, Seen};
use super::seeing::{self, Pictured, Seeing};
use crate::backend::{Activations, Backend};
use crate::check::Check;
use crate::error::{Error, Result};
use crate::fields::refuse;
use crate::media::Prepared;
use crate::nn::{Loader, Matrix};

/// The vector behind each row of cells.
const NEWLINE: [&str; 2] = ["image_newline", "model.image_newline"];
/// The names of tensors that belong to no language model.
pub(super) const VISION: &[&str] = &[
    "vision_tower.",
    "model.vision_tower.",
    "multi_modal_projector.",
    "model.multi_modal_projector.",
    "image_newline",
    "model.image_newline",
];

/// A LLaVA whose pictures are cut into tiles.
pub(super) struct AnyresConfig {
    pub llava: LlavaConfig,
    pub sizes: Sizes,
    processor: ProcessorClass,
    /// The sizes of a processor whose file names none.
    usual: Vec<(usize, usize)>,
}

impl AnyresConfig {
    /// `usual` are the sizes of a file that names none, `most` is [`Sizes::most`].
    pub(super) fn parse(
        file: &ConfigFile,
        class: &Class,
        processor: ProcessorClass,
        usual: Vec<(usize, usize)>,
        most: Option<usize>,
    ) -> Result<Self> {
        let llava = LlavaConfig::parse(file, class)?;
        if llava.has_class_token() {
            return Err(file.bad(
                "`vision_feature_select_strategy` is \"full\", but the class token of a CLIP tower has no place in a grid of patches: it must be \
                 \"default\"",
            ));
        }
        let (tile, side) = (llava.vision.image_size, llava.vision.side());
        let root = file.section(None)?;
        let choices = match root.get("image_grid_pinpoints").filter(|value| !value.is_null()) {
            Some(value) => images::choices(value, tile).map_err(|reason| file.bad(reason))?,
            None if usual.iter().all(|(high, wide)| high.is_multiple_of(tile) && wide.is_multiple_of(tile)) => {
                usual.clone()
            }
            None => {
                return Err(file.bad(format!(
                    "has no `image_grid_pinpoints`, and the usual ones are no whole tiles of {tile} pixels"
                )));
            }
        };
        Ok(AnyresConfig { llava, sizes: Sizes { tile, side, choices, most }, processor, usual })
    }
}

impl Pictured for AnyresConfig {
    fn text(&self) -> &LlamaConfig {
        &self.llava.text
    }

    fn image(&self) -> ImageInfo {
        ImageInfo::squares(None, self.llava.vision.image_size, self.llava.vision.patch_size)
    }
}

/// The network of a configuration.
pub(super) fn load<B: Backend>(
    config: AnyresConfig,
    loader: &Loader<'_, B>,
    loaded: Loaded<'_>,
) -> Result<Box<dyn Network<B>>> {
    // Before the long work, so that a folder without them is refused at once.
    llava::require_vision(&config.llava, loader)?;
    loader.checkpoint.find_prefix(&NEWLINE, "")?;
    let vision = |config: &AnyresConfig, loaded: Loaded<'_>| Tiles::load(config, loader, loaded);
    Ok(Box::new(Seeing::load(config, llava::TEXT, llava::HEAD, loader, loaded, vision)?))
}

/// The tower, the projector, and how tiles become a grid.
struct Tiles<B: Backend> {
    squares: llava::Vision<B>,
    backend: B,
    newline: Vec<f32>,
    sizes: Sizes,
}

impl<B: Backend> Tiles<B> {
    fn load(config: &AnyresConfig, loader: &Loader<'_, B>, loaded: Loaded<'_>) -> Result<Self> {
        let squares = llava::Vision::load(&config.llava, loader, loaded)?;
        let hidden = config.llava.text.hidden_size;
        let newline = loader.matrix(loader.checkpoint.find_prefix(&NEWLINE, "")?, &[hidden], 1, hidden)?.to_vec()?;
        Ok(Tiles { squares, backend: loader.backend.clone(), newline, sizes: config.sizes.clone() })
    }
}

impl<B: Backend> seeing::Vision<B> for Tiles<B> {
    fn image_features(&self, image: &Prepared, noting: bool, check: Check<'_>) -> Result<Seen<B>> {
        if noting {
            return Err(refuse(
                "this model sees a picture in several tiles and puts their grids together, so nothing says which of its positions matter before \
                 the language model has seen them; use another method",
            ));
        }
        // One by one: a tile's activations are the largest matrices of all.
        let tiles = image.tiles.iter().map(|tile| Ok(self.squares.square(tile, false, check)?.0));
        Ok(Seen { features: B::Matrix::cat(&tiles.collect::<Result<Vec<_>>>()?)?, behind: Vec::new(), notes: None })
    }

    fn project(&self, features: &Matrix<B>) -> Result<Matrix<B>> {
        self.squares.project(features)
    }

    fn assemble(&self, projected: Matrix<B>, image: &Prepared) -> Result<Matrix<B>> {
        let (cells, hidden) = (self.sizes.side.pow(2), self.newline.len());
        if image.tiles.len() == 1 {
            let newline = self.backend.matrix(self.newline.clone(), 1, hidden)?;
            return B::Matrix::cat(&[projected, newline]);
        }
        let laid = self.sizes.lay(image.width, image.height);
        if projected.rows() != (laid.tiles() + 1) * cells {
            let (rows, tiles) = (projected.rows(), laid.tiles());
            return Err(Error::Internal(format!(
                "{rows} rows for {tiles} tiles of {cells} cells and one that shows all"
            )));
        }
        let rows = rows::assembled(&projected.to_vec()?, &self.newline, &laid, self.sizes.side);
        self.backend.matrix(rows, cells + laid.positions(), hidden)
    }
}
