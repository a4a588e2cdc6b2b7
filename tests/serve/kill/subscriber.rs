//! A subscriber over a plain socket that remembers every frame and comes back where it left off.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, client};

use crate::process::PATIENCE;

/// An event, without what a replay may leave out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) seq: u64,
    pub(crate) kind: String,
    pub(crate) id: Option<String>,
    pub(crate) op: Option<String>,
    pub(crate) record: Value,
}

/// What a subscriber got during one life of the server.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) hello: Option<Value>,
    pub(crate) resets: Vec<String>,
    pub(crate) events: Vec<Event>,
    /// The close code, if the server said goodbye.
    pub(crate) closed: Option<u16>,
    /// The position up to which everything was heard.
    pub(crate) last: u64,
}

pub(crate) struct Subscriber {
    socket: WebSocket<TcpStream>,
    heard: Heard,
}

impl Subscriber {
    /// Subscribes to everything after `since`; `None` if nobody answers.
    pub(crate) fn connect(address: &str, dio: &str, epoch: &str, since: u64) -> Option<Subscriber> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let url = format!("ws://{address}/{dio}/events?since={epoch}:{since}");
        let (socket, _) = client(url, stream).ok()?;
        Some(Subscriber { socket, heard: Heard { last: since, ..Heard::default() } })
    }

    /// Listens until the server ends.
    pub(crate) fn listen(mut self) -> Heard {
        while self.next().is_some() {}
        self.heard
    }

    /// Listens until everything up to `position` was heard.
    pub(crate) fn until(mut self, position: u64) -> Heard {
        while self.heard.last < position {
            // No faster than the server takes messages.
            std::thread::sleep(Duration::from_millis(50));
            self.socket.send(Message::text(r#"{"type":"ping","n":1}"#)).unwrap();
            while self.next().expect("the server runs") != "pong" {}
        }
        self.heard
    }

    /// The type of the next frame, `None` when there is no more.
    fn next(&mut self) -> Option<String> {
        match self.socket.read() {
            Ok(Message::Text(text)) => Some(self.hear(serde_json::from_str(&text).unwrap())),
            Ok(Message::Close(frame)) => {
                self.heard.closed = frame.map(|frame| frame.code.into());
                Some("close".into())
            }
            Ok(_) => Some("other".into()),
            Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("no frame and no end within {PATIENCE:?}")
            }
            Err(_) => None,
        }
    }

    fn hear(&mut self, frame: Value) -> String {
        let kind = frame["type"].as_str().unwrap().to_string();
        let seq = frame["seq"].as_u64();
        match kind.as_str() {
            "hello" => self.heard.hello = Some(frame),
            "reset" => {
                self.heard.resets.push(frame["reason"].as_str().unwrap().to_string());
                self.heard.last = seq.unwrap();
            }
            "heartbeat" | "pong" => self.heard.last = self.heard.last.max(seq.unwrap()),
            "bye" => {}
            _ => {
                let seq = seq.unwrap_or_else(|| panic!("an event without position: {frame}"));
                assert!(seq > self.heard.last, "position {seq} comes after {}: {frame}", self.heard.last);
                self.heard.last = seq;
                let text = |name: &str| frame[name].as_str().map(str::to_string);
                let event =
                    Event { seq, kind: kind.clone(), id: text("id"), op: text("op"), record: frame["record"].clone() };
                self.heard.events.push(event);
            }
        }
        kind
    }
}
