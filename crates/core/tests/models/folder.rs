//! The folders of models that the tests load.

use std::path::{Path, PathBuf};

use prefixkv_core::model::{LoadOptions, Model};

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A model as it comes.
pub(crate) fn load(folder: &Path) -> Model {
    Model::load(&LoadOptions::new(folder), &mut |_| Ok(())).unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
}
