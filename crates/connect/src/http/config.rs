//! Configuration `source = { http = "URL" }`, and `write.http` for writes to it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use http::header::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use url::Url;

use super::auth::HttpAuth;
use super::budget::{Budget, HttpRate};
use super::client::shown;
use super::keys::KEYS;
use super::options::{HttpOptions, HttpSince};
use super::paging::{HttpPages, PageParameter, Paging, StatedTotal};
use super::pointer;
use super::rules::{HttpAction, HttpRule};
use super::source::{Http, parse_url};
use super::template::BodyTemplate;
use super::write::{HttpIfMatch, HttpWrites};
use crate::connector::{Connector, Key, Settings, Source, SourceRequest};
use diorama_core::record::CborValue;
use diorama_core::vista::{Result, Vista};

/// Connector for HTTP APIs.
///
/// Sources on one origin with the same credentials and the same rate limit share it.
#[derive(Debug, Default)]
pub struct HttpConnector {
    budgets: Mutex<HashMap<(String, HttpAuth, HttpRate), Weak<Budget>>>,
}

impl Connector for HttpConnector {
    fn name(&self) -> &'static str {
        "http"
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn source_form(&self) -> Option<&'static str> {
        Some(r#"{ http = "https://HOST/PATH" }"#)
    }

    fn source(&self, settings: &dyn Settings) -> Option<Arc<dyn Source>> {
        let url = settings.secret("http");
        let path = settings.text("path");
        let options = options(settings);
        let (mut url, options) = match parse_url(&url?, options) {
            Ok(parsed) => parsed,
            Err(problem) => {
                settings.wrong("http", problem);
                return None;
            }
        };
        if let Some(path) = path {
            let joined = format!("{}/{}", url.path().trim_end_matches('/'), path.trim_start_matches('/'));
            url.set_path(&joined);
        }
        let budget = self.budget(&url, &options);
        Some(Arc::new(HttpSource { url, options, budget }))
    }
}

impl HttpConnector {
    fn budget(&self, url: &Url, options: &HttpOptions) -> Arc<Budget> {
        let key = (url.origin().ascii_serialization(), options.auth.clone(), options.rate.clone());
        let mut budgets = self.budgets.lock();
        if let Some(budget) = budgets.get(&key).and_then(Weak::upgrade) {
            return budget;
        }
        budgets.retain(|_, budget| budget.strong_count() > 0);
        let budget = Arc::new(Budget::new(&options.rate));
        budgets.insert(key, Arc::downgrade(&budget));
        budget
    }
}

/// A list of an API.
#[derive(Debug)]
struct HttpSource {
    url: Url,
    options: HttpOptions,
    budget: Arc<Budget>,
}

#[async_trait]
impl Source for HttpSource {
    fn describe(&self) -> String {
        shown(&self.url)
    }

    async fn open(&self, request: SourceRequest) -> Result<Vista> {
        let SourceRequest { name, id, columns, .. } = request;
        let mut options = self.options.clone();
        options.id = id.or(options.id);
        options.columns = columns;
        let http = Http::connect(&name, self.url.clone(), options, Arc::clone(&self.budget)).await?;
        Ok(Vista::new(name, http))
    }
}

