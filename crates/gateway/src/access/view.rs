//! [`View`]: the rows and columns of a resource that a caller may read.

use std::collections::HashSet;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use diorama_core::record::Body;
use diorama_core::vista::query::{CompiledQuery, Fields, JsonRow, Path, Projection, SelectItem};
use diorama_core::vista::{Filter, Query, Result, Schema};

/// Identity of a view's contents: views with equal ids show the same rows and columns. Zero is the view of everything.
///
/// The id is half of a SHA-256 of filter and columns. Cached data of one view must never reach another, so it must be infeasible to
/// find two filters with the same id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ViewId(u128);

impl ViewId {
    fn of(filter: &Filter, columns: Option<&Columns>) -> ViewId {
        let names = columns.map(|columns| &columns.names);
        let digest: [u8; 32] = Sha256::digest(format!("{filter:?} {names:?}")).into();
        let half = digest.iter().take(16).fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
        ViewId(half.max(1))
    }

    /// Returns the high and low half, for ETags and seeds of hashes. Both are zero for the view of everything.
    pub(crate) fn halves(self) -> (u64, u64) {
        ((self.0 >> 64) as u64, self.0 as u64)
    }
}

/// Columns of which a caller knows.
#[derive(Debug)]
pub(crate) struct Columns {
    /// Names in the order of the schema. The id is always one of them.
    pub(crate) names: Vec<Arc<str>>,
    /// Projection of whole rows.
    pub(crate) projection: Projection,
    /// Schema of the full rows, of which only the visible columns are searched.
    full: Arc<Schema>,
}

/// Rows and columns of a resource that a caller may read.
#[derive(Debug)]
pub(crate) struct View {
    /// Condition of the rows. Rows that do not pass are treated as absent.
    filter: Filter,
    /// Compiled condition; `None` if all rows pass.
    compiled: Option<CompiledQuery>,
    /// Visible columns; `None` if all are.
    columns: Option<Columns>,
    /// Schema of the visible columns.
    schema: Arc<Schema>,
    id: ViewId,
}

impl View {
    /// Creates the view of all rows and columns.
    pub(crate) fn everything(schema: &Arc<Schema>) -> View {
        let (filter, schema) = (Filter::default(), Arc::clone(schema));
        View { filter, compiled: None, columns: None, schema, id: ViewId::default() }
    }

    /// Creates the view of no row, with the id alone.
    pub(crate) fn nothing(schema: &Arc<Schema>) -> View {
        let filter = Filter::Any(Vec::new());
        let id = ViewId::of(&filter, None);
        let compiled = Some(Query { filter: filter.clone(), ..Query::default() }.prepare(schema));
        let schema = Arc::new(schema.restricted(|_| false));
        View { filter, compiled, columns: None, schema, id }
    }

    /// Creates the view of the rows that pass `filter` and of the columns in `names`, or all columns.
    ///
    /// # Errors
    /// As [`Query::projection`](diorama_core::vista::Query).
    pub(crate) fn new(schema: &Arc<Schema>, filter: Filter, names: Option<&HashSet<Arc<str>>>) -> Result<View> {
        let columns = names.map(|names| Columns::new(schema, names)).transpose()?;
        if filter.is_everything() && columns.is_none() {
            return Ok(View::everything(schema));
        }
        let full = columns.as_ref().map_or(schema, |columns| &columns.full);
        let query = Query { filter: filter.clone(), ..Query::default() };
        let compiled = (!filter.is_everything()).then(|| query.prepare(full));
        let id = ViewId::of(&filter, columns.as_ref());
        let visible = match &columns {
            Some(columns) => Arc::new(full.restricted(|name| columns.names.iter().any(|shown| **shown == *name))),
            None => Arc::clone(schema),
        };
        Ok(View { filter, compiled, columns, schema: visible, id })
    }

