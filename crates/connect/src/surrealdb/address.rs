//! Address of a database and the way to connect to it.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{Connector, connect_async_tls_with_config};

use super::cbor::{member, object};
use super::errors::{Failure, failed};
use super::rpc::{MAX_ANSWER, Session};
use crate::connector::Settings;
use crate::tls::{self, Verification};
use diorama_core::record::CborValue;
use diorama_core::vista::{Error, Result};

/// Timeout for connecting and logging in.
const CONNECT: Duration = Duration::from_secs(10);
/// First version of the server that this program speaks to.
const VERSION: u64 = 3;

/// A database of a server.
#[derive(Clone)]
pub(super) struct Address {
    /// `ws://HOST:PORT/rpc` or `wss://HOST:PORT/rpc`.
    url: String,
    pub(super) namespace: String,
    pub(super) database: String,
    login: Login,
    ca: Option<PathBuf>,
}

/// How to log in.
#[derive(Clone)]
enum Login {
    Anonymous,
    User { user: String, password: String, level: Option<Level> },
    Token(String),
}

/// Level at which a user is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Root,
    Namespace,
    Database,
}

impl Level {
    const WORDS: [&'static str; 3] = ["root", "namespace", "database"];

    fn of(word: &str) -> Level {
        match word {
            "root" => Level::Root,
            "namespace" => Level::Namespace,
            _ => Level::Database,
        }
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Address({self})")
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.url, self.namespace, self.database)
    }
}

impl Address {
    /// Reads the settings of a source or route; `None` after reporting a mistake.
    pub(super) fn read(settings: &dyn Settings) -> Option<Address> {
        let url = settings.text("surrealdb").unwrap_or_default();
        let url = endpoint(&url).map_err(|problem| settings.wrong("surrealdb", problem)).ok();
        let required = |key: &'static str| {
            let value = settings.text(key).filter(|value| !value.is_empty());
            if value.is_none() {
                settings.wrong(key, format!("a surrealdb source or route requires {key} = \"NAME\""));
            }
            value
        };
        let (namespace, database) = (required("namespace"), required("database"));
        let level = settings.word("level", &Level::WORDS).map(Level::of);
        let login = match (settings.text("user"), settings.secret("password"), settings.secret("token")) {
            (Some(user), Some(password), None) => Some(Login::User { user, password, level }),
            (None, None, Some(token)) => Some(Login::Token(token)),
            (None, None, None) => Some(Login::Anonymous),
            _ => {
                settings.wrong("password", "to log in, either user and password or token is required".into());
                None
            }
        };
        let ca = settings.path("ca");
        Some(Address { url: url?, namespace: namespace?, database: database?, login: login?, ca })
    }

    /// Address with a login of a root user.
    #[cfg(test)]
    pub(super) fn with_root(url: &str, namespace: &str, database: &str, password: &str) -> Address {
        Address::with_user(url, namespace, database, ("root", password))
    }

    /// Address with the login of a user of any level.
    #[cfg(test)]
    pub(super) fn with_user(url: &str, namespace: &str, database: &str, (user, password): (&str, &str)) -> Address {
        let login = Login::User { user: user.into(), password: password.into(), level: None };
        let (namespace, database) = (namespace.into(), database.into());
        Address { url: endpoint(url).unwrap(), namespace, database, login, ca: None }
    }

    /// Connects, logs in, and uses the database.
    ///
    /// # Errors
    /// [`Error::Config`] if the server refuses the login, or does not have the database; [`Error::Source`] if it cannot be reached.
    pub(super) async fn connect(&self) -> Result<Session> {
        let opened = timeout(CONNECT, Box::pin(self.open())).await;
        opened.map_err(|_| {
            Error::transient(format!("cannot connect to {self}: no answer within {} s", CONNECT.as_secs()))
        })?
    }

    async fn open(&self) -> Result<Session> {
        let wrong = |problem: String| Error::transient(format!("cannot connect to {self}: {problem}"));
        let mut request = self.url.as_str().into_client_request().map_err(|error| Error::Config(error.to_string()))?;
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("cbor"));
        let config = WebSocketConfig::default().max_message_size(Some(MAX_ANSWER)).max_frame_size(Some(MAX_ANSWER));
        let connector = match &self.ca {
            Some(path) => {
                let pem = std::fs::read(path).map_err(|error| wrong(format!("ca {}: {error}", path.display())))?;
                Some(Connector::Rustls(tls::client(&Verification::Authorities(&pem)).map_err(wrong)?))
            }
            None => None,
        };
        let connected = connect_async_tls_with_config(request, Some(config), true, connector).await;
        let (socket, _) = connected.map_err(|error| wrong(error.to_string()))?;
        let mut session = Session::new(socket);
        let refused = |failure: Failure| match failure {
            Failure::Refused(refusal) => Error::Config(format!("{self}: {}", refusal.advice())),
            failure => wrong(failure.to_string()),
        };
        self.log_in(&mut session).await.map_err(refused)?;
        self.check_version(&mut session).await?;
        self.enter(&mut session).await?;
        Ok(session)
    }

    async fn log_in(&self, session: &mut Session) -> std::result::Result<(), Failure> {
        let (user, password, level) = match &self.login {
            Login::Anonymous => return Ok(()),
            Login::Token(token) => return session.call("authenticate", vec![token.as_str().into()]).await.map(drop),
            Login::User { user, password, level } => (user.as_str(), password.as_str(), *level),
        };
        let levels = level.map_or(vec![Level::Database, Level::Namespace, Level::Root], |level| vec![level]);
        let mut result = Ok(());
        for level in levels {
            let mut login = object([("user", user.into()), ("pass", password.into())]);
            if let CborValue::Map(members) = &mut login {
                if level != Level::Root {
                    members.push(("NS".into(), self.namespace.as_str().into()));
                }
                if level == Level::Database {
                    members.push(("DB".into(), self.database.as_str().into()));
                }
            }
            result = session.call("signin", vec![login]).await.map(drop);
            match &result {
                Err(Failure::Refused(refusal)) if refusal.is_login() || refusal.kind.starts_with("NotFound") => {}
                _ => return result,
            }
        }
        result
    }

    /// Checks that the server is new enough.
    async fn check_version(&self, session: &mut Session) -> Result<()> {
        let version = match session.call("version", Vec::new()).await {
            Ok(version) => version,
            // It may be forbidden.
            Err(Failure::Refused(_)) => return Ok(()),
            Err(failure) => return Err(failed(failure)),
        };
        let version = version.as_text().or(super::cbor::text(&version, "version")).unwrap_or_default().to_string();
        let number = version.trim_start_matches("surrealdb-");
        match number.split('.').next().and_then(|major| major.parse::<u64>().ok()) {
            Some(major) if major < VERSION => {
                Err(Error::Config(format!("{self} is {version}: SurrealDB {VERSION}.0 or newer is required")))
            }
            _ => Ok(()),
        }
    }

    /// Uses the database. A server makes one that does not exist, which is not wanted, so this is asked before.
    async fn enter(&self, session: &mut Session) -> Result<()> {
        let failed = |failure: Failure| match failure {
            Failure::Refused(refusal) => Error::Config(format!("{self}: {}", refusal.advice())),
            failure => failed(failure),
        };
        let (namespace, database) = (&self.namespace, &self.database);
        let missing = |what: &str, name: &str, define: String| {
            Error::Config(format!("{self}: the {what} {name:?} does not exist: check {what}, or run {define}"))
        };
        if lacks(session, "INFO FOR ROOT", "namespaces", namespace).await.map_err(failed)? {
            let define = format!("DEFINE NAMESPACE {}", super::value::identifier(namespace));
            return Err(missing("namespace", namespace, define));
        }
        let params = vec![namespace.as_str().into(), CborValue::Null];
        session.call("use", params).await.map_err(failed)?;
        if lacks(session, "INFO FOR NS", "databases", database).await.map_err(failed)? {
            let define = format!("DEFINE DATABASE {}", super::value::identifier(database));
            return Err(missing("database", database, define));
        }
        let params = vec![namespace.as_str().into(), database.as_str().into()];
        session.call("use", params).await.map(drop).map_err(failed)
    }
}

