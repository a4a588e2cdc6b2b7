//! The task behind the cache file: flushes what waits, then lets the journal forget what nobody needs.

use std::sync::Arc;
use std::time::Duration;

use super::retention::Bounds;
use crate::cache::CacheError;
use crate::dio::clock::now;
use crate::dio::core::Core;

/// How long a confirmed row may wait for the cache file.
const EVERY: Duration = Duration::from_secs(1);

/// Flushes until the Dio closes.
pub(crate) async fn run(core: Arc<Core>) {
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

/// Drops events beyond what is to be kept, never those that the cache file has not seen nor those of open operations.
async fn trim(core: &Arc<Core>, watermark: u64) {
    let (state, settings, now) = (core.state(), &core.settings, now());
    let bounds = Bounds { count: settings.keep_events, bytes: settings.keep_bytes, age: settings.keep_for };
    let mut trimmed = core.commit.trimmed.lock().await;
    let before = {
        let retention = core.commit.retention.lock();
        let before = |bounds| retention.before(bounds, state.seq(), now).min(watermark);
        if before(bounds.with_slack()) <= *trimmed {
            return;
        }
        before(bounds)
    };
    match core.journal.trim(&core.name, before, &state.kept_entries(), now).await {
        Ok(()) => {
            *trimmed = before;
            core.commit.retention.lock().trimmed(before);
        }
        Err(error) => tracing::warn!(dio = %core.name, %error, "the journal could not be trimmed"),
    }
}
