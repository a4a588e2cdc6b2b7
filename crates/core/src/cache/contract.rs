//! Contract of every [`CacheBackend`], for the tests of backends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{CacheBackend, CacheTable, CachedRow};
use crate::record::{Id, Record};

/// Creates a row with the columns `id` and `text`.
pub fn row(id: &str, text: &str) -> CachedRow {
    let columns = [("id".to_string(), id.into()), ("text".to_string(), text.into())];
    CachedRow::new(id, Record::from_iter(columns), i64::try_from(text.len()).ok())
}

/// Loads a table. Returns its rows by id, and its meta.
///
/// # Panics
/// If it cannot be loaded, has a damaged row, or gives a row twice.
pub async fn contents(table: &dyn CacheTable) -> (BTreeMap<String, Record>, Option<Bytes>) {
    let mut rows = BTreeMap::new();
    let mut take = |batch: Vec<CachedRow>| {
        for row in batch {
            let twice = rows.insert(row.id().to_string(), row.record().unwrap());
            assert_eq!(twice, None, "{} is given twice", row.id());
        }
    };
    let meta = table.load(&mut take).await.unwrap();
    (rows, meta)
}

fn rows<const N: usize>(rows: [(&str, &str); N]) -> BTreeMap<String, Record> {
    rows.into_iter().map(|(id, text)| (id.to_string(), row(id, text).record().unwrap())).collect()
}

/// Checks everything that a Lens asks of a backend without rows. Closes it at the end.
///
/// # Panics
/// If the backend breaks the contract.
pub async fn keeps_the_contract(cache: &dyn CacheBackend) {
    let table = cache.open_table("products").await.unwrap();
    let other = cache.open_table("Orders and \"more\"; --").await.unwrap();
    assert_eq!(contents(&*table).await, (rows([]), None));
    assert_eq!(table.meta().await.unwrap(), None);
    assert_eq!(contents(&*other).await, (rows([]), None));

    let puts = vec![row("a", "first"), row("", "the empty id"), row("ä/\u{0}'", "odd")];
    table.commit(puts, vec![], Some("one".into())).await.unwrap();
    other.commit(vec![row("a", "other")], vec![], Some("more".into())).await.unwrap();
    let expected = rows([("a", "first"), ("", "the empty id"), ("ä/\u{0}'", "odd")]);
    assert_eq!(contents(&*table).await, (expected, Some("one".into())));
    assert_eq!(table.meta().await.unwrap(), Some("one".into()));

    // Known rows are replaced, unknown ones need not be there to be removed, no meta leaves the meta alone.
    let deletes = vec![Id::from(""), "nothing".into()];
    table.commit(vec![row("a", "second"), row("b", "new")], deletes, None).await.unwrap();
    let expected = rows([("a", "second"), ("b", "new"), ("ä/\u{0}'", "odd")]);
    assert_eq!(contents(&*table).await, (expected, Some("one".into())));
    table.commit(vec![], vec![], Some("two".into())).await.unwrap();
    assert_eq!(contents(&*table).await.1, Some("two".into()));

    // A second handle is the same table; clearing one leaves the others.
    let again = cache.open_table("products").await.unwrap();
    again.clear().await.unwrap();
    assert_eq!(contents(&*table).await, (rows([]), None));
    table.commit(vec![row("c", "third")], vec![], Some("three".into())).await.unwrap();
    assert_eq!(contents(&*again).await, (rows([("c", "third")]), Some("three".into())));
    assert_eq!(contents(&*other).await, (rows([("a", "other")]), Some("more".into())));

    // As many rows as a seed commits at a time.
    let many = (0..20_000).map(|at| row(&at.to_string(), "many")).collect();
    table.commit(many, vec!["c".into()], None).await.unwrap();
    assert_eq!(contents(&*table).await.0.len(), 20_000);
    let odd: Vec<Id> = (0..20_000).filter(|at| at % 2 == 1).map(|at| Id::from(at.to_string())).collect();
    table.commit(vec![], odd, Some("four".into())).await.unwrap();
    let (left, meta) = contents(&*table).await;
    assert_eq!((left.len(), meta), (10_000, Some("four".into())));
    cache.close().await;
}
