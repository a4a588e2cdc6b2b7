//! Reading of many rows: from the server's values to bodies, without a record in between.
//!
//! A whole table is read by COPY, which costs both sides less than the messages of a query.
//! Format: PostgreSQL documentation, COPY, "Binary Format".

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{Stream, TryStreamExt as _};
use tokio_postgres::{Error as PgError, Row, RowStream};

use super::errors::failed;
use super::table::Table;
use super::value::{Codec, Raw, integer, write_moment};
use diorama_core::record::{Body, CborValue, Id, RowWriter, Rows};
use diorama_core::vista::{Error, Result};

/// Beginning of the binary form. Flags and the length of a header extension follow.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Reads the rows of a query for [`Table::selected`].
pub(super) async fn read(table: &Table, found: RowStream) -> Result<Rows> {
    let mut reader = RowReader::new(table);
    let mut found = std::pin::pin!(found);
    while let Some(row) = found.try_next().await.map_err(failed)? {
        reader.add(&row)?;
    }
    Ok(reader.rows)
}

/// Reads the rows of a COPY in binary form. Its chunks need not end where rows do.
pub(super) async fn read_copy(
    table: &Table,
    copied: impl Stream<Item = std::result::Result<Bytes, PgError>>,
) -> Result<Rows> {
    let mut reader = RowReader::new(table);
    let mut copied = std::pin::pin!(copied);
    let (mut waiting, mut cells) = (BytesMut::new(), Vec::new());
    let (mut has_begun, mut has_ended) = (false, false);
    while let Some(chunk) = copied.try_next().await.map_err(failed)? {
        waiting.extend_from_slice(&chunk);
        if !has_begun {
            let Some(length) = header(&waiting).map_err(|Malformed| malformed(table))? else { continue };
            waiting.advance(length);
            has_begun = true;
        }
        let mut read = 0;
        while !has_ended {
            let tuple = tuple(&waiting[read..], &mut cells).map_err(|Malformed| malformed(table))?;
            match tuple {
                Tuple::Row(length) => {
                    reader.add(&Copied { bytes: &waiting[read..], cells: &cells })?;
                    read += length;
                }
                Tuple::Part => break,
                Tuple::End => has_ended = true,
            }
        }
        waiting.advance(read);
    }
    match has_ended {
        true => Ok(reader.rows),
        false => Err(Error::transient(format!("the rows of {} have ended too early", table.name))),
    }
}

fn malformed(table: &Table) -> Error {
    Error::permanent(format!("the rows of {} are not in the binary form of COPY", table.name))
}

/// Bytes that are not the binary form of COPY.
#[derive(Debug, PartialEq, Eq)]
struct Malformed;

/// Beginning of the bytes that have been received.
#[derive(Debug, PartialEq, Eq)]
enum Tuple {
    /// A row of so many bytes.
    Row(usize),
    /// A part of a row.
    Part,
    /// The end of all rows.
    End,
}

/// Returns the length of the header, `None` if it is not complete yet.
fn header(bytes: &[u8]) -> std::result::Result<Option<usize>, Malformed> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return Err(Malformed);
    }
    let Some(extension) = number(bytes, SIGNATURE.len() + 4) else { return Ok(None) };
    let length = SIGNATURE.len() + 8 + usize::try_from(extension).map_err(|_| Malformed)?;
    Ok(Some(length).filter(|length| *length <= bytes.len()))
}

/// Reads the cells of a row: where each is, `None` for null.
fn tuple(bytes: &[u8], cells: &mut Vec<Option<Range<usize>>>) -> std::result::Result<Tuple, Malformed> {
    cells.clear();
    let Some(count) = bytes.first_chunk::<2>().map(|count| i16::from_be_bytes(*count)) else { return Ok(Tuple::Part) };
    if count == -1 {
        return Ok(Tuple::End);
    }
    let mut at = 2;
    for _ in 0..u16::try_from(count).map_err(|_| Malformed)? {
        let Some(length) = number(bytes, at) else { return Ok(Tuple::Part) };
        at += 4;
        if length == -1 {
            cells.push(None);
            continue;
        }
        let end = at + usize::try_from(length).map_err(|_| Malformed)?;
        if end > bytes.len() {
            return Ok(Tuple::Part);
        }
        cells.push(Some(at..end));
        at = end;
    }
    Ok(Tuple::Row(at))
}

fn number(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..)?.first_chunk::<4>().map(|bytes| i32::from_be_bytes(*bytes))
}

/// A row with the server's values of [`Table::selected`].
pub(super) trait RawRow {
    /// Returns a value, `None` for null.
    fn cell(&self, at: usize) -> Result<Option<&[u8]>>;
}

impl RawRow for Row {
    fn cell(&self, at: usize) -> Result<Option<&[u8]>> {
        self.try_get(at).map(|Raw(cell)| cell).map_err(failed)
    }
}

struct Copied<'b> {
    bytes: &'b [u8],
    cells: &'b [Option<Range<usize>>],
}

impl RawRow for Copied<'_> {
    fn cell(&self, at: usize) -> Result<Option<&[u8]>> {
        let cell = self.cells.get(at).ok_or_else(|| Error::permanent("a row has fewer columns than were asked for"))?;
        Ok(cell.clone().and_then(|cell| self.bytes.get(cell)))
    }
}

