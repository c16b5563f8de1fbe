//! Encoded bytes to an upright RGB8 image, as `transformers.image_utils.load_image` gives it.

use std::borrow::Cow;
use std::io::{Cursor, ErrorKind};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

use super::png;
use super::resemblance::{Resemblance, resemblance};
use super::whole::is_whole;
use crate::{Error, Result};

/// Most bytes of one encoded image: 64 MiB.
pub const MAX_BYTES: usize = 64 << 20;
/// Most pixels of one image, decoded: 100 megapixels.
pub const MAX_PIXELS: u64 = 100_000_000;
/// Most pixels along one side.
pub const MAX_SIDE: u32 = 32_768;

/// Most bytes that a decoder may allocate: [`MAX_PIXELS`] at 16-bit RGBA, and working space.
const MAX_ALLOCATION: u64 = MAX_PIXELS * 8 + (64 << 20);
const FORMATS: &str = "use PNG, JPEG, WebP or GIF";

/// Decodes a PNG, JPEG, WebP or GIF file (of an animation the first frame), recognised by its content.
///
/// Like `load_image` of transformers, it turns the image upright by its EXIF (or else XMP) orientation, then converts
/// it like Pillow's `convert("RGB")`: an alpha channel is dropped, not blended; palettes are looked up; 16-bit samples
/// keep their high byte. On purpose different from Pillow: 16-bit grey without alpha keeps its high byte too, where Pillow clips
/// at 255 and so turns nearly every such image white. Colour profiles and gamma are ignored, as Pillow does.
///
/// A colour that a PNG or GIF without an alpha channel marks as transparent becomes white, as the processors of
/// transformers 5 have it. (Handed an opened image with an alpha channel, they blend that onto white too; by path or
/// address they do what this function does.)
///
/// # Errors
/// [`Error::Image`] with `index` when the bytes are no image of these formats, are damaged or cut off, or pass
/// [`MAX_BYTES`], [`MAX_PIXELS`] or [`MAX_SIDE`]. The size is checked before pixels are allocated.
pub fn decode(bytes: &[u8], index: usize) -> Result<RgbImage> {
    decode_rgb(bytes).map_err(|reason| Error::Image { index, reason })
}

/// Width and height of the upright picture that [`decode`] gives, from the head of the file.
///
/// # Errors
/// As far as the head tells them, those of [`decode`].
pub fn upright_size(bytes: &[u8], index: usize) -> Result<(usize, usize)> {
    let size = || -> Result<(usize, usize), String> {
        let seen = seen(recognise(bytes)?, bytes);
        let (_, mut decoder) = open(bytes, &seen)?;
        let (width, height) = decoder.dimensions();
        let turned = matches!(
            orientation(&mut decoder),
            Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH
        );
        let (width, height) = (width as usize, height as usize);
        Ok(if turned { (height, width) } else { (width, height) })
    };
    size().map_err(|reason| Error::Image { index, reason })
}

/// Most bytes that [`decode`] takes for a file, the file itself not counted: measured peaks are below (`tests/image_memory.rs`).
///
/// # Errors
/// As [`upright_size`].
pub fn decoding_bytes(bytes: &[u8], index: usize) -> Result<u64> {
    let (width, height) = upright_size(bytes, index)?;
    let pixels = (width * height) as u64;
    Ok(pixels * bytes_per_pixel(bytes) + bytes.len() as u64 + (1 << 20))
}

/// Bytes per pixel that a decoder holds beside the picture, plus the three of the picture itself, twice in case it is turned.
fn bytes_per_pixel(bytes: &[u8]) -> u64 {
    match recognise(bytes) {
        // 16-bit samples, up to four of them, and their alpha.
        Ok(ImageFormat::Png) if bytes.get(24) == Some(&16) => 8 + 6,
        // The coefficients of a progressive file: two bytes each, up to four planes.
        Ok(ImageFormat::Jpeg) => 8 + 4 + 6,
        _ => 5 + 4 + 6,
    }
}

/// The bytes of a file that the decoder gets.
fn seen(format: ImageFormat, bytes: &[u8]) -> Cow<'_, [u8]> {
    match format {
        ImageFormat::Png => png::without_ancillary(bytes),
        _ => Cow::Borrowed(bytes),
    }
}

/// A decoder of `bytes`, of which it reads `seen`.
fn open<'a>(bytes: &[u8], seen: &'a [u8]) -> Result<(ImageFormat, impl ImageDecoder + 'a), String> {
    let format = recognise(bytes)?;
    let name = format_name(format);
    if !is_whole(format, bytes) {
        return Err(truncated(name, bytes));
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_ALLOCATION);
    let mut reader = ImageReader::with_format(Cursor::new(seen), format);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|error| explain(error, name, bytes))?;
    check_size(decoder.dimensions())?;
    Ok((format, decoder))
}

