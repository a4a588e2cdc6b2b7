//! What the core costs, without HTTP: reads from memory, commits, loads, bytes per row.
//!
//! `cargo bench --bench core` prints one table; `-- --rows 100000` for another size. Nothing is asserted: figures depend on the
//! machine, and `benches/README.md` says what was measured where.

#![expect(clippy::disallowed_methods, reason = "the writers are joined where they are spawned")]

mod products;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diorama::connect::MemoryTable;
use diorama::record::{Body, Layout};
use diorama::vista::query::Test;
use diorama::{CborValue, Dio, Filter, Lens, OrderTerm, Query, Record, Rows, Vista};
use diorama_core::plan::select;
use diorama_core::state::{Entry, FormerRow};
use diorama_core::table::{Index, ORDINAL_STEP, Spec, Table, TableBuilder};

use crate::products::{id, record, schema};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let rows = arguments.iter().position(|word| word == "--rows").and_then(|at| arguments.get(at + 1));
    let rows: usize = rows.and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if let Some(folder) = arguments.iter().position(|word| word == "--warm").and_then(|at| arguments.get(at + 1)) {
        return runtime.block_on(warm(Path::new(folder)));
    }
    for rows in [rows / 100, rows] {
        println!("\n{rows} rows of about 250 B JSON");
        reads(rows);
        runtime.block_on(files(rows));
    }
    runtime.block_on(commits());
    runtime.block_on(entries());
}

fn line(what: &str, value: impl std::fmt::Display) {
    println!("  {what:<46} {value}");
}

fn per(times: usize, took: Duration) -> String {
    format!("{:>9.2} us", took.as_secs_f64() * 1e6 / times as f64)
}

fn bodies(rows: usize, layout: &Layout) -> impl Iterator<Item = (String, Body)> {
    (0..rows).map(move |at| {
        let record = record(at);
        let id = id(at);
        let body = Body::encode(&id, &record, layout);
        (id, body)
    })
}

/// Resident bytes of this process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn reads(rows: usize) {
    let schema = schema();
    let before = resident();
    let mut builder = TableBuilder::new();
    let (mut json, started) = (0, Instant::now());
    for (at, (id, body)) in bodies(rows, schema.layout()).enumerate() {
        json += body.json().len();
        builder.push(&id, &body, (at as u64 + 1) * ORDINAL_STEP);
    }
    let mut table = builder.finish();
    line("encode and build", format!("{:>9.0} rows/s", rows as f64 / started.elapsed().as_secs_f64()));
    let grown = resident().saturating_sub(before);
    line("resident / JSON bytes", format!("{:>9.2} x  ({} B JSON a row)", grown as f64 / json as f64, json / rows));
    line("estimate / JSON bytes", format!("{:>9.2} x", table.bytes() as f64 / json as f64));

    let times = 200_000;
    let ids: Vec<String> = (0..times).map(|at| id(at * 7919 % rows)).collect();
    let started = Instant::now();
    for id in &ids {
        black_box(table.get(id).map(|row| row.json().len()));
    }
    line("get by id", per(times, started.elapsed()));

    let (times, mut out) = (50_000, Vec::with_capacity(64 << 10));
    let started = Instant::now();
    for at in 0..times {
        out.clear();
        black_box(table.natural_page_into(at * 7919 % rows.saturating_sub(50).max(1), 50, &mut out));
    }
    line("page of 50, natural order, any offset", per(times, started.elapsed()));

    let times = 20_000;
    let body = Body::encode("p00000001", &record(1), schema.layout());
    let started = Instant::now();
    for at in 0..times {
        let mut next = table.clone();
        next.upsert(&ids[at % ids.len()], &body, None);
        table = next;
    }
    line("change one row of a clone", per(times, started.elapsed()));
    indexes(table, &body, &ids, json);
}

