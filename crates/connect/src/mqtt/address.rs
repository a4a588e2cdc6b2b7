//! Address of a broker and the way to connect to it.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rumqttc::v5::mqttbytes::v5::{ConnAck, Packet};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use tokio::time::timeout;

use super::errors::Failure;
use crate::connector::Settings;
use crate::tls::{self, Verification};

/// Timeout for connecting, and for any request.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two pings, which find a connection that is lost without notice.
const PING: Duration = Duration::from_secs(5);
/// Maximum size of a packet that the broker may send, in bytes. It drops larger ones without a word.
const MAX_PACKET: u32 = 16 << 20;

/// A broker.
#[derive(Clone)]
pub(super) struct MqttAddress {
    host: String,
    port: u16,
    tls: bool,
    ca: Option<PathBuf>,
    login: Option<(String, String)>,
}

impl std::fmt::Debug for MqttAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("MqttAddress").field(&self.to_string()).finish()
    }
}

/// Without user and password.
impl std::fmt::Display for MqttAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// Session at a broker.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// Name of the client. The broker has one connection and one session for each.
    pub(super) client: String,
    /// Seconds for which the broker keeps the session without a connection; `None` for none.
    pub(super) expiry: Option<u32>,
    /// Maximum number of messages that are not acknowledged.
    pub(super) prefetch: u16,
}

/// A connection. It works while its [`EventLoop`] is polled.
pub(super) struct Connected {
    pub(super) client: AsyncClient,
    pub(super) events: EventLoop,
    /// The broker's answer.
    pub(super) answer: ConnAck,
}

impl MqttAddress {
    /// Reads the settings of a route or feed; `None` after reporting a mistake.
    pub(super) fn read(settings: &dyn Settings) -> Option<MqttAddress> {
        let (user, password, ca) = (settings.text("user"), settings.secret("password"), settings.path("ca"));
        let address = match MqttAddress::parse(&settings.secret("mqtt")?, ca) {
            Ok(address) => Some(address),
            Err(problem) => {
                settings.wrong("mqtt", problem);
                None
            }
        };
        match (user, password) {
            (None, None) => address,
            (Some(user), Some(password)) => {
                address.map(|address| MqttAddress { login: Some((user, password)), ..address })
            }
            _ => {
                settings.wrong("password", "user and password are both required to log in".into());
                None
            }
        }
    }

    /// Reads a URL. A mistake is reported without the URL, which may contain a password.
    pub(super) fn parse(url: &str, ca: Option<PathBuf>) -> Result<MqttAddress, String> {
        let form = || "mqtt://HOST:PORT, or mqtts:// to encrypt, perhaps with USER:PASSWORD@".to_string();
        let uri: http::Uri = url.trim().parse().map_err(|_| form())?;
        let tls = match uri.scheme_str() {
            Some("mqtt") => false,
            Some("mqtts") => true,
            _ => return Err(form()),
        };
        let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or_else(form)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(form());
        }
        if ca.is_some() && !tls {
            return Err("with ca, the URL is mqtts://HOST:PORT: only then is the connection encrypted".into());
        }
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().map(String::from).map_err(|_| form());
        let login = match authority.as_str().rsplit_once('@') {
            Some((login, _)) => {
                let (user, password) = login.split_once(':').ok_or_else(form)?;
                Some((decoded(user)?, decoded(password)?))
            }
            None => None,
        };
        let port = authority.port_u16().unwrap_or(if tls { 8883 } else { 1883 });
        Ok(MqttAddress { host: authority.host().to_string(), port, tls, ca, login })
    }

    /// Returns the failure that `problem` describes, of a request without an effect.
    pub(super) fn unreachable(&self, problem: &str) -> Failure {
        Failure::unreachable(format!("{self}: {problem}"))
    }

    /// Connects once. `capacity` is the number of requests that may wait for the [`EventLoop`].
    ///
    /// # Errors
    /// The reason, for people.
    pub(super) async fn connect(&self, session: &Session, capacity: usize) -> Result<Connected, Failure> {
        let options = self.options(session).map_err(|problem| self.unreachable(&problem))?;
        let (client, mut events) = AsyncClient::new(options, capacity);
        match timeout(PATIENCE, events.poll()).await {
            Ok(Ok(Event::Incoming(Packet::ConnAck(answer)))) => Ok(Connected { client, events, answer }),
            Ok(Ok(_)) => Err(self.unreachable("the broker does not speak MQTT")),
            Ok(Err(error)) => Err(Failure::of(&self.to_string(), &error)),
            Err(_) => Err(self.unreachable(&format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }

    fn options(&self, session: &Session) -> Result<MqttOptions, String> {
        let mut options = MqttOptions::new(session.client.as_str(), self.host.as_str(), self.port);
        options.set_keep_alive(PING).set_connection_timeout(PATIENCE.as_secs()).set_manual_acks(true);
        options.set_clean_start(session.expiry.is_none()).set_session_expiry_interval(session.expiry);
        options.set_receive_maximum(Some(session.prefetch)).set_max_packet_size(Some(MAX_PACKET));
        if let Some((user, password)) = &self.login {
            options.set_credentials(user.as_str(), password.as_str());
        }
        if self.tls {
            let pem = match &self.ca {
                Some(path) => Some(std::fs::read(path).map_err(|error| format!("ca {}: {error}", path.display()))?),
                None => None,
            };
            let config = tls::client(&pem.as_deref().map_or(Verification::Public, Verification::Authorities))?;
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(config)));
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        let address = MqttAddress::parse("mqtts://ann:s%2Fcret@broker.example", None).unwrap();
        assert_eq!(address.to_string(), "mqtts://broker.example:8883");
        assert!(!format!("{address:?}").contains("cret"));
        assert_eq!(address.login, Some(("ann".into(), "s/cret".into())));
        assert_eq!(MqttAddress::parse("mqtt://127.0.0.1", None).unwrap().to_string(), "mqtt://127.0.0.1:1883");
        for url in
            ["", "broker", "http://broker", "mqtt://broker/path", "mqtt://ann@broker", "mqtt://ann:se/cret@broker"]
        {
            let problem = MqttAddress::parse(url, None).unwrap_err();
            assert!(problem.contains("mqtt://HOST:PORT") && !problem.contains("cret"), "{url} {problem}");
        }
        assert!(MqttAddress::parse("mqtt://broker", Some("ca.pem".into())).unwrap_err().contains("mqtts://"));
    }
}
