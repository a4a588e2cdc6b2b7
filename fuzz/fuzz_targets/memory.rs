//! Bytes that are allocated for an input, by every parser and query: in all at most [`BASE`] and [`TIMES`] the input's length. The
//! first byte says which parser.
//!
//! What is counted is all that is asked of the allocator until the input is done with, given back or not. Exceptions: files, which
//! are read through buffers of their own ([`FILE`]; twice, if they are not UTF-8) and are left alone if they are packed, and patterns
//! (`like`, `match` and their kin), which are compiled and have a bound of their own ([`PATTERN`] each).
#![no_main]

use std::alloc::System;
use std::sync::LazyLock;

use diorama::config::Config;
use diorama::connect::{Csv, CsvOptions, Json, JsonOptions};
use diorama::inbound::{Format, Hook, Map, PRESETS, Request, Scheme, preset};
use diorama::record::{JsonLimits, parse_json};
use diorama::vista::query::{AggregateItem, Aggregation, Cursor};
use diorama::{Query, Record, Schema};
use diorama_core::cache::{decode_stored as decode_row, decode_stored_meta};
use diorama_core::journal::decode_stored as decode_kept;
use diorama_core::state::Entry;
use diorama_core::vista::query::url::{ParamOptions, parse};
use hyper::Method;
use hyper::header::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const BASE: usize = 64 << 10;
const TIMES: usize = 200;
const FILE: usize = 768 << 10;
const PATTERN: usize = 4 << 20;

static SCHEMA: LazyLock<Schema> = LazyLock::new(diorama_fuzz::schema);
static ROWS: LazyLock<Vec<(String, Record)>> = LazyLock::new(diorama_fuzz::rows);
static FILES: LazyLock<(Runtime, TempDir)> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    (runtime, tempfile::tempdir().expect("a folder"))
});
static HOOKS: LazyLock<Vec<Hook>> = LazyLock::new(|| {
    let presets = PRESETS.iter().map(|name| {
        let only = (!["airtable", "dropbox", "mailgun", "row", "twilio"].contains(name)).then_some("a");
        Format::Map(preset(name, only, "", &["map"]).expect("presets load"))
    });
    let formats = [Format::Native, Format::CloudEvents { batches: true }].into_iter().chain(presets);
    formats.map(|format| Hook::new(Scheme::None).format(format)).collect()
});

/// Judges every row; gives the bytes that this may allocate beside those for the query's length.
fn ask(query: &Query) -> usize {
    let prepared = query.prepare(&SCHEMA);
    let _ = ROWS.iter().filter(|(_, row)| prepared.matches(row)).count();
    BASE + patterns(&format!("{:?}", query.to_json()))
}

fn decode(hook: &Hook, kind: &'static str, body: &[u8]) {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static(kind));
    headers.insert("ce-specversion", HeaderValue::from_static("1.0"));
    headers.insert("ce-type", HeaderValue::from_static("a.updated"));
    let now = Timestamp::UNIX_EPOCH;
    let request =
        Request { method: &Method::POST, path: "/webhooks/a", query: Some("a=b"), headers: &headers, body, now };
    let _ = hook.decode(&request, &SCHEMA);
}

fn list(ending: &str, content: &[u8]) {
    // What is packed may be a thousand times as long.
    if content.starts_with(b"\x1f\x8b") {
        return;
    }
    let (runtime, folder) = &*FILES;
    let path = folder.path().join(format!("products.{ending}"));
    std::fs::write(&path, content).expect("the file can be written");
    // Nobody waits for the rest of a file that looks cut.
    let settle = Some(std::time::Duration::ZERO);
    runtime.block_on(async {
        let opened = match ending {
            "csv" => Csv::open("products", &path, CsvOptions { settle, ..CsvOptions::default() }).await,
            _ => Json::open("products", &path, JsonOptions { settle, ..JsonOptions::default() }).await,
        };
        if let Ok(vista) = opened {
            let _ = vista.list_values().await;
        }
    });
}

/// Parses `rest`; gives the bytes that this may allocate beside those for its length.
fn work(kind: u8, rest: &[u8]) -> usize {
    let text = String::from_utf8_lossy(rest);
    match kind % 14 {
        0 => {
            return match parse(&text, &SCHEMA, &ParamOptions::default()) {
                Ok(asked) => ask(&asked.query),
                Err(_) => BASE + patterns(&text),
            };
        }
        1 => {
            let value = parse_json(rest, JsonLimits { nodes: 10_000, depth: 64 });
            return match value.map_err(drop).and_then(|value| Query::from_json(&value, &SCHEMA).map_err(drop)) {
                Ok(query) => ask(&query),
                Err(()) => BASE + patterns(&text),
            };
        }
        2 => drop(parse_json(rest, JsonLimits { nodes: 100_000, depth: 64 })),
        3 => drop(Cursor::parse(&text)),
        4 => {
            let items: Vec<_> = text.split(',').filter_map(|item| AggregateItem::parse(item).ok()).collect();
            if let Ok(aggregation) = Aggregation::new(&items, &SCHEMA) {
                let _ = aggregation.fold(ROWS.iter().map(|(_, row)| row.clone()));
            }
        }
        5 => {
            let Some(end) = rest.iter().position(|byte| *byte == 0) else { return BASE };
            let Ok(map) = std::str::from_utf8(&rest[..end]) else { return BASE };
            if let Ok(map) = Map::read(map, &[], None) {
                decode(&Hook::new(Scheme::None).format(Format::Map(map)), "application/json", &rest[end + 1..]);
            }
        }
        6 => {
            let Some((hook, body)) = rest.split_first() else { return BASE };
            let kinds =
                ["application/json", "application/x-ndjson", "application/cbor", "application/x-www-form-urlencoded"];
            decode(&HOOKS[usize::from(*hook) % HOOKS.len()], kinds[usize::from(*hook >> 6)], body);
        }
        7 => drop(Entry::decode(rest)),
        8 => drop(decode_row(rest).map(|(_, body)| body.decode())),
        9 => drop(decode_stored_meta(rest)),
        10 => decode_kept(rest),
        11 => drop(Config::parse(&text, "/nowhere/diorama.toml".as_ref(), &|_| None)),
        12 => {
            list("csv", rest);
            return FILE;
        }
        _ => {
            list(if kind & 0x80 == 0 { "json" } else { "ndjson" }, rest);
            return FILE;
        }
    }
    BASE
}

/// What the patterns of a query may take, however their operators are spelled.
fn patterns(text: &str) -> usize {
    let folded = text.to_ascii_lowercase();
    let count = |word: &str| folded.matches(word).count();
    let named = count("match") + count("like") + count("%") / 2 + count("\\u");
    named.min(20) * PATTERN
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    // The first time pays for what is made once.
    for last in [false, true] {
        let region = Region::new(ALLOCATOR);
        let may = work(*kind, rest) + TIMES * rest.len();
        let took = region.change().bytes_allocated;
        if took <= may {
            return;
        }
        assert!(!last, "{took} bytes are allocated for an input of {}, which may take {may}", data.len());
    }
});
