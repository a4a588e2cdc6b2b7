//! Scope of a running callback, which its calls on the Dio can see.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::callbacks::CallbackFuture;
use super::core::Core;
use super::guard::Guard;
use super::handle::Dio;
use super::sync::replacement_rows::ReplacementRows;
use super::sync::report::RefreshDemands;
use crate::record::Rows;
use crate::state::{OpId, Outcome};
use crate::vista::{Error, Result};

/// Kind of the running callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Start,
    Refresh,
    Write,
    Event,
    Query,
    Load,
}

/// Scope of a running callback, visible to its calls on the Dio. It is task-local: tasks that the callback spawns have none.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) dio: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) op: Option<OpId>,
    /// Demands of the caller, in `on_start` and `on_refresh`.
    pub(crate) demands: RefreshDemands,
    /// The last complete list that the callback gave to the cache.
    pub(crate) listed: Mutex<Option<Arc<Rows>>>,
    /// Differences of the callback, and whether they were published as row events.
    pub(crate) covered: Mutex<RefreshNotices>,
    /// Mark of the start of the callback, in `on_start` and `on_refresh`.
    pub(super) guard: Option<Guard>,
    /// Rows of a replacement, which begins with the callback's `cache().clear()`.
    pub(super) replacement_rows: Mutex<Option<ReplacementRows>>,
    /// True if the callback panicked.
    pub(super) panicked: AtomicBool,
}

/// Differences of a refresh, and how they were published.
#[derive(Clone, Debug, Default)]
pub(crate) struct RefreshNotices {
    /// Numbers of changed rows.
    pub(crate) outcome: Outcome,
    /// True if differences were published as row events.
    pub(crate) published: bool,
    /// True if differences were not published: silent cache writes, or too many for the log.
    pub(crate) silent: bool,
}

impl Scope {
    pub(crate) fn new(dio: &Arc<str>, kind: Kind) -> Scope {
        Scope {
            dio: Arc::clone(dio),
            kind,
            op: None,
            demands: RefreshDemands { allow_shrink: false, whole: false },
            listed: Mutex::new(None),
            covered: Mutex::new(RefreshNotices::default()),
            guard: None,
            replacement_rows: Mutex::new(None),
            panicked: AtomicBool::new(false),
        }
    }

    /// Returns true if the callback makes the copy, and may see and change the rows so far.
    pub(super) fn makes_copy(&self) -> bool {
        matches!(self.kind, Kind::Start | Kind::Refresh)
    }

    /// Returns true if the callback panicked.
    pub(super) fn panicked(&self) -> bool {
        self.panicked.load(Ordering::Acquire)
    }
}

tokio::task_local! {
    static SCOPE: Arc<Scope>;
}

/// Scope of the running callback, if it belongs to the Dio that owns the string `dio`. Compared by address, because a Dio
/// of another Lens may have the same name.
pub(crate) fn scope_of(dio: &str) -> Option<Arc<Scope>> {
    SCOPE.try_with(Arc::clone).ok().filter(|scope| std::ptr::eq(&*scope.dio, dio))
}

/// Runs `work` in the scope of a callback that has returned.
pub(super) async fn within<T>(scope: &Arc<Scope>, work: impl Future<Output = T>) -> T {
    SCOPE.scope(Arc::clone(scope), work).await
}

/// Runs a callback's future in its scope, in a task of its own.
///
/// Dropping the caller's future does not cancel it, a panic becomes an error, and a closing Dio waits for it at most
/// `drain_timeout`. Only an `on_write` is cancelled with its caller, because an abandoned attempt must not deliver after
/// its successor.
pub(crate) async fn run<T: Send + 'static>(core: &Core, scope: Arc<Scope>, future: CallbackFuture<T>) -> Result<T> {
    let grace = core.settings.drain_timeout;
    let delivers = scope.kind == Kind::Write;
    let task = core.tasks.spawn_bounded(grace, SCOPE.scope(Arc::clone(&scope), future));
    let joined = if delivers { AbortOnDropHandle::new(task).await } else { task.await };
    match joined {
        Ok(done) => done.unwrap_or(Err(Error::Closed)),
        Err(error) if error.is_panic() => {
            scope.panicked.store(true, Ordering::Release);
            Err(Error::unknown(format!("a callback panicked: {}", panic_text(error))))
        }
        Err(_) => Err(Error::Closed),
    }
}

/// Future that calls a callback and runs its future, so that the call itself is in the scope and the task of [`run`].
pub(crate) fn calling<T: 'static>(
    dio: Dio,
    call: impl FnOnce(&Dio) -> CallbackFuture<T> + Send + 'static,
) -> CallbackFuture<T> {
    Box::pin(async move {
        let future = call(&dio);
        // A Dio that is held until the callback ends could not be closed by dropping all others.
        drop(dio);
        future.await
    })
}

fn panic_text(error: tokio::task::JoinError) -> String {
    let panic = error.into_panic();
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
