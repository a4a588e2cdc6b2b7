//! Whole tables as one answer.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::process::{PATIENCE, Server};

const ROWS: usize = 200_000;

/// Asks for rows; the stream stands at the beginning of the answer.
fn ask(server: &Server, path: &str, accept: &str) -> TcpStream {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("GET {path} HTTP/1.0\r\nhost: {}\r\naccept: {accept}\r\n\r\n", server.address);
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[test]
fn whole_tables_are_sent_in_bounded_memory_however_slowly_they_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = std::io::BufWriter::new(std::fs::File::create(dir.path().join("goods.csv")).unwrap());
    writeln!(file, "id,name,price").unwrap();
    for n in 1..=ROWS {
        writeln!(file, "{n},{:0>200},{}", n, n % 1_000).unwrap();
    }
    drop(file);
    let server = Server::launch(dir.path(), &["goods.csv", "--cache", "memory"]);
    // A test's build takes its time over so many rows.
    let deadline = Instant::now() + 6 * PATIENCE;
    while server.get("/readyz").status != 200 {
        assert!(Instant::now() < deadline, "it does not become ready");
        std::thread::sleep(Duration::from_millis(100));
    }
    // The filter's index is no part of an export.
    let wanted = || server.get("/goods?id=gt.150000&limit=1&explain=true").json()["plan"]["wanted"].clone();
    while wanted().as_array().is_some_and(|wanted| !wanted.is_empty()) {
        assert!(Instant::now() < deadline, "its index is not built");
        std::thread::sleep(Duration::from_millis(100));
    }
    server.forget_most_memory();
    let before = server.memory();
    // Readers that stop in the middle.
    let mut slow: Vec<TcpStream> = (0..4).map(|_| ask(&server, "/goods", "application/x-ndjson")).collect();
    for stream in &mut slow {
        stream.read_exact(&mut [0; 1_000]).unwrap();
    }
    for (path, accept, rows) in [
        ("/goods", "application/x-ndjson", ROWS),
        ("/goods?id=gt.150000", "text/csv", ROWS / 4),
        ("/goods?id=gt.150000", "application/cbor", ROWS / 4),
    ] {
        let mut bytes = 0;
        let mut stream = ask(&server, path, accept);
        let mut piece = [0; 64 << 10];
        loop {
            match stream.read(&mut piece).unwrap() {
                0 => break,
                read => bytes += read,
            }
        }
        assert!(bytes > rows * 200, "{accept}: {bytes} bytes");
    }
    let grown = server.most_memory().saturating_sub(before);
    assert!(grown < 40 << 20, "seven exports of {} MB took {} MB", ROWS / 5_000, grown >> 20);
    // They get the rest when they want it.
    for stream in slow {
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        assert!(lines.filter(|line| line.ends_with('}')).count() >= ROWS - 10);
    }
}
