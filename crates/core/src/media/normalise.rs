//! Samples of a picture to the numbers that a vision tower takes.

use image::RgbImage;

use super::prepared::Pixels;
use super::settings::{Settings, is_positive};
use crate::Result;

/// How samples are rescaled and normalised.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Normalise {
    rescale: Option<f64>,
    normalize: bool,
    pub(crate) mean: [f64; 3],
    std: [f64; 3],
}

impl Normalise {
    /// Samples to 0..1, then by mean and deviation.
    pub(crate) fn by(mean: [f64; 3], std: [f64; 3]) -> Self {
        Normalise { rescale: Some(1.0 / 255.0), normalize: true, mean, std }
    }

    /// By the mean and the deviation of OpenAI's CLIP.
    pub(crate) fn clip() -> Self {
        Self::by([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    }

    /// By ImageNet's mean and standard deviation.
    pub(crate) fn imagenet() -> Self {
        Self::by([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    }

    /// As the file says; what it leaves out is as here.
    pub(crate) fn or(self, settings: &Settings) -> Result<Self> {
        let rescale = settings.positive("rescale_factor", 1.0 / 255.0)?;
        let read = Normalise {
            rescale: settings.flag("do_rescale", true)?.then_some(rescale),
            normalize: settings.flag("do_normalize", true)?,
            mean: settings.triple("image_mean", self.mean)?,
            std: settings.triple("image_std", self.std)?,
        };
        if read.std.iter().any(|&std| !is_positive(std)) {
            return Err(settings.wrong("image_std", "three numbers above 0 that an f32 can hold"));
        }
        if read.mean.iter().any(|&mean| !(mean as f32).is_finite()) {
            return Err(settings.wrong("image_mean", "three numbers that an f32 can hold"));
        }
        // They grow with the sample: if the ends are finite, all are.
        let ends = (0..3).flat_map(|channel| [0, 255].map(|sample| read.value(channel, sample)));
        if let Some(value) = ends.into_iter().find(|value| !value.is_finite()) {
            return Err(settings.fail(format!(
                "`rescale_factor`, `image_mean` and `image_std` make {value} of a pixel: they do not go together"
            )));
        }
        Ok(read)
    }

    /// The tower's input for a sample, 0 to 255, of a channel: rescaled in f64 and normalised in f32, as transformers does it with numpy.
    fn value(&self, channel: usize, sample: usize) -> f32 {
        let value = self.rescale.map_or(sample as f32, |factor| (sample as f64 * factor) as f32);
        if self.normalize { (value - self.mean[channel] as f32) / self.std[channel] as f32 } else { value }
    }

    /// The values of all samples.
    pub(crate) fn tables(&self) -> Tables {
        Tables([0, 1, 2].map(|channel| std::array::from_fn(|sample| self.value(channel, sample))))
    }
}

/// The normalised value of each sample, per channel.
#[derive(Debug, Clone)]
pub(crate) struct Tables(pub(crate) [[f32; 256]; 3]);

impl Tables {
    /// The part of a picture of (width, height) pixels whose top left corner is at (left, top); it must lie inside.
    pub(crate) fn part(
        &self,
        image: &RgbImage,
        (left, top): (usize, usize),
        (width, height): (usize, usize),
    ) -> Pixels {
        let stride = 3 * image.width() as usize;
        let mut data = Vec::with_capacity(3 * width * height);
        for (channel, table) in self.0.iter().enumerate() {
            for row in image.as_raw().chunks_exact(stride).skip(top).take(height) {
                let row = &row[3 * left..3 * (left + width)];
                data.extend(row.iter().skip(channel).step_by(3).map(|sample| table[usize::from(*sample)]));
            }
        }
        Pixels { data, height, width }
    }
}
