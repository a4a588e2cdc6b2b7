//! A TCP proxy whose connections break on request.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{mpsc as commands, watch};
use tokio::task::JoinSet;

use crate::port::free_port;

/// A proxy on a thread of its own, from a port at 127.0.0.1 to another one.
///
/// Each method returns once it has taken effect. Broken connections are reset, as by a router that forgets them. Dropping the proxy
/// cuts its connections.
#[derive(Debug)]
pub struct CutProxy {
    port: u16,
    counts: Arc<Counts>,
    commands: Option<commands::UnboundedSender<(Command, mpsc::Sender<()>)>>,
    thread: Option<JoinHandle<()>>,
}

/// Change of a proxy's behaviour.
#[derive(Debug, Clone, Copy)]
enum Command {
    CutAll,
    CutAfter(Option<u64>),
    Refuse(bool),
    Hold(bool),
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    open: AtomicUsize,
    received: AtomicU64,
}

impl CutProxy {
    /// Starts a proxy to `target_port`.
    pub fn start(target_port: u16) -> CutProxy {
        let (sender, receiver) = commands::unbounded_channel();
        let (started, port) = mpsc::channel();
        let counts = Arc::new(Counts::default());
        let seen = counts.clone();
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_io().build();
            let runtime = runtime.unwrap_or_else(|error| panic!("a runtime: {error}"));
            runtime.block_on(async {
                let listener = listen().await;
                let port = listener.local_addr().map(|address| address.port());
                let _starter = started.send(port.unwrap_or_else(|error| panic!("the proxy's port: {error}")));
                Proxy::new(listener, target_port, seen).run(receiver).await;
            });
        });
        let port = port.recv().unwrap_or_else(|_| panic!("the proxy does not start"));
        CutProxy { port, counts, commands: Some(sender), thread: Some(thread) }
    }

    /// Port at 127.0.0.1 that clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts every open connection.
    pub fn cut_all(&self) {
        self.send(Command::CutAll);
    }

    /// Cuts each connection that is opened from now on once so many bytes have passed from the server to the client, and none
    /// later. `None` ends this.
    pub fn cut_after(&self, bytes: impl Into<Option<u64>>) {
        self.send(Command::CutAfter(bytes.into()));
    }

    /// Refuses new connections, or accepts them again. Open connections stay.
    pub fn refuse(&self, refuse: bool) {
        self.send(Command::Refuse(refuse));
    }

    /// Holds all bytes back without closing a connection, or lets them pass again: nobody hears that the network is gone.
    pub fn hold(&self, hold: bool) {
        self.send(Command::Hold(hold));
    }

    /// Number of connections that were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// Number of connections that are open.
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }

    /// Number of bytes that have passed from the server to clients.
    pub fn received(&self) -> u64 {
        self.counts.received.load(Ordering::Relaxed)
    }

    fn send(&self, command: Command) {
        let (sender, done) = mpsc::channel();
        let sent = self.commands.as_ref().is_some_and(|commands| commands.send((command, sender)).is_ok());
        assert!(sent && done.recv().is_ok(), "the proxy has ended");
    }
}

impl Drop for CutProxy {
    fn drop(&mut self) {
        self.commands = None;
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

/// A listener on a port that can be opened again after it was closed.
async fn listen() -> TcpListener {
    loop {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).await {
            return listener;
        }
    }
}

/// The proxy as its thread has it.
struct Proxy {
    /// None while connections are refused.
    listener: Option<TcpListener>,
    address: SocketAddr,
    target: SocketAddr,
    cut_after: Option<u64>,
    held: watch::Sender<bool>,
    connections: JoinSet<()>,
    counts: Arc<Counts>,
}

impl Proxy {
    fn new(listener: TcpListener, target_port: u16, counts: Arc<Counts>) -> Proxy {
        let address = listener.local_addr().unwrap_or_else(|error| panic!("the proxy's address: {error}"));
        Proxy {
            listener: Some(listener),
            address,
            target: (Ipv4Addr::LOCALHOST, target_port).into(),
            cut_after: None,
            held: watch::Sender::new(false),
            connections: JoinSet::new(),
            counts,
        }
    }

