//! Tests of events and live queries under access rules.

use std::sync::Arc;

use serde_json::{Value, json};

use super::cursor::EventCursor;
use super::frame::Encoding;
use super::live::LiveCursor;
use super::request::{self, LiveSubscription};
use super::testing::{dio_with_ring, record, small_dio, subscription};
use super::view::ViewKind;
use crate::MountOptions;
use crate::access::{Allow, Identity, Policy, Principal, Verb, Verbs};
use crate::http::bounds::Bounds;
use crate::scope::Scope;
use crate::state::Resource;
use diorama_core::dio::{CursorRead, Dio, RingItem, RowBefore};
use diorama_core::record::{CborValue, Record};
use diorama_core::state::{Frame, OpError};

/// Rules of a resource, with callers whose claim is `name`.
pub(super) struct Rules {
    resource: Arc<Resource>,
    pub(super) policy: Policy,
}

impl Rules {
    /// Rules by which members see rows of their name and all columns, and clerks all rows without the price.
    pub(super) fn new(dio: &Dio) -> Rules {
        let resource = Arc::new(Resource::new(dio.clone(), MountOptions::default()));
        let can = [Verb::Read, Verb::Events].into_iter().collect();
        let rule = |role: &str, filter: &str| Allow {
            role: role.into(),
            dio: "*".into(),
            can,
            filter: filter.into(),
            check: None,
            columns: None,
        };
        let operator = [Verb::Read, Verb::Events, Verb::Operations].into_iter().collect();
        let name = vec!["name".to_string()];
        let rules = [
            rule("member", "name=eq.{claims.name}"),
            Allow { columns: Some(name), ..rule("clerk", "") },
            Allow { can: operator, ..rule("operator", "name=eq.{claims.name}") },
        ];
        let name = Arc::from("products");
        let policy = Policy::new(&rules, [(&name, &resource.schema)]).unwrap();
        Rules { resource, policy }
    }

    fn principal(role: &str, name: &str) -> Principal {
        let claims = CborValue::Map(vec![("name".into(), name.into())]);
        let (name, role, verbs) = (format!("key:{name}").into(), role.into(), Verbs::ALL);
        Principal::from(Arc::new(Identity { name, role, claims, verbs, unrestricted: false, expires: None }))
    }

    /// Scope of the events of a caller.
    pub(super) fn events(&self, role: &str, name: &str) -> Scope {
        let principal = Rules::principal(role, name);
        let grant = self.policy.grant("products", &self.resource.schema, &principal);
        let view = Arc::clone(grant.view(Verb::Events));
        Scope::new(Arc::clone(&self.resource), principal, grant, view)
    }
}

async fn open(scope: &Scope, query: &str) -> EventCursor {
    let subscription = subscription(scope, query);
    EventCursor::open(scope, subscription, Encoding::Json, 25, &Bounds::default()).await.unwrap()
}

/// Opens a cursor and reads its greeting.
async fn follow(scope: &Scope, query: &str) -> EventCursor {
    let mut cursor = open(scope, query).await;
    read(&mut cursor).await;
    cursor
}

/// Reads frames until the cursor is not ready.
async fn read(cursor: &mut EventCursor) -> Vec<Value> {
    let mut frames = Vec::new();
    while cursor.is_ready() {
        let sent = cursor.batch().await.unwrap();
        frames.extend(sent.iter().map(|sent| serde_json::from_slice::<Value>(&sent.frame).unwrap()));
    }
    frames
}

fn types(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect()
}

