//! Blocks of a table's rows, as a scan reads them.

use std::cell::RefCell;
use std::sync::Arc;

use super::cache::{Entry, Kept, Subject, Value};
use crate::table::rows::{CHUNK, Chunk, RowRef};
use crate::table::trie::{FAN, Leaf};
use crate::table::{Slot, Table};
use crate::vista::query::{BLOCK_ROWS, Block, BlockGroups, JsonRow, Meter, Path, Vector};

const _: () = assert!(BLOCK_ROWS == CHUNK as usize * FAN, "a block has the rows of a node");

/// Maximum bytes of JSON of a block of which vectors are made: the deadline of a query is not looked at meanwhile.
const MAX_READ: usize = 16 << 20;

/// The columns of one scan of a table.
pub(crate) struct ColumnScan<'a> {
    table: &'a Table,
    meter: &'a Meter,
    columns: Vec<(&'a Path, Arc<Entry>)>,
    groups: Option<Arc<Entry>>,
    /// Time of use.
    now: u64,
}

/// The rows of a node.
pub(crate) struct RowBlock<'a> {
    scan: &'a ColumnScan<'a>,
    /// Number of the first chunk.
    first: u32,
    chunks: &'a [Option<Arc<Chunk>>; FAN],
    /// Number of rows before each chunk, and in total.
    starts: [u16; FAN + 1],
    kept: &'a Kept,
    /// Vectors that were made for this scan, with the number of their column: there may be no room to keep them.
    read: RefCell<Vec<(usize, Arc<Vector>)>>,
}

impl<'a> ColumnScan<'a> {
    /// A scan that reads the columns of `paths`, and keeps the groups of the aggregation that `groups` describes.
    pub(crate) fn new(
        table: &'a Table,
        paths: impl IntoIterator<Item = &'a Path>,
        groups: Option<Arc<str>>,
        meter: &'a Meter,
    ) -> ColumnScan<'a> {
        let cache = table.columns();
        let now = cache.tick();
        let mut columns: Vec<(&Path, Arc<Entry>)> = Vec::new();
        for path in paths {
            if columns.iter().all(|(known, _)| *known != path) {
                columns.push((path, cache.entry(Subject::Column(path.clone()), now, table)));
            }
        }
        let groups = groups.map(|groups| cache.entry(Subject::Groups(groups), now, table));
        ColumnScan { table, meter, columns, groups, now }
    }
}

impl<'a> RowBlock<'a> {
    pub(super) fn new(leaf: &Leaf<'a, Chunk, Kept>, scan: &'a ColumnScan<'_>) -> RowBlock<'a> {
        let mut starts = [0; FAN + 1];
        for (at, chunk) in leaf.values.iter().enumerate() {
            starts[at + 1] = starts[at] + chunk.as_ref().map_or(0, |chunk| chunk.len() as u16);
        }
        RowBlock { scan, first: leaf.first, chunks: leaf.values, starts, kept: leaf.notes, read: RefCell::default() }
    }

    /// Slot of the row with number `at`.
    pub(crate) fn slot(&self, at: usize) -> Slot {
        self.row_ref(at).slot()
    }

    /// Kept groups of the scan's aggregation.
    pub(crate) fn groups(&self) -> Option<Arc<BlockGroups>> {
        match self.kept.get(self.scan.groups.as_ref()?)? {
            Value::Groups(groups) => Some(groups),
            Value::Vector(_) => None,
        }
    }

    /// Keeps the groups of the scan's aggregation.
    pub(crate) fn keep_groups(&self, groups: &Arc<BlockGroups>) {
        if let Some(entry) = &self.scan.groups {
            self.keep(entry, Value::Groups(Arc::clone(groups)));
        }
    }

    fn keep(&self, entry: &Arc<Entry>, value: Value) {
        // What a scan made after its end may be incomplete.
        if self.scan.meter.check().is_ok() {
            let (table, now) = (self.scan.table, self.scan.now);
            table.columns().keep(self.kept, entry, value, now, table);
        }
    }

    fn row_ref(&self, at: usize) -> RowRef<'a> {
        let chunk = self.starts.partition_point(|start| usize::from(*start) <= at) - 1;
        let inside = at - usize::from(self.starts[chunk]);
        match &self.chunks[chunk] {
            Some(rows) => rows.row(self.first + chunk as u32, inside),
            None => unreachable!("a chunk that is not there has no rows"),
        }
    }

    fn rows(&self) -> impl Iterator<Item = JsonRow<'a>> {
        self.chunks.iter().zip(self.first..).filter_map(|(chunk, number)| Some((chunk.as_ref()?, number))).flat_map(
            |(chunk, number)| {
                let first = (chunk.len() > 0).then(|| chunk.row(number, 0));
                std::iter::successors(first, |row| row.after()).map(|row| json_row(&row))
            },
        )
    }

    /// Makes the vectors of the columns of the scan that are not kept, all of them in one pass over the rows.
    fn read(&self) {
        let kept = |entry: &Arc<Entry>| self.kept.get(entry).is_some();
        let columns = self.scan.columns.iter().enumerate().filter(|(_, (_, entry))| !kept(entry));
        let mut missing: Vec<usize> = columns.map(|(at, _)| at).collect();
        let path = |at: &usize| self.scan.columns[*at].0;
        let bytes: usize = self.chunks.iter().flatten().map(|chunk| chunk.heap()).sum();
        let is_exact = self.chunks.iter().flatten().all(|chunk| chunk.is_exact());
        let mut vectors = Vec::new();
        if is_exact && bytes <= MAX_READ {
            let (plain, others): (Vec<usize>, Vec<usize>) = missing.iter().partition(|at| path(at).is_plain());
            let paths: Vec<&Path> = plain.iter().map(path).collect();
            let rows = self.chunks.iter().flatten().flat_map(|chunk| chunk.json_rows());
            vectors.extend(plain.into_iter().zip(Vector::read_columns(rows, self.len(), &paths)));
            missing = others;
        }
        vectors.extend(missing.iter().map(|at| match bytes > MAX_READ {
            true => (*at, Vector::Unread),
            false => (*at, Vector::read(self.rows(), path(at))),
        }));
        let mut read = self.read.borrow_mut();
        for (at, vector) in vectors {
            let vector = Arc::new(vector);
            self.keep(&self.scan.columns[at].1, Value::Vector(Arc::clone(&vector)));
            read.push((at, vector));
        }
    }
}

impl Block for RowBlock<'_> {
    fn len(&self) -> usize {
        usize::from(self.starts[FAN])
    }

    fn id(&self, at: usize) -> &str {
        self.row_ref(at).id()
    }

    fn row(&self, at: usize) -> JsonRow<'_> {
        json_row(&self.row_ref(at))
    }

    fn vector(&self, path: &Path) -> Arc<Vector> {
        let found = self.scan.columns.iter().position(|(known, _)| *known == path);
        let Some(at) = found else {
            return Arc::new(Vector::read(self.rows(), path));
        };
        let known =
            || self.read.borrow().iter().find(|(column, _)| *column == at).map(|(_, vector)| Arc::clone(vector));
        let kept = || match self.kept.get(&self.scan.columns[at].1) {
            Some(Value::Vector(vector)) => Some(vector),
            _ => None,
        };
        let vector = known().or_else(kept).or_else(|| {
            self.read();
            // Another scan may have kept it meanwhile.
            known().or_else(kept)
        });
        vector.unwrap_or_else(|| Arc::new(Vector::Unread))
    }
}

fn json_row<'a>(row: &RowRef<'a>) -> JsonRow<'a> {
    JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..]))
}
