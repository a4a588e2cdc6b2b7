//! Answers under rules are those of a gateway without rules over the visible rows and columns; writes follow a model of a few lines.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use diorama::gateway::access::{Allow, Verb};
use diorama::{CborValue, Column, ColumnType, Record, Schema};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::world::{World, allow};
use crate::harness::Answer;

/// Time after which no further case is tried.
const TIME: Duration = Duration::from_secs(8);
/// Number of cases that are tried however long they take.
const LEAST: u32 = 24;
const NAMES: [&str; 6] = ["id", "owner", "status", "total", "secret", "meta"];

#[derive(Clone, Debug, PartialEq)]
struct Row {
    owner: Option<&'static str>,
    status: Option<&'static str>,
    total: Option<i64>,
    secret: Option<&'static str>,
    n: i64,
}

impl Row {
    fn record(&self, id: &str, shown: &[&str]) -> Record {
        let text = |value: Option<&'static str>| value.map_or(CborValue::Null, CborValue::from);
        let cells = [
            ("id", id.into()),
            ("owner", text(self.owner)),
            ("status", text(self.status)),
            ("total", self.total.map_or(CborValue::Null, CborValue::from)),
            ("secret", text(self.secret)),
            ("meta", CborValue::Map(vec![("n".into(), self.n.into())])),
        ];
        cells
            .into_iter()
            .filter(|(name, _)| shown.contains(name))
            .map(|(name, value)| (name.to_string(), value))
            .collect()
    }
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let owner = prop::sample::select(vec![Some("ann"), Some("ann"), Some("bob"), None]);
    let status = prop::sample::select(vec![Some("open"), Some("closed"), Some("s1"), None]);
    let secret = prop::sample::select(vec![Some("s1"), Some("s2"), Some("open"), None]);
    let row = (owner, status, prop::option::weighted(0.9, 0..4_i64), secret, 0..3_i64)
        .prop_map(|(owner, status, total, secret, n)| Row { owner, status, total, secret, n });
    prop::collection::vec(row, 0..12)
}

fn schema(shown: &[&str]) -> Schema {
    let columns = [
        ("id", ColumnType::String),
        ("owner", ColumnType::String),
        ("status", ColumnType::String),
        ("total", ColumnType::Integer),
        ("secret", ColumnType::String),
        ("meta", ColumnType::Json),
    ];
    let columns = columns.into_iter().filter(|(name, _)| shown.contains(name));
    Schema::new("id", columns.map(|(name, ty)| Column::new(name, ty)).collect())
}

/// Conditions of rules, and what they mean for ann.
type Condition = (&'static str, fn(&Row) -> bool);
const CONDITIONS: [Condition; 9] = [
    ("", |_| true),
    ("owner=eq.{claims.owner}", |row| row.owner == Some("ann")),
    ("total=gte.2", |row| row.total.is_some_and(|total| total >= 2)),
    ("status=neq.closed", |row| row.status.is_some_and(|status| status != "closed")),
    ("secret=eq.s1", |row| row.secret == Some("s1")),
    ("owner=eq.{claims.none}", |_| false),
    ("or=(owner.eq.{claims.owner},total.eq.0)", |row| row.owner == Some("ann") || row.total == Some(0)),
    ("meta->n=eq.1", |row| row.n == 1),
    ("secret=eq.s1&total=lt.3", |row| row.secret == Some("s1") && row.total.is_some_and(|total| total < 3)),
];

fn condition() -> impl Strategy<Value = Condition> {
    prop::sample::select(CONDITIONS.to_vec())
}

fn columns() -> impl Strategy<Value = Option<Vec<&'static str>>> {
    prop::option::weighted(0.7, prop::sample::subsequence(NAMES[1..].to_vec(), 1..=4))
}