/// The indexes of a shop: two for equality, two orders, one of them within a category.
fn indexes(mut table: Table, body: &Body, ids: &[String], json: usize) {
    let (schema, rows) = (schema(), table.len());
    let before = resident();
    for text in ["category_id", "stock", "price.asc", "category_id,price.asc"] {
        let started = Instant::now();
        let index = Index::build(Spec::parse(text, &schema).expect("an index"), &table, &schema);
        let bytes = index.bytes() as f64 / rows as f64;
        table.attach(index, &table.clone());
        let took = started.elapsed().as_secs_f64();
        line(&format!("index {text}"), format!("{bytes:>9.1} B/row  built in {took:.2} s"));
    }
    let grown = resident().saturating_sub(before);
    line("resident, four indexes / JSON bytes", format!("{:>9.2} x", grown as f64 / json as f64));
    let order = |descending| vec![OrderTerm::new("price", descending)];
    let equal = |at: usize| Filter::eq("category_id", CborValue::from((at % 50) as u64));
    let page = |at: usize| Query { limit: Some(50), offset: (at * 7919 % (rows / 50)) as u64, ..Query::default() };
    let among =
        |at: usize| Filter::test("category_id", Test::In((at % 40..at % 40 + 3).map(|n| (n as u64).into()).collect()));
    let cases: [(&str, &dyn Fn(usize) -> Query); 5] = [
        ("page of 50, another order, any offset", &|at| Query { order: order(at % 2 == 0), ..page(at) }),
        ("page of 50, equal", &|at| Query { filter: equal(at), ..page(at) }),
        ("page of 50, equal and sorted", &|at| Query { filter: equal(at), order: order(true), ..page(at) }),
        ("first 50, in, sorted", &|at| Query { filter: among(at), order: order(false), offset: 0, ..page(at) }),
        ("count, equal", &|at| Query { filter: equal(at), limit: Some(0), ..Query::default() }),
    ];
    for (what, query) in cases {
        let queries: Vec<Query> = (0..1_000).map(query).collect();
        let (times, mut out, mut examined) = (20_000, Vec::with_capacity(64 << 10), 0);
        let started = Instant::now();
        for at in 0..times {
            out.clear();
            let selection = select(&table, &queries[at % queries.len()], &schema).expect("a page");
            table.rows_into(&selection.slots, &mut out);
            examined = selection.examined.max(examined);
            black_box(&out);
        }
        line(what, format!("{}  {examined} rows", per(times, started.elapsed())));
    }
    let times = 5_000;
    let started = Instant::now();
    for at in 0..times {
        let mut next = table.clone();
        next.upsert(&ids[at % ids.len()], body, None);
        table = next;
    }
    line("change one row of a clone, four indexes", per(times, started.elapsed()));
}

async fn open(folder: &Path, master: Vista) -> (Lens, Dio) {
    let lens = Lens::new()
        .cache_at(folder.join("cache.redb"))
        .on_start(|dio| {
            let dio = dio.clone();
            async move {
                let rows = dio.master().list_values().await?;
                dio.cache().insert_values(rows).await?;
                Ok(())
            }
        })
        // As the gateway has it; else writers would wait for the master.
        .write_queue_capacity(100_000)
        .build()
        .expect("a Lens");
    let dio = lens.make_dio(master).await.expect("a Dio");
    (lens, dio)
}

/// Cold: the master is listed and stored. Warm: the file is loaded and nothing is listed.
async fn files(rows: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let schema = schema();
    let mut list = Rows::with_layout(Arc::clone(schema.layout()));
    let mut json = 0;
    for (id, body) in bodies(rows, schema.layout()) {
        json += body.json().len();
        list.push_body(&id, &body);
    }
    let master = MemoryTable::vista("products", schema.clone(), list);
    let started = Instant::now();
    let (lens, dio) = open(folder.path(), master.clone()).await;
    line("cold start: list, seed, store", format!("{:>9.2} s", started.elapsed().as_secs_f64()));
    dio.close().await;
    lens.close().await;
    drop((dio, lens, master));
    // A process of its own: what was freed here would be reused there.
    let child = std::process::Command::new(std::env::current_exe().expect("a path"))
        .arg("--warm")
        .arg(folder.path())
        .output()
        .expect("a child");
    let text = String::from_utf8_lossy(&child.stdout);
    let mut words = text.split_whitespace().map(|word| word.parse::<f64>().unwrap_or(f64::NAN));
    let (seconds, bytes, count) = (words.next(), words.next(), words.next());
    line("warm start: load and be ready", format!("{:>9.2} s", seconds.unwrap_or(f64::NAN)));
    line("resident after that / JSON bytes", format!("{:>9.2} x", bytes.unwrap_or(f64::NAN) / json as f64));
    assert_eq!(count, Some(rows as f64), "every row is back: {text}");
}

