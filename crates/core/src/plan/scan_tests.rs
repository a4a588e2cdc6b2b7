//! Scans of columns against the evaluator, row by row.

use proptest::prelude::*;

use super::*;
use crate::record::{Body, CborValue, Record, of_digits, value_to_json};
use crate::table::{ColumnScan, ORDINAL_STEP};
use crate::vista::query::{AggregateItem, Aggregation, Block as _, Groups, IsTest, Path, Test};
use crate::vista::{Column, ColumnType, Filter, OrderTerm};

/// Two nodes of rows and a part of another, above the least number that is scanned by columns.
const ROWS: u64 = 4_700;

const COLUMNS: [(&str, ColumnType); 8] = [
    ("id", ColumnType::Integer),
    ("a", ColumnType::Json),
    ("b", ColumnType::Json),
    ("n", ColumnType::Integer),
    ("f", ColumnType::Number),
    ("d", ColumnType::Decimal),
    ("t", ColumnType::String),
    ("at", ColumnType::Datetime),
];

fn schema() -> Schema {
    Schema::new("id", COLUMNS.map(|(name, ty)| Column::new(name, ty)).to_vec())
}

/// Random numbers from a seed: a table of thousands of rows would take a strategy too long.
struct Source(u64);

impl Source {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ mixed >> 31) % end
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    fn integer(&mut self) -> CborValue {
        match self.below(20) {
            0 => self.one(&[i64::MIN, i64::MAX, (1 << 53) + 1, 1 << 53, 0, -1]).into(),
            _ => (self.below(3_000) as i64 - 1_000).into(),
        }
    }

    fn float(&mut self) -> CborValue {
        match self.below(20) {
            0 => self.one(&[0.0, -0.0, 1e300, -1e300, 1e-300, 3.0, 9_007_199_254_740_992.0]).into(),
            _ => ((self.below(100_000) as f64 - 50_000.0) / 97.0).into(),
        }
    }

    fn decimal(&mut self) -> CborValue {
        let (whole, cents) = (self.below(2_000) as i64 - 500, self.below(4) * 25);
        match self.below(4) {
            0 => whole.into(),
            1 => format!("{whole}.{cents:02}0").into(),
            _ => format!("{whole}.{cents:02}").into(),
        }
    }

    fn text(&mut self) -> CborValue {
        let word = self.one(&["Bun", "bun", "tart", "é\n\"x\"", "", "loaf \\ of rye"]);
        if self.chance(3) { word.into() } else { format!("{word} {}", self.below(5_000)).into() }
    }

    fn any(&mut self) -> CborValue {
        match self.below(400) {
            0 => f64::NAN.into(),
            1 => CborValue::Bytes(vec![1, 2]),
            2 => of_digits("340282366920938463463374607431768211456").unwrap(),
            3 => u64::MAX.into(),
            4..60 => self.one(&[CborValue::Bool(true), CborValue::Bool(false)]),
            60..90 => CborValue::Array(vec![self.below(3).into(), "x".into()]),
            90..150 => self.one(&["1", "1.0", "x", "y"]).into(),
            150..250 => self.float(),
            _ => self.one(&[1_i64, 2, 3]).into(),
        }
    }

    /// A cell of a column, `None` if it is missing.
    fn cell(&mut self, column: &str) -> Option<CborValue> {
        match self.below(30) {
            0 => return None,
            1 => return Some(CborValue::Null),
            _ => {}
        }
        Some(match column {
            "a" => self.any(),
            "b" => self.one(&[CborValue::from(1), 2.into(), 3.into(), 3.0.into(), "x".into()]),
            "n" => self.integer(),
            "f" => self.float(),
            "d" => self.decimal(),
            "t" => self.text(),
            _ => match self.below(3) {
                0 => (1_700_000_000 + self.below(9)).into(),
                _ => format!("2023-11-14T22:13:2{}Z", self.below(9)).into(),
            },
        })
    }

    fn record(&mut self, id: u64, strange: bool) -> Record {
        let mut record = Record::from_iter([("id".to_string(), CborValue::from(id))]);
        for (column, _) in &COLUMNS[1..] {
            if let Some(cell) = self.cell(column).filter(|cell| strange || !is_strange(cell)) {
                record.insert((*column).to_string(), cell);
            }
        }
        record
    }

    fn column(&mut self) -> &'static str {
        self.one(&["a", "b", "n", "f", "d", "t", "at", "a->0", "id"])
    }

    fn filter(&mut self, depth: u64) -> Filter {
        if depth > 0 && self.chance(2) {
            let parts = |source: &mut Source| (0..source.below(3) + 1).map(|_| source.filter(depth - 1)).collect();
            return match self.below(3) {
                0 => Filter::All(parts(self)),
                1 => Filter::Any(parts(self)),
                _ => Filter::not(self.filter(depth - 1)),
            };
        }
        let column = self.column();
        let of = if self.chance(6) { self.column() } else { column };
        let value = self.cell(of).unwrap_or(CborValue::Null);
        let test = match self.below(12) {
            0 => Test::Eq(value),
            1 => Test::Neq(value),
            2 | 3 => Test::Gt(value),
            4 => Test::Gte(value),
            5 | 6 => Test::Lt(value),
            7 => Test::Lte(value),
            8 => Test::In(vec![value, self.cell(column).unwrap_or(CborValue::Null), 3.into()]),
            9 => Test::Is(self.one(&[IsTest::Null, IsTest::True, IsTest::False, IsTest::Unknown])),
            10 => Test::IsDistinct(value),
            _ => self.one(&[
                Test::like("*un*").unwrap(),
                Test::like("b_n%1*2").unwrap(),
                Test::ilike("BUN*").unwrap(),
                Test::matches("[1-3]+$").unwrap(),
            ]),
        };
        Filter::test(column, test)
    }

    fn aggregation(&mut self) -> Vec<AggregateItem> {
        let groups = self.below(3);
        let columns = self.one(&[["b", "a"], ["n", "b"], ["t", "f"], ["at", "b"], ["a", "d"], ["a->0", "t"]]);
        let group = |column: &&str| AggregateItem { function: None, column: Some(column.to_string()), alias: None };
        let mut items: Vec<AggregateItem> = columns.iter().take(groups as usize).map(group).collect();
        let functions = ["count()", "count(a)", "sum(n)", "avg(f)", "sum(f)", "sum(d)", "avg(d)", "sum(b)", "sum(a)"];
        let extremes = ["min(a)", "max(a)", "min(n)", "max(f)", "min(f)", "max(d)", "min(t)", "max(at)", "min(b)"];
        for (list, few) in [(&functions[..], 3), (&extremes[..], 3)] {
            for _ in 0..self.below(few) + 1 {
                // A sum of cells that are not numbers is an error, which should not be the rule.
                let text = self.one(list);
                if !matches!(text, "sum(a)" | "sum(b)") || self.chance(4) {
                    items.push(AggregateItem {
                        alias: Some(format!("x{}", items.len())),
                        ..AggregateItem::parse(text).unwrap()
                    });
                }
            }
        }
        items
    }
}

