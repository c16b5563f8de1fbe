//! Pictures as a grid of tiles and, last, one tile that shows all of it. As transformers' Idefics3ImageProcessorPil and
//! SmolVLMImageProcessorPil, which are the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::RgbImage;
use serde_json::Value;

use super::config::Idefics3Config;
use super::tiling::{Cut, Target, Tiling};
use super::videos::{Films, MARK};
use crate::cache::{Piece, PieceKind};
use crate::error::{Error, Result};
use crate::media::normalise::{Normalise, Tables};
use crate::media::settings::{Settings, side};
use crate::media::{Area, Canvas, Filter, Prepared, SettingsOf, resize};
use crate::model::images::{ImagePlan, ImageProcessor, Images, PlanPart, SizeOf};
use crate::model::videos::{VideoMark, VideoProcessor};

const KNOWN: [&str; 2] = ["Idefics3ImageProcessor", "SmolVLMImageProcessor"];
/// The sizes that the classes assume when the file says nothing.
const EDGE: usize = 4 * TILE;
const TILE: usize = 364;
/// Longest edge that a file may ask for; what is over 4096 is brought to that.
const MOST_EDGE: u64 = 1 << 16;
/// Most tiles of a picture.
const MOST_TILES: usize = 4096;

/// Stands on both sides of every tile.
pub(super) const FRAME: &str = "<fake_token_around_image>";
pub(super) const WHOLE: &str = "<global-img>";

/// The processor, and how many positions its tiles have.
#[derive(Debug)]
struct Tiles {
    path: Option<PathBuf>,
    tiling: Tiling,
    filter: Filter,
    tables: Tables,
    /// Positions along a side of a tile.
    cells: usize,
    /// None of a model that was made before there were videos.
    videos: Option<Films>,
}

impl Images for Idefics3Config {
    fn placeholder(&self) -> u32 {
        self.image_token
    }

    fn placeholder_key(&self) -> &'static str {
        "image_token_id"
    }

    fn processor(&self, at: &SettingsOf) -> Result<Arc<dyn ImageProcessor>> {
        let cells = self.cells();
        let settings = at.read()?;
        let mut tiles = Tiles::read(settings.as_ref(), cells)?;
        let refuse = |reason: String| {
            let path = tiles.path.clone().unwrap_or_else(|| at.path().join("preprocessor_config.json"));
            Err(Error::ModelFile { path, reason })
        };
        let (tile, patch, side) = (tiles.tiling.tile, self.vision.patch_size, self.vision.side());
        if tile / patch != side {
            let image = self.vision.image_size;
            return refuse(format!("makes tiles of {tile} pixels a side, but the vision tower takes {image}"));
        }
        if let Some(most) = tiles.tiling.most_tiles().filter(|most| *most > MOST_TILES) {
            return refuse(format!("cuts a picture into up to {most} tiles, over the limit of {MOST_TILES}"));
        }
        if let Some(settings) = at.file("processor_config.json")?
            && let Some(length) = settings.get("image_seq_len")
            && length.as_u64() != Some((cells * cells) as u64)
        {
            let expected = format!("{}: what config.json makes of a tile", cells * cells);
            return Err(settings.wrong("image_seq_len", &expected));
        }
        if self.has_videos && settings.is_some() {
            tiles.videos = Some(Films::read(at, cells, (side, patch))?);
        }
        Ok(Arc::new(tiles))
    }

    fn video_mark(&self) -> Option<VideoMark> {
        self.has_videos.then_some(MARK)
    }
}

impl Tiles {
    /// The settings, or the class's own.
    fn read(settings: Option<&Settings>, cells: usize) -> Result<Self> {
        let half = Normalise::by([0.5; 3], [0.5; 3]);
        let Some(settings) = settings else {
            let tiling = Tiling { target: Some(Target::LongestEdge(EDGE)), tile: TILE, split: true };
            return Ok(Tiles {
                path: None,
                tiling,
                filter: Filter::Lanczos,
                tables: half.tables(),
                cells,
                videos: None,
            });
        };
        settings.class(&KNOWN)?;
        settings.flag("do_convert_rgb", true)?;
        settings.flag("do_pad", true)?;
        let target = target(settings)?;
        let tiling = Tiling {
            target: settings.flag("do_resize", true)?.then_some(target),
            tile: tile(settings)?,
            split: settings.flag("do_image_splitting", true)?,
        };
        let filter = settings.filter(Filter::Lanczos)?;
        let tables = half.or(settings)?.tables();
        Ok(Tiles { path: Some(settings.path().to_owned()), tiling, filter, tables, cells, videos: None })
    }

    fn piece(&self, kind: PieceKind) -> PlanPart {
        let piece = Piece { kind, rows: self.cells, columns: self.cells };
        PlanPart::Piece { piece, tokens: self.cells * self.cells }
    }

