//! Feeds: a server that drops, repeats and talks nonsense, and one Diorama that follows another over a restart.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use diorama::connect::{FeedFormat, WsFeed};
use diorama::dio::FeedStatus;
use diorama::gateway::{MountOptions, Sockets};
use diorama::inbound::{self, Scheme};
use diorama::{Dio, Record};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use crate::harness::{App, Scripted, products, rows};

const PATIENCE: Duration = Duration::from_secs(20);

fn quick(url: String, format: FeedFormat) -> WsFeed {
    let backoff = (Duration::from_millis(5), Duration::from_millis(20));
    WsFeed { backoff, max_message: 4 << 10, ..WsFeed::new(url, format) }
}

fn native() -> FeedFormat {
    FeedFormat::Inbound(Box::new(inbound::Hook::new(Scheme::None)))
}

/// The other end, one connection at a time.
struct Sender {
    listener: TcpListener,
    url: String,
}

impl Sender {
    async fn new() -> Sender {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/events?who=me", listener.local_addr().unwrap());
        Sender { listener, url }
    }

    /// The next connection, and what it asked for.
    async fn accept(&self) -> (WebSocketStream<TcpStream>, String) {
        let accepting = async {
            let (stream, _) = self.listener.accept().await.unwrap();
            let mut asked = String::new();
            #[allow(clippy::result_large_err, reason = "the signature is tungstenite's")]
            let note = |request: &Request, response: Response| {
                asked = request.uri().query().unwrap_or_default().to_string();
                Ok(response)
            };
            let socket = tokio_tungstenite::accept_hdr_async(stream, note).await.unwrap();
            (socket, asked)
        };
        tokio::time::timeout(PATIENCE, accepting).await.expect("nobody connects")
    }
}

