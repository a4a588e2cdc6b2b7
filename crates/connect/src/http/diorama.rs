//! Another Diorama as a source: its rows, its writes with their operation ids, and its events, resumed by position.

use std::sync::Arc;

use async_trait::async_trait;
#[cfg(feature = "ws")]
use http::HeaderValue;
use http::{HeaderName, Method};
use serde::Deserialize;
use url::Url;

use super::auth::HttpAuth;
use super::budget::{Budget, HttpRate};
use super::client::{Call, Client, shown};
use super::errors::Failure;
use super::options::HttpOptions;
use super::paging::{HttpPages, Paging};
use super::source::{Http, PATIENCE, parse_url};
use super::write::HttpWrites;
use crate::connector::{Connector, Key, Settings, Source, SourceRequest};
#[cfg(feature = "ws")]
use crate::connector::{Feed, FeedFormat, FollowMode};
#[cfg(feature = "ws")]
use crate::ws::WsFeed;
use diorama_core::vista::{Column, ColumnType, Error, Flag, Result, Vista};

/// Header of another Diorama by which it recognizes a repeated write.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Connector for a resource of another Diorama.
#[derive(Clone, Copy, Debug)]
pub struct DioramaConnector;

impl Connector for DioramaConnector {
    fn name(&self) -> &'static str {
        "diorama"
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn source_form(&self) -> Option<&'static str> {
        Some(r#"{ diorama = "https://HOST/NAME" }"#)
    }

    fn source(&self, settings: &dyn Settings) -> Option<Arc<dyn Source>> {
        let (url, token) = (settings.secret("diorama"), settings.secret("token"));
        let auth = token.map_or(HttpAuth::None, HttpAuth::Bearer);
        let options =
            HttpOptions { auth, ca: settings.path("ca"), one: Some("/{id}".into()), ..HttpOptions::default() };
        match parse_url(&url?, options) {
            Ok((url, options)) => Some(Arc::new(OtherDiorama { url, options })),
            Err(problem) => {
                settings.wrong("diorama", problem);
                None
            }
        }
    }
}

/// A resource of another Diorama.
#[derive(Clone, Debug)]
struct OtherDiorama {
    url: Url,
    options: HttpOptions,
}

/// Answer of `GET /NAME/_schema`, as far as it is used.
#[derive(Deserialize)]
struct Description {
    id: String,
    columns: Vec<DescribedColumn>,
    capabilities: DescribedCapabilities,
    limits: DescribedLimits,
}

#[derive(Deserialize)]
struct DescribedColumn {
    name: String,
    #[serde(rename = "type")]
    ty: ColumnType,
    #[serde(default)]
    flags: Vec<Flag>,
    timezone: Option<String>,
}

#[derive(Deserialize)]
struct DescribedCapabilities {
    refused: Vec<String>,
}

#[derive(Deserialize)]
struct DescribedLimits {
    max_limit: u64,
}

/// Reads the description of a resource.
fn parse(body: &[u8]) -> Result<Description, serde_json::Error> {
    serde_json::from_slice(body)
}

/// Makes options of the description of a resource.
#[cfg(any(test, feature = "testing"))]
pub(super) fn describe(body: &[u8]) {
    let url: Option<Url> = "https://diorama.example/rows".parse().ok();
    if let (Some(url), Ok(description)) = (url, parse(body)) {
        let options = OtherDiorama { url, options: HttpOptions::default() }.options(description);
        drop(options.check_pointers());
    }
}

impl OtherDiorama {
    /// Reads the description of the resource.
    async fn describe(&self, budget: Arc<Budget>) -> Result<Description> {
        let client = Client::new(self.url.clone(), &self.options, budget)?;
        let mut url = self.url.clone();
        url.set_path(&format!("{}/_schema", self.url.path().trim_end_matches('/')));
        let reply = client.send(&Call::new(Method::GET, url, PATIENCE)).await.map_err(Failure::of_read)?;
        parse(&reply.body)
            .map_err(|error| Error::Config(format!("{} is not a resource of a Diorama: {error}", shown(&self.url))))
    }

