//! Ordered sets of encoded rows, as listed by sources and stored by caches.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use super::body::Body;
use super::body_ref::{BodyRef, EncodedRow, to_owned};
use super::known::{Baseline, KnownRows};
use super::pack::{Pack, PackedRows};
use super::{CborValue, Id, Layout, Record};

/// Rows in their source's order, by id. Rows are kept encoded and packed, in the form in which a table takes them over, so that a
/// first list is in memory once. A list that is compared with known rows while it is read keeps only those that differ.
///
/// Iterates as `(String, Record)`, decoding one row at a time. Rows that `dio.master()` listed carry a [`Stamp`] with the time of
/// reading for the cache.
///
/// The serde form is a list of `{"id":"7","record":{..}}`, in order, with records in the form of [`Record`]; a duplicate id is an
/// error. Stamps and layouts are not serialized.
#[derive(Clone, Default)]
pub struct Rows {
    items: PackedRows,
    /// Rows that are equal to known ones, and the order of all; `None` if all rows are in `items`, in order.
    known: Option<Box<KnownRows>>,
    layout: Option<Arc<Layout>>,
    stamp: Option<Stamp>,
    undecodable: Option<Undecodable>,
    /// Text by which the source recognizes this list.
    fingerprint: Option<Arc<str>>,
    /// Place from which the source can tell what has changed after this list.
    since: Option<Arc<str>>,
}

/// Rows of a source that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Undecodable {
    /// Number of these rows.
    pub count: u64,
    /// Error of the first one.
    pub first: String,
}

/// Time at which a master was read: no change at or before `mark` is newer than these rows.
#[derive(Clone)]
pub struct Stamp {
    /// Position of the Dio when the request was sent.
    pub mark: u64,
    /// True if this is the master's whole list.
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
    /// Creates an empty set.
    pub fn new() -> Rows {
        Rows::default()
    }

    /// Creates an empty set whose rows are encoded under `layout`.
    pub fn with_layout(layout: Arc<Layout>) -> Rows {
        Rows { layout: Some(layout), ..Rows::default() }
    }

    /// Returns this empty set if its rows are encoded under `layout`, else a new one for rows of `layout`.
    #[must_use]
    pub fn fit_for(self, layout: &Arc<Layout>) -> Rows {
        let fits = self.layout.as_ref().is_some_and(|own| Arc::ptr_eq(own, layout) || own == layout);
        if fits { self } else { Rows::with_layout(Arc::clone(layout)) }
    }

    /// Adds a row at the end. If the id exists already, replaces its row in place and returns `false`, so that drivers can report
    /// duplicates.
    pub fn push(&mut self, id: impl Into<Id>, record: &Record) -> bool {
        let id = id.into();
        let body = match &self.layout {
            Some(layout) => Body::encode(&id, record, layout),
            None => Body::encode_plain(record, &Layout::new("", false, record.columns())),
        };
        self.push_body(&id, &body)
    }

