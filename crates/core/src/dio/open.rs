//! Opening a Dio: cache file, journal, ring, tasks, `on_start`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::callbacks::Callbacks;
use super::commit::committer::Committer;
use super::commit::retention::Retention;
use super::commit::stage::apply;
use super::commit::store::Store;
use super::core::{Core, Parts};
use super::deliver::carried_ops::{self, CarriedOps};
use super::deliver::worker;
use super::events::ring::{Ring, RingItem};
use super::handle::{Dio, Handle};
use super::settings::{Settings, WriteRoute};
use super::sync::state::LastList;
use super::sync::{reread, start};
use crate::cache::{CacheError, CacheMeta, LoadReport, RowStore, RowTable, StoredRow};
use crate::journal::{Journal, JournalError, LogEntry, LogState, Seq};
use crate::record::Layout;
use crate::state::{Base, CacheChange, Entry, OpState, Rules, State};
use crate::table::TableBuilder;
use crate::vista::{Error, Result, Schema, SourceShape, Vista};

/// Resources and settings that a Lens passes to its Dios.
pub(crate) struct Surroundings {
    pub(crate) cache: Arc<dyn RowStore>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) settings: Settings,
    pub(crate) callbacks: Callbacks,
}

impl From<JournalError> for Error {
    fn from(error: JournalError) -> Error {
        match error {
            JournalError::Closed => Error::Closed,
            other => Error::Storage { detail: other.to_string(), full: false },
        }
    }
}

impl From<CacheError> for Error {
    fn from(error: CacheError) -> Error {
        match error {
            CacheError::Closed => Error::Closed,
            CacheError::Io { full, .. } => Error::Storage { detail: error.to_string(), full },
            other => Error::Storage { detail: other.to_string(), full: false },
        }
    }
}

/// State of a Dio as recovered from the cache file and the journal.
struct RecoveredState {
    state: State,
    meta: CacheMeta,
    ring: Ring,
    retention: Retention,
    /// Changes of confirmed rows in the log that the cache file lacks.
    behind: Vec<CacheChange>,
    /// Reason why cached rows may differ from the log, if any: subscribers and the Dio read again.
    doubt: Option<String>,
    /// Operations that an older journal brought back.
    carried_ops: CarriedOps,
}

/// A Dio whose tasks run, before `on_start`. Dropped before [`StartingDio::begin`] is done, it closes, even if there are
/// clones.
pub(crate) struct StartingDio {
    pub(crate) dio: Dio,
    /// True if the rows may differ from the log.
    doubted: bool,
    /// Indexes that queries had built before the last stop.
    indexes: Vec<String>,
    begun: bool,
}

impl StartingDio {
    /// Runs `on_start`.
    pub(crate) async fn begin(mut self) -> Result<Dio> {
        let begun = begin(&self.dio, self.doubted, &self.indexes).await;
        if begun.is_err() {
            // The name is free only once the Dio has closed.
            Arc::clone(&self.dio.0.core).finish().await;
        }
        self.begun = true;
        begun.map(|()| self.dio.clone())
    }
}

impl Drop for StartingDio {
    fn drop(&mut self) {
        if !self.begun {
            self.dio.0.end();
        }
    }
}

