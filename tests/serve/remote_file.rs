//! A file at a URL whose downloads fail.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::process::{PATIENCE, Server};

/// Answer of the server.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// A file with so many rows.
    Rows(usize),
    /// This status, with an HTML page.
    Status(u16),
    /// The head and the first half of the file.
    Half,
    /// The end of the connection.
    Nothing,
}

#[derive(Clone)]
struct FileServer {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
}

impl FileServer {
    fn start() -> FileServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server =
            FileServer { address: listener.local_addr().unwrap(), answer: Arc::new(Mutex::new(Answer::Rows(3))) };
        let answer = Arc::clone(&server.answer);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let answer = *answer.lock().unwrap();
                let _ = stream.and_then(|stream| send(stream, answer));
            }
        });
        server
    }

    fn set(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }
}

fn send(mut stream: TcpStream, answer: Answer) -> std::io::Result<()> {
    let mut head = [0; 4_096];
    let _ = stream.read(&mut head)?;
    let (status, body, sent) = match answer {
        Answer::Nothing => return Ok(()),
        Answer::Status(status) => (status, "<html>no</html>".to_string(), usize::MAX),
        Answer::Rows(rows) => (200, csv(rows), usize::MAX),
        Answer::Half => (200, csv(200), csv(200).len() / 2),
    };
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body.as_bytes()[..sent.min(body.len())])
}

fn csv(rows: usize) -> String {
    (1..=rows).fold("id,name\n".into(), |text, at| format!("{text}{at},Article {at}\n"))
}

fn rows(server: &Server) -> usize {
    server.get("/goods?limit=1000").json().as_array().map_or(0, Vec::len)
}

#[test]
fn a_download_that_fails_keeps_the_copy_also_over_a_restart() {
    let files = FileServer::start();
    let dir = tempfile::tempdir().unwrap();
    let source = format!(
        "[dio.goods]\nsource = {{ csv = \"http://{}/goods.csv\", timeout = \"2s\" }}\n[lens]\ncache = \"cache.redb\"\n",
        files.address
    );
    std::fs::write(dir.path().join("diorama.toml"), source).unwrap();
    let mut server = Server::start(dir.path(), &[]);
    assert_eq!(rows(&server), 3);
    let failures = [Answer::Status(500), Answer::Status(404), Answer::Status(403), Answer::Half, Answer::Nothing];
    for failure in failures {
        files.set(failure);
        let refreshed = server.request("POST", "/goods/_refresh", &[], "");
        assert!(refreshed.status >= 500, "{failure:?}: {} {}", refreshed.status, refreshed.body);
        assert_eq!(rows(&server), 3, "{failure:?}");
    }
    for failure in failures {
        files.set(failure);
        server.kill();
        server = Server::launch(dir.path(), &[]);
        let deadline = Instant::now() + PATIENCE;
        while rows(&server) != 3 {
            assert!(Instant::now() < deadline, "{failure:?}: the copy is not served");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    files.set(Answer::Rows(4));
    assert_eq!(server.request("POST", "/goods/_refresh", &[], "").status, 200);
    assert_eq!(rows(&server), 4);
}
