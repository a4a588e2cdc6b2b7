//! Description of a table by the database: columns, id, natural order; and reading of its rows.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, types::Value};

use super::options::SqliteOptions;
use super::source::{failed, id_of};
use super::value::{Codec, blob_key, from_sql};
use crate::rows::declare;
use crate::sql::{quote, reference};
use diorama_core::record::{Record, id_to_value};
use diorama_core::vista::{Column, ColumnType, Error, Flag, Reference, Result, Schema};

/// A table with everything needed for statements on it.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    /// The quoted name.
    pub(super) quoted: String,
    pub(super) schema: Arc<Schema>,
    /// Fields in the order of the schema.
    pub(super) fields: Vec<Field>,
    /// Index of the id field.
    pub(super) id: usize,
    pub(super) natural: NaturalOrder,
    /// Result columns of a SELECT: the fields, then the natural key if there is one.
    pub(super) selected: String,
}

/// One column of the database.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    /// The quoted name.
    pub(super) quoted: String,
    pub(super) codec: Codec,
    /// Type declared in the database, which decides how SQL compares.
    pub(super) kind: ColumnType,
    /// Default expression for new rows.
    pub(super) default: Option<String>,
    pub(super) is_generated: bool,
    /// True if the column is an alias of the rowid, which SQLite assigns to new rows.
    pub(super) is_rowid: bool,
    ty: String,
    is_mandatory: bool,
    in_key: bool,
}

/// Value of `id` that selects a number for each row instead of a column.
const ROW_NUMBER: &str = "#";

impl Field {
    /// Creates the field of the rowid under the name `alias`.
    fn rowid(alias: &str) -> Field {
        Field { is_rowid: true, ..Field::number(alias) }
    }

    /// Creates an integer field.
    fn number(name: &str) -> Field {
        Field {
            name: name.to_string(),
            quoted: name.to_string(),
            codec: Codec::Plain,
            kind: ColumnType::Integer,
            default: None,
            is_generated: false,
            is_rowid: false,
            ty: "INTEGER".into(),
            is_mandatory: false,
            in_key: false,
        }
    }
}

/// Order of rows without a requested order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NaturalOrder {
    /// By rowid, under the alias that no column hides.
    RowId(&'static str),
    /// By id, because the table has no rowid.
    Id,
    /// As a view returns them.
    AsGiven,
}

