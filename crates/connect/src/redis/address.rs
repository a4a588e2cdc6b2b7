//! Address of a server and the way to connect to it.

use std::path::PathBuf;
use std::time::Duration;

use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::errors::Failure;
use super::session::Session;
use crate::connector::Settings;
use crate::tls::{self, Verification};

/// Timeout for connecting, and for any command.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Form of an address, for messages.
const FORM: &str = "write redis://HOST:PORT/DATABASE, or rediss:// for TLS";

/// A server, with the login.
#[derive(Clone)]
pub(super) struct RedisAddress {
    info: ConnectionInfo,
    is_encrypted: bool,
    /// File with the certificates of the authorities to trust instead of the public ones.
    ca: Option<PathBuf>,
    /// Scheme, host, port and database, without secrets.
    shown: String,
}

impl std::fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

impl std::fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

impl RedisAddress {
    /// Reads the settings of a route or feed; `None` after reporting a mistake.
    pub(super) fn read(settings: &dyn Settings) -> Option<RedisAddress> {
        let url = settings.secret("redis");
        let (user, password, ca) = (settings.text("user"), settings.secret("password"), settings.path("ca"));
        if user.is_some() && password.is_none() {
            settings.wrong("password", "user requires password".into());
        }
        let mut address = match RedisAddress::parse(&url?) {
            Ok(address) => address,
            Err(problem) => {
                settings.wrong("redis", problem);
                return None;
            }
        };
        if ca.is_some() && !address.is_encrypted {
            settings.wrong("ca", "a connection with ca is encrypted: write rediss://HOST:PORT".into());
        }
        address.ca = ca;
        address.log_in(user, password);
        Some(address)
    }

    /// Trusts the authorities in the file `ca`, if there is one.
    pub(super) fn with_ca(self, ca: Option<PathBuf>) -> RedisAddress {
        RedisAddress { ca, ..self }
    }

    fn log_in(&mut self, user: Option<String>, password: Option<String>) {
        let mut login = self.info.redis_settings().clone();
        if let Some(user) = user {
            login = login.set_username(user);
        }
        if let Some(password) = password {
            login = login.set_password(password);
        }
        self.info = self.info.clone().set_redis_settings(login);
    }

    /// Reads the URL of a server.
    ///
    /// # Errors
    /// The problem, without the URL, which may contain a password.
    pub(super) fn parse(url: &str) -> Result<RedisAddress, String> {
        let (scheme, rest) = url.split_once("://").ok_or(FORM)?;
        let (is_encrypted, plain) = match scheme {
            "redis" | "valkey" => (false, "redis"),
            "rediss" | "valkeys" => (true, "redis"),
            "redis+unix" | "valkey+unix" | "unix" => (false, "redis+unix"),
            _ => return Err(FORM.into()),
        };
        if rest.contains('#') {
            return Err(format!("the URL has a #: in a password, write it as %23; {FORM}"));
        }
        let info = format!("{plain}://{rest}").as_str().into_connection_info();
        let info = info.map_err(|error| format!("the URL is not valid ({}): {FORM}", error.category()))?;
        let database = info.redis_settings().db();
        let shown = match info.addr() {
            ConnectionAddr::Unix(path) => format!("redis+unix://{}", path.display()),
            ConnectionAddr::Tcp(host, port) if host.contains(':') => format!("{scheme}://[{host}]:{port}"),
            ConnectionAddr::Tcp(host, port) => format!("{scheme}://{host}:{port}"),
            _ => return Err(FORM.into()),
        };
        let shown = if database == 0 { shown } else { format!("{shown}/{database}") };
        Ok(RedisAddress { info, is_encrypted, ca: None, shown })
    }

    /// Connects once. A connection that is lost is not made again.
    pub(super) async fn connect(&self) -> Result<Session, Failure> {
        match timeout(PATIENCE, self.open()).await {
            Ok(opened) => opened,
            Err(_) => Err(self.not_connected(&format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }

    async fn open(&self) -> Result<Session, Failure> {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await;
                let stream = stream.map_err(|error| self.not_connected(&error.to_string()))?;
                stream.set_nodelay(true).map_err(|error| self.not_connected(&error.to_string()))?;
                match self.is_encrypted {
                    true => self.greet(self.encrypt(host, stream).await?).await,
                    false => self.greet(stream).await,
                }
            }
            #[cfg(unix)]
            ConnectionAddr::Unix(path) => {
                let stream = tokio::net::UnixStream::connect(path).await;
                self.greet(stream.map_err(|error| self.not_connected(&error.to_string()))?).await
            }
            _ => Err(self.not_connected("this kind of address is not supported")),
        }
    }

    async fn encrypt(&self, host: &str, stream: TcpStream) -> Result<impl AsyncRead + AsyncWrite + use<>, Failure> {
        let pem = match &self.ca {
            Some(path) => {
                let read = std::fs::read(path);
                Some(read.map_err(|error| self.not_connected(&format!("ca {}: {error}", path.display())))?)
            }
            None => None,
        };
        let verification = pem.as_deref().map_or(Verification::Public, Verification::Authorities);
        let config = tls::client(&verification).map_err(|error| self.not_connected(&error))?;
        let name = ServerName::try_from(host.to_string());
        let name = name.map_err(|error| self.not_connected(&error.to_string()))?;
        let connected = TlsConnector::from(config).connect(name, stream).await;
        connected.map_err(|error| self.not_connected(&format!("TLS: {error}")))
    }

    /// Logs in and selects the database.
    async fn greet(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Session, Failure> {
        // Commands have timeouts of their own.
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let login: &RedisConnectionInfo = self.info.redis_settings();
        let connected = redis::aio::MultiplexedConnection::new_with_config(login, stream, config).await;
        let (connection, driver) = connected.map_err(|error| Failure::of_login(self, &error))?;
        Ok(Session::new(self.clone(), connection, driver))
    }

    fn not_connected(&self, problem: &str) -> Failure {
        Failure::refused(format!("{self}: {problem}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_secrets() {
        for (url, shown) in [
            ("redis://localhost", "redis://localhost:6379"),
            ("redis://user:p%40ss@shop.example:7000/3", "redis://shop.example:7000/3"),
            ("rediss://:secret@[::1]:6380", "rediss://[::1]:6380"),
            ("valkey://127.0.0.1", "valkey://127.0.0.1:6379"),
            ("redis+unix:///run/redis.sock?pass=secret&db=2", "redis+unix:///run/redis.sock/2"),
        ] {
            let address = RedisAddress::parse(url).unwrap();
            assert_eq!((address.to_string(), format!("{address:?}")), (shown.to_string(), shown.to_string()));
        }
        assert!(RedisAddress::parse("rediss://h").unwrap().is_encrypted);
        let info = RedisAddress::parse("redis://user:p%40ss@h").unwrap().info;
        let login = info.redis_settings();
        assert_eq!((login.username(), login.password()), (Some("user"), Some("p@ss")));
    }

    #[test]
    fn addresses_that_are_not_valid_are_refused_without_their_secrets() {
        for url in [
            "",
            "localhost:6379",
            "http://h",
            "redis://:secret@",
            "redis://:secret@h/x",
            "redis://:sec#ret@h",
            "redis://h:99999",
        ] {
            let problem = RedisAddress::parse(url).unwrap_err();
            assert!(problem.contains("redis://HOST:PORT") && !problem.contains("secret"), "{url}: {problem}");
        }
    }
}
