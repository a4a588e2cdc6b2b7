//! Pages of a list: the request for the next page, from the answer with the last one.
//!
//! Pure. The vocabulary is that of the paginators of dlt's `rest_api` source, which covers the public APIs.

use std::collections::HashSet;

use http::HeaderMap;
use xxhash_rust::xxh3::xxh3_128;

use super::detect;
use super::pointer;
use diorama_core::record::CborValue;

/// Place of a parameter in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageParameter {
    /// Name of a parameter of the query.
    Query(String),
    /// JSON Pointer in the body.
    Body(String),
}

impl PageParameter {
    /// Returns the place that `text` names: a JSON Pointer in the body begins with `/`.
    pub fn of(text: &str) -> PageParameter {
        match text.starts_with('/') {
            true => PageParameter::Body(text.to_string()),
            false => PageParameter::Query(text.to_string()),
        }
    }
}

/// How an API divides its list into pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Paging {
    /// By what the answers show: a `Link` header, or the next page's URL in one of the usual members. An answer that shows another
    /// division is refused, so that no list ends after its first page unnoticed.
    #[default]
    Detected,
    /// One page.
    None,
    /// The `Link` header with this relation has the URL of the next page.
    HeaderLink(String),
    /// JSON Pointer to the URL of the next page.
    JsonLink(String),
    /// JSON Pointer to the cursor of the next page.
    Cursor {
        /// JSON Pointer to the cursor.
        at: String,
        /// Parameter for it.
        parameter: PageParameter,
        /// JSON Pointer to a flag that is false on the last page.
        more: Option<String>,
    },
    /// Header with the cursor of the next page.
    HeaderCursor {
        /// Name of the header.
        header: String,
        /// Parameter for it.
        parameter: PageParameter,
    },
    /// Numbered pages.
    PageNumber {
        /// Parameter for the number.
        parameter: PageParameter,
        /// Number of the first page.
        first: u64,
        /// JSON Pointer to the number of pages.
        pages: Option<String>,
    },
    /// A number of rows to leave out. Each page begins with the last row of the page before, so that a row that is deleted
    /// meanwhile hides no other row.
    Offset {
        /// Parameter for the number.
        parameter: PageParameter,
    },
}

/// Place at which an API states the number of all rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatedTotal {
    /// JSON Pointer.
    Body(String),
    /// Name of a header.
    Header(String),
}

/// Pages of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpPages {
    /// How the list is divided.
    pub paging: Paging,
    /// Rows of a page, and the parameter for this number.
    pub size: Option<(PageParameter, u64)>,
    /// Place of the number of all rows. A list with fewer rows is refused.
    pub total: Option<StatedTotal>,
    /// True to read a list again if its ids differ from those of the last list, until no row that was read is missing the next
    /// time. `None` selects it for numbered pages and `Link` headers, where a deleted row can hide another one.
    pub check: Option<bool>,
    /// Maximum number of pages.
    pub most: usize,
}

impl Default for HttpPages {
    fn default() -> HttpPages {
        HttpPages { paging: Paging::Detected, size: None, total: None, check: None, most: 10_000 }
    }
}

impl HttpPages {
    /// Returns true if a row that is deleted while the list is read can hide another one.
    pub(super) fn is_checked(&self) -> bool {
        let by_default = matches!(self.paging, Paging::PageNumber { .. } | Paging::HeaderLink(_) | Paging::Detected);
        self.check.unwrap_or(by_default)
    }
}

/// Request for a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PageRequest {
    /// As configured.
    First,
    /// A URL, perhaps relative.
    Url(String),
    /// The first request with a parameter.
    With(PageParameter, String),
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
    /// The answer contradicts the configuration.
    Wrong(String),
}

/// Position in a list.
#[derive(Debug)]
pub(super) struct Pager<'p> {
    pages: &'p HttpPages,
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
}

