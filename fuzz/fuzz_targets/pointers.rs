//! JSON Pointers, paths and bodies in the configuration of an HTTP source. The first byte says which; zero bytes separate the parts.
//!
//! What is set is found again, an id is one segment of a path whatever its characters are, and a body is in proportion to its row.
#![no_main]

use std::cell::RefCell;

use diorama::Record;
use diorama::record::value_to_json;
use diorama_connect::HttpOptions;
use diorama_connect::http::testing::{Replay, body, check, get, parse, request, set, take};
use hyper::header::HeaderValue;
use libfuzzer_sys::fuzz_target;

/// Maximum size of a form before it is escaped, which makes it three times as large.
const MOST_FORM: usize = 3 * (16 << 20);
/// Maximum number of steps of a pointer.
const MOST_STEPS: usize = 64;

thread_local! {
    static SOURCE: RefCell<Replay> = RefCell::new(Replay::new(HttpOptions::default()).expect("valid options"));
}

fn check_pointer(at: &str, document: &[u8], new: &[u8]) {
    let is_valid = check(at).is_ok();
    let document = parse(document);
    if let Some(document) = &document {
        assert_eq!(take(document.clone(), at).as_ref(), get(document, at), "{at:?}");
    }
    if !is_valid {
        return;
    }
    assert!(at.is_empty() || at.starts_with('/') && at.matches('/').count() <= MOST_STEPS, "{at:?}");
    let (Some(mut document), Some(new)) = (document, parse(new)) else { return };
    set(&mut document, at, new.clone());
    assert_eq!(get(&document, at), Some(&new), "{at:?}");
    // What was set can be sent.
    let _ = value_to_json(&document);
}

/// An id that contains `/`, `?`, `&` or `..` must not lead to another path or parameter than those of the configuration.
fn check_path(text: &str, id: &str) {
    SOURCE.with_borrow(|source| {
        let Some((method, url)) = request(source, text, id) else {
            let is_resolved = id.bytes().all(|byte| byte == b'.') || text.contains(['%', '.']);
            assert!(is_resolved || request(source, text, "1").is_none(), "{text:?} {id:?}");
            return;
        };
        let Some((_, plain)) = request(source, text, "1") else { return };
        assert!(["POST", "PUT", "PATCH", "DELETE"].contains(&method.as_str()), "{method}");
        assert_eq!((url.origin(), url.fragment()), (plain.origin(), plain.fragment()), "{text:?} {id:?}");
        let parts = |url: &url::Url| (url.path_segments().map_or(0, Iterator::count), url.query_pairs().count());
        if !id.is_empty() {
            assert_eq!(parts(&url), parts(&plain), "{text:?} {id:?}: {url}");
        }
    });
}

fn check_body(template: &[u8], row: &[u8], id: &str) {
    let (Some(template), Some(row)) = (parse(template), parse(row)) else { return };
    if template.as_text().is_some_and(|at| check(at).is_err()) {
        return;
    }
    let members = row.as_map().cloned().unwrap_or_default().into_iter();
    let row: Record = members.filter_map(|(name, value)| Some((name.into_text().ok()?, value))).collect();
    let json = HeaderValue::from_static("application/json");
    let sent = body(template.clone(), Some(id), &row, &json).expect("JSON is not bounded");
    assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&sent).is_ok(), "{}", String::from_utf8_lossy(&sent));
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    if let Ok(sent) = body(template, (!id.is_empty()).then_some(id), &row, &form) {
        assert!(sent.len() <= MOST_FORM && sent.is_ascii(), "{} bytes", sent.len());
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let mut parts = rest.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (first, second, third) = (part(), part(), part());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match kind % 3 {
        0 => check_pointer(&text(first), second, third),
        1 => check_path(&text(first), &text(second)),
        _ => check_body(first, second, &text(third)),
    }
});
