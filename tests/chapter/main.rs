//! The library as a program uses it: Dio and Lens. Sceneries have a test crate of their own.
//!
//! Where time matters the clock is paused and everything is in memory; only what is about files uses files.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that cannot go on ends")]

#[path = "../harness/mod.rs"]
mod harness;

mod backends;
mod cache;
mod checks;
mod events;
mod facade;
mod lens;
mod live;
mod narrowing;
mod purge;
mod refresh;
mod reopen;
mod replacement;
mod replacement_property;
mod start;
mod unchanged;
mod weak;
mod whole_list;
mod writes;
