//! Pictures as one tile that shows all of it and tiles of a size that fits its shape. As transformers' LlavaNextImageProcessorPil and
//! LlavaOnevisionImageProcessorPil.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::RgbImage;
use serde_json::Value;

use super::AnyresConfig;
use super::sizes::{Laid, Sizes};
use crate::cache::{Piece, PieceKind};
use crate::error::{Error, Result};
use crate::media::normalise::{Normalise, Tables};
use crate::media::settings::Settings;
use crate::media::{Area, Canvas, Filter, Prepared, SettingsOf, resize};
use crate::model::images::{ImagePlan, ImageProcessor, Images, PlanPart, SizeOf};

/// Most tiles of a picture, and most sizes that a file may name.
const MOST_TILES: usize = 4096;

/// The processor of a class.
#[derive(Clone, Copy, Debug)]
pub(in crate::model) struct ProcessorClass {
    pub name: &'static str,
    /// Side of a square, in pixels, where the file says nothing.
    pub size: usize,
    /// Side of a tile, likewise; None: as of the square.
    pub crop: Option<usize>,
    /// Whether a picture that is not alone becomes one tile.
    pub squares: bool,
}

/// The (height, width) that a picture may be brought to, by a list of `image_grid_pinpoints`. Gives the reason for which it is not one.
pub(super) fn choices(value: &Value, tile: usize) -> std::result::Result<Vec<(usize, usize)>, String> {
    let side = |value: &Value| {
        let side = value.as_u64().and_then(|side| usize::try_from(side).ok());
        side.filter(|side| *side > 0 && side.is_multiple_of(tile))
    };
    let pair = |value: &Value| match value.as_array().map(Vec::as_slice) {
        Some([high, wide]) => Some((side(high)?, side(wide)?)),
        _ => None,
    };
    let list = value.as_array().and_then(|list| list.iter().map(pair).collect::<Option<Vec<_>>>());
    let tiles = |(high, wide): &(usize, usize)| (high / tile).saturating_mul(wide / tile);
    match list {
        Some(list) if list.is_empty() || list.len() > MOST_TILES => {
            Err(format!("`image_grid_pinpoints` has {} sizes, expected 1 to {MOST_TILES}", list.len()))
        }
        Some(list) => match list.iter().map(tiles).max().filter(|most| *most > MOST_TILES) {
            Some(most) => {
                Err(format!("`image_grid_pinpoints` cuts a picture into {most} tiles, over the limit of {MOST_TILES}"))
            }
            None => Ok(list),
        },
        None => Err(format!(
            "`image_grid_pinpoints` must be a list of [height, width] in whole tiles of {tile} pixels, found {value}"
        )),
    }
}

impl Images for AnyresConfig {
    fn placeholder(&self) -> u32 {
        self.llava.image_token
    }

    fn placeholder_key(&self) -> &'static str {
        "image_token_index"
    }

    fn processor(&self, settings: &SettingsOf) -> Result<Arc<dyn ImageProcessor>> {
        let (path, filter, normalise) = self.settings(settings)?;
        let fill = normalise.mean.map(|mean| (mean * 255.0) as u8);
        let shared = Shared { path, filter, tables: normalise.tables(), sizes: self.sizes.clone() };
        let square = self.processor.squares.then(|| Square { shared: shared.clone(), fill });
        Ok(Arc::new(Tiles { shared, square }))
    }
}

