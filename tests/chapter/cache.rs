//! The cache: one table per Dio in one file, rows by id, CBOR kept as it is.

use std::sync::Arc;

use diorama::cache::MemoryCache;
use diorama::{CborValue, Error, Lens, LensBuilder, Record, Rows};
use proptest::prelude::*;
use redb::{ReadableDatabase, TableHandle};

use crate::harness::*;

#[tokio::test]
async fn cache_at_opens_a_file_and_says_which_one_it_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let lens = on_file(&dir).build().unwrap();
    assert!(dir.path().join("cache.redb").is_file());
    assert!(dir.path().join("cache.journal.redb").is_file());
    lens.close().await;
    let Err(Error::Storage { detail, .. }) = Lens::new().cache_at(dir.path()).build() else {
        panic!("a folder is no file")
    };
    assert!(detail.contains(&*dir.path().to_string_lossy()), "{detail}");
}

#[tokio::test]
async fn a_second_lens_on_the_same_file_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let _lens = on_file(&dir).build().unwrap();
    let Err(Error::Storage { detail, .. }) = on_file(&dir).build() else { panic!("two Lenses on one file") };
    assert!(detail.contains("cache.redb") && detail.contains("in use"), "{detail}");
}

#[tokio::test]
async fn each_dio_claims_a_table_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let lens = seeding(on_file(&dir)).build().unwrap();
    let products = lens.make_dio(Scripted::bakery().vista("products")).await.unwrap();
    let orders = lens.make_dio(Scripted::bakery().vista("orders")).await.unwrap();
    drop((products, orders));
    lens.close().await;
    drop(lens);
    let file = redb::Database::open(dir.path().join("cache.redb")).unwrap();
    let read = file.begin_read().unwrap();
    let mut tables: Vec<_> = read.list_tables().unwrap().map(|table| table.name().to_string()).collect();
    tables.retain(|name| !name.starts_with('_'));
    tables.sort();
    assert_eq!(tables, ["orders", "products"]);
}

#[tokio::test]
async fn any_backend_serves_a_file_memory_or_a_remote_one() {
    let dir = tempfile::tempdir().unwrap();
    let remote = RemoteCache::default();
    let kinds: [(&str, LensBuilder); 3] = [
        ("file", on_file(&dir)),
        ("memory", Lens::new().cache_source(MemoryCache::new())),
        ("remote", Lens::new().cache_source(remote.clone())),
    ];
    for (kind, lens) in kinds {
        let master = Scripted::bakery();
        let (lens, dio) = open(seeding(lens), &master).await;
        assert_eq!(dio.cache().count().await.unwrap(), 7, "{kind}");
        dio.vista().insert("muffin", &muffin()).await.unwrap();
        dio.vista().delete("3").await.unwrap();
        settle(&dio).await;
        assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await, "{kind}");
        dio.close().await;
        lens.close().await;
    }
    assert!(remote.calls() > 0, "the rows went over the line");
}

#[tokio::test]
async fn a_cache_that_is_away_costs_no_reader_and_no_writer_anything() {
    let remote = RemoteCache::default();
    let master = Scripted::bakery();
    let (_lens, dio) = open(seeding(Lens::new().cache_source(remote.clone())), &master).await;
    remote.set_away(true);
    dio.vista().insert("muffin", &muffin()).await.unwrap();
    settle(&dio).await;
    assert_eq!(dio.vista().get_count().await.unwrap(), 8);
}

#[tokio::test]
async fn a_table_that_exists_is_opened_with_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let master = Scripted::bakery();
    let (lens, dio) = open(seeding(on_file(&dir)), &master).await;
    let position = dio.position();
    dio.close().await;
    lens.close().await;
    drop((lens, dio));
    let calls = master.calls().total();
    let (_lens, dio) = open(on_file(&dir), &master).await;
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
    assert_eq!(master.calls().total(), calls, "nothing was asked again");
    assert_eq!(dio.position().epoch, position.epoch, "the log goes on");
}

#[tokio::test(start_paused = true)]
async fn the_cache_lists_gets_and_counts() {
    let (_master, products_dio) = bakery_dio().await;
    let rows: Rows = products_dio.cache().list_values().await.unwrap();
    let product: Option<Record> = products_dio.cache().get_value("7").await.unwrap();
    let n: u64 = products_dio.cache().count().await.unwrap();
    assert_eq!((rows.len(), n), (7, 7));
    assert_eq!(product.unwrap()["name"], "Blueberry muffin".into());
    assert_eq!(products_dio.cache().get_value("nothing").await.unwrap(), None);
}

