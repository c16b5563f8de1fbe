//! Methods: which entries they keep, which layers they share, and how they are put together.

#[path = "../calibrated/mod.rs"]
mod calibrated;
mod caps;
mod case;
mod custom;
mod divergence;
mod duties;
mod eviction;
mod expected;
mod external;
mod folded;
mod heads;
mod kvpress;
mod kvzip;
mod plans;
mod pyramid_infer;
mod rkv;
mod score;
mod sharing;
mod spans;
mod trace;
mod vision_zip;
mod zipvl;