fn shown(columns: Option<&Vec<&'static str>>) -> Vec<&'static str> {
    let listed = |name: &&&str| **name == "id" || columns.is_none_or(|columns| columns.contains(*name));
    NAMES.iter().filter(listed).copied().collect()
}

/// Requests for rows: a path and, for a query in the body, a body.
fn request() -> impl Strategy<Value = (String, Option<String>)> {
    let filter = prop::sample::select(vec![
        "owner=eq.ann",
        "owner=bob",
        "status=in.(open,closed)",
        "total=gte.1",
        "total=is.null",
        "secret=eq.s1",
        "secret=not.eq.s1",
        "status=like.*o*",
        "or=(owner.eq.ann,secret.eq.s2)",
        "meta->n=eq.1",
        "q=s1",
        "q=open",
        "q=ann",
        "id=gt.r3",
        "total=lt.2",
        "secret=is.null",
        "total=isdistinct.1",
    ]);
    let order = prop::sample::select(vec![
        "",
        "order=total",
        "order=total.desc",
        "order=owner,total.desc",
        "order=secret",
        "order=id.desc",
        "order=meta->n,id",
    ]);
    let select = prop::sample::select(vec![
        "",
        "",
        "select=id,total",
        "select=*",
        "select=secret",
        "select=x:owner,*",
        "select=meta->n",
    ]);
    let page = prop::sample::select(vec!["", "limit=3", "limit=2&offset=1", "limit=0", "offset=4", "limit=3&after="]);
    let list = (prop::collection::vec(filter.clone(), 0..3), order, select, page).prop_map(
        |(filters, order, select, page)| {
            let parts = [filters.join("&"), order.into(), select.into(), page.into()];
            let parts: Vec<_> = parts.into_iter().filter(|part: &String| !part.is_empty()).collect();
            (format!("/orders?{}", parts.join("&").replace('>', "%3E")), None)
        },
    );
    let groups = prop::sample::select(vec![
        "count()",
        "owner,count()",
        "max(total),avg(total),sum(total)",
        "secret,count()",
        "min(secret)",
        "status,max(total)&order=status",
        "owner,status,count()&order=count.desc&limit=2",
        "meta->n,count()",
        "count(total),count(secret)",
    ]);
    let aggregate = (groups, prop::collection::vec(filter, 0..2)).prop_map(|(select, filters)| {
        let filters: String = filters.iter().map(|filter| format!("&{filter}")).collect();
        (format!("/orders/_aggregate?select={select}{filters}").replace('>', "%3E"), None)
    });
    let body = prop::sample::select(vec![
        json!({}),
        json!({"where": {"total": {"gte": 1}}, "order": ["owner"], "limit": 2}),
        json!({"where": {"or": [{"secret": {"eq": "s1"}}, {"owner": {"eq": "ann"}}]}}),
        json!({"select": ["id", "secret"]}),
        json!({"select": ["total"], "order": ["total.desc", "id"], "offset": 1}),
        json!({"q": "s1"}),
        json!({"order": ["id"], "limit": 2, "after": ""}),
    ]);
    let query = body.prop_map(|body| ("/orders/_query".to_string(), Some(body.to_string())));
    let one = (0..12_usize, prop::sample::select(vec!["", "?select=id,owner", "?select=secret", "?select=*"]))
        .prop_map(|(row, select)| (format!("/orders/r{row}{select}"), None));
    prop_oneof![6 => list, 2 => aggregate, 1 => query, 1 => one]
}

fn ids(rows: &[Row]) -> impl Iterator<Item = (String, &Row)> {
    rows.iter().enumerate().map(|(at, row)| (format!("r{at}"), row))
}

/// An answer without what differs between two gateways: positions, tags of lists, cursors, ids of requests. Null members count as
/// missing ones.
fn plain(answer: &Answer) -> (u16, Vec<String>, Value, String) {
    let kept = ["content-range", "x-total-count", "link", "content-type"];
    let headers = kept.map(|name| {
        let mut parts = answer.header(name).split("after=");
        let first = parts.next().unwrap_or_default().to_string();
        parts.fold(first, |all, part| all + "after=" + part.trim_start_matches(|c| c != '>'))
    });
    let media = answer.header("content-type");
    let value = match media {
        "application/cbor" => {
            let value: CborValue = ciborium::from_reader(&answer.body[..]).unwrap();
            serde_json::from_slice(&diorama::record::value_to_json(&value)).unwrap()
        }
        "application/x-ndjson" => {
            let lines = answer.text().lines();
            Value::Array(lines.map(|line| serde_json::from_str(line).unwrap()).collect())
        }
        "application/json" | "application/problem+json" => answer.json(),
        _ => return (answer.status, headers.into(), Value::Null, answer.text().to_string()),
    };
    (answer.status, headers.into(), without_nulls(value), String::new())
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        Value::Object(members) => {
            let members = members.into_iter().filter(|(name, value)| !value.is_null() && name != "request_id");
            Value::Object(members.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        other => other,
    }
}

/// Runs `test` on cases of `strategy` until the time is over.
fn cases<S: Strategy>(strategy: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let (begun, tried) = (Instant::now(), std::cell::Cell::new(0));
    // A few cases at a time, because the generation of cases that are not tried takes time too.
    while begun.elapsed() < TIME || tried.get() < LEAST {
        let mut runner = TestRunner::new(Config { cases: 8, failure_persistence: None, ..Config::default() });
        let result = runner.run(strategy, |case| {
            tried.set(tried.get() + 1);
            test(case)
        });
        result.unwrap_or_else(|error| panic!("after {} cases: {error}", tried.get()));
    }
    println!("{} cases", tried.get());
}

#[test]
fn an_answer_under_rules_is_that_of_a_gateway_over_the_visible_rows_and_columns() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rules = (prop::collection::vec(condition(), 1..3), columns());
    let formats =
        prop::sample::select(vec!["application/json", "text/csv", "application/x-ndjson", "application/cbor"]);
    let asked = prop::collection::vec((request(), formats), 12);
    cases(&(rows(), rules, asked), |(rows, (conditions, columns), asked)| {
        let shown = shown(columns.as_ref());
        let rule = |(role, condition): (&str, &Condition)| {
            allow(role, "orders", &[Verb::Read], condition.0, columns.as_deref())
        };
        // The second rule is for everyone with a credential.
        let policy: Vec<Allow> = ["member", "*"].into_iter().zip(&conditions).map(rule).collect();
        let all = ids(&rows).map(|(id, row)| (id.clone(), row.record(&id, &NAMES))).collect();
        let sees = |row: &Row| conditions.iter().any(|(_, holds)| holds(row));
        let visible = ids(&rows).filter(|(_, row)| sees(row)).map(|(id, row)| (id.clone(), row.record(&id, &shown)));
        let visible: Vec<_> = visible.collect();
        runtime.block_on(async {
            let ruled = World::over(schema(&NAMES), all, &policy).await;
            let free = World::over(schema(&shown), visible, &[]).await;
            for ((path, body), format) in &asked {
                let mut path = path.clone();
                // Pages are followed to their end.
                for _ in 0..8 {
                    let headers = [("accept", *format), ("content-type", "application/json")];
                    let method = if body.is_some() { "POST" } else { "GET" };
                    let body = body.clone().unwrap_or_default();
                    let one = ruled.send("member", method, &path, &headers, body.clone()).await;
                    let other = free.send("", method, &path, &headers, body).await;
                    prop_assert_eq!(plain(&one), plain(&other), "{} {} {:?} {:?}", method, path, policy, format);
                    let next = |answer: &Answer| {
                        let link = answer.header("link").rsplit_once("after=")?.1.split_once('>')?.0.to_string();
                        (!link.is_empty()).then_some(link)
                    };
                    match (path.split_once("after="), next(&one), next(&other)) {
                        (Some((before, _)), Some(cursor), Some(_)) if method == "GET" => {
                            path = format!("{before}after={cursor}");
                            // The cursor of the other gateway is another one, and its page is the same.
                            if !path.contains("order=") {
                                break;
                            }
                        }
                        _ => break,
                    }
                }
            }
            Ok(())
        })
    });
}

/// A write, and the id that it is about.
#[derive(Clone, Debug)]
enum Write {
    Insert(usize, Change),
    Put(usize, Change),
    Patch(usize, Change),
    Delete(usize),
    PatchAll(i64, Change),
    DeleteAll(i64),
    Bulk(usize, Change),
}

/// Cells that a write sets, by column. `None` is null.
#[derive(Clone, Debug)]
struct Change {
    owner: Option<Option<&'static str>>,
    status: Option<Option<&'static str>>,
    total: Option<Option<i64>>,
    secret: Option<Option<&'static str>>,
}

impl Change {
    fn columns(&self) -> Vec<&'static str> {
        let set = [self.owner.is_some(), self.status.is_some(), self.total.is_some(), self.secret.is_some()];
        ["owner", "status", "total", "secret"]
            .into_iter()
            .zip(set)
            .filter(|(_, set)| *set)
            .map(|(name, _)| name)
            .collect()
    }

    fn body(&self) -> Value {
        let mut body = serde_json::Map::new();
        let mut put = |name: &str, value: Option<Value>| drop(value.map(|value| body.insert(name.into(), value)));
        put("owner", self.owner.map(|value| json!(value)));
        put("status", self.status.map(|value| json!(value)));
        put("total", self.total.map(|value| json!(value)));
        put("secret", self.secret.map(|value| json!(value)));
        Value::Object(body)
    }

    fn on(&self, row: &Row) -> Row {
        Row {
            owner: self.owner.unwrap_or(row.owner),
            status: self.status.unwrap_or(row.status),
            total: self.total.unwrap_or(row.total),
            secret: self.secret.unwrap_or(row.secret),
            n: row.n,
        }
    }
}