fn decode_rgb(bytes: &[u8]) -> Result<RgbImage, String> {
    let seen = seen(recognise(bytes)?, bytes);
    let (format, mut decoder) = open(bytes, &seen)?;
    let orientation = orientation(&mut decoder);
    let image = DynamicImage::from_decoder(decoder).map_err(|error| explain(error, format_name(format), bytes))?;
    let rgb = if has_alpha_channel(format, bytes) { into_rgb(image) } else { onto_white(image) };
    let mut image = DynamicImage::ImageRgb8(rgb);
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

fn recognise(bytes: &[u8]) -> Result<ImageFormat, String> {
    if bytes.is_empty() {
        return Err(format!("it has no bytes; {FORMATS}"));
    }
    if bytes.len() > MAX_BYTES {
        return Err(format!(
            "{} bytes is over the limit of {} MiB; scale or compress the image first",
            bytes.len(),
            MAX_BYTES >> 20
        ));
    }
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP | ImageFormat::Gif)) => Ok(format),
        guessed => Err(match guessed.ok().map(other_format).or_else(|| resemblance(bytes)) {
            Some(Resemblance::Image(name)) => format!("{name} images are not supported; {FORMATS}"),
            Some(Resemblance::Other(what)) => format!("not an image but {what}; {FORMATS}"),
            None => format!("not an image of any known format; {FORMATS}"),
        }),
    }
}

fn other_format(format: ImageFormat) -> Resemblance {
    Resemblance::Image(format_name(format))
}

fn format_name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        ImageFormat::Avif => "AVIF",
        ImageFormat::Ico => "ICO",
        ImageFormat::Pnm => "PNM (PBM, PGM, PPM)",
        ImageFormat::Tga => "TGA",
        ImageFormat::Dds => "DDS",
        ImageFormat::Hdr => "Radiance HDR",
        ImageFormat::OpenExr => "OpenEXR",
        ImageFormat::Farbfeld => "farbfeld",
        ImageFormat::Qoi => "QOI",
        _ => "such",
    }
}

fn check_size((width, height): (u32, u32)) -> Result<(), String> {
    if width == 0 || height == 0 {
        Err(format!("{width} x {height} pixels is empty"))
    } else if width > MAX_SIDE || height > MAX_SIDE {
        Err(format!("{width} x {height} pixels is over the limit of {MAX_SIDE} a side; scale the image down first"))
    } else if u64::from(width) * u64::from(height) > MAX_PIXELS {
        Err(format!(
            "{width} x {height} pixels is over the limit of {} megapixels; scale the image down first",
            MAX_PIXELS / 1_000_000
        ))
    } else {
        Ok(())
    }
}

fn truncated(name: &str, bytes: &[u8]) -> String {
    format!("truncated {name}: it ends after {} bytes; send the whole file", bytes.len())
}

fn explain(error: ImageError, name: &str, bytes: &[u8]) -> String {
    match error {
        ImageError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => truncated(name, bytes),
        ImageError::Limits(_) => {
            format!("decoding this {name} would pass the memory limit; scale the image down first")
        }
        error => format!("damaged or truncated {name}: {error}; send the whole file, or save it anew"),
    }
}

/// What EXIF asks for, or XMP if EXIF does not say; damaged metadata ask for nothing.
fn orientation(decoder: &mut impl ImageDecoder) -> Orientation {
    let exif = decoder.exif_metadata().ok().flatten().unwrap_or_default();
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(&exif);
    Orientation::from_exif_chunk(exif)
        .or_else(|| xmp_orientation(&decoder.xmp_metadata().ok().flatten()?))
        .unwrap_or(Orientation::NoTransforms)
}

/// The digit of `tiff:Orientation="6"` or `tiff:Orientation>6`.
fn xmp_orientation(xmp: &[u8]) -> Option<Orientation> {
    const KEY: &[u8] = b"tiff:Orientation";
    xmp.windows(KEY.len()).enumerate().filter(|(_, window)| *window == KEY).find_map(|(at, _)| {
        let value = &xmp[at + KEY.len()..];
        let digit = value.strip_prefix(b"=\"").or_else(|| value.strip_prefix(b">"))?.first()?;
        Orientation::from_exif(digit.checked_sub(b'0')?)
    })
}

