//! Files at `s3://`, in Amazon's object store and others with its protocol: their URLs, and signatures of requests (AWS Signature Version 4).

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sha2::{Digest as _, Sha256};
use url::Url;

/// Hash of an empty body.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// Region if none is configured.
const REGION: &str = "us-east-1";
const CONTENT_HASH: &str = "x-amz-content-sha256";

/// A file in a bucket.
#[derive(Debug)]
pub(super) struct S3File {
    region: String,
    credentials: Option<Credentials>,
}

/// Credentials of an account.
struct Credentials {
    id: String,
    secret: String,
    /// Token of temporary credentials.
    token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("id", &self.id).finish_non_exhaustive()
    }
}

impl S3File {
    /// Returns the file at `s3://BUCKET/KEY` and its URL. Region, endpoint and credentials that are not configured are those of the
    /// environment, by the names that AWS gives them; without credentials requests are anonymous.
    ///
    /// # Errors
    /// The reason why the place is not valid.
    pub(super) fn new(
        place: &str,
        region: Option<String>,
        endpoint: Option<String>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(S3File, Url), String> {
        let expected = || "a file in an object store is written s3://BUCKET/KEY".to_string();
        let (bucket, key) = place.strip_prefix("s3://").and_then(|rest| rest.split_once('/')).ok_or_else(expected)?;
        let is_bucket = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if bucket.is_empty() || key.is_empty() || !bucket.chars().all(is_bucket) {
            return Err(expected());
        }
        let region = region.or_else(|| env("AWS_REGION")).or_else(|| env("AWS_DEFAULT_REGION"));
        let region = region.unwrap_or_else(|| REGION.into());
        let endpoint = endpoint.or_else(|| env("AWS_ENDPOINT_URL_S3")).or_else(|| env("AWS_ENDPOINT_URL"));
        let path = encoded(key);
        let url = match endpoint {
            Some(endpoint) => format!("{}/{bucket}/{path}", endpoint.trim_end_matches('/')),
            // The certificate covers one level of names.
            None if bucket.contains('.') => format!("https://s3.{region}.amazonaws.com/{bucket}/{path}"),
            None => format!("https://{bucket}.s3.{region}.amazonaws.com/{path}"),
        };
        let url = url.parse().map_err(|error| format!("endpoint: {error}"))?;
        let credentials = env("AWS_ACCESS_KEY_ID").zip(env("AWS_SECRET_ACCESS_KEY"));
        let credentials = credentials.map(|(id, secret)| Credentials { id, secret, token: env("AWS_SESSION_TOKEN") });
        Ok((S3File { region, credentials }, url))
    }

    /// Returns the headers that sign a GET of `url`; none without credentials.
    pub(super) fn sign(&self, url: &Url, now: Timestamp) -> Vec<(HeaderName, HeaderValue)> {
        self.signed(url, now, &[])
    }

    /// [`S3File::sign`] with `others` among the signed headers.
    fn signed(&self, url: &Url, now: Timestamp, others: &[(&str, &str)]) -> Vec<(HeaderName, HeaderValue)> {
        let Some(credentials) = &self.credentials else { return Vec::new() };
        let time = now.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string();
        let day = &time[..8];
        let mut own = vec![(CONTENT_HASH, EMPTY), ("x-amz-date", &time)];
        if let Some(token) = &credentials.token {
            own.push(("x-amz-security-token", token));
        }
        let authority = url[url::Position::BeforeHost..url::Position::AfterPort].to_string();
        let mut headers: Vec<(&str, &str)> = [("host", &*authority)].into_iter().chain(own.iter().copied()).collect();
        headers.extend(others);
        headers.sort_unstable();
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let request = format!("GET\n{}\n{}\n{lines}\n{names}\n{EMPTY}", url.path(), url.query().unwrap_or_default());
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(request.as_bytes())));
        let mut key = format!("AWS4{}", credentials.secret).into_bytes();
        for part in [day, &self.region, "s3", "aws4_request"] {
            key = keyed_hash(&key, part);
        }
        let signature = hex(&keyed_hash(&key, &text));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}",
            credentials.id
        );
        own.push((AUTHORIZATION.as_str(), &authorization));
        let header = |(name, value): (&str, &str)| {
            let mut value = HeaderValue::from_str(value).ok()?;
            value.set_sensitive(true);
            Some((name.parse().ok()?, value))
        };
        own.into_iter().filter_map(header).collect()
    }
}

