//! Purges: everything that is stored of some rows is erased, except at the master.
//!
//! One append removes the rows and records the ids to erase. Older entries of the log are rewritten after that, in
//! transactions of at most [`CHUNK`] entries, so that appends pass in between. The last transaction takes the ids out of
//! the log. Until then the State lists the purge as unfinished, and the next purge or the next start continues it.

mod id_search;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use self::id_search::IdSearch;
use crate::dio::core::Core;
use crate::dio::events::event::Position;
use crate::dio::handle::Dio;
use crate::dio::tasks::HEAVY;
use crate::journal::{DeliveryId, DeliveryQuery, DeliveryState, JournalError, LogEntry, Rewrite, Seq};
use crate::record::Id;
use crate::state::{Command, Entry, Eraser, OpChange, OpId, Outcome};
use crate::vista::{Error, Result};

/// Maximum number of ids in one purge.
pub const MOST_IDS: usize = 1_000;
/// Maximum number of entries that one transaction rewrites.
const CHUNK: usize = 1_000;
/// Approximate bytes of the log that are read at a time.
const PIECE: usize = 1 << 20;
/// Maximum number of rows that are looked up in the source after a purge.
const MOST_LOOKUPS: usize = 100;
/// Timeout of that lookup.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// Result of a purge.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PurgeReport {
    /// Position of the removal, or the present position if there was nothing to erase.
    pub position: Position,
    /// Rows that were removed from what readers see.
    pub rows: u64,
    /// Entries of the log that were rewritten.
    pub entries: u64,
    /// Settled operations whose values were erased.
    pub operations: u64,
    /// Kept deliveries that were dropped because they name one of the rows.
    pub deliveries: u64,
    /// Ids that readers see again, because an event, a read or a write has brought the row back meanwhile.
    pub returned: Vec<String>,
    /// Ids that the source still has. Their rows come back with the next refresh. `None` if the source was not read or
    /// did not answer.
    pub in_source: Option<Vec<String>>,
}

/// Result of searching the log for some rows.
#[derive(Debug, Default)]
struct Survey {
    /// True if the log has values of these rows.
    has_values: bool,
    /// Other ids that inserts of these rows had before the master chose the ids.
    aliases: HashSet<Id>,
}

impl Core {
    /// Erases everything that is stored of the rows `ids`. Runs to its end also if the future is dropped.
    async fn purge(self: &Arc<Self>, ids: HashSet<Id>) -> Result<PurgeReport> {
        let core = Arc::clone(self);
        let purge = async move { core.purge_now(ids).await };
        let task = self.tasks.spawn_bounded(self.settings.drain_timeout, purge);
        task.await.ok().flatten().unwrap_or(Err(Error::Closed))
    }

    async fn purge_now(self: &Arc<Self>, requested: HashSet<Id>) -> Result<PurgeReport> {
        let _purging = self.commit.purging.lock().await;
        // Fails before any change if the journal cannot rewrite.
        self.journal.rewrite(Rewrite::nothing(&self.name)).await.map_err(|error| self.rewrite_error(error))?;
        self.finish_each().await?;
        // This append also stores the deliveries that were answered before they were stored.
        self.commit(Command::Invalidate(Vec::new())).await?;
        let Survey { has_values, aliases } = self.survey(&requested).await?;
        let ids: HashSet<Id> = requested.iter().cloned().chain(aliases).collect();
        let deliveries = self.deliveries_of(&ids, true).await?;
        let state = self.state();
        let operations = state.settled_with_values(&ids);
        let mut purged = PurgeReport {
            position: self.position(),
            rows: 0,
            entries: 0,
            operations: operations as u64,
            deliveries: deliveries.len() as u64,
            returned: Vec::new(),
            in_source: None,
        };
        let nothing =
            !has_values && operations == 0 && deliveries.is_empty() && ids.iter().all(|id| state.is_absent(id));
        drop(state);
        if !nothing {
            let mut sorted: Vec<Id> = ids.iter().cloned().collect();
            sorted.sort_unstable();
            let committed = self.write(Command::Purge(sorted.into()), None, None, true).await?;
            purged.position.seq = committed.seq;
            if let Outcome::Applied { removed, .. } = committed.outcome {
                purged.rows = removed;
            }
            let state = self.state();
            let about = state.ops().filter(|op| op.targets.iter().any(|id| ids.contains(id)));
            self.deliver.attempts.lock().forget_errors(about.map(|op| op.id));
            purged.entries = self.finish_each().await?;
        }
        let state = self.state();
        purged.returned = requested.iter().filter(|id| state.get(id).is_some()).map(ToString::to_string).collect();
        purged.returned.sort_unstable();
        purged.in_source = self.left_in_source(&requested).await;
        Ok(purged)
    }

