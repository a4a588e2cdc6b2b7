//! [`HttpReceiver`]: sends messages to one URL.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use reqwest::Response;
use url::Url;

use super::addresses::check_public;
use super::client::{new_client, shown};
use super::errors::{plain, retry_after};
use diorama_core::vista::{Error, Result};

/// Longest part of an answer's body that is read, in bytes.
const MOST_ANSWER: usize = 1 << 10;

/// How messages are sent.
#[derive(Clone, Debug)]
pub struct HttpReceiverOptions {
    /// Headers of every message: credentials of the receiver, for example.
    pub headers: HeaderMap,
    /// Time within which the receiver must answer (default: 15 s).
    pub timeout: Duration,
    /// PEM file with the certificates of the authorities to trust instead of the public ones.
    pub ca: Option<PathBuf>,
    /// True to refuse private and local addresses.
    pub public_only: bool,
}

impl Default for HttpReceiverOptions {
    fn default() -> Self {
        HttpReceiverOptions {
            headers: HeaderMap::new(),
            timeout: Duration::from_secs(15),
            ca: None,
            public_only: false,
        }
    }
}

/// A receiver of messages. Redirects are not followed, because a message is for one receiver.
#[derive(Debug)]
pub struct HttpReceiver {
    client: reqwest::Client,
    url: Url,
    shown: String,
    headers: HeaderMap,
}

/// Answer to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// Status of the answer.
    pub status: StatusCode,
    /// Time after which the receiver wants to be asked again.
    pub retry_after: Option<Duration>,
    /// Beginning of the body.
    pub body: String,
}

impl HttpReceiver {
    /// # Errors
    /// [`Error::Config`] if the URL is not an HTTP URL, or the certificates of the authorities cannot be read.
    pub fn new(url: &str, options: &HttpReceiverOptions) -> Result<HttpReceiver> {
        let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = parsed.ok_or_else(|| Error::Config("url is not an http:// or https:// URL".into()))?;
        if options.public_only {
            check_public(&url).map_err(|problem| Error::Config(format!("url: {problem}")))?;
        }
        let client = new_client(options.ca.as_deref(), options.timeout, options.public_only)?;
        let mut headers = options.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(HttpReceiver { client, shown: shown(&url), url, headers })
    }

    /// URL without user, password and query, which may contain secrets.
    pub fn url(&self) -> &str {
        &self.shown
    }

    /// Sends a `POST` with a JSON body.
    ///
    /// # Errors
    /// The reason why there is no answer: no connection, a wrong certificate, a timeout.
    pub async fn post(
        &self,
        headers: &[(&'static str, String)],
        body: Bytes,
    ) -> std::result::Result<HttpAnswer, String> {
        let mut all = self.headers.clone();
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).map_err(|error| format!("{name}: {error}"))?;
            all.insert(HeaderName::from_static(name), value);
        }
        let request = self.client.post(self.url.clone()).headers(all).body(body);
        let answer = request.send().await.map_err(|error| format!("{}: {}", self.shown, plain(error)))?;
        let (status, retry_after) = (answer.status(), retry_after(answer.headers()));
        Ok(HttpAnswer { status, retry_after, body: beginning(answer).await })
    }
}

/// Returns the beginning of a body as text. One that does not arrive is empty, because the status has been received.
async fn beginning(mut answer: Response) -> String {
    let mut body = Vec::new();
    while body.len() < MOST_ANSWER
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
    body.truncate(MOST_ANSWER);
    String::from_utf8_lossy(&body).into_owned()
}