const NOTHING: Row = Row { owner: None, status: None, total: None, secret: None, n: -1 };

fn change() -> impl Strategy<Value = Change> {
    let owner = prop::option::weighted(0.6, prop::sample::select(vec![Some("ann"), Some("bob"), None]));
    let status = prop::option::weighted(0.5, prop::sample::select(vec![Some("open"), Some("closed")]));
    let total = prop::option::weighted(0.5, prop::option::of(0..4_i64));
    let secret = prop::option::weighted(0.2, prop::sample::select(vec![Some("s1"), Some("s2")]));
    (owner, status, total, secret).prop_map(|(owner, status, total, secret)| Change { owner, status, total, secret })
}

fn write() -> impl Strategy<Value = Write> {
    let id = || 0..14_usize;
    prop_oneof![
        3 => (id(), change()).prop_map(|(id, change)| Write::Insert(id, change)),
        3 => (id(), change()).prop_map(|(id, change)| Write::Put(id, change)),
        4 => (id(), change()).prop_map(|(id, change)| Write::Patch(id, change)),
        2 => id().prop_map(Write::Delete),
        1 => (0..4_i64, change()).prop_map(|(total, change)| Write::PatchAll(total, change)),
        1 => (0..4_i64).prop_map(Write::DeleteAll),
        1 => (id(), change()).prop_map(|(id, change)| Write::Bulk(id, change)),
    ]
}

