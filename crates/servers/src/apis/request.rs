//! The request as an API reads it.

use axum::body::{Bytes, to_bytes};
use http::{HeaderMap, Method, header};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::params::Params;

/// Bytes of a body that are read; a longer one ends the connection.
const BODY_LIMIT: usize = 4 * 1024 * 1024;

/// Request with its path and query taken apart.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    /// Path and query as sent.
    pub(super) target: String,
    /// Decoded segments of the path.
    segments: Vec<String>,
    pub(super) query: Params,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Request {
    pub(super) async fn read(request: axum::extract::Request) -> Result<Request, axum::Error> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, BODY_LIMIT).await?;
        let decode = |segment: &str| percent_decode_str(segment).decode_utf8_lossy().into_owned();
        Ok(Request {
            method: parts.method,
            target: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
            segments: parts.uri.path().split('/').skip(1).map(decode).collect(),
            query: Params::parse(parts.uri.query().unwrap_or_default().as_bytes()),
            headers: parts.headers,
            body,
        })
    }

    pub(super) fn path(&self) -> Vec<&str> {
        self.segments.iter().map(String::as_str).collect()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Credential in the `Authorization` header after one of these words.
    pub(super) fn credential(&self, schemes: &[&str]) -> Option<&str> {
        let (scheme, credential) = self.header(header::AUTHORIZATION.as_str())?.split_once(' ')?;
        schemes.iter().any(|known| known.eq_ignore_ascii_case(scheme)).then(|| credential.trim())
    }

    /// JSON object in the body.
    pub(super) fn object(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok().filter(Value::is_object)
    }

    /// Time in a parameter of the query.
    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, ()> {
        self.query.get(name).map(|text| text.parse().map_err(|_| ())).transpose()
    }

    /// URL of another path at the host that the client named.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.header(header::HOST.as_str()).unwrap_or("localhost"))
    }

    /// URL of this path with other parameters.
    pub(super) fn url_with(&self, query: &Params) -> String {
        let path = self.target.split('?').next().unwrap_or_default();
        self.url(&format!("{path}?{query}"))
    }
}