    /// Returns the options for the resource: its columns, pages after the last row, and the writes that it takes.
    fn options(&self, description: Description) -> HttpOptions {
        let Description { id, columns, capabilities, limits } = description;
        let column = |own: DescribedColumn| {
            let mut column = Column::new(own.name, own.ty);
            (column.flags, column.timezone) = (own.flags, own.timezone.map(Arc::from));
            column
        };
        let can = |kind: &str| !capabilities.refused.iter().any(|refused| refused == kind);
        let request = |can: bool, text: &'static str| can.then_some(text);
        let writes = HttpWrites::new(
            request(can("insert"), "POST /"),
            request(can("update"), "PUT /{id}"),
            request(can("update"), "PATCH /{id}"),
            request(can("delete"), "DELETE /{id}"),
        );
        let writes = writes.ok().filter(|writes| writes.capabilities() != (false, false, false));
        let paging = Paging::HeaderLink("next".into());
        HttpOptions {
            id: Some(id),
            columns: columns.into_iter().map(column).collect(),
            rows: Some(String::new()),
            // An empty place begins a list that continues after its last row.
            query: vec![("limit".into(), limits.max_limit.to_string()), ("after".into(), String::new())],
            pages: HttpPages { paging, check: Some(false), ..HttpPages::default() },
            writes: writes.map(|writes| HttpWrites { sends_id: true, ..writes.with_idempotency(IDEMPOTENCY_KEY) }),
            ..self.options.clone()
        }
    }
}

#[async_trait]
impl Source for OtherDiorama {
    fn describe(&self) -> String {
        shown(&self.url)
    }

    async fn open(&self, request: SourceRequest) -> Result<Vista> {
        let budget = Arc::new(Budget::new(&HttpRate { concurrency: 16, ..HttpRate::default() }));
        let description = self.describe(Arc::clone(&budget)).await?;
        let mut options = self.options(description);
        for column in request.columns {
            match options.columns.iter_mut().find(|own| own.name == column.name) {
                Some(own) => *own = column,
                None => options.columns.push(column),
            }
        }
        options.id = request.id.or(options.id);
        let http = Http::connect(&request.name, self.url.clone(), options, budget).await?;
        Ok(Vista::new(request.name, http))
    }

    #[cfg(feature = "ws")]
    fn follow(&self, _: &str, mode: FollowMode) -> Option<Arc<dyn Feed>> {
        (mode == FollowMode::Auto).then(|| Arc::new(Events(self.clone())) as Arc<dyn Feed>)
    }
}

/// Events of a resource of another Diorama.
#[cfg(feature = "ws")]
#[derive(Debug)]
struct Events(OtherDiorama);

#[cfg(feature = "ws")]
impl Events {
    fn feed(&self, format: FeedFormat) -> Result<WsFeed> {
        let OtherDiorama { url, options } = &self.0;
        let rest = url.as_str().split_once(':').map_or("", |(_, rest)| rest);
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        let mut feed = WsFeed::new(format!("{scheme}:{}/events", rest.trim_end_matches('/')), format);
        if let HttpAuth::Bearer(token) = &options.auth {
            let value = HeaderValue::from_str(&format!("Bearer {token}"));
            let mut value = value.map_err(|_| Error::Config("the token is not a valid header value".into()))?;
            value.set_sensitive(true);
            feed.headers.push((http::header::AUTHORIZATION, value));
        }
        if let Some(path) = &options.ca {
            let pem = std::fs::read(path);
            feed.ca = Some(pem.map_err(|error| Error::Config(format!("ca: {}: {error}", path.display())))?);
        }
        Ok(feed)
    }
}

#[cfg(feature = "ws")]
impl Feed for Events {
    fn check(&self) -> Result<()> {
        self.feed(FeedFormat::Diorama).map(drop)
    }

    fn start(&self, dio: &diorama_core::Dio, _: FeedFormat) -> Result<()> {
        self.feed(FeedFormat::Diorama)?.start(dio)
    }
}

const KEYS: &[Key] = &[
    Key::new(
        "source.diorama",
        "",
        "`https://HOST/NAME`: a resource of another Diorama. `feed = \"auto\"` follows its events.",
    ),
    Key::new("source.token", "none", "`diorama`: a token of the other server."),
    Key::new("source.ca", "public authorities", "`diorama`: the same."),
];

#[cfg(test)]
#[cfg(feature = "ws")]
mod tests;
