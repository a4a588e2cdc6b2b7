//! How the cells of a column compare: the one place that decides it, for filters, orders, indexes, groups and cursors alike.

use jiff::tz::TimeZone;

use super::fields::Path;
use crate::vista::{Column, ColumnType, Schema};

/// Comparison rule for the cells of one column.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Collation {
    /// Cells compare as what they are: numbers by value, text by code points.
    Plain,
    /// Text that spells a decimal compares as that number, exactly.
    Decimal,
    /// Text and numbers that spell a moment compare as that moment; text without an offset is of this zone.
    Instant(TimeZone),
    /// Text that spells a UUID compares as its 128 bits.
    Uuid,
}

impl Collation {
    /// The rule of a column.
    pub fn of(column: &Column) -> Collation {
        match column.ty {
            ColumnType::Decimal => Collation::Decimal,
            ColumnType::Date | ColumnType::Datetime => Collation::Instant(column.zone()),
            ColumnType::Uuid => Collation::Uuid,
            _ => Collation::Plain,
        }
    }

    /// The rule of what `path` leads to; of what is inside of a column, as of JSON.
    pub(super) fn at(path: &Path, schema: &Schema) -> Collation {
        let column = schema.column(path.column()).filter(|_| path.is_plain() && !path.is_text());
        column.map_or(Collation::Plain, Collation::of)
    }
}
