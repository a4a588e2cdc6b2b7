//! [`Related`]: what a query asks about related rows, and the conditions on them as a filter of the rows themselves.

use std::collections::{BTreeMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;

use axum::http::HeaderValue;

use super::relation::Relation;
use super::text::{EmbedText, LevelText, ListText};
use crate::http::bounds::Bounds;
use crate::http::problem::{ApiError, Code};
use crate::http::response;
use crate::rows::format::Bytes;
use crate::rows::snapshot::Snapshot;
use crate::scope::Scope;
use crate::state::GatewayState;
use diorama_core::record::{CborValue, value_to_json};
use diorama_core::state::State;
use diorama_core::vista::query::url::{self, ParamOptions};
use diorama_core::vista::query::{JsonRow, Projection, SelectItem, Test};
use diorama_core::vista::{Filter, Query, Schema};

/// Maximum number of rows of a related resource that conditions on it may select.
const MAX_MATCHES: u64 = 10_000;
/// Maximum number of rows that one answer embeds.
pub(super) const MAX_EMBEDDED: usize = 50_000;

/// Filter that is found by reading related rows.
type FilterFuture<'a> = Pin<Box<dyn Future<Output = Result<Filter, ApiError>> + Send + 'a>>;

/// Part of a query about the rows that are related to those it lists.
#[derive(Debug, Default)]
pub(crate) struct Related {
    /// Projection of the rows without embedded ones; `None` if the rest of the query has it.
    pub(crate) select: Option<Vec<SelectItem>>,
    /// True if the rows have members of their own, and not only embedded rows.
    pub(crate) shows_own: bool,
    pub(crate) embeds: Vec<Embed>,
    conditions: Vec<Condition>,
    /// Their part of the query string, as it was sent.
    pub(crate) rest: String,
}

/// Rows that are embedded in others.
#[derive(Debug)]
pub(crate) struct Embed {
    /// Name of the member that holds them.
    pub(crate) key: String,
    /// The same as JSON.
    pub(crate) json_key: Vec<u8>,
    pub(crate) relation: Relation,
    inner: bool,
    /// Query of the related rows; its projection is that of `shown`.
    pub(crate) query: Query,
    pub(crate) shown: Shown,
    /// Part of the query about rows that are related to these.
    pub(crate) related: Related,
}

/// Form of embedded rows.
#[derive(Debug)]
pub(crate) enum Shown {
    /// Number of rows: `[{"count":3}]`.
    Count,
    /// Rows; `None` for all columns.
    Rows(Option<Projection>),
}

/// Condition that one of the related rows must meet.
#[derive(Debug)]
struct Condition {
    relation: Relation,
    query: Query,
    conditions: Vec<Condition>,
}

impl Related {
    /// Reads what a query string says about related rows, as [`Bounds::read`] does. Returns the rest of it, which concerns the rows of
    /// `scope` alone, or `None` if that is all of it.
    ///
    /// # Errors
    /// 400 for relations that do not exist and for queries of related rows that are not valid; as [`Relation::find`].
    pub(crate) async fn read(
        gateway: &Arc<GatewayState>,
        scope: &Scope,
        raw: &str,
        bounds: &Bounds,
    ) -> Result<Option<(Related, String)>, ApiError> {
        if !ListText::may_be_related(raw) {
            return Ok(None);
        }
        let (gateway, owner, text) = (Arc::clone(gateway), scope.clone(), raw.to_string());
        let read = move || Related::parse(&gateway, &owner, &text);
        bounds.read(scope.dio.workers(), raw.as_bytes(), read).await?
    }

    fn parse(gateway: &GatewayState, scope: &Scope, raw: &str) -> Result<Option<(Related, String)>, ApiError> {
        let is_own = |name: &str| scope.schema.column(name).is_some();
        let ListText { own, level, rest } = ListText::parse(raw, is_own)?;
        if rest.is_empty() {
            return Ok(None);
        }
        if !scope.dio.is_complete() {
            return Err(ApiError::new(
                Code::InvalidParameter,
                format!("the rows of {} are only partly cached", scope.dio.name()),
            )
            .hint("only the rows of a whole copy can be related to others"));
        }
        let mut related = Related::of(gateway, scope, level)?;
        related.rest = rest;
        Ok(Some((related, own)))
    }

    fn of(gateway: &GatewayState, scope: &Scope, level: LevelText) -> Result<Related, ApiError> {
        let LevelText { select, embeds, conditions, .. } = level;
        let shows_own = select.as_deref().is_none_or(|text| !text.trim().is_empty());
        let select = select.map(|text| projection(scope, &text)).transpose()?;
        let embeds = embeds.into_iter().map(|embed| Embed::of(gateway, scope, embed)).collect::<Result<Vec<_>, _>>()?;
        let conditions = conditions.into_iter().map(|(name, level)| Condition::of(gateway, scope, &name, level));
        let conditions = conditions.collect::<Result<_, _>>()?;
        let related = Related { select, shows_own, embeds, conditions, rest: String::new() };
        related.check_names(&scope.schema).map(|()| related)
    }

    /// Compiles the projection of rows of `scope`; `None` for all columns.
    fn projection(&self, scope: &Scope) -> Result<Option<Projection>, ApiError> {
        let select = self.select.clone().unwrap_or_else(|| scope.rows.narrow(Query::default()).select);
        Ok(Query { select, ..Query::default() }.projection(&scope.schema)?)
    }

    /// Refuses two members of one name.
    fn check_names(&self, schema: &Schema) -> Result<(), ApiError> {
        let all = || schema.columns().iter().map(|column| &*column.name);
        let mut names: HashSet<&str> = HashSet::new();
        match self.select.as_deref() {
            _ if !self.shows_own => {}
            None | Some([]) => names.extend(all()),
            Some(items) => {
                for item in items {
                    match item {
                        SelectItem::Everything => names.extend(all()),
                        SelectItem::Column { column, alias } => drop(names.insert(alias.as_deref().unwrap_or(column))),
                    }
                }
            }
        }
        match self.embeds.iter().find(|embed| !names.insert(&embed.key)) {
            None => Ok(()),
            Some(Embed { key, .. }) => {
                Err(ApiError::new(Code::InvalidParameter, format!("select has two items named {key:?}"))
                    .hint(format!("give one an alias: other:{key}(...)")))
            }
        }
    }

    /// True if rows are left out by their related ones.
    pub(crate) fn has_conditions(&self) -> bool {
        !self.conditions.is_empty() || self.embeds.iter().any(|embed| embed.inner)
    }

    /// Returns the condition that listed rows have to meet: conditions on related rows, and `!inner` of embedded ones.
    ///
    /// # Errors
    /// 400 if too many related rows meet a condition; as [`ScopedRows::select`](crate::rows::scoped_rows::ScopedRows::select).
    pub(crate) fn filter<'a>(&'a self, id: &'a str, reading: &'a mut Reading, bounds: &'a Bounds) -> FilterFuture<'a> {
        Box::pin(async move {
            let mut filter = filter_of(id, &self.conditions, reading, bounds).await?;
            for embed in self.embeds.iter().filter(|embed| embed.inner) {
                let Query { filter: own, search, .. } = embed.query.clone();
                let mut query = Query { filter: own, search, ..Query::default() };
                let id_column = embed.relation.scope.schema.id_column();
                query.filter.and(embed.related.filter(id_column, reading, bounds).await?);
                filter.and(joined(id, &embed.relation, query, reading, bounds).await?);
            }
            Ok(filter)
        })
    }
}

impl Embed {
    fn of(gateway: &GatewayState, scope: &Scope, text: EmbedText) -> Result<Embed, ApiError> {
        let EmbedText { key, relation, column, inner, level } = text;
        let relation = Relation::find(gateway, scope, &relation, column.as_deref())?;
        let is_count = level.is_none();
        let (mut query, related) = read_level(gateway, &relation, level.unwrap_or_default())?;
        let own = &relation.scope;
        if !relation.many && (query.limit.is_some() || query.offset > 0 || !query.order.is_empty()) {
            return Err(ApiError::new(Code::InvalidParameter, format!("{key}: one row has no order, limit or offset")));
        }
        query.limit = if is_count { Some(0) } else { query.limit.or(Some(own.options.default_limit)) };
        let shown = match is_count {
            true => Shown::Count,
            false => Shown::Rows(related.projection(own)?),
        };
        let json_key = value_to_json(&CborValue::Text(key.clone()));
        Ok(Embed { key, json_key, relation, inner, query, shown, related })
    }
}

impl Condition {
    fn of(gateway: &GatewayState, scope: &Scope, name: &str, level: LevelText) -> Result<Condition, ApiError> {
        let relation = Relation::find(gateway, scope, name, None)?;
        let (query, related) = read_level(gateway, &relation, level)?;
        if query.limit.is_some() || query.offset > 0 || !query.order.is_empty() || !related.embeds.is_empty() {
            return Err(ApiError::new(
                Code::UnknownParameter,
                format!("{name}: conditions on related rows are filters"),
            )
            .hint(format!("order, limit and select of related rows stand in select: {name}(...)")));
        }
        Ok(Condition { relation, query, conditions: related.conditions })
    }
}

/// Reads the query of related rows.
fn read_level(gateway: &GatewayState, relation: &Relation, mut level: LevelText) -> Result<(Query, Related), ApiError> {
    let scope = &relation.scope;
    level.find_conditions(|name| scope.schema.column(name).is_some());
    let options = ParamOptions { max_limit: scope.options.max_limit, ..ParamOptions::default() };
    let pairs = level.parameters.iter().map(|(key, value)| (&**key, &**value));
    let query = url::parse_parameters(pairs, &scope.schema, &options)?.query;
    if query.after.is_some() || !query.select.is_empty() {
        return Err(ApiError::new(Code::UnknownParameter, "related rows have no cursor, and their columns no select="));
    }
    Ok((query, Related::of(gateway, scope, level)?))
}

/// Parses the select of one level, without embedded rows, as far as the caller sees its columns.
fn projection(scope: &Scope, text: &str) -> Result<Vec<SelectItem>, ApiError> {
    let query = url::parse_parameters([("select", text)], &scope.schema, &ParamOptions::default())?.query;
    Ok(scope.rows.narrow(Query { select: query.select, ..Query::default() }).select)
}

/// Returns the filter of rows with the id column `id` that meet `conditions`.
fn filter_of<'a>(
    id: &'a str,
    conditions: &'a [Condition],
    reading: &'a mut Reading,
    bounds: &'a Bounds,
) -> FilterFuture<'a> {
    Box::pin(async move {
        let mut filter = Filter::default();
        for Condition { relation, query, conditions } in conditions {
            let mut query = query.clone();
            query.filter.and(filter_of(relation.scope.schema.id_column(), conditions, reading, bounds).await?);
            filter.and(joined(id, relation, query, reading, bounds).await?);
        }
        Ok(filter)
    })
}

