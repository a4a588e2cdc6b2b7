//! Contract suite of all routes: writes to the same rows, each with one effect.

use diorama_core::record::{CborValue, Record};
#[cfg(any(feature = "http", feature = "postgres", feature = "mysql", feature = "surrealdb"))]
use diorama_core::vista::ErrorKind;
use diorama_core::vista::{Error, Vista};
#[cfg(any(feature = "http", feature = "sql"))]
use diorama_core::vista::{TableShell, WriteOp};
#[cfg(any(feature = "http", feature = "postgres", feature = "mysql", feature = "surrealdb"))]
use diorama_servers::CutProxy;

#[cfg(any(feature = "http", feature = "postgres", feature = "mysql", feature = "surrealdb"))]
use super::source::retried;
use super::source::{refused, rows};

/// Checks that a source without writes refuses all of them and stays unchanged.
pub(crate) async fn refuses_writes(vista: &Vista) {
    let record = rows()[0].1.clone();
    assert!(refused(&vista.insert("9", &record).await));
    assert!(refused(&vista.insert_return_id(&record).await));
    assert!(refused(&vista.replace_value("1", &record).await));
    assert!(refused(&vista.patch_value("1", &record).await));
    assert!(refused(&vista.delete("1").await));
    assert!(refused(&vista.delete_all().await));
    assert_eq!(vista.list_values().await.unwrap().len(), 7);
}

fn cells<const N: usize>(cells: [(&str, CborValue); N]) -> Record {
    cells.into_iter().map(|(column, value)| (column.to_string(), value)).collect()
}

/// Checks all writes on a source of [`rows`] whose ids are integers.
pub(crate) async fn writes(vista: &Vista) {
    let muffin = cells([("id", 8.into()), ("name", "Muffin".into()), ("price", 150.into()), ("category_id", 1.into())]);
    vista.insert("8", &muffin).await.unwrap();
    assert_eq!(vista.get_value("8").await.unwrap().unwrap(), muffin);
    vista.insert("8", &muffin).await.expect("an identical insert is a retry");
    let other = cells([("name", "Scone".into()), ("price", 150.into()), ("category_id", 1.into())]);
    assert!(matches!(vista.insert("8", &other).await, Err(Error::Conflict { .. })));
    assert!(matches!(vista.insert("9", &muffin).await, Err(Error::Invalid { .. })), "another id in the record");

    vista.replace_value("8", &cells([("name", "Scone".into())])).await.unwrap();
    let scone = vista.get_value("8").await.unwrap().unwrap();
    assert_eq!((&scone["name"], scone.get("price").unwrap_or(&CborValue::Null)), (&"Scone".into(), &CborValue::Null));
    vista.replace_value("9", &cells([("name", "Strudel".into()), ("price", 1.into())])).await.unwrap();
    assert_eq!(vista.get_count().await.unwrap(), 9, "replacing a missing row adds it");

    vista.patch_value("9", &cells([("price", 180.into())])).await.unwrap();
    let strudel = vista.get_value("9").await.unwrap().unwrap();
    assert_eq!((&strudel["name"], &strudel["price"]), (&"Strudel".into(), &180.into()));
    vista.patch_value("9", &cells([("price", CborValue::Null)])).await.unwrap();
    assert_eq!(vista.get_value("9").await.unwrap().unwrap()["price"], CborValue::Null);
    assert!(matches!(vista.patch_value("99", &muffin_price()).await, Err(Error::NotFound { .. })));

    vista.delete("9").await.unwrap();
    vista.delete("9").await.expect("deleting a missing row succeeds");
    assert_eq!(vista.get_value("9").await.unwrap(), None);

    let id = vista.insert_return_id(&cells([("name", "Bagel".into())])).await.unwrap();
    assert_eq!(id, "11");
    assert_eq!(vista.get_value(&id).await.unwrap().unwrap()["id"], 11.into());

    let mut narrow = vista.clone();
    narrow.add_condition_eq("category_id", 3.into()).unwrap();
    bounded_writes(vista, &narrow).await;
    narrow.delete_all().await.unwrap();
    assert_eq!(vista.get_count().await.unwrap(), 7, "deletes only the rows it is narrowed to");
    vista.delete_all().await.unwrap();
    assert_eq!(vista.get_count().await.unwrap(), 0);
}

