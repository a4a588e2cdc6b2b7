//! What a client sends over a WebSocket: frames of a kind, a length and a payload, or bytes that are none.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use diorama_fuzz::Bakery;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

static BAKERY: LazyLock<Bakery> = LazyLock::new(Bakery::open);

const PATHS: [(&str, &str); 4] = [
    ("/events", "json"),
    ("/events?dio=products", "json"),
    ("/products/events", "json"),
    ("/events", "cbor"),
];
const CLOSE: [u8; 6] = [0x88, 0x80, 0, 0, 0, 0];

/// One frame with a mask that changes nothing.
fn frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(opcode);
    match u8::try_from(payload.len()) {
        Ok(short @ 0..126) => out.push(0x80 | short),
        _ => {
            out.push(0x80 | 126);
            out.extend_from_slice(&u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

fn said(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let [kind, length, more @ ..] = rest {
        let (payload, left) = more.split_at(more.len().min(usize::from(*length)));
        match kind % 5 {
            0 | 1 => frame(0x81, payload, &mut out),
            2 => frame(0x82, payload, &mut out),
            3 => frame(*kind, payload, &mut out),
            _ => out.extend_from_slice(payload),
        }
        rest = left;
    }
    out.extend_from_slice(&CLOSE);
    out
}

fuzz_target!(|data: &[u8]| {
    let Some((path, rest)) = data.split_first() else { return };
    let bakery = &*BAKERY;
    bakery.runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(64 << 10);
        let service = TowerToHyperService::new(bakery.router.clone());
        let serving = http1::Builder::new().serve_connection(TokioIo::new(server), service).with_upgrades();
        let talking = async {
            let (path, encoding) = PATHS[usize::from(*path) % PATHS.len()];
            let hello = format!(
                "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-protocol: diorama.v1+{encoding}\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            );
            client.write_all(hello.as_bytes()).await.expect("it is taken");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.expect("it answers"));
            }
            assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
            let (mut heard, mut words) = tokio::io::split(client);
            let saying = async {
                let _ = words.write_all(&said(rest)).await;
                let _ = words.shutdown().await;
            };
            let hearing = async { tokio::io::copy(&mut heard, &mut tokio::io::sink()).await };
            let ((), _) = tokio::join!(saying, hearing);
        };
        // The clock stands still while anybody has something to do: whoever is still here has forgotten to end.
        let both = async { tokio::join!(serving, talking) };
        // A connection that breaks is no error of ours.
        let _ = tokio::time::timeout(Duration::from_secs(3_600), both).await.expect("the socket ends");
    });
});
