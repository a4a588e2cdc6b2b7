//! Sessions of browsers: a cookie in place of a token, for the explorer and for downloads.
//!
//! A browser sends a cookie by itself. So the cookie is `SameSite=Strict`, and it counts only if the browser says that a page of this
//! server sent the request.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, HeaderValue, Method, header};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::AuthError;
use super::credentials::cookie;
use super::keys::{ByHash, TokenHash, random};
use crate::access::Principal;
use crate::http::origin::{is_own_read, is_same_origin};
use crate::http::problem::{ApiError, Code};
use crate::http::response;

/// Name of the cookie.
pub(crate) const COOKIE: &str = "diorama_session";
/// Longest duration of a session.
const LIFETIME: Duration = Duration::from_secs(12 * 3_600);
/// Maximum number of sessions.
const MOST: usize = 10_000;
/// Maximum number of sessions of one principal. The oldest one ends when another one begins.
const MOST_EACH: usize = 100;

/// Marker in the extensions of a request that arrived over TLS, at this server or at a trusted proxy in front of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Https;

/// Open sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    sessions: ByHash<Session>,
    /// Hashes of the sessions of each principal, the oldest first.
    by_name: HashMap<Arc<str>, VecDeque<TokenHash>>,
}

/// Session of a browser. What it has opened ends when it is dropped.
#[derive(Debug)]
struct Session {
    principal: Principal,
    end: Instant,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.principal.end_session();
    }
}

impl Session {
    fn is_open(&self, now: Instant) -> bool {
        now < self.end && self.principal.is_valid(SystemTime::now())
    }
}