/// Returns the filter of rows that are related to one that `query` selects.
async fn joined(
    id: &str,
    relation: &Relation,
    query: Query,
    reading: &mut Reading,
    bounds: &Bounds,
) -> Result<Filter, ApiError> {
    let state = reading.state(&relation.scope);
    let query = Query { limit: Some(MAX_MATCHES), ..query };
    let (found, _) = relation.scope.rows.select(&state, &query, &bounds.meter).await?;
    if found.total > MAX_MATCHES {
        let name = relation.scope.dio.name();
        let detail = format!("more than {MAX_MATCHES} rows of {name} meet the condition on them");
        return Err(ApiError::new(Code::LimitTooLarge, detail).hint(format!("narrow it down, or list {name} first")));
    }
    let rows = found.slots.iter().filter_map(|slot| state.table().at(*slot));
    let (mut seen, mut values) = (HashSet::new(), Vec::new());
    for row in rows {
        let json: JsonRow<'_> = Bytes::from(&row).into();
        let owner = if relation.many { relation.id_in(&json) } else { Some(row.id().into()) };
        let Some(owner) = owner.map(String::from).filter(|owner| !seen.contains(owner)) else { continue };
        values.extend(if relation.many { relation.ids_of(&owner) } else { relation.cells_of(&owner) });
        seen.insert(owner);
    }
    let column = if relation.many { id } else { relation.column.column() };
    Ok(Filter::test(column, Test::In(values)))
}

