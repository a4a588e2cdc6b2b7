//! [`Catalog`]: the part of a gateway that one caller may use, which a document describes.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::Mutex;
use utoipa::openapi::path::PathItem;

use super::document::Document;
use crate::access::{Policy, Principal, Verb, Verbs};
use crate::http::extract::segments;
use crate::http::route::Route;
use crate::state::{GatewayState, Resource};
use crate::webhook::Hook;

/// Maximum number of pairs of documents that are kept.
const MOST_KEPT: usize = 64;

/// Part of a gateway that one caller may use.
pub(super) struct Catalog {
    /// Resources with the columns that the caller knows.
    pub(super) dios: IndexMap<Arc<str>, Arc<Resource>>,
    pub(super) hooks: Vec<Arc<Hook>>,
    /// Permissions by resource.
    verbs: HashMap<Arc<str>, Verbs>,
    /// Permissions for the whole server.
    everywhere: Verbs,
}

/// Rights that a document depends on: verbs and columns of each resource, and verbs for the whole server.
type Key = (Vec<(Verbs, Vec<Arc<str>>)>, Verbs);

/// OpenAPI and AsyncAPI documents by the rights that they show, of which a bounded number is kept.
#[derive(Debug, Default)]
pub(crate) struct Documents(Mutex<HashMap<Key, (Document, Document)>>);

impl Documents {
    /// Returns the documents for `principal`, which are built by `build` unless they are known.
    pub(super) fn of(
        &self,
        gateway: &GatewayState,
        principal: &Principal,
        build: impl FnOnce(&Catalog) -> (Document, Document),
    ) -> (Document, Document) {
        let policy = gateway.policy.load();
        let known = gateway.dios.iter().map(|(name, resource)| {
            let grant = policy.grant(name, &resource.schema, principal);
            let schema = grant.schema(&resource.schema);
            (grant.verbs(), schema.columns().iter().map(|column| Arc::clone(&column.name)).collect())
        });
        let everywhere = Verb::ALL.into_iter().filter(|verb| policy.permits_everywhere(*verb, principal)).collect();
        let key: Key = (known.collect(), everywhere);
        if let Some(kept) = self.0.lock().get(&key) {
            return kept.clone();
        }
        let documents = build(&Catalog::of(gateway, &policy, principal, everywhere));
        let mut kept = self.0.lock();
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.insert(key, documents.clone());
        documents
    }
}

impl Catalog {
    /// Returns the catalog of everything.
    pub(super) fn whole(gateway: &GatewayState) -> Catalog {
        Catalog {
            dios: gateway.dios.clone(),
            hooks: gateway.hooks.values().cloned().collect(),
            verbs: gateway.dios.keys().map(|name| (Arc::clone(name), Verbs::ALL)).collect(),
            everywhere: Verbs::ALL,
        }
    }

    fn of(gateway: &GatewayState, policy: &Policy, principal: &Principal, everywhere: Verbs) -> Catalog {
        let (mut dios, mut verbs) = (IndexMap::new(), HashMap::new());
        for (name, resource) in &gateway.dios {
            let grant = policy.grant(name, &resource.schema, principal);
            if grant.verbs().is_empty() {
                continue;
            }
            let mut shown = Resource::new(resource.dio.clone(), resource.options.clone());
            shown.schema = grant.schema(&resource.schema);
            dios.insert(Arc::clone(name), Arc::new(shown));
            verbs.insert(Arc::clone(name), grant.verbs());
        }
        let reports = |hook: &&Arc<Hook>| verbs.get(hook.dio.as_str()).is_some_and(|verbs| verbs.has(Verb::Webhooks));
        let hooks = gateway.hooks.values().filter(reports).cloned().collect();
        Catalog { dios, hooks, verbs, everywhere }
    }

    /// Returns true if the caller may send requests with `method` to `path`.
    pub(super) fn permits(&self, path: &str, method: &str) -> bool {
        let route = Route::of(path);
        let anywhere = |verb| self.verbs.values().any(|verbs| verbs.has(verb));
        let own = || self.verbs.get(segments(path).0).copied().unwrap_or_default();
        match route {
            Route::ManyEvents => anywhere(Verb::Events),
            Route::Retry | Route::RetryMany => anywhere(Verb::Operations),
            Route::Operation if method != "GET" => anywhere(Verb::Operations),
            Route::Backup | Route::Metrics => self.everywhere.has(Verb::Admin),
            Route::LiveRows => own().has(Verb::Read) && own().has(Verb::Events),
            route if route.is_of_dio() => route.verb(method).is_none_or(|verb| own().has(verb)),
            _ => true,
        }
    }

    /// Removes the operations of `path` that the caller may not use; returns false if none is left.
    pub(super) fn narrow(&self, path: &str, item: &mut PathItem) -> bool {
        for (method, operation) in [
            ("GET", &mut item.get),
            ("HEAD", &mut item.head),
            ("POST", &mut item.post),
            ("PUT", &mut item.put),
            ("PATCH", &mut item.patch),
            ("DELETE", &mut item.delete),
            ("OPTIONS", &mut item.options),
        ] {
            if !self.permits(path, method) {
                *operation = None;
            }
        }
        let left = [&item.get, &item.head, &item.post, &item.put, &item.patch, &item.delete, &item.options];
        left.into_iter().any(Option::is_some)
    }
}
