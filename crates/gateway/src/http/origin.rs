//! Checks of the host and of the web page behind a request. CORS informs browsers; the checks also refuse the requests that browsers
//! send without a preflight.
//!
//! This code exists because tower-http's `Cors` answers every `OPTIONS` itself with 200: also a request for `Allow`, the handshakes of
//! webhooks, and preflights, which are answered 204 here. It refuses no request, so the checks would remain. It writes header names in
//! lower case, and adds `Vary` to answers to requests without an `Origin`.

use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{Method, Version};

use thiserror::Error;

/// Reason why a request is refused for its host or for the page behind it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum OriginError {
    #[error("the request has several Host headers")]
    SeveralHosts,
    #[error("the Host header is not a valid host")]
    NotAHost,
    #[error("the request has no Host header")]
    NoHost,
    #[error("the host in the URL is not valid")]
    NoHostInUrl,
    #[error("this server does not answer for the host {0:?}")]
    OtherHost(String),
    #[error("pages of the origin {0:?} are not allowed to send this request")]
    Page(String),
    #[error("pages of other sites are not allowed to send this request")]
    OtherSite,
    #[error("pages of other origins are not allowed to send this request")]
    OtherOrigin,
}

/// Host check of a server that binds loopback. It answers loopback names only, so that a foreign page cannot reach it by pointing its
/// own name at it (DNS rebinding).
#[derive(Clone, Debug, Default)]
pub struct Loopback {
    /// Further names that are answered.
    pub names: Vec<String>,
}

/// Origins of pages that may call, and the host check.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// Allowed origins, such as `https://shop.example` or `null`.
    pub listed: Vec<String>,
    /// Host check; set on loopback binds.
    pub loopback: Option<Loopback>,
    /// True if requests of HTTP/1.1 need a `Host`. Requests that a program makes within itself lack it.
    pub host_required: bool,
}

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, QUERY";
const REQUEST_HEADERS: &str = "Authorization, Content-Type, Accept, If-Match, If-None-Match, Prefer, Idempotency-Key, Range, \
     Last-Event-ID, X-Request-Id, traceparent";
const EXPOSED: &str = "ETag, Link, Location, Content-Location, Content-Range, Retry-After, Preference-Applied, X-Request-Id, \
     X-Total-Count, Age, Cache-Status, Dio-Position, Dio-Operation, Dio-Durable, Idempotency-Replayed, RateLimit, RateLimit-Policy";

impl Origins {
    /// Sets the header `Host` to the host that the request is for. The host of an absolute URL takes precedence over the header.
    ///
    /// # Errors
    /// 400 for the requests that RFC 9112, section 3.2, requires to refuse: with several `Host` headers, with one that is not a valid
    /// host, and without one if [`Origins::host_required`] is set.
    pub(crate) fn settle_host(&self, request: &mut Request) -> Result<(), OriginError> {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(_), Some(_)) => return Err(OriginError::SeveralHosts),
            (Some(host), None) if !is_host(host.as_bytes()) => return Err(OriginError::NotAHost),
            (None, _) if self.host_required && request.version() == Version::HTTP_11 => {
                return Err(OriginError::NoHost);
            }
            _ => {}
        }
        let Some(authority) = request.uri().authority().map(|authority| authority.as_str()) else { return Ok(()) };
        match HeaderValue::from_str(authority) {
            Ok(host) if is_host(host.as_bytes()) => {
                request.headers_mut().insert(header::HOST, host);
                Ok(())
            }
            _ => Err(OriginError::NoHostInUrl),
        }
    }

    /// Refuses a `Host` that is not a name of this server; see [`Origins::settle_host`].
    pub(crate) fn check_host(&self, headers: &HeaderMap) -> Result<(), OriginError> {
        let Some(loopback) = &self.loopback else { return Ok(()) };
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let name = host.map(host_name).unwrap_or_default();
        if is_loopback(name) || loopback.names.iter().any(|own| own.eq_ignore_ascii_case(name)) {
            return Ok(());
        }
        Err(OriginError::OtherHost(name.to_string()))
    }

    /// Returns the origin of the page behind the request; `None` if there is no page or it may not read the answer.
    ///
    /// # Errors
    /// 403 for a request that a browser sends on behalf of a foreign page, because even an answer that the page cannot read costs work.
    /// Following a link is allowed. Browsers send `Origin`, or else `Sec-Fetch-Site`.
    pub(crate) fn check_origin<'a>(
        &self,
        method: &Method,
        headers: &'a HeaderMap,
    ) -> Result<Option<&'a HeaderValue>, OriginError> {
        let origin = headers.get(header::ORIGIN);
        let text = origin.and_then(|origin| origin.to_str().ok()).unwrap_or_default();
        if origin.is_some() && (self.allows(text) || is_same(text, headers)) {
            return Ok(origin);
        }
        let guarded = self.loopback.is_some() || !self.listed.is_empty();
        let foreign = origin.is_some() || header_text(headers, SEC_FETCH_SITE) == "cross-site";
        if !guarded || !foreign || is_visit(method, headers) {
            return Ok(None);
        }
        Err(if origin.is_some() { OriginError::Page(text.to_string()) } else { OriginError::OtherSite })
    }

    fn allows(&self, origin: &str) -> bool {
        let local = || match origin.split_once("://") {
            Some((_, host)) => self.loopback.is_some() && is_loopback(host_name(host)),
            None => false,
        };
        self.listed.iter().any(|listed| listed == origin || listed == "*") || local()
    }
}

