//! Bounds of writes: a narrowed handle writes only the rows that it sees.

use std::collections::HashSet;
use std::sync::Arc;

use super::query::{CompiledQuery, Fields, Path, Projection, Test};
use super::{Error, Filter, Query, Result, Schema, TableShell, WriteKind, WriteOp, Written};
use crate::record::{CborValue, Record, id_from_value, id_to_value, merge_patch, value_to_json};

/// The rows that a write may see and produce: those that match the filter and search of a query.
///
/// The query is compiled once and checked per write. The other rows are treated as absent: they are not found, their ids are
/// taken, and no write produces one.
#[derive(Clone, Debug)]
pub struct Narrowing {
    query: Query,
    schema: Arc<Schema>,
    prepared: CompiledQuery,
}

impl Narrowing {
    /// Bounds writes by the filter and search of `query`, for rows of `schema`; order, limit, offset and projection are ignored.
    pub fn new(query: &Query, schema: &Arc<Schema>) -> Narrowing {
        let query = bounds(query);
        Narrowing { prepared: query.prepare(schema), query, schema: Arc::clone(schema) }
    }

    /// The query that lists the rows inside.
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// True if `row` is inside.
    pub fn matches(&self, row: &impl Fields) -> bool {
        self.prepared.matches(row)
    }

    /// The value that a top-level equality of the filter fixes for `column`.
    pub fn value_of(&self, column: &str) -> Option<&CborValue> {
        equalities(&self.query.filter).into_iter().find(|(own, _)| *own == column).map(|(_, value)| value)
    }

    /// Adds the values that the filter fixes to a whole row that lacks them.
    pub fn complete(&self, row: &mut Record) {
        for (column, value) in equalities(&self.query.filter) {
            let is_cell = Path::resolve(column, &self.schema).is_plain() && column != self.schema.id_column();
            if is_cell && !row.contains(column) {
                row.insert(column, value.clone());
            }
        }
    }

    /// Applies [`Narrowing::complete`] to the row of `op`, if it is a whole row.
    #[must_use]
    pub fn completed(&self, mut op: WriteOp) -> WriteOp {
        if let WriteOp::Insert { record, .. } | WriteOp::Replace { record, .. } = &mut op {
            self.complete(record);
        }
        op
    }

    /// Checks a write of `kind` against the current row.
    ///
    /// # Errors
    /// For a row outside: [`Error::Conflict`] if the write would insert or replace it, else [`Error::NotFound`].
    pub fn check_before(&self, kind: WriteKind, id: &str, before: Option<&impl Fields>) -> Result<()> {
        if before.is_none_or(|row| self.matches(row)) {
            return Ok(());
        }
        Err(match kind {
            WriteKind::Insert | WriteKind::Replace => {
                Error::Conflict { id: id.to_string(), detail: "already exists".into() }
            }
            WriteKind::Patch | WriteKind::Delete | WriteKind::DeleteAll => Error::NotFound { id: id.to_string() },
        })
    }

    /// Checks the row that a write produces.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the columns whose conditions the row does not meet.
    pub fn check_after(&self, row: &impl Fields) -> Result<()> {
        if self.matches(row) {
            return Ok(());
        }
        let mut fields = std::collections::BTreeMap::new();
        for part in parts(&self.query.filter) {
            let alone = Query { filter: part.clone(), ..Query::default() };
            if alone.prepare(&self.schema).matches(row) {
                continue;
            }
            for column in part.columns() {
                fields.entry(column.to_string()).or_insert_with(|| requirement(part));
            }
        }
        let detail = match fields.first_key_value() {
            Some((column, detail)) => format!("column {column:?} {detail}"),
            None => "the row does not contain the search words that this view is narrowed by".to_string(),
        };
        Err(Error::Invalid { detail, fields })
    }
}

/// Bounds of a write: the rows that its writer sees, may change and may make, and the columns that it knows.
#[derive(Clone, Debug, Default)]
pub struct WriteBounds {
    /// Rows that the writer sees; the others count as absent. `None` for all rows.
    pub sees: Option<Arc<Narrowing>>,
    /// Rows, among those that the writer sees, that it may change. `None` for all of them.
    pub changes: Option<Arc<Narrowing>>,
    /// Rows that the write may make. `None` for all rows.
    pub makes: Option<Arc<Narrowing>>,
    /// Rows that a replacement of an absent row may make, in place of `makes`. `None` for those of `makes`.
    pub creates: Option<Arc<Narrowing>>,
    /// True if a replacement may not create a row.
    pub keeps_absent: bool,
    /// Message of [`Error::Forbidden`] for rows outside of `changes` and `makes`. `None` if the conditions of `makes` are told
    /// ([`Error::Invalid`]).
    pub refusal: Option<Arc<str>>,
    /// Columns that the writer sees, of which it may write some. `None` for all columns.
    pub columns: Option<Arc<WriteColumns>>,
}