/// The remote cache of the harness implements all of `CacheTable`: load, commit, clear. There is nothing to ask it for; a new
/// method without a default would not compile there.
#[tokio::test(start_paused = true)]
async fn a_backend_is_asked_nothing_after_the_start() {
    let remote = RemoteCache::default();
    let (_lens, dio) = open(seeding(Lens::new().cache_source(remote.clone())), &Scripted::bakery()).await;
    let calls = remote.calls();
    let mut tarts = dio.vista();
    tarts.add_search("tart").unwrap().add_order("price", true).unwrap();
    assert_eq!(ids(&tarts.list_values().await.unwrap()), ["2", "4", "6"]);
    assert_eq!(remote.calls(), calls);
}

// --- values that survive ------------------------------------------------------------------------------------------------

fn any_value() -> impl Strategy<Value = CborValue> {
    let leaf = prop_oneof![
        Just(CborValue::Null),
        any::<bool>().prop_map(CborValue::Bool),
        any::<i64>().prop_map(CborValue::from),
        any::<u64>().prop_map(CborValue::from),
        any::<f64>().prop_filter("NaN equals nothing", |float| !float.is_nan()).prop_map(CborValue::Float),
        Just(CborValue::Float(3.0)),
        Just(CborValue::Float(f64::INFINITY)),
        Just(CborValue::Float(-0.0)),
        ".{0,8}".prop_map(CborValue::Text),
        proptest::collection::vec(any::<u8>(), 0..8).prop_map(CborValue::Bytes),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(CborValue::Array),
            proptest::collection::btree_map(".{0,4}", inner.clone(), 0..4)
                .prop_map(|map| CborValue::Map(map.into_iter().map(|(key, value)| (key.into(), value)).collect())),
            proptest::collection::btree_map(any::<i32>(), inner.clone(), 0..4)
                .prop_map(|map| CborValue::Map(map.into_iter().map(|(key, value)| (key.into(), value)).collect())),
            (1000u64..2000, inner).prop_map(|(tag, value)| CborValue::Tag(tag, Box::new(value))),
        ]
    })
}

/// Maps have no order of their own: their members are stored in a canonical one.
fn sorted(value: &CborValue) -> CborValue {
    match value {
        CborValue::Array(items) => CborValue::Array(items.iter().map(sorted).collect()),
        CborValue::Tag(tag, inner) => CborValue::Tag(*tag, Box::new(sorted(inner))),
        CborValue::Map(members) => {
            let mut members: Vec<_> = members.iter().map(|(key, value)| (sorted(key), sorted(value))).collect();
            members.sort_by_key(|(key, _)| format!("{key:?}"));
            CborValue::Map(members)
        }
        other => other.clone(),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_record_comes_out_of_the_cache_as_it_went_in(
        values in proptest::collection::btree_map("[a-z]{1,6}", any_value(), 0..5)
    ) {
        let mut record: Record = values.into_iter().collect();
        record.insert("id", "x".into());
        runtime().block_on(async {
            let (_lens, dio) = open(memory(), &Scripted::empty()).await;
            dio.cache().insert_value("x", &record).await.unwrap();
            let kept = dio.cache().get_value("x").await.unwrap().unwrap();
            for (column, value) in &record {
                // Debug tells 3 from 3.0 and 0.0 from -0.0; equality of floats would not.
                assert_eq!(format!("{:?}", sorted(&kept[column])), format!("{:?}", sorted(value)), "{column}");
            }
            assert_eq!(kept.len(), record.len());
        });
    }
}

#[tokio::test]
async fn values_that_json_does_not_have_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let odd = cells([
        ("id", "x".into()),
        ("bytes", CborValue::Bytes(vec![0, 255, 7])),
        ("tag", CborValue::Tag(1000, Box::new(3.into()))),
        ("infinite", CborValue::Float(f64::INFINITY)),
        ("whole", CborValue::Float(3.0)),
        ("null", CborValue::Null),
        ("big", CborValue::Integer(u64::MAX.into())),
        ("nested", CborValue::Map(vec![(1.into(), CborValue::Array(vec![CborValue::Null, true.into()]))])),
    ]);
    let (lens, dio) = open(on_file(&dir), &Scripted::empty()).await;
    dio.cache().insert_value("x", &odd).await.unwrap();
    dio.close().await;
    lens.close().await;
    drop((lens, dio));
    let lens = Arc::new(on_file(&dir).build().unwrap());
    let dio = lens.make_dio(Scripted::empty().vista("products")).await.unwrap();
    let kept = dio.cache().get_value("x").await.unwrap().unwrap();
    assert_eq!(format!("{:?}", kept["whole"]), "Float(3.0)");
    assert_eq!(kept, odd);
}
