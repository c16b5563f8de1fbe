//! The part of a PNG file that the decoder gets to see.

use std::borrow::Cow;

const SIGNATURE: usize = 8;
/// Length, type and checksum of a chunk.
const FRAME: usize = 12;
/// Most bytes of metadata in which an orientation is looked for.
const MAX_METADATA: usize = 1 << 20;

/// The file without the chunks that no pixel and no orientation comes from: texts and colour profiles, which may be compressed a
/// thousandfold and which the decoder would unpack, and the frames of an animation after the picture itself. A file whose chunks
/// do not lie inside of it is left as it is from there on, for the decoder to refuse.
pub(super) fn without_ancillary(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut kept = Vec::new();
    // How far the file has been read, and where the run of chunks that stay began.
    let (mut at, mut run) = (SIGNATURE.min(bytes.len()), 0);
    while let Some(length) = chunk(&bytes[at..]) {
        let end = at + FRAME + length;
        if !is_needed(&bytes[at + 4..end - 4]) {
            kept.extend_from_slice(&bytes[run..at]);
            run = end;
        }
        at = end;
    }
    if run == 0 {
        return Cow::Borrowed(bytes);
    }
    kept.extend_from_slice(&bytes[run..]);
    Cow::Owned(kept)
}

/// The length of the data of the chunk at the start of `rest`, if all of it is there.
fn chunk(rest: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
    (rest.len() >= FRAME && length <= rest.len() - FRAME).then_some(length)
}

/// `chunk` is the type with the data.
fn is_needed(chunk: &[u8]) -> bool {
    let (kind, data) = chunk.split_at(4);
    match kind {
        b"IHDR" | b"PLTE" | b"IDAT" | b"IEND" | b"tRNS" => true,
        b"eXIf" => data.len() <= MAX_METADATA,
        // XMP: the keyword, then the flag and the method of a compression.
        b"iTXt" => data.starts_with(b"XML:com.adobe.xmp\0\0") && data.len() <= MAX_METADATA,
        // A critical chunk that is not known is the decoder's to refuse.
        _ => kind[0].is_ascii_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
        let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
        for (kind, data) in chunks {
            file.extend((data.len() as u32).to_be_bytes());
            file.extend(*kind);
            file.extend(*data);
            file.extend([0; 4]);
        }
        file
    }

    #[test]
    fn what_gives_pixels_and_orientation_stays() {
        let plain: [(&[u8; 4], &[u8]); 6] = [
            (b"IHDR", &[1; 13]),
            (b"tRNS", &[2; 2]),
            (b"eXIf", b"II*"),
            (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>"),
            (b"IDAT", &[3; 50]),
            (b"IEND", &[]),
        ];
        let whole = file(&plain);
        assert!(matches!(without_ancillary(&whole), Cow::Borrowed(_)));
        let stray: [(&[u8; 4], &[u8]); 7] = [
            (b"iCCP", &[9; 400]),
            (b"zTXt", &[9; 3]),
            (b"tEXt", &[]),
            (b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0xx"),
            (b"iTXt", b"Comment\0\0\0\0\0xx"),
            (b"fdAT", &[9; 30]),
            (b"prVt", &[9; 30]),
        ];
        for (number, one) in stray.iter().enumerate() {
            for place in 1..plain.len() {
                let mut chunks = plain.to_vec();
                chunks.insert(place, *one);
                chunks.insert(place, stray[(number + 1) % stray.len()]);
                assert_eq!(without_ancillary(&file(&chunks)), whole);
            }
        }
    }

    #[test]
    fn damage_is_left_for_the_decoder() {
        let whole = file(&[(b"IHDR", &[1; 13]), (b"tEXt", &[9; 20]), (b"IDAT", &[3; 50])]);
        for keep in 0..whole.len() {
            let seen = without_ancillary(&whole[..keep]);
            assert!(seen.len() == keep || seen.len() == keep - 32, "{keep}: {}", seen.len());
            assert!(keep < 9 || seen.ends_with(&whole[keep - 1..keep]) || seen.len() < keep);
        }
        assert_eq!(without_ancillary(b"GIF"), &b"GIF"[..]);
    }
}
