//! Issuers of tokens: their settings, and their keys, which are fetched and refreshed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use ring::hmac;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::AuthConfigError;
use super::algorithm::{Algorithm, JwkSet};
use super::keys::TokenHash;

/// Minimum length of a secret in bytes: that of a SHA-256 hash, which RFC 7518 requires.
pub const LEAST_SECRET: usize = 32;
/// Time between two refreshes of a key set, if its server does not say another one.
const REFRESH: Duration = Duration::from_secs(600);
/// Shortest and longest time between two refreshes.
const BOUNDS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(86_400));
/// Shortest and longest time before the next attempt after a failure.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Shortest time between two refreshes that unknown keys cause.
const ON_DEMAND: Duration = Duration::from_secs(60);
/// Maximum time for fetching a key set.
const FETCH: Duration = Duration::from_secs(10);
/// Time that a request with an unknown key waits for a refresh.
const PATIENCE: Duration = Duration::from_secs(5);

/// Settings of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerSettings {
    /// Name in the names of principals, unique among issuers.
    pub name: String,
    /// Value of `iss`.
    pub issuer: String,
    /// Accepted values of `aud`.
    pub audience: Vec<String>,
    /// Accepted algorithms.
    pub algorithms: Vec<Algorithm>,
    /// Path of the claim that has the role.
    pub role_claim: String,
    /// Accepted roles; all if empty.
    pub roles: Vec<String>,
    /// Role of tokens without one; they are refused if it is `None`.
    pub default_role: Option<String>,
    /// Tolerated difference of clocks.
    pub leeway: Duration,
    /// Required `typ`, such as `at+jwt`; `None` to accept any.
    pub typ: Option<String>,
}

impl IssuerSettings {
    /// Creates settings with the role in the claim `role`, 30 seconds of leeway, and no audience or algorithm.
    pub fn new(name: &str, issuer: &str) -> IssuerSettings {
        IssuerSettings {
            name: name.into(),
            issuer: issuer.into(),
            audience: Vec::new(),
            algorithms: Vec::new(),
            role_claim: "role".into(),
            roles: Vec::new(),
            default_role: None,
            leeway: Duration::from_secs(30),
            typ: None,
        }
    }
}

/// Origin of the keys of an issuer.
#[derive(Clone)]
pub enum KeySource {
    /// URL of a key set, fetched by [`GatewayService::refresh_keys`](crate::GatewayService::refresh_keys).
    Url(String),
    /// Key set that the program has read.
    Set(JwkSet),
    /// Secret for `HS256`.
    Secret(Vec<u8>),
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeySource::Url(url) => f.debug_tuple("Url").field(url).finish(),
            KeySource::Set(set) => write!(f, "Set({} keys)", set.len()),
            KeySource::Secret(_) => f.write_str("Secret(..)"),
        }
    }
}

/// Answer of the server of a key set.
#[derive(Clone, Debug)]
pub struct JwksDocument {
    /// The document, of at most [`MOST_KEY_SET`](super::MOST_KEY_SET) bytes.
    pub body: Vec<u8>,
    /// Time for which it may be kept (`max-age` of `Cache-Control`).
    pub max_age: Option<Duration>,
}

/// Client that fetches key sets.
pub trait JwksSource: Send + Sync {
    /// Fetches the document at `url`. A redirect to another origin is an error.
    ///
    /// # Errors
    /// The reason, for the log.
    fn fetch<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<JwksDocument, String>>;
}

/// Issuer of tokens, with its keys.
#[derive(Debug)]
pub struct Issuer {
    settings: IssuerSettings,
    source: Verifier,
    keys: ArcSwapOption<JwkSet>,
    /// Number of the key set. Rises with each change, so that cached verifications end.
    number: AtomicU64,
    /// Cancelled once a reload has removed the issuer.
    pub(super) revoked: CancellationToken,
    demand: Demand,
}

/// Kind of the keys.
#[derive(Debug)]
enum Verifier {
    Url(String),
    Set,
    Secret(hmac::Key, TokenHash),
}

