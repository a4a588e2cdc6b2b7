//! Chunks of 64 neighbouring slots, with bodies joined by commas, so that a page is a copy; and [`RowRef`], a row in a chunk.

use std::fmt;

use bytes::Bytes;

use super::trie::Weighted;
use super::{Ordinal, Slot};
use crate::record::{Body, BodyError, BodyRef, Ends, Pack, Record, decode_parts, hash_parts};

/// Slots per chunk.
pub(super) const CHUNK: u32 = 64;

/// The rows of 64 slots, packed in slot order. Immutable: a change makes a new chunk of exact size.
#[derive(Clone, Default)]
pub(super) struct Chunk {
    /// Bit set of the slots that hold a row. The n-th set bit belongs to the n-th entry of `rows`.
    live: u64,
    rows: Box<[Entry]>,
    /// `row,row,row,`
    bytes: Box<[u8]>,
    ids: Box<str>,
    /// CBOR by entry number, ascending; only for rows that JSON does not represent exactly.
    cbor: Box<[(u8, Bytes)]>,
}

/// Ends of a row in the chunk's buffers; it begins at the ends of the row before.
#[derive(Clone, Copy)]
struct Entry {
    ordinal: Ordinal,
    /// End in `bytes`, after the row's comma.
    end: u32,
    id_end: u32,
}

/// A row to be added to a chunk.
#[derive(Clone, Copy)]
pub(super) struct NewRow<'a> {
    pub(super) id: &'a str,
    pub(super) body: &'a Body,
    pub(super) ordinal: Ordinal,
}

impl Weighted for Chunk {
    fn weight(&self) -> u32 {
        self.live.count_ones()
    }
}

impl Chunk {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Position of `slot`'s row among the chunk's rows; `Err` with the position for an insert if there is none.
    pub(super) fn position(&self, slot: Slot) -> Result<usize, usize> {
        let bit = 1u64 << (slot % CHUNK);
        let position = (self.live & (bit - 1)).count_ones() as usize;
        if self.live & bit != 0 { Ok(position) } else { Err(position) }
    }

    /// The row in `slot`.
    pub(super) fn find(&self, slot: Slot) -> Option<RowRef<'_>> {
        let at = self.position(slot).ok()?;
        Some(RowRef { chunk: self, slot, at: at as u32 })
    }

    /// The row at position `at` of this chunk, whose number is `number`.
    pub(super) fn row(&self, number: u32, at: usize) -> RowRef<'_> {
        let mut rest = self.live;
        if rest == u64::MAX {
            rest <<= at;
        } else {
            (0..at).for_each(|_| rest &= rest - 1);
        }
        RowRef { chunk: self, slot: number * CHUNK + rest.trailing_zeros(), at: at as u32 }
    }

    /// The row after `row` in this chunk.
    pub(super) fn after<'a>(&'a self, row: RowRef<'a>) -> Option<RowRef<'a>> {
        let rest = self.live & (u64::MAX << (row.slot % CHUNK)) << 1;
        (rest != 0).then(|| RowRef {
            chunk: self,
            slot: row.slot - row.slot % CHUNK + rest.trailing_zeros(),
            at: row.at + 1,
        })
    }

    /// The rows as JSON objects.
    pub(super) fn json_rows(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.rows.iter().map(|row| row.end as usize));
        starts.zip(&self.rows).map(|(start, row)| &self.bytes[start..row.end as usize - 1])
    }

    /// True if JSON represents all rows exactly.
    pub(super) fn is_exact(&self) -> bool {
        self.cbor.is_empty()
    }

    pub(super) fn ordinal(&self, at: usize) -> Ordinal {
        self.rows[at].ordinal
    }

    /// Number of the chunk's rows before `ordinal`; for chunks in natural order.
    pub(super) fn rank(&self, ordinal: Ordinal) -> usize {
        self.rows.partition_point(|row| row.ordinal < ordinal)
    }

    pub(super) fn set_ordinal(&mut self, at: usize, ordinal: Ordinal) {
        self.rows[at].ordinal = ordinal;
    }

    /// Memory in bytes, including the chunk itself.
    pub(super) fn heap(&self) -> usize {
        let cbor: usize = self.cbor.iter().map(|(_, cbor)| cbor.len() + size_of::<(u8, Bytes)>()).sum();
        size_of::<Chunk>() + size_of_val(&*self.rows) + self.bytes.len() + self.ids.len() + cbor
    }

    /// Takes over a pack of rows, whose ordinals begin with `first` and rise by `step`.
    pub(super) fn of_pack(pack: Pack, first: Ordinal, step: Ordinal) -> Chunk {
        let Pack { ends, bytes, ids, cbor } = pack;
        let ordinal = |at: usize| first.saturating_add(step.saturating_mul(at as u64));
        let entry = |(at, end): (usize, &Ends)| Entry { ordinal: ordinal(at), end: end.json, id_end: end.id };
        let live = u64::MAX >> (CHUNK as usize - ends.len());
        Chunk { live, rows: ends.iter().enumerate().map(entry).collect(), bytes, ids, cbor }
    }

    fn start(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |before| self.rows[before].end as usize)
    }

    fn id_start(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |before| self.rows[before].id_end as usize)
    }

    /// The rows at positions `first..=last` as `row,row`.
    pub(super) fn run(&self, first: usize, last: usize) -> &[u8] {
        &self.bytes[self.start(first)..self.rows[last].end as usize - 1]
    }

    /// Copy of this chunk with the row in `slot` replaced, added or (for `None`) removed.
    pub(super) fn with(&self, slot: Slot, new: Option<NewRow<'_>>) -> Chunk {
        let (at, old) = match self.position(slot) {
            Ok(at) => (at, 1),
            Err(at) => (at, 0),
        };
        let mut draft = ChunkBuilder::default();
        draft.reserve(self, new);
        draft.copy(self, 0, at);
        if let Some(new) = new {
            draft.push(slot, new);
        }
        draft.copy(self, at + old, self.len());
        let bit = 1u64 << (slot % CHUNK);
        draft.live = if new.is_some() { self.live | bit } else { self.live & !bit };
        draft.into_chunk()
    }
}

