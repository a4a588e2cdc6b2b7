//! Authentication of the server: keys, issuers and their key sets.

#[cfg(feature = "http")]
use std::time::Duration;

#[cfg(feature = "http")]
use futures_util::future::BoxFuture;

use super::reload::{Change, Reloadable};
use super::{Failure, rule_mistakes};
use crate::config::{Access, Config, JwtKeys, JwtSpec, Secret};
use diorama_gateway::auth::{Issuer, JwkSet, KeySource, MOST_KEY_SET};
use diorama_gateway::{Auth, GatewayService};

/// Builds the authentication of `config`. Reads the files of key sets.
///
/// # Errors
/// All mistakes, one per line.
pub fn build_auth(config: &Config) -> Result<Auth, Failure> {
    let mut builder = Auth::builder().anonymous(config.server.anonymous);
    if let Some(Access::Tokens(tokens)) = &config.server.auth {
        builder = builder.tokens(tokens.iter().map(Secret::reveal));
    }
    for spec in &config.keys {
        builder = builder.key(spec.key());
    }
    let mut wrong = Vec::new();
    for spec in &config.jwts {
        match issuer(spec) {
            Ok(issuer) => builder = builder.issuer(issuer),
            Err(mistake) => wrong.push(format!("[jwt.{}] {mistake}", spec.settings.name)),
        }
    }
    match builder.build() {
        Ok(auth) if wrong.is_empty() => Ok(auth),
        Ok(_) => Err(Failure::config(wrong.join("\n"))),
        Err(mistake) => {
            wrong.push(mistake.to_string());
            Err(Failure::config(wrong.join("\n")))
        }
    }
}

/// Credentials and access rules of a running gateway, which a reload can change.
pub(super) struct AccessPart(pub(super) GatewayService);

impl Reloadable for AccessPart {
    fn keys(&self) -> &'static [&'static str] {
        &["server.auth", "server.anonymous", "key", "jwt", "allow"]
    }

    fn prepare(&self, config: &Config) -> Result<Change, String> {
        let auth = build_auth(config).map_err(|failure| failure.message)?;
        let policy = match self.0.has_rules(&config.allow) {
            true => None,
            false => Some(self.0.compile_rules(&config.allow).map_err(|mistakes| rule_mistakes(&mistakes))?),
        };
        let (gateway, rules) = (self.0.clone(), config.allow.len());
        let apply = move || {
            gateway.reload_auth(&auth);
            policy.into_iter().for_each(|policy| gateway.reload_rules(policy));
        };
        Ok(Change::Apply { description: format!("credentials and {rules} access rules"), apply: Box::new(apply) })
    }
}

fn issuer(spec: &JwtSpec) -> Result<Issuer, String> {
    let keys = match &spec.keys {
        JwtKeys::Url(_) if cfg!(not(feature = "http")) => {
            return Err("this build cannot fetch jwks: use a file, or a build with the feature http".into());
        }
        JwtKeys::Url(url) => KeySource::Url(url.clone()),
        JwtKeys::Secret(secret) => KeySource::Secret(secret.reveal().as_bytes().to_vec()),
        JwtKeys::File(path) => {
            let failed = |error: String| format!("jwks: {}: {error}", path.display());
            let size = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
            if size > MOST_KEY_SET as u64 {
                return Err(failed(format!("it is larger than {MOST_KEY_SET} bytes")));
            }
            let document = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
            KeySource::Set(JwkSet::parse(&document).map_err(failed)?)
        }
    };
    Issuer::new(spec.settings.clone(), keys).map_err(|error| error.to_string())
}

/// Fetches and refreshes the key sets of issuers. Never returns.
#[cfg(feature = "http")]
pub(super) async fn refresh_keys(gateway: &GatewayService) {
    match diorama_connect::http::Documents::new(Duration::from_secs(10)) {
        Ok(documents) => gateway.refresh_keys(&KeySets(documents)).await,
        Err(error) => tracing::error!(%error, "key sets of issuers cannot be fetched"),
    }
    std::future::pending().await
}

/// Fetches no key sets, because this build has no HTTP client. Never returns.
#[cfg(not(feature = "http"))]
pub(super) async fn refresh_keys(_: &GatewayService) {
    std::future::pending().await
}

/// Client for key sets.
#[cfg(feature = "http")]
struct KeySets(diorama_connect::http::Documents);

#[cfg(feature = "http")]
impl diorama_gateway::auth::JwksSource for KeySets {
    fn fetch<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<diorama_gateway::auth::JwksDocument, String>> {
        Box::pin(async move {
            let document = self.0.get(url, MOST_KEY_SET as u64).await?;
            Ok(diorama_gateway::auth::JwksDocument { body: document.body.to_vec(), max_age: document.max_age })
        })
    }
}
