//! Format of a stored row with its checksum.

use std::ops::Range;

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable, TableDefinition};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::cache::StoredRow;
use crate::record::Id;
use crate::redb_file::{Fault, unseal};

pub(super) type Versions<'a> = TableDefinition<'a, &'static str, &'static [u8]>;

pub(super) type Rows<'a> = TableDefinition<'a, u32, &'static [u8]>;

pub(super) const VERSION: u8 = 2;

pub(super) const HEAD: usize = 1 + 8 + 1 + 8 + 4 + 4;

pub(super) const WITH_CBOR: u8 = 1;

pub(super) fn encode_row(table: u64, row: &StoredRow, buffer: &mut Vec<u8>) -> Result<(), Fault> {
    let (json, cbor) = (row.body.json(), row.body.cbor());
    let length = |bytes: usize| u32::try_from(bytes).map_err(|_| too_large("a row of 4 GiB or more cannot be stored"));
    buffer.clear();
    buffer.push(VERSION);
    buffer.extend_from_slice(&[0; 8]);
    buffer.push(if cbor.is_some() { WITH_CBOR } else { 0 });
    buffer.extend_from_slice(&row.ordinal.to_le_bytes());
    buffer.extend_from_slice(&length(row.id.len())?.to_le_bytes());
    buffer.extend_from_slice(&length(json.len())?.to_le_bytes());
    buffer.extend_from_slice(row.id.as_bytes());
    buffer.extend_from_slice(json);
    buffer.extend_from_slice(cbor.map_or(&[], |cbor| &cbor[..]));
    let checksum = checksum(table, row.slot, &buffer[9..]);
    buffer[1..9].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

pub(super) fn checksum(table: u64, slot: u32, covered: &[u8]) -> u64 {
    xxh3_64_with_seed(covered, table.wrapping_add(u64::from(slot)))
}

/// Contribution of a stored row to the sum of its table: its checksum.
pub(super) fn row_sum(stored: &[u8]) -> u64 {
    stored.get(1..9).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Reads the known versions of rows. Damaged entries are left out.
pub(super) fn stored_versions(transaction: &ReadTransaction, name: &str) -> Result<Option<Vec<(Id, Bytes)>>, Fault> {
    let versions = match transaction.open_table(Versions::new(name)) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        opened => opened?,
    };
    let mut entries = Vec::new();
    for stored in versions.iter()? {
        let (id, sealed) = stored?;
        let known = unseal(xxh3_64(id.value().as_bytes()), sealed.value());
        entries.extend(known.map(|known| (Id::from(id.value()), Bytes::copy_from_slice(known))));
    }
    Ok(Some(entries))
}

/// Stored sum of a table; 0, the sum of an empty table, if there is none.
pub(super) fn stored_sum(metas: &impl ReadableTable<&'static str, &'static [u8]>, key: &str) -> Result<u64, Fault> {
    let stored = metas.get(key)?;
    Ok(stored.and_then(|bytes| bytes.value().try_into().ok()).map_or(0, u64::from_le_bytes))
}

/// A row whose body is a range of a buffer shared by its batch.
pub(super) struct RowBytes {
    pub(super) slot: u32,
    pub(super) ordinal: u64,
    pub(super) id: Id,
    pub(super) json: Range<usize>,
    pub(super) cbor: Option<Range<usize>>,
}

/// Checks a stored row and appends its body to `bodies`; `None` if it is damaged.
pub(super) fn decode_row(table: u64, slot: u32, stored: &[u8], bodies: &mut Vec<u8>) -> Option<RowBytes> {
    let (head, content) = stored.split_at_checked(HEAD)?;
    let four = |at: usize| Some(u32::from_le_bytes(head[at..at + 4].try_into().ok()?) as usize);
    let eight = |at: usize| Some(u64::from_le_bytes(head[at..at + 8].try_into().ok()?));
    if head[0] != VERSION || eight(1)? != checksum(table, slot, &stored[9..]) {
        return None;
    }
    let (id, body) = content.split_at_checked(four(18)?)?;
    let json_len = four(22)?;
    let start = bodies.len();
    let json = start..start + json_len;
    let cbor = (head[9] & WITH_CBOR != 0).then(|| json.end..start + body.len());
    if json_len > body.len() {
        return None;
    }
    let id = std::str::from_utf8(id).ok()?.into();
    bodies.extend_from_slice(body);
    Some(RowBytes { slot, ordinal: eight(10)?, id, json, cbor })
}

/// Reads a row with a correct checksum and arbitrary content, for fuzzing.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn decode_stored(content: &[u8]) -> Option<(Id, crate::record::Body)> {
    let mut stored = vec![VERSION; 9 + content.len()];
    stored[9..].copy_from_slice(content);
    let sum = checksum(0, 0, content);
    stored[1..9].copy_from_slice(&sum.to_le_bytes());
    let mut bodies = Vec::new();
    let RowBytes { id, json, cbor, .. } = decode_row(0, 0, &stored, &mut bodies)?;
    let bodies = Bytes::from(bodies);
    Some((id, crate::record::Body::from_parts(bodies.slice(json), cbor.map(|cbor| bodies.slice(cbor)))))
}

pub(super) fn too_large(detail: &str) -> Fault {
    Fault::Io { detail: detail.into(), full: false }
}