/// Requests for a refresh.
#[derive(Debug)]
struct Demand {
    wanted: Notify,
    /// Time of the last request, and the number of attempts before it.
    last: Mutex<Option<(Instant, u64)>>,
    /// Number of attempts, and the error of the last one.
    attempts: watch::Sender<(u64, Option<String>)>,
}

impl Issuer {
    /// Creates an issuer.
    ///
    /// # Errors
    /// The setting that is missing, or is not safe.
    pub fn new(settings: IssuerSettings, keys: KeySource) -> Result<Issuer, AuthConfigError> {
        let wrong = |why| Err(AuthConfigError::Issuer(settings.name.clone(), why));
        let symmetric = settings.algorithms.contains(&Algorithm::Hs256);
        match &keys {
            _ if settings.issuer.is_empty() => return wrong("issuer is empty"),
            _ if settings.audience.is_empty() => return wrong("audience is empty"),
            _ if settings.algorithms.is_empty() => return wrong("algorithms is empty"),
            KeySource::Secret(secret) if secret.len() < LEAST_SECRET => {
                return wrong("the secret is shorter than 32 bytes");
            }
            KeySource::Secret(_) if settings.algorithms != [Algorithm::Hs256] => {
                return wrong("a secret verifies HS256 only");
            }
            KeySource::Url(_) | KeySource::Set(_) if symmetric => {
                return wrong("HS256 cannot be combined with a key set, whose public keys everybody could sign with");
            }
            _ => {}
        }
        let set = match &keys {
            KeySource::Set(set) => Some(Arc::new(set.clone())),
            _ => None,
        };
        let source = match keys {
            KeySource::Url(url) => Verifier::Url(url),
            KeySource::Set(_) => Verifier::Set,
            KeySource::Secret(secret) => {
                Verifier::Secret(hmac::Key::new(hmac::HMAC_SHA256, &secret), TokenHash::of(&secret))
            }
        };
        let demand = Demand { wanted: Notify::new(), last: Mutex::default(), attempts: watch::Sender::default() };
        let keys = ArcSwapOption::new(set);
        Ok(Issuer { settings, source, keys, number: AtomicU64::new(0), revoked: CancellationToken::new(), demand })
    }

    /// Returns the settings.
    pub fn settings(&self) -> &IssuerSettings {
        &self.settings
    }

    /// Returns the secret, if tokens are signed with one.
    pub(super) fn secret(&self) -> Option<&hmac::Key> {
        match &self.source {
            Verifier::Secret(key, _) => Some(key),
            Verifier::Url(_) | Verifier::Set => None,
        }
    }

    /// Returns the key set; `None` until it was fetched.
    pub(super) fn keys(&self) -> Option<Arc<JwkSet>> {
        self.keys.load_full()
    }

    pub(super) fn set_number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// Replaces the key set. Tokens that were verified by the former one are verified again.
    pub(super) fn set_keys(&self, set: JwkSet) {
        if self.keys.load().as_deref() != Some(&set) {
            self.keys.store(Some(Arc::new(set)));
            self.number.fetch_add(1, Ordering::Release);
        }
    }

    /// Returns the error of the last attempt to fetch the keys, or that none has ended, while there are none.
    pub(super) fn trouble(&self) -> Option<String> {
        if !matches!(self.source, Verifier::Url(_)) {
            return None;
        }
        let error = self.demand.attempts.borrow().1.clone();
        match (self.keys.load().is_some(), error) {
            (true, error) => error.map(|error| format!("the keys of {} are old: {error}", self.settings.name)),
            (false, error) => {
                let why = error.unwrap_or_else(|| "they are being fetched".into());
                Some(format!("there are no keys of {}, so its tokens are refused: {why}", self.settings.name))
            }
        }
    }

    /// Returns true if `old` can be kept in place of this issuer: everything but the content of a key set is the same.
    fn is_equal(&self, old: &Issuer) -> bool {
        let same_source = match (&self.source, &old.source) {
            (Verifier::Url(own), Verifier::Url(old)) => own == old,
            (Verifier::Set, Verifier::Set) => true,
            (Verifier::Secret(_, own), Verifier::Secret(_, old)) => own == old,
            _ => false,
        };
        same_source && self.settings == old.settings
    }

