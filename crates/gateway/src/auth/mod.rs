//! Authentication of callers.
//!
//! `keys.rs` has the tokens of programs; `jwt.rs` verifies tokens of issuers (`issuer.rs`, `algorithm.rs`), and `verified.rs` remembers
//! them. `credentials.rs` finds tokens in headers. Browsers that can send no header use a ticket (`tickets.rs`) or a cookie
//! (`sessions.rs`), which `routes.rs` issues. `request.rs` authenticates a request by all of them, or by the certificate of its
//! client. `validity.rs` ends sockets, and `rights.rs` tells callers who they are.

mod algorithm;
mod credentials;
mod issuer;
mod jwt;
mod keys;
pub(crate) mod request;
pub(crate) mod rights;
pub(crate) mod routes;
pub(crate) mod sessions;
pub(crate) mod tickets;
pub(crate) mod validity;
mod verified;

pub use self::algorithm::{Algorithm, JwkSet, MOST_KEY_SET};
pub(crate) use self::credentials::hide;
pub use self::issuer::{Issuer, IssuerSettings, JwksDocument, JwksSource, KeySource, LEAST_SECRET};
pub use self::keys::{Key, TokenHash};
pub use self::sessions::Https;

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::{ArcSwap, Guard};
use axum::http::{HeaderMap, HeaderValue, header};
use futures_util::future::join_all;
use thiserror::Error;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::jwt::{TokenError, UnverifiedToken};
use self::keys::Keys;
use self::verified::{Verified, VerifiedTokens};
use crate::access::Principal;
use crate::http::client_certificate::ClientCertificate;
use crate::http::origin::check_own;
use crate::http::problem::{ApiError, Code};
use crate::http::response;

/// Mistake in the settings of authentication.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AuthConfigError {
    /// A key has neither a token nor a certificate.
    #[error("the key {0:?} has neither a token nor a certificate")]
    NoToken(String),
    /// Two keys have the same token.
    #[error("a token of the key {0:?} is also one of another key")]
    SameToken(String),
    /// Two keys have the same certificate.
    #[error("a certificate of the key {0:?} is also one of another key")]
    SameCertificate(String),
    /// Two issuers have the same name or the same `iss`.
    #[error("two issuers have the name or the issuer of {0:?}")]
    SameIssuer(String),
    /// A setting of an issuer is missing or not safe.
    #[error("the issuer {0:?}: {1}")]
    Issuer(String, &'static str),
}

/// Reason why a caller is not authenticated. The texts are sent to callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum AuthError {
    /// Refused because a proxy in between may have checked another header than this server would.
    #[error("the request has several Authorization headers")]
    Several,
    #[error("the Authorization header is not a valid bearer token")]
    NotBearer,
    #[error("the request has no token")]
    Missing,
    #[error("the token is not known")]
    Unknown,
    #[error("the token has expired")]
    Expired,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the ticket is not valid for this request: it counts once, within 30 seconds, for a GET of its path")]
    Ticket,
    #[error("the session has ended")]
    Session,
    #[error("the session counts only for requests of pages of this server")]
    CookieOrigin,
    #[error("the client certificate counts only for requests of programs and of pages of this server")]
    CertificateOrigin,
    #[error("the key of the client certificate has expired")]
    CertificateExpired,
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> ApiError {
        let detail = error.to_string();
        let (code, hint) = match error {
            AuthError::Several => (Code::InvalidHeader, "send one Authorization header"),
            AuthError::Token(TokenError::NoKeys) => (Code::KeysUnavailable, "GET /readyz shows the reason"),
            AuthError::Session => (Code::Unauthenticated, "begin another one with POST /_session"),
            AuthError::CookieOrigin => (
                Code::Unauthenticated,
                "send the header Authorization: Bearer TOKEN; a browser sends Origin or Sec-Fetch-Site with the cookie, a script of \
                 this server without TLS X-Requested-With",
            ),
            AuthError::Ticket => (Code::Unauthenticated, "get another one with POST /_ticket"),
            _ => (
                Code::Unauthenticated,
                "send the header Authorization: Bearer TOKEN; a browser's WebSocket offers the subprotocols \
                 diorama.v1+json and bearer.TOKEN",
            ),
        };
        let challenge = match error {
            AuthError::Several | AuthError::Missing | AuthError::CertificateOrigin | AuthError::CertificateExpired => {
                None
            }
            AuthError::NotBearer => Some("invalid_request"),
            _ if code != Code::Unauthenticated => None,
            _ => Some("invalid_token"),
        };
        let challenge = challenge.map(|kind| format!(r#"Bearer error="{kind}", error_description="{detail}""#));
        let refusal = ApiError::new(code, detail).hint(hint);
        match challenge {
            Some(challenge) => refusal.header(header::WWW_AUTHENTICATE, response::text(challenge)),
            None => refusal,
        }
    }
}

/// Authentication of callers: by none, by tokens, by named keys (tokens or client certificates) and by tokens of issuers. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Auth(Arc<Methods>);

/// Methods of authentication.
#[derive(Debug, Default)]
struct Methods {
    keys: Keys,
    issuers: Vec<Arc<Issuer>>,
    verified: VerifiedTokens,
    anonymous: bool,
}

impl Auth {
    /// No authentication: every caller is admitted.
    pub fn none() -> Auth {
        Auth::default()
    }

    /// Equal tokens, one of which is sent as `Authorization: Bearer TOKEN` or offered as the WebSocket subprotocol `bearer.TOKEN`.
    pub fn tokens<T: Into<String>>(tokens: impl IntoIterator<Item = T>) -> Auth {
        let mut keys = Keys::default();
        keys.add_tokens(&tokens.into_iter().map(Into::into).collect::<Vec<_>>());
        // Without a token, nobody is admitted.
        keys.require();
        Auth(Arc::new(Methods { keys, ..Methods::default() }))
    }

    /// Starts with no method of authentication.
    pub fn builder() -> AuthBuilder {
        AuthBuilder::default()
    }

    /// Returns true if callers are authenticated.
    pub fn is_required(&self) -> bool {
        self.0.is_required()
    }
}

/// Builder of an [`Auth`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct AuthBuilder {
    tokens: Vec<String>,
    keys: Vec<Key>,
    issuers: Vec<Arc<Issuer>>,
    anonymous: bool,
}

