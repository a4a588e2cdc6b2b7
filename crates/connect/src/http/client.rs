//! Requests to one API: credentials, rate limit, limits on time and size, and the meaning of answers.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use reqwest::Response;
use url::Url;

use super::addresses::{PublicOnly, check_public};
use super::auth::{Authenticator, HttpAuth};
use super::budget::{Budget, Permit};
use super::errors::{Failure, detail_of, plain, reset_in, retry_after};
use super::options::HttpOptions;
use super::rules::{HttpAction, HttpRule, action};
use crate::tls::{self, Verification};
use diorama_core::record::{CborValue, JsonError, JsonLimits, parse_json};
use diorama_core::vista::{Error, Result};

/// Maximum number of redirects that are followed.
const REDIRECTS: usize = 5;
/// Time within which a connection must be established.
const CONNECT: Duration = Duration::from_secs(10);
/// Pause after an answer that the limit is exceeded, if it does not say how long.
const DEFAULT_PAUSE: Duration = Duration::from_secs(5);
/// Limits of one answer, beside its size.
const LIMITS: JsonLimits = JsonLimits { nodes: 8_000_000, depth: 72 };

/// Parses an answer.
pub(super) fn parse(body: &[u8]) -> Result<CborValue, JsonError> {
    parse_json(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body), LIMITS)
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// JSON.
    pub(super) body: Option<Bytes>,
    /// Media type of the body.
    pub(super) content_type: HeaderValue,
    /// Time for which the request waits for the rate limit.
    pub(crate) patience: Duration,
}

impl Call {
    pub(crate) fn new(method: Method, url: Url, patience: Duration) -> Call {
        let content_type = HeaderValue::from_static("application/json");
        Call { method, url, headers: Vec::new(), body: None, content_type, patience }
    }
}

/// An answer that is not a failure.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// True if a rule says that there is nothing.
    pub(super) is_nothing: bool,
}

/// Client of one API.
pub(crate) struct Client {
    /// Follows no redirect: each is a request of its own within the rate limit, and a POST would become a GET.
    client: reqwest::Client,
    auth: Authenticator,
    budget: Arc<Budget>,
    headers: HeaderMap,
    rules: Vec<HttpRule>,
    remaining: Option<String>,
    reset: Option<String>,
    pub(crate) max_size: u64,
    public_only: bool,
    /// The URL of the rows, for the origin.
    base: Url,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &shown(&self.base)).field("auth", &self.auth).finish_non_exhaustive()
    }
}

/// Returns a URL for messages: without user, password and query, which may contain secrets.
pub(crate) fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

