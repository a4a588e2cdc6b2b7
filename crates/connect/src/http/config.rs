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
use super::options::{HttpOptions, HttpSince};
use super::pager::{HttpPages, PageParameter, Paging, StatedTotal};
use super::pointer;
use super::rules::{HttpAction, HttpRule};
use super::source::{Http, parse_url};
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
    let text = settings.text(key)?;
    match pointer::check(&text) {
        Ok(()) => Some(text),
        Err(problem) => {
            settings.wrong(key, format!("{key}: {problem}"));
            None
        }
    }
}

fn to_cbor(value: &serde_json::Value) -> Option<CborValue> {
    super::client::parse(value.to_string().as_bytes()).ok()
}

/// Keys that select a division into pages.
const PAGINGS: [&str; 7] = ["header_link", "json_link", "cursor", "header_cursor", "page_number", "offset", "none"];

fn pages(settings: &dyn Settings) -> HttpPages {
    let parameter = |key| settings.text(key).map(|text| PageParameter::of(&text));
    let selected: Vec<&str> = PAGINGS.into_iter().filter(|key| settings.has(key)).collect();
    let needed = || {
        if !settings.has("param") {
            settings.wrong(
                "param",
                r#"a cursor requires param: the name of a query parameter, or a JSON Pointer in the body"#.into(),
            );
        }
    };
    let (more, total_pages, first) =
        (json_pointer(settings, "more"), json_pointer(settings, "pages"), settings.count("first", 0..=1_000));
    let param = parameter("param");
    let cursor = json_pointer(settings, "cursor");
    let header_cursor = settings.text("header_cursor");
    let paging = match selected.as_slice() {
        [] => Paging::Detected,
        ["header_link"] => Paging::HeaderLink(settings.text("header_link").unwrap_or_default()),
        ["json_link"] => Paging::JsonLink(json_pointer(settings, "json_link").unwrap_or_default()),
        ["cursor"] => {
            needed();
            let parameter = param.unwrap_or(PageParameter::Query(String::new()));
            Paging::Cursor { at: cursor.unwrap_or_default(), parameter, more }
        }
        ["header_cursor"] => {
            needed();
            let parameter = param.unwrap_or(PageParameter::Query(String::new()));
            Paging::HeaderCursor { header: header_cursor.unwrap_or_default(), parameter }
        }
        ["page_number"] => Paging::PageNumber {
            parameter: parameter("page_number").unwrap_or(PageParameter::Query(String::new())),
            first: first.unwrap_or(1) as u64,
            pages: total_pages,
        },
        ["offset"] => Paging::Offset { parameter: parameter("offset").unwrap_or(PageParameter::Query(String::new())) },
        ["none"] => {
            settings.flag("none");
            Paging::None
        }
        several => {
            settings.wrong("header_link", format!("page has {}: set one of them", several.join(" and ")));
            Paging::Detected
        }
    };
    let size = (settings.number("size"), parameter("size_param"));
    if size.0.is_some() != size.1.is_some() {
        settings.wrong("size", "size and size_param belong together".into());
    }
    let total = settings.text("total").map(|text| match text.strip_prefix("header:") {
        Some(header) => StatedTotal::Header(header.to_string()),
        None => StatedTotal::Body(text),
    });
    HttpPages {
        paging,
        size: size.1.zip(size.0),
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
    let required = |key: &'static str, of: &str| {
        let value = settings.secret(key);
        if !settings.has(key) {
            settings.wrong(key, format!("auth.{of} requires {key}"));
        }
        value
    };
    match selected.as_slice() {
        ["bearer"] => settings.secret("bearer").map(HttpAuth::Bearer),
        ["basic"] => Some(HttpAuth::Basic(settings.secret("basic")?, settings.secret("password").unwrap_or_default())),
        ["header"] => {
            let (name, value) = (settings.text("header"), required("value", "header"));
            let parsed = name.as_ref().and_then(|name| name.parse().ok());
            if name.is_some() && parsed.is_none() {
                settings.wrong("header", "auth.header is not a valid header name".into());
            }
            Some(HttpAuth::Header(parsed?, value?))
        }
        ["query"] => {
            let (name, value) = (settings.text("query"), required("value", "query"));
            Some(HttpAuth::Query(name?, value?))
        }
        ["oauth2_client_credentials"] => {
            let url = settings.text("oauth2_client_credentials");
            let token_url = url.as_ref().and_then(|url| url.parse::<Url>().ok());
            if url.is_some() && token_url.is_none() {
                settings.wrong("oauth2_client_credentials", "the URL of the token endpoint is not valid".into());
            }
            let of = "oauth2_client_credentials";
            let (client_id, client_secret) = (required("client_id", of), required("client_secret", of));
            let (scope, audience) = (settings.text("scope"), settings.text("audience"));
            Some(HttpAuth::ClientCredentials {
                token_url: token_url?,
                client_id: client_id?,
                client_secret: client_secret?,
                scope,
                audience,
            })
        }
        _ => {
            settings.wrong("bearer", format!("auth requires one of {}", AUTHS.join(", ")));
            None
        }
    }
}

