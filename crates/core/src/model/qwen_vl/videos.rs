//! Videos: frames in groups that patches reach through, whose times are phases or text. As transformers' Qwen2VLVideoProcessor and
//! Qwen3VLVideoProcessor see frames that have been chosen before, but for the resize, which is Pillow's.

use image::RgbImage;

use super::config::TowerConfig;
use super::images::{Limits, MEAN, STD, pixels, require_fit, require_shape};
use crate::cache::{Piece, PieceKind};
use crate::error::Result;
use crate::fields::refuse;
use crate::media::normalise::{Normalise, Tables};
use crate::media::{Canvas, Clip, Filter, Pixels, SettingsOf, resize};
use crate::model::images::{ImagePlan, PlanPart};
use crate::model::videos::VideoProcessor;

/// Most pixels that a file may ask for, all frames of a video together.
const MOST_PIXELS: u64 = 1 << 32;
/// The limits of Hugging Face's classes, in cells.
const LEAST: u64 = 128;
const MOST: u64 = 768;
/// Stand around each group where its time is written.
const START: &str = "<|vision_start|>";
const END: &str = "<|vision_end|>";

/// How a generation of the family sees videos.
#[derive(Clone, Copy, Debug)]
pub(super) struct Videos {
    /// Whether the limits of pixels are those of all frames together, not of each.
    pub together: bool,
    pub marks: Marks,
}

/// How a prompt says when a group of frames is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marks {
    /// Its phase in time: its number.
    Steps,
    /// Its phase in time, which goes by seconds.
    Seconds,
    /// A text before it, in seconds.
    Written,
}

/// The processor of videos.
#[derive(Debug)]
pub(super) struct Films {
    videos: Videos,
    limits: Limits,
    filter: Filter,
    tables: Tables,
    /// Frames of a group.
    frames: usize,
    per_second: f32,
}

impl Films {
    pub(super) fn read(at: &SettingsOf, tower: &TowerConfig) -> Result<Self> {
        let videos = tower.videos;
        // The sizes that the classes assume, whatever the tower has.
        let (class, patch, normalise) = match videos.together {
            false => ("Qwen2VLVideoProcessor", 14, Normalise::by(MEAN, STD)),
            true => ("Qwen3VLVideoProcessor", 16, Normalise::by([0.5; 3], [0.5; 3])),
        };
        let cell = (2 * patch) * (2 * patch);
        let (least, most) = (LEAST * cell, MOST * cell);
        let mut films = Films {
            videos,
            limits: Limits { cell: tower.cell(), least, most },
            filter: Filter::Bicubic,
            tables: normalise.tables(),
            frames: tower.frames,
            per_second: tower.per_second,
        };
        let Some(settings) = at.read_video()? else { return Ok(films) };
        settings.video_class(class)?;
        let is_images =
            settings.get("video_processor_type").is_none() && settings.get("image_processor_type").is_some();
        // A file of the image processor has been looked at already.
        if !is_images {
            require_fit(&settings, tower, patch)?;
        }
        let own = |key| (!videos.together).then_some(key);
        films.limits.least = pixels(&settings, own("min_pixels"), "shortest_edge", least, MOST_PIXELS)?;
        films.limits.most = pixels(&settings, own("max_pixels"), "longest_edge", most, MOST_PIXELS)?;
        let Limits { least, most, .. } = films.limits;
        if least > most {
            return Err(settings.fail(format!("a video may have {least} pixels at least and {most} at most")));
        }
        films.filter = settings.filter(Filter::Bicubic)?;
        films.tables = normalise.or(&settings)?.tables();
        Ok(films)
    }

    /// (height, width) in pixels, whole cells, of each frame.
    fn fit(&self, clip: &Clip<'_>) -> (usize, usize) {
        let (width, height, n) = (clip.width, clip.height, clip.timing.frames());
        if !self.videos.together {
            return self.limits.fit(height, width);
        }
        let (height, width) = self.enlarged(height, width);
        let groups = (n as f64 / self.frames as f64).round_ties_even() * self.frames as f64;
        self.limits.fit_all(height, width, n as f64, groups)
    }

    /// (height, width) of a frame that has a whole cell along each side.
    fn enlarged(&self, height: usize, width: usize) -> (usize, usize) {
        let cell = self.limits.cell;
        if height >= cell && width >= cell {
            return (height, width);
        }
        let scale = (cell as f64 / height as f64).max(cell as f64 / width as f64);
        ((height as f64 * scale) as usize, (width as f64 * scale) as usize)
    }
}

impl VideoProcessor for Films {
    fn together(&self) -> usize {
        self.frames
    }

