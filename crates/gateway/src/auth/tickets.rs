//! Tickets: a substitute for a token in a URL, used once and within half a minute, for what can set no header (a browser's
//! `EventSource`, a download).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::uri::PathAndQuery;
use axum::http::{Method, Uri};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::AuthError;
use super::keys::{ByHash, TokenHash, random};
use crate::access::Principal;
use crate::http::problem::{ApiError, Code};

/// Time for which a ticket can be used.
pub(crate) const LIFETIME: Duration = Duration::from_secs(30);
/// Maximum number of open tickets.
const MOST: usize = 10_000;
/// Maximum number of open tickets of one principal.
const MOST_EACH: usize = 100;
/// Beginning of each ticket. It distinguishes the parameter from a filter of a column named `ticket`.
const PREFIX: &str = "tk_";
/// Length of a ticket.
const LENGTH: usize = PREFIX.len() + 43;

/// Open tickets.
#[derive(Debug, Default)]
pub(crate) struct Tickets(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    tickets: ByHash<Ticket>,
    /// Hashes in the order of their end. Used tickets stay in it until then.
    order: VecDeque<(Instant, TokenHash)>,
    counts: HashMap<Arc<str>, usize>,
}

#[derive(Debug)]
struct Ticket {
    principal: Principal,
    path: Box<str>,
}

impl Open {
    fn remove(&mut self, hash: &TokenHash) -> Option<Ticket> {
        let ticket = self.tickets.remove(hash)?;
        if let Some(name) = ticket.principal.name()
            && let Some(count) = self.counts.get_mut(name)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(name);
            }
        }
        Some(ticket)
    }

    fn expire(&mut self, now: Instant) {
        while let Some((_, hash)) = self.order.pop_front_if(|(end, _)| *end <= now) {
            self.remove(&hash);
        }
    }
}

impl Tickets {
    /// Issues a ticket of `principal` for `path`, a path within the gateway.
    ///
    /// # Errors
    /// 429 if too many tickets are open.
    pub(crate) fn issue(&self, principal: &Principal, path: &str) -> Result<String, ApiError> {
        let name = principal.name().cloned().unwrap_or_default();
        let now = Instant::now();
        let mut open = self.0.lock();
        open.expire(now);
        // Used tickets are in the order until their end, so their number is bounded as well.
        if open.order.len() >= MOST || open.counts.get(&name).is_some_and(|count| *count >= MOST_EACH) {
            let error = ApiError::new(Code::RateLimited, format!("{MOST_EACH} tickets of this caller are open"));
            return Err(error.hint("a ticket ends after 30 seconds, or with its use").retry_after(Some(LIFETIME)));
        }
        let ticket = format!("{PREFIX}{}", random());
        let hash = TokenHash::of(ticket.as_bytes());
        if principal.name().is_some() {
            *open.counts.entry(name).or_default() += 1;
        }
        open.tickets.insert(hash, Ticket { principal: principal.clone(), path: path.into() });
        open.order.push_back((now + LIFETIME, hash));
        Ok(ticket)
    }

    /// Uses a ticket for a request, and returns its principal. The ticket is used up even if it does not fit.
    pub(crate) fn redeem(&self, ticket: &str, method: &Method, path: &str) -> Result<Principal, AuthError> {
        let mut open = self.0.lock();
        open.expire(Instant::now());
        let found = open.remove(&TokenHash::of(ticket.as_bytes()));
        drop(open);
        let found = found.filter(|found| *found.path == *path && *method == Method::GET);
        let found = found.filter(|found| found.principal.is_valid(SystemTime::now()));
        found.map(|found| found.principal).ok_or(AuthError::Ticket)
    }
}

