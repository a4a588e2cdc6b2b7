//! Indexes of a Dio: requested by queries that would be cheap with them, built in the background, attached by the committer.
//!
//! A build reads a published State on a blocking thread, then catches up with later commits; the committer itself applies
//! only the last few changes. Queries scan until then. The number and the bytes of indexes are bounded: the least
//! recently used are dropped first, those of the settings never.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::dio::clock::now;
use crate::dio::core::Core;
use crate::dio::handle::Dio;
use crate::plan::Plan;
use crate::state::{Command, Outcome, State};
use crate::table::{BuiltIndex, Index, Spec};
use crate::vista::{Error, Result};

/// Number of attempts to build an index while the table changes too fast.
const ATTEMPTS: usize = 4;
/// Number of changed rows that a build may leave to the committer.
const LAST_FEW: usize = 1_000;

/// Builds the requested indexes, one at a time, until the Dio closes.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        let Some(spec) = core.indexer.take() else {
            tokio::select! {
                () = core.indexer.wake.notified() => continue,
                () = core.tasks.closing().cancelled() => return,
            }
        };
        let built = core.build_index(&spec, false).await;
        match built {
            Ok(()) => {
                core.indexer.done(None);
                tracing::debug!(dio = %core.name, index = %spec, "an index was built");
            }
            Err(error) => {
                let is_new = core.indexer.done(Some(error.to_string()));
                if is_new && !core.tasks.closing().is_cancelled() {
                    tracing::warn!(dio = %core.name, index = %spec, %error, "an index was not built: queries that ask for it look at all rows");
                }
            }
        }
        if core.tasks.closing().is_cancelled() {
            return;
        }
    }
}

impl Core {
    /// Notes the indexes that a plan has used, and requests those that it lacked.
    pub(crate) fn note_plan(&self, state: &State, plan: &Plan) {
        for at in plan.indexes() {
            let index = &state.table().indexes()[at];
            index.touch(now());
            if index.is_outgrown() {
                self.indexer.request(index.spec(), self.settings.index_rest);
            }
        }
        for spec in plan.wanted_indexes() {
            self.indexer.request(spec, self.settings.index_rest);
        }
    }

    /// Builds the missing indexes of the settings.
    pub(crate) async fn build_configured(self: &Arc<Self>) -> Result<()> {
        for text in &self.settings.indexes {
            let spec = Spec::parse(text, &self.vista.schema())?;
            self.build_index(&spec, true).await?;
        }
        Ok(())
    }

    /// Builds the indexes that queries had built before the last stop. The Dio is not ready until then; queries are answered.
    pub(crate) fn build_remembered(self: &Arc<Self>, names: &[String]) {
        let schema = self.vista.schema();
        // A column may be gone, and some orders have no text.
        let specs: Vec<Spec> = names.iter().filter_map(|name| Spec::parse(name, &schema).ok()).collect();
        if specs.is_empty() || self.state().table().is_empty() {
            return;
        }
        specs.iter().for_each(|spec| self.indexer.request(spec, self.settings.index_rest));
        self.indexer.restoring.store(true, Ordering::Release);
        let core = Arc::clone(self);
        self.tasks.spawn(async move {
            tokio::select! {
                () = core.indexer.all_built() => core.indexer.restoring.store(false, Ordering::Release),
                () = core.tasks.closing().cancelled() => {}
            }
        });
    }

    /// Notes in the cache which indexes the next start builds.
    async fn remember_indexes(self: &Arc<Self>) {
        let state = self.state();
        let names: Vec<String> = self.droppable(&state).map(|index| index.spec().to_string()).collect();
        drop(state);
        if let Err(error) = self.store.set_meta(|meta| meta.indexes = names).await {
            tracing::debug!(dio = %self.name, %error, "the names of the indexes could not be stored");
        }
    }