/// Checks writes to `narrow`, which is `vista` with rows of category 3 only. It writes as if there were no other rows, and leaves
/// rows 6 and 7.
async fn bounded_writes(vista: &Vista, narrow: &Vista) {
    let all = vista.list_values().await.unwrap();
    let price = muffin_price();
    narrow.delete("1").await.expect("deleting a missing row succeeds");
    assert!(matches!(narrow.patch_value("1", &price).await, Err(Error::NotFound { .. })));
    assert!(matches!(narrow.insert("1", &price).await, Err(Error::Conflict { .. })));
    assert!(matches!(narrow.replace_value("1", &price).await, Err(Error::Conflict { .. })));
    let away = cells([("category_id", 1.into())]);
    for refused in [
        narrow.patch_value("6", &away).await,
        narrow.replace_value("6", &away).await,
        narrow.insert("20", &away).await,
        narrow.insert_return_id(&away).await.map(drop),
    ] {
        let Err(Error::Invalid { fields, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["category_id"]);
    }
    assert_eq!(vista.list_values().await.unwrap(), all, "no refused write had an effect");
    let tart = cells([("name", "Tart".into())]);
    narrow.insert("20", &tart).await.unwrap();
    let chosen = narrow.insert_return_id(&tart).await.unwrap();
    narrow.replace_value("20", &cells([("name", "Pie".into())])).await.unwrap();
    narrow.patch_value("20", &price).await.unwrap();
    for id in ["20", &chosen] {
        assert_eq!(vista.get_value(id).await.unwrap().unwrap()["category_id"], 3.into());
        narrow.delete(id).await.unwrap();
    }
    assert_eq!(vista.list_values().await.unwrap(), all);
}

/// Number of operations of [`one_effect`], and of deliveries of each.
#[cfg(any(feature = "http", feature = "sql"))]
const OPERATIONS: (usize, usize) = (100, 10);

/// Checks that each operation of a write route has one effect over 1,000 deliveries, alone and in batches, and that the others are
/// answered with the row. The table has rows `0` to `9` with a column `n`; returns the number of expected changes.
#[cfg(any(feature = "http", feature = "sql"))]
pub(crate) async fn one_effect(shell: &(impl TableShell + ?Sized)) -> usize {
    let (operations, deliveries) = OPERATIONS;
    let write = |number: usize| {
        let n = i64::try_from(number).unwrap();
        let op = WriteOp::Patch { id: (number % 10).to_string(), record: cells([("n", n.into())]) };
        (format!("op_{number:03}"), op)
    };
    for round in 0..deliveries {
        for first in (0..operations).step_by(20) {
            let batch: Vec<_> = (first..first + 20).map(write).collect();
            match round % 2 {
                0 => assert!(shell.write_batch(&batch).await.iter().all(Result::is_ok)),
                _ => {
                    for (operation, op) in batch.iter().rev() {
                        let row = shell.write_once(operation, op).await.unwrap().record;
                        assert!(row.is_some_and(|row| row["n"] >= op.record().unwrap()["n"]), "{operation}");
                    }
                }
            }
        }
    }
    operations
}

/// Checks that a write whose connection is cut is retried without a second effect. Returns the number of expected changes of a
/// table with rows `0` to `9` and a column `n`.
#[cfg(any(feature = "http", feature = "postgres", feature = "mysql", feature = "surrealdb"))]
pub(crate) async fn one_effect_over_cuts(shell: &(impl TableShell + ?Sized), proxy: &CutProxy) -> usize {
    let writes = 60;
    for number in 0..writes {
        let n = i64::try_from(number).unwrap();
        let op = WriteOp::Patch { id: (number % 10).to_string(), record: cells([("n", n.into())]) };
        let operation = format!("op_{number:03}");
        proxy.cut_all();
        proxy.cut_after(u64::try_from(number * 37).unwrap());
        if let Err(error) = shell.write_once(&operation, &op).await {
            assert_ne!(error.kind(), ErrorKind::Permanent, "{error}");
        }
        proxy.cut_after(None);
        proxy.cut_all();
        let row = retried(|| shell.write_once(&operation, &op)).await.record.unwrap();
        assert_eq!(row["n"], n.into());
    }
    writes
}

fn muffin_price() -> Record {
    cells([("price", 1.into())])
}
