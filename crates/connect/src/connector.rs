//! Contract of connectors: what a system reads from the configuration, and the roles that it has.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use diorama_core::vista::{Column, Result, Vista};

/// One system: files of a format, a database, a broker.
///
/// A connector reads its own part of the configuration and offers the roles it has; the others it leaves out. What it reads it
/// checks, and says every mistake to the [`Settings`]. It opens nothing: that is done by what it gives.
pub trait Connector: Send + Sync + 'static {
    /// Key that chooses it: `source = { csv = "FILE" }`.
    fn name(&self) -> &'static str;

    /// Keys that it reads, for the reference of the configuration: those of a role that it has are listed under it.
    fn keys(&self) -> &'static [Key] {
        &[]
    }

    /// A source as it is written in the configuration, for messages: `{ csv = "FILE" }`; `None` if it has none.
    fn source_form(&self) -> Option<&'static str> {
        None
    }

    /// The source that `settings`, the table of `source`, describes. `None` if there is a mistake in it, which has been said.
    fn source(&self, settings: &dyn Settings) -> Option<Arc<dyn Source>> {
        let _ = settings;
        None
    }

    /// Endings of files that are its sources without a word of configuration, in lower case: `csv`, `tsv`.
    fn endings(&self) -> &'static [&'static str] {
        &[]
    }

    /// The source of the file at `path`, with every setting at its default. Asked only for its [`endings`](Connector::endings).
    fn file(&self, path: &Path) -> Option<Arc<dyn Source>> {
        let _ = path;
        None
    }

    /// A write route as it is written in the configuration; `None` if it has none.
    fn route_form(&self) -> Option<&'static str> {
        None
    }

    /// The write route that `settings`, the table of `write`, describes. `None` if there is a mistake in it, which has been said.
    fn route(&self, settings: &dyn Settings) -> Option<Arc<dyn Route>> {
        let _ = settings;
        None
    }

    /// A feed as it is written in the configuration; `None` if it has none.
    #[cfg(feature = "feed")]
    fn feed_form(&self) -> Option<&'static str> {
        None
    }

    /// The feed that `settings`, the table of `feed`, describes. `None` if there is a mistake in it, which has been said.
    #[cfg(feature = "feed")]
    fn feed(&self, settings: &dyn Settings) -> Option<Arc<dyn Feed>> {
        let _ = settings;
        None
    }
}

/// A key of the configuration, for its reference.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Role and key: `source.csv`, `write.table`, `feed.idle`.
    pub path: &'static str,
    /// The default in words or as TOML, `required` if there is none, empty where nothing is to be said.
    pub default: &'static str,
    /// What it is for, in a sentence or two.
    pub help: &'static str,
}

impl Key {
    /// A key at `path`.
    pub const fn new(path: &'static str, default: &'static str, help: &'static str) -> Key {
        Key { path, default, help }
    }
}

/// A table of the configuration while it is read. Each method takes the value of a key, which counts as known from then on; a value
/// of the wrong type is said to be a mistake and read as missing.
pub trait Settings {
    /// Text, with the environment's values filled in.
    fn text(&self, key: &'static str) -> Option<String>;

    /// A path; a relative one is below the folder of the configuration.
    fn path(&self, key: &'static str) -> Option<PathBuf>;

    /// One of `words`.
    fn word(&self, key: &'static str, words: &[&'static str]) -> Option<&'static str>;

    /// `true` or `false`.
    fn flag(&self, key: &'static str) -> Option<bool>;

    /// A whole number of at least 1.
    fn number(&self, key: &'static str) -> Option<u64>;

    /// Bytes, as a number or like `"64KiB"`.
    fn size(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<usize>;

    /// A time like `"30s"`.
    fn duration(&self, key: &'static str) -> Option<Duration>;

    /// An array of texts.
    fn texts(&self, key: &'static str) -> Option<Vec<String>>;

    /// Texts by names, each a secret from the environment or a file (`env:NAME`, `Bearer file:PATH`) or written out.
    fn secret_texts(&self, key: &'static str) -> Vec<(String, String)>;

    /// Whether `key` is there.
    fn has(&self, key: &'static str) -> bool;

    /// Reports a mistake in the value of `key`, or that it is missing.
    fn wrong(&self, key: &'static str, problem: String);
}

/// What the configuration says of a source beside the source's own settings.
#[derive(Clone, Debug, Default)]
pub struct SourceRequest {
    /// The resource's name.
    pub name: String,
    /// The column that identifies rows.
    pub id: Option<String>,
    /// Columns as declared.
    pub columns: Vec<Column>,
    /// Texts that mean null.
    pub null_values: Vec<String>,
}

/// A source that can be opened, as often as it takes.
#[async_trait]
pub trait Source: Debug + Send + Sync {
    /// The source in a few words, for people: its file, its table.
    fn describe(&self) -> String;

    /// Opens it.
    ///
    /// # Errors
    /// [`Error::Source`](diorama_core::Error::Source) if it cannot be reached, [`Error::Config`](diorama_core::Error::Config) if it is not
    /// what the settings or the request say.
    async fn open(&self, request: SourceRequest) -> Result<Vista>;

    /// What has to be there and is not (a file), without opening anything.
    fn missing(&self) -> Option<String> {
        None
    }

    /// Whether rows cannot have other columns than it has, as those of a table cannot.
    fn has_fixed_columns(&self) -> bool {
        false
    }

    /// The file that it is, if it is one.
    fn as_file(&self) -> Option<&Path> {
        None
    }

    /// Sources that it holds, with a name each, if it is one file with several and none was chosen.
    fn parts(&self) -> Vec<(String, Arc<dyn Source>)> {
        Vec::new()
    }
}

/// Where writes go in place of the source.
#[async_trait]
pub trait Route: Debug + Send + Sync {
    /// Opens it for the writes of the resource `name`. They are written by [`TableShell::write_once`](diorama_core::TableShell::write_once)
    /// under the operation's id.
    ///
    /// # Errors
    /// As [`Source::open`].
    async fn open(&self, name: &str) -> Result<Vista>;
}

/// Something that tells of changes: followed for as long as a Dio lives.
#[cfg(feature = "feed")]
pub trait Feed: Debug + Send + Sync {
    /// Refuses settings with which [`Feed::start`] cannot succeed.
    ///
    /// # Errors
    /// [`Error::Config`](diorama_core::Error::Config) says which.
    fn check(&self) -> Result<()>;

    /// Follows it, as a task of `dio`.
    ///
    /// # Errors
    /// As [`Feed::check`].
    fn start(&self, dio: &diorama_core::Dio, format: crate::FeedFormat) -> Result<()>;
}