    /// Builds an index and attaches it, in place of one that the table has outgrown. Indexes of the settings
    /// (`configured`) are built without regard to the bounds.
    async fn build_index(self: &Arc<Self>, spec: &Spec, configured: bool) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let state = self.state();
            let known = state.table().index(spec);
            if known.is_some_and(|index| !index.is_outgrown()) {
                return Ok(());
            }
            if !configured && known.is_none() {
                self.make_room(&state, spec).await?;
            }
            let (core, spec) = (Arc::clone(self), spec.clone());
            let built = self.heavy(usize::MAX, move || core.build(spec, state)).await?;
            let size = built.index().bytes();
            if !configured && size > self.settings.index_memory {
                return Err(Error::permanent(format!("the index would take {size} bytes, more than index_memory")));
            }
            if self.commit(Command::Attach(Arc::new(built))).await?.outcome != Outcome::Unchanged {
                self.shrink(configured).await?;
                if !configured {
                    self.remember_indexes().await;
                }
                return Ok(());
            }
        }
        Err(Error::permanent("the table changes faster than an index of it can be built"))
    }

    /// Builds an index of the newest rows, without the last few changes.
    fn build(&self, spec: Spec, mut state: Arc<State>) -> BuiltIndex {
        // Searches cover the searchable columns of the facade.
        let mut index = Index::build(spec, state.table(), &super::facade::lifted_schema(self));
        for _ in 0..ATTEMPTS {
            let newest = self.state();
            let changed = newest.table().changed_since(state.table());
            if changed.len() < LAST_FEW {
                break;
            }
            index.follow(state.table(), newest.table(), &changed);
            state = newest;
        }
        BuiltIndex::new(index, state.table().clone())
    }

    /// Drops the least recently used index if there is no room for another.
    async fn make_room(self: &Arc<Self>, state: &State, spec: &Spec) -> Result<()> {
        let indexes = state.table().indexes();
        let expected = Index::estimate(spec, state.table(), &state.rules().schema);
        let bytes: usize = indexes.iter().map(Index::bytes).sum();
        let full = indexes.len() >= self.settings.max_indexes || bytes + expected > self.settings.index_memory;
        if !full {
            return Ok(());
        }
        if expected > self.settings.index_memory {
            return Err(Error::permanent(format!(
                "the index would take about {expected} bytes, more than index_memory"
            )));
        }
        let rest = u64::try_from(self.settings.index_rest.as_millis()).unwrap_or(u64::MAX);
        let rested = |index: &&Index| index.used_at().saturating_add(rest) <= now();
        let Some(oldest) = self.droppable(state).filter(rested).min_by_key(|index| index.used_at()) else {
            return Err(Error::permanent("there is no room for the index: max_indexes or index_memory is reached"));
        };
        self.drop_index(oldest.spec()).await
    }

    /// Drops indexes above the bounds, the least recently used first.
    async fn shrink(self: &Arc<Self>, configured: bool) -> Result<()> {
        loop {
            let state = self.state();
            let indexes = state.table().indexes();
            let bytes: usize = indexes.iter().map(Index::bytes).sum();
            if indexes.len() <= self.settings.max_indexes && bytes <= self.settings.index_memory {
                return Ok(());
            }
            // The newest index has just been requested, unless it is one of the settings.
            let keep = indexes.last().filter(|_| !configured).map(Index::spec);
            let others = self.droppable(&state).filter(|index| Some(index.spec()) != keep);
            let Some(oldest) = others.min_by_key(|index| index.used_at()) else { return Ok(()) };
            self.drop_index(oldest.spec()).await?;
        }
    }

    async fn drop_index(self: &Arc<Self>, spec: &Spec) -> Result<()> {
        tracing::debug!(dio = %self.name, index = %spec, "an index was dropped");
        self.commit(Command::Detach(spec.clone())).await.map(drop)
    }

    /// Indexes that are not in the settings.
    fn droppable<'a>(&self, state: &'a State) -> impl Iterator<Item = &'a Index> {
        let schema = self.vista.schema();
        let named: Vec<Spec> =
            self.settings.indexes.iter().filter_map(|text| Spec::parse(text, &schema).ok()).collect();
        state.table().indexes().iter().filter(move |index| !named.contains(index.spec()))
    }
}

impl Dio {
    /// Indexes that queries have asked for and that were not built, with the reasons.
    pub fn refused_indexes(&self) -> Vec<(String, String)> {
        self.0.core.indexer.refused()
    }

    /// Waits until every requested index is built or refused.
    pub async fn indexes_built(&self) {
        self.0.core.indexer.all_built().await;
    }
}
