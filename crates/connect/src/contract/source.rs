//! Contract suite of all sources: reads of the same rows.

use diorama_core::record::{CborValue, Record, Rows};
use diorama_core::vista::{Capabilities, Error, Vista};
#[cfg(any(feature = "http", feature = "postgres", feature = "mysql", feature = "surrealdb"))]
use diorama_core::vista::{ErrorKind, Query, TableShell};
#[cfg(any(feature = "http", feature = "postgres", feature = "mysql", feature = "surrealdb"))]
use diorama_servers::CutProxy;

/// Rows that [`reads`] and [`writes`](super::writes) expect: `id,name,price,category_id` in this natural order.
pub(crate) const CSV: &str = "id,name,price,category_id\n\
    1,Cupcake,120,1\n2,Doughnut,135,1\n10,Tart,220,2\n4,Pie,299,2\n3,Cookies,,1\n6,Éclair,99,3\n7,Flan,20,3\n";

/// Returns [`CSV`] as records.
pub(crate) fn rows() -> Vec<(String, Record)> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        let number = |text: &str| text.parse::<i64>().map_or(CborValue::Null, CborValue::from);
        let record = [("id", number(cells[0])), ("name", cells[1].into()), ("price", number(cells[2]))];
        let record = record.into_iter().chain([("category_id", number(cells[3]))]);
        (cells[0].to_string(), record.map(|(column, value)| (column.to_string(), value)).collect())
    };
    CSV.lines().skip(1).map(row).collect()
}

/// Order of a source's rows without a requested order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Natural {
    /// As in [`CSV`].
    #[cfg_attr(not(feature = "csv"), expect(dead_code, reason = "sources of files and rowids"))]
    Stored,
    /// By id.
    #[cfg_attr(
        not(any(feature = "mysql", feature = "postgres", feature = "surrealdb")),
        expect(dead_code, reason = "databases without rowids")
    )]
    ById,
}

impl Natural {
    /// Sorts `ids`, which are in the order of [`CSV`].
    fn sort(self, ids: &str) -> String {
        let mut ids: Vec<&str> = ids.split_whitespace().collect();
        if let Natural::ById = self {
            ids.sort_by_key(|id| id.parse::<i64>().ok());
        }
        ids.join(" ")
    }

    /// Returns all ids in pages of three.
    fn pages(self) -> Vec<String> {
        let all = self.sort("1 2 10 4 3 6 7");
        all.split(' ').collect::<Vec<_>>().chunks(3).map(|page| page.join(" ")).collect()
    }
}

fn ids(rows: &Rows) -> String {
    rows.ids().collect::<Vec<_>>().join(" ")
}

async fn listed(vista: &Vista) -> String {
    ids(&vista.list_values().await.unwrap())
}

/// Checks that advertised reads work and the others are refused.
pub(crate) async fn reads(vista: &Vista, natural: Natural) {
    assert_eq!(listed(vista).await, natural.sort("1 2 10 4 3 6 7"));
    let tart = vista.get_value("10").await.unwrap().unwrap();
    assert_eq!(tart, rows()[2].1);
    assert_eq!(vista.get_value("11").await.unwrap(), None);
    assert_eq!(vista.get_value("010").await.unwrap(), None);
    assert_eq!(vista.get_some_value().await.unwrap().unwrap().0, "1");
    let can = vista.capabilities();
    filters(vista, can.can_filter, natural).await;
    orders(vista, can.can_order).await;
    searches(vista, can.can_search).await;
    pages(vista, can, natural).await;
}

pub(super) fn refused<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Unsupported { .. }))
}

