//! The facade: a Vista like any other that reads from the cache and can what its master cannot.

use std::time::Duration;

use diorama::connect::{Csv, CsvOptions};
use diorama::vista::{Capabilities, Reference};
use diorama::{CborValue, Column, ColumnType, Flag, LensBuilder, Record, Rows, Schema, Vista};

use crate::harness::*;

#[tokio::test(start_paused = true)]
async fn reads_never_reach_a_slow_master() {
    let (master, dio) = bakery_dio().await;
    master.slow(Duration::from_secs(1));
    let (calls, began) = (master.calls(), tokio::time::Instant::now());
    for _ in 0..100 {
        let vista = dio.vista();
        assert_eq!(vista.list_values().await.unwrap().len(), 7);
        assert_eq!(vista.get_value("7").await.unwrap().unwrap()["price"], 175.into());
        assert_eq!(vista.get_count().await.unwrap(), 7);
        assert!(vista.get_some_value().await.unwrap().is_some());
    }
    assert_eq!(master.calls(), calls);
    assert!(began.elapsed() < Duration::from_millis(10), "no time passed");
}

#[tokio::test(start_paused = true)]
async fn reads_go_on_while_the_master_is_down() {
    let (master, dio) = bakery_dio().await;
    master.fail_reads(1000, &diorama::Error::transient("down"));
    assert!(dio.master().list_values().await.is_err());
    assert_eq!(dio.vista().list_values().await.unwrap().len(), 7);
}

#[tokio::test]
async fn a_csv_file_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = bakery_csv(&dir);
    let lens = seeding(memory()).build().unwrap();
    let dio = lens.make_dio(Csv::open("products", &path, CsvOptions::default()).await.unwrap()).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(dio.master().list_values().await.is_err(), "the file is gone");
    assert_eq!(dio.vista().list_values().await.unwrap().len(), 7);
    assert_eq!(dio.vista().get_value("7").await.unwrap().unwrap()["name"], "Blueberry muffin".into());
}

async fn csv_like() -> (Scripted, diorama::Dio) {
    let master = Scripted::bakery().like_csv();
    let (_lens, dio) = open(seeding(memory()), &master).await;
    (master, dio)
}

#[tokio::test(start_paused = true)]
async fn the_facade_pages_what_the_master_cannot() {
    let (master, dio) = csv_like().await;
    assert!(is_unsupported(&master.vista("products").fetch_page(1).await));
    let mut facade = dio.vista();
    facade.set_page_size(3).unwrap();
    let mut sizes = Vec::new();
    let mut all = Vec::new();
    for page in 1..=4 {
        let rows = facade.fetch_page(page).await.unwrap();
        sizes.push(rows.len());
        all.extend(rows.ids().map(str::to_string));
    }
    assert_eq!(sizes, [3, 3, 1, 0]);
    assert_eq!(all, ["1", "2", "3", "4", "5", "6", "7"]);
    assert!(facade.fetch_page(0).await.is_err(), "pages are numbered from 1");

    let (mut token, mut next) = (None, Vec::new());
    loop {
        let (rows, more) = facade.fetch_next(token).await.unwrap();
        next.extend(rows.ids().map(str::to_string));
        let Some(more) = more else { break };
        token = Some(more);
    }
    assert_eq!(next, all);
}

#[tokio::test(start_paused = true)]
async fn the_facade_sorts_numbers_as_numbers_with_nulls_last_and_stable_ties() {
    let (master, dio) = csv_like().await;
    assert!(is_unsupported(&master.vista("products").add_order("price", false).map(drop)));
    let sorted = |column: &'static str, descending: bool| {
        let mut facade = dio.vista();
        facade.add_order(column, descending).unwrap();
        async move { facade.list_values().await.unwrap().ids().map(str::to_string).collect::<Vec<_>>() }
    };
    assert_eq!(sorted("price", false).await, ["3", "5", "6", "7", "1", "4", "2"]);
    assert_eq!(sorted("price", true).await, ["2", "4", "1", "7", "6", "5", "3"]);
    assert_eq!(sorted("category_id", false).await, ["1", "5", "2", "4", "6", "7", "3"], "ties by id");
    dio.cache().insert_value("8", &cells([("name", "Secret".into()), ("price", CborValue::Null)])).await.unwrap();
    dio.cache().insert_value("9", &cells([("name", "Absent".into())])).await.unwrap();
    assert_eq!(sorted("price", false).await[7..], ["8", "9"], "null and absent last");
    assert_eq!(sorted("price", true).await[..7], ["2", "4", "1", "7", "6", "5", "3"], "both ways");
    let mut both = dio.vista();
    both.add_order("name", true).unwrap().add_order("price", false).unwrap();
    assert_eq!(ids(&both.list_values().await.unwrap())[..2], ["3", "5"], "an order replaces the one before");
}