/// Columns that a writer knows.
#[derive(Clone, Debug)]
pub struct WriteColumns {
    /// Columns that the writer sees: versions in conditions are hashes of these. `None` for all columns.
    pub shown: Option<Projection>,
    /// Columns that the writer may write. A replacement keeps the others.
    pub writable: HashSet<Arc<str>>,
}

impl From<Narrowing> for WriteBounds {
    fn from(within: Narrowing) -> WriteBounds {
        let within = Arc::new(within);
        WriteBounds { sees: Some(Arc::clone(&within)), makes: Some(within), ..WriteBounds::default() }
    }
}

impl WriteBounds {
    /// Adds the values that the conditions on rows after the write fix; see [`Narrowing::completed`]. `exists` is true if there is
    /// such a row already.
    #[must_use]
    pub fn completed(&self, op: WriteOp, exists: bool) -> WriteOp {
        match self.after(exists) {
            Some(makes) => makes.completed(op),
            None => op,
        }
    }

    /// Returns the condition on rows after a write, of an existing row or not.
    fn after(&self, exists: bool) -> Option<&Arc<Narrowing>> {
        match (&self.creates, exists) {
            (Some(creates), false) => Some(creates),
            _ => self.makes.as_ref(),
        }
    }

    /// True if the writer sees `row`.
    pub fn sees(&self, row: &impl Fields) -> bool {
        self.sees.as_ref().is_none_or(|sees| sees.matches(row))
    }

    /// Checks a write of `kind` against the existing row.
    ///
    /// # Errors
    /// For a row that the writer does not see: [`Error::Conflict`] if the write would insert or replace it, else
    /// [`Error::NotFound`]. For a row that it may not change, [`Error::Forbidden`]. For an absent row that it may not create,
    /// [`Error::NotFound`].
    pub fn check_before(&self, kind: WriteKind, id: &str, existing: Option<&impl Fields>) -> Result<()> {
        if self.keeps_absent && kind == WriteKind::Replace && existing.is_none_or(|row| !self.sees(row)) {
            return Err(Error::NotFound { id: id.to_string() });
        }
        self.sees.as_ref().map_or(Ok(()), |sees| sees.check_before(kind, id, existing))?;
        match (existing, &self.changes) {
            (Some(row), Some(changes)) if kind != WriteKind::Insert && !changes.matches(row) => Err(self.forbidden()),
            _ => Ok(()),
        }
    }

    /// Checks the row that a write makes, from an existing row or not.
    ///
    /// # Errors
    /// [`Error::Forbidden`], or [`Error::Invalid`] with the unmet conditions if there is no `refusal`.
    pub fn check_after(&self, row: &impl Fields, existed: bool) -> Result<()> {
        match self.after(existed) {
            Some(makes) if self.refusal.is_none() => makes.check_after(row),
            Some(makes) if !makes.matches(row) => Err(self.forbidden()),
            _ => Ok(()),
        }
    }

    fn forbidden(&self) -> Error {
        let detail = self.refusal.as_deref().unwrap_or("the row may not be written").to_string();
        Error::Forbidden { detail }
    }
}

