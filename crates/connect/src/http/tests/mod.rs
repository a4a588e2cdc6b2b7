//! Tests of the connector with doubles of public APIs.

mod inserts;
mod pages;
mod parsers;
mod replay;
mod rest;
mod scripted;
mod transport;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use diorama_servers::apis::{Airtable, Double, Fault, GitHub, Limit, OData, Rows as DoubleRows, Strapi, Stripe};
use proptest::prelude::{Strategy, any, prop};
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::{Http, HttpAuth, HttpOptions, HttpPages, HttpRate, HttpWrites, PageParameter, Paging};
use diorama_core::record::{Record, Rows};
use diorama_core::vista::{Error, ErrorKind, Query, Vista, WriteOp};

/// Options that send the double's own headers.
fn options(double: &Double) -> HttpOptions {
    let mut options = HttpOptions { one: Some("/{id}".into()), ..HttpOptions::default() };
    for (name, value) in double.headers() {
        options.headers.insert(name, value.parse().unwrap());
    }
    options
}

fn sized(name: &str, size: u64) -> Option<(PageParameter, u64)> {
    Some((PageParameter::Query(name.into()), size))
}

fn github(double: &Double, size: u64) -> HttpOptions {
    let pages = HttpPages { size: sized("per_page", size), ..HttpPages::default() };
    let query = vec![("state".into(), "all".into())];
    HttpOptions { id: Some("number".into()), pages, query, ..options(double) }
}

fn stripe(double: &Double, size: u64) -> HttpOptions {
    let paging = Paging::Cursor {
        at: "/data/-1/id".into(),
        parameter: PageParameter::Query("starting_after".into()),
        more: Some("/has_more".into()),
    };
    let writes = HttpWrites::new(Some("POST /"), None, Some("POST /{id}"), Some("DELETE /{id}")).unwrap();
    let mut writes = writes.with_idempotency("idempotency-key".parse().unwrap());
    writes.content_type = Some("application/x-www-form-urlencoded".parse().unwrap());
    let pages = HttpPages { paging, size: sized("limit", size), ..HttpPages::default() };
    HttpOptions { pages, writes: Some(writes), ..options(double) }
}

fn strapi(double: &Double, size: u64) -> HttpOptions {
    let paging = Paging::PageNumber {
        parameter: PageParameter::Query("pagination[page]".into()),
        first: 1,
        pages: Some("/meta/pagination/pageCount".into()),
    };
    let pages = HttpPages { paging, size: sized("pagination[pageSize]", size), ..HttpPages::default() };
    HttpOptions { id: Some("documentId".into()), pages, row: "/data".into(), ..options(double) }
}

fn airtable(double: &Double, size: u64) -> HttpOptions {
    let paging = Paging::Cursor { at: "/offset".into(), parameter: PageParameter::Query("offset".into()), more: None };
    let pages = HttpPages { paging, size: sized("pageSize", size), ..HttpPages::default() };
    HttpOptions { pages, cells: Some("/fields".into()), ..options(double) }
}

fn odata(double: &Double) -> HttpOptions {
    HttpOptions { id: Some("ID".into()), one: Some("({id})".into()), ..options(double) }
}

async fn open(double: &Double, options: HttpOptions) -> Vista {
    Http::open("rows", &double.list_url(), options).await.unwrap()
}

async fn list(vista: &Vista) -> Result<Rows, Error> {
    vista.shell().list(&Query::default()).await
}

/// Number of random cases of each paging; failures of requests take real time.
const CASES: u32 = 8;

// --- lists ---------------------------------------------------------------------------------------------------------------

/// A change at the API between two requests.
#[derive(Clone, Copy, Debug)]
enum Change {
    Insert,
    /// Deletes the row at this place of the list, in parts of 256.
    Delete(u8),
}

#[derive(Clone, Debug)]
struct Case {
    size: u64,
    /// Numbers of requests after which changes happen.
    changes: Vec<(usize, Change)>,
    /// Requests that fail, and how.
    faults: Vec<Fault>,
}

fn case() -> impl Strategy<Value = Case> {
    let change = prop::bool::ANY.prop_flat_map(|insert| {
        any::<u8>().prop_map(move |at| if insert { Change::Insert } else { Change::Delete(at) })
    });
    let fault = prop::sample::select(vec![Fault::Status(502), Fault::Cut, Fault::Html]);
    let changes = prop::collection::vec((1..12_usize, change), 0..8);
    (2..9_u64, changes, prop::collection::vec(fault, 0..2)).prop_map(|(size, changes, faults)| Case {
        size,
        changes,
        faults,
    })
}