    /// [`Rows::push`] for a row that is already encoded under this set's layout.
    pub fn push_body<'b>(&mut self, id: &str, body: impl Into<BodyRef<'b>>) -> bool {
        let body = body.into();
        let Some(known) = &mut self.known else { return self.items.push(id, body) };
        if let Some(is_new) = known.push(&self.items, id, body) {
            return is_new;
        }
        if known.lists(id) {
            // Only rows that are all of one kind can be replaced in place.
            self.forget_known();
            return self.items.push(id, body);
        }
        let is_new = self.items.push(id, body);
        if is_new {
            known.push_own(self.items.len() - 1);
        }
        is_new
    }

    /// Records that the source has a row that cannot be decoded, with the error. A list with such rows does not delete any row.
    pub fn skip(&mut self, detail: impl Into<String>) {
        match &mut self.undecodable {
            Some(bad) => bad.count += 1,
            None => self.undecodable = Some(Undecodable { count: 1, first: detail.into() }),
        }
    }

    /// Rows of the source that could not be decoded, `None` if there are none.
    pub fn undecodable(&self) -> Option<&Undecodable> {
        self.undecodable.as_ref()
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.known.as_ref().map_or_else(|| self.items.len(), |known| known.len())
    }

    /// True if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if there is a row with this id.
    pub fn contains(&self, id: &str) -> bool {
        self.items.find(id).is_some() || self.known.as_ref().is_some_and(|known| known.lists(id))
    }

    /// The row with this id, decoded.
    pub fn get(&self, id: &str) -> Option<Record> {
        self.body(id).and_then(|body| body.decode().ok())
    }

    /// The row with this id, encoded.
    pub fn body(&self, id: &str) -> Option<BodyRef<'_>> {
        let own = self.items.find(id).map(|at| self.items.row(at).1);
        own.or_else(|| self.known.as_ref()?.body(id))
    }

    /// Ids in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.bodies().map(|(id, _)| id)
    }

    /// Ids and encoded rows in order.
    pub fn bodies(&self) -> impl Iterator<Item = (&str, BodyRef<'_>)> {
        (0..self.len()).map(|at| self.row(at))
    }

    fn row(&self, at: usize) -> EncodedRow<'_> {
        self.known.as_ref().map_or_else(|| self.items.row(at), |known| known.row(&self.items, at))
    }

    /// Iterates over rows in order, decoding each when it is reached. Rows that cannot be decoded are skipped.
    pub fn iter(&self) -> RowsIter<'_> {
        RowsIter { rows: self, at: 0 }
    }

    /// Layout of the encoded rows, if one was set.
    pub fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref()
    }

    /// Time at which these rows were read, if a Dio's master listed them.
    pub fn stamp(&self) -> Option<&Stamp> {
        self.stamp.as_ref()
    }

    /// Sets the text by which the source recognizes this list; see
    /// [`TableShell::list_changed`](crate::vista::TableShell::list_changed).
    #[must_use]
    pub fn with_fingerprint(mut self, fingerprint: Option<String>) -> Rows {
        self.fingerprint = fingerprint.map(Arc::from);
        self
    }

    /// Text by which the source recognizes this list, if it can.
    pub fn fingerprint(&self) -> Option<&Arc<str>> {
        self.fingerprint.as_ref()
    }

    /// Sets the place from which the source can tell what has changed after this list; see
    /// [`TableShell::list_since`](crate::vista::TableShell::list_since).
    #[must_use]
    pub fn with_since(mut self, since: Option<String>) -> Rows {
        self.since = since.map(Arc::from);
        self
    }

    /// Place from which the source can tell what has changed after this list, if it can.
    pub fn since(&self) -> Option<&Arc<str>> {
        self.since.as_ref()
    }

    pub(crate) fn stamped(mut self, stamp: Stamp) -> Rows {
        self.stamp = Some(stamp);
        self
    }

    /// Adds the rows of `other`, which must be encoded under this set's layout, and its record of undecodable rows.
    pub(crate) fn absorb(&mut self, other: Rows) {
        for (id, body) in other.bodies() {
            self.push_body(id, body);
        }
        match (&mut self.undecodable, other.undecodable) {
            (Some(bad), Some(more)) => bad.count += more.count,
            (own, more @ Some(_)) => *own = more,
            (_, None) => {}
        }
    }

    /// Converts the rows to `layout`; re-encodes them unless they already have it.
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
    /// Removes the rows for which `problem` returns an error, and records them as undecodable.
    pub(crate) fn without(self, problem: impl Fn(&str, BodyRef<'_>) -> Option<String>) -> Rows {
        if self.bodies().all(|(id, body)| problem(id, body).is_none()) {
            return self;
        }
        let mut rows = self.emptied();
        for (id, body) in self.bodies() {
            match problem(id, body) {
                Some(detail) => rows.skip(detail),
                None => drop(rows.push_body(id, body)),
            }
        }
        rows
    }

    /// An empty set with the layout, the stamp and the undecodable rows of this one.
    fn emptied(&self) -> Rows {
        let (layout, stamp, undecodable) = (self.layout.clone(), self.stamp.clone(), self.undecodable.clone());
        Rows { layout, stamp, undecodable, ..Rows::default() }
    }
}

impl Rows {
    /// Replaces bodies by those that `map` returns; `None` keeps a body.
    pub(crate) fn map_bodies(self, map: impl Fn(&str, BodyRef<'_>) -> Option<Body>) -> Rows {
        let mut rows = self.emptied();
        for (id, body) in self.bodies() {
            match map(id, body) {
                Some(mapped) => rows.push_body(id, &mapped),
                None => rows.push_body(id, body),
            };
        }
        rows
    }
}

impl Rows {
    /// Compares the rows that are pushed from now on with those of `baseline`, and keeps only those that differ. There must be none
    /// yet.
    #[must_use]
    pub(crate) fn compared_with(mut self, baseline: Arc<dyn Baseline>) -> Rows {
        self.known = Some(Box::new(KnownRows::new(baseline)));
        self
    }

    /// Copies the rows that are equal to known ones.
    fn forget_known(&mut self) {
        if self.known.is_some() {
            let mut items = PackedRows::default();
            for (id, body) in self.bodies() {
                items.push(id, body);
            }
            (self.items, self.known) = (items, None);
        }
    }

    /// Takes the rows out in packs, for a table that is made of them.
    pub(crate) fn take_packs(&mut self) -> impl Iterator<Item = Pack> + use<> {
        self.forget_known();
        std::mem::take(&mut self.items).into_packs()
    }

    /// Refers to the first `count` rows of `baseline` in place of rows that were taken.
    pub(crate) fn refer_to(&mut self, baseline: Arc<dyn Baseline>, count: usize) {
        self.known = Some(Box::new(KnownRows::first_of(baseline, count)));
    }

    /// Ids and encoded rows in order, copied.
    pub(crate) fn to_bodies(&self) -> impl Iterator<Item = (Id, Body)> {
        self.bodies().map(to_owned)
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (id, body) in self.bodies() {
            map.entry(&id, &String::from_utf8_lossy(body.json()));
        }
        map.finish()
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
            let (id, body) = (self.at < self.rows.len()).then(|| self.rows.row(self.at))?;
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
    /// Compares ids, values and order; stamps are ignored.
    fn eq(&self, other: &Rows) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

/// The id that a cell holds; `None` for empty text, null, floats, booleans, bytes and structures.
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
