//! Client of a server's `/operations` and `/_audit`: HTTP/1.1, one request per connection.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::trust::{Trust, TrustArgs};
use super::{ListFilter, UNREACHABLE, config, usage};
use crate::app::{Failure, OTHER};

/// Timeout for connecting.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(40);
/// Timeout for the first byte of a backup, which the server copies first.
const LONG_ANSWER: Duration = Duration::from_secs(1_800);
/// Maximum size of a response's head in bytes.
const LARGEST_HEAD: u64 = 64 << 10;
/// Maximum size of a response in bytes.
const LARGEST: u64 = 64 << 20;
/// Number of operations or entries of one request.
pub(super) const PAGE: usize = 1_000;

/// Client of one server.
pub(super) struct Client {
    /// Host and port.
    authority: String,
    /// Prefix of every path.
    base: String,
    token: Option<String>,
    /// Check of the server's certificate; `None` for `http://`.
    trust: Option<Arc<Trust>>,
}

/// Connection with or without TLS.
trait Stream: std::io::Read + std::io::Write {}

impl<S: std::io::Read + std::io::Write> Stream for S {}

impl Client {
    pub(super) fn new(url: &str, token: Option<&str>, trust: &TrustArgs) -> Result<Client, Failure> {
        let (is_encrypted, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Err(usage(format!("--url {url}: write it like http://127.0.0.1:8080"))),
        };
        let (authority, base) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && !b"@?#".contains(&byte));
        if authority.is_empty() || !plain(authority) || !plain(base) {
            return Err(usage(format!("--url {url}: write it like http://127.0.0.1:8080")));
        }
        let port = authority.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok());
        let authority = if port && authority.contains(':') {
            authority.to_string()
        } else {
            format!("{authority}:{}", if is_encrypted { 443 } else { 80 })
        };
        let base = base.trim_end_matches('/');
        let base = if base.is_empty() { String::new() } else { format!("/{base}") };
        let trust = match is_encrypted {
            true => Some(Arc::new(trust.read(&authority)?)),
            false => None,
        };
        Ok(Client { authority, base, token: token.map(secret).transpose()?, trust })
    }

    /// Returns a page of the audit log, at most [`PAGE`] entries.
    pub(super) fn audit(&self, parameters: &[(&str, Option<&str>)]) -> Result<Vec<Value>, Failure> {
        match self.send("GET", &format!("/_audit?limit={PAGE}{}", query(parameters)))? {
            Value::Array(page) => Ok(page),
            _ => Err(self.unexpected_response()),
        }
    }

    /// Lists operations page by page.
    pub(super) fn list(&self, filter: &ListFilter) -> Result<Vec<Value>, Failure> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let limit = (filter.limit - all.len()).min(PAGE);
            let last = all.last().and_then(|last| last["id"].as_str());
            let parameters = [("dio", filter.dio.as_deref()), ("state", filter.state.as_deref()), ("after", last)];
            let page = self.send("GET", &format!("/operations?limit={limit}{}", query(&parameters)))?;
            let Value::Array(page) = page else { return Err(self.unexpected_response()) };
            let end = page.len() < limit;
            all.extend(page);
            if end || all.len() >= filter.limit {
                return Ok(all);
            }
        }
    }

    pub(super) fn retry_all(&self, dio: Option<&str>, limit: usize) -> Result<Vec<Value>, Failure> {
        let path = format!("/operations/_retry?state=parked&limit={limit}{}", query(&[("dio", dio)]));
        match self.send("POST", &path)? {
            Value::Array(outcomes) => Ok(outcomes),
            _ => Err(self.unexpected_response()),
        }
    }

    /// Sends one request and returns the response's document, null if it has none.
    pub(super) fn send(&self, method: &str, path: &str) -> Result<Value, Failure> {
        let raw = self
            .exchange(method, path)
            .map_err(|error| self.unreachable(format!("{error}; omit --url to use the files of a stopped server")))?;
        let (status, body) = parse(&raw).ok_or_else(|| self.unreachable("the response is incomplete"))?;
        let document: Option<Value> = serde_json::from_slice(&body).ok();
        match (status, document) {
            (200..=299, Some(document)) => Ok(document),
            (204, None) => Ok(Value::Null),
            (400..=599, document) => Err(self.refusal(status, &document.unwrap_or_default())),
            _ => Err(self.unexpected_response()),
        }
    }

    /// Posts to `path` and returns the length and the streamed body of the response.
    pub(super) fn download(&self, path: &str) -> Result<(u64, impl std::io::Read + use<>), Failure> {
        let unreachable = |error: std::io::Error| self.unreachable(error);
        let stream = self.open_request("POST", path, LONG_ANSWER).map_err(unreachable)?;
        let mut stream = BufReader::new(stream);
        let mut raw = Vec::new();
        while !raw.ends_with(b"\r\n\r\n") {
            let read = stream.by_ref().take(LARGEST_HEAD - raw.len() as u64).read_until(b'\n', &mut raw);
            if read.map_err(unreachable)? == 0 {
                return Err(self.unexpected_response());
            }
        }
        let head = String::from_utf8_lossy(&raw).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<u64>().ok());
        match (status, length) {
            (Some(200), Some(length)) => Ok((length, stream.take(length))),
            (Some(status @ 400..=599), _) => {
                stream.take(LARGEST).read_to_end(&mut raw).map_err(unreachable)?;
                let body = parse(&raw).map(|(_, body)| body).unwrap_or_default();
                Err(self.refusal(status, &serde_json::from_slice(&body).unwrap_or_default()))
            }
            _ => Err(self.unexpected_response()),
        }
    }

    fn exchange(&self, method: &str, path: &str) -> std::io::Result<Vec<u8>> {
        let mut raw = Vec::new();
        self.open_request(method, path, ANSWER)?.take(LARGEST).read_to_end(&mut raw)?;
        Ok(raw)
    }

    /// Sends a request over a new connection.
    fn open_request(&self, method: &str, path: &str, patience: Duration) -> std::io::Result<Box<dyn Stream>> {
        let mut failed = std::io::Error::other("the host name has no address");
        let mut stream = None;
        for address in self.authority.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(connected) => {
                    stream = Some(connected);
                    break;
                }
                Err(error) => failed = error,
            }
        }
        let stream = stream.ok_or(failed)?;
        stream.set_read_timeout(Some(patience))?;
        let mut stream: Box<dyn Stream> = match &self.trust {
            Some(trust) => Box::new(trust.encrypt(stream)?),
            None => Box::new(stream),
        };
        let Client { authority, base, token, .. } = self;
        let token = token.as_ref().map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        let head = format!(
            "{method} {base}{path} HTTP/1.1\r\nhost: {authority}\r\naccept: application/json\r\n{token}content-length: 0\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        Ok(stream)
    }

    fn refusal(&self, status: u16, problem: &Value) -> Failure {
        let detail = problem["detail"].as_str().map_or_else(|| format!("status {status}"), str::to_string);
        let message = match problem["hint"].as_str() {
            Some(hint) => format!("{detail}: {hint}"),
            None => detail,
        };
        match status {
            401 | 403 => config(format!("{self}: {message} (--token env:NAME or file:PATH)")),
            500..=599 => Failure { code: UNREACHABLE, message: format!("{self}: {message}") },
            _ => Failure { code: OTHER, message },
        }
    }

    fn unreachable(&self, why: impl std::fmt::Display) -> Failure {
        Failure { code: UNREACHABLE, message: format!("{self} cannot be reached: {why}") }
    }

    fn unexpected_response(&self) -> Failure {
        Failure { code: UNREACHABLE, message: format!("{self} does not answer like a Diorama server") }
    }
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.trust.is_some() { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.base)
    }
}

