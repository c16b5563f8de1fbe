//! Parts of recipes as several methods read them from their options.

use super::super::budget::Objective;
use super::super::calibration::Calibration;
use super::super::guard::{Protected, Recent};
use super::super::options::Options;
use super::super::score::{
    Columns, KeyDiff, KeyNorm, Lag, Last, Mix, Observed, Pooling, Question, Random, Recency, Score, Text, Window,
};
use super::super::{Eviction, Positions};
use crate::error::{Error, Result};
use crate::fields::refuse;

/// Scores that are shares of attention, by their names.
pub(super) const ATTENTION: &[&str] = &["mix", "question", "window", "last", "text", "columns"];

/// Objectives of prefix budgets, by their names.
pub(super) const OBJECTIVES: &[&str] = &["least", "sum", "squares"];

/// Option `objective`.
pub(super) fn objective(options: &Options) -> Result<Objective> {
    Ok(match options.choice("objective")?.as_str() {
        "sum" => Objective::Sum,
        "squares" => Objective::Squares,
        _ => Objective::Least,
    })
}

/// Which entry goes while generating: option `decode`, and `distance` where it has that choice.
pub(super) fn eviction(options: &Options) -> Result<Eviction> {
    Ok(match options.choice("decode")?.as_str() {
        "lowest-score" => Eviction::LowestScore,
        "distance" => Eviction::Distance(options.count("distance")?),
        "oldest" => Eviction::Oldest,
        _ => Eviction::Never,
    })
}

/// Options `sinks` and `protectText`.
pub(super) fn protected(options: &Options, recent: Recent) -> Result<Protected> {
    Ok(Protected { sinks: options.count("sinks")?, recent, text: options.flag("protectText")? })
}

/// Option `positions`.
pub(super) fn positions(options: &Options) -> Result<Positions> {
    Ok(match options.choice("positions")?.as_str() {
        "cache" => Positions::Cache,
        "official" => Positions::Official,
        _ => Positions::True,
    })
}

/// Options `pool` and `poolSize`.
pub(super) fn pooling(options: &Options) -> Result<(Pooling, usize)> {
    let size = pool_size(options)?;
    let pool = match options.choice("pool")?.as_str() {
        "mean" => Pooling::Mean,
        "none" => Pooling::None,
        _ => Pooling::Max,
    };
    Ok((pool, size))
}

/// Option `poolSize`.
pub(super) fn pool_size(options: &Options) -> Result<usize> {
    let size = options.count("poolSize")?;
    if size.is_multiple_of(2) {
        return Err(refuse(format!("`poolSize` of {} must be odd, found {size}", options.method())));
    }
    Ok(size)
}

/// Option `score`, with `window`, `pool` and `poolSize`. `kept` as in [`Window`].
pub(super) fn score(options: &Options, kept: bool) -> Result<Box<dyn Score>> {
    let (pool, size) = pooling(options)?;
    let queries = options.count("window")?;
    Ok(match options.choice("score")?.as_str() {
        "mix" => Box::new(Mix(Window { queries, kept, pool, size })),
        "window" => Box::new(Window { queries, kept, pool, size }),
        "text" => Box::new(Text),
        "question" => Box::new(Question { queries, pool, size, sinks: options.count("sinks")? }),
        "last" => Box::new(Last),
        "observed" => Box::new(Observed),
        "lag" => Box::new(Lag { size: options.count("lag")?, sinks: options.count("sinks")? }),
        "key-norm" => Box::new(KeyNorm),
        "key-diff" => Box::new(KeyDiff),
        "recency" => Box::new(Recency),
        "random" => Box::new(Random { seed: options.count("seed")? as u64 }),
        _ => Box::new(Columns),
    })
}

/// Ranks entries as they were ranked when the calibration was made, because its sizes follow from that. Another score than that
/// is refused; options of the score that the caller gives win.
pub(super) fn rank_as(calibration: &Calibration, options: &mut Options) -> Result<()> {
    if let Some(made) = &calibration.score {
        let score = if options.given("score") { options.choice("score")? } else { made.clone() };
        calibration.check_score(&score, ATTENTION)?;
    }
    for (name, value) in calibration.ranking() {
        let made: String = value.to_string().chars().take(40).collect();
        options.fall_back(name, value).map_err(|_| Error::Calibration {
            reason: format!(
                "it was made with `{name}` {made}, which {} does not have; calibrate again",
                options.method()
            ),
        })?;
    }
    Ok(())
}
