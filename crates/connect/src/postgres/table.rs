//! Description of a table, view or query by the server: columns, key, rights; and reading of its rows.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio_postgres::types::{Kind, Type};
use tokio_postgres::{Client, Row};

use super::address::Address;
use super::errors::failed;
use super::options::PostgresOptions;
use super::value::{Codec, Param, Raw};
use crate::rows::declare;
use crate::sql::{key, quote};
use diorama_core::record::{CborValue, Record, id_from_value};
use diorama_core::vista::{Column, ColumnType, Error, Flag, Reference, Result, Schema};

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
    /// True if a new row gets a value for it: a default or an identity.
    pub(super) has_default: bool,
    pub(super) is_generated: bool,
    is_mandatory: bool,
}

impl Table {
    /// Reads the description of `relation` from the server.
    ///
    /// # Errors
    /// [`Error::Config`] if it does not exist or has no usable key, [`Error::Source`] if the server fails.
    pub(super) async fn describe(
        client: &Client,
        address: &Address,
        relation: &PostgresRelation,
        options: &PostgresOptions,
    ) -> Result<Table> {
        let (place, rights, from) = match relation {
            PostgresRelation::Table(name) => {
                let (place, rights) = find(client, address, name).await?;
                let from = format!("{}.{}", quote(&place.schema), quote(&place.table));
                (Some(place), rights, from)
            }
            PostgresRelation::Query(sql) => {
                let sql = sql.trim().trim_end_matches(';');
                // A line break ends a comment at the end of the query.
                (None, Rights::default(), format!("({sql}\n) AS diorama_source"))
            }
        };
        let mut fields = fields(client, &from).await?;
        let mut references = Vec::new();
        let mut keys = Vec::new();
        if let Some(place) = &place {
            add_attributes(client, place.oid, &mut fields).await?;
            keys = unique_keys(client, place.oid, &fields).await?;
            references = foreign_keys(client, place.oid).await?;
        }
        let name = relation.to_string();
        let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        let key = key::choose(&name, &names, &keys, options.id.as_deref())?;
        // Without a unique key, an id may mean several rows.
        let is_unique = keys.contains(&key);
        let rights = if is_unique && !options.read_only { rights } else { Rights::default() };
        let columns = declare(&name, columns(&fields, &key), &options.columns)?;
        let id = match key.as_slice() {
            [only] => fields[*only].name.clone(),
            _ => key::joined_name(&names),
        };
        let schema = Arc::new(Schema::new(&id, columns).with_references(references));
        let selected = fields.iter().map(|field| field.select.as_str()).collect::<Vec<_>>().join(", ");
        Ok(Table { name, from, place, schema, fields, key, rights, selected })
    }

    /// Returns true if rows and statements for `other` have the same meaning for this table.
    pub(super) fn is_like(&self, other: &Table) -> bool {
        (&self.fields, &self.key) == (&other.fields, &other.key)
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
        let mut cells = Vec::with_capacity(self.fields.len());
        for (at, field) in self.fields.iter().enumerate() {
            let Raw(raw) = row.try_get(first + at).map_err(failed)?;
            cells.push(match raw {
                None => CborValue::Null,
                Some(raw) => field.codec.read_result(raw).ok_or_else(|| {
                    Error::permanent(format!("{}: a value of column {:?} cannot be decoded", self.name, field.name))
                })?,
            });
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
            // Ids that are neither text nor integers are text outside of the database.
            let cell = if is_id && !matches!(cell, CborValue::Integer(_)) { id.as_str().into() } else { cell };
            record.insert(field.name.as_str(), cell);
        }
        Ok((id, record))
    }

