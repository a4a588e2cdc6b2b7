//! Trusted proxies: determines the client's address of a request.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

/// Header to which each proxy appends its client's address.
const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Header in which a proxy names the protocol of its client.
const PROTOCOL: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The networks of `server.trusted_proxies`.
#[derive(Clone, Debug, Default)]
pub(super) struct Proxies(Arc<[IpNet]>);

impl Proxies {
    pub(super) fn new(networks: &[IpNet]) -> Proxies {
        Proxies(networks.into())
    }

    /// Returns true if `address` is a trusted proxy.
    pub(super) fn trust(&self, address: IpAddr) -> bool {
        !self.0.is_empty() && self.0.iter().any(|network| network.contains(&address.to_canonical()))
    }

    /// Returns true if `peer` is a trusted proxy that received the request over TLS.
    pub(super) fn is_https(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        self.trust(peer) && headers.get(PROTOCOL).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"https"))
    }

    /// Returns the client's address of a request that `peer` sent with `headers`: the last address in `X-Forwarded-For` that is
    /// not a trusted proxy, because the client may have written everything before it. Returns `peer` if the header cannot be
    /// used.
    pub(super) fn origin(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.trust(peer) {
            return peer;
        }
        let lists: Vec<&str> =
            headers.get_all(FORWARDED).iter().map(|list| list.to_str().unwrap_or_default()).collect();
        let mut last = peer;
        for text in lists.iter().rev().flat_map(|list| list.rsplit(',')) {
            let Some(address) = address(text.trim()) else { return last };
            if !self.trust(address) {
                return address;
            }
            last = address;
        }
        last
    }
}

/// Parses an address with an optional port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse().map(|socket: std::net::SocketAddr| socket.ip()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(peer: &str, forwarded: &[&str]) -> String {
        let proxies = Proxies::new(&["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        let headers = forwarded.iter().map(|list| (FORWARDED, list.parse().unwrap())).collect();
        proxies.origin(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_trusted_proxies_say_that_a_request_came_over_tls() {
        let proxies = Proxies::new(&["10.0.0.0/8".parse().unwrap()]);
        let is_https = |peer: &str, value: &str| {
            proxies.is_https(peer.parse().unwrap(), &HeaderMap::from_iter([(PROTOCOL, value.parse().unwrap())]))
        };
        assert!(is_https("10.0.0.1", "https") && is_https("10.0.0.1", "HTTPS"));
        assert!(
            !is_https("192.0.2.9", "https") && !is_https("10.0.0.1", "http") && !is_https("10.0.0.1", "https, http")
        );
    }

    #[test]
    fn only_addresses_appended_by_trusted_proxies_are_used() {
        assert_eq!(origin("192.0.2.9", &["198.51.100.1"]), "192.0.2.9", "no proxy");
        assert_eq!(origin("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(origin("::ffff:10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(
            origin("10.0.0.1", &["6.6.6.6, 198.51.100.1 , 10.2.2.2"]),
            "198.51.100.1",
            "the client wrote the first address"
        );
        assert_eq!(origin("10.0.0.1", &["6.6.6.6", "198.51.100.1"]), "198.51.100.1", "two lines are one list");
        assert_eq!(origin("::1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(origin("10.0.0.1", &["198.51.100.1:1234"]), "198.51.100.1");
        for nothing in [&[][..], &[""], &["unknown"], &["10.0.0.1"], &["6.6.6.6, _hidden"]] {
            assert_eq!(origin("10.0.0.1", nothing), "10.0.0.1", "{nothing:?}");
        }
        assert_eq!(origin("10.0.0.1", &["6.6.6.6, nonsense, 10.3.3.3"]), "10.3.3.3");
    }
}
