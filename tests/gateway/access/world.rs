//! A gateway with access rules, in process, and callers of it.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request};
use axum::middleware::{Next, from_fn};
use diorama::connect::MemoryTable;
use diorama::gateway::access::{Allow, Identity, Principal, Verb, Verbs};
use diorama::gateway::notify::{Notification, Posted, Receiver};
use diorama::gateway::webhook::Hook;
use diorama::gateway::{Gateway, MountOptions};
use diorama::inbound::signature::Signer;
use diorama::inbound::{self, Key, Scheme};
use diorama::vista::Reference;
use diorama::{CborValue, Column, ColumnType, Dio, Lens, Record, Schema};
use futures_util::StreamExt as _;
use tower::ServiceExt as _;

use crate::harness::{Answer, cells, memory, seeding};

/// Part of everything that only some callers may see. Answers to the others never contain it.
pub(super) const SECRET: &str = "SECRET";
/// Header with the name of a caller of [`CALLERS`].
const CALLER: &str = "x-test-role";
/// Token of the sender of webhooks.
pub(super) const SENDER: &str = "hunter2-hunter2-hunter2";
/// Columns that the usual rules show.
pub(super) const COLUMNS: [&str; 3] = ["owner", "status", "total"];

/// Returns the identity of a caller: `NAME` or `NAME@OWNER`, whose role is `NAME`, and whose claim `owner` is `OWNER` (`ann` by
/// default). Equal names give the same identity.
pub(super) fn identity(caller: &str) -> Arc<Identity> {
    static KNOWN: LazyLock<Mutex<HashMap<String, Arc<Identity>>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap();
    let identity = known.entry(caller.to_string()).or_insert_with(|| {
        let (role, owner) = caller.split_once('@').unwrap_or((caller, "ann"));
        Arc::new(Identity {
            name: format!("key:{caller}").into(),
            role: role.into(),
            claims: CborValue::Map(vec![("owner".into(), owner.into())]),
            verbs: Verbs::ALL,
            unrestricted: role == "root",
            expires: None,
        })
    });
    Arc::clone(identity)
}

async fn authenticate(mut request: Request<Body>, next: Next) -> axum::response::Response {
    let caller = request.headers().get(CALLER).map(|caller| caller.to_str().unwrap().to_string());
    if let Some(caller) = caller {
        request.extensions_mut().insert(Principal::from(identity(&caller)));
    }
    next.run(request).await
}

/// A receiver of notifications that takes everything.
#[derive(Debug)]
struct Accepting;

impl Receiver for Accepting {
    fn url(&self) -> &'static str {
        "http://receiver/"
    }

    fn post(&self, _: Vec<(&'static str, String)>, _: Bytes) -> Pin<Box<dyn Future<Output = Posted> + Send + '_>> {
        Box::pin(std::future::ready(Posted::Answered { status: 204, retry_after: None, body: String::new() }))
    }
}

/// A rule for `role` on the resource `dio`.
pub(crate) fn allow(role: &str, dio: &str, can: &[Verb], filter: &str, columns: Option<&[&str]>) -> Allow {
    let columns = columns.map(|names| names.iter().map(ToString::to_string).collect());
    let can = can.iter().copied().collect();
    Allow { role: role.into(), dio: dio.into(), can, filter: filter.into(), check: None, columns }
}

/// The usual rules: callers own the rows with their name, and see three of five columns.
pub(super) fn rules() -> Vec<Allow> {
    use Verb::*;
    const OWN: &str = "owner=eq.{claims.owner}";
    let own = |role: &str, can: &[Verb]| allow(role, "orders", can, OWN, Some(&COLUMNS));
    vec![
        own("reader", &[Read]),
        own("member", &[Read, Events, Insert, Update, Delete]),
        own("writer", &[Insert, Update, Delete]),
        own("follower", &[Events]),
        allow("operator", "orders", &[Operations, Refresh], "", None),
        allow("hooks", "orders", &[Webhooks], "", None),
        allow("boss", "*", &[Admin], "", None),
        allow("keeper", "vault", &[Read], "", None),
    ]
}

/// Columns of both resources.
pub(super) fn schema() -> Schema {
    let columns = [
        ("id", ColumnType::String),
        ("owner", ColumnType::String),
        ("status", ColumnType::String),
        ("total", ColumnType::Integer),
        ("secret", ColumnType::String),
        ("meta_SECRET", ColumnType::Json),
    ];
    Schema::new("id", columns.map(|(name, ty)| Column::new(name, ty)).to_vec())
}

/// A row of `schema`.
pub(super) fn row(id: &str, owner: &str, status: &str, total: i64) -> (String, Record) {
    let secret = format!("{SECRET}-column-{id}");
    let row = [
        ("id", id.into()),
        ("owner", owner.into()),
        ("status", status.into()),
        ("total", total.into()),
        ("secret", secret.into()),
    ];
    (id.to_string(), cells(row))
}

/// Name, schema and rows of a table.
pub(crate) type Table<'a> = (&'a str, Schema, Vec<(String, Record)>);

/// A gateway with `orders` and `vault`, or with other tables.
pub(crate) struct World {
    pub(super) router: Router,
    pub(crate) orders: Dio,
    _lens: Arc<Lens>,
}

impl World {
    /// Rows "mine" of ann and "theirs" of bob, with the usual rules.
    pub(super) async fn usual() -> World {
        World::with(&rules(), MountOptions::default()).await
    }

    pub(super) async fn with(rules: &[Allow], options: MountOptions) -> World {
        let rows = [row("mine", "ann", "open", 10), row("theirs", "bob", &format!("{SECRET}-status"), 20)];
        World::of(rows.to_vec(), rules, options).await
    }