/// Checks that lists, while rows are inserted and deleted and requests fail, have every row that was there throughout, or fail.
fn whole_or_refused(
    start: impl AsyncFn(usize) -> Double,
    options: fn(&Double, u64) -> HttpOptions,
    insert: fn(&mut DoubleRows<'_>),
    id: fn(&Value) -> String,
) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: CASES, max_shrink_iters: 100, ..Config::default() });
    let run = |case: Case| {
        runtime.block_on(async {
            let double = start(30).await;
            let vista = open(&double, options(&double, case.size)).await;
            // Twice: the second list is compared with the first, and a row that the first lacks may come one list later.
            let mut known: Option<HashSet<String>> = None;
            for _ in 0..2 {
                let before: HashSet<String> = double.rows().iter().map(id).collect();
                for (after, change) in case.changes.clone() {
                    double.before(after, move |rows| match change {
                        Change::Insert => insert(rows),
                        Change::Delete(at) => {
                            let all = rows.all();
                            if let Some(row) = all.get(usize::from(at) * all.len() / 256) {
                                rows.delete(&id(row));
                            }
                        }
                    });
                }
                case.faults.iter().for_each(|fault| double.fail_next(1, *fault));
                let listed = list(&vista).await;
                let after: HashSet<String> = double.rows().iter().map(id).collect();
                match listed {
                    Ok(rows) => {
                        let is_expected = |id: &&String| known.as_ref().is_none_or(|known| known.contains(*id));
                        let throughout = before.intersection(&after).filter(is_expected);
                        let missing: Vec<&String> = throughout.filter(|id| !rows.contains(id)).collect();
                        assert!(missing.is_empty(), "{missing:?} are missing");
                        known = Some(rows.ids().map(str::to_string).collect());
                    }
                    Err(error) => assert_ne!(error.kind(), ErrorKind::Unknown, "{error}"),
                }
            }
        });
        Ok(())
    };
    runner.run(&case(), run).unwrap();
}

#[test]
fn a_list_in_numbered_links_has_every_row_that_was_there_throughout() {
    whole_or_refused(
        async |count| GitHub::start(GitHub::rows(count)).await,
        github,
        |rows| drop(rows.insert(&json!({"title": "new"}))),
        |row| row["number"].to_string(),
    );
}

#[test]
fn a_list_in_numbered_pages_has_every_row_that_was_there_throughout() {
    whole_or_refused(
        async |count| Strapi::start(Strapi::rows(count)).await,
        strapi,
        |rows| drop(rows.insert(&json!({"title": "new"}))),
        |row| row["documentId"].as_str().unwrap().to_string(),
    );
}

#[test]
fn a_list_by_cursors_has_every_row_that_was_there_throughout() {
    whole_or_refused(
        async |count| Stripe::start(Stripe::rows(count)).await,
        stripe,
        |rows| drop(rows.insert(&json!({"name": "new"}))),
        |row| row["id"].as_str().unwrap().to_string(),
    );
}

#[tokio::test]
async fn a_page_that_fails_for_good_refuses_the_list() {
    let double = GitHub::start(GitHub::rows(50)).await;
    let vista = open(&double, github(&double, 10)).await;
    double.before(2, |_| {});
    for fault in [Fault::Status(500), Fault::Status(403), Fault::Cut, Fault::Html] {
        double.fail_next(20, fault);
        let error = list(&vista).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("127.0.0.1"), "{text}");
        let left = double.faults_left();
        assert!(left < 20, "{fault:?} was met");
        // The rest of the failures.
        while double.faults_left() > 0 {
            let _ = list(&vista).await;
        }
        assert_eq!(list(&vista).await.unwrap().len(), 50);
    }
}

#[tokio::test]
async fn an_unchanged_list_costs_a_request_that_does_not_count() {
    let double = GitHub::start(GitHub::rows(20)).await;
    let vista = open(&double, github(&double, 100)).await;
    let rows = list(&vista).await.unwrap();
    let fingerprint = rows.fingerprint().cloned().unwrap();
    let before = double.count();
    assert!(vista.shell().list_changed(&fingerprint).await.unwrap().is_none());
    assert_eq!(double.received().last().unwrap().status, Some(304));
    assert_eq!(double.count(), before + 1);
    double.change("7", &json!({"title": "changed"}));
    let rows = vista.shell().list_changed(&fingerprint).await.unwrap().unwrap();
    assert_eq!(rows.get("7").unwrap()["title"], "changed".into());
    // Of several pages, an unchanged first one says nothing about the others.
    let vista = open(&double, github(&double, 10)).await;
    assert_eq!(list(&vista).await.unwrap().fingerprint(), None);
}

