//! How little a source of one's own takes: its columns and its rows. Everything else has a default, and what a source cannot
//! do by itself (sort, search, page, count) a Dio in front of it does.
//!
//! Run it with `cargo run --example custom_driver`.

use std::sync::Arc;

use async_trait::async_trait;
use diorama::{Column, ColumnType, Query, Record, Result, Rows, Schema, TableShell, Vista};

/// The planets, from wherever: an API, a device, a spreadsheet.
struct Planets {
    schema: Arc<Schema>,
}

impl Planets {
    fn new() -> Planets {
        let columns = vec![Column::new("id", ColumnType::String), Column::new("moons", ColumnType::Integer)];
        Planets { schema: Arc::new(Schema::new("id", columns)) }
    }
}

#[async_trait]
impl TableShell for Planets {
    fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.schema)
    }

    async fn list(&self, _: &Query) -> Result<Rows> {
        let mut rows = Rows::with_layout(Arc::clone(self.schema.layout()));
        for (name, moons) in [("mercury", 0), ("venus", 0), ("earth", 1), ("mars", 2)] {
            rows.push(name, &Record::from_iter([("moons".to_string(), moons.into())]));
        }
        Ok(rows)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut planets = Vista::new("planets", Planets::new());
    for (id, planet) in planets.list_values().await? {
        println!("{id}: {planet:?}");
    }
    println!("earth: {:?}", planets.get_value("earth").await?);
    if let Err(refusal) = planets.add_order("moons", true) {
        println!("{refusal}");
    }
    Ok(())
}
