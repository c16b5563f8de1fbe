//! The tokens that may be drawn, and how the options narrow them down.

use std::cmp::Ordering;

/// How many of the most likely tokens top-p sorts at first.
const FIRST_SORT: usize = 64;

#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) token: u32,
    logit: f32,
    /// Proportional to the probability; 1 for the most likely token.
    pub(super) weight: f64,
}

/// Candidates stay in the order of their tokens, so what is drawn does not depend on how a selection shuffles.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    all: Vec<Candidate>,
    scratch: Vec<Candidate>,
}

impl Candidates {
    /// `max` is the greatest logit, and finite; the temperature is greater than 0.
    pub(super) fn fill(&mut self, logits: &[f32], max: f32, temperature: f32) {
        let weight = |logit: f32| ((f64::from(logit) - f64::from(max)) / f64::from(temperature)).exp();
        self.all.clear();
        let tokens = (0u32..).zip(logits).filter(|(_, logit)| **logit > f32::NEG_INFINITY);
        self.all.extend(tokens.map(|(token, &logit)| Candidate { token, logit, weight: weight(logit) }));
    }

    pub(super) fn top_k(&mut self, k: usize) {
        if k == 0 || k >= self.all.len() {
            return;
        }
        self.scratch.clone_from(&self.all);
        let (_, last, _) = self.scratch.select_nth_unstable_by(k - 1, likelier);
        let least = last.logit;
        self.all.retain(|candidate| candidate.logit >= least);
    }

    /// Keeps a candidate as long as those likelier than it have less than `p` of the probability.
    pub(super) fn top_p(&mut self, p: f32) {
        if p >= 1.0 {
            return;
        }
        let enough = f64::from(p) * self.all.iter().map(|candidate| candidate.weight).sum::<f64>();
        self.scratch.clone_from(&self.all);
        let mut rest = self.scratch.as_mut_slice();
        let mut mass = 0.0;
        let mut size = FIRST_SORT;
        while !rest.is_empty() {
            let taken = size.min(rest.len());
            rest.select_nth_unstable_by(taken - 1, likelier);
            let (head, tail) = rest.split_at_mut(taken);
            head.sort_unstable_by(likelier);
            for last in head.iter() {
                mass += last.weight;
                if mass >= enough {
                    self.all.retain(|candidate| likelier(candidate, last) != Ordering::Greater);
                    return;
                }
            }
            rest = tail;
            size *= 4;
        }
    }

    pub(super) fn min_p(&mut self, p: f32) {
        if p > 0.0 {
            self.all.retain(|candidate| candidate.weight >= f64::from(p));
        }
    }

    /// The token at a point of the cumulative distribution; `point` is from 0 to below 1.
    pub(super) fn at(&self, point: f64) -> Option<u32> {
        let mut left = point * self.all.iter().map(|candidate| candidate.weight).sum::<f64>();
        let mut last = None;
        for candidate in self.all.iter().filter(|candidate| candidate.weight > 0.0) {
            last = Some(candidate.token);
            left -= candidate.weight;
            if left < 0.0 {
                break;
            }
        }
        last
    }

    #[cfg(test)]
    pub(super) fn probabilities(&self, vocab: usize) -> Vec<f64> {
        let total: f64 = self.all.iter().map(|candidate| candidate.weight).sum();
        let mut out = vec![0.0; vocab];
        for candidate in &self.all {
            out[candidate.token as usize] = candidate.weight / total;
        }
        out
    }
}

/// Descending by logit; of equals, the lower token comes first.
fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}