#[tokio::test]
async fn an_expired_cursor_refuses_the_list_and_the_next_one_is_whole() {
    let double = Airtable::start(Airtable::rows(60)).await;
    let vista = open(&double, airtable(&double, 10)).await;
    let before = double.count();
    double.before(3, |_| {});
    double.expire_cursors();
    assert_eq!(list(&vista).await.unwrap().len(), 60);
    assert!(double.count() > before);
}

#[tokio::test]
async fn pages_that_are_not_configured_are_followed_or_refused() {
    let odata_double = OData::start(OData::rows(70)).await;
    let vista = open(&odata_double, odata(&odata_double)).await;
    assert_eq!(list(&vista).await.unwrap().len(), 70);
    // Stripe shows that there is more, but not how to ask for it.
    let double = Stripe::start(Stripe::rows(30)).await;
    let vista = open(&double, options(&double)).await;
    let error = list(&vista).await.unwrap_err();
    assert!(error.to_string().contains("set page in source"), "{error}");
}

// --- limits --------------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_reads_and_writes_never_exceed_the_limit_together() {
    let double = Stripe::start(Stripe::rows(300)).await;
    double.set_limit(Limit::new(20, Duration::from_secs(1)));
    let rate = HttpRate { per_second: Some(20), concurrency: 8, ..HttpRate::default() };
    let vista = open(&double, HttpOptions { rate, ..stripe(&double, 20) }).await;
    let all: Vec<String> = double.rows().iter().map(|row| row["id"].as_str().unwrap().to_string()).collect();
    let lists = async { assert_eq!(list(&vista).await.unwrap().len(), 300) };
    let reads = async {
        for id in all.iter().take(20) {
            assert!(vista.shell().get(id).await.unwrap().is_some());
        }
    };
    let writes = async {
        for (at, id) in all.iter().take(20).enumerate() {
            let record = Record::from_iter([("name".to_string(), format!("name {at}").into())]);
            let op = WriteOp::Patch { id: id.clone(), record };
            vista.shell().write_once(&format!("op{at}"), &op).await.unwrap();
        }
    };
    tokio::join!(lists, reads, writes);
    assert_eq!(double.refused(), 0);
    assert!(double.most_within(Duration::from_secs(1)) <= 20);
}

#[tokio::test]
async fn a_refusal_for_the_limit_pauses_every_request() {
    let double = GitHub::start(GitHub::rows(30)).await;
    double.set_limit(Limit::new(3, Duration::from_secs(2)));
    let rate = HttpRate {
        remaining: Some("x-ratelimit-remaining".into()),
        reset: Some("x-ratelimit-reset".into()),
        ..HttpRate::default()
    };
    let vista = open(&double, HttpOptions { rate, ..github(&double, 5) }).await;
    assert_eq!(list(&vista).await.unwrap().len(), 30);
    assert!(double.refused() <= 2, "{} requests were refused", double.refused());
}

// --- errors --------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn wrong_credentials_and_a_wrong_path_say_what_to_do() {
    let double = GitHub::start(GitHub::rows(3)).await;
    let wrong = HttpOptions { auth: HttpAuth::Bearer("wrong".into()), ..HttpOptions::default() };
    let error = Http::open("rows", &double.list_url(), wrong).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("401") && text.contains("check auth") && text.contains("Bad credentials"), "{text}");
    assert!(!text.contains("wrong"), "the credential is not in {text}");
    let error = Http::open("rows", &format!("{}/nothing", double.url()), options(&double)).await.unwrap_err();
    assert!(error.to_string().contains("404 Not Found"), "{error}");
    let error = Http::open("rows", "http://127.0.0.1:1/x", HttpOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    let private = HttpOptions { public_only: true, ..options(&double) };
    let error = Http::open("rows", &double.list_url(), private).await.unwrap_err();
    assert!(error.to_string().contains("not a public address"), "{error}");
    for token_url in ["http://127.0.0.1:9/token", "http://[::1]/token", "http://2130706433/token", "http://10.0.0.1/"] {
        let auth = HttpAuth::ClientCredentials {
            token_url: token_url.parse().unwrap(),
            client_id: "id".into(),
            client_secret: "secret".into(),
            scope: None,
            audience: None,
        };
        let private = HttpOptions { public_only: true, auth, ..HttpOptions::default() };
        let error = Http::open("rows", "http://api.invalid/rows", private).await.unwrap_err();
        assert!(matches!(error, Error::Config(_)), "{token_url}: {error}");
        assert!(error.to_string().contains("not a public address"), "{token_url}: {error}");
    }
    let error = Http::open("rows", "ftp://example.com/x", HttpOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Config(_)), "{error}");
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_refused() {
    let double = GitHub::start(GitHub::rows(100)).await;
    let error = Http::open("rows", &double.list_url(), HttpOptions { max_size: 5_000, ..github(&double, 100) }).await;
    let error = error.unwrap_err();
    assert!(error.to_string().contains("max_size"), "{error}");
}

