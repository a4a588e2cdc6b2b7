//! One pass over a list: the pages as they arrive, and the list that they make.

use std::collections::HashSet;

use http::header::{HeaderName, HeaderValue};
use xxhash_rust::xxh3::Xxh3;

use super::client::{Reply, shown};
use super::list::validators_of;
use super::pager::{Page, PageError, PageRequest, Pager};
use super::pointer;
use super::row::{document, encode, rows_at};
use super::since::ChangeTime;
use super::source::Inner;
use crate::file::source::DecodedRows;
use diorama_core::record::{CborValue, Rows};
use diorama_core::vista::{Error, Result};

/// A whole list.
pub(super) struct Pass {
    pub(super) rows: Rows,
    /// Number of pages.
    pub(super) pages: usize,
    /// Hash of the ids in their order.
    pub(super) ids: u128,
    /// Validators of the first page.
    pub(super) validators: Vec<(HeaderName, HeaderValue)>,
    /// Newest time of a change, if changes are listed by time.
    pub(super) newest: Option<ChangeTime>,
}

/// A list whose pages are being read.
pub(super) struct ArrivingList<'i> {
    inner: &'i Inner,
    place: String,
    lists_changes: bool,
    pager: Pager<'i>,
    rows: Rows,
    decoded: DecodedRows,
    /// Validators of the first page, once it is there.
    validators: Option<Vec<(HeaderName, HeaderValue)>>,
    newest: Option<ChangeTime>,
}

impl<'i> ArrivingList<'i> {
    /// List of all rows, or of those that have changed.
    pub(super) fn new(inner: &'i Inner, lists_changes: bool) -> ArrivingList<'i> {
        ArrivingList {
            inner,
            place: shown(&inner.url),
            lists_changes,
            pager: Pager::new(&inner.options.pages, lists_changes),
            rows: Rows::with_layout(inner.schema.layout().clone()),
            decoded: DecodedRows::default(),
            validators: None,
            newest: None,
        }
    }

    /// Adds the next page, and returns the request for the one after it.
    pub(super) fn add_page(&mut self, reply: &Reply) -> Result<Option<PageRequest>, PassError> {
        self.validators.get_or_insert_with(|| validators_of(&reply.headers));
        if reply.is_nothing {
            return Ok(None);
        }
        let (inner, place) = (self.inner, &self.place);
        let document = document(&reply.body, place)?;
        let items = rows_at(&document, &inner.rows_at, place)?;
        let ends = inner.ends(items);
        let page = Page { headers: &reply.headers, document: &document, rows: items.len(), ends };
        let next = self.pager.next(&page).map_err(|error| PassError::of(error, place))?;
        let items = pointer::take(document, &inner.rows_at).and_then(|items| items.into_array().ok());
        let items = items.unwrap_or_default();
        self.newest = self.newest.take().max(inner.newest(&items));
        self.add_rows(items)?;
        Ok(next)
    }

    fn add_rows(&mut self, items: Vec<CborValue>) -> Result<()> {
        let (inner, place) = (self.inner, &self.place);
        let mut page = HashSet::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            match inner.row_shape.record(item).and_then(|record| encode(&record, &inner.schema)) {
                Ok((id, body)) => {
                    self.decoded.good();
                    if !page.insert(id.clone()) {
                        return Err(Error::permanent(format!(
                            "{place} has id {id:?} twice on one page: set id in source"
                        )));
                    }
                    self.rows.push_body(&id, &body);
                }
                Err(problem) => {
                    let problem = format!("row {at} of a page of {place} {problem}");
                    self.rows.skip(problem.as_str());
                    self.decoded.bad(Error::permanent(problem));
                }
            }
        }
        Ok(())
    }

    /// Returns the list after its last page.
    pub(super) fn finish(self) -> Result<Pass, PassError> {
        let ArrivingList { place, lists_changes, pager, rows, decoded, validators, newest, .. } = self;
        decoded.check()?;
        let total = pager.total().filter(|_| !lists_changes && rows.undecodable().is_none());
        if let Some(total) = total.filter(|total| (rows.len() as u64) < *total) {
            let count = rows.len();
            return Err(
                Error::transient(format!("{place} has listed {count} rows, but says that there are {total}")).into()
            );
        }
        let mut ids = Xxh3::new();
        for id in rows.ids() {
            ids.update(id.as_bytes());
            ids.update(&[0]);
        }
        let validators = validators.unwrap_or_default();
        Ok(Pass { pages: pager.count(), ids: ids.digest128(), rows, validators, newest })
    }
}

/// Reason why a pass over a list has ended early.
pub(super) enum PassError {
    /// The rows have moved while they were read.
    Moved,
    /// A page was the one before again.
    Repeated(String),
    Failed(Error),
}

impl PassError {
    fn of(error: PageError, place: &str) -> PassError {
        match error {
            PageError::Moved => PassError::Moved,
            PageError::Repeated(detail) => PassError::Repeated(detail),
            PageError::Wrong(detail) => PassError::Failed(Error::permanent(format!("{place}: {detail}"))),
        }
    }
}

impl From<Error> for PassError {
    fn from(error: Error) -> PassError {
        PassError::Failed(error)
    }
}
