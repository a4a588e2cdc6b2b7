//! [`Scope`]: a resource restricted to the rows that one caller may see and change. Extractors yield it.

use std::ops::Deref;
use std::sync::Arc;

use crate::access::{Grant, Principal, Verb, View};
use crate::http::problem::{ApiError, Code};
use crate::rows::scoped_rows::ScopedRows;
use crate::state::{GatewayState, Resource};
use diorama_core::vista::Schema;
use diorama_core::vista::query::nearest;

/// A resource restricted to the rows and columns that one caller may see and change.
///
/// Dereferences to its [`Resource`] for everything but rows, which are reached through [`Scope::rows`].
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    resource: Arc<Resource>,
    /// Permissions of the caller.
    pub(crate) grant: Arc<Grant>,
    /// Schema of the visible columns.
    pub(crate) schema: Arc<Schema>,
    /// Rows that the caller may see and change.
    pub(crate) rows: ScopedRows,
}

impl Deref for Scope {
    type Target = Resource;

    fn deref(&self) -> &Resource {
        &self.resource
    }
}

impl Scope {
    /// Restricts `resource` to what `view` shows and `grant` permits, for `principal`.
    pub(crate) fn new(resource: Arc<Resource>, principal: Principal, grant: Arc<Grant>, view: Arc<View>) -> Scope {
        let schema = Arc::clone(view.schema());
        let rows = ScopedRows::new(&resource.dio, principal, Arc::clone(&grant), view);
        Scope { resource, grant, schema, rows }
    }

    /// Returns the scope of `principal` in the resource `name`, for `verb`.
    ///
    /// # Errors
    /// 404 with the most similar name for a resource that does not exist or with which the caller may do nothing, 403 if it may not do
    /// `verb`; 401 instead of both for an anonymous caller of a server with authentication.
    pub(crate) fn of(gateway: &GatewayState, name: &str, principal: &Principal, verb: Verb) -> Result<Scope, ApiError> {
        let (resource, grant) = Scope::find(gateway, name, principal)?;
        if !grant.verbs().has(verb) {
            return Err(refused(gateway, principal, || {
                let role = principal.role();
                ApiError::new(Code::Forbidden, format!("role {role:?} may not {} {name}", action(verb)))
                    .hint("the rules of the configuration ([[allow]]) give rights to roles")
            }));
        }
        let view = Arc::clone(grant.view(verb));
        Ok(Scope::new(resource, principal.clone(), grant, view))
    }

    /// Returns the scope of a live query: rows and columns for `read` and `events`.
    ///
    /// # Errors
    /// As [`Scope::of`].
    pub(crate) fn live(gateway: &GatewayState, name: &str, principal: &Principal) -> Result<Scope, ApiError> {
        Scope::of(gateway, name, principal, Verb::Read)?;
        let Scope { resource, grant, .. } = Scope::of(gateway, name, principal, Verb::Events)?;
        let view = Arc::clone(grant.live());
        Ok(Scope::new(resource, principal.clone(), grant, view))
    }

    /// Returns the resource `name` and the caller's permissions, of which there is at least one.
    ///
    /// # Errors
    /// As [`Scope::of`].
    pub(crate) fn find(
        gateway: &GatewayState,
        name: &str,
        principal: &Principal,
    ) -> Result<(Arc<Resource>, Arc<Grant>), ApiError> {
        let policy = gateway.policy.load();
        let granted = |name: &str, resource: &Arc<Resource>| policy.grant(name, &resource.schema, principal);
        if let Some(resource) = gateway.dios.get(name) {
            let grant = granted(name, resource);
            if !grant.verbs().is_empty() {
                return Ok((Arc::clone(resource), grant));
            }
        }
        Err(refused(gateway, principal, || {
            let visible = gateway.dios.iter().filter(|(name, resource)| !granted(name, resource).verbs().is_empty());
            let names: Vec<&str> = visible.map(|(name, _)| &**name).collect();
            let error = ApiError::new(Code::DioNotFound, format!("there is no resource {name:?}"));
            match nearest(name, names.iter().copied()) {
                Some(nearest) => error.hint(format!("did you mean {nearest:?}?")),
                None => error.hint(format!("resources are {}", names.join(", "))),
            }
        }))
    }
}

