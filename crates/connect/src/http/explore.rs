//! Exploration of an API with three requests: its rows, id, pages, single rows and rate limit, as a proposed configuration.

use std::fmt::Write as _;
use std::sync::Arc;

use http::{HeaderMap, Method};
use url::Url;

use super::auth::HttpAuth;
use super::budget::Budget;
use super::client::{Call, Reply};
use super::list::PageStart;
use super::options::HttpOptions;
use super::pager::{Page, PageRequest, Pager};
use super::paging::{PageParameter, Paging, StatedTotal};
use super::row::{document, find_rows, id_of, rows_at};
use super::source::{Inner, PATIENCE, parse_url};
use super::{detect, pointer, template};
use diorama_core::record::{CborValue, Record};
use diorama_core::vista::{Error, Result};

/// Members that hold the row in an answer about one.
const ROWS: [&str; 5] = ["", "/data", "/item", "/result", "/record"];

/// Proposed configuration of an API.
#[derive(Clone, Debug)]
pub struct HttpProposal {
    /// Lines of the configuration: keys of `[dio.NAME.source]`.
    pub source: Vec<String>,
    /// Rows of the first page.
    pub rows: Vec<Record>,
    /// Findings, and what could not be found.
    pub notes: Vec<String>,
    /// Number of requests that were sent.
    pub requests: usize,
}

/// Finds out how the list at `url` is to be read, with at most three requests.
///
/// # Errors
/// [`Error::Config`] if the URL is not valid; [`Error::Source`] if its answer has no rows, or the API refuses the request or cannot be
/// reached.
pub async fn explore(name: &str, url: &str, options: HttpOptions) -> Result<HttpProposal> {
    let (parsed, options) = parse_url(url, options).map_err(Error::Config)?;
    let proposal = HttpProposal::new(&parsed, &options);
    let budget = Arc::new(Budget::new(&options.rate));
    let inner = Inner::new(parsed, options, budget)?;
    let (reply, document) = inner.first_page().await?;
    let mut explorer = Explorer { inner, proposal };
    explorer.rows(name, &document)?;
    explorer.pages(&reply, &document).await;
    explorer.one().await;
    explorer.rate(&reply.headers);
    Ok(explorer.proposal)
}

impl HttpProposal {
    /// Without the password of the URL, which does not belong in a file.
    fn new(url: &Url, options: &HttpOptions) -> HttpProposal {
        let mut source = vec![format!("http = {}", quoted(url.as_str()))];
        if let HttpAuth::Basic(user, _) = &options.auth {
            source.push(format!("auth = {{ basic = {}, password = \"env:PASSWORD\" }}", quoted(user)));
        }
        HttpProposal { source, rows: Vec::new(), notes: Vec::new(), requests: 1 }
    }

    fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

struct Explorer {
    inner: Inner,
    proposal: HttpProposal,
}

impl Explorer {
    /// Finds the rows and their id.
    fn rows(&mut self, name: &str, document: &CborValue) -> Result<()> {
        let (at, _) = find_rows(document, "the URL")?;
        if !at.is_empty() {
            self.proposal.source.push(format!("rows = {}", quoted(&at)));
        }
        let items = rows_at(document, &at, "the URL")?;
        let cells = envelope(items);
        if let Some(cells) = cells {
            self.proposal.source.push(format!("cells = {}", quoted(cells)));
            self.inner.row_shape.cells = Some(cells.to_string());
        }
        let records = items.iter().filter_map(|item| self.inner.row_shape.record(item.clone()).ok());
        self.proposal.rows = records.collect();
        self.inner.rows_at = at;
        match self.inner.describe(name, document) {
            Ok(()) => {
                let id = self.inner.schema.id_column().to_string();
                if id != "id" {
                    self.proposal.source.push(format!("id = {}", quoted(&id)));
                }
            }
            Err(error) => self.proposal.note(error.to_string()),
        }
        Ok(())
    }

    /// Finds the paging, and reads the second page to confirm it.
    async fn pages(&mut self, reply: &Reply, document: &CborValue) {
        let total = detect::total(&reply.headers, document);
        let Some(paging) = detect::paging(&self.inner.url, &reply.headers, document, &self.inner.rows_at) else {
            let count = self.proposal.rows.len();
            if let Some((_, total)) = total.filter(|(_, total)| *total > count as u64) {
                return self.proposal.note(format!(
                    "the answer has {count} rows and says that there are {total}: set page to how the API divides its list"
                ));
            }
            self.proposal.note(match count > 0 && count.is_multiple_of(10) {
                true => format!("the answer shows no further pages, but {count} rows may be one page: see page"),
                false => "the answer shows no further pages".to_string(),
            });
            self.proposal.source.push("page = { none = true }".into());
            return;
        };
        let mut keys = keys_of(&paging);
        if matches!(paging, Paging::Offset { .. })
            && let Some((total, _)) = total
        {
            let place = match &total {
                StatedTotal::Body(at) => at.clone(),
                StatedTotal::Header(name) => format!("header:{name}"),
            };
            // Writing to a text cannot fail.
            let _ = write!(keys, ", total = {}", quoted(&place));
            self.inner.options.pages.total = Some(total);
        }
        self.proposal.source.push(format!("page = {{ {keys} }}"));
        let items = rows_at(document, &self.inner.rows_at, "").unwrap_or_default();
        self.inner.options.pages.paging = paging;
        let page = Page { headers: &reply.headers, document, rows: items.len(), ends: self.inner.ends(items) };
        let pages = self.inner.options.pages.clone();
        let request = match Pager::new(&pages, false).next(&page) {
            Ok(Some(request)) => request,
            Ok(None) => return self.proposal.note("the list has one page"),
            Err(_) => return self.proposal.note("the second page could not be requested: see page"),
        };
        let first = page.ends.map(|(first, _)| first);
        let hint = match pages.paging {
            Paging::Offset { .. } => ", with overlap = false in it if the API takes only multiples of the page size",
            _ => "",
        };
        self.proposal.requests += 1;
        let second = self.second(&request).await;
        self.proposal.note(match second {
            Ok(second) if second.is_some() && second != first => "the second page has other rows".to_string(),
            Ok(_) => format!("the second page has the same rows as the first, or none: check page{hint}"),
            Err(error) => format!("the second page could not be read: {error}{hint}"),
        });
    }