/// Formats additional query parameters.
fn query(parameters: &[(&str, Option<&str>)]) -> String {
    let pairs =
        parameters.iter().filter_map(|(name, value)| Some(format!("&{name}={}", diorama_gateway::segment((*value)?))));
    pairs.collect()
}

/// Reads the token from the environment or a file.
fn secret(location: &str) -> Result<String, Failure> {
    let found = match location.split_once(':') {
        Some(("env", name)) => std::env::var(name).map_err(|_| format!("the environment variable {name} is not set")),
        Some(("file", path)) => std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}")),
        _ => return Err(usage("--token must be env:NAME or file:PATH, so that no secret is on the command line")),
    };
    let token = found.map_err(|why| config(format!("--token: {why}")))?.trim().to_string();
    match token.bytes().all(|byte| byte.is_ascii_graphic()) && !token.is_empty() {
        true => Ok(token),
        false => Err(config(format!("--token: {location} does not contain a valid token"))),
    }
}

/// Parses status and body of a response; `None` if it is incomplete.
fn parse(raw: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = memchr::memmem::find(raw, b"\r\n\r\n")?;
    let (head, body) = (std::str::from_utf8(&raw[..end]).ok()?, &raw[end + 4..]);
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, &str)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .collect();
    let header = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value);
    if header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return Some((status, dechunk(body)?));
    }
    let length = header("content-length").map_or(Some(body.len()), |length| length.parse().ok())?;
    Some((status, body.get(..length)?.to_vec()))
}

fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = memchr::memmem::find(rest, b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        let chunk = rest.get(end + 2..)?;
        body.extend_from_slice(chunk.get(..size)?);
        rest = chunk.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_response_is_refused() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]";
        assert_eq!(parse(whole), Some((200, b"[]".to_vec())));
        let chunked = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n";
        assert_eq!(parse(chunked), Some((404, b"{}".to_vec())));
        for raw in [&whole[..], chunked] {
            assert_eq!(parse(&raw[..raw.len() - 6]).filter(|(_, body)| !body.is_empty()), None);
        }
        assert_eq!(parse(b"SSH-2.0-x\r\n"), None);
        assert_eq!(dechunk(b"fffffffffffffffff\r\n"), None);
        assert_eq!(dechunk(b"ffffffffffffffff\r\nx"), None);
    }

    #[test]
    fn urls_are_parsed() {
        let client = |url| Client::new(url, None, &TrustArgs::default()).map(|client| client.to_string());
        assert_eq!(client("http://localhost").unwrap(), "http://localhost:80");
        assert_eq!(client("http://[::1]:80/api/").unwrap(), "http://[::1]:80/api");
        assert_eq!(client("https://localhost").unwrap(), "https://localhost:443");
        assert_eq!(client("https://[::1]:8443/api").unwrap(), "https://[::1]:8443/api");
        for wrong in ["https://-", "wss://localhost", "localhost:8080", "http://", "http://a b", "http://me@host"] {
            assert_eq!(client(wrong).unwrap_err().code, super::super::USAGE, "{wrong}");
        }
    }
}
