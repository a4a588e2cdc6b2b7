//! Answers of an HTTP API: statuses, headers and bodies of pages, rows, writes and tokens. The first byte says how the list is divided.
//!
//! Answers are separated by a zero byte. Each is a status, a line for each header, an empty line and the body. A list ends, requests
//! stay on one origin, no pause is longer than an hour, and what is allocated is in proportion to what was answered.
#![no_main]

use std::alloc::System;
use std::cell::RefCell;
use std::time::Duration;

use diorama_connect::HttpOptions;
use diorama_connect::http::testing::{Answer, Replay};
use diorama_connect::http::{
    HttpAction, HttpPages, HttpRate, HttpRule, HttpSince, HttpWrites, PageParameter, Paging, StatedTotal,
};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that may be allocated for any input, and for each byte of the input and of each answer that is read.
const BASE: usize = 256 << 10;
const TIMES: usize = 400;
/// Longest pause that an API can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);
/// Most pages of a list.
const MOST_PAGES: usize = 8;

thread_local! {
    static SOURCES: RefCell<Vec<Replay>> = RefCell::new(sources());
}

fn pagings() -> Vec<Paging> {
    let (query, body) = (PageParameter::of("p"), PageParameter::of("/variables/after"));
    let cursor = |parameter: &PageParameter, more: Option<&str>| Paging::Cursor {
        at: "/next".into(),
        parameter: parameter.clone(),
        more: more.map(Into::into),
    };
    vec![
        Paging::Detected,
        Paging::None,
        Paging::HeaderLink("next".into()),
        Paging::JsonLink("/next".into()),
        cursor(&query, None),
        cursor(&body, Some("/more")),
        Paging::Cursor { at: "/data/-1/id".into(), parameter: query.clone(), more: Some("/more".into()) },
        Paging::HeaderCursor { header: "x-next".into(), parameter: body },
        Paging::PageNumber { parameter: query.clone(), first: 1, pages: Some("/pages".into()) },
        Paging::PageNumber { parameter: query.clone(), first: 0, pages: None },
        Paging::Offset { parameter: query.clone(), overlap: true },
        Paging::Offset { parameter: query, overlap: false },
    ]
}

/// Every paging twice: with what is found out, and with what is configured.
fn sources() -> Vec<Replay> {
    let rate = HttpRate {
        remaining: Some("x-ratelimit-remaining".into()),
        reset: Some("x-ratelimit-reset".into()),
        ..HttpRate::default()
    };
    let rule = |path: Option<&str>, contains: Option<&str>, action| HttpRule {
        status: None,
        path: path.map(Into::into),
        equals: path.map(|_| "false".into()),
        contains: contains.map(Into::into),
        action,
    };
    let rules = vec![
        rule(Some("/ok"), None, HttpAction::Fail),
        rule(None, Some("slow down"), HttpAction::RateLimited),
        rule(None, Some("nothing"), HttpAction::Ignore),
    ];
    let options = |paging: Paging, is_configured: bool| {
        let pages = HttpPages { paging, ..HttpPages::default() };
        let found = HttpOptions { rate: rate.clone(), pages, ..HttpOptions::default() };
        if !is_configured {
            return found;
        }
        let total = Some(StatedTotal::Body("/total".into()));
        HttpOptions {
            id: Some("id".into()),
            rows: Some("/data".into()),
            cells: Some("/attributes".into()),
            row: "/data".into(),
            pages: HttpPages { total, size: Some((PageParameter::of("size"), 2)), ..found.pages },
            rules: rules.clone(),
            since: Some(HttpSince {
                parameter: PageParameter::of("since"),
                column: "changed".into(),
                lookback: Duration::from_secs(60),
                full_every: Duration::from_secs(3_600),
            }),
            writes: HttpWrites::new(Some("POST /"), None, Some("PATCH /{id}"), None).ok(),
            ..found
        }
    };
    let all = pagings().into_iter().flat_map(|paging| [(paging.clone(), false), (paging, true)]);
    all.map(|(paging, is_configured)| Replay::new(options(paging, is_configured)).expect("valid options")).collect()
}

fn answer(text: &[u8]) -> Answer {
    let mut rest = text;
    let mut line = || {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let (line, after) = rest.split_at(end);
        rest = &after[1..];
        (!line.is_empty()).then_some(line)
    };
    let status = line().and_then(|line| std::str::from_utf8(line).ok()?.parse().ok()).unwrap_or(200);
    let mut headers = HeaderMap::new();
    while let Some(line) = line() {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()));
        // Beyond these, the HTTP client refuses the answer.
        if let (Ok(name), Ok(value), true) = (name, value, headers.len() < 100) {
            headers.append(name, value);
        }
    }
    Answer { status, headers, body: rest.to_vec() }
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let answers: Vec<Answer> = rest.split(|byte| *byte == 0).map(answer).collect();
    SOURCES.with_borrow_mut(|sources| {
        let number = sources.len();
        let source = &mut sources[usize::from(*kind) % number];
        let region = Region::new(ALLOCATOR);
        let report = source.run(&answers);
        let took = region.change().bytes_allocated;
        let may = BASE + TIMES * (rest.len() + report.bytes);
        assert!(took <= may, "{took} bytes are allocated for {} and {} read ones", rest.len(), report.bytes);
        assert!(report.requests.len() <= 2 * MOST_PAGES, "{} requests", report.requests.len());
        let is_own = |url: &hyper::Uri| url.host() == Some("api.example.com") && url.scheme_str() == Some("https");
        for url in &report.requests {
            assert!(url.as_str().parse().is_ok_and(|url| is_own(&url)), "{url}");
        }
        assert!(report.pause <= LONGEST_PAUSE, "{:?}", report.pause);
        let items: usize = answers.iter().map(|answer| answer.body.len()).sum();
        assert!(report.rows.is_none_or(|rows| rows <= items), "{:?}", report.rows);
    });
});
