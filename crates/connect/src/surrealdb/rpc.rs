//! Client of SurrealDB's RPC: <https://surrealdb.com/docs/reference/protocols/rpc-protocol>.
//!
//! A session sends one request at a time. What the server sends unasked are notifications of live queries.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::cbor::{self, items, member, object, take, text};
use super::errors::{Failure, Refusal};
use diorama_core::record::CborValue;

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Maximum size of an answer in bytes.
pub(super) const MAX_ANSWER: usize = 64 << 20;
/// Time for which the server may work on one statement.
pub(super) const STATEMENT_TIME: Duration = Duration::from_secs(60);
/// Time after which a request without an answer has failed.
const ANSWER_TIME: Duration = Duration::from_secs(70);
/// Number of notifications that wait for the end of a request.
const MAX_NOTIFICATIONS: usize = 4_096;

/// A connection that is logged in and uses a database.
#[derive(Debug)]
pub(super) struct Session {
    socket: Socket,
    /// Number of the last request.
    number: u64,
    /// False while a request has no answer, and after a failure: what the server does with this connection is not known.
    is_idle: bool,
    notifications: VecDeque<CborValue>,
    /// True if notifications were dropped, because too many waited.
    has_missed: bool,
}

/// A transaction over several requests.
#[derive(Debug)]
pub(super) struct Transaction(CborValue);

impl Session {
    pub(super) fn new(socket: Socket) -> Session {
        Session { socket, number: 0, is_idle: true, notifications: VecDeque::new(), has_missed: false }
    }

    pub(super) fn is_broken(&self) -> bool {
        !self.is_idle
    }

    /// Calls `method` and returns its result.
    pub(super) async fn call(&mut self, method: &str, params: Vec<CborValue>) -> Result<CborValue, Failure> {
        self.request(method, params, None).await
    }

    async fn request(
        &mut self,
        method: &str,
        params: Vec<CborValue>,
        transaction: Option<&Transaction>,
    ) -> Result<CborValue, Failure> {
        let request = self.encode(method, params, transaction)?;
        self.is_idle = false;
        let exchange = async {
            self.socket.send(Message::binary(request)).await.map_err(Failure::of_socket)?;
            self.answer().await
        };
        let answer = timeout(ANSWER_TIME, exchange).await.map_err(|_| Failure::lost("the server does not answer"))?;
        if !matches!(answer, Err(Failure::Lost(_) | Failure::TooLarge)) {
            self.is_idle = true;
        }
        answer
    }

    fn encode(
        &mut self,
        method: &str,
        params: Vec<CborValue>,
        transaction: Option<&Transaction>,
    ) -> Result<Vec<u8>, Failure> {
        self.number += 1;
        let mut request =
            object([("id", self.number.into()), ("method", method.into()), ("params", CborValue::Array(params))]);
        if let (Some(Transaction(id)), CborValue::Map(members)) = (transaction, &mut request) {
            members.push(("txn".into(), id.clone()));
        }
        let mut bytes = Vec::new();
        ciborium::into_writer(&request, &mut bytes).map_err(|error| Failure::lost(error.to_string()))?;
        Ok(bytes)
    }

    /// Receives the answer to the last request.
    async fn answer(&mut self) -> Result<CborValue, Failure> {
        loop {
            let mut frame = self.receive().await?;
            if cbor::number(&frame, "id") == Some(self.number) {
                if let Some(error) = member(&frame, "error") {
                    return Err(Failure::Refused(Refusal::of(error)));
                }
                return Ok(take(&mut frame, "result").unwrap_or(CborValue::Null));
            }
            self.keep(frame);
        }
    }

    /// Keeps a notification for later.
    fn keep(&mut self, mut frame: CborValue) {
        let Some(notification) = take(&mut frame, "result").filter(|result| text(result, "action").is_some()) else {
            // Without a number: the server could not read the request.
            return;
        };
        if self.notifications.len() < MAX_NOTIFICATIONS {
            self.notifications.push_back(notification);
        } else {
            self.has_missed = true;
        }
    }

    async fn receive(&mut self) -> Result<CborValue, Failure> {
        loop {
            let message = self.socket.next().await.ok_or_else(|| Failure::lost("the connection was closed"))?;
            match message.map_err(Failure::of_socket)? {
                Message::Binary(bytes) => {
                    return ciborium::from_reader(&*bytes).map_err(|error| Failure::lost(format!("not CBOR: {error}")));
                }
                Message::Text(_) => return Err(Failure::lost("the server does not speak CBOR")),
                Message::Close(frame) => {
                    let why = frame.map(|frame| format!(": {}", frame.reason)).unwrap_or_default();
                    return Err(Failure::lost(format!("the server closed the connection{why}")));
                }
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Returns the next notification of a live query.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn notification(&mut self) -> Result<CborValue, Failure> {
        loop {
            if let Some(notification) = self.notifications.pop_front() {
                return Ok(notification);
            }
            let received = self.receive().await;
            self.is_idle &= received.is_ok();
            self.keep(received?);
        }
    }

    /// Returns the next notification if it has arrived.
    pub(super) fn waiting(&mut self) -> Option<CborValue> {
        self.notifications.pop_front()
    }

    /// Drops the notifications that have arrived.
    pub(super) fn drop_notifications(&mut self) {
        self.notifications.clear();
    }

    /// Returns true if notifications were dropped since this was last asked.
    pub(super) fn take_missed(&mut self) -> bool {
        std::mem::take(&mut self.has_missed)
    }

    /// Runs statements and returns the result of each.
    pub(super) async fn query(
        &mut self,
        statements: &str,
        variables: CborValue,
        transaction: Option<&Transaction>,
    ) -> Result<Vec<Result<CborValue, Refusal>>, Failure> {
        let answer = self.request("query", vec![statements.into(), variables], transaction).await?;
        Ok(items(answer).into_iter().map(result_of).collect())
    }

    /// Runs statements and returns the result of the last one.
    pub(super) async fn last(
        &mut self,
        statements: &str,
        variables: CborValue,
        transaction: Option<&Transaction>,
    ) -> Result<CborValue, Failure> {
        let mut last = CborValue::Null;
        for result in self.query(statements, variables, transaction).await? {
            last = result?;
        }
        Ok(last)
    }

    /// Begins a transaction, whose reads show one moment.
    pub(super) async fn begin(&mut self) -> Result<Transaction, Failure> {
        self.call("begin", Vec::new()).await.map(Transaction)
    }

    /// Ends a transaction without an effect.
    pub(super) async fn cancel(&mut self, transaction: Transaction) -> Result<(), Failure> {
        self.call("cancel", vec![transaction.0]).await.map(drop)
    }

    pub(super) async fn commit(&mut self, transaction: Transaction) -> Result<(), Failure> {
        self.call("commit", vec![transaction.0]).await.map(drop)
    }
}

/// Returns the result of a statement.
fn result_of(mut answer: CborValue) -> Result<CborValue, Refusal> {
    if text(&answer, "status") == Some("OK") {
        return Ok(take(&mut answer, "result").unwrap_or(CborValue::Null));
    }
    Err(Refusal::of(&answer))
}

impl Failure {
    pub(super) fn of_socket(error: WsError) -> Failure {
        match error {
            WsError::Capacity(_) => Failure::TooLarge,
            error => Failure::lost(error.to_string()),
        }
    }
}
