//! The gateway over a real socket and a real redb file. A test that shows a promise of `docs/guarantees.md` begins with its name.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access;
mod asyncapi;
mod budgets;
mod events_checker;
mod events_many;
mod events_resume;
mod events_stream;
mod examples;
mod feeds;
mod handshakes;
#[path = "../harness/mod.rs"]
mod harness;
mod inbox;
mod index;
mod indexes;
mod live;
mod logs;
mod metrics;
mod openapi;
mod relations;
mod rest_aggregate;
mod rest_audit;
mod rest_auth;
mod rest_bulk;
mod rest_codings;
mod rest_conditions;
mod rest_cursor;
mod rest_exports;
mod rest_formats;
mod rest_idempotency;
mod rest_list;
mod rest_operations;
mod rest_prefer;
mod rest_pressure;
mod rest_purge;
mod rest_refresh;
mod rest_refusals;
mod rest_write;
mod row_checks;
mod webhook_bodies;
mod wire;
mod ws;
mod ws_conformance;
mod ws_raw;
