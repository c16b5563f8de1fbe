//! Pictures as vision towers take them.

use serde::Serialize;

/// A rectangle of normalised samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Pixels {
    /// `[3, height, width]`, row-major: normalised red, green, blue.
    pub data: Vec<f32>,
    /// Rows, in pixels.
    pub height: usize,
    /// Columns, in pixels.
    pub width: usize,
}

/// A picture as the vision tower takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// The rectangles that the tower takes one by one: mostly one for each piece of the picture, in the order of its plan.
    pub tiles: Vec<Pixels>,
    /// Columns of the upright picture, in pixels.
    pub width: usize,
    /// Rows of the upright picture, in pixels.
    pub height: usize,
}

/// A rectangle in the pixels of a picture; it may reach beyond the picture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Area {
    /// The left edge.
    pub x: f64,
    /// The top edge.
    pub y: f64,
    /// From the left edge to the right one.
    pub width: f64,
    /// From the top edge to the bottom one.
    pub height: f64,
}
