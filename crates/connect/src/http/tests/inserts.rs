//! New rows whose id the API chooses.

use std::sync::Arc;

use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Json, Response};
use diorama_core::Lens;
use diorama_core::cache::MemoryCache;
use diorama_core::dio::Dio;
use diorama_servers::apis::{Fault, Stripe};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::super::{Http, HttpOptions, HttpWrites};
use super::scripted::{Received, with_api};
use super::{name, open, stripe};
use diorama_core::vista::{ErrorKind, Vista};

/// Opens a Dio whose rows are the list of `vista`.
async fn copy(vista: Vista) -> (Lens, Dio) {
    let fill = |dio: &Dio| {
        let dio = dio.clone();
        async move { dio.reconcile_master().await.map(drop) }
    };
    let lens = Lens::new().cache_source(MemoryCache::default()).on_start(fill).on_refresh(fill).build().unwrap();
    let dio = lens.make_dio(vista).await.unwrap();
    (lens, dio)
}

#[tokio::test]
async fn a_row_whose_id_the_api_does_not_return_is_found_in_the_list() {
    let rows = Arc::new(Mutex::new(vec![json!({"id": "a1", "name": "Bun"}), json!({"id": "a2", "name": "Tart"})]));
    let table = Arc::clone(&rows);
    let api = move |request: Received| -> Response {
        let mut rows = table.lock();
        if request.method == Method::POST {
            let mut row = request.json();
            // A row of this name is doubled by somebody else.
            for _ in 0..if row["name"] == "Pie" { 2 } else { 1 } {
                row["id"] = format!("a{}", rows.len() + 1).into();
                rows.push(row.clone());
            }
            return StatusCode::NO_CONTENT.into_response();
        }
        Json(Value::from(rows.clone())).into_response()
    };
    with_api(api, async |url| {
        let writes = Some(HttpWrites::new(Some("POST /"), None, None, None).unwrap());
        let vista = Http::open("rows", url, HttpOptions { writes, ..HttpOptions::default() }).await.unwrap();
        let (_lens, dio) = copy(vista).await;
        let facade = dio.vista();
        // The same columns as those of a row that was there before.
        for (text, id) in [("Muffin", "a3"), ("Bun", "a4")] {
            assert_eq!(facade.insert_return_id(&name(text)).await.unwrap(), id);
            assert_eq!(facade.get_value(id).await.unwrap().unwrap()["name"], text.into());
        }
        let error = facade.insert_return_id(&name("Pie")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Permanent);
        assert!(error.to_string().contains("several new rows"), "{error}");
        assert_eq!(facade.list_values().await.unwrap().len(), 6, "and the rows are there");
        let error = facade.insert_return_id(&name("Éclair")).await;
        assert_eq!(error.unwrap(), "a7");
    })
    .await;
}

#[tokio::test]
async fn an_insert_whose_answer_is_lost_is_repeated_under_its_key() {
    let double = Stripe::start(Stripe::rows(5)).await;
    let vista = open(&double, stripe(&double, 100)).await;
    for lost in 1..=2 {
        let (before, requests) = (double.rows().len(), double.count());
        double.fail_next(lost, Fault::Cut);
        let written = vista.shell().insert_return_id(&name("New")).await.unwrap();
        assert_eq!((double.rows().len(), double.count()), (before + 1, requests + lost + 1));
        assert_eq!(double.row(&written.id.unwrap()).unwrap()["name"], "New");
    }
    // Without a key it could have two effects.
    let mut options = stripe(&double, 100);
    options.writes = Some(HttpWrites::new(Some("POST /"), None, None, None).unwrap());
    let vista = open(&double, options).await;
    let requests = double.count();
    double.fail_next(1, Fault::Cut);
    let error = vista.shell().insert_return_id(&name("New")).await.unwrap_err();
    assert_eq!((error.kind(), double.count()), (ErrorKind::Unknown, requests + 1), "{error}");
}
