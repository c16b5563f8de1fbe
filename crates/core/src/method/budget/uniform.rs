use super::{Budget, BudgetRequest, Quota};
use crate::error::Result;

/// The same for every layer; what does not divide goes to the first layers, one each.
#[derive(Debug)]
pub struct Uniform;

impl Budget for Uniform {
    fn name(&self) -> &'static str {
        "uniform"
    }

    fn least_whole(&self, least: &[usize]) -> usize {
        least.iter().copied().max().unwrap_or(0) * least.len()
    }

    fn ahead(&self, ask: &BudgetRequest<'_>) -> Result<Option<Vec<Quota>>> {
        let layers = ask.available.len();
        ask.check(self.least_whole(ask.least), "every layer has the same size, which must hold its protected entries")?;
        let (each, rest) = (ask.total / layers, ask.total % layers);
        let count = |layer: usize| {
            let wanted = (each + usize::from(layer < rest)).max(ask.least[layer]);
            Quota::exact(wanted.min(ask.available[layer]), ask.positions)
        };
        Ok(Some((0..layers).map(count).collect()))
    }
}