    /// Continues purges that an earlier process, or a failing journal, left unfinished.
    pub(crate) async fn finish_purges(self: &Arc<Self>) -> Result<()> {
        if self.state().purges().next().is_none() {
            return Ok(());
        }
        let _purging = self.commit.purging.lock().await;
        self.finish_each().await.map(drop)
    }

    /// Finishes every unfinished purge; returns the number of rewritten entries.
    async fn finish_each(self: &Arc<Self>) -> Result<u64> {
        let unfinished: Vec<_> = self.state().purges().collect();
        let mut rewritten = 0;
        for (seq, ids) in unfinished {
            rewritten += self.finish_purge(seq, &ids).await?;
        }
        Ok(rewritten)
    }

    async fn finish_purge(self: &Arc<Self>, seq: Seq, ids: &[Id]) -> Result<u64> {
        let mut eraser = Eraser::new(ids.iter().cloned());
        let rewritten = self.erase_log(&mut eraser, seq).await?;
        self.ring.erase(&mut eraser, seq);
        self.store.flush_erased().await?;
        let deliveries = self.deliveries_of(&ids.iter().cloned().collect(), false).await?;
        for deliveries in deliveries.chunks(CHUNK) {
            self.rewrite_log(Vec::new(), deliveries.to_vec()).await?;
        }
        let stored = self.read_log(seq - 1, 1).await?;
        for stored in stored.into_iter().filter(|stored| stored.seq == seq) {
            let mut entry = decode(&stored)?;
            entry.purge = Arc::from([]);
            self.rewrite_log(vec![LogEntry { seq, bytes: entry.encode() }], Vec::new()).await?;
        }
        self.commit(Command::Purged(seq)).await?;
        tracing::info!(dio = %self.name, rows = ids.len(), entries = rewritten, "rows were purged");
        Ok(rewritten)
    }

    /// Rewrites entries up to position `upto`; returns their number.
    async fn erase_log(self: &Arc<Self>, eraser: &mut Eraser, upto: Seq) -> Result<u64> {
        let (mut after, mut rewritten) = (0, 0);
        while after < upto {
            let stored = self.read_log(after, PIECE).await?;
            let Some(last) = stored.last() else { break };
            after = last.seq;
            let mut own = eraser.clone();
            let erase = move || {
                let mut changed = Vec::new();
                for stored in stored.iter().take_while(|stored| stored.seq <= upto) {
                    let mut entry = decode(stored)?;
                    if own.erase(&mut entry) {
                        changed.push(LogEntry { seq: stored.seq, bytes: entry.encode() });
                    }
                }
                Ok::<_, Error>((own, changed))
            };
            let changed;
            (*eraser, changed) = self.heavy(HEAVY, erase).await??;
            rewritten += changed.len() as u64;
            for entries in changed.chunks(CHUNK) {
                self.rewrite_log(entries.to_vec(), Vec::new()).await?;
            }
        }
        Ok(rewritten)
    }

    /// Searches the whole log for values and other ids of the rows `ids`.
    async fn survey(self: &Arc<Self>, ids: &HashSet<Id>) -> Result<Survey> {
        let (mut after, mut survey) = (0, Survey::default());
        let mut eraser = Eraser::new(ids.iter().cloned());
        let mut staged: HashMap<OpId, Id> = HashMap::new();
        loop {
            let stored = self.read_log(after, PIECE).await?;
            let Some(last) = stored.last() else { break };
            after = last.seq;
            let search = move || {
                for stored in &stored {
                    let mut entry = decode(stored)?;
                    survey.add(&mut staged, &mut eraser, &mut entry);
                }
                Ok::<_, Error>((survey, staged, eraser))
            };
            (survey, staged, eraser) = self.heavy(HEAVY, search).await??;
        }
        let state = self.state();
        survey.aliases.retain(|id| state.is_absent(id));
        survey.has_values |= !survey.aliases.is_empty();
        Ok(survey)
    }

