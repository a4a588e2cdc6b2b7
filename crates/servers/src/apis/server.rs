//! The server of a double: its state, and the way of a request.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::response::Response;
use http::HeaderMap;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;

use super::answer::Answer;
use super::api::Api;
use super::fault::{self, Fault};
use super::limit::Limiter;
use super::request::Request;
use super::store::Store;

/// A request that reached a double.
#[derive(Debug, Clone)]
pub struct Received {
    /// Time of its arrival.
    pub at: Instant,
    /// Method, in capitals.
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// Status of the answer; none for a request that was left without one.
    pub status: Option<u16>,
    /// True if the rate limit refused it.
    pub refused: bool,
}

/// The rows of a double, for changes that the client under test does not make itself.
pub struct Rows<'a> {
    pub(super) api: &'a dyn Api,
    pub(super) store: &'a mut Store,
}

/// The API and what has happened to it.
pub(super) struct Server {
    pub(super) api: Box<dyn Api>,
    pub(super) state: Mutex<State>,
}

pub(super) struct State {
    pub(super) store: Store,
    pub(super) limiter: Limiter,
    pub(super) faults: VecDeque<Fault>,
    pub(super) received: Vec<Received>,
    pub(super) hooks: Vec<(usize, Hook)>,
}

pub(super) type Hook = Box<dyn FnOnce(&mut Rows<'_>) + Send>;

/// Result of a request.
enum Outcome {
    Answer(Answer),
    Cut(Answer),
    Silence,
}

impl Rows<'_> {
    /// Adds a row with this content, as a create request has it, and returns its id.
    pub fn insert(&mut self, content: &Value) -> String {
        let row = (self.api.content().create)(self.store.next_number(), content, Timestamp::now());
        let id = (self.api.content().id)(&row);
        self.store.insert(id.clone(), row);
        id
    }

    /// Changes a row as an update request with this content does. False if there is no such row.
    pub fn change(&mut self, id: &str, content: &Value) -> bool {
        self.store.change(id, |row| (self.api.content().update)(row, content, Timestamp::now())).is_some()
    }

    /// Deletes a row. False if there is no such row.
    pub fn delete(&mut self, id: &str) -> bool {
        self.store.delete(id).is_some()
    }

    /// A row as the API answers it.
    pub fn get(&self, id: &str) -> Option<Value> {
        self.store.get(id).map(|row| row.value.clone())
    }

    /// All rows in the order of their creation.
    pub fn all(&self) -> Vec<Value> {
        self.store.iter().map(|row| row.value.clone()).collect()
    }
}

impl fmt::Debug for Rows<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Rows").field("len", &self.store.len()).finish_non_exhaustive()
    }
}

pub(super) async fn respond(Shared(server): Shared<Arc<Server>>, request: axum::extract::Request) -> Response {
    let outcome = match Request::read(request).await {
        Ok(request) => server.process(&request),
        Err(error) => Outcome::Answer(server.api.error(400, &error.to_string())),
    };
    match outcome {
        Outcome::Answer(answer) => answer.into_response(),
        Outcome::Cut(answer) => fault::cut(answer),
        Outcome::Silence => std::future::pending().await,
    }
}

impl Server {
    fn process(&self, request: &Request) -> Outcome {
        let state = &mut *self.state.lock();
        let at = Instant::now();
        self.run_hooks(state);
        let fault = state.faults.pop_front();
        let (answer, refused) = match fault {
            Some(Fault::Status(status)) => (self.api.error(status, "Scripted failure"), false),
            Some(Fault::Html) => (fault::html(), false),
            Some(Fault::Silence) => (Answer::empty(0), false),
            Some(Fault::Cut) | None => self.serve(request, state, at),
        };
        let silent = fault == Some(Fault::Silence);
        state.received.push(Received {
            at,
            method: request.method.to_string(),
            target: request.target.clone(),
            headers: request.headers.clone(),
            body: request.body.clone(),
            status: (!silent).then_some(answer.status),
            refused,
        });
        match fault {
            Some(Fault::Silence) => Outcome::Silence,
            Some(Fault::Cut) => Outcome::Cut(answer),
            _ => Outcome::Answer(answer),
        }
    }

    /// The answer, and whether the limit refused the request.
    fn serve(&self, request: &Request, state: &mut State, at: Instant) -> (Answer, bool) {
        if let Err(answer) = self.api.authorize(request) {
            return (answer, false);
        }
        let mut usage = match state.limiter.admit(at) {
            Ok(usage) => usage,
            Err(usage) => return (self.api.label(self.api.refuse(&usage), request, &usage), true),
        };
        let answer = self.api.answer(request, &mut state.store).unwrap_or_else(|answer| answer);
        if answer.status == 304 {
            state.limiter.refund();
            usage.used -= 1;
        }
        (self.api.label(answer, request, &usage), false)
    }

    fn run_hooks(&self, state: &mut State) {
        let count = state.received.len();
        let (due, later) = std::mem::take(&mut state.hooks).into_iter().partition(|(at, _)| *at <= count);
        state.hooks = later;
        for (_, hook) in due {
            hook(&mut Rows { api: &*self.api, store: &mut state.store });
        }
    }
}
