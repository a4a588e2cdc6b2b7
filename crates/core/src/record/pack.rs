//! Encoded rows in packs of 64, each in buffers of exact size that a table takes over as they are.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::body_ref::{BodyRef, EncodedRow};

/// Number of rows in a pack.
pub(crate) const PACK: usize = 64;

/// At most [`PACK`] rows in order.
#[derive(Clone, Debug)]
pub(crate) struct Pack {
    pub(crate) ends: Box<[Ends]>,
    /// `row,row,row,`
    pub(crate) bytes: Box<[u8]>,
    pub(crate) ids: Box<str>,
    /// CBOR by number of the row, ascending; only for rows that JSON does not represent exactly.
    pub(crate) cbor: Box<[(u8, Bytes)]>,
}

/// Ends of a row in the buffers of its pack; it begins at the ends of the row before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// End in `bytes`, behind the row's comma.
    pub(crate) json: u32,
    pub(crate) id: u32,
}

/// Pack in the making. Its buffers are used again for the next one.
#[derive(Clone, Debug, Default)]
struct Draft {
    ends: Vec<Ends>,
    bytes: Vec<u8>,
    ids: String,
    cbor: Vec<(u8, Bytes)>,
}

/// Buffers of a pack or a draft.
#[derive(Clone, Copy)]
struct View<'a> {
    ends: &'a [Ends],
    bytes: &'a [u8],
    ids: &'a str,
    cbor: &'a [(u8, Bytes)],
}

impl<'a> View<'a> {
    fn row(&self, at: usize) -> EncodedRow<'a> {
        let start = at.checked_sub(1).map_or(Ends { json: 0, id: 0 }, |before| self.ends[before]);
        let end = self.ends[at];
        let json = &self.bytes[start.json as usize..end.json as usize - 1];
        let cbor = self.cbor.binary_search_by_key(&at, |(own, _)| usize::from(*own)).ok();
        let cbor = cbor.map(|found| &self.cbor[found].1);
        (&self.ids[start.id as usize..end.id as usize], BodyRef::new(json, cbor))
    }
}

impl Pack {
    fn view(&self) -> View<'_> {
        View { ends: &self.ends, bytes: &self.bytes, ids: &self.ids, cbor: &self.cbor }
    }
}

impl Draft {
    fn view(&self) -> View<'_> {
        View { ends: &self.ends, bytes: &self.bytes, ids: &self.ids, cbor: &self.cbor }
    }

    fn push(&mut self, (id, body): EncodedRow<'_>) {
        self.bytes.extend_from_slice(body.json());
        self.bytes.push(b',');
        self.ids.push_str(id);
        if let Some(cbor) = body.cbor() {
            self.cbor.push((self.ends.len() as u8, cbor.clone()));
        }
        self.ends.push(Ends { json: offset(self.bytes.len()), id: offset(self.ids.len()) });
    }

    /// Copies a pack with another row at `at`.
    fn replacing(view: View<'_>, at: usize, body: BodyRef<'_>) -> Draft {
        let mut draft = Draft::default();
        for (own, row) in (0..view.ends.len()).map(|own| (own, view.row(own))) {
            draft.push(if own == at { (row.0, body) } else { row });
        }
        draft
    }

    fn take(&mut self) -> Pack {
        let pack = Pack {
            ends: self.ends.as_slice().into(),
            bytes: self.bytes.as_slice().into(),
            ids: self.ids.as_str().into(),
            cbor: self.cbor.as_slice().into(),
        };
        self.ends.clear();
        self.bytes.clear();
        self.ids.clear();
        self.cbor.clear();
        pack
    }
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("64 rows take less than 4 GiB: sources and requests limit a row to far less than 64 MiB")
}

/// Rows in the order of their insertion, by id.
#[derive(Clone, Debug)]
pub(crate) struct PackedRows {
    packs: Vec<Arc<Pack>>,
    draft: Box<Draft>,
    positions: HashTable<Position>,
    /// Random seed of the hash, so that a source cannot choose ids that collide.
    seed: u64,
}

/// Hash of an id, and the number of its row.
#[derive(Clone, Copy, Debug)]
struct Position {
    hash: u32,
    at: u32,
}

impl Position {
    /// Spreads the hash over 64 bits, as the table looks at the highest ones, too.
    fn spread(hash: u32) -> u64 {
        u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

impl Default for PackedRows {
    fn default() -> PackedRows {
        let seed = RandomState::new().build_hasher().finish();
        PackedRows { packs: Vec::new(), draft: Box::default(), positions: HashTable::new(), seed }
    }
}

impl PackedRows {
    pub(super) fn len(&self) -> usize {
        self.packs.len() * PACK + self.draft.ends.len()
    }

    /// Row number `at`, which must be there.
    pub(super) fn row(&self, at: usize) -> EncodedRow<'_> {
        let view = self.packs.get(at / PACK).map_or_else(|| self.draft.view(), |pack| pack.view());
        view.row(at % PACK)
    }

    /// Number of the row of `id`.
    pub(super) fn find(&self, id: &str) -> Option<usize> {
        self.find_hashed(self.hash(id), id)
    }

    fn hash(&self, id: &str) -> u32 {
        xxh3_64_with_seed(id.as_bytes(), self.seed) as u32
    }

    fn find_hashed(&self, hash: u32, id: &str) -> Option<usize> {
        let is_same = |position: &Position| position.hash == hash && self.row(position.at as usize).0 == id;
        self.positions.find(Position::spread(hash), is_same).map(|position| position.at as usize)
    }

    /// Adds a row at the end. If its id is known, replaces the row in place and returns `false`.
    pub(super) fn push(&mut self, id: &str, body: BodyRef<'_>) -> bool {
        let hash = self.hash(id);
        if let Some(at) = self.find_hashed(hash, id) {
            match self.packs.get_mut(at / PACK) {
                Some(pack) => *pack = Arc::new(Draft::replacing(pack.view(), at % PACK, body).take()),
                None => *self.draft = Draft::replacing(self.draft.view(), at % PACK, body),
            }
            return false;
        }
        let at = u32::try_from(self.len()).expect("a list has fewer than 2^32 rows: a table has no more slots");
        self.positions.insert_unique(Position::spread(hash), Position { hash, at }, |own| Position::spread(own.hash));
        self.draft.push((id, body));
        if self.draft.ends.len() == PACK {
            self.packs.push(Arc::new(self.draft.take()));
        }
        true
    }

    /// Takes the rows apart. Packs that others share are copied.
    pub(crate) fn into_packs(self) -> impl Iterator<Item = Pack> {
        let PackedRows { packs, mut draft, positions, .. } = self;
        drop(positions);
        let last = (!draft.ends.is_empty()).then(|| draft.take());
        packs.into_iter().map(Arc::unwrap_or_clone).chain(last)
    }
}
