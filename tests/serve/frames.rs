//! A client of HTTP/2 that sends frame by frame, also what a proper client would not.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Instant;

use tokio_rustls::rustls::ClientConfig;

use crate::authority::{Authority, Connection, connect};
use crate::process::{PATIENCE, Server};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Flag of the last frame of a stream, and of an acknowledgement.
pub(crate) const END: u8 = 1;
/// Flag of the last frame of a head.
pub(crate) const END_HEADERS: u8 = 4;

/// Setting of the bytes that an answer may have before they are asked for.
pub(crate) const INITIAL_WINDOW: u16 = 4;
/// Setting of the number of streams.
pub(crate) const STREAMS: u16 = 3;

/// Reasons of GOAWAY and RST_STREAM.
pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn is_end(&self) -> bool {
        self.flags & END != 0
    }

    /// The reason of GOAWAY or RST_STREAM, whose last part it is.
    pub(crate) fn reason(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// True for the head of an answer with the status 200, which is one byte.
    pub(crate) fn is_ok(&self) -> bool {
        self.kind == HEADERS && self.payload.first() == Some(&0x88)
    }
}

pub(crate) struct Http2 {
    pub(crate) connection: Connection,
    /// Settings of the server.
    pub(crate) settings: Vec<(u16, u32)>,
    /// Number of pings of the server.
    pub(crate) pings: usize,
    /// False to leave them unanswered.
    pub(crate) answers_pings: bool,
}

impl Http2 {
    /// Connects with these settings of the client.
    pub(crate) fn open(server: &Server, authority: &Authority, settings: &[(u16, u32)]) -> Http2 {
        Http2::open_as(server, &authority.speaking("h2"), settings)
    }

    /// Opens a connection of a client with these settings of TLS.
    pub(crate) fn open_as(server: &Server, client: &Arc<ClientConfig>, settings: &[(u16, u32)]) -> Http2 {
        let connection = connect(server, client).unwrap();
        assert_eq!(connection.conn.alpn_protocol(), Some(&b"h2"[..]));
        let mut client = Http2 { connection, settings: Vec::new(), pings: 0, answers_pings: true };
        client.connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let pairs = settings.iter().flat_map(|(key, value)| [&key.to_be_bytes()[..], &value.to_be_bytes()].concat());
        client.send(SETTINGS, 0, 0, &pairs.collect::<Vec<_>>()).unwrap();
        client
    }

    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> std::io::Result<()> {
        self.connection.write_all(&frame(kind, flags, stream, payload))?;
        self.connection.flush()
    }

    /// Sends a request without a body.
    pub(crate) fn get(&mut self, stream: u32, path: &str, headers: &[(&str, &str)]) {
        self.send(HEADERS, END | END_HEADERS, stream, &head("GET", path, headers)).unwrap();
    }

    /// The next frame but settings and pings, which are answered; `None` at the end of the connection.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "nothing comes but pings");
            let frame = self.read()?;
            let is_acknowledgement = frame.is_end();
            match frame.kind {
                SETTINGS if !is_acknowledgement => {
                    let pair = |pair: &[u8]| {
                        let (key, value) = pair.split_at(2);
                        (u16::from_be_bytes(key.try_into().unwrap()), u32::from_be_bytes(value.try_into().unwrap()))
                    };
                    self.settings.extend(frame.payload.chunks(6).map(pair));
                    self.send(SETTINGS, END, 0, &[]).ok()?;
                }
                PING if !is_acknowledgement => {
                    self.pings += 1;
                    if self.answers_pings {
                        self.send(PING, END, 0, &frame.payload).ok()?;
                    }
                }
                SETTINGS | PING | WINDOW_UPDATE => {}
                _ => return Some(frame),
            }
        }
    }

    /// Answers this number of pings; other frames are ignored.
    pub(crate) fn answer_pings(&mut self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        for _ in 0..count {
            loop {
                assert!(Instant::now() < deadline, "there are no pings");
                let frame = self.read().unwrap_or_else(|| panic!("the connection ended after {} pings", self.pings));
                if frame.kind == PING && !frame.is_end() {
                    self.pings += 1;
                    self.send(PING, END, 0, &frame.payload).unwrap();
                    break;
                }
            }
        }
    }

    /// The next frame; `None` if the server has ended the connection.
    fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        if let Err(error) = self.connection.read_exact(&mut head) {
            assert!(!is_timeout(&error), "nothing comes, and the connection does not end");
            return None;
        }
        let number = |bytes: &[u8]| bytes.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        let mut payload = vec![0; number(&head[..3]) as usize];
        self.connection.read_exact(&mut payload).ok()?;
        Some(Frame { kind: head[3], flags: head[4], stream: number(&head[5..]) & 0x7fff_ffff, payload })
    }

    /// Reads up to the first frame for which `fits` holds.
    pub(crate) fn until(&mut self, what: &str, fits: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let frame = self.next().unwrap_or_else(|| panic!("the connection ended before {what}"));
            if fits(&frame) {
                return frame;
            }
        }
    }

    /// Reads up to the end of the connection; returns the reason of the last GOAWAY.
    pub(crate) fn ended(&mut self) -> Option<u32> {
        let (mut reason, deadline) = (None, Instant::now() + PATIENCE);
        while let Some(frame) = self.next() {
            assert!(Instant::now() < deadline, "the connection does not end");
            if frame.kind == GOAWAY {
                reason = Some(frame.reason());
            }
        }
        reason
    }
}

/// True if nothing came for as long as a client waits.
pub(crate) fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

/// A frame as it is sent.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a request, with nothing compressed but the usual words.
pub(crate) fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let method = if method == "GET" { 0x82 } else { 0x83 };
    let mut head = vec![method, 0x87];
    for (name, value) in [(0x04, path), (0x01, "localhost")] {
        head.push(name);
        add_text(&mut head, value);
    }
    headers.iter().for_each(|(name, value)| add_header(&mut head, name, value));
    head
}

/// Adds a header to a head.
pub(crate) fn add_header(head: &mut Vec<u8>, name: &str, value: &str) {
    head.push(0);
    add_text(head, name);
    add_text(head, value);
}

fn add_text(head: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    if length < 127 {
        head.push(length as u8);
    } else {
        head.push(127);
        length -= 127;
        while length >= 128 {
            head.push((length % 128) as u8 | 128);
            length /= 128;
        }
        head.push(length as u8);
    }
    head.extend_from_slice(text.as_bytes());
}
