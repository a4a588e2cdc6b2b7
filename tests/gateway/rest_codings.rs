//! Bodies as zstd, br and gzip.

use async_compression::tokio::write::{BrotliDecoder, GzipDecoder, ZstdDecoder};
use diorama::gateway::MountOptions;
use tokio::io::AsyncWriteExt as _;

use crate::harness::{Answer, App, products, rows};

async fn app() -> App {
    let compressed = |gateway: diorama::gateway::Gateway| gateway.compression(true);
    App::with(products(), rows(2_500), |lens| lens, MountOptions::default(), compressed).await
}

async fn decoded(coding: &str, body: &[u8]) -> Vec<u8> {
    macro_rules! decode {
        ($decoder:ident) => {{
            let mut decoder = $decoder::new(Vec::new());
            decoder.write_all(body).await.unwrap();
            decoder.shutdown().await.unwrap();
            decoder.into_inner()
        }};
    }
    match coding {
        "zstd" => decode!(ZstdDecoder),
        "br" => decode!(BrotliDecoder),
        "gzip" => decode!(GzipDecoder),
        other => panic!("{other} is no coding"),
    }
}

fn varies(answer: &Answer) -> bool {
    answer.headers.iter().any(|(name, value)| name == "vary" && value.contains("Accept-Encoding"))
}

#[tokio::test]
async fn a_body_is_the_same_in_every_coding_and_its_etag_is_not() {
    let app = app().await;
    // In one piece, large enough to leave the thread, and as a stream.
    for path in ["/products", "/products?limit=900", "/products?limit=2000&order=price.desc"] {
        let plain = app.get(path).await;
        assert!(varies(&plain) && plain.header("content-encoding").is_empty(), "{plain:?}");
        let mut tags = vec![plain.header("etag").to_string()];
        for coding in ["zstd", "br", "gzip"] {
            let asked = ("Accept-Encoding", coding);
            let coded = app.send("GET", path, &[asked], "").await;
            assert_eq!((coded.status, coded.header("content-encoding")), (200, coding), "{path}");
            assert!(varies(&coded) && coded.body.len() * 2 < plain.body.len(), "{path} {coding}: {}", coded.body.len());
            assert_eq!(decoded(coding, &coded.body).await, plain.body, "{path} {coding}");
            let etag = coded.header("etag").to_string();
            let head = app.send("HEAD", path, &[asked], "").await;
            for name in ["etag", "content-encoding", "content-length", "vary", "content-type", "link"] {
                assert_eq!(head.header(name), coded.header(name), "{path} {coding}: {name}");
            }
            for known in [vec![asked, ("If-None-Match", &*etag)], vec![("If-None-Match", &*etag)]] {
                let same = app.send("GET", path, &known, "").await;
                assert_eq!((same.status, same.header("etag"), same.body.len()), (304, &*etag, 0));
                assert!(varies(&same) && same.header("content-encoding").is_empty());
            }
            tags.push(etag);
        }
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), 4, "{tags:?}");
    }
}

#[tokio::test]
async fn other_formats_are_coded_and_small_answers_and_events_are_not() {
    let app = app().await;
    for media in ["application/x-ndjson", "text/csv", "application/cbor"] {
        let plain = app.send("GET", "/products", &[("Accept", media)], "").await;
        let coded = app.send("GET", "/products", &[("Accept", media), ("Accept-Encoding", "gzip")], "").await;
        assert_eq!(coded.header("content-encoding"), "gzip", "{media}");
        assert_eq!(decoded("gzip", &coded.body).await, plain.body, "{media}");
    }
    let any = ("Accept-Encoding", "gzip, br, zstd");
    let small = app.send("GET", "/products/1", &[any], "").await;
    assert!(varies(&small) && small.header("content-encoding").is_empty());
    let refused = app.send("GET", "/products?limit=100&nonsense=1", &[any], "").await;
    assert_eq!(refused.refusal(), (400, "unknown-column".into()));
    let events = app.send("GET", "/products/events", &[any], "").await;
    assert!(events.header("content-encoding").is_empty() && !varies(&events));
    let unwanted = app.send("GET", "/products", &[("Accept-Encoding", "identity, gzip;q=0.5")], "").await;
    assert!(unwanted.header("content-encoding").is_empty());
}

#[tokio::test]
async fn a_write_takes_the_etag_of_any_coding() {
    let long = "x".repeat(2_000);
    let app = app().await;
    app.json("PATCH", "/products/1", &format!(r#"{{"name":"{long}"}}"#)).await;
    let coded = app.send("GET", "/products/1", &[("Accept-Encoding", "br")], "").await;
    assert_eq!(coded.header("content-encoding"), "br");
    let known = [("Content-Type", "application/json"), ("If-Match", coded.header("etag"))];
    assert_eq!(app.send("PATCH", "/products/1", &known, r#"{"price":1}"#).await.status, 202);
    assert_eq!(app.send("PATCH", "/products/1", &known, r#"{"price":2}"#).await.status, 412);
}

#[tokio::test]
async fn nothing_is_coded_unless_it_is_turned_on() {
    let app = App::with(products(), rows(100), |lens| lens, MountOptions::default(), |gateway| gateway).await;
    let answer = app.send("GET", "/products", &[("Accept-Encoding", "gzip")], "").await;
    assert!(answer.header("content-encoding").is_empty() && !varies(&answer));
}

#[tokio::test]
async fn bodies_that_are_coded_are_refused_before_they_are_read_and_told_what_is_taken() {
    let app = app().await;
    let gzip: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xab, 0xae, 5, 0, 0x43, 0xbf, 0xa6, 0xa3, 2, 0, 0, 0];
    for (method, path, media) in [
        ("POST", "/products", "application/json"),
        ("POST", "/products", "application/x-ndjson"),
        ("POST", "/products/a", "application/cbor"),
        ("PUT", "/products/1", "application/json"),
        ("PATCH", "/products/1", "application/merge-patch+json"),
        ("PATCH", "/products?price=lt.5", "application/json"),
        ("QUERY", "/products", "application/json"),
        ("POST", "/products/_query", "application/json"),
    ] {
        for coding in ["gzip", "br", "zstd", "deflate", "gzip, identity", "x"] {
            let headers = [("Content-Type", media), ("Content-Encoding", coding)];
            let refused = app.send(method, path, &headers, gzip).await;
            assert_eq!(refused.refusal(), (415, "unsupported-media-type".into()), "{method} {path} {coding}");
            assert_eq!(refused.header("accept-encoding"), "identity");
        }
    }
    let headers = [("Content-Type", "application/json"), ("Content-Encoding", "Identity")];
    assert_eq!(app.send("PATCH", "/products/1", &headers, r#"{"price":1}"#).await.status, 202);
    assert_eq!(
        app.send("GET", "/products/1", &[("Content-Encoding", "gzip")], "").await.status,
        200,
        "there is no body"
    );
}
