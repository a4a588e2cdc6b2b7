//! A narrowed facade bounds writes: as if the other rows were not there, judged in the order of all writes.

use std::sync::Arc;

use diorama::dio::WriteOptions;
use diorama::vista::query::Test;
use diorama::vista::{Narrowing, WriteBounds};
use diorama::{Dio, Error, Filter, Record, Rows, Vista, WriteOp};
use proptest::prelude::*;

use crate::harness::*;

/// The bakery's tarts and muffins: rows 2, 4, 6 and 7.
fn sweets(dio: &Dio) -> Vista {
    let mut vista = dio.vista();
    vista.add_condition_eq("category_id", 2.into()).unwrap();
    vista
}

#[track_caller]
fn invalid(result: Result<(), Error>, columns: &[&str]) {
    let Err(Error::Invalid { fields, .. }) = result else { panic!("{result:?}") };
    assert_eq!(fields.keys().collect::<Vec<_>>(), columns);
}

#[tokio::test(start_paused = true)]
async fn rows_outside_of_a_narrowed_facade_are_neither_changed_nor_removed_nor_replaced() {
    let (master, dio) = bakery_dio().await;
    let (before, vista) = (dio.vista().list_values().await.unwrap(), sweets(&dio));
    vista.delete("1").await.expect("a row that is not there is fine");
    let patched = vista.patch_value("1", &cells([("price", 1.into())])).await;
    assert!(matches!(patched, Err(Error::NotFound { .. })), "{patched:?}");
    let plain = cells([("name", "Bun".into())]);
    for put in [vista.insert("1", &plain).await, vista.replace_value("1", &plain).await] {
        let Err(Error::Conflict { detail, .. }) = put else { panic!("{put:?}") };
        assert_eq!(detail, "already exists");
    }
    assert_eq!(dio.vista().list_values().await.unwrap(), before);
    assert_eq!(master.arrived(), []);
}

