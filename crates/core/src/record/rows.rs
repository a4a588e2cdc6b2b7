//! An ordered set of encoded rows: what a source lists and a cache takes.

use std::any::Any;
use std::sync::Arc;

use indexmap::IndexMap;

use super::body::Body;
use super::{CborValue, Id, Layout, Record};

/// Rows in their source's order, by id. Encoded: a million rows cost their bytes, not a million maps.
///
/// Iterates as `(String, Record)`, decoding one row at a time. Rows that `dio.master()` listed carry a [`Stamp`], so that the
/// cache knows when they were read.
///
/// With serde it is a list of `{"id":"7","record":{..}}`, in order, with records as [`Record`] says; an id that stands twice is
/// an error. Stamps and layouts are not written.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    items: IndexMap<Id, Body>,
    layout: Option<Arc<Layout>>,
    stamp: Option<Stamp>,
    undecodable: Option<Undecodable>,
}

/// Rows of a source that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Undecodable {
    /// How many.
    pub count: u64,
    /// What is wrong with the first.
    pub first: String,
}

/// When a master was read: nothing at or before `mark` can be newer than these rows.
#[derive(Clone)]
pub struct Stamp {
    /// Position of the Dio when the request was sent.
    pub mark: u64,
    /// Whether this is the master's whole list.
    pub complete: bool,
    /// Keeps the mark alive until the rows are dropped.
    pub(crate) _guard: Arc<dyn Any + Send + Sync>,
}

impl std::fmt::Debug for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stamp").field("mark", &self.mark).field("complete", &self.complete).finish_non_exhaustive()
    }
}

impl Rows {
    /// No rows.
    pub fn new() -> Rows {
        Rows::default()
    }

    /// No rows yet; those pushed are encoded under `layout`.
    pub fn with_layout(layout: Arc<Layout>) -> Rows {
        Rows { layout: Some(layout), ..Rows::default() }
    }

    /// Adds a row at the end. A row whose id is already there replaces it in place and `false` is returned: drivers use that
    /// to report duplicates.
    pub fn push(&mut self, id: impl Into<Id>, record: &Record) -> bool {
        let id = id.into();
        let body = match &self.layout {
            Some(layout) => Body::encode(&id, record, layout),
            None => Body::encode_plain(record, &Layout::new("", false, record.columns())),
        };
        self.push_body(id, body)
    }

    /// [`Rows::push`] for a row that is already encoded under this set's layout.
    pub fn push_body(&mut self, id: Id, body: Body) -> bool {
        self.items.insert(id, body).is_none()
    }

    /// Notes a row that is there and cannot be decoded, with what is wrong with it. A list with such rows says of no row that it
    /// is gone.
    pub fn skip(&mut self, detail: impl Into<String>) {
        match &mut self.undecodable {
            Some(bad) => bad.count += 1,
            None => self.undecodable = Some(Undecodable { count: 1, first: detail.into() }),
        }
    }

    /// Rows that are there and could not be decoded.
    pub fn undecodable(&self) -> Option<&Undecodable> {
        self.undecodable.as_ref()
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether `id` is among them.
    pub fn contains(&self, id: &str) -> bool {
        self.items.contains_key(id)
    }

    /// One row, decoded.
    pub fn get(&self, id: &str) -> Option<Record> {
        self.body(id).and_then(|body| body.decode().ok())
    }

    /// One row's bytes.
    pub fn body(&self, id: &str) -> Option<&Body> {
        self.items.get(id)
    }

    /// Ids in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.items.keys().map(|id| &**id)
    }

    /// Ids and encoded rows in order.
    pub fn bodies(&self) -> impl Iterator<Item = (&Id, &Body)> {
        self.items.iter()
    }