/// Builder of a chunk.
#[derive(Default)]
pub(super) struct ChunkBuilder {
    live: u64,
    rows: Vec<Entry>,
    bytes: Vec<u8>,
    ids: String,
    cbor: Vec<(u8, Bytes)>,
}

impl ChunkBuilder {
    fn reserve(&mut self, old: &Chunk, new: Option<NewRow<'_>>) {
        self.rows.reserve_exact(old.rows.len() + usize::from(new.is_some()));
        self.bytes.reserve_exact(old.bytes.len() + new.map_or(0, |row| row.body.json().len() + 1));
        self.ids.reserve_exact(old.ids.len() + new.map_or(0, |row| row.id.len()));
    }

    /// Appends entries `from..to` of another chunk.
    fn copy(&mut self, chunk: &Chunk, from: usize, to: usize) {
        let (bytes, ids) = (chunk.start(from)..chunk.start(to), chunk.id_start(from)..chunk.id_start(to));
        let (bytes_at, ids_at, first) = (self.bytes.len(), self.ids.len(), self.rows.len());
        let shift = |end: u32, from: usize, to: usize| offset(end as usize - from + to);
        self.rows.extend(chunk.rows[from..to].iter().map(|row| Entry {
            ordinal: row.ordinal,
            end: shift(row.end, bytes.start, bytes_at),
            id_end: shift(row.id_end, ids.start, ids_at),
        }));
        let moved = chunk.cbor.iter().filter(|(at, _)| (from..to).contains(&usize::from(*at)));
        self.cbor.extend(moved.map(|(at, cbor)| ((usize::from(*at) - from + first) as u8, cbor.clone())));
        self.bytes.extend_from_slice(&chunk.bytes[bytes]);
        self.ids.push_str(&chunk.ids[ids]);
    }

    /// Appends a row. Slots must ascend.
    pub(super) fn push(&mut self, slot: Slot, row: NewRow<'_>) {
        self.live |= 1 << (slot % CHUNK);
        self.bytes.extend_from_slice(row.body.json());
        self.bytes.push(b',');
        self.ids.push_str(row.id);
        if let Some(cbor) = row.body.cbor() {
            self.cbor.push((self.rows.len() as u8, cbor.clone()));
        }
        let (end, id_end) = (offset(self.bytes.len()), offset(self.ids.len()));
        self.rows.push(Entry { ordinal: row.ordinal, end, id_end });
    }

