//! Documents of other servers that are no sources, such as the key sets of token issuers.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{ACCEPT, CACHE_CONTROL};
use url::{Host, Url};

use super::client::{read_limited, shown};
use super::errors::plain;
use crate::tls::{self, Verification};
use diorama_core::vista::{Error, Result};

/// Client for documents, over TLS except on loopback, without redirects.
#[derive(Clone, Debug)]
pub struct Documents(reqwest::Client);

/// A document.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its content.
    pub body: Bytes,
    /// Time for which it may be kept, by `Cache-Control`.
    pub max_age: Option<Duration>,
}

impl Documents {
    /// Creates a client whose requests take at most `timeout`.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no HTTP client.
    pub fn new(timeout: Duration) -> Result<Documents> {
        let tls = tls::client(&Verification::Public).map_err(Error::Config)?;
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured((*tls).clone())
            .user_agent(concat!("diorama/", env!("CARGO_PKG_VERSION")))
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none());
        let client = builder.build().map_err(|error| Error::Config(format!("no HTTP client: {}", plain(error))))?;
        Ok(Documents(client))
    }

    /// Fetches the document at `url`, of at most `most` bytes.
    ///
    /// # Errors
    /// The reason, without secrets.
    pub async fn get(&self, url: &str, most: u64) -> std::result::Result<Document, String> {
        let url = Url::parse(url).map_err(|error| format!("not a valid URL: {error}"))?;
        let is_loopback = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback) {
            return Err(format!("{}: only https is permitted", shown(&url)));
        }
        let named = |problem: String| format!("{}: {problem}", shown(&url));
        let sent = self.0.get(url.clone()).header(ACCEPT, "application/json").send().await;
        let answer = sent.map_err(|error| named(plain(error)))?;
        if answer.status().is_redirection() {
            return Err(named(format!("it answers {}: redirects are not followed", answer.status())));
        }
        if !answer.status().is_success() {
            return Err(named(format!("it answers {}", answer.status())));
        }
        let max_age = max_age(answer.headers());
        let body = read_limited(answer, most).await.map_err(named)?;
        Ok(Document { body, max_age })
    }
}

/// Returns the time of `max-age`, unless the document must not be kept at all.
pub(super) fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let directives: Vec<String> =
        values.flat_map(|value| value.split(',')).map(|one| one.trim().to_ascii_lowercase()).collect();
    if directives.iter().any(|one| one == "no-store" || one == "no-cache") {
        return None;
    }
    let seconds = directives.iter().find_map(|one| one.strip_prefix("max-age=")?.parse().ok());
    seconds.map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_document_is_read_from_its_headers() {
        let age = |value: &str| max_age(&HeaderMap::from_iter([(CACHE_CONTROL, value.parse().unwrap())]));
        assert_eq!(age("public, max-age=3600, must-revalidate"), Some(Duration::from_secs(3_600)));
        assert_eq!(age("Max-Age=5"), Some(Duration::from_secs(5)));
        for none in ["no-store", "no-cache, max-age=60", "public", "max-age=soon"] {
            assert_eq!(age(none), None, "{none}");
        }
    }

    #[tokio::test]
    async fn documents_of_other_hosts_need_tls() {
        let documents = Documents::new(Duration::from_secs(1)).unwrap();
        for url in ["http://example.com/keys", "http://127.0.0.1.example.com/", "file:///etc/passwd", "keys.json"] {
            let error = documents.get(url, 1_000).await.unwrap_err();
            assert!(error.contains("https") || error.contains("not a valid URL"), "{error}");
        }
    }
}