async fn filters(vista: &Vista, can: bool, natural: Natural) {
    let mut narrow = vista.clone();
    if !can {
        return assert!(refused(&narrow.add_condition_eq("category_id", 1.into())));
    }
    narrow.add_condition_eq("category_id", 1.into()).unwrap();
    assert_eq!(listed(&narrow).await, "1 2 3");
    narrow.add_condition_eq("price", 135.0.into()).unwrap();
    assert_eq!(listed(&narrow).await, "2", "conditions accumulate, and 135 equals 135.0");
    assert_eq!(narrow.get_value("1").await.unwrap(), None, "the row is outside of the narrowed set");
    narrow.add_condition_eq("name", "Tart".into()).unwrap();
    assert_eq!(listed(&narrow).await, "");
    assert_eq!(listed(vista).await, natural.sort("1 2 10 4 3 6 7"), "the original handle is unchanged");
    let mut by_id = vista.clone();
    by_id.with_id("10").unwrap();
    assert_eq!(listed(&by_id).await, "10");
    let mut text = vista.clone();
    text.add_condition_eq("price", "135".into()).unwrap();
    assert_eq!(listed(&text).await, "", "a text never equals a number");
    assert!(matches!(vista.clone().add_condition_eq("nope", 1.into()), Err(Error::Invalid { .. })));
}

async fn orders(vista: &Vista, can: bool) {
    let mut sorted = vista.clone();
    if !can {
        return assert!(refused(&sorted.add_order("price", false)));
    }
    sorted.add_order("price", false).unwrap();
    assert_eq!(listed(&sorted).await, "7 6 1 2 10 4 3", "as numbers, nulls last");
    sorted.add_order("price", true).unwrap();
    assert_eq!(listed(&sorted).await, "4 10 2 1 6 7 3", "replaced, nulls still last");
    sorted.add_order("category_id", true).unwrap();
    assert_eq!(listed(&sorted).await, "7 6 10 4 3 2 1", "ties by id as a number, in the direction of the order");
    sorted.add_order("name", false).unwrap();
    assert_eq!(listed(&sorted).await, "3 1 2 7 4 10 6", "by code points");
}

async fn searches(vista: &Vista, can: bool) {
    let mut found = vista.clone();
    if !can {
        return assert!(refused(&found.add_search("tart")));
    }
    found.add_search("éCLAIR").unwrap();
    assert_eq!(listed(&found).await, "6");
    found.add_search("c 1").unwrap();
    assert_eq!(listed(&found).await, "1 3", "replaced; every word counts, in any column");
    if vista.capabilities().can_count {
        assert_eq!(found.get_count().await.unwrap(), 2);
    }
}

async fn pages(vista: &Vista, can: Capabilities, natural: Natural) {
    if can.can_count {
        assert_eq!(vista.get_count().await.unwrap(), 7);
    } else {
        assert!(refused(&vista.get_count().await));
    }
    let mut paged = vista.clone();
    if !can.can_fetch_page {
        assert!(refused(&paged.set_page_size(3)));
        return assert!(refused(&paged.fetch_page(1).await));
    }
    paged.set_page_size(3).unwrap();
    let mut seen = Vec::new();
    for number in 1..=4 {
        seen.push(ids(&paged.fetch_page(number).await.unwrap()));
    }
    let expected = natural.pages();
    assert_eq!((&seen[..3], seen[3].as_str()), (expected.as_slice(), ""));
    assert!(matches!(paged.fetch_page(0).await, Err(Error::Invalid { .. })));
    assert_eq!(walk(&paged).await, expected);
    paged.add_order("category_id", false).unwrap();
    assert_eq!(ids(&paged.fetch_page(2).await.unwrap()), "4 10 6");
    assert_eq!(walk(&paged).await, ["1 2 3", "4 10 6", "7"]);
    paged.add_condition_eq("category_id", 3.into()).unwrap();
    assert_eq!((paged.get_count().await.unwrap(), walk(&paged).await), (2, vec!["6 7".to_string()]));
    let error = vista.fetch_next(Some("?".into())).await;
    assert!(matches!(error, Err(Error::Invalid { .. })), "a token of another source");
}

async fn walk(vista: &Vista) -> Vec<String> {
    let (mut seen, mut token) = (Vec::new(), None);
    loop {
        let (rows, next) = vista.fetch_next(token).await.unwrap();
        seen.push(ids(&rows));
        token = next;
        if token.is_none() {
            return seen;
        }
    }
}

