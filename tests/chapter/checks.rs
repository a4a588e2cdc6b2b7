//! Rows are held to the schema, whoever brings them; rows of the source itself are kept as they are and counted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use diorama::dio::{Inbound, Settings, WriteOptions};
use diorama::vista::{Coercion, UnknownColumns};
use diorama::{CborValue, ChangeEvent, Column, ColumnType, Dio, Error, Flag, Record, Rows, Schema, WriteOp};

use crate::harness::*;

fn typed() -> Schema {
    let columns = vec![
        Column::new("id", ColumnType::Integer),
        Column::new("name", ColumnType::String).with(Flag::Mandatory),
        Column::new("price", ColumnType::Integer),
        Column::new("cost", ColumnType::Decimal),
        Column::new("sold", ColumnType::Boolean),
    ];
    Schema::new("id", columns)
}

fn bun(id: i64, price: impl Into<CborValue>) -> Record {
    cells([("id", id.into()), ("name", "Bun".into()), ("price", price.into())])
}

async fn typed_dio(settings: impl FnOnce(&mut Settings)) -> (Scripted, Dio) {
    let master = Scripted::new(typed(), [("1".to_string(), bun(1, 10)), ("7".to_string(), bun(7, 70))]);
    let (_lens, dio) = open(seeding(memory()).settings(settings), &master).await;
    (master, dio)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Error>, expected: &[(&str, &str)]) {
    let Err(Error::Invalid { fields, detail }) = result else { panic!("{result:?}") };
    let expected: BTreeMap<String, String> =
        expected.iter().map(|(name, detail)| (name.to_string(), detail.to_string())).collect();
    assert_eq!(fields, expected, "{detail}");
}

const WHOLE: &str = "must be a whole number";

