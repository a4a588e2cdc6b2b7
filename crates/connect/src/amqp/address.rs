//! Address of a broker and the way to connect to it.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lapin::tcp::{AsyncTcpStream, RustlsConnector};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::errors::Failure;
use crate::connector::Settings;
use crate::tls::{self, Verification};

/// Timeout for connecting, and for any request.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Interval of heartbeats in seconds, if the URL does not tell. A connection that is lost without notice ends after two of them.
const HEARTBEAT: u16 = 10;

/// A broker, and a virtual host of it.
#[derive(Clone)]
pub(super) struct AmqpAddress {
    uri: AMQPUri,
    ca: Option<PathBuf>,
}

impl std::fmt::Debug for AmqpAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AmqpAddress").field(&self.to_string()).finish()
    }
}

/// Without user and password.
impl std::fmt::Display for AmqpAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let AMQPUri { scheme, authority, vhost, .. } = &self.uri;
        write!(f, "{scheme}://{}:{}/{}", authority.host, authority.port, vhost.trim_start_matches('/'))
    }
}

impl AmqpAddress {
    /// Reads the settings of a route or feed; `None` after reporting a mistake.
    pub(super) fn read(settings: &dyn Settings) -> Option<AmqpAddress> {
        let (user, password, ca) = (settings.text("user"), settings.secret("password"), settings.path("ca"));
        let address = match AmqpAddress::parse(&settings.secret("amqp")?, ca) {
            Ok(address) => Some(address),
            Err(problem) => {
                settings.wrong("amqp", problem);
                None
            }
        };
        match (user, password) {
            (None, None) => address,
            (Some(user), Some(password)) => address.map(|address| address.log_in(user, password)),
            _ => {
                settings.wrong("password", "user and password are both required to log in".into());
                None
            }
        }
    }

    /// Reads a URL. A mistake is reported without the URL, which may contain a password.
    pub(super) fn parse(url: &str, ca: Option<PathBuf>) -> Result<AmqpAddress, String> {
        let form =
            "amqp://HOST:PORT/VHOST, or amqps:// to encrypt; in a password, `/`, `@`, `:` and `%` are percent-encoded";
        let mut uri: AMQPUri = url.trim().parse().map_err(|_| form.to_string())?;
        if uri.vhost.is_empty() {
            uri.vhost = "/".into();
        }
        if ca.is_some() && uri.scheme == AMQPScheme::AMQP {
            return Err("with ca, the URL is amqps://HOST:PORT/VHOST: only then is the connection encrypted".into());
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        Ok(AmqpAddress { uri, ca })
    }

    fn log_in(mut self, user: String, password: String) -> AmqpAddress {
        (self.uri.authority.userinfo.username, self.uri.authority.userinfo.password) = (user, password);
        self
    }

    /// Returns the failure that `problem` describes, of a request without an effect.
    pub(super) fn unreachable(&self, problem: &str) -> Failure {
        Failure::unreachable(format!("{self}: {problem}"))
    }

    /// Describes an error of the client.
    pub(super) fn failure(&self, error: &lapin::Error) -> Failure {
        Failure::of(&self.to_string(), error)
    }

    /// Connects once. A connection that is lost is not made again.
    ///
    /// # Errors
    /// The reason, for people.
    pub(super) async fn connect(&self) -> Result<Connection, Failure> {
        let connector = match self.uri.scheme {
            AMQPScheme::AMQP => None,
            AMQPScheme::AMQPS => Some(self.tls().map_err(|problem: String| self.unreachable(&problem))?),
        };
        let socket = Socket::default();
        let connection = match timeout(PATIENCE, self.open(connector, &socket)).await {
            Ok(opened) => opened.map_err(|error| self.failure(&error))?,
            Err(_) => return Err(self.unreachable(&format!("no answer within {} s", PATIENCE.as_secs()))),
        };
        socket.keep();
        Ok(connection)
    }

    async fn open(&self, connector: Option<RustlsConnector>, socket: &Socket) -> lapin::Result<Connection> {
        let own = Arc::clone(&socket.0);
        let options = ConnectionProperties::default().with_connection_name("diorama".into());
        let runtime = lapin::runtime::default_runtime()?;
        let connect = Connection::connector(
            self.uri.clone(),
            runtime,
            async move |uri: AMQPUri, runtime: _| {
                let address = runtime.to_socket_addrs((uri.authority.host.clone(), uri.authority.port));
                let connecting = timeout(PATIENCE, AsyncTcpStream::connect(&runtime, address)).await;
                let stream = connecting.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                if let AsyncTcpStream::Plain(plain) = &stream {
                    *own.lock() = Some(plain.get_ref().as_fd().try_clone_to_owned()?.into());
                }
                match &connector {
                    Some(connector) => Ok(stream.into_rustls(connector, &uri.authority.host).await?),
                    None => Ok(stream),
                }
            },
            options,
        );
        connect.await
    }

    fn tls(&self) -> Result<RustlsConnector, String> {
        let pem = match &self.ca {
            Some(path) => Some(std::fs::read(path).map_err(|error| format!("ca {}: {error}", path.display()))?),
            None => None,
        };
        Ok(tls::client(&pem.as_deref().map_or(Verification::Public, Verification::Authorities))?.into())
    }
}

/// Socket of a connection that is not made yet. The client waits without a limit for a broker that does not answer, on a thread of its
/// own, so that dropping this shuts the socket down.
#[derive(Default)]
struct Socket(Arc<Mutex<Option<std::net::TcpStream>>>);

impl Socket {
    /// Leaves the socket to the connection.
    fn keep(self) {
        *self.0.lock() = None;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(socket) = self.0.lock().take() {
            let _gone = socket.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        let address = AmqpAddress::parse("amqps://ann:s%2Fcret@broker.example/shop", None).unwrap();
        assert_eq!(address.to_string(), "amqps://broker.example:5671/shop");
        assert!(!format!("{address:?}").contains("cret"));
        assert_eq!(address.uri.authority.userinfo.password, "s/cret");
        for url in ["amqp://127.0.0.1", "amqp://127.0.0.1/", "amqp://127.0.0.1/%2f"] {
            let address = AmqpAddress::parse(url, None).unwrap();
            assert_eq!((address.uri.vhost.as_str(), address.to_string().as_str()), ("/", "amqp://127.0.0.1:5672/"));
        }
        for url in ["", "broker", "http://broker", "amqp://ann:se/cret@broker"] {
            let problem = AmqpAddress::parse(url, None).unwrap_err();
            assert!(problem.contains("amqp://HOST:PORT/VHOST") && !problem.contains("cret"), "{problem}");
        }
        assert!(AmqpAddress::parse("amqp://broker", Some("ca.pem".into())).unwrap_err().contains("amqps://"));
    }
}