fn newest(dio: &Dio) -> Arc<RingItem> {
    match dio.ring().at(dio.ring().end() - 1) {
        CursorRead::Item(item) => item,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_row_that_changes_owner_leaves_one_scope_and_enters_the_other() {
    let dio = small_dio().await;
    let rules = Rules::new(&dio);
    let mut ada = follow(&rules.events("member", "ada"), "").await;
    let mut bob = follow(&rules.events("member", "bob"), "").await;
    let mut carl = follow(&rules.events("member", "carl"), "").await;
    let mut one = follow(&rules.events("member", "carl"), "ids=1").await;
    dio.patched("1", record("ada", 5)).await.unwrap();
    dio.patched("1", record("bob", 5)).await.unwrap();
    let (ada, bob) = (read(&mut ada).await, read(&mut bob).await);
    assert_eq!(types(&ada), ["RecordInserted", "RecordRemoved"]);
    assert_eq!((&ada[1]["left"], &ada[1]["record"]), (&json!(true), &Value::Null));
    assert_eq!(types(&bob), ["RecordInserted"]);
    assert_eq!((&bob[0]["entered"], &bob[0]["record"]["name"]), (&json!(true), &json!("bob")));
    assert!(read(&mut carl).await.is_empty() && read(&mut one).await.is_empty());
}

#[tokio::test]
async fn a_snapshot_and_past_events_have_rows_of_the_scope_only() {
    let dio = dio_with_ring(100).await;
    let rules = Rules::new(&dio);
    let since = dio.position();
    for (id, name) in [("1", "ada"), ("2", "bob"), ("3", "ada")] {
        dio.patched(id, record(name, 5)).await.unwrap();
    }
    let scope = rules.events("member", "ada");
    let frames = read(&mut open(&scope, "snapshot=full").await).await;
    assert_eq!(types(&frames), ["hello", "snapshot_begin", "rows", "snapshot_end"]);
    assert_eq!((frames[1].get("count"), frames[2]["rows"].as_array().unwrap().len()), (None, 2));
    let frames = read(&mut open(&scope, &format!("since={since}")).await).await;
    let ids: Vec<_> = frames[1..].iter().map(|frame| frame["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["1", "3"]);
}

#[tokio::test]
async fn changes_of_hidden_columns_are_not_sent_and_hidden_columns_are_in_no_frame() {
    let dio = small_dio().await;
    let rules = Rules::new(&dio);
    let scope = rules.events("clerk", "cleo");
    dio.patched("1", record("a", 1)).await.unwrap();
    let mut cursor = open(&scope, "snapshot=full").await;
    assert_eq!(read(&mut cursor).await[2]["rows"], json!([["1", {"id": "1", "name": "a"}]]));
    dio.patched("1", record("a", 7_654)).await.unwrap();
    assert!(read(&mut cursor).await.is_empty(), "only the price has changed");
    dio.patched("1", record("b", 7_655)).await.unwrap();
    let frames = read(&mut cursor).await;
    assert_eq!((&frames[0]["changed"], &frames[0]["record"]), (&json!(["name"]), &json!({"id": "1", "name": "b"})));
    let etag = frames[0]["etag"].clone();
    dio.patched("1", record("c", 1)).await.unwrap();
    dio.patched("1", record("b", 2)).await.unwrap();
    assert_eq!(read(&mut cursor).await[1]["etag"], etag, "the version is that of the visible part");
    let (query, bounds) = (Default::default(), Bounds::default());
    let view =
        scope.views.get(&scope.rows, &query, (true, Encoding::Json, ViewKind::Evaluated), &bounds).await.unwrap();
    let newest = view.newest("1", 9, newest(&dio).new.as_ref());
    let newest: Value = serde_json::from_slice(&newest.frame).unwrap();
    assert_eq!((&newest["record"], &newest["etag"]), (&json!({"id": "1", "name": "b"}), &etag));
}

/// An event of the log with another frame, by `writer`.
fn told(item: &RingItem, frame: Frame, writer: &str) -> RingItem {
    let mut entry = item.entry.clone().unwrap();
    entry.frame = frame;
    entry.cause.principal = Some(writer.into());
    let (seq, event, new) = (item.seq, item.event.clone(), item.new.clone());
    RingItem { seq, event, entry: Some(entry), old: RowBefore::Unknown, new, slot: None, frame: Default::default() }
}

#[tokio::test]
async fn failures_and_commits_of_hidden_rows_reach_their_writer_and_callers_with_operations_only() {
    let dio = small_dio().await;
    let rules = Rules::new(&dio);
    let callers = [("member", "ada"), ("member", "bob"), ("operator", "olga"), ("clerk", "cleo")];
    let mut cursors = Vec::new();
    for (role, name) in callers {
        cursors.push(follow(&rules.events(role, name), "").await);
    }
    dio.patched("1", record("ada", 5)).await.unwrap();
    let item = newest(&dio);
    let failed = Frame::WriteFailed(OpError { code: "refused".into(), detail: "price 5 is too low".into() });
    let told = |frame: &Frame, writer: &str| -> Vec<Option<Value>> {
        let item = told(&item, frame.clone(), writer);
        let frame = |cursor: &EventCursor| Some(serde_json::from_slice(&cursor.event_of(&item, None)?.frame).unwrap());
        cursors.iter().map(frame).collect()
    };
    let who = |frames: &[Option<Value>]| frames.iter().map(Option::is_some).collect::<Vec<_>>();
    // The row is one of Ada's. Operators see the failures of all.
    assert_eq!(who(&told(&failed, "key:bob")), [false, true, true, false]);
    assert_eq!(who(&told(&failed, "key:ada")), [true, false, true, false]);
    assert_eq!(told(&failed, "key:ada")[0].as_ref().unwrap()["error"]["detail"], "price 5 is too low");
    let own = told(&failed, "key:cleo");
    assert_eq!(own[3].as_ref().unwrap()["error"]["detail"], "the source refused the write", "it may quote a price");
    assert_eq!(who(&told(&Frame::WriteCommitted, "key:bob")), [true, true, true, false]);
    assert_eq!(who(&told(&Frame::WriteCommitted, "key:cleo")), [true, false, true, true]);
}

#[tokio::test]
async fn an_erased_row_resets_readers_of_some_rows_and_is_removed_for_readers_of_all() {
    let dio = small_dio().await;
    let rules = Rules::new(&dio);
    dio.patched("1", record("ada", 5)).await.unwrap();
    dio.patched("2", record("bob", 5)).await.unwrap();
    let mut ada = follow(&rules.events("member", "ada"), "").await;
    let mut clerk = follow(&rules.events("clerk", "cleo"), "").await;
    for _ in 0..4 {
        dio.purge(["2"]).await.unwrap();
        let frames = read(&mut ada).await;
        assert_eq!((types(&frames), &frames[0]["reason"]), (vec!["reset"], &json!("trimmed")));
        assert!(!frames[0].to_string().contains("\"2\""));
        let frames = read(&mut clerk).await;
        assert!(frames.iter().any(|frame| frame["type"] == "RecordRemoved" && frame["id"] == "2"), "{frames:?}");
        dio.patched("2", record("bob", 5)).await.unwrap();
        assert!(read(&mut ada).await.is_empty());
        read(&mut clerk).await;
    }
}

#[tokio::test]
async fn an_event_without_the_former_row_resets_readers_of_some_rows_or_columns() {
    let dio = small_dio().await;
    let rules = Rules::new(&dio);
    let mut cursors = Vec::new();
    for role in ["member", "clerk"] {
        cursors.push(follow(&rules.events(role, "ada"), "").await);
    }
    dio.patched("1", record("ada", 5)).await.unwrap();
    let item = told(&newest(&dio), Frame::Changed, "key:x");
    assert!(cursors.iter().all(|cursor| cursor.lacks_prior_row(&item)));
    let all = crate::events::testing::scope_of(dio.clone());
    assert!(!follow(&all, "").await.lacks_prior_row(&item));
    let foreign = told(&newest(&dio), Frame::Changed, "key:x");
    let bob = follow(&rules.events("member", "bob"), "").await;
    assert!(bob.event_of(&foreign, None).is_none(), "its id is never sent");
}

#[tokio::test]
async fn an_invalidated_row_outside_of_the_scope_is_not_sent() {
    let dio = small_dio().await;
    let rules = Rules::new(&dio);
    dio.patched("1", record("ada", 5)).await.unwrap();
    let mut ada = follow(&rules.events("member", "ada"), "").await;
    let mut bob = follow(&rules.events("member", "bob"), "").await;
    let mut head = dio.ring().watch();
    head.borrow_and_update();
    dio.invalidate_record("1");
    head.changed().await.unwrap();
    assert_eq!(types(&read(&mut ada).await), ["RecordChanged"]);
    assert!(read(&mut bob).await.is_empty());
}

#[tokio::test]
async fn a_hidden_column_is_refused_as_one_that_does_not_exist() {
    let dio = small_dio().await;
    let scope = Rules::new(&dio).events("clerk", "cleo");
    let refusal = |query: String| {
        let error = request::parse(&query, &scope.schema).unwrap_err();
        (error.code(), error.detail().to_string(), error.tip().map(str::to_string))
    };
    for query in ["COLUMN=gte.5", "select=COLUMN", "select=x:COLUMN", "not.COLUMN=eq.5", "COLUMN->a=eq.1"] {
        let (code, detail, hint) = refusal(query.replace("COLUMN", "price"));
        let absent = refusal(query.replace("COLUMN", "prixe"));
        assert_eq!((code, detail.replace("price", "prixe"), hint), absent, "{query}");
    }
    let frame = |column: &str| vec![("where".into(), CborValue::Map(vec![(column.into(), 5.into())]))];
    let refusal = |column: &str| {
        let error = request::Subscription::from_frame(&frame(column), &scope.schema).unwrap_err();
        error.detail().replace(column, "COLUMN")
    };
    assert_eq!(refusal("price"), refusal("prixe"));
    let live = |query: &str| LiveSubscription::parse(query, &scope.schema, &scope.options).is_err();
    assert!(live("order=price") && live("price=gte.5") && !live("order=name"));
}

#[tokio::test]
async fn a_live_list_and_live_groups_have_the_rows_and_columns_of_the_scope() {
    let dio = small_dio().await;
    let rules = Rules::new(&dio);
    for (id, name, price) in [("1", "ada", 5), ("2", "bob", 6), ("3", "ada", 777)] {
        dio.patched(id, record(name, price)).await.unwrap();
    }
    let rows = async |role: &str, query: &str| -> Vec<Value> {
        let scope = rules.events(role, "ada");
        let request = match query.starts_with("aggregate") {
            true => {
                LiveSubscription::parse_groups(&format!("live=true&{}", &query[10..]), &scope.schema, &scope.options)
                    .unwrap()
                    .unwrap()
            }
            false => LiveSubscription::parse(query, &scope.schema, &scope.options).unwrap(),
        };
        let mut cursor = LiveCursor::open(&scope, request.0, Encoding::Json, 25, &Bounds::default()).await.unwrap();
        let mut rows = Vec::new();
        while cursor.is_ready() {
            let sent = cursor.batch().unwrap();
            let frames = sent.iter().map(|sent| serde_json::from_slice::<Value>(&sent.frame).unwrap());
            rows.extend(frames.flat_map(|frame| frame["rows"].as_array().cloned().unwrap_or_default()));
        }
        rows.into_iter().map(|row| row[1].clone()).collect()
    };
    let names = |rows: &[Value]| rows.iter().map(|row| row["id"].as_str().unwrap().to_string()).collect::<Vec<_>>();
    assert_eq!(names(&rows("member", "order=id").await), ["1", "3"]);
    let shown = rows("clerk", "order=id").await;
    assert_eq!((names(&shown).len(), &shown[2]), (3, &json!({"id": "3", "name": "ada"})));
    assert_eq!(names(&rows("member", "q=777").await), ["3"]);
    assert!(rows("clerk", "q=777").await.is_empty(), "hidden columns are not searched");
    assert_eq!(rows("member", "aggregate:select=count()").await, [json!({"count": 2})]);
    assert_eq!(rows("clerk", "aggregate:select=count()").await, [json!({"count": 3})]);
    assert_eq!(rows("clerk", "aggregate:select=count()&q=777").await, [json!({"count": 0})]);
}

#[tokio::test]
async fn a_live_list_does_not_change_with_hidden_columns() {
    let dio = small_dio().await;
    dio.patched("1", record("ada", 5)).await.unwrap();
    let scope = Rules::new(&dio).events("clerk", "cleo");
    let request = LiveSubscription::parse("order=id", &scope.schema, &scope.options).unwrap().0;
    let mut cursor = LiveCursor::open(&scope, request, Encoding::Json, 25, &Bounds::default()).await.unwrap();
    while cursor.is_ready() {
        cursor.batch().unwrap();
    }
    dio.patched("1", record("ada", 6)).await.unwrap();
    dio.patched("1", Record::from_iter([("name".to_string(), "eve".into()), ("price".to_string(), 9.into())]))
        .await
        .unwrap();
    cursor.ready().await;
    let sent = cursor.batch().unwrap();
    let frame: Value = serde_json::from_slice(&sent[0].frame).unwrap();
    assert_eq!((sent.len(), &frame["record"]), (1, &json!({"id": "1", "name": "eve"})));
}
