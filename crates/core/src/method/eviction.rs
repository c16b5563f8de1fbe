//! Which entry a lane gives up when it has become too long.
//!
//! Asked for every lane and every token, between the layers of a step. Floor: one read of the lane's positions (3 KiB for 800
//! entries), and of as many scores where these decide. Ranks come from a set of positions, a bit each, that is kept from one call
//! to the next: nothing is sorted and nothing allocated.

use super::Eviction;
use super::view::{Part, ReadLane};
use crate::cache::{Entry, Modality, Span};

/// Rules that choose the entry to evict.
#[derive(Clone, Copy, Debug)]
pub struct EvictionQuery<'a> {
    pub eviction: Eviction,
    /// Entries that the lane was left with after the prompt.
    pub kept: usize,
    /// The first entries by position, which stay.
    pub sinks: usize,
    /// The last ones, which stay.
    pub recent: usize,
    /// Spans in the order of their positions whose text stays.
    pub text: Option<&'a [Span]>,
}

/// A bit set of positions. Its contents between calls have no meaning.
#[derive(Debug, Default)]
pub struct Search {
    words: Vec<u64>,
    len: usize,
}

impl Search {
    /// The entry that goes; None when all stay.
    pub fn victim(&mut self, lane: &dyn ReadLane, ask: &EvictionQuery<'_>) -> Option<Entry> {
        self.fill(lane);
        if self.len == 0 {
            return None;
        }
        let first = self.at_rank(ask.sinks).unwrap_or(u32::MAX);
        let behind = match ask.recent {
            0 => u32::MAX,
            recent => self.at_rank(self.len.saturating_sub(recent)).unwrap_or(u32::MAX),
        };
        let wanted = match ask.eviction {
            Eviction::Never => return None,
            Eviction::Oldest | Eviction::LowestScore | Eviction::Together { .. } => 0,
            Eviction::Distance(distance) => {
                // Near the start there is no room for the distance: the middle, as in the published code.
                let rank = match ask.kept.saturating_sub(distance) {
                    0 => ask.kept / 2,
                    rank => rank,
                };
                self.at_rank(rank.min(self.len - 1)).unwrap_or(0)
            }
        };
        self.clear(0, first as usize);
        self.clear(behind as usize, usize::MAX);
        let mut start = 0;
        for span in ask.text.unwrap_or(&[]) {
            let end = span.start + span.len;
            if span.modality == Modality::Text {
                self.clear(start, end);
            }
            start = end;
        }
        match ask.eviction {
            Eviction::LowestScore | Eviction::Together { .. } => self.lowest(lane),
            // The first open entry from there on, or else the last open one.
            _ => place_of(lane, self.from(wanted).or_else(|| self.last())?),
        }
    }

    fn fill(&mut self, lane: &dyn ReadLane) {
        self.words.fill(0);
        self.len = 0;
        for Part { positions, dead, .. } in lane.parts() {
            // Most positions are close to the one before: their word stays in a register.
            let (mut index, mut word) = (0, 0);
            for (slot, position) in positions.iter().enumerate() {
                if dead.has(slot) {
                    continue;
                }
                let at = *position as usize / 64;
                if at != index {
                    self.put(index, word);
                    (index, word) = (at, 0);
                }
                word |= 1 << (position % 64);
                self.len += 1;
            }
            self.put(index, word);
        }
    }

    fn put(&mut self, index: usize, word: u64) {
        if index >= self.words.len() {
            self.words.resize(index + 1, 0);
        }
        self.words[index] |= word;
    }

    fn has(&self, position: u32) -> bool {
        self.words.get(position as usize / 64).is_some_and(|word| word >> (position % 64) & 1 == 1)
    }

    /// The position with `rank` smaller ones.
    fn at_rank(&self, rank: usize) -> Option<u32> {
        if rank >= self.len {
            return None;
        }
        // Ranks are near the one end or the other.
        if rank < self.len / 2 {
            let mut left = rank;
            for (index, &word) in self.words.iter().enumerate() {
                let n = word.count_ones() as usize;
                if left < n {
                    let word = (0..left).fold(word, |word, _| word & (word - 1));
                    return Some(64 * index as u32 + word.trailing_zeros());
                }
                left -= n;
            }
        } else {
            let mut left = self.len - 1 - rank;
            for (index, &word) in self.words.iter().enumerate().rev() {
                let n = word.count_ones() as usize;
                if left < n {
                    let word = (0..left).fold(word, |word, _| word & !(1 << (63 - word.leading_zeros())));
                    return Some(64 * index as u32 + 63 - word.leading_zeros());
                }
                left -= n;
            }
        }
        None
    }

