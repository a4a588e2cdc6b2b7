//! The command `diorama`, as a process with real files, a real port and real signals.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod events;
mod files;
#[cfg(unix)]
mod kill;
#[cfg(unix)]
mod ledger;
#[cfg(unix)]
mod load;
mod process;
#[cfg(unix)]
mod stock;
mod stop;
#[cfg(unix)]
mod subscriber;
mod webhooks;