/// True for a cell that JSON does not represent exactly.
fn is_strange(cell: &CborValue) -> bool {
    matches!(cell, CborValue::Bytes(_)) || matches!(cell, CborValue::Float(number) if number.is_nan())
}

fn write(table: &mut Table, id: u64, record: &Record, ordinal: Option<u64>) {
    let id = id.to_string();
    table.upsert(&id, &Body::encode(&id, record, schema().layout()), ordinal);
}

/// A table of rows, whose natural order may differ from that of the slots.
fn table(source: &mut Source, ordered: bool) -> Table {
    let (mut table, strange) = (Table::new(), source.chance(2));
    for id in 0..ROWS {
        let record = source.record(id, strange);
        let ordinal = if ordered { id + 1 } else { source.below(ROWS) } * ORDINAL_STEP;
        write(&mut table, id, &record, Some(ordinal));
    }
    table
}

/// Groups as text: their cells, and the JSON of these.
fn shown(groups: Result<Vec<Record>>) -> String {
    match groups {
        Ok(groups) => groups.iter().fold(String::new(), |mut text, group| {
            for (name, cell) in group.iter() {
                text += &format!("{name}: {cell:?} {}; ", String::from_utf8_lossy(&value_to_json(cell)));
            }
            text + "\n"
        }),
        Err(error) => error.to_string(),
    }
}