impl AuthBuilder {
    /// Adds equal tokens; see [`Auth::tokens`].
    pub fn tokens<T: Into<String>>(mut self, tokens: impl IntoIterator<Item = T>) -> AuthBuilder {
        self.tokens.extend(tokens.into_iter().map(Into::into));
        self
    }

    /// Adds a key.
    pub fn key(mut self, key: Key) -> AuthBuilder {
        self.keys.push(key);
        self
    }

    /// Adds an issuer.
    pub fn issuer(mut self, issuer: Issuer) -> AuthBuilder {
        self.issuers.push(Arc::new(issuer));
        self
    }

    /// Admits callers without credentials too, with the role `anonymous` (default: no).
    pub fn anonymous(mut self, admitted: bool) -> AuthBuilder {
        self.anonymous = admitted;
        self
    }

    /// Builds the authentication. Without a token, key or issuer, every caller is admitted.
    ///
    /// # Errors
    /// Two keys or issuers are in conflict, or a key has neither a token nor a certificate.
    pub fn build(self) -> Result<Auth, AuthConfigError> {
        let mut keys = Keys::default();
        keys.add_tokens(&self.tokens);
        for key in &self.keys {
            keys.add(key)?;
        }
        for (at, issuer) in self.issuers.iter().enumerate() {
            let own = issuer.settings();
            let mut others = self.issuers.iter().take(at).map(|other| other.settings());
            if others.any(|other| other.issuer == own.issuer || other.name == own.name) {
                return Err(AuthConfigError::SameIssuer(own.name.clone()));
            }
        }
        Ok(Auth(Arc::new(Methods { keys, issuers: self.issuers, anonymous: self.anonymous, ..Methods::default() })))
    }
}

impl Methods {
    fn is_required(&self) -> bool {
        self.keys.is_required() || !self.issuers.is_empty()
    }

    /// Returns the principal of the token in `headers`; `None` if there is none.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<Option<Principal>, AuthError> {
        let Some(token) = credentials::token(headers)? else { return Ok(None) };
        let mut found = self.find(&token);
        if found.is_err()
            && let Some(decoded) = credentials::decoded(headers, &token)
        {
            found = self.find(&decoded).or(found);
        }
        found.map(Some)
    }

    /// Returns the principal of a client certificate; `None` if it is of no key. A browser sends a certificate by itself, so it counts only
    /// if the browser does not say that a page of another server sent the request.
    fn check_certificate(
        &self,
        certificate: Option<&ClientCertificate>,
        headers: &HeaderMap,
    ) -> Result<Option<Principal>, AuthError> {
        let known = certificate.and_then(|certificate| self.keys.find_certificate(&certificate.name));
        let Some(known) = known else { return Ok(None) };
        check_own(headers).map_err(|_| AuthError::CertificateOrigin)?;
        match known.is_valid(SystemTime::now()) {
            true => Ok(Some(known.clone())),
            false => Err(AuthError::CertificateExpired),
        }
    }

    /// Returns the principal of a token.
    fn find(&self, token: &[u8]) -> Result<Principal, AuthError> {
        let (hash, now) = (TokenHash::of(token), SystemTime::now());
        if let Some(known) = self.keys.find(&hash) {
            let expires = known.identity().and_then(|identity| identity.expires);
            return if expires.is_none_or(|end| now < end) { Ok(known.clone()) } else { Err(AuthError::Expired) };
        }
        // Tokens of issuers have dots. Others are answered alike, whether or not there are issuers.
        if self.issuers.is_empty() || !token.contains(&b'.') {
            return Err(AuthError::Unknown);
        }
        if let Some(known) = self.verified.find(&hash, now) {
            return Ok(known);
        }
        let (identity, issuer, set) = jwt::verify(&self.issuers, token, now)?;
        let principal = Principal::revocable(Arc::new(identity), issuer.revoked.clone());
        let verified = Verified { principal: principal.clone(), issuer: Arc::clone(issuer), set };
        self.verified.insert(hash, verified);
        Ok(principal)
    }

    /// Fetches the keys of the issuer of the token in `headers`, unless that was done less than a minute ago.
    async fn refresh_for(&self, headers: &HeaderMap) {
        let token = credentials::token(headers).ok().flatten();
        let Some(token) = token else { return };
        let Ok(token) = UnverifiedToken::parse(&token) else { return };
        if let Some(issuer) = jwt::find_issuer(&self.issuers, &token) {
            issuer.refresh_on_demand().await;
        }
    }
}

