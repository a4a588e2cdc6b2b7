//! Connections to one database, opened when needed and reused.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::{Client, Statement};

use super::address::Address;
use diorama_core::vista::{Error, Result};

/// Maximum number of connections of one resource.
const MAX_CONNECTIONS: usize = 4;

/// Maximum number of prepared statements of a connection; all are dropped when there are more.
const MAX_STATEMENTS: usize = 256;

/// Connections to one database.
#[derive(Debug)]
pub(super) struct Pool {
    address: Address,
    idle: Mutex<Vec<Session>>,
    permits: Arc<Semaphore>,
}

/// A connection with its prepared statements.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: Client,
    statements: HashMap<String, Statement>,
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
        let idle = {
            let mut idle = self.idle.lock();
            idle.retain(|session| !session.client.is_closed());
            idle.pop()
        };
        let session = match idle {
            Some(session) => session,
            None => Session { client: self.address.connect().await?, statements: HashMap::new() },
        };
        Ok(Lease { session, pool: Arc::clone(self), _permit: permit })
    }
}

impl Lease {
    pub(super) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Returns the connection to the pool, unless it has ended. Requires that no statement and no transaction is open.
    pub(super) fn give_back(self) {
        if !self.session.client.is_closed() {
            self.pool.idle.lock().push(self.session);
        }
    }
}

impl Session {
    /// Returns the prepared statement for `sql`.
    pub(super) async fn prepare(&mut self, sql: &str) -> Result<Statement, tokio_postgres::Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        if self.statements.len() >= MAX_STATEMENTS {
            self.statements.clear();
        }
        self.statements.insert(sql.to_string(), statement.clone());
        Ok(statement)
    }

    /// Forgets prepared statements, which are for columns that the table no longer has.
    pub(super) fn forget_statements(&mut self) {
        self.statements.clear();
    }
}
