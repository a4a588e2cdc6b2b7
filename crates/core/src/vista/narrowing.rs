//! A bound on writes: the rows that a narrowed handle sees are the only ones it writes.

use std::sync::Arc;

use super::query::{CompiledQuery, Fields, Path, Test};
use super::{Error, Filter, Query, Result, Schema, TableShell, WriteKind, WriteOp, Written};
use crate::record::{CborValue, Record, id_from_value, id_to_value, merge_patch, value_to_json};

/// The rows that a write may see and make, as the filter and the search words of a query say. Prepared once, judged per write.
///
/// A write is judged as if the other rows were not there: one of them is not found, its id is taken, and no write makes one.
#[derive(Clone, Debug)]
pub struct Narrowing {
    query: Query,
    schema: Arc<Schema>,
    prepared: CompiledQuery,
}

impl Narrowing {
    /// The rows of `schema` that pass filter and search of `query`; its order, limit, offset and projection do not count.
    pub fn new(query: &Query, schema: &Arc<Schema>) -> Narrowing {
        let query = bounds(query);
        Narrowing { prepared: query.prepare(schema), query, schema: Arc::clone(schema) }
    }

    /// The query that lists these rows.
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// Tells whether `row` is one of these rows.
    pub fn matches(&self, row: &impl Fields) -> bool {
        self.prepared.matches(row)
    }

    /// The value that an equality at the top of the filter gives `column`.
    pub fn value_of(&self, column: &str) -> Option<&CborValue> {
        equalities(&self.query.filter).into_iter().find(|(own, _)| *own == column).map(|(_, value)| value)
    }

    /// Gives a whole row the values of the columns that the filter fixes and the row lacks.
    pub fn complete(&self, row: &mut Record) {
        for (column, value) in equalities(&self.query.filter) {
            let is_cell = Path::resolve(column, &self.schema).is_plain() && column != self.schema.id_column();
            if is_cell && !row.contains(column) {
                row.insert(column, value.clone());
            }
        }
    }

    /// [`Narrowing::complete`] for the row that `op` carries, if it is a whole one.
    #[must_use]
    pub fn completed(&self, mut op: WriteOp) -> WriteOp {
        if let WriteOp::Insert { record, .. } | WriteOp::Replace { record, .. } = &mut op {
            self.complete(record);
        }
        op
    }

    /// Judges a write of `kind` by the row that is there.
    ///
    /// # Errors
    /// For a row outside: [`Error::Conflict`] where a row is to be put in its place, else [`Error::NotFound`].
    pub fn check_before(&self, kind: WriteKind, id: &str, before: Option<&impl Fields>) -> Result<()> {
        if before.is_none_or(|row| self.matches(row)) {
            return Ok(());
        }
        Err(match kind {
            WriteKind::Insert | WriteKind::Replace => {
                Error::Conflict { id: id.to_string(), detail: "is there already".into() }
            }
            WriteKind::Patch | WriteKind::Delete | WriteKind::DeleteAll => Error::NotFound { id: id.to_string() },
        })
    }

    /// Judges a write by the row that it makes.
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
            None => "the row lacks the words of the search that this view is narrowed by".to_string(),
        };
        Err(Error::Invalid { detail, fields })
    }
}

/// A bounded write to a source that cannot judge it itself: reads, judges, writes.
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

/// `record` with its id in it.
fn with_id(id: &str, record: &Record, schema: &Schema) -> Record {
    let mut record = record.clone();
    record.insert(schema.id_column(), id_to_value(id, schema.layout()));
    record
}

/// The part of `query` that bounds writes.
pub(super) fn bounds(query: &Query) -> Query {
    Query { filter: query.filter.clone(), search: query.search.clone(), ..Query::default() }
}

/// Describes what a condition asks of a row.
fn requirement(part: &Filter) -> String {
    match part {
        Filter::Test { test: Test::Eq(value), .. } => {
            let value = String::from_utf8_lossy(&value_to_json(value)).into_owned();
            format!("must be {value}: this view is narrowed to it")
        }
        _ => "does not meet the condition that this view is narrowed by".to_string(),
    }
}

/// The conditions that must all hold.
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

/// The id that `row` says it has, or that the narrowing gives it.
pub(super) fn given_id(narrowing: Option<&Narrowing>, row: &Record, id_column: &str) -> Option<String> {
    let said = row.get(id_column).filter(|value| !value.is_null());
    said.or_else(|| narrowing?.value_of(id_column)).and_then(id_from_value)
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
    fn columns_that_an_equality_fixes_are_filled_in_and_others_are_judged() {
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
    fn a_row_outside_is_not_there_and_its_id_is_taken() {
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