#[tokio::test(start_paused = true)]
async fn the_facade_searches_whatever_the_case_and_replaces_the_search_before() {
    let (master, dio) = csv_like().await;
    assert!(is_unsupported(&master.vista("products").add_search("tart").map(drop)));
    let mut facade = dio.vista();
    facade.add_search("TART").unwrap();
    assert_eq!(ids(&facade.list_values().await.unwrap()), ["2", "4", "6"]);
    assert_eq!(facade.get_count().await.unwrap(), 3);
    facade.add_search("muffin").unwrap();
    assert_eq!(ids(&facade.list_values().await.unwrap()), ["7"]);
    facade.add_search("").unwrap();
    assert_eq!(facade.get_count().await.unwrap(), 7);
}

fn windowed(lens: LensBuilder) -> LensBuilder {
    lens.on_load_chunk(|_, _, _| async { Ok(()) })
}

#[tokio::test(start_paused = true)]
async fn a_partial_cache_does_not_answer_for_the_whole() {
    let master = Scripted::bakery().like_csv();
    let (_lens, dio) = open(windowed(memory()), &master).await;
    dio.cache().insert_value("7", &product("7", "Blueberry muffin", 175, 2)).await.unwrap();
    let mut facade = dio.vista();
    assert!(is_unsupported(&facade.add_search("muffin").map(drop)), "a slice cannot be searched");
    assert!(is_unsupported(&facade.add_order("price", false).map(drop)));
    assert!(is_unsupported(&facade.get_count().await));
    assert!(is_unsupported(&facade.fetch_page(1).await));
    assert_eq!(facade.list_values().await.unwrap().len(), 7, "the master lists, not the slice");
    assert_eq!(facade.get_value("7").await.unwrap().unwrap()["price"], 175.into(), "one row can be a hit");
    assert!(facade.get_value("1").await.unwrap().is_some(), "or is asked for");

    let rows = dio.master().list_values().await.unwrap();
    dio.reconcile(rows).await.unwrap();
    let calls = master.calls();
    let mut facade = dio.vista();
    facade.add_search("tart").unwrap();
    assert_eq!(facade.get_count().await.unwrap(), 3, "after a complete list the cache answers");
    assert_eq!(master.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_capable_master_answers_for_a_partial_cache() {
    let master = Scripted::bakery();
    let (_lens, dio) = open(windowed(memory()), &master).await;
    let mut facade = dio.vista();
    facade.add_search("tart").unwrap();
    assert_eq!(facade.get_count().await.unwrap(), 3);
    assert_eq!(facade.list_values().await.unwrap().len(), 3);
    assert_eq!((master.calls().count, master.calls().list), (1, 1));
}

async fn names(vista: &Vista) -> Vec<CborValue> {
    vista.list_values().await.unwrap().iter().map(|(_, row)| row["name"].clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_facade_is_a_vista_and_each_call_gives_its_own() {
    let (master, dio) = bakery_dio().await;
    assert_eq!(names(&dio.vista()).await, names(&master.vista("products")).await);
    assert_eq!(dio.vista().name(), "products");
    let (mut narrow, wide) = (dio.vista(), dio.vista());
    narrow.add_condition_eq("category_id", 1.into()).unwrap();
    assert_eq!(narrow.list_values().await.unwrap().len(), 2);
    assert_eq!(wide.list_values().await.unwrap().len(), 7);
    let copy = narrow.clone();
    narrow.with_id("5").unwrap();
    assert_eq!((narrow.get_count().await.unwrap(), copy.get_count().await.unwrap()), (1, 2), "conditions accrete");
}

#[tokio::test(start_paused = true)]
async fn a_facade_keeps_its_dio_alive() {
    let (master, dio) = bakery_dio().await;
    let facade = dio.vista();
    drop(dio);
    facade.insert("muffin", &muffin()).await.unwrap();
    eventually(|| master.applied().len() == 1).await;
    assert_eq!(facade.get_count().await.unwrap(), 8);
}

#[tokio::test(start_paused = true)]
async fn the_schema_is_the_masters_with_every_column_sortable_and_searchable() {
    let reference = Reference {
        relation: "category".into(),
        target: "categories".into(),
        column: "category_id".into(),
        many: false,
    };
    let schema = Schema::new(
        "sku",
        vec![
            Column::new("sku", ColumnType::Integer).original("INT4"),
            Column::new("name", ColumnType::String).with(Flag::Title),
            Column::new("secret", ColumnType::Bytes).with(Flag::Hidden).with(Flag::Mandatory),
            Column::new("category_id", ColumnType::Integer),
        ],
    )
    .with_references(vec![reference]);
    let (_lens, dio) = open(memory(), &Scripted::new(schema.clone(), [])).await;
    let facade = dio.vista().schema();
    assert_eq!(facade.id_column(), "sku");
    assert_eq!(facade.references(), schema.references());
    for (lifted, own) in facade.columns().iter().zip(schema.columns()) {
        assert_eq!((&lifted.name, lifted.ty, &lifted.original_type), (&own.name, own.ty, &own.original_type));
        assert!(lifted.has(Flag::Orderable) && lifted.has(Flag::Searchable));
        let added = |flag: &&Flag| !matches!(flag, Flag::Orderable | Flag::Searchable);
        assert_eq!(lifted.flags.iter().filter(added).collect::<Vec<_>>(), own.flags.iter().collect::<Vec<_>>());
    }
    assert_eq!(facade.columns().len(), schema.columns().len());
}

type Narrowing<'a> = &'a dyn Fn(&mut Vista) -> diorama::Result<()>;

/// What a consumer gets to see of `vista`, call by call.
async fn transcript(vista: Vista) -> Vec<String> {
    // An id that was chosen for us is another one each time.
    let shown = |id: String| if id.len() == 36 { "chosen".to_string() } else { id };
    let rows = |result: diorama::Result<Rows>| match result {
        Ok(rows) => format!("{:?}", rows.iter().map(|(id, row)| (shown(id), row["name"].clone())).collect::<Vec<_>>()),
        Err(error) => kind(&error).to_string(),
    };
    fn said<T: std::fmt::Debug>(result: diorama::Result<T>) -> String {
        result.map_or_else(|error| kind(&error).to_string(), |value| format!("{value:?}"))
    }
    let narrowed = |narrow: Narrowing<'_>| {
        let mut vista = vista.clone();
        narrow(&mut vista).map(|()| vista)
    };
    let mut seen = vec![rows(vista.list_values().await), said(vista.get_count().await)];
    let views: [(&str, Narrowing<'_>); 10] = [
        ("int", &|vista| vista.add_condition_eq("category_id", 2.into()).map(drop)),
        ("float", &|vista| vista.add_condition_eq("category_id", 2.0.into()).map(drop)),
        ("text for int", &|vista| vista.add_condition_eq("category_id", "2".into()).map(drop)),
        ("null", &|vista| vista.add_condition_eq("category_id", CborValue::Null).map(drop)),
        ("two", &|vista| {
            vista.add_condition_eq("category_id", 2.into())?.add_search("tart")?.add_order("price", true).map(drop)
        }),
        ("up", &|vista| vista.add_order("price", false).map(drop)),
        ("down", &|vista| vista.add_order("category_id", true).map(drop)),
        ("search", &|vista| vista.add_search("read ROLL").map(drop)),
        ("id", &|vista| vista.with_id("4").map(drop)),
        ("no column", &|vista| vista.add_condition_eq("colour", 2.into()).map(drop)),
    ];
    for (what, narrow) in views {
        match narrowed(narrow) {
            Ok(view) => {
                seen.push(format!("{what}: {}", rows(view.list_values().await)));
                seen.push(said(view.get_count().await));
                seen.push(said(view.get_value("4").await));
                seen.push(said(view.get_some_value().await.map(|row| row.map(|(id, _)| id))));
            }
            Err(error) => seen.push(format!("{what}: {}", kind(&error))),
        }
    }
    let mut paged = vista.clone();
    seen.push(said(paged.set_page_size(0).map(drop)));
    paged.set_page_size(3).unwrap();
    for page in 0..5 {
        seen.push(rows(paged.fetch_page(page).await));
    }
    seen.push(said(paged.fetch_next(Some("nonsense".into())).await.map(drop)));
    let mut token = None;
    for _ in 0..9 {
        let (page, more) = paged.fetch_next(token).await.unwrap();
        seen.push(rows(Ok(page)));
        token = more;
        if token.is_none() {
            break;
        }
    }
    let price = |price: i64| cells([("price", price.into())]);
    seen.push(said(vista.get_value("nothing").await));
    seen.push(said(vista.insert("muffin", &muffin()).await));
    seen.push(said(vista.insert("muffin", &muffin()).await));
    seen.push(said(vista.insert("muffin", &product("muffin", "Other", 1, 1)).await));
    seen.push(said(vista.insert("", &muffin()).await));
    seen.push(said(vista.patch_value("muffin", &price(180)).await));
    seen.push(said(vista.patch_value("nothing", &price(180)).await));
    seen.push(said(vista.replace_value("1", &cells([("name", "Rye".into())])).await));
    seen.push(said(vista.replace_value("new", &cells([("name", "New".into())])).await));
    seen.push(said(vista.get_value("1").await));
    seen.push(said(vista.delete("3").await));
    seen.push(said(vista.delete("nothing").await));
    seen.push(said(vista.insert_return_id(&product("own", "Own id", 1, 1)).await));
    seen.push(said(vista.insert_return_id(&cells([("name", "No id".into())])).await.map(|id| id.len())));
    seen.push(rows(vista.list_values().await));
    let narrow = narrowed(&|vista| vista.add_condition_eq("category_id", 2.into()).map(drop)).unwrap();
    seen.push(said(narrow.delete_all().await));
    seen.push(rows(vista.list_values().await));
    seen.push(said(vista.get_ref("nothing", &muffin()).map(drop)));
    seen.push(said(vista.delete_all().await));
    seen.push(said(vista.get_count().await));
    seen
}

#[tokio::test(start_paused = true)]
async fn a_consumer_cannot_tell_facade_and_master_apart() {
    let (master, dio) = bakery_dio().await;
    let facade = transcript(dio.vista()).await;
    let alone = transcript(Scripted::bakery().vista("products")).await;
    for (facade, master) in facade.iter().zip(&alone) {
        assert_eq!(facade, master);
    }
    assert_eq!(facade.len(), alone.len());
    settle(&dio).await;
    assert!(master.rows().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn conditions_are_answered_from_the_cache() {
    let (master, products_dio) = bakery_dio().await;
    let calls = master.calls();
    let mut v = products_dio.vista();
    v.add_condition_eq("category_id", 1.into()).unwrap();
    let rows = v.list_values().await.unwrap();
    assert_eq!(ids(&rows), ["1", "5"]);
    let mut float = products_dio.vista();
    float.add_condition_eq("category_id", 1.0.into()).unwrap();
    assert_eq!(float.list_values().await.unwrap(), rows, "1 is 1.0");
    let mut text = products_dio.vista();
    text.add_condition_eq("name", "Sugar".into()).unwrap();
    assert_eq!(ids(&text.list_values().await.unwrap()), ["3"]);
    assert_eq!(v.get_value("2").await.unwrap(), None, "outside of the narrowing");
    assert_eq!(master.calls(), calls);
}

/// Tries every kind of write that `vista` advertises and that it does not.
async fn writes_work_as_advertised(vista: &Vista, what: &str) {
    let caps = vista.capabilities();
    let price = cells([("price", 1.into())]);
    assert_eq!(is_unsupported(&vista.insert("muffin", &muffin()).await), !caps.can_insert, "{what}: insert");
    assert_eq!(is_unsupported(&vista.insert_return_id(&product("own", "", 1, 1)).await), !caps.can_insert, "{what}");
    assert_eq!(is_unsupported(&vista.patch_value("1", &price).await), !caps.can_update, "{what}: patch");
    assert_eq!(is_unsupported(&vista.replace_value("1", &price).await), !caps.can_update, "{what}: replace");
    assert_eq!(is_unsupported(&vista.delete("2").await), !caps.can_delete, "{what}: delete");
    assert_eq!(is_unsupported(&vista.delete_all().await), !caps.can_delete, "{what}: delete_all");
    let left = if caps.can_delete { 0 } else { 7 };
    assert_eq!(vista.get_count().await.unwrap(), left, "{what}");
}

async fn reads_work(vista: &Vista) {
    let mut view = vista.clone();
    view.add_condition_eq("category_id", 2.into()).unwrap();
    view.add_search("tart").unwrap().add_order("price", false).unwrap();
    view.set_page_size(2).unwrap();
    assert_eq!(ids(&view.fetch_page(1).await.unwrap()), ["6", "4"]);
    assert!(view.fetch_next(None).await.unwrap().1.is_some());
    assert_eq!(view.get_count().await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_facade_can_what_master_or_lens_can() {
    let mut csv = Capabilities::default();
    csv.can_filter = true;
    for (name, own) in [("csv", csv), ("full", Capabilities::all()), ("none", Capabilities::default())] {
        for routed in [false, true] {
            let what = format!("{name}, {}", if routed { "on_write" } else { "no on_write" });
            let master = Scripted::bakery().able(own);
            let lens = if routed { memory().on_write(|_, _| async { Ok(()) }) } else { memory() };
            let (_lens, dio) = open(seeding(lens), &master).await;
            let caps = dio.vista().capabilities();
            let mut expected = Capabilities::reads();
            expected.can_insert = routed || own.can_insert;
            expected.can_update = routed || own.can_update;
            expected.can_delete = routed || own.can_delete;
            expected.can_delete_all = routed || own.can_delete_all;
            assert_eq!(caps, expected, "{what}");
            reads_work(&dio.vista()).await;
            writes_work_as_advertised(&dio.vista(), &what).await;
            settle(&dio).await;
            assert_eq!(master.calls().write > 0, !routed && own.can_insert, "{what}: the master got writes");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_master_that_cannot_count_is_counted() {
    let (master, dio) = csv_like().await;
    assert!(!master.vista("products").capabilities().can_count);
    assert!(is_unsupported(&master.vista("products").get_count().await));
    assert!(dio.vista().capabilities().can_count);
    assert_eq!(dio.vista().get_count().await.unwrap(), 7);
    assert_eq!(master.calls().count, 0);
}

#[tokio::test(start_paused = true)]
async fn on_write_makes_a_read_only_source_writable() {
    let master = Scripted::bakery().like_csv();
    let (_lens, dio) = open(seeding(memory().on_write(|_, _| async { Ok(()) })), &master).await;
    let caps = dio.vista().capabilities();
    assert!(caps.can_insert && caps.can_update && caps.can_delete);
    dio.vista().insert("muffin", &muffin()).await.unwrap();
    assert_eq!(dio.vista().get_value("muffin").await.unwrap(), Some(muffin()));
    settle(&dio).await;
    assert_eq!(master.calls().write, 0);
}

#[tokio::test(start_paused = true)]
async fn without_on_write_a_write_to_a_read_only_source_is_refused_at_once_and_leaves_nothing() {
    let (_master, dio) = csv_like().await;
    let mut bus = dio.subscribe_events();
    let caps = dio.vista().capabilities();
    assert!(!caps.can_insert && !caps.can_update && !caps.can_delete && !caps.can_delete_all);
    assert!(is_unsupported(&dio.vista().insert("muffin", &muffin()).await));
    assert!(is_unsupported(&dio.vista().patch_value("7", &Record::new()).await));
    assert!(is_unsupported(&dio.vista().delete("7").await));
    let op = diorama::WriteOp::Delete { id: "7".into() };
    assert!(is_unsupported(&dio.write(op, Default::default()).await), "by the ticket's way neither");
    assert!(dio.operations().is_empty());
    assert_eq!(events(&mut bus), []);
    assert_eq!(dio.vista().get_count().await.unwrap(), 7);
}
