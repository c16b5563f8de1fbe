//! Videos of SmolVLM2: a tile for each frame, behind a text that says when it is shown. As transformers' SmolVLMProcessor writes frames that
//! have been chosen before; they are resized as pictures are, with Pillow's filter.

use image::RgbImage;
use serde_json::Value;

use super::images::{FRAME, WHOLE, target, tile};
use super::tiling::Target;
use crate::cache::{Piece, PieceKind};
use crate::error::{Error, Result};
use crate::media::normalise::{Normalise, Tables};
use crate::media::settings::Settings;
use crate::media::{Canvas, Clip, Filter, Pixels, SettingsOf, resize};
use crate::model::images::{ImagePlan, PlanPart};
use crate::model::videos::{VideoMark, VideoProcessor};

/// Writes conversations with videos, whatever template the folder has, as SmolVLMProcessor does.
pub(super) const MARK: VideoMark = VideoMark::Text {
    word: "<video>",
    template: "\
<|im_start|>{%- for message in messages -%}
    {{- message.role | capitalize -}}
    {{- ':' if message.content[0].type == 'image' else ': ' -}}
    {%- for part in message.content -%}
        {%- if part.type == 'text' -%}{{- part.text -}}
        {%- elif part.type == 'image' or part.type == 'video' -%}{{- '<image>' if part.type == 'image' else '<video>' -}}
        {%- endif -%}
    {%- endfor -%}
    {{- '<end_of_utterance>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}",
};

/// Longest side that a frame is brought to before it becomes a tile, in pixels.
const LONGEST: usize = 4096;

/// The processor of videos, and how many positions a tile has.
#[derive(Debug)]
pub(super) struct Films {
    target: Option<Target>,
    /// Side of a tile, in pixels.
    tile: usize,
    filter: Filter,
    tables: Tables,
    /// Positions along a side of a tile.
    cells: usize,
}

impl Films {
    /// The settings of a folder whose tiles have `side` patches of `patch` pixels along a side.
    pub(super) fn read(at: &SettingsOf, cells: usize, (side, patch): (usize, usize)) -> Result<Self> {
        let half = Normalise::by([0.5; 3], [0.5; 3]);
        let Some(settings) = at.read_video()? else {
            let path = at.path().join("preprocessor_config.json");
            return Err(Error::ModelFile { path, reason: "is not there, nor a file of a video processor".into() });
        };
        settings.video_class("SmolVLMVideoProcessor")?;
        let tile = tile(&settings)?;
        if tile / patch != side {
            return Err(
                settings.fail(format!("makes frames of {tile} pixels a side, which the vision tower does not take"))
            );
        }
        // A size of its own goes before the one beside the rule by which frames are chosen.
        let own = settings.get("size").is_some();
        let sampled = settings.get("video_sampling").and_then(|sampling| sampling.get("video_size"));
        let target = match sampled.filter(|size| !own && !size.is_null()) {
            Some(size) => sized(&settings, size)?,
            None => target(&settings)?,
        };
        Ok(Films {
            target: settings.flag("do_resize", true)?.then_some(target),
            tile,
            filter: settings.filter(Filter::Lanczos)?,
            tables: half.or(&settings)?.tables(),
            cells,
        })
    }

    /// (width, height) of the first resize; the second one makes a tile.
    fn first(&self, width: usize, height: usize) -> (usize, usize) {
        let even = |side: f64| (side as usize + side as usize % 2).max(1);
        match self.target {
            None => (width, height),
            Some(Target::Exact { width, height }) => (width, height),
            Some(Target::LongestEdge(edge)) => {
                let (edge, ratio) = (edge.min(LONGEST), width as f64 / height as f64);
                match width >= height {
                    true => (edge, even(edge as f64 / ratio)),
                    false => (even(edge as f64 * ratio), edge),
                }
            }
        }
    }
}

fn sized(settings: &Settings, size: &Value) -> Result<Target> {
    let edge = size.get("longest_edge").and_then(Value::as_u64).filter(|edge| (1..=1 << 16).contains(edge));
    let edge =
        edge.ok_or_else(|| settings.wrong("video_sampling", "`video_size` with `longest_edge` of 1 to 65536"))?;
    Ok(Target::LongestEdge(edge as usize))
}

impl VideoProcessor for Films {
    fn together(&self) -> usize {
        1
    }

    fn plan(&self, clip: &Clip<'_>) -> Result<ImagePlan> {
        let times = clip.timing.times();
        let length = length(times.last().copied().unwrap_or_default() as u64);
        let mut before = format!(
            "You are provided the following series of {} frames from a {length} [H:MM:SS] video.\n",
            words(times.len())
        );
        let mut parts = Vec::with_capacity(2 * times.len() + 1);
        for (frame, time) in times.iter().enumerate() {
            let (minutes, seconds) = (*time as u64 / 60, *time as u64 % 60);
            before.push_str(&format!("\nFrame from {minutes:02}:{seconds:02}:{FRAME}{WHOLE}"));
            let kind = PieceKind::Frame { frame, phase: 0 };
            let piece = Piece { kind, rows: self.cells, columns: self.cells };
            parts.push(PlanPart::Text(std::mem::replace(&mut before, FRAME.to_owned())));
            parts.push(PlanPart::Piece { piece, tokens: self.cells * self.cells });
        }
        parts.push(PlanPart::Text(before + "\n\n"));
        Ok(ImagePlan(parts))
    }

    fn prepare(&self, frame: &RgbImage, _: &Clip<'_>) -> Pixels {
        let (width, height) = self.first(frame.width() as usize, frame.height() as usize);
        let first = resize(Canvas::plain(frame), width, height, self.filter);
        let tile = resize(Canvas::plain(&first), self.tile, self.tile, self.filter);
        self.tables.part(&tile, (0, 0), (self.tile, self.tile))
    }

    fn bytes(&self, clip: &Clip<'_>) -> u64 {
        let (width, height) = self.first(clip.width, clip.height);
        let between = (width * clip.height).max(clip.width * height).max(self.tile * height);
        3 * (between + width * height + 6 * self.tile.pow(2)) as u64
    }
}

/// A length in seconds as Python writes a `timedelta`.
fn length(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let clock = format!("{hours}:{minutes:02}:{:02}", seconds % 60);
    match days {
        0 => clock,
        1 => format!("1 day, {clock}"),
        days => format!("{days} days, {clock}"),
    }
}

/// A number below 1000 in English words, as `num2words` writes it.
fn words(number: usize) -> String {
    const SMALL: [&str; 20] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ];
    const TENS: [&str; 10] = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
    match (number / 100, number % 100) {
        (0, rest) if rest < 20 => SMALL[rest].to_owned(),
        (0, rest) if rest.is_multiple_of(10) => TENS[rest / 10].to_owned(),
        (0, rest) => format!("{}-{}", TENS[rest / 10], SMALL[rest % 10]),
        (hundreds, 0) => format!("{} hundred", SMALL[hundreds]),
        (hundreds, rest) => format!("{} hundred and {}", SMALL[hundreds], words(rest)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn numbers_and_lengths_are_written_as_python_does() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/data/video_words.json");
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let all = golden["words"].as_array().unwrap();
        assert_eq!(all.last().unwrap()[0], crate::media::MOST_FRAMES);
        for pair in all {
            assert_eq!(words(pair[0].as_u64().unwrap() as usize), *pair[1].as_str().unwrap());
        }
        for pair in golden["lengths"].as_array().unwrap() {
            assert_eq!(length(pair[0].as_u64().unwrap()), *pair[1].as_str().unwrap());
        }
    }
}
