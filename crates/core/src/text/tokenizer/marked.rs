//! Encoding a conversation of which it is known what each part is: an image, text of a message, or text of the template.
//!
//! This is what `tokenizers` does itself, but for added tokens that are not to be seen, and for images, which are tokens wherever they
//! stand and whatever they look like.

use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use tokenizers::tokenizer::normalizer::Range as Within;
use tokenizers::{
    AddedToken, Model, NormalizedString, Normalizer, OffsetType, PreTokenizedString, PreTokenizer, Token,
};

use super::super::template::Rendered;
use super::{Pipeline, SpecialTokens};

/// Stands for an image until its place is known; no vocabulary is as large.
pub(super) const PICTURE: u32 = u32::MAX;

/// The added tokens of a tokenizer, by how they are found.
pub(super) struct Matcher {
    raw: Set,
    normalized: Set,
}

struct Set {
    search: Option<AhoCorasick>,
    tokens: Vec<(u32, AddedToken)>,
}

impl Set {
    fn new(tokens: Vec<(String, u32, AddedToken)>) -> Result<Set, String> {
        let patterns = tokens.iter().map(|(pattern, ..)| pattern.as_str());
        let build = || AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(patterns);
        let search = if tokens.is_empty() { None } else { Some(build().map_err(|error| error.to_string())?) };
        Ok(Set { search, tokens: tokens.into_iter().map(|(_, id, token)| (id, token)).collect() })
    }
}

/// The parts of a conversation that decide how added tokens are read.
struct Parts<'a> {
    pictures: &'a [Range<usize>],
    said: &'a [Range<usize>],
    placeholders: &'a [u32],
    special: SpecialTokens,
}

impl Parts<'_> {
    /// Whether the text of an added token, at these bytes of the conversation, is that token.
    fn is_token(&self, id: u32, token: &AddedToken, at: &Range<usize>) -> bool {
        let as_text = self.special == SpecialTokens::Text && token.special && touches(self.said, at);
        !self.placeholders.contains(&id) && !as_text
    }
}

fn touches(ranges: &[Range<usize>], at: &Range<usize>) -> bool {
    let first = ranges.partition_point(|range| range.end <= at.start);
    ranges.get(first).is_some_and(|range| range.start < at.end)
}

type Piece = (NormalizedString, Option<Vec<Token>>);

impl Matcher {
    pub(super) fn new(tokenizer: &Pipeline) -> Result<Matcher, String> {
        let added = tokenizer.get_added_vocabulary();
        let (mut raw, mut normalized) = (Vec::new(), Vec::new());
        for (id, token) in added.get_added_tokens_decoder() {
            if token.content.is_empty() {
                continue;
            }
            match token.normalized {
                true => {
                    let pattern = added.simple_id_to_token(*id).unwrap_or_else(|| token.content.clone());
                    normalized.push((pattern, *id, token.clone()));
                }
                false => raw.push((token.content.clone(), *id, token.clone())),
            }
        }
        normalized.retain(|(pattern, ..)| !pattern.is_empty());
        Ok(Matcher { raw: Set::new(raw)?, normalized: Set::new(normalized)? })
    }

    /// The ids of a conversation with the tokens that the tokenizer puts around every text, and [`PICTURE`] for each image.
    pub(super) fn encode(
        &self,
        tokenizer: &Pipeline,
        chat: &Rendered,
        placeholders: &[u32],
        special: SpecialTokens,
    ) -> tokenizers::Result<Vec<u32>> {
        let parts = Parts { pictures: &chat.pictures, said: &chat.said, placeholders, special };
        let image = placeholders.first().and_then(|id| {
            let all = self.raw.tokens.iter().chain(&self.normalized.tokens);
            all.into_iter().find(|(found, _)| found == id).map(|(_, token)| token)
        });
        let mut text = PreTokenizedString::from(chat.text.as_str());
        text.split(|_, piece| split_raw(piece, &self.raw, &parts, image))?;
        text.split(|_, mut piece| {
            if let Some(normalizer) = tokenizer.get_normalizer() {
                normalizer.normalize(&mut piece)?;
            }
            split_normalized(piece, &self.normalized, &parts)
        })?;
        if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut text)?;
        }
        text.tokenize(|piece| tokenizer.get_model().tokenize(piece.get()))?;
        let encoding = text.into_encoding(None, 0, OffsetType::None)?;
        Ok(tokenizer.post_process(encoding, None, true)?.get_ids().to_vec())
    }
}