/// Opens the Dio of `vista`: recovers its state from the files and starts its tasks.
pub(crate) async fn open(vista: Vista, around: Surroundings) -> Result<StartingDio> {
    let source = SourceShape::of(&vista);
    let schema = vista.schema();
    let shape = schema.id_column().to_string();
    check_shape(&*around.journal, vista.name(), &shape).await?;
    let cached = load(&*around.cache, vista.name(), schema.layout()).await?;
    let table = Arc::clone(&cached.table);
    let damaged = cached.loaded.damaged > 0;
    let log = around.journal.open(vista.name(), &shape).await?;
    let rules = Arc::new(Rules {
        version: around.settings.version.clone(),
        trust_payload: around.settings.trust_payload,
        routed_ttl: around.settings.routed_ttl.map(|ttl| ttl.as_millis().try_into().unwrap_or(u64::MAX)),
        ..Rules::new(schema)
    });
    let recovered = recover(&*around.journal, cached, log, rules, &around.settings, &shape).await?;
    let doubt = recovered.doubt;
    let opened_whole = recovered.meta.complete_at.is_some() && doubt.is_none();
    let last_list = LastList { complete: recovered.meta.complete_at.is_some(), ..LastList::default() };
    let committer = around.committer.handle(&around.journal);
    let indexes = recovered.meta.indexes.clone();
    let store = Store::new(table, CacheMeta { source: Some(source), ..recovered.meta });
    store.add(recovered.behind, recovered.state.seq());
    let core = Arc::new(Core::new(Parts {
        settings: around.settings,
        callbacks: around.callbacks,
        vista,
        journal: around.journal,
        committer,
        state: recovered.state,
        ring: recovered.ring,
        store,
        last_list,
        retention: recovered.retention,
    }));
    if damaged && let Err(error) = core.store.rewrite(|| core.state()).await {
        // The cache writer or the next start finds the damage again.
        tracing::warn!(dio = %core.name, %error, "the damaged rows could not be removed from the cache file");
    }
    // Deliveries wait until the source was listed: otherwise one could run during the read of its own row.
    core.sync.seeding.store(core.state().lacks_rows(), Ordering::Release);
    core.sync.opened_whole.store(opened_whole, Ordering::Release);
    // Boxed because it is rare, and makes the future of every start larger.
    Box::pin(announce(&core, doubt.as_deref())).await;
    mark_unknown(&core, recovered.carried_ops);
    let dio = Dio(Arc::new(Handle::new(Arc::clone(&core))));
    start_tasks(&dio);
    Ok(StartingDio { dio, doubted: doubt.is_some(), indexes, begun: false })
}

/// Publishes `Invalidated` if the rows are in doubt, or if the earlier process has not announced changes without row events. It is
/// the first event of this process: those that follow need not fit the rows that subscribers have from before.
async fn announce(core: &Arc<Core>, doubt: Option<&str>) {
    if let Some(why) = doubt {
        tracing::warn!(dio = %core.name, why, "cached rows may be older than the log; subscribers read again");
    } else if !core.state().has_silent_changes() {
        return;
    }
    // The rows are read again even if the journal cannot be written now.
    if core.publish_invalidated(false).await.is_err() {
        core.invalidate(None);
    }
}

/// Refuses a log in memory that would hide accepted writes.
///
/// These are writes that wait in the `durable` journal, and writes on a route around the master, which only the log has.
pub(crate) async fn check_memory_log(
    vista: &Vista,
    durable: &dyn Journal,
    settings: &Settings,
    callbacks: &Callbacks,
) -> Result<()> {
    if callbacks.on_write.is_some() && settings.write_route == WriteRoute::Around {
        let detail = "writes that go around the source are only in the log until the source shows them: \
                      they need a log on disk (ack = \"journal\" or \"applied\")";
        return Err(Error::Config(detail.into()));
    }
    if !durable.logs().await?.iter().any(|log| **log == *vista.name()) {
        return Ok(());
    }
    let left = unsettled(&at_rest(durable, vista.name()).await?);
    if left == 0 {
        return Ok(());
    }
    Err(Error::Config(format!(
        "{left} accepted writes wait in the journal on disk, which a log in memory does not read: start once more with \
         ack = \"journal\" until they are settled, or settle them with `diorama ops`"
    )))
}

/// Refuses a change of the id column while accepted writes wait, because they name rows by ids of the old column.
async fn check_shape(journal: &dyn Journal, log: &str, shape: &str) -> Result<()> {
    let Some(stored) = journal.shape(log).await?.filter(|stored| stored != shape) else { return Ok(()) };
    match unsettled(&at_rest(journal, log).await?) {
        0 => Ok(()),
        left => Err(Error::Config(format!(
            "{left} accepted writes wait for rows by the id column {stored:?}, which is now {shape:?}: start once more with \
             id = {stored:?} until they are settled, or settle them with `diorama ops`"
        ))),
    }
}

