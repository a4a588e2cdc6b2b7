//! Cuts pages out of lists.

use super::params::Params;
use super::request::Request;
use super::store::Row;

/// One page by its number.
#[derive(Debug)]
pub(super) struct Numbered<'a> {
    pub(super) rows: Vec<&'a Row>,
    pub(super) number: usize,
    /// Number of the last page, at least one.
    pub(super) last: usize,
    pub(super) total: usize,
}

impl<'a> Numbered<'a> {
    pub(super) fn cut(rows: Vec<&'a Row>, number: usize, size: usize) -> Numbered<'a> {
        let (number, size, total) = (number.max(1), size.max(1), rows.len());
        let start = (number - 1).saturating_mul(size);
        let rows = rows.into_iter().skip(start).take(size).collect();
        Numbered { rows, number, last: total.div_ceil(size).max(1), total }
    }

    pub(super) fn next(&self) -> Option<usize> {
        (self.number < self.last).then_some(self.number + 1)
    }

    pub(super) fn previous(&self) -> Option<usize> {
        (self.number > 1).then_some(self.number - 1)
    }

    /// Value of a `Link` header; none if there is only one page.
    pub(super) fn links(&self, request: &Request, query: &Params, with_last: bool) -> Option<String> {
        let last = with_last.then_some(self.last);
        let first = (self.number > 1).then_some(1);
        let last = last.filter(|_| self.number < self.last);
        let links = [("prev", self.previous()), ("next", self.next()), ("last", last), ("first", first)];
        let link = |(relation, page): (&str, Option<usize>)| {
            Some(format!("<{}>; rel=\"{relation}\"", request.url_with(&query.with("page", page?))))
        };
        let links: Vec<_> = links.into_iter().filter_map(link).collect();
        (!links.is_empty()).then(|| links.join(", "))
    }
}

/// Takes a page from the front, and says whether there is more.
pub(super) fn take<'a>(rows: impl Iterator<Item = &'a Row>, size: usize) -> (Vec<&'a Row>, bool) {
    let mut rows: Vec<_> = rows.take(size + 1).collect();
    let more = rows.len() > size;
    rows.truncate(size);
    (rows, more)
}
