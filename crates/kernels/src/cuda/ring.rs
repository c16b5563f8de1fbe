//! Which part of a staging memory is written next.

use std::ops::Range;

/// A memory of `segments` equal parts that are filled one after the other, round and round. Data in a part may be
/// overwritten once the copies out of it are done, which whoever fills it waits for before the part is entered again.
#[derive(Debug)]
pub(super) struct Ring {
    segment: usize,
    segments: usize,
    current: usize,
    used: usize,
}

/// Where the next bytes go.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) range: Range<usize>,
    /// The part that is full, after which a mark is to be set, and the part to be entered, whose mark is to be waited for.
    pub(super) turn: Option<(usize, usize)>,
}

impl Ring {
    pub(super) fn new(segment: usize, segments: usize) -> Self {
        assert!(segment > 0 && segments > 1);
        Ring { segment, segments, current: 0, used: 0 }
    }

    /// Bytes of the whole memory.
    pub(super) fn len(&self) -> usize {
        self.segment * self.segments
    }

    /// Most bytes that are taken at once.
    pub(super) fn most(&self) -> usize {
        self.segment
    }

    /// Room for `bytes`; nothing is taken until [`Ring::take`].
    pub(super) fn next(&self, bytes: usize) -> Step {
        assert!(bytes <= self.segment, "{bytes} bytes in parts of {}", self.segment);
        if self.used + bytes <= self.segment {
            let start = self.current * self.segment + self.used;
            return Step { range: start..start + bytes, turn: None };
        }
        let next = (self.current + 1) % self.segments;
        let start = next * self.segment;
        Step { range: start..start + bytes, turn: Some((self.current, next)) }
    }

    /// Takes what [`Ring::next`] gave; the next starts at a multiple of 64.
    pub(super) fn take(&mut self, step: &Step) {
        if let Some((_, next)) = step.turn {
            self.current = next;
        }
        self.used = (step.range.end - self.current * self.segment).next_multiple_of(64);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        // A model that marks bytes as in use from their taking to the turn at which their part's mark has been waited for.
        #[test]
        fn no_byte_is_written_while_it_may_be_read(sizes in prop::collection::vec(0usize..300, 1..200), segments in 2usize..5) {
            let mut ring = Ring::new(256, segments);
            let mut in_use = vec![false; ring.len()];
            let mut marked = vec![false; segments];
            for size in sizes {
                let size = size.min(ring.most());
                let step = ring.next(size);
                prop_assert_eq!(ring.next(size), Step { range: step.range.clone(), turn: step.turn });
                if let Some((full, next)) = step.turn {
                    marked[full] = true;
                    prop_assert_eq!(next, (full + 1) % segments);
                    if marked[next] {
                        in_use[next * 256..(next + 1) * 256].fill(false);
                    }
                }
                ring.take(&step);
                prop_assert_eq!(step.range.len(), size);
                prop_assert!(step.range.start.is_multiple_of(64) && step.range.end <= ring.len());
                prop_assert!(step.range.is_empty() || step.range.start / 256 == (step.range.end - 1) / 256);
                prop_assert!(in_use[step.range.clone()].iter().all(|in_use| !in_use));
                in_use[step.range].fill(true);
            }
        }
    }
}
