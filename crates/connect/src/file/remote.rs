//! Source files at a URL: downloaded to a temporary file, and asked for again only if they have changed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{ACCEPT, HeaderValue};
use http::{Method, StatusCode};
use jiff::Timestamp;
use parking_lot::Mutex;
use reqwest::Response;
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt as _;
use url::Url;

use super::s3::S3File;
use crate::blocking::blocking;
use crate::connector::Settings;
use crate::http::HttpOptions;
use crate::http::budget::Budget;
use crate::http::client::{Call, Client, read_limited, shown};
use crate::http::config::{auth, header};
use crate::http::errors::{Failure, plain};
use crate::http::list::{conditions, fingerprint_of, validators_of};
use crate::http::source::parse_url;
use diorama_core::dio::Backoff;
use diorama_core::vista::{Error, Result};

/// Default maximum size of a file.
const MAX_SIZE: u64 = 1 << 30;
/// Default time within which a file must arrive.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Time for which a download waits for others of the same file.
const PATIENCE: Duration = Duration::from_secs(120);
/// Attempts to download a file.
const ATTEMPTS: u32 = 3;
/// Pause between two attempts: initial and maximum.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Maximum size of an answer that describes an error.
const MAX_ERROR: u64 = 64 << 10;

/// A file at a URL.
#[derive(Debug)]
pub(crate) struct RemoteFile {
    url: Url,
    /// The URL for messages, without secrets.
    shown: PathBuf,
    options: HttpOptions,
    /// Signer of requests to an object store.
    s3: Option<S3File>,
    client: OnceLock<Client>,
    /// The last download, until its rows are listed.
    held: Mutex<Option<Arc<Download>>>,
}

/// A downloaded file, which is deleted when it is dropped.
#[derive(Debug)]
pub(crate) struct Download {
    file: NamedTempFile,
    /// Text by which the server recognizes the file.
    fingerprint: Option<String>,
}

impl Download {
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn fingerprint(&self) -> Option<&String> {
        self.fingerprint.as_ref()
    }
}

impl RemoteFile {
    /// Reads the keys of the file at the URL `text`; `None` after reporting a mistake.
    pub(super) fn read(settings: &dyn Settings, key: &'static str, text: &str) -> Option<RemoteFile> {
        let mut options = HttpOptions {
            ca: settings.path("ca"),
            timeout: settings.duration("timeout").unwrap_or(TIMEOUT),
            max_size: settings.size("max_size", 1 << 10..=1 << 40).map_or(MAX_SIZE, |size| size as u64),
            public_only: settings.word("addresses", &["any", "public"]) == Some("public"),
            ..HttpOptions::default()
        };
        for (name, value) in settings.secret_texts("headers") {
            match header(&name, &value) {
                Some((name, value)) => drop(options.headers.insert(name, value)),
                None => settings.wrong("headers", format!("headers.{name} is not a valid header")),
            }
        }
        options.headers.entry(http::header::ACCEPT).or_insert(http::HeaderValue::from_static("*/*"));
        settings.table("auth", &mut |own| options.auth = auth(own).unwrap_or_default());
        let parsed = match text.starts_with("s3://") {
            true => {
                let (region, endpoint) = (settings.text("region"), settings.text("endpoint"));
                let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
                let file = S3File::new(text, region, endpoint, &env);
                file.and_then(|(s3, url)| parse_url(url.as_str(), options).map(|parsed| (parsed, Some(s3))))
            }
            false => parse_url(text, options).map(|parsed| (parsed, None)),
        };
        match parsed {
            Ok(((url, options), s3)) => Some(RemoteFile { s3, ..RemoteFile::new(url, options) }),
            Err(problem) => {
                settings.wrong(key, problem);
                None
            }
        }
    }

    pub(super) fn new(url: Url, options: HttpOptions) -> RemoteFile {
        let shown = shown(&url).into();
        RemoteFile { url, shown, options, s3: None, client: OnceLock::new(), held: Mutex::default() }
    }

    /// Returns the URL for messages.
    pub(super) fn shown(&self) -> &Path {
        &self.shown
    }

    /// Downloads the file, unless the last download is current.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses, or the file is too large.
    pub(super) async fn fetch(&self) -> Result<Arc<Download>> {
        let held = self.held();
        let own = held.as_ref().and_then(|held| held.fingerprint.as_deref());
        let fetched = self.attempt(own).await?;
        fetched.or(held).ok_or_else(|| Error::transient(format!("{} has no content", self.shown.display())))
    }