    /// Works until the handle is dropped.
    async fn run(mut self, mut commands: commands::UnboundedReceiver<(Command, mpsc::Sender<()>)>) {
        loop {
            self.counts.open.store(self.connections.len(), Ordering::Relaxed);
            tokio::select! {
                command = commands.recv() => {
                    let Some((command, done)) = command else { return };
                    self.obey(command).await;
                    let _caller = done.send(());
                }
                client = accept(self.listener.as_ref()) => self.open(client),
                Some(_) = self.connections.join_next() => {}
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::CutAll => {
                self.connections.shutdown().await;
                self.counts.open.store(0, Ordering::Relaxed);
            }
            Command::CutAfter(bytes) => self.cut_after = bytes,
            Command::Hold(hold) => drop(self.held.send_replace(hold)),
            Command::Refuse(true) => self.listener = None,
            Command::Refuse(false) => {
                if self.listener.is_none() {
                    let listener = TcpListener::bind(self.address).await;
                    self.listener = Some(listener.unwrap_or_else(|error| panic!("{}: {error}", self.address)));
                }
            }
        }
    }

    fn open(&mut self, client: TcpStream) {
        self.counts.accepted.fetch_add(1, Ordering::Relaxed);
        let wire = Wire { held: self.held.subscribe(), counts: self.counts.clone() };
        let (target, limit) = (self.target, self.cut_after);
        self.connections.spawn(async move {
            // An error is a reset of both sides.
            let _result = carry(client, target, limit, wire).await;
        });
    }
}

/// The next client; none while there is no listener.
async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    loop {
        match listener {
            None => std::future::pending().await,
            Some(listener) => {
                if let Ok((client, _)) = listener.accept().await {
                    return client;
                }
            }
        }
    }
}

/// State that a connection shares with its proxy.
#[derive(Clone)]
struct Wire {
    held: watch::Receiver<bool>,
    counts: Arc<Counts>,
}

impl Wire {
    /// Waits while bytes are held back.
    async fn free(&mut self) {
        let _proxy = self.held.wait_for(|held| !held).await;
    }
}

/// Passes bytes between `client` and a connection to `target`. Sockets that are dropped on the way are reset.
async fn carry(mut client: TcpStream, target: SocketAddr, limit: Option<u64>, wire: Wire) -> io::Result<()> {
    client.set_zero_linger()?;
    let mut server = TcpStream::connect(target).await?;
    server.set_zero_linger()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let up = pass(from_client, to_server, u64::MAX, wire.clone(), |_| {});
    let counts = wire.counts.clone();
    let count = move |bytes| {
        counts.received.fetch_add(bytes, Ordering::Relaxed);
    };
    let down = pass(from_server, to_client, limit.unwrap_or(u64::MAX), wire, count);
    tokio::try_join!(up, down)?;
    // Both sides have said that they are done: there is nothing to reset.
    end_orderly(&client)?;
    end_orderly(&server)
}

#[expect(deprecated, reason = "this takes the option back, which does not block")]
fn end_orderly(stream: &TcpStream) -> io::Result<()> {
    stream.set_linger(None)
}

/// Passes bytes one way until `from` ends, and `count`s them. Fails once `limit` bytes have passed.
async fn pass(
    from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    limit: u64,
    mut wire: Wire,
    count: impl Fn(u64),
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    let mut left = limit;
    while left > 0 {
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        from.readable().await?;
        wire.free().await;
        let mut bytes = match from.try_read(&mut buffer[..room]) {
            Ok(0) => return to.shutdown().await,
            Ok(length) => &buffer[..length],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        while !bytes.is_empty() {
            to.writable().await?;
            wire.free().await;
            match to.try_write(bytes) {
                Ok(written) => {
                    bytes = &bytes[written..];
                    left -= written as u64;
                    count(written as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
    Err(io::ErrorKind::ConnectionAborted.into())
}