/// The groups of a scan by columns, `None` if it leaves them to the evaluator; and those of the evaluator.
fn both(table: &Table, items: &[AggregateItem], filter: &Filter) -> (Option<String>, String) {
    both_as(&schema(), table, items, filter)
}

fn both_as(schema: &Schema, table: &Table, items: &[AggregateItem], filter: &Filter) -> (Option<String>, String) {
    let meter = Meter::unbounded();
    let aggregation = Aggregation::new(items, schema).unwrap();
    let query = Query { filter: filter.clone(), ..Query::default() };
    let compiled = query.prepare(schema);
    let rows = table.natural(0).map(|row| fields(&row)).filter(|row| compiled.matches(row));
    let expected = shown(aggregation.fold(rows));
    let plan = plan(table, &query, schema).unwrap();
    let found = match plan.groups(&aggregation, (table, &meter), &query, schema) {
        Ok(None) => None,
        Ok(Some(groups)) => Some(shown(groups.collect())),
        Err(error) => Some(shown(Err(error))),
    };
    (found, expected)
}

fn check_groups(table: &Table, items: &[AggregateItem], filter: &Filter) {
    let (found, expected) = both(table, items, filter);
    if let Some(found) = found {
        assert_eq!(found, expected, "{items:?} {filter:?}");
    }
}

/// Checks a page of groups, of a scan and of the evaluator, against all groups as records, which are filtered, sorted and cut.
fn check_page(source: &mut Source, table: &Table, items: &[AggregateItem], filter: &Filter) {
    let (schema, meter) = (schema(), Meter::unbounded());
    let aggregation = Aggregation::new(items, &schema).unwrap();
    let results = aggregation.schema();
    let names: Vec<String> = results.columns().iter().map(|column| column.name.to_string()).collect();
    let term = |source: &mut Source| OrderTerm {
        column: source.one(&names) + source.one(&["", "", "", "->0"]),
        descending: source.chance(2),
        nulls_first: source.chance(2),
    };
    let order = (0..source.below(4)).map(|_| term(source)).collect();
    let (limit, offset) = (source.one(&[None, Some(0), Some(1), Some(10), Some(300)]), source.one(&[0, 0, 1, 40]));
    let having = match source.chance(3) {
        true => Filter::test(source.one(&names), Test::Gt(2.into())),
        false => Filter::default(),
    };
    let page = Query { filter: having, order, limit, offset, ..Query::default() };
    let prepared = page.prepare(&results);
    let query = Query { filter: filter.clone(), ..Query::default() };
    let compiled = query.prepare(&schema);
    let rows = || table.natural(0).map(|row| fields(&row)).filter(|row| compiled.matches(row));
    let expected = aggregation.fold(rows()).map(|groups| {
        let groups = groups.into_iter().enumerate().map(|(at, group)| (format!("{at:08}"), group));
        let mut groups: Vec<(String, Record)> = groups.filter(|(_, group)| prepared.matches(group)).collect();
        if prepared.has_order() {
            groups.sort_by(|(a, one), (b, other)| prepared.compare((a, one), (b, other)));
        }
        let total = groups.len() as u64;
        let end = limit.map_or(usize::MAX, |limit| limit as usize);
        (groups.into_iter().map(|(_, group)| group).skip(offset as usize).take(end).collect(), total)
    });
    let text = |page: Result<(Vec<Record>, u64)>| match page {
        Ok((groups, total)) => format!("{}{total}", shown(Ok(groups))),
        Err(error) => error.to_string(),
    };
    let cut = |groups: Groups<'_>| groups.page(&prepared, offset, limit, &meter).map(|page| (page.groups, page.total));
    let expected = text(expected);
    let by_row = text(aggregation.fold_within(rows(), &meter).and_then(cut));
    assert_eq!(by_row, expected, "{items:?} {filter:?} {page:?}");
    let plan = plan(table, &query, &schema).unwrap();
    if let Some(groups) = plan.groups(&aggregation, (table, &meter), &query, &schema).transpose() {
        assert_eq!(text(groups.and_then(cut)), expected, "{items:?} {filter:?} {page:?}");
    }
}

