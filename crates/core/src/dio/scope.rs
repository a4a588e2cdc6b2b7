//! Scope of a running callback: what its calls on the Dio can know of their surroundings.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::core::Core;
use super::guard::Guard;
use super::handle::Dio;
use super::hooks::HookFuture;
use super::sync::replacement_rows::ReplacementRows;
use crate::record::Rows;
use crate::state::{OpId, Outcome};
use crate::vista::{Error, Result};

/// Which callback runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Start,
    Refresh,
    Write,
    Event,
    Query,
    Load,
}

/// What a callback's calls on its Dio can know of their surroundings. Task-local: a task that the callback spawns has none.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) dio: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) op: Option<OpId>,
    /// Whether somebody said that the list may be much smaller than what is cached.
    pub(crate) allow_shrink: bool,
    /// The last complete list that was given to the cache meanwhile.
    pub(crate) listed: Mutex<Option<Arc<Rows>>>,
    /// Whether everything the callback changed was told as row events.
    pub(crate) covered: Mutex<RefreshNotices>,
    /// Mark of the callback's beginning, in `on_start` and `on_refresh`.
    pub(super) guard: Option<Guard>,
    /// Rows of a replacement: from the callback's `cache().clear()` on.
    pub(super) replacement_rows: Mutex<Option<ReplacementRows>>,
    /// Whether the callback panicked.
    pub(super) panicked: AtomicBool,
}

/// How a refresh told its differences.
#[derive(Clone, Debug, Default)]
pub(crate) struct RefreshNotices {
    /// What it changed.
    pub(crate) outcome: Outcome,
    /// By row events of `reconcile`.
    pub(crate) told: bool,
    /// By raw, silent cache writes, or too many for the log.
    pub(crate) silent: bool,
}

impl Scope {
    pub(crate) fn new(dio: &Arc<str>, kind: Kind) -> Scope {
        Scope {
            dio: Arc::clone(dio),
            kind,
            op: None,
            allow_shrink: false,
            listed: Mutex::new(None),
            covered: Mutex::new(RefreshNotices::default()),
            guard: None,
            replacement_rows: Mutex::new(None),
            panicked: AtomicBool::new(false),
        }
    }

    /// Whether the callback makes the copy: it sees and changes what is there so far.
    pub(super) fn makes_copy(&self) -> bool {
        matches!(self.kind, Kind::Start | Kind::Refresh)
    }

    /// Whether the callback panicked.
    pub(super) fn panicked(&self) -> bool {
        self.panicked.load(Ordering::Acquire)
    }
}

tokio::task_local! {
    static SCOPE: Arc<Scope>;
}

/// The scope of the running callback, if it is one of the Dio whose own name is `dio`: a Dio of another Lens may be called the
/// same.
pub(crate) fn scope_of(dio: &str) -> Option<Arc<Scope>> {
    SCOPE.try_with(Arc::clone).ok().filter(|scope| std::ptr::eq(&*scope.dio, dio))
}

/// Runs what belongs to a callback that has returned.
pub(super) async fn within<T>(scope: &Arc<Scope>, work: impl Future<Output = T>) -> T {
    SCOPE.scope(Arc::clone(scope), work).await
}

/// Runs a callback's future in its scope, in a task of its own: a caller that goes away does not cancel it, a panic is an
/// error, and a closing Dio waits for it no longer than its `drain_timeout`. Only an `on_write` ends with its caller: an
/// attempt that was given up must not deliver after its successor.
pub(crate) async fn run<T: Send + 'static>(core: &Core, scope: Arc<Scope>, future: HookFuture<T>) -> Result<T> {
    let grace = core.settings.drain_timeout;
    let delivers = scope.kind == Kind::Write;
    let task = core.tasks.spawn_bounded(grace, SCOPE.scope(Arc::clone(&scope), future));
    let joined = if delivers { AbortOnDropHandle::new(task).await } else { task.await };
    match joined {
        Ok(done) => done.unwrap_or(Err(Error::Closed)),
        Err(error) if error.is_panic() => {
            scope.panicked.store(true, Ordering::Release);
            Err(Error::unknown(format!("a hook panicked: {}", panic_text(error))))
        }
        Err(_) => Err(Error::Closed),
    }
}

/// A callback's future that begins with calling it: in the scope and in the task that [`run`] gives it.
pub(crate) fn calling<T: 'static>(
    dio: Dio,
    call: impl FnOnce(&Dio) -> HookFuture<T> + Send + 'static,
) -> HookFuture<T> {
    Box::pin(async move {
        let future = call(&dio);
        // A Dio held here until the hook ends could not be closed by dropping all others.
        drop(dio);
        future.await
    })
}

fn panic_text(error: tokio::task::JoinError) -> String {
    let panic = error.into_panic();
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
