//! Contract of connectors: the configuration that a system reads, and the roles that it offers.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use diorama_core::cache::CacheBackend;
#[cfg(feature = "feed")]
use diorama_core::vista::Error;
use diorama_core::vista::{Column, Result, Schema, Vista};

/// Connector for one system: a file format, a database, a broker.
///
/// A connector reads its own part of the configuration and offers the roles that it has; the others keep their defaults. It
/// validates the settings it reads and reports every mistake to the [`Settings`]. It opens nothing: the returned values do.
pub trait Connector: Send + Sync + 'static {
    /// Returns the key that selects this connector: `source = { csv = "FILE" }`.
    fn name(&self) -> &'static str;

    /// Returns the keys that it reads, for the configuration reference. The keys of a role are listed under that role.
    fn keys(&self) -> &'static [Key] {
        &[]
    }

    /// Returns the form of a source in the configuration for messages, like `{ csv = "FILE" }`; `None` if it has no source.
    fn source_form(&self) -> Option<&'static str> {
        None
    }

    /// Returns the source that `settings`, the table `source`, describes; `None` after reporting a mistake.
    fn source(&self, settings: &dyn Settings) -> Option<Arc<dyn Source>> {
        let _ = settings;
        None
    }

    /// Returns the file extensions, in lower case, that it serves without configuration: `csv`, `tsv`.
    fn endings(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns the source for the file at `path` with default settings. Called only for its [`endings`](Connector::endings).
    fn file(&self, path: &Path) -> Option<Arc<dyn Source>> {
        let _ = path;
        None
    }

    /// Returns the form of a write route in the configuration; `None` if it has none.
    fn route_form(&self) -> Option<&'static str> {
        None
    }

    /// Returns the write route that `settings`, the table `write`, describes; `None` after reporting a mistake.
    fn route(&self, settings: &dyn Settings) -> Option<Arc<dyn Route>> {
        let _ = settings;
        None
    }

    /// Returns the schemes of the URLs of its caches: `redis` for `cache = "redis://HOST"`. Empty if it has no cache.
    fn cache_schemes(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns the cache that `request` describes, whose URL has one of [`Connector::cache_schemes`]. Opens nothing.
    ///
    /// # Errors
    /// The mistake in the request, without secrets.
    fn cache(&self, request: CacheRequest) -> std::result::Result<CacheStore, String> {
        Err(format!("{} has no cache for {request:?}", self.name()))
    }

    /// Returns the form of a feed in the configuration; `None` if it has none.
    #[cfg(feature = "feed")]
    fn feed_form(&self) -> Option<&'static str> {
        None
    }

    /// Returns the feed that `settings`, the table `feed`, describes; `None` after reporting a mistake.
    #[cfg(feature = "feed")]
    fn feed(&self, settings: &dyn Settings) -> Option<Arc<dyn Feed>> {
        let _ = settings;
        None
    }
}

/// Configuration of a cache on a server.
#[derive(Clone)]
pub struct CacheRequest {
    /// The URL, which may contain a password.
    pub url: String,
    /// Beginning of the names of everything that the cache stores on its server: letters, digits and `_`.
    pub prefix: String,
    /// File with the certificates of the authorities to trust instead of the public ones.
    pub ca: Option<PathBuf>,
}

impl Debug for CacheRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheRequest").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// A cache on a server, which may be away.
#[derive(Clone)]
pub struct CacheStore {
    /// The address for people, without secrets.
    pub name: String,
    /// The cache.
    pub backend: Arc<dyn CacheBackend>,
}

impl Debug for CacheStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CacheStore").field(&self.name).finish()
    }
}

/// A configuration key, for the reference.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Role and key: `source.csv`, `write.table`, `feed.idle`.
    pub path: &'static str,
    /// The default in words or as TOML, `required` if there is none, empty if not worth mentioning.
    pub default: &'static str,
    /// The description, in one or two sentences.
    pub help: &'static str,
}

impl Key {
    /// Creates a key at `path`.
    pub const fn new(path: &'static str, default: &'static str, help: &'static str) -> Key {
        Key { path, default, help }
    }
}

