//! Every plan against a naive evaluation: filter all, sort all, take the page.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::record::{Body, CborValue, Record};
use crate::state::{Rules, State};
use crate::table::{Index, TieBreak};
use crate::vista::query::{IsTest, Test};
use crate::vista::{Column, ColumnType, Filter, OrderTerm};

fn schema() -> Schema {
    let column = |name: &str, ty| Column::new(name, ty);
    Schema::new(
        "id",
        vec![
            column("id", ColumnType::Integer),
            column("a", ColumnType::Json),
            column("b", ColumnType::Json),
            column("d", ColumnType::Decimal),
        ],
    )
}

fn value() -> impl Strategy<Value = CborValue> {
    let texts = ["", "a", "ab", "é", "z\0", "1", "1.50"].map(CborValue::from);
    let long = (0..3u8).prop_map(|end| format!("{}{end}", "long".repeat(30)).into());
    prop_oneof![
        5 => (-1i64..3).prop_map(CborValue::from),
        2 => (-2i8..4).prop_map(|number| (f64::from(number) / 2.0).into()),
        3 => prop::sample::select(texts.to_vec()),
        1 => long,
        1 => any::<bool>().prop_map(CborValue::from),
        1 => Just(CborValue::Null),
        1 => Just(CborValue::Array(vec![1.into(), CborValue::Null])),
    ]
}

fn column() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "a", "b", "d", "id", "a->0"])
}

fn row() -> impl Strategy<Value = Record> {
    [value(), value(), value()].prop_flat_map(|cells| {
        proptest::bits::u8::between(0, 3).prop_map(move |kept| {
            let names = ["a", "b", "d"].into_iter().zip(&cells).enumerate();
            names
                .filter(|(at, _)| kept & 1 << at == 0)
                .map(|(_, (name, cell))| (name.to_string(), cell.clone()))
                .collect()
        })
    })
}

fn leaf() -> impl Strategy<Value = Filter> {
    let truth = prop::sample::select(vec![IsTest::Null, IsTest::True, IsTest::False, IsTest::Unknown]);
    let test = prop_oneof![
        6 => value().prop_map(Test::Eq),
        3 => proptest::collection::vec(value(), 0..4).prop_map(Test::In),
        1 => value().prop_map(Test::Neq),
        2 => value().prop_map(Test::Gt),
        2 => value().prop_map(Test::Gte),
        2 => value().prop_map(Test::Lt),
        2 => value().prop_map(Test::Lte),
        1 => truth.prop_map(Test::Is),
        1 => value().prop_map(Test::IsDistinct),
        1 => prop::sample::select(vec!["a*", "*b", "lo*2", "*"]).prop_map(|text| Test::like(text).unwrap()),
        1 => Just(Test::imatches("[A-C]|1").unwrap()),
    ];
    (column(), test).prop_map(|(column, test)| Filter::test(column, test))
}

fn filter() -> impl Strategy<Value = Filter> {
    let inner = leaf().prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Filter::All),
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Filter::Any),
            inner.prop_map(Filter::not),
        ]
    });
    proptest::collection::vec(inner, 0..3).prop_map(Filter::All)
}

fn terms(most: usize) -> impl Strategy<Value = Vec<OrderTerm>> {
    let term = (column(), any::<bool>(), proptest::bool::weighted(0.2))
        .prop_map(|(column, descending, nulls_first)| OrderTerm { column: column.into(), descending, nulls_first });
    proptest::collection::vec(term, 0..=most)
}

fn spec() -> impl Strategy<Value = Spec> {
    let tie = prop_oneof![Just(TieBreak::Natural), any::<bool>().prop_map(|descending| TieBreak::Id { descending })];
    (terms(3), tie).prop_map(|(terms, tie)| Spec { terms, tie })
}

fn query() -> impl Strategy<Value = Query> {
    let words = prop::sample::select(vec!["a", "long 1", "é", "ong", "1", "b a", "~"]).prop_map(str::to_string);
    let search = proptest::option::weighted(0.3, words);
    (filter(), search, terms(3), proptest::option::weighted(0.8, 0u64..8), 0u64..12).prop_map(
        |(filter, search, order, limit, offset)| Query { filter, search, order, limit, offset, ..Query::default() },
    )
}

/// Slots of all matching rows, in order.
fn naive(table: &Table, query: &Query, schema: &Schema) -> Vec<Slot> {
    let prepared = query.prepare(schema);
    let mut rows: Vec<_> = table.natural(0).filter(|row| prepared.matches(&fields(row))).collect();
    if !query.order.is_empty() {
        rows.sort_by(|a, b| prepared.compare((a.id(), &fields(a)), (b.id(), &fields(b))));
    }
    rows.iter().map(RowRef::slot).collect()
}

