//! Which entries are safe, and which of the rest are best.

use crate::cache::{Entry, Modality, Span};

/// How many of the last entries are safe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Recent {
    Entries(usize),
    /// This share of what a lane keeps, and never more than `most`.
    Share {
        share: f64,
        most: usize,
    },
}

impl Recent {
    /// The last entries that are safe in a lane that keeps `kept`.
    pub fn of(self, kept: usize) -> usize {
        match self {
            Recent::Entries(entries) => entries,
            Recent::Share { share, most } => ((kept as f64 * share).floor() as usize).min(most),
        }
    }
}

/// Entries that no method may evict.
#[derive(Clone, Copy, Debug)]
pub struct Protected {
    /// The first entries of a lane (attention sinks).
    pub sinks: usize,
    pub recent: Recent,
    /// The text of prompts.
    pub text: bool,
}

impl Protected {
    /// For every entry of a lane, in the order of positions, whether it is safe when `kept` entries are to be kept.
    pub fn protected(&self, sorted: &[Entry], kept: usize, spans: &[Span]) -> Vec<bool> {
        let recent = self.recent.of(kept);
        let mut safe: Vec<bool> =
            (0..sorted.len()).map(|rank| rank < self.sinks || rank + recent >= sorted.len()).collect();
        if self.text {
            let mut spans = spans.iter().peekable();
            for (entry, safe) in sorted.iter().zip(&mut safe) {
                while spans.next_if(|span| span.start + span.len <= entry.position as usize).is_some() {}
                *safe |= spans.peek().is_some_and(|span| span.modality == Modality::Text);
            }
        }
        safe
    }
}

impl Protected {
    /// The least number of entries that holds all that are then safe, and at least one. `for_ever` counts for a lane that goes
    /// on at this size: it will have all its sinks, however short it is now, and its recent entries will be neither these nor the
    /// text that is safe anyhow. Then the number may be larger than the number of entries.
    pub fn least(&self, sorted: &[Entry], spans: &[Span], for_ever: bool) -> usize {
        let count =
            |guard: &Protected, kept: usize| guard.protected(sorted, kept, spans).iter().filter(|safe| **safe).count();
        if for_ever {
            // The lane will have all its sinks, however few entries there are now.
            let there = count(&Protected { recent: Recent::Entries(0), ..*self }, 0);
            return self.least_for_ever(there + self.sinks.saturating_sub(sorted.len()));
        }
        let mut kept = 1;
        loop {
            let needed = count(self, kept);
            if needed <= kept || kept >= sorted.len() {
                return kept.min(sorted.len());
            }
            kept = needed;
        }
    }

    /// The least size that holds `fixed` entries and the recent ones of that size.
    fn least_for_ever(&self, fixed: usize) -> usize {
        let mut kept = 1;
        loop {
            let needed = fixed.saturating_add(self.recent.of(kept).max(1));
            let all_recent = matches!(self.recent, Recent::Share { share, .. } if share >= 1.0);
            if needed <= kept || all_recent {
                // Where all that is kept is recent, the recent ones give way.
                return kept.max(fixed.saturating_add(1));
            }
            kept = needed;
        }
    }
}

/// The ranks of the `keep` entries that stay: all safe ones and the best of the others, ascending. Of equal scores the earlier
/// position wins. `scores` and `safe` are in the order of positions.
pub fn best(scores: &[f32], safe: &[bool], keep: usize) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..scores.len()).filter(|rank| safe[*rank]).collect();
    let mut others: Vec<usize> = (0..scores.len()).filter(|rank| !safe[*rank]).collect();
    let wanted = keep.saturating_sub(kept.len()).min(others.len());
    if wanted < others.len() && wanted > 0 {
        others.select_nth_unstable_by(wanted - 1, |a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    }
    kept.extend(&others[..wanted]);
    kept.sort_unstable();
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cache::Piece;

    fn entries(n: u32) -> Vec<Entry> {
        (0..n).map(|i| Entry { position: 2 * i, place: n - 1 - i }).collect()
    }

    #[test]
    fn sinks_recent_and_text_are_safe() {
        let spans = [
            Span { modality: Modality::Text, start: 0, len: 5 },
            Span { modality: Modality::Image { index: 0, piece: Piece::base(2, 3) }, start: 5, len: 6 },
            Span { modality: Modality::Text, start: 11, len: 3 },
            Span { modality: Modality::Generated, start: 14, len: 10 },
        ];
        let guard = Protected { sinks: 1, recent: Recent::Entries(2), text: false };
        let safe = |guard: Protected| -> Vec<u32> {
            let sorted = entries(10);
            let safe = guard.protected(&sorted, 5, &spans);
            sorted.iter().zip(safe).filter(|(_, safe)| *safe).map(|(entry, _)| entry.position).collect()
        };
        assert_eq!(safe(guard), [0, 16, 18]);
        assert_eq!(safe(Protected { text: true, ..guard }), [0, 2, 4, 12, 16, 18]);
        assert_eq!(safe(Protected { recent: Recent::Share { share: 0.5, most: 9 }, ..guard }), [0, 16, 18]);
        assert_eq!(safe(Protected { recent: Recent::Share { share: 1.0, most: 3 }, ..guard }), [0, 14, 16, 18]);
    }

    #[test]
    fn the_least_size_for_ever_counts_what_will_be_safe() {
        let spans = [Span { modality: Modality::Text, start: 0, len: 40 }];
        let least = |guard: Protected, n: u32| {
            (guard.least(&entries(n), &spans, false), guard.least(&entries(n), &spans, true))
        };
        let streaming = Protected { sinks: 4, recent: Recent::Entries(1), text: false };
        assert_eq!(least(streaming, 1), (1, 5));
        assert_eq!(least(streaming, 30), (5, 5));
        assert_eq!(least(Protected { sinks: 200, ..streaming }, 3), (3, 201));
        assert_eq!(least(Protected { text: true, ..streaming }, 10).1, 11);
        assert_eq!(least(Protected { sinks: 15, text: true, ..streaming }, 10).1, 16);
        let half = Protected { sinks: 0, recent: Recent::Share { share: 0.5, most: usize::MAX }, text: false };
        assert_eq!(least(half, 7).1, 1);
        assert_eq!(least(Protected { sinks: 10, ..half }, 1).1, 19);
        let all = Protected { sinks: 3, recent: Recent::Share { share: 1.0, most: usize::MAX }, text: false };
        assert_eq!(least(all, 1).1, 4);
    }

    proptest! {
        #[test]
        fn the_best_are_those_of_a_full_sort(
            scores in prop::collection::vec(0u8..9, 1..60), safe in prop::collection::vec(any::<bool>(), 60), keep in 0usize..70,
        ) {
            let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
            let safe = &safe[..scores.len()];
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|a, b| safe[*b].cmp(&safe[*a]).then(scores[*b].total_cmp(&scores[*a])).then(a.cmp(b)));
            let protected = safe.iter().filter(|safe| **safe).count();
            order.truncate(keep.max(protected));
            order.sort_unstable();
            prop_assert_eq!(best(&scores, safe, keep), order);
        }
    }
}