/// Carries out a bounded write to a source that cannot check it itself: reads, checks, writes.
pub(super) async fn write<S: TableShell + ?Sized>(shell: &S, op: &WriteOp, within: &Query) -> Result<Written> {
    let (schema, within) = (shell.schema(), bounds(within));
    let narrowing = Narrowing::new(&within, &schema);
    let Some(id) = op.id() else {
        for id in shell.list(&within).await?.ids() {
            match shell.write(&WriteOp::Delete { id: id.to_string() }).await {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        return Ok(Written::default());
    };
    let before = shell.get(id).await?;
    narrowing.check_before(op.kind(), id, before.as_ref())?;
    let op = narrowing.completed(op.clone());
    let after = match (&op, before) {
        (WriteOp::Insert { record, .. } | WriteOp::Replace { record, .. }, _) => Some(with_id(id, record, &schema)),
        (WriteOp::Patch { record, .. }, Some(before)) => Some(merge_patch(before, record, schema.layout())),
        _ => None,
    };
    after.map_or(Ok(()), |after| narrowing.check_after(&after))?;
    shell.write(&op).await
}

/// A copy of `record` with its id column set.
fn with_id(id: &str, record: &Record, schema: &Schema) -> Record {
    let mut record = record.clone();
    record.insert(schema.id_column(), id_to_value(id, schema.layout()));
    record
}

/// The part of `query` that bounds writes.
pub(super) fn bounds(query: &Query) -> Query {
    Query { filter: query.filter.clone(), search: query.search.clone(), ..Query::default() }
}

/// Description of an unmet condition, for the column's error.
fn requirement(part: &Filter) -> String {
    match part {
        Filter::Test { test: Test::Eq(value), .. } => {
            let value = String::from_utf8_lossy(&value_to_json(value)).into_owned();
            format!("must be {value}: this view is narrowed to it")
        }
        _ => "does not meet the condition that this view is narrowed by".to_string(),
    }
}

/// The top-level conditions of a filter, all of which must hold.
fn parts(filter: &Filter) -> Vec<&Filter> {
    match filter {
        Filter::All(all) => all.iter().flat_map(parts).collect(),
        other => vec![other],
    }
}

/// Columns that must equal a value, with that value.
fn equalities(filter: &Filter) -> Vec<(&str, &CborValue)> {
    let equality = |part| match part {
        &Filter::Test { ref column, test: Test::Eq(ref value) } => Some((column.as_str(), value)),
        _ => None,
    };
    parts(filter).into_iter().filter_map(equality).collect()
}

/// The id in `row`, or the id that the narrowing fixes.
pub(super) fn given_id(narrowing: Option<&Narrowing>, row: &Record, id_column: &str) -> Option<String> {
    let own = row.get(id_column).filter(|value| !value.is_null());
    own.or_else(|| narrowing?.value_of(id_column)).and_then(id_from_value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vista::{Column, ColumnType};

    fn schema() -> Arc<Schema> {
        let columns = [("id", ColumnType::String), ("kind", ColumnType::Integer), ("price", ColumnType::Integer)];
        Arc::new(Schema::new("id", columns.map(|(name, ty)| Column::new(name, ty)).to_vec()))
    }

    fn row(kind: Option<i64>, price: i64) -> Record {
        let cells = [("kind", kind.map(CborValue::from)), ("price", Some(price.into()))];
        cells.into_iter().filter_map(|(name, cell)| Some((name.to_string(), cell?))).collect()
    }

    #[test]
    fn equalities_fill_in_columns_and_other_conditions_are_checked() {
        let mut filter = Filter::eq("kind", 2.into());
        filter.and(Filter::test("price", Test::Gt(5.into())));
        let within = Narrowing::new(&Query { filter, limit: Some(1), ..Query::default() }, &schema());
        assert_eq!(within.query().limit, None);
        let mut given = row(None, 6);
        within.complete(&mut given);
        assert_eq!(given["kind"], 2.into());
        assert!(within.check_after(&given).is_ok());
        let mut other = row(Some(3), 5);
        within.complete(&mut other);
        let Err(Error::Invalid { detail, fields }) = within.check_after(&other) else { panic!() };
        assert_eq!(detail, r#"column "kind" must be 2: this view is narrowed to it"#);
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["kind", "price"]);
    }

    #[test]
    fn a_row_outside_is_not_found_and_its_id_is_taken() {
        let within = Narrowing::new(&Query { filter: Filter::eq("kind", 2.into()), ..Query::default() }, &schema());
        let (inside, outside) = (row(Some(2), 1), row(Some(3), 1));
        for kind in [WriteKind::Insert, WriteKind::Replace, WriteKind::Patch, WriteKind::Delete] {
            assert!(within.check_before(kind, "7", Some(&inside)).is_ok());
            assert!(within.check_before(kind, "7", None::<&Record>).is_ok());
            let error = within.check_before(kind, "7", Some(&outside)).unwrap_err();
            match kind {
                WriteKind::Insert | WriteKind::Replace => assert!(matches!(error, Error::Conflict { .. })),
                _ => assert!(matches!(error, Error::NotFound { .. })),
            }
        }
    }
}