    /// Returns the issuer that takes the place of `old`: `old` with the new keys if the settings are equal.
    pub(super) fn replacing(own: &Arc<Issuer>, old: &[Arc<Issuer>]) -> Arc<Issuer> {
        let Some(old) = old.iter().find(|old| own.is_equal(old)) else { return Arc::clone(own) };
        if let (Verifier::Set, Some(set)) = (&own.source, own.keys()) {
            old.set_keys(JwkSet::clone(&set));
        }
        Arc::clone(old)
    }

    /// Asks for a refresh because a key is unknown, and waits for it. Returns at once if the last one was less than a minute ago.
    pub(super) async fn refresh_on_demand(&self) {
        if !matches!(self.source, Verifier::Url(_)) {
            return;
        }
        let mut attempts = self.demand.attempts.subscribe();
        let (now, count) = (Instant::now(), attempts.borrow_and_update().0);
        {
            let mut last = self.demand.last.lock();
            match *last {
                // The refresh has not ended yet.
                Some((_, before)) if before == count => {}
                Some((at, _)) if now.duration_since(at) < ON_DEMAND => return,
                _ => {
                    *last = Some((now, count));
                    self.demand.wanted.notify_one();
                }
            }
        }
        let _ = timeout(PATIENCE, attempts.changed()).await;
    }

    /// Fetches the keys by `source`, again and again. Never returns.
    pub(super) async fn refresh(&self, source: &dyn JwksSource) {
        let Verifier::Url(url) = &self.source else { return std::future::pending().await };
        let mut retry = RETRY.0;
        loop {
            let fetched = timeout(FETCH, source.fetch(url)).await.unwrap_or_else(|_| Err("no answer in 10 s".into()));
            let read = fetched.and_then(|document| Ok((JwkSet::parse(&document.body)?, document.max_age)));
            let (wait, error) = match read {
                Ok((set, max_age)) => {
                    self.set_keys(set);
                    retry = RETRY.0;
                    (max_age.unwrap_or(REFRESH).clamp(BOUNDS.0, BOUNDS.1), None)
                }
                Err(error) => {
                    let wait = retry;
                    retry = (retry * 2).min(RETRY.1);
                    let has_keys = self.keys.load().is_some();
                    tracing::warn!(
                        issuer = self.settings.name,
                        url,
                        error,
                        has_keys,
                        "the keys of an issuer could not be fetched"
                    );
                    (wait, Some(error))
                }
            };
            self.demand.attempts.send_modify(|(count, last)| (*count, *last) = (*count + 1, error));
            tokio::select! {
                () = sleep(wait) => {}
                () = self.demand.wanted.notified() => {}
            }
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;
    use crate::auth::jwt::testing::object;

    /// Pair of keys.
    pub(in crate::auth) struct Pair(Ed25519KeyPair);

    /// Returns the pair of a seed.
    pub(in crate::auth) fn ed25519(seed: u8) -> Pair {
        Pair(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    impl Pair {
        /// Returns the public key as a member of a set.
        pub(in crate::auth) fn jwk(&self, kid: &str) -> String {
            let x = URL_SAFE_NO_PAD.encode(self.0.public_key());
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":{kid:?}}}"#)
        }

        /// Returns a token with these claims.
        pub(in crate::auth) fn signed(&self, kid: &str, claims: &[(&str, String)]) -> String {
            let header = format!(r#"{{"alg":"EdDSA","kid":{kid:?}}}"#);
            let claims = object(claims);
            let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
            let signature = URL_SAFE_NO_PAD.encode(self.0.sign(message.as_bytes()));
            format!("{message}.{signature}")
        }
    }

    pub(in crate::auth) const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    /// Returns the issuer `https://idp.example`, whose tokens are signed with [`SECRET`].
    pub(in crate::auth) fn secret_issuer(name: &str) -> Issuer {
        let settings = IssuerSettings {
            audience: vec!["diorama".into()],
            algorithms: vec![Algorithm::Hs256],
            default_role: Some("member".into()),
            ..IssuerSettings::new(name, "https://idp.example")
        };
        Issuer::new(settings, KeySource::Secret(SECRET.to_vec())).unwrap()
    }
}
