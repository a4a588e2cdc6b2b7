//! Description of a table, view or query by the server: columns, keys, references, rights.

use std::collections::HashMap;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Row, Value};

use super::address::Address;
use super::charset::{Charset, words_of};
use super::errors::{failed, is_denied};
use super::options::MySqlOptions;
use super::pool::Session;
use super::table::{Field, MySqlRelation, Place, Rights, Stored, Table, quote};
use super::value::Codec;
use crate::rows::declare;
use crate::sql::key;
use crate::sql::operations::TABLE;
use diorama_core::vista::{Column, ColumnType, Error, Flag, Reference, Result, Schema};

impl Table {
    /// Reads the description of `relation` from the server.
    ///
    /// # Errors
    /// [`Error::Config`] if it does not exist or has no usable key, [`Error::Source`] if the server fails.
    pub(super) async fn describe(
        session: &mut Session,
        address: &Address,
        relation: &MySqlRelation,
        options: &MySqlOptions,
    ) -> Result<Table> {
        let name = relation.to_string();
        let (place, kind, from) = match relation {
            MySqlRelation::Table(name) => {
                let (place, kind) = find(session, address, name).await?;
                let from = format!("{}.{}", quote(&place.database), quote(&place.table));
                (Some(place), kind, from)
            }
            MySqlRelation::Query(sql) => {
                let sql = sql.trim().trim_end_matches(';');
                // A line break ends a comment at the end of the query.
                (None, Kind::Other, format!("({sql}\n) AS diorama_source"))
            }
        };
        let is_table = kind != Kind::Other;
        let mut fields = fields(session, &from, place.as_ref(), address).await?;
        let (mut keys, mut references, mut stored_columns) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(place) = &place {
            stored_columns = add_attributes(session, place, &mut fields).await?;
            keys = unique_keys(session, place, &fields).await?;
            references = foreign_keys(session, place).await?;
        }
        for field in &mut fields {
            let declared = options.columns.iter().find(|column| *column.name == *field.name);
            field.codec = declared.map_or(field.codec, |column| field.codec.declared(column.ty));
        }
        let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        let key = key::choose(&name, &names, &keys, options.id.as_deref())?;
        let id = match key.as_slice() {
            [only] => names[*only].to_string(),
            _ => key::joined_name(&names),
        };
        for at in &key {
            // A small number as a key is a number.
            fields[*at].codec = fields[*at].codec.declared(ColumnType::Integer);
        }
        // Without a unique key, an id may mean several rows.
        let is_unique = keys.contains(&key);
        let rights = match is_table && is_unique && !options.read_only {
            true => rights(session, &name, &from, &fields).await?,
            false => Rights::default(),
        };
        let columns = declare(&name, columns(&fields, &key), &options.columns)?;
        let schema = std::sync::Arc::new(Schema::new(&id, columns).with_references(references));
        let selected: Vec<String> = fields.iter().map(|field| field.codec.select(&field.quoted)).collect();
        let selected = selected.join(", ");
        let is_versioned = kind == Kind::Versioned;
        let columns = stored_columns;
        Ok(Table {
            name,
            from,
            place,
            schema,
            fields,
            key,
            is_unique,
            is_table,
            is_versioned,
            columns,
            rights,
            selected,
        })
    }
}

/// Kind of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A table whose rows are changed in transactions.
    Table,
    /// Such a table that keeps former rows.
    Versioned,
    Other,
}

