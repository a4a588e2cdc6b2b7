//! [`Relation`]: the way from the rows of one scope to related rows, in the scope of the same caller.

use std::borrow::Cow;
use std::sync::Arc;

use crate::access::{Principal, Verb};
use crate::http::extract::check_ready;
use crate::http::problem::{ApiError, Code};
use crate::scope::Scope;
use crate::state::{GatewayState, Resource};
use diorama_core::record::CborValue;
use diorama_core::vista::query::{JsonRow, Literal, Path, Test, nearest};
use diorama_core::vista::{ColumnType, Filter, Reference, Schema};

/// Relation of the rows of a scope to those of another one.
#[derive(Debug)]
pub(crate) struct Relation {
    /// The related rows that the caller may read.
    pub(crate) scope: Scope,
    /// True if a row has any number of related ones.
    pub(crate) many: bool,
    /// Column that holds the id of the other side: of the related rows if there are many, else of the scope's rows.
    pub(crate) column: Path,
    /// Type of that column.
    column_type: ColumnType,
    /// Type of the id on the other side.
    id_type: ColumnType,
}

impl Relation {
    /// Finds a relation of the rows of `scope` by its name, or by the name of the related resource; `column` chooses one of several.
    ///
    /// A resource is related by each reference in the schema of one of both. Columns that the caller does not see relate nothing.
    ///
    /// # Errors
    /// 400 if there is none that the caller may read, or more than one; 503 while the related rows are not there.
    pub(crate) fn find(
        gateway: &GatewayState,
        scope: &Scope,
        name: &str,
        column: Option<&str>,
    ) -> Result<Relation, ApiError> {
        let principal = scope.rows.principal();
        let own = candidates(&scope.schema, |reference| reference.relation == name, column);
        let own =
            if own.is_empty() { candidates(&scope.schema, |reference| reference.target == name, column) } else { own };
        let (target, column, many) = match *own {
            [reference] => (reference.target.clone(), reference.column.clone(), reference.many),
            [] => match reverse(gateway, scope, name, column)? {
                Some(column) => (name.to_string(), column, true),
                None => return Err(unknown(scope, name)),
            },
            [..] => return Err(ambiguous(name, own.iter().map(|reference| &*reference.column))),
        };
        let Ok(other) = Scope::of(gateway, &target, principal, Verb::Read) else { return Err(unknown(scope, name)) };
        check_ready(&other.dio)?;
        if !other.dio.is_complete() {
            return Err(ApiError::new(Code::InvalidParameter, format!("the rows of {target} are only partly cached"))
                .hint("rows are related to those of a whole copy"));
        }
        let (holder, held) = if many { (&other.schema, &scope.schema) } else { (&scope.schema, &other.schema) };
        let Some(column_type) = holder.column(&column).map(|column| column.ty) else {
            return Err(unknown(scope, name));
        };
        let id_type = held.column(held.id_column()).map_or(ColumnType::String, |column| column.ty);
        Ok(Relation { scope: other, many, column: Path::plain(&column), column_type, id_type })
    }

    /// Id that the relation's column holds in `row`: that of the related row if there is one, that of its owner if there are many.
    pub(crate) fn id_in<'r>(&self, row: &JsonRow<'r>) -> Option<Cow<'r, str>> {
        row.id_at(&self.column)
    }

    /// The id of a related row in the form in which it is stored. Only UUIDs have several forms.
    pub(crate) fn stored_id<'i>(&self, id: &'i str) -> Cow<'i, str> {
        if self.id_type == ColumnType::Uuid { self.scope.rows.known_id(id, false) } else { Cow::Borrowed(id) }
    }

    /// Cells of the column that hold `id`: two readings of it in a column of any type.
    pub(crate) fn cells_of(&self, id: &str) -> Vec<CborValue> {
        Literal::of_text(id, self.column_type).map(Literal::values).unwrap_or_default()
    }

    /// Condition of the related rows that belong to the row under `id`, if there are many.
    pub(crate) fn owned_by(&self, id: &str) -> Filter {
        let column = self.column.column();
        match <[CborValue; 1]>::try_from(self.cells_of(id)) {
            Ok([cell]) => Filter::test(column, Test::Eq(cell)),
            Err(cells) => Filter::test(column, Test::In(cells)),
        }
    }

    /// Cell of the id column on the other side that is `id`.
    pub(crate) fn ids_of(&self, id: &str) -> Vec<CborValue> {
        Literal::of_text(id, self.id_type).map(Literal::values).unwrap_or_default()
    }
}

