//! Answers that no API should send, as the fuzz target `answers` makes them.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName};

use super::super::testing::{Answer, Replay};
use super::super::{HttpPages, HttpRate, PageParameter, Paging};
use crate::HttpOptions;

fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
    let pair = |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().unwrap());
    Answer { status, headers: headers.iter().map(pair).collect::<HeaderMap>(), body: body.into() }
}

fn replay(paging: Paging) -> Replay {
    let rate = HttpRate { remaining: Some("left".into()), reset: Some("reset".into()), ..HttpRate::default() };
    let pages = HttpPages { paging, ..HttpPages::default() };
    Replay::new(HttpOptions { rate, pages, ..HttpOptions::default() }).unwrap()
}

#[test]
fn pages_of_another_origin_are_not_requested() {
    for url in ["https://evil.example/rows", "//evil.example/rows", "https://api.example.com:444/", "file:///etc/x"] {
        let link = format!("<{url}>; rel=\"next\"");
        let page = answer(200, &[("link", &link)], r#"[{"id":1}]"#);
        let report = replay(Paging::HeaderLink("next".into())).run(&[page]);
        let all: Vec<&str> = report.requests.iter().map(url::Url::as_str).collect();
        assert_eq!((all, report.rows), (vec!["https://api.example.com/v1/rows"; 2], None), "{url}");
    }
}

#[test]
fn a_list_that_names_pages_without_end_ends_and_is_not_whole() {
    let page = |number: usize| answer(200, &[("next", &number.to_string())], &format!(r#"[{{"id":{number}}}]"#));
    let pages: Vec<Answer> = (0..20).map(page).collect();
    let paging = Paging::HeaderCursor { header: "next".into(), parameter: PageParameter::of("after") };
    let report = replay(paging).run(&pages);
    assert_eq!((report.rows, report.requests.len()), (None, 16), "eight pages of the list and eight of changes");
}

#[test]
fn no_answer_stops_requests_for_more_than_an_hour() {
    for (name, value) in
        [("retry-after", "1e300"), ("retry-after", "99999999999"), ("reset", "9e10"), ("reset", "9999-01-01T00:00:00Z")]
    {
        let limited = answer(429, &[(name, value), ("left", "0")], "");
        let pause = replay(Paging::None).run(&[limited]).pause;
        assert!(pause > Duration::ZERO && pause <= Duration::from_secs(3_600), "{name}: {value}: {pause:?}");
    }
}
