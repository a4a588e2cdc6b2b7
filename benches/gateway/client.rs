//! A client that costs little: prebuilt requests over connections that stay open, one request at a time on each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// A request, and what its answer must be.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) bytes: Vec<u8>,
    pub(crate) status: u16,
    /// Bytes of the body, where every server gives the same.
    pub(crate) length: Option<usize>,
}

impl Ask {
    /// Writes a request out. `headers` are whole lines.
    pub(crate) fn new(method: &str, path: &str, headers: &str, body: &str, status: u16) -> Ask {
        let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\naccept: */*\r\n{headers}{length}\r\n");
        Ask { bytes: [head.as_bytes(), body.as_bytes()].concat(), status, length: None }
    }

    fn is_head(&self) -> bool {
        self.bytes.starts_with(b"HEAD")
    }
}

/// The answer to one request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    /// Bytes of the body that came, or that would have come.
    pub(crate) length: usize,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Asks once, over a connection of its own.
pub(crate) async fn ask(server: SocketAddr, ask: &Ask) -> std::io::Result<Answer> {
    let mut connection = Connection::open(server).await?;
    let head = connection.exchange(ask).await?;
    let text = String::from_utf8_lossy(&connection.buffer[..head.end]).into_owned();
    let headers = text.lines().skip(1).filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let body = connection.buffer[head.end + 4..].to_vec();
    Ok(Answer { status: head.status, headers, length: head.length, body })
}

/// Microseconds that each answer took, in no order.
pub(crate) type Times = Vec<u32>;

/// Asks for `time` over `connections`, each beginning elsewhere in `asks`; says how long the answers took.
///
/// # Panics
/// If an answer is not what it must be: its figure would mean nothing.
pub(crate) async fn drive(server: SocketAddr, asks: &Arc<[Ask]>, connections: usize, time: Duration) -> Times {
    drive_paced(server, asks, connections, time, Duration::ZERO).await
}

/// [`drive`] with a rest after each answer.
pub(crate) async fn drive_paced(
    server: SocketAddr,
    asks: &Arc<[Ask]>,
    connections: usize,
    time: Duration,
    rest: Duration,
) -> Times {
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(Connection::open(server).await.expect("a connection"));
    }
    let until = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for (number, mut connection) in open.into_iter().enumerate() {
        let asks = Arc::clone(asks);
        tasks.spawn(async move {
            let mut times = Vec::new();
            let mut next = number * asks.len() / connections;
            while Instant::now() < until {
                let (ask, asked) = (&asks[next % asks.len()], Instant::now());
                let head = connection.exchange(ask).await.expect("an answer");
                let fits = head.status == ask.status && ask.length.is_none_or(|length| length == head.length);
                assert!(fits, "{head:?} to {}", String::from_utf8_lossy(&ask.bytes));
                times.push(u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX));
                next += 1;
                if !rest.is_zero() {
                    tokio::time::sleep(rest).await;
                }
            }
            times
        });
    }
    let mut all = Vec::new();
    while let Some(times) = tasks.join_next().await {
        all.extend(times.expect("a connection's task"));
    }
    all
}

#[derive(Debug)]
struct Head {
    status: u16,
    end: usize,
    length: usize,
}

/// A connection that stays open.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(server: SocketAddr) -> std::io::Result<Connection> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: Vec::with_capacity(512 << 10) })
    }

    /// Asks once more.
    ///
    /// # Panics
    /// If the answer is not what it must be.
    pub(crate) async fn ask(&mut self, ask: &Ask) {
        let head = self.exchange(ask).await.expect("an answer");
        assert_eq!(head.status, ask.status, "{}", String::from_utf8_lossy(&self.buffer));
    }

    /// Asks once more. Returns the status and the seconds of `Retry-After`.
    pub(crate) async fn status(&mut self, ask: &Ask) -> std::io::Result<(u16, Option<u64>)> {
        let head = self.exchange(ask).await?;
        let text = String::from_utf8_lossy(&self.buffer[..head.end]);
        let retry_after = text.lines().find_map(|line| line.strip_prefix("retry-after: ")?.parse().ok());
        Ok((head.status, retry_after))
    }

    /// Sends a request and reads its whole answer.
    async fn exchange(&mut self, ask: &Ask) -> std::io::Result<Head> {
        self.stream.write_all(&ask.bytes).await?;
        self.buffer.clear();
        let head = loop {
            self.read().await?;
            if let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n") {
                break head(&self.buffer[..end]);
            }
        };
        let bodiless = ask.is_head() || head.status == 304;
        let all = head.end + 4 + if bodiless { 0 } else { head.length };
        while self.buffer.len() < all {
            self.read().await?;
        }
        assert_eq!(self.buffer.len(), all, "nothing comes unasked");
        Ok(head)
    }

    async fn read(&mut self) -> std::io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

fn head(text: &[u8]) -> Head {
    let number = |digits: &[u8]| {
        let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
    };
    let length = memmem::find(text, b"content-length: ").map_or(0, |at| number(&text[at + 16..]));
    Head { status: number(&text[9..]) as u16, end: text.len(), length }
}