#[tokio::test(start_paused = true)]
async fn what_a_narrowed_facade_writes_is_within_it() {
    let (master, dio) = bakery_dio().await;
    let vista = sweets(&dio);
    let away = cells([("name", "Bun".into()), ("category_id", 9.into())]);
    invalid(vista.insert("8", &away).await, &["category_id"]);
    invalid(vista.replace_value("7", &away).await, &["category_id"]);
    invalid(vista.patch_value("7", &away).await, &["category_id"]);
    invalid(vista.insert_return_id(&away).await.map(drop), &["category_id"]);
    assert_eq!(master.arrived(), []);

    let plain = cells([("name", "Bun".into()), ("price", 5.into())]);
    vista.insert("8", &plain).await.unwrap();
    vista.replace_value("7", &plain).await.unwrap();
    let minted = vista.insert_return_id(&plain).await.unwrap();
    settle(&dio).await;
    for id in ["7", "8", &minted] {
        assert_eq!(master.row(id).await.unwrap()["category_id"], 2.into(), "{id}");
    }
    let mut cheap = vista.clone();
    cheap.add_filter(Filter::test("price", Test::Lt(10.into()))).unwrap();
    invalid(cheap.patch_value("8", &cells([("price", 10.into())])).await, &["price"]);
    invalid(cheap.insert("9", &cells([("name", "Bun".into())])).await, &["price"]);
    cheap.patch_value("8", &cells([("price", 9.into())])).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn emptying_a_narrowed_facade_takes_its_rows_only() {
    let (master, dio) = bakery_dio().await;
    sweets(&dio).delete_all().await.unwrap();
    assert_eq!(ids(&dio.vista().list_values().await.unwrap()), ["1", "3", "5"]);
    settle(&dio).await;
    assert_eq!(ids(&master.rows().await), ["1", "3", "5"]);
    sweets(&dio).shell().write_within(&WriteOp::DeleteAll, dio.vista().query()).await.unwrap();
    assert!(dio.vista().list_values().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_row_by_id_and_words_of_a_search_bound_writes_too() {
    let (_master, dio) = bakery_dio().await;
    let mut one = dio.vista();
    one.with_id("8").unwrap();
    let bun = cells([("name", "Bun".into()), ("price", 1.into())]);
    invalid(one.insert("9", &bun).await, &["id"]);
    assert_eq!(one.insert_return_id(&bun).await.unwrap(), "8");
    let mut words = dio.vista();
    words.add_search("tart").unwrap();
    assert!(matches!(words.patch_value("1", &bun).await, Err(Error::NotFound { .. })));
    invalid(words.patch_value("2", &bun).await, &[]);
    words.patch_value("2", &cells([("price", 1.into())])).await.unwrap();
}

/// Both writes are accepted while the journal is held: the second is judged by what the first made.
#[tokio::test(start_paused = true)]
async fn a_bounded_write_is_judged_after_the_writes_before_it() {
    let journal = Arc::new(GatedJournal::default());
    let lens = memory().journal_source(Arc::clone(&journal) as Arc<dyn diorama::journal::Journal>);
    let (_lens, dio) = open(seeding(lens), &Scripted::bakery()).await;
    journal.gate().close();
    let (all, vista) = (dio.vista(), sweets(&dio));
    let moved = tokio::spawn(async move { all.patch_value("7", &cells([("category_id", 1.into())])).await });
    journal.gate().waited_at(1).await;
    let patched = tokio::spawn(async move { vista.patch_value("7", &cells([("price", 1.into())])).await });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(dio.cache().get_value("7").await.unwrap().unwrap()["category_id"], 2.into(), "nothing is visible yet");
    journal.gate().open();
    moved.await.unwrap().unwrap();
    let patched = patched.await.unwrap();
    assert!(matches!(patched, Err(Error::NotFound { .. })), "{patched:?}");
}

#[tokio::test(start_paused = true)]
async fn a_write_of_the_library_can_be_bounded() {
    let (_master, dio) = bakery_dio().await;
    let within = Arc::new(WriteBounds::from(Narrowing::new(sweets(&dio).query(), &dio.schema())));
    let bounded = || WriteOptions { within: Some(Arc::clone(&within)), ..WriteOptions::default() };
    let delete = |id: &str| dio.write(WriteOp::Delete { id: id.into() }, bounded());
    assert!(matches!(delete("1").await, Err(Error::NotFound { .. })));
    delete("7").await.unwrap();
    assert!(matches!(dio.write(WriteOp::DeleteAll, bounded()).await, Err(Error::Unsupported { .. })));
    assert_eq!(dio.vista().get_count().await.unwrap(), 6);
}

// --- a narrowed facade against a table of those rows only ----------------------------------------------------------------

#[derive(Clone, Debug)]
enum Op {
    Insert(u8, Record),
    Replace(u8, Record),
    Patch(u8, Record),
    Delete(u8),
    DeleteAll,
}

fn record() -> impl Strategy<Value = Record> {
    let cell = proptest::option::of(0i64..3);
    (cell.clone(), prop_oneof![3 => Just(None), 2 => Just(Some(2i64)), 1 => Just(Some(1i64))], cell).prop_map(
        |(price, category, name)| {
            let name = name.map(|name| format!("n{name}").into());
            let cells = [("price", price.map(Into::into)), ("category_id", category.map(Into::into)), ("name", name)];
            cells.into_iter().filter_map(|(column, cell)| Some((column.to_string(), cell?))).collect()
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1u8..10, record()).prop_map(|(id, row)| Op::Insert(id, row)),
        3 => (1u8..10, record()).prop_map(|(id, row)| Op::Replace(id, row)),
        4 => (1u8..10, record()).prop_map(|(id, row)| Op::Patch(id, row)),
        3 => (1u8..10).prop_map(Op::Delete),
        1 => Just(Op::DeleteAll),
    ]
}

async fn carry_out(vista: &Vista, op: &Op) -> Result<(), &'static str> {
    let done = match op {
        Op::Insert(id, row) => vista.insert(&id.to_string(), row).await,
        Op::Replace(id, row) => vista.replace_value(&id.to_string(), row).await,
        Op::Patch(id, row) => vista.patch_value(&id.to_string(), row).await,
        Op::Delete(id) => vista.delete(&id.to_string()).await,
        Op::DeleteAll => vista.delete_all().await,
    };
    done.map_err(|error| match error {
        Error::Conflict { .. } => "conflict",
        Error::NotFound { .. } => "not found",
        Error::Invalid { .. } => "invalid",
        other => panic!("{other}"),
    })
}

/// The same on a table that has only rows of category 2 and could hold no other: its column is fixed.
async fn on_own_table(vista: &Vista, op: &Op) -> Result<(), &'static str> {
    let is_taken = |id: &u8| [1, 3, 5].contains(id);
    let away = |row: &Record| row.get("category_id").is_some_and(|category| *category != 2.into());
    let fixed = |row: &Record| {
        let mut row = row.clone();
        row.insert("category_id", 2.into());
        row
    };
    match op {
        Op::Insert(id, _) | Op::Replace(id, _) if is_taken(id) => Err("conflict"),
        Op::Insert(_, row) | Op::Replace(_, row) if away(row) => Err("invalid"),
        Op::Insert(id, row) => carry_out(vista, &Op::Insert(*id, fixed(row))).await,
        Op::Replace(id, row) => carry_out(vista, &Op::Replace(*id, fixed(row))).await,
        Op::Patch(id, row) if away(row) && vista.get_value(&id.to_string()).await.unwrap().is_some() => Err("invalid"),
        other => carry_out(vista, other).await,
    }
}

fn outside(rows: &Rows) -> Vec<(String, Record)> {
    rows.iter().filter(|(_, row)| row["category_id"] != 2.into()).collect()
}

async fn compare(ops: Vec<Op>) {
    let (master, dio) = bakery_dio().await;
    let own = Scripted::new(schema(), bakery().into_iter().filter(|(_, row)| row["category_id"] == 2.into()));
    let (_lens, own_dio) = open(seeding(memory()), &own).await;
    let others = outside(&dio.vista().list_values().await.unwrap());
    let (vista, own_vista) = (sweets(&dio), own_dio.vista());
    for op in &ops {
        assert_eq!(carry_out(&vista, op).await, on_own_table(&own_vista, op).await, "{op:?}");
        assert_eq!(vista.list_values().await.unwrap(), own_vista.list_values().await.unwrap(), "{op:?}");
        assert_eq!(outside(&dio.vista().list_values().await.unwrap()), others, "{op:?}");
    }
    settle(&dio).await;
    settle(&own_dio).await;
    let inside: Rows = master.rows().await.iter().filter(|(_, row)| row["category_id"] == 2.into()).collect();
    assert_eq!(inside, own.rows().await);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_narrowed_facade_is_a_table_of_its_rows(ops in proptest::collection::vec(op(), 1..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(compare(ops));
    }
}
