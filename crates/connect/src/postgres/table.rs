//! Table, view or query with its columns, key and rights; and reading of its rows.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio_postgres::Row;
use xxhash_rust::xxh3::xxh3_64;

use super::listing::RawRow;
use super::value::{Codec, Param};
use crate::sql::key;
use diorama_core::record::{CborValue, Record, id_from_value};
use diorama_core::vista::{ColumnType, Error, Result, Schema};

/// Rows that a source reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostgresRelation {
    /// A table or view: `orders` or `sales.orders`.
    Table(String),
    /// The rows of a SELECT, which cannot be written.
    Query(String),
}

impl std::fmt::Display for PostgresRelation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PostgresRelation::Table(name) => f.write_str(name),
            PostgresRelation::Query(_) => f.write_str("a query"),
        }
    }
}

/// A table with everything needed for statements on it.
#[derive(Debug)]
pub(super) struct Table {
    /// Name for messages.
    pub(super) name: String,
    /// The table in SQL: its quoted name, or the query in parentheses.
    pub(super) from: String,
    /// Name and schema of a table or view; `None` for a query.
    pub(super) place: Option<Place>,
    pub(super) schema: Arc<Schema>,
    /// Fields in the server's order.
    pub(super) fields: Vec<Field>,
    /// Indexes of the fields that identify a row.
    pub(super) key: Vec<usize>,
    pub(super) rights: Rights,
    /// True if several rows may be written by one statement, with the outcome of one statement for each in their order: there are no
    /// triggers, rules, partitions or references within the table, and equal keys have equal texts.
    pub(super) takes_groups: bool,
    /// Result columns of a SELECT: the fields.
    pub(super) selected: String,
}

/// Place of a table in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) table: String,
    /// True for an ordinary or partitioned table, whose changes can be replicated.
    pub(super) is_table: bool,
}

/// Writes that the user may make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rights {
    pub(super) insert: bool,
    pub(super) update: bool,
    pub(super) delete: bool,
}

impl Rights {
    pub(super) fn any(self) -> bool {
        self.insert || self.update || self.delete
    }
}

/// One column of the table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    pub(super) name: String,
    /// The quoted name.
    pub(super) quoted: String,
    pub(super) codec: Codec,
    /// The server's number of its type.
    pub(super) type_oid: u32,
    /// The declared type, as people write it.
    pub(super) original: String,
    /// Cast of a parameter to the column's type: `::"pg_catalog"."int4"`.
    pub(super) cast: String,
    /// Result column: the column, or its text.
    pub(super) select: String,
    /// True if equal values are equal bytes, as in most collations.
    pub(super) is_deterministic: bool,
    /// True if two rows may not have the same value, perhaps together with other columns.
    pub(super) is_unique: bool,
    /// True if a new row gets a value for it: a default or an identity.
    pub(super) has_default: bool,
    pub(super) is_generated: bool,
    pub(super) is_mandatory: bool,
}

impl Table {
    /// Returns a text that another table has not, nor this one with other columns, types, or key, and that contains no blanks. Each
    /// version of this program has other ones, as it may convert values in another way.
    pub(super) fn identity(&self) -> String {
        let columns = (&self.place, &self.fields, &self.key, self.schema.columns());
        format!("{:016x}", xxh3_64(format!("{} {columns:?}", env!("CARGO_PKG_VERSION")).as_bytes()))
    }

    /// Returns true if rows and statements for `other` have the same meaning for this table.
    pub(super) fn is_like(&self, other: &Table) -> bool {
        let is_like = |(own, other): (&Field, &Field)| Field { is_unique: other.is_unique, ..own.clone() } == *other;
        self.key == other.key
            && self.fields.len() == other.fields.len()
            && self.fields.iter().zip(&other.fields).all(is_like)
    }