    /// Takes the positions `from .. to` out.
    fn clear(&mut self, from: usize, to: usize) {
        let to = to.min(64 * self.words.len());
        if from >= to {
            return;
        }
        let (first, last) = (from / 64, (to - 1) / 64);
        let (below, above) = ((1 << (from % 64)) - 1, !(u64::MAX >> (63 - (to - 1) % 64)));
        if first == last {
            self.words[first] &= below | above;
        } else {
            self.words[first] &= below;
            self.words[first + 1..last].fill(0);
            self.words[last] &= above;
        }
    }

    /// The smallest position that is at least `from`.
    fn from(&self, from: u32) -> Option<u32> {
        let first = from as usize / 64;
        let rest = self.words.get(first..)?;
        let inside = |(index, word): (usize, u64)| (word != 0).then(|| 64 * index as u32 + word.trailing_zeros());
        let words = rest.iter().enumerate().map(|(index, word)| (first + index, *word));
        words
            .map(|(index, word)| (index, if index == first { word >> (from % 64) << (from % 64) } else { word }))
            .find_map(inside)
    }

    fn last(&self) -> Option<u32> {
        let words = self.words.iter().enumerate().rev();
        words.filter(|(_, word)| **word != 0).map(|(index, word)| 64 * index as u32 + 63 - word.leading_zeros()).next()
    }

    /// The entry with the lowest score, the first position of equal ones. A lane without scores has zeros.
    fn lowest(&self, lane: &dyn ReadLane) -> Option<Entry> {
        /// Scores that are compared with the lowest so far at once; few are lower.
        const BLOCK: usize = 16;
        let (mut best, mut place, mut before) = ((i32::MAX, u32::MAX), None, 0);
        for Part { positions, scores, .. } in lane.parts() {
            if scores.is_empty() && !positions.is_empty() {
                return place_of(lane, self.from(0)?);
            }
            let blocks = positions.chunks(BLOCK).zip(scores.chunks(BLOCK));
            for (at, (positions, scores)) in (before..).step_by(BLOCK).zip(blocks) {
                if scores.iter().fold(i32::MAX, |low, score| low.min(ordered(*score))) > best.0 {
                    continue;
                }
                for (place_at, (position, score)) in (at..).zip(positions.iter().zip(scores)) {
                    let score = (ordered(*score), *position);
                    if score <= best && self.has(*position) {
                        (best, place) = (score, Some(place_at));
                    }
                }
            }
            before += positions.len() as u32;
        }
        place.map(|place| Entry { position: best.1, place })
    }
}

