//! [`Vector`]: the cells of one column of a block, by type.

use std::borrow::Cow;
use std::ops::Deref;

use super::super::collation::Collation;
use super::super::compare::Key;
use super::super::fields::{Fields, JsonRow, MemberReader, Path, decode, plain_text};
use super::{Block, Mask};
use crate::record::{CborValue, value_to_json};

/// Maximum number of distinct cells of a coded vector.
const MAX_CODES: usize = 256;
/// Maximum heap bytes of the distinct cells of a vector, and of the cells of mixed types.
const MAX_CELLS: usize = 512 << 10;
/// Maximum bytes of the texts of a vector.
const MAX_TEXTS: usize = 2 << 20;

/// The cells of one column of a block. A missing cell is a null, as for filters and functions.
#[derive(Debug)]
pub(crate) enum Vector {
    /// Cells of any type of which few are distinct: for each row the index of its cell.
    Coded { codes: Box<[u8]>, cells: Box<[CborValue]> },
    /// Integers and nulls, and the least and greatest integer.
    Integers { cells: Box<[i64]>, present: Mask, range: (i64, i64) },
    /// Floats and nulls.
    Floats { cells: Box<[f64]>, present: Mask },
    /// Texts and nulls: the ends of the cells in one text.
    Texts { text: Box<str>, ends: Box<[u32]>, present: Mask },
    /// Cells of several types.
    Mixed(Box<[CborValue]>),
    /// Cells that are too large for a vector, or not exact in JSON: they are read from the rows.
    Unread,
}

impl Vector {
    /// Reads the cells under `path` of the rows of a block.
    pub(crate) fn read<'r>(rows: impl Iterator<Item = JsonRow<'r>>, path: &Path) -> Vector {
        let cells: Option<Vec<Cow<'r, [u8]>>> = rows.map(|row| json_cell(row, path)).collect();
        cells.map_or(Vector::Unread, |cells| Vector::of_cells(&cells))
    }

    /// Reads the cells of several columns, whose paths have no steps, of rows that JSON represents exactly.
    pub(crate) fn read_columns<'r>(rows: impl Iterator<Item = &'r [u8]>, len: usize, paths: &[&Path]) -> Vec<Vector> {
        let mut columns = vec![vec![NULL; len]; paths.len()];
        let mut reader = MemberReader::new(paths);
        for (at, row) in rows.take(len).enumerate() {
            reader.read(row, |column, cell| columns[column][at] = cell);
        }
        columns.iter().map(|cells| Vector::of_cells(cells)).collect()
    }

    fn of_cells<C: Deref<Target = [u8]>>(cells: &[C]) -> Vector {
        let first = cells.iter().find(|cell| ***cell != *NULL).and_then(|cell| cell.first());
        let typed = coded(cells).or_else(|| match first {
            Some(b'"') => texts(cells),
            _ => integers(cells).or_else(|| floats(cells)),
        });
        typed.unwrap_or_else(|| mixed(cells))
    }

    /// Heap memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Vector::Coded { codes, cells } => codes.len() + cells_bytes(cells),
            Vector::Integers { cells, .. } => size_of_val(&**cells),
            Vector::Floats { cells, .. } => size_of_val(&**cells),
            Vector::Texts { text, ends, .. } => text.len() + size_of_val(&**ends),
            Vector::Mixed(cells) => cells_bytes(cells),
            Vector::Unread => 0,
        }
    }

    /// The cell of the row with number `at`.
    pub(crate) fn cell<'v>(&'v self, at: usize, block: &impl Block, path: &Path) -> Cow<'v, CborValue> {
        let of = |present: &Mask, value: CborValue| if present.has(at) { value } else { CborValue::Null };
        match self {
            Vector::Coded { codes, cells } => Cow::Borrowed(&cells[usize::from(codes[at])]),
            Vector::Integers { cells, present, .. } => Cow::Owned(of(present, cells[at].into())),
            Vector::Floats { cells, present } => Cow::Owned(of(present, CborValue::Float(cells[at]))),
            Vector::Texts { text, ends, present } => Cow::Owned(of(present, slice(text, ends, at).into())),
            Vector::Mixed(cells) => Cow::Borrowed(&cells[at]),
            Vector::Unread => {
                let cell = block.row(at).field(path).map(Cow::into_owned);
                Cow::Owned(cell.unwrap_or(CborValue::Null))
            }
        }
    }

    /// The text of the row with number `at`, in a vector of texts that has one.
    pub(crate) fn text(&self, at: usize) -> Option<&str> {
        let Vector::Texts { text, ends, present } = self else { return None };
        present.has(at).then(|| slice(text, ends, at))
    }

    /// Sort key of the cell of the row with number `at`.
    pub(crate) fn key<'v>(&'v self, at: usize, block: &impl Block, path: &Path, collation: &Collation) -> Key<'v> {
        match self.text(at).filter(|_| *collation == Collation::Plain) {
            Some(text) => Key::Text(Cow::Borrowed(text)),
            None => Key::of_cow(Some(self.cell(at, block, path)), collation),
        }
    }

    /// Visits the cells of `rows` with the number of their row.
    pub(crate) fn each<E>(
        &self,
        rows: impl Iterator<Item = usize>,
        block: &impl Block,
        path: &Path,
        mut visit: impl FnMut(usize, &CborValue) -> Result<(), E>,
    ) -> Result<(), E> {
        let Vector::Texts { text, ends, present } = self else {
            return rows.into_iter().try_for_each(|at| visit(at, &self.cell(at, block, path)));
        };
        // One buffer for all texts.
        let mut cell = CborValue::Text(String::new());
        for at in rows {
            if !present.has(at) {
                visit(at, &CborValue::Null)?;
            } else if let CborValue::Text(buffer) = &mut cell {
                buffer.clear();
                buffer.push_str(slice(text, ends, at));
                visit(at, &cell)?;
            }
        }
        Ok(())
    }
}

