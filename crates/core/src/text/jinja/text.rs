//! Strings that remember where their parts come from, through everything a template does with them.

use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use super::budget;
use super::fail::Res;

/// Bytes counted for a string beside its own.
const OVERHEAD: usize = 96;

/// Where a part of a string comes from. Parts without a mark were written by the template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Text of a message.
    Input,
    /// Stands for the picture with this number.
    Picture(u32),
    /// The text of an image placeholder that the template wrote at this place of its source.
    Literal(u32),
}

/// The origin of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) bytes: Range<usize>,
    pub(crate) origin: Origin,
}

/// An immutable string with marks in order, without overlaps.
#[derive(Clone)]
pub(crate) struct Text(Rc<Inner>);

struct Inner {
    text: Box<str>,
    marks: Vec<Mark>,
    chars: usize,
}

fn size(text: &str, marks: &[Mark]) -> usize {
    text.len() + size_of_val(marks) + OVERHEAD
}

impl Drop for Inner {
    fn drop(&mut self) {
        budget::release(size(&self.text, &self.marks));
    }
}

impl Text {
    fn new(text: String, marks: Vec<Mark>) -> Text {
        budget::held(size(&text, &marks));
        let chars = text.chars().count();
        Text(Rc::new(Inner { text: text.into_boxed_str(), marks, chars }))
    }

    /// Text of the template.
    pub(crate) fn plain(text: impl Into<String>) -> Text {
        Text::new(text.into(), Vec::new())
    }

    /// Text that is all of one origin.
    pub(crate) fn of(text: impl Into<String>, origin: Origin) -> Text {
        let text = text.into();
        let marks = if text.is_empty() { Vec::new() } else { vec![Mark { bytes: 0..text.len(), origin }] };
        Text::new(text, marks)
    }

    /// Like [`Text::plain`], with every occurrence of `word` marked.
    pub(crate) fn with_literals(text: &str, word: &str, origin: Origin) -> Text {
        let found = text.match_indices(word).map(|(at, word)| Mark { bytes: at..at + word.len(), origin });
        let marks = if word.is_empty() { Vec::new() } else { found.collect() };
        Text::new(text.to_owned(), marks)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0.text
    }

    pub(crate) fn marks(&self) -> &[Mark] {
        &self.0.marks
    }

    /// Length as Python counts it.
    pub(super) fn chars(&self) -> usize {
        self.0.chars
    }

    pub(super) fn is_ascii(&self) -> bool {
        self.0.chars == self.0.text.len()
    }

    /// The byte at which a character begins; the end for what is past it.
    pub(super) fn byte_of(&self, char: usize) -> usize {
        if self.is_ascii() {
            return char.min(self.0.text.len());
        }
        self.0.text.char_indices().nth(char).map_or(self.0.text.len(), |(byte, _)| byte)
    }

    /// The number of the character at a byte.
    pub(super) fn char_of(&self, byte: usize) -> usize {
        if self.is_ascii() { byte } else { self.0.text[..byte].chars().count() }
    }

    pub(super) fn slice(&self, bytes: Range<usize>) -> Res<Text> {
        if bytes == (0..self.0.text.len()) {
            return Ok(self.clone());
        }
        let mut out = Builder::default();
        out.slice(self, bytes)?;
        Ok(out.finish())
    }

    /// The characters with what each comes from.
    pub(super) fn origins(&self) -> impl Iterator<Item = (usize, char, Option<Origin>)> {
        let mut marks = self.0.marks.iter().peekable();
        self.0.text.char_indices().map(move |(at, c)| {
            while marks.next_if(|mark| mark.bytes.end <= at).is_some() {}
            (at, c, marks.peek().filter(|mark| mark.bytes.start <= at).map(|mark| mark.origin))
        })
    }

    /// The string with each character replaced.
    pub(super) fn map_chars<I: IntoIterator<Item = char>>(&self, mut map: impl FnMut(usize, char) -> I) -> Res<Text> {
        budget::rewrite(self.0.text.len())?;
        let mut out = Builder::default();
        for (at, c, origin) in self.origins() {
            for c in map(at, c) {
                out.char(c, origin)?;
            }
        }
        Ok(out.finish())
    }

    /// The same text with every [`Origin::Literal`] said to be from elsewhere.
    pub(super) fn relabelled(&self, place: u32) -> Text {
        let relabel = |mark: &Mark| {
            let origin = if let Origin::Literal(_) = mark.origin { Origin::Literal(place) } else { mark.origin };
            Mark { bytes: mark.bytes.clone(), origin }
        };
        Text::new(self.0.text.to_string(), self.0.marks.iter().map(relabel).collect())
    }

    pub(super) fn has_literal(&self) -> bool {
        self.0.marks.iter().any(|mark| matches!(mark.origin, Origin::Literal(_)))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// A string that grows, within the budget.
#[derive(Default)]
pub(crate) struct Builder {
    text: String,
    marks: Vec<Mark>,
}

impl Builder {
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    fn reserve(&mut self, bytes: usize, marks: usize) -> Res<()> {
        if self.text.len() + bytes > self.text.capacity() {
            // A growing buffer takes up to twice what it holds.
            budget::room(2 * (self.text.len() + bytes))?;
        }
        if self.marks.len() + marks > self.marks.capacity() {
            budget::room(2 * (self.marks.len() + marks) * size_of::<Mark>())?;
        }
        Ok(())
    }

    fn mark(&mut self, bytes: Range<usize>, origin: Origin) {
        match self.marks.last_mut() {
            Some(last) if last.origin == origin && last.bytes.end == bytes.start => last.bytes.end = bytes.end,
            _ => self.marks.push(Mark { bytes, origin }),
        }
    }

    /// Text of the template.
    pub(crate) fn str(&mut self, text: &str) -> Res<()> {
        budget::copy(text.len())?;
        self.reserve(text.len(), 0)?;
        self.text.push_str(text);
        Ok(())
    }

    pub(super) fn char(&mut self, c: char, origin: Option<Origin>) -> Res<()> {
        self.reserve(c.len_utf8(), 1)?;
        let start = self.text.len();
        self.text.push(c);
        if let Some(origin) = origin {
            self.mark(start..self.text.len(), origin);
        }
        Ok(())
    }

    pub(super) fn repeat(&mut self, c: char, times: usize) -> Res<()> {
        let bytes = times.saturating_mul(c.len_utf8());
        budget::copy(bytes)?;
        budget::room(bytes.saturating_mul(2))?;
        self.text.extend(std::iter::repeat_n(c, times));
        Ok(())
    }

    pub(crate) fn text(&mut self, text: &Text) -> Res<()> {
        self.slice(text, 0..text.as_str().len())
    }

    pub(super) fn slice(&mut self, text: &Text, bytes: Range<usize>) -> Res<()> {
        budget::copy(bytes.len())?;
        let marks = text.marks();
        let first = marks.partition_point(|mark| mark.bytes.end <= bytes.start);
        let marks = &marks[first..];
        let marks = &marks[..marks.partition_point(|mark| mark.bytes.start < bytes.end)];
        budget::work(marks.len())?;
        self.reserve(bytes.len(), marks.len())?;
        let start = self.text.len();
        self.text.push_str(&text.as_str()[bytes.clone()]);
        for mark in marks {
            let within = mark.bytes.start.max(bytes.start)..mark.bytes.end.min(bytes.end);
            self.mark(start + within.start - bytes.start..start + within.end - bytes.start, mark.origin);
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Text {
        Text::new(self.text, self.marks)
    }
}
