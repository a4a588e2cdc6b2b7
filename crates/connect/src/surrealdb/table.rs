//! A table as the server describes it and its first rows show it: columns, types, the keys of records, the change feed.

use std::sync::Arc;

use indexmap::IndexMap;

use super::cbor::{is_nothing, items, member, none, object, text};
use super::errors::{Failure, Refusal, failed};
use super::kind::{Declared, Kind};
use super::record_id::{KeyType, parts, record, records_after};
use super::rpc::Session;
use super::value::{decode, encode, identifier, remove_nulls};
use super::{ops, rpc};
use crate::rows::field_error;
use diorama_core::record::{CborValue, Record, id_to_value};
use diorama_core::vista::{Column, Error, Flag, Inferred, Result, Schema};

/// Name of the column with the id, in every table.
pub(super) const ID: &str = "id";
/// Number of rows that are read to find the columns of a table without declared fields.
const SAMPLE: u64 = 200;

/// Options of a source.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    pub(super) id: Option<String>,
    /// Columns with declared types and flags.
    pub(super) columns: Vec<Column>,
    pub(super) read_only: bool,
}

/// A table of a database.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) schema: Arc<Schema>,
    pub(super) key: KeyType,
    /// True if rows can be written.
    pub(super) is_writable: bool,
    pub(super) inferred: Vec<Inferred>,
    /// Types of the columns.
    fields: IndexMap<String, Field>,
}

/// A top-level field.
#[derive(Clone, Debug, Default)]
struct Field {
    declared: Declared,
    /// The type as the server writes it.
    original: String,
    /// True if the server gives it a value.
    has_default: bool,
}

impl Table {
    /// Asks the server for the table `name`.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no such table, or it does not match the options; [`Error::Source`] if the server fails.
    pub(super) async fn describe(session: &mut Session, name: &str, options: &Options) -> Result<Table> {
        if let Some(id) = options.id.as_deref().filter(|id| *id != ID) {
            return Err(Error::Config(format!("id = {id:?}: the id of a record of SurrealDB is its column {ID:?}")));
        }
        let definition = definition(session, name).await?;
        let mut fields = fields(session, name).await?;
        let sample = sample(session, name).await?;
        let key = match sample.is_empty() {
            true => KeyType::of_column(options.columns.iter().find(|column| &*column.name == ID)),
            false => KeyType::of(sample.iter().filter_map(|row| Some(parts(member(row, ID)?)?.1))),
        };
        let is_schemafull = matches!(member(&definition, "schemafull"), Some(CborValue::Bool(true)));
        let mut inferred = Vec::new();
        if !is_schemafull {
            let found = see(&sample, &mut fields);
            let because = format!("seen in the first {} rows; the table has no such fields", sample.len());
            if !found.is_empty() {
                inferred.push(Inferred::new("columns", found.join(", "), because, "columns"));
            }
        }
        let is_view = member(&definition, "view").is_some();
        let is_writable = !is_view && !options.read_only && ops::prepare(session).await?;
        let schema = Arc::new(schema(name, key, &mut fields, options, is_schemafull)?);
        Ok(Table { name: name.into(), schema, key, is_writable, inferred, fields })
    }

    /// Returns the record id of the row `id`; `None` if there is no such key.
    pub(super) fn record_id(&self, id: &str) -> Option<CborValue> {
        Some(record(&self.name, self.key.key_of(id)?))
    }

    /// Returns the id of the row with this record id; `None` if it is of another table.
    pub(super) fn id_of(&self, record_id: &CborValue) -> Option<String> {
        parts(record_id).filter(|(table, _)| *table == self.name).and_then(|(_, key)| self.key.id_of(key))
    }

    /// Converts a record to a row.
    ///
    /// # Errors
    /// The problem with the record.
    pub(super) fn row(&self, value: CborValue) -> std::result::Result<(String, Record), String> {
        let id = member(&value, ID).and_then(|id| self.id_of(id)).ok_or("a record has no id of the table")?;
        let CborValue::Map(members) = value else { return Err(format!("the record {id} is not an object")) };
        let mut row = Record::default();
        for (name, value) in members {
            let CborValue::Text(name) = name else { continue };
            if name == ID {
                row.insert(name, id_to_value(&id, self.schema.layout()));
            } else if !matches!(value, CborValue::Tag(super::cbor::NONE, _)) {
                let kind = self.fields.get(&name).map_or(&Kind::Any, |field| &field.declared.kind);
                row.insert(name, decode(kind, value));
            }
        }
        Ok((id, row))
    }