/// The text of the row with number `at` in a vector of texts.
fn slice<'t>(text: &'t str, ends: &[u32], at: usize) -> &'t str {
    let start = at.checked_sub(1).map_or(0, |before| ends[before] as usize);
    &text[start..ends[at] as usize]
}

const NULL: &[u8] = b"null";

/// The cell as JSON, null if it is missing; `None` if JSON does not represent it exactly.
fn json_cell<'r>(row: JsonRow<'r>, path: &Path) -> Option<Cow<'r, [u8]>> {
    if row.1.is_none() && path.is_plain() {
        return Some(Cow::Borrowed(row.member(path).unwrap_or(NULL)));
    }
    let Some(cell) = row.field(path) else { return Some(Cow::Borrowed(NULL)) };
    let json = value_to_json(&cell);
    (decode(&json).as_ref() == Some(&*cell)).then_some(Cow::Owned(json))
}

fn value(json: &[u8]) -> CborValue {
    decode(json).unwrap_or(CborValue::Null)
}

/// Codes for cells of which few are distinct.
fn coded<C: Deref<Target = [u8]>>(cells: &[C]) -> Option<Vector> {
    /// Number of places of the hash table: several for each code, so that most are found at once.
    const PLACES: usize = 4 * MAX_CODES;
    let mut places = [u16::MAX; PLACES];
    let mut distinct: Vec<&[u8]> = Vec::new();
    let mut codes = Vec::with_capacity(cells.len());
    for cell in cells {
        let mut place = xxhash_rust::xxh3::xxh3_64(cell) as usize % PLACES;
        let code = loop {
            match distinct.get(usize::from(places[place])) {
                Some(known) if *known == &**cell => break places[place],
                Some(_) => place = (place + 1) % PLACES,
                None if distinct.len() == MAX_CODES => return None,
                None => {
                    places[place] = distinct.len() as u16;
                    distinct.push(cell);
                    break places[place];
                }
            }
        };
        codes.push(code as u8);
    }
    let cells: Box<[CborValue]> = distinct.into_iter().map(value).collect();
    (cells_bytes(&cells) <= MAX_CELLS).then(|| Vector::Coded { codes: codes.into(), cells })
}

