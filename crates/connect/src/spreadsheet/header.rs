//! Header of a sheet: the row with the names of the columns.

use std::collections::{BTreeMap, HashSet};

use super::book::{Cell, SheetRow};
use super::source::text_of;
use diorama_core::vista::Inferred;

/// Number of rows at which the header is looked for.
const LOOK: usize = 50;

/// Header of a sheet.
#[derive(Debug)]
pub(super) struct Header {
    /// Row, from 0.
    pub(super) row: u32,
    /// Names by column.
    pub(super) names: BTreeMap<u32, String>,
    pub(super) inferred: Vec<Inferred>,
}

/// Finder of the header among the first rows of a sheet.
#[derive(Default)]
pub(super) struct HeaderFinder {
    rows: Vec<SheetRow>,
}

impl HeaderFinder {
    /// Adds a row; `false` if no more are needed.
    pub(super) fn add(&mut self, row: SheetRow) -> bool {
        self.rows.push(row);
        self.rows.len() < LOOK
    }

    /// Returns the header: the declared row, or the first that is about as wide as the widest. Titles above it have fewer cells.
    /// `None` if there is none.
    pub(super) fn find(self, declared: Option<u64>) -> Option<Header> {
        let widest = self.rows.iter().map(|row| row.cells.len()).max()?;
        let at = match declared {
            Some(line) => self.rows.iter().position(|row| u64::from(row.at) + 1 == line)?,
            None => self.rows.iter().position(|row| row.cells.len() * 2 > widest)?,
        };
        let row = &self.rows[at];
        let mut inferred = Vec::new();
        if declared.is_none() && at > 0 {
            let because = format!("the {at} rows above it have fewer cells");
            inferred
                .push(Inferred::new("header", format!("row {}", row.at + 1), because, "header in source").doubtful());
        }
        Some(Header { row: row.at, names: names(row, &mut inferred), inferred })
    }
}

/// Returns the names of the columns. Empty and repeated names are replaced as in CSV files.
fn names(row: &SheetRow, inferred: &mut Vec<Inferred>) -> BTreeMap<u32, String> {
    let own: BTreeMap<u32, String> = row
        .cells
        .iter()
        .map(|(column, cell)| match cell {
            Cell::Value(value) => (*column, text_of(value)),
            Cell::Error(error) => (*column, error.clone()),
        })
        .collect();
    let (Some(first), Some(last)) = (own.keys().next().copied(), own.keys().last().copied()) else { return own };
    let mut taken: HashSet<String> = own.values().cloned().collect();
    let mut seen = HashSet::new();
    let mut name = |column: u32| {
        let (stem, because) = match own.get(&column) {
            Some(name) if seen.insert(name.clone()) => return name.clone(),
            Some(name) => (name.clone(), "has the name of an earlier column"),
            None => (format!("column_{}", u64::from(column) + 1), "has no name in the header"),
        };
        let plain = std::iter::once(stem.clone()).filter(|_| !own.contains_key(&column));
        let mut candidates = plain.chain((1..).map(|number| format!("{stem}.{number}")));
        let name = candidates.find(|name| taken.insert(name.clone())).unwrap_or(stem);
        let what = format!("name of column {}", u64::from(column) + 1);
        inferred.push(Inferred::new(what, format!("{name:?}"), format!("the column {because}"), "the sheet's header"));
        name
    };
    (first..=last).map(|column| (column, name(column))).collect()
}