/// An occurrence of a token: its bytes in the piece, and its id.
struct Found {
    bytes: Range<usize>,
    id: u32,
    lstrip: bool,
    rstrip: bool,
}

fn split_raw(
    piece: NormalizedString,
    set: &Set,
    parts: &Parts<'_>,
    image: Option<&AddedToken>,
) -> tokenizers::Result<Vec<Piece>> {
    let text = piece.get();
    let mut found: Vec<Found> = Vec::new();
    let flags = image.map_or((false, false), |token| (token.lstrip, token.rstrip));
    let picture = |bytes: &Range<usize>| Found { bytes: bytes.clone(), id: PICTURE, lstrip: flags.0, rstrip: flags.1 };
    let mut start = 0;
    for bytes in parts.pictures {
        occurrences(text, start..bytes.start, set, |id, token, at| parts.is_token(id, token, at), &mut found);
        found.push(picture(bytes));
        start = bytes.end;
    }
    occurrences(text, start..text.len(), set, |id, token, at| parts.is_token(id, token, at), &mut found);
    cut(&piece, found)
}

fn split_normalized(piece: NormalizedString, set: &Set, parts: &Parts<'_>) -> tokenizers::Result<Vec<Piece>> {
    let text = piece.get();
    let begin = piece.offsets_original().0;
    let mut found = Vec::new();
    let is_token = |id: u32, token: &AddedToken, at: &Range<usize>| {
        let original = piece.convert_offsets(Within::Normalized(at.clone())).unwrap_or_else(|| at.clone());
        parts.is_token(id, token, &(begin + original.start..begin + original.end))
    };
    occurrences(text, 0..text.len(), set, is_token, &mut found);
    cut(&piece, found)
}

/// Finds tokens within a range of a text.
fn occurrences(
    text: &str,
    within: Range<usize>,
    set: &Set,
    is_token: impl Fn(u32, &AddedToken, &Range<usize>) -> bool,
    found: &mut Vec<Found>,
) {
    let Some(search) = &set.search else { return };
    for occurrence in search.find_iter(&text[within.clone()]) {
        let bytes = within.start + occurrence.start()..within.start + occurrence.end();
        let (id, token) = &set.tokens[occurrence.pattern().as_usize()];
        let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let within_word = word(text[..bytes.start].chars().next_back()) || word(text[bytes.end..].chars().next());
        if (token.single_word && within_word) || !is_token(*id, token, &bytes) {
            continue;
        }
        found.push(Found { bytes, id: *id, lstrip: token.lstrip, rstrip: token.rstrip });
    }
}

/// Cuts a piece at tokens, which take the white space beside them if they say so.
fn cut(piece: &NormalizedString, found: Vec<Found>) -> tokenizers::Result<Vec<Piece>> {
    let text = piece.get();
    let mut pieces = Vec::with_capacity(2 * found.len() + 1);
    let slice = |bytes: Range<usize>| piece.slice(Within::Normalized(bytes)).ok_or("a piece of text cannot be cut");
    let mut start = 0;
    for Found { bytes, id, lstrip, rstrip } in found {
        let mut from = bytes.start.max(start);
        let mut to = bytes.end.max(from);
        if lstrip {
            from = start.max(text[..from].trim_end().len());
        }
        if rstrip {
            to += text[to..].len() - text[to..].trim_start().len();
        }
        if start < from {
            pieces.push((slice(start..from)?, None));
        }
        if from < to {
            let content = slice(from..to)?;
            let token = Token::new(id, content.get().to_owned(), (0, content.get().len()));
            pieces.push((content, Some(vec![token])));
        }
        start = to;
    }
    if start < text.len() {
        pieces.push((slice(start..text.len())?, None));
    }
    Ok(pieces)
}
