//! Reader of `[notify.NAME]`.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use diorama_gateway::notify::NotifyEvent;

use super::value::{Reader, Secret, nearest};

/// Maximum number of delays between attempts.
const MOST_RETRIES: usize = 50;

/// Configuration of one notification.
#[derive(Clone, Debug)]
pub struct NotifySpec {
    /// The name.
    pub name: String,
    /// The Dio whose events it sends; by default the one with the notification's name.
    pub dio: String,
    /// URL of the receiver.
    pub url: Secret,
    /// Secrets with which messages are signed, newest first.
    pub secrets: Vec<Secret>,
    /// Filter of the rows.
    pub filter: Option<String>,
    /// Columns of the rows; empty for all.
    pub select: Vec<String>,
    /// Events to send.
    pub events: Option<Vec<NotifyEvent>>,
    /// Additional headers of messages.
    pub headers: HeaderMap,
    /// Delays between attempts.
    pub retry: Option<Vec<Duration>>,
    /// Maximum number of messages under way.
    pub concurrency: Option<usize>,
    /// Time within which the receiver must answer.
    pub timeout: Option<Duration>,
    /// File with authorities to trust.
    pub ca: Option<PathBuf>,
    /// True to refuse private addresses.
    pub public_only: bool,
    /// True to begin with the oldest stored event.
    pub from_earliest: bool,
}

impl NotifySpec {
    pub(super) fn read(name: String, reader: Reader<'_>, dios: &[String]) -> Option<NotifySpec> {
        let dio = reader.text("dio").unwrap_or_else(|| name.clone());
        if !dios.contains(&dio) {
            let at = reader.position("dio").unwrap_or(reader.at);
            let hint = match nearest(&dio, dios.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("the resources are {}", dios.join(", ")),
            };
            reader.problem(at, format!("[notify.{name}] refers to {dio:?}, but there is no [dio.{dio}]: {hint}"));
        }
        for (key, example) in
            [("url", "url = \"https://example.com/hooks\""), ("secrets", "secrets = [\"env:NOTIFY_SECRET\"]")]
        {
            if reader.position(key).is_none() {
                reader.problem(reader.at, format!("[notify.{name}] requires {example}"));
            }
        }
        let (url, secrets) = (reader.secret_text("url"), reader.secrets("secrets", 1));
        let options = NotifySpec {
            filter: reader.text("where"),
            select: reader.texts("select").unwrap_or_default(),
            events: events(&reader),
            headers: headers(&reader),
            retry: retry(&reader),
            concurrency: reader.count("concurrency", 1..=1_000),
            timeout: reader.duration("timeout"),
            ca: reader.path("ca"),
            public_only: reader.word("addresses", &["any", "public"]) == Some("public"),
            from_earliest: reader.word("from", &["now", "earliest"]) == Some("earliest"),
            name,
            dio,
            url: Secret::default(),
            secrets: Vec::new(),
        };
        reader.finish();
        let (url, secrets) = url.zip(secrets)?;
        Some(NotifySpec { url, secrets, ..options })
    }
}

fn events(reader: &Reader<'_>) -> Option<Vec<NotifyEvent>> {
    let words = reader.texts("events")?;
    let mut events = Vec::new();
    for word in &words {
        match NotifyEvent::ALL.into_iter().find(|event| event.as_str() == word) {
            Some(event) => events.push(event),
            None => {
                let known = NotifyEvent::ALL.map(NotifyEvent::as_str).join(", ");
                let at = reader.position("events").unwrap_or(reader.at);
                reader.problem(at, format!("events: {word:?} is not an event: use {known}"));
            }
        }
    }
    Some(events)
}

fn headers(reader: &Reader<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in reader.secret_texts("headers") {
        let at = reader.position("headers").unwrap_or(reader.at);
        let own = name.starts_with("webhook-") || name.eq_ignore_ascii_case("content-type");
        match (HeaderName::try_from(&name), HeaderValue::from_str(value.reveal())) {
            (Ok(_), _) if own => reader.problem(at, format!("headers: {name:?} is set for every message")),
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
            (Err(_), _) => reader.problem(at, format!("headers: {name:?} is not a valid header name")),
            (_, Err(_)) => reader.problem(at, format!("headers: the value of {name} is not valid in a header")),
        }
    }
    headers
}

fn retry(reader: &Reader<'_>) -> Option<Vec<Duration>> {
    let delays = reader.durations("retry")?;
    if delays.len() > MOST_RETRIES {
        let at = reader.position("retry").unwrap_or(reader.at);
        reader.problem(at, format!("retry: at most {MOST_RETRIES} delays are supported"));
    }
    Some(delays)
}
