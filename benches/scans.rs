//! Scans without an index: aggregations, patterns and the first rows in an order, beside SQLite and DuckDB over the same rows.
//!
//! `cargo bench --bench scans`; `-- --rows 1000000` for one size. DuckDB is asked by `benches/scans.py` with the Python of `$PYTHON` or
//! `python3`, and skipped without its package. All figures are CPU time of one query. Nothing is asserted but equal answers.

mod products;

use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use diorama::cache::MemoryCache;
use diorama::connect::MemoryTable;
use diorama::record::Body;
use diorama::{Dio, Filter, Lens, OrderTerm, Query, Record, Rows, Schema};
use diorama_core::vista::query::{AggregateItem, Aggregation, CompiledQuery, Groups, Meter, Test};

use crate::products::{id, record, schema};

/// A scan: what the others are asked, and what Diorama is.
struct Case {
    name: &'static str,
    sql: &'static str,
    ours: Ours,
}

enum Ours {
    /// Items of an aggregation, its filter, and the order and number of groups shown.
    Groups(&'static [&'static str], Option<(&'static str, Test)>, Option<(&'static str, u64)>),
    /// Column to sort by, from high to low, and the number of rows.
    First(&'static str, u64),
    /// Column and test of the rows that are counted.
    Count(&'static str, Test),
}

fn cases() -> Vec<Case> {
    let dear = || Test::Gt(5_000.into());
    let case = |name, sql, ours| Case { name, sql, ours };
    let totals = &["count()", "sum(price)", "avg(stock)", "min(price)", "max(price)"][..];
    let groups = &["category_id", "count()", "sum(price)", "avg(price)"][..];
    vec![
        case(
            "whole table",
            "SELECT count(*), sum(price), avg(stock), min(price), max(price) FROM products",
            Ours::Groups(totals, None, None),
        ),
        case(
            "group by category",
            "SELECT category_id, count(*), sum(price), avg(price) FROM products GROUP BY 1",
            Ours::Groups(groups, None, None),
        ),
        case(
            "filter and group",
            "SELECT category_id, count(*), sum(price), avg(price) FROM products WHERE price > 5000 GROUP BY 1",
            Ours::Groups(groups, Some(("price", dear())), None),
        ),
        case(
            "top prices",
            "SELECT price, count(*) AS n FROM products GROUP BY 1 ORDER BY n DESC, price LIMIT 10",
            Ours::Groups(&["price", "count()"], None, Some(("count", 10))),
        ),
        case("dearest rows", "SELECT id FROM products ORDER BY price DESC, id DESC LIMIT 10", Ours::First("price", 10)),
        case(
            "like",
            "SELECT count(*) FROM products WHERE name GLOB '*number 99*'",
            Ours::Count("name", Test::like("*number 99*").expect("a pattern")),
        ),
        case(
            "regex",
            "SELECT count(*) FROM products WHERE regexp_matches(name, 'number [0-9]*99 of')",
            Ours::Count("name", Test::matches("number [0-9]*99 of").expect("a pattern")),
        ),
    ]
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let rows = arguments.iter().position(|word| word == "--rows").and_then(|at| arguments.get(at + 1));
    let sizes = match rows.and_then(|rows| rows.parse().ok()) {
        Some(rows) => vec![rows],
        None => vec![10_000, 100_000, 1_000_000],
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    sizes.into_iter().for_each(|rows| runtime.block_on(scans(rows)));
}

async fn scans(rows: usize) {
    let dio = open(rows).await;
    let sqlite = sqlite(rows);
    let duckdb = duckdb(rows);
    println!(
        "\n{rows} rows: milliseconds of CPU, the first time, again, and after a change of one row; ratios to the others"
    );
    for (at, case) in cases().into_iter().enumerate() {
        let started = cpu();
        let answer = ask(&dio, &case.ours).await;
        let first = cpu() - started;
        let again = repeated(async || {
            ask(&dio, &case.ours).await;
        })
        .await;
        let mut changed = 0.0;
        for change in 0..5 {
            dio.patched(id(change * 7), record(change * 7)).await.expect("a change");
            let mut other = record(change * 7 + 1);
            other.insert("stock", (change as u64).into());
            dio.patched(id(change * 7 + 1), other).await.expect("a change");
            let started = cpu();
            ask(&dio, &case.ours).await;
            changed += (cpu() - started) / 5.0;
        }
        let peer = sqlite_time(&sqlite, case.sql, answer).await;
        let duck = duckdb.as_ref().and_then(|times| times.get(at).copied());
        let shown = |peer: Option<f64>| match peer {
            Some(seconds) => format!("{:9.2} ({:6.2}x)", seconds * 1e3, again / seconds),
            None => format!("{:>19}", "SKIPPED"),
        };
        println!(
            "  {:<20} {:9.2} {:9.2} {:9.2}   SQLite {}   DuckDB {}",
            case.name,
            first * 1e3,
            again * 1e3,
            changed * 1e3,
            shown(peer),
            shown(duck),
        );
    }
    println!("  columns and groups: {} bytes a row", dio.state().table().columns().bytes() / rows);
}

/// A Dio of so many rows in memory that builds no indexes.
async fn open(rows: usize) -> Dio {
    let schema = schema();
    let mut list = Rows::with_layout(Arc::clone(schema.layout()));
    for at in 0..rows {
        list.push_body(&id(at), &Body::encode(&id(at), &record(at), schema.layout()));
    }
    let lens = Lens::new().cache_source(MemoryCache::new()).settings(|settings| settings.max_indexes = 0);
    let lens = lens.on_start(|dio| {
        let dio = dio.clone();
        async move {
            let rows = dio.master().list_values().await?;
            dio.cache().insert_values(rows).await.map(drop)
        }
    });
    lens.build().expect("a Lens").make_dio(MemoryTable::vista("products", schema, list)).await.expect("a Dio")
}

/// Asks for a scan. Returns the number of rows, groups or matches of the answer.
async fn ask(dio: &Dio, what: &Ours) -> u64 {
    let schema: Arc<Schema> = Arc::new(schema());
    let meter = Arc::new(Meter::unbounded());
    match what {
        Ours::Groups(items, filter, page) => {
            let items: Vec<_> = items.iter().map(|item| AggregateItem::parse(item).expect("an item")).collect();
            let aggregation = Arc::new(Aggregation::new(&items, &schema).expect("an aggregation"));
            let page = page.map(|(column, limit)| page_of(&aggregation.schema(), column, limit));
            let cut = move |groups: Groups<'_>, meter: &Meter| match page {
                None => groups.collect::<Result<Vec<Record>, _>>().map(|groups| groups.len()),
                Some((prepared, limit)) => groups.page(&prepared, 0, Some(limit), meter).map(|page| page.groups.len()),
            };
            let filter = filter.as_ref().map(|(column, test)| Filter::test(*column, test.clone())).unwrap_or_default();
            let query = Query { filter, ..Query::default() };
            dio.aggregate(dio.state(), &query, &aggregation, &schema, &meter, cut).await.expect("groups") as u64
        }
        Ours::First(column, limit) => {
            let query = Query { order: vec![OrderTerm::new(*column, true)], limit: Some(*limit), ..Query::default() };
            let (selection, _) = dio.select(&dio.state(), &query, &schema, &meter).await.expect("rows");
            selection.slots.len() as u64
        }
        Ours::Count(column, test) => {
            let query = Query { filter: Filter::test(*column, test.clone()), limit: Some(0), ..Query::default() };
            let (selection, _) = dio.select(&dio.state(), &query, &schema, &meter).await.expect("a count");
            selection.total
        }
    }
}

fn page_of(schema: &Schema, column: &str, limit: u64) -> (CompiledQuery, u64) {
    (Query { order: vec![OrderTerm::new(column, true)], ..Query::default() }.prepare(schema), limit)
}

/// CPU time of one run, of as many as take half a second.
async fn repeated(mut run: impl AsyncFnMut()) -> f64 {
    let (started, began, mut times) = (cpu(), Instant::now(), 0.0);
    while times < 3.0 || began.elapsed().as_secs_f64() < 0.5 {
        run().await;
        times += 1.0;
    }
    (cpu() - started) / times
}

/// CPU time of this process in seconds.
fn cpu() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let time = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    time.sum::<f64>() / 1e9
}