    /// Converts the cells of a row, without its id, to the content of a record.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cell that is not of the column's type.
    pub(super) fn content(&self, row: &Record) -> Result<CborValue> {
        self.encoded(row, |value| value)
    }

    /// Converts a patch to what is merged into a record.
    ///
    /// # Errors
    /// As [`Table::content`].
    pub(super) fn patch(&self, patch: &Record) -> Result<CborValue> {
        self.encoded(patch, remove_nulls)
    }

    fn encoded(&self, cells: &Record, nested: impl Fn(CborValue) -> CborValue) -> Result<CborValue> {
        let mut members = Vec::with_capacity(cells.len());
        for (name, cell) in cells.iter().filter(|(name, _)| *name != ID) {
            let value = if is_nothing(cell) { self.null(name) } else { nested(self.encode(name, cell)?) };
            members.push((name.as_str().into(), value));
        }
        Ok(CborValue::Map(members))
    }

    fn encode(&self, name: &str, cell: &CborValue) -> Result<CborValue> {
        let kind = self.fields.get(name).map_or(&Kind::Any, |field| &field.declared.kind);
        encode(kind, cell).ok_or_else(|| field_error(name, &format!("must be {}", kind.expected())))
    }

    /// Returns the value that a column has for null: `NONE` removes it.
    fn null(&self, name: &str) -> CborValue {
        match self.fields.get(name) {
            Some(field) if field.declared.allows_null || !field.declared.allows_none => CborValue::Null,
            _ => none(),
        }
    }

    /// Returns true if a stored row equals the row of an insert, which makes it a retry. Columns that the insert lacks must be null
    /// or have a default.
    pub(super) fn is_identical(&self, row: &Record, stored: &Record) -> Result<bool> {
        for (name, cell) in row.iter().filter(|(name, _)| *name != ID) {
            let stored = stored.get(name).unwrap_or(&CborValue::Null);
            let is_same = match (cell.is_null(), stored.is_null()) {
                (false, false) => self.encode(name, cell)? == self.encode(name, stored)?,
                (given, stored) => given == stored,
            };
            if !is_same {
                return Ok(false);
            }
        }
        let has_default = |name: &String| self.fields.get(name).is_some_and(|field| field.has_default);
        let others = stored.iter().filter(|(name, value)| *name != ID && !row.contains(name) && !value.is_null());
        Ok(others.into_iter().all(|(name, _)| has_default(name)))
    }
}

/// Returns the definition of the table.
async fn definition(session: &mut Session, name: &str) -> Result<CborValue> {
    let refused = |failure: Failure| match failure {
        Failure::Refused(refusal) => Error::Config(format!("the tables cannot be listed: {}", refusal.advice())),
        failure => failed(failure),
    };
    let info = session.last("INFO FOR DB STRUCTURE", object([]), None).await.map_err(refused)?;
    let tables = member(&info, "tables").cloned().map(items).unwrap_or_default();
    let is_internal = |name: &str| name.starts_with("_diorama");
    let names: Vec<&str> =
        tables.iter().filter_map(|table| text(table, "name")).filter(|name| !is_internal(name)).collect();
    let known = if names.is_empty() { "there is none".into() } else { format!("there are {}", names.join(", ")) };
    let missing = Error::Config(format!("the table {name:?} does not exist in this database: {known}"));
    tables.into_iter().find(|table| text(table, "name") == Some(name)).ok_or(missing)
}

/// Returns the time for which the server keeps changes of the table; `None` without a change feed.
///
/// # Errors
/// The reason why that is not known.
pub(super) async fn changefeed(session: &mut Session, name: &str) -> std::result::Result<Option<String>, String> {
    let definition = definition(session, name).await.map_err(|error| error.to_string())?;
    Ok(member(&definition, "changefeed").map(|feed| expiry(feed).unwrap_or_default()))
}

