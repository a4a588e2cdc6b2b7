//! The request for the next page of a list, from the answer with the last one. Pure.

use std::collections::HashSet;

use http::HeaderMap;
use xxhash_rust::xxh3::xxh3_128;

use super::paging::{HttpPages, PageParameter, Paging, StatedTotal};
use super::{detect, pointer, signs};
use diorama_core::record::{CborValue, value_to_json};

/// Request for a page.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum PageRequest {
    /// As configured.
    First,
    /// A URL, perhaps relative.
    Url(String),
    /// The first request with a parameter.
    With(PageParameter, CborValue),
}

/// A page that has been read.
pub(super) struct Page<'p> {
    pub(super) headers: &'p HeaderMap,
    pub(super) document: &'p CborValue,
    /// Number of rows on the page.
    pub(super) rows: usize,
    /// Ids of the first and the last row.
    pub(super) ends: Option<(String, String)>,
}

/// Reason why a list cannot be continued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PageError {
    /// The rows have moved. The list has to be read again from its beginning.
    Moved,
    /// The page is the one before again: the rows have moved by a page, or the API does not take the parameter as it was sent.
    Repeated(String),
    /// The answer contradicts the configuration.
    Wrong(String),
}

/// Position in a list.
#[derive(Debug)]
pub(super) struct Pager<'p> {
    pages: &'p HttpPages,
    /// True for a list of changes, whose rows are fewer than those that the API counts.
    lists_changes: bool,
    /// Hashes of the requests, because an API that repeats a page would never end.
    requests: HashSet<u128>,
    /// Number of pages read.
    count: usize,
    /// Number of rows read, without those that were read twice.
    rows: u64,
    /// Ids of the first and the last row of the last page that had rows.
    ends: Option<(String, String)>,
    /// Smallest stated number of all rows.
    total: Option<u64>,
    /// True once a page has had the flag that is false on the last one.
    has_flag: bool,
    /// Number of rows on the first page.
    size: u64,
    /// Number that the last page has stated of itself.
    number: Option<u64>,
}