/// Returns true if the server says that `name` does not exist. A user of a lower level may not ask, and could not log in.
async fn lacks(session: &mut Session, sql: &str, list: &str, name: &str) -> std::result::Result<bool, Failure> {
    match session.last(sql, object([]), None).await {
        Ok(info) => Ok(member(&info, list).is_some_and(|list| member(list, name).is_none())),
        Err(Failure::Refused(_)) => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Returns the endpoint of the RPC of a server.
fn endpoint(url: &str) -> std::result::Result<String, String> {
    const FORM: &str = r#"surrealdb = "ws://HOST:PORT" or "wss://HOST:PORT""#;
    let (scheme, rest) = url.split_once("://").ok_or(FORM)?;
    let scheme = match scheme {
        "ws" | "http" => "ws",
        "wss" | "https" => "wss",
        _ => return Err(FORM.into()),
    };
    let rest = rest.trim_end_matches('/');
    let rest = rest.strip_suffix("/rpc").unwrap_or(rest);
    if rest.contains('@') {
        return Err("user and password are keys of their own, so that logs do not show them".into());
    }
    if rest.is_empty() || rest.contains(['?', '#', ' ']) {
        return Err(FORM.into());
    }
    Ok(format!("{scheme}://{rest}/rpc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_one_form() {
        for url in ["ws://h:8000", "http://h:8000/", "ws://h:8000/rpc", "ws://h:8000/rpc/"] {
            assert_eq!(endpoint(url).unwrap(), "ws://h:8000/rpc", "{url}");
        }
        assert_eq!(endpoint("https://db.example.com").unwrap(), "wss://db.example.com/rpc");
        for wrong in ["", "h:8000", "ftp://h", "ws://", "ws://root:secret@h:8000"] {
            let problem = endpoint(wrong).unwrap_err();
            assert!(!problem.contains("secret"), "{problem}");
        }
    }
}