fn rate(settings: &dyn Settings) -> HttpRate {
    HttpRate {
        per_second: settings.number("per_second"),
        per_minute: settings.number("per_minute"),
        per_hour: settings.number("per_hour"),
        concurrency: settings.count("concurrency", 1..=1_000).unwrap_or(HttpRate::default().concurrency),
        remaining: settings.text("remaining"),
        reset: settings.text("reset"),
    }
}

fn since(settings: &dyn Settings) -> Option<HttpSince> {
    let required = |key| {
        let text = settings.text(key);
        if !settings.has(key) {
            settings.wrong(key, format!("since requires {key}"));
        }
        text
    };
    let (parameter, column) = (required("param"), required("column"));
    let (lookback, full_every) = (settings.duration("lookback"), settings.duration("full_every"));
    Some(HttpSince {
        parameter: PageParameter::of(&parameter?),
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
    let (path, equals) = (json_pointer(settings, "path"), settings.text("equals"));
    Some(HttpRule { status, path, equals, contains: settings.text("contains"), action: HttpAction::of(action?) })
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
    if let Some(body) = settings.json("body").and_then(|body| to_cbor(&body)) {
        writes = writes.with_body(body);
    }
    match settings.word("if_match", &["read", "*"]) {
        Some("read") => writes = writes.with_if_match(HttpIfMatch::Read),
        Some(_) => writes = writes.with_if_match(HttpIfMatch::Any),
        None => {}
    }
    writes.content_type = text("content_type").and_then(|value| value.parse().ok());
    writes.omit = settings.texts("omit").unwrap_or_default();
    writes.delete_body = settings.json("delete_body").and_then(|body| to_cbor(&body));
    writes.sends_id = settings.flag("send_id").unwrap_or(false);
    Some(writes)
}

const KEYS: &[Key] = &[
    Key::new("source.http", "", "`https://HOST/PATH` of a list in JSON, or `env:NAME`, `file:PATH`."),
    Key::new(
        "source.path",
        "none",
        "`http`: a path below the URL, for a `[connection.NAME]` that several sources share.",
    ),
    Key::new("source.id", "detected", "`http`: the id column, as `id` of the resource."),
    Key::new("source.method", "\"GET\"", "`http`: method of the request for a page; with a body `POST`."),
    Key::new("source.body", "none", "`http`: body of the request for a page, as a table that is sent as JSON."),
    Key::new("source.headers", "{}", "`http`: headers of every request; values may be `env:NAME` or `file:PATH`."),
    Key::new("source.query", "{}", "`http`: parameters of the query of the request for a page."),
    Key::new(
        "source.rows",
        "detected",
        "`http`: JSON Pointer to the rows of a page, like `/data`; `/` is the whole answer.",
    ),
    Key::new(
        "source.cells",
        "none",
        "`http`: JSON Pointer to the columns within a row that is an envelope, like `/attributes`; its other members stay beside them.",
    ),
    Key::new(
        "source.one",
        "none",
        "`http`: path of one row below the URL, like `/{id}`. Without, one row is read by a list.",
    ),
    Key::new("source.row", "\"/\"", "`http`: JSON Pointer to the row in an answer about one row, like `/data`."),
    Key::new(
        "source.conditional",
        "false",
        "`http`: takes an unchanged first page (`ETag`, `Last-Modified`) as an unchanged list also if there are more pages. Right for \
         lists whose newest change comes first.",
    ),
    Key::new(
        "source.ca",
        "public authorities",
        "`http`: a PEM file with the certificates of the authorities to trust.",
    ),
    Key::new("source.timeout", "\"30s\"", "`http`: time within which the API must answer."),
    Key::new("source.max_size", "\"64MiB\"", "`http`: maximum size of an answer, after decompression."),
    Key::new("source.addresses", "\"any\"", "`http`: `public` refuses private and local addresses."),
    Key::new("source.page", "detected", "See `[dio.NAME.source.page]`."),
    Key::new("source.page.header_link", "", "Relation in the `Link` header that has the next page's URL: `\"next\"`."),
    Key::new("source.page.json_link", "", "JSON Pointer to the URL of the next page."),
    Key::new(
        "source.page.cursor",
        "",
        "JSON Pointer to the cursor of the next page. `/data/-1/id` is in the last row.",
    ),
    Key::new("source.page.header_cursor", "", "Header with the cursor of the next page."),
    Key::new("source.page.page_number", "", "Parameter for the number of the page."),
    Key::new(
        "source.page.offset",
        "",
        "Parameter for the number of rows to leave out. Each page begins with the last row of the page before.",
    ),
    Key::new("source.page.none", "", "`true`: the answer is the whole list."),
    Key::new("source.page.param", "", "Parameter for the cursor: a name in the query, or a JSON Pointer in the body."),
    Key::new("source.page.more", "none", "JSON Pointer to a flag that is false on the last page."),
    Key::new("source.page.first", "1", "Number of the first page."),
    Key::new("source.page.pages", "none", "JSON Pointer to the number of pages."),
    Key::new("source.page.size", "none", "Rows of a page, sent as `size_param`."),
    Key::new(
        "source.page.size_param",
        "none",
        "Parameter for `size`: a name in the query, or a JSON Pointer in the body.",
    ),
    Key::new(
        "source.page.total",
        "none",
        "JSON Pointer to the number of all rows, or `header:NAME`. A list with fewer rows is refused.",
    ),
    Key::new(
        "source.page.check",
        "by the paging",
        "Reads a list again if its ids differ from those of the last one, until no row is missing that was read before. On for numbered \
         pages and `Link` headers, where a deleted row can hide another one.",
    ),
    Key::new("source.page.max", "10000", "Maximum number of pages."),
    Key::new("source.auth", "none", "See `[dio.NAME.source.auth]`."),
    Key::new("source.auth.bearer", "", "A token: `Authorization: Bearer`."),
    Key::new("source.auth.basic", "", "A user: `Authorization: Basic`."),
    Key::new("source.auth.password", "\"\"", "The password of the user."),
    Key::new("source.auth.header", "", "Name of a header for `value`."),
    Key::new("source.auth.query", "", "Name of a parameter of the query for `value`."),
    Key::new("source.auth.value", "", "The key."),
    Key::new(
        "source.auth.oauth2_client_credentials",
        "",
        "URL of a token endpoint (OAuth 2). Tokens are renewed in time.",
    ),
    Key::new("source.auth.client_id", "", "The client's id."),
    Key::new("source.auth.client_secret", "", "The client's secret."),
    Key::new("source.auth.scope", "none", "Scopes to request."),
    Key::new("source.auth.audience", "none", "Audience to request."),
    Key::new("source.rate", "none", "See `[dio.NAME.source.rate]`."),
    Key::new("source.rate.per_second", "no limit", "Maximum number of requests in each second."),
    Key::new("source.rate.per_minute", "no limit", "Maximum number of requests in each minute."),
    Key::new("source.rate.per_hour", "no limit", "Maximum number of requests in each hour."),
    Key::new("source.rate.concurrency", "4", "Maximum number of requests at a time."),
    Key::new(
        "source.rate.remaining",
        "none",
        "Header with the number of requests that are left, like `x-ratelimit-remaining`.",
    ),
    Key::new("source.rate.reset", "none", "Header with the time at which there are more, like `x-ratelimit-reset`."),
    Key::new("source.since", "none", "See `[dio.NAME.source.since]`."),
    Key::new(
        "source.since.param",
        "required",
        "Parameter for the time: a name in the query, or a JSON Pointer in the body.",
    ),
    Key::new(
        "source.since.column",
        "required",
        "Column with the time of a row's last change: RFC 3339 or a Unix time in seconds.",
    ),
    Key::new(
        "source.since.lookback",
        "\"1m\"",
        "Time by which the request goes back, for changes that become visible late.",
    ),
    Key::new(
        "source.since.full_every",
        "\"1h\"",
        "Time after which a refresh reads the whole list, which shows deleted rows.",
    ),
    Key::new("source.responses", "by status", "Array of tables; see `[dio.NAME.source.responses]`."),
    Key::new("source.responses.status", "any", "Status of the answer."),
    Key::new("source.responses.path", "none", "JSON Pointer to a value that the answer has."),
    Key::new("source.responses.equals", "any", "Text of that value."),
    Key::new("source.responses.contains", "none", "Text within the answer."),
    Key::new(
        "source.responses.action",
        "required",
        "`retry`: try again later. `ignore`: there is nothing. `fail`: refused. `rate_limited`: send nothing until `Retry-After`.",
    ),
    Key::new("write.http", "", "Requests for writes to an `http` source; see `[dio.NAME.write.http]`."),
    Key::new("write.http.create", "none", "Method and path of a new row: `POST /`. The API may choose the id."),
    Key::new("write.http.replace", "none", "Method and path of a whole row: `PUT /{id}`."),
    Key::new("write.http.patch", "none", "Method and path of changed columns: `PATCH /{id}`."),
    Key::new("write.http.delete", "none", "Method and path of a delete: `DELETE /{id}`."),
    Key::new(
        "write.http.body",
        "\"/\"",
        "Place of the columns in the body: a JSON Pointer like `/data`, or a table in which `\"{row}\"` stands for the columns and `\"{id}\"` \
         for the id.",
    ),
    Key::new(
        "write.http.idempotency",
        "none",
        "Header for the id of the write, like `Idempotency-Key`, if the API answers a repeated one without acting again.",
    ),
    Key::new(
        "write.http.if_match",
        "none",
        "`If-Match` of changes and deletes: `read` reads the row's `ETag` before, or `*`.",
    ),
    Key::new("write.http.delete_body", "none", "Body of a delete, as a table: for an API that marks rows as deleted."),
    Key::new(
        "write.http.content_type",
        "\"application/json\"",
        "Media type of the body. `application/x-www-form-urlencoded` sends a form.",
    ),
    Key::new("write.http.omit", "[]", "Columns that the API sets by itself and does not take."),
    Key::new(
        "write.http.send_id",
        "false",
        "Sends the id column of a new row, for an API that lets its clients choose.",
    ),
];
