//! Tests of sessions over a pipe in place of a socket.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, PollSendError, PollSender};

use super::*;
use crate::access::{Identity, Principal, Verbs};
use crate::events::Sockets;
use crate::events::access_tests::Rules;
use crate::events::testing::{mounted, record, subscription};
use crate::http::bounds::Bounds;
use crate::scope::Scope;
use diorama_core::dio::Position;
use diorama_core::record::CborValue;
use serde_json::Value;

/// Server's end of a socket whose client decides when it reads messages.
struct Pipe {
    out: PollSender<Message>,
    incoming: mpsc::Receiver<Result<Message, PollSendError<Message>>>,
}

impl Stream for Pipe {
    type Item = Result<Message, PollSendError<Message>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.incoming.poll_recv(cx)
    }
}

impl Sink<Message> for Pipe {
    type Error = PollSendError<Message>;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.out.poll_ready_unpin(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, item: Message) -> Result<(), Self::Error> {
        self.out.start_send_unpin(item)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.out.poll_flush_unpin(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.out.poll_close_unpin(cx)
    }
}

/// Client and the session that serves it.
struct Client {
    frames: mpsc::Receiver<Message>,
    say: mpsc::Sender<Result<Message, PollSendError<Message>>>,
    sockets: Sockets,
    session: tokio::task::JoinHandle<Option<u16>>,
}

impl Client {
    async fn new(scope: &Scope, query: &str) -> Client {
        Client::with(scope, query, Principal::anonymous()).await
    }

    async fn with(scope: &Scope, query: &str, principal: Principal) -> Client {
        let (out, frames) = mpsc::channel(4);
        let (say, incoming) = mpsc::channel(4);
        let sockets = Sockets::default();
        let mut subs = Subscriptions::new(Encoding::Json, 5, Bounds::default());
        subs.authenticate(principal);
        subs.add(None, scope, subscription(scope, query)).await.unwrap();
        let session = Session::new(subs, ConnectionOptions { heartbeat: 5, wait: 0 }, None);
        let pipe = Pipe { out: PollSender::new(out), incoming };
        let permit = sockets.permit(Vec::new()).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the client waits for it")]
        let session = tokio::spawn(async move { session.run(pipe, &permit).await });
        Client { frames, say, sockets, session }
    }

    async fn frame(&mut self) -> Value {
        loop {
            match self.frames.recv().await {
                Some(Message::Text(text)) => return serde_json::from_str(&text).unwrap(),
                Some(Message::Close(Some(frame))) => return json!(frame.code),
                Some(_) => {}
                None => return Value::Null,
            }
        }
    }

    async fn skip_to(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.frame().await;
            if frame["type"] == kind || frame.is_null() {
                return frame;
            }
        }
    }

