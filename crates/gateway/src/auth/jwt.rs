//! Verification of JSON Web Tokens (RFC 7515, RFC 7519), with the rules of RFC 8725.
//!
//! Nothing in a token chooses how it is verified: its issuer only selects the settings, and algorithms and keys are those of the
//! settings. Signatures are verified by `ring`, which is in the program for TLS. The crate `jsonwebtoken` with a backend in Rust would add
//! 23 crates, and its other backend needs CMake.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use thiserror::Error;

use super::algorithm::Algorithm;
use super::issuer::{Issuer, IssuerSettings};
use crate::access::{Identity, Verbs, claim, member};
use diorama_core::record::{CborValue, JsonLimits, parse_json};

/// Maximum length of a token in bytes.
pub(super) const MOST_TOKEN: usize = 8 << 10;
/// Maximum length of a subject in bytes, which OpenID Connect has too.
const MOST_SUBJECT: usize = 255;
/// Latest time in a token: the end of the year 9999.
const LATEST: i64 = 253_402_300_799;
const LIMITS: JsonLimits = JsonLimits { nodes: 2_000, depth: 16 };

/// Reason why a token is refused. The texts are sent to callers as `error_description`, which excludes quotes and backslashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum TokenError {
    #[error("the token is longer than 8 KiB")]
    TooLong,
    #[error("the token is not a valid signed JWT")]
    Malformed,
    #[error("the token has header parameters that are not supported")]
    Critical,
    #[error("the token has an unexpected typ")]
    Type,
    #[error("the token is of an unknown issuer")]
    Issuer,
    #[error("the token is signed with an algorithm that is not accepted")]
    Algorithm,
    #[error("the token is signed with an unknown key")]
    UnknownKey,
    /// The keys of the issuer could not be fetched yet.
    #[error("the keys of the issuer are not available")]
    NoKeys,
    #[error("the signature of the token is not valid")]
    Signature,
    #[error("the token has no valid exp")]
    NoExpiry,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    TooEarly,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token has no valid sub")]
    Subject,
    #[error("the token has no role")]
    NoRole,
    #[error("the role of the token is not accepted")]
    Role,
}

/// Token whose parts were decoded, and of which nothing was verified.
#[derive(Debug)]
pub(super) struct UnverifiedToken<'t> {
    header: CborValue,
    claims: CborValue,
    /// Header and claims as they are signed.
    message: &'t [u8],
    signature: Vec<u8>,
}

