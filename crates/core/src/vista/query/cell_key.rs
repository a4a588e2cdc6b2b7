//! [`CellKeys`]: cells of one column as bytes that are equal if filters treat the cells as equal.

use super::Collation;
use super::compare::Key;
use super::fields::{Fields, Path};
use crate::record::CborValue;
use crate::vista::Schema;

/// Encoder of the cells of one column, or of the values under a path, as bytes.
///
/// Two cells have equal bytes exactly if [`Test::Eq`](super::Test::Eq) with one of them matches the other. A null has no bytes,
/// because it equals nothing.
#[derive(Clone, Debug)]
pub struct CellKeys {
    path: Path,
    collation: Collation,
}

impl CellKeys {
    /// Creates an encoder for `column` of rows of `schema`.
    pub fn new(column: &str, schema: &Schema) -> CellKeys {
        let path = Path::resolve(column, schema);
        let collation = Collation::at(&path, schema);
        CellKeys { path, collation }
    }

    /// Path of the cells.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends the bytes of `value`; returns false if it is null.
    pub fn value(&self, value: &CborValue, out: &mut Vec<u8>) -> bool {
        let key = Key::of(value, &self.collation);
        if key.is_null() {
            return false;
        }
        key.bytes_into(out);
        true
    }

    /// Appends the bytes of the row's cell; returns false if it is null or missing.
    pub fn row(&self, row: &impl Fields, out: &mut Vec<u8>) -> bool {
        row.field(&self.path).is_some_and(|cell| self.value(&cell, out))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{Record, of_digits};
    use crate::vista::query::{Filter, IsTest, Query, Test};
    use crate::vista::{Column, ColumnType};

    const COLUMNS: [(&str, ColumnType); 5] = [
        ("any", ColumnType::Json),
        ("dec", ColumnType::Decimal),
        ("at", ColumnType::Datetime),
        ("uid", ColumnType::Uuid),
        ("n", ColumnType::Integer),
    ];

    fn schema() -> Schema {
        let id = Column::new("id", ColumnType::String);
        Schema::new("id", std::iter::once(id).chain(COLUMNS.map(|(name, ty)| Column::new(name, ty))).collect())
    }

    fn values() -> Vec<CborValue> {
        let floats = [1.0, 1.5, 0.0, -0.0, f64::NAN, f64::INFINITY, 9_007_199_254_740_992.0, 1.8446744073709552e19];
        let integers = [1, 0, 2, 9_007_199_254_740_992_i64, 9_007_199_254_740_993, 1_704_067_200];
        let texts = [
            "1",
            "1.0",
            "1.5",
            "1.50",
            "15e-1",
            "",
            "\0",
            "x",
            "soon",
            "2024-01-01",
            "2024-01-01T00:00:00Z",
            "2023-12-31T23:00:00-01:00",
            "01890a5d-ac96-774b-bcce-b302099a8057",
            "01890A5DAC96774BBCCEB302099A8057",
        ];
        let mut values: Vec<CborValue> = floats.map(CborValue::from).into();
        values.extend(integers.map(CborValue::from));
        values.extend(texts.map(CborValue::from));
        values.extend(["18446744073709551616", "36893488147419103233"].map(|digits| of_digits(digits).unwrap()));
        values.extend([true.into(), false.into(), CborValue::Null]);
        values.extend([CborValue::Array(vec![1.into()]), CborValue::Array(vec![1.0.into()])]);
        values.extend([1, 2].map(|value| CborValue::Map(vec![("k".into(), value.into())])));
        values
    }

    #[test]
    fn cells_have_equal_bytes_exactly_if_a_filter_treats_them_as_equal() {
        let schema = schema();
        for column in ["any", "dec", "at", "uid", "n", "any->k"] {
            let keys = CellKeys::new(column, &schema);
            for value in values() {
                let query = Query { filter: Filter::eq(column, value.clone()), ..Query::default() };
                let (compiled, mut own) = (query.prepare(&schema), Vec::new());
                let is_value = keys.value(&value, &mut own);
                for cell in values() {
                    let row = Record::from_iter([(keys.path().column().to_string(), cell.clone())]);
                    let mut bytes = Vec::new();
                    let is_equal = keys.row(&row, &mut bytes) && is_value && bytes == own;
                    assert_eq!(is_equal, compiled.matches(&row), "{column}: {value:?} and {cell:?}");
                }
            }
        }
    }

    fn filter() -> impl Strategy<Value = Filter> {
        let values = || prop::sample::select(vec![1.into(), 1.0.into(), 2.into(), CborValue::Null, "1".into()]);
        let test = prop_oneof![
            5 => values().prop_map(Test::Eq),
            3 => prop::collection::vec(values(), 0..4).prop_map(Test::In),
            1 => values().prop_map(Test::Neq),
            1 => Just(Test::Is(IsTest::Null)),
        ];
        let test = (prop::sample::select(vec!["any", "n"]), test).prop_map(|(column, test)| Filter::test(column, test));
        test.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                3 => prop::collection::vec(inner.clone(), 0..4).prop_map(Filter::All),
                3 => prop::collection::vec(inner.clone(), 0..4).prop_map(Filter::Any),
                1 => inner.prop_map(Filter::not),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_row_that_matches_meets_one_of_the_sets_of_equalities(filter in filter(), most in 0..9usize) {
            let schema = schema();
            let query = Query { filter: filter.clone(), ..Query::default() };
            let compiled = query.prepare(&schema);
            let Some(sets) = filter.equalities(most) else { return Ok(()) };
            prop_assert!(sets.len() <= most);
            let cells = [1.into(), 2.into(), 1.0.into(), CborValue::Null, "1".into()];
            for any in &cells {
                for n in &cells {
                    let row = Record::from_iter([("any".to_string(), any.clone()), ("n".to_string(), n.clone())]);
                    let meets = |set: &Vec<(&str, &CborValue)>| set.iter().all(|(column, value)| {
                        let keys = CellKeys::new(column, &schema);
                        let (mut own, mut other) = (Vec::new(), Vec::new());
                        keys.value(value, &mut own) && keys.row(&row, &mut other) && own == other
                    });
                    prop_assert!(!compiled.matches(&row) || sets.iter().any(meets), "{:?} {:?}", &filter, &row);
                }
            }
        }
    }
}