    /// Returns this description with the schema of `first`, by which the resource was built. Other columns are in the rows only.
    ///
    /// # Errors
    /// [`Error::Source`] if rows are identified in another way.
    pub(super) fn under(self, first: &Table) -> Result<Table> {
        let key = |table: &Table| table.key_columns().join(", ");
        if key(&self) != key(first) {
            let detail = format!("{} is now identified by {}: restart to serve it so", self.name, key(&self));
            return Err(Error::transient(detail));
        }
        Ok(Table { schema: Arc::clone(&first.schema), rights: first.rights, ..self })
    }

    /// Returns the columns of `now` that differ from those of this table, with what happened to them.
    pub(super) fn differences(&self, now: &Table) -> Vec<(String, String)> {
        let of = |field: &Field| match self.field(&field.name) {
            None => Some((field.name.clone(), format!("was added with type {}", field.original))),
            Some(own) if own.type_oid != field.type_oid => {
                Some((field.name.clone(), format!("is now of type {}", field.original)))
            }
            Some(_) => None,
        };
        let dropped = self.fields.iter().filter(|field| now.field(&field.name).is_none());
        let dropped = dropped.map(|field| (field.name.clone(), "was dropped".to_string()));
        now.fields.iter().filter_map(of).chain(dropped).collect()
    }

