//! Indexes of a Dio: asked for by queries that would have been cheap with them, built aside, taken on by the committer.
//!
//! A build looks at a State that readers hold, on a thread for blocking work, then catches up with what was committed
//! meanwhile; the committer itself only brings the last few changes in. Queries scan until then. How many indexes there are
//! and how many bytes they take is bounded: those that were not used for longest go first, those of the settings never.

use std::sync::Arc;

use crate::dio::clock::now;
use crate::dio::core::Core;
use crate::dio::handle::Dio;
use crate::plan::Plan;
use crate::state::{Command, Outcome, State};
use crate::table::{BuiltIndex, Index, Spec};
use crate::vista::{Error, Result};

/// How often a build that the table outran is begun again.
const ATTEMPTS: usize = 4;
/// Rows whose changes a build may leave to the committer.
const LAST_FEW: usize = 1_000;

/// Builds what is asked for, one after the other, until the Dio closes.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        let Some(spec) = core.indexer.take() else {
            tokio::select! {
                () = core.indexer.wake.notified() => continue,
                () = core.tasks.closing().cancelled() => return,
            }
        };
        let built = core.build_index(&spec, false).await;
        match &built {
            Ok(()) => tracing::debug!(dio = %core.name, index = %spec, "an index was built"),
            Err(error) => tracing::debug!(dio = %core.name, index = %spec, %error, "an index was not built"),
        }
        core.indexer.done(built.is_err(), core.settings.index_rest);
        if core.tasks.closing().is_cancelled() {
            return;
        }
    }
}

impl Core {
    /// Takes note of what a plan has used and what it lacked.
    pub(crate) fn note_plan(&self, state: &State, plan: &Plan) {
        for at in plan.indexes() {
            let index = &state.table().indexes()[at];
            index.touch(now());
            if index.is_outgrown() {
                self.indexer.ask(index.spec(), self.settings.index_rest);
            }
        }
        for spec in plan.wanted_indexes() {
            self.indexer.ask(spec, self.settings.index_rest);
        }
    }

    /// Builds the indexes that the settings name, if they are not there.
    pub(crate) async fn build_configured(self: &Arc<Self>) -> Result<()> {
        for text in &self.settings.indexes {
            let spec = Spec::parse(text, &self.vista.schema())?;
            self.build_index(&spec, true).await?;
        }
        Ok(())
    }

    /// Builds an index and has it taken on, in place of one that the table has outgrown. `wanted` ones are built whatever is there
    /// already.
    async fn build_index(self: &Arc<Self>, spec: &Spec, wanted: bool) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let state = self.state();
            let known = state.table().index(spec);
            if known.is_some_and(|index| !index.is_outgrown()) {
                return Ok(());
            }
            if !wanted && known.is_none() {
                self.make_room(&state, spec).await?;
            }
            let (core, spec) = (Arc::clone(self), spec.clone());
            let built = self.heavy(usize::MAX, move || core.build(spec, state)).await?;
            let size = built.index().bytes();
            if !wanted && size > self.settings.index_memory {
                return Err(Error::permanent(format!("it would take {size} bytes: index_memory is less")));
            }
            if self.commit(Command::Attach(Arc::new(built))).await?.outcome != Outcome::Unchanged {
                return self.shrink(wanted).await;
            }
        }
        Err(Error::permanent("the table changes faster than an index of it can be built"))
    }

    /// An index of the newest rows, but for the last few changes.
    fn build(&self, spec: Spec, mut state: Arc<State>) -> BuiltIndex {
        // Searches look at the columns that the facade says are searchable.
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

    /// Drops indexes that were not used for a while, if there is no room for another.
    async fn make_room(self: &Arc<Self>, state: &State, spec: &Spec) -> Result<()> {
        let indexes = state.table().indexes();
        let expected = Index::estimate(spec, state.table(), &state.rules().schema);
        let bytes: usize = indexes.iter().map(Index::bytes).sum();
        let full = indexes.len() >= self.settings.max_indexes || bytes + expected > self.settings.index_memory;
        if !full {
            return Ok(());
        }
        if expected > self.settings.index_memory {
            return Err(Error::permanent(format!("it would take about {expected} bytes: index_memory is less")));
        }
        let rest = u64::try_from(self.settings.index_rest.as_millis()).unwrap_or(u64::MAX);
        let rested = |index: &&Index| index.used_at().saturating_add(rest) <= now();
        let Some(oldest) = self.droppable(state).filter(rested).min_by_key(|index| index.used_at()) else {
            return Err(Error::permanent("there is no room for it: max_indexes or index_memory is reached"));
        };
        self.drop_index(oldest.spec()).await
    }

    /// Drops what is above the bounds, what was not used for longest first.
    async fn shrink(self: &Arc<Self>, wanted: bool) -> Result<()> {
        loop {
            let state = self.state();
            let indexes = state.table().indexes();
            let bytes: usize = indexes.iter().map(Index::bytes).sum();
            if indexes.len() <= self.settings.max_indexes && bytes <= self.settings.index_memory {
                return Ok(());
            }
            // The one that was built last has just been asked for, unless it is a setting.
            let keep = indexes.last().filter(|_| !wanted).map(Index::spec);
            let others = self.droppable(&state).filter(|index| Some(index.spec()) != keep);
            let Some(oldest) = others.min_by_key(|index| index.used_at()) else { return Ok(()) };
            self.drop_index(oldest.spec()).await?;
        }
    }

    async fn drop_index(self: &Arc<Self>, spec: &Spec) -> Result<()> {
        tracing::debug!(dio = %self.name, index = %spec, "an index was dropped");
        self.commit(Command::Detach(spec.clone())).await.map(drop)
    }

    /// Indexes that no setting names.
    fn droppable<'a>(&self, state: &'a State) -> impl Iterator<Item = &'a Index> {
        let schema = self.vista.schema();
        let named: Vec<Spec> =
            self.settings.indexes.iter().filter_map(|text| Spec::parse(text, &schema).ok()).collect();
        state.table().indexes().iter().filter(move |index| !named.contains(index.spec()))
    }
}

impl Dio {
    /// Waits until every index that queries have asked for is there, or was refused.
    pub async fn indexes_built(&self) {
        let mut pending = self.0.core.indexer.pending.subscribe();
        // The sender lives as long as the Dio.
        let _ = pending.wait_for(|pending| *pending == 0).await;
    }
}