fn integers<C: Deref<Target = [u8]>>(cells: &[C]) -> Option<Vector> {
    let present = Mask::of(cells.len(), |at| *cells[at] != *NULL);
    let mut range = (i64::MAX, i64::MIN);
    let mut numbers = vec![0; cells.len()];
    for at in present.iter() {
        let number = integer(&cells[at])?;
        range = (range.0.min(number), range.1.max(number));
        numbers[at] = number;
    }
    Some(Vector::Integers { cells: numbers.into(), present, range })
}

/// An integer of 64 bits as canonical JSON spells it.
fn integer(json: &[u8]) -> Option<i64> {
    /// Maximum number of digits that surely fit.
    const MOST: usize = 18;
    let (negative, digits) = json.strip_prefix(b"-").map_or((false, json), |digits| (true, digits));
    if digits.is_empty() || digits.len() > MOST {
        return std::str::from_utf8(json).ok()?.parse().ok();
    }
    let mut number = 0;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + i64::from(digit);
    }
    Some(if negative { -number } else { number })
}

fn floats<C: Deref<Target = [u8]>>(cells: &[C]) -> Option<Vector> {
    let present = Mask::of(cells.len(), |at| *cells[at] != *NULL);
    let mut numbers = vec![0.0; cells.len()];
    for at in present.iter() {
        let CborValue::Float(number) = decode(&cells[at])? else { return None };
        numbers[at] = number;
    }
    Some(Vector::Floats { cells: numbers.into(), present })
}

fn texts<C: Deref<Target = [u8]>>(cells: &[C]) -> Option<Vector> {
    let present = Mask::of(cells.len(), |at| *cells[at] != *NULL);
    let (text, ends) = plain_texts(cells, &present).or_else(|| decoded_texts(cells, &present))?;
    Some(Vector::Texts { text: text.into(), ends: ends.into(), present })
}

/// The texts of cells that are strings without escapes.
fn plain_texts<C: Deref<Target = [u8]>>(cells: &[C], present: &Mask) -> Option<(String, Vec<u32>)> {
    let room: usize = cells.iter().map(|cell| cell.len()).sum();
    if room > MAX_TEXTS {
        return None;
    }
    let (mut bytes, mut ends) = (Vec::with_capacity(room), Vec::with_capacity(cells.len()));
    for (at, cell) in cells.iter().enumerate() {
        if present.has(at) {
            bytes.extend_from_slice(cell.strip_prefix(b"\"")?.strip_suffix(b"\"")?);
        }
        ends.push(bytes.len() as u32);
    }
    if memchr::memchr(b'\\', &bytes).is_some() {
        return None;
    }
    let text = String::from_utf8(bytes).ok()?;
    let is_whole = text.is_ascii() || ends.iter().all(|end| text.is_char_boundary(*end as usize));
    is_whole.then_some((text, ends))
}

/// The texts of cells that are strings.
fn decoded_texts<C: Deref<Target = [u8]>>(cells: &[C], present: &Mask) -> Option<(String, Vec<u32>)> {
    let (mut text, mut ends) = (String::new(), Vec::with_capacity(cells.len()));
    for (at, cell) in cells.iter().enumerate() {
        match plain_text(cell) {
            Some(plain) => text.push_str(plain),
            None if present.has(at) => match decode(cell)? {
                CborValue::Text(escaped) => text.push_str(&escaped),
                _ => return None,
            },
            None => {}
        }
        ends.push(u32::try_from(text.len()).ok().filter(|end| *end as usize <= MAX_TEXTS)?);
    }
    Some((text, ends))
}

fn mixed<C: Deref<Target = [u8]>>(cells: &[C]) -> Vector {
    if cells.iter().map(|cell| cell.len()).sum::<usize>() > MAX_CELLS {
        return Vector::Unread;
    }
    let cells: Box<[CborValue]> = cells.iter().map(|cell| value(cell)).collect();
    if cells_bytes(&cells) > MAX_CELLS { Vector::Unread } else { Vector::Mixed(cells) }
}

