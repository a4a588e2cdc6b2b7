//! Exactness, nulls and refusals of aggregation, and the fold against a naive computation.

use proptest::prelude::*;

use super::*;

fn schema() -> Schema {
    let columns = [("kind", ColumnType::Json), ("n", ColumnType::Json), ("cost", ColumnType::Decimal)];
    let columns = columns.map(|(name, ty)| Column::new(name, ty)).to_vec();
    Schema::new("id", [columns, vec![Column::new("name", ColumnType::String)]].concat())
}

fn items(select: &str) -> Result<Vec<AggregateItem>> {
    select.split(',').map(AggregateItem::parse).collect()
}

fn fold(select: &str, rows: &[Record]) -> Result<Vec<Record>> {
    Aggregation::new(&items(select)?, &schema())?.fold(rows)
}

fn row<const N: usize>(cells: [(&str, CborValue); N]) -> Record {
    cells.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

fn sum(column: &str, cells: Vec<CborValue>) -> Result<CborValue> {
    let rows: Vec<Record> = cells.into_iter().map(|cell| row([(column, cell)])).collect();
    Ok(fold(&format!("x:sum({column})"), &rows)?[0].get("x").unwrap().clone())
}

#[test]
fn sums_of_integers_are_exact() {
    let big = u64::MAX;
    assert_eq!(sum("n", vec![big.into(), (-1).into(), 1.into()]).unwrap(), big.into());
    assert_eq!(sum("n", vec![(1_i64 << 53).into(), 1.into()]).unwrap(), ((1_i64 << 53) + 1).into());
    assert_eq!(sum("n", vec![]).unwrap(), CborValue::Null);
    let more = crate::record::of_digits("18446744073709551616").unwrap();
    assert_eq!(sum("n", vec![big.into(), 1.into()]).unwrap(), more);
    assert_eq!(sum("n", vec![more, (-1).into()]).unwrap(), big.into());
    assert!(sum("n", vec!["x".into()]).is_err());
}

#[test]
fn sums_of_floats_compensate_rounding_errors() {
    let cells = [1e100, 1.0, -1e100].map(CborValue::Float);
    assert_eq!(sum("n", cells.to_vec()).unwrap(), CborValue::Float(1.0));
    assert_eq!(sum("n", vec![CborValue::Float(0.5), 2.into()]).unwrap(), CborValue::Float(2.5));
    let infinite = vec![CborValue::Float(f64::INFINITY), 1.into(), CborValue::Float(2.0)];
    assert_eq!(sum("n", infinite).unwrap(), CborValue::Float(f64::INFINITY));
}

#[test]
fn sums_of_decimals_are_exact() {
    let cells = ["0.10", "0.2", "-12.345", "1e2"].map(CborValue::from).to_vec();
    assert_eq!(sum("cost", [cells, vec![3.into()]].concat()).unwrap(), "90.955".into());
    assert_eq!(sum("cost", vec!["-0.05".into()]).unwrap(), "-0.05".into());
    assert!(sum("cost", vec!["1e-40".into()]).is_err());
    assert!(sum("cost", vec!["9e37".into(), "9e37".into()]).is_err());
}

#[test]
fn nulls_are_not_counted_and_form_a_group() {
    let rows = [
        row([("kind", "a".into()), ("n", 3.into())]),
        row([("kind", "a".into()), ("n", CborValue::Null)]),
        row([("n", 5.into())]),
        row([("kind", "b".into())]),
    ];
    let found = fold("kind,count(),filled:count(n),sum(n),avg(n),min(n),max(n)", &rows).unwrap();
    let found: Vec<String> =
        found.iter().map(|row| row.iter().map(|(_, v)| format!("{v:?}")).collect::<Vec<_>>().join(" ")).collect();
    let int = |n: i32| format!("{:?}", CborValue::from(n));
    let [one, two, three, five] = [1, 2, 3, 5].map(int);
    assert_eq!(
        found,
        [
            format!("Text(\"a\") {two} {one} {three} Float(3.0) {three} {three}"),
            format!("Text(\"b\") {one} {} Null Null Null Null", int(0)),
            format!("Null {one} {one} {five} Float(5.0) {five} {five}"),
        ]
    );
}

#[test]
fn aggregations_that_cannot_be_computed_are_refused() {
    for (select, message) in [
        ("median(n)", "there is no function"),
        ("summ(n)", "did you mean sum?"),
        ("sum()", "needs a column"),
        ("sum(name)", "needs a column of numbers"),
        ("sum(nam)", "did you mean \"name\"?"),
        ("sum(n", "closing parenthesis"),
        ("n,n", "two results"),
        ("*", "group by"),
        ("", "empty"),
    ] {
        let error = fold(select, &[]).unwrap_err().to_string();
        assert!(error.contains(message), "{select}: {error}");
    }
    assert!(fold("min(name),max(name),count(name)", &[]).is_ok());
}

fn cell() -> impl Strategy<Value = CborValue> {
    prop_oneof![
        2 => Just(CborValue::Null),
        6 => (-5i64..5).prop_map(CborValue::from),
        1 => any::<i32>().prop_map(CborValue::from),
    ]
}

proptest! {
        /// The fold agrees with a separate computation of each group.
    #[test]
        fn groups_agree_with_a_naive_computation(
        cells in prop::collection::vec((prop_oneof![Just(CborValue::Null), (0..4).prop_map(CborValue::from),
            (0..4).prop_map(|n| CborValue::Float(f64::from(n)))], cell()), 0..60),
    ) {
        let rows: Vec<Record> =
            cells.iter().map(|(kind, n)| row([("kind", kind.clone()), ("n", n.clone())])).collect();
        let found = fold("kind,rows:count(),count(n),sum(n),avg(n),min(n),max(n)", &rows).unwrap();
        let mut expected: BTreeMap<Option<i64>, Vec<Option<i128>>> = BTreeMap::new();
        for (kind, n) in &cells {
            let kind = match kind {
                CborValue::Float(kind) => Some(*kind as i64),
                other => other.as_integer().and_then(|kind| i64::try_from(kind).ok()),
            };
            expected.entry(kind).or_default().push(n.as_integer().map(i128::from));
        }
        // Nulls come last.
        let expected: Vec<_> = expected.iter().filter(|(kind, _)| kind.is_some())
            .chain(expected.iter().filter(|(kind, _)| kind.is_none())).collect();
        prop_assert_eq!(found.len(), expected.len());
        for (found, (kind, all)) in found.iter().zip(expected) {
            let some: Vec<i128> = all.iter().flatten().copied().collect();
            let integer = |name: &str| found.get(name).unwrap().as_integer().map(i128::from);
            prop_assert_eq!(found.get("kind").unwrap() == &CborValue::Null, kind.is_none());
            prop_assert_eq!(integer("rows"), Some(all.len() as i128));
            prop_assert_eq!(integer("count_n"), Some(some.len() as i128));
            prop_assert_eq!(integer("sum_n"), (!some.is_empty()).then(|| some.iter().sum::<i128>()));
            prop_assert_eq!(integer("min_n"), some.iter().min().copied());
            prop_assert_eq!(integer("max_n"), some.iter().max().copied());
            let mean = found.get("avg_n").unwrap().as_float();
            prop_assert_eq!(mean, (!some.is_empty()).then(|| some.iter().sum::<i128>() as f64 / some.len() as f64));
        }
    }
}

proptest! {
    #[test]
    fn sums_of_floats_are_exact_in_any_order(
        cells in prop::collection::vec((-(1i64 << 53)..1 << 53, 0u32..40), 1..60),
        huge in any::<bool>(),
        cut in 0..60usize,
    ) {
        // Multiples of 2^-40 below 2^53: an integer of 128 bits holds their sum, and converts to the nearest float.
        let exact: i128 = cells.iter().map(|(number, shift)| i128::from(*number) << shift).sum();
        let scale = 2f64.powi(if huge { 850 } else { -40 });
        let floats = cells.iter().map(|(number, shift)| *number as f64 * 2f64.powi(*shift as i32) * scale);
        let mut floats: Vec<CborValue> = floats.map(CborValue::Float).collect();
        if huge {
            // Numbers whose sum overflows on the way.
            floats.extend([f64::MAX, f64::MAX, -f64::MAX, -f64::MAX].map(CborValue::Float));
        }
        let expected = CborValue::Float(exact as f64 * scale);
        prop_assert_eq!(&sum("n", floats.clone()).unwrap(), &expected);
        let middle = cut % floats.len();
        floats.rotate_left(middle);
        prop_assert_eq!(&sum("n", floats.clone()).unwrap(), &expected);
        let mut halves = total::Total::default();
        for half in floats.chunks(middle + 1) {
            let mut total = total::Total::default();
            half.iter().for_each(|cell| total.add(cell, false).unwrap());
            halves.merge(&total).unwrap();
        }
        prop_assert_eq!(halves.sum(), Some(expected));
    }
}
