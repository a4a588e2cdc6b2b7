//! Tests of files at URLs, against a server that answers as it is told.

#![cfg(feature = "csv")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::file::place::SourcePlace;
use diorama_core::vista::{ErrorKind, Query};

/// Answers of the server, which a test may change.
#[derive(Clone, Default)]
struct Answers {
    body: Vec<u8>,
    etag: &'static str,
    /// Status of the next answers, each once.
    failures: Vec<u16>,
    /// Bytes of the body that are missing at its end.
    missing: usize,
    /// True to send the body without its length.
    chunked: bool,
}

struct FileServer {
    address: std::net::SocketAddr,
    answers: Arc<Mutex<Answers>>,
    requests: Arc<Mutex<Vec<String>>>,
    unchanged: Arc<AtomicUsize>,
}

impl FileServer {
    fn start(body: &str) -> FileServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = FileServer {
            address: listener.local_addr().unwrap(),
            answers: Arc::new(Mutex::new(Answers { body: body.into(), etag: "\"1\"", ..Answers::default() })),
            requests: Arc::default(),
            unchanged: Arc::default(),
        };
        let (answers, requests, unchanged) =
            (Arc::clone(&server.answers), Arc::clone(&server.requests), Arc::clone(&server.unchanged));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = answer(&stream.unwrap(), &answers, &requests, &unchanged);
            }
        });
        server
    }

    fn remote(&self, options: HttpOptions) -> RemoteFile {
        RemoteFile::new(format!("http://{}/goods.csv?key=secret", self.address).parse().unwrap(), options)
    }

    async fn open(&self) -> diorama_core::vista::Vista {
        let place = SourcePlace::remote(self.remote(options()));
        crate::Csv::open_at("goods", place, crate::CsvOptions::default()).await.unwrap()
    }

    fn count(&self) -> usize {
        self.requests.lock().len()
    }
}

fn options() -> HttpOptions {
    HttpOptions { max_size: 1 << 20, timeout: Duration::from_secs(10), ..HttpOptions::default() }
}

fn answer(
    mut stream: &TcpStream,
    answers: &Mutex<Answers>,
    requests: &Mutex<Vec<String>>,
    unchanged: &AtomicUsize,
) -> std::io::Result<()> {
    let mut head = String::new();
    let mut lines = BufReader::new(stream);
    while lines.read_line(&mut head)? > 2 {}
    requests.lock().push(head.clone());
    let mut answers = answers.lock();
    if let Some(status) = answers.failures.pop() {
        return write!(stream, "HTTP/1.1 {status} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    }
    if head.to_ascii_lowercase().contains(&format!("if-none-match: {}\r\n", answers.etag)) {
        unchanged.fetch_add(1, Ordering::Relaxed);
        return write!(stream, "HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n");
    }
    let (etag, length) = (answers.etag, answers.body.len());
    write!(stream, "HTTP/1.1 200 OK\r\netag: {etag}\r\nconnection: close\r\n")?;
    match answers.chunked {
        true => write!(stream, "transfer-encoding: chunked\r\n\r\n{length:x}\r\n")?,
        false => write!(stream, "content-length: {length}\r\n\r\n")?,
    }
    stream.write_all(&answers.body[..length - answers.missing])?;
    if answers.chunked && answers.missing == 0 { stream.write_all(b"\r\n0\r\n\r\n") } else { Ok(()) }
}

#[tokio::test]
async fn an_unchanged_file_costs_an_answer_without_a_body() {
    let server = FileServer::start("id,name\n1,a\n2,b\n");
    let vista = server.open().await;
    assert_eq!(server.count(), 1);
    let rows = vista.shell().list(&Query::default()).await.unwrap();
    assert_eq!((rows.len(), server.count(), server.unchanged.load(Ordering::Relaxed)), (2, 2, 1));
    let fingerprint = rows.fingerprint().cloned().unwrap();
    assert!(vista.shell().list_changed(&fingerprint).await.unwrap().is_none());
    *server.answers.lock() = Answers { body: b"id,name\n1,a\n".to_vec(), etag: "\"2\"", ..Answers::default() };
    let started = std::time::Instant::now();
    let rows = vista.shell().list_changed(&fingerprint).await.unwrap().unwrap();
    assert_eq!(rows.len(), 1, "a download is whole, so that missing rows are no doubt");
    assert!(started.elapsed() < Duration::from_secs(3));
    let fingerprint = rows.fingerprint().cloned().unwrap();
    assert!(vista.shell().list_changed(&fingerprint).await.unwrap().is_none());
}

#[tokio::test]
async fn failures_are_repeated_and_then_reported() {
    let server = FileServer::start("id\n1\n");
    let remote = server.remote(options());
    server.answers.lock().failures = vec![500, 502];
    assert!(remote.fetch().await.is_ok());
    assert_eq!(server.count(), 3);
    server.answers.lock().failures = vec![500; 10];
    let error = remote.fetch_changed("if-none-match: \"0\"").await.unwrap_err();
    assert_eq!((error.kind(), server.count()), (ErrorKind::Transient, 6), "{error}");
    server.answers.lock().failures = vec![404];
    let error = remote.fetch_changed("if-none-match: \"0\"").await.unwrap_err();
    assert!(error.to_string().contains("answers 404"), "{error}");
    assert_eq!(server.count(), 7, "another attempt would be answered in the same way");
}

#[tokio::test]
async fn a_part_of_a_file_is_not_the_file() {
    let server = FileServer::start("id\n1\n2\n3\n");
    for chunked in [false, true] {
        (server.answers.lock().missing, server.answers.lock().chunked) = (2, chunked);
        let error = server.remote(options()).fetch().await.unwrap_err();
        assert!(error.to_string().contains("has not arrived whole"), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_is_too_large_is_refused() {
    let server = FileServer::start(&"x".repeat(2_000));
    for chunked in [false, true] {
        server.answers.lock().chunked = chunked;
        let remote = server.remote(HttpOptions { max_size: 1_999, ..options() });
        let error = remote.fetch().await.unwrap_err();
        assert!(error.to_string().contains("is larger than 1999 bytes (max_size)"), "{error}");
        assert!(remote.held().is_none());
    }
}

#[tokio::test]
async fn credentials_are_sent_and_not_shown() {
    let server = FileServer::start("id\n1\n");
    let auth = crate::http::HttpAuth::Bearer("hidden".into());
    let remote = server.remote(HttpOptions { auth, ..options() });
    remote.fetch().await.unwrap();
    let request = server.requests.lock()[0].clone();
    assert!(request.starts_with("GET /goods.csv?key=secret ") && request.contains("authorization: Bearer hidden"));
    let shown = format!("{remote:?}");
    assert!(!remote.shown().to_string_lossy().contains("secret") && !shown.contains("hidden"), "{shown}");
}

#[tokio::test]
async fn the_temporary_file_is_deleted_when_its_rows_are_listed() {
    let server = FileServer::start("id\n1\n");
    let remote = Arc::new(server.remote(options()));
    let path = remote.fetch().await.unwrap().path().to_path_buf();
    assert!(path.is_file());
    remote.release();
    assert!(!path.exists());
}