impl AnyresConfig {
    /// The settings, which must make what config.json says; without any, the tower's.
    fn settings(&self, at: &SettingsOf) -> Result<(Option<PathBuf>, Filter, Normalise)> {
        let ProcessorClass { name, size, crop, squares } = self.processor;
        let Some(settings) = at.read()? else { return Ok((None, Filter::Bicubic, Normalise::clip())) };
        settings.class(&[name])?;
        for flag in ["do_convert_rgb", "do_center_crop", "do_pad"] {
            settings.flag(flag, true)?;
        }
        if !settings.flag("do_resize", true)? && squares {
            return Err(settings.fail("`do_resize` is false, but pictures beside others must become one tile".into()));
        }
        let tile = self.sizes.tile;
        for (key, default) in [("size", size), ("crop_size", crop.unwrap_or(tile))] {
            let asked = edges(&settings, key)?.unwrap_or([default; 2]);
            if asked != [tile; 2] {
                let [high, wide] = asked;
                return Err(settings.fail(format!(
                    "makes tiles of {wide} x {high} pixels (`{key}`), but the vision tower takes {tile} x {tile}"
                )));
            }
        }
        let named = match settings.get("image_grid_pinpoints") {
            Some(value) => choices(value, tile).map_err(|reason| settings.fail(reason))?,
            None => self.usual.clone(),
        };
        if named != self.sizes.choices {
            return Err(settings.fail(
                "`image_grid_pinpoints` are not those of config.json: pictures would be cut into other tiles than the model puts together"
                    .into(),
            ));
        }
        let (filter, normalise) = (settings.filter(Filter::Bicubic)?, Normalise::clip().or(&settings)?);
        Ok((Some(settings.path().to_owned()), filter, normalise))
    }
}

/// (height, width) by a number, `shortest_edge`, or `height` and `width`.
fn edges(settings: &Settings, key: &str) -> Result<Option<[usize; 2]>> {
    let Some(value) = settings.get(key) else { return Ok(None) };
    let side = crate::media::settings::side;
    let edges = match value {
        Value::Object(object) => match object.get("shortest_edge").filter(|edge| !edge.is_null()) {
            Some(edge) => side(edge).map(|edge| [edge; 2]),
            None => object.get("height").and_then(side).zip(object.get("width").and_then(side)).map(|(h, w)| [h, w]),
        },
        single => side(single).map(|edge| [edge; 2]),
    };
    let expected = "1 to 4096: a number, {\"shortest_edge\"} or {\"height\", \"width\"}";
    edges.map(Some).ok_or_else(|| settings.wrong(key, expected))
}

/// The parts that both ways of seeing a picture need.
#[derive(Clone, Debug)]
struct Shared {
    path: Option<PathBuf>,
    filter: Filter,
    tables: Tables,
    sizes: Sizes,
}

impl Shared {
    fn base(&self) -> PlanPart {
        let side = self.sizes.side;
        PlanPart::Piece { piece: Piece::base(side, side), tokens: side.pow(2) }
    }
}

/// A tile that shows all of a picture, and the tiles that it is cut into.
#[derive(Debug)]
struct Tiles {
    shared: Shared,
    square: Option<Square>,
}

impl Tiles {
    /// The resized picture on black.
    fn padded(&self, image: &RgbImage, laid: &Laid) -> RgbImage {
        let tile = self.shared.sizes.tile;
        let resized = resize(Canvas::plain(image), laid.resized.0, laid.resized.1, self.shared.filter);
        let (wide, high) = (laid.across * tile, laid.down * tile);
        if laid.resized == (wide, high) {
            return resized;
        }
        let mut padded = RgbImage::new(wide as u32, high as u32);
        image::imageops::replace(&mut padded, &resized, laid.at.0 as i64, laid.at.1 as i64);
        padded
    }
}

impl ImageProcessor for Tiles {
    fn path(&self) -> Option<&Path> {
        self.shared.path.as_deref()
    }

    /// # Errors
    /// [`Error::Image`] of a picture that is so long and thin that nothing would be left of its grid.
    fn plan(&self, size: SizeOf<'_>) -> Result<ImagePlan> {
        let (width, height) = size()?;
        let laid = self.shared.sizes.lay(width, height);
        let (rows, columns) = laid.shown;
        if laid.shown != laid.cut && (rows == 0 || columns == 0) {
            let reason = format!("it has {width} x {height} pixels, which is too long and thin for this model");
            return Err(Error::Image { index: 0, reason });
        }
        let mut parts = vec![self.shared.base()];
        if rows > 0 {
            let kind = PieceKind::Tiles { down: laid.down, across: laid.across };
            parts.push(PlanPart::Piece { piece: Piece { kind, rows, columns }, tokens: laid.positions() });
        }
        Ok(ImagePlan(parts))
    }

