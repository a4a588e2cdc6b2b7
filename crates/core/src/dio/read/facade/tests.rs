//! Paging by cursor while rows come, go and change.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::plan::{cursor, plan, select};
use crate::record::{Body, CborValue, Layout, Record};
use crate::table::{ORDINAL_STEP, Table};
use crate::vista::query::{Cursor, JsonRow};
use crate::vista::{Column, ColumnType, Filter, OrderTerm, Query, Schema};

fn schema() -> Schema {
    let column = |name: &str| Column::new(name, ColumnType::Json);
    let cost = Column::new("cost", ColumnType::Decimal);
    Schema::new("id", vec![Column::new("id", ColumnType::Integer), column("a"), column("b"), cost])
}

fn cell() -> impl Strategy<Value = Option<CborValue>> {
    prop_oneof![
        Just(None),
        Just(Some(CborValue::Null)),
        (0i64..3).prop_map(|n| Some(n.into())),
        (0u8..4).prop_map(|n| Some((f64::from(n) / 2.0).into())),
        "[ab]{0,2}".prop_map(|text| Some(text.into())),
        any::<bool>().prop_map(|b| Some(CborValue::Bool(b))),
        Just(Some(CborValue::Array(vec![1.into(), "é".into()]))),
    ]
}

fn row() -> impl Strategy<Value = Record> {
    (cell(), cell(), proptest::option::of("-?[0-9]{1,2}(\\.[05]0?)?")).prop_map(|(a, b, cost)| {
        let cells = [("a", a), ("b", b), ("cost", cost.map(CborValue::from))];
        cells.into_iter().filter_map(|(name, cell)| Some((name.to_string(), cell?))).collect()
    })
}

/// What happens between two pages; ids and places are taken modulo what is there.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, Record),
    Insert(u8, Record),
    Delete(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (any::<u8>(), row()).prop_map(|(id, row)| Step::Put(id, row)),
        (any::<u8>(), row()).prop_map(|(place, row)| Step::Insert(place, row)),
        any::<u8>().prop_map(Step::Delete),
    ]
}

fn order() -> impl Strategy<Value = Vec<OrderTerm>> {
    let column = prop_oneof![Just("a"), Just("b"), Just("cost"), Just("a->0"), Just("id")];
    let term = (column, any::<bool>(), any::<bool>());
    let term =
        term.prop_map(|(column, descending, nulls_first)| OrderTerm { column: column.into(), descending, nulls_first });
    proptest::collection::vec(term, 0..4)
}

/// Ids are not in the order of their slots, some ordinals are shared.
fn ordinal(place: u8) -> u64 {
    u64::from(place % 8) * ORDINAL_STEP
}

fn body(id: &str, row: &Record) -> Body {
    Body::encode(id, row, &Layout::new("id", true, ["id", "a", "b", "cost"]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn whoever_pages_by_cursor_sees_every_untouched_row_exactly_once(
        rows in proptest::collection::vec((row(), any::<u8>()), 0..25),
        order in order(), filtered: bool, limit in 1u64..5,
        steps in proptest::collection::vec(proptest::collection::vec(step(), 0..4), 12),
    ) {
        let mut table = Table::new();
        for (at, (row, place)) in rows.iter().enumerate() {
            let id = (at * 7 % 26).to_string();
            table.upsert(&id, &body(&id, row), Some(ordinal(*place)));
        }
        let filter = if filtered { Filter::test("a", crate::vista::query::Test::IsDistinct(1.into())) } else { Filter::default() };
        let query = Query { filter, order, limit: Some(limit), ..Query::default() };
        let prepared = query.prepare(&schema());
        let mut waiting: BTreeSet<String> =
            table.natural(0).filter(|row| prepared.matches(&JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..])))).map(|row| row.id().to_string()).collect();
        let mut touched = BTreeSet::new();
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut steps = steps.into_iter();
        let mut after = Cursor::start();
        let mut fresh = 1_000;
        loop {
            // As it travels: through its text.
            let page = Query { after: Some(Cursor::parse(&after.to_string()).unwrap()), ..query.clone() };
            let selection = select(&table, &page, &schema()).unwrap();
            let whole = select(&table, &Query { limit: None, ..query.clone() }, &schema()).unwrap();
            prop_assert_eq!(selection.total, whole.total);
            let from = usize::try_from(selection.before).unwrap();
            prop_assert_eq!(&selection.slots[..], &whole.slots[from..from + selection.slots.len()], "a page is a slice of the whole");
            for slot in &selection.slots {
                *seen.entry(table.at(*slot).unwrap().id().to_string()).or_default() += 1;
            }
            match selection.next(&table, &page, &schema()) {
                Some(next) => after = next,
                None => break,
            }
            for step in steps.next().unwrap_or_default() {
                let nth = |at: u8| table.natural(usize::from(at) % table.len().max(1)).next().map(|row| row.id().to_string());
                match step {
                    Step::Insert(place, row) => {
                        fresh += 1;
                        let id = fresh.to_string();
                        table.upsert(&id, &body(&id, &row), Some(ordinal(place)));
                        touched.insert(id);
                    }
                    Step::Put(at, row) => if let Some(id) = nth(at) {
                        table.upsert(&id, &body(&id, &row), None);
                        touched.insert(id);
                    },
                    Step::Delete(at) => if let Some(id) = nth(at) {
                        table.remove(&id);
                        touched.insert(id);
                    },
                }
            }
        }
        waiting.retain(|id| !touched.contains(id));
        seen.retain(|id, _| !touched.contains(id));
        prop_assert!(seen.values().all(|times| *times == 1), "{:?}", seen);
        prop_assert_eq!(seen.into_keys().collect::<BTreeSet<_>>(), waiting);
    }
}

#[test]
fn in_natural_order_a_page_far_in_touches_its_own_rows_only() {
    let mut table = Table::new();
    for id in 0..20_000 {
        let id = id.to_string();
        table.upsert(&id, &body(&id, &Record::default()), None);
    }
    let query = Query { limit: Some(10), ..Query::default() };
    let deep = cursor(&table.natural(15_000).next().unwrap(), &query, &schema());
    table.remove("15000");
    let query = Query { after: Some(deep), ..query };
    assert_eq!(plan(&table, &query, &schema()).unwrap().cost(), 10);
    let selection = select(&table, &query, &schema()).unwrap();
    assert_eq!(selection.examined, 10);
    assert_eq!((selection.before, table.at(selection.slots[0]).unwrap().id()), (15_000, "15001"));
}