/// Checks that a list whose connection is cut is an error that may be retried, never a part of the rows. The source has `count`
/// rows behind `proxy`.
#[cfg(any(feature = "http", feature = "postgres", feature = "mysql", feature = "surrealdb"))]
pub(crate) async fn whole_or_error(shell: &(impl TableShell + ?Sized), proxy: &CutProxy, count: usize) {
    let before = proxy.received();
    assert_eq!(shell.list(&Query::default()).await.unwrap().len(), count);
    let size = proxy.received() - before;
    let (mut cut, mut whole) = (0, 0);
    for part in 0..24 {
        // The connections opened from now on are cut at this byte.
        proxy.cut_all();
        proxy.cut_after(size * part / 20 + 7 * part);
        match shell.list(&Query::default()).await {
            Ok(rows) => {
                assert_eq!(rows.len(), count, "cut after {part}/20");
                whole += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
                cut += 1;
            }
        }
    }
    proxy.cut_after(None);
    assert!(cut > 15 && whole > 0, "{cut} lists were cut, {whole} were not");
    let all = Query::default();
    assert_eq!(retried(|| shell.list(&all)).await.len(), count);
}

/// Repeats `call` until it succeeds; each of a few idle connections may have been cut.
#[cfg(any(feature = "http", feature = "postgres", feature = "mysql", feature = "surrealdb"))]
pub(super) async fn retried<T, F: Future<Output = Result<T, Error>>>(call: impl Fn() -> F) -> T {
    for _ in 0..20 {
        match call().await {
            Ok(done) => return done,
            Err(error) => assert_ne!(error.kind(), ErrorKind::Permanent, "{error}"),
        }
    }
    panic!("the server is reachable, but no call succeeds");
}

/// Random queries, for the equivalence of SQL and the evaluator.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
pub(crate) mod queries {
    use diorama_core::record::CborValue;
    use diorama_core::vista::query::{IsTest, Test};
    use diorama_core::vista::{Filter, OrderTerm, Query};
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = CborValue> {
        prop_oneof![
            (-2i64..4).prop_map(CborValue::from),
            prop_oneof![Just(0.5), Just(1.0), Just(-1.5)].prop_map(CborValue::from),
            prop_oneof![Just(""), Just("a"), Just("A"), Just("1"), Just("é")].prop_map(CborValue::from),
            any::<bool>().prop_map(CborValue::from),
            Just(CborValue::Null),
        ]
    }

    fn filter(columns: &'static [&'static str]) -> impl Strategy<Value = Filter> {
        let test =
            (value(), proptest::collection::vec(value(), 0..3), 0..8).prop_map(|(value, values, kind)| match kind {
                0 => Test::Eq(value),
                1 => Test::Neq(value),
                2 => Test::Gt(value),
                3 => Test::Gte(value),
                4 => Test::Lt(value),
                5 => Test::Lte(value),
                6 => Test::In(values),
                _ => Test::Is(IsTest::Null),
            });
        let leaf = (proptest::sample::select(columns), test).prop_map(|(column, test)| Filter::test(column, test));
        leaf.prop_recursive(2, 6, 3, |inner| {
            prop_oneof![
                4 => proptest::collection::vec(inner.clone(), 0..3).prop_map(Filter::All),
                1 => proptest::collection::vec(inner.clone(), 0..3).prop_map(Filter::Any),
                1 => inner.prop_map(Filter::not),
            ]
        })
    }

    /// Returns random queries over `columns`.
    pub(crate) fn query(columns: &'static [&'static str]) -> impl Strategy<Value = Query> {
        let term = (proptest::sample::select(columns), any::<bool>(), any::<bool>());
        let order = proptest::collection::vec(term, 0..3);
        (filter(columns), order, proptest::option::of(0u64..5), 0u64..4).prop_map(|(filter, order, limit, offset)| {
            let order = order.into_iter().map(|(column, descending, nulls_first)| OrderTerm {
                nulls_first,
                ..OrderTerm::new(column, descending)
            });
            Query { filter, order: order.collect(), limit, offset, ..Query::default() }
        })
    }
}
