//! Description of a table, view or query by the server's catalog: columns, keys, rights, references.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::{Kind, Type};

use super::address::Address;
use super::errors::failed;
use super::options::PostgresOptions;
use super::table::{Field, Place, PostgresRelation, Rights, Table};
use super::value::{Codec, Param};
use crate::rows::declare;
use crate::sql::{key, quote, reference};
use diorama_core::vista::{Column, ColumnType, Error, Flag, Reference, Result, Schema};

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
            mark_unique(client, place.oid, &mut fields).await?;
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
        let takes_groups = match &place {
            Some(place) if rights.any() && key.iter().all(|at| fields[*at].has_exact_texts()) => {
                is_plain(client, place.oid).await?
            }
            _ => false,
        };
        Ok(Table { name, from, place, schema, fields, key, rights, takes_groups, selected })
    }
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
            is_unique: false,
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

/// Marks the columns of indexes that refuse rows, all columns if such an index has expressions or a condition.
async fn mark_unique(client: &Client, oid: u32, fields: &mut [Field]) -> Result<()> {
    let sql = "SELECT DISTINCT a.attname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a
            ON a.attrelid = i.indrelid
                AND (a.attnum = ANY(i.indkey::int2[]) OR i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
        WHERE i.indrelid = $1 AND (i.indisunique OR i.indisexclusion) AND a.attnum > 0";
    let unique = client.query(sql, &[&oid]).await.map_err(failed)?;
    for field in fields {
        field.is_unique = unique.iter().any(|row| row.get::<_, &str>(0) == field.name);
    }
    Ok(())
}

/// Returns true if rows of a table can be written in any order with the same outcome, unless their values are unique.
async fn is_plain(client: &Client, oid: u32) -> Result<bool> {
    let sql = "SELECT c.relkind = 'r' AND NOT c.relhassubclass AND NOT c.relhasrules
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint f WHERE f.conrelid = c.oid AND f.confrelid = c.oid)
        FROM pg_catalog.pg_class c WHERE c.oid = $1";
    let row = client.query_opt(sql, &[&oid]).await.map_err(failed)?;
    Ok(row.is_some_and(|row| row.get(0)))
}

/// Returns the foreign keys of one column as references, if they refer to a primary key.
async fn foreign_keys(client: &Client, oid: u32) -> Result<Vec<Reference>> {
    let sql = "SELECT a.attname, c.relname FROM pg_catalog.pg_constraint f
        JOIN pg_catalog.pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = f.conkey[1]
        JOIN pg_catalog.pg_class c ON c.oid = f.confrelid
        JOIN pg_catalog.pg_constraint k ON k.conrelid = f.confrelid AND k.contype = 'p' AND k.conkey = f.confkey
        WHERE f.conrelid = $1 AND f.contype = 'f' AND cardinality(f.conkey) = 1 ORDER BY a.attnum";
    let keys = client.query(sql, &[&oid]).await.map_err(failed)?;
    Ok(keys.iter().map(|row| reference(row.get(0), row.get(1))).collect())
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
        // The id of a row has the columns of a joined key.
        let is_in_id = key.len() > 1 && key.contains(&at);
        if field.is_mandatory && !is_in_id { column.with(Flag::Mandatory) } else { column }
    };
    fields.iter().enumerate().map(column).collect()
}
