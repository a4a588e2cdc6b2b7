//! A small HTTP client.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use diorama_servers::apis::Double;
use serde_json::Value;

/// Request to send.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: &'static str,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) patience: Duration,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Ask {
    pub(crate) fn new(method: &'static str, url: impl Into<String>) -> Ask {
        let patience = Duration::from_secs(20);
        Ask { method, url: url.into(), headers: Vec::new(), body: Vec::new(), patience }
    }

    /// A request with the headers that the double asks for.
    pub(crate) fn to(api: &Double, method: &'static str, url: impl Into<String>) -> Ask {
        api.headers().into_iter().fold(Ask::new(method, url), |ask, (name, value)| ask.with(name, &value))
    }

    /// Sets a header; an empty value takes it away.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Ask {
        self.headers.retain(|(known, _)| known != name);
        if !value.is_empty() {
            self.headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    pub(crate) fn json(self, body: &Value) -> Ask {
        let content_type = if self.headers.iter().any(|(_, value)| value == "application/vnd.api+json") {
            "application/vnd.api+json"
        } else {
            "application/json"
        };
        Ask { body: body.to_string().into_bytes(), ..self }.with("content-type", content_type)
    }

    pub(crate) fn form(self, body: &str) -> Ask {
        Ask { body: body.as_bytes().to_vec(), ..self }.with("content-type", "application/x-www-form-urlencoded")
    }

    pub(crate) fn send(&self) -> Reply {
        self.try_send().unwrap()
    }

    /// Sends the request on a connection of its own. A body that is shorter than announced is an error.
    pub(crate) fn try_send(&self) -> io::Result<Reply> {
        let rest = self.url.strip_prefix("http://").unwrap();
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let mut stream = TcpStream::connect(host)?;
        stream.set_read_timeout(Some(self.patience))?;
        let mut head = format!("{} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n", self.method);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("content-length: {}\r\n\r\n", self.body.len());
        stream.write_all(head.as_bytes())?;
        stream.write_all(&self.body)?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let body = bytes.split_off(end + 4);
        let head = String::from_utf8(bytes).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap_or((line.trim_end_matches(':'), "")));
        let headers: Vec<_> = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let reply = Reply { status, headers, body };
        let announced = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
        if reply.body.len() < announced { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(reply) }
    }
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Fails unless the status is this one.
    pub(crate) fn expect(self, status: u16) -> Reply {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// URL in the `Link` header with this relation.
    pub(crate) fn link(&self, relation: &str) -> Option<String> {
        let links = self.header("link")?.split(", ");
        let link = links.into_iter().find(|link| link.ends_with(&format!("rel=\"{relation}\"")))?;
        Some(link.split(['<', '>']).nth(1)?.to_owned())
    }
}
