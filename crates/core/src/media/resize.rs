//! Pillow's `Image.resize` for RGB8 images, bit for bit, optionally of a padded image and only for a part of the output.

use std::ops::Range;

use image::RgbImage;
use rayon::prelude::*;

use super::kernel::{Filter, Kernel, PRECISION_BITS, clip8};

const CHANNELS: usize = 3;
const HALF: i32 = 1 << (PRECISION_BITS - 1);
/// Multiply-adds below which handing rows to another thread costs more than it saves.
const GRAIN: usize = 1 << 18;

/// An image on a plain canvas that is at least as large. The canvas is never stored.
#[derive(Debug, Clone, Copy)]
pub struct Canvas<'a> {
    image: &'a RgbImage,
    left: usize,
    top: usize,
    width: usize,
    height: usize,
    fill: [u8; CHANNELS],
}

impl<'a> Canvas<'a> {
    /// The image alone.
    pub fn plain(image: &'a RgbImage) -> Self {
        let (width, height) = (image.width() as usize, image.height() as usize);
        Self { image, left: 0, top: 0, width, height, fill: [0; CHANNELS] }
    }

    /// The image centred (half a pixel to the left or top of it, if need be) on a square of colour `fill` whose side
    /// is the image's longer one.
    pub fn square(image: &'a RgbImage, fill: [u8; CHANNELS]) -> Self {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let side = width.max(height);
        Self { image, left: (side - width) / 2, top: (side - height) / 2, width: side, height: side, fill }
    }

    /// Columns of the canvas, in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows of the canvas, in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Row `y`, `width * 3` bytes; built in `scratch` unless the image has it whole.
    fn row<'b>(&self, y: usize, scratch: &'b mut Vec<u8>) -> &'b [u8]
    where
        'a: 'b,
    {
        let inner = self.image.width() as usize;
        let source = y.checked_sub(self.top).filter(|&y| y < self.image.height() as usize).map(|y| {
            let stride = inner * CHANNELS;
            &self.image.as_raw()[y * stride..(y + 1) * stride]
        });
        match source {
            Some(source) if inner == self.width => source,
            _ => {
                scratch.clear();
                scratch.extend(std::iter::repeat_n(self.fill, self.width).flatten());
                if let Some(source) = source {
                    scratch[self.left * CHANNELS..][..source.len()].copy_from_slice(source);
                }
                scratch
            }
        }
    }
}

/// Resizes `canvas` to `width` x `height` pixels.
///
/// Sizes must be at least 1. Equal sizes copy.
pub fn resize(canvas: Canvas<'_>, width: usize, height: usize, filter: Filter) -> RgbImage {
    resize_part(canvas, (width, height), (0..width, 0..height), filter)
}

/// The part `(columns, rows)` of what [`resize`] to `(width, height)` would give, without computing the rest.
///
/// An axis costs `out * (2 * support * max(in / out, 1) + 1)` multiply-adds for each pixel of the other axis and
/// channel: 1024 x 768 to a 336-pixel bicubic square takes 3 * (768 + 336) * 336 * ~10, or 11 million. Memory: one
/// 8-bit intermediate of the part's columns and the source's rows, or the other way round.
pub fn resize_part(
    canvas: Canvas<'_>,
    (width, height): (usize, usize),
    (columns, rows): (Range<usize>, Range<usize>),
    filter: Filter,
) -> RgbImage {
    let across = Kernel::new(filter, canvas.width, width, columns);
    let down = Kernel::new(filter, canvas.height, height, rows);
    // Pillow 13 starts with the axis that shrinks by far more pixels; older ones always went across first. The order
    // shows, by one step of a sample, since the intermediate is rounded to 8 bits.
    let shrink = |from: usize, to: usize| from as i64 - to as i64;
    let (narrower, lower) = (shrink(canvas.width, width), shrink(canvas.height, height));
    if lower > 0 && lower > 2 * narrower {
        let reach = across.reach();
        let middle = pass_down(&canvas, &down, 0, reach.clone());
        pass_across(&Canvas::plain(&middle), &across, reach.start, 0..down.len())
    } else {
        let reach = down.reach();
        let middle = pass_across(&canvas, &across, 0, reach.clone());
        pass_down(&Canvas::plain(&middle), &down, reach.start, 0..across.len())
    }
}

/// Horizontal pass over the rows in `rows`, where column 0 of `canvas` is the kernel's source column `first`.
fn pass_across(canvas: &Canvas<'_>, across: &Kernel, first: usize, rows: Range<usize>) -> RgbImage {
    parallel_rows(across.len(), rows.len(), across.cost(), Vec::new, |scratch, index, out| {
        let row = canvas.row(rows.start + index, scratch);
        for (position, pixel) in out.chunks_exact_mut(CHANNELS).enumerate() {
            let (start, weights) = across.taps(position);
            let mut sums = [HALF; CHANNELS];
            for (source, &weight) in row[(start - first) * CHANNELS..].chunks_exact(CHANNELS).zip(weights) {
                for (sum, &sample) in sums.iter_mut().zip(source) {
                    *sum += i32::from(sample) * weight;
                }
            }
            for (sample, sum) in pixel.iter_mut().zip(sums) {
                *sample = clip8(sum);
            }
        }
    })
}

