//! New inputs from old ones.

use crate::json;
use crate::random::Random;
use crate::target::{Kind, Target};

/// Longest input that is made, in bytes.
const LONGEST: usize = 1 << 18;
const NUMBERS: [u64; 14] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// A changed copy of one input of the pool.
pub fn mutate(target: &Target, pool: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let other = random.pick(pool);
    let mut data = random.pick(pool).clone();
    for _ in 0..1 + random.below(4) {
        match target.kind {
            Kind::Bytes => bytes(&mut data, other, (target.words)(), random),
            Kind::Image => image(&mut data, other, random),
            Kind::Json => json_or_bytes(&mut data, other, (target.words)(), random),
            Kind::Safetensors => safetensors(&mut data, other, (target.words)(), random),
        }
    }
    data.truncate(LONGEST);
    data
}

/// One change that knows nothing of the format.
pub fn bytes(data: &mut Vec<u8>, other: &[u8], words: &[&str], random: &mut Random) {
    let at = random.below(data.len() + 1);
    match random.below(if words.is_empty() { 9 } else { 12 }) {
        0 if at < data.len() => data[at] ^= 1 << random.below(8),
        1 if at < data.len() => data[at] = random.draw() as u8,
        2 => data.truncate(at),
        3 => {
            let end = (at + 1 + random.below(32)).min(data.len());
            data.drain(at..end);
        }
        4 => {
            let end = (at + 1 + random.below(64)).min(data.len());
            let piece = data[at..end].to_vec();
            for _ in 0..1 + random.below(8) {
                data.splice(at..at, piece.iter().copied());
            }
        }
        5 => {
            let from = random.below(other.len() + 1);
            let end = (from + random.below(256)).min(other.len());
            data.splice(at..at, other[from..end].iter().copied());
        }
        6 => {
            data.truncate(at);
            data.extend_from_slice(&other[random.below(other.len() + 1)..]);
        }
        7 | 8 => number(data, at, random),
        _ if !words.is_empty() => {
            let word = random.pick(words).as_bytes();
            let end = if random.one_in(2) { at } else { (at + word.len()).min(data.len()) };
            data.splice(at..end, word.iter().copied());
        }
        _ => {}
    }
}

/// Overwrites a number of one to eight bytes, as lengths and sizes are written.
fn number(data: &mut [u8], at: usize, random: &mut Random) {
    let width = 1 << random.below(4);
    let value = *random.pick(&NUMBERS);
    let little = value.to_le_bytes();
    let mut big = little;
    big[..width].reverse();
    let digits = if random.one_in(2) { little } else { big };
    for (byte, digit) in data.iter_mut().skip(at).zip(&digits[..width]) {
        *byte = *digit;
    }
}

/// A change after which a PNG's checksums mostly hold again: else nothing behind them would be reached. The first byte is the
/// processor's.
fn image(data: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    match random.below(4) {
        // Widths and heights stand near the start of all formats.
        0 => {
            let at = random.below(data.len().min(64) + 1);
            number(data, at, random);
        }
        _ => bytes(data, other, &[], random),
    }
    if !random.one_in(8) {
        mend_png(data.get_mut(1..).unwrap_or_default());
    }
}

fn mend_png(data: &mut [u8]) {
    let mut at = 8;
    while let Some(head) = data.get(at..at + 8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(end) = at.checked_add(8 + length).filter(|end| end + 4 <= data.len()) else { return };
        let sum = crc(&data[at + 4..end]).to_be_bytes();
        data[end..end + 4].copy_from_slice(&sum);
        at = end + 4;
    }
}

fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    };
    !bytes.iter().fold(!0, step)
}

fn json_or_bytes(data: &mut Vec<u8>, other: &[u8], words: &[&str], random: &mut Random) {
    let parsed = if random.one_in(12) { None } else { serde_json::from_slice(data).ok() };
    match parsed {
        Some(mut value) => {
            json::change(&mut value, words, random);
            *data = value.to_string().into_bytes();
        }
        None => bytes(data, other, words, random),
    }
}

/// Changes the header as JSON, its length, or the bytes.
fn safetensors(data: &mut Vec<u8>, other: &[u8], words: &[&str], random: &mut Random) {
    let header = data.first_chunk::<8>().map(|length| u64::from_le_bytes(*length) as usize);
    let end = header.and_then(|length| length.checked_add(8)).filter(|end| *end <= data.len());
    let parsed = end.and_then(|end| serde_json::from_slice(&data[8..end]).ok());
    match (parsed, end) {
        (Some(mut value), Some(end)) if !random.one_in(6) => {
            json::change(&mut value, words, random);
            let text = value.to_string();
            let rest = data.split_off(end);
            *data = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &rest].concat();
        }
        _ if random.one_in(3) => number(data, 0, random),
        _ => bytes(data, other, words, random),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_png() {
        assert_eq!(crc(b"IEND"), 0xae42_6082);
    }

    #[test]
    fn the_same_seed_makes_the_same_inputs() {
        let target = &crate::TARGETS[0];
        let pool = (target.seeds)();
        let make = || {
            let mut random = Random::new(7);
            (0..50).map(|_| mutate(target, &pool, &mut random)).collect::<Vec<_>>()
        };
        let made = make();
        assert!(made == make() && made.windows(2).any(|pair| pair[0] != pair[1]));
    }
}
