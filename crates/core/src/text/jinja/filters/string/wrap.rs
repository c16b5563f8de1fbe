//! `wordwrap`: Python's `textwrap.wrap` of each line.

use std::ops::Range;

use super::super::super::budget;
use super::super::super::fail::Res;
use super::super::super::methods::pieces::{self, is_space};
use super::super::super::text::{Builder, Text};

pub(super) fn wordwrap(text: &Text, width: usize, long: bool, hyphens: bool, separator: &Text) -> Res<Text> {
    let mut out = Builder::default();
    for (index, line) in pieces::lines(text, false)?.iter().enumerate() {
        if index > 0 {
            out.text(separator)?;
        }
        wrap(line, width, long, hyphens, separator, &mut out)?;
    }
    Ok(out.finish())
}

fn wrap(line: &Text, width: usize, long: bool, hyphens: bool, separator: &Text, out: &mut Builder) -> Res<()> {
    let source = line.as_str();
    budget::scan(source.len())?;
    budget::room(source.len().saturating_mul(32))?;
    let mut chunks = chunks(source, hyphens);
    chunks.reverse();
    let count = |chunk: &Range<usize>| source[chunk.clone()].chars().count();
    let blank = |chunk: &Range<usize>| source[chunk.clone()].chars().all(is_space);
    let mut first = true;
    while !chunks.is_empty() {
        let mut row: Vec<Range<usize>> = Vec::new();
        let mut length = 0;
        if !first && chunks.last().is_some_and(&blank) {
            chunks.pop();
        }
        while let Some(chunk) = chunks.last() {
            let next = count(chunk);
            if length + next > width {
                break;
            }
            length += next;
            row.extend(chunks.pop());
        }
        budget::work(row.len() + 1)?;
        if let Some(chunk) = chunks.last().filter(|chunk| count(chunk) > width).cloned() {
            let left = width - length;
            if long {
                let text = &source[chunk.clone()];
                let mut cut = left;
                if hyphens && text.chars().count() > left {
                    let head: String = text.chars().take(left).collect();
                    if let Some(at) = head.rfind('-').filter(|at| *at > 0 && head[..*at].chars().any(|c| c != '-')) {
                        cut = head[..at].chars().count() + 1;
                    }
                }
                let bytes = text.char_indices().nth(cut).map_or(text.len(), |(at, _)| at);
                row.push(chunk.start..chunk.start + bytes);
                chunks.pop();
                if chunk.start + bytes < chunk.end {
                    chunks.push(chunk.start + bytes..chunk.end);
                }
                budget::scan(text.len())?;
            } else if row.is_empty() {
                row.extend(chunks.pop());
            }
        }
        if row.last().is_some_and(&blank) {
            row.pop();
        }
        if let (Some(start), Some(end)) = (row.first(), row.last()) {
            if !first {
                out.text(separator)?;
            }
            out.slice(line, start.start..end.end)?;
            first = false;
        }
    }
    Ok(())
}

/// Words and the white space between them; with `hyphens`, words also end after a hyphen within them.
fn chunks(source: &str, hyphens: bool) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < source.len() {
        let rest = &source[at..];
        let space = rest.starts_with(is_space);
        let length = rest.find(|c: char| is_space(c) != space).unwrap_or(rest.len());
        match hyphens && !space {
            true => parts(source, at, at + length, &mut found),
            false => found.push(at..at + length),
        }
        at += length;
    }
    found
}

fn parts(source: &str, start: usize, end: usize, found: &mut Vec<Range<usize>>) {
    let word: Vec<(usize, char)> = source[start..end].char_indices().collect();
    let letter = |index: Option<usize>| index.and_then(|index| word.get(index)).is_some_and(|(_, c)| c.is_alphabetic());
    let is =
        |index: Option<usize>, wanted: char| index.and_then(|index| word.get(index)).is_some_and(|(_, c)| *c == wanted);
    let mut from = start;
    for (index, (at, c)) in word.iter().enumerate() {
        if *c != '-' {
            continue;
        }
        let back = |steps: usize| index.checked_sub(steps);
        let before = letter(back(1)) && (letter(back(2)) || (is(back(2), '-') && letter(back(3))));
        let after = letter(Some(index + 1))
            && (letter(Some(index + 2)) || (is(Some(index + 2), '-') && letter(Some(index + 3))));
        if before && after {
            found.push(from..start + at + 1);
            from = start + at + 1;
        }
    }
    if from < end {
        found.push(from..end);
    }
}
