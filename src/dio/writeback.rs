//! The task behind the cache file: flushes what waits, then lets the journal forget what nobody needs.

use std::sync::Arc;
use std::time::Duration;

use super::commit::now;
use super::core::Core;
use crate::cache::CacheError;

/// How long a confirmed row may wait for the cache file.
const EVERY: Duration = Duration::from_secs(1);

/// Flushes until the Dio closes.
pub(super) async fn run(core: Arc<Core>) {
    let mut wait = EVERY;
    let mut published = core.published.subscribe();
    // What the journal had and the cache file had not waits since before the start.
    published.mark_changed();
    loop {
        // Sleep only once there is something to write: an idle Dio costs nothing.
        tokio::select! {
            changed = published.changed() => if changed.is_err() { return },
            () = core.tasks.closing().cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = core.store.full.notified() => {}
            () = core.tasks.closing().cancelled() => return,
        }
        published.borrow_and_update();
        let flushed = match core.store.flush().await {
            // The file was set aside and a new one begun: it gets every row again.
            Err(CacheError::Corrupt { .. }) => match core.store.rewrite(|| core.state()).await {
                Ok(()) => core.store.flush().await,
                Err(error) => Err(error),
            },
            flushed => flushed,
        };
        match flushed {
            Ok(watermark) => {
                wait = EVERY;
                trim(&core, watermark).await;
            }
            Err(error) => {
                tracing::warn!(dio = %core.name, %error, "the cache file could not be written; trying again");
                wait = (wait * 2).min(Duration::from_secs(30));
                core.published.send_modify(|_| {});
            }
        }
    }
}

/// Drops events beyond `keep_events`, never those that the cache file has not seen nor those of open operations.
async fn trim(core: &Arc<Core>, watermark: u64) {
    let state = core.state();
    let keep = core.settings.keep_events;
    let before = state.seq().saturating_sub(keep).min(watermark);
    // A tenth at a time: each trim is a transaction of its own.
    let mut trimmed = core.trimmed.lock().await;
    if before < *trimmed + (keep / 10).max(1) {
        return;
    }
    match core.journal.trim(&core.name, before, &state.kept_entries(), now()).await {
        Ok(()) => *trimmed = before,
        Err(error) => tracing::warn!(dio = %core.name, %error, "the journal could not be trimmed"),
    }
}
