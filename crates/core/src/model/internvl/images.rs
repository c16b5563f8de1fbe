//! Pictures as a grid of tiles and, behind several, one tile that shows all of the picture. As transformers' GotOcr2ImageProcessorPil under
//! its InternVLProcessor, and as OpenGVLab's code, which has no processor and cuts by config.json.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::RgbImage;
use serde_json::Value;

use super::config::InternVlConfig;
use super::grid::{Cut, Tiling};
use crate::cache::{Piece, PieceKind};
use crate::error::{Error, Result};
use crate::media::normalise::{Normalise, Tables};
use crate::media::settings::{Settings, SettingsOf, side};
use crate::media::{Area, Canvas, Filter, Prepared, resize};
use crate::model::images::{ImagePlan, ImageProcessor, Images, PlanPart, SizeOf};

const KNOWN: [&str; 1] = ["GotOcr2ImageProcessor"];
/// Beside the original code, which reads nothing but means and deviations of these files.
const BESIDE: [&str; 3] = ["CLIPImageProcessor", "CLIPFeatureExtractor", "GotOcr2ImageProcessor"];
/// The class's own values, where the file says nothing.
const TILE: usize = 384;
const TILES: (usize, usize) = (1, 12);
/// Most tiles that a file may ask for.
const MOST_TILES: usize = 1024;

/// Stand before and behind the tiles of a picture.
const MARKS: [&str; 2] = ["<img>", "</img>"];

/// Where it is said how pictures are cut.
#[derive(Debug)]
pub(super) enum Pictures {
    /// In the processor's file.
    Processor,
    /// In config.json.
    Config(Dynamic),
}

/// The cutting that config.json asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dynamic {
    /// Fewest and most tiles.
    pub tiles: (usize, usize),
    pub thumbnail: bool,
}

/// The processor, and how many positions its tiles have.
#[derive(Debug)]
struct Tiles {
    path: Option<PathBuf>,
    tiling: Tiling,
    filter: Filter,
    tables: Tables,
    /// Positions along a side of a tile.
    cells: usize,
}

impl Images for InternVlConfig {
    fn placeholder(&self) -> u32 {
        self.image_token
    }

    fn placeholder_key(&self) -> &'static str {
        "image_token_id"
    }

    fn processor(&self, at: &SettingsOf) -> Result<Arc<dyn ImageProcessor>> {
        let settings = at.read()?;
        let (edge, cells) = (self.tower.encoder.image_size, self.tower.cells());
        let path = settings.as_ref().map(|settings| settings.path().to_owned());
        let refuse = |path: &Path, reason: String| Err(Error::ModelFile { path: path.to_owned(), reason });
        let tiles = match self.pictures {
            Pictures::Processor => {
                let tiles = Tiles::own(settings.as_ref(), cells)?;
                if tiles.tiling.tile != edge {
                    let reason = format!(
                        "makes tiles of {} pixels a side, but the vision tower takes {edge}",
                        tiles.tiling.tile
                    );
                    return refuse(&path.unwrap_or_else(|| at.path().join("preprocessor_config.json")), reason);
                }
                tiles
            }
            Pictures::Config(Dynamic { tiles, thumbnail }) => {
                if tiles.1 > MOST_TILES {
                    let reason = format!("`max_dynamic_patch` is {}, expected not more than {MOST_TILES}", tiles.1);
                    return refuse(&at.path().join("config.json"), reason);
                }
                let (filter, normalise) = beside(settings.as_ref())?;
                Tiles { path, tiling: Tiling::new(edge, tiles, thumbnail), filter, tables: normalise.tables(), cells }
            }
        };
        if let Some(settings) = at.file("processor_config.json")?
            && let Some(length) = settings.get("image_seq_length")
            && length.as_u64() != Some((cells * cells) as u64)
        {
            let expected = format!("{}: what config.json makes of a tile", cells * cells);
            return Err(settings.wrong("image_seq_length", &expected));
        }
        Ok(Arc::new(tiles))
    }
}

/// The filter and the numbers of the file beside the original code.
fn beside(settings: Option<&Settings>) -> Result<(Filter, Normalise)> {
    let normalise = Normalise::imagenet();
    let Some(settings) = settings else { return Ok((Filter::Bicubic, normalise)) };
    settings.class(&BESIDE)?;
    Ok((settings.filter(Filter::Bicubic)?, normalise.or(settings)?))
}

/// A number of tiles.
fn count(settings: &Settings, key: &str, default: usize) -> Result<usize> {
    let Some(value) = settings.get(key) else { return Ok(default) };
    let read = value.as_u64().filter(|count| *count <= MOST_TILES as u64);
    read.map(|count| count as usize).ok_or_else(|| settings.wrong(key, &format!("a whole number up to {MOST_TILES}")))
}

