//! One square per picture, with marks around its positions. As transformers' Gemma3ImageProcessorPil and Gemma3Processor.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::{RgbImage, imageops};
use serde_json::Value;

use super::config::Gemma3Config;
use super::crops::{Crops, PanAndScan};
use crate::cache::{Piece, PieceKind};
use crate::error::{Error, Result};
use crate::media::normalise::{Normalise, Tables};
use crate::media::settings::{Settings, side};
use crate::media::{Area, Canvas, Filter, Pixels, Prepared, SettingsOf, resize};
use crate::model::images::{ImagePlan, ImageProcessor, Images, PlanPart, SizeOf};

const KNOWN: [&str; 1] = ["Gemma3ImageProcessor"];
/// The size that the class assumes when the file says nothing.
const SIDE: usize = 224;

const START: &str = "<start_of_image>";
const END: &str = "<end_of_image>";

/// The processor, and how many positions its squares have.
#[derive(Debug)]
struct Squares {
    path: Option<PathBuf>,
    /// Pixels along a side.
    side: usize,
    filter: Filter,
    tables: Tables,
    /// Positions along a side.
    cells: usize,
    scan: Option<PanAndScan>,
}

impl Images for Gemma3Config {
    fn placeholder(&self) -> u32 {
        self.image_token
    }

    fn placeholder_key(&self) -> &'static str {
        "image_token_index"
    }

    fn marks(&self) -> &'static [(&'static str, &'static str)] {
        &[(START, "boi_token"), (END, "eoi_token")]
    }

    fn processor(&self, at: &SettingsOf) -> Result<Arc<dyn ImageProcessor>> {
        let squares = Squares::read(at, self.cells)?;
        let (made, taken) = (squares.side, self.vision.image_size);
        if made != taken {
            let path = squares.path.unwrap_or_else(|| at.path().join("preprocessor_config.json"));
            let reason = format!("makes images of {made} x {made}, but the vision tower takes {taken} x {taken}");
            return Err(Error::ModelFile { path, reason });
        }
        let positions = self.cells * self.cells;
        if let Some(settings) = at.file("processor_config.json")?
            && let Some(length) = settings.get("image_seq_length")
            && length.as_u64() != Some(positions as u64)
        {
            return Err(settings.wrong("image_seq_length", &format!("{positions}, as `mm_tokens_per_image` has it")));
        }
        Ok(Arc::new(squares))
    }
}

impl Squares {
    fn read(at: &SettingsOf, cells: usize) -> Result<Self> {
        let half = Normalise::by([0.5; 3], [0.5; 3]);
        let Some(settings) = at.read()? else {
            let (side, filter, tables) = (SIDE, Filter::Bilinear, half.tables());
            return Ok(Squares { path: None, side, filter, tables, cells, scan: None });
        };
        settings.class(&KNOWN)?;
        settings.flag("do_convert_rgb", true)?;
        if !settings.flag("do_resize", true)? {
            return Err(settings.fail("`do_resize` is false, but the vision tower takes squares of one size".into()));
        }
        Ok(Squares {
            path: Some(settings.path().to_owned()),
            side: square(&settings)?,
            filter: settings.filter(Filter::Bilinear)?,
            tables: half.or(&settings)?.tables(),
            cells,
            scan: PanAndScan::read(&settings)?,
        })
    }

    fn crops(&self, width: usize, height: usize) -> Option<Crops> {
        self.scan.as_ref().and_then(|scan| scan.crops(width, height))
    }

    fn square(&self, image: &RgbImage) -> Pixels {
        let side = self.side;
        self.tables.part(&resize(Canvas::plain(image), side, side, self.filter), (0, 0), (side, side))
    }

    /// A piece with its marks. The line ends merge with those beside them.
    fn marked(&self, before: &str, kind: PieceKind, parts: &mut Vec<PlanPart>) {
        let piece = Piece { kind, rows: self.cells, columns: self.cells };
        parts.push(PlanPart::Text(format!("{before}\n\n{START}")));
        parts.push(PlanPart::Piece { piece, tokens: self.cells * self.cells });
        parts.push(PlanPart::Text(format!("{END}\n\n")));
    }
}

/// Pixels along a side; both must be the same.
fn square(settings: &Settings) -> Result<usize> {
    let Some(value) = settings.get("size") else { return Ok(SIDE) };
    let found = match value {
        Value::Object(size) => {
            let of = |key: &str| size.get(key).and_then(side);
            of("height").filter(|height| of("width") == Some(*height))
        }
        other => side(other),
    };
    found.ok_or_else(|| settings.wrong("size", "{\"height\", \"width\"}, both the same, of 1 to 4096"))
}

impl ImageProcessor for Squares {
    fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    fn plan(&self, size: SizeOf<'_>) -> Result<ImagePlan> {
        let crops = match &self.scan {
            None => None,
            Some(_) => {
                let (width, height) = size()?;
                self.crops(width, height)
            }
        };
        let mut parts = Vec::with_capacity(3);
        let Some(crops) = crops else {
            self.marked("", PieceKind::Base, &mut parts);
            return Ok(ImagePlan(parts));
        };
        self.marked("Here is the original image ", PieceKind::Base, &mut parts);
        let mut before = " and here are some crops to help you see better ";
        for (row, column) in crops.places() {
            self.marked(before, PieceKind::Tile { row, column }, &mut parts);
            before = " ";
        }
        Ok(ImagePlan(parts))
    }

    fn prepare(&self, image: &RgbImage) -> Prepared {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let mut tiles = vec![self.square(image)];
        for [x, y, width, height] in self.crops(width, height).iter().flat_map(|crops| crops.parts(width, height)) {
            let part = imageops::crop_imm(image, x as u32, y as u32, width as u32, height as u32).to_image();
            tiles.push(self.square(&part));
        }
        Prepared { tiles, width, height }
    }

    fn areas(&self, width: usize, height: usize) -> Vec<Area> {
        let whole = [0, 0, width, height];
        let crops = self.crops(width, height);
        let parts = std::iter::once(whole).chain(crops.iter().flat_map(|crops| crops.parts(width, height)));
        let area = |part: [usize; 4]| part.map(|number| number as f64);
        parts.map(area).map(|[x, y, width, height]| Area { x, y, width, height }).collect()
    }

    fn bytes(&self, width: usize, height: usize) -> u64 {
        let pieces = 1 + self.crops(width, height).map_or(0, |crops| crops.count());
        // As 8-bit samples and normalised, a crop, and what lies between the two passes of the resize.
        let square = self.side * self.side;
        let between = width.max(height).max(self.side) * self.side;
        let cropped = if pieces > 1 { width * height } else { 0 };
        3 * (4 * pieces * square + square + between + cropped) as u64
    }
}