impl Table {
    /// Reads the description of the table `name` from the database.
    pub(super) fn read_description(
        connection: &Connection,
        path: &Path,
        name: &str,
        options: &SqliteOptions,
    ) -> Result<Table> {
        let kind = connection
            .query_row("SELECT type, wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1", [name], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?))
            })
            .optional()
            .map_err(failed)?;
        let Some((kind, without_rowid)) = kind else { return Err(no_table(connection, path, name)?) };
        let mut fields = fields(connection, name)?;
        let rowid = ["rowid", "_rowid_", "oid"]
            .into_iter()
            .find(|alias| !fields.iter().any(|field| field.name.eq_ignore_ascii_case(alias)))
            .filter(|_| !without_rowid && kind != "view");
        let natural = match (kind.as_str(), rowid) {
            ("view", _) => NaturalOrder::AsGiven,
            (_, Some(alias)) => NaturalOrder::RowId(alias),
            (_, None) => NaturalOrder::Id,
        };
        let mut key: Vec<usize> = (0..fields.len()).filter(|at| fields[*at].in_key).collect();
        if let ([only], true) = (key.as_slice(), rowid.is_some()) {
            fields[*only].is_rowid = fields[*only].ty.eq_ignore_ascii_case("integer");
            fields[*only].is_mandatory &= !fields[*only].is_rowid;
        }
        if let ([only], Some(alias), None) = (key.as_slice(), rowid, &options.id)
            && !fields[*only].is_rowid
            && has_null(connection, name, &fields[*only])?
        {
            let column = &fields[*only].name;
            tracing::warn!(table = name, column, "some rows have no key, so all rows are identified by their {alias}");
            key.clear();
        }
        // Rows without an identifying column are numbered.
        let is_numbered = options.id.as_deref() == Some(ROW_NUMBER) && rowid.is_none();
        let is_numbered = is_numbered && !fields.iter().any(|field| field.name == ROW_NUMBER);
        let (natural, quoted, id) = if is_numbered {
            let column = if fields.iter().any(|field| field.name == "id") { "_row" } else { "id" };
            fields.insert(0, Field::number(column));
            let numbered = format!("(SELECT row_number() OVER () AS {column}, * FROM {})", quote(name));
            (NaturalOrder::AsGiven, numbered, 0)
        } else {
            let id = choose_id(name, &mut fields, &key, rowid, options)?;
            (natural, quote(name), id)
        };
        if fields[id].kind == ColumnType::Bytes {
            fields[id].codec = Codec::BlobKey;
        }
        let columns = declare(name, columns(&fields), &options.columns)?;
        for column in &options.columns {
            let of_column = |field: &&mut Field| *field.name == *column.name && field.codec != Codec::BlobKey;
            for field in fields.iter_mut().filter(of_column) {
                field.codec = Codec::of(column.ty, "JSON");
            }
        }
        let mut selected: Vec<&str> = fields.iter().map(|field| field.quoted.as_str()).collect();
        if let NaturalOrder::RowId(alias) = natural {
            selected.push(alias);
        }
        let selected = selected.join(", ");
        let references = foreign_keys(connection, name, &fields)?;
        let schema = Arc::new(Schema::new(&fields[id].name, columns).with_references(references));
        Ok(Table { name: name.to_string(), quoted, schema, fields, id, natural, selected })
    }

    /// Returns true if statements for `other` have the same meaning for this table.
    pub(super) fn is_like(&self, other: &Table) -> bool {
        let columns = |table: &Table| table.schema.columns().to_vec();
        (columns(self), &self.selected, &self.natural, self.id)
            == (columns(other), &other.selected, &other.natural, other.id)
    }

    /// Returns a field by its column name.
    pub(super) fn field(&self, column: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == column)
    }

    pub(super) fn id_field(&self) -> &Field {
        &self.fields[self.id]
    }

    /// Returns id and record of a row selected with [`Table::selected`].
    pub(super) fn row(&self, row: &Row<'_>) -> Result<(String, Record)> {
        let mut record = Record::new();
        for (at, field) in self.fields.iter().enumerate() {
            record.insert(field.name.as_str(), from_sql(field.codec, row.get_ref(at).map_err(failed)?));
        }
        let id = id_of(&self.name, &record[&self.id_field().name])?;
        Ok((id, record))
    }

    /// Reads one row by its id.
    pub(super) fn read(&self, connection: &Connection, id: &str) -> Result<Option<Record>> {
        let (test, value) = self.by_id(id);
        let sql = format!("SELECT {} FROM {} WHERE {test}", self.selected, self.quoted);
        let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
        let mut found = statement.query([value]).map_err(failed)?;
        let row = found.next().map_err(failed)?;
        row.map(|row| self.row(row).map(|(_, record)| record)).transpose()
    }

    /// Returns the test that finds the row `id`, with the value of its only parameter.
    pub(super) fn by_id(&self, id: &str) -> (String, Value) {
        let column = &self.id_field().quoted;
        let number = id_to_value(id, self.schema.layout()).as_integer().and_then(|id| i64::try_from(id).ok());
        if let (ColumnType::Integer, Some(number)) = (self.id_field().kind, number) {
            return (format!("{column} = ?"), Value::Integer(number));
        }
        match self.id_field().kind {
            ColumnType::Bytes => match blob_key(id) {
                Some(key) => (format!("{column} = ?"), Value::Blob(key)),
                None => (format!("{column} = ?"), Value::Text(id.to_string())),
            },
            ColumnType::String => (format!("{column} = ? COLLATE BINARY"), Value::Text(id.to_string())),
            _ if id.trim().parse::<f64>().is_err() => {
                (format!("{column} = ? COLLATE BINARY"), Value::Text(id.to_string()))
            }
            // Compare as text, because a numeric affinity would take "007" for 7.
            _ => (format!("CAST({column} AS TEXT) = ? COLLATE BINARY"), Value::Text(id.to_string())),
        }
    }

    /// Returns the ` ORDER BY` clause of the natural order.
    pub(super) fn natural_order(&self) -> String {
        match &self.natural {
            NaturalOrder::RowId(alias) => format!(" ORDER BY {alias}"),
            NaturalOrder::Id => format!(" ORDER BY {}", self.id_field().quoted),
            NaturalOrder::AsGiven => String::new(),
        }
    }

    /// Returns the token that continues after `row` in natural order.
    pub(super) fn token(&self, row: &Row<'_>, id: &str) -> Result<String> {
        match self.natural {
            NaturalOrder::RowId(_) => Ok(row.get::<_, i64>(self.fields.len()).map_err(failed)?.to_string()),
            NaturalOrder::Id | NaturalOrder::AsGiven => Ok(id.to_string()),
        }
    }

    /// Returns the test for rows after `token`, with the value of its only parameter.
    pub(super) fn after(&self, token: &str) -> Option<(String, Value)> {
        match self.natural {
            NaturalOrder::RowId(alias) => Some((format!("{alias} > ?"), Value::Integer(token.parse().ok()?))),
            NaturalOrder::Id | NaturalOrder::AsGiven => {
                let number =
                    id_to_value(token, self.schema.layout()).as_integer().and_then(|id| i64::try_from(id).ok());
                let blob = (self.id_field().codec == Codec::BlobKey).then(|| blob_key(token)).flatten();
                let value = blob
                    .map_or_else(|| number.map_or_else(|| Value::Text(token.to_string()), Value::Integer), Value::Blob);
                Some((format!("{} > ?", self.id_field().quoted), value))
            }
        }
    }
}