/// A configuration table that is being read.
///
/// Each method takes the value of a key, which counts as known from then on. A value of the wrong type is reported as a mistake
/// and treated as missing.
pub trait Settings {
    /// Returns a text with environment variables expanded.
    fn text(&self, key: &'static str) -> Option<String>;

    /// Returns a text that may contain a secret: a literal, or from the environment (`env:NAME`) or a file (`file:PATH`).
    fn secret(&self, key: &'static str) -> Option<String>;

    /// Returns a path; a relative path is resolved against the folder of the configuration file.
    fn path(&self, key: &'static str) -> Option<PathBuf>;

    /// Returns one of `words`.
    fn word(&self, key: &'static str, words: &[&'static str]) -> Option<&'static str>;

    /// Returns `true` or `false`.
    fn flag(&self, key: &'static str) -> Option<bool>;

    /// Returns a whole number of at least 1.
    fn number(&self, key: &'static str) -> Option<u64>;

    /// Returns a whole number within `range`.
    fn count(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<usize>;

    /// Returns a size in bytes, written as a number or like `"64KiB"`.
    fn size(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<usize>;

    /// Returns a duration, written like `"30s"`.
    fn duration(&self, key: &'static str) -> Option<Duration>;

    /// Returns an array of texts.
    fn texts(&self, key: &'static str) -> Option<Vec<String>>;

    /// Returns texts by name. Each is a literal or a secret from the environment or a file (`env:NAME`, `Bearer file:PATH`).
    fn secret_texts(&self, key: &'static str) -> Vec<(String, String)>;

    /// Returns any value as JSON, with environment variables in its texts expanded.
    fn json(&self, key: &'static str) -> Option<serde_json::Value>;

    /// Reads the table at `key` with `read`, if it is there. The key `write` of a source is the table `write.NAME` of its resource,
    /// where `NAME` is the connector's.
    fn table(&self, key: &'static str, read: &mut dyn FnMut(&dyn Settings));

    /// Reads each table of the array at `key` with `read`.
    fn tables(&self, key: &'static str, read: &mut dyn FnMut(&dyn Settings));

    /// Returns true if `key` is present.
    fn has(&self, key: &'static str) -> bool;

    /// Reports that the value of `key` is wrong or missing.
    fn wrong(&self, key: &'static str, problem: String);
}

/// Configuration of a source apart from its own settings.
#[derive(Clone, Debug, Default)]
pub struct SourceRequest {
    /// The resource's name.
    pub name: String,
    /// The id column.
    pub id: Option<String>,
    /// The declared columns.
    pub columns: Vec<Column>,
    /// Texts that mean null.
    pub null_values: Vec<String>,
}

/// A source that can be opened, repeatedly if necessary.
#[async_trait]
pub trait Source: Debug + Send + Sync {
    /// Returns a short description for people: its file, its table.
    fn describe(&self) -> String;

    /// Opens the source.
    ///
    /// # Errors
    /// [`Error::Source`](diorama_core::Error::Source) if it cannot be reached, [`Error::Config`](diorama_core::Error::Config) if
    /// it does not match the settings or the request.
    async fn open(&self, request: SourceRequest) -> Result<Vista>;

    /// Returns the description of a missing prerequisite (a file) without opening anything; `None` if nothing is missing.
    fn missing(&self) -> Option<String> {
        None
    }

    /// Returns true if rows cannot have other columns than the declared ones, as in a database table.
    fn has_fixed_columns(&self) -> bool {
        false
    }

    /// Returns the path if the source is a file.
    fn as_file(&self) -> Option<&Path> {
        None
    }

    /// Returns the path of the file whose changes refresh the resource: `watch = true`.
    fn watched(&self) -> Option<&Path> {
        None
    }

    /// Returns the feed of the source's own changes for the resource `name`: `feed = "auto"`. `None` if it has none. Called
    /// before the source is opened.
    #[cfg(feature = "feed")]
    fn follow(&self, name: &str, mode: FollowMode) -> Option<Arc<dyn Feed>> {
        let _ = (name, mode);
        None
    }

    /// Returns the named sources within a file that holds several, if none was selected.
    fn parts(&self) -> Vec<(String, Arc<dyn Source>)> {
        Vec::new()
    }
}

/// Destination of writes in place of the source.
#[async_trait]
pub trait Route: Debug + Send + Sync {
    /// Opens the route for writes of the resource `name`, whose rows have `schema`. They are made by
    /// [`TableShell::write_once`](diorama_core::TableShell::write_once) under the operation's id.
    ///
    /// # Errors
    /// As [`Source::open`].
    async fn open(&self, name: &str, schema: &Arc<Schema>) -> Result<Vista>;

    /// Returns the number of writes that are under way at a time if the configuration does not say it. Above 1, only writes of one
    /// row are ordered.
    fn concurrency(&self) -> usize {
        1
    }
}

/// Way in which a database reports its changes.
#[cfg(feature = "feed")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowMode {
    /// By replication if the server allows it, else by notifications if the triggers are there.
    Auto,
    /// By replication.
    Replication,
    /// By triggers and notifications.
    Notify,
}

#[cfg(feature = "feed")]
impl FollowMode {
    /// The words of the configuration.
    pub const WORDS: [&'static str; 3] = ["auto", "replication", "notify"];

    /// Returns the mode that one of [`FollowMode::WORDS`] selects.
    pub fn of(word: &str) -> FollowMode {
        match word {
            "replication" => FollowMode::Replication,
            "notify" => FollowMode::Notify,
            _ => FollowMode::Auto,
        }
    }
}

/// A part of a database's log that it keeps for a feed, or a table in which triggers keep changes for one.
#[cfg(feature = "feed")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedSlot {
    /// Address of the server, without secrets.
    pub server: String,
    /// Name of the slot, or of the table.
    pub name: String,
    /// True if it belongs to this resource.
    pub own: bool,
    /// True if a program is connected to it.
    pub active: bool,
    /// True if the server has removed changes that it had not sent.
    pub lost: bool,
    /// Size in bytes of what the server keeps for it.
    pub retained: u64,
}

/// Format of a feed's messages.
#[cfg(feature = "feed")]
#[derive(Clone, Debug)]
pub enum FeedFormat {
    /// Events of another Diorama, which can resend what was missed.
    Diorama,
    /// Bodies of a webhook.
    Inbound(Box<diorama_inbound::Hook>),
}

/// Origin of change messages, followed for as long as a Dio lives.
#[cfg(feature = "feed")]
#[async_trait]
pub trait Feed: Debug + Send + Sync {
    /// Checks the settings without connecting.
    ///
    /// # Errors
    /// [`Error::Config`](diorama_core::Error::Config) names the setting with which [`Feed::start`] cannot succeed.
    fn check(&self) -> Result<()>;

    /// Returns true if its messages may be the events of another Diorama, which then is their default format.
    fn reads_events(&self) -> bool {
        false
    }

    /// Notes that the feed will be started. Called before the source is opened, so that the feed can begin where the first list
    /// ends.
    fn prepare(&self) {}

    /// Returns true if it reports every change of the source, so that rows need no list while it misses nothing.
    fn reports_all(&self) -> bool {
        false
    }

    /// Checks that the feed can connect for the resource that `request` names, as far as that is possible without changing
    /// anything. Returns what people should know about how changes arrive.
    ///
    /// # Errors
    /// [`Error::Config`](diorama_core::Error::Config) with the reason that the feed would report;
    /// [`Error::Source`](diorama_core::Error::Source) if the sender cannot be reached.
    async fn inspect(&self, request: &SourceRequest) -> Result<Option<String>> {
        let _ = request;
        Ok(None)
    }

    /// Follows the feed in a task of `dio`.
    ///
    /// # Errors
    /// As [`Feed::check`].
    fn start(&self, dio: &diorama_core::Dio, format: FeedFormat) -> Result<()>;

    /// Returns the SQL of the triggers that report changes of the resource that `request` names. With `outbox`, they write them
    /// into a table, so that none is lost while this program is away.
    ///
    /// # Errors
    /// [`Error::Unsupported`](diorama_core::Error::Unsupported) if the feed has none; as [`Source::open`].
    async fn trigger(&self, request: &SourceRequest, outbox: bool) -> Result<String> {
        let _ = outbox;
        Err(Error::Unsupported { vista: request.name.as_str().into(), what: "report changes by triggers" })
    }

    /// Returns the slots that the database keeps for feeds of this program.
    ///
    /// # Errors
    /// [`Error::Source`] if the server cannot be reached.
    async fn slots(&self) -> Result<Vec<FeedSlot>> {
        Ok(Vec::new())
    }

    /// Drops the slot `name`, so that the database keeps nothing for it any more.
    ///
    /// # Errors
    /// [`Error::Source`] if it does not exist or is in use.
    async fn drop_slot(&self, name: &str) -> Result<()> {
        Err(Error::Unsupported { vista: name.into(), what: "drop a slot" })
    }
}
