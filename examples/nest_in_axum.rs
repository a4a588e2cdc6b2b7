//! Dios as a part of one's own axum app: the gateway is a plain router.
//!
//! Run it with `cargo run --example nest_in_axum`, then `curl 'localhost:3000/api/products?price=lt.200'`.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use diorama::cache::MemoryCache;
use diorama::drivers::MemoryTable;
use diorama::gateway::Gateway;
use diorama::{Column, ColumnType, Lens, Record, Schema};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
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
    let lens = Arc::new(lens.build()?);
    let products = lens.make_dio(master).await?;

    let app = Router::new()
        .route("/", get(|| async { "The bakery is open." }))
        .nest("/api", Gateway::new().mount(products.clone()).into_router());

    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("http://{}/api/products", listener.local_addr()?);
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    products.close().await;
    Ok(())
}
