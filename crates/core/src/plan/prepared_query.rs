//! A query that is asked again and again: while the rows stay as they are, so does its plan.

use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwapOption;

use super::run::Checks;
use super::{Page, Plan, Selection, plan};
use crate::state::State;
use crate::vista::query::Meter;
use crate::vista::{Query, Result, Schema};

/// Bytes of found slots that are kept for the next time, at most.
const MOST_KEPT: usize = 4 << 10;

/// A query, whatever page of it is asked for, and how it was answered last.
#[derive(Debug)]
pub struct PreparedQuery {
    query: Query,
    has_patterns: bool,
    last: ArcSwapOption<CachedPlan>,
}

/// A plan for one State.
#[derive(Debug)]
pub struct CachedPlan {
    /// As long as this points there, no other State is where that one was.
    state: Weak<State>,
    page: Page,
    plan: Plan,
    checks: OnceLock<Checks>,
}

impl PreparedQuery {
    /// `query`, whose own page does not matter.
    pub fn new(query: Query) -> PreparedQuery {
        PreparedQuery { has_patterns: query.filter.has_patterns(), query, last: ArcSwapOption::empty() }
    }

    /// The query.
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// Whether patterns have to be compiled for it.
    pub fn has_patterns(&self) -> bool {
        self.has_patterns
    }

    /// How a page is picked from `state`; `schema` is always the same.
    ///
    /// # Errors
    /// As [`plan`].
    pub fn cached_plan(&self, state: &Arc<State>, page: Page, schema: &Schema) -> Result<Arc<CachedPlan>> {
        if let Some(last) = self.last.load_full().filter(|last| last.is_for(state, page)) {
            return Ok(last);
        }
        let query = Query { limit: page.limit, offset: page.offset, ..self.query.clone() };
        let plan = plan(state.table(), &query, schema)?;
        let cached_plan = Arc::new(CachedPlan { state: Arc::downgrade(state), page, plan, checks: OnceLock::new() });
        self.last.store(Some(Arc::clone(&cached_plan)));
        Ok(cached_plan)
    }
}

impl CachedPlan {
    /// Whether this is how `page` of `state` is answered. Where rows are checked one by one, how far the page is decides too.
    fn is_for(&self, state: &Arc<State>, page: Page) -> bool {
        std::ptr::eq(self.state.as_ptr(), Arc::as_ptr(state))
            && self.page.limit == page.limit
            && (self.page.offset == page.offset || self.plan.is_exact())
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Picks `page` of `query` from the State that this was made for.
    ///
    /// # Errors
    /// As [`Meter::check`].
    pub fn run(&self, state: &State, query: &Query, page: Page, schema: &Schema, meter: &Meter) -> Result<Selection> {
        if let Some(selection) = self.plan.counted(query, page) {
            return Ok(selection);
        }
        let table = state.table();
        if let Some(checks) = self.checks.get() {
            return self.plan.run_checked(checks, (table, meter), query, page, schema);
        }
        let checks = self.plan.checks(table, query, schema, meter);
        let selection = self.plan.run_checked(&checks, (table, meter), query, page, schema)?;
        if checks.bytes() <= MOST_KEPT {
            let _ = self.checks.set(checks);
        }
        Ok(selection)
    }
}
