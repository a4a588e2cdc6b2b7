//! Connections to one database, opened when needed and reused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Error as MyError, Row, Value};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::address::Address;
use diorama_core::vista::Error;

type Result<T, E = Error> = std::result::Result<T, E>;

/// Maximum number of connections of one resource.
const MAX_CONNECTIONS: usize = 4;

/// Idle time after which a connection is tested before it is used again: the server may have closed it.
const TEST_AFTER: Duration = Duration::from_secs(30);

/// Connections to one database.
#[derive(Debug)]
pub(super) struct Pool {
    address: Address,
    idle: Mutex<Vec<(Session, Instant)>>,
    permits: Arc<Semaphore>,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) conn: Conn,
    /// True after an error that leaves the connection in an unknown state.
    is_broken: bool,
}

/// A connection in use. It goes back to the pool with [`Lease::give_back`]; dropped before, it is closed, because a statement
/// may still be running.
#[derive(Debug)]
pub(super) struct Lease {
    session: Session,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new(address: Address) -> Arc<Pool> {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Arc::new(Pool { address, idle: Mutex::default(), permits })
    }

    /// Returns an idle connection, or opens one; waits while too many are in use.
    ///
    /// # Errors
    /// [`Error::Source`] if the server cannot be reached.
    pub(super) async fn lease(self: &Arc<Pool>) -> Result<Lease> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| Error::Closed)?;
        let session = match self.idle_session().await {
            Some(session) => session,
            None => Session::new(self.address.connect().await?),
        };
        Ok(Lease { session, pool: Arc::clone(self), _permit: permit })
    }

    async fn idle_session(&self) -> Option<Session> {
        loop {
            let (mut session, since) = self.idle.lock().pop()?;
            if since.elapsed() < TEST_AFTER || session.conn.ping().await.is_ok() {
                return Some(session);
            }
        }
    }
}

impl Lease {
    pub(super) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Returns the connection to the pool, unless it has ended. Requires that no statement and no transaction is open.
    pub(super) fn give_back(self) {
        if !self.session.is_broken() {
            self.pool.idle.lock().push((self.session, Instant::now()));
        }
    }
}

impl Session {
    pub(super) fn new(conn: Conn) -> Session {
        Session { conn, is_broken: false }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.is_broken || self.conn.is_disconnected()
    }

    /// Marks the connection as broken if an error has left it in an unknown state.
    fn note<T>(&mut self, done: Result<T, MyError>) -> Result<T, MyError> {
        self.is_broken |= done.as_ref().is_err_and(MyError::is_fatal);
        done
    }

    /// Executes `sql`, whose results are not needed. It may be several statements.
    pub(super) async fn run(&mut self, sql: &str) -> Result<(), MyError> {
        let done = self.conn.query_drop(sql).await;
        self.note(done)
    }

    /// Returns the rows of `sql`, whose values all come as text.
    pub(super) async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, MyError> {
        let rows = self.conn.query(sql).await;
        self.note(rows)
    }

    /// Returns the rows of each of two statements, separated by `;`, in one round trip.
    pub(super) async fn two(&mut self, statements: &str) -> Result<[Vec<Row>; 2], MyError> {
        let both = async {
            let mut result = self.conn.query_iter(statements).await?;
            let both = [result.collect::<Row>().await?, result.collect::<Row>().await?];
            result.drop_result().await?;
            Ok(both)
        };
        let both = both.await;
        self.note(both)
    }

    /// Gives the rows of a prepared statement to `take`.
    pub(super) async fn each(&mut self, sql: &str, params: Vec<Value>, take: impl FnMut(Row)) -> Result<(), MyError> {
        let read = async {
            let result = self.conn.exec_iter(sql, params).await?;
            result.for_each_and_drop(take).await
        };
        let done = read.await;
        self.note(done)
    }

    /// Executes `count` statements, separated by `;`, in one round trip. Returns the number of rows that each affected, and the
    /// rows of the last one.
    ///
    /// # Errors
    /// The first error, with the index of its statement. The statements after it are not executed.
    pub(super) async fn run_all(
        &mut self,
        statements: &str,
        count: usize,
    ) -> Result<(Vec<u64>, Vec<Row>), (usize, MyError)> {
        let mut affected = Vec::with_capacity(count);
        let mut rows = Vec::new();
        let done = async {
            let mut result = self.conn.query_iter(statements).await?;
            for _ in 0..count {
                affected.push(result.affected_rows());
                // The error of a statement is reported here, when its result is read.
                rows = result.collect::<Row>().await?;
            }
            result.drop_result().await
        };
        let done = done.await;
        match self.note(done) {
            Ok(()) => Ok((affected, rows)),
            Err(error) => Err((affected.len().saturating_sub(1), error)),
        }
    }

    /// Ends the transaction without an effect. A connection that does not is closed, which has the same effect.
    pub(super) async fn rollback(&mut self) {
        // The first attempt may report the error of a statement before it again.
        if !self.is_broken() && self.run("ROLLBACK").await.is_err() && self.run("ROLLBACK").await.is_err() {
            self.is_broken = true;
        }
    }
}
