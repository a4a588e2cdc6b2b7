//! Configuration `feed = { redis = "redis://HOST", stream = "STREAM" }` and `write = { redis = "redis://HOST", stream = "STREAM" }`.

use std::sync::Arc;

use async_trait::async_trait;

use super::address::RedisAddress;
use super::cache::RedisCache;
use super::feed::RedisBroker;
use super::route::RedisPublisher;
use crate::connector::{CacheRequest, CacheStore, Connector, Feed, FeedFormat, Key, Route, Settings, SourceRequest};
use crate::stream::{StreamFeed, StreamRoute, WriteFormat};
use diorama_core::Dio;
use diorama_core::vista::{Result, Schema, Vista};

/// Connector for Redis and Valkey.
#[derive(Clone, Copy, Debug)]
pub struct RedisConnector;

/// Writes under way at a time.
const CONCURRENCY: usize = 256;

/// Form of routes and feeds.
const FORM: &str = r#"{ redis = "redis://HOST:PORT", stream = "STREAM" }"#;

impl Connector for RedisConnector {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn route_form(&self) -> Option<&'static str> {
        Some(FORM)
    }

    fn route(&self, settings: &dyn Settings) -> Option<Arc<dyn Route>> {
        let format = settings.word("format", &WriteFormat::WORDS).map_or(WriteFormat::Native, WriteFormat::of);
        let stream = stream(settings, r#"a redis route requires stream = "STREAM""#);
        let max_length = settings.number("maxlen");
        Some(Arc::new(RedisRoute { address: RedisAddress::read(settings)?, stream: stream?, max_length, format }))
    }

    fn cache_schemes(&self) -> &'static [&'static str] {
        &["redis", "rediss", "valkey", "valkeys", "redis+unix"]
    }

    fn cache(&self, request: CacheRequest) -> std::result::Result<CacheStore, String> {
        let address = RedisAddress::parse(&request.url)?.with_ca(request.ca);
        let name = address.to_string();
        Ok(CacheStore { name, backend: Arc::new(RedisCache::new(address, &request.prefix)) })
    }

    fn feed_form(&self) -> Option<&'static str> {
        Some(FORM)
    }

    fn feed(&self, settings: &dyn Settings) -> Option<Arc<dyn Feed>> {
        let stream = stream(settings, r#"a redis feed requires stream = "STREAM""#);
        Some(Arc::new(RedisFeed(RedisBroker { address: RedisAddress::read(settings)?, stream: stream? })))
    }
}

/// Reads the key of the stream; `None` after reporting that it is missing.
fn stream(settings: &dyn Settings, missing: &str) -> Option<String> {
    let stream = settings.text("stream").filter(|stream| !stream.is_empty());
    if stream.is_none() {
        settings.wrong("stream", missing.into());
    }
    stream
}

/// Route to a stream.
#[derive(Debug)]
struct RedisRoute {
    address: RedisAddress,
    stream: String,
    max_length: Option<u64>,
    format: WriteFormat,
}

#[async_trait]
impl Route for RedisRoute {
    async fn open(&self, name: &str, schema: &Arc<Schema>) -> Result<Vista> {
        let publisher = RedisPublisher::new(self.address.clone(), self.stream.clone(), self.max_length);
        publisher.look().await;
        Ok(StreamRoute::vista(publisher, self.format, name, Arc::clone(schema)))
    }

    fn concurrency(&self) -> usize {
        CONCURRENCY
    }
}

/// Feed of a stream.
#[derive(Debug)]
struct RedisFeed(RedisBroker);

#[async_trait]
impl Feed for RedisFeed {
    fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn inspect(&self, _: &SourceRequest) -> Result<Option<String>> {
        let (_, warnings, counters) = self.0.look().await?;
        let RedisBroker { address, stream } = &self.0;
        let content = match counters {
            Some(counters) => format!("the stream {stream} of {address} has {} entries", counters.length),
            None => format!("{address} has no stream {stream} yet"),
        };
        Ok(Some(std::iter::once(content).chain(warnings).collect::<Vec<_>>().join("; ")))
    }

    fn start(&self, dio: &Dio, format: FeedFormat) -> Result<()> {
        let RedisBroker { address, stream } = &self.0;
        let (name, key) = (format!("{address} stream {stream}"), format!("redis:{stream}"));
        StreamFeed::start(self.0.clone(), dio, name, &key, format)
    }
}

const KEYS: &[Key] = &[
    Key::new(
        "write.redis",
        "",
        "A server of Redis or Valkey: `redis://HOST:PORT/DATABASE`, or `rediss://` for TLS, or `env:NAME`, or `file:PATH`.",
    ),
    Key::new("write.stream", "required by `redis`", "The key of the stream."),
    Key::new("write.maxlen", "", "`redis`: remove the oldest entries if the stream has more than about so many."),
    Key::new("write.ca", "public authorities", "`redis`: the same."),
    Key::new("write.user", "", "`redis`: the same."),
    Key::new("write.password", "", "`redis`: the same."),
    Key::new(
        "feed.redis",
        "",
        "A server of Redis or Valkey: `redis://HOST:PORT/DATABASE`, or `rediss://` for TLS, or `env:NAME`, or `file:PATH`.",
    ),
    Key::new("feed.stream", "required by `redis`", "`redis`: the key of the stream."),
    Key::new("feed.user", "", "`redis`: the same."),
    Key::new("feed.password", "", "`redis`: the same."),
];