    /// The rows `rows` of `orders`.
    pub(super) async fn of(rows: Vec<(String, Record)>, rules: &[Allow], options: MountOptions) -> World {
        World::made(schema(), rows, rules, options).await
    }

    /// The rows `rows` of `orders`, which has another schema.
    pub(super) async fn over(schema: Schema, rows: Vec<(String, Record)>, rules: &[Allow]) -> World {
        World::made(schema, rows, rules, MountOptions::default()).await
    }

    async fn made(orders: Schema, rows: Vec<(String, Record)>, rules: &[Allow], options: MountOptions) -> World {
        let lens = Arc::new(seeding(memory()).build().unwrap());
        let orders = lens.make_dio(MemoryTable::vista("orders", orders, rows)).await.unwrap();
        let safe = [row(&format!("{SECRET}-id"), "carl", "open", 30)];
        let vault = lens.make_dio(MemoryTable::vista("vault", schema(), safe)).await.unwrap();
        let hook = |name: &str, dio: &str| {
            let scheme = Scheme::Bearer(vec![Key::plain(SENDER).unwrap()]);
            let inbound = inbound::Hook::new(scheme).delivery_header(Some("x-delivery".parse().unwrap()));
            Hook::new(name, dio, inbound)
        };
        let mut gateway = Gateway::new().try_mount(orders.clone(), options.clone()).unwrap();
        gateway = gateway.try_mount(vault, options).unwrap();
        if orders.schema().references().is_empty() && orders.schema().column("owner").is_some() {
            let more =
                Reference { relation: "more".into(), target: "orders".into(), column: "owner".into(), many: true };
            gateway = gateway.try_relate("orders", more).unwrap();
        }
        let gateway = gateway.try_hook(hook("shop", "orders")).unwrap().try_hook(hook("safe", "vault")).unwrap();
        let notify = |name: &str, dio: &str| {
            let signer = Signer::new(["whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="]).unwrap();
            Notification::new(name, dio, Arc::new(Accepting), signer)
        };
        let gateway =
            gateway.try_notify(notify("shop", "orders")).unwrap().try_notify(notify("safe", "vault")).unwrap();
        let router = gateway.try_allow(rules).unwrap().into_router().layer(from_fn(authenticate));
        World { router, orders, _lens: lens }
    }

    /// Tables with relations; the first is [`World::orders`].
    pub(crate) async fn of_tables(tables: Vec<Table<'_>>, relations: &[(&str, Reference)], rules: &[Allow]) -> World {
        let lens = Arc::new(seeding(memory()).build().unwrap());
        let (mut gateway, mut first) = (Gateway::new(), None);
        for (name, schema, rows) in tables {
            let dio = lens.make_dio(MemoryTable::vista(name, schema, rows)).await.unwrap();
            first.get_or_insert(dio.clone());
            gateway = gateway.mount(dio);
        }
        for (dio, relation) in relations {
            gateway = gateway.try_relate(dio, relation.clone()).unwrap();
        }
        let router = gateway.try_allow(rules).unwrap().into_router().layer(from_fn(authenticate));
        World { router, orders: first.unwrap(), _lens: lens }
    }

    /// Waits until a notification has delivered something about the orders, and returns the delivery's id.
    pub(super) async fn notice(&self) -> String {
        let listed = async {
            loop {
                let listed = self.get("root", "/_notify/shop/deliveries?state=delivered").await.json();
                if let Some(id) = listed[0]["id"].as_str() {
                    return id.to_string();
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), listed).await.expect("a delivery")
    }

    /// Answer to a request of `caller`; an empty name is an anonymous one. Of a stream, the first 300 ms are read.
    pub(crate) async fn send(
        &self,
        caller: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "127.0.0.1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !caller.is_empty() {
            request = request.header(CALLER, caller);
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let mut pieces = body.into_data_stream();
        let mut bytes = Vec::new();
        let streams = head.headers.get("content-type").is_some_and(|media| media == "text/event-stream");
        let patience = if streams { Duration::from_millis(300) } else { Duration::from_secs(10) };
        while let Ok(Some(piece)) = tokio::time::timeout(patience, pieces.next()).await {
            let piece: Bytes = piece.unwrap();
            bytes.extend_from_slice(&piece);
        }
        Answer { status: head.status.as_u16(), headers: texts(&head.headers), body: bytes }
    }

    pub(crate) async fn get(&self, caller: &str, path: &str) -> Answer {
        self.send(caller, "GET", path, &[], "").await
    }

    pub(super) async fn json(&self, caller: &str, method: &str, path: &str, body: &str) -> Answer {
        self.send(caller, method, path, &[("content-type", "application/json")], body.to_string()).await
    }
}

fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_string())).collect()
}

/// Status and code of an answer, and nothing that differs between requests.
pub(super) fn told(answer: &Answer) -> String {
    let body = String::from_utf8_lossy(&answer.body).to_string();
    let id = answer.header("x-request-id");
    let kept = |(name, _): &&(String, String)| {
        !matches!(name.as_str(), "x-request-id" | "date" | "age" | "dio-position" | "content-length")
    };
    let headers: Vec<_> = answer.headers.iter().filter(kept).collect();
    format!("{} {headers:?} {}", answer.status, body.replace(id, "ID"))
}

/// Fails if the answer contains anything secret.
pub(super) fn assert_discreet(answer: &Answer, what: &str) {
    let text = format!("{:?} {}", answer.headers, String::from_utf8_lossy(&answer.body));
    assert!(!text.contains(SECRET), "{what}: {text}");
}
