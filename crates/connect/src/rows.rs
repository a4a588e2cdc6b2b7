//! Helpers shared by sources: filter, count and pages of listed rows, ids of written rows.

use std::sync::Arc;

use diorama_core::record::{BodyRef, CborValue, Record, Rows, id_from_value, id_to_value};
#[cfg(any(
    feature = "csv",
    feature = "json",
    feature = "parquet",
    feature = "spreadsheet",
    feature = "sqlite",
    feature = "postgres",
    feature = "mysql"
))]
use diorama_core::vista::Column;
use diorama_core::vista::query::Cursor;
use diorama_core::vista::{Error, Query, Result, Schema, Token};

/// Returns the rows that match `query` out of all `rows`, which are in their source's order.
pub(crate) fn apply(query: &Query, schema: &Schema, rows: Rows) -> Rows {
    let whole = query.offset == 0 && query.limit.is_none_or(|limit| limit >= rows.len() as u64);
    if whole && query.is_unfiltered() && query.order.is_empty() {
        return rows;
    }
    let found = query.prepare(schema).top(rows.bodies(), query.offset, query.limit);
    collect(schema, found.rows)
}

/// Number of `rows` that match; limit and offset are ignored.
pub(crate) fn count(query: &Query, schema: &Schema, rows: &Rows) -> u64 {
    let prepared = query.prepare(schema);
    rows.bodies().filter(|(_, body)| prepared.matches(body)).count() as u64
}

fn collect<'a>(schema: &Schema, items: impl IntoIterator<Item = (&'a str, BodyRef<'a>)>) -> Rows {
    let mut selection = Rows::with_layout(Arc::clone(schema.layout()));
    for (id, body) in items {
        selection.push_body(id, body);
    }
    selection
}

/// Returns the next page of a sorted list. The token holds the sort columns of the last row, so rows inserted or deleted between
/// two pages neither hide nor repeat other rows.
pub(crate) fn sorted_page(
    query: &Query,
    schema: &Schema,
    rows: &Rows,
    token: Option<&Token>,
) -> Result<(Rows, Option<Token>)> {
    let prepared = query.prepare(schema);
    let sorted = prepared.top(rows.bodies(), 0, None).rows;
    let start = match token {
        None => 0,
        Some(token) => {
            let cursor = Cursor::parse(token).map_err(|_| foreign_token())?;
            cursor.check(&query.order).map_err(|_| foreign_token())?;
            let last = prepared.key_of(&cursor).ok_or_else(foreign_token)?;
            sorted.partition_point(|(id, body)| prepared.sort_key(id, body) <= last)
        }
    };
    let limit = query.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let page = &sorted[start..start.saturating_add(limit).min(sorted.len())];
    let next = match page.last() {
        Some((id, body)) if start + page.len() < sorted.len() => Some(query.cursor(id, body, schema).to_string()),
        _ => None,
    };
    Ok((collect(schema, page.iter().copied()), next))
}

/// Returns the page of all matching rows, in natural order, that follows the row of `token`.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "surrealdb"))]
pub(crate) fn page_after(query: &Query, schema: &Schema, rows: Rows, token: Option<&Token>) -> (Rows, Option<Token>) {
    let all = Query { order: Vec::new(), limit: None, offset: 0, ..query.clone() };
    let rows = apply(&all, schema, rows);
    let start = token.and_then(|token| rows.ids().position(|id| id == token.as_str())).map_or(0, |at| at + 1);
    let most = query.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    first_rows(schema, &rows, start, most)
}

/// Returns at most `most` rows from `start`, and the id of the last one if there are more.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "surrealdb"))]
pub(crate) fn first_rows(schema: &Schema, rows: &Rows, start: usize, most: usize) -> (Rows, Option<Token>) {
    let mut page = Rows::with_layout(Arc::clone(schema.layout()));
    let mut last = None;
    for (id, body) in rows.bodies().skip(start).take(most) {
        page.push_body(id, body);
        last = Some(id.to_string());
    }
    let more = rows.len() > start.saturating_add(page.len());
    (page, last.filter(|_| more))
}

pub(crate) fn foreign_token() -> Error {
    Error::invalid("the page token was not issued by this source: start again without one")
}

/// Returns `record` with its id column set to `id`.
pub(crate) fn with_id(id: &str, record: &Record, schema: &Schema) -> Result<Record> {
    let column = schema.id_column();
    if id.is_empty() {
        return Err(field_error(column, "must not be empty"));
    }
    match record.get(column) {
        None | Some(CborValue::Null) => {}
        Some(value) if id_from_value(value).as_deref() == Some(id) => {}
        Some(_) => return Err(field_error(column, &format!("must be {id:?}, the id of the row"))),
    }
    let mut record = record.clone();
    record.insert(column, id_to_value(id, schema.layout()));
    Ok(record)
}

pub(crate) fn field_error(column: &str, detail: &str) -> Error {
    Error::Invalid {
        detail: format!("column {column:?} {detail}"),
        fields: [(column.to_string(), detail.to_string())].into(),
    }
}

/// Replaces inferred columns by their declarations.
///
/// # Errors
/// [`Error::Config`] if a declared column does not exist.
#[cfg(any(
    feature = "csv",
    feature = "json",
    feature = "parquet",
    feature = "spreadsheet",
    feature = "sqlite",
    feature = "postgres",
    feature = "mysql"
))]
pub(crate) fn declare(vista: &str, mut found: Vec<Column>, declared: &[Column]) -> Result<Vec<Column>> {
    for column in declared {
        match found.iter_mut().find(|own| own.name == column.name) {
            Some(own) => *own = column.clone(),
            None => {
                let names = found.iter().map(|own| &*own.name).collect::<Vec<_>>().join(", ");
                return Err(Error::Config(format!("{vista} has no column {:?}: it has {names}", column.name)));
            }
        }
    }
    Ok(found)
}
