//! Whole lists, page by page.
//!
//! A list counts only if it is whole: its last page was reached, and it has at least as many rows as the API has stated. While it is
//! read the rows may change at the API. If a row on a page that was read is deleted, the rows behind it move forward, and
//! the first row of the next page is missed. For pagings in which that can happen a list whose ids differ from those of the last
//! list is read again, until every row that was read is there the next time: then none was deleted meanwhile, and none was missed.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ETAG, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;
use url::Url;

use super::client::{Call, Reply, shown};
use super::errors::Failure;
use super::pager::{PageRequest, text};
use super::paging::{PageParameter, Paging};
use super::pass::{ArrivingList, Pass, PassError};
use super::pointer;
use super::row::id_of;
use super::since::ChangeTime;
use super::source::Inner;
use diorama_core::dio::Backoff;
use diorama_core::record::{CborValue, Rows, value_to_json};
use diorama_core::vista::{Error, Result};

/// Time for which the request for a page waits for the rate limit.
const PATIENCE: Duration = Duration::from_secs(120);
/// Attempts to read a page, and of a write that the API recognizes.
pub(super) const ATTEMPTS: u32 = 4;
/// Pause between two attempts: initial and maximum.
pub(super) const BACKOFF: (Duration, Duration) = match cfg!(test) {
    false => (Duration::from_millis(250), Duration::from_secs(5)),
    true => (Duration::from_millis(5), Duration::from_millis(50)),
};
/// Attempts to read a list whose rows move meanwhile.
const PASSES: usize = 5;

/// Additions to the configured request for the first page.
#[derive(Default)]
pub(super) struct PageStart<'s> {
    /// Headers of the first request.
    conditions: &'s [(HeaderName, HeaderValue)],
    /// Time since which changes are listed.
    since: Option<ChangeTime>,
}

/// The last whole list.
#[derive(Debug, Default)]
pub(super) struct LastList {
    ids: Option<u128>,
    /// Time at which the last one for the copy was begun; one that is read for a single row does not count.
    at: Option<Instant>,
}

impl Inner {
    /// Reads the whole list.
    pub(super) async fn read_list(&self) -> Result<Rows> {
        self.read_changed_list(None).await?.ok_or_else(|| Error::transient("the API has not sent its list"))
    }

    /// Reads the whole list; `None` if the API says that it is the one with this fingerprint.
    pub(super) async fn read_changed_list(&self, fingerprint: Option<&str>) -> Result<Option<Rows>> {
        let conditions = fingerprint.map(conditions).unwrap_or_default();
        let start = PageStart { conditions: &conditions, since: None };
        let Some(mut pass) = self.read_pass(&start).await? else { return Ok(None) };
        let known = self.last.lock().ids;
        let mut is_settled = pass.pages <= 1 || !self.options.pages.is_checked() || known == Some(pass.ids);
        let mut passes = 1;
        while !is_settled {
            if passes >= PASSES {
                let place = shown(&self.url);
                return Err(Error::transient(format!(
                    "rows of {place} were deleted each of {PASSES} times that it was read (page.check)"
                )));
            }
            let Some(next) = self.read_pass(&PageStart::default()).await? else { return Ok(None) };
            is_settled = pass.rows.ids().all(|id| next.rows.contains(id));
            pass = next;
            passes += 1;
        }
        self.last.lock().ids = Some(pass.ids);
        let is_exact = pass.pages <= 1 || self.options.conditional;
        let fingerprint = if is_exact { fingerprint_of(&pass.validators) } else { None };
        Ok(Some(pass.rows.with_fingerprint(fingerprint).with_since(pass.newest.map(|newest| newest.to_text()))))
    }

    /// Reads the whole list for the copy; see [`Inner::read_changed_list`].
    pub(super) async fn read_copy(&self, fingerprint: Option<&str>) -> Result<Option<Rows>> {
        let began = Instant::now();
        let rows = self.read_changed_list(fingerprint).await?;
        self.last.lock().at = Some(began);
        Ok(rows)
    }

