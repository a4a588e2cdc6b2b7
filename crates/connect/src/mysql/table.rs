//! A table, view or query with everything needed for statements on it, and reading of its rows.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mysql_async::{Row, Value};

use super::charset::Charset;
use super::value::Codec;
use crate::sql::key;
use diorama_core::record::{CborValue, Record, id_from_value};
use diorama_core::vista::{ColumnType, Error, Result, Schema};

/// A relation that a source reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MySqlRelation {
    /// A table or view: `orders` or, in another database, `sales.orders`.
    Table(String),
    /// The rows of a SELECT, which cannot be written.
    Query(String),
}

impl std::fmt::Display for MySqlRelation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MySqlRelation::Table(name) => f.write_str(name),
            MySqlRelation::Query(_) => f.write_str("a query"),
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
    /// Place of a table or view; `None` for a query.
    pub(super) place: Option<Place>,
    pub(super) schema: Arc<Schema>,
    /// Fields in the server's order.
    pub(super) fields: Vec<Field>,
    /// Indexes of the fields that identify a row.
    pub(super) key: Vec<usize>,
    /// True if a unique index has exactly these fields.
    pub(super) is_unique: bool,
    /// True if it is a table whose rows are changed in transactions.
    pub(super) is_table: bool,
    /// True if it keeps former rows.
    pub(super) is_versioned: bool,
    /// Names of all columns that are stored, of which the server may hide some.
    pub(super) columns: Vec<String>,
    pub(super) rights: Rights,
    /// Result columns of a SELECT: the fields.
    pub(super) selected: String,
}

/// Place of a table on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) database: String,
    pub(super) table: String,
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
    /// The declared type, as people write it.
    pub(super) original: String,
    /// Maximum number of bytes of a value.
    pub(super) length: u32,
    /// True if a new row gets a value for it: a default or the next number.
    pub(super) has_default: bool,
    /// True if a new row gets the next number.
    pub(super) is_automatic: bool,
    pub(super) is_generated: bool,
    pub(super) is_mandatory: bool,
    pub(super) stored: Stored,
}

/// Meaning of a column's values in the binary log.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Stored {
    /// Name of the type: `int`, `varchar`.
    pub(super) type_name: String,
    pub(super) is_unsigned: bool,
    pub(super) is_zerofill: bool,
    /// Words of an enum or set.
    pub(super) words: Vec<String>,
    pub(super) charset: Charset,
}

impl Field {
    /// Returns the column as bytes, which are compared one by one: in most collations different texts are equal.
    pub(super) fn binary(&self) -> String {
        binary(&self.quoted)
    }

    /// Returns the test that the column equals a literal. An index can answer it.
    fn equals(&self, literal: &str) -> String {
        match self.codec {
            Codec::Text | Codec::Other => {
                format!("{} = {literal} AND {} = {}", self.quoted, self.binary(), binary(literal))
            }
            _ => format!("{} = {literal}", self.quoted),
        }
    }
}

/// Quotes any name as an identifier.
pub(super) fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Returns a text in SQL as bytes.
pub(super) fn binary(text: &str) -> String {
    format!("CAST(CONVERT({text} USING utf8mb4) AS BINARY)")
}

