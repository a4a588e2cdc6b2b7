//! Ports for servers.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::{Ipv4Addr, TcpListener};

/// Returns a free port of the loopback interface, below the range that systems take ports of outgoing connections from: a server
/// that is restarted finds its port free.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = 20_000 + u16::try_from(RandomState::new().hash_one(0) % 12_000).unwrap_or_default();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