/// Opens what [`files`] left, and says how long it took, what is resident then, and how many rows there are.
async fn warm(folder: &Path) {
    let started = Instant::now();
    let lens = Lens::new().cache_at(folder.join("cache.redb")).build().expect("a Lens");
    let dio = lens.make_dio(MemoryTable::vista("products", schema(), Rows::new())).await.expect("a Dio");
    println!("{} {} {}", started.elapsed().as_secs_f64(), resident(), dio.status().rows);
    dio.close().await;
    lens.close().await;
}

/// Acknowledged durable writes: alone, and sharing commits.
async fn commits() {
    println!("\ndurable writes (redb journal, two-phase commit)");
    for writers in [1usize, 16, 64, 256] {
        let folder = tempfile::tempdir().expect("a folder");
        let master = MemoryTable::vista("products", schema(), Rows::new());
        let (lens, dio) = open(folder.path(), master).await;
        let each = (4_000 / writers).max(20);
        let started = Instant::now();
        let tasks: Vec<_> = (0..writers)
            .map(|writer| {
                let facade = dio.vista();
                tokio::task::spawn(async move {
                    let mut slowest = Duration::ZERO;
                    for at in 0..each {
                        let number = writer * each + at;
                        let started = Instant::now();
                        facade.insert(&id(number), &record(number)).await.expect("an insert");
                        slowest = slowest.max(started.elapsed());
                    }
                    slowest
                })
            })
            .collect();
        let mut slowest = Duration::ZERO;
        for task in tasks {
            slowest = slowest.max(task.await.expect("a writer"));
        }
        let took = started.elapsed();
        let rate = (writers * each) as f64 / took.as_secs_f64();
        line(
            &format!("{writers} writers"),
            format!("{rate:>9.0} writes/s, slowest {:.1} ms", slowest.as_secs_f64() * 1e3),
        );
        dio.close().await;
        lens.close().await;
    }
}

/// What the log holds of each kind of write, and how much of that is the row before it.
async fn entries() {
    println!("\nbytes of the log for one write to a row of about 250 B JSON, its settlement among them");
    let folder = tempfile::tempdir().expect("a folder");
    let (lens, dio) = open(folder.path(), MemoryTable::vista("products", schema(), Rows::new())).await;
    let facade = dio.vista();
    let mut after = 0;
    for what in ["insert", "patch of one column", "replace of three columns", "delete"] {
        for at in 0..100 {
            let mut row = record(at);
            match what {
                "insert" => facade.insert(&id(at), &row).await,
                "patch of one column" => {
                    facade.patch_value(&id(at), &Record::from_iter([("price".to_string(), 7.into())])).await
                }
                "replace of three columns" => {
                    ["price", "stock", "category_id"].iter().for_each(|column| drop(row.insert(*column, 1.into())));
                    facade.replace_value(&id(at), &row).await
                }
                _ => facade.delete(&id(at)).await,
            }
            .expect("a write");
        }
        while dio.status().queued > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let journal = lens.journal().await.expect("the journal");
        let log = journal.read("products", after, usize::MAX).await.expect("the log");
        after = log.last().map_or(after, |entry| entry.seq);
        let all: usize = log.iter().map(|entry| entry.bytes.len()).sum();
        let without = |bytes: &[u8]| {
            let mut entry = Entry::decode(bytes).expect("an entry");
            entry.former_row = FormerRow::Unknown;
            entry.encode().len()
        };
        let bare: usize = log.iter().map(|entry| without(&entry.bytes)).sum();
        line(what, format!("{:>6} B, {} B of them the row before", all / 100, (all - bare) / 100));
    }
    drop((facade, dio));
    lens.close().await;
}