fn check_list(source: &mut Source, table: &Table, filter: &Filter) {
    let schema = schema();
    let term = |source: &mut Source| OrderTerm {
        column: source.column().to_string(),
        descending: source.chance(2),
        nulls_first: source.chance(3),
    };
    let order = (0..source.below(3)).map(|_| term(source)).collect();
    let (limit, offset) = (source.one(&[None, Some(0), Some(7), Some(300)]), source.below(20));
    let query = Query { filter: filter.clone(), order, limit, offset, ..Query::default() };
    let compiled = query.prepare(&schema);
    let mut rows: Vec<RowRef<'_>> = table.natural(0).filter(|row| compiled.matches(&fields(row))).collect();
    if compiled.has_order() {
        rows.sort_by(|a, b| compiled.compare((a.id(), &fields(a)), (b.id(), &fields(b))));
    }
    let page = rows.iter().skip(offset as usize).take(limit.map_or(usize::MAX, |limit| limit as usize));
    let selection = select(table, &query, &schema).unwrap();
    assert_eq!(selection.slots, page.map(|row| row.slot()).collect::<Vec<Slot>>(), "{query:?}");
    assert_eq!(selection.total, rows.len() as u64, "{query:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn scans_of_columns_equal_the_evaluator(seed: u64, ordered: bool) {
        let mut source = Source(seed);
        let mut table = table(&mut source, ordered);
        let queries: Vec<_> = (0..4).map(|_| (source.aggregation(), source.filter(2))).collect();
        for round in 0..3 {
            for (items, filter) in &queries {
                check_groups(&table, items, filter);
                check_groups(&table, items, &Filter::default());
                check_page(&mut source, &table, items, filter);
                check_page(&mut source, &table, items, &Filter::default());
                check_list(&mut source, &table, filter);
            }
            // Rows of one node change; in the last round, the whole cache has no room.
            let before = table.clone();
            for _ in 0..5 {
                let id = source.below(1_500);
                match source.chance(3) {
                    true => drop(table.remove(&id.to_string())),
                    false => write(&mut table, id, &source.record(id, false), None),
                }
            }
            check_groups(&before, &queries[0].0, &queries[0].1);
            if round == 1 {
                table.columns().set_limit(20_000);
            }
        }
    }
}

#[test]
fn a_repeated_aggregation_reads_changed_nodes_only() {
    let mut source = Source(7);
    let mut table = table(&mut source, true);
    let items: Vec<_> = ["b", "count()", "sum(n)", "min(t)"].map(|item| AggregateItem::parse(item).unwrap()).to_vec();
    let everything = Filter::default();
    let (found, expected) = both(&table, &items, &everything);
    assert_eq!(found, Some(expected));
    let kept = table.columns().bytes();
    assert!(kept > 0);
    let old = table.clone();
    write(&mut table, 1, &source.record(1, false), None);
    let (found, expected) = both(&table, &items, &everything);
    assert_eq!(found, Some(expected));
    let both_tables = table.columns().bytes();
    assert!(both_tables > kept && both_tables < kept * 2, "{both_tables} {kept}");
    drop(old);
    assert!(table.columns().bytes() < both_tables, "what only an old table holds is not counted after it");
}

#[test]
fn changes_of_a_table_without_clones_are_seen_by_the_next_scan() {
    let mut source = Source(11);
    let mut table = table(&mut source, true);
    let items = ["b", "count()", "sum(n)", "max(n)"].map(|item| AggregateItem::parse(item).unwrap());
    let filters = [Filter::default(), Filter::test("n", Test::Gt(100.into()))];
    let check = |table: &Table| {
        for filter in &filters {
            let (found, expected) = both(table, &items, filter);
            assert_eq!(found, Some(expected));
        }
    };
    let great = Record::from_iter([("b".to_string(), 1.into()), ("n".to_string(), 900_000.into())]);
    // Nodes that nothing else holds change in place.
    check(&table);
    write(&mut table, 3, &great, None);
    check(&table);
    assert!(table.remove("2050").is_some() && table.remove("4").is_some());
    check(&table);
    write(&mut table, ROWS + 7, &great, None);
    check(&table);
}

