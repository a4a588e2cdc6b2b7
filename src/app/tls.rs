//! TLS of the server: the current certificate and its replacement while the server runs.
//!
//! A connection takes the settings that are current when it is accepted, and keeps them until it ends.

mod certificate;
mod settings;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio_rustls::rustls::ServerConfig;

pub(super) use self::certificate::client_certificate;
use self::settings::TlsSettings;
use super::reload::{Change, Reloadable};
use crate::config::{Config, PrivateKey, TlsSpec};

/// TLS of a running server.
pub(super) struct Tls {
    current: ArcSwap<TlsSettings>,
    /// Unix time in seconds at which the certificate expires, for `/metrics`.
    expires: Arc<AtomicU64>,
}

/// Checks settings as a start does, and returns a warning about them.
///
/// # Errors
/// All mistakes, one per line.
pub(super) fn check(spec: &TlsSpec) -> Result<Option<String>, String> {
    TlsSettings::load(spec).map(|settings| settings.warning(SystemTime::now()))
}

impl Tls {
    /// Reads certificate and key, and logs a warning if the certificate is not valid now.
    ///
    /// # Errors
    /// All mistakes, one per line.
    pub(super) fn open(spec: &TlsSpec) -> Result<Tls, String> {
        let settings = TlsSettings::load(spec)?;
        if let Some(warning) = settings.warning(SystemTime::now()) {
            tracing::warn!("{warning}");
        }
        let expires = Arc::new(AtomicU64::new(unix(settings.not_after)));
        Ok(Tls { current: ArcSwap::from_pointee(settings), expires })
    }

    /// Returns the configuration for a new connection.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().config)
    }

    /// Returns the time at which the current certificate expires, in seconds of Unix time.
    pub(super) fn expires(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.expires)
    }

    fn replace(&self, settings: TlsSettings) {
        self.expires.store(unix(settings.not_after), Ordering::Relaxed);
        self.current.store(Arc::new(settings));
    }
}

impl Reloadable for Arc<Tls> {
    fn keys(&self) -> &'static [&'static str] {
        &["server.tls"]
    }

    fn files(&self) -> Vec<PathBuf> {
        let spec = &self.current.load().spec;
        let key = match &spec.key {
            PrivateKey::File(path) => Some(path),
            PrivateKey::Text(_) => None,
        };
        let ca = spec.clients.as_ref().map(|clients| &clients.ca);
        [Some(&spec.cert), key, ca].into_iter().flatten().cloned().collect()
    }

    fn prepare(&self, config: &Config) -> Result<Change, String> {
        let Some(spec) = &config.server.tls else { return Ok(Change::Restart) };
        let settings = TlsSettings::load(spec)?;
        let (current, now) = (self.current.load(), SystemTime::now());
        if settings.is_same(&current) {
            return Ok(Change::None);
        }
        if let (None, Some(warning)) = (current.warning(now), settings.warning(now)) {
            return Err(warning);
        }
        let (tls, description) = (Arc::clone(self), settings.to_string());
        Ok(Change::Apply { description, apply: Box::new(move || tls.replace(settings)) })
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
