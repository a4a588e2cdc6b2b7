//! Address of a server and the way to connect to it.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions};
use tokio::time::timeout;

use crate::connector::Settings;
use crate::tls::{self, Verification};
use diorama_core::vista::{Error, Result};

/// Timeout for connecting, and for any request.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two pings, which find a connection that is lost without notice.
const PING: Duration = Duration::from_secs(10);

/// A server, or a cluster of them.
#[derive(Clone)]
pub(super) struct NatsAddress {
    /// `nats://HOST:PORT` or `tls://HOST:PORT` of some servers of a cluster.
    servers: Vec<String>,
    ca: Option<PathBuf>,
    login: Option<(String, String)>,
    token: Option<String>,
    credentials: Option<PathBuf>,
}

impl std::fmt::Debug for NatsAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsAddress").field("servers", &self.servers).finish_non_exhaustive()
    }
}

impl std::fmt::Display for NatsAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.servers.join(","))
    }
}

impl NatsAddress {
    /// Reads the settings of a route or feed; `None` after reporting a mistake.
    pub(super) fn read(settings: &dyn Settings) -> Option<NatsAddress> {
        let servers: Vec<String> =
            settings.text("nats").unwrap_or_default().split(',').map(|server| server.trim().to_string()).collect();
        let is_server = |server: &String| server.starts_with("nats://") || server.starts_with("tls://");
        if !servers.iter().all(is_server) {
            settings.wrong("nats", r#"nats = "nats://HOST:PORT", or tls://, or several with commas"#.into());
            return None;
        }
        if servers.iter().any(|server| server.contains('@')) {
            settings.wrong("nats", "user and password are keys of their own, so that logs do not show them".into());
            return None;
        }
        let login = match (settings.text("user"), settings.secret("password")) {
            (Some(user), Some(password)) => Some((user, password)),
            (None, None) => None,
            _ => {
                settings.wrong("password", "user and password are both required to log in".into());
                return None;
            }
        };
        let (ca, token, credentials) = (settings.path("ca"), settings.secret("token"), settings.path("credentials"));
        Some(NatsAddress { servers, ca, login, token, credentials })
    }

    /// Server without TLS and login.
    #[cfg(test)]
    pub(super) fn plain(server: &str) -> NatsAddress {
        NatsAddress { servers: vec![server.into()], ca: None, login: None, token: None, credentials: None }
    }

    /// Connects once. A connection that is lost is not made again.
    ///
    /// # Errors
    /// [`Error::Source`], which is transient.
    pub(super) async fn connect(&self) -> Result<Client> {
        let wrong = |problem: String| Error::transient(format!("{self}: {problem}"));
        let mut options = ConnectOptions::new().name("diorama").max_reconnects(1).ping_interval(PING);
        options = options.connection_timeout(PATIENCE).request_timeout(Some(PATIENCE));
        if let Some(path) = &self.ca {
            let pem = std::fs::read(path).map_err(|error| wrong(format!("ca {}: {error}", path.display())))?;
            let config = tls::client(&Verification::Authorities(&pem)).map_err(wrong)?;
            options = options.require_tls(true).tls_client_config((*config).clone());
        } else if self.servers.iter().any(|server| server.starts_with("tls://")) {
            let config = tls::client(&Verification::Public).map_err(wrong)?;
            options = options.require_tls(true).tls_client_config((*config).clone());
        }
        if let Some((user, password)) = &self.login {
            options = options.user_and_password(user.clone(), password.clone());
        }
        if let Some(token) = &self.token {
            options = options.token(token.clone());
        }
        if let Some(path) = &self.credentials {
            let read = options.credentials_file(path).await;
            options = read.map_err(|error| wrong(format!("credentials {}: {error}", path.display())))?;
        }
        match timeout(PATIENCE, options.connect(self.servers.as_slice().join(","))).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => Err(wrong(error.to_string())),
            Err(_) => Err(wrong(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }
}

/// True if the connection is lost.
pub(super) fn is_lost(client: &Client) -> bool {
    client.connection_state() != State::Connected
}
