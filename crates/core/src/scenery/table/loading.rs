//! Loading what the window lacks, range by range.

use std::ops::Range;
use std::sync::Arc;

use tokio::time::Instant;

use super::task::{LoadedRange, MOST_LOADS, RowSource, Task};
use super::{LoadState, ViewRequest};
use crate::dio::Dio;
use crate::record::{Body, Id};
use crate::scenery::Generation;
use crate::scenery::window::Window;
use crate::vista::Result;

/// `range` without the `others`.
pub(super) fn without(range: Range<u64>, others: &[Range<u64>]) -> Vec<Range<u64>> {
    others.iter().fold(vec![range], |parts, other| {
        let cut = |part: Range<u64>| {
            let (before, after) = (part.start..part.end.min(other.start), part.start.max(other.end)..part.end);
            [before, after].into_iter().filter(|part| part.start < part.end)
        };
        parts.into_iter().flat_map(cut).collect()
    })
}

impl Task {
    /// Begins to load what the viewport lacks, as much as may run at a time.
    pub(super) fn load(&mut self) {
        self.due = None;
        let mut lacking = false;
        for gap in self.gaps() {
            lacking = true;
            if self.running < MOST_LOADS {
                self.start_load(gap);
            }
        }
        // What is loaded announces itself.
        if std::mem::take(&mut self.announce) && !lacking {
            Generation::bump(&self.shared.generation);
        }
        if self.running > 0 {
            self.shared.set_load(LoadState::Loading);
        } else {
            self.settle_load();
        }
    }

    fn gaps(&self) -> Vec<Range<u64>> {
        let gaps = self.shared.window.read().gaps(self.request.viewport.clone(), self.round);
        gaps.into_iter().flat_map(|gap| without(gap, &self.asked)).collect()
    }

    fn start_load(&mut self, range: Range<u64>) {
        let Some(handle) = self.handle.upgrade() else { return };
        self.asked.push(range.clone());
        self.running += 1;
        let (core, done, era, round) = (Arc::clone(&self.core), self.done.clone(), self.request.era, self.round);
        let query = Arc::clone(&self.request.query);
        let at_master = self.placing == RowSource::Cache && self.is_narrowed();
        // A task of its own: rows that arrive are stored also if nobody looks at them any more.
        self.core.tasks.spawn(async move {
            let ids = match at_master {
                true => core.load_query(&query, range.clone()).await,
                false => core.load_range(Dio(handle), &query, range.clone()).await,
            };
            // The scenery may be gone.
            let _ = done.send(LoadedRange { era, round, range, ids }).await;
        });
    }

    pub(super) fn finished(&mut self, load: LoadedRange) {
        self.running -= 1;
        if load.era == self.request.era && self.loads_pieces() {
            match load.ids {
                Ok(ids) => {
                    let window = self.shared.window.read().clone();
                    self.arrived(window, &load.range, &ids, load.round);
                    if self.running == 0 {
                        self.settle_load();
                    }
                }
                Err(error) => self.shared.fail(&error),
            }
        }
        if self.loads_pieces() && self.running < MOST_LOADS && self.due.is_none() && !self.gaps().is_empty() {
            self.due = Some(Instant::now());
        }
    }

    /// Shows `window` with the rows of a range.
    pub(super) fn arrived(&self, mut window: Window, range: &Range<u64>, ids: &[Id], round: u64) {
        let state = self.core.state();
        // What a pending write has deleted is not shown, whatever the master still has.
        let row = |id: &Id| state.get(id).map(|row| (Arc::clone(id), row.body()));
        let rows: Vec<(Id, Body)> = ids.iter().filter_map(row).collect();
        let last = (ids.len() as u64) < range.end - range.start;
        window.loaded(range, &rows, last, round);
        self.shared.show(window, true);
    }

    /// A failure is said until something else is asked for.
    fn settle_load(&self) {
        if !matches!(*self.shared.load.borrow(), LoadState::Failed(_)) {
            self.shared.settle_load();
        }
    }

    pub(super) fn lacks(&self, request: &ViewRequest) -> bool {
        let page = self.shared.page;
        match self.reads_copy() {
            true => request.pages(page) != self.request.pages(page),
            false => !self.shared.window.read().gaps(request.viewport.clone(), self.round).is_empty(),
        }
    }

    /// Begins to load a new query piece by piece.
    pub(super) fn begin_pieces(&mut self) -> Result<()> {
        if self.placing == RowSource::Chunks {
            self.core.loads_chunks()?;
        } else if self.is_narrowed() {
            self.core.master_takes(&self.request.windowed(self.shared.page))?;
        }
        self.shared.set_load(LoadState::Loading);
        self.load_when_rested();
        Ok(())
    }

    pub(super) fn load_when_rested(&mut self) {
        self.due = Some(Instant::now() + self.core.settings.viewport_debounce);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_asked_for_twice() {
        assert_eq!(without(0..10, &[]), vec![0..10; 1]);
        assert_eq!(without(0..10, &[2..4, 8..20]), [0..2, 4..8]);
        assert_eq!(without(3..5, &vec![0..10; 1]), []);
    }
}
