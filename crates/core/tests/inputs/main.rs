//! Pictures and texts on their way to a model.

mod images;
mod text;
mod tiles;
