//! Scripted failures, hooks and the record of requests.

use std::time::Duration;

use diorama_servers::CutProxy;
use diorama_servers::apis::Fault;
use serde_json::json;

use crate::client::Ask;
use crate::kinds::{KINDS, Kind, read};

#[tokio::test]
async fn scripted_failures_come_in_their_order_and_end() {
    for kind in KINDS {
        let api = kind.start(5).await;
        let ask = kind.first(&api, None);
        api.fail_next(2, Fault::Status(503));
        api.fail_next(1, Fault::Html);
        api.fail_next(1, Fault::Cut);
        api.fail_next(1, Fault::Silence);
        assert_eq!([ask.send().status, ask.send().status], [503, 503]);
        let page = ask.send().expect(200);
        assert!(page.text().starts_with("<!DOCTYPE html>"));
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        ask.try_send().unwrap_err();
        Ask { patience: Duration::from_millis(50), ..ask.clone() }.try_send().unwrap_err();
        assert_eq!(api.faults_left(), 0);
        assert_eq!(kind.rows(&ask.send().expect(200)).len(), 5, "{kind:?}");
        let statuses: Vec<_> = api.received().iter().map(|request| request.status).collect();
        assert_eq!(statuses, [Some(503), Some(503), Some(200), Some(200), None, Some(200)]);
    }
}

#[tokio::test]
async fn a_write_whose_answer_is_cut_has_taken_effect() {
    let api = Kind::Strapi.start(0).await;
    api.fail_next(1, Fault::Cut);
    let create = Ask::to(&api, "POST", api.list_url()).json(&json!({"data": {"title": "once"}}));
    create.try_send().unwrap_err();
    assert_eq!(api.rows()[0]["title"], "once");
    api.fail_next(1, Fault::Status(500));
    create.send().expect(500);
    assert_eq!(api.rows().len(), 1);
}

#[tokio::test]
async fn the_record_has_what_was_sent() {
    let api = Kind::Strapi.start(0).await;
    let body = json!({"data": {"title": "é"}});
    Ask::to(&api, "POST", format!("{}?x=%C3%A9", api.list_url())).with("x-test", "yes").json(&body).send().expect(200);
    let received = &api.received()[0];
    assert_eq!((received.method.as_str(), received.target.as_str()), ("POST", "/api/articles?x=%C3%A9"));
    assert_eq!(received.headers["x-test"], "yes");
    assert_eq!(received.body, body.to_string());
}

#[tokio::test]
async fn hooks_run_before_the_request_that_they_name() {
    let api = Kind::OData.start(30).await;
    api.before(1, |rows| drop(rows.insert(&json!({"Name": "late"}))));
    let first = Kind::OData.first(&api, Some(10));
    let page = first.send().expect(200);
    assert_eq!(api.rows().len(), 30);
    let next = Kind::OData.next(&first, &page).unwrap();
    next.send().expect(200);
    assert_eq!(api.rows().len(), 31);
    let (ids, pages) = read(Kind::OData, next);
    assert_eq!((ids.len(), pages), (21, 3));
}

#[tokio::test]
async fn links_lead_through_a_proxy_in_between() {
    for kind in KINDS {
        let api = kind.start(50).await;
        let proxy = CutProxy::start(api.port());
        let mut first = kind.first(&api, Some(20));
        first.url = first.url.replace(&api.url(), &format!("http://127.0.0.1:{}", proxy.port()));
        assert_eq!(read(kind, first).0.len(), 50, "{kind:?}");
        assert_eq!(proxy.accepted(), api.count() as u64, "{kind:?}");
    }
}

#[tokio::test]
async fn a_dropped_double_has_closed_its_port() {
    let api = Kind::GitHub.start(1).await;
    let ask = Kind::GitHub.first(&api, None);
    drop(api);
    ask.try_send().unwrap_err();
}