impl<'p> Pager<'p> {
    pub(super) fn new(pages: &'p HttpPages) -> Pager<'p> {
        Pager { pages, requests: HashSet::new(), count: 0, rows: 0, ends: None, total: None }
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
        let repeated = self.overlap(page)?;
        self.count += 1;
        self.rows += (page.rows - repeated) as u64;
        let total = self.pages.total.as_ref().and_then(|total| stated(total, page));
        self.total = [self.total, total].into_iter().flatten().min();
        // Some APIs answer a number beyond the last page with the last page.
        let is_again = page.ends.is_some() && page.ends == self.ends;
        let is_new = page.rows > repeated && !is_again;
        self.ends = page.ends.clone().or(self.ends.take());
        let next = self.following(page, is_new)?;
        let Some(next) = next else { return Ok(None) };
        if self.count >= self.pages.most {
            let most = self.pages.most;
            return Err(PageError::Wrong(format!("the list has more than {most} pages (page.max)")));
        }
        let hash = match &next {
            PageRequest::Url(url) => xxh3_128(url.as_bytes()),
            PageRequest::With(_, value) => xxh3_128(value.as_bytes()),
            PageRequest::First => 0,
        };
        match self.requests.insert(hash) {
            true => Ok(Some(next)),
            false => Err(PageError::Wrong(format!("the API names the same next page twice: {next:?}"))),
        }
    }

    /// Number of rows of `page` that the page before had already.
    fn overlap(&self, page: &Page<'_>) -> Result<usize, PageError> {
        let (Paging::Offset { .. }, Some((_, last))) = (&self.pages.paging, &self.ends) else { return Ok(0) };
        match &page.ends {
            Some((first, _)) if first == last => Ok(1),
            _ => Err(PageError::Moved),
        }
    }

    fn following(&self, page: &Page<'_>, is_new: bool) -> Result<Option<PageRequest>, PageError> {
        let get = |at: &str| pointer::get(page.document, at);
        let link = |at: &str| get(at).and_then(CborValue::as_text).filter(|url| !url.is_empty());
        Ok(match &self.pages.paging {
            Paging::None => None,
            Paging::Detected => detect::next(page, self.count == 1).map_err(PageError::Wrong)?.map(PageRequest::Url),
            Paging::HeaderLink(rel) => detect::header_link(page.headers, rel).map(PageRequest::Url),
            Paging::JsonLink(at) => link(at).map(|url| PageRequest::Url(url.to_string())),
            Paging::Cursor { at, parameter, more } => {
                let more = more.as_ref().map(|at| get(at) == Some(&CborValue::Bool(true)));
                let cursor = get(at).and_then(pointer::text);
                match (more, cursor) {
                    (Some(false), _) | (None, None) => None,
                    (Some(true), None) => {
                        return Err(PageError::Wrong(format!(
                            "the answer says that there is more, but has no cursor at {at}"
                        )));
                    }
                    (_, Some(cursor)) => Some(PageRequest::With(parameter.clone(), cursor)),
                }
            }
            Paging::HeaderCursor { header, parameter } => {
                let cursor = page.headers.get(header).and_then(|cursor| cursor.to_str().ok()).map(str::trim);
                let cursor = cursor.filter(|cursor| !cursor.is_empty());
                cursor.map(|cursor| PageRequest::With(parameter.clone(), cursor.to_string()))
            }
            Paging::PageNumber { parameter, first, pages } => {
                let pages = pages.as_ref().and_then(|at| number(get(at)?));
                let is_last = match pages {
                    Some(pages) => self.count as u64 >= pages,
                    None => !is_new || self.is_complete(),
                };
                let number = first + self.count as u64;
                (!is_last).then(|| PageRequest::With(parameter.clone(), number.to_string()))
            }
            Paging::Offset { parameter } => {
                let is_last = !is_new || self.is_complete();
                let offset = self.rows.saturating_sub(1);
                (!is_last).then(|| PageRequest::With(parameter.clone(), offset.to_string()))
            }
        })
    }

    /// Returns true if as many rows have been read as the API has stated.
    fn is_complete(&self) -> bool {
        self.total.is_some_and(|total| self.rows >= total)
    }
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use diorama_core::record::{JsonLimits, parse_json};

    /// Reads a list by `pages` from `rows`, the ids of an API, which changes between requests. Returns the ids, or the error.
    fn read(
        pages: &HttpPages,
        rows: &mut Vec<u32>,
        size: usize,
        changes: &[(bool, usize)],
    ) -> Result<Vec<u32>, PageError> {
        let (mut pager, mut read, mut next) = (Pager::new(pages), Vec::new(), Some(PageRequest::First));
        let mut changes = changes.iter();
        let headers = HeaderMap::new();
        let mut new = 1_000;
        while let Some(request) = next {
            let number = match &request {
                PageRequest::With(_, value) => value.parse().unwrap(),
                _ => 0,
            };
            let start = if matches!(pages.paging, Paging::Offset { .. }) { number } else { number * size };
            let page: Vec<u32> = rows.iter().skip(start).take(size).copied().collect();
            let document = format!("{{\"total\":{}}}", rows.len());
            let document = parse_json(document.as_bytes(), JsonLimits::default()).unwrap();
            let ends = page.first().zip(page.last()).map(|(first, last)| (first.to_string(), last.to_string()));
            read.extend(&page);
            next = pager.next(&Page { headers: &headers, document: &document, rows: page.len(), ends })?;
            if let Some((insert, at)) = changes.next() {
                let at = at % (rows.len() + 1);
                match insert {
                    true => {
                        new += 1;
                        rows.insert(at, new);
                    }
                    false if at < rows.len() => drop(rows.remove(at)),
                    false => {}
                }
            }
        }
        Ok(read)
    }

    proptest! {
        #[test]
        fn an_offset_hides_no_row_that_was_there_throughout(
            count in 0..40_u32,
            size in 2..8_usize,
            changes in prop::collection::vec((any::<bool>(), 0..60_usize), 0..10),
        ) {
            let paging = Paging::Offset { parameter: PageParameter::Query("offset".into()) };
            let pages = HttpPages { paging, ..HttpPages::default() };
            let mut rows: Vec<u32> = (0..count).collect();
            if let Ok(read) = read(&pages, &mut rows, size, &changes) {
                let throughout = rows.into_iter().filter(|row| *row < count);
                let missing: Vec<u32> = throughout.filter(|row| !read.contains(row)).collect();
                prop_assert_eq!(missing, Vec::<u32>::new());
            }
        }
    }

    #[test]
    fn rows_that_move_at_the_end_of_a_page_are_noticed() {
        let paging = Paging::Offset { parameter: PageParameter::Query("offset".into()) };
        let pages = HttpPages { paging, ..HttpPages::default() };
        let rows = || (0..10).collect::<Vec<u32>>();
        assert_eq!(read(&pages, &mut rows(), 4, &[]).unwrap(), [0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9]);
        assert_eq!(read(&pages, &mut rows(), 4, &[(false, 0)]), Err(PageError::Moved));
        assert_eq!(read(&pages, &mut rows(), 4, &[(true, 0)]), Err(PageError::Moved));
    }

    #[test]
    fn an_api_that_repeats_its_last_page_ends_the_list() {
        let paging = Paging::PageNumber { parameter: PageParameter::Query("page".into()), first: 1, pages: None };
        let pages = HttpPages { paging, ..HttpPages::default() };
        let (mut pager, headers, document) = (Pager::new(&pages), HeaderMap::new(), CborValue::Null);
        let mut next = |first: &str, last: &str| {
            let ends = Some((first.to_string(), last.to_string()));
            pager.next(&Page { headers: &headers, document: &document, rows: 2, ends }).unwrap()
        };
        assert!(next("1", "2").is_some());
        assert!(next("3", "4").is_some());
        assert_eq!(next("3", "4"), None);
    }

    #[test]
    fn a_stated_total_ends_numbered_pages() {
        let paging = Paging::PageNumber { parameter: PageParameter::Query("page".into()), first: 0, pages: None };
        let total = Some(StatedTotal::Body("/total".into()));
        let pages = HttpPages { paging: paging.clone(), total, ..HttpPages::default() };
        let rows = || (0..10).collect::<Vec<u32>>();
        assert_eq!(read(&pages, &mut rows(), 5, &[]).unwrap(), rows());
        // Without it an empty page does.
        let pages = HttpPages { paging, ..HttpPages::default() };
        assert_eq!(read(&pages, &mut rows(), 5, &[]).unwrap(), rows());
        let most = HttpPages { most: 2, ..pages };
        assert!(matches!(read(&most, &mut rows(), 2, &[]), Err(PageError::Wrong(_))));
    }

    #[test]
    fn an_api_that_repeats_its_cursor_is_refused() {
        let pages = HttpPages {
            paging: Paging::Cursor {
                at: "/next".into(),
                parameter: PageParameter::Query("cursor".into()),
                more: Some("/more".into()),
            },
            ..HttpPages::default()
        };
        let headers = HeaderMap::new();
        let mut pager = Pager::new(&pages);
        let mut next = |text: &str| {
            let document = parse_json(text.as_bytes(), JsonLimits::default()).unwrap();
            pager.next(&Page { headers: &headers, document: &document, rows: 1, ends: None })
        };
        let with = |value: &str| Ok(Some(PageRequest::With(PageParameter::Query("cursor".into()), value.into())));
        assert_eq!(next(r#"{"next":"a","more":true}"#), with("a"));
        assert_eq!(next(r#"{"next":7}"#), Ok(None), "a flag that is missing is false");
        assert_eq!(next(r#"{"next":7,"more":true}"#), with("7"));
        assert!(matches!(next(r#"{"next":"a","more":true}"#), Err(PageError::Wrong(_))));
        assert!(matches!(next(r#"{"next":null,"more":true}"#), Err(PageError::Wrong(_))));
        assert_eq!(next(r#"{"next":"b","more":false}"#), Ok(None));
    }
}