fn check(table: &Table, query: &Query, schema: &Schema) {
    let all = naive(table, query, schema);
    let plan = plan(table, query, schema).unwrap();
    let selection = plan.run(table, query, schema, &Meter::unbounded()).unwrap();
    let plan_text = || format!("{plan:?}");
    let page = all.iter().skip(clamp(query.offset)).take(query.limit.map_or(usize::MAX, clamp));
    assert!(selection.slots.iter().eq(page), "{:?} of {all:?} by {}", selection.slots, plan_text());
    assert_eq!((selection.total, selection.before), (all.len() as u64, query.offset), "{}", plan_text());
    // Pages after each row.
    for (at, slot) in all.iter().enumerate().step_by(3) {
        let row = table.at(*slot).unwrap();
        let after = Some(Cursor::parse(&cursor(&row, query, schema).to_string()).unwrap());
        let behind = Query { after, offset: 0, ..query.clone() };
        let selection = select(table, &behind, schema).unwrap();
        let page = all.iter().skip(at + 1).take(query.limit.map_or(usize::MAX, clamp));
        assert!(selection.slots.iter().eq(page), "behind {slot}: {:?} of {all:?} by {}", selection.slots, plan_text());
        assert_eq!(
            (selection.total, selection.before),
            (all.len() as u64, at as u64 + 1),
            "behind {slot}: {}",
            plan_text()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_plan_finds_what_a_scan_finds(
        rows in proptest::collection::vec((row(), 0u64..8), 0..60),
        specs in proptest::collection::vec(spec(), 0..4),
        changes in proptest::collection::vec((0u8..70, proptest::option::weighted(0.7, row())), 0..12),
        queries in proptest::collection::vec(query(), 1..6),
    ) {
        let schema = schema();
        let mut table = Table::new();
        let body = |id: &str, row: &Record| Body::encode(id, row, schema.layout());
        for (at, (row, place)) in rows.iter().enumerate() {
            let id = (at * 7 % 61).to_string();
            table.upsert(&id, &body(&id, row), Some(*place));
        }
        for spec in specs {
            table.attach(Index::build(spec, &table, &schema), &table.clone());
        }
        for (id, row) in changes {
            let id = id.to_string();
            match row {
                Some(row) => drop(table.upsert(&id, &body(&id, &row), None)),
                None => drop(table.remove(&id)),
            }
        }
        for query in queries {
            check(&table, &query, &schema);
                        // With the indexes that the query wants.
            let mut served = table.clone();
            for spec in choose::wanted_indexes(&table, &query) {
                served.attach(Index::build(spec, &served, &schema), &served.clone());
            }
            check(&served, &query, &schema);
            let mut changed = served.clone();
            if let Some(id) = served.natural(0).next().map(|row| row.id().to_string()) {
                changed.remove(&id);
            }
            check_repeated(&[&table, &served, &changed, &served, &table], &query, &schema);
        }
    }
}

/// Checks that a prepared query over changing tables is answered as a new query.
fn check_repeated(tables: &[&Table], query: &Query, schema: &Schema) {
    let rules = Arc::new(Rules::new(Arc::new(schema.clone())));
    let repeated = PreparedQuery::new(query.clone());
    for (number, table) in tables.iter().enumerate() {
        let state = Arc::new(State::restore(Arc::clone(&rules), "epoch", 7, (*table).clone()));
        let all = naive(table, query, schema);
        for offset in [query.offset, number as u64, query.offset + 1, query.offset + 1, query.offset] {
            let page = Page { offset, ..Page::of(query) };
            let cached_plan = repeated.cached_plan(&state, page, schema).unwrap();
            let selection = cached_plan.run(&state, repeated.query(), page, schema, &Meter::unbounded()).unwrap();
            let wanted = all.iter().skip(clamp(offset)).take(page.max_rows());
            assert!(selection.slots.iter().eq(wanted), "{page:?} of {all:?}: {:?} by {cached_plan:?}", selection.slots);
            assert_eq!((selection.total, selection.before), (all.len() as u64, offset), "{cached_plan:?}");
        }
    }
}

/// 20,000 rows: `a` has 20 values, `b` 5,000, `d` is null in every tenth row.
fn big() -> Table {
    let (schema, mut builder) = (schema(), crate::table::TableBuilder::new());
    for at in 0..20_000u64 {
        let mut row = Record::new();
        row.insert("a", CborValue::from(at % 20));
        row.insert("b", CborValue::from(at * 7919 % 5_000));
        if at % 10 != 0 {
            row.insert("d", CborValue::from((at * 31 % 977).to_string()));
        }
        let id = at.to_string();
        builder.push(&id, &Body::encode(&id, &row, schema.layout()), (at + 1) * crate::table::ORDINAL_STEP);
    }
    builder.finish()
}

/// Runs the query without and with its wanted indexes. Returns the numbers of rows examined, and the plan with them.
fn examined(table: &Table, query: &Query) -> (u64, u64, Explanation) {
    let (schema, mut served) = (schema(), table.clone());
    let before = plan(table, query, &schema).unwrap();
    for spec in before.wanted_indexes() {
        served.attach(Index::build(spec.clone(), &served, &schema), &served.clone());
    }
    let after = plan(&served, query, &schema).unwrap();
    let (one, two) = (
        before.run(table, query, &schema, &Meter::unbounded()).unwrap(),
        after.run(&served, query, &schema, &Meter::unbounded()).unwrap(),
    );
    assert_eq!((one.slots, one.total), (two.slots, two.total));
    (one.examined, two.examined, after.explain(&served, query))
}

#[test]
fn with_its_wanted_indexes_a_query_examines_its_page_only() {
    let table = big();
    let eq = |column: &str, value: u64| Filter::eq(column, value.into());
    let among = |values: &[u64]| Filter::test("a", Test::In(values.iter().map(|value| (*value).into()).collect()));
    let all = |parts: Vec<Filter>| Filter::All(parts);
    let from = |value: u64| Filter::test("b", Test::Gte(value.into()));
    let page = Query { limit: Some(50), offset: 300, ..Query::default() };
    let down = |column: &str| vec![OrderTerm::new(column, true)];
    let up = |column: &str| vec![OrderTerm::new(column, false)];
    let both = vec![OrderTerm::new("b", true), OrderTerm::new("d", false)];
    for (what, query) in [
        ("order", Query { order: up("d"), ..page.clone() }),
        ("order, the other way", Query { order: down("d"), offset: 19_000, ..page.clone() }),
        ("two columns", Query { order: both, ..page.clone() }),
        ("equal", Query { filter: eq("a", 7), ..page.clone() }),
        ("equal and sorted", Query { filter: eq("a", 7), order: down("b"), ..page.clone() }),
        ("in", Query { filter: among(&[3, 5, 8]), ..page.clone() }),
        ("in and sorted", Query { filter: among(&[3, 5, 8]), order: up("d"), ..page.clone() }),
        ("in, sorted by it", Query { filter: among(&[3, 5, 8]), order: down("a"), ..page.clone() }),
        ("range, sorted by it", Query { filter: from(2_000), order: up("b"), ..page.clone() }),
        (
            "equal, range, sorted by it",
            Query { filter: all(vec![eq("a", 2), from(2_000)]), order: up("b"), ..page.clone() },
        ),
        (
            "a count",
            Query { filter: all(vec![eq("a", 2), from(2_000)]), limit: Some(0), offset: 0, ..Query::default() },
        ),
    ] {
        let (scanned, walked, explained) = examined(&table, &query);
        assert_eq!(scanned, 20_000, "{what}");
        assert!(walked <= 50, "{what}: {walked} {explained:?}");
        assert!(explained.counted_by_index, "{what}");
    }
    // A range in natural order is walked, with the count from its index.
    let (_, walked, explained) = examined(&table, &Query { filter: from(2_500), ..page.clone() });
    assert!(walked < 1_500 && explained.counted_by_index, "{walked} {explained:?}");
    // Words are looked up in the text index; a sorted page of them is walked.
    let search = |words: &str| Query { search: Some(words.into()), ..page.clone() };
    let (scanned, walked, explained) = examined(&table, &search("77"));
    assert!(scanned == 20_000 && walked <= 50, "{walked} {explained:?}");
    let (_, walked, explained) = examined(&table, &Query { order: up("d"), ..search("1") });
    assert!(walked < 1_000 && explained.access == "index", "{walked} {explained:?}");
    // Branches of an `or`, each with its own index.
    let either = Filter::Any(vec![eq("b", 17), eq("d", 5)]);
    let (_, walked, explained) = examined(&table, &Query { filter: either, order: up("d"), ..Query::default() });
    assert!(walked < 40 && explained.access == "some", "{walked} {explained:?}");
}