#[test]
fn an_answer_that_depends_on_the_natural_order_is_left_to_the_evaluator() {
    // In natural order the first 3 is a float; in the order of the slots another row of its node comes before.
    let mut table = Table::new();
    for id in 0..ROWS {
        let three: CborValue = if id == 5 { 3.0.into() } else { 3.into() };
        let record = Record::from_iter([("b".to_string(), three)]);
        write(&mut table, id, &record, Some(if id == 5 { 1 } else { id + 2 } * ORDINAL_STEP));
    }
    for items in [&["b", "count()"][..], &["min(b)"], &["max(b)"]] {
        let items: Vec<AggregateItem> = items.iter().map(|item| AggregateItem::parse(item).unwrap()).collect();
        let (found, expected) = both(&table, &items, &Filter::default());
        assert!(found.is_none() && expected.contains("Float(3.0)"), "{found:?} {expected}");
    }
}

#[test]
fn kept_groups_are_those_of_one_reading_of_the_columns() {
    let table = table(&mut Source(13), true);
    let items = [AggregateItem::parse("count()").unwrap(), AggregateItem::parse("max(n)").unwrap()];
    let texts = COLUMNS.map(|(name, ty)| Column::new(name, if name == "at" { ColumnType::String } else { ty }));
    let texts = Schema::new("id", texts.to_vec());
    // As an instant this is in the midst of the cells; as a text it is beyond all numbers.
    let filter = Filter::test("at", Test::Gt("2023-11-14T22:13:24Z".into()));
    let mut answers = Vec::new();
    for schema in [schema(), texts] {
        let (found, expected) = both_as(&schema, &table, &items, &filter);
        assert_eq!(found.as_ref(), Some(&expected));
        answers.push(expected);
    }
    assert_ne!(answers[0], answers[1]);
}

#[test]
fn columns_are_bounded_and_the_least_recently_used_are_dropped() {
    let mut source = Source(9);
    let table = table(&mut source, true);
    let sum = |column: &str| [AggregateItem::parse(&format!("max({column})")).unwrap()];
    let everything = Filter::default();
    both(&table, &sum("n"), &everything);
    table.columns().set_limit(table.columns().bytes() + 10_000);
    both(&table, &sum("f"), &everything);
    let kept: Vec<String> =
        table.columns().kept().into_iter().filter(|(_, bytes)| *bytes > 0).map(|(name, _)| name).collect();
    assert_eq!(kept, ["f"]);
    table.columns().set_limit(0);
    assert_eq!(both(&table, &sum("n"), &everything).0, None);
}

#[test]
fn a_scan_keeps_nothing_more_of_a_column_that_was_dropped_meanwhile() {
    let (table, schema) = (table(&mut Source(5), true), schema());
    let meter = Meter::new(std::time::Duration::from_secs(600), usize::MAX);
    let (n, f) = (Path::checked("n", &schema).unwrap(), Path::checked("f", &schema).unwrap());
    let (older, newer) = (ColumnScan::new(&table, [&n], None, &meter), ColumnScan::new(&table, [&f], None, &meter));
    let read = |scan, path| table.blocks(scan).next().unwrap().vector(path);
    read(&older, &n);
    table.columns().set_limit(table.columns().bytes() + 1);
    read(&newer, &f);
    assert_eq!(table.columns().kept().len(), 1, "n made room for f");
    table.columns().set_limit(usize::MAX);
    let kept = table.columns().bytes();
    read(&older, &n);
    assert_eq!(table.columns().bytes(), kept);
}

#[test]
fn a_scan_of_columns_ends_at_the_deadline() {
    let table = table(&mut Source(3), true);
    let (schema, items) = (schema(), [AggregateItem::parse("max(n)").unwrap()]);
    let meter = Meter::new(std::time::Duration::ZERO, usize::MAX);
    while meter.check().is_ok() {}
    let query = Query { filter: Filter::test("t", Test::matches("b.*n").unwrap()), ..Query::default() };
    let aggregation = Aggregation::new(&items, &schema).unwrap();
    let plan = plan(&table, &query, &schema).unwrap();
    assert!(plan.groups(&aggregation, (&table, &meter), &query, &schema).is_err());
    assert!(plan.run(&table, &query, &schema, &meter).is_err());
    assert_eq!(table.columns().bytes(), 0, "an incomplete vector is not kept");
}