    /// Returns the id of the first row of a page.
    async fn second(&self, request: &PageRequest) -> Result<Option<String>> {
        let call = self.inner.page_call(request, &PageStart::default())?;
        let reply = self.inner.client.send(&call).await.map_err(super::errors::Failure::of_read)?;
        let document = document(&reply.body, "the second page")?;
        let items = rows_at(&document, &self.inner.rows_at, "the second page")?;
        Ok(self.inner.ends(items).map(|(first, _)| first))
    }

    /// Finds the URL of one row.
    async fn one(&mut self) {
        let Some(record) = self.proposal.rows.first() else { return };
        let Ok(id) = id_of(record, self.inner.schema.id_column()) else { return };
        let Ok(path) = template::path("/{id}", &id) else { return };
        let url = self.inner.below(&path);
        self.proposal.requests += 1;
        let reply = self.inner.client.send(&Call::new(Method::GET, url, PATIENCE)).await;
        let row = reply.ok().and_then(|reply| {
            let document = document(&reply.body, "").ok()?;
            let has_id = |at: &&str| {
                let item = pointer::get(&document, at)?.clone();
                let record = self.inner.row_shape.record(item).ok()?;
                Some(id_of(&record, self.inner.schema.id_column()).ok()? == id)
            };
            ROWS.into_iter().find(|at| has_id(at) == Some(true))
        });
        match row {
            Some(at) => {
                self.proposal.source.push("one = \"/{id}\"".into());
                if !at.is_empty() {
                    self.proposal.source.push(format!("row = {}", quoted(at)));
                }
            }
            None => self.proposal.note("there is no row at /{id}: set one if the API has another path for it"),
        }
    }

    /// Finds the headers of a rate limit.
    fn rate(&mut self, headers: &HeaderMap) {
        let find = |words: [&str; 2]| {
            let mut names = headers.keys().map(http::HeaderName::as_str);
            names.find(|name| name.contains("ratelimit") && words.iter().any(|word| name.ends_with(word)))
        };
        let (remaining, reset) = (find(["remaining", "remaining-requests"]), find(["reset", "reset-requests"]));
        if let (Some(remaining), Some(reset)) = (remaining, reset) {
            self.proposal.source.push(format!(
                "rate = {{ remaining = {}, reset = {} }}",
                quoted(remaining),
                quoted(reset)
            ));
        }
    }
}

/// Returns a JSON Pointer to the columns of rows that are envelopes: JSON:API, Airtable, HubSpot, Notion.
pub(super) fn envelope(items: &[CborValue]) -> Option<&'static str> {
    let has = |item: &CborValue, name: &str| pointer::get(item, name).is_some_and(CborValue::is_map);
    let all = |name: &str| !items.is_empty() && items.iter().all(|item| has(item, name));
    let is_small = items.first().and_then(CborValue::as_map).is_some_and(|members| members.len() <= 8);
    ["/attributes", "/fields", "/properties"].into_iter().find(|name| is_small && all(name))
}

fn keys_of(paging: &Paging) -> String {
    let parameter = |parameter: &PageParameter| match parameter {
        PageParameter::Query(name) | PageParameter::Body(name) => quoted(name),
    };
    match paging {
        Paging::HeaderLink(rel) => format!("header_link = {}", quoted(rel)),
        Paging::JsonLink(at) => format!("json_link = {}", quoted(at)),
        Paging::Cursor { at, parameter: to, more } => {
            let mut keys = format!("cursor = {}, param = {}", quoted(at), parameter(to));
            if let Some(more) = more {
                // Writing to a text cannot fail.
                let _ = write!(keys, ", more = {}", quoted(more));
            }
            keys
        }
        Paging::PageNumber { parameter: to, first, pages } => {
            let mut keys = format!("page_number = {}", parameter(to));
            if *first != 1 {
                let _ = write!(keys, ", first = {first}");
            }
            if let Some(pages) = pages {
                let _ = write!(keys, ", pages = {}", quoted(pages));
            }
            keys
        }
        Paging::HeaderCursor { header, parameter: to } => {
            format!("header_cursor = {}, param = {}", quoted(header), parameter(to))
        }
        Paging::Offset { parameter: to, .. } => format!("offset = {}", parameter(to)),
        Paging::None | Paging::Detected => "none = true".into(),
    }
}

/// Returns a text in quotes, as TOML and JSON write it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