/// States that one answer is built from, one of each resource, and the number of rows that it may embed.
#[derive(Debug)]
pub(crate) struct Reading {
    states: BTreeMap<Arc<str>, Arc<State>>,
    /// Number of rows that may still be embedded.
    pub(super) left: usize,
}

impl Reading {
    /// Takes the States of all resources that `related` names, beside that of the listed rows.
    pub(crate) fn of(scope: &Scope, view: &Snapshot, related: &Related) -> Reading {
        let own = (Arc::from(scope.dio.name()), Arc::clone(view.state()));
        let mut reading = Reading { states: BTreeMap::from([own]), left: MAX_EMBEDDED };
        related.relations(&mut |relation| drop(reading.state(&relation.scope)));
        reading
    }

    /// State of the resource of `scope`.
    pub(super) fn state(&mut self, scope: &Scope) -> Arc<State> {
        let name = Arc::from(scope.dio.name());
        Arc::clone(self.states.entry(name).or_insert_with(|| scope.rows.state()))
    }

    /// Positions of all of them, as `since` takes them for several resources.
    pub(crate) fn position(&self) -> HeaderValue {
        response::text(self.joined(|state| state.seq()))
    }

    fn joined(&self, seq: impl Fn(&State) -> u64) -> String {
        let one = |(name, state): (&Arc<str>, &Arc<State>)| format!("{name}={}:{}", state.epoch(), seq(state));
        self.states.iter().map(one).collect::<Vec<_>>().join(";")
    }
}

impl Related {
    /// Calls `each` with every relation that the query names.
    fn relations(&self, each: &mut impl FnMut(&Relation)) {
        fn conditions(all: &[Condition], each: &mut impl FnMut(&Relation)) {
            for condition in all {
                each(&condition.relation);
                conditions(&condition.conditions, each);
            }
        }
        conditions(&self.conditions, each);
        for embed in &self.embeds {
            each(&embed.relation);
            embed.related.relations(each);
        }
    }

    /// Text of the query that identifies its answer: with the states and scopes of all related rows.
    pub(crate) fn identity(&self, path: &str, raw: &str, reading: &Reading) -> Vec<u8> {
        let mut text = format!("{path}?{raw}\n{}", reading.joined(|state| state.rows_seq()));
        self.relations(&mut |relation| {
            let (high, low) = relation.scope.rows.id().halves();
            text.push_str(&format!("\n{high:x}{low:x}"));
        });
        text.into_bytes()
    }
}
