//! `/metrics`: exact counts after known traffic, and a page that every scraper can read.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diorama::dio::Retry;
use diorama::gateway::webhook::Hook;
use diorama::gateway::{Gateway, MountOptions};
use diorama::inbound::{self, Key, Scheme};
use diorama::{Error, LensBuilder};
use futures_util::StreamExt as _;

use crate::harness::{App, products, rows};

/// A page of metrics by series, as written.
struct Page(BTreeMap<String, f64>);

impl Page {
    async fn of(app: &App) -> Page {
        let answer = app.get("/metrics").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        assert_eq!(answer.header("cache-control"), "no-store");
        Page::parse(answer.text())
    }

    /// Reads a page as strictly as the format's documentation is.
    fn parse(text: &str) -> Page {
        assert!(text.ends_with('\n') && !text.contains("\n\n"), "lines end with a newline, none is empty");
        let mut series = BTreeMap::new();
        let (mut families, mut family, mut kind) = (HashSet::new(), String::new(), String::new());
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(help.ends_with('.'), "{help}");
                assert!(families.insert(name.to_string()), "{name} stands in two places");
                let kinds = lines.next().unwrap().strip_prefix("# TYPE ").unwrap();
                let (same, of) = kinds.split_once(' ').unwrap();
                assert_eq!(same, name);
                assert_eq!(of == "counter", name.ends_with("_total"), "{name} is a {of}");
                assert_eq!(of == "histogram", name.ends_with("_duration_seconds"), "{name} is a {of}");
                (family, kind) = (name.to_string(), of.to_string());
                continue;
            }
            let (labelled, value) = line.rsplit_once(' ').unwrap();
            let name = labelled.split('{').next().unwrap();
            let suffix = name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{line} is not of {family}"));
            let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line} is not of the {kind} {family}");
            assert!(name.starts_with("diorama_") && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
            if let Some(labels) = labelled.strip_prefix(name).filter(|labels| !labels.is_empty()) {
                let labels = labels.strip_prefix('{').unwrap().strip_suffix("\"}").unwrap();
                for label in labels.split("\",") {
                    let (key, value) = label.split_once("=\"").unwrap();
                    assert!(key.bytes().all(|byte| byte.is_ascii_lowercase()), "{line}");
                    assert!(!value.contains(['"', '\\', '\n']), "{line}");
                }
            }
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(series.insert(labelled.to_string(), value).is_none(), "{line} stands there twice");
        }
        let page = Page(series);
        page.check_histograms();
        page
    }

    /// Buckets are cumulative and end with the count.
    fn check_histograms(&self) {
        let mut last: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        for (series, count) in self.0.iter().filter(|(series, _)| series.contains("_bucket{")) {
            let (labels, bound) = series.split_once("le=\"").unwrap();
            let bound = bound.trim_end_matches("\"}").parse().unwrap();
            last.entry(labels).or_default().push((bound, *count));
        }
        for (labels, mut buckets) in last {
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            assert!(buckets.is_sorted_by(|one, other| one.1 <= other.1), "{labels} {buckets:?}");
            let of = labels.trim_end_matches([',', '{']).replace("_bucket", "_count");
            let of = if of.contains('{') { format!("{of}}}") } else { of };
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, self.0[&of])), "{labels}");
        }
    }

    fn get(&self, series: &str) -> f64 {
        *self.0.get(series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.0.keys()))
    }

    /// A series with one label, `dio="products"`.
    fn dio(&self, name: &str) -> f64 {
        self.get(&format!("diorama_dio_{name}{{dio=\"products\"}}"))
    }

    fn labelled(&self, name: &str, label: &str, value: &str) -> f64 {
        self.get(&format!("diorama_dio_{name}{{dio=\"products\",{label}=\"{value}\"}}"))
    }

    fn requests(&self, route: &str, method: &str, status: u16, dio: &str) -> f64 {
        let labels = format!("route=\"{route}\",method=\"{method}\",status=\"{status}\",dio=\"{dio}\"");
        self.get(&format!("diorama_http_requests_total{{{labels}}}"))
    }
}

async fn app(lens: impl FnOnce(LensBuilder) -> LensBuilder, gateway: impl FnOnce(Gateway) -> Gateway) -> App {
    App::with(products(), rows(7), lens, MountOptions::default(), gateway).await
}