    /// Downloads the file; `None` if the server says that it is the one with this fingerprint.
    ///
    /// # Errors
    /// As [`RemoteFile::fetch`].
    pub(super) async fn fetch_changed(&self, fingerprint: &str) -> Result<Option<Arc<Download>>> {
        self.attempt(Some(fingerprint)).await
    }

    async fn attempt(&self, fingerprint: Option<&str>) -> Result<Option<Arc<Download>>> {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.download(fingerprint).await {
                Ok(download) => {
                    let download = download.map(Arc::new);
                    if download.is_some() {
                        self.held.lock().clone_from(&download);
                    }
                    return Ok(download);
                }
                Err(Failure::NotActed { retry_after: None, .. } | Failure::Unanswered(_)) if attempt < ATTEMPTS => {
                    tokio::time::sleep(backoff.rest_jittered()).await;
                }
                Err(failure) => return Err(failure.of_read()),
            }
        }
    }

    /// Deletes the last download, whose rows are listed.
    pub(super) fn release(&self) {
        *self.held.lock() = None;
    }

    /// Returns the last download.
    pub(super) fn held(&self) -> Option<Arc<Download>> {
        self.held.lock().clone()
    }

    fn client(&self) -> Result<&Client, Failure> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let budget = Arc::new(Budget::new(&self.options.rate));
        let client = Client::new(self.url.clone(), &self.options, budget);
        let client = client.map_err(|error| Failure::not_acted(error.to_string()))?;
        Ok(self.client.get_or_init(|| client))
    }

    /// Downloads the file once; `None` if it has this fingerprint.
    async fn download(&self, fingerprint: Option<&str>) -> Result<Option<Download>, Failure> {
        let client = self.client()?;
        let mut call = Call::new(Method::GET, self.url.clone(), PATIENCE);
        call.headers = fingerprint.map(conditions).unwrap_or_default();
        call.headers.extend(self.s3.iter().flat_map(|s3| s3.sign(&self.url, Timestamp::now())));
        if !self.options.headers.contains_key(ACCEPT) {
            call.headers.push((ACCEPT, HeaderValue::from_static("*/*")));
        }
        let (answer, _permit) = client.begin(&call).await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        if status == StatusCode::NOT_MODIFIED && fingerprint.is_some() {
            return Ok(None);
        }
        if status != StatusCode::OK {
            let body = read_limited(answer, MAX_ERROR).await.unwrap_or_default();
            // Nothing but the file is an answer.
            let refused = client.judge(&call, status, headers, body);
            let place = self.shown.display();
            return Err(refused.err().unwrap_or_else(|| Failure::not_acted(format!("{place} answers {status}"))));
        }
        let file = self.save(answer, client.max_size).await?;
        Ok(Some(Download { file, fingerprint: fingerprint_of(&validators_of(&headers)) }))
    }

    /// Writes a body of at most `most` bytes to a temporary file.
    async fn save(&self, mut answer: Response, most: u64) -> Result<NamedTempFile, Failure> {
        let place = self.shown.display();
        let too_large = || Failure::Refused {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            message: format!("{place} is larger than {most} bytes (max_size)"),
        };
        if answer.content_length().is_some_and(|length| length > most) {
            return Err(too_large());
        }
        let unsaved = |error: std::io::Error| Failure::not_acted(format!("{place} cannot be stored: {error}"));
        let made = blocking(|| {
            let file = tempfile::Builder::new().prefix("diorama-").tempfile();
            file.and_then(|file| Ok((file.reopen()?, file))).map_err(|error| Error::transient(error.to_string()))
        });
        let (writer, file) =
            made.await.map_err(|error| Failure::not_acted(format!("{place} cannot be stored: {error}")))?;
        let (mut writer, mut size) = (tokio::fs::File::from_std(writer), 0);
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) => {
                    size += chunk.len() as u64;
                    if size > most {
                        return Err(too_large());
                    }
                    writer.write_all(&chunk).await.map_err(unsaved)?;
                }
                Ok(None) => break,
                Err(error) => {
                    return Err(Failure::Unanswered(format!("{place} has not arrived whole: {}", plain(error))));
                }
            }
        }
        writer.flush().await.map_err(unsaved)?;
        Ok(file)
    }
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "s3_tests.rs"]
mod s3_tests;
