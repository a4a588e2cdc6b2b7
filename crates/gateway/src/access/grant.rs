//! [`Grant`]: what one caller may do with one resource.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::principal::Principal;
use super::rule::Rule;
use super::verb::{Verb, Verbs};
use super::view::View;
use diorama_core::vista::{Filter, Narrowing, Query, Schema, WriteBounds, WriteColumns, WriteKind};

/// Permissions of one caller for one resource.
#[derive(Debug)]
pub(crate) struct Grant {
    verbs: Verbs,
    /// True if no rule applies to the caller.
    unrestricted: bool,
    /// Rows and columns for the verbs of rows, in the order of [`Verb::OF_ROWS`].
    views: [Arc<View>; Verb::OF_ROWS.len()],
    /// Rows and columns of live queries: those of `read` and `events`.
    live: Arc<View>,
    /// Conditions of the rows that inserts and updates make.
    inserted: Filter,
    updated: Filter,
    /// Bounds of each kind of write; `None` if there are none.
    bounds: WriteKinds,
    /// Schema of the columns that the caller sees or may write.
    input: Arc<Schema>,
    /// Set once other rules apply.
    retired: Arc<AtomicBool>,
}

/// Bounds of inserts, replacements, patches and deletions.
type WriteKinds = [Option<Arc<WriteBounds>>; 4];

impl Grant {
    /// Creates the grant of a caller to whom no rules apply, for `verbs`.
    pub(crate) fn unrestricted(schema: &Arc<Schema>, verbs: Verbs) -> Grant {
        let all = Arc::new(View::everything(schema));
        let views = Verb::OF_ROWS.map(|_| Arc::clone(&all));
        let (inserted, updated) = (Filter::default(), Filter::default());
        let (input, bounds, retired) = (Arc::clone(schema), WriteKinds::default(), Arc::default());
        let grant = Grant { verbs, unrestricted: true, views, live: all, inserted, updated, bounds, input, retired };
        grant.completed(schema)
    }

    /// Creates the grant of `principal` by `rules`, of which some are about other callers.
    pub(super) fn by_rules(rules: &[Rule], principal: &Principal, schema: &Arc<Schema>) -> Grant {
        let most = principal.identity().map_or(Verbs::ALL, |identity| identity.verbs);
        let own: Vec<&Rule> = rules.iter().filter(|rule| rule.is_about(principal)).collect();
        let verbs = own.iter().fold(Verbs::NONE, |verbs, rule| verbs.union(rule.can)).intersection(most);
        let of = |verb: Verb| own.iter().filter(move |rule| rule.can.has(verb)).copied();
        let view = |verb: Verb| {
            let filter = any(of(verb).map(|rule| rule.filter(principal, schema)));
            let columns = of(verb).find_map(|rule| rule.columns.as_ref());
            view(schema, filter, columns)
        };
        let checks = |verb: Verb| any(of(verb).map(|rule| rule.check(principal, schema)));
        let views = Verb::OF_ROWS.map(view);
        let live = live(schema, &views[0], &views[1]);
        let (inserted, updated) = (checks(Verb::Insert), checks(Verb::Update));
        let (input, bounds, retired) = (Arc::clone(schema), WriteKinds::default(), Arc::default());
        Grant { verbs, unrestricted: false, views, live, inserted, updated, bounds, input, retired }.completed(schema)
    }

    /// Binds the grant to the policy that sets `retired` when it is replaced.
    pub(super) fn until(self, retired: &Arc<AtomicBool>) -> Grant {
        Grant { retired: Arc::clone(retired), ..self }
    }

    /// Returns false once other rules apply.
    pub(crate) fn is_current(&self) -> bool {
        !self.retired.load(Ordering::Acquire)
    }

    /// Creates the grant of all verbs for the rows that pass `filter`.
    #[cfg(test)]
    pub(crate) fn within(schema: &Arc<Schema>, filter: &Filter) -> Grant {
        let shown = view(schema, filter.clone(), None);
        let views = Verb::OF_ROWS.map(|_| Arc::clone(&shown));
        let (inserted, updated, verbs) = (filter.clone(), filter.clone(), Verbs::ALL);
        let (input, bounds, retired) = (Arc::clone(schema), WriteKinds::default(), Arc::default());
        Grant { verbs, unrestricted: false, views, live: shown, inserted, updated, bounds, input, retired }
            .completed(schema)
    }

    /// Returns the permitted verbs.
    pub(crate) fn verbs(&self) -> Verbs {
        self.verbs
    }

    /// Returns true if no rule applies to the caller, who sees every row and column.
    pub(crate) fn is_unrestricted(&self) -> bool {
        self.unrestricted
    }

    /// Returns the rows and columns for `verb`. Without the right to read, a caller knows of the rows that it may change, and it
    /// sees no rows for verbs that are not about rows.
    pub(crate) fn view(&self, verb: Verb) -> &Arc<View> {
        match verb {
            Verb::Events => self.own(Verb::Events),
            Verb::Insert | Verb::Update | Verb::Delete if !self.verbs.has(Verb::Read) => self.own(verb),
            _ => self.own(Verb::Read),
        }
    }

    /// Returns the schema of the columns of which the caller knows, out of all columns `full`.
    pub(crate) fn schema(&self, full: &Arc<Schema>) -> Arc<Schema> {
        match Verb::OF_ROWS.into_iter().find(|verb| self.verbs.has(*verb)) {
            Some(verb) => Arc::clone(self.view(verb).schema()),
            None if self.unrestricted || self.verbs.has(Verb::Admin) => Arc::clone(full),
            None => Arc::new(full.restricted(|_| false)),
        }
    }

    /// Returns the rows and columns of live queries.
    pub(crate) fn live(&self) -> &Arc<View> {
        &self.live
    }