fn fields(connection: &Connection, name: &str) -> Result<Vec<Field>> {
    let sql = "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1) WHERE hidden <> 1";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let fields = statement.query_map([name], |row| {
        let (name, ty): (String, String) = (row.get(0)?, row.get(1)?);
        let default: Option<String> = row.get(3)?;
        let is_generated = row.get::<_, i64>(5)? > 1;
        Ok(Field {
            quoted: quote(&name),
            codec: Codec::of(column_type(&ty), &ty),
            kind: column_type(&ty),
            is_mandatory: row.get::<_, bool>(2)? && default.is_none() && !is_generated,
            in_key: row.get::<_, i64>(4)? > 0,
            is_rowid: false,
            is_generated,
            default,
            name,
            ty,
        })
    });
    fields.and_then(Iterator::collect).map_err(failed)
}

/// Returns the foreign keys of one column as references, if they refer to a primary key.
fn foreign_keys(connection: &Connection, name: &str, fields: &[Field]) -> Result<Vec<Reference>> {
    let sql = "SELECT f.\"from\", f.\"table\" FROM pragma_foreign_key_list(?1) f
        WHERE (SELECT count(*) FROM pragma_foreign_key_list(?1) g WHERE g.id = f.id) = 1
            AND (SELECT max(pk) FROM pragma_table_info(f.\"table\")) = 1
            AND EXISTS (SELECT 1 FROM pragma_table_info(f.\"table\") k
                WHERE k.pk = 1 AND (f.\"to\" IS NULL OR k.name = f.\"to\" COLLATE NOCASE))
        ORDER BY f.id DESC";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let keys = statement.query_map([name], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)));
    let keys: Vec<_> = keys.and_then(Iterator::collect).map_err(failed)?;
    // A foreign key may be written with other letters of case than its column.
    let written = |column: &str| fields.iter().find(|field| field.name.eq_ignore_ascii_case(column));
    let key = |(column, target): (String, String)| Some(reference(written(&column)?.name.clone(), target));
    Ok(keys.into_iter().filter_map(key).collect())
}

/// Returns true if some rows have no key: SQLite permits nulls in keys that are not integers.
fn has_null(connection: &Connection, name: &str, field: &Field) -> Result<bool> {
    let sql = format!("SELECT 1 FROM {} WHERE {} IS NULL LIMIT 1", quote(name), field.quoted);
    let found = connection.query_row(&sql, [], |_| Ok(())).optional();
    found.map(|row| row.is_some()).map_err(failed)
}

fn columns(fields: &[Field]) -> Vec<Column> {
    fields
        .iter()
        .map(|field| {
            // A binary key is text outside of the database.
            let ty = if field.codec == Codec::BlobKey { ColumnType::String } else { field.kind };
            let column = Column::new(field.name.as_str(), ty).original(&*field.ty);
            if field.is_mandatory { column.with(Flag::Mandatory) } else { column }
        })
        .collect()
}

/// Determines the type by common type names, then by SQLite's affinity rules.
fn column_type(declared: &str) -> ColumnType {
    let ty = declared.to_ascii_uppercase();
    let has = |part: &str| ty.contains(part);
    match ty.as_str() {
        "" | "ANY" => ColumnType::Json,
        "BOOLEAN" | "BOOL" => ColumnType::Boolean,
        "DATE" => ColumnType::Date,
        ty if ty.starts_with("DATETIME") || ty.starts_with("TIMESTAMP") => ColumnType::Datetime,
        "JSON" => ColumnType::Json,
        "UUID" => ColumnType::Uuid,
        _ if has("INT") => ColumnType::Integer,
        _ if has("CHAR") || has("CLOB") || has("TEXT") => ColumnType::String,
        _ if has("BLOB") => ColumnType::Bytes,
        _ => ColumnType::Number,
    }
}

/// Returns the index of the id field. If the rowid serves as id, its field is inserted at the front.
fn choose_id(
    name: &str,
    fields: &mut Vec<Field>,
    key: &[usize],
    rowid: Option<&'static str>,
    options: &SqliteOptions,
) -> Result<usize> {
    let find = |column: &str| fields.iter().position(|field| field.name == column);
    let names = || fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>().join(", ");
    match (&options.id, key, rowid) {
        (Some(column), _, Some(alias)) if column == ROW_NUMBER || column == alias && find(column).is_none() => {
            fields.insert(0, Field::rowid(alias));
            Ok(0)
        }
        (Some(column), ..) => find(column)
            .ok_or_else(|| Error::Config(format!("{name} has no column {column:?} for the id: it has {}", names()))),
        (None, [only], _) => Ok(*only),
        (None, _, Some(alias)) => {
            fields.insert(0, Field::rowid(alias));
            Ok(0)
        }
        (None, _, None) => find("id").ok_or_else(|| {
            let names = names();
            let hint = "set id to the column that identifies the rows, or id = \"#\" to number them";
            Error::Config(format!("{name} has no primary key of one column, but columns {names}: {hint}"))
        }),
    }
}

fn no_table(connection: &Connection, path: &Path, name: &str) -> Result<Error> {
    let sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let names = statement.query_map([], |row| row.get::<_, String>(0)).and_then(Iterator::collect);
    let names: Vec<String> = names.map_err(failed)?;
    let others = if names.is_empty() { "none".to_string() } else { names.join(", ") };
    Ok(Error::Config(format!("{} has no table {name:?}: it has {others}", path.display())))
}
