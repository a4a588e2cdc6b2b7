//! HTTP/2 over TLS: the same answers as by HTTP/1.1, and the same bounds.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::authority::{Authority, configure, get};
use crate::frames::{
    CONTINUATION, DATA, END, END_HEADERS, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, Http2, INITIAL_WINDOW, NO_ERROR,
    REFUSED_STREAM, RST_STREAM, STREAMS, WINDOW_UPDATE, frame, head, is_timeout,
};
use crate::process::{PATIENCE, Server, folder, has_tools};

const STREAM: [(&str, &str); 1] = [("accept", "text/event-stream")];

fn served(limits: &str) -> (TempDir, Authority, Server) {
    let (dir, authority) = (folder(), Authority::new());
    authority.server().write(dir.path());
    std::fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    configure(dir.path(), "", "", limits);
    let server = Server::start(dir.path(), &[]);
    (dir, authority, server)
}

/// curl with HTTP/2.
fn curl(dir: &Path, server: &Server, arguments: &[&str], path: &str) -> Command {
    let mut curl = Command::new("curl");
    curl.current_dir(dir).args(["--http2", "--silent", "--show-error", "--cacert", "ca.pem"]).args(arguments);
    curl.arg(format!("https://{}{path}", server.address));
    curl
}

/// What curl prints.
fn printed(dir: &Path, server: &Server, arguments: &[&str], path: &str) -> String {
    let output = curl(dir, server, arguments, path).output().unwrap();
    assert!(output.status.success(), "{path}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Rows of 200 KB each.
fn fill(dir: &Path, rows: usize) {
    let shop = rusqlite::Connection::open(dir.join("shop.db")).unwrap();
    for at in 0..rows {
        let item = format!("{at}{}", "x".repeat(200_000));
        shop.execute("INSERT INTO orders VALUES (?1, ?2, 1)", [format!("big{at:03}"), item]).unwrap();
    }
}

#[test]
fn reads_writes_and_refusals_are_those_of_http_1_1() {
    if !has_tools("HTTP/2", &["curl"]) {
        return;
    }
    let (dir, authority, server) = served("");
    let json = ["-H", "content-type: application/json", "-w", " %{http_version} %{http_code}", "-d"];
    let write =
        |id: &str, row: &str| printed(dir.path(), &server, &[&json[..], &[row]].concat(), &format!("/orders/{id}"));
    assert!(write("a", r#"{"item":"Bun","price":1}"#).ends_with(" 2 202"));
    let row = printed(dir.path(), &server, &["-w", " %{http_version} %{http_code}"], "/orders/a");
    assert_eq!(row, r#"{"id":"a","item":"Bun","price":1} 2 200"#);
    for path in ["/orders", "/orders?limit=x", "/orders/none", "/nothing", "/healthz"] {
        let (by_1, by_2) = (["--http1.1", "-H", "x-request-id: r1"], ["-H", "x-request-id: r1"]);
        let (by_1, by_2) = (printed(dir.path(), &server, &by_1, path), printed(dir.path(), &server, &by_2, path));
        assert_eq!(by_1, by_2, "{path}");
    }
    for (name, size) in [("large.json", 900_000), ("larger.json", 1_100_000)] {
        std::fs::write(dir.path().join(name), format!(r#"{{"item":"{}"}}"#, "x".repeat(size))).unwrap();
    }
    assert!(write("b", "@large.json").ends_with(" 2 202"));
    assert!(write("c", "@larger.json").contains(r#""code":"payload-too-large""#));
    let read = printed(dir.path(), &server, &[], "/orders/b");
    let by_1 = get(&server, &authority.speaking("http/1.1"), "/orders/b").unwrap();
    assert!(read.len() > 900_000 && by_1.split_once("\r\n\r\n").is_some_and(|(_, body)| body == read));
}

#[test]
fn events_arrive_by_server_sent_events() {
    if !has_tools("HTTP/2", &["curl"]) {
        return;
    }
    let (dir, _, server) = served("header_timeout = \"300ms\"");
    let arguments = ["--no-buffer", "-H", "accept: text/event-stream", "-D", "head.txt"];
    let mut stream = curl(dir.path(), &server, &arguments, "/orders/events").stdout(Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(stream.stdout.take().unwrap()));
    let mut lines = lines.map_while(Result::ok);
    assert!(lines.any(|line| line.contains("\"hello\"")));
    // The time for a head ends no connection that has a stream.
    let arguments = ["-H", "content-type: application/json", "-d", r#"{"item":"Bun","price":1}"#];
    for id in ["a", "b", "c"] {
        std::thread::sleep(Duration::from_millis(400));
        printed(dir.path(), &server, &arguments, &format!("/orders/{id}"));
        assert!(lines.any(|line| line.contains("RecordInserted") && line.contains(&format!("\"id\":\"{id}\""))));
    }
    assert!(std::fs::read_to_string(dir.path().join("head.txt")).unwrap().starts_with("HTTP/2 200"));
    stream.kill().unwrap();
    stream.wait().unwrap();
}

#[test]
fn http_2_is_not_spoken_without_tls() {
    let dir = folder();
    let server = Server::start(dir.path(), &["products.csv"]);
    let mut stream = std::net::TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat();
    std::io::Write::write_all(&mut stream, &preface).unwrap();
    let mut answer = Vec::new();
    let _ = std::io::Read::read_to_end(&mut stream, &mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{:?}", String::from_utf8_lossy(&answer));
    let upgraded = server.request(
        "GET",
        "/products",
        &[("upgrade", "h2c"), ("http2-settings", "AAMAAABkAAQAAP__"), ("connection", "Upgrade, HTTP2-Settings")],
        "",
    );
    assert_eq!(upgraded.status, 200);
}

#[test]
fn streams_of_a_connection_and_of_an_address_are_bounded() {
    let (_dir, authority, server) = served("streams = 3\nper_address = 5");
    let mut first = Http2::open(&server, &authority, &[]);
    for stream in [1, 3, 5] {
        first.get(stream, "/orders/events", &STREAM);
        first.until("an answer", |frame| frame.is_ok() && frame.stream == stream);
    }
    assert!(first.settings.contains(&(STREAMS, 3)), "{:?}", first.settings);
    first.get(7, "/healthz", &[]);
    let refused = first.until("the refusal", |frame| frame.stream == 7);
    assert_eq!((refused.kind, refused.reason()), (RST_STREAM, REFUSED_STREAM));
    let mut second = Http2::open(&server, &authority, &[]);
    for stream in [1, 3] {
        second.get(stream, "/orders/events", &STREAM);
        second.until("an answer", |frame| frame.is_ok() && frame.stream == stream);
    }
    second.get(5, "/healthz", &[]);
    assert!(!second.until("a head", |frame| frame.kind == HEADERS && frame.stream == 5).is_ok());
    let body = second.until("a body", |frame| frame.kind == DATA && frame.stream == 5);
    assert!(String::from_utf8_lossy(&body.payload).contains("\"code\":\"rate-limited\""));
    // Places come back when streams end.
    first.send(RST_STREAM, 0, 1, &8_u32.to_be_bytes()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    for stream in (7..).step_by(2) {
        assert!(Instant::now() < deadline, "the place did not come back");
        second.get(stream, "/healthz", &[]);
        if second.until("a head", |frame| frame.kind == HEADERS && frame.stream == stream).is_ok() {
            break;
        }
    }
}

#[test]
fn heads_are_bounded_in_bytes_and_headers() {
    let (_dir, authority, server) = served("headers = 20\nheader_bytes = \"16KiB\"");
    let mut client = Http2::open(&server, &authority, &[]);
    let names: Vec<String> = (0..21).map(|at| format!("x-{at}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    client.get(1, "/orders", &many);
    assert!(!client.until("a head", |frame| frame.kind == HEADERS).is_ok());
    let body = client.until("a body", |frame| frame.kind == DATA);
    assert!(String::from_utf8_lossy(&body.payload).contains("\"code\":\"headers-too-large\""));
    client.get(3, "/orders", &many[..15]);
    assert!(client.until("a head", |frame| frame.kind == HEADERS && frame.stream == 3).is_ok());
    let long = "x".repeat(9_000);
    client.send(HEADERS, END, 5, &head("GET", "/orders", &[("x-a", &long)])).unwrap();
    let mut more = Vec::new();
    crate::frames::add_header(&mut more, "x-b", &long);
    client.send(CONTINUATION, END_HEADERS, 5, &more).unwrap();
    let refused = client.until("the refusal", |frame| frame.stream == 5);
    assert!(!refused.is_ok(), "{refused:?}");
    let mut other = Http2::open(&server, &authority, &[]);
    other.get(1, "/orders", &[]);
    assert!(other.until("a head", |frame| frame.kind == HEADERS).is_ok());
}

#[test]
fn a_flood_of_resets_ends_the_connection_and_no_other() {
    let (_dir, authority, server) = served("");
    let mut other = Http2::open(&server, &authority, &[]);
    let mut client = Http2::open(&server, &authority, &[]);
    let opened_and_reset = |stream| {
        let head = frame(HEADERS, END | END_HEADERS, stream, &head("GET", "/orders", &[]));
        [head, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    };
    let flood: Vec<u8> = (0..150).flat_map(|at| opened_and_reset(at * 2 + 1)).collect();
    std::io::Write::write_all(&mut client.connection, &flood).unwrap();
    assert_eq!(client.ended(), Some(ENHANCE_YOUR_CALM));
    other.get(1, "/orders", &[]);
    assert!(other.until("a head", |frame| frame.kind == HEADERS).is_ok());
}

#[test]
fn a_head_without_end_ends_the_connection() {
    let (_dir, authority, server) = served("");
    let mut client = Http2::open(&server, &authority, &[]);
    client.send(HEADERS, END, 1, &head("GET", "/orders", &[])).unwrap();
    let mut more = Vec::new();
    crate::frames::add_header(&mut more, "x-a", &"x".repeat(10_000));
    let mut sent = 0;
    while sent < 10_000 && client.send(CONTINUATION, 0, 1, &more).is_ok() {
        sent += 1;
    }
    assert!(sent < 10_000, "100 MB of headers were read");
    // And one that stops in the middle.
    let (_dir, authority, server) = served("header_timeout = \"300ms\"");
    let mut client = Http2::open(&server, &authority, &[]);
    client.send(HEADERS, END, 1, &head("GET", "/orders", &[])).unwrap();
    client.ended();
}

#[test]
fn connections_without_requests_end_in_time() {
    let (_dir, authority, server) = served("header_timeout = \"300ms\"");
    let mut used = Http2::open(&server, &authority, &[]);
    used.get(1, "/orders", &[]);
    assert!(used.until("a head", |frame| frame.kind == HEADERS).is_ok());
    assert_eq!(used.ended(), Some(NO_ERROR));
    let mut unused = Http2::open(&server, &authority, &[]);
    assert_eq!(unused.ended(), Some(NO_ERROR));
    // Agrees on HTTP/2 and then says nothing.
    let mut silent = crate::authority::connect(&server, &authority.speaking("h2")).unwrap();
    let ended = std::io::Read::read_to_end(&mut silent, &mut Vec::new());
    assert!(!ended.is_err_and(|error| is_timeout(&error)));
}

#[test]
fn a_client_that_takes_nothing_of_its_answers_is_let_go() {
    let (dir, authority) = (folder(), Authority::new());
    fill(dir.path(), 20);
    authority.server().write(dir.path());
    configure(dir.path(), "", "", "write_timeout = \"400ms\"");
    let server = Server::start(dir.path(), &[]);
    // Who asks for more bit by bit is served.
    let mut slow = Http2::open(&server, &authority, &[(INITIAL_WINDOW, 1_000)]);
    slow.get(1, "/orders?limit=20", &[]);
    let (started, mut read) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_millis(1_500) {
        read += slow.until("data", |frame| frame.kind == DATA).payload.len();
        slow.send(WINDOW_UPDATE, 0, 1, &1_000_u32.to_be_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(read >= 5_000, "{read}");
    for window in [0, 1_000] {
        let mut client = Http2::open(&server, &authority, &[(INITIAL_WINDOW, window)]);
        for stream in [1, 3, 5] {
            client.get(stream, "/orders?limit=20", &[]);
        }
        let started = Instant::now();
        client.ended();
        assert!(started.elapsed() > Duration::from_millis(300), "{:?}", started.elapsed());
    }
    assert!(get(&server, &authority.speaking("http/1.1"), "/healthz").unwrap().starts_with("HTTP/1.1 200"));
    let metrics = get(&server, &authority.speaking("http/1.1"), "/metrics").unwrap();
    assert!(metrics.contains("diorama_budget_held{budget=\"answers\"}"), "{metrics}");
}

#[test]
fn a_client_that_does_not_answer_pings_is_let_go() {
    let (_dir, authority, server) = served("write_timeout = \"200ms\"");
    let mut client = Http2::open(&server, &authority, &[]);
    client.get(1, "/orders/events", &STREAM);
    client.until("hello", |frame| frame.kind == DATA);
    // Longer than a client may leave a ping without an answer.
    client.answer_pings(4);
    client.get(3, "/healthz", &[]);
    assert!(client.until("a head", |frame| frame.kind == HEADERS && frame.stream == 3).is_ok());
    let mut silent = Http2::open(&server, &authority, &[]);
    silent.answers_pings = false;
    silent.get(1, "/orders/events", &STREAM);
    silent.ended();
    assert_eq!(silent.pings, 1);
}

#[test]
fn a_stopping_server_says_goaway_and_answers_what_it_has_begun() {
    let (_dir, authority, mut server) = served("");
    let mut client = Http2::open(&server, &authority, &[]);
    client.get(1, "/orders/events", &STREAM);
    client.until("hello", |frame| frame.kind == DATA);
    let headers = [("content-type", "application/json")];
    client.send(HEADERS, END_HEADERS, 3, &head("POST", "/orders/a", &headers)).unwrap();
    let body = br#"{"item":"Bun","price":1}"#;
    client.send(DATA, 0, 3, &body[..5]).unwrap();
    server.signal("TERM");
    let (mut events_ended, mut said_goaway, mut answered) = (false, false, false);
    while let Some(frame) = client.next() {
        if frame.kind == GOAWAY && !said_goaway {
            said_goaway = true;
            assert_eq!(frame.reason(), NO_ERROR);
            client.send(DATA, END, 3, &body[5..]).unwrap();
        }
        events_ended |= frame.stream == 1 && frame.is_end();
        answered |= frame.stream == 3 && frame.kind == HEADERS;
    }
    assert!(events_ended && said_goaway && answered, "{events_ended} {said_goaway} {answered}");
    assert!(server.ended().success(), "{:#?}", server.printed);
}

#[test]
fn requests_that_are_reset_end_at_the_server() {
    let (_dir, authority, server) = served("");
    let mut client = Http2::open(&server, &authority, &[]);
    for stream in (1..100).step_by(2) {
        client.get(stream, "/orders/events", &STREAM);
        client.until("hello", |frame| frame.kind == DATA && frame.stream == stream);
    }
    let open = || {
        let metrics = get(&server, &authority.speaking("http/1.1"), "/metrics").unwrap();
        let line = metrics.lines().find(|line| line.starts_with("diorama_dio_sockets{")).map(str::to_string);
        line.unwrap_or_else(|| panic!("{metrics}")).rsplit(' ').next().unwrap().parse::<usize>().unwrap()
    };
    assert_eq!(open(), 50);
    for stream in (1..100).step_by(2) {
        client.send(RST_STREAM, 0, stream, &8_u32.to_be_bytes()).unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    while open() > 0 {
        assert!(Instant::now() < deadline, "{} streams stay", open());
    }
    client.get(101, "/healthz", &[]);
    assert!(client.until("a head", |frame| frame.kind == HEADERS).is_ok());
}
