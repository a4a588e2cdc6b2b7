//! Configuration `source = { spreadsheet = "FILE" }`.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use super::source::{Spreadsheet, SpreadsheetOptions, sheets_with_rows};
use crate::connector::{Connector, Key, Settings, Source, SourceRequest};
use crate::file::place::SourcePlace;
use crate::file::{ENDPOINT, REGION, SETTLE, WATCH};
use diorama_core::vista::{Result, Vista};

/// Connector for spreadsheets.
#[derive(Clone, Copy, Debug)]
pub struct SpreadsheetConnector;

impl Connector for SpreadsheetConnector {
    fn name(&self) -> &'static str {
        "spreadsheet"
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn source_form(&self) -> Option<&'static str> {
        Some(r#"{ spreadsheet = "FILE" }"#)
    }

    fn source(&self, settings: &dyn Settings) -> Option<Arc<dyn Source>> {
        let place = SourcePlace::read(settings, "spreadsheet");
        let options = SpreadsheetOptions {
            sheet: settings.text("sheet"),
            header: settings.number("header"),
            settle: settings.duration("settle"),
            ..SpreadsheetOptions::default()
        };
        Some(Arc::new(SpreadsheetFile { place: place?, options }))
    }

    fn endings(&self) -> &'static [&'static str] {
        &["xlsx", "xlsm", "ods"]
    }

    fn file(&self, path: &Path) -> Option<Arc<dyn Source>> {
        Some(Arc::new(SpreadsheetFile { place: SourcePlace::new(path), options: SpreadsheetOptions::default() }))
    }
}

/// A spreadsheet with its options.
#[derive(Debug)]
struct SpreadsheetFile {
    place: SourcePlace,
    options: SpreadsheetOptions,
}

#[async_trait]
impl Source for SpreadsheetFile {
    fn describe(&self) -> String {
        self.place.path().display().to_string()
    }

    async fn open(&self, request: SourceRequest) -> Result<Vista> {
        let SourceRequest { name, id, columns, .. } = request;
        let options = SpreadsheetOptions { id, columns, ..self.options.clone() };
        Spreadsheet::open_at(&name, self.place.clone(), options).await
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

    /// Returns one source for each sheet with rows, if there are several.
    fn parts(&self) -> Vec<(String, Arc<dyn Source>)> {
        if self.options.sheet.is_some() {
            return Vec::new();
        }
        let sheets = self.place.as_file().map(sheets_with_rows).unwrap_or_default();
        if sheets.len() < 2 {
            return Vec::new();
        }
        let part = |sheet: String| -> (String, Arc<dyn Source>) {
            let options = SpreadsheetOptions { sheet: Some(sheet.clone()), ..self.options.clone() };
            (sheet, Arc::new(SpreadsheetFile { place: self.place.clone(), options }))
        };
        sheets.into_iter().map(part).collect()
    }
}

const KEYS: &[Key] = &[
    Key::new("source.spreadsheet", "", "A file of Excel (`.xlsx`) or LibreOffice (`.ods`)."),
    Key::new("source.sheet", "the first one", "`spreadsheet`: name of the sheet."),
    Key::new(
        "source.header",
        "detected",
        "`spreadsheet`: the row of the header; by default the first one that is about as wide as the widest.",
    ),
    SETTLE,
    WATCH,
    REGION,
    ENDPOINT,
];
