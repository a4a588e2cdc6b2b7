//! Attacks on what a Dio promises to keep: journal faults, races of master and webhooks, restarts, SIGKILL.
#![allow(missing_docs, clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests own their tasks and threads")]

mod bounds;
mod committer;
mod disk;
#[path = "../harness/mod.rs"]
mod harness;
mod images;
mod kill;
mod marks;
mod masters;
#[cfg(feature = "sqlite")]
mod once;
mod order;
mod property;
mod restart;
mod telling;
mod volatile;
