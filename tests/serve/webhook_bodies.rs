//! Bodies of webhooks that nothing proves, at the real server: its memory, and its temporary files.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use crate::process::{PATIENCE, Server, folder, serving};

const CONNECTIONS: usize = 150;
const LENGTH: usize = 1 << 20;

fn start(dir: &std::path::Path, temporary: &std::path::Path) -> Server {
    let text = "[server.limits]\nauth_failures = 1_000\n[dio.orders]\nsource = { sqlite = \"shop.db\", table = \"orders\" }\n[webhook.orders]\n\
                auth = { scheme = \"hmac\", header = \"x-signature\", secrets = [\"env:TOKEN\"] }\n";
    std::fs::write(dir.join("diorama.toml"), text).unwrap();
    let mut server = Server::spawn(serving(dir, &[]).env("TMPDIR", temporary));
    server.wait_for("ready");
    server
}

/// Deliveries with a wrong signature, all but their last byte.
fn half(server: &Server, count: usize) -> Vec<TcpStream> {
    let head = format!(
        "POST /webhooks/orders HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         x-signature: {}\r\ncontent-length: {LENGTH}\r\n\r\n",
        "0".repeat(64)
    );
    let body = vec![b' '; LENGTH - 1];
    let begin = |_| {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
        stream
    };
    (0..count).map(begin).collect()
}

fn until_spooled(server: &Server, least: usize) {
    let spooled = || {
        let metrics = server.get("/metrics").body;
        let line = "diorama_budget_held{budget=\"spooled\"} ";
        metrics.lines().find_map(|text| text.strip_prefix(line)?.parse::<usize>().ok()).unwrap()
    };
    let deadline = Instant::now() + PATIENCE;
    while spooled() < least {
        assert!(Instant::now() < deadline, "{} bytes are spooled", spooled());
    }
}

#[test]
fn large_bodies_with_wrong_signatures_are_not_held_in_memory() {
    let (dir, temporary) = (folder(), tempfile::tempdir().unwrap());
    let server = start(dir.path(), temporary.path());
    server.forget_most_memory();
    let before = server.memory();
    let sockets = half(&server, CONNECTIONS);
    until_spooled(&server, CONNECTIONS * LENGTH * 8 / 10);
    let each = server.most_memory().saturating_sub(before) / CONNECTIONS;
    for mut socket in sockets {
        socket.write_all(b" ").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
    println!("a body of {LENGTH} bytes holds {each} bytes of memory");
    assert!(each < LENGTH / 3, "{each}");
    assert_eq!(server.open_files(temporary.path()).len(), 0);
}

#[test]
fn temporary_files_have_no_name_and_end_with_the_process() {
    let (dir, temporary) = (folder(), tempfile::tempdir().unwrap());
    let mut server = start(dir.path(), temporary.path());
    let entries = || std::fs::read_dir(temporary.path()).unwrap().count();
    let sockets = half(&server, 3);
    until_spooled(&server, 3 * LENGTH * 8 / 10);
    assert_eq!((server.open_files(temporary.path()).len(), entries()), (3, 0));
    server.kill();
    assert_eq!(entries(), 0);
    drop(sockets);
}
