//! Escapes in string literals, which are Python's.

/// The text of a literal without its quotes. Anything that is no escape stays as it is.
pub(super) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(c) = rest.chars().next() else {
            out.push('\\');
            break;
        };
        rest = &rest[c.len_utf8()..];
        match c {
            '\n' => {}
            '\\' | '\'' | '"' => out.push(c),
            'a' => out.push('\u{7}'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\u{b}'),
            '0'..='7' => {
                let more = rest.bytes().take(2).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
                let digits = format!("{c}{}", &rest[..more]);
                out.push(u32::from_str_radix(&digits, 8).ok().and_then(char::from_u32).unwrap_or('\u{fffd}'));
                rest = &rest[more..];
            }
            'x' | 'u' | 'U' => {
                let length = match c {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                match code(rest, length) {
                    Some(first) => {
                        rest = &rest[length..];
                        let second = rest.strip_prefix("\\u").and_then(|rest| code(rest, 4));
                        match (first, second) {
                            (0xd800..=0xdbff, Some(second @ 0xdc00..=0xdfff)) => {
                                let joined = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                                out.push(char::from_u32(joined).unwrap_or('\u{fffd}'));
                                rest = &rest[6..];
                            }
                            _ => out.push(char::from_u32(first).unwrap_or('\u{fffd}')),
                        }
                    }
                    None => out.extend(['\\', c]),
                }
            }
            _ => out.extend(['\\', c]),
        }
    }
    out.push_str(rest);
    out
}

fn code(text: &str, length: usize) -> Option<u32> {
    let digits = text.get(..length)?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}