// --- writes --------------------------------------------------------------------------------------------------------------

fn name(text: &str) -> Record {
    Record::from_iter([("name".to_string(), text.into())])
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_has_one_effect_when_it_is_repeated() {
    let double = Stripe::start(Stripe::rows(5)).await;
    let vista = open(&double, stripe(&double, 100)).await;
    let shell = vista.shell();
    assert!(shell.writes_once());
    for round in 0..20 {
        let (operation, before) = (format!("operation {round}"), double.rows().len());
        let op = WriteOp::Insert { id: "chosen-here".into(), record: name(&format!("name {round}")) };
        double.fail_next(1, Fault::Cut);
        let error = shell.write_once(&operation, &op).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
        let written = shell.write_once(&operation, &op).await.unwrap();
        assert_eq!(double.rows().len(), before + 1);
        let id = written.id.unwrap();
        assert_eq!(double.row(&id).unwrap()["name"], format!("name {round}"));
        assert_eq!(written.record.unwrap()["name"], format!("name {round}").into());
    }
}

#[tokio::test]
async fn refusals_of_writes_have_the_kinds_that_the_queue_needs() {
    let double = Stripe::start(Stripe::rows(5)).await;
    let vista = open(&double, stripe(&double, 100)).await;
    let shell = vista.shell();
    let patch = |id: &str| WriteOp::Patch { id: id.into(), record: name("x") };
    assert!(matches!(shell.write_once("a", &patch("cus_none")).await, Err(Error::NotFound { .. })));
    let id = double.rows()[0]["id"].as_str().unwrap().to_string();
    let error = |fault| {
        let (double, shell, op) = (&double, Arc::clone(shell), patch(&id));
        async move {
            double.fail_next(1, fault);
            shell.write_once("b", &op).await.unwrap_err().kind()
        }
    };
    assert_eq!(error(Fault::Status(500)).await, ErrorKind::Unknown);
    assert_eq!(error(Fault::Status(503)).await, ErrorKind::Transient);
    assert_eq!(error(Fault::Status(429)).await, ErrorKind::Transient);
}

#[tokio::test]
async fn a_change_that_requires_the_version_is_sent_with_it() {
    let double = OData::start(OData::rows(5)).await;
    let writes = HttpWrites::new(Some("POST /"), None, Some("PATCH ({id})"), Some("DELETE ({id})")).unwrap();
    let writes = writes.with_if_match(super::HttpIfMatch::Read);
    let vista = open(&double, HttpOptions { writes: Some(writes), ..odata(&double) }).await;
    let (shell, id) = (vista.shell(), double.rows()[2]["ID"].to_string());
    let op = |price: f64| WriteOp::Patch {
        id: id.clone(),
        record: Record::from_iter([("Price".to_string(), price.into())]),
    };
    shell.write(&op(1.5)).await.unwrap();
    // The row changes between the read of its version and the write, once and then each time.
    let row = id.clone();
    double.before(1, move |rows| assert!(rows.change(&row, &json!({"Name": "changed meanwhile"}))));
    shell.write(&op(2.5)).await.unwrap();
    let row = double.row(&id).unwrap();
    assert_eq!((&row["Name"], &row["Price"]), (&json!("changed meanwhile"), &json!(2.5)));
    shell.write(&WriteOp::Delete { id: id.clone() }).await.unwrap();
    assert!(double.row(&id).is_none());
}