    /// Disconnects the client; returns the close code of the session, if it had closed before.
    async fn leave(self) -> Option<u16> {
        drop((self.say, self.frames));
        self.session.await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_socket_ends_when_its_credential_expires_or_is_revoked() {
    let scope = mounted().await;
    let principal = |seconds, revoked: &CancellationToken| {
        let expires = Some(SystemTime::now() + Duration::from_secs(seconds));
        let (name, role, claims) = ("key:a".into(), "x".into(), CborValue::Map(Vec::new()));
        let identity = Identity { name, role, claims, verbs: Verbs::ALL, unrestricted: false, expires };
        Principal::revocable(Arc::new(identity), revoked.clone())
    };
    let (start, revoked) = (Instant::now(), CancellationToken::new());
    let mut client = Client::with(&scope, "", principal(100, &revoked)).await;
    while client.frame().await != 4401 {
        // A pong keeps the session.
        let _ = client.say.send(Ok(Message::Pong(Bytes::new()))).await;
    }
    assert!((99..=100).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert_eq!(client.leave().await, Some(4401));
    let mut client = Client::with(&scope, "", principal(100, &revoked)).await;
    assert_eq!(client.frame().await["type"], "hello");
    revoked.cancel();
    assert_eq!(client.frame().await, 4401);
    client.leave().await;
}

#[tokio::test(start_paused = true)]
async fn hello_comes_first_then_events_then_bookmarks() {
    let scope = mounted().await;
    let dio = &scope.dio;
    let mut client = Client::new(&scope, "").await;
    let hello = client.frame().await;
    assert_eq!(
        (&hello["type"], &hello["dio"], &hello["resumed"]),
        (&json!("hello"), &json!("products"), &json!(false))
    );
    assert_eq!(hello["position"], dio.position().to_string());
    dio.patched("a", record("A", 1)).await.unwrap();
    let event = client.frame().await;
    assert_eq!((&event["type"], &event["id"]), (&json!("RecordChanged"), &json!("a")));
    let beat = client.frame().await;
    assert_eq!(beat["type"], "heartbeat");
    assert_eq!(beat["seq"], event["seq"]);
    client.leave().await;
}

#[tokio::test(start_paused = true)]
async fn since_replays_what_was_missed() {
    let scope = mounted().await;
    let dio = &scope.dio;
    let position = dio.position();
    for price in 0..3 {
        dio.patched("a", record("A", price)).await.unwrap();
    }
    let mut client = Client::new(&scope, &format!("since={position}")).await;
    let hello = client.frame().await;
    assert_eq!((&hello["resumed"], &hello["missed"]), (&json!(true), &json!(3)));
    for price in 0..3 {
        assert_eq!(client.frame().await["record"]["price"], price);
    }
    client.leave().await;
}

#[tokio::test(start_paused = true)]
async fn a_position_that_cannot_be_resumed_gets_a_reset_with_its_reason() {
    let scope = mounted().await;
    let dio = &scope.dio;
    let start = dio.position();
    for price in 0..20 {
        dio.patched("a", record("A", price)).await.unwrap();
    }
    let foreign = Position { epoch: "OTHER00000".into(), seq: 1 };
    let future = Position { seq: 1_000, ..start.clone() };
    for (since, reason) in [(foreign, "epoch"), (future, "future")] {
        let mut client = Client::new(&scope, &format!("since={since}")).await;
        assert_eq!(client.frame().await["resumed"], false);
        let reset = client.frame().await;
        assert_eq!((&reset["type"], &reset["reason"]), (&json!("reset"), &json!(reason)));
        assert_eq!(reset["position"], dio.position().to_string());
        client.leave().await;
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_rows_asked_for_are_sent_and_the_bookmark_moves_on() {
    let scope = mounted().await;
    let dio = &scope.dio;
    let mut client = Client::new(&scope, "ids=b").await;
    client.skip_to("hello").await;
    dio.patched("a", record("A", 1)).await.unwrap();
    dio.patched("b", record("B", 1)).await.unwrap();
    dio.patched("a", record("A", 2)).await.unwrap();
    assert_eq!(client.frame().await["id"], "b");
    let beat = client.skip_to("heartbeat").await;
    assert_eq!(beat["position"], dio.position().to_string());
    client.leave().await;
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_takes_nothing_is_closed() {
    let scope = mounted().await;
    let dio = &scope.dio;
    let client = Client::new(&scope, "").await;
    for price in 0..8 {
        dio.patched("a", record("A", price)).await.unwrap();
    }
    client.session.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_socket_behind_the_ring_reads_on_from_the_journal() {
    let scope = mounted().await;
    let mut client = Client::new(&scope, "").await;
    client.skip_to("hello").await;
    let start = scope.dio.position().seq;
    for price in 0..40 {
        scope.dio.patched("a", record("A", price)).await.unwrap();
    }
    for price in 0..40 {
        let frame = client.frame().await;
        assert_eq!((&frame["seq"], &frame["record"]["price"]), (&json!(start + 1 + price), &json!(price)));
    }
    client.leave().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_sends_bye_and_closes_with_1001() {
    let scope = mounted().await;
    let mut client = Client::new(&scope, "").await;
    client.skip_to("hello").await;
    let sockets = client.sockets.clone();
    let frames = async {
        assert_eq!(client.frame().await["type"], "bye");
        assert_eq!(client.frame().await, 1001);
        assert_eq!(client.leave().await, Some(1001));
    };
    tokio::join!(sockets.close(), frames);
}
#[allow(unused)]
#[tokio::test(start_paused = true)]
async fn a_closed_dio_ends_its_sockets() {
    let scope = mounted().await;
    let dio = &scope.dio;
    let mut client = Client::new(&scope, "").await;
    client.skip_to("hello").await;
    dio.close().await;
    assert_eq!(client.skip_to("bye").await["code"], 1001);
    client.leave().await;
}

#[tokio::test(start_paused = true)]
async fn a_socket_of_one_resource_accepts_pings_only() {
    let scope = mounted().await;
    let mut client = Client::new(&scope, "").await;
    client.skip_to("hello").await;
    let say = |text: &str| Ok(Message::Text(text.to_string().into()));
    client.say.send(say(r#"{"type":"ping","n":7}"#)).await.unwrap();
    let pong = client.frame().await;
    assert_eq!((&pong["type"], &pong["n"]), (&json!("pong"), &json!(7)));
    for _ in 0..3 {
        client.say.send(say("hello?")).await.unwrap();
        assert_eq!(client.frame().await["type"], "error");
    }
    assert_eq!(client.frame().await, 4508);
    client.leave().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_closed() {
    let scope = mounted().await;
    let mut client = Client::new(&scope, "").await;
    client.skip_to("hello").await;
    let mut last = Value::Null;
    while !last.is_number() {
        last = client.frame().await;
    }
    assert_eq!(last, 4001);
    client.leave().await;
}

#[tokio::test(start_paused = true)]
async fn a_socket_ends_when_the_access_rules_change() {
    let scope = mounted().await;
    for is_idle in [false, true] {
        let rules = Rules::new(&scope.dio);
        let mut client = Client::new(&rules.events("clerk", "cleo"), "").await;
        client.frame().await;
        rules.policy.retire();
        if !is_idle {
            scope.dio.patched("a", record("A", 1)).await.unwrap();
        }
        assert_eq!(client.frame().await, 4403, "no frame is sent by the old rules");
        client.leave().await;
    }
}
