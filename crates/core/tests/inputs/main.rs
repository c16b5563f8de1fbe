//! Pictures and texts on their way to a model.

mod anyres;
mod images;
mod text;
mod tiles;