fn keyed_hash(key: &[u8], text: &str) -> Vec<u8> {
    let mut hash = match Hmac::<Sha256>::new_from_slice(key) {
        Ok(hash) => hash,
        // Keys of any length are permitted.
        Err(_) => return Vec::new(),
    };
    hash.update(text.as_bytes());
    hash.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Encodes a key as AWS does: all bytes but letters, digits and `-._~/`.
fn encoded(key: &str) -> String {
    let byte = |byte: u8| match byte {
        b'-' | b'.' | b'_' | b'~' | b'/' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    key.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(
        place: &str,
        region: Option<&str>,
        endpoint: Option<&str>,
        env: &[(&str, &str)],
    ) -> Result<(S3File, Url), String> {
        let find = |name: &str| env.iter().find(|(own, _)| *own == name).map(|(_, value)| value.to_string());
        S3File::new(place, region.map(Into::into), endpoint.map(Into::into), &find)
    }

    const KEYS: [(&str, &str); 2] = [
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    ];

    fn authorization(headers: &[(HeaderName, HeaderValue)]) -> String {
        headers.iter().find(|(name, _)| name == AUTHORIZATION).unwrap().1.to_str().unwrap().to_string()
    }

    /// The example "GET Object" of Amazon's documentation.
    #[test]
    fn a_request_has_the_signature_of_the_documentation() {
        let (file, _) = file("s3://examplebucket/test.txt", None, None, &KEYS).unwrap();
        let url: Url = "https://examplebucket.s3.amazonaws.com/test.txt".parse().unwrap();
        let headers = file.signed(&url, "2013-05-24T00:00:00Z".parse().unwrap(), &[("range", "bytes=0-9")]);
        let expected = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
            SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
            Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        assert_eq!(authorization(&headers), expected);
    }

    #[test]
    fn places_become_urls_and_mistakes_are_named() {
        let url = |place: &str, region, endpoint, env: &[(&str, &str)]| {
            file(place, region, endpoint, env).map(|(_, url)| url.to_string())
        };
        let virtual_host = "https://data.s3.eu-central-1.amazonaws.com/a/b%20%2B%2A.csv";
        assert_eq!(url("s3://data/a/b +*.csv", Some("eu-central-1"), None, &[]).unwrap(), virtual_host);
        let env = [("AWS_REGION", "eu-west-1")];
        assert_eq!(url("s3://a.b/c", None, None, &env).unwrap(), "https://s3.eu-west-1.amazonaws.com/a.b/c");
        let endpoint = Some("http://127.0.0.1:9000/");
        assert_eq!(url("s3://data/a.csv", None, endpoint, &[]).unwrap(), "http://127.0.0.1:9000/data/a.csv");
        for wrong in ["s3://data", "s3://data/", "s3:///a", "s3://da:ta/a"] {
            assert_eq!(
                url(wrong, None, None, &[]).unwrap_err(),
                "a file in an object store is written s3://BUCKET/KEY"
            );
        }
    }

    #[test]
    fn tokens_are_signed_and_nothing_is_without_credentials() {
        let (anonymous, url) = file("s3://data/a", None, None, &[]).unwrap();
        assert!(anonymous.sign(&url, Timestamp::UNIX_EPOCH).is_empty());
        let env = [KEYS[0], KEYS[1], ("AWS_SESSION_TOKEN", "token")];
        let (temporary, url) = file("s3://data/a", None, None, &env).unwrap();
        let headers = temporary.sign(&url, Timestamp::UNIX_EPOCH);
        assert!(
            authorization(&headers).contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token")
        );
        assert!(!format!("{temporary:?} {headers:?}").contains("wJalr"));
    }
}
