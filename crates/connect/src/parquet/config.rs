//! Configuration `source = { parquet = "FILE" }`.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use super::source::{Parquet, ParquetOptions};
use crate::connector::{Connector, Key, Settings, Source, SourceRequest};
use crate::file::place::SourcePlace;
use crate::file::{ENDPOINT, REGION, SETTLE, WATCH};
use diorama_core::vista::{Result, Vista};

/// Connector for Parquet files.
#[derive(Clone, Copy, Debug)]
pub struct ParquetConnector;

impl Connector for ParquetConnector {
    fn name(&self) -> &'static str {
        "parquet"
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn source_form(&self) -> Option<&'static str> {
        Some(r#"{ parquet = "FILE" }"#)
    }

    fn source(&self, settings: &dyn Settings) -> Option<Arc<dyn Source>> {
        let place = SourcePlace::read(settings, "parquet");
        let options = ParquetOptions { settle: settings.duration("settle"), ..ParquetOptions::default() };
        Some(Arc::new(ParquetFile { place: place?, options }))
    }

    fn endings(&self) -> &'static [&'static str] {
        &["parquet"]
    }

    fn file(&self, path: &Path) -> Option<Arc<dyn Source>> {
        Some(Arc::new(ParquetFile { place: SourcePlace::new(path), options: ParquetOptions::default() }))
    }
}

/// A Parquet file with its options.
#[derive(Debug)]
struct ParquetFile {
    place: SourcePlace,
    options: ParquetOptions,
}

#[async_trait]
impl Source for ParquetFile {
    fn describe(&self) -> String {
        self.place.path().display().to_string()
    }

    async fn open(&self, request: SourceRequest) -> Result<Vista> {
        let SourceRequest { name, id, columns, .. } = request;
        Parquet::open_at(&name, self.place.clone(), ParquetOptions { id, columns, ..self.options.clone() }).await
    }

    fn missing(&self) -> Option<String> {
        self.place.missing()
    }

    fn as_file(&self) -> Option<&Path> {
        self.place.as_file()
    }

    fn watched(&self) -> Option<&Path> {
        self.place.watched()
    }
}

const KEYS: &[Key] = &[Key::new("source.parquet", "", "A Parquet file."), SETTLE, WATCH, REGION, ENDPOINT];
