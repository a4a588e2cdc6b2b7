//! Reader of `[jwt.NAME]`.

use std::path::PathBuf;

use diorama_gateway::auth::{Algorithm, IssuerSettings, LEAST_SECRET};

use super::key::check_name;
use super::value::{Reader, Secret, nearest};

/// Configuration of an issuer of tokens.
#[derive(Clone, Debug)]
pub struct JwtSpec {
    /// Settings of the issuer.
    pub settings: IssuerSettings,
    /// Its keys.
    pub keys: JwtKeys,
}

/// Origin of the keys of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtKeys {
    /// URL of a key set.
    Url(String),
    /// File with a key set.
    File(PathBuf),
    /// Secret for HS256.
    Secret(Secret),
}

impl JwtSpec {
    pub(super) fn read(name: &str, reader: Reader<'_>) -> Option<JwtSpec> {
        check_name(&reader, name);
        let issuer = reader.required_text("issuer");
        let audience = reader.text_or_texts("audience").unwrap_or_default();
        if audience.iter().all(String::is_empty) {
            let at = reader.position("audience").unwrap_or(reader.at);
            let about =
                "requires audience: the name of this API at the issuer, without which tokens for others would count";
            reader.problem(at, format!("[jwt.{name}] {about}"));
        }
        let algorithms = algorithms(name, &reader);
        let keys = keys(name, &reader, &algorithms);
        let default = IssuerSettings::new(name, issuer.as_deref().unwrap_or_default());
        let settings = IssuerSettings {
            audience,
            algorithms,
            role_claim: reader.text("role_claim").unwrap_or_else(|| default.role_claim.clone()),
            roles: reader.texts("roles").unwrap_or_default(),
            default_role: reader.text("default_role"),
            leeway: reader.duration("leeway").unwrap_or(default.leeway),
            typ: reader.text("typ"),
            ..default
        };
        reader.finish();
        Some(JwtSpec { settings: issuer.map(|_| settings)?, keys: keys? })
    }
}

fn algorithms(name: &str, reader: &Reader<'_>) -> Vec<Algorithm> {
    let Some(words) = reader.texts("algorithms") else {
        if reader.position("algorithms").is_none() {
            reader.problem(reader.at, format!("[jwt.{name}] requires algorithms, such as [\"RS256\"]"));
        }
        return Vec::new();
    };
    let at = reader.position("algorithms").unwrap_or(reader.at);
    if words.is_empty() {
        reader.problem(at, format!("[jwt.{name}] requires algorithms, such as [\"RS256\"]"));
    }
    let parse = |word: &String| {
        let found = Algorithm::parse(word);
        if found.is_none() {
            let names = || Algorithm::ALL.into_iter().map(Algorithm::as_str);
            let hint = match nearest(word, names()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("the algorithms are {}", names().collect::<Vec<_>>().join(", ")),
            };
            reader.problem(at, format!("algorithms has no {word:?}: {hint}"));
        }
        found
    };
    words.iter().filter_map(parse).collect()
}

fn keys(name: &str, reader: &Reader<'_>, algorithms: &[Algorithm]) -> Option<JwtKeys> {
    let (jwks, secret) = (reader.text("jwks"), reader.secret_of("secret", LEAST_SECRET));
    let at = reader.position("algorithms").unwrap_or(reader.at);
    let symmetric = algorithms.contains(&Algorithm::Hs256);
    match (reader.position("jwks").is_some(), reader.position("secret").is_some()) {
        (false, false) => {
            let about =
                "requires jwks, the URL or file of the issuer's public keys, or secret = \"env:NAME\" for HS256";
            reader.problem(reader.at, format!("[jwt.{name}] {about}"));
        }
        (true, true) => reader.problem(reader.at, format!("[jwt.{name}] has jwks and secret: use one of them")),
        (true, false) if symmetric => {
            let about =
                "everybody could sign with the public keys of jwks: leave HS256 out, or use secret in place of jwks";
            reader.problem(at, format!("[jwt.{name}] {about}"));
        }
        (false, true) if algorithms.iter().any(|own| *own != Algorithm::Hs256) => {
            reader.problem(at, format!("[jwt.{name}] secret verifies HS256 only: the other algorithms require jwks"));
        }
        _ => {}
    }
    match (jwks, secret) {
        (Some(jwks), _) => Some(location(name, reader, &jwks)),
        (None, secret) => secret.map(JwtKeys::Secret),
    }
}

/// Returns the location of a key set. A URL must be one of https, except on loopback.
fn location(name: &str, reader: &Reader<'_>, jwks: &str) -> JwtKeys {
    if let Some(rest) = jwks.strip_prefix("http://") {
        let host = rest.split(['/', '?']).next().unwrap_or_default();
        let bare = host.rsplit_once(':').map_or(host, |(bare, _)| bare);
        if !matches!(bare, "127.0.0.1" | "localhost" | "[::1]") {
            let at = reader.position("jwks").unwrap_or(reader.at);
            reader.problem(
                at,
                format!("[jwt.{name}] jwks must be an https URL: others could replace the keys on the way"),
            );
        }
        return JwtKeys::Url(jwks.to_string());
    }
    match jwks.starts_with("https://") {
        true => JwtKeys::Url(jwks.to_string()),
        false => JwtKeys::File(reader.context.folder.join(jwks)),
    }
}
