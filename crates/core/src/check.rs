//! Stopping long work.

use crate::error::Result;

/// Called between pieces of work; an error stops it and is returned.
pub type Check<'a> = &'a (dyn Fn() -> Result<()> + Sync);
