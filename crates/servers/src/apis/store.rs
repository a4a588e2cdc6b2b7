//! The rows of a double.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::answer::Answer;

/// A row, and what the server knows about it.
#[derive(Debug)]
pub(super) struct Row {
    /// Position in the order of creation; never used twice.
    pub(super) order: u64,
    pub(super) id: String,
    /// Number of changes since the creation.
    pub(super) version: u64,
    pub(super) value: Value,
}

impl Row {
    /// Text at a JSON pointer, empty if there is none.
    pub(super) fn text(&self, pointer: &str) -> &str {
        self.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
}

/// First answer to an idempotency key.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) request: (String, Vec<u8>),
    pub(super) answer: Answer,
}

/// Rows in the order of their creation.
#[derive(Debug, Default)]
pub(super) struct Store {
    rows: Vec<Row>,
    orders: HashMap<String, u64>,
    deleted: HashMap<String, u64>,
    next: u64,
    /// Cursors of an older generation are expired.
    generation: u64,
    pub(super) kept: HashMap<String, Kept>,
}

impl Store {
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Row> {
        self.rows.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// A number that no row has.
    pub(super) fn next_number(&self) -> u64 {
        self.next + 1
    }

    pub(super) fn get(&self, id: &str) -> Option<&Row> {
        self.place(id).map(|place| &self.rows[place])
    }

    pub(super) fn insert(&mut self, id: String, value: Value) {
        let order = self.next;
        self.next += 1;
        let before = self.orders.insert(id.clone(), order);
        assert!(before.is_none(), "two rows have the id {id}");
        self.rows.push(Row { order, id, version: 1, value });
    }

    pub(super) fn change(&mut self, id: &str, change: impl FnOnce(&mut Value)) -> Option<&Row> {
        let place = self.place(id)?;
        let row = &mut self.rows[place];
        change(&mut row.value);
        row.version += 1;
        Some(row)
    }

    pub(super) fn delete(&mut self, id: &str) -> Option<Row> {
        let place = self.place(id)?;
        let order = self.orders.remove(id)?;
        self.deleted.insert(id.to_owned(), order);
        Some(self.rows.remove(place))
    }

    pub(super) fn was_deleted(&self, id: &str) -> bool {
        self.deleted.contains_key(id)
    }

    /// Position of a row that is or was here.
    pub(super) fn order(&self, id: &str) -> Option<u64> {
        self.orders.get(id).or_else(|| self.deleted.get(id)).copied()
    }

    /// Opaque text of a cursor.
    pub(super) fn cursor(&self, text: &str) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}|{text}", self.generation))
    }

    /// Text in a cursor; none if it is invalid or expired.
    pub(super) fn read_cursor(&self, cursor: &str) -> Option<String> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        let (generation, text) = text.split_once('|')?;
        (generation.parse() == Ok(self.generation)).then(|| text.to_owned())
    }

    /// Position in a cursor.
    pub(super) fn read_position(&self, cursor: &str) -> Option<u64> {
        self.read_cursor(cursor)?.parse().ok()
    }

    pub(super) fn expire_cursors(&mut self) {
        self.generation += 1;
    }

    fn place(&self, id: &str) -> Option<usize> {
        let order = self.orders.get(id)?;
        self.rows.binary_search_by_key(order, |row| row.order).ok()
    }
}