/// Removes the ticket from a URL and returns it, with the URL that is left. `None` if the query has none.
pub(crate) fn split(uri: &Uri) -> Option<(String, Uri)> {
    let query = uri.query().filter(|query| query.contains(PREFIX))?;
    let of = |pair: &str| {
        let ticket = pair.strip_prefix("ticket=")?;
        let plain = ticket.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        (ticket.len() == LENGTH && ticket.starts_with(PREFIX) && plain).then(|| ticket.to_string())
    };
    let ticket = query.split('&').find_map(of)?;
    let rest: Vec<&str> = query.split('&').filter(|pair| of(pair).is_none()).collect();
    let mut parts = uri.clone().into_parts();
    let text = match rest.is_empty() {
        true => uri.path().to_string(),
        false => format!("{}?{}", uri.path(), rest.join("&")),
    };
    parts.path_and_query = Some(PathAndQuery::try_from(text).ok()?);
    Some((ticket, Uri::from_parts(parts).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Identity, Verbs};
    use diorama_core::record::CborValue;

    fn principal(name: &str) -> Principal {
        let (name, role, claims) = (name.into(), "x".into(), CborValue::Map(Vec::new()));
        Arc::new(Identity { name, role, claims, verbs: Verbs::ALL, unrestricted: false, expires: None }).into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_ticket_counts_once_for_its_path_and_method_and_for_half_a_minute() {
        let tickets = Tickets::default();
        let issue = || tickets.issue(&principal("key:a"), "/orders/events").unwrap();
        let redeem = |ticket: &str, method: Method, path: &str| tickets.redeem(ticket, &method, path);
        let ticket = issue();
        assert_eq!(redeem(&ticket, Method::GET, "/orders/events").unwrap().name().unwrap().as_ref(), "key:a");
        assert_eq!(redeem(&ticket, Method::GET, "/orders/events").unwrap_err(), AuthError::Ticket, "a second time");
        let ticket = issue();
        assert!(redeem(&ticket, Method::GET, "/orders").is_err(), "another path");
        assert!(redeem(&ticket, Method::GET, "/orders/events").is_err(), "it is used up");
        assert!(redeem(&issue(), Method::POST, "/orders/events").is_err(), "another method");
        assert!(redeem("tk_unknown", Method::GET, "/orders/events").is_err());
        let (early, late) = (issue(), issue());
        tokio::time::advance(LIFETIME - Duration::from_millis(1)).await;
        assert!(redeem(&early, Method::GET, "/orders/events").is_ok());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(redeem(&late, Method::GET, "/orders/events").is_err(), "too late");
    }

    #[tokio::test(start_paused = true)]
    async fn open_tickets_are_bounded_for_each_principal() {
        let tickets = Tickets::default();
        let issue = |name: &str| tickets.issue(&principal(name), "/a");
        let first = issue("key:a").unwrap();
        (1..MOST_EACH).for_each(|_| drop(issue("key:a").unwrap()));
        assert_eq!(issue("key:a").unwrap_err().code(), Code::RateLimited);
        assert!(issue("key:b").is_ok());
        assert!(tickets.redeem(&first, &Method::GET, "/a").is_ok());
        assert!(issue("key:a").is_ok(), "a used ticket makes room");
        assert!(issue("key:a").is_err());
        tokio::time::advance(LIFETIME).await;
        assert!(issue("key:a").is_ok());
        let open = tickets.0.lock();
        assert_eq!((open.tickets.len(), open.order.len(), open.counts.len()), (1, 1, 1), "nothing stays");
    }

    #[test]
    fn a_ticket_is_removed_from_a_url_and_a_filter_is_not() {
        let ticket = format!("tk_{}", "A".repeat(43));
        let split = |text: &str| split(&text.parse().unwrap()).map(|(ticket, uri)| (ticket, uri.to_string()));
        let found = |rest: &str| Some((ticket.clone(), rest.to_string()));
        assert_eq!(split(&format!("/a?ticket={ticket}")), found("/a"));
        assert_eq!(split(&format!("/a?x=1&ticket={ticket}&y=2")), found("/a?x=1&y=2"));
        assert_eq!(split(&format!("http://h/a?ticket={ticket}&ticket={ticket}")), found("http://h/a"));
        for kept in ["/a", "/a?ticket=eq.tk_5", "/a?ticket=5", "/a?ticket=tk_short"] {
            assert_eq!(split(kept), None, "{kept}");
        }
    }
}