async fn say(socket: &mut WebSocketStream<TcpStream>, text: &str) {
    socket.send(Message::text(text)).await.unwrap();
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

async fn costs(dio: &Dio, id: &str, price: i64) -> bool {
    let row: Option<Record> = dio.vista().get_value(id).await.unwrap();
    row.is_some_and(|row| row["price"] == price.into())
}

fn feed(dio: &Dio) -> FeedStatus {
    dio.status().feeds.remove(0)
}

fn gone(id: u32) -> String {
    format!(r#"{{"op":"delete","id":"{id}"}}"#)
}

#[tokio::test]
async fn a_row_of_a_feed_that_is_not_as_the_schema_says_is_counted_and_read_from_the_source() {
    let (app, sender) = (App::start().await, Sender::new().await);
    app.master.read_rows();
    quick(sender.url.clone(), native()).start(&app.dio).unwrap();
    let (mut socket, _) = sender.accept().await;
    // A connection begins with a reading of the source: what changes after that is heard of by a message only.
    app.master.lose(["1".to_string()]).await;
    say(&mut socket, &gone(1)).await;
    eventually("what it says is applied", async || feed(&app.dio).messages == 1).await;
    eventually("the row is gone", async || app.get("/products/1").await.status == 404).await;
    let row = [("name".to_string(), "Bun".into()), ("price".to_string(), 8.into())];
    let op = diorama::WriteOp::Replace { id: "7".into(), record: row.into_iter().collect() };
    app.source().shell().write(&op).await.unwrap();
    say(&mut socket, r#"{"op":"update","id":"7","new":{"name":"Bun","price":"8"}}"#).await;
    eventually("the row is read again", async || costs(&app.dio, "7", 8).await).await;
    assert_eq!(feed(&app.dio).undecodable, 1);
}

#[tokio::test]
async fn a_feed_that_is_dropped_comes_back_and_reads_again_what_it_may_have_missed() {
    let (app, sender) = (App::start().await, Sender::new().await);
    app.master.read_rows();
    let mut start = quick(sender.url.clone(), native());
    start.subscribe = Some("products, please".into());
    start.start(&app.dio).unwrap();
    let (mut socket, _) = sender.accept().await;
    let first = socket.next().await.unwrap().unwrap();
    assert_eq!(first.into_text().unwrap().as_str(), "products, please");
    app.master.lose(["1".to_string()]).await;
    say(&mut socket, &gone(1)).await;
    // Again, and in one message with another.
    app.master.lose(["2".to_string()]).await;
    say(&mut socket, &format!("[{},{}]", gone(1), gone(2))).await;
    eventually("what it says is applied", async || app.get("/products/2").await.status == 404).await;
    eventually("it is counted", async || feed(&app.dio).messages == 2).await;
    assert!(feed(&app.dio).connected);
    drop(socket);
    // Nobody is told of this one.
    app.master.lose(["3".to_string()]).await;
    let (mut socket, _) = sender.accept().await;
    eventually("a gap is filled from the source", async || app.get("/products/3").await.status == 404).await;
    app.master.lose(["4".to_string()]).await;
    for nonsense in ["{", r#"{"op":"frob","id":"1"}"#, "7"] {
        say(&mut socket, nonsense).await;
    }
    eventually("nonsense asks for a reading", async || app.get("/products/4").await.status == 404).await;
    assert_eq!(feed(&app.dio).undecodable, 3);
    // Too large for it: it does not take it, and comes again.
    say(&mut socket, &"x".repeat(5 << 10)).await;
    let (_socket, _) = sender.accept().await;
    eventually("it is back", async || feed(&app.dio).connected && feed(&app.dio).connects == 3).await;
    let ready = app.get("/readyz").await.text().to_string();
    assert!(!ready.contains("the feed"), "{ready}");
    let metrics = app.get("/metrics").await.text().to_string();
    assert!(metrics.contains("diorama_dio_feed_connects{dio=\"products\"} 3"), "{metrics}");
    app.dio.close().await;
}

#[tokio::test]
async fn a_diorama_feed_goes_on_where_it_was() {
    let (app, sender) = (App::start().await, Sender::new().await);
    app.master.read_rows();
    quick(sender.url.clone(), FeedFormat::Diorama).start(&app.dio).unwrap();
    let (mut socket, asked) = sender.accept().await;
    assert_eq!(asked, "who=me");
    say(&mut socket, r#"{"type":"hello","position":"E:4","resumed":false}"#).await;
    app.master.lose(["1".to_string()]).await;
    say(&mut socket, r#"{"type":"RecordRemoved","seq":5,"id":"1"}"#).await;
    eventually("its event is applied", async || app.get("/products/1").await.status == 404).await;
    say(&mut socket, r#"{"type":"heartbeat","position":"E:9"}"#).await;
    eventually("the heartbeat is heard", async || feed(&app.dio).messages == 3).await;
    drop(socket);
    let (mut socket, asked) = sender.accept().await;
    assert_eq!(asked, "who=me&since=E:9");
    say(&mut socket, r#"{"type":"hello","position":"E:9","resumed":true}"#).await;
    say(&mut socket, r#"{"type":"reset","reason":"epoch","position":"F:1"}"#).await;
    app.master.lose(["2".to_string()]).await;
    eventually("after a reset the source is read", async || {
        say(&mut socket, r#"{"type":"Invalidated","seq":2,"covered":false}"#).await;
        app.get("/products/2").await.status == 404
    })
    .await;
    drop(socket);
    assert!(sender.accept().await.1.starts_with("who=me&since=F:"));
    app.dio.close().await;
}

/// A Dio of seven products on files, whose first copy is made once.
async fn start_on(dir: &std::path::Path, master: &Scripted) -> (diorama::Lens, Dio) {
    let list = |dio: &Dio| {
        let dio = dio.clone();
        async move {
            let rows = dio.master().list_values().await?;
            dio.reconcile(rows).await.map(drop)
        }
    };
    let copy = move |dio: &Dio| {
        let (copied, listing) = (dio.status().complete, list(dio));
        async move { if copied { Ok(()) } else { listing.await } }
    };
    let lens = diorama::Lens::new().cache_at(dir.join("cache.redb")).on_start(copy).on_refresh(list).build().unwrap();
    let dio = lens.make_dio(master.vista("products")).await.unwrap();
    (lens, dio)
}

async fn end(lens: diorama::Lens, dio: Dio) {
    dio.close().await;
    drop(dio);
    lens.close().await;
}

#[tokio::test]
async fn a_feed_of_other_events_has_a_mark_of_its_own() {
    let (files, sender) = (tempfile::tempdir().unwrap(), Sender::new().await);
    let master = Scripted::new(products(), rows(7));
    {
        let (lens, dio) = start_on(files.path(), &master).await;
        let mut events = dio.subscribe_events();
        quick(sender.url.clone(), FeedFormat::Diorama).start(&dio).unwrap();
        let (mut socket, asked) = sender.accept().await;
        assert_eq!(asked, "who=me");
        say(&mut socket, r#"{"type":"hello","position":"E:4","resumed":false}"#).await;
        while events.recv().await.unwrap() != diorama::DioEvent::Invalidated {}
        master.take("2").await;
        say(&mut socket, r#"{"type":"RecordRemoved","seq":5,"id":"2"}"#).await;
        eventually("it is applied", async || dio.vista().get_value("2").await.unwrap().is_none()).await;
        end(lens, dio).await;
    }
    for (more, expected) in [("", "who=me&since=E:5"), ("&price=gte.5", "who=me&price=gte.5")] {
        let (lens, dio) = start_on(files.path(), &master).await;
        quick(format!("{}{more}", sender.url), FeedFormat::Diorama).start(&dio).unwrap();
        assert_eq!(sender.accept().await.1, expected);
        end(lens, dio).await;
    }
}

/// A feed that cannot connect says so, and keeps nothing from ending.
#[tokio::test]
async fn a_feed_to_nowhere_is_seen_and_ends_with_its_dio() {
    let app = App::start().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(quick("http://nowhere".into(), FeedFormat::Diorama).start(&app.dio).is_err());
    quick(format!("ws://{free}/events?token=s3cr3t"), FeedFormat::Diorama).start(&app.dio).unwrap();
    // Nobody there speaks TLS.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let secure = format!("wss://localhost:{}/events", listener.local_addr().unwrap().port());
    quick(secure, FeedFormat::Diorama).start(&app.dio).unwrap();
    drop(listener.accept().await.unwrap());
    let failed = |dio: &Dio| dio.status().feeds.iter().all(|feed| feed.error.is_some());
    eventually("both say why", async || failed(&app.dio)).await;
    drop(listener);
    let ready = app.get("/readyz").await;
    assert!(ready.status == 200 && ready.text().contains("is not connected"), "{}", ready.text());
    assert!(!ready.text().contains("s3cr3t"));
    tokio::time::timeout(PATIENCE, app.dio.close()).await.expect("it ends");
    assert_eq!(app.dio.status().tasks, 0);
}

/// An authority of somebody's own, and a server it has certified for `localhost`.
struct Authority {
    pem: String,
    server: TlsAcceptor,
}

impl Authority {
    fn new() -> Authority {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new([]).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = parameters.self_signed(&key).unwrap().pem();
        let issuer = rcgen::Issuer::new(parameters, key);
        let key = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(["localhost".to_string()]).unwrap().signed_by(&key, &issuer).unwrap();
        let secret = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = config.with_single_cert(vec![own.der().clone()], secret.into()).unwrap();
        Authority { pem, server: TlsAcceptor::from(Arc::new(config)) }
    }
}

#[tokio::test]
async fn a_feed_over_tls_believes_the_authority_it_is_told_to_and_nobody_else() {
    let (app, ours, theirs) = (App::start().await, Authority::new(), Authority::new());
    app.master.read_rows();
    let start = async |host: &str, ca: Option<&str>| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("wss://{host}:{}/", listener.local_addr().unwrap().port());
        let feed = WsFeed { ca: ca.map(Into::into), ..quick(url, native()) };
        feed.start(&app.dio).map(|()| listener)
    };
    assert!(start("localhost", Some("no certificate")).await.is_err());
    for (at, (host, ca)) in [("localhost", None), ("localhost", Some(&*theirs.pem)), ("127.0.0.1", Some(&*ours.pem))]
        .into_iter()
        .enumerate()
    {
        let listener = start(host, ca).await.unwrap();
        let meets = async {
            while app.dio.status().feeds[at].error.is_none() {
                let (stream, _) = listener.accept().await.unwrap();
                assert!(ours.server.accept(stream).await.is_err(), "{host} with {ca:?} is not to be believed");
            }
        };
        tokio::time::timeout(PATIENCE, meets).await.expect("it tries");
        let error = app.dio.status().feeds[at].error.clone().unwrap();
        assert!(error.contains("certificate"), "{error}");
    }
    let listener = start("localhost", Some(&*ours.pem)).await.unwrap();
    let (stream, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.expect("it comes").unwrap();
    let stream = ours.server.accept(stream).await.unwrap();
    let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
    app.master.lose(["1".to_string()]).await;
    socket.send(Message::text(gone(1))).await.unwrap();
    eventually("what it says is applied", async || app.get("/products/1").await.status == 404).await;
    eventually("it is counted", async || app.dio.status().feeds[3].messages == 1).await;
    tokio::time::timeout(PATIENCE, app.dio.close()).await.expect("it ends");
}

/// Serves the leader on a port that stays, so that it can be restarted.
async fn serve(dio: &Dio, address: SocketAddr) -> (tokio::task::JoinHandle<()>, Sockets) {
    let sockets = Sockets::new(10);
    let router = diorama::gateway::Gateway::new().mount(dio.clone()).sockets(sockets.clone()).into_router();
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    #[expect(clippy::disallowed_methods, reason = "the test aborts it")]
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (server, sockets)
}

#[tokio::test]
async fn one_diorama_follows_another_over_its_restart() {
    let leader = App::with(products(), rows(7), |lens| lens, MountOptions::default(), |gateway| gateway).await;
    // The follower has the same source: what it is told it can look up.
    let list = |dio: &Dio| {
        let dio = dio.clone();
        async move {
            let rows = dio.master().list_values().await?;
            dio.reconcile(rows).await.map(drop)
        }
    };
    let cache = diorama::cache::MemoryCache::default();
    let lens = diorama::Lens::new().cache_source(cache).on_start(list).on_refresh(list).build().unwrap();
    let follower = lens.make_dio(leader.source()).await.unwrap();
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (server, sockets) = serve(&leader.dio, address).await;
    quick(format!("ws://{address}/products/events"), FeedFormat::Diorama).start(&follower).unwrap();
    eventually("it is connected", async || feed(&follower).connected && feed(&follower).messages > 0).await;
    let change = async |id: &str, price: u32| {
        let answer = leader.json("PATCH", &format!("/products/{id}"), &format!(r#"{{"price":{price}}}"#)).await;
        assert!(answer.status < 300, "{answer:?}");
    };
    change("1", 501).await;
    eventually("it follows", async || costs(&follower, "1", 501).await).await;
    server.abort();
    let _ = server.await;
    sockets.close().await;
    eventually("it sees that nobody is there", async || !feed(&follower).connected).await;
    change("2", 502).await;
    let (server, sockets) = serve(&leader.dio, address).await;
    change("3", 503).await;
    eventually("nothing is missed", async || costs(&follower, "2", 502).await && costs(&follower, "3", 503).await)
        .await;
    assert!(feed(&follower).connects >= 2);
    follower.close().await;
    sockets.close().await;
    server.abort();
}
