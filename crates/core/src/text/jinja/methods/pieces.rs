//! Cutting strings, as Python does it.

use super::super::budget;
use super::super::fail::{Res, error};
use super::super::text::{Builder, Text};
use super::super::value::Value;

/// What Python takes as white space.
pub(in super::super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn ends_line(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Without the characters at its ends; white space if none are given.
pub(in super::super) fn strip(text: &Text, chars: Option<&str>, left: bool, right: bool) -> Res<Text> {
    let source = text.as_str();
    // Each character may be looked up among all of those.
    budget::work(chars.map_or(0, |chars| chars.len().saturating_mul(source.len()) / 16) + source.len() / 8)?;
    let strips = |c: char| chars.map_or(is_space(c), |chars| chars.contains(c));
    let start = if left { source.len() - source.trim_start_matches(strips).len() } else { 0 };
    let end = if right { start + source[start..].trim_end_matches(strips).len() } else { source.len() };
    text.slice(start..end)
}

/// Python's `split` and `rsplit`; at white space without a separator.
pub(in super::super) fn split(text: &Text, separator: Option<&str>, most: i64, from_right: bool) -> Res<Vec<Value>> {
    let source = text.as_str();
    budget::scan(source.len())?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut cuts = Vec::new();
    let mut keep = |cut: std::ops::Range<usize>| {
        cuts.push(cut);
        budget::work(8)?;
        budget::room(cuts.len().saturating_mul(160))
    };
    match separator {
        Some("") => return error("empty separator"),
        Some(separator) => {
            let mut ends: Vec<usize> = match from_right {
                true => source.rmatch_indices(separator).take(most).map(|(at, _)| at).collect(),
                false => source.match_indices(separator).take(most).map(|(at, _)| at).collect(),
            };
            if from_right {
                ends.reverse();
            }
            let mut start = 0;
            for end in ends {
                keep(start..end)?;
                start = end + separator.len();
            }
            keep(start..source.len())?;
        }
        None if from_right => {
            let mut rest = source.trim_end_matches(is_space);
            while !rest.is_empty() {
                let start = match cuts.len() < most {
                    true => {
                        rest.rfind(is_space).map_or(0, |at| at + rest[at..].chars().next().map_or(0, char::len_utf8))
                    }
                    false => 0,
                };
                cuts.push(start..rest.len());
                budget::work(8)?;
                budget::room(cuts.len().saturating_mul(160))?;
                rest = rest[..start].trim_end_matches(is_space);
            }
            cuts.reverse();
        }
        None => {
            let mut at = source.len() - source.trim_start_matches(is_space).len();
            while at < source.len() {
                let rest = &source[at..];
                let length = match cuts.len() < most {
                    true => rest.find(is_space).unwrap_or(rest.len()),
                    false => rest.len(),
                };
                cuts.push(at..at + length);
                budget::work(8)?;
                budget::room(cuts.len().saturating_mul(160))?;
                at += length;
                at += source[at..].len() - source[at..].trim_start_matches(is_space).len();
            }
        }
    }
    cuts.into_iter().map(|cut| text.slice(cut).map(Value::Text)).collect()
}

pub(in super::super) fn lines(text: &Text, keep_ends: bool) -> Res<Vec<Text>> {
    let source = text.as_str();
    budget::scan(source.len())?;
    let mut found = Vec::new();
    let mut start = 0;
    while start < source.len() {
        budget::room((found.len() + 1) * 160)?;
        let rest = &source[start..];
        let (length, end) = match rest.find(ends_line) {
            Some(at) if rest[at..].starts_with("\r\n") => (at, 2),
            Some(at) => (at, rest[at..].chars().next().map_or(0, char::len_utf8)),
            None => (rest.len(), 0),
        };
        found.push(text.slice(start..start + length + if keep_ends { end } else { 0 })?);
        start += length + end;
    }
    Ok(found)
}

/// At most `most` replacements; all for a negative number.
pub(in super::super) fn replace(text: &Text, old: &str, new: &Text, most: i64) -> Res<Text> {
    let source = text.as_str();
    budget::scan(source.len())?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut out = Builder::default();
    let mut start = 0;
    // An empty `old` matches before each character and at the end, as in Python.
    for (at, found) in source.match_indices(old).take(most) {
        out.slice(text, start..at)?;
        out.text(new)?;
        start = at + found.len();
    }
    out.slice(text, start..source.len())?;
    Ok(out.finish())
}

/// Padding on both sides, with the odd one where Python puts it.
pub(in super::super) fn center(text: &Text, width: usize, fill: char) -> Res<Text> {
    let padding = width.saturating_sub(text.chars());
    let before = padding / 2 + (padding & width & 1);
    let mut out = Builder::default();
    out.repeat(fill, before)?;
    out.text(text)?;
    out.repeat(fill, padding - before)?;
    Ok(out.finish())
}

/// A character of `source` in small letters; `Σ` at the end of a word is `ς`.
pub(super) fn lowered(source: &str, at: usize, c: char) -> Vec<char> {
    let cased = |c: char| c.is_lowercase() || c.is_uppercase();
    let ends_word = || {
        source[..at].chars().next_back().is_some_and(cased)
            && !source[at + c.len_utf8()..].chars().next().is_some_and(cased)
    };
    if c == 'Σ' && ends_word() { vec!['ς'] } else { c.to_lowercase().collect() }
}

/// A character as it begins a word: `ß` is `Ss`.
pub(super) fn titled(c: char) -> Vec<char> {
    let mut upper = c.to_uppercase();
    upper.next().into_iter().chain(upper.flat_map(char::to_lowercase)).collect()
}

pub(in super::super) fn lower(text: &Text) -> Res<Text> {
    text.map_chars(|at, c| lowered(text.as_str(), at, c))
}

pub(in super::super) fn upper(text: &Text) -> Res<Text> {
    text.map_chars(|_, c| c.to_uppercase())
}

pub(in super::super) fn capitalize(text: &Text) -> Res<Text> {
    text.map_chars(|at, c| if at == 0 { titled(c) } else { lowered(text.as_str(), at, c) })
}

pub(in super::super) fn join(separator: &Text, parts: &[Text]) -> Res<Text> {
    let mut out = Builder::default();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            out.text(separator)?;
        }
        out.text(part)?;
    }
    Ok(out.finish())
}
