//! One square per image, of as many positions as it has patches.

use std::path::Path;
use std::sync::Arc;

use image::RgbImage;

use super::config::LlavaConfig;
use crate::cache::Piece;
use crate::error::{Error, Result};
use crate::media::{Area, ClipProcessor, Prepared, SettingsOf};
use crate::model::images::{ImagePlan, ImageProcessor, Images, SizeOf};

/// CLIP's processor, and what its squares become.
#[derive(Debug)]
struct Square {
    clip: ClipProcessor,
    plan: ImagePlan,
}

impl Images for LlavaConfig {
    fn placeholder(&self) -> u32 {
        self.image_token
    }

    fn placeholder_key(&self) -> &'static str {
        "image_token_index"
    }

    fn processor(&self, settings: &SettingsOf) -> Result<Arc<dyn ImageProcessor>> {
        let side = self.vision.image_size;
        let clip = ClipProcessor::read(settings, side)?;
        let (height, width) = clip.output_size();
        if (height, width) != (side, side) {
            let reason = format!("makes images of {width} x {height}, but the vision tower takes {side} x {side}");
            return Err(Error::ModelFile { path: clip.path().unwrap_or(settings.path()).to_owned(), reason });
        }
        let cells = side / self.vision.patch_size;
        Ok(Arc::new(Square { clip, plan: ImagePlan::whole(Piece::base(cells, cells), self.image_tokens()) }))
    }
}

impl ImageProcessor for Square {
    fn path(&self) -> Option<&Path> {
        self.clip.path()
    }

    fn plan(&self, _: SizeOf<'_>) -> Result<ImagePlan> {
        Ok(self.plan.clone())
    }

    fn prepare(&self, image: &RgbImage) -> Prepared {
        let (width, height) = (image.width() as usize, image.height() as usize);
        Prepared { tiles: vec![self.clip.process_rgb(image)], width, height }
    }

    fn areas(&self, width: usize, height: usize) -> Vec<Area> {
        vec![self.clip.area(width, height)]
    }

    fn bytes(&self, width: usize, height: usize) -> u64 {
        let (rows, columns) = self.clip.output_size();
        // Normalised and as 8-bit samples, and what lies between the two passes of a resize: never longer along a side than picture or result.
        let between = width.max(height).max(rows).max(columns) * rows.max(columns);
        (3 * (5 * rows * columns + between)) as u64
    }
}
