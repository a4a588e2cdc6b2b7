//! A connection to a server.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, Pipeline, ScriptInvocation};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::address::{PATIENCE, RedisAddress};
use super::errors::Failure;
use super::safety;

/// A connection. Dropping it closes it.
pub(super) struct Session {
    address: RedisAddress,
    connection: MultiplexedConnection,
    /// Owns the task that reads and writes the socket.
    _driving: JoinSet<()>,
    driver: AbortHandle,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(
        address: RedisAddress,
        connection: MultiplexedConnection,
        driver: impl Future<Output = ()> + Send + 'static,
    ) -> Session {
        let mut driving = JoinSet::new();
        let driver = driving.spawn(driver);
        Session { address, connection, _driving: driving, driver }
    }

    pub(super) fn address(&self) -> &RedisAddress {
        &self.address
    }

    /// True if the connection is lost.
    pub(super) fn is_lost(&self) -> bool {
        self.driver.is_finished()
    }

    /// Runs a command.
    pub(super) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Failure> {
        self.run_waiting(command, Duration::ZERO).await
    }

    /// Runs a command that makes the server wait for so long at most.
    pub(super) async fn run_waiting<T: FromRedisValue>(&self, command: &Cmd, wait: Duration) -> Result<T, Failure> {
        let mut connection = self.connection.clone();
        match timeout(PATIENCE + wait, command.query_async(&mut connection)).await {
            Ok(answer) => answer.map_err(|error| Failure::of(&self.address, &error)),
            Err(_) => Err(Failure::silence(&self.address)),
        }
    }

    /// Runs several commands.
    pub(super) async fn run_all<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, Failure> {
        self.run_all_within(commands, PATIENCE).await
    }

    /// Runs several commands within `patience`.
    pub(super) async fn run_all_within<T: FromRedisValue>(
        &self,
        commands: &Pipeline,
        patience: Duration,
    ) -> Result<T, Failure> {
        let mut connection = self.connection.clone();
        match timeout(patience, commands.query_async(&mut connection)).await {
            Ok(answer) => answer.map_err(|error| Failure::of(&self.address, &error)),
            Err(_) => Err(Failure::silence(&self.address)),
        }
    }

    /// Runs a script, which the server keeps for the next time.
    pub(super) async fn run_script<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, Failure> {
        let mut connection = self.connection.clone();
        match timeout(PATIENCE, script.invoke_async(&mut connection)).await {
            Ok(answer) => answer.map_err(|error| Failure::of(&self.address, &error)),
            Err(_) => Err(Failure::silence(&self.address)),
        }
    }
}

/// The connection of a route, which is made again when it is needed.
#[derive(Debug)]
pub(super) struct SharedSession {
    address: RedisAddress,
    /// `None` before the first command and after a failure.
    connected: tokio::sync::Mutex<Option<Arc<Session>>>,
    warnings: parking_lot::Mutex<Vec<String>>,
}

impl SharedSession {
    pub(super) fn new(address: RedisAddress) -> SharedSession {
        SharedSession { address, connected: tokio::sync::Mutex::default(), warnings: parking_lot::Mutex::default() }
    }

    /// Returns the connection, or makes one and asks how safely the server stores.
    pub(super) async fn get(&self) -> Result<Arc<Session>, Failure> {
        let mut connected = self.connected.lock().await;
        if let Some(session) = connected.as_ref().filter(|session| !session.is_lost()) {
            return Ok(Arc::clone(session));
        }
        *connected = None;
        let session = Arc::new(self.address.connect().await?);
        let warnings = safety::warnings(&session).await?;
        let known = std::mem::replace(&mut *self.warnings.lock(), warnings.clone());
        for warning in warnings.iter().filter(|warning| !known.contains(warning)) {
            tracing::warn!("{warning}");
        }
        *connected = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Closes `session`, so that the next command makes another one.
    pub(super) async fn discard(&self, session: &Arc<Session>) {
        let mut connected = self.connected.lock().await;
        if connected.as_ref().is_some_and(|own| Arc::ptr_eq(own, session)) {
            *connected = None;
        }
    }

    /// Warnings about the server, as far as it was asked.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.warnings.lock().clone()
    }
}
