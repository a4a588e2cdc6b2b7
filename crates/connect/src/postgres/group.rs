//! Statements of a batch. A run of writes of one form on different rows is one statement: a row in a statement costs the server and
//! this program much less than a statement of its own.
//!
//! Such a statement does not look for operations that are stored already. If one of its operations is, its id is stored a second
//! time, which the server refuses, and the writes are executed by a statement each (`write.rs`).
//!
//! The outcome is that of the writes in their order. So writes share a statement only if their rows differ beyond doubt, and if the
//! order of rows within a statement cannot matter: [`Table::takes_groups`], [`Field::is_unique`].

use std::collections::HashSet;

use tokio_postgres::types::Type;

use super::array;
use super::ops;
use super::statement::{Cells, Sql, by_key, cells, cells_of, insert_into, on_conflict_replace};
use super::table::{Field, Table};
use super::value::{Codec, Param};
use super::write::Write;
use crate::rows::with_id;
use crate::sql::operations::now_millis;
use diorama_core::vista::{Error, WriteKind, WriteOp};

/// A statement of a batch.
#[derive(Debug)]
pub(super) struct Step {
    /// Indexes of its writes. The rows of a statement of several begin with the number of their write, counted from 1.
    pub(super) writes: Vec<usize>,
    pub(super) sql: Sql,
}

impl Step {
    /// Returns true if the statement is for several writes.
    pub(super) fn is_group(&self) -> bool {
        self.writes.len() > 1
    }
}

/// Returns the statements of `writes` in order, and the errors of writes that have none. A write that can change nothing has neither.
/// Without `grouped`, each write has a statement of its own.
pub(super) fn steps(table: &Table, writes: &[Write], grouped: bool) -> (Vec<Step>, Vec<(usize, Error)>) {
    let (mut steps, mut errors) = (Vec::new(), Vec::new());
    let mut run = Run::default();
    for (at, write) in writes.iter().enumerate() {
        let member = if grouped { Member::of(table, at, write) } else { None };
        match member {
            Some(member) => {
                if !run.takes(&member) {
                    run.end(table, writes, &mut steps, &mut errors);
                }
                run.add(member);
            }
            None => {
                run.end(table, writes, &mut steps, &mut errors);
                add_single(table, writes, at, &mut steps, &mut errors);
            }
        }
    }
    run.end(table, writes, &mut steps, &mut errors);
    (steps, errors)
}

fn add_single(table: &Table, writes: &[Write], at: usize, steps: &mut Vec<Step>, errors: &mut Vec<(usize, Error)>) {
    match Sql::of(table, &writes[at]) {
        Ok(Some(sql)) => steps.push(Step { writes: vec![at], sql }),
        Ok(None) => {}
        Err(error) => errors.push((at, error)),
    }
}

/// A write that can share a statement with others.
struct Member<'t> {
    at: usize,
    operation: &'t str,
    kind: WriteKind,
    /// Texts of its key columns in one spelling.
    key: Vec<String>,
    /// Cells that are written: of the whole row, or those that a patch changes.
    cells: Cells<'t>,
}

impl<'t> Member<'t> {
    /// Returns `None` for a write that needs a statement of its own, also if it is not a valid one.
    fn of(table: &'t Table, at: usize, write: &'t Write) -> Option<Member<'t>> {
        let operation = write.operation.as_deref().filter(|_| table.takes_groups)?;
        let key = key_of(table, write.op.id()?)?;
        let cells = match &write.op {
            WriteOp::Insert { id, record } | WriteOp::Replace { id, record } => cells(table, id, record).ok()?,
            WriteOp::Patch { id, record } => {
                let changed = cells_of(table, &with_id(id, record, &table.schema).ok()?).ok()?;
                let changed: Cells<'_> = changed.into_iter().filter(|(field, _)| !table.is_key(field)).collect();
                if changed.is_empty() || changed.iter().any(|(field, _)| field.is_unique) {
                    return None;
                }
                changed
            }
            WriteOp::Delete { .. } => Cells::new(),
            WriteOp::DeleteAll => return None,
        };
        cells.iter().all(|(field, _)| field.fits_arrays()).then_some(Member {
            at,
            operation,
            kind: write.op.kind(),
            key,
            cells,
        })
    }

    fn has_form_of(&self, other: &Member<'_>) -> bool {
        let fields = |member: &Member<'_>| member.cells.iter().map(|(field, _)| field.type_oid).collect::<Vec<_>>();
        let names = self.cells.iter().zip(&other.cells).all(|((own, _), (other, _))| own.name == other.name);
        self.kind == other.kind && names && fields(self) == fields(other)
    }
}