/// Authentication of a gateway, which can be replaced while it runs.
#[derive(Debug, Default)]
pub(crate) struct CurrentAuth {
    methods: ArcSwap<Methods>,
    replaced: Notify,
}

impl From<Auth> for CurrentAuth {
    fn from(auth: Auth) -> CurrentAuth {
        CurrentAuth { methods: ArcSwap::new(auth.0), replaced: Notify::new() }
    }
}

impl CurrentAuth {
    fn load(&self) -> Guard<Arc<Methods>> {
        self.methods.load()
    }

    /// Returns true if callers are authenticated.
    pub(crate) fn is_required(&self) -> bool {
        self.load().is_required()
    }

    /// Returns true if callers without credentials are admitted although others are authenticated.
    pub(crate) fn is_open(&self) -> bool {
        self.load().anonymous
    }

    /// Replaces the authentication. Principals whose keys or issuers are the same stay, all others are revoked.
    pub(crate) fn replace(&self, auth: &Auth) {
        let (old, new) = (self.methods.load_full(), &auth.0);
        let mut keys = new.keys.clone();
        keys.replace(&old.keys);
        let issuers: Vec<_> = new.issuers.iter().map(|issuer| Issuer::replacing(issuer, &old.issuers)).collect();
        let gone = old.issuers.iter().filter(|old| !issuers.iter().any(|issuer| Arc::ptr_eq(issuer, old)));
        let gone: Vec<CancellationToken> = gone.map(|issuer| issuer.revoked.clone()).collect();
        let methods = Methods { keys, issuers, verified: VerifiedTokens::default(), anonymous: new.anonymous };
        self.methods.store(Arc::new(methods));
        gone.iter().for_each(CancellationToken::cancel);
        self.replaced.notify_one();
    }

    /// Authenticates the token of an `auth` frame.
    pub(crate) async fn token(&self, token: &str) -> Result<Principal, AuthError> {
        if !self.is_required() {
            return Ok(Principal::anonymous());
        }
        let value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| AuthError::Unknown)?;
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
        let first = self.load().check(&headers);
        let found = match first {
            Err(error) if error.may_pass_later() => self.retry(&headers).await,
            found => found,
        };
        found?.ok_or(AuthError::Missing)
    }

    /// Authenticates again after the keys of the issuer were fetched. Without a fetch too: the one of another request may have ended since
    /// `headers` were refused.
    pub(crate) async fn retry(&self, headers: &HeaderMap) -> Result<Option<Principal>, AuthError> {
        let methods = self.methods.load_full();
        methods.refresh_for(headers).await;
        methods.check(headers)
    }

    /// Fetches and refreshes the keys of all issuers by `source`. Never returns.
    pub(crate) async fn refresh(&self, source: &dyn JwksSource) {
        loop {
            let methods = self.methods.load_full();
            tokio::select! {
                _ = join_all(methods.issuers.iter().map(|issuer| issuer.refresh(source))) => {
                    // Without an issuer there is nothing to do until the next reload.
                    self.replaced.notified().await;
                }
                () = self.replaced.notified() => {}
            }
        }
    }

    /// Returns the problems of issuers, for people.
    pub(crate) fn troubles(&self) -> Vec<String> {
        self.load().issuers.iter().filter_map(|issuer| issuer.trouble()).collect()
    }
}

impl AuthError {
    /// Returns true if the keys of an issuer may have changed.
    pub(crate) fn may_pass_later(self) -> bool {
        matches!(self, AuthError::Token(TokenError::UnknownKey | TokenError::NoKeys))
    }
}

#[cfg(test)]
mod tests;
