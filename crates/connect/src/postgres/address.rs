//! Address of a PostgreSQL server, its TLS settings, and new connections.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::poll_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::errors::{failed, not_connected};
use crate::tls::{self, Verification};
use diorama_core::vista::{Error, Result};

/// Timeout for connecting.
const CONNECT: Duration = Duration::from_secs(10);

/// Settings of each session, which fix the text form of values.
const SESSION: &str = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'iso_8601'; \
    SET bytea_output = 'hex'; SET extra_float_digits = 1";

/// The same settings for a replication session, which takes them when it starts.
pub(super) const SESSION_OPTIONS: &str = "-c TimeZone=UTC -c DateStyle=ISO,YMD -c IntervalStyle=iso_8601 \
    -c bytea_output=hex -c extra_float_digits=1";

/// Use of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PostgresTls {
    /// Encrypted if the server offers it; its certificate is checked only against a given authority.
    #[default]
    Prefer,
    /// Encrypted, with a certificate of a trusted authority.
    Require,
    /// Not encrypted.
    Off,
}

impl PostgresTls {
    pub(super) const WORDS: [&'static str; 3] = ["prefer", "require", "off"];

    pub(super) fn of(word: &str) -> PostgresTls {
        match word {
            "require" => PostgresTls::Require,
            "off" => PostgresTls::Off,
            _ => PostgresTls::Prefer,
        }
    }
}

/// Address of a database: `postgres://USER:PASSWORD@HOST/DATABASE` or `key=value` pairs, and how to encrypt.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) tls: PostgresTls,
    /// File with the certificates of the authorities to trust instead of the public ones.
    pub(super) ca: Option<PathBuf>,
    /// Host, port and database, without secrets.
    shown: String,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// The problem, without the address, which may contain a password.
    pub(super) fn parse(
        url: &str,
        tls: Option<PostgresTls>,
        ca: Option<PathBuf>,
    ) -> std::result::Result<Address, String> {
        if has_unescaped(url) {
            return Err("a part of the URL has a character that must be escaped, perhaps the password: write @ as %40, / as %2F, \
                 : as %3A, # as %23 and ? as %3F"
                .into());
        }
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
            format!("the URL is not valid ({}): write postgres://USER:PASSWORD@HOST/DATABASE", plain(&error))
        })?;
        if config.get_hosts().is_empty() {
            return Err("the URL has no host: write postgres://USER:PASSWORD@HOST/DATABASE".into());
        }
        let tls = tls.unwrap_or(match config.get_ssl_mode() {
            SslMode::Disable => PostgresTls::Off,
            SslMode::Require => PostgresTls::Require,
            _ => PostgresTls::Prefer,
        });
        config.ssl_mode(match tls {
            PostgresTls::Off => SslMode::Disable,
            PostgresTls::Prefer => SslMode::Prefer,
            PostgresTls::Require => SslMode::Require,
        });
        if config.get_application_name().is_none() {
            config.application_name("diorama");
        }
        config.connect_timeout(CONNECT).keepalives_idle(Duration::from_secs(30));
        let shown = shown(&config);
        Ok(Address { config, tls, ca, shown })
    }

    /// Host and port of the first server; a folder is that of a Unix socket.
    pub(super) fn host(&self) -> (String, u16) {
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            #[cfg(unix)]
            Some(Host::Unix(folder)) => folder.display().to_string(),
            None => "localhost".into(),
        };
        (host, port)
    }

    /// Opens a connection whose values have the text form that this crate reads.
    ///
    /// # Errors
    /// [`Error::Source`] that says what to do.
    pub(super) async fn connect(&self) -> Result<Client> {
        self.connect_receiving(|_| {}).await
    }

    /// [`Address::connect`] with a function for the messages that the server sends by itself.
    ///
    /// # Errors
    /// As [`Address::connect`].
    pub(super) async fn connect_receiving(&self, receive: impl Fn(AsyncMessage) + Send + 'static) -> Result<Client> {
        let opened = timeout(CONNECT, self.open(receive)).await;
        let client = opened.map_err(|_| {
            Error::transient(format!("cannot connect to {self}: no answer within {} s", CONNECT.as_secs()))
        })??;
        client.batch_execute(SESSION).await.map_err(failed)?;
        Ok(client)
    }

    async fn open(&self, receive: impl Fn(AsyncMessage) + Send + 'static) -> Result<Client> {
        let failed = |error| not_connected(&self.shown, error);
        if self.tls == PostgresTls::Off {
            let (client, connection) = self.config.connect(NoTls).await.map_err(failed)?;
            drive(connection, receive);
            return Ok(client);
        }
        let (client, connection) = self.config.connect(self.encryption()?).await.map_err(failed)?;
        drive(connection, receive);
        Ok(client)
    }

    fn encryption(&self) -> Result<MakeRustlsConnect> {
        Ok(MakeRustlsConnect::new(Arc::unwrap_or_clone(self.client_config()?)))
    }

    /// Returns the TLS settings of connections.
    ///
    /// # Errors
    /// [`Error::Config`] if the file of authorities cannot be used.
    pub(super) fn client_config(&self) -> Result<Arc<tokio_rustls::rustls::ClientConfig>> {
        let verification = match (&self.ca, self.tls) {
            (Some(path), _) => {
                let wrong = |error: String| Error::Config(format!("ca: {}: {error}", path.display()));
                let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
                return tls::client(&Verification::Authorities(&pem)).map_err(wrong);
            }
            (None, PostgresTls::Require) => Verification::Public,
            (None, PostgresTls::Prefer | PostgresTls::Off) => Verification::None,
        };
        tls::client(&verification).map_err(Error::Config)
    }
}

/// Returns true if the user or password of a URL has a character that ends it, so that the rest would be taken for the host.
fn has_unescaped(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let last = rest.rfind('@');
    last.is_some_and(|last| rest[..last].contains(['@', '/', '#', '?']) || rest[..last].matches(':').count() > 1)
}

/// Runs a connection until its client is dropped or the server ends it. The client reports how it ended.
fn drive<S, T>(mut connection: Connection<S, T>, receive: impl Fn(AsyncMessage) + Send + 'static)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "the connection ends with its client, which the pool owns")]
    tokio::spawn(async move {
        loop {
            match poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(message)) => receive(message),
                Some(Err(error)) => return tracing::debug!(%error, "a connection to PostgreSQL has ended"),
                None => return,
            }
        }
    });
}

fn shown(config: &Config) -> String {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        #[cfg(unix)]
        Some(Host::Unix(folder)) => folder.display().to_string(),
        None => String::new(),
    };
    let port = config.get_ports().first().map(|port| format!(":{port}")).unwrap_or_default();
    let user = config.get_user().map(|user| format!("{user}@")).unwrap_or_default();
    let database = config.get_dbname().map(|name| format!("/{name}")).unwrap_or_default();
    format!("postgres://{user}{host}{port}{database}")
}

/// Returns the cause of an error about a URL.
fn plain(error: &tokio_postgres::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}