    fn plan(&self, clip: &Clip<'_>) -> Result<ImagePlan> {
        let times = clip.timing.times();
        if self.videos.together && times.len() < self.frames {
            return Err(refuse(format!(
                "a video of {} frame, and this model takes {} frames at least; give a single frame as an image",
                times.len(),
                self.frames
            )));
        }
        let (height, width) = match self.videos.together {
            true => self.enlarged(clip.height, clip.width),
            false => (clip.height, clip.width),
        };
        require_shape(width, height)?;
        let (height, width) = self.fit(clip);
        let (rows, columns) = (height / self.limits.cell, width / self.limits.cell);
        // In f32, as the positions of transformers.
        let interval = self.per_second * (self.frames as f64 / clip.timing.fps()) as f32;
        let mut parts = Vec::new();
        for (frame, times) in times.chunks(self.frames).enumerate() {
            let phase = match self.videos.marks {
                Marks::Steps => frame as u32,
                Marks::Seconds => (frame as f32 * interval) as u32,
                Marks::Written => 0,
            };
            let piece = Piece { kind: PieceKind::Frame { frame, phase }, rows, columns };
            let piece = PlanPart::Piece { piece, tokens: rows * columns };
            if self.videos.marks != Marks::Written {
                parts.push(piece);
                continue;
            }
            // The last frame stands for those that are missing.
            let last = if times.len() < self.frames { times.last() } else { times.get(self.frames - 1) };
            let middle = (times[0] + last.copied().unwrap_or(times[0])) / 2.0;
            parts.extend([PlanPart::Text(format!("<{middle:.1} seconds>{START}")), piece, PlanPart::Text(END.into())]);
        }
        Ok(ImagePlan(parts))
    }

    fn prepare(&self, frame: &RgbImage, clip: &Clip<'_>) -> Pixels {
        let (rows, columns) = self.fit(clip);
        self.tables.part(&resize(Canvas::plain(frame), columns, rows, self.filter), (0, 0), (columns, rows))
    }

    fn bytes(&self, clip: &Clip<'_>) -> u64 {
        let (rows, columns) = self.fit(clip);
        let between = columns as u64 * clip.height as u64;
        3 * (5 * rows as u64 * columns as u64 + between)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::*;
    use crate::media::Timing;

    fn films(cell: usize, least: u64, most: u64, videos: Videos) -> Films {
        let tables = Normalise::by(MEAN, STD).tables();
        let limits = Limits { cell, least, most };
        Films { videos, limits, filter: Filter::Bicubic, tables, frames: 2, per_second: 2.0 }
    }

    #[test]
    fn sizes_and_seconds_are_those_of_transformers() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/data/video_sizes.json");
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let (mut fitted, mut refused) = (0, 0);
        for case in golden["cases"].as_array().unwrap() {
            let number = |key: &str| case[key].as_u64().unwrap();
            let films = films(
                number("factor") as usize,
                number("min_pixels"),
                number("max_pixels"),
                Videos { together: true, marks: Marks::Written },
            );
            for sizes in case["sizes"].as_array().unwrap() {
                let [frames, height, width, rows, columns] =
                    [0, 1, 2, 3, 4].map(|at: usize| sizes[at].as_u64().unwrap() as usize);
                let timing = Timing::new(frames, None, None).unwrap();
                let clip = Clip { width, height, timing: &timing };
                match films.plan(&clip) {
                    Err(error) => {
                        assert!(error.code() == "image" && rows == 0, "{frames} of {width} x {height}: {error}");
                        refused += 1;
                    }
                    Ok(_) => {
                        assert_eq!(films.fit(&clip), (rows, columns), "{frames} of {width} x {height}");
                        fitted += 1;
                    }
                }
            }
        }
        assert!(fitted >= 150 && refused >= 1, "{fitted} fitted, {refused} refused");
        for pair in golden["seconds"].as_array().unwrap() {
            assert_eq!(format!("{:.1}", pair[0].as_f64().unwrap()), *pair[1].as_str().unwrap());
        }
    }

    #[test]
    fn times_are_phases_or_text() {
        let timing = Timing::new(5, None, Some(vec![0.0, 0.5, 1.0, 1.5, 4.0])).unwrap();
        let clip = Clip { width: 56, height: 28, timing: &timing };
        let plan = |marks| films(28, 784, 7840, Videos { together: false, marks }).plan(&clip).unwrap();
        let phases = |plan: &ImagePlan| -> Vec<(usize, u32)> {
            plan.pieces()
                .map(|(piece, _)| match piece.kind {
                    PieceKind::Frame { frame, phase } => (frame, phase),
                    other => panic!("{other:?}"),
                })
                .collect()
        };
        assert_eq!(phases(&plan(Marks::Steps)), [(0, 0), (1, 1), (2, 2)]);
        // One frame a second: two seconds, four phases, for each pair.
        assert_eq!(phases(&plan(Marks::Seconds)), [(0, 0), (1, 4), (2, 8)]);
        let written: String = plan(Marks::Written)
            .0
            .iter()
            .map(|part| match part {
                PlanPart::Text(text) => text.clone(),
                PlanPart::Piece { tokens, .. } => format!("[{tokens}]"),
            })
            .collect();
        let pair = |time: &str| format!("<{time} seconds><|vision_start|>[2]<|vision_end|>");
        assert_eq!(written, ["0.2", "1.2", "4.0"].map(pair).concat());
        let one = Timing::new(1, None, None).unwrap();
        let clip = Clip { timing: &one, ..clip };
        let error = films(28, 784, 7840, Videos { together: true, marks: Marks::Written }).plan(&clip).unwrap_err();
        assert!(error.code() == "option" && error.to_string().contains("takes 2 frames at least"), "{error}");
    }
}
