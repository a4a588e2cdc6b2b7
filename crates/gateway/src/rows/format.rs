//! Encoding of rows in each format. JSON is copied, because rows are stored encoded.

use std::sync::Arc;

use crate::http::negotiate::Format;
use diorama_core::record::{Body, BodyRef, CborValue, Record, Rows, decode_parts, value_to_json};
use diorama_core::table::RowRef;
use diorama_core::vista::query::{JsonRow, Path, Projection, SelectItem};
use diorama_core::vista::{Query, Result, Schema};

/// Borrowed bytes of an encoded row.
#[derive(Clone, Copy)]
pub(crate) struct Bytes<'a> {
    json: &'a [u8],
    cbor: Option<&'a [u8]>,
}

impl<'a> From<&RowRef<'a>> for Bytes<'a> {
    fn from(row: &RowRef<'a>) -> Self {
        Bytes { json: row.json(), cbor: row.cbor().map(|cbor| &cbor[..]) }
    }
}

impl<'a> From<BodyRef<'a>> for Bytes<'a> {
    fn from(row: BodyRef<'a>) -> Self {
        Bytes { json: row.json(), cbor: row.cbor().map(|cbor| &cbor[..]) }
    }
}

impl<'a> From<&'a Body> for Bytes<'a> {
    fn from(row: &'a Body) -> Self {
        Bytes { json: row.json(), cbor: row.cbor().map(|cbor| &cbor[..]) }
    }
}

impl<'a> From<Bytes<'a>> for JsonRow<'a> {
    fn from(row: Bytes<'a>) -> Self {
        JsonRow(row.json, row.cbor)
    }
}

/// Members that an answer adds to a row.
pub(crate) trait Members {
    /// Adds them to the JSON object at the end of `out`, which begins at `begin`.
    fn append_json(&self, begin: usize, out: &mut Vec<u8>);

    /// Adds them to a decoded row.
    fn insert(&self, record: &mut Record);

    /// True if there are none.
    fn is_empty(&self) -> bool {
        false
    }
}

/// No members.
impl Members for () {
    fn append_json(&self, _: usize, _: &mut Vec<u8>) {}

    fn insert(&self, _: &mut Record) {}

    fn is_empty(&self) -> bool {
        true
    }
}

/// Writer of the rows of one response.
#[derive(Debug)]
pub(crate) struct Writer {
    format: Format,
    projection: Option<Projection>,
    /// Names of the CSV header line; empty for other formats.
    columns: Vec<Arc<str>>,
}

impl Writer {
    pub(crate) fn new(format: Format, query: &Query, schema: &Schema) -> Result<Writer> {
        let projection = query.projection(schema)?;
        let columns = if format == Format::Csv { columns(query, schema) } else { Vec::new() };
        Ok(Writer { format, projection, columns })
    }

