//! The HTTP surface.

mod events;
pub mod params;