/// The same rows in SQLite, in memory.
fn sqlite(rows: usize) -> rusqlite::Connection {
    let database = rusqlite::Connection::open_in_memory().expect("a database");
    database
        .execute_batch(
            "CREATE TABLE products (id TEXT PRIMARY KEY, name TEXT, category_id INTEGER, price INTEGER, stock INTEGER, description TEXT);
             BEGIN",
        )
        .expect("a table");
    {
        let mut insert = database.prepare("INSERT INTO products VALUES (?, ?, ?, ?, ?, ?)").expect("a statement");
        for at in 0..rows {
            let record = record(at);
            let text = |name: &str| record[name].as_text().unwrap_or_default().to_string();
            let number = |name: &str| record[name].as_integer().and_then(|number| i64::try_from(number).ok());
            let cells = (
                text("id"),
                text("name"),
                number("category_id"),
                number("price"),
                number("stock"),
                text("description"),
            );
            insert.execute(cells).expect("a row");
        }
    }
    database.execute_batch("COMMIT").expect("a commit");
    database
}

/// CPU time of a query of SQLite, `None` if it lacks the function. Its answer is compared with ours.
async fn sqlite_time(database: &rusqlite::Connection, sql: &str, answer: u64) -> Option<f64> {
    let mut statement = database.prepare(sql).ok()?;
    let mut ask = || {
        let (mut rows, mut count, mut first) = (statement.query([]).expect("rows"), 0_u64, 0_i64);
        while let Some(row) = rows.next().expect("a row") {
            count += 1;
            first = row.get(0).unwrap_or(0);
        }
        if sql.starts_with("SELECT count(*) FROM") { first.cast_unsigned() } else { count }
    };
    assert_eq!(ask(), answer, "{sql}");
    let time = repeated(async || {
        ask();
    });
    Some(time.await)
}

/// CPU times of DuckDB with one thread, in the order of the cases; `None` without it.
fn duckdb(rows: usize) -> Option<Vec<f64>> {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_string());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/scans.py");
    let cases = cases();
    let output =
        Command::new(python).arg(script).arg(rows.to_string()).args(cases.iter().map(|case| case.sql)).output();
    let output = output.ok().filter(|output| output.status.success())?;
    String::from_utf8_lossy(&output.stdout).lines().map(|line| line.parse().ok()).collect()
}