    /// Returns a field by its column name.
    pub(super) fn field(&self, column: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == column)
    }

    /// Returns the only field of the key, if it has one.
    pub(super) fn key_field(&self) -> Option<&Field> {
        match self.key.as_slice() {
            [only] => Some(&self.fields[*only]),
            _ => None,
        }
    }

    pub(super) fn is_key(&self, field: &Field) -> bool {
        self.key.iter().any(|at| self.fields[*at].name == field.name)
    }

    /// Returns id and record of a row selected with [`Table::selected`], whose first field is result column `first`.
    pub(super) fn row(&self, row: &Row, first: usize) -> Result<(String, Record)> {
        self.row_of(row, first)
    }

    /// As [`Table::row`], for any form of the row.
    pub(super) fn row_of(&self, row: &impl RawRow, first: usize) -> Result<(String, Record)> {
        let cells: Result<Vec<CborValue>> =
            (0..self.fields.len()).map(|at| self.cell_of(row, first + at, at)).collect();
        self.record(cells?)
    }

    /// Returns a cell of a row: that of a field, in a result column.
    pub(super) fn cell_of(&self, row: &impl RawRow, column: usize, field: usize) -> Result<CborValue> {
        let field = &self.fields[field];
        match row.cell(column)? {
            None => Ok(CborValue::Null),
            Some(raw) => field.codec.read_result(raw).ok_or_else(|| self.undecodable(field)),
        }
    }

    pub(super) fn undecodable(&self, field: &Field) -> Error {
        Error::permanent(format!("{}: a value of column {:?} cannot be decoded", self.name, field.name))
    }

    /// Returns id and record of a row with these cells, one for each field.
    pub(super) fn record(&self, cells: Vec<CborValue>) -> Result<(String, Record)> {
        let id = self.id_or_error(&cells)?;
        let mut record = Record::new();
        if self.key.len() != 1 {
            record.insert(self.schema.id_column(), CborValue::from(id.as_str()));
        }
        for (field, cell) in self.fields.iter().zip(cells) {
            let is_id = self.key.len() == 1 && field.name == self.schema.id_column();
            // Ids that are neither text nor integers are text outside of the database.
            let cell = if is_id && !matches!(cell, CborValue::Integer(_)) { id.as_str().into() } else { cell };
            record.insert(field.name.as_str(), cell);
        }
        Ok((id, record))
    }

    /// Returns the id of a row with these cells.
    ///
    /// # Errors
    /// [`Error::Source`] if it has none.
    pub(super) fn id_or_error(&self, cells: &[CborValue]) -> Result<String> {
        self.id_of(cells).ok_or_else(|| {
            Error::permanent(format!(
                "{} has a row whose id is null or empty: set id in diorama.toml to columns that identify the rows",
                self.name
            ))
        })
    }

    /// Returns the id of a row with these cells; `None` if it has none.
    pub(super) fn id_of(&self, cells: &[CborValue]) -> Option<String> {
        let part = |at: &usize| match cells.get(*at)? {
            CborValue::Null => None,
            cell @ (CborValue::Text(_) | CborValue::Integer(_)) if self.key.len() == 1 => id_from_value(cell),
            CborValue::Text(text) => Some(text.clone()),
            CborValue::Bytes(bytes) => Some(URL_SAFE_NO_PAD.encode(bytes)),
            cell => self.fields[*at].codec.text_of(cell),
        };
        let parts: Option<Vec<String>> = self.key.iter().map(part).collect();
        match parts?.as_slice() {
            [only] => Some(only.clone()),
            parts => Some(key::join(parts.iter().map(String::as_str))),
        }
    }

    /// Returns the texts of the key columns of row `id`; `None` if no row can have that id.
    pub(super) fn key_parts(&self, id: &str) -> Option<Vec<String>> {
        let parts = match self.key.len() {
            1 => vec![id.to_string()],
            several => key::split(id, several)?,
        };
        let text = |(at, part): (&usize, String)| match self.fields[*at].codec {
            Codec::Integer | Codec::Oid => {
                part.parse::<i64>().ok().filter(|number| number.to_string() == part).map(|_| part)
            }
            Codec::Uuid => uuid::Uuid::try_parse(&part).ok().map(|_| part),
            Codec::Bytes => self.fields[*at].codec.text_of(&part.into()),
            _ => Some(part).filter(|part| !part.contains('\0')),
        };
        self.key.iter().zip(parts).map(text).collect()
    }

    /// Returns the test that finds the row `id`, whose parameters are numbered from `first`; `None` if no row can have that id.
    pub(super) fn by_id(&self, id: &str, first: usize) -> Option<(String, Vec<Param>)> {
        let parts = self.key_parts(id)?;
        let test = |(number, at): (usize, &usize)| {
            let field = &self.fields[*at];
            format!("{} = ${}{}", field.quoted, first + number, field.cast)
        };
        let tests: Vec<String> = self.key.iter().enumerate().map(test).collect();
        Some((tests.join(" AND "), parts.into_iter().map(Param::text).collect()))
    }

    /// Returns the ` ORDER BY` clause of the natural order: by key.
    pub(super) fn natural_order(&self) -> String {
        format!(" ORDER BY {}", self.key_columns().join(", "))
    }

    /// Returns the test for rows after the row `id` in natural order; `None` if no row can have that id.
    pub(super) fn after(&self, id: &str, first: usize) -> Option<(String, Vec<Param>)> {
        let parts = self.key_parts(id)?;
        let params = self.key.iter().enumerate().map(|(at, key)| format!("${}{}", first + at, self.fields[*key].cast));
        let test = format!("({}) > ({})", self.key_columns().join(", "), params.collect::<Vec<_>>().join(", "));
        Some((test, parts.into_iter().map(Param::text).collect()))
    }

    pub(super) fn key_columns(&self) -> Vec<&str> {
        self.key.iter().map(|at| self.fields[*at].quoted.as_str()).collect()
    }

    /// Returns the SQL for one row by id, with its parameters.
    pub(super) fn select_one(&self, id: &str) -> Option<(String, Vec<Param>)> {
        let (test, params) = self.by_id(id, 1)?;
        Some((format!("SELECT {} FROM {} WHERE {test}", self.selected, self.from), params))
    }

    /// Returns the columns' names for messages.
    pub(super) fn names(&self) -> String {
        names(&self.fields)
    }
}

fn names(fields: &[Field]) -> String {
    fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Returns true if SQL and the evaluator compare cells of this field as the same type as the schema says.
pub(super) fn is_declared(field: &Field, ty: ColumnType) -> bool {
    field.codec.column_type() == ty
}
