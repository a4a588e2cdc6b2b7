//! The rows that benchmarks measure with: a bakery's products, about 250 B of JSON each.

use diorama::{Column, ColumnType, Record, Schema};

/// The shape of [`record`].
#[allow(dead_code, reason = "not every benchmark declares it")]
pub(crate) fn schema() -> Schema {
    let text = |name: &str| Column::new(name, ColumnType::String);
    let number = |name: &str| Column::new(name, ColumnType::Integer);
    Schema::new(
        "id",
        vec![text("id"), text("name"), number("category_id"), number("price"), number("stock"), text("description")],
    )
}

/// The id of row number `at`.
pub(crate) fn id(at: usize) -> String {
    format!("p{at:08}")
}

/// Row number `at`.
pub(crate) fn record(at: usize) -> Record {
    let description = format!(
        "A {} {} of the {}th batch, baked in the morning, kept on the {}th shelf, sold by weight",
        ["round", "flat", "braided", "sweet"][at % 4],
        ["bun", "loaf", "tart", "muffin"][at / 4 % 4],
        at / 16,
        at % 97
    );
    Record::from_iter([
        ("id".to_string(), id(at).into()),
        ("name".to_string(), format!("Product number {at} of the bakery").into()),
        ("category_id".to_string(), ((at % 50) as i64).into()),
        ("price".to_string(), ((at * 7919 % 10_000) as i64).into()),
        ("stock".to_string(), ((at % 300) as i64).into()),
        ("description".to_string(), description.into()),
    ])
}
