//! Lists of APIs whose pages are configured wrongly, or that take other parameters than most.

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Json, Response};
use serde_json::{Value, json};

use super::super::{Http, HttpOptions, HttpPages, PageParameter, Paging};
use super::scripted::{Received, with_api};
use super::{list, sized};
use diorama_core::vista::{Error, ErrorKind};

const ROWS: usize = 25;

fn query(name: &str) -> PageParameter {
    PageParameter::Query(name.into())
}

fn rows(from: usize, count: usize) -> Vec<Value> {
    (from..ROWS.min(from + count)).map(|id| json!({"id": id})).collect()
}

/// An API like Stripe's: pages of 10 after the row `starting_after`.
fn after_row(request: &Received) -> Response {
    let from = request.query.get("starting_after").map_or(0, |id| id.parse::<usize>().unwrap() + 1);
    Json(json!({"data": rows(from, 10), "has_more": from + 10 < ROWS})).into_response()
}

async fn read(url: &str, paging: Paging, size: Option<u64>) -> Result<usize, Error> {
    let pages = HttpPages { paging, size: size.and_then(|size| sized("limit", size)), ..HttpPages::default() };
    let vista = Http::open("rows", url, HttpOptions { pages, ..HttpOptions::default() }).await?;
    Ok(list(&vista).await?.len())
}

#[tokio::test]
async fn a_misspelt_pointer_refuses_the_list_instead_of_ending_it() {
    with_api(
        |request| after_row(&request),
        async |url| {
            let paging = |at: &str, more: Option<&str>| Paging::Cursor {
                at: at.into(),
                parameter: query("starting_after"),
                more: more.map(Into::into),
            };
            assert_eq!(read(url, paging("/data/-1/id", Some("/has_more")), None).await.unwrap(), ROWS);
            assert_eq!(read(url, paging("/data/-1/id", None), None).await.unwrap(), ROWS);
            for (at, more, key) in [
                ("/data/-1/id", Some("/has_mor"), "page.more"),
                ("/data/-1/id", Some("/meta/has_more"), "page.more"),
                ("/dta/-1/id", None, "page.cursor"),
                ("/next", None, "page.cursor"),
                ("/data/-1/nothing", Some("/has_more"), "page.cursor"),
            ] {
                let error = read(url, paging(at, more), None).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Permanent);
                assert!(error.to_string().contains(key), "{error}");
            }
        },
    )
    .await;
}

#[tokio::test]
async fn a_parameter_that_the_api_ignores_refuses_the_list() {
    let numbered = |request: Received| {
        let page = request.number("page").max(1);
        Json(json!({"rows": rows((page - 1) * 10, 10), "total": ROWS})).into_response()
    };
    with_api(numbered, async |url| {
        let paging = |name: &str| Paging::PageNumber { parameter: query(name), first: 1, pages: None };
        assert_eq!(read(url, paging("page"), None).await.unwrap(), ROWS);
        let error = read(url, paging("pge"), None).await.unwrap_err();
        assert!(error.to_string().contains("page.page_number"), "{error}");
        let offset = |overlap| Paging::Offset { parameter: query("skip"), overlap };
        for overlap in [true, false] {
            let error = read(url, offset(overlap), None).await.unwrap_err();
            assert!(error.to_string().contains("page.offset"), "{error}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_api_that_takes_only_multiples_of_the_page_size_is_read_without_overlap() {
    let offset = |overlap| Paging::Offset { parameter: query("offset"), overlap };
    for kind in ["rounds down", "rounds up", "refuses"] {
        let api = move |request: Received| {
            let (offset, limit) = (request.number("offset"), request.number("limit"));
            let from = match kind {
                "rounds down" => offset / limit * limit,
                "rounds up" => offset.next_multiple_of(limit),
                _ if offset % limit > 0 => return (StatusCode::BAD_REQUEST, "bad offset").into_response(),
                _ => offset,
            };
            Json(Value::from(rows(from, limit))).into_response()
        };
        with_api(api, async |url| {
            let error = read(url, offset(true), Some(10)).await.unwrap_err();
            assert!(error.to_string().contains("page.overlap = false"), "{kind}: {error}");
            for size in [5, 10, 25] {
                assert_eq!(read(url, offset(false), Some(size)).await.unwrap(), ROWS, "{kind}, {size}");
            }
            // A first page that is not full may be all rows, or as many as the API gives at once.
            match (read(url, offset(false), Some(100)).await, kind) {
                (Err(error), "refuses") => assert!(error.to_string().contains("page.total"), "{error}"),
                (read, _) => assert_eq!(read.unwrap(), ROWS, "{kind}"),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_cursor_in_a_body_has_the_type_that_it_came_with() {
    // A GraphQL server that tells texts from numbers.
    for as_text in [true, false] {
        let api = move |request: Received| {
            let body = request.json();
            let after = &body["variables"]["after"];
            let from = match after {
                Value::Null => 0,
                Value::String(text) if as_text => text.parse().unwrap(),
                Value::Number(number) if !as_text => number.as_u64().unwrap(),
                other => {
                    let errors = json!({"errors": [{"message": format!("{other} has another type")}]});
                    return (StatusCode::BAD_REQUEST, Json(errors)).into_response();
                }
            };
            let from = usize::try_from(from).unwrap();
            let end = if as_text { json!((from + 10).to_string()) } else { json!(from + 10) };
            let info = json!({"hasNextPage": from + 10 < ROWS, "endCursor": end});
            Json(json!({"data": {"rows": {"nodes": rows(from, 10), "pageInfo": info}}})).into_response()
        };
        with_api(api, async |url| {
            let pages = HttpPages {
                paging: Paging::Cursor {
                    at: "/data/rows/pageInfo/endCursor".into(),
                    parameter: PageParameter::Body("/variables/after".into()),
                    more: Some("/data/rows/pageInfo/hasNextPage".into()),
                },
                ..HttpPages::default()
            };
            let body = super::super::client::parse(br#"{"query":"{ rows }","variables":{}}"#).unwrap();
            let options = HttpOptions {
                method: http::Method::POST,
                body: Some(body),
                rows: Some("/data/rows/nodes".into()),
                pages,
                ..HttpOptions::default()
            };
            let vista = Http::open("rows", url, options).await.unwrap();
            assert_eq!(list(&vista).await.unwrap().len(), ROWS, "{as_text}");
        })
        .await;
    }
}
