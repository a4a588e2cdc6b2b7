//! Credentials of requests.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use reqwest::RequestBuilder;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use super::errors::plain;

/// Credentials with which an API is called.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub enum HttpAuth {
    /// None.
    #[default]
    None,
    /// `Authorization: Bearer TOKEN`.
    Bearer(String),
    /// `Authorization: Basic` with user and password.
    Basic(String, String),
    /// A header with the key.
    Header(HeaderName, String),
    /// A parameter of the query with the key.
    Query(String, String),
    /// A token that is fetched with client credentials and renewed (RFC 6749, section 4.4).
    ClientCredentials {
        /// URL of the token endpoint.
        token_url: Url,
        /// The client's id.
        client_id: String,
        /// The client's secret.
        client_secret: String,
        /// Scope to request, with spaces between several.
        scope: Option<String>,
        /// Audience to request, which some servers require.
        audience: Option<String>,
    },
}

impl fmt::Debug for HttpAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HttpAuth::None => "None",
            HttpAuth::Bearer(_) => "Bearer",
            HttpAuth::Basic(..) => "Basic",
            HttpAuth::Header(..) => "Header",
            HttpAuth::Query(..) => "Query",
            HttpAuth::ClientCredentials { .. } => "ClientCredentials",
        })
    }
}

/// Time before a token's end at which it is renewed.
const EARLY: Duration = Duration::from_secs(30);
/// Validity of a token whose server states none.
const DEFAULT_VALIDITY: Duration = Duration::from_secs(300);
/// Longest time for which a token is used, whatever its server states.
const LONGEST_VALIDITY: Duration = Duration::from_secs(86_400);
/// Time within which the token endpoint must answer.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum size of a token endpoint's answer in bytes.
const MOST_TOKEN: u64 = 256 << 10;

/// A fetched token.
#[derive(Clone)]
pub(super) struct Token {
    header: HeaderValue,
    renew_at: Instant,
}

/// Adds credentials to requests, and fetches tokens.
pub(crate) struct Authenticator {
    auth: HttpAuth,
    token: Mutex<Option<Token>>,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Authenticator").field(&self.auth).finish()
    }
}

/// Answer of a token endpoint (RFC 6749, section 5.1).
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    #[serde(default)]
    expires_in: Option<f64>,
}

impl Authenticator {
    pub(super) fn new(auth: HttpAuth) -> Authenticator {
        Authenticator { auth, token: Mutex::new(None) }
    }

    /// Adds the credentials to `request`.
    ///
    /// # Errors
    /// The reason why there is no token.
    pub(crate) async fn sign(
        &self,
        client: &reqwest::Client,
        request: RequestBuilder,
    ) -> Result<RequestBuilder, String> {
        Ok(match &self.auth {
            HttpAuth::None => request,
            HttpAuth::Bearer(token) => request.header(AUTHORIZATION, secret(&format!("Bearer {token}"))?),
            HttpAuth::Basic(user, password) => {
                let credentials = STANDARD.encode(format!("{user}:{password}"));
                request.header(AUTHORIZATION, secret(&format!("Basic {credentials}"))?)
            }
            HttpAuth::Header(name, value) => request.header(name, secret(value)?),
            HttpAuth::Query(..) => request,
            HttpAuth::ClientCredentials { .. } => request.header(AUTHORIZATION, self.token(client).await?),
        })
    }

    /// Adds the credentials that are part of the URL.
    pub(crate) fn sign_url(&self, url: &mut Url) {
        if let HttpAuth::Query(name, value) = &self.auth {
            url.query_pairs_mut().append_pair(name, value);
        }
    }

    /// Forgets the token after the API has refused it. Returns true if another one can be fetched.
    pub(crate) async fn forget_token(&self) -> bool {
        self.token.lock().await.take().is_some()
    }

    async fn token(&self, client: &reqwest::Client) -> Result<HeaderValue, String> {
        let mut token = self.token.lock().await;
        if let Some(token) = token.as_ref().filter(|token| token.renew_at > Instant::now()) {
            return Ok(token.header.clone());
        }
        let fetched = self.fetch_token(client).await?;
        let header = fetched.header.clone();
        *token = Some(fetched);
        Ok(header)
    }

    async fn fetch_token(&self, client: &reqwest::Client) -> Result<Token, String> {
        let HttpAuth::ClientCredentials { token_url, client_id, client_secret, scope, audience } = &self.auth else {
            return Err("the API needs no token".into());
        };
        let optional = [("scope", scope), ("audience", audience)];
        let optional = optional.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .extend_pairs(optional)
            .finish();
        let asked = Instant::now();
        let request = client
            .post(token_url.clone())
            .basic_auth(form_encoded(client_id), Some(form_encoded(client_secret)))
            .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(http::header::ACCEPT, "application/json")
            .timeout(TOKEN_TIMEOUT)
            .body(form);
        let answer = request.send().await.map_err(|error| format!("no token from {token_url}: {}", plain(error)))?;
        let status = answer.status();
        let body = super::client::read_limited(answer, MOST_TOKEN).await;
        let body = body.map_err(|error| format!("no token from {token_url}: {error}"))?;
        Token::of(status, &body, asked).map_err(|problem| format!("{token_url} gave no token: {problem}"))
    }
}

impl Token {
    /// Reads the answer of the token endpoint to a request that was sent at `asked`.
    pub(super) fn of(status: StatusCode, body: &[u8], asked: Instant) -> Result<Token, String> {
        if !status.is_success() {
            let detail = super::errors::detail_of(body);
            return Err(format!("{status}{detail}; check client_id and client_secret"));
        }
        let answer: TokenAnswer =
            serde_json::from_slice(body).map_err(|_| "the answer has no access_token".to_string())?;
        let validity = answer.expires_in.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let validity = validity.unwrap_or(DEFAULT_VALIDITY).min(LONGEST_VALIDITY);
        // Of a token with a short validity, half is used.
        let renew_at = asked + validity.saturating_sub(EARLY).max(validity / 2);
        Ok(Token { header: secret(&format!("Bearer {}", answer.access_token))?, renew_at })
    }
}

/// Encodes a client's id or secret for Basic authentication (RFC 6749, section 2.3.1).
fn form_encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn secret(value: &str) -> Result<HeaderValue, String> {
    let mut header = HeaderValue::from_str(value).map_err(|_| "the credentials are not a valid header value")?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_before_its_end_and_once_a_day() {
        let asked = Instant::now();
        let renewed = |members: &str| {
            let body = format!(r#"{{"access_token":"t"{members}}}"#);
            Token::of(StatusCode::OK, body.as_bytes(), asked).map(|token| token.renew_at - asked)
        };
        assert_eq!(renewed(r#","expires_in":600"#), Ok(Duration::from_secs(570)));
        assert_eq!(renewed(r#","expires_in":40"#), Ok(Duration::from_secs(20)));
        assert_eq!(renewed(""), Ok(Duration::from_secs(270)));
        for long in ["1e9", "1e19", "1.8e19", "1e300"] {
            let renewed = renewed(&format!(r#","expires_in":{long}"#)).unwrap();
            assert!(renewed <= LONGEST_VALIDITY, "{long}: {renewed:?}");
        }
        assert!(Token::of(StatusCode::OK, b"{}", asked).is_err());
        let refused = Token::of(StatusCode::BAD_REQUEST, br#"{"error":"invalid_client"}"#, asked);
        assert!(refused.err().unwrap().contains("invalid_client"));
    }
}