fn candidates<'s>(schema: &'s Schema, is: impl Fn(&Reference) -> bool, column: Option<&str>) -> Vec<&'s Reference> {
    let fits = |reference: &&Reference| is(reference) && column.is_none_or(|column| reference.column == column);
    schema.references().iter().filter(fits).collect()
}

/// Column of the resource `name` that refers to the rows of `scope`.
fn reverse(
    gateway: &GatewayState,
    scope: &Scope,
    name: &str,
    column: Option<&str>,
) -> Result<Option<String>, ApiError> {
    let Some(other) = gateway.dios.get(name) else { return Ok(None) };
    let grant = gateway.policy.load().grant(name, &other.schema, scope.rows.principal());
    let schema = grant.schema(&other.schema);
    let found = candidates(&schema, |reference| !reference.many && reference.target == scope.dio.name(), column);
    match *found {
        [] => Ok(None),
        [reference] => Ok(Some(reference.column.clone())),
        [..] => Err(ambiguous(name, found.iter().map(|reference| &*reference.column))),
    }
}

/// Relations of the rows of `resource` to those of others whose columns refer to them, as far as `principal` sees both and a query can name
/// them.
pub(crate) fn reverse_references(
    gateway: &GatewayState,
    resource: &Resource,
    schema: &Schema,
    principal: &Principal,
) -> Vec<Reference> {
    let (policy, own) = (gateway.policy.load(), resource.dio.name());
    let is_free = |name: &str| {
        schema.column(name).is_none()
            && schema.references().iter().all(|known| known.relation != name && known.target != name)
    };
    let one = |(name, other): (&Arc<str>, &Arc<Resource>)| {
        let grant = policy.grant(name, &other.schema, principal);
        let seen = grant.schema(&other.schema);
        let found = candidates(&seen, |reference| !reference.many && reference.target == own, None);
        let [only] = *found else { return None };
        let column = only.column.clone();
        let is_named = grant.verbs().has(Verb::Read) && is_free(name);
        is_named.then(|| Reference { relation: name.to_string(), target: name.to_string(), column, many: true })
    };
    gateway.dios.iter().filter_map(one).collect()
}

fn ambiguous<'a>(name: &str, columns: impl Iterator<Item = &'a str>) -> ApiError {
    let columns: Vec<&str> = columns.collect();
    ApiError::new(Code::InvalidParameter, format!("{name:?} is related by several columns: {}", columns.join(", ")))
        .hint(format!("choose one: {name}!{}(...)", columns.first().unwrap_or(&"column")))
}

fn unknown(scope: &Scope, name: &str) -> ApiError {
    let names: Vec<&str> = scope.schema.references().iter().map(|reference| &*reference.relation).collect();
    let columns = scope.schema.columns().iter().map(|column| &*column.name);
    let detail = format!("{} has neither a column nor a relation {name:?}", scope.dio.name());
    let error = ApiError::new(Code::UnknownColumn, detail);
    match nearest(name, names.iter().copied().chain(columns)) {
        Some(nearest) => error.hint(format!("did you mean {nearest:?}?")),
        None if names.is_empty() => {
            error.hint("relations are set up in [dio.NAME.relations], and found by the foreign keys of a database")
        }
        None => error.hint(format!("relations are {}", names.join(", "))),
    }
}

/// Checks a relation of `resource` before it is added.
///
/// # Errors
/// Returns what is wrong with it.
pub(crate) fn check(resource: &Resource, reference: &Reference, target: Option<&Arc<Resource>>) -> Result<(), String> {
    let Reference { relation, target: name, column, many } = reference;
    let Some(target) = target else { return Err(format!("there is no resource {name:?}")) };
    let holder = if *many { target.as_ref() } else { resource };
    if holder.schema.column(column).is_none() {
        let names = holder.schema.columns().iter().map(|column| &*column.name);
        let meant = nearest(column, names).map(|name| format!("; did you mean {name:?}?")).unwrap_or_default();
        return Err(format!("{} has no column {column:?}{meant}", holder.dio.name()));
    }
    if resource.schema.column(relation).is_some() {
        return Err(format!("{relation:?} is a column of {}: give the relation another name", resource.dio.name()));
    }
    let fits = !relation.is_empty()
        && relation.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if !fits || relation.starts_with('_') || matches!(&**relation, "events" | "live" | "not") {
        return Err(format!("{relation:?} cannot be the name of a relation: use letters, digits, - and _"));
    }
    Ok(())
}
