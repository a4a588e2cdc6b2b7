//! Description of an API's pages.
//!
//! The vocabulary is that of the paginators of dlt's `rest_api` source, which covers the public APIs.

use std::fmt;

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

impl fmt::Display for PageParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (PageParameter::Query(name) | PageParameter::Body(name)) = self;
        f.write_str(name)
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
    /// A number of rows to leave out.
    Offset {
        /// Parameter for the number.
        parameter: PageParameter,
        /// True to begin each page with the last row of the page before, so that a row that is deleted meanwhile hides no other
        /// row. An API that takes only multiples of the page size requires false.
        overlap: bool,
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
    /// time. `None` selects it for numbered pages, `Link` headers and offsets without overlap, where a deleted row can hide another
    /// one.
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
    /// JSON Pointers into answers.
    pub(super) fn pointers(&self) -> impl Iterator<Item = &String> {
        let (at, more) = match &self.paging {
            Paging::JsonLink(at) | Paging::PageNumber { pages: Some(at), .. } => (Some(at), None),
            Paging::Cursor { at, more, .. } => (Some(at), more.as_ref()),
            _ => (None, None),
        };
        let total = match &self.total {
            Some(StatedTotal::Body(at)) => Some(at),
            Some(StatedTotal::Header(_)) | None => None,
        };
        [at, more, total].into_iter().flatten()
    }

    /// Parameters of requests for pages.
    pub(super) fn parameters(&self) -> impl Iterator<Item = &PageParameter> {
        let own = match &self.paging {
            Paging::Cursor { parameter, .. }
            | Paging::HeaderCursor { parameter, .. }
            | Paging::PageNumber { parameter, .. }
            | Paging::Offset { parameter, .. } => Some(parameter),
            Paging::Detected | Paging::None | Paging::HeaderLink(_) | Paging::JsonLink(_) => None,
        };
        own.into_iter().chain(self.size.as_ref().map(|(parameter, _)| parameter))
    }

    /// Returns true if a row that is deleted while the list is read can hide another one.
    pub(super) fn is_checked(&self) -> bool {
        let by_default = match &self.paging {
            Paging::PageNumber { .. } | Paging::HeaderLink(_) | Paging::Detected => true,
            Paging::Offset { overlap, .. } => !overlap,
            Paging::None | Paging::JsonLink(_) | Paging::Cursor { .. } | Paging::HeaderCursor { .. } => false,
        };
        self.check.unwrap_or(by_default)
    }
}
