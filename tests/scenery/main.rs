//! Sceneries: what they show, when they move, what they load.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::single_range_in_vec_init, reason = "lists of ranges are what is compared")]

#[path = "../harness/mod.rs"]
mod harness;
mod partial;
#[cfg(feature = "sqlite")]
mod pushdown;
mod record;
mod routing;
mod table;
mod value;

use std::sync::Arc;
use std::time::Duration;

use diorama::cache::MemoryCache;
use diorama::connect::MemoryTable;
use diorama::{
    Capabilities, CborValue, Column, ColumnType, Dio, Error, Generation, Lens, LensBuilder, Query, Record, Result,
    Rows, Schema, TableShell, Vista,
};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use harness::Scripted;

fn schema() -> Schema {
    let columns = [("id", ColumnType::Integer), ("name", ColumnType::String), ("price", ColumnType::Integer)];
    Schema::new("id", columns.map(|(name, ty)| Column::new(name, ty)).to_vec())
}

fn row(name: &str, price: i64) -> Record {
    Record::from_iter([("name".to_string(), name.into()), ("price".to_string(), price.into())])
}

/// `count` rows: "1" bun 10, "2" bun 20 and so on.
fn buns(count: u64) -> Vec<(String, Record)> {
    (1..=count).map(|n| (n.to_string(), row(&format!("bun {n}"), n as i64 * 10))).collect()
}

/// A Lens in memory that seeds its Dios at the start.
fn lens() -> LensBuilder {
    Lens::new().cache_source(MemoryCache::new()).on_start(|dio| {
        let dio = dio.clone();
        async move { seed(&dio).await }
    })
}

async fn seed(dio: &Dio) -> Result<()> {
    let rows = dio.master().list_values().await?;
    dio.cache().insert_values(rows).await
}

async fn dio_of(lens: LensBuilder, rows: Vec<(String, Record)>) -> Dio {
    let lens = lens.build().unwrap();
    lens.make_dio(MemoryTable::vista("buns", schema(), rows)).await.unwrap()
}

/// Waits for the next generation. Time is paused: if there is none, that is known at once.
async fn moved(generation: &mut watch::Receiver<Generation>) {
    timeout(Duration::from_secs(600), generation.changed()).await.expect("a new generation").unwrap();
}

/// Lets everything happen that is going to happen.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(5)).await;
}

fn ids(rows: &Rows) -> Vec<String> {
    rows.ids().map(str::to_string).collect()
}

fn at(scenery: &diorama::TableScenery, index: u64) -> String {
    scenery.row(index).map(|(id, _)| id).unwrap_or_default()
}

/// A master whose writes wait at a gate.
fn gated(rows: Vec<(String, Record)>) -> Scripted {
    let master = Scripted::new(schema(), rows);
    master.writes().close();
    master
}

fn integer(value: i64) -> Option<CborValue> {
    Some(value.into())
}