    /// Deliveries that name one of the rows, without received ones that are not applied yet. With `refuse`, such a delivery is an
    /// error. Those that are still to be sent are among them: what they say of a row is erased with it, and its removal is sent.
    async fn deliveries_of(&self, ids: &HashSet<Id>, refuse: bool) -> Result<Vec<DeliveryId>> {
        let mut known = Vec::new();
        for outgoing in [false, true] {
            let query = DeliveryQuery { limit: usize::MAX, outgoing, ..DeliveryQuery::default() };
            known.extend(self.journal.deliveries(&query).await?.0);
        }
        known.retain(|delivery| delivery.dio == self.name);
        if known.is_empty() {
            return Ok(Vec::new());
        }
        let mentions = Arc::new(IdSearch::of(ids)?);
        let mut applied = Vec::new();
        for delivery in known {
            let Some((_, raw)) = self.journal.delivery(delivery.id).await? else { continue };
            let weight = usize::try_from(raw.size()).unwrap_or(usize::MAX);
            let mentions = Arc::clone(&mentions);
            let Some(id) = self.heavy(weight, move || mentions.first(&raw).cloned()).await? else { continue };
            match delivery.state {
                DeliveryState::Received if refuse => {
                    let detail = format!("is named by delivery {}, which is not applied yet", delivery.id);
                    return Err(Error::Conflict { id: id.to_string(), detail });
                }
                DeliveryState::Received => {}
                _ => applied.push(delivery.id),
            }
        }
        Ok(applied)
    }

    /// Ids that the source still has. `None` if it reads no single rows, there are too many ids, or it does not answer.
    async fn left_in_source(&self, ids: &HashSet<Id>) -> Option<Vec<String>> {
        if ids.len() > MOST_LOOKUPS || self.settings.offline || !self.vista.shell().reads_one() {
            return None;
        }
        let lookup = async {
            let mut left = Vec::new();
            for id in ids {
                if self.read_one(id).await.ok()?.is_some() {
                    left.push(id.to_string());
                }
            }
            left.sort_unstable();
            Some(left)
        };
        tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await.ok().flatten()
    }

    async fn read_log(&self, after: Seq, bytes: usize) -> Result<Vec<LogEntry>> {
        Ok(self.journal.read(&self.name, after, bytes).await?)
    }

    async fn rewrite_log(self: &Arc<Self>, entries: Vec<LogEntry>, deliveries: Vec<DeliveryId>) -> Result<()> {
        let rewrite = Rewrite { log: Arc::clone(&self.name), entries, deliveries };
        self.journal.rewrite(rewrite).await.map_err(|error| {
            self.committer.journal_failed(self, &error);
            self.rewrite_error(error)
        })
    }

    fn rewrite_error(&self, error: JournalError) -> Error {
        match error {
            JournalError::Unsupported { .. } => {
                let what = "erase rows: its journal cannot rewrite entries";
                Error::Unsupported { vista: Arc::clone(&self.name), what }
            }
            error => error.into(),
        }
    }
}

impl Survey {
    fn add(&mut self, staged: &mut HashMap<OpId, Id>, eraser: &mut Eraser, entry: &mut Entry) {
        if let (Some(op), Some(id)) = (entry.cause.op, &entry.id) {
            match &entry.op {
                OpChange::Stage(own) if own.targets.len() == 1 => drop(staged.insert(op, Arc::clone(id))),
                _ => {
                    // The master has given the row of this insert another id.
                    let first = staged.get(&op).filter(|first| *first != id && eraser.erases(id));
                    self.aliases.extend(first.cloned());
                }
            }
        }
        self.has_values |= eraser.erase(entry);
    }
}

fn decode(stored: &LogEntry) -> Result<Entry> {
    let message = |detail| format!("entry {} cannot be read: {detail}", stored.seq);
    Entry::decode(&stored.bytes).map_err(|detail| Error::Storage { detail: message(detail), full: false })
}

impl Dio {
    /// Erases everything that is stored of rows.
    ///
    /// Erased are the rows themselves, their values in the log and in settled operations, and kept deliveries that name
    /// them. The purge is durable when this returns. The source is not touched: a row that it still has comes back with
    /// the next refresh, so delete it there first. Subscribers receive the removal of the rows.
    ///
    /// Ids stay in the log, as do positions, times and versions. Ids of which nothing is stored are ignored. If the
    /// process ends or the journal fails meanwhile, the next purge or the next start finishes the purge.
    ///
    /// # Errors
    /// [`Error::Conflict`] while an operation on one of the rows, or a delivery that names one, is not settled; nothing
    /// is changed then. [`Error::Invalid`] for no ids or more than 1,000. [`Error::Unsupported`] if the journal cannot
    /// rewrite entries. [`Error::Storage`], [`Error::Closed`].
    ///
    /// # Cancel safety
    /// A purge whose future is dropped continues.
    pub async fn purge(&self, ids: impl IntoIterator<Item = impl Into<String>>) -> Result<PurgeReport> {
        let ids: HashSet<Id> = ids.into_iter().take(MOST_IDS + 1).map(|id| Id::from(id.into())).collect();
        if ids.is_empty() || ids.len() > MOST_IDS {
            return Err(Error::invalid(format!("a purge takes 1 to {MOST_IDS} ids")));
        }
        self.0.core.purge(ids).await
    }
}