/// The side of a tile, which is written as one number or as two that are equal.
fn tile(settings: &Settings) -> Result<usize> {
    let Some(value) = settings.get("size") else { return Ok(TILE) };
    let sides = match value {
        Value::Object(sides) => [sides.get("height").and_then(side), sides.get("width").and_then(side)],
        one => [side(one), side(one)],
    };
    match sides {
        [Some(height), Some(width)] if height == width => Ok(height),
        _ => Err(settings.wrong("size", "{\"height\", \"width\"} of 1 to 4096, both the same")),
    }
}

impl Tiles {
    /// The settings, or the class's own.
    fn own(settings: Option<&Settings>, cells: usize) -> Result<Self> {
        let clip = Normalise::clip();
        let Some(settings) = settings else {
            let tiling = Tiling::new(TILE, TILES, true);
            return Ok(Tiles { path: None, tiling, filter: Filter::Bicubic, tables: clip.tables(), cells });
        };
        settings.class(&KNOWN)?;
        settings.flag("do_convert_rgb", true)?;
        // InternVLProcessor cuts pictures whatever the file says.
        settings.flag("crop_to_patches", false)?;
        let most = count(settings, "max_patches", TILES.1)?;
        let tiles = if most > 1 { (count(settings, "min_patches", TILES.0)?, most) } else { (1, 1) };
        if !settings.flag("do_resize", true)? && most <= 1 {
            let expected = "true where `max_patches` leaves one tile: the vision tower takes pictures of one size";
            return Err(settings.wrong("do_resize", expected));
        }
        Ok(Tiles {
            path: Some(settings.path().to_owned()),
            tiling: Tiling::new(tile(settings)?, tiles, true),
            filter: settings.filter(Filter::Bicubic)?,
            tables: clip.or(settings)?.tables(),
            cells,
        })
    }

    fn piece(&self, kind: PieceKind) -> PlanPart {
        let piece = Piece { kind, rows: self.cells, columns: self.cells };
        PlanPart::Piece { piece, tokens: self.cells * self.cells }
    }

    /// A picture in so many tiles, resized whatever its proportions.
    fn resize(&self, image: &RgbImage, (columns, rows): (usize, usize)) -> RgbImage {
        let tile = self.tiling.tile;
        resize(Canvas::plain(image), columns * tile, rows * tile, self.filter)
    }
}

/// The places of tiles, row by row.
fn places(Cut { rows, columns, .. }: Cut) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).flat_map(move |row| (0..columns).map(move |column| (row, column)))
}

impl ImageProcessor for Tiles {
    fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    fn plan(&self, size: SizeOf<'_>) -> Result<ImagePlan> {
        let (width, height) = size()?;
        let cut = self.tiling.cut(width, height);
        let [before, behind] = MARKS.map(|mark| PlanPart::Text(mark.into()));
        let mut parts = vec![before];
        if !cut.is_one() {
            parts.extend(places(cut).map(|(row, column)| self.piece(PieceKind::Tile { row, column })));
        }
        if cut.is_one() || cut.thumbnail {
            parts.push(self.piece(PieceKind::Base));
        }
        parts.push(behind);
        Ok(ImagePlan(parts))
    }

    fn prepare(&self, image: &RgbImage) -> Prepared {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let (cut, tile) = (self.tiling.cut(width, height), self.tiling.tile);
        let whole = self.resize(image, (cut.columns, cut.rows));
        let part = |(row, column)| self.tables.part(&whole, (column * tile, row * tile), (tile, tile));
        let mut tiles: Vec<_> = places(cut).map(part).collect();
        drop(whole);
        if cut.thumbnail {
            tiles.push(self.tables.part(&self.resize(image, (1, 1)), (0, 0), (tile, tile)));
        }
        Prepared { tiles, width, height }
    }

    fn areas(&self, width: usize, height: usize) -> Vec<Area> {
        let cut = self.tiling.cut(width, height);
        let (width, height) = (width as f64, height as f64);
        let (across, down) = (width / cut.columns as f64, height / cut.rows as f64);
        let tile = |(row, column): (usize, usize)| Area {
            x: column as f64 * across,
            y: row as f64 * down,
            width: across,
            height: down,
        };
        let all = cut.thumbnail.then_some(Area { x: 0.0, y: 0.0, width, height });
        places(cut).map(tile).chain(all).collect()
    }

    fn bytes(&self, width: usize, height: usize) -> u64 {
        let (cut, tile) = (self.tiling.cut(width, height), self.tiling.tile);
        let (across, down) = (cut.columns * tile, cut.rows * tile);
        // The picture between the two passes of a resize, and the one that comes out; then tiles in f32.
        let resizing = 3 * ((across * height).max(width * down) + across * down);
        (resizing + (4 * cut.tiles() + 1) * 3 * tile * tile) as u64
    }
}
