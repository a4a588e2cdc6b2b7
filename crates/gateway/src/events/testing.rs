//! Helpers of the tests in this folder.

use std::sync::Arc;

use super::request::{self, Subscription};
use crate::MountOptions;
use crate::access::{Grant, Principal, Verb};
use crate::scope::Scope;
use crate::state::Resource;
use diorama_connect::MemoryTable;
use diorama_core::cache::MemoryCache;
use diorama_core::{Column, ColumnType, Dio, Filter, Lens, Record, Schema};

/// Empty Dio in memory with a ring of eight events.
pub(crate) async fn small_dio() -> Dio {
    dio_with_ring(8).await
}

/// Empty Dio in memory with a ring of `events` events.
pub(super) async fn dio_with_ring(events: usize) -> Dio {
    let columns = [("id", ColumnType::String), ("name", ColumnType::String), ("price", ColumnType::Integer)];
    let schema = Schema::new("id", columns.map(|(name, ty)| Column::new(name, ty)).to_vec());
    let lens = Lens::new()
        .cache_source(MemoryCache::default())
        .settings(|settings| settings.ring.events = events)
        .build()
        .unwrap();
    lens.make_dio(MemoryTable::vista("products", schema, [])).await.unwrap()
}

/// Scope of all rows of `dio`, as the handlers of a gateway use it.
pub(crate) fn scope_of(dio: Dio) -> Scope {
    scope_with(dio, MountOptions::default())
}

/// Scope of all rows of `dio`, with options.
pub(super) fn scope_with(dio: Dio, options: MountOptions) -> Scope {
    scope_within(&Arc::new(Resource::new(dio, options)), Filter::default())
}

/// Scope of the rows of `resource` that pass `filter`, for all verbs.
#[expect(clippy::needless_pass_by_value, reason = "tests build the filter in place")]
pub(crate) fn scope_within(resource: &Arc<Resource>, filter: Filter) -> Scope {
    let grant = Arc::new(Grant::within(&resource.schema, &filter));
    let view = Arc::clone(grant.view(Verb::Read));
    Scope::new(Arc::clone(resource), Principal::anonymous(), grant, view)
}

/// Scope of [`small_dio`].
pub(super) async fn mounted() -> Scope {
    scope_of(small_dio().await)
}

/// Subscription of a query string.
pub(super) fn subscription(scope: &Scope, query: &str) -> Subscription {
    request::parse(query, &scope.schema).unwrap().0
}

pub(crate) fn record(name: &str, price: i64) -> Record {
    Record::from_iter([("name".to_string(), name.into()), ("price".to_string(), price.into())])
}