/// State with the operations of a log, without its rows.
///
/// # Errors
/// [`Error::Storage`](crate::Error::Storage) if the journal cannot be read.
pub async fn at_rest(journal: &dyn Journal, log: &str) -> Result<State> {
    let mut state = State::new(Arc::new(Rules::new(Arc::new(Schema::new("id", Vec::new())))), "", Seq::MAX);
    let mut after = 0;
    loop {
        let entries = journal.read(log, after, REPLAYED).await?;
        let Some(last) = entries.last() else { return Ok(state) };
        after = last.seq;
        for stored in &entries {
            state.apply(&decode(stored, log)?);
        }
    }
}

/// Number of open and parked operations.
fn unsettled(state: &State) -> usize {
    state.ops().filter(|op| op.is_open() || op.state == OpState::Parked).count()
}

/// Runs `on_start`, and refreshes if rows in doubt were not read again by it.
async fn begin(dio: &Dio, doubted: bool, indexes: &[String]) -> Result<()> {
    let core = &dio.0.core;
    if let Err(error) = core.finish_purges().await {
        tracing::warn!(dio = %core.name, %error, "a purge is not finished yet: the next purge or the next start continues it");
    }
    // Indexes of cached rows are built before these are served. If the rows have to be listed first, `on_start` builds
    // the indexes after that.
    core.build_configured().await?;
    if !core.settings.offline {
        core.build_remembered(indexes);
    }
    start::run(dio).await?;
    if doubted && core.callbacks.on_refresh.is_some() && core.sync.last_list.lock().at.is_none() {
        let (core, handle) = (Arc::clone(core), Arc::downgrade(&dio.0));
        let tasks = core.tasks.clone();
        tasks.spawn(async move {
            if let Some(handle) = handle.upgrade() {
                // The outcome is published as an event and noted in the freshness.
                let _ = core.refresh(&handle).await;
            }
        });
    }
    Ok(())
}

/// Bytes of the log that are read at a time.
const REPLAYED: usize = 4 << 20;

/// A table of the cache with its rows.
struct Cached {
    table: Arc<dyn RowTable>,
    loaded: LoadReport,
    rows: crate::table::Table,
}

/// Maximum number of attempts to read a table. Damage that shows only during the read sets the file aside, and the next
/// attempt gets a new file. Each Dio of a Lens may find such damage.
const LOADS: u32 = 4;

async fn load(cache: &dyn RowStore, name: &str, layout: &Layout) -> Result<Cached> {
    let mut attempt = 1;
    loop {
        match load_once(cache, name, layout).await {
            Err(error @ (CacheError::Corrupt { .. } | CacheError::Io { .. })) if attempt < LOADS => {
                tracing::warn!(dio = name, %error, "the cache cannot be read; trying again");
                attempt += 1;
            }
            loaded => return Ok(loaded?),
        }
    }
}

async fn load_once(cache: &dyn RowStore, name: &str, layout: &Layout) -> std::result::Result<Cached, CacheError> {
    let table = cache.open_table(name).await?;
    let mut builder = TableBuilder::new();
    let mut sink = |rows: Vec<StoredRow>| {
        for row in rows {
            builder.push_at(row.slot, &row.id, &row.body, row.ordinal);
        }
    };
    let mut loaded = table.load(layout, &mut sink).await?;
    let mut rows = builder.finish();
    let known = loaded.meta.as_ref().map_or("", |meta| &meta.shape);
    if known != layout.id_column() && !(known.is_empty() && rows.is_empty()) {
        // Rows that are stored by ids of another column are not usable.
        table.clear().await?;
        rows = crate::table::Table::new();
        (loaded.meta, loaded.versions) = (None, None);
    }
    Ok(Cached { table, loaded, rows })
}

