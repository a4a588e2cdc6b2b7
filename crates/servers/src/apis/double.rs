//! The handle of a double.

use std::collections::VecDeque;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use super::api::Api;
use super::fault::Fault;
use super::limit::{Limit, Limiter};
use super::server::{Received, Rows, Server, State, respond};
use super::store::Store;

/// A running double. Dropping it closes its connections.
pub struct Double {
    server: Arc<Server>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Double {
    pub(super) async fn start(api: impl Api, rows: Vec<Value>) -> Double {
        let mut store = Store::default();
        for row in rows {
            store.insert((api.content().id)(&row), row);
        }
        let limiter = Limiter::new(api.pace(), api.limit());
        let (faults, received, hooks) = (VecDeque::new(), Vec::new(), Vec::new());
        let state = Mutex::new(State { store, limiter, faults, received, hooks });
        let server = Arc::new(Server { api: Box::new(api), state });
        let (stop, stopped) = oneshot::channel();
        let (started, address) = oneshot::channel();
        let served = server.clone();
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.unwrap_or_else(|error| panic!("a runtime: {error}"));
            runtime.block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
                let listener = listener.unwrap_or_else(|error| panic!("a port: {error}"));
                let address = listener.local_addr().unwrap_or_else(|error| panic!("the address: {error}"));
                let _starter = started.send(address);
                let router = Router::new().fallback(respond).with_state(served);
                tokio::select! {
                    ended = axum::serve(listener, router) => panic!("the double ended: {ended:?}"),
                    _ = stopped => {}
                }
            });
        });
        let address = address.await.unwrap_or_else(|_| panic!("the double does not start"));
        Double { server, address, stop: Some(stop), thread: Some(thread) }
    }

    /// Port at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Root of the API, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// URL of the list of the rows.
    pub fn list_url(&self) -> String {
        format!("http://{}{}", self.address, self.server.api.list_path())
    }

    /// Headers that a client must send, with a valid credential. Names are in lower case.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        self.server.api.headers()
    }

    /// Adds a row with this content, as a create request has it, and returns its id.
    pub fn insert(&self, content: &Value) -> String {
        self.edit(|rows| rows.insert(content))
    }

    /// Changes a row as an update request with this content does. False if there is no such row.
    pub fn change(&self, id: &str, content: &Value) -> bool {
        self.edit(|rows| rows.change(id, content))
    }

    /// Deletes a row. False if there is no such row.
    pub fn delete(&self, id: &str) -> bool {
        self.edit(|rows| rows.delete(id))
    }

    /// A row as the API answers it.
    pub fn row(&self, id: &str) -> Option<Value> {
        self.edit(|rows| rows.get(id))
    }

    /// All rows in the order of their creation.
    pub fn rows(&self) -> Vec<Value> {
        self.edit(|rows| rows.all())
    }

    /// Reads or changes rows while no request is answered.
    pub fn edit<T>(&self, edit: impl FnOnce(&mut Rows<'_>) -> T) -> T {
        let mut state = self.server.state.lock();
        edit(&mut Rows { api: &*self.server.api, store: &mut state.store })
    }

    /// Runs `hook` once so many more requests have been answered, before the next one is.
    pub fn before(&self, requests: usize, hook: impl FnOnce(&mut Rows<'_>) + Send + 'static) {
        let mut state = self.server.state.lock();
        let at = state.received.len() + requests;
        state.hooks.push((at, Box::new(hook)));
    }

    /// Lets the next `requests` requests fail, after those for which this was asked before.
    pub fn fail_next(&self, requests: usize, fault: Fault) {
        self.server.state.lock().faults.extend(std::iter::repeat_n(fault, requests));
    }

    /// Number of scripted failures that no request has met.
    pub fn faults_left(&self) -> usize {
        self.server.state.lock().faults.len()
    }

    /// Limit that the documentation states.
    pub fn documented_limit(&self) -> Limit {
        self.server.api.limit()
    }

    /// Refuses requests beyond this limit from now on. `None` ends this.
    pub fn set_limit(&self, limit: impl Into<Option<Limit>>) {
        let limiter = &mut self.server.state.lock().limiter;
        match limit.into() {
            Some(limit) => limiter.enforce(limit),
            None => limiter.lift(),
        }
    }

    /// Refuses every request for this time after one that was beyond the limit.
    pub fn set_penalty(&self, penalty: Duration) {
        self.server.state.lock().limiter.penalty = Some(penalty);
    }

    /// Time for which every request is refused after one that was beyond the limit.
    pub fn penalty(&self) -> Option<Duration> {
        self.server.state.lock().limiter.penalty
    }

    /// Makes cursors invalid that were given out before, where the API has opaque ones.
    pub fn expire_cursors(&self) {
        self.server.state.lock().store.expire_cursors();
    }

    /// All requests so far.
    pub fn received(&self) -> Vec<Received> {
        self.server.state.lock().received.clone()
    }

    /// Number of requests so far.
    pub fn count(&self) -> usize {
        self.server.state.lock().received.len()
    }

    /// Number of requests that the rate limit refused.
    pub fn refused(&self) -> usize {
        self.server.state.lock().received.iter().filter(|request| request.refused).count()
    }

    /// Largest number of requests in any span of time of this length.
    pub fn most_within(&self, window: Duration) -> usize {
        let times: Vec<_> = self.server.state.lock().received.iter().map(|request| request.at).collect();
        let from = |start: usize| times[start..].iter().take_while(|time| **time - times[start] < window).count();
        (0..times.len()).map(from).max().unwrap_or(0)
    }
}

impl fmt::Debug for Double {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Double").field("list", &self.list_url()).finish_non_exhaustive()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.stop = None;
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}