/// Returns an HTTP client that follows no redirects, and connects to no private addresses if `public_only` is set. `ca` is a PEM file with
/// the authorities to trust instead of the public ones.
///
/// # Errors
/// [`Error::Config`] if the certificates of the authorities cannot be read.
pub(super) fn new_client(ca: Option<&Path>, timeout: Duration, public_only: bool) -> Result<reqwest::Client> {
    let read =
        |path: &Path| std::fs::read(path).map_err(|error| Error::Config(format!("ca: {}: {error}", path.display())));
    let pem = ca.map(read).transpose()?;
    let verification = pem.as_deref().map_or(Verification::Public, Verification::Authorities);
    let tls = tls::client(&verification).map_err(|error| Error::Config(format!("ca: {error}")))?;
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured((*tls).clone())
        .user_agent(concat!("diorama/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .timeout(timeout)
        .redirect(reqwest::redirect::Policy::none());
    if public_only {
        builder = builder.dns_resolver(Arc::new(PublicOnly));
    }
    builder.build().map_err(|error| Error::Config(format!("no HTTP client: {}", plain(error))))
}

impl Client {
    /// # Errors
    /// [`Error::Config`] if the certificates of the authorities cannot be read.
    pub(crate) fn new(base: Url, options: &HttpOptions, budget: Arc<Budget>) -> Result<Client> {
        if let HttpAuth::ClientCredentials { token_url, .. } = &options.auth
            && options.public_only
        {
            check_public(token_url).map_err(|problem| Error::Config(format!("auth: {problem} (addresses)")))?;
        }
        Ok(Client {
            client: new_client(options.ca.as_deref(), options.timeout, options.public_only)?,
            auth: Authenticator::new(options.auth.clone()),
            budget,
            headers: options.headers.clone(),
            rules: options.rules.clone(),
            remaining: options.rate.remaining.clone(),
            reset: options.rate.reset.clone(),
            max_size: options.max_size,
            public_only: options.public_only,
            base,
        })
    }

    /// Sends a request and returns its answer, which is a success by its status or by the rules.
    pub(super) async fn send(&self, call: &Call) -> Result<Reply, Failure> {
        let (answer, permit) = self.begin(call).await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = read_limited(answer, self.max_size).await;
        self.obey(&headers);
        drop(permit);
        let body = body.map_err(|problem| Failure::Unanswered(format!("{}: {problem}", shown(&call.url))))?;
        self.judge(call, status, headers, body)
    }

    /// Sends a request, whose answer's body is still to be read. Redirects of a GET are followed on the same origin, and a token that
    /// is refused is renewed once.
    pub(crate) async fn begin(&self, call: &Call) -> Result<(Response, Permit), Failure> {
        self.check_origin(&call.url)?;
        let (mut url, mut renewed, mut redirects) = (call.url.clone(), false, 0);
        loop {
            let (answer, permit) = self.request(call, &url).await?;
            if answer.status() == StatusCode::UNAUTHORIZED && !renewed && self.auth.forget_token().await {
                renewed = true;
                continue;
            }
            let next = self.redirect(&url, answer.status(), answer.headers());
            match next.filter(|_| call.method == Method::GET && redirects < REDIRECTS) {
                Some(next) => (url, redirects) = (next, redirects + 1),
                None => return Ok((answer, permit)),
            }
        }
    }

    /// Returns the URL on the same origin to which an answer redirects. Credentials are sent with it.
    pub(super) fn redirect(&self, from: &Url, status: StatusCode, headers: &HeaderMap) -> Option<Url> {
        let is_redirect = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
        let to = headers.get(http::header::LOCATION).filter(|_| is_redirect)?.to_str().ok()?;
        from.join(to).ok().filter(|to| to.origin() == self.base.origin())
    }

    /// Sends one request to `url`, within the rate limit.
    async fn request(&self, call: &Call, url: &Url) -> Result<(Response, Permit), Failure> {
        let permit = self.budget.acquire(call.patience).await.map_err(|wait| Failure::NotActed {
            message: format!("the rate limit of {} permits no request now", self.base.authority()),
            retry_after: Some(wait),
        })?;
        let mut url = url.clone();
        self.auth.sign_url(&mut url);
        let mut headers = self.headers.clone();
        for (name, value) in &call.headers {
            headers.insert(name, value.clone());
        }
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        let mut request = self.client.request(call.method.clone(), url).headers(headers);
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, call.content_type.clone()).body(body.clone());
        }
        let request = self.auth.sign(&self.client, request).await.map_err(Failure::not_acted)?;
        let answer = request.send().await.map_err(|error| self.unanswered(error))?;
        Ok((answer, permit))
    }

    fn unanswered(&self, error: reqwest::Error) -> Failure {
        let (is_sent, host) = (!error.is_connect() && !error.is_builder(), self.base.authority());
        let message = format!("{host} gave no answer: {}", plain(error));
        if is_sent { Failure::Unanswered(message) } else { Failure::not_acted(message) }
    }

    /// Pauses if the answer says that no request is left.
    pub(super) fn obey(&self, headers: &HeaderMap) {
        let text = |name: &Option<String>| headers.get(name.as_deref()?)?.to_str().ok();
        let left = text(&self.remaining).and_then(|left| left.trim().parse::<f64>().ok());
        if left.is_some_and(|left| left < 1.0)
            && let Some(wait) = text(&self.reset).and_then(reset_in)
        {
            self.budget.pause(wait);
        }
    }

    pub(crate) fn judge(
        &self,
        call: &Call,
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Reply, Failure> {
        let retry_after = retry_after(&headers);
        let reset = self.reset.as_ref().and_then(|name| headers.get(name)?.to_str().ok()).and_then(reset_in);
        let mut meaning = action(&self.rules, status, &body);
        // GitHub and others refuse with 403 what is beyond the limit.
        if status == StatusCode::FORBIDDEN && meaning == HttpAction::Fail && self.is_exhausted(&headers) {
            meaning = HttpAction::RateLimited;
        }
        let place = shown(&call.url);
        let words = || format!("{place} answers {status}{}", detail_of(&body));
        match meaning {
            _ if status == StatusCode::NOT_MODIFIED => {
                Ok(Reply { status, headers, body: Bytes::new(), is_nothing: false })
            }
            HttpAction::Accept if status.is_success() => Ok(Reply { status, headers, body, is_nothing: false }),
            HttpAction::Ignore => Ok(Reply { status, headers, body: Bytes::new(), is_nothing: true }),
            HttpAction::RateLimited => {
                let wait = retry_after.or(reset).unwrap_or(DEFAULT_PAUSE);
                self.budget.pause(wait);
                Err(Failure::NotActed { message: words(), retry_after: Some(wait) })
            }
            HttpAction::Retry => {
                if let Some(wait) = retry_after {
                    self.budget.pause(wait);
                }
                let hint = if status == StatusCode::UNAUTHORIZED { "; check auth" } else { "" };
                Err(Failure::NotActed { message: format!("{}{hint}", words()), retry_after })
            }
            HttpAction::Unknown => Err(Failure::Unanswered(words())),
            HttpAction::Accept | HttpAction::Fail => {
                let hint = match status.is_redirection() {
                    true => self.redirect_hint(&headers),
                    false => String::new(),
                };
                Err(Failure::Refused { status, message: format!("{}{hint}", words()) })
            }
        }
    }

    fn is_exhausted(&self, headers: &HeaderMap) -> bool {
        let remaining = self.remaining.as_deref().unwrap_or("x-ratelimit-remaining");
        headers.contains_key(http::header::RETRY_AFTER)
            || headers.get(remaining).is_some_and(|left| left.as_bytes() == b"0")
    }

    fn redirect_hint(&self, headers: &HeaderMap) -> String {
        let to = headers.get(http::header::LOCATION).and_then(|to| to.to_str().ok());
        match to.and_then(|to| self.base.join(to).ok()) {
            Some(to) => format!(" to {}, which is not followed: set the URL to it", shown(&to)),
            None => String::new(),
        }
    }

    /// Refuses other origins, because credentials are sent with every request.
    pub(crate) fn check_origin(&self, url: &Url) -> Result<(), Failure> {
        let refused = |message| Err(Failure::Refused { status: StatusCode::MISDIRECTED_REQUEST, message });
        if url.origin() != self.base.origin() {
            let origin = self.base.origin().ascii_serialization();
            return refused(format!("{} is not at {origin}: credentials are sent to one origin only", shown(url)));
        }
        match self.public_only {
            true => check_public(url).or_else(refused),
            false => Ok(()),
        }
    }

    /// Returns the URL that an answer names, on the API's own origin. An API behind a proxy may write `http` for `https`.
    pub(super) fn resolve(&self, text: &str) -> Result<Url, String> {
        let mut url = self.base.join(text).map_err(|error| format!("{text:?} is not a URL: {error}"))?;
        let is_downgrade = url.scheme() == "http" && self.base.scheme() == "https";
        if is_downgrade && url.host() == self.base.host() && url.port().is_none() {
            // `http` to `https` is permitted by the URL standard.
            let _ = url.set_scheme("https");
        }
        Ok(url)
    }
}

/// Reads a body of at most `most` bytes, after decompression.
///
/// # Errors
/// The reason: it is larger, or the connection was lost.
pub(crate) async fn read_limited(mut answer: Response, most: u64) -> Result<Bytes, String> {
    let too_large = || format!("the answer is larger than {most} bytes (max_size)");
    if answer.content_length().is_some_and(|length| length > most) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) if (body.len() + chunk.len()) as u64 > most => return Err(too_large()),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body.into()),
            Err(error) => return Err(format!("the answer has not arrived whole: {}", plain(error))),
        }
    }
}
