//! Configuration `source = { csv = "FILE" }`.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use super::source::{Csv, CsvOptions};
use crate::connector::{Connector, Key, Settings, Source, SourceRequest};
use crate::file::place::SourcePlace;
use crate::file::{ENCODING, ENDPOINT, REGION, SETTLE, WATCH};
use diorama_core::vista::{Result, Vista};

/// Connector for CSV files.
#[derive(Clone, Copy, Debug)]
pub struct CsvConnector;

impl Connector for CsvConnector {
    fn name(&self) -> &'static str {
        "csv"
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn source_form(&self) -> Option<&'static str> {
        Some(r#"{ csv = "FILE" }"#)
    }

    fn source(&self, settings: &dyn Settings) -> Option<Arc<dyn Source>> {
        let place = SourcePlace::read(settings, "csv");
        let byte = |word: Option<&'static str>| word.and_then(|word| word.bytes().next());
        let options = CsvOptions {
            settle: settings.duration("settle"),
            encoding: settings.text("encoding"),
            delimiter: separator(settings),
            header: settings.number("header"),
            decimal: byte(settings.word("decimal", &[".", ","])),
            null: settings.texts("null"),
            ..CsvOptions::default()
        };
        Some(Arc::new(CsvFile { place: place?, options }))
    }

    fn endings(&self) -> &'static [&'static str] {
        &["csv", "tsv", "tab", "txt"]
    }

    fn file(&self, path: &Path) -> Option<Arc<dyn Source>> {
        Some(Arc::new(CsvFile { place: SourcePlace::new(path), options: CsvOptions::default() }))
    }
}

/// Reads the ASCII character that separates fields.
fn separator(settings: &dyn Settings) -> Option<u8> {
    let text = settings.text("separator")?;
    match text.as_bytes() {
        [byte] if byte.is_ascii() && !byte.is_ascii_alphanumeric() && !matches!(byte, b'"' | b'\r' | b'\n') => {
            Some(*byte)
        }
        _ => {
            settings.wrong(
                "separator",
                r#"separator must be one ASCII character other than a letter, digit or quote, like ";" or "\t""#.into(),
            );
            None
        }
    }
}

/// A CSV file with its options.
#[derive(Debug)]
struct CsvFile {
    place: SourcePlace,
    options: CsvOptions,
}

#[async_trait]
impl Source for CsvFile {
    fn describe(&self) -> String {
        self.place.path().display().to_string()
    }

    async fn open(&self, request: SourceRequest) -> Result<Vista> {
        let SourceRequest { name, id, columns, null_values } = request;
        let options = CsvOptions { id, columns, null_values, ..self.options.clone() };
        Csv::open_at(&name, self.place.clone(), options).await
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

const KEYS: &[Key] = &[
    Key::new("source.csv", "", "A CSV, TSV or text file, optionally compressed as `.gz` or `.zst`."),
    Key::new(
        "source.separator",
        "detected",
        "`csv`: the character between fields. By default the one of comma, semicolon, tab and bar with which the first rows have as many fields as the header.",
    ),
    Key::new(
        "source.header",
        "detected",
        "`csv`: the line of the header, from 1. By default the first line after comments (`#`), titles and blank lines.",
    ),
    Key::new(
        "source.decimal",
        "detected",
        "`csv`: the decimal mark, `.` or `,`; the other one groups digits. By default chosen for each column from its cells: `1.250` next to `1,20` is 1250.",
    ),
    Key::new(
        "source.null",
        "those of pandas, and more",
        "`csv`: words that mean null in columns of numbers, booleans and dates; `[]` for none. By default `NA`, `N/A`, `n/a`, `NULL`, `null`, `NaN`, `nan`, \
         `None`, `<NA>`, `#N/A`, `#NA`, `-NaN`, `-nan`, `1.#IND`, `1.#QNAN`, `\\N`, and Excel's error values like `#DIV/0!`, but not `-`, `.` and `?`.",
    ),
    SETTLE,
    WATCH,
    REGION,
    ENDPOINT,
    ENCODING,
];
