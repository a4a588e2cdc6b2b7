//! Blocks of a table's rows, as a scan reads them.

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
        RowBlock { scan, first: leaf.first, chunks: leaf.values, starts, kept: leaf.notes }
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

    fn read(&self, path: &Path) -> Vector {
        let bytes: usize = self.chunks.iter().flatten().map(|chunk| chunk.heap()).sum();
        if bytes > MAX_READ { Vector::Unread } else { Vector::read(self.rows(), path) }
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
        let entry = self.scan.columns.iter().find(|(known, _)| *known == path).map(|(_, entry)| entry);
        if let Some(Value::Vector(vector)) = entry.and_then(|entry| self.kept.get(entry)) {
            return vector;
        }
        let vector = Arc::new(self.read(path));
        if let Some(entry) = entry {
            self.keep(entry, Value::Vector(Arc::clone(&vector)));
        }
        vector
    }
}

fn json_row<'a>(row: &RowRef<'a>) -> JsonRow<'a> {
    JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..]))
}