/// Refuses a request of a page of another origin, even of an allowed one.
///
/// # Errors
/// 403 for such a request.
pub(crate) fn check_own(headers: &HeaderMap) -> Result<(), OriginError> {
    let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    let foreign = match origin {
        Some(origin) => !is_same(origin, headers),
        None => matches!(header_text(headers, SEC_FETCH_SITE), "cross-site" | "same-site"),
    };
    if foreign { Err(OriginError::OtherOrigin) } else { Ok(()) }
}

/// Returns true if a page of this server sent the request, as the browser says by `Origin`. With `https`, the page was sent over TLS too.
pub(crate) fn is_same_origin(headers: &HeaderMap, https: bool) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter().map(|origin| origin.to_str().unwrap_or_default());
    let same = |origin: &str| is_same(origin, headers) && (!https || origin.starts_with("https://"));
    origins.next().is_some_and(same) && origins.next().is_none()
}

/// Returns true if a read was sent by a page of this server or by the user, as the browser says by `Origin`, else by `Sec-Fetch-Site`.
/// Browsers send neither with a read of a page that came without TLS from another machine. The scripts of this server then name
/// themselves by `X-Requested-With`, which a page of another origin cannot send without an `Origin`.
pub(crate) fn is_own_read(headers: &HeaderMap, https: bool) -> bool {
    match headers.contains_key(header::ORIGIN) {
        true => is_same_origin(headers, https),
        false => match header_text(headers, SEC_FETCH_SITE) {
            "same-origin" | "none" => true,
            "" => headers.contains_key(REQUESTED_WITH),
            _ => false,
        },
    }
}

/// Tells the browser that `origin` may read the answer.
pub(crate) fn allow(origin: &HeaderValue, headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
}

/// Returns true if the request is a CORS preflight.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Returns the headers of the answer to a preflight.
pub(crate) fn preflight() -> [(HeaderName, HeaderValue); 3] {
    [
        (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS)),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(REQUEST_HEADERS)),
        (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600")),
    ]
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

fn header_text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Returns true if the request is the navigation of a tab. The tab shows the answer, and no page can read it.
fn is_visit(method: &Method, headers: &HeaderMap) -> bool {
    let navigation =
        header_text(headers, SEC_FETCH_MODE) == "navigate" && header_text(headers, SEC_FETCH_DEST) == "document";
    navigation && matches!(*method, Method::GET | Method::HEAD) && !headers.contains_key(header::UPGRADE)
}

/// Returns true if the page was served by this host.
fn is_same(origin: &str, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    origin.split_once("://").is_some_and(|(_, own)| host.is_some_and(|host| host.eq_ignore_ascii_case(own)))
}

/// Returns true if `text` is a valid value of a `Host` header: a host with an optional port, or nothing.
fn is_host(text: &[u8]) -> bool {
    text.is_empty() || !text.contains(&b'@') && Authority::try_from(text).is_ok()
}

/// Returns a host without its port and brackets.
fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    host.bytes().rposition(|byte| byte == b':').map_or(host, |at| &host[..at])
}