    /// Rows in order, each decoded as it is reached.
    pub fn iter(&self) -> RowsIter<'_> {
        RowsIter { rows: self, at: 0 }
    }

    /// The layout the rows were encoded under.
    pub fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref()
    }

    /// When these rows were read, if a Dio's master listed them.
    pub fn stamp(&self) -> Option<&Stamp> {
        self.stamp.as_ref()
    }

    pub(crate) fn stamped(mut self, stamp: Stamp) -> Rows {
        self.stamp = Some(stamp);
        self
    }

    /// Adds `other`, which is encoded under this set's layout, with what of it could not be decoded.
    pub(crate) fn absorb(&mut self, other: Rows) {
        let Rows { items, undecodable, .. } = other;
        for (id, body) in items {
            self.push_body(id, body);
        }
        match (&mut self.undecodable, undecodable) {
            (Some(bad), Some(more)) => bad.count += more.count,
            (own, more @ Some(_)) => *own = more,
            (_, None) => {}
        }
    }

    /// The same rows under `layout`, encoded anew unless they already are.
    pub(crate) fn under(self, layout: &Arc<Layout>) -> Rows {
        if self.layout.as_ref().is_some_and(|own| Arc::ptr_eq(own, layout) || own == layout) {
            return self;
        }
        let (stamp, undecodable) = (self.stamp.clone(), self.undecodable.clone());
        let mut rows = Rows { stamp, undecodable, ..Rows::with_layout(Arc::clone(layout)) };
        for (id, record) in &self {
            rows.push(id, &record);
        }
        rows
    }
}

impl Rows {
    /// The rows for which `fits` has nothing to say; of the others it is noted.
    pub(crate) fn without(self, fits: impl Fn(&Id, &Body) -> Option<String>) -> Rows {
        if self.bodies().all(|(id, body)| fits(id, body).is_none()) {
            return self;
        }
        let Rows { items, layout, stamp, undecodable, .. } = self;
        let mut rows = Rows { layout, stamp, undecodable, ..Rows::default() };
        for (id, body) in items {
            match fits(&id, &body) {
                Some(detail) => rows.skip(detail),
                None => drop(rows.push_body(id, body)),
            }
        }
        rows
    }
}

impl Rows {
    /// The same rows with the bodies that `map` gives.
    pub(crate) fn map_bodies(mut self, map: impl Fn(&str, &Body) -> Option<Body>) -> Rows {
        for (id, body) in &mut self.items {
            if let Some(mapped) = map(id, body) {
                *body = mapped;
            }
        }
        self
    }
}

impl FromIterator<(String, Record)> for Rows {
    fn from_iter<I: IntoIterator<Item = (String, Record)>>(iter: I) -> Self {
        let mut rows = Rows::new();
        for (id, record) in iter {
            rows.push(id, &record);
        }
        rows
    }
}

impl<'a> IntoIterator for &'a Rows {
    type Item = (String, Record);
    type IntoIter = RowsIter<'a>;

    fn into_iter(self) -> RowsIter<'a> {
        self.iter()
    }
}

impl IntoIterator for Rows {
    type Item = (String, Record);
    type IntoIter = std::vec::IntoIter<(String, Record)>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter().collect::<Vec<_>>().into_iter()
    }
}

/// Iterator over decoded rows.
#[derive(Debug)]
pub struct RowsIter<'a> {
    rows: &'a Rows,
    at: usize,
}

impl Iterator for RowsIter<'_> {
    type Item = (String, Record);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (id, body) = self.rows.items.get_index(self.at)?;
            self.at += 1;
            if let Ok(record) = body.decode() {
                return Some((id.to_string(), record));
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.rows.len() - self.at))
    }
}

impl PartialEq for Rows {
    /// Same ids with the same values in the same order; stamps do not count.
    fn eq(&self, other: &Rows) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

/// The id that a cell can serve as, `None` for null, floats, booleans, bytes and structures.
pub fn id_from_value(value: &CborValue) -> Option<String> {
    match value {
        CborValue::Text(text) if !text.is_empty() => Some(text.clone()),
        CborValue::Integer(number) => Some(i128::from(*number).to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_order_and_report_duplicates() {
        let mut rows = Rows::new();
        assert!(rows.push("b", &Record::from_iter([("n".into(), 1.into())])));
        assert!(rows.push("a", &Record::from_iter([("n".into(), 2.into())])));
        assert!(!rows.push("b", &Record::from_iter([("n".into(), 3.into())])));
        let listed: Vec<_> = rows.iter().collect();
        assert_eq!(listed[0], ("b".to_string(), Record::from_iter([("n".to_string(), 3.into())])));
        assert_eq!(rows.ids().collect::<Vec<_>>(), ["b", "a"]);
    }
}
