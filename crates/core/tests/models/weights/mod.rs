//! Weights are the same numbers whatever the file holds them in: f32, f16, bf16 or a mixture, in layers of every number of rows.

mod adapters;
mod files;
mod layers;
mod models;
