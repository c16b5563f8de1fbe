//! Whether a file was cut off, for the two formats whose decoders do not tell it well.

use image::ImageFormat;

/// False if a JPEG or WebP file ends before its own structure says so; other formats are left to their decoders.
pub(super) fn is_whole(format: ImageFormat, bytes: &[u8]) -> bool {
    match format {
        ImageFormat::Jpeg => jpeg_has_end(bytes),
        ImageFormat::WebP => webp_chunks_fit(bytes),
        _ => true,
    }
}

/// Whether the chunks of the RIFF file lie inside of it.
///
/// The decoder allocates what a metadata chunk says it holds, up to 4 GiB, before it looks whether that is there.
fn webp_chunks_fit(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(12..).unwrap_or_default();
    while let Some((header, data)) = rest.split_first_chunk::<8>() {
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if length > data.len() {
            return false;
        }
        // Chunks are padded to even lengths; the last one's padding may be missing.
        rest = data.get(length + length % 2..).unwrap_or_default();
    }
    true
}

/// Whether the markers of a JPEG file run to its end-of-image marker.
///
/// The decoder fills what is missing with grey and reports success; Pillow, and this library, refuse such a file.
fn jpeg_has_end(bytes: &[u8]) -> bool {
    const END_OF_IMAGE: u8 = 0xd9;
    let mut rest = bytes.get(2..).unwrap_or_default();
    loop {
        // Entropy-coded data, and stray bytes between segments, hold no marker: 0xff is stuffed with 0 there.
        let Some(at) = rest.windows(2).position(|pair| pair[0] == 0xff && is_marker(pair[1])) else {
            return false;
        };
        let marker = rest[at + 1];
        rest = &rest[at + 2..];
        match marker {
            END_OF_IMAGE => return true,
            // Start of image and restarts have no length.
            0x01 | 0xd0..=0xd8 => {}
            _ => {
                let Some((length, _)) = rest.split_first_chunk() else { return false };
                let length = usize::from(u16::from_be_bytes(*length));
                let Some(after) = rest.get(length..) else { return false };
                rest = after;
            }
        }
    }
}

fn is_marker(byte: u8) -> bool {
    byte != 0 && byte != 0xff
}
