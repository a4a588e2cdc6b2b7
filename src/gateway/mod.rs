//! The HTTP surface.

pub mod params;
