//! A mapping and a body for it, with a zero byte between them.
#![no_main]

use diorama::Schema;
use diorama::inbound::{Format, Hook, Map, Request, Scheme};
use hyper::Method;
use hyper::header::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(end) = data.iter().position(|byte| *byte == 0) else { return };
    let Ok(text) = std::str::from_utf8(&data[..end]) else { return };
    let Ok(map) = Map::read(text, &[], None) else { return };
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    let (body, now) = (&data[end + 1..], Timestamp::UNIX_EPOCH);
    let request = Request { method: &Method::POST, path: "/", query: Some("a=b"), headers: &headers, body, now };
    let _ = Hook::new(Scheme::None).format(Format::Map(map)).decode(&request, &Schema::new("id", Vec::new()));
});