/// Whether transparency, if there is any, is a channel of the file rather than a colour that is marked as transparent.
fn has_alpha_channel(format: ImageFormat, bytes: &[u8]) -> bool {
    match format {
        // The colour type of a PNG is byte 25; 4 and 6 are grey and colour with alpha.
        ImageFormat::Png => matches!(bytes.get(25), Some(4 | 6)),
        ImageFormat::Gif => false,
        _ => true,
    }
}

fn onto_white(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return into_rgb(image);
    }
    let alpha: Vec<u8> = image.to_rgba8().pixels().map(|pixel| pixel.0[3]).collect();
    let mut rgb = into_rgb(image);
    for (pixel, alpha) in rgb.pixels_mut().zip(alpha) {
        let alpha = u32::from(alpha);
        pixel.0 = pixel.0.map(|level| ((u32::from(level) * alpha + 255 * (255 - alpha) + 127) / 255) as u8);
    }
    rgb
}

fn into_rgb(image: DynamicImage) -> RgbImage {
    let (width, height) = (image.width(), image.height());
    let high_byte = |sample: u16| (sample >> 8) as u8;
    let pixels = match image {
        DynamicImage::ImageRgb8(image) => return image,
        DynamicImage::ImageLuma8(image) => three_channels(&image, 1, |sample| sample),
        DynamicImage::ImageLumaA8(image) => three_channels(&image, 2, |sample| sample),
        DynamicImage::ImageRgba8(image) => three_channels(&image, 4, |sample| sample),
        DynamicImage::ImageLuma16(image) => three_channels(&image, 1, high_byte),
        DynamicImage::ImageLumaA16(image) => three_channels(&image, 2, high_byte),
        DynamicImage::ImageRgb16(image) => three_channels(&image, 3, high_byte),
        DynamicImage::ImageRgba16(image) => three_channels(&image, 4, high_byte),
        // Float images; none of the four formats has them.
        other => return other.into_rgb8(),
    };
    RgbImage::from_raw(width, height, pixels).unwrap_or_default()
}

