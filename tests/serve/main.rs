//! The command `diorama`, as a process with real files, a real port and real signals.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[cfg(feature = "http")]
mod apis;
#[cfg(unix)]
mod audit;
mod auth;
mod authority;
#[cfg(unix)]
mod cache_stores;
#[cfg(unix)]
mod certificates;
mod checks;
mod demo;
mod events;
#[cfg(target_os = "linux")]
mod exports;
#[cfg(unix)]
mod feeds;
mod files;
mod frames;
mod handshakes;
#[path = "../harness/mod.rs"]
mod harness;
mod http2;
#[cfg(unix)]
mod inbox;
mod kept;
#[cfg(unix)]
mod kill;
mod limits;
mod lives;
mod logs;
#[cfg(feature = "http")]
mod notify;
mod openapi;
mod ops;
mod process;
#[cfg(feature = "http")]
mod proxies;
#[cfg(unix)]
mod purge;
mod rates;
mod reading;
#[cfg(unix)]
mod readme;
mod real;
#[cfg(unix)]
mod reload;
#[cfg(feature = "http")]
mod remote_file;
#[cfg(unix)]
mod source_files;
mod stop;
mod storm;
mod streams;
#[cfg(unix)]
mod surgery;
mod tls;
mod topics;
mod values;
#[cfg(all(feature = "watch", unix))]
mod watch;
#[cfg(target_os = "linux")]
mod webhook_bodies;
mod webhook_test;
mod webhooks;
mod writes;
