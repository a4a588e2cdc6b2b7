//! Connections to one database, opened when needed and reused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::address::Address;
use super::rpc::Session;
use diorama_core::vista::{Error, Result};

/// Maximum number of connections of one resource.
const MAX_CONNECTIONS: usize = 4;
/// Idle time after which a connection is tested before it is used again: the server may have closed it.
const TEST_AFTER: Duration = Duration::from_secs(10);
/// Age at which a connection is closed: its login may expire.
const MAX_AGE: Duration = Duration::from_secs(15 * 60);

/// Connections to one database.
#[derive(Debug)]
pub(super) struct Pool {
    address: Address,
    idle: Mutex<Vec<Idle>>,
    permits: Arc<Semaphore>,
}

#[derive(Debug)]
struct Idle {
    session: Session,
    opened: Instant,
    since: Instant,
}

/// A connection in use. It goes back to the pool with [`Lease::give_back`]; dropped before, it is closed, because a statement
/// may still be running.
#[derive(Debug)]
pub(super) struct Lease {
    session: Session,
    opened: Instant,
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
    /// A transient [`Error::Source`] if the server cannot be reached, or refuses the login or the database, which an administrator
    /// may mend.
    pub(super) async fn lease(self: &Arc<Pool>) -> Result<Lease> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| Error::Closed)?;
        let (session, opened) = match self.idle_session().await {
            Some(idle) => idle,
            None => (self.connect().await?, Instant::now()),
        };
        Ok(Lease { session, opened, pool: Arc::clone(self), _permit: permit })
    }

    async fn connect(&self) -> Result<Session> {
        self.address.connect().await.map_err(|error| match error {
            Error::Config(problem) => Error::transient(problem),
            error => error,
        })
    }

    async fn idle_session(&self) -> Option<(Session, Instant)> {
        loop {
            let Idle { mut session, opened, since } = self.idle.lock().pop()?;
            if opened.elapsed() > MAX_AGE {
                continue;
            }
            if since.elapsed() < TEST_AFTER || session.call("ping", Vec::new()).await.is_ok() {
                return Some((session, opened));
            }
        }
    }
}

impl Lease {
    pub(super) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Returns the connection to the pool, unless it has ended. Requires that no transaction is open.
    pub(super) fn give_back(self) {
        if !self.session.is_broken() {
            let idle = Idle { session: self.session, opened: self.opened, since: Instant::now() };
            self.pool.idle.lock().push(idle);
        }
    }
}
