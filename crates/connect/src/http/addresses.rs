//! Addresses of the public internet, to which `addresses = "public"` restricts requests.

use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Url;

/// Refuses a URL with a private address in place of a name; names are checked when they are resolved.
pub(super) fn check_public(url: &Url) -> Result<(), String> {
    let address = match url.host() {
        Some(url::Host::Ipv4(address)) => IpAddr::V4(address),
        Some(url::Host::Ipv6(address)) => IpAddr::V6(address),
        _ => return Ok(()),
    };
    if is_public(address) { Ok(()) } else { Err(format!("{address} is not a public address")) }
}

/// Resolver that returns public addresses only.
pub(super) struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(format!("{} has no public address", name.as_str()).into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// Returns true for an address of the public internet: neither private, shared, local, documentation, multicast nor reserved
/// (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            let is_benchmark = a == 198 && (18..20).contains(&b);
            let is_protocol = v4.octets()[..3] == [192, 0, 0];
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_documentation()
                || v4.is_multicast()
                || is_shared
                || is_benchmark
                || is_protocol
                || a == 0
                || a >= 240)
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_public(IpAddr::V4(v4)),
            // Global unicast, without documentation, protocol assignments (Teredo among them), and 6to4, which leads to an IPv4 address.
            None => match v6.segments()[..2] {
                [0x2001, second] => second > 0x1ff && second != 0xdb8,
                [0x3fff, second] => second > 0xfff,
                [first, _] => first & 0xe000 == 0x2000 && first != 0x2002,
                _ => false,
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_known() {
        let public = |text: &str| is_public(text.parse().unwrap());
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "ff02::1",
            "2001:db8::1",
            "2001:0:7f00:1::1",
            "2002:7f00:1::1",
            "3fff::1",
            "64:ff9b::7f00:1",
        ] {
            assert!(!public(private), "{private}");
        }
        for open in ["8.8.8.8", "100.128.0.1", "2606:4700::1111", "2001:4860:4860::8888", "3ffe::1", "::ffff:8.8.8.8"] {
            assert!(public(open), "{open}");
        }
    }
}