fn options(settings: &dyn Settings) -> HttpOptions {
    let defaults = HttpOptions::default();
    let mut options = HttpOptions {
        id: settings.text("id"),
        query: settings.secret_texts("query"),
        rows: json_pointer(settings, "rows"),
        cells: json_pointer(settings, "cells"),
        one: settings.text("one"),
        row: json_pointer(settings, "row").unwrap_or_default(),
        body: settings.json("body").and_then(|body| to_cbor(&body)),
        conditional: settings.flag("conditional").unwrap_or(false),
        ca: settings.path("ca"),
        timeout: settings.duration("timeout").unwrap_or(defaults.timeout),
        max_size: settings.size("max_size", 1 << 10..=1 << 30).map_or(defaults.max_size, |size| size as u64),
        public_only: settings.word("addresses", &["any", "public"]) == Some("public"),
        ..defaults
    };
    if options.one.as_ref().is_some_and(|one| !one.contains("{id}")) {
        settings.wrong("one", r#"one requires {id}, like "/{id}""#.into());
    }
    let method = settings.word("method", &["GET", "POST"]);
    options.method = match method {
        Some("POST") => Method::POST,
        None if options.body.is_some() => Method::POST,
        _ => Method::GET,
    };
    for (name, value) in settings.secret_texts("headers") {
        match header(&name, &value) {
            Some((name, value)) => drop(options.headers.insert(name, value)),
            None => settings.wrong("headers", format!("headers.{name} is not a valid header")),
        }
    }
    settings.table("page", &mut |page| options.pages = pages(page));
    settings.table("auth", &mut |own| options.auth = auth(own).unwrap_or_default());
    settings.table("rate", &mut |own| options.rate = rate(own));
    settings.tables("responses", &mut |rule| options.rules.extend(self::rule(rule)));
    settings.table("since", &mut |own| options.since = since(own));
    settings.table("write", &mut |own| options.writes = writes(own));
    options
}

pub(crate) fn header(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some((name.parse().ok()?, value))
}

fn json_pointer(settings: &dyn Settings, key: &'static str) -> Option<String> {
    settings.text(key).filter(|text| is_pointer(settings, key, text))
}

/// Returns true if `text` is a JSON Pointer, and reports it otherwise.
fn is_pointer(settings: &dyn Settings, key: &'static str, text: &str) -> bool {
    let checked = pointer::check(text);
    if let Err(problem) = &checked {
        settings.wrong(key, format!("{key}: {problem}"));
    }
    checked.is_ok()
}

/// Reads the place of a parameter in a request.
fn parameter(settings: &dyn Settings, key: &'static str) -> Option<PageParameter> {
    let parameter = settings.text(key).map(|text| PageParameter::of(&text))?;
    let fits = match &parameter {
        PageParameter::Query(_) => true,
        PageParameter::Body(at) => is_pointer(settings, key, at),
    };
    fits.then_some(parameter)
}

/// Reads a body of writes: a JSON Pointer, or a document.
fn body(settings: &dyn Settings, key: &'static str) -> Option<BodyTemplate> {
    let body = settings.json(key)?;
    let fits = body.as_str().is_none_or(|at| is_pointer(settings, key, at));
    fits.then(|| to_cbor(&body).map(BodyTemplate::of)).flatten()
}

fn to_cbor(value: &serde_json::Value) -> Option<CborValue> {
    super::client::parse(value.to_string().as_bytes()).ok()
}

/// Keys that select a division into pages.
const PAGINGS: [&str; 7] = ["header_link", "json_link", "cursor", "header_cursor", "page_number", "offset", "none"];

fn pages(settings: &dyn Settings) -> HttpPages {
    let text = |key| settings.text(key);
    let parameter = |key| parameter(settings, key);
    let selected: Vec<&str> = PAGINGS.into_iter().filter(|key| settings.has(key)).collect();
    let (header_link, json_link, none) =
        (text("header_link"), json_pointer(settings, "json_link"), settings.flag("none"));
    let (cursor, header_cursor, param) = (json_pointer(settings, "cursor"), text("header_cursor"), parameter("param"));
    let (page_number, offset) = (parameter("page_number"), parameter("offset"));
    let (more, pages, first) =
        (json_pointer(settings, "more"), json_pointer(settings, "pages"), settings.count("first", 0..=1_000));
    let (size, size_param) = (settings.number("size"), parameter("size_param"));
    let overlap = settings.flag("overlap").unwrap_or(true);
    if settings.has("overlap") && !settings.has("offset") {
        settings.wrong("overlap", "overlap belongs to offset".into());
    }
    if settings.has("offset") && overlap && size == Some(1) {
        settings.wrong("size", "size must be at least 2 with offset, because pages overlap by a row".into());
    }
    if size.is_some() != size_param.is_some() {
        settings.wrong("size", "size and size_param belong together".into());
    }
    if (cursor.is_some() || header_cursor.is_some()) && param.is_none() && !settings.has("param") {
        let problem = "a cursor requires param: the name of a query parameter, or a JSON Pointer in the body";
        settings.wrong("param", problem.into());
    }
    let paging = match selected.as_slice() {
        [_] => None
            .or(header_link.map(Paging::HeaderLink))
            .or(json_link.map(Paging::JsonLink))
            .or(cursor.zip(param.clone()).map(|(at, parameter)| Paging::Cursor { at, parameter, more }))
            .or(header_cursor.zip(param).map(|(header, parameter)| Paging::HeaderCursor { header, parameter }))
            .or(page_number.map(|parameter| {
                let first = first.unwrap_or(1) as u64;
                Paging::PageNumber { parameter, first, pages }
            }))
            .or(offset.map(|parameter| Paging::Offset { parameter, overlap }))
            .or(none.filter(|none| *none).map(|_| Paging::None)),
        [] => None,
        several => {
            settings.wrong("header_link", format!("page has {}: set one of them", several.join(" and ")));
            None
        }
    };
    let total = text("total").and_then(|text| match text.strip_prefix("header:") {
        Some(header) => Some(StatedTotal::Header(header.to_string())),
        None => is_pointer(settings, "total", &text).then_some(StatedTotal::Body(text)),
    });
    HttpPages {
        paging: paging.unwrap_or_default(),
        size: size_param.zip(size),
        total,
        check: settings.flag("check"),
        most: settings.count("max", 1..=1_000_000).unwrap_or(HttpPages::default().most),
    }
}

/// Default time by which a list of changes goes back.
const LOOKBACK: Duration = Duration::from_secs(60);
/// Default time between two whole lists, if changes are listed in between.
const FULL_EVERY: Duration = Duration::from_secs(3_600);

/// Keys that select credentials.
const AUTHS: [&str; 5] = ["bearer", "basic", "header", "query", "oauth2_client_credentials"];

pub(crate) fn auth(settings: &dyn Settings) -> Option<HttpAuth> {
    let selected: Vec<&str> = AUTHS.into_iter().filter(|key| settings.has(key)).collect();
    let (text, secret) = (|key| settings.text(key), |key| settings.secret(key));
    let (bearer, basic, password) = (secret("bearer"), secret("basic"), secret("password"));
    let (header, query, value) = (text("header"), text("query"), secret("value"));
    let (token_url, client_id, client_secret) =
        (text("oauth2_client_credentials"), secret("client_id"), secret("client_secret"));
    let (scope, audience) = (text("scope"), text("audience"));
    let needed = |kind: &str, keys: &[&'static str]| {
        for key in keys.iter().filter(|key| selected == [kind] && !settings.has(key)) {
            settings.wrong(key, format!("auth.{kind} requires {key}"));
        }
    };
    needed("header", &["value"]);
    needed("query", &["value"]);
    needed("oauth2_client_credentials", &["client_id", "client_secret"]);
    match selected.as_slice() {
        ["bearer"] => bearer.map(HttpAuth::Bearer),
        ["basic"] => Some(HttpAuth::Basic(basic?, password.unwrap_or_default())),
        ["header"] => match header?.parse() {
            Ok(name) => Some(HttpAuth::Header(name, value?)),
            Err(_) => {
                settings.wrong("header", "auth.header is not a valid header name".into());
                None
            }
        },
        ["query"] => Some(HttpAuth::Query(query?, value?)),
        ["oauth2_client_credentials"] => match token_url?.parse::<Url>() {
            Ok(token_url) => Some(HttpAuth::ClientCredentials {
                token_url,
                client_id: client_id?,
                client_secret: client_secret?,
                scope,
                audience,
            }),
            Err(_) => {
                settings.wrong("oauth2_client_credentials", "the URL of the token endpoint is not valid".into());
                None
            }
        },
        [] => {
            settings.wrong("bearer", format!("auth requires one of {}", AUTHS.join(", ")));
            None
        }
        several => {
            settings.wrong("bearer", format!("auth has {}: set one of them", several.join(" and ")));
            None
        }
    }
}

fn rate(settings: &dyn Settings) -> HttpRate {
    HttpRate {
        per_second: settings.number("per_second"),
        per_minute: settings.number("per_minute"),
        per_hour: settings.number("per_hour"),
        burst: settings.number("burst"),
        concurrency: settings.count("concurrency", 1..=1_000).unwrap_or(HttpRate::default().concurrency),
        remaining: settings.text("remaining"),
        reset: settings.text("reset"),
    }
}

fn since(settings: &dyn Settings) -> Option<HttpSince> {
    for key in ["param", "column"].into_iter().filter(|key| !settings.has(key)) {
        settings.wrong(key, format!("since requires {key}"));
    }
    let (parameter, column) = (parameter(settings, "param"), settings.text("column"));
    let (lookback, full_every) = (settings.duration("lookback"), settings.duration("full_every"));
    Some(HttpSince {
        parameter: parameter?,
        column: column?,
        lookback: lookback.unwrap_or(LOOKBACK),
        full_every: full_every.unwrap_or(FULL_EVERY),
    })
}

fn rule(settings: &dyn Settings) -> Option<HttpRule> {
    let action = settings.word("action", &HttpAction::WORDS);
    if !settings.has("action") {
        settings.wrong("action", format!("a response requires action: one of {}", HttpAction::WORDS.join(", ")));
    }
    let status = settings.count("status", 100..=599).and_then(|status| u16::try_from(status).ok());
    let (path, equals, contains) = (json_pointer(settings, "path"), settings.text("equals"), settings.text("contains"));
    Some(HttpRule { status, path, equals, contains, action: HttpAction::of(action?) })
}

fn writes(settings: &dyn Settings) -> Option<HttpWrites> {
    let text = |key| settings.text(key);
    let (create, replace, patch, delete) = (text("create"), text("replace"), text("patch"), text("delete"));
    let parsed = HttpWrites::new(create.as_deref(), replace.as_deref(), patch.as_deref(), delete.as_deref());
    let mut writes = match parsed {
        Ok(writes) => writes,
        Err(problem) => {
            settings.wrong("create", problem);
            return None;
        }
    };
    if writes.capabilities() == (false, false, false) {
        settings.wrong(
            "create",
            r#"write.http requires create, replace, patch or delete, like patch = "PATCH /{id}""#.into(),
        );
    }
    if let Some(header) = text("idempotency") {
        match header.parse() {
            Ok(header) => writes = writes.with_idempotency(header),
            Err(_) => settings.wrong("idempotency", format!("{header:?} is not a valid header name")),
        }
    }
    writes.body = body(settings, "body");
    writes.create_body = body(settings, "create_body");
    match settings.word("if_match", &["read", "*"]) {
        Some("read") => writes = writes.with_if_match(HttpIfMatch::Read),
        Some(_) => writes = writes.with_if_match(HttpIfMatch::Any),
        None => {}
    }
    if let Some(content_type) = text("content_type") {
        writes.content_type = content_type.parse().ok();
        if writes.content_type.is_none() {
            settings.wrong("content_type", format!("{content_type:?} is not a valid header value"));
        }
    }
    writes.omit = settings.texts("omit").unwrap_or_default();
    writes.delete_body = settings.json("delete_body").and_then(|body| to_cbor(&body));
    writes.sends_id = settings.flag("send_id").unwrap_or(false);
    Some(writes)
}
