//! What the database says of a table: columns, id, natural order; and how rows of it are read.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, types::Value};

use super::options::SqliteOptions;
use super::source::{failed, id_of};
use super::value::{Codec, blob_key, from_sql};
use crate::rows::declare;
use crate::sql::quote;
use diorama_core::record::{Record, id_to_value};
use diorama_core::vista::{Column, ColumnType, Error, Flag, Result, Schema};

/// A table with everything that statements on it need.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    /// Its name as SQL takes it.
    pub(super) quoted: String,
    pub(super) schema: Arc<Schema>,
    /// In the order of the schema.
    pub(super) fields: Vec<Field>,
    /// Which of the fields is the id.
    pub(super) id: usize,
    pub(super) natural: NaturalOrder,
    /// What a SELECT lists: the fields, then the natural key if there is one.
    pub(super) selected: String,
}

/// One column of the database.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    /// Its name as SQL takes it.
    pub(super) quoted: String,
    pub(super) codec: Codec,
    /// The type that the database declares, which decides how SQL compares.
    pub(super) kind: ColumnType,
    /// The expression that stands in where a new row gives nothing.
    pub(super) default: Option<String>,
    pub(super) is_generated: bool,
    /// Stands for the rowid: SQLite chooses it where a new row gives nothing.
    pub(super) is_rowid: bool,
    ty: String,
    is_mandatory: bool,
    in_key: bool,
}

/// The declared id that is no column but a number for each row.
const ROW_NUMBER: &str = "#";

impl Field {
    /// The rowid under the name `alias`.
    fn rowid(alias: &str) -> Field {
        Field { is_rowid: true, ..Field::number(alias) }
    }

    /// An integer that every row has.
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

/// The order of rows that nobody sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NaturalOrder {
    /// By rowid, under the name that no column hides.
    RowId(&'static str),
    /// By id: the table has no rowid.
    Id,
    /// As a view gives them.
    AsGiven,
}

impl Table {
    /// Asks the database about `name`.
    pub(super) fn learn(connection: &Connection, path: &Path, name: &str, options: &SqliteOptions) -> Result<Table> {
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
            tracing::warn!(
                table = name,
                column,
                "rows without a key are there: all rows are identified by their {alias}"
            );
            key.clear();
        }
        // Rows that nothing identifies are numbered.
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
        let schema = Arc::new(Schema::new(&fields[id].name, columns));
        Ok(Table { name: name.to_string(), quoted, schema, fields, id, natural, selected })
    }

    /// Whether statements made for `other` mean the same here.
    pub(super) fn is_like(&self, other: &Table) -> bool {
        let columns = |table: &Table| table.schema.columns().to_vec();
        (columns(self), &self.selected, &self.natural, self.id)
            == (columns(other), &other.selected, &other.natural, other.id)
    }

    /// A field by the name of its column.
    pub(super) fn field(&self, column: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == column)
    }

    pub(super) fn id_field(&self) -> &Field {
        &self.fields[self.id]
    }

    /// Id and record of a row that [`Table::selected`] listed.
    pub(super) fn row(&self, row: &Row<'_>) -> Result<(String, Record)> {
        let mut record = Record::new();
        for (at, field) in self.fields.iter().enumerate() {
            record.insert(field.name.as_str(), from_sql(field.codec, row.get_ref(at).map_err(failed)?));
        }
        let id = id_of(&self.name, &record[&self.id_field().name])?;
        Ok((id, record))
    }

    /// One row by its id.
    pub(super) fn read(&self, connection: &Connection, id: &str) -> Result<Option<Record>> {
        let (test, value) = self.by_id(id);
        let sql = format!("SELECT {} FROM {} WHERE {test}", self.selected, self.quoted);
        let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
        let mut found = statement.query([value]).map_err(failed)?;
        let row = found.next().map_err(failed)?;
        row.map(|row| self.row(row).map(|(_, record)| record)).transpose()
    }

    /// The test that finds the row `id`, with the value of its one parameter.
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
            // Compared as text, or an affinity for numbers would take "007" for 7.
            _ => (format!("CAST({column} AS TEXT) = ? COLLATE BINARY"), Value::Text(id.to_string())),
        }
    }

    /// ` ORDER BY` the natural order.
    pub(super) fn natural_order(&self) -> String {
        match &self.natural {
            NaturalOrder::RowId(alias) => format!(" ORDER BY {alias}"),
            NaturalOrder::Id => format!(" ORDER BY {}", self.id_field().quoted),
            NaturalOrder::AsGiven => String::new(),
        }
    }

    /// What continues behind `row` in natural order.
    pub(super) fn token(&self, row: &Row<'_>, id: &str) -> Result<String> {
        match self.natural {
            NaturalOrder::RowId(_) => Ok(row.get::<_, i64>(self.fields.len()).map_err(failed)?.to_string()),
            NaturalOrder::Id | NaturalOrder::AsGiven => Ok(id.to_string()),
        }
    }

    /// The test for rows behind `token`, with the value of its one parameter.
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

/// Tells whether rows lack what should identify them: SQLite lets keys that are no integers be null.
fn has_null(connection: &Connection, name: &str, field: &Field) -> Result<bool> {
    let sql = format!("SELECT 1 FROM {} WHERE {} IS NULL LIMIT 1", quote(name), field.quoted);
    let found = connection.query_row(&sql, [], |_| Ok(())).optional();
    found.map(|row| row.is_some()).map_err(failed)
}

fn columns(fields: &[Field]) -> Vec<Column> {
    fields
        .iter()
        .map(|field| {
            // A binary key is text to everybody else.
            let ty = if field.codec == Codec::BlobKey { ColumnType::String } else { field.kind };
            let column = Column::new(field.name.as_str(), ty).original(&*field.ty);
            if field.is_mandatory { column.with(Flag::Mandatory) } else { column }
        })
        .collect()
}

/// By the names people use, then by SQLite's rules of affinity.
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

/// The place of the id among the fields; the rowid is put in front if it has to serve.
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
            let hint = "`id` says which of them identifies the rows, id = \"#\" numbers them";
            Error::Config(format!("{name} has no primary key of one column; it has {names}: {hint}"))
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
