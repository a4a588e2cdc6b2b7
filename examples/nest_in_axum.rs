//! Dios as a part of one's own axum app, behind one's own authentication: the gateway is a plain router.
//!
//! Run it with `cargo run --example nest_in_axum`, then
//! `curl 'localhost:3000/api/products?price=lt.200' -H 'x-api-key: guest-key'`. A guest may look; changing things takes
//! `baker-key`.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use diorama::cache::MemoryCache;
use diorama::connect::MemoryTable;
use diorama::gateway::Gateway;
use diorama::{Column, ColumnType, Dio, Lens, Record, Schema};

/// The app's own rules: any middleware of axum or tower does.
async fn guard(request: Request, next: Next) -> Response {
    let key = request.headers().get("x-api-key").map(|key| key.as_bytes());
    let looks = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    match key {
        Some(b"baker-key") => next.run(request).await,
        Some(b"guest-key") if looks => next.run(request).await,
        Some(b"guest-key") => (StatusCode::FORBIDDEN, "only the baker changes prices\n").into_response(),
        _ => (StatusCode::UNAUTHORIZED, "send an x-api-key\n").into_response(),
    }
}

/// The bakery's products in memory, with a Dio in front of them.
async fn products() -> diorama::Result<Dio> {
    let columns = vec![Column::new("name", ColumnType::String), Column::new("price", ColumnType::Integer)];
    let rows = [("bun", "Bun", 150), ("muffin", "Muffin", 175), ("cake", "Cake", 2_400)].map(|(id, name, price)| {
        let cells = [("name".to_string(), name.into()), ("price".to_string(), price.into())];
        (id.to_string(), Record::from_iter(cells))
    });
    let master = MemoryTable::vista("products", Schema::new("id", columns), rows);
    let lens = Lens::new().cache_source(MemoryCache::default()).on_start(|dio| {
        let dio = dio.clone();
        async move { dio.cache().insert_values(dio.master().list_values().await?).await }
    });
    Arc::new(lens.build()?).make_dio(master).await
}

/// The app: a page of its own, and the products below `/api`, for those who have a key.
pub(crate) async fn app() -> diorama::Result<(Router, Dio)> {
    let products = products().await?;
    let api = Gateway::new().mount(products.clone()).into_router().layer(from_fn(guard));
    Ok((Router::new().route("/", get(|| async { "The bakery is open." })).nest("/api", api), products))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (app, products) = app().await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("http://{}/api/products", listener.local_addr()?);
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    products.close().await;
    Ok(())
}
