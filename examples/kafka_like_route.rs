//! Writes that go to a topic and come back as events. The Dio shows them at once; the database has them when the consumer of the
//! topic has come to them, and the consumer's news settle what the Dio shows.
//!
//! ```text
//! facade.patch -> on_write -> topic -> consumer -> database
//!       ^                                 |
//!     Dio  <-  on_event  <-  handle_event -
//! ```
//!
//! Run it with `cargo run --example kafka_like_route`. The topic is a channel here; a producer of Kafka stands in `on_write`, a
//! consumer in `consume`.

use std::sync::Arc;

use diorama::cache::MemoryCache;
use diorama::connect::MemoryTable;
use diorama::{
    ChangeEvent, Column, ColumnType, Dio, DioEvent, Error, Lens, Record, Result, Schema, TableShell, Vista, WriteOp,
};
use tokio::sync::mpsc;

/// A Dio of the bakery's products, the database behind it, and the topic where its writes go.
pub(crate) async fn bakery() -> Result<(Dio, Arc<MemoryTable>, mpsc::Receiver<WriteOp>)> {
    let columns = vec![Column::new("name", ColumnType::String), Column::new("price", ColumnType::Integer)];
    let muffin = Record::from_iter([("name".to_string(), "Muffin".into()), ("price".to_string(), 175.into())]);
    let database = Arc::new(MemoryTable::new(Schema::new("id", columns), [("muffin".to_string(), muffin)]));
    let (topic, queue) = mpsc::channel(64);

    let lens = Lens::new()
        .cache_source(MemoryCache::default())
        .on_start(|dio| {
            let dio = dio.clone();
            async move { dio.cache().insert_values(dio.master().list_values().await?).await }
        })
        // Ok means that the topic has it. An error that is transient has it sent again.
        .on_write(move |_, op| {
            let topic = topic.clone();
            async move { topic.send(op).await.map_err(|error| Error::transient(error.to_string())) }
        })
        .on_event(|dio, event| {
            let dio = dio.clone();
            async move {
                match event {
                    ChangeEvent::Updated { id, new: Some(row) } => dio.patched(id, row).await?,
                    ChangeEvent::Deleted { id } => {
                        dio.cache().delete_value(&id).await?;
                        dio.invalidate_record(id);
                    }
                    _ => dio.invalidate_all(),
                }
                Ok(())
            }
        });
    let master = Vista::from_shell("products", Arc::clone(&database) as Arc<dyn TableShell>);
    let dio = Arc::new(lens.build()?).make_dio(master).await?;
    Ok((dio, database, queue))
}

/// Applies what comes by the topic to the database, and tells the Dio what the row is now.
pub(crate) async fn consume(queue: &mut mpsc::Receiver<WriteOp>, database: &MemoryTable, dio: &Dio) -> Result<()> {
    while let Some(op) = queue.recv().await {
        database.write(&op).await?;
        let Some(id) = op.id().map(str::to_string) else { continue };
        let event = match database.get(&id).await? {
            None => ChangeEvent::Deleted { id },
            new => ChangeEvent::Updated { id, new },
        };
        dio.handle_event(event).await?;
    }
    Ok(())
}

/// Changes a price and watches what is said of it, until the database's own news have come.
async fn change_a_price(dio: &Dio, database: &MemoryTable) -> Result<()> {
    let mut events = dio.subscribe_events();
    dio.vista().patch_value("muffin", &Record::from_iter([("price".to_string(), 180.into())])).await?;
    println!("a reader sees    {:?}", dio.vista().get_value("muffin").await?);
    println!("the database has {:?}", database.get("muffin").await?);
    let mut told = 0;
    while told < 2 {
        let event = events.recv().await.map_err(|error| Error::permanent(error.to_string()))?;
        println!("event            {event:?}");
        told += usize::from(matches!(event, DioEvent::RecordChanged { .. }));
    }
    println!("the database has {:?}", database.get("muffin").await?);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let (dio, database, mut queue) = bakery().await?;
    tokio::select! {
        done = change_a_price(&dio, &database) => done?,
        ended = consume(&mut queue, &database, &dio) => ended?,
    }
    dio.close().await;
    Ok(())
}
