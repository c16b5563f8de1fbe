//! Byte-pair encoding by merges, Sennrich et al. 2016, arXiv 1508.07909, with the same ids as `tokenizers`' and a tenth of its memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use tokenizers::Token;

use super::vocabulary::Vocabulary;

/// A tokenizer's model whose tokens are made of others.
pub(in crate::text) struct Bpe {
    vocabulary: Vocabulary,
    merges: Merges,
    /// The token for a run of characters that are none.
    unknown: Option<u32>,
    /// Whether such a character is the tokens of its bytes, where there are these.
    bytes: bool,
    /// Whether a word that is a token is that token, whatever the merges say.
    whole_words: bool,
}

/// The right one of two tokens, the token that they make, and the place of the merge among all: the first goes before the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Merge {
    right: u32,
    rank: u32,
    made: u32,
}

/// Merges by the left of their two tokens.
struct Merges {
    /// Where those of each token begin, and the end of all.
    starts: Box<[u32]>,
    /// Those of a token in the order of the right ones.
    all: Box<[Merge]>,
}

impl Merges {
    /// Of pairs of texts, the one that goes first before the others. Of two of one pair the last counts.
    fn new<'a>(
        vocabulary: &Vocabulary,
        pairs: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Merges, String> {
        let id = |text: &str| {
            let lacking = || format!("its merges name the token {text:?}, which its vocabulary does not have");
            vocabulary.id(text).ok_or_else(lacking)
        };
        let mut merges = Vec::with_capacity(pairs.len());
        let mut both = String::new();
        for (rank, (left, right)) in pairs.enumerate() {
            both.clear();
            both.push_str(left);
            both.push_str(right);
            let rank = u32::try_from(rank).map_err(|_| "it has too many merges")?;
            merges.push((id(left)?, Merge { right: id(right)?, rank, made: id(&both)? }));
        }
        merges.sort_unstable_by_key(|(left, merge)| (*left, merge.right, Reverse(merge.rank)));
        merges.dedup_by_key(|(left, merge)| (*left, merge.right));
        let mut starts = vec![0; vocabulary.ids() + 1];
        merges.iter().for_each(|(left, _)| starts[*left as usize + 1] += 1);
        (1..starts.len()).for_each(|id| starts[id] += starts[id - 1]);
        Ok(Merges { starts: starts.into(), all: merges.iter().map(|(_, merge)| *merge).collect() })
    }

    fn of(&self, left: u32, right: u32) -> Option<Merge> {
        let left = left as usize;
        let of_left = &self.all[self.starts[left] as usize..self.starts[left + 1] as usize];
        of_left.binary_search_by_key(&right, |merge| merge.right).ok().map(|at| of_left[at])
    }
}

/// A token of a word that is being merged: it stands for `bytes` of it, 0 once it is part of the one before.
#[derive(Clone, Copy)]
struct Piece {
    id: u32,
    bytes: usize,
    before: usize,
    behind: usize,
}

/// No piece before the first one and behind the last one.
const END: usize = usize::MAX;

