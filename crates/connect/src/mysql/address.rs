//! Address of a MariaDB or MySQL server, its TLS settings, and new connections.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, DriverError, Error as MyError, Opts, OptsBuilder, SslOpts};
use tokio::time::timeout;

use super::errors::{failed, not_connected};
use crate::tls::{self, Verification};
use diorama_core::vista::{Error, Result};

/// Timeout for connecting.
const CONNECT: Duration = Duration::from_secs(10);

/// Maximum number of prepared statements of a connection.
const MAX_STATEMENTS: usize = 256;

/// Maximum size of an event of the binary log in bytes, which has one row at least.
const MAX_EVENT: usize = 1 << 30;

/// Settings of each session: they fix the meaning of values, and make the server refuse a value that does not fit instead of
/// cutting it.
const SESSION: &str = "SET NAMES utf8mb4; SET time_zone = '+00:00', autocommit = 1, sql_safe_updates = 0, max_sort_length = 1024, \
    sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO'; \
    SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ";

const FORM: &str = "write mysql://USER:PASSWORD@HOST/DATABASE";

/// Use of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MySqlTls {
    /// Encrypted if the server offers it; its certificate is checked only against a given authority.
    #[default]
    Prefer,
    /// Encrypted, with a certificate of a trusted authority.
    Require,
    /// Not encrypted.
    Off,
}

impl MySqlTls {
    pub(super) const WORDS: [&'static str; 3] = ["prefer", "require", "off"];

    pub(super) fn of(word: &str) -> MySqlTls {
        match word {
            "require" => MySqlTls::Require,
            "off" => MySqlTls::Off,
            _ => MySqlTls::Prefer,
        }
    }
}

/// Address of a database: `mysql://USER:PASSWORD@HOST/DATABASE`, and how to encrypt.
#[derive(Clone)]
pub(super) struct Address {
    opts: Opts,
    pub(super) tls: MySqlTls,
    /// File with the certificates of the authorities to trust instead of the public ones.
    pub(super) ca: Option<PathBuf>,
    /// Host, port and database, without secrets.
    shown: String,
    /// True once the server has said that it does not encrypt.
    is_plain: Arc<AtomicBool>,
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
    pub(super) fn parse(url: &str, tls: Option<MySqlTls>, ca: Option<PathBuf>) -> std::result::Result<Address, String> {
        let url = match url.strip_prefix("mariadb://") {
            Some(rest) => format!("mysql://{rest}"),
            None => url.to_string(),
        };
        if !url.starts_with("mysql://") {
            return Err(format!("the URL does not begin with mysql://: {FORM}"));
        }
        let opts = Opts::from_url(&url).map_err(|error| format!("the URL is not valid ({error}): {FORM}"))?;
        if opts.db_name().is_none_or(str::is_empty) {
            return Err(format!("the URL has no database: {FORM}"));
        }
        let tls = tls.unwrap_or(if opts.ssl_opts().is_some() { MySqlTls::Require } else { MySqlTls::Prefer });
        let shown = shown(&opts);
        Ok(Address { opts, tls, ca, shown, is_plain: Arc::default() })
    }

    pub(super) fn user(&self) -> &str {
        self.opts.user().unwrap_or("the user")
    }

    pub(super) fn database(&self) -> &str {
        self.opts.db_name().unwrap_or_default()
    }

    /// Opens a connection whose values have the meaning that this crate reads.
    ///
    /// # Errors
    /// [`Error::Source`] that says what to do.
    pub(super) async fn connect(&self) -> Result<Conn> {
        let mut conn = self.opened(None).await?;
        conn.query_drop(SESSION).await.map_err(failed)?;
        Ok(conn)
    }

    /// Opens a connection for the binary log, whose events can be larger than any other answer.
    ///
    /// # Errors
    /// As [`Address::connect`].
    pub(super) async fn connect_to_log(&self) -> Result<Conn> {
        self.opened(Some(MAX_EVENT)).await
    }

    async fn opened(&self, max_packet: Option<usize>) -> Result<Conn> {
        let opened = timeout(CONNECT, self.open(max_packet)).await;
        opened.map_err(|_| {
            Error::transient(format!("cannot connect to {self}: no answer within {} s", CONNECT.as_secs()))
        })?
    }

    async fn open(&self, max_packet: Option<usize>) -> Result<Conn> {
        let failed = |error| not_connected(&self.shown, error);
        let options = |encryption| match max_packet {
            Some(size) => self.options(encryption).max_allowed_packet(Some(size)),
            None => self.options(encryption),
        };
        if self.tls == MySqlTls::Off || self.is_plain.load(Ordering::Relaxed) {
            return Conn::new(options(None)).await.map_err(failed);
        }
        match Conn::new(options(Some(self.encryption()?))).await {
            Err(MyError::Driver(DriverError::NoClientSslFlagFromServer)) if self.tls == MySqlTls::Prefer => {
                self.is_plain.store(true, Ordering::Relaxed);
                Conn::new(options(None)).await.map_err(failed)
            }
            opened => opened.map_err(failed),
        }
    }

    fn options(&self, encryption: Option<SslOpts>) -> OptsBuilder {
        OptsBuilder::from_opts(self.opts.clone())
            .ssl_opts(encryption)
            .prefer_socket(false)
            .stmt_cache_size(MAX_STATEMENTS)
            .client_found_rows(true)
            .tcp_keepalive(Some(Duration::from_secs(30)))
    }

    fn encryption(&self) -> Result<SslOpts> {
        let own = self.opts.ssl_opts().cloned().unwrap_or_default();
        match &self.ca {
            Some(path) => {
                let wrong = |error: String| Error::Config(format!("ca: {}: {error}", path.display()));
                let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
                tls::client(&Verification::Authorities(&pem)).map_err(wrong)?;
                Ok(own.with_root_certs(vec![pem.into()]).with_disable_built_in_roots(true))
            }
            None if self.tls == MySqlTls::Require => Ok(own),
            None => Ok(own.with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true)),
        }
    }
}

fn shown(opts: &Opts) -> String {
    let user = opts.user().map(|user| format!("{user}@")).unwrap_or_default();
    let database = opts.db_name().unwrap_or_default();
    match opts.socket() {
        Some(socket) => format!("mysql://{user}{socket}/{database}"),
        None => format!("mysql://{user}{}:{}/{database}", opts.ip_or_hostname(), opts.tcp_port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        let address = Address::parse("mariadb://ann:s3cr%40t@db.example/shop", None, None).unwrap();
        assert_eq!(format!("{address} {address:?}").matches("s3cr").count(), 0);
        assert_eq!(address.to_string(), "mysql://ann@db.example:3306/shop");
        for wrong in [
            "postgres://ann:s3cret@h/d",
            "mysql://ann:s3cret@h",
            "mysql://ann:s3cret@h:x/d",
            "mysql://ann:s3cret@h/d?no=1",
        ] {
            let problem = Address::parse(wrong, None, None).unwrap_err();
            assert!(problem.ends_with(FORM) && !problem.contains("s3cret"), "{problem}");
        }
    }
}