impl<'t> UnverifiedToken<'t> {
    /// Decodes a token.
    pub(super) fn parse(token: &'t [u8]) -> Result<UnverifiedToken<'t>, TokenError> {
        if token.len() > MOST_TOKEN {
            return Err(TokenError::TooLong);
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Malformed);
        };
        let decoded = |part: &[u8]| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed);
        let object = |part: &[u8]| {
            let value = parse_json(&decoded(part)?, LIMITS).map_err(|_| TokenError::Malformed)?;
            if value.is_map() { Ok(value) } else { Err(TokenError::Malformed) }
        };
        let message = token.get(..header.len() + 1 + claims.len()).ok_or(TokenError::Malformed)?;
        Ok(UnverifiedToken {
            header: object(header)?,
            claims: object(claims)?,
            message,
            signature: decoded(signature)?,
        })
    }

    /// Returns the issuer that the token names.
    pub(super) fn issuer(&self) -> Option<&str> {
        member(&self.claims, "iss")?.as_text()
    }

    fn header_text(&self, name: &str) -> Result<Option<&str>, TokenError> {
        match member(&self.header, name) {
            None => Ok(None),
            Some(value) => value.as_text().map(Some).ok_or(TokenError::Malformed),
        }
    }

    /// Verifies the token as one of `issuer` at `now`, and returns its identity.
    pub(super) fn verify(self, issuer: &Issuer, now: SystemTime) -> Result<Identity, TokenError> {
        let settings = issuer.settings();
        self.check_header(settings)?;
        let name = self.header_text("alg")?.ok_or(TokenError::Malformed)?;
        let algorithm = settings.algorithms.iter().find(|own| own.as_str() == name).ok_or(TokenError::Algorithm)?;
        self.check_signature(issuer, *algorithm)?;
        if self.issuer() != Some(&settings.issuer) {
            return Err(TokenError::Issuer);
        }
        let expires = self.check_times(settings.leeway, now)?;
        if !self.is_for(&settings.audience) {
            return Err(TokenError::Audience);
        }
        let subject = member(&self.claims, "sub").and_then(CborValue::as_text).unwrap_or_default();
        if subject.is_empty() || subject.len() > MOST_SUBJECT || subject.chars().any(char::is_control) {
            return Err(TokenError::Subject);
        }
        Ok(Identity {
            name: format!("jwt:{}:{subject}", settings.name).into(),
            role: self.role(settings)?.into(),
            claims: self.claims,
            verbs: Verbs::ALL,
            unrestricted: false,
            expires: Some(expires),
        })
    }

    /// Refuses extensions that change the meaning of the token, and another type than the configured one. Keys that the header names or
    /// contains (`jku`, `jwk`, `x5u`, `x5c`) are not looked at.
    fn check_header(&self, settings: &IssuerSettings) -> Result<(), TokenError> {
        let has = |name| member(&self.header, name).is_some();
        if has("crit") || has("b64") || has("enc") || has("zip") {
            return Err(TokenError::Critical);
        }
        let own = self.header_text("typ")?.unwrap_or_default();
        let bare = |text: &str| text.to_ascii_lowercase().trim_start_matches("application/").to_string();
        match &settings.typ {
            Some(typ) if bare(typ) != bare(own) => Err(TokenError::Type),
            _ => Ok(()),
        }
    }

    fn check_signature(&self, issuer: &Issuer, algorithm: Algorithm) -> Result<(), TokenError> {
        let kid = self.header_text("kid")?;
        let valid = match issuer.secret() {
            Some(secret) => {
                algorithm == Algorithm::Hs256 && ring::hmac::verify(secret, self.message, &self.signature).is_ok()
            }
            None => {
                let set = issuer.keys().ok_or(TokenError::NoKeys)?;
                let fitting = set.keys.iter().filter(|key| key.fits(algorithm));
                let mut fitting = fitting.filter(|key| kid.is_none() || key.kid.as_deref() == kid);
                let key = fitting.next().ok_or(TokenError::UnknownKey)?;
                // Without a name, the token must not choose among keys, and names of a set are unique for an algorithm.
                if fitting.next().is_some() {
                    return Err(TokenError::UnknownKey);
                }
                key.verify(algorithm, self.message, &self.signature)
            }
        };
        if valid { Ok(()) } else { Err(TokenError::Signature) }
    }

    /// Checks the times and returns the end of the token, which includes the leeway.
    fn check_times(&self, leeway: Duration, now: SystemTime) -> Result<SystemTime, TokenError> {
        let time = |name| member(&self.claims, name).map(|value| numeric_date(value).ok_or(TokenError::Malformed));
        let end = time("exp").ok_or(TokenError::NoExpiry)?.map_err(|_| TokenError::NoExpiry)? + leeway;
        if now >= end {
            return Err(TokenError::Expired);
        }
        for name in ["nbf", "iat"] {
            if let Some(start) = time(name).transpose()?
                && start > now + leeway
            {
                return Err(TokenError::TooEarly);
            }
        }
        Ok(end)
    }

    /// Returns true if the token is for one of `audiences`.
    fn is_for(&self, audiences: &[String]) -> bool {
        let is_one = |value: &CborValue| value.as_text().is_some_and(|own| audiences.iter().any(|one| one == own));
        match member(&self.claims, "aud") {
            Some(CborValue::Array(all)) => all.iter().all(CborValue::is_text) && all.iter().any(is_one),
            Some(value) => is_one(value),
            None => false,
        }
    }

    /// Returns the role: the claim, which may be a list of roles, or the default. Of a list, the first accepted role counts, in the order
    /// of the settings.
    fn role(&self, settings: &IssuerSettings) -> Result<String, TokenError> {
        let accepted = |role: &str| settings.roles.is_empty() || settings.roles.iter().any(|own| own == role);
        let role = match claim(&self.claims, &settings.role_claim) {
            None | Some(CborValue::Null) => settings.default_role.clone().ok_or(TokenError::NoRole)?,
            Some(CborValue::Text(role)) => Some(role.clone()).filter(|role| accepted(role)).ok_or(TokenError::Role)?,
            Some(CborValue::Array(all)) => {
                let has = |role: &&String| all.iter().any(|own| own.as_text() == Some(role));
                match (settings.roles.iter().find(has), &all[..]) {
                    (Some(role), _) => role.clone(),
                    (None, [CborValue::Text(role)]) if settings.roles.is_empty() => role.clone(),
                    (None, _) => settings.default_role.clone().ok_or(TokenError::Role)?,
                }
            }
            Some(_) => return Err(TokenError::Role),
        };
        if role.is_empty() { Err(TokenError::NoRole) } else { Ok(role) }
    }
}

