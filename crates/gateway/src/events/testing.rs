//! What the tests of this folder share.

use std::sync::Arc;

use super::request::{self, Subscription};
use crate::MountOptions;
use crate::http::auth::Principal;
use crate::scope::Scope;
use crate::state::Resource;
use diorama_connect::MemoryTable;
use diorama_core::cache::MemoryCache;
use diorama_core::{Column, ColumnType, Dio, Filter, Lens, Record, Schema};

/// A Dio in memory with nothing in it and a ring of eight events.
pub(crate) async fn small_dio() -> Dio {
    dio_with_ring(8).await
}

/// A Dio in memory with nothing in it and a ring of so many events.
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

/// All of `dio`, as the handlers of a gateway see it.
pub(crate) fn scope_of(dio: Dio) -> Scope {
    scope_with(dio, MountOptions::default())
}

/// [`scope_of`] with bounds of its own.
pub(super) fn scope_with(dio: Dio, options: MountOptions) -> Scope {
    let resource = Arc::new(Resource::new(dio, options));
    Scope::new(resource, Principal::Anybody, Filter::default())
}

/// [`small_dio`] as a resource.
pub(super) async fn mounted() -> Scope {
    scope_of(small_dio().await)
}

/// What a query string asks for.
pub(super) fn subscription(scope: &Scope, query: &str) -> Subscription {
    request::parse(query, &scope.schema).unwrap().0
}

pub(crate) fn record(name: &str, price: i64) -> Record {
    Record::from_iter([("name".to_string(), name.into()), ("price".to_string(), price.into())])
}
