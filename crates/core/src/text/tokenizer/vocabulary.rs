//! Tokens and their ids in little memory: the texts in one piece, and a table of ids.
//!
//! `tokenizers` keeps two maps of texts of their own. Of a vocabulary of 262,144 tokens these take some 50 MiB, this here 5.

use std::hash::{BuildHasher, RandomState};

/// No id at a place of the table.
const NONE: u32 = u32::MAX;

pub(super) struct Vocabulary {
    text: Box<str>,
    /// Where the text of each id ends, behind which the next one's begins. An id without a text is no token.
    ends: Box<[u32]>,
    /// Ids, each at the place that the hash of its text says or, where that is taken, at the next that is free.
    table: Box<[u32]>,
    hasher: RandomState,
    tokens: usize,
    longest: usize,
}

impl Vocabulary {
    /// Of the texts by their ids; None where an id has none. Of two ids with one text the first has it.
    pub(super) fn new<'a>(texts: impl Iterator<Item = Option<&'a str>>) -> Result<Vocabulary, String> {
        let (mut text, mut ends) = (String::new(), Vec::new());
        for each in texts {
            text.push_str(each.unwrap_or_default());
            ends.push(u32::try_from(text.len()).map_err(|_| "its tokens have more than 4 GiB of text")?);
        }
        text.shrink_to_fit();
        // One place in five is free, and at least one, where a search ends.
        let table = vec![NONE; ends.len() + ends.len() / 4 + 1].into();
        let (text, ends) = (text.into_boxed_str(), ends.into_boxed_slice());
        let mut vocabulary = Vocabulary { text, ends, table, hasher: RandomState::new(), tokens: 0, longest: 0 };
        vocabulary.fill();
        Ok(vocabulary)
    }

    fn fill(&mut self) {
        for id in 0..self.ends.len() as u32 {
            let Some(text) = self.text(id) else { continue };
            let length = text.len();
            if let Err(place) = self.place(text) {
                self.table[place] = id;
                self.tokens += 1;
                self.longest = self.longest.max(length);
            }
        }
    }

    /// The id of a text, or the free place of the table where it would be.
    fn place(&self, text: &str) -> Result<u32, usize> {
        let hash = self.hasher.hash_one(text) >> 32;
        let mut place = ((hash * self.table.len() as u64) >> 32) as usize;
        loop {
            match self.table[place] {
                NONE => return Err(place),
                id if self.text(id) == Some(text) => return Ok(id),
                _ => place = (place + 1) % self.table.len(),
            }
        }
    }

    /// The text that the file has for an id.
    fn text(&self, id: u32) -> Option<&str> {
        let id = id as usize;
        let end = *self.ends.get(id)? as usize;
        let start = id.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        Some(&self.text[start..end]).filter(|text| !text.is_empty())
    }

    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.place(text).ok()
    }

    /// The text of a token; None for an id whose text is another token's.
    pub(super) fn token(&self, id: u32) -> Option<&str> {
        self.text(id).filter(|text| self.id(text) == Some(id))
    }

    /// Tokens with their ids.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, u32)> {
        (0..self.ends.len() as u32).filter_map(|id| Some((self.token(id)?, id)))
    }

    /// Ids, those without a token included.
    pub(super) fn ids(&self) -> usize {
        self.ends.len()
    }

    /// Tokens that there are.
    pub(super) fn len(&self) -> usize {
        self.tokens
    }

    /// Bytes of the longest token.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_the_first_of_their_ids() {
        let texts: Vec<String> = (0..5000).map(|id| format!("t{}", id / 2 * 2 % 3001)).collect();
        let given = |id: usize| Some(texts[id].as_str()).filter(|_| !id.is_multiple_of(7));
        let vocabulary = Vocabulary::new((0..texts.len()).map(given)).unwrap();
        let mut tokens = 0;
        for id in 0..texts.len() {
            let first = (0..texts.len()).find(|other| given(*other).is_some() && texts[*other] == texts[id]);
            assert_eq!(vocabulary.id(&texts[id]), first.map(|first| first as u32), "{id}");
            let token = given(id).filter(|_| first == Some(id));
            assert_eq!(vocabulary.token(id as u32), token, "{id}");
            tokens += usize::from(token.is_some());
        }
        assert_eq!((vocabulary.len(), vocabulary.all().count(), vocabulary.ids()), (tokens, tokens, 5000));
        assert_eq!((vocabulary.longest(), vocabulary.id(""), vocabulary.id("t1 ")), (5, None, None));
        assert_eq!(vocabulary.token(5000), None);
        let none = Vocabulary::new(std::iter::empty()).unwrap();
        assert_eq!((none.id("a"), none.token(0), none.len(), none.longest()), (None, None, 0, 0));
    }
}
