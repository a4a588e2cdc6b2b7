//! Indexes against rows sorted by the comparator, while the table changes.

use proptest::prelude::*;

use super::index::{Index, Spec, TieBreak};
use super::*;
use crate::record::{CborValue, Layout, Record};
use crate::vista::query::JsonRow;
use crate::vista::{Column, ColumnType, OrderTerm, Query, Schema};

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

fn cell() -> impl Strategy<Value = Option<CborValue>> {
    let texts = ["", "a", "ab", "é", "z\0", "10", "1.50"].map(CborValue::from);
    // Longer than what is kept of a key, and different behind that.
    let long = (0..3u8).prop_map(|end| format!("{}{end}", "long".repeat(30)).into());
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(CborValue::Null)),
        3 => (-2i64..3).prop_map(|number| Some(number.into())),
        2 => (-4i8..5).prop_map(|number| Some((f64::from(number) / 2.0).into())),
        2 => prop::sample::select(texts.to_vec()).prop_map(Some),
        2 => long.prop_map(Some),
        1 => any::<bool>().prop_map(|value| Some(value.into())),
        1 => Just(Some(CborValue::Array(vec![1.into(), CborValue::Null]))),
    ]
}

type Cells = [Option<CborValue>; 3];

fn body(id: u8, cells: &Cells, layout: &Layout) -> Body {
    let mut record = Record::new();
    for (name, cell) in ["a", "b", "d"].into_iter().zip(cells) {
        if let Some(cell) = cell {
            record.insert(name, cell.clone());
        }
    }
    Body::encode(&id.to_string(), &record, layout)
}

fn term() -> impl Strategy<Value = OrderTerm> {
    (prop::sample::select(vec!["a", "b", "d"]), any::<bool>(), any::<bool>())
        .prop_map(|(column, descending, nulls_first)| OrderTerm { column: column.into(), descending, nulls_first })
}

fn spec() -> impl Strategy<Value = Spec> {
    let tie = prop_oneof![Just(TieBreak::Natural), any::<bool>().prop_map(|descending| TieBreak::Id { descending })];
    let sorted = (proptest::collection::vec(term(), 0..3), tie).prop_map(|(terms, tie)| Spec { terms, tie });
    prop_oneof![8 => sorted, 1 => Just(Spec::words())]
}

#[derive(Clone, Debug)]
enum Step {
    Write(u8, Cells, Option<Ordinal>),
    Remove(u8),
    Move(u8, Ordinal),
    Many(Vec<(u8, Option<Cells>)>),
    /// An index is built here and taken on later.
    Build(Spec),
    Attach,
}

fn step() -> impl Strategy<Value = Step> {
    let cells = || [cell(), cell(), cell()];
    let many = (any::<u8>(), proptest::option::weighted(0.8, cells()));
    prop_oneof![
        6 => (any::<u8>(), cells(), proptest::option::of(0u64..9)).prop_map(|(id, cells, at)| Step::Write(id, cells, at)),
        2 => any::<u8>().prop_map(Step::Remove),
        1 => (any::<u8>(), 0u64..9).prop_map(|(id, at)| Step::Move(id, at)),
        2 => proptest::collection::vec(many, 0..60).prop_map(Step::Many),
        1 => spec().prop_map(Step::Build),
        1 => Just(Step::Attach),
    ]
}

fn write(table: &mut Table, id: u8, cells: &Cells, at: Option<Ordinal>, schema: &Schema) {
    table.upsert(&id.to_string(), &body(id, cells, schema.layout()), at);
}

/// The rows in the order of `spec`, by the comparator.
fn expected(table: &Table, spec: &Spec, schema: &Schema) -> Vec<Slot> {
    let mut terms = spec.terms.clone();
    if let TieBreak::Id { descending } = spec.tie {
        // The direction of ties is that of the last term: a column that no row has.
        terms.push(OrderTerm::new("none", descending));
    }
    let prepared = Query { order: terms, ..Query::default() }.prepare(schema);
    let mut rows: Vec<_> = table.natural(0).collect();
    rows.sort_by(|x, y| {
        let (fields_x, fields_y) = [x, y].map(|row| JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..]))).into();
        let id = |row: &RowRef<'_>| if spec.tie == TieBreak::Natural { String::new() } else { row.id().to_string() };
        prepared.compare((&id(x), &fields_x), (&id(y), &fields_y))
    });
    rows.iter().map(RowRef::slot).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn indexes_follow_every_change_of_the_table(
        specs in proptest::collection::vec(spec(), 1..4),
        seeded in 0u8..120,
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let schema = schema();
        let mut table = Table::new();
        for id in 0..seeded {
            let cells = [Some(i64::from(id % 7).into()), None, Some("1.5".into())];
            write(&mut table, id, &cells, None, &schema);
        }
        for spec in specs {
            let index = Index::build(spec, &table, &schema);
            prop_assert_eq!(table.attach(index, &table.clone()), 0);
        }
        let mut building: Option<(Index, Table)> = None;
        let before = table.clone();
        // Of a text index, that it is there.
        let held: Vec<Vec<Slot>> = before.indexes().iter().map(slots).collect();
        for step in steps {
            match step {
                Step::Write(id, cells, at) => write(&mut table, id, &cells, at, &schema),
                Step::Remove(id) => drop(table.remove(&id.to_string())),
                Step::Move(id, at) => drop(table.set_ordinal(&id.to_string(), at)),
                Step::Many(rows) => {
                    let held = table.hold_indexes();
                    for (id, cells) in &rows {
                        match cells {
                            Some(cells) => write(&mut table, *id, cells, None, &schema),
                            None => drop(table.remove(&id.to_string())),
                        }
                    }
                    table.release_indexes(&held);
                }
                Step::Build(spec) => building = Some((Index::build(spec, &table, &schema), table.clone())),
                Step::Attach => if let Some((index, from)) = building.take() {
                    table.attach(index, &from);
                },
            }
        }
        for index in table.indexes() {
            if let Some(text) = index.text(&schema) {
                let rows = || table.iter_slots().map(|row| (row.slot(), row.body()));
                let anew = crate::table::text::TextIndex::build(&schema, table.len(), rows);
                for word in ["a", "10", "long", "é", "ngl"] {
                    let find = |text: &crate::table::text::TextIndex| {
                        let found = text.lookup(word).unwrap().find();
                        let prepared = Query { search: Some(word.into()), ..Query::default() }.prepare(&schema);
                        let holds = |slot| prepared.matches(&table.at(slot).unwrap().body());
                        found.settle(holds).iter().collect::<Vec<_>>()
                    };
                    prop_assert_eq!(find(text), find(&anew));
                }
                continue;
            }
            prop_assert_eq!(slots(index), expected(&table, index.spec(), &schema), "{}", index.spec());
        }
        prop_assert_eq!(before.indexes().iter().map(slots).collect::<Vec<_>>(), held, "a clone stays as it was");
    }
}

fn slots(index: &Index) -> Vec<Slot> {
    index.order().range(0..usize::MAX).map(|entry| entry.slot).collect()
}