impl Table {
    /// Returns true if rows and statements for `other` have the same meaning for this table.
    pub(super) fn is_like(&self, other: &Table) -> bool {
        (&self.fields, &self.key, &self.columns) == (&other.fields, &other.key, &other.columns)
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
            Some(own) if own.original != field.original => {
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

    /// Returns id and record of a row selected with [`Table::selected`].
    pub(super) fn row(&self, row: Row) -> Result<(String, Record)> {
        let mut cells = Vec::with_capacity(self.fields.len());
        for (field, value) in self.fields.iter().zip(row.unwrap_raw()) {
            cells.push(field.codec.read(&value.unwrap_or(Value::NULL)).ok_or_else(|| {
                Error::permanent(format!("{}: a value of column {:?} cannot be decoded", self.name, field.name))
            })?);
        }
        self.record(cells)
    }

    /// Returns id and record of a row with these cells, one for each field.
    pub(super) fn record(&self, cells: Vec<CborValue>) -> Result<(String, Record)> {
        let id = self.id_of(&cells).ok_or_else(|| {
            Error::permanent(format!(
                "{} has a row whose id is null or empty: set id in diorama.toml to columns that identify the rows",
                self.name
            ))
        })?;
        let mut record = Record::new();
        if self.key.len() != 1 {
            record.insert(self.schema.id_column(), CborValue::from(id.as_str()));
        }
        for (field, cell) in self.fields.iter().zip(cells) {
            let is_id = self.key.len() == 1 && field.name == self.schema.id_column();
            // Ids that are neither text nor integers of 64 bits are text outside of the database.
            let is_integer = matches!(cell, CborValue::Integer(number) if i64::try_from(number).is_ok());
            let cell = if is_id && !is_integer { id.as_str().into() } else { cell };
            record.insert(field.name.as_str(), cell);
        }
        Ok((id, record))
    }

    /// Returns the id of a row with these cells.
    pub(super) fn id_of(&self, cells: &[CborValue]) -> Option<String> {
        let part = |at: &usize| match cells.get(*at)? {
            CborValue::Null => None,
            CborValue::Text(text) if self.key.len() == 1 => Some(text.clone()).filter(|text| !text.is_empty()),
            CborValue::Text(text) => Some(text.clone()),
            CborValue::Bytes(bytes) => Some(URL_SAFE_NO_PAD.encode(bytes)),
            CborValue::Bool(value) => Some(u8::from(*value).to_string()),
            CborValue::Float(number) => Some(number.to_string()),
            cell => id_from_value(cell),
        };
        let parts: Option<Vec<String>> = self.key.iter().map(part).collect();
        match parts?.as_slice() {
            [only] => Some(only.clone()),
            parts => Some(key::join(parts.iter().map(String::as_str))),
        }
    }

    /// Returns the literals of the key columns of row `id`; `None` if no row can have that id.
    pub(super) fn key_literals(&self, id: &str) -> Option<Vec<String>> {
        let parts = match self.key.len() {
            1 => vec![id.to_string()],
            several => key::split(id, several)?,
        };
        self.key.iter().zip(parts).map(|(at, part)| self.fields[*at].codec.key_literal(&part)).collect()
    }

    /// Returns the test that finds the row `id`; `None` if no row can have that id.
    pub(super) fn by_id(&self, id: &str) -> Option<String> {
        Some(self.by_key(&self.key_literals(id)?))
    }

    /// Returns the test that finds the row whose key columns have the values of these literals.
    pub(super) fn by_key(&self, literals: &[String]) -> String {
        let tests = self.key.iter().zip(literals).map(|(at, literal)| self.fields[*at].equals(literal));
        tests.collect::<Vec<_>>().join(" AND ")
    }

    /// Returns the ` ORDER BY` clause of the natural order: by key.
    pub(super) fn natural_order(&self) -> String {
        format!(" ORDER BY {}", self.sorted_columns().join(", "))
    }

    /// Returns the test for rows after the row `id` in natural order; `None` if no row can have that id.
    pub(super) fn after(&self, id: &str) -> Option<String> {
        let literals = self.key_literals(id)?;
        let columns = self.sorted_columns();
        // An index does not answer a comparison of tuples, so that it is written out.
        let mut test = String::new();
        for (at, (column, literal)) in columns.iter().zip(&literals).enumerate().rev() {
            test = match at + 1 == columns.len() {
                true => format!("{column} > {literal}"),
                false => format!("{column} >= {literal} AND ({column} > {literal} OR ({test}))"),
            };
        }
        Some(test)
    }

    /// Returns the key columns as rows are sorted by them. Without a unique index, there may be texts that differ and that their
    /// collation has as equal; enums are sorted by number and compared by name.
    fn sorted_columns(&self) -> Vec<String> {
        let column = |at: &usize| match &self.fields[*at] {
            field if field.codec == Codec::Other || field.codec == Codec::Text && !self.is_unique => field.binary(),
            field => field.quoted.clone(),
        };
        self.key.iter().map(column).collect()
    }

    pub(super) fn key_columns(&self) -> Vec<&str> {
        self.key.iter().map(|at| self.fields[*at].name.as_str()).collect()
    }

    /// Returns the SQL for one row by id.
    pub(super) fn select_one(&self, id: &str) -> Option<String> {
        Some(format!("SELECT {} FROM {} WHERE {}", self.selected, self.from, self.by_id(id)?))
    }

    /// Returns the columns' names for messages.
    pub(super) fn names(&self) -> String {
        self.fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// Returns true if SQL and the evaluator compare cells of this field as the same type as the schema says.
pub(super) fn is_declared(field: &Field, ty: ColumnType) -> bool {
    field.codec.column_type() == ty
}
