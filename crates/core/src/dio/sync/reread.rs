//! Background reads of the master: the refresh timer, and the rereader of single rows in doubt.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::dio::backoff::Backoff;
use crate::dio::core::Core;
use crate::dio::deliver::breaker::CallPermit;
use crate::dio::handle::Handle;
use crate::record::{Body, Id};
use crate::state::{Command, Notice, ReadRow, check_size};
use crate::vista::{Error, Result};

/// Maximum delay between two attempts to read the same rows in doubt.
const MOST_REST: Duration = Duration::from_secs(8);

/// Refreshes at the interval `every`, first one interval after the start, with jitter so that many Dios do not list at once.
///
/// While the breaker of the source is open, the refresh is delayed until a request is allowed.
pub(crate) async fn timer(core: Arc<Core>, handle: std::sync::Weak<Handle>, every: Duration) {
    let ticking = async {
        loop {
            let most = (every / 20).min(Duration::from_secs(1));
            let jitter = most.mul_f64(f64::from(crate::dio::clock::fraction()) / f64::from(u32::MAX));
            tokio::time::sleep(every + jitter).await;
            let note_skipped = |error: &str| {
                tracing::debug!(dio = %core.name, error, "a timed refresh is skipped: the breaker of the source is open");
                let message = || format!("skipped while the breaker of the source is open: {error}");
                core.sync.last_list.lock().failed.get_or_insert_with(message);
            };
            let probe = admitted(&core, note_skipped).await;
            let Some(handle) = handle.upgrade() else { return };
            // The outcome is published as an event and noted in the freshness.
            let _ = core.refresh_changes(&handle).await;
            core.deliver.source.release(probe, Instant::now());
        }
    };
    tokio::select! {
        () = ticking => {}
        () = core.tasks.closing().cancelled() => {}
    }
}

/// Waits until the breaker of the source admits a background request. Returns true if that is the probe. Calls `on_delay`
/// with the last error before each wait.
pub(crate) async fn admitted(core: &Core, on_delay: impl Fn(&str)) -> bool {
    loop {
        match core.deliver.source.admit(Instant::now()) {
            Ok(probe) => return probe,
            Err(until) => {
                on_delay(&core.deliver.source.error().unwrap_or_default());
                tokio::time::sleep_until(until).await;
            }
        }
    }
}

/// Reads rows in doubt from the master again, one at a time.
///
/// A master that only lists is listed instead, rarely enough that writes cannot keep it busy. A master that was replaced
/// by another is listed again, too.
pub(crate) async fn reread(core: Arc<Core>, handle: std::sync::Weak<Handle>) {
    let closing = core.tasks.closing().clone();
    tokio::select! {
        () = reread_loop(&core, &handle) => {}
        () = closing.cancelled() => {}
    }
}

async fn reread_loop(core: &Arc<Core>, handle: &std::sync::Weak<Handle>) {
    let mut published = core.published.subscribe();
    let pause = Duration::from_millis(20);
    // After a failure the first delay is longer than the pause.
    let mut backoff = Backoff::new(2 * pause, MOST_REST);
    loop {
        published.borrow_and_update();
        let state = core.state();
        let ready: Vec<Id> = state.rereadable().cloned().collect();
        drop(state);
        let replaced = core.vista.shell().is_replaced();
        if ready.is_empty() && !replaced {
            if published.changed().await.is_err() {
                return;
            }
            continue;
        }
        let single = core.vista.shell().reads_one();
        if !single && !replaced {
            let list_time = core.sync.last_list.lock().list_time;
            tokio::time::sleep((list_time * 10).max(Duration::from_secs(10))).await;
        }
        let probe = admitted(core, |_| {}).await;
        let done = match (single && !replaced, core.callbacks.on_refresh.is_some(), handle.upgrade()) {
            (true, ..) => read_rows(core, ready).await,
            (false, true, Some(handle)) => core.refresh(&handle).await.map(drop),
            (false, false, Some(_)) => list_rows(core).await,
            (false, _, None) => return,
        };
        core.deliver.source.release(probe, Instant::now());
        let rest = match done {
            Ok(()) => {
                backoff.reset();
                pause
            }
            Err(_) => backoff.rest(),
        };
        tokio::time::sleep(rest).await;
    }
}

/// Reads these rows. A row that cannot be read does not delay the others. Returns the first error.
async fn read_rows(core: &Arc<Core>, ids: Vec<Id>) -> Result<()> {
    let mut done = Ok(());
    for id in ids {
        while let Err(wait) = core.sync.rereads.take(Instant::now()) {
            tokio::time::sleep(wait).await;
        }
        match read_row(core, &id).await {
            Ok(()) => {}
            Err(Error::Closed) => return Err(Error::Closed),
            Err(error) => {
                tracing::debug!(dio = %core.name, record = %id, %error, "a row in doubt could not be read");
                done = done.and(Err(error));
                if core.deliver.source.permit(Instant::now()) != CallPermit::Closed {
                    return done;
                }
            }
        }
    }
    done
}

async fn read_row(core: &Arc<Core>, id: &Id) -> Result<()> {
    let guard = core.open_guard_for(id).await?;
    let row = core.read_one(id).await?;
    let row = row.map(|record| Body::encode(id, &record, core.vista.schema().layout()));
    row.iter().try_for_each(|body| check_size(id, body))?;
    core.note_mismatches(id, row.as_ref());
    let item = ReadRow { id: Arc::clone(id), row, ordinal: None };
    core.commit(Command::ReadRows { items: vec![item], mark: guard.mark, notice: Notice::RowEvents }).await.map(drop)
}

async fn list_rows(core: &Arc<Core>) -> Result<()> {
    let rows = super::master::list_stamped(core, &crate::vista::Query::default()).await?;
    core.apply_list(rows, true, true).await.map(drop)
}
