//! What the database says of a table: columns, id, natural order; and how rows of it are read.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, types::Value};

use super::value::{Codec, from_sql};
use super::{SqliteOptions, failed, id_of};
use crate::drivers::declare;
use crate::record::{Record, id_to_value};
use crate::vista::{Column, ColumnType, Error, Flag, Result, Schema};

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
    pub(super) natural: Natural,
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

/// The order of rows that nobody sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Natural {
    /// By rowid, under the name that no column hides.
    RowId(&'static str),
    /// By id: the table has no rowid.
    Id,
    /// As a view gives them.
    AsGiven,
}

/// A name as SQL takes it, whatever is in it.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
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
            ("view", _) => Natural::AsGiven,
            (_, Some(alias)) => Natural::RowId(alias),
            (_, None) => Natural::Id,
        };
        let key: Vec<usize> = (0..fields.len()).filter(|at| fields[*at].in_key).collect();
        if let ([only], true) = (key.as_slice(), rowid.is_some()) {
            fields[*only].is_rowid = fields[*only].ty.eq_ignore_ascii_case("integer");
            fields[*only].is_mandatory &= !fields[*only].is_rowid;
        }
        let id = choose_id(name, &mut fields, &key, rowid, options)?;
        let columns = declare(name, columns(&fields), &options.columns)?;
        for column in &options.columns {
            for field in fields.iter_mut().filter(|field| *field.name == *column.name) {
                field.codec = Codec::of(column.ty, "JSON");
            }
        }
        let mut selected: Vec<&str> = fields.iter().map(|field| field.quoted.as_str()).collect();
        if let Natural::RowId(alias) = natural {
            selected.push(alias);
        }
        let selected = selected.join(", ");
        let schema = Arc::new(Schema::new(&fields[id].name, columns));
        Ok(Table { name: name.to_string(), quoted: quote(name), schema, fields, id, natural, selected })
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
            Natural::RowId(alias) => format!(" ORDER BY {alias}"),
            Natural::Id => format!(" ORDER BY {}", self.id_field().quoted),
            Natural::AsGiven => String::new(),
        }
    }

    /// What continues behind `row` in natural order.
    pub(super) fn token(&self, row: &Row<'_>, id: &str) -> Result<String> {
        match self.natural {
            Natural::RowId(_) => Ok(row.get::<_, i64>(self.fields.len()).map_err(failed)?.to_string()),
            Natural::Id | Natural::AsGiven => Ok(id.to_string()),
        }
    }

    /// The test for rows behind `token`, with the value of its one parameter.
    pub(super) fn after(&self, token: &str) -> Option<(String, Value)> {
        match self.natural {
            Natural::RowId(alias) => Some((format!("{alias} > ?"), Value::Integer(token.parse().ok()?))),
            Natural::Id | Natural::AsGiven => {
                let number =
                    id_to_value(token, self.schema.layout()).as_integer().and_then(|id| i64::try_from(id).ok());
                let value = number.map_or_else(|| Value::Text(token.to_string()), Value::Integer);
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

fn columns(fields: &[Field]) -> Vec<Column> {
    fields
        .iter()
        .map(|field| {
            let column = Column::new(field.name.as_str(), field.kind).original(&*field.ty);
            if field.is_mandatory { column.with(Flag::Mandatory) } else { column }
        })
        .collect()
}

/// By the names people use, then by SQLite's rules of affinity.
fn column_type(declared: &str) -> ColumnType {
    let ty = declared.to_ascii_uppercase();
    let has = |part: &str| ty.contains(part);
    match ty.as_str() {
        "" => ColumnType::Json,
        "BOOLEAN" | "BOOL" => ColumnType::Boolean,
        "DATE" => ColumnType::Date,
        "DATETIME" | "TIMESTAMP" => ColumnType::Datetime,
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
        (Some(column), ..) => find(column)
            .ok_or_else(|| Error::Config(format!("{name} has no column {column:?} for the id: it has {}", names()))),
        (None, [only], _) => Ok(*only),
        (None, _, Some(alias)) => {
            let field = Field {
                name: alias.to_string(),
                quoted: alias.to_string(),
                codec: Codec::Plain,
                kind: ColumnType::Integer,
                default: None,
                is_generated: false,
                is_rowid: true,
                ty: "INTEGER".into(),
                is_mandatory: false,
                in_key: false,
            };
            fields.insert(0, field);
            Ok(0)
        }
        (None, _, None) => find("id").ok_or_else(|| {
            Error::Config(format!("{name} has no primary key of one column: say which of {} is the id", names()))
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