    /// Returns the schema of the visible columns, by which queries are parsed.
    pub(crate) fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Returns the schema by which narrowed queries are executed: that of all columns, of which only the visible ones are searched.
    pub(crate) fn full_schema(&self) -> &Arc<Schema> {
        self.columns.as_ref().map_or(&self.schema, |columns| &columns.full)
    }

    /// Returns the condition of the rows.
    pub(crate) fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Returns the visible columns; `None` if all are.
    pub(crate) fn columns(&self) -> Option<&Columns> {
        self.columns.as_ref()
    }

    /// Returns the identity of the contents.
    pub(crate) fn id(&self) -> ViewId {
        self.id
    }

    /// Returns true if all rows are in the view, with or without all columns.
    pub(crate) fn has_all_rows(&self) -> bool {
        self.compiled.is_none()
    }

    /// Returns true if all rows and columns are in the view.
    pub(crate) fn is_everything(&self) -> bool {
        self.has_all_rows() && self.columns.is_none()
    }

    /// Returns true if `row` is in the view.
    pub(crate) fn sees(&self, row: &impl Fields) -> bool {
        self.compiled.as_ref().is_none_or(|filter| filter.matches(row))
    }

    /// Returns the version of a row: a hash of its visible part.
    pub(crate) fn version(&self, row: &Body) -> u128 {
        self.columns.as_ref().map_or_else(|| row.hash(), |columns| columns.projection.hash(&JsonRow::from(row)))
    }

    /// Returns true if callers know of the column `name`.
    pub(crate) fn shows(&self, name: &str) -> bool {
        self.columns.as_ref().is_none_or(|columns| columns.names.iter().any(|shown| **shown == *name))
    }

    /// Narrows `query`, which was parsed by [`View::schema`], to the rows and columns of the view.
    pub(crate) fn narrow(&self, mut query: Query) -> Query {
        if !self.has_all_rows() {
            query.filter = self.filter.clone().narrowed_by(query.filter);
        }
        let Some(columns) = &self.columns else { return query };
        let all = || columns.names.iter().map(|name| SelectItem::Column { column: name.to_string(), alias: None });
        if query.select.iter().all(|item| *item == SelectItem::Everything) {
            query.select = all().collect();
            return query;
        }
        let name = |item: &SelectItem| match item {
            SelectItem::Everything => None,
            SelectItem::Column { alias: Some(alias), .. } => Some(alias.clone()),
            SelectItem::Column { column, .. } => Some(Path::resolve(column, &self.schema).name().to_string()),
        };
        let own: HashSet<String> = query.select.iter().filter_map(name).collect();
        let spread = |item| match item {
            // `*` shows the columns that no other item names.
            SelectItem::Everything => all().filter(|item| name(item).is_none_or(|name| !own.contains(&name))).collect(),
            item => vec![item],
        };
        query.select = std::mem::take(&mut query.select).into_iter().flat_map(spread).collect();
        query
    }

    /// Returns the JSON of a row as the view shows it.
    pub(crate) fn json(&self, row: &JsonRow<'_>) -> Vec<u8> {
        match &self.columns {
            None => row.0.to_vec(),
            Some(columns) => {
                let mut shown = Vec::with_capacity(row.0.len());
                columns.projection.write_json(row, &mut shown);
                shown
            }
        }
    }
}

impl Columns {
    fn new(schema: &Arc<Schema>, names: &HashSet<Arc<str>>) -> Result<Columns> {
        let shown = |name: &Arc<str>| **name == *schema.id_column() || names.contains(name);
        let names: Vec<Arc<str>> =
            schema.columns().iter().map(|column| &column.name).filter(|name| shown(name)).cloned().collect();
        let select = names.iter().map(|name| SelectItem::Column { column: name.to_string(), alias: None }).collect();
        let projection = Query { select, ..Query::default() }.projection(schema)?;
        let projection = projection.ok_or_else(|| diorama_core::vista::Error::invalid("no column is visible"))?;
        let visible = schema.restricted(|name| names.iter().any(|shown| **shown == *name));
        Ok(Columns { projection, full: Arc::new(schema.searching(&visible.searchable())), names })
    }
}