/// Returns the texts of the key columns of row `id`, in one spelling if they have [`Field::has_exact_texts`].
pub(super) fn key_of(table: &Table, id: &str) -> Option<Vec<String>> {
    let parts = table.key_parts(id)?;
    let spelled = |(at, part): (&usize, String)| match (&table.fields[*at].codec, uuid::Uuid::try_parse(&part)) {
        (Codec::Uuid, Ok(uuid)) => uuid.to_string(),
        _ => part,
    };
    Some(table.key.iter().zip(parts).map(spelled).collect())
}

/// Consecutive writes that share a statement.
#[derive(Default)]
struct Run<'t> {
    members: Vec<Member<'t>>,
    keys: HashSet<Vec<String>>,
}

impl<'t> Run<'t> {
    fn takes(&self, member: &Member<'_>) -> bool {
        let first = self.members.first();
        first.is_none_or(|first| first.has_form_of(member)) && !self.keys.contains(&member.key)
    }

    fn add(&mut self, member: Member<'t>) {
        self.keys.insert(member.key.clone());
        self.members.push(member);
    }

    /// Adds the statement of the run, and begins another run.
    fn end(&mut self, table: &Table, writes: &[Write], steps: &mut Vec<Step>, errors: &mut Vec<(usize, Error)>) {
        self.keys.clear();
        let members = std::mem::take(&mut self.members);
        match (members.as_slice(), &table.place) {
            ([_, _, ..], Some(place)) => {
                let sql = statement(table, &ops::table(place), &members);
                steps.push(Step { writes: members.iter().map(|member| member.at).collect(), sql });
            }
            _ => members.iter().for_each(|member| add_single(table, writes, member.at, steps, errors)),
        }
    }
}