async fn ids_by_price(dio: &Dio, price: i64) -> Vec<String> {
    let mut vista = dio.vista();
    vista.add_condition_eq("price", price.into()).unwrap();
    vista.list_values().await.unwrap().ids().map(str::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn a_row_of_the_library_is_converted_or_refused_with_everything_that_is_wrong() {
    let (master, dio) = typed_dio(|_| {}).await;
    let vista = dio.vista();
    let wrong = cells([("price", "8".into()), ("cost", "x".into())]);
    let all = [("cost", "must be a decimal number, as text or number"), ("name", "is mandatory"), ("price", WHOLE)];
    refused(vista.insert("9", &wrong).await, &all);
    refused(vista.replace_value("9", &wrong).await, &all);
    refused(vista.patch_value("7", &wrong).await, &[all[0], all[2]]);
    refused(dio.patched("7", wrong.clone()).await, &all);
    refused(dio.cache().insert_value("7", &wrong).await, &all);
    let op = WriteOp::Insert { id: "9".into(), record: wrong.clone() };
    refused(dio.write(op, WriteOptions::default()).await, &all);
    let nameless = cells([("name", CborValue::Null)]);
    refused(vista.patch_value("7", &nameless).await, &[("name", "is mandatory")]);
    refused(vista.insert_return_id(&wrong).await, &all);
    assert_eq!(master.arrived(), [], "nothing of that is on its way");
    assert_eq!(ids_by_price(&dio, 70).await, ["7"]);

    let loss_free = cells([("id", "9".into()), ("name", "Bun".into()), ("price", 8.0.into()), ("cost", 5.into())]);
    vista.insert("9", &loss_free).await.unwrap();
    let row = dio.cache().get_value("9").await.unwrap().unwrap();
    assert_eq!((&row["id"], &row["price"], &row["cost"]), (&9.into(), &8.into(), &"5".into()));
    settle(&dio).await;
    assert_eq!(master.row("9").await.unwrap()["price"], 8.into());
    assert_eq!(ids_by_price(&dio, 8).await, ["9"]);
}

#[tokio::test(start_paused = true)]
async fn an_id_is_spelled_as_its_column_holds_it() {
    let (_master, dio) = typed_dio(|_| {}).await;
    let vista = dio.vista();
    let name = cells([("name", "Bun".into())]);
    refused(vista.insert("007", &name).await, &[("id", WHOLE)]);
    refused(dio.patched("x", name.clone()).await, &[("id", WHOLE)]);
    refused(vista.insert("9", &cells([("id", "009".into()), ("name", "Bun".into())])).await, &[("id", WHOLE)]);
    let other = vista.insert("9", &bun(8, 1)).await;
    assert!(matches!(other, Err(Error::Conflict { .. })), "{other:?}");
    vista.insert("9", &cells([("id", CborValue::Null), ("name", "Bun".into())])).await.unwrap();
    assert_eq!(dio.cache().get_value("9").await.unwrap().unwrap()["id"], 9.into());
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_not_as_the_schema_says_is_refused_and_its_row_is_read_again() {
    let (master, dio) = typed_dio(|_| {}).await;
    master.put("7", bun(7, 8)).await;
    let event =
        || ChangeEvent::Updated { id: "7".into(), new: Some(cells([("name", "Bun".into()), ("price", "8".into())])) };
    refused(dio.handle_event(event()).await, &[("price", WHOLE)]);
    settle(&dio).await;
    assert_eq!(ids_by_price(&dio, 8).await, ["7"], "the master was asked");
    assert!(dio.mismatches().is_empty());

    let loose = Inbound { coercion: Coercion::Loose, ..Inbound::from(event()) };
    master.put("7", bun(7, 8)).await;
    dio.handle_event(loose).await.unwrap();
    assert_eq!(dio.cache().get_value("7").await.unwrap().unwrap()["price"], 8.into());
    let part = ChangeEvent::Updated { id: "7".into(), new: Some(cells([("name", CborValue::Null)])) };
    refused(dio.handle_event(Inbound { partial: true, ..Inbound::from(part) }).await, &[("name", "is mandatory")]);
}

#[tokio::test(start_paused = true)]
async fn a_programs_on_event_gets_rows_as_the_schema_says() {
    let heard: Arc<Mutex<Vec<ChangeEvent>>> = Arc::default();
    let lens = memory().on_event({
        let heard = Arc::clone(&heard);
        move |_, event| {
            heard.lock().unwrap().push(event);
            async { Ok(()) }
        }
    });
    let master = Scripted::new(typed(), [("7".to_string(), bun(7, 70))]);
    let (_lens, dio) = open(seeding(lens), &master).await;
    let event = |price: CborValue| ChangeEvent::Updated { id: "7".into(), new: Some(bun(7, price)) };
    dio.handle_event(event(8.0.into())).await.unwrap();
    assert_eq!(*heard.lock().unwrap(), [event(8.into())]);
    master.put("7", bun(7, 9)).await;
    refused(dio.handle_event(event("9".into())).await, &[("price", WHOLE)]);
    assert_eq!(heard.lock().unwrap().len(), 1);
    settle(&dio).await;
    assert_eq!(ids_by_price(&dio, 9).await, ["7"]);
}

#[tokio::test(start_paused = true)]
async fn unknown_columns_are_kept_refused_or_left_out_of_events() {
    let coloured = || cells([("name", "Bun".into()), ("pricee", 1.into())]);
    let event = || ChangeEvent::Updated { id: "7".into(), new: Some(coloured()) };
    let (_master, dio) = typed_dio(|_| {}).await;
    dio.vista().insert("9", &coloured()).await.unwrap();
    dio.handle_event(event()).await.unwrap();
    assert_eq!(dio.cache().get_value("9").await.unwrap().unwrap()["pricee"], 1.into());
    assert!(dio.dropped_columns().is_empty());

    let (master, dio) = typed_dio(|settings| settings.unknown_columns = UnknownColumns::Refuse).await;
    refused(dio.vista().insert("9", &coloured()).await, &[("pricee", r#"does not exist; did you mean "price"?"#)]);
    refused(dio.patched("9", coloured()).await, &[("pricee", r#"does not exist; did you mean "price"?"#)]);
    master.put("7", cells([("name", "Bun".into())])).await;
    dio.handle_event(event()).await.unwrap();
    assert!(!dio.cache().get_value("7").await.unwrap().unwrap().contains("pricee"));
    let dropped = dio.dropped_columns();
    assert_eq!((dropped[0].column.as_str(), dropped[0].rows, dropped[0].first.as_str()), ("pricee", 1, "7"));
}

#[tokio::test(start_paused = true)]
async fn rows_of_the_source_are_kept_as_they_are_and_counted() {
    let rows = [("1", bun(1, "10")), ("2", bun(2, 20)), ("3", bun(3, 1.5))];
    let master = Scripted::new(typed(), rows.map(|(id, row)| (id.to_string(), row)));
    let (_lens, dio) = open(reconciling(seeding(memory())), &master).await;
    assert_eq!(dio.cache().get_value("1").await.unwrap().unwrap()["price"], "10".into());
    let counted = |dio: &Dio| -> Vec<(String, u64, String)> {
        dio.mismatches().into_iter().map(|it| (it.column, it.rows, it.first)).collect()
    };
    assert_eq!(counted(&dio), [("price".to_string(), 2, "1".to_string())]);
    assert_eq!(dio.mismatches()[0].expected, "a whole number");
    dio.refresh().await.unwrap();
    assert_eq!(counted(&dio)[0].1, 2, "rows that did not change are not looked at again");
    master.put("2", cells([("name", "Bun".into()), ("price", 2.5.into()), ("sold", 1.into())])).await;
    dio.refresh().await.unwrap();
    assert_eq!(counted(&dio), [("price".to_string(), 3, "1".to_string()), ("sold".to_string(), 1, "2".to_string())]);
    // A row that is asked for.
    master.put("2", bun(2, "x")).await;
    dio.handle_event(ChangeEvent::Updated { id: "2".into(), new: None }).await.unwrap();
    settle(&dio).await;
    assert_eq!(counted(&dio)[0].1, 4);
}

#[tokio::test(start_paused = true)]
async fn a_list_made_by_hand_is_converted_as_far_as_it_converts_and_the_rest_is_counted() {
    let (_master, dio) = typed_dio(|_| {}).await;
    let row = |price: CborValue, cost: CborValue| cells([("name", "Bun".into()), ("price", price), ("cost", cost)]);
    let rows: Rows = [("20".to_string(), row(8.0.into(), 5.into())), ("21".to_string(), row("x".into(), 5.into()))]
        .into_iter()
        .collect();
    dio.cache().insert_values(rows).await.unwrap();
    let stored = |id: &'static str| {
        let dio = dio.clone();
        async move { dio.cache().get_value(id).await.unwrap().unwrap() }
    };
    let (first, second) = (stored("20").await, stored("21").await);
    assert_eq!((&first["price"], &first["cost"]), (&8.into(), &"5".into()));
    assert_eq!((&second["price"], &second["cost"]), (&"x".into(), &"5".into()));
    let found = dio.mismatches();
    assert_eq!((found.len(), found[0].rows, found[0].first.as_str()), (1, 1, "21"));
}
