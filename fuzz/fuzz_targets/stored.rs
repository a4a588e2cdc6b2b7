//! What journals and caches hold, behind seals that are right: entries, rows, what is known of them, deliveries. The first byte says
//! which. An entry that can be read says the same when it is written and read again.
#![no_main]

use std::sync::LazyLock;

use diorama::Schema;
use diorama::vista::Kinds;
use diorama::vista::query::JsonRow;
use diorama_core::cache::{decode_stored as decode_row, decode_stored_meta};
use diorama_core::journal::decode_stored as decode_kept;
use diorama_core::state::Entry;
use diorama_core::vista::query::url::{ParamOptions, parse};
use libfuzzer_sys::fuzz_target;

static SCHEMA: LazyLock<Schema> = LazyLock::new(diorama_fuzz::schema);

fn check_entry(entry: &Entry) {
    let written = entry.encode();
    let again = Entry::decode(&written).expect("what is written can be read");
    assert_eq!(again.encode(), written);
}

/// Everything that looks into a stored row without decoding all of it.
fn look_at_row(content: &[u8]) {
    let Some((_, body)) = decode_row(content) else { return };
    let _ = (body.decode(), body.hash(), body.size());
    let row = JsonRow::from(&body);
    Kinds::new(&SCHEMA).differences(row, |_| {});
    for asked in
        ["price=gt.1&name=like.B*", "order=price,name.desc&q=bun", "tags->a=eq.1&or=(sold.is.true,baked.lt.2026)"]
    {
        let query = parse(asked, &SCHEMA, &ParamOptions::default()).expect("a query").query;
        let prepared = query.prepare(&SCHEMA);
        let _ = prepared.matches(&row);
        let _ = prepared.compare(("a", &row), ("b", &row));
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 5 {
        0 => {
            if let Ok(entry) = Entry::decode(rest) {
                check_entry(&entry);
            }
        }
        1 => {
            if let Some((entry, length)) = Entry::decode_first(rest) {
                assert!(length <= rest.len());
                check_entry(&entry);
            }
        }
        2 => look_at_row(rest),
        3 => drop(decode_stored_meta(rest)),
        _ => decode_kept(rest),
    }
});