/// Returns the time of a NumericDate: seconds since 1970, which may have a fraction.
fn numeric_date(value: &CborValue) -> Option<SystemTime> {
    let seconds = match value {
        CborValue::Integer(number) => i64::try_from(i128::from(*number)).ok()?,
        // Rounding down shortens a token by less than a second.
        #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
        CborValue::Float(number) if (0.0..=LATEST as f64).contains(number) => *number as i64,
        _ => return None,
    };
    let seconds = u64::try_from(seconds).ok().filter(|_| seconds <= LATEST)?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Verifies a token of one of `issuers` at `now`. Returns its identity, its issuer, and the number of the key set.
pub(super) fn verify<'i>(
    issuers: &'i [Arc<Issuer>],
    token: &[u8],
    now: SystemTime,
) -> Result<(Identity, &'i Arc<Issuer>, u64), TokenError> {
    let token = UnverifiedToken::parse(token)?;
    let issuer = find_issuer(issuers, &token).ok_or(TokenError::Issuer)?;
    let set = issuer.set_number();
    Ok((token.verify(issuer, now)?, issuer, set))
}

/// Returns the issuer whose name the token has.
pub(super) fn find_issuer<'i>(issuers: &'i [Arc<Issuer>], token: &UnverifiedToken<'_>) -> Option<&'i Arc<Issuer>> {
    let name = token.issuer()?;
    issuers.iter().find(|issuer| issuer.settings().issuer == name)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) mod testing {
    use std::fmt::Write as _;

    use super::*;
    use crate::auth::issuer::testing::SECRET;

    /// Returns the members of a valid set of claims.
    pub(in crate::auth) fn claims() -> Vec<(&'static str, String)> {
        let texts = [("iss", "https://idp.example"), ("aud", "diorama"), ("sub", "u1")];
        let texts = texts.map(|(name, value)| (name, format!("{value:?}")));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        texts.into_iter().chain([("exp", (now + 600).to_string()), ("iat", now.to_string())]).collect()
    }

    /// Returns an object of JSON with these members.
    pub(in crate::auth) fn object(members: &[(&str, String)]) -> String {
        let mut text = String::from("{");
        for (at, (name, value)) in members.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(text, "{comma}{name:?}:{value}").unwrap();
        }
        text + "}"
    }

    /// Signs `header` and `claims`, which are JSON, with the secret of the tests.
    pub(in crate::auth) fn signed_with(secret: &[u8], header: &str, claims: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
        let signature = ring::hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Returns a token with these claims.
    pub(in crate::auth) fn signed(members: &[(&str, String)]) -> String {
        signed_with(SECRET, r#"{"alg":"HS256","typ":"JWT"}"#, &object(members))
    }
}