/// Repeats grey (1 or 2 channels) three times; drops the alpha of 2 or 4 channels.
fn three_channels<S: Copy>(samples: &[S], channels: usize, to_byte: impl Fn(S) -> u8) -> Vec<u8> {
    let picks = if channels < 3 { [0, 0, 0] } else { [0, 1, 2] };
    samples.chunks_exact(channels).flat_map(|pixel| picks.map(|pick| to_byte(pixel[pick]))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Cursor;

    use image::{GrayImage, ImageBuffer, Luma, LumaA, Rgb, Rgba};
    use proptest::prelude::*;

    use super::*;

    fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn sample() -> RgbImage {
        RgbImage::from_fn(23, 17, |x, y| Rgb([(x * 11) as u8, (y * 15) as u8, (x * y) as u8]))
    }

    fn reason(bytes: &[u8]) -> String {
        match decode(bytes, 3).unwrap_err() {
            Error::Image { index: 3, reason } => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lossless_formats_come_back_exactly() {
        for format in [ImageFormat::Png, ImageFormat::WebP] {
            assert_eq!(decode(&encode(sample(), format), 0).unwrap(), sample());
        }
        let two = RgbImage::from_fn(8, 8, |x, _| if x < 4 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) });
        assert_eq!(decode(&encode(two.clone(), ImageFormat::Gif), 0).unwrap(), two);
    }

    #[test]
    fn jpeg_comes_back_nearly() {
        let grey = GrayImage::from_fn(40, 30, |x, y| Luma([(x * 3 + y * 4) as u8]));
        let got = decode(&encode(grey.clone(), ImageFormat::Jpeg), 0).unwrap();
        assert!(got.pixels().zip(grey.pixels()).all(|(a, b)| a[0] == a[2] && a[0].abs_diff(b[0]) < 24));
    }

    #[test]
    fn alpha_is_dropped_and_16_bits_keep_the_high_byte() {
        let rgba = ImageBuffer::from_pixel(2, 1, Rgba([9u8, 8, 7, 0]));
        assert_eq!(decode(&encode(rgba, ImageFormat::Png), 0).unwrap().into_raw(), [9, 8, 7, 9, 8, 7]);
        let grey = ImageBuffer::from_pixel(1, 1, LumaA([0x12ff_u16, 0]));
        assert_eq!(decode(&encode(grey, ImageFormat::Png), 0).unwrap().into_raw(), [0x12; 3]);
        let deep = ImageBuffer::from_pixel(1, 1, Luma([0x80ff_u16]));
        assert_eq!(decode(&encode(deep, ImageFormat::Png), 0).unwrap().into_raw(), [0x80; 3]);
    }

    #[test]
    fn orientation_comes_from_exif_or_else_xmp() {
        // A little-endian TIFF header and one directory entry: tag 0x112, short, one value.
        let exif = |value: u8| {
            let entry = [0x12, 0x01, 3, 0, 1, 0, 0, 0, value, 0, 0, 0];
            [&b"Exif\0\0II*\0\x08\0\0\0\x01\0"[..], &entry[..], &[0; 4][..]].concat()
        };
        let plain = encode(RgbImage::from_fn(24, 8, |x, _| Rgb([(x * 10) as u8; 3])), ImageFormat::Jpeg);
        let with = |segment: Vec<u8>| {
            let length = ((segment.len() + 2) as u16).to_be_bytes();
            [&plain[..2], &[0xff, 0xe1], &length, &segment, &plain[2..]].concat()
        };
        let xmp = b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation=\"8\"/>".to_vec();
        let upright = decode(&plain, 0).unwrap();
        assert_eq!(decode(&with(exif(1)), 0).unwrap(), upright);
        assert_eq!(decode(&with(exif(6)), 0).unwrap(), image::imageops::rotate90(&upright));
        assert_eq!(decode(&with(exif(2)), 0).unwrap(), image::imageops::flip_horizontal(&upright));
        assert_eq!(decode(&with(xmp), 0).unwrap(), image::imageops::rotate270(&upright));
    }

    #[test]
    fn what_is_no_image_is_named() {
        assert!(reason(b"").starts_with("it has no bytes"));
        assert!(reason(b"<!DOCTYPE html><html>").starts_with("not an image but an HTML page;"));
        assert!(reason(&[0; 20]).starts_with("not an image of any known format;"));
        assert!(reason(b"P6\n1 1\n255\n\0\0\0").starts_with("PNM (PBM, PGM, PPM) images are not supported"));
        assert!(reason(b"BM\0\0\0\0\0\0\0\0\0\0\0\0\0\0").starts_with("BMP images are not supported"));
        assert!(reason(&vec![0; MAX_BYTES + 1]).contains("over the limit of 64 MiB"));
    }

    #[test]
    fn truncation_is_named() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
            let whole = encode(sample(), format);
            for keep in [30, whole.len() / 2, whole.len() * 3 / 4] {
                let said = reason(&whole[..keep]);
                assert!(said.starts_with("truncated") && said.contains(&format!("after {keep} bytes")), "{said}");
            }
        }
    }

    #[test]
    fn sizes_are_checked_before_decoding() {
        let gif = |width: u16, height: u16| {
            // One frame, as large as a frame can be.
            let frame = b",\0\0\0\0\xff\xff\xff\xff\x80\0\0\0\xff\xff\xff\x02\x02\x44\x01\0;";
            [b"GIF89a", &width.to_le_bytes()[..], &height.to_le_bytes(), &[0; 3], frame].concat()
        };
        assert!(reason(&gif(30_000, 30_000)).starts_with("30000 x 30000 pixels is over the limit of 100 megapixels"));
        assert!(reason(&gif(40_000, 1)).starts_with("40000 x 1 pixels is over the limit of 32768 a side"));
        assert!(reason(&gif(0, 5)).starts_with("0 x 5 pixels is empty"));
        assert!(reason(&gif(4, 4)).contains("memory limit"));

        let mut jpeg = encode(sample(), ImageFormat::Jpeg);
        let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        jpeg[frame + 5..frame + 9].copy_from_slice(&[0x75, 0x30, 0x75, 0x30]);
        assert!(reason(&jpeg).starts_with("30000 x 30000 pixels"));
    }

    #[test]
    fn a_metadata_chunk_cannot_claim_more_than_the_file() {
        let mut webp = encode(sample(), ImageFormat::WebP);
        webp.extend(b"EXIF\xf0\xff\xff\xff");
        assert!(reason(&webp).starts_with("truncated WebP"));
    }

    fn any_format() -> impl Strategy<Value = ImageFormat> {
        prop_oneof![Just(ImageFormat::Png), Just(ImageFormat::Jpeg), Just(ImageFormat::WebP), Just(ImageFormat::Gif)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..Default::default() })]

        #[test]
        fn damage_never_panics(
            format in any_format(),
            keep in 0.5..1.5f64,
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            let mut bytes = encode(sample(), format);
            let length = (bytes.len() as f64 * keep.min(1.0)) as usize;
            bytes.truncate(length);
            for (place, byte) in edits {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            let _ = decode(&bytes, 0);
        }

        #[test]
        fn noise_never_panics(format in any_format(), keep in 0..40usize, noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = encode(sample(), format);
            bytes.truncate(keep);
            bytes.extend(noise);
            let _ = decode(&bytes, 0);
        }
    }
}
