//! Arrays of numbers in JSON: base64 of 32-bit little-endian values.

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Numbers as base64.
pub(crate) fn floats(numbers: impl Iterator<Item = f32>) -> String {
    base64(numbers.flat_map(f32::to_le_bytes))
}

/// Whole numbers as base64.
pub(crate) fn whole(numbers: impl Iterator<Item = u32>) -> String {
    base64(numbers.flat_map(u32::to_le_bytes))
}

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
