//! Description of an HTTP API as a source.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, Method};

use super::auth::HttpAuth;
use super::budget::HttpRate;
use super::paging::{HttpPages, PageParameter};
use super::pointer;
use super::rules::HttpRule;
use super::write::HttpWrites;
use diorama_core::record::CborValue;
use diorama_core::vista::Column;

/// Description of an HTTP API that lists rows as JSON. By default rows, columns, id and pages are detected, and it is read-only.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// The id column; by default a column named `id` or `<name>_id`.
    pub id: Option<String>,
    /// Columns with declared types and flags; the types of other columns are inferred from the first page.
    pub columns: Vec<Column>,
    /// Method of the request for a page, `GET` or `POST`.
    pub method: Method,
    /// JSON body of the request for a page: a query of GraphQL, for example.
    pub body: Option<CborValue>,
    /// Headers of every request.
    pub headers: HeaderMap,
    /// Parameters of the query of the request for a page.
    pub query: Vec<(String, String)>,
    /// JSON Pointer to the rows of a page.
    pub rows: Option<String>,
    /// JSON Pointer to the columns within a row, if the row is an envelope of them: `/attributes`.
    pub cells: Option<String>,
    /// Pages of the list.
    pub pages: HttpPages,
    /// Path of one row with `{id}`, below the URL of the list, or a path of the same origin if it begins with `//`.
    pub one: Option<String>,
    /// JSON Pointer to the row in an answer about one row.
    pub row: String,
    /// Credentials.
    pub auth: HttpAuth,
    /// The rate limit.
    pub rate: HttpRate,
    /// Rules for the meaning of answers. The first that applies wins over the status.
    pub rules: Vec<HttpRule>,
    /// Requests for writes; read-only without.
    pub writes: Option<HttpWrites>,
    /// Request for the rows that have changed, between whole lists.
    pub since: Option<HttpSince>,
    /// True to take an unchanged first page (`ETag`, `Last-Modified`) as an unchanged list also if there are more pages.
    pub conditional: bool,
    /// PEM file with the certificates of the authorities to trust instead of the public ones.
    pub ca: Option<PathBuf>,
    /// Time within which the API must answer.
    pub timeout: Duration,
    /// Maximum size of an answer in bytes, after decompression.
    pub max_size: u64,
    /// True to refuse private and local addresses.
    pub public_only: bool,
}

/// Request for the rows that have changed since a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSince {
    /// Parameter for the time.
    pub parameter: PageParameter,
    /// Column with the time of a row's last change: RFC 3339 or a Unix time in seconds.
    pub column: String,
    /// Time by which the request goes back, for clocks that differ and changes that become visible late.
    pub lookback: Duration,
    /// Time after which the whole list is read, which shows deleted rows.
    pub full_every: Duration,
}

impl HttpOptions {
    /// Checks the form of all JSON Pointers.
    ///
    /// # Errors
    /// The one that is not valid.
    pub(super) fn check_pointers(&self) -> Result<(), String> {
        let since = self.since.as_ref().map(|since| &since.parameter);
        let parameters = self.pages.parameters().chain(since).filter_map(|parameter| match parameter {
            PageParameter::Body(at) => Some(at),
            PageParameter::Query(_) => None,
        });
        let of_rules = self.rules.iter().filter_map(|rule| rule.path.as_ref());
        let of_writes = self.writes.iter().flat_map(HttpWrites::pointers);
        let own = [self.rows.as_ref(), self.cells.as_ref(), Some(&self.row)].into_iter().flatten();
        let mut all = own.chain(self.pages.pointers()).chain(parameters).chain(of_rules).chain(of_writes);
        all.try_for_each(|at| pointer::check(at))
    }
}

impl Default for HttpOptions {
    fn default() -> HttpOptions {
        HttpOptions {
            id: None,
            columns: Vec::new(),
            method: Method::GET,
            body: None,
            headers: HeaderMap::new(),
            query: Vec::new(),
            rows: None,
            cells: None,
            pages: HttpPages::default(),
            one: None,
            row: String::new(),
            auth: HttpAuth::None,
            rate: HttpRate::default(),
            rules: Vec::new(),
            writes: None,
            since: None,
            conditional: false,
            ca: None,
            timeout: Duration::from_secs(30),
            max_size: 64 << 20,
            public_only: false,
        }
    }
}
