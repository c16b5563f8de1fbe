//! Arrays of numbers in JSON: base64 of little-endian values.

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Numbers as base64.
pub(crate) fn floats(numbers: impl Iterator<Item = f32>) -> String {
    base64(numbers.flat_map(f32::to_le_bytes))
}

/// Whole numbers as base64.
pub(crate) fn whole(numbers: impl Iterator<Item = u32>) -> String {
    base64(numbers.flat_map(u32::to_le_bytes))
}

/// Whole numbers of 8 bits as base64.
pub(crate) fn bytes(numbers: impl Iterator<Item = i8>) -> String {
    base64(numbers.map(|number| number as u8))
}

/// The numbers of [`bytes`]; None for a text that is none of its own.
pub(crate) fn read_bytes(text: &str) -> Option<Vec<i8>> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let mut numbers = Vec::with_capacity(text.len() / 4 * 3);
    for word in digits.as_bytes().chunks(4) {
        let mut bits = 0;
        for digit in word {
            bits = bits << 6 | u32::from(VALUES[usize::from(*digit)]?);
        }
        let missing = 4 - word.len();
        let [_, three @ ..] = (bits << (6 * missing)).to_be_bytes();
        numbers.extend(three[..3 - missing].iter().map(|byte| *byte as i8));
    }
    Some(numbers)
}

/// The value of each digit.
const VALUES: [Option<u8>; 256] = {
    let mut values = [None; 256];
    let mut value = 0;
    while value < DIGITS.len() {
        values[DIGITS[value] as usize] = Some(value as u8);
        value += 1;
    }
    values
};

fn base64(mut bytes: impl Iterator<Item = u8>) -> String {
    let mut text = String::new();
    while let Some(first) = bytes.next() {
        let rest = [bytes.next(), bytes.next()];
        let word = u32::from(first) << 16 | u32::from(rest[0].unwrap_or(0)) << 8 | u32::from(rest[1].unwrap_or(0));
        let digits = 2 + rest.iter().flatten().count();
        (0..4).for_each(|index| {
            let digit = DIGITS[(word >> (18 - 6 * index) & 63) as usize];
            text.push(if index < digits { digit as char } else { '=' });
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_eight_bits_come_back() {
        for count in 0..70 {
            let numbers: Vec<i8> = (0..count).map(|i| (i * 37 % 256) as u8 as i8).collect();
            assert_eq!(read_bytes(&bytes(numbers.iter().copied())), Some(numbers));
        }
        for broken in ["A", "AA", "AAA", "A===", "====", "AA=A", "AA\nA", "AAA*", "AA==AAAA", "\u{e9}AA"] {
            assert_eq!(read_bytes(broken), None, "{broken}");
        }
    }

    #[test]
    fn texts_are_those_of_rfc_4648() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.bytes()), text);
        }
        assert_eq!(floats([1.0, -2.5].into_iter()), "AACAPwAAIMA=");
        assert_eq!(whole([1, u32::MAX].into_iter()), "AQAAAP////8=");
    }
}
