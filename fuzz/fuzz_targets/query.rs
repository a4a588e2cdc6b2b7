//! Query strings, queries as JSON, cursors, positions and aggregates. The first byte says which.
#![no_main]

use std::sync::LazyLock;

use diorama::dio::Position;
use diorama::record::{JsonLimits, parse_json};
use diorama::vista::query::{AggregateItem, Aggregation, Cursor};
use diorama::{Query, Record, Schema};
use diorama_core::vista::query::url::{ParamOptions, parse};
use libfuzzer_sys::fuzz_target;

static SCHEMA: LazyLock<Schema> = LazyLock::new(diorama_fuzz::schema);
static ROWS: LazyLock<Vec<(String, Record)>> = LazyLock::new(diorama_fuzz::rows);

/// Every row is judged, and the query's own form says the same.
fn ask(query: &Query) {
    let prepared = query.prepare(&SCHEMA);
    let kept: Vec<_> = ROWS.iter().filter(|(_, row)| prepared.matches(row)).collect();
    for (a, b) in kept.iter().zip(kept.iter().skip(1)) {
        let (a, b) = ((a.0.as_str(), &a.1), (b.0.as_str(), &b.1));
        assert_eq!(prepared.compare(a, b), prepared.compare(b, a).reverse());
    }
    if query.validate(&SCHEMA).is_ok() {
        let again = Query::from_json(&query.to_json(), &SCHEMA).expect("what a query says can be read");
        assert_eq!(again.to_json(), query.to_json(), "{query:?}");
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    match kind % 5 {
        0 => {
            if let Ok(asked) = parse(&text, &SCHEMA, &ParamOptions { extra: &["format"], ..ParamOptions::default() }) {
                ask(&asked.query);
            }
        }
        1 => {
            let value = parse_json(rest, JsonLimits { nodes: 10_000, depth: 64 });
            if let Ok(query) = value.map_err(drop).and_then(|value| Query::from_json(&value, &SCHEMA).map_err(drop)) {
                ask(&query);
            }
        }
        2 => {
            if let Ok(cursor) = Cursor::parse(&text) {
                let again = Cursor::parse(&cursor.to_string()).expect("what was read can be written");
                assert_eq!(again.to_string(), cursor.to_string());
            }
        }
        3 => {
            if let Ok(position) = text.parse::<Position>() {
                assert_eq!(position.to_string().parse::<Position>().expect("what is written can be read"), position);
            }
        }
        _ => {
            let items: Vec<_> = text.split(',').filter_map(|item| AggregateItem::parse(item).ok()).collect();
            if let Ok(aggregation) = Aggregation::new(&items, &SCHEMA) {
                let _ = aggregation.fold(ROWS.iter().map(|(_, row)| row.clone()));
            }
        }
    }
});
