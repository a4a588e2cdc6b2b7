//! Configuration `source = { json = "FILE" }`.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use super::outline::arrays;
use super::source::{Json, JsonOptions};
use crate::connector::{Connector, Key, Settings, Source, SourceRequest};
use crate::file::place::SourcePlace;
use crate::file::{ENCODING, ENDPOINT, REGION, SETTLE, WATCH};
use diorama_core::vista::{Result, Vista};

/// Connector for JSON files.
#[derive(Clone, Copy, Debug)]
pub struct JsonConnector;

impl Connector for JsonConnector {
    fn name(&self) -> &'static str {
        "json"
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn source_form(&self) -> Option<&'static str> {
        Some(r#"{ json = "FILE" }"#)
    }

    fn source(&self, settings: &dyn Settings) -> Option<Arc<dyn Source>> {
        let place = SourcePlace::read(settings, "json");
        let options = JsonOptions {
            path: settings.text("path"),
            settle: settings.duration("settle"),
            encoding: settings.text("encoding"),
            ..JsonOptions::default()
        };
        Some(Arc::new(JsonFile { place: place?, options }))
    }

    fn endings(&self) -> &'static [&'static str] {
        &["json", "geojson", "ndjson", "jsonl"]
    }

    fn file(&self, path: &Path) -> Option<Arc<dyn Source>> {
        Some(Arc::new(JsonFile { place: SourcePlace::new(path), options: JsonOptions::default() }))
    }
}

/// A JSON file with its options.
#[derive(Debug)]
struct JsonFile {
    place: SourcePlace,
    options: JsonOptions,
}

#[async_trait]
impl Source for JsonFile {
    fn describe(&self) -> String {
        self.place.path().display().to_string()
    }

    async fn open(&self, request: SourceRequest) -> Result<Vista> {
        let SourceRequest { name, id, columns, .. } = request;
        Json::open_at(&name, self.place.clone(), JsonOptions { id, columns, ..self.options.clone() }).await
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

    /// Returns one source for each array of a file like json-server's `db.json`.
    fn parts(&self) -> Vec<(String, Arc<dyn Source>)> {
        if self.options.path.is_some() {
            return Vec::new();
        }
        let part = |array: String| -> (String, Arc<dyn Source>) {
            let pointer = format!("/{}", array.replace('~', "~0").replace('/', "~1"));
            let options = JsonOptions { path: Some(pointer), ..self.options.clone() };
            (array, Arc::new(JsonFile { place: self.place.clone(), options }))
        };
        self.place.as_file().map(arrays).unwrap_or_default().into_iter().map(part).collect()
    }
}

const KEYS: &[Key] = &[
    Key::new("source.json", "", "A JSON, GeoJSON or NDJSON file, optionally compressed as `.gz` or `.zst`."),
    Key::new(
        "source.path",
        "detected",
        "`json`: JSON Pointer to the rows, like `/posts`; `\"\"` is the whole document. With a pointer, GeoJSON features are not flattened.",
    ),
    SETTLE,
    WATCH,
    REGION,
    ENDPOINT,
    ENCODING,
];