/// Memory of cells in bytes.
pub(crate) fn cells_bytes(cells: &[CborValue]) -> usize {
    size_of_val(cells) + cells.iter().map(heap).sum::<usize>()
}

/// Approximate heap memory of a cell in bytes.
fn heap(cell: &CborValue) -> usize {
    match cell {
        CborValue::Text(text) => text.len(),
        CborValue::Bytes(bytes) => bytes.len(),
        CborValue::Array(items) => cells_bytes(items),
        CborValue::Map(members) => {
            members.iter().map(|(key, value)| 2 * size_of::<CborValue>() + heap(key) + heap(value)).sum()
        }
        CborValue::Tag(_, inner) => size_of::<CborValue>() + heap(inner),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 5] = ["a", "ab", "b\"", "é", "a\\"];
    const CELLS: [&str; 12] = [
        "null",
        "true",
        "0",
        "-17",
        "9223372036854775807",
        "-9223372036854775808",
        "1.5",
        "\"\"",
        "\"x\\\"y\"",
        "\"{\\\\\"",
        "[{\"a\":1},\"]\"]",
        "{\"a\":{\"ab\":\"}\"}}",
    ];

    /// A row with some of the columns, in any order.
    fn row() -> impl Strategy<Value = String> {
        let members = prop::collection::vec((0..NAMES.len(), prop::sample::select(CELLS.to_vec())), 0..8);
        members.prop_map(|members| {
            let mut seen = Vec::new();
            let members = members.into_iter().filter(|(name, _)| {
                let is_new = !seen.contains(name);
                seen.push(*name);
                is_new
            });
            let text = |(name, cell)| format!("{}:{cell}", String::from_utf8(quoted(NAMES[name])).unwrap());
            format!("{{{}}}", members.map(text).collect::<Vec<_>>().join(","))
        })
    }

    fn quoted(name: &str) -> Vec<u8> {
        value_to_json(&CborValue::Text(name.to_string()))
    }

    proptest! {
        #[test]
        fn columns_read_in_one_pass_equal_columns_read_alone(
            forms in prop::collection::vec(row(), 1..5),
            picked in prop::collection::vec(0..5usize, 1..40),
            read in prop::collection::btree_set(0..NAMES.len(), 1..4),
        ) {
            let rows: Vec<&[u8]> = picked.iter().map(|at| forms[at % forms.len()].as_bytes()).collect();
            let paths: Vec<Path> = read.into_iter().map(|at| Path::plain(NAMES[at])).collect();
            let vectors = Vector::read_columns(rows.iter().copied(), rows.len(), &paths.iter().collect::<Vec<_>>());
            for (vector, path) in vectors.iter().zip(&paths) {
                let alone = Vector::read(rows.iter().map(|row| JsonRow(row, None)), path);
                prop_assert_eq!(format!("{vector:?}"), format!("{alone:?}"), "{}", path);
            }
        }

        #[test]
        fn a_vector_has_the_cells_of_its_rows(distinct in prop::sample::select(vec![1, 2, 255, 256, 257, 258, 700])) {
            let rows: Vec<String> = (0..700).map(|at| format!("{{\"a\":{}}}", at % distinct)).collect();
            let path = Path::plain("a");
            let vectors = Vector::read_columns(rows.iter().map(|row| row.as_bytes()), rows.len(), &[&path]);
            for at in 0..700 {
                let cell = match &vectors[0] {
                    Vector::Coded { codes, cells } => cells[usize::from(codes[at])].clone(),
                    Vector::Integers { cells, present, .. } if present.has(at) => cells[at].into(),
                    other => panic!("{other:?}"),
                };
                prop_assert_eq!(cell, CborValue::from((at % distinct) as u64));
            }
        }

        #[test]
        fn integers_of_json_are_those_that_the_parser_reads(text in "-?[0-9]{1,20}|-|1e5|-0|1\\.0|x") {
            prop_assert_eq!(integer(text.as_bytes()), text.parse().ok());
        }
    }
}