    /// Sets the names of the columns that CSV shows beside the rows' own ones, or in their place.
    pub(crate) fn add_columns<'n>(&mut self, shows_own: bool, names: impl Iterator<Item = &'n str>) {
        if self.format == Format::Csv {
            self.columns.truncate(if shows_own { usize::MAX } else { 0 });
            self.columns.extend(names.map(Arc::from));
        }
    }

    /// Returns true if rows are sent exactly as they are stored.
    pub(crate) fn copies(&self) -> bool {
        self.format == Format::Json && self.projection.is_none()
    }

    /// Writes the start of the body. `count` is the number of rows, if it is certain.
    pub(crate) fn begin(&self, count: Option<usize>, out: &mut Vec<u8>) {
        match self.format {
            Format::Json => out.push(b'['),
            Format::Ndjson => {}
            Format::Csv => write_header(&self.columns, out),
            Format::Cbor => match count {
                Some(count) => cbor_head(0x80, count as u64, out),
                None => out.push(0x9F),
            },
        }
    }

    /// Writes one row. `first` is true for the first row of the response.
    pub(crate) fn row<'a>(&self, row: impl Into<Bytes<'a>>, first: bool, out: &mut Vec<u8>) {
        self.row_with(row.into(), &(), first, out);
    }

    /// Writes one row with `members` of others.
    pub(crate) fn row_with(&self, row: Bytes<'_>, members: &impl Members, first: bool, out: &mut Vec<u8>) {
        match self.format {
            Format::Json => {
                if !first {
                    out.push(b',');
                }
                self.json(row, members, out);
            }
            Format::Ndjson => {
                self.json(row, members, out);
                out.push(b'\n');
            }
            Format::Csv => {
                let record = self.record(row, members);
                write_line(self.columns.iter().map(|name| record.get(name).cloned().unwrap_or(CborValue::Null)), out);
            }
            Format::Cbor => self.cbor(row, members, out),
        }
    }

    /// Writes the end of the body. `count` is the same as in [`Writer::begin`].
    pub(crate) fn end(&self, count: Option<usize>, out: &mut Vec<u8>) {
        match (self.format, count) {
            (Format::Json, _) => out.push(b']'),
            (Format::Cbor, None) => out.push(0xFF),
            _ => {}
        }
    }

    /// Encodes a single row.
    pub(crate) fn one<'a>(&self, row: impl Into<Bytes<'a>>) -> Vec<u8> {
        let mut out = Vec::new();
        self.row(row, true, &mut out);
        out
    }

    /// Encodes all of `rows`.
    pub(crate) fn all(&self, rows: &Rows) -> Vec<u8> {
        let mut out = Vec::new();
        self.begin(Some(rows.len()), &mut out);
        for (at, (_, row)) in rows.bodies().enumerate() {
            self.row(row, at == 0, &mut out);
        }
        self.end(Some(rows.len()), &mut out);
        out
    }

    fn json(&self, row: Bytes<'_>, members: &impl Members, out: &mut Vec<u8>) {
        let begin = out.len();
        match &self.projection {
            None => out.extend_from_slice(row.json),
            Some(projection) => projection.write_json(&row.into(), out),
        }
        members.append_json(begin, out);
    }

    fn cbor(&self, row: Bytes<'_>, members: &impl Members, out: &mut Vec<u8>) {
        if let (Some(cbor), None, true) = (row.cbor, &self.projection, members.is_empty()) {
            return out.extend_from_slice(cbor);
        }
        let record = self.record(row, members);
        cbor_head(0xA0, record.len() as u64, out);
        for (column, value) in record {
            for value in [CborValue::from(column), value] {
                // Writing to a Vec does not fail.
                let _ = ciborium::into_writer(&value, &mut *out);
            }
        }
    }

    /// Decodes a row. Stored bytes always decode, because this program encoded them.
    fn record(&self, row: Bytes<'_>, members: &impl Members) -> Record {
        let mut record = decode_parts(row.json, row.cbor).unwrap_or_default();
        if let Some(projection) = &self.projection {
            record = projection.apply(&record);
        }
        members.insert(&mut record);
        record
    }
}

/// Returns the column names of a query's rows.
fn columns(query: &Query, schema: &Schema) -> Vec<Arc<str>> {
    let all = || schema.columns().iter().map(|column| Arc::clone(&column.name));
    if query.select.is_empty() {
        return all().collect();
    }
    let mut names: Vec<Arc<str>> = Vec::new();
    for item in &query.select {
        match item {
            SelectItem::Everything => names.extend(all()),
            SelectItem::Column { alias: Some(alias), .. } => names.push(alias.as_str().into()),
            SelectItem::Column { column, alias: None } => names.push(Path::resolve(column, schema).name().into()),
        }
    }
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(Arc::clone(name)));
    names
}

/// Writes the header line of CSV. Names that a reader could misread as a comment, a separator or padding are quoted.
fn write_header(names: &[Arc<str>], out: &mut Vec<u8>) {
    for (at, name) in names.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let plain = !name.is_empty()
            && !name.starts_with([' ', '#'])
            && !name.ends_with(' ')
            && !name.contains([',', ';', '\t', '|', '"', '\r', '\n'])
            && !name.to_ascii_lowercase().starts_with("sep=");
        if plain { out.extend_from_slice(name.as_bytes()) } else { write_quoted(name.as_bytes(), out) }
    }
    out.extend_from_slice(b"\r\n");
}

fn write_quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