    fn prepare(&self, image: &RgbImage) -> Prepared {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let (tile, tables) = (self.shared.sizes.tile, &self.shared.tables);
        let laid = self.shared.sizes.lay(width, height);
        let mut tiles = Vec::with_capacity(1 + laid.tiles());
        let base = resize(Canvas::plain(image), tile, tile, self.shared.filter);
        tiles.push(tables.part(&base, (0, 0), (tile, tile)));
        let padded = self.padded(image, &laid);
        for (row, column) in (0..laid.down).flat_map(|row| (0..laid.across).map(move |column| (row, column))) {
            tiles.push(tables.part(&padded, (column * tile, row * tile), (tile, tile)));
        }
        Prepared { tiles, width, height }
    }

    fn areas(&self, width: usize, height: usize) -> Vec<Area> {
        let laid = self.shared.sizes.lay(width, height);
        let mut areas = vec![Area { x: 0.0, y: 0.0, width: width as f64, height: height as f64 }];
        if laid.shown.0 > 0 {
            let cell = self.shared.sizes.tile as f64 / self.shared.sizes.side as f64;
            // From cells that are not cut off to pixels of the picture; an odd rest of padding reaches beyond it.
            let along = |first: usize, cut: usize, at: usize, resized: usize, size: usize| {
                let scale = size as f64 / resized as f64;
                ((first as f64 * cell - at as f64) * scale, cut as f64 * cell * scale)
            };
            let (y, height) = along(laid.first.0, laid.cut.0, laid.at.1, laid.resized.1, height);
            let (x, width) = along(laid.first.1, laid.cut.1, laid.at.0, laid.resized.0, width);
            areas.push(Area { x, y, width, height });
        }
        areas
    }

    fn bytes(&self, width: usize, height: usize) -> u64 {
        let laid = self.shared.sizes.lay(width, height);
        let area = self.shared.sizes.tile.pow(2);
        // Between the two passes of the larger resize, what comes out of both, the black that the picture lies on, and all tiles.
        let between =
            (laid.resized.0 * height).max(width * laid.resized.1).max(self.shared.sizes.tile * width.max(height));
        let eight = between + laid.resized.0 * laid.resized.1 + (laid.tiles() + 1) * area;
        (3 * (eight + 4 * (laid.tiles() + 1) * area)) as u64
    }

    fn among_others(&self) -> Option<&dyn ImageProcessor> {
        self.square.as_ref().map(|square| square as &dyn ImageProcessor)
    }
}

/// A picture beside others: one tile, padded to a square.
#[derive(Debug)]
struct Square {
    shared: Shared,
    fill: [u8; 3],
}

impl ImageProcessor for Square {
    fn path(&self) -> Option<&Path> {
        self.shared.path.as_deref()
    }

    fn plan(&self, _: SizeOf<'_>) -> Result<ImagePlan> {
        Ok(ImagePlan(vec![self.shared.base(), PlanPart::Piece { piece: Piece::end(), tokens: 1 }]))
    }

    fn prepare(&self, image: &RgbImage) -> Prepared {
        let tile = self.shared.sizes.tile;
        let square = resize(Canvas::square(image, self.fill), tile, tile, self.shared.filter);
        let (width, height) = (image.width() as usize, image.height() as usize);
        Prepared { tiles: vec![self.shared.tables.part(&square, (0, 0), (tile, tile))], width, height }
    }

    fn areas(&self, width: usize, height: usize) -> Vec<Area> {
        let side = width.max(height);
        let (left, top) = ((side - width) / 2, (side - height) / 2);
        let square = Area { x: -(left as f64), y: -(top as f64), width: side as f64, height: side as f64 };
        // Behind it stands what shows nothing.
        vec![square, Area { x: 0.0, y: 0.0, width: 0.0, height: 0.0 }]
    }

    fn bytes(&self, width: usize, height: usize) -> u64 {
        let tile = self.shared.sizes.tile;
        (3 * (5 * tile.pow(2) + tile * width.max(height))) as u64
    }
}