/// What a caller may do: conditions by verb, and the columns that it knows.
struct Model {
    reads: Condition,
    inserts: Condition,
    updates: Condition,
    checks: Condition,
    deletes: Condition,
    shown: Vec<&'static str>,
    rows: BTreeMap<usize, Row>,
}

/// Expected statuses of a write, and the row after it.
type Expected = (&'static [u16], Option<Row>);

impl Model {
    fn sees(&self, id: usize) -> Option<&Row> {
        self.rows.get(&id).filter(|row| (self.reads.1)(row))
    }

    /// The new row that a body makes. Columns that it leaves out get the values that a condition fixes.
    fn made(change: &Change, conditions: &[Condition]) -> Row {
        let fixes = |column: &str| conditions.iter().any(|(text, _)| text.split('&').any(|part| part == column));
        let mut row = change.on(&NOTHING);
        if change.owner.is_none() && fixes("owner=eq.{claims.owner}") {
            row.owner = Some("ann");
        }
        if change.secret.is_none() && fixes("secret=eq.s1") {
            row.secret = Some("s1");
        }
        row
    }

    fn may_write(&self, change: &Change) -> bool {
        change.columns().iter().all(|column| self.shown.contains(column))
    }

    /// The row `old` with the columns of `new` that the caller knows.
    fn replaced(&self, old: &Row, new: &Row) -> Row {
        let knows = |column: &str| self.shown.contains(&column);
        Row {
            owner: if knows("owner") { new.owner } else { old.owner },
            status: if knows("status") { new.status } else { old.status },
            total: if knows("total") { new.total } else { old.total },
            secret: if knows("secret") { new.secret } else { old.secret },
            n: if knows("meta") { new.n } else { old.n },
        }
    }

    fn insert(&self, id: usize, change: &Change) -> Expected {
        let (old, row) = (self.rows.get(&id), Model::made(change, &[self.inserts]));
        match (old, self.sees(id)) {
            _ if !self.may_write(change) => (&[403, 422], old.cloned()),
            (Some(old), None) => (&[409], Some(old.clone())),
            // Whether the rule or the conflict is told first does not matter; an equal row is no conflict.
            (Some(old), Some(_)) => (&[403, 409, 200], Some(old.clone())),
            (None, _) if !(self.inserts.1)(&row) => (&[403], None),
            (None, _) => (&[202], Some(row)),
        }
    }

    fn put(&self, id: usize, change: &Change) -> Expected {
        let old = self.rows.get(&id);
        match (old, self.sees(id)) {
            _ if !self.may_write(change) => (&[403, 422], old.cloned()),
            (Some(old), None) => (&[409], Some(old.clone())),
            (Some(old), Some(_)) => {
                let new = self.replaced(old, &Model::made(change, &[self.checks]));
                match (self.updates.1)(old) && (self.checks.1)(&new) {
                    true => (&[202, 200], Some(new)),
                    false => (&[403], Some(old.clone())),
                }
            }
            (None, _) => self.insert(id, change),
        }
    }

    fn patch(&self, id: usize, change: &Change) -> Expected {
        let old = self.rows.get(&id);
        match (old, self.sees(id)) {
            _ if !self.may_write(change) => (&[403, 404, 422], old.cloned()),
            (_, None) => (&[404], old.cloned()),
            (_, Some(seen)) => match (self.updates.1)(seen) && (self.checks.1)(&change.on(seen)) {
                true => (&[202, 200], Some(change.on(seen))),
                false => (&[403], Some(seen.clone())),
            },
        }
    }

    fn delete(&self, id: usize) -> Expected {
        match self.sees(id) {
            None => (&[404], self.rows.get(&id).cloned()),
            Some(seen) if (self.deletes.1)(seen) => (&[202], None),
            Some(seen) => (&[403], Some(seen.clone())),
        }
    }
}

/// The rows as they are stored.
fn stored(world: &World) -> BTreeMap<usize, Row> {
    let text = |value: Option<&CborValue>| -> Option<&'static str> {
        let value = value?.as_text()?;
        ["ann", "bob", "open", "closed", "s1", "s2"].into_iter().find(|known| *known == value)
    };
    let read = |id: usize| {
        let row = world.orders.held_row(&format!("r{id}"))?;
        let n = row.get("meta").and_then(CborValue::as_map).map(|map| &map[0].1);
        let number =
            |value: Option<&CborValue>| value.and_then(CborValue::as_integer).map(|it| i64::try_from(it).unwrap());
        let row = Row {
            owner: text(row.get("owner")),
            status: text(row.get("status")),
            total: number(row.get("total")),
            secret: text(row.get("secret")),
            n: number(n).unwrap_or(-1),
        };
        Some((id, row))
    };
    (0..14).filter_map(read).collect()
}

