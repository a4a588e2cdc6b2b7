//! Reader of `diorama.toml`: reports every mistake at once, with its line and the probable intention.
//!
//! Each part reads its own keys and has its defaults in [`Default`]; an unknown key is a mistake. These modules only describe a
//! server; `app.rs` builds it.

mod allow;
mod audit;
mod connection;
mod dio;
mod feed;
mod file;
mod intake;
mod jwt;
mod key;
mod limits;
mod notify;
mod problems;
mod rates;
mod server;
mod settings;
mod tls;
mod value;
mod webhook;
mod written;

pub use audit::AuditSpec;
pub use dio::{ColumnSpec, DioSpec};
pub use feed::FeedSpec;
pub use file::{File, check_name, resource_name, stem};
pub use intake::{EventsSpec, InboxSpec, IntakeSpec, OutboxSpec};
pub use jwt::{JwtKeys, JwtSpec};
pub use key::KeySpec;
pub use limits::LimitsSpec;
pub use notify::NotifySpec;
pub use problems::{ConfigError, Problem};
pub use server::{Access, CacheAt, CacheServer, LensSpec, Page, ServerSpec};
pub(crate) use server::{NO_AUTHORITY, NOBODY, PUBLIC};
pub use tls::{ClientAuth, PrivateKey, TlsSpec};
pub use value::Secret;
pub use webhook::{AuthScheme, FORMATS, HookAuth, HookSpec, RawSection, SCHEMES};
pub use written::WrittenKeys;

use std::path::Path;

use diorama_connect::Registry;
use diorama_gateway::RateLimit;
use diorama_gateway::access::Allow;

/// Configuration of a server.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `[server]`
    pub server: ServerSpec,
    /// `[key.NAME]`, in the file's order.
    pub keys: Vec<KeySpec>,
    /// `[jwt.NAME]`, in the file's order.
    pub jwts: Vec<JwtSpec>,
    /// `[lens]`
    pub lens: LensSpec,
    /// `[dio.NAME]`, in the file's order.
    pub dios: Vec<DioSpec>,
    /// `[webhook.NAME]`, in the file's order.
    pub webhooks: Vec<HookSpec>,
    /// `[notify.NAME]`, in the file's order.
    pub notifications: Vec<NotifySpec>,
    /// `[[allow]]`, in the file's order.
    pub allow: Vec<Allow>,
    /// `[[limit]]`, in the file's order.
    pub limits: Vec<RateLimit>,
    /// `[audit]`
    pub audit: AuditSpec,
    /// Keys of the file as they are written.
    pub written: WrittenKeys,
}

impl Config {
    /// Returns true if callers are authenticated.
    pub fn is_guarded(&self) -> bool {
        matches!(self.server.auth, Some(Access::Tokens(_))) || !self.keys.is_empty() || !self.jwts.is_empty()
    }

    /// Returns true if clients can authenticate themselves by certificates.
    fn has_client_authority(&self) -> bool {
        self.server.tls.as_ref().is_some_and(|tls| tls.clients.is_some())
    }

    /// Returns the mistake in the combination of the settings of access, if there is one.
    pub(crate) fn access_mistake(&self) -> Option<&'static str> {
        match self.server.auth {
            Some(Access::Anybody) if self.is_guarded() => Some(NOBODY),
            None if !self.is_guarded() && !self.server.listen.ip().is_loopback() => Some(PUBLIC),
            _ if !self.has_client_authority() && self.keys.iter().any(|key| !key.certificates.is_empty()) => {
                Some(NO_AUTHORITY)
            }
            _ if self.server.anonymous && !self.is_guarded() => {
                Some("server.anonymous requires [key.NAME], [jwt.NAME] or server.auth = { tokens = [\"env:NAME\"] }")
            }
            _ => None,
        }
    }

    /// Reads the file at `path`; paths in it are relative to its folder.
    ///
    /// # Errors
    /// All mistakes in the file.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        Config::read_with(path, &Registry::builtin())
    }

    /// Reads a file like [`Config::read`], with the sources, routes and feeds of `registry`.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn read_with(path: &Path, registry: &Registry) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            ConfigError::new(path, "", vec![Problem::new(0, format!("cannot read the file: {error}"))])
        })?;
        file::parse(&text, path, &|name| std::env::var(name).ok(), registry)
    }

    /// Reads `text` as the contents of the file at `path`; `env` returns environment variables.
    ///
    /// # Errors
    /// All mistakes in the file.
    pub fn parse(text: &str, path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
        file::parse(text, path, env, &Registry::builtin())
    }
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