/// Writes one line of CSV. Null is an empty cell, empty text is `""`.
fn write_line(cells: impl Iterator<Item = CborValue>, out: &mut Vec<u8>) {
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let text = match &cell {
            CborValue::Null => continue,
            CborValue::Text(text) => text.as_bytes().to_vec(),
            CborValue::Bytes(_) => value_to_json(&cell)
                .trim_ascii()
                .strip_prefix(b"\"")
                .map_or(Vec::new(), |rest| rest[..rest.len() - 1].to_vec()),
            other => value_to_json(other),
        };
        let plain = !text.is_empty() && !text.iter().any(|byte| matches!(byte, b',' | b'"' | b'\r' | b'\n'));
        if plain {
            out.extend_from_slice(&text);
            continue;
        }
        write_quoted(&text, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the CBOR head of an array or map of definite length.
pub(crate) fn cbor_head(major: u8, count: u64, out: &mut Vec<u8>) {
    let bytes = count.to_be_bytes();
    match count {
        0..24 => out.push(major | bytes[7]),
        24..0x100 => out.extend_from_slice(&[major | 24, bytes[7]]),
        0x100..0x1_0000 => {
            out.push(major | 25);
            out.extend_from_slice(&bytes[6..]);
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(major | 26);
            out.extend_from_slice(&bytes[4..]);
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use diorama_core::record::Id;
    use diorama_core::vista::{Column, ColumnType};

    /// Cells of the columns after the id: text, integer, float and boolean.
    type Cells = Vec<(Option<String>, Option<i64>, Option<f64>, Option<bool>)>;

    fn exported(schema: &Schema, cells: &Cells) -> (Rows, Vec<u8>) {
        let names: Vec<&str> = schema.columns().iter().map(|column| &*column.name).collect();
        let mut rows = Rows::with_layout(Arc::clone(schema.layout()));
        for (at, (text, integer, float, flag)) in cells.iter().enumerate() {
            let values: [CborValue; 5] = [
                format!("row {at}").into(),
                text.as_deref().map_or(CborValue::Null, CborValue::from),
                integer.map_or(CborValue::Null, CborValue::from),
                float.map_or(CborValue::Null, CborValue::from),
                flag.map_or(CborValue::Null, CborValue::from),
            ];
            let record = names.iter().map(|name| name.to_string()).zip(values).collect();
            let id = Id::from(format!("row {at}"));
            rows.push_body(&id, &Body::encode(&id, &record, schema.layout()));
        }
        let writer = Writer::new(Format::Csv, &Query::default(), schema).unwrap();
        let file = writer.all(&rows);
        (rows, file)
    }

    fn imported(file: &[u8], columns: Vec<Column>, id: &str) -> (Arc<Schema>, Rows) {
        use diorama_connect::{Csv, CsvOptions};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.csv");
        std::fs::write(&path, file).unwrap();
        let settle = Some(std::time::Duration::ZERO);
        let options = CsvOptions { id: Some(id.into()), columns, settle, ..CsvOptions::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let vista = Csv::open("own", path, options).await.unwrap();
            (vista.schema(), vista.list_values().await.unwrap())
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// A CSV export imports as the same rows, for all column names and texts.
        #[test]
        fn a_csv_export_imports_as_the_same_rows(
            names in proptest::collection::hash_set("[a-z#;,|= \t\"é]{1,6}", 5).prop_filter(
                "names of their own", |names| names.iter().all(|name| !name.trim().is_empty()),
            ),
            cells in proptest::collection::vec((
                proptest::option::of("[a-c0-9,;|#\"\t\r\n .+é-]{0,8}|NA|null|1,20|007|true|2024-01-01"),
                proptest::option::of(any::<i64>()),
                proptest::option::of(proptest::num::f64::NORMAL),
                proptest::option::of(any::<bool>()),
            ), 1..12),
            declares in any::<bool>(),
        ) {
            use ColumnType::{Boolean, Integer, Number, String};
            let names: Vec<_> = names.into_iter().collect();
            let types = [String, String, Integer, Number, Boolean];
            let columns: Vec<Column> = names.iter().zip(types).map(|(name, ty)| Column::new(name.as_str(), ty)).collect();
            let schema = Schema::new(&names[0], columns.clone());
            let mut cells = cells;
            if !declares {
                // A cell of each type, so that the types can be inferred.
                cells.push((Some("a text".into()), Some(1), Some(1.5), Some(true)));
            }
            let (rows, file) = exported(&schema, &cells);
            let declared = if declares { columns } else { Vec::new() };
            let (found, read) = imported(&file, declared, &names[0]);
            prop_assert_eq!(found.columns(), schema.columns(), "{}", std::string::String::from_utf8_lossy(&file));
            let bodies = |rows: &Rows| rows.bodies().map(|(id, body)| (id.to_string(), body.to_body())).collect::<Vec<_>>();
            prop_assert_eq!(bodies(&read), bodies(&rows));
        }
    }

    #[test]
    fn header_names_that_a_reader_could_misread_are_quoted() {
        let mut out = Vec::new();
        write_header(&["id", "#n", "a;b", " x", "sep=;", "y z"].map(Arc::from), &mut out);
        assert_eq!(std::string::String::from_utf8(out).unwrap(), "id,\"#n\",\"a;b\",\" x\",\"sep=;\",y z\r\n");
    }

    #[test]
    fn csv_distinguishes_null_from_empty_text_and_quotes_special_characters() {
        let mut out = Vec::new();
        let cells =
            [CborValue::Null, "".into(), "a,\"b\"".into(), 1.5.into(), CborValue::Array(vec![1.into(), 2.into()])];
        write_line(cells.into_iter(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), ",\"\",\"a,\"\"b\"\"\",1.5,\"[1,2]\"\r\n");
    }

    #[test]
    fn cbor_heads_are_the_shortest() {
        for (count, head) in
            [(3, vec![0x83]), (24, vec![0x98, 24]), (256, vec![0x99, 1, 0]), (65_536, vec![0x9A, 0, 1, 0, 0])]
        {
            let mut out = Vec::new();
            cbor_head(0x80, count, &mut out);
            assert_eq!(out, head);
        }
    }
}
