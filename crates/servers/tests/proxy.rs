//! A proxy between a client and a server that sends what it is asked for.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use diorama_servers::CutProxy;

/// Starts a server that returns what each client sends, until the client has ended.
fn echo() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut &client, &mut &client));
        }
    });
    port
}

fn connect(proxy: &CutProxy) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

fn exchange(stream: &mut TcpStream, text: &[u8]) {
    let mut answer = vec![0; text.len()];
    stream.write_all(text).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, text);
}

/// Reads until the connection breaks, and returns the number of bytes.
fn read_to_the_cut(stream: &mut TcpStream) -> usize {
    let mut bytes = Vec::new();
    assert_eq!(stream.read_to_end(&mut bytes).unwrap_err().kind(), ErrorKind::ConnectionReset);
    bytes.len()
}

#[test]
fn bytes_pass_both_ways_until_both_sides_have_ended() {
    let proxy = CutProxy::start(echo());
    let mut client = connect(&proxy);
    exchange(&mut client, b"hello");
    let mut sender = client.try_clone().unwrap();
    let sent = std::thread::spawn(move || {
        sender.write_all(&vec![7; 3_000_000]).unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    sent.join().unwrap();
    assert!(bytes.len() == 3_000_000 && bytes.iter().all(|byte| *byte == 7));
    assert_eq!((proxy.accepted(), proxy.received()), (1, 3_000_005));
}

#[test]
fn a_connection_is_cut_at_the_byte() {
    let proxy = CutProxy::start(echo());
    let mut before = connect(&proxy);
    exchange(&mut before, b"hello");
    for bytes in [0, 1, 777, 16 * 1024, 50_000] {
        proxy.cut_after(bytes);
        let mut client = connect(&proxy);
        // The reset is reported once: to the writer if the cut is faster than the end of this.
        let written = client.write_all(&[7; 60_000]);
        let mut answer = Vec::new();
        let read = client.read_to_end(&mut answer);
        assert!(written.is_err() || read.is_err());
        assert_eq!(answer.len() as u64, bytes);
    }
    exchange(&mut before, b"an older connection stays");
    proxy.cut_after(None);
    exchange(&mut connect(&proxy), &[7; 5_000]);
}

#[test]
fn all_connections_are_cut_at_once() {
    let proxy = CutProxy::start(echo());
    let mut clients = [connect(&proxy), connect(&proxy)];
    clients.iter_mut().for_each(|client| exchange(client, b"hello"));
    assert_eq!(proxy.open(), 2);
    proxy.cut_all();
    assert_eq!((proxy.open(), proxy.accepted()), (0, 2));
    assert!(clients.iter_mut().all(|client| read_to_the_cut(client) == 0));
    exchange(&mut connect(&proxy), b"a new one is whole");
}

#[test]
fn connections_are_refused_while_open_ones_stay() {
    let proxy = CutProxy::start(echo());
    let mut client = connect(&proxy);
    exchange(&mut client, b"hello");
    proxy.refuse(true);
    proxy.refuse(true);
    let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    exchange(&mut client, b"still open");
    proxy.refuse(false);
    exchange(&mut connect(&proxy), b"hello");
}

#[test]
fn held_bytes_arrive_later() {
    let proxy = CutProxy::start(echo());
    let mut client = connect(&proxy);
    exchange(&mut client, b"hello");
    proxy.hold(true);
    client.write_all(b"held").unwrap();
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let silence = client.read(&mut [0; 4]).unwrap_err().kind();
    assert!(matches!(silence, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{silence}");
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    proxy.hold(false);
    let mut held = [0; 4];
    client.read_exact(&mut held).unwrap();
    assert_eq!(&held, b"held");
}

#[test]
fn connections_are_cut_when_the_server_is_gone_or_the_proxy_dropped() {
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    assert_eq!(read_to_the_cut(&mut connect(&CutProxy::start(nobody))), 0);
    let proxy = CutProxy::start(echo());
    let mut client = connect(&proxy);
    exchange(&mut client, b"hello");
    drop(proxy);
    assert_eq!(read_to_the_cut(&mut client), 0);
}
