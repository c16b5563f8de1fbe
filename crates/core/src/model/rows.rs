//! How many rows go through layers at a time.

/// Rows that attention on the CPU takes together: a cut between two such blocks changes no order of additions.
const BLOCK: usize = 64;

/// The rows of the next part of `left` rows, of which none may have more than `most`: whole blocks and about the same number for each
/// part, so that none is left with a few rows, for which products are computed in another order.
pub(super) fn next(left: usize, most: usize) -> usize {
    let most = if most < BLOCK { most.max(1) } else { most - most % BLOCK };
    let even = left.div_ceil(left.div_ceil(most).max(1)).next_multiple_of(BLOCK);
    even.min(most).min(left)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backend::cpu::FEW;

    fn parts(rows: usize, most: usize) -> Vec<usize> {
        let mut parts = Vec::new();
        let mut left = rows;
        while left > 0 {
            parts.push(next(left, most));
            left -= parts[parts.len() - 1];
        }
        parts
    }

    #[test]
    fn parts_are_whole_blocks_of_about_one_size() {
        assert_eq!(parts(1030, 512), [384, 384, 262]);
        assert_eq!(parts(2000, 512), [512, 512, 512, 464]);
        assert_eq!(parts(512, 512), [512]);
        assert_eq!(parts(5, 2), [2, 2, 1]);
    }

    proptest! {
        #[test]
        fn no_part_is_too_large_or_has_a_few_rows(rows in 1usize..5000, most in 1usize..3000) {
            let parts = parts(rows, most);
            prop_assert_eq!(parts.iter().sum::<usize>(), rows);
            prop_assert!(parts.iter().all(|part| (1..=most).contains(part)));
            if most >= 192 {
                prop_assert!(parts.len() == 1 || parts.iter().all(|part| *part > FEW));
                prop_assert!(parts[..parts.len() - 1].iter().all(|part| part % BLOCK == 0));
            }
        }
    }
}