#[test]
fn rows_after_writes_under_rules_are_those_of_a_model() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rules = ((condition(), condition(), condition(), condition(), condition()), columns());
    let writes = prop::collection::vec(write(), 1..16);
    cases(&(rows(), rules, writes), |(rows, (conditions, columns), writes)| {
        let (reads, inserts, updates, checks, deletes) = conditions;
        let rule = |verb, filter: &str| allow("member", "orders", &[verb], filter, columns.as_deref());
        let update = Allow { check: Some(checks.0.into()), ..rule(Verb::Update, updates.0) };
        let policy = [rule(Verb::Read, reads.0), rule(Verb::Insert, inserts.0), update, rule(Verb::Delete, deletes.0)];
        let all = ids(&rows).map(|(id, row)| (id.clone(), row.record(&id, &NAMES))).collect();
        let shown = shown(columns.as_ref());
        let rows: BTreeMap<usize, Row> = rows.into_iter().enumerate().collect();
        let mut model = Model { reads, inserts, updates, checks, deletes, shown, rows };
        runtime.block_on(async {
            let world = World::over(schema(&NAMES), all, &policy).await;
            for write in &writes {
                follow(&world, &mut model, write).await?;
            }
            Ok(())
        })
    });
}

/// Sends a write, and compares answer and rows with the model.
async fn follow(world: &World, model: &mut Model, write: &Write) -> Result<(), TestCaseError> {
    let send = async |method: &str, path: &str, body: String| world.json("member", method, path, &body).await;
    let row = |id: usize| format!("/orders/r{id}");
    let (id, (statuses, after), answer) = match write {
        Write::Insert(id, change) => {
            (*id, model.insert(*id, change), send("POST", &row(*id), change.body().to_string()).await)
        }
        Write::Put(id, change) => {
            (*id, model.put(*id, change), send("PUT", &row(*id), change.body().to_string()).await)
        }
        Write::Patch(id, change) => {
            (*id, model.patch(*id, change), send("PATCH", &row(*id), change.body().to_string()).await)
        }
        Write::Delete(id) => (*id, model.delete(*id), send("DELETE", &row(*id), String::new()).await),
        Write::Bulk(id, change) => {
            let mut body = change.body();
            body["id"] = json!(format!("r{id}"));
            let media = [("content-type", "application/x-ndjson")];
            let mut answer = world.send("member", "POST", "/orders", &media, format!("{body}\n")).await;
            prop_assert_eq!(answer.status, 200);
            answer.status = u16::try_from(answer.json()["status"].as_u64().unwrap()).unwrap();
            (*id, model.insert(*id, change), answer)
        }
        Write::PatchAll(total, change) => {
            let path = format!("/orders?total=gte.{total}");
            return many(world, model, &send("PATCH", &path, change.body().to_string()).await, *total, Some(change));
        }
        Write::DeleteAll(total) => {
            let path = format!("/orders?total=gte.{total}");
            return many(world, model, &send("DELETE", &path, String::new()).await, *total, None);
        }
    };
    prop_assert!(statuses.contains(&answer.status), "{:?}: {:?} and not {:?}", write, answer, statuses);
    match after {
        Some(row) => drop(model.rows.insert(id, row)),
        None => drop(model.rows.remove(&id)),
    }
    prop_assert_eq!(&stored(world), &model.rows, "after {:?}", write);
    // What the answer shows of the row is what the caller sees.
    if let Ok(Value::Object(body)) = serde_json::from_slice(&answer.body)
        && answer.status < 300
    {
        let hidden: Vec<_> =
            body.keys().filter(|name| !model.shown.contains(&name.as_str()) && *name != "line").collect();
        let is_result = matches!(write, Write::Bulk(..));
        prop_assert!(is_result || hidden.is_empty(), "{:?} shows {:?}", write, hidden);
    }
    Ok(())
}