fn is_loopback(name: &str) -> bool {
    name == "localhost"
        || name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(host: &str, origin: &str) -> HeaderMap {
        let pairs = [(header::HOST, host), (header::ORIGIN, origin)];
        pairs.into_iter().map(|(name, value)| (name, value.parse().unwrap())).collect()
    }

    #[test]
    fn a_loopback_server_answers_loopback_names_and_pages_only() {
        let origins = Origins {
            listed: vec!["https://shop.example".into()],
            loopback: Some(Loopback::default()),
            ..Origins::default()
        };
        let host = |host: &str| origins.check_host(&headers(host, "x")).is_ok();
        assert!(host("localhost:8080") && host("127.0.0.1") && host("[::1]:80") && host("a.localhost"));
        assert!(!host("evil.example") && !host("127.0.0.1.evil.example") && !host("localhost.evil.example:80"));
        let post = |origin: &str| origins.check_origin(&Method::POST, &headers("localhost:1", origin)).is_ok();
        assert!(post("http://localhost:3000") && post("https://shop.example") && post("http://[::1]:5"));
        assert!(!post("null") && !post("https://shop.example.evil") && !post("http://evil.example"));
    }

    #[test]
    fn the_host_is_that_of_the_url_or_of_the_only_host_header() {
        let settled = |origins: &Origins, version: Version, uri: &str, hosts: &[&str]| {
            let mut request = Request::builder().version(version).uri(uri);
            for host in hosts {
                request = request.header(header::HOST, *host);
            }
            let mut request = request.body(axum::body::Body::empty()).unwrap();
            let settled = origins.settle_host(&mut request);
            settled.map(|()| request.headers().get(header::HOST).map(|host| host.to_str().unwrap().to_string()))
        };
        let server = Origins { host_required: true, ..Origins::default() };
        let (old, new) = (Version::HTTP_10, Version::HTTP_11);
        let host = |host: &str| Some(host.to_string());
        assert_eq!(settled(&server, new, "/a", &["a:1"]).unwrap(), host("a:1"));
        assert_eq!(settled(&server, new, "http://b/a", &["a:1"]).unwrap(), host("b"));
        assert_eq!(settled(&server, new, "/a", &[""]).unwrap(), host(""));
        assert_eq!(settled(&server, old, "/a", &[]).unwrap(), None);
        assert_eq!(settled(&Origins::default(), new, "/a", &[]).unwrap(), None, "within a program");
        let wrong: [(&str, &[&str]); 7] = [
            ("/a", &[]),
            ("http://a/", &[]),
            ("/a", &["a", "a"]),
            ("http://a/", &["a", "a"]),
            ("/a", &["a, b"]),
            ("/a", &["me@a"]),
            ("http://me@a/", &["a"]),
        ];
        for (uri, hosts) in wrong {
            assert!(settled(&server, new, uri, hosts).is_err(), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn requests_of_a_foreign_page_are_refused_except_navigation() {
        let guarded = Origins { loopback: Some(Loopback::default()), ..Origins::default() };
        let sent = |method: Method, pairs: &[(&'static str, &'static str)]| {
            let pair = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            let headers: HeaderMap = [("host", "localhost:1")].iter().chain(pairs).map(pair).collect();
            guarded.check_origin(&method, &headers).map(|page| page.cloned())
        };
        let cross = ("sec-fetch-site", "cross-site");
        let evil = ("origin", "http://evil.example");
        let visit = [cross, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        for refused in [&[evil][..], &[cross], &[cross, ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")]] {
            assert!(sent(Method::GET, refused).is_err(), "{refused:?}");
        }
        let framed = [cross, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
        assert!(sent(Method::GET, &framed).is_err() && sent(Method::POST, &visit).is_err());
        assert!(sent(Method::OPTIONS, &[evil]).is_err(), "a preflight is refused as well");
        assert_eq!(sent(Method::GET, &visit).unwrap(), None);
        assert_eq!(sent(Method::GET, &[]).unwrap(), None, "curl");
        assert_eq!(sent(Method::GET, &[("sec-fetch-site", "none")]).unwrap(), None, "a typed address");
        assert_eq!(sent(Method::GET, &[("sec-fetch-site", "same-origin")]).unwrap(), None);
        let own = sent(Method::POST, &[("origin", "http://localhost:3000"), ("sec-fetch-site", "same-site")]);
        assert_eq!(own.unwrap().unwrap(), "http://localhost:3000");
        // A gateway nested in an application leaves the check to the application.
        let nested = Origins::default();
        let headers = HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static("http://evil.example"))]);
        assert!(nested.check_origin(&Method::GET, &headers).is_ok());
    }
}