    /// Returns the schema of the columns that the caller sees or may write, by which bodies of writes are checked.
    pub(crate) fn input(&self) -> &Arc<Schema> {
        &self.input
    }

    /// Returns the names of the columns that the rules permit for `verb`; `None` for all.
    pub(crate) fn columns(&self, verb: Verb) -> Option<&[Arc<str>]> {
        self.own(verb).columns().map(|columns| &*columns.names)
    }

    /// Returns the bounds of writes of `kind`; `None` if there are none.
    pub(crate) fn bounds(&self, kind: WriteKind) -> Option<&Arc<WriteBounds>> {
        let [insert, replace, patch, delete] = &self.bounds;
        match kind {
            WriteKind::Insert => insert.as_ref(),
            WriteKind::Replace => replace.as_ref(),
            WriteKind::Patch => patch.as_ref(),
            WriteKind::Delete | WriteKind::DeleteAll => delete.as_ref(),
        }
    }

    /// Returns the columns that writes of `kind` may set; `None` for all.
    pub(crate) fn writable(&self, kind: WriteKind) -> Option<&HashSet<Arc<str>>> {
        self.bounds(kind)?.columns.as_ref().map(|columns| &columns.writable)
    }

    /// Completes a grant whose views are known.
    fn completed(mut self, schema: &Arc<Schema>) -> Grant {
        let verbs = [Verb::Read, Verb::Insert, Verb::Update];
        let knows = |verb: Verb, column: &str| self.verbs.has(verb) && self.own(verb).schema().column(column).is_some();
        let known = |column: &str| verbs.into_iter().any(|verb| knows(verb, column));
        if !schema.columns().iter().all(|column| known(&column.name)) {
            self.input = Arc::new(schema.restricted(known));
        }
        self.bounds = self.write_bounds(schema);
        self
    }

    /// Returns the rows and columns of the rules for `verb` alone.
    fn own(&self, verb: Verb) -> &Arc<View> {
        Verb::OF_ROWS.iter().position(|own| *own == verb).map_or(&self.views[0], |at| &self.views[at])
    }

    fn write_bounds(&self, schema: &Arc<Schema>) -> WriteKinds {
        let narrowed =
            |filter: &Filter| Arc::new(Narrowing::new(&Query { filter: filter.clone(), ..Query::default() }, schema));
        let narrowing = |filter: &Filter| (!filter.is_everything()).then(|| narrowed(filter));
        let bounds = |verb: Verb, kind: WriteKind| {
            let (sees, changes) = (self.view(verb), self.own(verb));
            let makes = if kind == WriteKind::Insert { &self.inserted } else { &self.updated };
            let bounds = WriteBounds {
                sees: narrowing(sees.filter()),
                changes: if sees.filter() == changes.filter() { None } else { narrowing(changes.filter()) },
                makes: if kind == WriteKind::Delete { None } else { narrowing(makes) },
                creates: (kind == WriteKind::Replace).then(|| narrowed(&self.inserted)),
                keeps_absent: kind == WriteKind::Replace && !self.verbs.has(Verb::Insert),
                refusal: Some("the access rules do not permit this write".into()),
                columns: columns(sees, changes),
            };
            let none = self.unrestricted && !bounds.keeps_absent;
            (!none).then(|| Arc::new(bounds))
        };
        [
            bounds(Verb::Insert, WriteKind::Insert),
            bounds(Verb::Update, WriteKind::Replace),
            bounds(Verb::Update, WriteKind::Patch),
            bounds(Verb::Delete, WriteKind::Delete),
        ]
    }
}

/// Returns the columns of a write by a caller who sees `sees` and may write `writes`; `None` if both are all columns.
fn columns(sees: &View, writes: &View) -> Option<Arc<WriteColumns>> {
    let all = || sees.full_schema().columns().iter().map(|column| Arc::clone(&column.name)).collect::<Vec<_>>();
    if sees.columns().is_none() && writes.columns().is_none() {
        return None;
    }
    let writable = writes.columns().map_or_else(all, |columns| columns.names.clone());
    let shown = sees.columns().map(|columns| columns.projection.clone());
    Some(Arc::new(WriteColumns { shown, writable: writable.into_iter().collect() }))
}

/// Returns the condition that holds where any of the bound conditions does.
fn any(filters: impl Iterator<Item = Option<Filter>>) -> Filter {
    let mut parts: Vec<Filter> = Vec::new();
    for filter in filters.flatten() {
        if filter.is_everything() {
            return Filter::default();
        }
        if !parts.contains(&filter) {
            parts.push(filter);
        }
    }
    match parts.len() {
        1 => parts.swap_remove(0),
        _ => Filter::Any(parts),
    }
}

/// Returns the view of these rows and columns.
fn view(schema: &Arc<Schema>, filter: Filter, columns: Option<&HashSet<Arc<str>>>) -> Arc<View> {
    // Columns of rules are columns of the schema, so their projection is valid. If it were not, nobody would see a row.
    let view = View::new(schema, filter, columns);
    Arc::new(view.unwrap_or_else(|_| View::nothing(schema)))
}

/// Returns the view of what both views show.
fn live(schema: &Arc<Schema>, read: &Arc<View>, events: &Arc<View>) -> Arc<View> {
    if read.id() == events.id() {
        return Arc::clone(read);
    }
    let filter = Filter::All(vec![read.filter().clone(), events.filter().clone()]);
    let names = |view: &View| view.columns().map(|columns| columns.names.iter().cloned().collect::<HashSet<_>>());
    let columns = match (names(read), names(events)) {
        (Some(read), Some(events)) => Some(read.intersection(&events).cloned().collect()),
        (one, other) => one.or(other),
    };
    view(schema, filter, columns.as_ref())
}
