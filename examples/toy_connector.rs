//! A system of one's own in `diorama.toml`: a connector that is registered from outside, with its own key and settings.
//!
//! Run it with `cargo run --example toy_connector`, then `curl 'localhost:3002/squares?order=id.desc&limit=3'`.

use std::sync::Arc;

use async_trait::async_trait;
use diorama::config::Config;
use diorama::connect::{Connector, Registry, Settings, Source, SourceRequest};
use diorama::{Column, ColumnType, Query, Record, Result, Rows, Schema, TableShell, Vista};

/// `source = { squares = 100 }`
pub(crate) struct Squares;

impl Connector for Squares {
    fn name(&self) -> &'static str {
        "squares"
    }

    fn source_form(&self) -> Option<&'static str> {
        Some("{ squares = NUMBER }")
    }

    fn source(&self, settings: &dyn Settings) -> Option<Arc<dyn Source>> {
        Some(Arc::new(Most(settings.number("squares")?)))
    }
}

/// What the configuration says of one source: how many squares there are.
#[derive(Debug)]
struct Most(u64);

#[async_trait]
impl Source for Most {
    fn describe(&self) -> String {
        format!("{} squares", self.0)
    }

    async fn open(&self, request: SourceRequest) -> Result<Vista> {
        let columns = ["id", "square"].map(|name| Column::new(name, ColumnType::Integer)).to_vec();
        Ok(Vista::new(request.name, Table { most: self.0, schema: Arc::new(Schema::new("id", columns)) }))
    }
}

struct Table {
    most: u64,
    schema: Arc<Schema>,
}

#[async_trait]
impl TableShell for Table {
    fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.schema)
    }

    async fn list(&self, _: &Query) -> Result<Rows> {
        let mut rows = Rows::with_layout(Arc::clone(self.schema.layout()));
        for number in 1..=self.most {
            rows.push(number.to_string(), &Record::from_iter([("square".to_string(), (number * number).into())]));
        }
        Ok(rows)
    }
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join("squares.toml");
    std::fs::write(
        &path,
        "[server]\nlisten = \"127.0.0.1:3002\"\n[lens]\ncache = \"memory\"\n[dio.squares]\nsource = { squares = 100 }\n",
    )?;
    let config = Config::read_with(&path, &Registry::builtin().with(Squares))?;
    diorama::app::serve(config).await.map_err(|failure| failure.message.into())
}