impl Bpe {
    /// `pairs` are the merges, the one that goes first before the others; `unknown` is the text of the token for what is no other.
    ///
    /// # Errors
    /// A reason where a token is named that is not in the vocabulary.
    pub(super) fn new<'a>(
        vocabulary: Vocabulary,
        pairs: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
        unknown: Option<&str>,
        bytes: bool,
        whole_words: bool,
    ) -> Result<Bpe, String> {
        let merges = Merges::new(&vocabulary, pairs)?;
        let id = |text: &str| {
            vocabulary.id(text).ok_or_else(|| format!("its vocabulary does not have {text:?}, its unknown token"))
        };
        let unknown = unknown.map(id).transpose()?;
        Ok(Bpe { vocabulary, merges, unknown, bytes, whole_words })
    }

    pub(super) fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// Whether a character that is no token may be the tokens of its bytes.
    pub(super) fn has_bytes(&self) -> bool {
        self.bytes
    }

    pub(super) fn tokenize(&self, word: &str) -> Vec<Token> {
        if let Some(id) = self.vocabulary.id(word).filter(|_| self.whole_words) {
            return vec![Token::new(id, word.to_owned(), (0, word.len()))];
        }
        let mut pieces = self.characters(word);
        self.merge(&mut pieces);
        let mut start = 0;
        let kept = pieces.into_iter().filter(|piece| piece.bytes > 0);
        kept.map(|Piece { id, bytes, .. }| {
            let token = self.vocabulary.token(id).unwrap_or_default().to_owned();
            start += bytes;
            Token::new(id, token, (start - bytes, start))
        })
        .collect()
    }

    /// The tokens of the characters of a word.
    fn characters(&self, word: &str) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::with_capacity(word.len());
        let add = |id: u32, bytes: usize, pieces: &mut Vec<Piece>| {
            let at = pieces.len();
            if let Some(last) = pieces.last_mut() {
                last.behind = at;
            }
            pieces.push(Piece { id, bytes, before: at.checked_sub(1).unwrap_or(END), behind: END });
        };
        // Bytes of a run of characters that are no token.
        let mut unknown = 0;
        let end = |unknown: &mut usize, pieces: &mut Vec<Piece>| {
            if let (bytes @ 1.., Some(id)) = (std::mem::take(unknown), self.unknown) {
                add(id, bytes, pieces);
            }
        };
        for (at, character) in word.char_indices() {
            let text = &word[at..at + character.len_utf8()];
            if let Some(id) = self.vocabulary.id(text) {
                end(&mut unknown, &mut pieces);
                add(id, text.len(), &mut pieces);
                continue;
            }
            let of_byte = |byte: u8| self.vocabulary.id(&format!("<0x{byte:02X}>"));
            match self.bytes.then(|| text.bytes().map(of_byte).collect::<Option<Vec<u32>>>()).flatten() {
                Some(ids) => ids.into_iter().for_each(|id| add(id, 1, &mut pieces)),
                None => unknown += text.len(),
            }
        }
        end(&mut unknown, &mut pieces);
        pieces
    }

    /// Merges what can be, of all pairs the one of the first merge, and of several of these the leftmost.
    fn merge(&self, pieces: &mut [Piece]) {
        let pair = |left: usize, pieces: &[Piece]| {
            let Piece { id, behind, .. } = pieces[left];
            self.merges.of(id, pieces.get(behind)?.id)
        };
        let next = |left: usize, pieces: &[Piece]| pair(left, pieces).map(|merge| Reverse((merge.rank, left)));
        let mut waiting: BinaryHeap<_> = (0..pieces.len()).filter_map(|left| next(left, pieces)).collect();
        while let Some(Reverse((rank, left))) = waiting.pop() {
            // It may have become part of another, or its pair another one, since it was put here.
            let Some(merge) = pair(left, pieces).filter(|merge| merge.rank == rank && pieces[left].bytes > 0) else {
                continue;
            };
            let right = pieces[left].behind;
            let Piece { bytes, behind, .. } = pieces[right];
            pieces[right].bytes = 0;
            let piece = &mut pieces[left];
            (piece.id, piece.bytes, piece.behind) = (merge.made, piece.bytes + bytes, behind);
            let before = piece.before;
            if let Some(behind) = pieces.get_mut(behind) {
                behind.before = left;
            }
            waiting.extend(next(left, pieces));
            if before != END {
                waiting.extend(next(before, pieces));
            }
        }
    }
}

/// As `tokenizers` writes its own.
impl Serialize for Bpe {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("BPE", 10)?;
        fields.serialize_field("type", "BPE")?;
        fields.serialize_field("dropout", &None::<f32>)?;
        fields.serialize_field("unk_token", &self.unknown.and_then(|id| self.vocabulary.token(id)))?;
        fields.serialize_field("continuing_subword_prefix", &None::<&str>)?;
        fields.serialize_field("end_of_word_suffix", &None::<&str>)?;
        fields.serialize_field("fuse_unk", &true)?;
        fields.serialize_field("byte_fallback", &self.bytes)?;
        fields.serialize_field("ignore_merges", &self.whole_words)?;
        fields.serialize_field("vocab", &Tokens(&self.vocabulary))?;
        fields.serialize_field("merges", &Pairs(self))?;
        fields.end()
    }
}

/// Tokens with their ids, in the order of these.
struct Tokens<'a>(&'a Vocabulary);

impl Serialize for Tokens<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.all())
    }
}