/// Returns the declared fields.
async fn fields(session: &mut Session, name: &str) -> Result<IndexMap<String, Field>> {
    let sql = format!("INFO FOR TABLE {} STRUCTURE", identifier(name));
    let info = session.last(&sql, object([]), None).await.map_err(failed)?;
    let mut fields: IndexMap<String, Field> = IndexMap::new();
    for declared in member(&info, "fields").cloned().map(items).unwrap_or_default() {
        let (Some(path), kind) = (text(&declared, "name"), text(&declared, "kind").unwrap_or_default()) else {
            continue;
        };
        let path = path.replace('`', "").replace("[*]", ".*");
        let mut path = path.split('.');
        let Some(first) = path.next().filter(|first| *first != ID) else { continue };
        let nested: Vec<&str> = path.collect();
        let field = fields.entry(first.to_string()).or_insert_with(|| Field {
            declared: Declared { allows_none: true, ..Declared::default() },
            ..Field::default()
        });
        let declared_kind = Declared::parse(kind);
        if nested.is_empty() {
            let has = |name: &str| member(&declared, name).is_some();
            field.has_default = has("default") || has("value") || has("computed") || kind.is_empty();
            (field.declared.allows_none, field.declared.allows_null) =
                (declared_kind.allows_none, declared_kind.allows_null);
            field.original = kind.to_string();
        }
        field.declared.kind.declare(&nested, declared_kind.kind);
    }
    Ok(fields)
}

/// Returns the first rows.
async fn sample(session: &mut Session, name: &str) -> Result<Vec<CborValue>> {
    let variables = object([("range", records_after(name, None))]);
    for limit in [SAMPLE, 1] {
        let sql = format!("SELECT * FROM $range LIMIT {limit}{}", timeout());
        match session.last(&sql, variables.clone(), None).await {
            Ok(rows) => return Ok(items(rows)),
            Err(Failure::TooLarge) => {}
            Err(failure) => return Err(failed(failure)),
        }
    }
    Err(failed(Failure::TooLarge))
}

/// Returns the clause that bounds the time of a statement.
pub(super) fn timeout() -> String {
    format!(" TIMEOUT {}s", rpc::STATEMENT_TIME.as_secs())
}

/// Adds the columns of rows to those that are declared; returns the names of those that are not.
fn see(sample: &[CborValue], fields: &mut IndexMap<String, Field>) -> Vec<String> {
    let mut found: IndexMap<String, Option<Kind>> = IndexMap::new();
    for (name, value) in sample.iter().filter_map(CborValue::as_map).flatten() {
        let Some(name) = name.as_text().filter(|name| *name != ID && !fields.contains_key(*name)) else { continue };
        let seen = found.entry(name.to_string()).or_default();
        *seen = match (seen.take(), Kind::of(value)) {
            (Some(kind), Some(other)) => Some(kind.or(other)),
            (kind, other) => kind.or(other),
        };
    }
    let names = found.keys().cloned().collect();
    for (name, kind) in found {
        let declared = Declared { kind: kind.unwrap_or_default(), allows_none: true, allows_null: true };
        fields.insert(name, Field { declared, ..Field::default() });
    }
    names
}

/// Returns the schema. Columns of the configuration replace those of the table.
fn schema(
    name: &str,
    key: KeyType,
    fields: &mut IndexMap<String, Field>,
    options: &Options,
    is_schemafull: bool,
) -> Result<Schema> {
    for column in options.columns.iter().filter(|column| &*column.name != ID) {
        match fields.get_mut(&*column.name) {
            Some(field) => field.declared.kind = Kind::of_column(column.ty),
            None if is_schemafull => {
                let names = fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                return Err(Error::Config(format!("{name} has no column {:?}: it has {ID}, {names}", &*column.name)));
            }
            None => {
                let declared = Declared { kind: Kind::of_column(column.ty), allows_none: true, allows_null: true };
                fields.insert(column.name.to_string(), Field { declared, ..Field::default() });
            }
        }
    }
    let own = |name: &str| options.columns.iter().find(|column| &*column.name == name).cloned();
    let id = own(ID).filter(|column| column.ty == key.column_type());
    let mut columns = vec![id.unwrap_or_else(|| Column::new(ID, key.column_type()))];
    for (name, field) in fields.iter() {
        let mut column =
            Column::new(name.as_str(), field.declared.kind.column_type()).original(field.original.as_str());
        if !field.declared.allows_none && !field.declared.allows_null && !field.has_default {
            column = column.with(Flag::Mandatory);
        }
        columns.push(own(name).unwrap_or(column));
    }
    Ok(Schema::new(ID, columns))
}

/// Returns the time for which a change feed keeps changes.
fn expiry(changefeed: &CborValue) -> Option<String> {
    let expiry = member(changefeed, "expiry")?;
    match expiry {
        CborValue::Text(text) => Some(text.clone()),
        other => decode(&Kind::Any, other.clone()).as_text().map(str::to_string),
    }
}

/// Returns true if the failure is a refusal for which `is` holds.
pub(super) fn is_refused(failure: &Failure, is: impl Fn(&Refusal) -> bool) -> bool {
    matches!(failure, Failure::Refused(refusal) if is(refusal))
}