/// Checks that the caller may do `verb` with every resource, which is required for what concerns the whole server.
///
/// # Errors
/// 403, or 401 for an anonymous caller of a server with authentication.
pub(crate) fn require_everywhere(gateway: &GatewayState, principal: &Principal, verb: Verb) -> Result<(), ApiError> {
    if gateway.policy.load().permits_everywhere(verb, principal) {
        return Ok(());
    }
    Err(refused(gateway, principal, || {
        let role = principal.role();
        ApiError::new(Code::Forbidden, format!("role {role:?} may not {} all resources", action(verb)))
            .hint(format!("a rule with dio = \"*\" and can = [\"{verb}\"] gives this right"))
    }))
}

/// Returns the refusal of an anonymous caller, who may have more rights with a credential, or `error` for others.
fn refused(gateway: &GatewayState, principal: &Principal, error: impl FnOnce() -> ApiError) -> ApiError {
    match principal.identity() {
        None if gateway.auth.is_required() => crate::auth::AuthError::Missing.into(),
        _ => error(),
    }
}

/// Returns the phrase of a verb in a refusal.
fn action(verb: Verb) -> &'static str {
    match verb {
        Verb::Read => "read",
        Verb::Insert => "insert into",
        Verb::Update => "update",
        Verb::Delete => "delete from",
        Verb::Events => "follow",
        Verb::Refresh => "refresh",
        Verb::Operations => "see the operations of",
        Verb::Webhooks => "see the deliveries of",
        Verb::Admin => "administer",
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::MountOptions;
    use crate::events::testing::{record, small_dio};
    use crate::http::bounds::Bounds;
    use crate::http::negotiate::Format;
    use crate::rows::query_cache::QueryCache;
    use crate::rows::snapshot::Snapshot;
    use diorama_connect::MemoryTable;
    use diorama_core::Lens;
    use diorama_core::cache::MemoryCache;
    use diorama_core::dio::WriteOptions;
    use diorama_core::vista::query::url::ParamOptions;
    use diorama_core::vista::query::{AggregateItem, Aggregation, Test};
    use diorama_core::vista::{Column, ColumnType, Error, Filter, Query, WriteOp};

    /// Returns two scopes of a resource with a cheap and an expensive row: all rows, and the expensive one only.
    async fn scopes() -> (Scope, Scope) {
        let dio = small_dio().await;
        for (id, price) in [("cheap", 1), ("dear", 500)] {
            dio.patched(id, record(id, price)).await.unwrap();
        }
        let resource = Arc::new(Resource::new(dio, MountOptions::default()));
        let dear = Filter::Test { column: "price".into(), test: Test::Gte(100.into()) };
        let scope = |filter| crate::events::testing::scope_within(&resource, filter);
        (scope(Filter::default()), scope(dear))
    }

    #[tokio::test]
    async fn rows_outside_of_a_scope_are_not_there_for_any_read() {
        let (all, dear) = scopes().await;
        let (meter, every) = (Arc::clone(&Bounds::default().meter), Query::default());
        for (scope, shown) in [(&all, vec!["cheap", "dear"]), (&dear, vec!["dear"])] {
            let view = Snapshot::of(scope);
            assert_eq!(view.row("cheap").is_some(), shown.contains(&"cheap"));
            assert_eq!(scope.rows.held_row("cheap").is_some(), shown.contains(&"cheap"));
            let (found, _) = scope.rows.select(view.state(), &Query::default(), &meter).await.unwrap();
            let rows = found.slots.iter().filter_map(|slot| view.state().table().at(*slot));
            let mut ids: Vec<String> = rows.map(|row| row.id().to_string()).collect();
            ids.sort();
            assert_eq!(ids, shown);
            let count = Arc::new(Aggregation::new(&[AggregateItem::parse("count()").unwrap()], &scope.schema).unwrap());
            let counted = scope.rows.aggregate(view.state(), &every, &count, &meter, |mut groups, _| {
                groups.next().unwrap_or_else(|| Ok(Default::default()))
            });
            assert_eq!(
                counted.await.unwrap().iter().next().map(|(_, count)| count.clone()),
                Some((shown.len() as u64).into())
            );
            assert_eq!(scope.rows.vista().unwrap().list_values().await.unwrap().len(), shown.len());
            let scenery = scope.rows.table_scenery(&Query::default()).open().await.unwrap();
            assert_eq!(scenery.rows().len(), shown.len());
        }
    }

    #[tokio::test]
    async fn what_is_kept_of_one_scope_is_not_given_to_another() {
        let (all, dear) = scopes().await;
        let (cache, options) = (QueryCache::default(), ParamOptions::default());
        let asked = |scope: &Scope| cache.read(&scope.rows, "order=name", &options).unwrap().0;
        assert!(Arc::ptr_eq(&asked(&all), &asked(&all)));
        assert!(asked(&all).query.query().is_unfiltered() && !asked(&dear).query.query().is_unfiltered());
        let etag = |scope: &Scope| Snapshot::of(scope).list_etag(b"order=name", Format::Json);
        assert_eq!(etag(&all), etag(&all));
        assert_ne!(etag(&all), etag(&dear));
    }

    #[tokio::test]
    async fn a_write_stays_in_its_scope_before_and_after() {
        let (_, dear) = scopes().await;
        let write = |op| dear.rows.write(op, WriteOptions::default());
        let patch = |id: &str, price| WriteOp::Patch { id: id.into(), record: record(id, price) };
        assert!(matches!(write(patch("cheap", 700)).await, Err(Error::NotFound { .. })));
        assert!(write(patch("dear", 1)).await.is_err(), "it would leave");
        assert!(matches!(write(WriteOp::Delete { id: "cheap".into() }).await, Err(Error::NotFound { .. })));
        assert!(write(WriteOp::Insert { id: "new".into(), record: record("new", 1) }).await.is_err(), "it is outside");
        write(patch("dear", 600)).await.unwrap();
        assert_eq!(dear.rows.known_id("dear", false), Cow::Borrowed("dear"));
        assert_eq!(dear.rows.held_row("dear").unwrap()["price"], 600.into());
    }

    #[tokio::test]
    async fn a_row_that_is_not_in_the_copy_is_judged_before_it_is_written() {
        let columns = [("id", ColumnType::String), ("name", ColumnType::String), ("price", ColumnType::Integer)];
        let schema = Schema::new("id", columns.map(|(name, ty)| Column::new(name, ty)).to_vec());
        let rows = [("cheap", 1), ("dear", 500)].map(|(id, price)| (id.to_string(), record(id, price)));
        let lens = Lens::new().cache_source(MemoryCache::default()).on_load_chunk(|_, _, _| async { Ok(()) });
        let master = MemoryTable::vista("products", schema, rows);
        let dio = Arc::new(lens.build().unwrap()).make_dio(master).await.unwrap();
        assert!(!dio.is_complete() && dio.held_row("cheap").is_none());
        let dear = Filter::Test { column: "price".into(), test: Test::Gte(100.into()) };
        let resource = Arc::new(Resource::new(dio, MountOptions::default()));
        let dear = crate::events::testing::scope_within(&resource, dear);
        let replace = |id: &str| WriteOp::Replace { id: id.into(), record: record(id, 900) };
        assert!(
            dear.rows.write(replace("cheap"), WriteOptions::default()).await.is_err(),
            "a row outside of the scope"
        );
        dear.rows.write(replace("dear"), WriteOptions::default()).await.unwrap();
    }
}