    /// Reads the rows that have changed since a list; `None` if the whole list is due.
    pub(super) async fn read_list_since(&self, since: &str) -> Result<Option<Rows>> {
        let (Some(options), Some(from)) = (&self.options.since, ChangeTime::parse(since)) else { return Ok(None) };
        let age = self.last.lock().at.map(|at| at.elapsed());
        if age.is_none_or(|age| age >= options.full_every) {
            return Ok(None);
        }
        let start = PageStart { conditions: &[], since: Some(from.before(options.lookback)) };
        let Some(pass) = self.read_pass(&start).await? else { return Ok(None) };
        let newest = pass.newest.filter(|newest| *newest > from).unwrap_or(from);
        Ok(Some(pass.rows.with_since(Some(newest.to_text()))))
    }

    /// Reads all pages once. If the rows move while they are read, begins again. `None` if the first page meets `conditions`.
    async fn read_pass(&self, start: &PageStart<'_>) -> Result<Option<Pass>> {
        let mut repeated = Some(String::new());
        for _ in 0..PASSES {
            match self.try_pass(start).await {
                Ok(pass) => return Ok(pass),
                Err(PassError::Moved) => repeated = None,
                Err(PassError::Repeated(detail)) => repeated = repeated.map(|_| detail),
                Err(PassError::Failed(error)) => return Err(error),
            }
        }
        let place = shown(&self.url);
        Err(match repeated {
            Some(detail) => Error::permanent(format!("{place}: {detail}")),
            None => Error::transient(format!(
                "rows of {place} have moved each of {PASSES} times that it was read{}",
                self.overlap_hint()
            )),
        })
    }

    async fn try_pass(&self, start: &PageStart<'_>) -> Result<Option<Pass>, PassError> {
        let mut arriving = ArrivingList::new(self, start.since.is_some());
        let mut next = Some(PageRequest::First);
        while let Some(request) = next {
            let is_first = request == PageRequest::First;
            let call = self.page_call(&request, start)?;
            let reply = self.read_page(&call).await.map_err(|failure| self.explain(failure, is_first).of_read())?;
            if reply.status == StatusCode::NOT_MODIFIED {
                return Ok(None);
            }
            next = arriving.add_page(&reply)?;
        }
        arriving.finish().map(Some)
    }

    /// Returns the request for a page.
    pub(super) fn page_call(&self, request: &PageRequest, start: &PageStart<'_>) -> Result<Call> {
        let options = &self.options;
        let wrong = |detail: String| Error::transient(format!("the next page of {}: {detail}", shown(&self.url)));
        let mut url = match request {
            PageRequest::Url(text) => self.client.resolve(text).map_err(wrong)?,
            PageRequest::First | PageRequest::With(..) => self.url.clone(),
        };
        let mut body = options.body.clone();
        if !matches!(request, PageRequest::Url(_)) {
            let size = options.pages.size.as_ref().map(|(parameter, size)| (parameter, CborValue::from(*size)));
            for (name, value) in &options.query {
                set_query(&mut url, name, value);
            }
            let position = match request {
                PageRequest::With(parameter, value) => Some((parameter, value.clone())),
                _ => None,
            };
            let since = options
                .since
                .as_ref()
                .map(|since| &since.parameter)
                .zip(start.since.as_ref().map(ChangeTime::to_value));
            for (parameter, value) in size.into_iter().chain(since).chain(position) {
                set_parameter(&mut url, &mut body, parameter, &value);
            }
        }
        let mut call = Call::new(options.method.clone(), url, PATIENCE);
        call.body = body.map(|body| Bytes::from(value_to_json(&body)));
        if *request == PageRequest::First {
            call.headers = start.conditions.to_vec();
        }
        Ok(call)
    }