/// In the order of `f32::total_cmp`.
fn ordered(score: f32) -> i32 {
    let bits = score.to_bits() as i32;
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

fn place_of(lane: &dyn ReadLane, wanted: u32) -> Option<Entry> {
    let mut before = 0;
    for Part { positions, dead, .. } in lane.parts() {
        let there = |slot: &usize| !dead.has(*slot);
        if let Some(slot) = positions.iter().position(|position| *position == wanted).filter(there) {
            return Some(Entry { position: wanted, place: before + slot as u32 });
        }
        before += positions.len() as u32;
    }
    None
}

#[cfg(test)]
mod tests {
    use prefixkv_kernels::codec::{Codec, Dtype, KvCodec};

    use crate::cache::Recode;
    use proptest::prelude::*;

    use super::*;
    use crate::cache::{Lane, LaneOptions, Pool, Rotation};

    /// The same with sorted lists.
    fn plain(lane: &Lane, ask: &EvictionQuery<'_>) -> Option<Entry> {
        let sorted = lane.sorted();
        let text = |position: u32| {
            let spans = ask.text.unwrap_or(&[]);
            let span = spans.iter().find(|span| span.start + span.len > position as usize);
            span.is_some_and(|span| span.modality == Modality::Text)
        };
        let open: Vec<(usize, Entry)> = sorted
            .iter()
            .copied()
            .enumerate()
            .filter(|(rank, entry)| *rank >= ask.sinks && rank + ask.recent < sorted.len() && !text(entry.position))
            .collect();
        let scores = lane.scores();
        let score = |entry: &Entry| scores.get(entry.place as usize).copied().unwrap_or(0.0);
        let gone = match ask.eviction {
            Eviction::Never => None,
            Eviction::Oldest => open.first(),
            // The first of equal ones.
            Eviction::LowestScore | Eviction::Together { .. } => {
                open.iter().min_by(|a, b| score(&a.1).total_cmp(&score(&b.1)))
            }
            Eviction::Distance(distance) => {
                let wanted = if ask.kept > distance { ask.kept - distance } else { ask.kept / 2 };
                let wanted = wanted.min(sorted.len().saturating_sub(1));
                open.iter().find(|(rank, _)| *rank >= wanted).or(open.last())
            }
        };
        gone.map(|(_, entry)| *entry)
    }

    const HEADS: usize = 1;
    const DIM: usize = 32;
    const GROUP: u16 = 32;

    /// A lane of several segments with gaps and entries out of order; with `groups`, some in groups of four bits, some deleted.
    fn lane(pool: &Pool, prompts: &[usize], seed: u64, scored: bool, groups: bool) -> Lane {
        let options =
            LaneOptions { head_dim: DIM, codec: KvCodec::F32, folded: false, rotation: Rotation::Stored, scored };
        let mut lane = Lane::new(0..HEADS, options, pool.account()).expect("no cap");
        let data = vec![0.5; 4096 * DIM];
        let rows = prefixkv_kernels::attention::Rows::dense(&data, HEADS * DIM);
        let new = crate::cache::New { keys: rows, values: rows, angles: None };
        let mut next = 0u32;
        let mut state = seed | 1;
        let mut draw = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state >> 11
        };
        for &n in prompts {
            if n == 1 {
                lane.append_one(new, next).expect("no cap");
            } else {
                lane.append(new, n, next).expect("no cap");
            }
            next += n as u32 + (draw() % 70) as u32;
            if groups && lane.len() > 40 && draw() % 2 == 0 {
                let places: Vec<u32> = lane.sorted().iter().take(GROUP.into()).map(|e| e.place).collect();
                let value = Codec::per_entry(Dtype::U4, 32);
                let codec = KvCodec { key: Codec::per_channel(Dtype::U4, GROUP), value, ..KvCodec::F32 };
                lane.recode(&[Recode::new(codec, places)]).expect("a whole group");
            }
            for _ in 0..draw() % 20 {
                if lane.len() > 1 {
                    let entries = lane.sorted();
                    lane.delete(entries[draw() as usize % entries.len()].place).expect("there");
                }
            }
        }
        // Few values, so that some are equal; and what only the total order tells apart.
        let values = [0.5, -0.0, 0.0, 3.0, -2.0, f32::NAN, f32::INFINITY, 1.0];
        lane.update_scores(|_, score| *score = values[draw() as usize % values.len()]);
        lane
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn the_victim_is_that_of_sorted_lists(
            prompts in prop::collection::vec(1usize..90, 0..9), seed: u64, scored: bool, groups: bool,
            sinks in 0usize..9, recent in 0usize..60, kept in 0usize..400, distance in 0usize..300, text: bool,
            lengths in prop::collection::vec((0usize..60, any::<bool>()), 0..9),
        ) {
            let pool = Pool::unlimited();
            let lane = lane(&pool, &prompts, seed, scored, groups);
            let mut start = 0;
            let spans: Vec<Span> = lengths.into_iter().map(|(len, text)| {
                let modality = if text { Modality::Text } else { Modality::Generated };
                start += len;
                Span { modality, start: start - len, len }
            }).collect();
            let mut search = Search::default();
            for eviction in [Eviction::Never, Eviction::Oldest, Eviction::LowestScore, Eviction::Distance(distance)] {
                let ask = EvictionQuery { eviction, kept, sinks, recent, text: text.then_some(&spans[..]) };
                prop_assert_eq!(search.victim(&lane, &ask), plain(&lane, &ask), "{:?}", ask);
            }
        }
    }
}