/// Reader of rows that writes their bodies.
struct RowReader<'t> {
    table: &'t Table,
    rows: Rows,
    writer: RowWriter,
    /// Columns in the order of bodies: the index of their field, `None` for a joined id.
    columns: Vec<Option<usize>>,
    text: String,
}

impl<'t> RowReader<'t> {
    fn new(table: &'t Table) -> RowReader<'t> {
        let layout = table.schema.layout();
        let joined = (table.key.len() != 1).then_some((table.schema.id_column(), None));
        let fields = table.fields.iter().enumerate().map(|(at, field)| (field.name.as_str(), Some(at)));
        let mut columns: Vec<(&str, Option<usize>)> = joined.into_iter().chain(fields).collect();
        let rank = |column: &str| layout.rank(column).unwrap_or(usize::MAX);
        columns.sort_by(|a, b| rank(a.0).cmp(&rank(b.0)).then_with(|| a.0.cmp(b.0)));
        RowReader {
            table,
            rows: Rows::with_layout(Arc::clone(layout)),
            writer: RowWriter::new(columns.iter().map(|(name, _)| *name)),
            columns: columns.into_iter().map(|(_, field)| field).collect(),
            text: String::new(),
        }
    }

    /// Adds a row, or notes that it cannot be decoded.
    fn add(&mut self, row: &impl RawRow) -> Result<()> {
        let (id, body) = match self.encode(row) {
            Ok(encoded) => encoded,
            Err(error) => {
                self.rows.skip(error.to_string());
                return Ok(());
            }
        };
        match self.rows.push_body(&id, &body) {
            true => Ok(()),
            false => Err(Error::permanent(format!("{} has more than one row with id {id:?}", self.table.name))),
        }
    }

    fn encode(&mut self, row: &impl RawRow) -> Result<(Id, Body)> {
        let id = self.id(row)?;
        let mut written = Ok(());
        for column in 0..self.columns.len() {
            written = written.and_then(|()| self.write(row, column, &id));
        }
        // Also makes the writer ready for the next row.
        let body = self.writer.finish();
        written?;
        match body {
            Some(body) => Ok((id, body)),
            None => {
                let (id, record) = self.table.row_of(row, 0)?;
                let body = Body::encode(&id, &record, self.table.schema.layout());
                Ok((id.into(), body))
            }
        }
    }

    fn id(&mut self, row: &impl RawRow) -> Result<Id> {
        if let [key] = self.table.key.as_slice()
            && self.table.fields[*key].codec == Codec::Integer
            && let Some(number) = row.cell(*key)?.and_then(integer)
        {
            self.text.clear();
            // Writing to a String does not fail.
            let _ = write!(self.text, "{number}");
            return Ok(self.text.as_str().into());
        }
        let mut cells = vec![CborValue::Null; self.table.fields.len()];
        for key in &self.table.key {
            cells[*key] = self.table.cell_of(row, *key, *key)?;
        }
        self.table.id_or_error(&cells).map(Id::from)
    }

    /// Writes the next column of the body.
    fn write(&mut self, row: &impl RawRow, column: usize, id: &Id) -> Result<()> {
        let table = self.table;
        let Some(at) = self.columns[column] else {
            self.writer.text(id);
            return Ok(());
        };
        let field = &table.fields[at];
        let Some(raw) = row.cell(at)? else {
            self.writer.value(&CborValue::Null);
            return Ok(());
        };
        if table.key == [at] && !matches!(field.codec, Codec::Integer | Codec::Oid) {
            self.writer.text(id);
            return Ok(());
        }
        self.write_value(&field.codec, raw).ok_or_else(|| table.undecodable(field))
    }

    fn write_value(&mut self, codec: &Codec, raw: &[u8]) -> Option<()> {
        match codec {
            Codec::Integer => {
                self.text.clear();
                let _ = write!(self.text, "{}", integer(raw)?);
                self.writer.integer(&self.text);
            }
            Codec::Decimal | Codec::Text | Codec::Date | Codec::Other => {
                self.writer.text(std::str::from_utf8(raw).ok()?)
            }
            Codec::Timestamp | Codec::TimestampTz => {
                self.text.clear();
                write_moment(&mut self.text, codec, std::str::from_utf8(raw).ok()?);
                self.writer.text(&self.text);
            }
            codec => self.writer.value(&codec.read_result(raw)?),
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_copy_are_found_in_any_pieces() {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 3, 9, 9, 9]);
        assert_eq!(header(&bytes), Ok(Some(22)));
        assert_eq!(header(&bytes[..21]), Ok(None));
        assert_eq!(header(b"PGCOPX"), Err(Malformed));
        let row = [0, 2, 0, 0, 0, 2, b'a', b'b', 0xff, 0xff, 0xff, 0xff];
        let mut cells = Vec::new();
        for length in 0..row.len() {
            assert_eq!(tuple(&row[..length], &mut cells), Ok(Tuple::Part), "{length}");
        }
        assert_eq!(tuple(&row, &mut cells), Ok(Tuple::Row(12)));
        assert_eq!(cells, [Some(6..8), None]);
        assert_eq!(tuple(&[0xff, 0xff], &mut cells), Ok(Tuple::End));
        assert_eq!(tuple(&[0, 1, 0xff, 0, 0, 0], &mut cells), Err(Malformed));
    }
}
