use super::calibrated::apportion;
use super::{Budget, BudgetRequest, Quota};
use crate::error::Result;

/// Sizes that fall from the first layer to the last by the same number of entries.
///
/// Cai et al. 2024, PyramidKV, arXiv 2406.02069. The whole is met to the entry: the published code rounds the step down and misses it.
#[derive(Debug)]
pub struct Pyramid {
    /// Last entries that every layer keeps beside what falls; at most half of the mean size.
    pub window: usize,
    /// The mean of what falls over the last layer's, at least 1.
    pub beta: usize,
}

impl Budget for Pyramid {
    fn name(&self) -> &'static str {
        "pyramid"
    }

    fn ahead(&self, ask: &BudgetRequest<'_>) -> Result<Option<Vec<Quota>>> {
        ask.check(ask.all_least(), "the protected entries of all layers must fit")?;
        let wanted = self.wanted(ask.total, ask.available);
        let kept = apportion(&wanted, ask.least, ask.available, ask.total);
        Ok(Some(kept.into_iter().map(|kept| Quota::exact(kept, ask.positions)).collect()))
    }
}

impl Pyramid {
    fn wanted(&self, total: usize, available: &[usize]) -> Vec<f64> {
        let layers = available.len();
        let mean = total as f64 / layers as f64;
        let window = (self.window as f64).min(mean / 2.0);
        let falling = mean - window;
        let most = available.iter().copied().min().unwrap_or(0) as f64 - window;
        let first = (2.0 * falling - falling / self.beta as f64).min(most);
        let last = 2.0 * falling - first;
        let step = (first - last) / (layers - 1).max(1) as f64;
        (0..layers).map(|layer| if layers == 1 { mean } else { window + first - layer as f64 * step }).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_fall_by_one_step() {
        let pyramid = Pyramid { window: 8, beta: 20 };
        // 4 layers of 28: 20 fall, from 39 to 1.
        let wanted = pyramid.wanted(112, &[600; 4]);
        let want = [47.0, 8.0 + 39.0 - 38.0 / 3.0, 8.0 + 39.0 - 76.0 / 3.0, 9.0];
        assert!(wanted.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-9), "{wanted:?}");
        // A first layer that would keep more than there is keeps all, and the last one more.
        assert_eq!(pyramid.wanted(4 * 68, &[108; 4]), [108.0, 108.0 - 80.0 / 3.0, 108.0 - 160.0 / 3.0, 28.0]);
        assert_eq!(pyramid.wanted(50, &[100]), [50.0]);
    }

    proptest! {
        #[test]
        fn the_whole_is_split(keep in 0.02f64..1.0, n in 20usize..800, layers in 1usize..40, window in 0usize..40, beta in 1usize..30) {
            let total = (keep * (n * layers) as f64) as usize;
            let wanted = Pyramid { window, beta }.wanted(total, &vec![n; layers]);
            prop_assert!((wanted.iter().sum::<f64>() - total as f64).abs() < 1e-6);
            prop_assert!(wanted.windows(2).all(|pair| pair[0] >= pair[1] - 1e-9), "{wanted:?}");
            prop_assert!(wanted.iter().all(|wanted| *wanted >= -1e-9 && *wanted <= n as f64 + 1e-9), "{wanted:?}");
        }
    }
}