/// Returns the rows of a query of the catalog as texts; null is empty.
pub(super) async fn catalog(session: &mut Session, sql: &str, params: &[&str]) -> Result<Vec<Vec<String>>> {
    let params: Vec<Value> = params.iter().map(|param| Value::from(*param)).collect();
    let mut rows = Vec::new();
    let text = |value: Option<Value>| match value {
        Some(Value::Bytes(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        Some(Value::Int(number)) => number.to_string(),
        Some(Value::UInt(number)) => number.to_string(),
        _ => String::new(),
    };
    let take = |row: Row| rows.push(row.unwrap_raw().into_iter().map(text).collect());
    session.each(sql, params, take).await.map_err(failed)?;
    Ok(rows)
}

/// Finds a table or view by name, which may include its database.
async fn find(session: &mut Session, address: &Address, name: &str) -> Result<(Place, Kind)> {
    let sql =
        "SELECT t.TABLE_SCHEMA, t.TABLE_NAME, t.TABLE_TYPE, coalesce(t.ENGINE, ''), coalesce(e.TRANSACTIONS, 'NO')
        FROM information_schema.TABLES t LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE
        WHERE t.TABLE_SCHEMA = ? AND t.TABLE_NAME = ?";
    let split = name.split_once('.');
    for (database, table) in std::iter::once((address.database(), name)).chain(split) {
        let found = catalog(session, sql, &[database, table]).await?;
        // Names may differ in case only.
        let exact = found.iter().position(|row| row[1] == table).unwrap_or(0);
        let Some([database, table, kind, engine, transactions]) = found.get(exact).map(Vec::as_slice) else { continue };
        let is_transactional = transactions == "YES";
        let (kind, is_table) = match kind.as_str() {
            "BASE TABLE" => (Kind::Table, true),
            "SYSTEM VERSIONED" => (Kind::Versioned, true),
            _ => (Kind::Other, false),
        };
        let kind = if is_transactional { kind } else { Kind::Other };
        if is_table && !is_transactional {
            tracing::warn!(
                table = name,
                engine,
                "a table of this engine has no transactions, so that it can only be read"
            );
        }
        let place = Place { database: database.clone(), table: table.clone() };
        return Ok((place, kind));
    }
    let (database, table) = split.unwrap_or((address.database(), name));
    let probe = format!("SELECT 1 FROM {}.{} LIMIT 0", quote(database), quote(table));
    match session.rows(&probe).await {
        Err(error) if is_denied(&error) => Err(not_readable(address, database, table)),
        _ => Err(no_table(session, address, name).await?),
    }
}

fn not_readable(address: &Address, database: &str, table: &str) -> Error {
    let user = address.user();
    let place = format!("{}.{}", quote(database), quote(table));
    Error::Config(format!("{user} may not read {table}: GRANT SELECT ON {place} TO {user}"))
}

async fn no_table(session: &mut Session, address: &Address, name: &str) -> Result<Error> {
    let sql = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME <> ? ORDER BY 1 LIMIT 50";
    let tables = catalog(session, sql, &[address.database(), TABLE]).await?.concat();
    let others = if tables.is_empty() { "no tables".to_string() } else { tables.join(", ") };
    Ok(Error::Config(format!("{address} has no table {name:?}: it has {others}")))
}

/// Returns the result columns of `SELECT * FROM from`, with what their types say.
async fn fields(session: &mut Session, from: &str, place: Option<&Place>, address: &Address) -> Result<Vec<Field>> {
    let statement =
        session.conn.prep(format!("SELECT * FROM {from}")).await.map_err(|error| match (&error, place) {
            (_, Some(place)) if is_denied(&error) => not_readable(address, &place.database, &place.table),
            (mysql_async::Error::Server(refusal), None) if refusal.code == 1060 => {
                Error::Config(format!("{}: name one of the columns of the query with AS", refusal.message))
            }
            _ => failed(error),
        })?;
    if statement.num_params() > 0 {
        return Err(Error::Config("the query has parameters: write their values into it".into()));
    }
    let field = |column: &mysql_async::Column| Field {
        name: column.name_str().into_owned(),
        quoted: quote(&column.name_str()),
        codec: Codec::of(column),
        original: String::new(),
        length: column.column_length(),
        has_default: false,
        is_automatic: false,
        is_generated: false,
        is_mandatory: false,
        stored: Stored::default(),
    };
    let fields: Vec<Field> = statement.columns().iter().map(field).collect();
    session.conn.close(statement).await.map_err(failed)?;
    match fields.is_empty() {
        true => Err(Error::Config("it has no columns".into())),
        false => Ok(fields),
    }
}

/// Adds what the catalog says about the columns of a table: declared types, defaults, constraints. Returns the names of all columns,
/// in their order.
async fn add_attributes(session: &mut Session, place: &Place, fields: &mut [Field]) -> Result<Vec<String>> {
    let sql = "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, coalesce(COLUMN_DEFAULT, 'NULL'), EXTRA,
            coalesce(GENERATION_EXPRESSION, ''), coalesce(CHARACTER_SET_NAME, '')
        FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION";
    let checks = json_checks(session, place).await?;
    let mut charsets: HashMap<String, Charset> = HashMap::new();
    let mut names = Vec::new();
    for row in catalog(session, sql, &[&place.database, &place.table]).await? {
        let [name, data_type, original, nullable, default, extra, generation, charset] = row.as_slice() else {
            continue;
        };
        names.push(name.clone());
        let Some(field) = fields.iter_mut().find(|field| field.name == *name) else { continue };
        let extra = extra.to_ascii_lowercase();
        let is_json = checks.iter().any(|check| check.contains(&format!("json_valid({})", field.quoted)));
        field.codec = field.codec.refined(&data_type.to_ascii_lowercase(), is_json);
        field.original = if is_json { "json".into() } else { original.clone() };
        field.is_automatic = extra.contains("auto_increment");
        field.is_generated = !generation.is_empty();
        field.has_default = default != "NULL" || field.is_automatic || extra.contains("default_generated");
        field.is_mandatory = nullable == "NO" && !field.has_default && !field.is_generated;
        let charset = match charsets.get(charset) {
            Some(known) => known.clone(),
            None => {
                let found = Charset::of(session, charset).await?;
                charsets.entry(charset.clone()).or_insert(found).clone()
            }
        };
        let type_name = data_type.to_ascii_lowercase();
        let is_word = matches!(type_name.as_str(), "enum" | "set");
        field.stored = Stored {
            type_name,
            is_unsigned: original.contains(" unsigned"),
            is_zerofill: original.contains(" zerofill"),
            words: if is_word { words_of(original) } else { Vec::new() },
            charset,
        };
    }
    Ok(names)
}

/// Returns the check constraints of a table of MariaDB, whose JSON columns are text with a check.
async fn json_checks(session: &mut Session, place: &Place) -> Result<Vec<String>> {
    let version = session.rows("SELECT version()").await.map_err(failed)?;
    let is_mariadb =
        version.first().and_then(|row| row.get::<String, _>(0)).is_some_and(|text| text.contains("MariaDB"));
    if !is_mariadb {
        return Ok(Vec::new());
    }
    let sql =
        "SELECT CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = ? AND TABLE_NAME = ?";
    Ok(catalog(session, sql, &[&place.database, &place.table]).await?.concat())
}

/// Returns the keys that identify rows, the primary key first, then those of few columns, as indexes of fields.
async fn unique_keys(session: &mut Session, place: &Place, fields: &[Field]) -> Result<Vec<Vec<usize>>> {
    let sql = "SELECT INDEX_NAME, coalesce(COLUMN_NAME, ''), NULLABLE, coalesce(SUB_PART, '') FROM information_schema.STATISTICS
        WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND NON_UNIQUE = 0 ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX";
    let rows = catalog(session, sql, &[&place.database, &place.table]).await?;
    let mut keys: Vec<Vec<usize>> = Vec::new();
    for index in rows.chunk_by(|a, b| a[0] == b[0]) {
        // A nullable column or a prefix of one identifies nothing.
        let part = |row: &Vec<String>| match row.as_slice() {
            [_, column, nullable, prefix] if nullable != "YES" && prefix.is_empty() => {
                fields.iter().position(|field| field.name == *column)
            }
            _ => None,
        };
        keys.extend(index.iter().map(part).collect::<Option<Vec<usize>>>());
    }
    let has_primary = rows.first().is_some_and(|row| row[0] == "PRIMARY");
    let others = keys.get_mut(usize::from(has_primary)..).unwrap_or_default();
    others.sort_by_key(Vec::len);
    Ok(keys)
}

/// Returns the foreign keys of one column as references, if they refer to a primary key.
async fn foreign_keys(session: &mut Session, place: &Place) -> Result<Vec<Reference>> {
    let sql = "SELECT f.CONSTRAINT_NAME, f.COLUMN_NAME, f.REFERENCED_TABLE_NAME FROM information_schema.KEY_COLUMN_USAGE f
        JOIN information_schema.KEY_COLUMN_USAGE k ON k.TABLE_SCHEMA = f.REFERENCED_TABLE_SCHEMA
            AND k.TABLE_NAME = f.REFERENCED_TABLE_NAME AND k.COLUMN_NAME = f.REFERENCED_COLUMN_NAME
            AND k.CONSTRAINT_NAME = 'PRIMARY'
        WHERE f.TABLE_SCHEMA = ? AND f.TABLE_NAME = ? AND f.REFERENCED_TABLE_NAME IS NOT NULL ORDER BY f.CONSTRAINT_NAME";
    let rows = catalog(session, sql, &[&place.database, &place.table]).await?;
    let reference = |constraint: &[Vec<String>]| match constraint {
        [only] => Some(crate::sql::reference(only[1].clone(), only[2].clone())),
        _ => None,
    };
    Ok(rows.chunk_by(|a, b| a[0] == b[0]).filter_map(reference).collect())
}

/// Returns the writes that the user may make. The server tells when it prepares such a statement, which is never executed.
async fn rights(session: &mut Session, name: &str, from: &str, fields: &[Field]) -> Result<Rights> {
    let settings = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('read_only', 'log_bin', 'binlog_format')";
    let settings = catalog(session, settings, &[]).await?;
    let has = |name: &str, word: &str| settings.iter().any(|row| row[0] == name && row[1] == word);
    if has("read_only", "ON") {
        return Ok(Rights::default());
    }
    if has("log_bin", "ON") && has("binlog_format", "STATEMENT") {
        tracing::warn!(
            table = name,
            "the server has binlog_format = STATEMENT, so that the table can only be read; set ROW"
        );
        return Ok(Rights::default());
    }
    let given: Vec<&str> =
        fields.iter().filter(|field| !field.is_generated).map(|field| field.quoted.as_str()).collect();
    let sets: Vec<String> = given.iter().map(|column| format!("{column} = {column}")).collect();
    let values = vec!["?"; given.len()].join(", ");
    let (columns, sets) = (given.join(", "), sets.join(", "));
    Ok(Rights {
        insert: may(session, format!("INSERT INTO {from} ({columns}) VALUES ({values})")).await?,
        update: may(session, format!("UPDATE {from} SET {sets}")).await?,
        delete: may(session, format!("DELETE FROM {from}")).await?,
    })
}

/// Returns true if the user may execute a statement.
pub(super) async fn may(session: &mut Session, sql: String) -> Result<bool> {
    match session.conn.prep(sql).await {
        Ok(statement) => {
            session.conn.close(statement).await.map_err(failed)?;
            Ok(true)
        }
        Err(error) if is_denied(&error) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

fn columns(fields: &[Field], key: &[usize]) -> Vec<Column> {
    let column = |(at, field): (usize, &Field)| {
        let ty = match field.codec.column_type() {
            // An id is an integer or text.
            ColumnType::Boolean | ColumnType::Number | ColumnType::Bytes | ColumnType::Json if key == [at] => {
                ColumnType::String
            }
            ty => ty,
        };
        let column = Column::new(field.name.as_str(), ty).original(field.original.as_str());
        if field.is_mandatory { column.with(Flag::Mandatory) } else { column }
    };
    fields.iter().enumerate().map(column).collect()
}
