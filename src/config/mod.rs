//! `diorama.toml`: read whole, every mistake reported at once with its line and what was probably meant.
//!
//! Each part owns its keys, with defaults in [`Default`]; a key that nobody knows is a mistake. Nothing here does anything:
//! `app.rs` builds what this describes.

mod dio;
mod feed;
mod file;
mod intake;
mod limits;
mod problems;
mod server;
mod value;
mod webhook;

pub use dio::{ColumnSpec, DioSpec};
pub use feed::FeedSpec;
pub use file::{File, check_name, resource_name, stem};
pub use intake::{EventsSpec, InboxSpec, IntakeSpec};
pub use limits::LimitsSpec;
pub use problems::{ConfigError, Problem};
pub(crate) use server::PUBLIC;
pub use server::{Access, CacheAt, LensSpec, Page, ServerSpec};
pub use value::Secret;
pub use webhook::{AuthScheme, FORMATS, HookAuth, HookSpec, RawSection, SCHEMES};

use std::path::Path;

use diorama_connect::Registry;

/// What a server is to be.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `[server]`
    pub server: ServerSpec,
    /// `[lens]`
    pub lens: LensSpec,
    /// `[dio.NAME]`, in the file's order.
    pub dios: Vec<DioSpec>,
    /// `[webhook.NAME]`, in the file's order.
    pub webhooks: Vec<HookSpec>,
}

impl Config {
    /// Reads the file at `path`; paths in it are relative to its folder.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        Config::read_with(path, &Registry::builtin())
    }

    /// [`Config::read`] where sources, routes and feeds are those of `registry`.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn read_with(path: &Path, registry: &Registry) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            ConfigError::new(path, "", vec![Problem::new(0, format!("the file cannot be read: {error}"))])
        })?;
        file::parse(&text, path, &|name| std::env::var(name).ok(), registry)
    }

    /// Reads `text` as the file at `path` would hold it; `env` knows the environment.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str, path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
        file::parse(text, path, env, &Registry::builtin())
    }
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
