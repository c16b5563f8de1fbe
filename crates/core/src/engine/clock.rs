//! Times as reports say them.

use std::time::Duration;

pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