/// A log that may be older than the cache, or another log.
struct OlderLog {
    why: String,
    /// True if its epoch ends once the cache has the confirmed rows of the log.
    ends: bool,
}

/// Checks whether the log continues the cache file, and whether the journal itself reports a doubt.
///
/// A log that does not continue the cache begins a new epoch at once, and keeps the entries of its operations.
async fn compare(journal: &dyn Journal, log: &mut LogState, meta: &mut CacheMeta) -> Result<Option<OlderLog>> {
    let fits = meta.epoch.is_empty() || meta.epoch == log.epoch && meta.watermark <= log.head;
    match (log.doubt.take(), fits) {
        (None, true) => Ok(None),
        (Some(why), true) => Ok(Some(OlderLog { why, ends: true })),
        (doubt, false) => {
            // A new log has begun its epoch already.
            let new = log.head == 0 && doubt.is_none();
            let why = doubt.unwrap_or_else(|| "the journal does not continue the state of the cache file".into());
            if !new {
                let at_least = if meta.epoch == log.epoch { meta.watermark } else { 0 };
                let keep = at_rest(journal, &log.log).await?.kept_entries();
                *log = journal.new_epoch(&log.log, at_least, &keep, &why).await?;
            }
            meta.watermark = log.head;
            Ok(Some(OlderLog { why, ends: false }))
        }
    }
}

async fn recover(
    journal: &dyn Journal,
    cached: Cached,
    mut log: LogState,
    rules: Arc<Rules>,
    settings: &Settings,
    shape: &str,
) -> Result<RecoveredState> {
    let Cached { loaded: LoadReport { meta, damaged, versions }, rows, .. } = cached;
    let mut doubt = (damaged > 0).then(|| "rows of the cache file are damaged".to_string());
    let mut meta = meta.unwrap_or_default();
    if damaged > 0 {
        // A row that could not be read must not be reported as missing: the source is read first.
        meta.complete_at = None;
    }
    let older = compare(journal, &mut log, &mut meta).await?;
    if let Some(OlderLog { why, .. }) = &older {
        doubt = Some(why.clone());
    } else if meta.watermark + 1 < log.oldest && log.head > 0 {
        doubt = Some("the journal no longer reaches back to the cache file".into());
    } else if meta.bulk {
        doubt = Some("a large refresh was interrupted".into());
    }
    meta.shape = shape.to_string();
    let epoch: Arc<str> = log.epoch.as_str().into();
    let mut state = State::restore(rules, Arc::clone(&epoch), meta.watermark, rows);
    let versions_kept = versions.is_some();
    versions.into_iter().for_each(|versions| state.restore_versions(versions));
    let mut ring = Ring::new(settings.ring, epoch, log.oldest.saturating_sub(1));
    let (mut behind, mut retention) = (Vec::new(), Retention::default());
    let is_restored = older.is_some();
    let ends = older.filter(|older| older.ends);
    if ends.is_some() {
        log.begun = log.head;
    }
    let mut carried_ops = CarriedOps::new();
    let bodiless =
        replay(journal, &log, &mut state, (&ring, &mut retention), meta.watermark, (&mut behind, &mut carried_ops))
            .await?;
    if bodiless {
        doubt = Some("a large refresh was interrupted".into());
    }
    state.advance(log.head);
    carried_ops::retain_queued(&mut carried_ops, &state);
    if let Some(OlderLog { why, .. }) = ends {
        log = journal.new_epoch(&log.log, 0, &state.kept_entries(), &why).await?;
        state.begin_epoch(log.epoch.as_str());
        ring = Ring::new(settings.ring, log.epoch.as_str().into(), log.oldest.saturating_sub(1));
        retention = Retention::default();
    }
    meta.epoch = log.epoch.clone();
    if !versions_kept {
        behind.extend(state.all_versions().map(|(id, versions)| CacheChange::Versions(id, Some(versions))));
    }
    if doubt.is_some() || meta.complete_at.is_none() {
        // Among damaged rows, old ones may look intact; under the writes of an older journal, any row may differ.
        state.doubt_missing(meta.gap || damaged > 0 || is_restored);
    }
    if state.lacks_rows() {
        // The next start needs this, too.
        meta.complete_at = None;
        meta.gap = state.has_gap();
    }
    Ok(RecoveredState { state, meta, ring, retention, behind, doubt, carried_ops })
}

