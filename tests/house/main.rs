//! Rules of the house that a compiler does not check.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its sources has failed")]

mod door;
mod layers;
mod licences;
mod pages;
mod paths;
mod public;
