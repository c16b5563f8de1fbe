//! Formats that are recognised to name them, never to read them.
//!
//! A message names a format and quotes nothing: the bytes may be any file that a path or an address has led to.

/// How many bytes are looked at.
const HEAD: usize = 512;

/// Something that bytes begin like.
#[derive(Debug, PartialEq)]
pub(super) enum Resemblance {
    /// An image format, by its name.
    Image(&'static str),
    /// Something else, in words.
    Other(&'static str),
}

use Resemblance::{Image, Other};

/// Guesses from their beginning what bytes are that hold no supported image.
pub(super) fn resemblance(bytes: &[u8]) -> Option<Resemblance> {
    let head = &bytes[..bytes.len().min(HEAD)];
    iso_media(head).or_else(|| magic(head)).or_else(|| markup(head)).or_else(|| tga(bytes)).or_else(|| plain_text(head))
}

/// Files of the ISO base media format name their brands behind `ftyp`: the main one, a version, then those they also are.
fn iso_media(head: &[u8]) -> Option<Resemblance> {
    let size = u32::from_be_bytes(head.get(..4)?.try_into().ok()?) as usize;
    if head.get(4..8)? != b"ftyp" {
        return None;
    }
    let end = if size < 8 { head.len() } else { size.min(head.len()) };
    let brands = || head.get(8..end).unwrap_or_default().chunks_exact(4);
    let any = |names: &[&[u8; 4]]| brands().any(|brand| names.iter().any(|name| brand == *name));
    // HEVC first: its files are `mif1` too, as those of AV1 are.
    Some(if any(&[b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"]) {
        Image("HEIC")
    } else if any(&[b"avif", b"avis"]) {
        Image("AVIF")
    } else if any(&[b"mif1", b"msf1", b"mif2", b"heif", b"jpeg", b"avci", b"vvic"]) {
        Image("HEIC (HEIF)")
    } else if any(&[b"crx "]) {
        Image("Canon CR3 raw")
    } else {
        Other("a video (MP4 or QuickTime)")
    })
}

fn magic(head: &[u8]) -> Option<Resemblance> {
    const STARTS: &[(&[u8], Resemblance)] = &[
        (b"\0\0\0\x0cjP  \r\n\x87\n", Image("JPEG 2000")),
        (b"\xff\x4f\xff\x51", Image("JPEG 2000")),
        (b"\0\0\0\x0cJXL \r\n\x87\n", Image("JPEG XL")),
        (b"\xff\x0a", Image("JPEG XL")),
        (b"8BPS", Image("Photoshop (PSD)")),
        (b"gimp xcf", Image("GIMP (XCF)")),
        (b"FLIF", Image("FLIF")),
        (b"BPG\xfb", Image("BPG")),
        (b"icns", Image("ICNS")),
        (b"FUJIFILMCCD-RAW", Image("Fujifilm raw")),
        (b"%!PS", Other("a PostScript file")),
        (b"%PDF-", Other("a PDF; save its pages as images")),
        (b"PK\x03\x04", Other("a ZIP archive or an Office document")),
        (b"\x1f\x8b", Other("a gzip archive")),
        (b"BZh", Other("a bzip2 archive")),
        (b"\xfd7zXZ\0", Other("an xz archive")),
        (b"\x28\xb5\x2f\xfd", Other("a Zstandard archive")),
        (b"7z\xbc\xaf\x27\x1c", Other("a 7-Zip archive")),
        (b"Rar!\x1a\x07", Other("a RAR archive")),
        (b"\x1aE\xdf\xa3", Other("a video (Matroska or WebM)")),
        (b"OggS", Other("an Ogg file")),
        (b"ID3", Other("a sound file (MP3)")),
        (b"fLaC", Other("a sound file (FLAC)")),
        (b"\x7fELF", Other("a program")),
        (b"MZ", Other("a program")),
        (b"GGUF", Other("a model (GGUF)")),
        (b"SQLite format 3\0", Other("a database")),
        (b"\x93NUMPY", Other("a NumPy array; save it as an image")),
        (b"version https://git-lfs", Other("a pointer of Git LFS; fetch the file itself")),
        (b"data:", Other("a data URL; pass it as a string")),
    ];
    // A number for a width after the letters would be a BMP or a PNM, which are known.
    if head.starts_with(b"RIFF") && head.len() >= 12 {
        return Some(match &head[8..12] {
            b"WAVE" => Other("a sound file (WAV)"),
            b"AVI " => Other("a video (AVI)"),
            _ => return None,
        });
    }
    STARTS.iter().find(|(start, _)| head.starts_with(start)).map(|(_, what)| match what {
        Image(name) => Image(name),
        Other(words) => Other(words),
    })
}

fn markup(head: &[u8]) -> Option<Resemblance> {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let lower = head.to_ascii_lowercase();
    let has = |part: &[u8]| lower.windows(part.len()).any(|window| window == part);
    match lower.first()? {
        b'<' if has(b"<svg") => Some(Image("SVG")),
        b'<' if has(b"<html") || has(b"<!doctype html") || has(b"<head") || has(b"<body") => {
            Some(Other("an HTML page"))
        }
        b'<' if lower.starts_with(b"<?xml") => Some(Other("an XML document")),
        b'{' | b'[' if std::str::from_utf8(head).is_ok() || head.len() > HEAD - 4 => Some(Other("a JSON text")),
        _ if looks_like_base64(head) => Some(Other("a base64 text; decode it, or pass it as a data: URL")),
        _ => None,
    }
}

/// A TGA has no mark at its start; its header must make sense.
fn tga(bytes: &[u8]) -> Option<Resemblance> {
    if bytes.ends_with(b"TRUEVISION-XFILE.\0") {
        return Some(Image("TGA"));
    }
    let [_, colours, kind, ..] = bytes.get(..18)? else { return None };
    let number = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let depth = match kind {
        1 | 9 => *colours == 1 && bytes[16] == 8,
        2 | 10 => *colours == 0 && matches!(bytes[16], 15 | 16 | 24 | 32),
        3 | 11 => *colours == 0 && matches!(bytes[16], 8 | 16),
        _ => false,
    };
    (depth && number(12) > 0 && number(14) > 0 && bytes[17] & 0xc0 == 0).then_some(Image("TGA"))
}

fn looks_like_base64(head: &[u8]) -> bool {
    head.len() >= 64
        && head.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=-_\r\n".contains(byte))
        && [&b"iVBORw0KGgo"[..], b"/9j/", b"R0lGOD", b"UklGR"].iter().any(|start| head.starts_with(start))
}

fn plain_text(head: &[u8]) -> Option<Resemblance> {
    let printable = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace() || *byte >= 0x80;
    let valid = match std::str::from_utf8(head) {
        Ok(_) => true,
        // A character may be cut at the end of what is looked at.
        Err(error) => error.error_len().is_none(),
    };
    (head.len() >= 4 && valid && head.iter().all(printable)).then_some(Other("a text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iso(brands: &[&[u8; 4]]) -> Vec<u8> {
        let mut bytes = ((16 + 4 * (brands.len() - 1)) as u32).to_be_bytes().to_vec();
        bytes.extend(b"ftyp");
        bytes.extend(brands[0]);
        bytes.extend([0; 4]);
        brands[1..].iter().for_each(|brand| bytes.extend(*brand));
        bytes.extend(b"\0\0\0\x08meta");
        bytes
    }

    #[test]
    fn photos_of_phones_are_named() {
        for brands in [
            &[b"heic", b"mif1", b"heic"][..],
            &[b"heix", b"mif1"],
            &[b"hevc", b"msf1"],
            &[b"mif1", b"heic"],
            &[b"mif1", b"miaf", b"heix"],
        ] {
            assert_eq!(resemblance(&iso(brands)), Some(Image("HEIC")), "{brands:?}");
        }
        assert_eq!(resemblance(&iso(&[b"mif1"])), Some(Image("HEIC (HEIF)")));
        assert_eq!(resemblance(&iso(&[b"mif1", b"avif"])), Some(Image("AVIF")));
        assert_eq!(resemblance(&iso(&[b"isom", b"mp42"])), Some(Other("a video (MP4 or QuickTime)")));
        assert_eq!(resemblance(&iso(&[b"qt  "])), Some(Other("a video (MP4 or QuickTime)")));
        // The size of the box may be anything.
        for size in [0u32, 1, 8, 9, u32::MAX] {
            let mut bytes = iso(&[b"heic"]);
            bytes[..4].copy_from_slice(&size.to_be_bytes());
            assert!(resemblance(&bytes).is_some());
        }
    }

    #[test]
    fn other_images_are_named() {
        let tga = |kind: u8, depth: u8| [0, 0, kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 4, 0, depth, 0, 9, 9, 9];
        for (bytes, name) in [
            (&b"\0\0\0\x0cjP  \r\n\x87\n\0\0"[..], "JPEG 2000"),
            (b"\xff\x4f\xff\x51\0\x2f", "JPEG 2000"),
            (b"\xff\x0a\xfa\x7f", "JPEG XL"),
            (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
            (b"8BPS\0\x01", "Photoshop (PSD)"),
            (b"  <?xml version=\"1.0\"?>\n<svg xmlns=", "SVG"),
            (b"\xef\xbb\xbf<svg>", "SVG"),
            (&tga(2, 24), "TGA"),
            (&tga(10, 32), "TGA"),
            (&tga(3, 8), "TGA"),
        ] {
            assert_eq!(resemblance(bytes), Some(Image(name)), "{name}");
        }
    }

    #[test]
    fn what_is_no_image_is_named_and_not_quoted() {
        for (bytes, what) in [
            (&b"root:x:0:0:root:/root:/bin/bash\n"[..], "a text"),
            (b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn", "a text"),
            (b"AKIA_SECRET=abc", "a text"),
            ("t\u{e9}l\u{e9}phone".as_bytes(), "a text"),
            (b"\n\n<!doctype HTML><p>", "an HTML page"),
            (b"<HTML><body>", "an HTML page"),
            (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code>", "an XML document"),
            (b"{\"error\": \"not found\"}", "a JSON text"),
            (b"%PDF-1.7", "a PDF; save its pages as images"),
            (b"RIFF\0\0\0\0WAVEfmt ", "a sound file (WAV)"),
            (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS; fetch the file itself"),
            (b"\x93NUMPY\x01\0", "a NumPy array; save it as an image"),
        ] {
            assert_eq!(resemblance(bytes), Some(Other(what)));
        }
        let text = [&b"/9j/4AAQSkZJRgABAQ"[..], &[b'A'; 100]].concat();
        assert!(matches!(resemblance(&text), Some(Other(what)) if what.starts_with("a base64 text")));
        for nothing in [&[][..], &[0], &[0; 600], &[0xff; 600], &[1, 2, 3], b"\x80\x81\x82\x83"] {
            assert_eq!(resemblance(nothing), None);
        }
    }

    #[test]
    fn any_bytes_are_looked_at() {
        for length in 0..40 {
            for byte in 0..=255 {
                let _ = resemblance(&vec![byte; length]);
            }
        }
    }
}