#[tokio::test]
async fn requests_are_counted_by_template_method_status_and_resource() {
    let app = app(|lens| lens, |gateway| gateway.base_path("/api")).await;
    for path in
        ["/products/1", "/products/2", "/products/99", "/products?limit=1", "/nothing/1", "/healthz", "", "/a/b/c/d"]
    {
        app.get(&format!("/api{path}")).await;
    }
    app.send("HEAD", "/api/products/1", &[], "").await;
    app.json("PATCH", "/api/products/1", r#"{"price":1}"#).await;
    app.json("PATCH", "/api/products/1", "{").await;
    app.send("BREW", "/api/products/1", &[], "").await;
    app.get("/elsewhere").await;
    let page = Page::parse(app.get("/api/metrics").await.text());
    assert_eq!(page.requests("/{dio}/{id}", "GET", 200, "products"), 2.0);
    assert_eq!(page.requests("/{dio}/{id}", "GET", 404, "products"), 1.0);
    assert_eq!(page.requests("/{dio}/{id}", "GET", 404, ""), 1.0);
    assert_eq!(page.requests("/{dio}/{id}", "HEAD", 200, "products"), 1.0);
    assert_eq!(page.requests("/{dio}/{id}", "PATCH", 202, "products"), 1.0);
    assert_eq!(page.requests("/{dio}/{id}", "PATCH", 400, "products"), 1.0);
    assert_eq!(page.requests("/{dio}/{id}", "other", 405, "products"), 1.0);
    assert_eq!(page.requests("/{dio}", "GET", 200, "products"), 1.0);
    assert_eq!(page.requests("/healthz", "GET", 200, ""), 1.0);
    assert_eq!(page.requests("/", "GET", 200, ""), 1.0);
    assert_eq!(page.requests("none", "GET", 404, ""), 2.0);
    let took = "diorama_http_request_duration_seconds_count{route=\"/{dio}/{id}\",method=\"GET\",dio=\"products\"}";
    assert_eq!(page.get(took), 3.0);
    assert_eq!(page.get("diorama_http_requests_in_flight"), 1.0);
    assert_eq!(page.get(&format!("diorama_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))), 1.0);
    #[cfg(target_os = "linux")]
    assert!(page.get("diorama_process_resident_memory_bytes") > 1e6);
    assert!(page.get("diorama_process_start_time_seconds") > 1.7e9);
}

#[tokio::test]
async fn whatever_is_asked_for_the_number_of_series_is_bounded() {
    let app = app(|lens| lens, |gateway| gateway).await;
    let methods = ["GET", "POST", "BREW", "WHEN"];
    let ask = async |from: usize| {
        for n in from..from + 500 {
            let path = ["", "/x", "/x/y", "/x/y/z"][n / 4 % 4];
            let path = if n % 3 == 0 { format!("/products/{n}") } else { format!("/path{n}{path}") };
            app.send(methods[n % 4], &path, &[("Content-Type", "application/json")], "").await;
        }
        Page::of(&app).await.0.len()
    };
    // The first look is not in itself.
    Page::of(&app).await;
    let before = ask(0).await;
    assert_eq!(ask(500).await, before);
    assert!(before < 500, "{before}");
}

#[tokio::test]
async fn refreshes_are_counted_by_result_and_say_why_they_fail() {
    let closed = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&closed);
    let lens = move |lens: LensBuilder| {
        lens.on_refresh(move |dio| {
            let (dio, closed) = (dio.clone(), switch.load(Ordering::SeqCst));
            async move {
                if closed {
                    return Err(Error::transient("the bakery is closed"));
                }
                dio.reconcile(dio.master().list_values().await?).await.map(drop)
            }
        })
    };
    let app = app(lens, |gateway| gateway).await;
    let page = Page::of(&app).await;
    assert_eq!(page.labelled("refreshes_total", "result", "ok"), 0.0);
    assert!(!page.0.contains_key("diorama_dio_last_refresh_timestamp_seconds{dio=\"products\"}"));
    assert_eq!(app.send("POST", "/products/_refresh", &[], "").await.status, 200);
    closed.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let refused = app.send("POST", "/products/_refresh", &[], "").await;
        assert_eq!(refused.refusal(), (502, "refresh-failed".into()));
        assert!(refused.json()["detail"].as_str().unwrap().contains("the bakery is closed"), "{refused:?}");
    }
    let page = Page::of(&app).await;
    assert_eq!(page.labelled("refreshes_total", "result", "ok"), 1.0);
    assert_eq!(page.labelled("refreshes_total", "result", "failed"), 2.0);
    assert_eq!(page.labelled("refresh_duration_seconds_count", "result", "failed"), 2.0);
    assert!(page.labelled("refresh_duration_seconds_sum", "result", "ok") > 0.0);
    assert!(page.dio("last_refresh_timestamp_seconds") > 1.7e9);
    assert_eq!((page.dio("refresh_failing"), page.dio("ready")), (1.0, 1.0));
    let ready = app.get("/readyz").await.json();
    let reasons = ready["dios"]["products"]["reasons"].to_string();
    assert!(reasons.contains("the last refresh failed: the bakery is closed"), "{reasons}");
    closed.store(false, Ordering::SeqCst);
    app.send("POST", "/products/_refresh", &[], "").await;
    assert_eq!(Page::of(&app).await.dio("refresh_failing"), 0.0);
    assert_eq!(app.get("/readyz").await.json()["dios"]["products"]["reasons"], serde_json::json!([]));
}

#[tokio::test]
async fn a_write_route_that_is_left_alone_shows_in_readyz_and_on_the_page() {
    let lens = |lens: LensBuilder| {
        let lens = lens.settings(|settings| settings.breaker.failures = 2);
        lens.on_write(|_, _| std::future::ready(Err(Error::transient("the broker is away"))))
    };
    let app = app(lens, |gateway| gateway).await.leaves_pending("the broker is away for good");
    assert_eq!(Page::of(&app).await.dio("route_breaker"), 0.0);
    for id in ["1", "2", "3"] {
        assert_eq!(app.send("DELETE", &format!("/products/{id}"), &[], "").await.status, 202);
    }
    let reasons = loop {
        let ready = app.get("/readyz").await.json();
        let reasons = ready["dios"]["products"]["reasons"].to_string();
        if reasons.contains("next attempt in") {
            break reasons;
        }
        tokio::task::yield_now().await;
    };
    assert!(reasons.contains("the write route is unavailable") && reasons.contains("the broker is away"), "{reasons}");
    let page = Page::of(&app).await;
    assert!(page.dio("route_breaker") > 0.0);
    assert_eq!((page.dio("source_breaker"), page.dio("undecodable_rows"), page.dio("ready")), (0.0, 0.0, 1.0));
}

#[tokio::test]
async fn a_write_that_all_others_wait_for_shows_in_readyz_with_what_its_source_says() {
    let app = app(
        |lens| lens.on_write(|_, _| std::future::ready(Err(Error::transient("the broker is away")))),
        |gateway| gateway,
    )
    .await
    .leaves_pending("the broker is away for good");
    let held = app.send("DELETE", "/products/1", &[], "").await;
    let operation = held.header("dio-operation").trim_start_matches("/operations/").to_string();
    let reasons = loop {
        let reasons = app.get("/readyz").await.json()["dios"]["products"]["reasons"].to_string();
        if reasons.contains("all writes wait for") {
            break reasons;
        }
        tokio::task::yield_now().await;
    };
    assert!(reasons.contains(&operation) && reasons.contains("the broker is away"), "{reasons}");
}

#[tokio::test]
async fn a_gateway_that_stops_or_forgets_says_so_in_readyz() {
    let closing = tokio_util::sync::CancellationToken::new();
    let lens = |lens: LensBuilder| lens.cache_source(diorama::cache::MemoryCache::default());
    let app = app(lens, |gateway| gateway.closing(closing.clone())).await;
    let volatile = app.get("/readyz").await;
    let reasons = volatile.json()["dios"]["products"]["reasons"].to_string();
    assert!(volatile.status == 200 && reasons.contains("in memory only"), "{reasons}");
    closing.cancel();
    let stopping = app.get("/readyz").await;
    let reasons = stopping.json()["dios"]["products"]["reasons"].to_string();
    assert!(stopping.status == 503 && reasons.contains("the server is stopping"), "{reasons}");
}

#[tokio::test]
async fn the_queue_is_seen_while_it_waits_and_operations_are_counted_as_they_end() {
    let retry = Retry { max_age: Duration::ZERO, ..Retry::default() };
    let app = app(|lens| lens.retry(retry), |gateway| gateway).await;
    app.master.writes().close();
    for price in 1..=3 {
        app.json("PATCH", "/products/1", &format!(r#"{{"price":{price}}}"#)).await;
    }
    let page = Page::of(&app).await;
    assert_eq!((page.dio("queue_operations"), page.dio("operations_accepted_total")), (3.0, 3.0));
    assert!(page.dio("queue_bytes") > 0.0 && page.dio("queue_oldest_seconds") >= 0.0);
    assert_eq!(page.labelled("operations_ended_total", "state", "applied"), 0.0);
    assert!(page.dio("journal_append_duration_seconds_count") >= 1.0);
    app.master.writes().open();
    let wait = [("Content-Type", "application/json"), ("Prefer", "wait=10")];
    app.send("PATCH", "/products/1", &wait, r#"{"price":4}"#).await;
    app.master.refuse_writes(Error::permanent("no"));
    app.send("PATCH", "/products/1", &wait, r#"{"price":5}"#).await;
    app.master.refuse_writes(Error::transient("away"));
    let parked = app.send("PATCH", "/products/1", &wait, r#"{"price":6}"#).await;
    let page = Page::of(&app).await;
    let ended = |state| page.labelled("operations_ended_total", "state", state);
    assert_eq!((ended("applied"), ended("failed"), ended("parked"), ended("discarded")), (4.0, 1.0, 1.0, 0.0));
    assert_eq!((page.dio("queue_operations"), page.dio("queue_oldest_seconds")), (0.0, 0.0));
    assert_eq!((page.dio("parked_operations"), page.dio("operations_accepted_total")), (1.0, 6.0));
    app.send("DELETE", parked.header("dio-operation"), &[], "").await;
    let page = Page::of(&app).await;
    assert_eq!(page.labelled("operations_ended_total", "state", "discarded"), 1.0);
    assert_eq!(page.dio("parked_operations"), 0.0);
}

#[tokio::test]
async fn events_and_those_who_follow_them_are_counted() {
    let app = app(|lens| lens, |gateway| gateway).await;
    let page = Page::of(&app).await;
    assert_eq!((page.dio("rows"), page.dio("sockets"), page.dio("receivers")), (7.0, 0.0, 0.0));
    let before = page.dio("events_total");
    let receiver = app.dio.subscribe_events();
    let url = format!("ws://{}/products/events", app.address);
    let mut socket = tokio_tungstenite::connect_async(url).await.unwrap().0;
    // Its first frame comes when it is served.
    socket.next().await.unwrap().unwrap();
    let wait = [("Content-Type", "application/json"), ("Prefer", "wait=10")];
    app.send("PATCH", "/products/1", &wait, r#"{"price":1}"#).await;
    let page = Page::of(&app).await;
    assert_eq!(page.dio("events_total"), before + 2.0, "RecordChanged and WriteCommitted");
    assert_eq!((page.dio("sockets"), page.dio("receivers")), (1.0, 1.0));
    assert_eq!(page.requests("/{dio}/events", "GET", 101, "products"), 1.0);
    assert!(page.dio("resident_bytes") > 0.0);
    assert_eq!(page.dio("position"), app.dio.position().seq as f64);
    drop(receiver);
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    // The socket is gone for us a moment before it is for the server.
    let gone = async {
        loop {
            let page = Page::of(&app).await;
            if page.dio("sockets") == 0.0 {
                return page;
            }
        }
    };
    let page = tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the socket is still counted");
    assert_eq!((page.labelled("socket_closes_total", "code", "none"), page.dio("receivers")), (1.0, 0.0));
}

#[tokio::test]
async fn deliveries_are_counted_by_what_became_of_them() {
    let hook = Hook::new(
        "shop",
        "products",
        inbound::Hook::new(Scheme::Bearer(vec![Key::plain("s3cr3t").unwrap()]))
            .delivery_header(Some("x-delivery".parse().unwrap())),
    );
    let app = app(|lens| lens, |gateway| gateway.try_hook(hook).unwrap()).await;
    let send = async |token: &str, id: &str, body: &str| {
        let token = format!("Bearer {token}");
        let headers = [("Content-Type", "application/json"), ("Authorization", &token), ("X-Delivery", id)];
        app.send("POST", "/webhooks/shop", &headers, body).await.status
    };
    let same = r#"{"op":"update","id":"1","new":{"name":"Bun 1","price":10}}"#;
    assert_eq!(send("s3cr3t", "d1", same).await, 200);
    assert_eq!(send("s3cr3t", "d1", same).await, 200);
    assert_eq!(send("wrong", "d2", same).await, 401);
    assert_eq!(send("s3cr3t", "d3", "{").await, 202);
    assert_eq!(send("s3cr3t", "d4", r#"{"op":"frob","id":"1"}"#).await, 202);
    let page = Page::of(&app).await;
    let get =
        |name: &str, label: &str| page.get(&format!("diorama_webhook_{name}{{hook=\"shop\",dio=\"products\"{label}}}"));
    assert_eq!(get("deliveries_total", ""), 4.0);
    assert_eq!(get("outcomes_total", ",state=\"undecodable\""), 2.0);
    assert_eq!(get("outcomes_total", ",state=\"duplicate\""), 1.0);
    assert_eq!(get("changes_total", ",result=\"unchanged\""), 1.0);
    assert_eq!(get("changes_total", ",result=\"duplicate\""), 1.0);
    assert_eq!(get("changes_total", ",result=\"applied\""), 0.0);
    assert_eq!(get("refused_total", ",reason=\"signature-invalid\""), 1.0);
}