/// Compares a write by filter with the model. It passes over rows that the caller may not change, and may end at the first row that
/// it may not make.
fn many(
    world: &World,
    model: &mut Model,
    answer: &Answer,
    total: i64,
    change: Option<&Change>,
) -> Result<(), TestCaseError> {
    let known = model.shown.contains(&"total") && change.is_none_or(|change| model.may_write(change));
    let changeable = if change.is_some() { model.updates.1 } else { model.deletes.1 };
    let matching = |row: &Row| known && row.total.is_some_and(|own| own >= total) && changeable(row);
    let targets: Vec<usize> = model.rows.keys().copied().filter(|id| model.sees(*id).is_some_and(matching)).collect();
    let outcomes: Vec<(usize, Expected)> = targets
        .into_iter()
        .map(|id| (id, change.map_or_else(|| model.delete(id), |change| model.patch(id, change))))
        .collect();
    let now = stored(world);
    let permitted = outcomes.iter().all(|(_, (statuses, _))| statuses.contains(&202));
    if known && permitted {
        prop_assert!(answer.status < 300, "{:?}", answer);
        for (id, (_, after)) in &outcomes {
            prop_assert_eq!(now.get(id), after.as_ref());
        }
    } else {
        let refused = [400, 403, 422].contains(&answer.status);
        prop_assert!(refused, "{:?} of {:?} with {:?}: {:?}", change, outcomes, model.shown, answer.text());
    }
    // Every other row is as it was; a row that the caller may not change too.
    for (id, row) in &model.rows {
        let may = outcomes.iter().find(|(own, (statuses, _))| own == id && statuses.contains(&202));
        match may {
            None => prop_assert_eq!(now.get(id), Some(row), "r{}", id),
            Some((_, (_, after))) => prop_assert!(now.get(id) == Some(row) || now.get(id) == after.as_ref()),
        }
    }
    model.rows = now;
    Ok(())
}