/// Returns the statement of several writes of one form. It returns the number of each write that has had an effect, counted from 1,
/// and the row as stored afterwards unless it is deleted.
fn statement(table: &Table, ops: &str, members: &[Member<'_>]) -> Sql {
    let Some(first) = members.first() else { return Sql::default() };
    let whole = matches!(first.kind, WriteKind::Insert | WriteKind::Replace);
    // A row is found by its key, unless that is among its cells.
    let keys: Vec<&Field> = table.key.iter().map(|at| &table.fields[*at]).collect();
    let found_by = if whole { 0 } else { keys.len() };
    let fields: Vec<&Field> =
        keys[..found_by].iter().copied().chain(first.cells.iter().map(|(field, _)| *field)).collect();

    let mut params = vec![
        Param::text(array::literal(members.iter().map(|member| Some(member.operation)))),
        Param::text(now_millis().to_string()),
    ];
    for column in 0..fields.len() {
        let text = |member: &'_ Member<'_>| match column.checked_sub(found_by) {
            None => Some(member.key[column].clone()),
            Some(cell) => member.cells[cell].1.clone(),
        };
        let texts: Vec<Option<String>> = members.iter().map(text).collect();
        params.push(Param::text(array::literal(texts.iter().map(Option::as_deref))));
    }

    let own = own_prefix(table);
    let name = |column: usize| format!("{own}{column}");
    let value = |column: usize| format!("{}{}", name(column), fields[column].element_cast());
    let arrays: Vec<String> =
        fields.iter().enumerate().map(|(column, field)| format!(", ${}{}", column + 3, field.array_cast())).collect();
    let names: Vec<String> = (0..fields.len()).map(|column| format!(", {}", name(column))).collect();
    let (arrays, names) = (arrays.concat(), names.concat());
    let given = format!(
        "{own}given AS (SELECT * FROM unnest($1::text[]{arrays}) WITH ORDINALITY AS {own}given({own}op{names}, {own}n))"
    );
    let selected = &table.selected;
    let change = match first.kind {
        WriteKind::Patch => {
            let set = |column: usize| format!("{} = {}", fields[column].quoted, value(column));
            let sets: Vec<String> = (found_by..fields.len()).map(set).collect();
            let (sets, found) = (sets.join(", "), by_key(&keys, "", value));
            format!(
                "{own}done AS (UPDATE {} SET {sets} FROM {own}given WHERE {found} RETURNING {own}n, {own}op, {selected})",
                table.from
            )
        }
        WriteKind::Insert | WriteKind::Replace => {
            let values: Vec<String> = (0..fields.len()).map(value).collect();
            let values = format!("{} FROM {own}given ORDER BY {own}n", values.join(", "));
            let conflict = match first.kind {
                WriteKind::Insert => " ON CONFLICT DO NOTHING".to_string(),
                _ => on_conflict_replace(table, &fields),
            };
            let column_of = |key: usize| fields.iter().position(|field| field.name == keys[key].name).unwrap_or(key);
            let found = by_key(&keys, &format!("{own}written."), |key| value(column_of(key)));
            format!(
                "{own}written AS ({}{conflict} RETURNING {selected}), \
                 {own}done AS (SELECT {own}n, {own}op, {own}written.* FROM {own}given JOIN {own}written ON {found})",
                insert_into(table, &fields, &values)
            )
        }
        WriteKind::Delete | WriteKind::DeleteAll => {
            let found = by_key(&keys, "", value);
            format!(
                "{own}done AS (DELETE FROM {} USING {own}given WHERE {found} RETURNING {own}n, {own}op)",
                table.from
            )
        }
    };
    let columns = match first.kind {
        WriteKind::Delete | WriteKind::DeleteAll => String::new(),
        _ => table.fields.iter().map(|field| format!(", {}", field.quoted)).collect(),
    };
    let text = format!(
        "WITH {given}, {change}, {own}noted AS (INSERT INTO {ops} (op, at) SELECT {own}op, $2::int8 FROM {own}done) \
         SELECT {own}n{columns} FROM {own}done"
    );
    Sql { text, params }
}

/// Returns the beginning of the names that a statement makes up, which no name of the table has.
fn own_prefix(table: &Table) -> String {
    let mut prefix = String::from("_d");
    let place = table.place.iter().map(|place| place.table.as_str());
    let names: Vec<&str> = table.fields.iter().map(|field| field.name.as_str()).chain(place).collect();
    while names.iter().any(|name| name.starts_with(&prefix)) {
        prefix.push('_');
    }
    prefix
}

impl Field {
    /// Returns true if its values can be the items of an array. Of other types, an array may have another separator or be of more
    /// dimensions.
    fn fits_arrays(&self) -> bool {
        !matches!(self.codec, Codec::Array(_) | Codec::Other)
    }

    /// Returns true if values are equal in the database exactly if their texts are equal, apart from the spelling of UUIDs.
    pub(super) fn has_exact_texts(&self) -> bool {
        match self.codec {
            Codec::Integer | Codec::Uuid => true,
            // Text of a bounded length may be cut.
            Codec::Text => {
                let is_unbounded = self.type_oid == Type::TEXT.oid()
                    || self.type_oid == Type::VARCHAR.oid() && self.original == "character varying";
                is_unbounded && self.is_deterministic
            }
            _ => false,
        }
    }

    /// Cast of a parameter to an array of the column's type, or of texts if the server is to convert the items.
    fn array_cast(&self) -> String {
        if self.is_cast_from_text() { "::text[]".into() } else { format!("{}[]", self.cast) }
    }

    /// Cast of an item of that array to the column's type.
    fn element_cast(&self) -> &str {
        if self.is_cast_from_text() { self.cast.strip_prefix("::text").unwrap_or(&self.cast) } else { "" }
    }

    fn is_cast_from_text(&self) -> bool {
        self.cast.starts_with("::text")
    }
}