    fn resize(&self, image: &RgbImage, (width, height): (usize, usize)) -> RgbImage {
        resize(Canvas::plain(image), width, height, self.filter)
    }
}

pub(super) fn target(settings: &Settings) -> Result<Target> {
    let expected = "{\"longest_edge\"} of 1 to 65536, or {\"height\", \"width\"} of 1 to 4096";
    let Some(value) = settings.get("size") else { return Ok(Target::LongestEdge(EDGE)) };
    let longest = value.get("longest_edge").filter(|edge| !edge.is_null());
    let target = match longest {
        Some(edge) => {
            edge.as_u64().filter(|edge| (1..=MOST_EDGE).contains(edge)).map(|edge| Target::LongestEdge(edge as usize))
        }
        None => match [value.get("width").and_then(side), value.get("height").and_then(side)] {
            [Some(width), Some(height)] => Some(Target::Exact { width, height }),
            _ => None,
        },
    };
    target.ok_or_else(|| settings.wrong("size", expected))
}

pub(super) fn tile(settings: &Settings) -> Result<usize> {
    let Some(value) = settings.get("max_image_size") else { return Ok(TILE) };
    let edge = value.get("longest_edge").and_then(|edge: &Value| side(edge));
    edge.ok_or_else(|| settings.wrong("max_image_size", "{\"longest_edge\"} of 1 to 4096"))
}

impl ImageProcessor for Tiles {
    fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    fn plan(&self, size: SizeOf<'_>) -> Result<ImagePlan> {
        let (width, height) = size()?;
        let cut = self.tiling.cut(width, height);
        if cut.tiles() > MOST_TILES {
            let reason =
                format!("{width} x {height} pixels are cut into {} tiles, over the limit of {MOST_TILES}", cut.tiles());
            return Err(Error::Image { index: 0, reason });
        }
        let Cut { rows, columns, .. } = cut;
        let mut parts = Vec::with_capacity(2 * rows * columns + 3);
        let mut before = String::new();
        for row in 0..rows {
            for column in 0..columns {
                let mark = format!("{before}{FRAME}<row_{}_col_{}>", row + 1, column + 1);
                parts.extend([PlanPart::Text(mark), self.piece(PieceKind::Tile { row, column })]);
                before.clear();
            }
            before.push('\n');
        }
        if rows > 0 {
            before.push('\n');
        }
        parts.push(PlanPart::Text(format!("{before}{FRAME}{WHOLE}")));
        parts.extend([self.piece(PieceKind::Base), PlanPart::Text(FRAME.into())]);
        Ok(ImagePlan(parts))
    }

    fn videos(&self) -> Option<&dyn VideoProcessor> {
        self.videos.as_ref().map(|videos| videos as &dyn VideoProcessor)
    }

    fn prepare(&self, image: &RgbImage) -> Prepared {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let cut = self.tiling.cut(width, height);
        let tile = self.tiling.tile;
        // Every step rounds to 8 bits.
        let first = self.resize(image, cut.first);
        let whole = self.resize(&first, cut.second);
        drop(first);
        let mut tiles = Vec::with_capacity(cut.tiles());
        for (row, column) in (0..cut.rows).flat_map(|row| (0..cut.columns).map(move |column| (row, column))) {
            tiles.push(self.tables.part(&whole, (column * tile, row * tile), (tile, tile)));
        }
        tiles.push(self.tables.part(&self.resize(&whole, (tile, tile)), (0, 0), (tile, tile)));
        Prepared { tiles, width, height }
    }

    fn areas(&self, width: usize, height: usize) -> Vec<Area> {
        let Cut { rows, columns, .. } = self.tiling.cut(width, height);
        let (width, height) = (width as f64, height as f64);
        let (across, down) = (width / columns.max(1) as f64, height / rows.max(1) as f64);
        let tile = |(row, column): (usize, usize)| Area {
            x: column as f64 * across,
            y: row as f64 * down,
            width: across,
            height: down,
        };
        let tiles = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        tiles.map(tile).chain([Area { x: 0.0, y: 0.0, width, height }]).collect()
    }

    fn bytes(&self, width: usize, height: usize) -> u64 {
        let cut = self.tiling.cut(width, height);
        // The picture between the two passes of a resize, and the one that comes out.
        let resizing = |from: (usize, usize), to: (usize, usize)| {
            let between = (to.0 * from.1).max(from.0 * to.1);
            3 * (between + to.0 * to.1)
        };
        let samples = 3 * self.tiling.tile.pow(2);
        (resizing((width, height), cut.first) + resizing(cut.first, cut.second) + (4 * cut.tiles() + 2) * samples)
            as u64
    }
}
