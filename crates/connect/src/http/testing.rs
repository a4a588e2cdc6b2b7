//! Interface of the fuzz targets: answers that no API has sent, and the parsers of the configuration.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::Instant;
use url::Url;

use super::auth::Token;
use super::budget::Budget;
use super::client::{Call, Reply};
use super::diorama;
use super::errors::Failure;
use super::list::{PageStart, conditions, fingerprint_of, validators_of};
use super::options::HttpOptions;
use super::pager::PageRequest;
use super::paging::HttpPages;
use super::pass::ArrivingList;
use super::source::{Inner, PATIENCE, parse_url};
use super::template::{self, BodyTemplate};
use super::write::Request;
use super::{detect, document, explore, pointer, row};
use diorama_core::record::{CborValue, Record};
use diorama_core::vista::{Result, Schema};

/// URL of the list.
const LIST: &str = "https://api.example.com/v1/rows";
/// Maximum number of pages that are read.
const MOST_PAGES: usize = 8;

/// Answer of an API.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Status, 200 for instance.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, after decompression.
    pub body: Vec<u8>,
}

/// Result of reading answers.
#[derive(Debug, Default)]
pub struct Report {
    /// Number of rows of the list, if it was read whole.
    pub rows: Option<usize>,
    /// Number of bytes of all bodies that were read.
    pub bytes: usize,
    /// URLs of the requests that were permitted.
    pub requests: Vec<Url>,
    /// Time for which no request is sent.
    pub pause: Duration,
}

/// Source of an API whose answers are given.
#[derive(Debug)]
pub struct Replay {
    inner: Inner,
    budget: Arc<Budget>,
}

impl Replay {
    /// Creates the source at `https://api.example.com/v1/rows`.
    ///
    /// # Errors
    /// An option is not valid.
    pub fn new(options: HttpOptions) -> Result<Replay> {
        let (url, mut options) = parse_url(LIST, options).map_err(diorama_core::Error::Config)?;
        options.pages.most = MOST_PAGES;
        let budget = Arc::new(Budget::new(&options.rate));
        Ok(Replay { inner: Inner::new(url, options, Arc::clone(&budget))?, budget })
    }

    /// Reads everything that a source reads from `answers`, which are repeated if more are needed: its columns, its list, changes since
    /// the list, one row, and the effect of a write.
    pub fn run(&mut self, answers: &[Answer]) -> Report {
        let mut report = Report::default();
        let Some(first) = answers.first() else { return report };
        self.forget();
        self.explore(first);
        if self.describe(first).is_ok() {
            report.rows = self.list(answers, false, &mut report);
            self.list(answers, true, &mut report);
        }
        self.one(first);
        let _ = Token::of(status(first), &first.body, Instant::now());
        let _ = document::max_age(&first.headers);
        let _ = conditions(&fingerprint_of(&validators_of(&first.headers)).unwrap_or_default());
        diorama::describe(&first.body);
        report.pause = self.budget.wait();
        report
    }

    /// Returns to the state before the first answer. The limits stay as they are.
    fn forget(&mut self) {
        let options = &self.inner.options;
        self.inner.schema = Arc::new(Schema::new(options.id.as_deref().unwrap_or("id"), Vec::new()));
        self.inner.rows_at = options.rows.clone().unwrap_or_default();
        self.inner.inferred.clear();
    }

    /// Receives an answer to `call`.
    fn receive(&self, call: &Call, answer: &Answer) -> Result<Reply, Failure> {
        let (status, headers, body) = (status(answer), answer.headers.clone(), Bytes::from(answer.body.clone()));
        self.inner.client.obey(&headers);
        if let Some(to) = self.inner.client.redirect(&call.url, status, &headers) {
            assert_eq!(to.origin(), self.inner.url.origin(), "credentials are sent to one origin only");
        }
        self.inner.client.judge(call, status, headers, body)
    }

