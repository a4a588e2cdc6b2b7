//! The examples do what they say.

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request};
use diorama::config::Config;
use diorama::connect::{Registry, SourceRequest};
use diorama::{DioEvent, Record, TableShell};
use futures_util::StreamExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

#[allow(dead_code, reason = "an example has a main")]
#[path = "../../examples/kafka_like_route.rs"]
mod kafka_like_route;
#[allow(dead_code, reason = "an example has a main")]
#[path = "../../examples/nest_in_axum.rs"]
mod nest_in_axum;
#[allow(dead_code, reason = "an example has a main")]
#[path = "../../examples/tiny_gateway.rs"]
mod tiny_gateway;
#[allow(dead_code, reason = "an example has a main")]
#[path = "../../examples/toy_connector.rs"]
mod toy_connector;

async fn answer(app: &axum::Router, method: Method, path: &str, key: Option<&str>, body: &str) -> (u16, String) {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = key.into_iter().fold(request, |request, key| request.header("x-api-key", key));
    let answer = app.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn nest_in_axum_serves_its_dio_behind_the_apps_own_keys() {
    let (app, products) = nest_in_axum::app().await.unwrap();
    let list = "/api/products?price=lt.200&select=id";
    assert_eq!(answer(&app, Method::GET, "/", None, "").await, (200, "The bakery is open.".into()));
    assert_eq!(answer(&app, Method::GET, list, None, "").await.0, 401);
    let (status, body) = answer(&app, Method::GET, list, Some("guest-key"), "").await;
    assert_eq!((status, body.as_str()), (200, r#"[{"id":"bun"},{"id":"muffin"}]"#));
    let cheaper = r#"{"price":1}"#;
    assert_eq!(answer(&app, Method::PATCH, "/api/products/bun", Some("guest-key"), cheaper).await.0, 403);
    let (status, body) = answer(&app, Method::PATCH, "/api/products/bun", Some("baker-key"), cheaper).await;
    assert_eq!(status, 202, "{body}");
    let (_, body) = answer(&app, Method::GET, "/api/products/bun", Some("guest-key"), "").await;
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["price"], 1);
    products.close().await;
}

#[tokio::test]
async fn kafka_like_route_shows_a_write_before_the_database_has_it_and_settles_with_it() {
    let (dio, database, mut queue) = kafka_like_route::bakery().await.unwrap();
    let price = |row: Option<Record>| row.unwrap()["price"].clone();
    let mut events = dio.subscribe_events();
    let cheaper = Record::from_iter([("price".to_string(), 180.into())]);
    dio.vista().patch_value("muffin", &cheaper).await.unwrap();
    assert_eq!(price(dio.vista().get_value("muffin").await.unwrap()), 180.into());
    assert_eq!(price(database.get("muffin").await.unwrap()), 175.into());

    let mut seen = Vec::new();
    let told_twice = async {
        while seen.iter().filter(|event| matches!(event, DioEvent::RecordChanged { .. })).count() < 2 {
            seen.push(events.recv().await.unwrap());
        }
    };
    tokio::select! {
        () = told_twice => {}
        ended = kafka_like_route::consume(&mut queue, &database, &dio) => panic!("the topic ended: {ended:?}"),
    }
    assert_eq!(price(database.get("muffin").await.unwrap()), 180.into());
    assert_eq!(dio.cache().list_values().await.unwrap(), database.list(&Default::default()).await.unwrap());
    assert!(!seen.iter().any(|event| matches!(event, DioEvent::WriteFailed { .. })), "{seen:?}");
    assert!(queue.try_recv().is_err(), "what comes back is not written again");
    dio.close().await;
}

#[tokio::test]
async fn tiny_gateway_reads_writes_and_tells_of_it() {
    let (app, dio) = tiny_gateway::app().await.unwrap();
    let events = Request::builder().uri("/events").body(Body::empty()).unwrap();
    let mut events = app.clone().oneshot(events).await.unwrap().into_body().into_data_stream();
    let (status, body) = answer(&app, Method::GET, "/rows?price=150", None, "").await;
    assert_eq!((status, body.as_str()), (200, r#"[{"id":"bun","name":"bun","price":150}]"#));
    assert_eq!(answer(&app, Method::GET, "/rows/nothing", None, "").await.0, 404);
    assert_eq!(answer(&app, Method::PATCH, "/rows/bun", None, r#"{"price":99}"#).await.0, 202);
    let (_, body) = answer(&app, Method::GET, "/rows/bun", None, "").await;
    assert_eq!(body, r#"{"id":"bun","name":"bun","price":99}"#);
    assert_eq!(events.next().await.unwrap().unwrap(), "{\"changed\":\"bun\"}\n");
    dio.close().await;
}

#[tokio::test]
async fn toy_connector_is_a_source_of_diorama_toml() {
    let registry = Registry::builtin().with(toy_connector::Squares);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("diorama.toml");
    let read = |source: &str| {
        std::fs::write(&path, format!("[dio.squares]\nsource = {source}\n")).unwrap();
        Config::read_with(&path, &registry)
    };
    let config = read("{ squares = 3 }").unwrap();
    let request = SourceRequest { name: "squares".into(), ..SourceRequest::default() };
    let rows = config.dios[0].source.open(request).await.unwrap().list_values().await.unwrap();
    assert_eq!(rows.get("3").unwrap()["square"], 9.into());
    assert!(read("{ squares = \"x\" }").unwrap_err().to_string().contains("squares must be a whole number"));
    assert!(read("{ squares = 3, size = 4 }").unwrap_err().to_string().contains("has no key \"size\""));
    assert!(read("{}").unwrap_err().to_string().contains("or { squares = NUMBER }"));
}