impl Open {
    fn remove(&mut self, hash: &TokenHash) {
        let Some(session) = self.sessions.remove(hash) else { return };
        let Some(name) = session.principal.name() else { return };
        if let Some(own) = self.by_name.get_mut(name) {
            own.retain(|other| other != hash);
            if own.is_empty() {
                self.by_name.remove(name);
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        let ended: Vec<_> = self.sessions.iter().filter(|(_, one)| !one.is_open(now)).map(|(hash, _)| *hash).collect();
        ended.iter().for_each(|hash| self.remove(hash));
    }
}

impl Sessions {
    /// Begins a session of `principal`, and returns its secret and its duration.
    ///
    /// # Errors
    /// 401 for an anonymous caller, 503 if there are too many sessions.
    pub(crate) fn begin(&self, principal: &Principal) -> Result<(String, Duration), ApiError> {
        let identity = principal.identity().ok_or(AuthError::Missing)?;
        let left = identity.expires.map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
        let duration = left.map_or(LIFETIME, |left| left.min(LIFETIME));
        let now = Instant::now();
        let principal = principal.in_session(SystemTime::now() + duration).ok_or(AuthError::Missing)?;
        let mut open = self.0.lock();
        let open = &mut *open;
        if open.sessions.len() >= MOST {
            open.expire(now);
        }
        if open.sessions.len() >= MOST {
            return Err(ApiError::new(Code::Busy, "too many sessions are open"));
        }
        let own = open.by_name.entry(Arc::clone(&identity.name)).or_default();
        let oldest = if own.len() >= MOST_EACH { own.pop_front() } else { None };
        let secret = random();
        let hash = TokenHash::of(secret.as_bytes());
        own.push_back(hash);
        oldest.iter().for_each(|hash| drop(open.sessions.remove(hash)));
        open.sessions.insert(hash, Session { principal, end: now + duration });
        Ok((secret, duration))
    }

    /// Ends the session whose cookie is in `headers`.
    pub(crate) fn end(&self, headers: &HeaderMap) {
        if let Some(secret) = cookie(headers, COOKIE) {
            self.0.lock().remove(&TokenHash::of(secret.as_bytes()));
        }
    }

    /// Returns the principal of the session whose cookie is in `headers`; `None` without the cookie.
    ///
    /// # Errors
    /// The session has ended, or no page of this server sent the request.
    pub(crate) fn find(
        &self,
        headers: &HeaderMap,
        method: &Method,
        https: bool,
    ) -> Result<Option<Principal>, AuthError> {
        let Some(secret) = cookie(headers, COOKIE) else { return Ok(None) };
        // A handshake is a GET, but its socket can be read by the page that opened it.
        let reads = matches!(*method, Method::GET | Method::HEAD) && !headers.contains_key(header::UPGRADE);
        let own = if reads { is_own_read(headers, https) } else { is_same_origin(headers, https) };
        if !own {
            return Err(AuthError::CookieOrigin);
        }
        let (hash, now) = (TokenHash::of(secret.as_bytes()), Instant::now());
        let mut open = self.0.lock();
        match open.sessions.get(&hash) {
            Some(session) if session.is_open(now) => Ok(Some(session.principal.clone())),
            _ => {
                open.remove(&hash);
                Err(AuthError::Session)
            }
        }
    }
}

/// Returns the value of `Set-Cookie` for a session, or for its end if `secret` is `None`. `path` is that of the gateway.
pub(crate) fn set_cookie(secret: Option<(&str, Duration)>, path: &str, https: bool) -> HeaderValue {
    let (secret, duration) = secret.unwrap_or(("", Duration::ZERO));
    let path = if path.is_empty() { "/" } else { path };
    let secure = if https { "; Secure" } else { "" };
    let seconds = duration.as_secs();
    response::text(format!("{COOKIE}={secret}; HttpOnly; SameSite=Strict; Path={path}; Max-Age={seconds}{secure}"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;
    use crate::access::{Identity, Verbs};
    use diorama_core::record::CborValue;

    fn principal(name: &str, expires: Option<SystemTime>) -> Principal {
        let (name, role, claims) = (name.into(), "x".into(), CborValue::Map(Vec::new()));
        Arc::new(Identity { name, role, claims, verbs: Verbs::ALL, unrestricted: false, expires }).into()
    }

    fn headers(secret: &str, more: &[(&'static str, &str)]) -> HeaderMap {
        let own = [("host", "shop.example"), ("cookie", &format!("{COOKIE}={secret}"))]
            .map(|(name, value)| (name, value.to_string()));
        let more = more.iter().map(|(name, value)| (*name, value.to_string()));
        let pair = |(name, value): (&'static str, String)| (HeaderName::from_static(name), value.parse().unwrap());
        own.into_iter().chain(more).map(pair).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_cookie_counts_only_for_pages_of_the_server() {
        let sessions = Sessions::default();
        let (secret, _) = sessions.begin(&principal("key:a", None)).unwrap();
        let find = |method: Method, more: &[(&'static str, &str)], https| {
            sessions.find(&headers(&secret, more), &method, https).map(|found| found.is_some())
        };
        let (own, foreign) = (("origin", "http://shop.example"), ("origin", "http://evil.example"));
        let site = |value| ("sec-fetch-site", value);
        let (upgrade, script) = (("upgrade", "websocket"), ("x-requested-with", "diorama"));
        for (method, more) in [
            (Method::GET, &[own][..]),
            (Method::GET, &[site("same-origin")]),
            (Method::HEAD, &[site("none")]),
            (Method::GET, &[script]),
            (Method::POST, &[own]),
            (Method::GET, &[own, upgrade]),
            (Method::DELETE, &[own, site("same-origin")]),
        ] {
            assert_eq!(find(method.clone(), more, false), Ok(true), "{method} {more:?}");
        }
        for (method, more) in [
            (Method::GET, &[][..]),
            (Method::GET, &[foreign]),
            (Method::GET, &[("origin", "null")]),
            (Method::GET, &[site("cross-site")]),
            (Method::GET, &[site("same-site")]),
            (Method::GET, &[foreign, site("same-origin")]),
            (Method::POST, &[]),
            (Method::POST, &[site("same-origin")]),
            (Method::PATCH, &[site("none")]),
            (Method::GET, &[upgrade, site("same-origin")]),
            (Method::GET, &[upgrade, foreign]),
            (Method::GET, &[script, foreign]),
            (Method::GET, &[script, site("cross-site")]),
            (Method::GET, &[script, site("same-site")]),
            (Method::GET, &[script, upgrade]),
            (Method::POST, &[script]),
        ] {
            assert_eq!(find(method.clone(), more, false), Err(AuthError::CookieOrigin), "{method} {more:?}");
        }
        assert_eq!(find(Method::POST, &[own], true), Err(AuthError::CookieOrigin), "the page was sent without TLS");
        assert_eq!(find(Method::POST, &[("origin", "https://shop.example")], true), Ok(true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_with_its_token_or_after_half_a_day_or_by_request() {
        let sessions = Sessions::default();
        let find =
            |secret: &str| sessions.find(&headers(secret, &[("sec-fetch-site", "same-origin")]), &Method::GET, false);
        let (long, duration) = sessions.begin(&principal("key:a", None)).unwrap();
        assert_eq!(duration, LIFETIME);
        let soon = SystemTime::now() + Duration::from_secs(60);
        let (short, duration) = sessions.begin(&principal("jwt:a:b", Some(soon))).unwrap();
        assert!(duration <= Duration::from_secs(60));
        assert!(find(&long).is_ok() && find(&short).is_ok());
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(find(&long).is_ok());
        assert_eq!(find(&short).unwrap_err(), AuthError::Session);
        tokio::time::advance(LIFETIME).await;
        assert_eq!(find(&long).unwrap_err(), AuthError::Session);
        let (secret, _) = sessions.begin(&principal("key:a", None)).unwrap();
        sessions.end(&headers(&secret, &[]));
        assert_eq!(find(&secret).unwrap_err(), AuthError::Session);
        let open = sessions.0.lock();
        assert!(open.sessions.is_empty() && open.by_name.is_empty(), "nothing stays");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_session_has_opened_ends_with_it() {
        let sessions = Sessions::default();
        let opened = |secret: &str| {
            let found = sessions.find(&headers(secret, &[("sec-fetch-site", "none")]), &Method::GET, false);
            found.unwrap().unwrap()
        };
        let is_open = |principal: &Principal| principal.is_valid(SystemTime::now());
        let own = principal("key:a", None);
        let secrets: Vec<String> = (0..MOST_EACH).map(|_| sessions.begin(&own).unwrap().0).collect();
        let (first, second, third) = (opened(&secrets[0]), opened(&secrets[1]), opened(&secrets[2]));
        assert!(first.has_session() && first.expires() <= Some(SystemTime::now() + LIFETIME));
        sessions.end(&headers(&secrets[1], &[]));
        assert_eq!((is_open(&first), is_open(&second), is_open(&third)), (true, false, true));
        sessions.begin(&own).unwrap();
        assert!(is_open(&first), "there was room");
        sessions.begin(&own).unwrap();
        assert_eq!((is_open(&first), is_open(&third)), (false, true), "the oldest one made room");
        assert!(is_open(&own) && !own.has_session(), "the key goes on");
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_are_bounded_and_the_oldest_of_a_principal_ends() {
        let sessions = Sessions::default();
        let find = |secret: &str| sessions.find(&headers(secret, &[("sec-fetch-site", "none")]), &Method::GET, false);
        let (first, _) = sessions.begin(&principal("key:a", None)).unwrap();
        let later: Vec<String> = (0..MOST_EACH).map(|_| sessions.begin(&principal("key:a", None)).unwrap().0).collect();
        assert!(find(&first).is_err() && find(&later[0]).is_ok());
        for number in MOST_EACH..MOST {
            sessions.begin(&principal(&format!("key:{number}"), None)).unwrap();
        }
        assert_eq!(sessions.begin(&principal("key:z", None)).unwrap_err().code(), Code::Busy);
        tokio::time::advance(LIFETIME).await;
        assert!(sessions.begin(&principal("key:z", None)).is_ok());
        assert!(sessions.begin(&Principal::anonymous()).is_err());
    }

    #[test]
    fn the_cookie_is_for_this_server_only() {
        let cookie = |path, https| set_cookie(Some(("x", Duration::from_secs(5))), path, https);
        assert_eq!(cookie("", false), "diorama_session=x; HttpOnly; SameSite=Strict; Path=/; Max-Age=5");
        assert_eq!(cookie("/api", true), "diorama_session=x; HttpOnly; SameSite=Strict; Path=/api; Max-Age=5; Secure");
        assert_eq!(set_cookie(None, "", false), "diorama_session=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0");
    }
}