    fn describe(&mut self, answer: &Answer) -> Result<()> {
        let call = self.inner.page_call(&PageRequest::First, &PageStart::default())?;
        let reply = self.receive(&call, answer).map_err(Failure::of_read)?;
        let document = row::document(&reply.body, "the API")?;
        self.inner.describe("rows", &document)
    }

    /// Reads the list. Returns its number of rows if it is whole.
    fn list(&self, answers: &[Answer], lists_changes: bool, report: &mut Report) -> Option<usize> {
        let mut list = ArrivingList::new(&self.inner, lists_changes);
        let mut next = Some(PageRequest::First);
        for answer in answers.iter().cycle() {
            let Some(request) = next.take() else { break };
            let call = self.inner.page_call(&request, &PageStart::default()).ok()?;
            self.inner.client.check_origin(&call.url).ok()?;
            report.requests.push(call.url.clone());
            report.bytes += answer.body.len();
            let reply = self.receive(&call, answer).ok()?;
            next = list.add_page(&reply).ok()?;
        }
        list.finish().ok().map(|pass| pass.rows.len())
    }

    /// Reads the answer as one about a row, and as one to a write.
    fn one(&self, answer: &Answer) {
        let call = Call::new(Method::PATCH, self.inner.below("/1"), PATIENCE);
        match self.receive(&call, answer) {
            Ok(reply) => {
                let _ = self.inner.row_of(&reply, "1");
                let _ = self.inner.written(Some("1"), &reply);
                let _ = self.inner.written(None, &reply);
            }
            Err(failure) => drop(failure.of_write("1")),
        }
    }

    /// Looks at the answer as the exploration of an API does.
    fn explore(&self, answer: &Answer) {
        let Ok(document) = super::client::parse(&answer.body) else { return };
        let Ok((at, _)) = row::find_rows(&document, "the API") else { return };
        let items = row::rows_at(&document, &at, "the API").unwrap_or_default();
        let _ = explore::envelope(items);
        if let Some(paging) = detect::paging(&self.inner.url, &answer.headers, &document, &at) {
            let pages = HttpPages { paging, ..HttpPages::default() };
            assert!(pages.pointers().all(|at| pointer::check(at).is_ok()), "{pages:?}");
        }
    }
}

fn status(answer: &Answer) -> StatusCode {
    StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK)
}

/// Checks the form of a JSON Pointer.
///
/// # Errors
/// The reason why it is not one.
pub fn check(pointer: &str) -> Result<(), String> {
    pointer::check(pointer)
}

/// Returns the value at a JSON Pointer.
pub fn get<'v>(value: &'v CborValue, pointer: &str) -> Option<&'v CborValue> {
    pointer::get(value, pointer)
}

/// Removes and returns the value at a JSON Pointer.
pub fn take(value: CborValue, pointer: &str) -> Option<CborValue> {
    pointer::take(value, pointer)
}

/// Sets the value at a JSON Pointer.
pub fn set(root: &mut CborValue, pointer: &str, value: CborValue) {
    pointer::set(root, pointer, value);
}

/// Parses an answer.
pub fn parse(body: &[u8]) -> Option<CborValue> {
    super::client::parse(body).ok()
}

/// Returns the method of a request of writes, and its URL for the row `id`; `None` if it is not a request, or the id cannot be in its path.
pub fn request(replay: &Replay, text: &str, id: &str) -> Option<(Method, Url)> {
    let request = Request::parse(text).ok()?;
    Some((request.method, replay.inner.below(&template::path(&request.path, id).ok()?)))
}

/// Returns the body of a write by the template `body`, in a media type.
///
/// # Errors
/// The body is too large.
pub fn body(body: CborValue, id: Option<&str>, row: &Record, content_type: &HeaderValue) -> Result<Vec<u8>, String> {
    let cells = row.iter().map(|(name, value)| (name.as_str().into(), value.clone())).collect();
    let filled = BodyTemplate::of(body).fill(id.map(CborValue::from).as_ref(), CborValue::Map(cells));
    template::encode(&filled, content_type)
}