    /// Builds the chunk, `None` if there are no rows. The builder is empty afterwards and keeps its buffers.
    pub(super) fn take_chunk(&mut self) -> Option<Chunk> {
        let chunk = Chunk {
            live: self.live,
            rows: self.rows.as_slice().into(),
            bytes: self.bytes.as_slice().into(),
            ids: self.ids.as_str().into(),
            cbor: self.cbor.as_slice().into(),
        };
        self.live = 0;
        self.rows.clear();
        self.bytes.clear();
        self.ids.clear();
        self.cbor.clear();
        (chunk.live != 0).then_some(chunk)
    }

    fn into_chunk(self) -> Chunk {
        Chunk {
            live: self.live,
            rows: self.rows.into(),
            bytes: self.bytes.into(),
            ids: self.ids.into(),
            cbor: self.cbor.into(),
        }
    }
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("64 rows take less than 4 GiB: sources and requests limit a row to far less than 64 MiB")
}

/// A row of a [`Table`](super::Table), borrowed.
#[derive(Clone, Copy)]
pub struct RowRef<'a> {
    chunk: &'a Chunk,
    slot: Slot,
    at: u32,
}

impl<'a> RowRef<'a> {
    /// Slot of the row.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Id of the row.
    pub fn id(&self) -> &'a str {
        let at = self.at as usize;
        &self.chunk.ids[self.chunk.id_start(at)..self.chunk.rows[at].id_end as usize]
    }

    /// The row as a JSON object, ready to send.
    pub fn json(&self) -> &'a [u8] {
        self.chunk.run(self.at as usize, self.at as usize)
    }

    /// The row as canonical CBOR, if JSON does not represent it exactly.
    pub fn cbor(&self) -> Option<&'a Bytes> {
        let found = self.chunk.cbor.binary_search_by_key(&self.at, |(at, _)| u32::from(*at)).ok()?;
        Some(&self.chunk.cbor[found].1)
    }

    /// Ordinal of the row: its position in natural order.
    pub fn ordinal(&self) -> Ordinal {
        self.chunk.rows[self.at as usize].ordinal
    }

    /// The row without its id.
    pub fn encoded(&self) -> BodyRef<'a> {
        BodyRef::new(self.json(), self.cbor())
    }

    /// Copies the row to a body that does not keep the table alive.
    pub fn body(&self) -> Body {
        Body::from_parts(Bytes::copy_from_slice(self.json()), self.cbor().cloned())
    }

    /// Decodes the row.
    ///
    /// # Errors
    /// [`BodyError`] if the bytes were not made by [`Body::encode`].
    pub fn decode(&self) -> Result<Record, BodyError> {
        decode_parts(self.json(), self.cbor().map(|cbor| &cbor[..]))
    }

    /// xxh3-128 of the canonical bytes, the strong ETag of the row.
    pub fn hash(&self) -> u128 {
        hash_parts(self.json(), self.cbor().map(|cbor| &cbor[..]))
    }

    /// True if the row equals `body`.
    pub fn holds(&self, body: &Body) -> bool {
        self.json() == &body.json()[..] && self.cbor() == body.cbor()
    }

    /// The row after this one in its chunk.
    pub(super) fn after(self) -> Option<RowRef<'a>> {
        self.chunk.after(self)
    }
}

impl fmt::Debug for RowRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowRef").field("slot", &self.slot).field("id", &self.id()).finish_non_exhaustive()
    }
}

/// Appends rows as `row,row`, with one copy per run of rows that are contiguous in a chunk.
pub(super) fn copy_joined<'a>(rows: impl Iterator<Item = RowRef<'a>>, out: &mut Vec<u8>) {
    let mut rows = rows.peekable();
    while let Some(first) = rows.next() {
        let mut last = first.at;
        while rows.next_if(|row| std::ptr::eq(row.chunk, first.chunk) && row.at == last + 1).is_some() {
            last += 1;
        }
        out.extend_from_slice(first.chunk.run(first.at as usize, last as usize));
        if rows.peek().is_some() {
            out.push(b',');
        }
    }
}