    /// Returns the id of a row with these cells.
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

/// Finds a table or view by name, which may include its schema.
async fn find(client: &Client, address: &Address, name: &str) -> Result<(Place, Rights)> {
    let sql = "SELECT c.oid, n.nspname, c.relname, c.relkind::text,
            has_table_privilege(c.oid, 'SELECT') OR has_any_column_privilege(c.oid, 'SELECT'),
            has_table_privilege(c.oid, 'INSERT'), has_table_privilege(c.oid, 'UPDATE'),
            has_table_privilege(c.oid, 'DELETE'), pg_is_in_recovery()
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = to_regclass($1) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')";
    let split = name.split_once('.').map(|(schema, table)| format!("{}.{}", quote(schema), quote(table)));
    for candidate in std::iter::once(quote(name)).chain(split) {
        let Some(row) = client.query_opt(sql, &[&Param::text(candidate)]).await.map_err(failed)? else { continue };
        let kind: String = row.get(3);
        let place = Place {
            oid: row.get(0),
            schema: row.get(1),
            table: row.get(2),
            is_table: matches!(kind.as_str(), "r" | "p"),
        };
        if !row.get::<_, bool>(4) {
            let user = address.config.get_user().unwrap_or("the user");
            let detail = format!("{user} may not read {name}: GRANT SELECT ON {} TO {user}", quote(&place.table));
            return Err(Error::Config(detail));
        }
        // Views are read only: what a write to one does is up to its rules and triggers.
        let writable = place.is_table && !row.get::<_, bool>(8);
        let rights = match writable {
            true => Rights { insert: row.get(5), update: row.get(6), delete: row.get(7) },
            false => Rights::default(),
        };
        return Ok((place, rights));
    }
    Err(no_table(client, address, name).await?)
}

async fn no_table(client: &Client, address: &Address, name: &str) -> Result<Error> {
    let sql = "SELECT CASE WHEN pg_table_is_visible(c.oid) THEN c.relname ELSE n.nspname || '.' || c.relname END
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
            AND n.nspname NOT LIKE 'pg\\_%' AND c.relname <> '_diorama_ops' ORDER BY 1 LIMIT 50";
    let rows = client.query(sql, &[]).await.map_err(failed)?;
    let tables: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let others = if tables.is_empty() { "no tables".to_string() } else { tables.join(", ") };
    Ok(Error::Config(format!("{address} has no table {name:?}: it has {others}")))
}

/// Returns the result columns of `SELECT * FROM from`, with what their types say.
async fn fields(client: &Client, from: &str) -> Result<Vec<Field>> {
    let statement = client.prepare(&format!("SELECT * FROM {from}")).await.map_err(failed)?;
    if !statement.params().is_empty() {
        return Err(Error::Config("the query has parameters: write their values into it".into()));
    }
    let mut fields: Vec<Field> = Vec::new();
    for column in statement.columns() {
        if fields.iter().any(|field| field.name == column.name()) {
            let detail = format!("the query has two columns named {:?}: name one of them with AS", column.name());
            return Err(Error::Config(detail));
        }
        fields.push(Field::new(column.name(), column.type_()));
    }
    match fields.is_empty() {
        true => Err(Error::Config("it has no columns".into())),
        false => Ok(fields),
    }
}

impl Field {
    fn new(name: &str, ty: &Type) -> Field {
        let (codec, quoted) = (Codec::of(ty), quote(name));
        let builtin = ty.schema() == "pg_catalog";
        let typed = format!("::{}.{}", quote(ty.schema()), quote(ty.name()));
        // The text of a type outside of the catalog is cast by the server, so that its parameters need no lookup.
        let cast = if builtin { typed } else { format!("::text{typed}") };
        let select = match (codec.reads_binary(), ty.kind()) {
            (true, Kind::Domain(base)) => format!("{quoted}::{}.{}", quote(base.schema()), quote(base.name())),
            (true, _) => quoted.clone(),
            // Its cast to text adds a mask that its text form has not.
            (false, _) if *ty == Type::INET => {
                format!("CASE WHEN {quoted} IS NOT NULL THEN format('%s', {quoted}) END AS {quoted}")
            }
            (false, _) => format!("{quoted}::text"),
        };
        Field {
            name: name.to_string(),
            type_oid: ty.oid(),
            original: ty.name().to_string(),
            codec,
            cast,
            select,
            quoted,
            is_deterministic: true,
            has_default: false,
            is_generated: false,
            is_mandatory: false,
        }
    }
}

/// Adds what the catalog says about the columns of a table: declared types, defaults, constraints.
async fn add_attributes(client: &Client, oid: u32, fields: &mut [Field]) -> Result<()> {
    let sql =
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.atthasdef OR a.attidentity <> '',
            a.attgenerated <> '', coalesce(l.collisdeterministic, true)
        FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
        WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped";
    for row in client.query(sql, &[&oid]).await.map_err(failed)? {
        let name: &str = row.get(0);
        let Some(field) = fields.iter_mut().find(|field| field.name == name) else { continue };
        field.original = row.get(1);
        field.has_default = row.get(3);
        field.is_generated = row.get(4);
        field.is_mandatory = row.get::<_, bool>(2) && !field.has_default && !field.is_generated;
        field.is_deterministic = row.get(5);
    }
    Ok(())
}

/// Returns the keys that identify rows, the primary key first, as indexes of fields.
async fn unique_keys(client: &Client, oid: u32, fields: &[Field]) -> Result<Vec<Vec<usize>>> {
    let sql = "SELECT array_agg(a.attname::text ORDER BY k.position), bool_and(a.attnotnull)
        FROM pg_catalog.pg_index i, unnest(i.indkey) WITH ORDINALITY AS k(attnum, position), pg_catalog.pg_attribute a
        WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate
            AND i.indpred IS NULL AND i.indexprs IS NULL AND k.position <= i.indnkeyatts
            AND a.attrelid = i.indrelid AND a.attnum = k.attnum
        GROUP BY i.indexrelid, i.indisprimary, i.indnkeyatts ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid";
    let mut keys = Vec::new();
    for row in client.query(sql, &[&oid]).await.map_err(failed)? {
        let names: Vec<String> = row.get(0);
        let at = |name: &String| fields.iter().position(|field| field.name == *name);
        let key: Option<Vec<usize>> = names.iter().map(at).collect();
        if row.get::<_, bool>(1) {
            keys.extend(key);
        }
    }
    Ok(keys)
}

/// Returns the foreign keys of one column as references, each named by its column without `_id`.
async fn foreign_keys(client: &Client, oid: u32) -> Result<Vec<Reference>> {
    let sql = "SELECT a.attname, c.relname FROM pg_catalog.pg_constraint f
        JOIN pg_catalog.pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = f.conkey[1]
        JOIN pg_catalog.pg_class c ON c.oid = f.confrelid
        WHERE f.conrelid = $1 AND f.contype = 'f' AND cardinality(f.conkey) = 1 ORDER BY a.attnum";
    let reference = |row: &Row| {
        let column: String = row.get(0);
        let relation = column.strip_suffix("_id").filter(|name| !name.is_empty()).unwrap_or(&column).to_string();
        Reference { relation, target: row.get(1), column, many: false }
    };
    Ok(client.query(sql, &[&oid]).await.map_err(failed)?.iter().map(reference).collect())
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

/// Returns true if SQL and the evaluator compare cells of this field as the same type as the schema says.
pub(super) fn is_declared(field: &Field, ty: ColumnType) -> bool {
    field.codec.column_type() == ty
}