    /// Adds the setting to a refusal of an offset that is not a multiple of the page size.
    fn explain(&self, failure: Failure, is_first: bool) -> Failure {
        match failure {
            Failure::Refused { status, message } if !is_first && matches!(status.as_u16(), 400 | 416 | 422) => {
                Failure::Refused { status, message: format!("{message}{}", self.overlap_hint()) }
            }
            failure => failure,
        }
    }

    fn overlap_hint(&self) -> &'static str {
        match self.options.pages.paging {
            Paging::Offset { overlap: true, .. } => {
                "; an API that takes only multiples of the page size requires page.overlap = false"
            }
            Paging::Offset { overlap: false, .. } => "; page.total ends a list before such a page",
            _ => "",
        }
    }

    /// Sends the request for a page, again after failures that may pass.
    async fn read_page(&self, call: &Call) -> Result<Reply, Failure> {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        for attempt in 1.. {
            let failure = match self.client.send(call).await {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            let may_pass = match &failure {
                // The pause is waited for by the next attempt.
                Failure::NotActed { retry_after, .. } => retry_after.is_none_or(|wait| wait < PATIENCE),
                Failure::Unanswered(_) => true,
                Failure::Refused { .. } => false,
            };
            if !may_pass || attempt >= ATTEMPTS {
                return Err(failure);
            }
            tokio::time::sleep(backoff.rest_jittered()).await;
        }
        Err(Failure::not_acted("the page was not read"))
    }

    /// Ids of the first and the last item.
    pub(super) fn ends(&self, items: &[CborValue]) -> Option<(String, String)> {
        let id = |item: &CborValue| {
            let record = self.row_shape.record(item.clone()).ok()?;
            id_of(&record, self.schema.id_column()).ok()
        };
        Some((id(items.first()?)?, id(items.last()?)?))
    }

    /// Newest time of a change among items.
    pub(super) fn newest(&self, items: &[CborValue]) -> Option<ChangeTime> {
        let column = &self.options.since.as_ref()?.column;
        let time = |item: &CborValue| ChangeTime::of(self.row_shape.record(item.clone()).ok()?.get(column)?);
        items.iter().filter_map(time).max()
    }
}

/// Sets a parameter of the query, in place of one of the same name.
fn set_query(url: &mut Url, name: &str, value: &str) {
    let others: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(own, _)| own != name)
        .map(|(own, value)| (own.into_owned(), value.into_owned()))
        .collect();
    let mut pairs = url.query_pairs_mut();
    pairs.clear();
    for (own, other) in others {
        pairs.append_pair(&own, &other);
    }
    pairs.append_pair(name, value);
}

fn set_parameter(url: &mut Url, body: &mut Option<CborValue>, parameter: &PageParameter, value: &CborValue) {
    match parameter {
        PageParameter::Query(name) => set_query(url, name, &text(value)),
        PageParameter::Body(at) => {
            pointer::set(body.get_or_insert_with(|| CborValue::Map(Vec::new())), at, value.clone());
        }
    }
}

/// Returns the headers of an answer that identify its content.
pub(crate) fn validators_of(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let validator = |own: HeaderName, condition: HeaderName| Some((condition, headers.get(own)?.clone()));
    validator(ETAG, IF_NONE_MATCH).or_else(|| validator(LAST_MODIFIED, IF_MODIFIED_SINCE)).into_iter().collect()
}

/// Returns validators as a text, `HEADER: VALUE`.
pub(crate) fn fingerprint_of(validators: &[(HeaderName, HeaderValue)]) -> Option<String> {
    let (name, value) = validators.first()?;
    Some(format!("{name}: {}", value.to_str().ok()?))
}

/// Returns the headers of a request for an answer that differs from the one with this fingerprint.
pub(crate) fn conditions(fingerprint: &str) -> Vec<(HeaderName, HeaderValue)> {
    let header = fingerprint.split_once(": ").and_then(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
    header.into_iter().collect()
}
