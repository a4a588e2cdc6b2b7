//! Plain HTTP over one socket, which shows what a client sees of a server that dies.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use super::ledger::Row;
use crate::process::{Answer, PATIENCE};

/// One connection, kept open.
pub(crate) struct Wire {
    address: String,
    stream: BufReader<TcpStream>,
}

impl Wire {
    pub(crate) fn connect(address: &str) -> io::Result<Wire> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Wire { address: address.into(), stream: BufReader::new(stream) })
    }

    /// Sends a request and waits for its answer; any error leaves the request in doubt.
    pub(crate) fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> io::Result<Answer> {
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n", self.address, body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        self.stream.get_mut().write_all(format!("{head}\r\n{body}").as_bytes())?;
        let answer = self.read();
        if let Err(error) = &answer {
            let silent = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            assert!(!silent, "no answer to {method} {path} within {PATIENCE:?}");
        }
        answer
    }

    fn read(&mut self) -> io::Result<Answer> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let name = line.split(':').next().unwrap_or_default().len();
            line[..name].make_ascii_lowercase();
            head.push_str(&line);
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.stream.read_exact(&mut body)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        Ok(Answer { status, raw: head.clone(), head, body: String::from_utf8(body).unwrap() })
    }

    pub(crate) fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.ask("GET", path, &[], "")
    }

    /// The row at `path` and the position it was read at.
    pub(crate) fn row(&mut self, dio: &str, id: &str) -> io::Result<Row> {
        let answer = self.get(&format!("/{dio}/{id}"))?;
        assert!(matches!(answer.status, 200 | 404), "{answer:?}");
        Ok((answer.status == 200).then(|| row_of(&answer.json()).1))
    }
}

/// Id and contents of a row.
pub(crate) fn row_of(row: &Value) -> (String, (String, u64)) {
    let text = |name: &str| row[name].as_str().unwrap_or_else(|| panic!("{row}")).to_string();
    (text("id"), (text("item"), row["n"].as_u64().unwrap()))
}

/// The value of a header.
pub(crate) fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Epoch and sequence number of an answer.
pub(crate) fn position(answer: &Answer) -> (String, u64) {
    let position = header(answer, "dio-position").unwrap_or_else(|| panic!("no position: {answer:?}"));
    let (epoch, seq) = position.split_once(':').unwrap();
    (epoch.to_string(), seq.parse().unwrap())
}

/// The operation of an answer.
pub(crate) fn operation(answer: &Answer) -> Option<String> {
    header(answer, "dio-operation")?.rsplit('/').next().map(str::to_string)
}
