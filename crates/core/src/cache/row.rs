//! [`CachedRow`]: a record with its id, as backends store it.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::{CacheError, StoredRow};
use crate::record::{Body, Id, Layout, Record};
use crate::redb_file::{seal, unseal};

/// One row as a [`CacheTable`](super::CacheTable) stores it: an id, a record, and its place in the master's order.
///
/// A backend may store the row itself (in memory), its bytes ([`CachedRow::to_bytes`], for stores of bytes by key) or its
/// parts. Only [`CachedRow::record`] decodes: a backend that stores bytes need not understand them.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedRow {
    id: Id,
    place: Option<i64>,
    content: Content,
}

/// Content of a row.
#[derive(Clone, Debug, PartialEq)]
enum Content {
    /// Canonical bytes.
    Body(Body),
    /// Record that a backend created.
    Record(Record),
    /// Damaged bytes.
    Damaged,
}

/// Version of the unsealed format of [`CachedRow::to_bytes`] that this crate writes and reads.
const VERSION: u8 = 1;
const PLACED: u8 = 1;
/// Length in bytes of version, flags, place and JSON length.
const HEAD: usize = 1 + 1 + 8 + 8;

impl CachedRow {
    /// Creates a row from the parts that a backend read, with a place if it stored one.
    pub fn new(id: impl Into<Id>, record: Record, place: Option<i64>) -> CachedRow {
        CachedRow { id: id.into(), place, content: Content::Record(record) }
    }

    /// Creates a row from the bytes of [`CachedRow::to_bytes`] for this id. Damaged bytes, or those of another id, make a row
    /// that [`CacheTable::load`](super::CacheTable::load) may return like any other: it is left out and counted.
    pub fn from_bytes(id: impl Into<Id>, bytes: &[u8]) -> CachedRow {
        let id = id.into();
        match unseal(salt(&id), bytes).and_then(parts) {
            Some((place, body)) => CachedRow { id, place, content: Content::Body(body) },
            None => CachedRow { id, place: None, content: Content::Damaged },
        }
    }

    /// Encodes the row without its id. The checksum covers both.
    pub fn to_bytes(&self) -> Bytes {
        let made;
        let body = match &self.content {
            Content::Body(body) => body,
            Content::Record(record) => {
                made = Body::encode_as_is(record);
                &made
            }
            Content::Damaged => return Bytes::new(),
        };
        let mut head = [0; HEAD];
        (head[0], head[1]) = (VERSION, if self.place.is_some() { PLACED } else { 0 });
        head[2..10].copy_from_slice(&self.place.unwrap_or(0).to_le_bytes());
        head[10..].copy_from_slice(&(body.json().len() as u64).to_le_bytes());
        let cbor = body.cbor().map_or(&[][..], |cbor| cbor);
        seal(salt(&self.id), &[&head, body.json(), cbor]).into()
    }

    /// Returns the id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the shared id; a clone shares its text.
    pub fn shared_id(&self) -> &Id {
        &self.id
    }

    /// Decodes the record, with its id among the columns.
    ///
    /// # Errors
    /// [`CacheError::Corrupt`] for a row made from damaged bytes; rows passed to a commit are intact.
    pub fn record(&self) -> Result<Record, CacheError> {
        match &self.content {
            Content::Body(body) => body.decode().map_err(|error| CacheError::corrupt(&*self.id, error)),
            Content::Record(record) => Ok(record.clone()),
            Content::Damaged => Err(CacheError::corrupt(&*self.id, "the stored bytes of the row are damaged")),
        }
    }

    /// Position of the row in the master's order, to be stored with the record. Rows without a place come after the rows loaded
    /// before them, until the next complete list.
    pub fn place(&self) -> Option<i64> {
        self.place
    }

    /// Converts to the form stored by slot; `None` if it is damaged. `next` is the ordinal of a row without a place.
    pub(super) fn into_stored(self, slot: u32, next: u64, layout: &Layout) -> Option<StoredRow> {
        let body = match self.content {
            Content::Body(body) => body,
            Content::Record(record) => Body::encode(&self.id, &record, layout),
            Content::Damaged => return None,
        };
        let ordinal = self.place.map_or(next, i64::cast_unsigned);
        Some(StoredRow { slot, ordinal, id: self.id, body })
    }
}

impl From<StoredRow> for CachedRow {
    fn from(row: StoredRow) -> CachedRow {
        CachedRow { id: row.id, place: Some(row.ordinal.cast_signed()), content: Content::Body(row.body) }
    }
}

fn salt(id: &str) -> u64 {
    xxh3_64(id.as_bytes())
}

/// Reads place and body from an unsealed payload.
fn parts(payload: &[u8]) -> Option<(Option<i64>, Body)> {
    let (head, content) = payload.split_at_checked(HEAD)?;
    if head[0] != VERSION {
        return None;
    }
    let place = i64::from_le_bytes(head[2..10].try_into().ok()?);
    let length = u64::from_le_bytes(head[10..].try_into().ok()?);
    let (json, cbor) = content.split_at_checked(usize::try_from(length).ok()?)?;
    let bytes = Bytes::copy_from_slice(content);
    let cbor = (!cbor.is_empty()).then(|| bytes.slice(json.len()..));
    Some(((head[1] & PLACED != 0).then_some(place), Body::from_parts(bytes.slice(..json.len()), cbor)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::CborValue;

    fn stored(value: CborValue) -> StoredRow {
        let record = Record::from_iter([("id".to_string(), "7".into()), ("cell".to_string(), value)]);
        let body = Body::encode("7", &record, &Layout::new("id", false, ["id", "cell"]));
        StoredRow { slot: 3, ordinal: 7 << 32, id: "7".into(), body }
    }

    #[test]
    fn rows_come_back_from_their_bytes_and_from_their_parts() {
        let layout = Layout::new("id", false, ["id", "cell"]);
        for value in ["text".into(), CborValue::Bytes(vec![0, 255])] {
            for ordinal in [0, 7 << 32, u64::MAX] {
                let row = StoredRow { ordinal, ..stored(value.clone()) };
                let cached = CachedRow::from(row.clone());
                assert_eq!(CachedRow::from_bytes("7", &cached.to_bytes()), cached);
                let parts = CachedRow::new("7", cached.record().unwrap(), cached.place());
                assert_eq!(CachedRow::from_bytes("7", &parts.to_bytes()), cached, "the columns keep their order");
                assert_eq!(cached.into_stored(3, 0, &layout), Some(row.clone()));
                assert_eq!(parts.into_stored(3, 0, &layout), Some(row));
            }
        }
        let unplaced = CachedRow::new("7", Record::new(), None);
        assert_eq!(CachedRow::from_bytes("7", &unplaced.to_bytes()).place(), None);
        assert_eq!(unplaced.into_stored(0, 5, &layout).unwrap().ordinal, 5);
    }

    #[test]
    fn bytes_with_any_bit_changed_and_those_of_another_id_are_damage() {
        let bytes = CachedRow::from(stored("text".into())).to_bytes();
        assert!(CachedRow::from_bytes("8", &bytes).record().is_err());
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            let row = CachedRow::from_bytes("7", &changed);
            assert!(row.record().is_err(), "bit {bit}");
            assert!(row.into_stored(0, 0, &Layout::new("id", false, ["id"])).is_none());
        }
        for length in 0..bytes.len() {
            assert!(CachedRow::from_bytes("7", &bytes[..length]).record().is_err(), "{length} bytes");
        }
    }
}