/// The tokens of each merge, in the order of the merges.
struct Pairs<'a>(&'a Bpe);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Bpe { vocabulary, merges: Merges { starts, all }, .. } = self.0;
        let mut ranked: Vec<(u32, u32, u32)> = (0..vocabulary.ids())
            .flat_map(|left| {
                let of_left = &all[starts[left] as usize..starts[left + 1] as usize];
                of_left.iter().map(move |merge| (merge.rank, left as u32, merge.right))
            })
            .collect();
        ranked.sort_unstable();
        let text = |id: u32| vocabulary.token(id).unwrap_or_default();
        serializer.collect_seq(ranked.iter().map(|(_, left, right)| (text(*left), text(*right))))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;
    use tokenizers::Model;
    use tokenizers::models::bpe::BPE;

    use super::*;

    /// Numbers that look random.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % end
        }
    }

    /// A vocabulary with merges, some of them twice and some of one token of several pairs.
    fn invented(dice: &mut Dice, bytes: usize) -> (Vec<String>, Vec<(String, String)>) {
        let mut texts: Vec<String> =
            ["<unk>", "a", "b", "c", "\u{e9}", "\u{4e2d}", "\u{2581}"].map(str::to_owned).into();
        texts.extend((0..bytes).map(|byte| format!("<0x{byte:02X}>")));
        let (mut tokens, mut merges) = (texts[1..7].to_vec(), Vec::new());
        for _ in 0..150 {
            let [left, right] = [0, 0].map(|_| tokens[dice.below(tokens.len())].clone());
            let both = format!("{left}{right}");
            if both.len() > 14 {
                continue;
            }
            if !tokens.contains(&both) {
                tokens.push(both.clone());
                texts.insert(dice.below(texts.len() + 1), both);
            }
            merges.push((left, right));
        }
        (texts, merges)
    }

    #[test]
    fn as_tokenizers_does_it() {
        let mut dice = Dice(1);
        let mut longest = 0;
        for round in 0..60 {
            // All bytes, some of them or none.
            let (texts, merges) = invented(&mut dice, [256, 0xa0, 0][round % 3]);
            let (bytes, unknown, whole_words) = (round % 2 == 0, round % 4 < 2, round % 5 == 0);
            let vocabulary: HashMap<&str, usize> = texts.iter().map(String::as_str).zip(0..).collect();
            let theirs: BPE = serde_json::from_str(
                &json!({
                    "type": "BPE", "vocab": vocabulary, "merges": merges, "byte_fallback": bytes, "fuse_unk": true,
                    "unk_token": Some("<unk>").filter(|_| unknown), "ignore_merges": whole_words,
                })
                .to_string(),
            )
            .unwrap();
            let vocabulary = Vocabulary::new(texts.iter().map(|text| Some(text.as_str()))).unwrap();
            let pairs = merges.iter().map(|(left, right)| (left.as_str(), right.as_str()));
            let ours = Bpe::new(vocabulary, pairs, Some("<unk>").filter(|_| unknown), bytes, whole_words).unwrap();
            assert_eq!(serde_json::to_value(&ours).unwrap(), serde_json::to_value(&theirs).unwrap());
            let alphabet = ["a", "b", "c", "\u{e9}", "\u{4e2d}", "\u{2581}", "d", "\u{1f600}"];
            for _ in 0..200 {
                let known = dice.below(3);
                let length = dice.below(40);
                let word: String = (0..length).map(|_| alphabet[dice.below(alphabet.len() - known)]).collect();
                let want = if word.is_empty() { vec![] } else { theirs.tokenize(&word).unwrap() };
                assert_eq!(ours.tokenize(&word), want, "{word:?} of {texts:?} with {merges:?}");
                longest = longest.max(want.iter().map(|token| token.value.len()).max().unwrap_or(0));
            }
        }
        assert!(longest >= 12, "little was merged: {longest}");
    }

    #[test]
    fn what_the_vocabulary_lacks_is_named() {
        let of = |pairs: &[(&'static str, &'static str)], unknown| {
            let vocabulary = Vocabulary::new(["a", "b", "ab"].into_iter().map(Some)).unwrap();
            Bpe::new(vocabulary, pairs.iter().copied(), unknown, false, false).map(|_| ())
        };
        assert_eq!(of(&[("a", "b")], None), Ok(()));
        for (pairs, unknown, named) in [
            (&[("a", "c")][..], None, "\"c\""),
            (&[("c", "a")], None, "\"c\""),
            (&[("b", "a")], None, "\"ba\""),
            (&[], Some("<unk>"), "\"<unk>\""),
        ] {
            let reason = of(pairs, unknown).unwrap_err();
            assert!(reason.contains(named), "{reason}");
        }
    }
}