/// Vertical pass over the columns in `columns`, where row 0 of `canvas` is the kernel's source row `first`.
fn pass_down(canvas: &Canvas<'_>, down: &Kernel, first: usize, columns: Range<usize>) -> RgbImage {
    let bytes = columns.start * CHANNELS..columns.end * CHANNELS;
    let buffers = || (vec![0; bytes.len()], Vec::new());
    parallel_rows(columns.len(), down.len(), down.cost(), buffers, |(sums, scratch), position, out| {
        let (start, weights) = down.taps(position);
        sums.fill(HALF);
        for (y, &weight) in (start - first..).zip(weights) {
            for (sum, &sample) in sums.iter_mut().zip(&canvas.row(y, scratch)[bytes.clone()]) {
                *sum += i32::from(sample) * weight;
            }
        }
        for (sample, &sum) in out.iter_mut().zip(sums.iter()) {
            *sample = clip8(sum);
        }
    })
}

/// An image whose rows `fill(buffers, row number, row)` writes; `cost` is the multiply-adds per sample.
fn parallel_rows<B>(
    width: usize,
    height: usize,
    cost: usize,
    buffers: impl Fn() -> B + Send + Sync,
    fill: impl Fn(&mut B, usize, &mut [u8]) + Send + Sync,
) -> RgbImage {
    let mut image = RgbImage::new(width as u32, height as u32);
    let stride = (width * CHANNELS).max(1);
    image
        .par_chunks_exact_mut(stride)
        .enumerate()
        .with_min_len(GRAIN.div_ceil(stride * cost.max(1)))
        .for_each_init(buffers, |buffers, (index, row)| fill(buffers, index, row));
    image
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The generator of tests/golden/resize.py: a linear congruential generator, byte 2 of the state; every fourth
    /// case is black and white, so that overshoot is clipped.
    fn noise(width: usize, height: usize, seed: u32) -> RgbImage {
        let mut state = seed;
        let pixels = (0..width * height * CHANNELS).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let byte = (state >> 16) as u8;
            if seed.is_multiple_of(4) { if byte < 128 { 0 } else { 255 } } else { byte }
        });
        RgbImage::from_raw(width as u32, height as u32, pixels.collect()).unwrap()
    }

    fn golden() -> Vec<(usize, [usize; 4], Filter, Vec<u8>)> {
        let mut rest: &[u8] = include_bytes!("../../../../tests/golden/data/resize.bin");
        let mut cases = Vec::new();
        while !rest.is_empty() {
            let field = |i: usize| usize::from(u16::from_le_bytes([rest[2 * i], rest[2 * i + 1]]));
            let sizes = [field(0), field(1), field(2), field(3)];
            let filter = Filter::from_pillow(field(4) as i64).unwrap();
            let length = sizes[2] * sizes[3] * CHANNELS;
            cases.push((cases.len() + 1, sizes, filter, rest[10..10 + length].to_vec()));
            rest = &rest[10 + length..];
        }
        cases
    }

    #[test]
    fn equals_pillow_byte_for_byte() {
        let cases = golden();
        assert!(cases.len() > 50);
        for (seed, [width, height, to_width, to_height], filter, expected) in cases {
            let image = noise(width, height, seed as u32);
            let got = resize(Canvas::plain(&image), to_width, to_height, filter);
            assert!(
                got.into_raw() == expected,
                "case {seed}: {width} x {height} to {to_width} x {to_height} {filter:?}"
            );
        }
    }

    #[test]
    fn a_part_is_that_part_of_the_whole() {
        let image = noise(61, 37, 5);
        for filter in [Filter::Nearest, Filter::Lanczos, Filter::Bilinear, Filter::Bicubic, Filter::Box] {
            for (width, height) in [(23, 90), (61, 11), (200, 37)] {
                let whole = resize(Canvas::plain(&image), width, height, filter);
                let part = resize_part(Canvas::plain(&image), (width, height), (3..20, 2..9), filter);
                assert_eq!(part, image::imageops::crop_imm(&whole, 3, 2, 17, 7).to_image());
            }
        }
    }

    #[test]
    fn a_square_canvas_is_a_padded_image() {
        for (width, height) in [(31, 8), (8, 31), (31, 30), (30, 31), (9, 9)] {
            let image = noise(width, height, 7);
            let side = width.max(height);
            let mut padded = RgbImage::from_pixel(side as u32, side as u32, image::Rgb([122, 116, 104]));
            let offset = (((side - width) / 2) as i64, ((side - height) / 2) as i64);
            image::imageops::replace(&mut padded, &image, offset.0, offset.1);
            let lazy = resize(Canvas::square(&image, [122, 116, 104]), 17, 40, Filter::Bicubic);
            assert_eq!(lazy, resize(Canvas::plain(&padded), 17, 40, Filter::Bicubic));
        }
    }
}
