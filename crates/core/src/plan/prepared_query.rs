//! Prepared queries: repeated queries whose plan is cached until the rows change.

use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwapOption;

use super::run::Checks;
use super::{Page, Plan, Selection, plan};
use crate::state::State;
use crate::vista::query::Meter;
use crate::vista::{Query, Result, Schema};

/// Maximum memory in bytes of compiled checks that are cached with a plan, and of selected slots.
const MAX_CACHED: usize = 4 << 10;

/// A query for any page, with the plan of its last run.
#[derive(Debug)]
pub struct PreparedQuery {
    query: Query,
    has_patterns: bool,
    last: ArcSwapOption<CachedPlan>,
}

/// A plan for one State.
#[derive(Debug)]
pub struct CachedPlan {
    /// The State that was planned for. The weak reference keeps its address from being reused.
    state: Weak<State>,
    page: Page,
    plan: Plan,
    checks: OnceLock<Checks>,
    /// Rows of `page`.
    selection: OnceLock<Selection>,
}

impl PreparedQuery {
    /// Prepares `query`, ignoring its own page.
    pub fn new(query: Query) -> PreparedQuery {
        PreparedQuery { has_patterns: query.filter.has_patterns(), query, last: ArcSwapOption::empty() }
    }

    /// The query.
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// True if the query has patterns, which have to be compiled.
    pub fn has_patterns(&self) -> bool {
        self.has_patterns
    }

    /// Plan for a page of `state`, from the cache if it still applies. `schema` must always be the same.
    ///
    /// # Errors
    /// As [`plan`].
    pub fn cached_plan(&self, state: &Arc<State>, page: Page, schema: &Schema) -> Result<Arc<CachedPlan>> {
        if let Some(last) = self.last.load_full().filter(|last| last.is_for(state, page)) {
            return Ok(last);
        }
        let query = Query { limit: page.limit, offset: page.offset, ..self.query.clone() };
        let plan = plan(state.table(), &query, schema)?;
        let (checks, selection) = (OnceLock::new(), OnceLock::new());
        let cached_plan = Arc::new(CachedPlan { state: Arc::downgrade(state), page, plan, checks, selection });
        self.last.store(Some(Arc::clone(&cached_plan)));
        Ok(cached_plan)
    }
}

impl CachedPlan {
    /// True if this plan applies to `page` of `state`. If rows are checked one by one, the plan depends on the offset too.
    fn is_for(&self, state: &Arc<State>, page: Page) -> bool {
        std::ptr::eq(self.state.as_ptr(), Arc::as_ptr(state))
            && self.page.limit == page.limit
            && (self.page.offset == page.offset || self.plan.is_exact())
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The rows of `page`, if they were selected before.
    pub fn selection(&self, page: Page) -> Option<Selection> {
        self.selection.get().filter(|_| self.page == page).cloned()
    }

    /// Selects `page` of `query` from the State that this was planned for.
    ///
    /// # Errors
    /// As [`Meter::check`].
    pub fn run(&self, state: &State, query: &Query, page: Page, schema: &Schema, meter: &Meter) -> Result<Selection> {
        if let Some(selection) = self.selection(page).or_else(|| self.plan.count_only(query, page)) {
            return Ok(selection);
        }
        let table = state.table();
        let selection = match self.checks.get() {
            Some(checks) => self.plan.run_checked(checks, (table, meter), query, page, schema)?,
            None => {
                let checks = self.plan.checks(table, query, schema, meter);
                let selection = self.plan.run_checked(&checks, (table, meter), query, page, schema)?;
                if checks.bytes() <= MAX_CACHED {
                    let _ = self.checks.set(checks);
                }
                selection
            }
        };
        if page == self.page && size_of_val(&*selection.slots) <= MAX_CACHED {
            let _ = self.selection.set(selection.clone());
        }
        Ok(selection)
    }
}