impl<'p> Pager<'p> {
    /// Pager of a list of all rows, or of those that have changed.
    pub(super) fn new(pages: &'p HttpPages, lists_changes: bool) -> Pager<'p> {
        Pager {
            pages,
            lists_changes,
            requests: HashSet::new(),
            count: 0,
            rows: 0,
            ends: None,
            total: None,
            has_flag: false,
            size: 0,
            number: None,
        }
    }

    /// Number of pages read.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Smallest number of all rows that the API has stated.
    pub(super) fn total(&self) -> Option<u64> {
        self.total
    }

    /// Returns the request for the page after `page`; `None` if it is the last one.
    pub(super) fn next(&mut self, page: &Page<'_>) -> Result<Option<PageRequest>, PageError> {
        let is_again = page.ends.is_some() && page.ends == self.ends;
        let repeated = self.overlap(page, is_again)?;
        if self.count == 0 {
            self.size = page.rows as u64;
        }
        self.count += 1;
        self.rows += (page.rows - repeated) as u64;
        let total = self.pages.total.as_ref().and_then(|total| stated(total, page));
        self.total = [self.total, total].into_iter().flatten().min();
        let is_new = page.rows > repeated && !is_again;
        self.ends = page.ends.clone().or(self.ends.take());
        self.check_statements(page)?;
        if is_again && !is_new {
            self.check_repeated(page, repeated)?;
        }
        let next = self.following(page, is_new)?;
        let Some(next) = next else {
            let detail = signs::contradiction(&self.pages.paging, page, self.lists_changes);
            return detail.filter(|_| self.count == 1).map_or(Ok(None), |detail| Err(PageError::Wrong(detail)));
        };
        if self.count >= self.pages.most {
            let most = self.pages.most;
            return Err(PageError::Wrong(format!("the list has more than {most} pages (page.max)")));
        }
        let hash = match &next {
            PageRequest::Url(url) => xxh3_128(url.as_bytes()),
            PageRequest::With(_, value) => xxh3_128(&value_to_json(value)),
            PageRequest::First => 0,
        };
        match self.requests.insert(hash) {
            true => Ok(Some(next)),
            false => Err(PageError::Wrong(format!("the API names the same next page twice: {}", shown(&next)))),
        }
    }

    /// Number of rows of `page` that the page before had already.
    fn overlap(&self, page: &Page<'_>, is_again: bool) -> Result<usize, PageError> {
        let (Paging::Offset { parameter, overlap: true }, Some((_, last))) = (&self.pages.paging, &self.ends) else {
            return Ok(0);
        };
        match &page.ends {
            Some((first, _)) if first == last => Ok(1),
            _ if is_again => {
                let offset = self.rows.saturating_sub(1);
                Err(PageError::Repeated(format!(
                    "the page with {parameter} = {offset} is the page before again: the API has another parameter for it (page.offset), or \
                     takes only multiples of the page size (page.overlap = false)"
                )))
            }
            _ => Err(PageError::Moved),
        }
    }

    /// Checks what the page states about the list.
    fn check_statements(&mut self, page: &Page<'_>) -> Result<(), PageError> {
        if let Some(StatedTotal::Body(at)) = &self.pages.total
            && self.count == 1
            && page.rows > 0
            && pointer::get(page.document, at).is_none()
        {
            return Err(PageError::Wrong(format!("the answer has no number at {at:?} (page.total)")));
        }
        let Paging::PageNumber { parameter, first, .. } = &self.pages.paging else { return Ok(()) };
        let number = detect::page_number(page.document);
        let before = std::mem::replace(&mut self.number, number);
        match before.zip(number) {
            // The first page is requested without a number.
            Some((before, number)) if self.count == 2 && number.checked_sub(before) == Some(2) => {
                Err(PageError::Wrong(format!(
                    "the page with {parameter} = {} has number {number}, after {before}: set page.first = {}",
                    first.saturating_add(1),
                    first.saturating_sub(1)
                )))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a page that is the one before again, if it was to be another one: the API ignores the parameter. Some APIs answer a
    /// number beyond the last page with the last page.
    fn check_repeated(&self, page: &Page<'_>, repeated: usize) -> Result<(), PageError> {
        let (parameter, key, pages) = match &self.pages.paging {
            Paging::PageNumber { parameter, pages, .. } => (parameter, "page_number", pages.as_ref()),
            Paging::Offset { parameter, .. } if repeated == 0 => (parameter, "offset", None),
            _ => return Ok(()),
        };
        let is_numbered = pages.is_some_and(|at| pointer::get(page.document, at).and_then(number).is_some());
        let is_full = self.pages.size.as_ref().is_some_and(|(_, size)| page.rows as u64 >= *size);
        let shows_more = || signs::further_page(page, self.lists_changes).is_some();
        match is_numbered || self.count == 2 && (is_full || shows_more()) {
            true => Err(PageError::Repeated(format!(
                "page {} is the page before again: the API has another parameter for it than {parameter} (page.{key})",
                self.count
            ))),
            false => Ok(()),
        }
    }

    fn following(&mut self, page: &Page<'_>, is_new: bool) -> Result<Option<PageRequest>, PageError> {
        let get = |at: &str| pointer::get(page.document, at);
        Ok(match &self.pages.paging {
            Paging::None => None,
            Paging::Detected => detect::next(page, self.count == 1).map_err(PageError::Wrong)?.map(PageRequest::Url),
            Paging::HeaderLink(rel) => detect::header_link(page.headers, rel).map(PageRequest::Url),
            Paging::JsonLink(at) => link(get(at), at)?.map(PageRequest::Url),
            Paging::Cursor { at, parameter, more } => self.after_cursor(page, at, parameter, more.as_deref())?,
            Paging::HeaderCursor { header, parameter } => {
                let cursor = page.headers.get(header).and_then(|cursor| cursor.to_str().ok()).map(str::trim);
                let cursor = cursor.filter(|cursor| !cursor.is_empty());
                cursor.map(|cursor| PageRequest::With(parameter.clone(), header_cursor(cursor, parameter)))
            }
            Paging::PageNumber { parameter, first, pages } => {
                let pages = pages.as_ref().and_then(|at| number(get(at)?));
                let is_last = match pages {
                    Some(pages) => self.count as u64 >= pages,
                    None => !is_new || self.is_complete(),
                };
                let number = first.saturating_add(self.count as u64);
                (!is_last).then(|| PageRequest::With(parameter.clone(), number.into()))
            }
            Paging::Offset { parameter, overlap } => {
                let is_last = !is_new || self.is_complete();
                let offset = match overlap {
                    true => self.rows.saturating_sub(1),
                    // A multiple of the page size also behind a short page.
                    false => self.size.saturating_mul(self.count as u64),
                };
                (!is_last).then(|| PageRequest::With(parameter.clone(), offset.into()))
            }
        })
    }

    fn after_cursor(
        &mut self,
        page: &Page<'_>,
        at: &str,
        parameter: &PageParameter,
        more: Option<&str>,
    ) -> Result<Option<PageRequest>, PageError> {
        let cursor = match pointer::get(page.document, at) {
            Some(value) => cursor(value, parameter)
                .map_err(|problem| PageError::Wrong(format!("the value at {at:?} {problem} (page.cursor)")))?,
            None => None,
        };
        let flag = match more {
            Some(more) => flag(pointer::get(page.document, more), more)?,
            None => None,
        };
        self.has_flag |= flag.is_some();
        let is_unflagged = more.is_some() && flag.is_none();
        match (flag, cursor) {
            (Some(false), _) | (_, None) if flag != Some(true) => Ok(None),
            (_, None) => Err(PageError::Wrong(format!(
                "the answer says that there is more, but has no cursor at {at:?} (page.cursor)"
            ))),
            // An API may leave the flag out on the last page, but not on each.
            (_, Some(_)) if is_unflagged && (self.has_flag || page.rows == 0) => Ok(None),
            (_, Some(_)) if is_unflagged => {
                let more = more.unwrap_or_default();
                Err(PageError::Wrong(format!(
                    "the answer has no flag at {more:?} (page.more): without page.more the list ends where there is no cursor"
                )))
            }
            (_, Some(cursor)) => Ok(Some(PageRequest::With(parameter.clone(), cursor))),
        }
    }

    /// Returns true if as many rows have been read as the API has stated.
    fn is_complete(&self) -> bool {
        self.total.is_some_and(|total| self.rows >= total)
    }
}

/// Returns a request for people.
fn shown(request: &PageRequest) -> String {
    match request {
        PageRequest::First => "the first".to_string(),
        PageRequest::Url(url) => url.clone(),
        PageRequest::With(parameter, value) => format!("{parameter} = {}", text(value)),
    }
}

/// Returns a value of a parameter as the query has it.
pub(super) fn text(value: &CborValue) -> String {
    match value {
        CborValue::Text(text) => text.clone(),
        value => String::from_utf8_lossy(&value_to_json(value)).into_owned(),
    }
}

/// Returns the URL of the next page, the value at `at`; `None` if there is none.
fn link(value: Option<&CborValue>, at: &str) -> Result<Option<String>, PageError> {
    match value {
        None | Some(CborValue::Null | CborValue::Bool(false)) => Ok(None),
        Some(CborValue::Text(url)) => Ok(Some(url.clone()).filter(|url| !url.is_empty())),
        Some(_) => Err(PageError::Wrong(format!("the value at {at:?} is not a URL (page.json_link)"))),
    }
}

/// Returns the cursor in an answer, with its type; `None` if the value says that there is none. A body takes any value, as of APIs
/// that continue after the values of a row.
fn cursor(value: &CborValue, parameter: &PageParameter) -> Result<Option<CborValue>, &'static str> {
    let is_empty = match value {
        CborValue::Null | CborValue::Bool(false) => true,
        CborValue::Text(text) => text.is_empty(),
        CborValue::Array(items) => items.is_empty(),
        CborValue::Map(members) => members.is_empty(),
        _ => false,
    };
    match (value, parameter) {
        _ if is_empty => Ok(None),
        (CborValue::Bool(_), _) => Err("is not a cursor"),
        (CborValue::Array(_) | CborValue::Map(_), PageParameter::Query(_)) => {
            Err("is an array or object, which only a body can have: page.param must begin with /")
        }
        _ => Ok(Some(value.clone())),
    }
}

/// Returns the cursor in a header, which is a number in a body if it can be one.
fn header_cursor(text: &str, parameter: &PageParameter) -> CborValue {
    let number = text.parse::<u64>().ok().filter(|number| number.to_string() == text);
    match (parameter, number) {
        (PageParameter::Body(_), Some(number)) => number.into(),
        _ => text.into(),
    }
}

/// Returns the flag that is false on the last page; `None` if it is missing.
pub(super) fn flag(value: Option<&CborValue>, at: &str) -> Result<Option<bool>, PageError> {
    Ok(Some(match value {
        None => return Ok(None),
        Some(CborValue::Bool(flag)) => *flag,
        Some(CborValue::Null) => false,
        Some(CborValue::Integer(number)) => i128::from(*number) != 0,
        Some(CborValue::Text(text)) if text.eq_ignore_ascii_case("true") => true,
        Some(CborValue::Text(text)) if text.is_empty() || text.eq_ignore_ascii_case("false") => false,
        Some(_) => {
            return Err(PageError::Wrong(format!("the value at {at:?} is neither true nor false (page.more)")));
        }
    }))
}

fn stated(total: &StatedTotal, page: &Page<'_>) -> Option<u64> {
    match total {
        StatedTotal::Body(at) => number(pointer::get(page.document, at)?),
        StatedTotal::Header(name) => page.headers.get(name)?.to_str().ok()?.trim().parse().ok(),
    }
}

fn number(value: &CborValue) -> Option<u64> {
    match value {
        CborValue::Integer(number) => u64::try_from(*number).ok(),
        CborValue::Text(text) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
