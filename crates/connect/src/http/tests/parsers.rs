//! Properties of what reads answers: headers, pointers, times, pages.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue, LINK, RETRY_AFTER};
use proptest::prelude::*;

use super::super::errors::{reset_in, retry_after};
use super::super::pager::{Page, PageRequest, Pager};
use super::super::{HttpPages, PageParameter, Paging, StatedTotal, client, detect, pointer};
use diorama_core::record::CborValue;

/// Longest pause that an API can ask for.
const LONGEST: Duration = Duration::from_secs(3_600);

fn value() -> impl Strategy<Value = CborValue> {
    let name = || prop::sample::select(vec!["a", "next", "more", "data", "~", "a/b", "", "-1", "0", "total", "page"]);
    let leaf = prop_oneof![
        Just(CborValue::Null),
        any::<bool>().prop_map(CborValue::from),
        (-2..4_i64).prop_map(CborValue::from),
        any::<f64>().prop_map(CborValue::from),
        name().prop_map(CborValue::from),
        Just("https://api.example.com/x".into()),
    ];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        let members = prop::collection::btree_map(name(), inner.clone(), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(CborValue::Array),
            members.prop_map(|members| {
                CborValue::Map(members.into_iter().map(|(name, value)| (name.into(), value)).collect())
            }),
        ]
    })
}

fn at() -> impl Strategy<Value = String> {
    let step = prop::sample::select(vec!["a", "next", "more", "data", "~0", "a~1b", "", "-1", "0", "-9", "total", "1"]);
    prop::collection::vec(step, 0..4).prop_map(|steps| steps.into_iter().map(|step| format!("/{step}")).collect())
}

fn paging() -> impl Strategy<Value = Paging> {
    let parameter = || prop::sample::select(vec!["p", "/p"]).prop_map(PageParameter::of);
    prop_oneof![
        Just(Paging::Detected),
        Just(Paging::HeaderLink("next".into())),
        at().prop_map(Paging::JsonLink),
        (at(), parameter(), prop::option::of(at())).prop_map(|(at, parameter, more)| Paging::Cursor {
            at,
            parameter,
            more
        }),
        parameter().prop_map(|parameter| Paging::HeaderCursor { header: "x-next".into(), parameter }),
        (parameter(), 0..2_u64, prop::option::of(at())).prop_map(|(parameter, first, pages)| Paging::PageNumber {
            parameter,
            first,
            pages
        }),
        (parameter(), any::<bool>()).prop_map(|(parameter, overlap)| Paging::Offset { parameter, overlap }),
    ]
}

proptest! {
    #[test]
    fn a_link_is_found_among_others(
        url in "[a-z/?=&,;\"]{0,20}",
        relation in "[a-z]{1,8}",
        others in prop::collection::vec(("[a-z/,;]{0,9}", "[a-z]{1,6} [a-z]{0,4}"), 0..3),
    ) {
        let mut links: Vec<String> =
            others.iter().map(|(url, relations)| format!("<{url}>; title=\"a, <b>\"; rel=\"x{relations}\"")).collect();
        links.push(format!("<{url}>; rel={relation}"));
        let mut headers = HeaderMap::new();
        headers.insert(LINK, HeaderValue::from_str(&links.join(", ")).unwrap());
        let is_other = others.iter().any(|(_, relations)| format!("x{relations}").split(' ').any(|own| own == relation));
        if !is_other {
            prop_assert_eq!(detect::header_link(&headers, &relation), Some(url));
        }
    }

    #[test]
    fn any_header_can_be_read(bytes in prop::collection::vec(prop_oneof![Just(b'<'), Just(b'>'), Just(b'"'), Just(b','), any::<u8>()], 0..60)) {
        let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
        let mut headers = HeaderMap::new();
        for name in [LINK, RETRY_AFTER, HeaderName::from_static("x-total-count")] {
            headers.insert(name, value.clone());
        }
        if let Some(url) = detect::header_link(&headers, "next") {
            prop_assert!(value.to_str().unwrap().contains(&url));
        }
        let _ = retry_after(&headers);
        let _ = value.to_str().map(reset_in);
        let _ = detect::total(&headers, &CborValue::Null);
    }

    #[test]
    fn no_time_of_a_limit_is_longer_than_an_hour(
        text in prop_oneof![
            any::<f64>().prop_map(|number| number.to_string()),
            any::<u64>().prop_map(|number| number.to_string()),
            "[0-9]{4}-[01][0-9]-[0-3][0-9]T00:00:00Z",
            "(Mon|Tue), [0-3][0-9] (Jan|Dec) [0-9]{4} 00:00:00 GMT",
        ],
    ) {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, text.parse().unwrap());
        prop_assert!(retry_after(&headers).is_none_or(|wait| wait <= LONGEST));
        prop_assert!(reset_in(&text).is_none_or(|wait| wait <= LONGEST));
    }

    #[test]
    fn a_pointer_gets_what_was_set(mut root in value(), at in at(), new in value()) {
        prop_assert_eq!(pointer::take(root.clone(), &at), pointer::get(&root, &at).cloned());
        pointer::set(&mut root, &at, new.clone());
        // What is set is a member, also if its name looks like an index.
        prop_assert_eq!(pointer::get(&root, &at), Some(&new));
    }

    /// Whatever an API answers, a list ends, and no page is asked for twice.
    #[test]
    fn every_list_ends(
        paging in paging(),
        total in prop::option::of(at()),
        answers in prop::collection::vec((value(), 0..4_usize, any::<bool>()), 1..4),
        detected in any::<bool>(),
    ) {
        let headers = |has_more: bool| {
            let mut headers = HeaderMap::new();
            if has_more {
                headers.insert(LINK, HeaderValue::from_static("</x?page=2>; rel=\"next\""));
                headers.insert("x-next", HeaderValue::from_static("7"));
            }
            headers
        };
        let url = "http://api.example.com/x".parse().unwrap();
        let found = detect::paging(&url, &headers(answers[0].2), &answers[0].0, "/data").filter(|_| detected);
        let total = total.map(StatedTotal::Body);
        let pages = HttpPages { paging: found.unwrap_or(paging), total, most: 20, ..HttpPages::default() };
        let (mut pager, mut requests) = (Pager::new(&pages, false), Vec::<PageRequest>::new());
        for (number, (document, rows, has_more)) in answers.iter().cycle().enumerate() {
            prop_assert!(number < 21, "the list does not end");
            let ends = (*rows > 0).then(|| (number.to_string(), format!("{number}-{rows}")));
            let headers = headers(*has_more);
            match pager.next(&Page { headers: &headers, document, rows: *rows, ends }) {
                Ok(Some(request)) => {
                    prop_assert!(!requests.contains(&request), "{request:?} is sent twice");
                    requests.push(request);
                }
                Ok(None) | Err(_) => break,
            }
        }
    }

    #[test]
    fn any_answer_can_be_read(text in "[\\[\\]{}\":,a-z0-9.e+-]{0,60}") {
        if let Ok(document) = client::parse(text.as_bytes()) {
            let url = "http://api.example.com/x?page=1".parse().unwrap();
            let _ = detect::paging(&url, &HeaderMap::new(), &document, "");
            let page = Page { headers: &HeaderMap::new(), document: &document, rows: 1, ends: None };
            let _ = detect::next(&page, true);
        }
    }
}