/// Brings `state` up to the log's head and refills the ring.
///
/// Collects the changes that the cache file lacks in `behind`, and the operations of earlier epochs in `carried_ops`.
/// Returns true if rows changed whose values the log does not have.
async fn replay(
    journal: &dyn Journal,
    log: &LogState,
    state: &mut State,
    (ring, retention): (&Ring, &mut Retention),
    watermark: u64,
    (behind, carried_ops): (&mut Vec<CacheChange>, &mut CarriedOps),
) -> Result<bool> {
    let layout = Arc::clone(state.rules().schema.layout());
    let mut after = 0;
    let mut bodiless = false;
    loop {
        let entries = journal.read(&log.log, after, REPLAYED).await?;
        let Some(last) = entries.last() else { return Ok(bodiless) };
        after = last.seq;
        let mut items = Vec::new();
        for stored in entries {
            let entry = decode(&stored, &log.log)?;
            let at = entry.at;
            if stored.seq <= log.begun {
                carried_ops::note(carried_ops, &entry, &layout);
            }
            bodiless |= stored.seq > watermark && lacks_rows(&entry);
            let cached = (stored.seq <= watermark).then(|| entry.clone());
            let (change, item) = apply(state, entry, &mut false);
            if !matches!(change, CacheChange::None) {
                behind.push(change);
            }
            if stored.seq >= log.oldest {
                retention.note(stored.seq, at, stored.bytes.len());
                // The cache file may have a later state of the row: then only the entry has this one.
                items.extend(match cached {
                    Some(entry) => RingItem::read_back(entry, &layout),
                    None => item,
                });
            }
        }
        ring.push(items);
    }
}

/// Returns true if an entry changed rows whose values it does not have.
fn lacks_rows(entry: &Entry) -> bool {
    matches!(&entry.base, Base::Many { carried, .. } if carried.is_empty())
}

fn decode(stored: &LogEntry, log: &str) -> Result<Entry> {
    let message = |detail| format!("entry {} of log {log:?} cannot be read: {detail}", stored.seq);
    Entry::decode(&stored.bytes).map_err(|detail| Error::Storage { detail: message(detail), full: false })
}

/// Marks operations that an earlier process may have delivered: those that did not wait behind others, and all that an
/// older journal brought back.
fn mark_unknown(core: &Arc<Core>, carried_ops: CarriedOps) {
    let state = core.state();
    let mut attempts = core.deliver.attempts.lock();
    state.queue().filter(|op| state.is_next(op)).for_each(|op| attempts.doubt(op.id));
    carried_ops.into_iter().for_each(|(op, base_hash)| attempts.carry(op, base_hash));
}

fn start_tasks(dio: &Dio) {
    let core = &dio.0.core;
    let weak = Arc::downgrade(&dio.0);
    core.tasks.spawn(super::commit::writeback::run(Arc::clone(core)));
    if core.settings.offline {
        return;
    }
    core.tasks.spawn(worker::run(Arc::clone(core), weak.clone()));
    core.tasks.spawn(super::read::indexer::run(Arc::clone(core)));
    core.tasks.spawn(reread::reread(Arc::clone(core), weak.clone()));
    match (core.settings.refresh_every, &core.callbacks.on_refresh) {
        (Some(every), Some(_)) => drop(core.tasks.spawn(reread::timer(Arc::clone(core), weak, every))),
        (Some(_), None) => {
            tracing::warn!(dio = %core.name, "refresh_every is set without on_refresh: there are no timed refreshes");
        }
        (None, _) => {}
    }
}
