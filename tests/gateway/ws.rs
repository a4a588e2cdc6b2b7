//! A WebSocket client that can also do everything wrong: frames written and read byte by byte.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::harness::{Answer, App};

/// Everything is to happen within this.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;
/// The bit of a message's last frame.
pub(crate) const FIN: u8 = 0x80;

/// The handshake of the specification's example.
pub(crate) const HANDSHAKE: [(&str, &str); 4] = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// One frame as it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// FIN, reserved bits and opcode.
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

/// What pretends to be a frame of `length` bytes, as it travels.
pub(crate) fn wire(first: u8, length: u64, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = vec![first];
    match length {
        0..126 => frame.push(masked | u8::try_from(length).unwrap()),
        126..0x1_0000 => {
            frame.push(masked | 126);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        _ => {
            frame.push(masked | 127);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend(mask.iter().flatten());
    let mask = mask.unwrap_or_default();
    frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    frame
}

pub(crate) struct Ws {
    stream: TcpStream,
}

impl Ws {
    /// A socket that is open.
    pub(crate) async fn open(app: &App, path: &str) -> Ws {
        let (answer, ws) = Ws::handshake(app, path, &HANDSHAKE).await;
        assert_eq!(answer.status, 101, "{answer:?}");
        ws
    }

    /// What is answered to a GET with `headers`, and the connection.
    pub(crate) async fn handshake(app: &App, path: &str, headers: &[(&str, &str)]) -> (Answer, Ws) {
        Ws::shake(app, path, headers, b"").await
    }

    /// A socket that is open, whose client did not wait for that with its first `bytes`.
    pub(crate) async fn eager(app: &App, path: &str, headers: &[(&str, &str)], bytes: &[u8]) -> Ws {
        let (answer, ws) = Ws::shake(app, path, headers, bytes).await;
        assert_eq!(answer.status, 101, "{answer:?}");
        ws
    }

    async fn shake(app: &App, path: &str, headers: &[(&str, &str)], rest: &[u8]) -> (Answer, Ws) {
        let mut head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", app.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let socket = TcpSocket::new_v4().unwrap();
        // Little is on its way to a client that does not read.
        socket.set_recv_buffer_size(16 << 10).unwrap();
        let mut stream = socket.connect(app.address).await.unwrap();
        stream.write_all(&[head.as_bytes(), b"\r\n", rest].concat()).await.unwrap();
        let mut raw = Vec::new();
        while !raw.ends_with(b"\r\n\r\n") {
            raw.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
        }
        let mut answer = Answer::parse(&raw);
        answer.body = vec![0; answer.header("content-length").parse().unwrap_or(0)];
        stream.read_exact(&mut answer.body).await.unwrap();
        (answer, Ws { stream })
    }

    /// Sends one frame, masked as clients must.
    pub(crate) async fn send(&mut self, first: u8, payload: &[u8]) {
        self.raw(first, payload.len() as u64, Some([7, 0, 200, 31]), payload).await;
    }

    pub(crate) async fn text(&mut self, text: &str) {
        self.send(FIN | TEXT, text.as_bytes()).await;
    }

    /// Sends what pretends to be a frame of `length` bytes.
    pub(crate) async fn raw(&mut self, first: u8, length: u64, mask: Option<[u8; 4]>, payload: &[u8]) {
        self.bytes(&wire(first, length, mask, payload)).await;
    }

    pub(crate) async fn bytes(&mut self, bytes: &[u8]) {
        // The server may close before it has read everything.
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next frame, `None` at the end of the connection.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        timeout(PATIENCE, self.read()).await.expect("a frame, or the end").ok()
    }

    async fn read(&mut self) -> std::io::Result<Frame> {
        let first = self.stream.read_u8().await?;
        let length = match self.stream.read_u8().await? {
            126 => u64::from(self.stream.read_u16().await?),
            127 => self.stream.read_u64().await?,
            short => u64::from(short),
        };
        assert!(length < 1 << 20, "servers do not mask, and large frames are not ours");
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).await?;
        Ok(Frame { first, payload })
    }

    /// The next binary frame as what it says.
    pub(crate) async fn cbor(&mut self) -> ciborium::Value {
        let frame = self.frame().await.expect("a binary frame");
        assert_eq!(frame.first, FIN | BINARY, "{frame:?}");
        ciborium::from_reader(&frame.payload[..]).unwrap()
    }

    /// The next text frame, whatever pings come before.
    pub(crate) async fn json(&mut self) -> Value {
        loop {
            let frame = self.frame().await.expect("a text frame");
            if frame.first == FIN | TEXT {
                return serde_json::from_slice(&frame.payload).unwrap();
            }
            assert_eq!(frame.first, FIN | PING, "{frame:?}");
        }
    }

    /// Reads to the end; the close code, 0 if there was none.
    pub(crate) async fn closed(&mut self) -> u16 {
        let mut code = 0;
        while let Some(frame) = self.frame().await {
            if frame.first == FIN | CLOSE {
                code = frame.payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                self.send(FIN | CLOSE, &frame.payload).await;
            }
        }
        code
    }
}
