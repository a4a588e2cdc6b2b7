//! Secrets that are sent as they are: bearer tokens, headers, user and password.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderName};
use subtle::Choice;

use super::{Key, Refusal, Standard, Verifier, decide, one};
use crate::Request;

pub(super) const GITLAB_TOKEN: &str = "x-gitlab-token";

pub(super) fn bearer(tokens: &[Key], request: &Request<'_>) -> Result<(), Refusal> {
    matches(tokens, authorization(request, "bearer ")?.as_bytes())
}

pub(super) fn basic(users: &[Key], request: &Request<'_>) -> Result<(), Refusal> {
    matches(users, &decoded(authorization(request, "basic ")?).ok_or(Refusal::Malformed)?)
}

pub(super) fn header(name: &HeaderName, tokens: &[Key], request: &Request<'_>) -> Result<(), Refusal> {
    matches(tokens, one(request.headers, name.as_str())?.as_bytes())
}

/// GitLab's secrets: tokens that are sent, and signing tokens as of Standard Webhooks.
#[derive(Clone, Debug)]
pub struct Gitlab {
    tokens: Vec<Key>,
    signing: Option<Standard>,
}

impl Gitlab {
    /// Of secrets; those that begin with `whsec_` sign.
    ///
    /// # Errors
    /// Says what is wrong with one, never the secret.
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s str>) -> Result<Gitlab, String> {
        let (signing, sent): (Vec<_>, Vec<_>) = secrets.into_iter().partition(|secret| secret.starts_with("whsec_"));
        let tokens = sent.into_iter().map(Key::plain).collect::<Result<_, _>>()?;
        let signing = (!signing.is_empty()).then(|| Standard::new(signing)).transpose()?;
        Ok(Gitlab { tokens, signing })
    }

    pub(super) fn begin<'a>(&self, request: &Request<'a>, tolerance: u64) -> Result<Verifier<'a>, Refusal> {
        match &self.signing {
            // A signature that is there must fit, even if the token does.
            Some(signing) if self.tokens.is_empty() || request.headers.contains_key("webhook-signature") => {
                signing.begin(request, tolerance)
            }
            _ => {
                matches(&self.tokens, one(request.headers, GITLAB_TOKEN)?.as_bytes())?;
                Ok(Verifier::head_only(request))
            }
        }
    }
}

/// User and password of a `Basic` credential.
pub(super) fn decoded(credential: &str) -> Option<Vec<u8>> {
    STANDARD.decode(credential).ok()
}

pub(super) fn authorization<'a>(request: &Request<'a>, scheme: &str) -> Result<&'a str, Refusal> {
    let given = one(request.headers, AUTHORIZATION.as_str())?;
    match given.split_at_checked(scheme.len()) {
        Some((own, token)) if own.eq_ignore_ascii_case(scheme) => Ok(token),
        _ => Err(Refusal::Malformed),
    }
}

fn matches(keys: &[Key], given: &[u8]) -> Result<(), Refusal> {
    decide(known(keys, given))
}

/// Compares `given` with all of `keys`, whichever fits.
pub(crate) fn known(keys: &[Key], given: &[u8]) -> Choice {
    keys.iter().fold(Choice::from(0), |known, key| known | key.is(given))
}
