//! Cursors: the position at which a page of a list ended. The next page begins right after it, even if rows were added or
//! deleted in between.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xxhash_rust::xxh3::xxh3_64;

use super::{Error, OrderTerm, Result};
use crate::record::CborValue;

/// A position in one order: the beginning, or right after a row, which may have been deleted since.
///
/// Its text form is opaque, URL-safe, and valid only for the order it was made for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cursor(Option<CursorPosition>);

/// Position right after a row.
#[derive(Clone, Debug, PartialEq)]
struct CursorPosition {
    /// Hash of the order's terms.
    order: u64,
    /// Cells of the row that the order compares; in natural order, the two numbers of [`Cursor::numbers`].
    cells: Vec<CborValue>,
    id: String,
}

impl Cursor {
    /// Cursor before the first row.
    pub fn start() -> Cursor {
        Cursor(None)
    }

    /// Cursor after the row `id` that has `cells` in `order`.
    pub(crate) fn behind(order: &[OrderTerm], cells: Vec<CborValue>, id: &str) -> Cursor {
        Cursor(Some(CursorPosition { order: hash(order), cells, id: id.to_string() }))
    }

    /// True if the cursor is before the first row.
    pub fn is_start(&self) -> bool {
        self.0.is_none()
    }

    /// Parses the text form of a cursor; the empty text is the beginning.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the text is not a cursor.
    pub fn parse(text: &str) -> Result<Cursor> {
        if text.is_empty() {
            return Ok(Cursor::start());
        }
        decode(text).map(|position| Cursor(Some(position))).ok_or_else(|| {
            Error::invalid("the cursor is not valid: take it from the rel=\"next\" link, or begin with an empty after=")
        })
    }

    /// Checks that the cursor was made for `order`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it was made for another order.
    pub fn check(&self, order: &[OrderTerm]) -> Result<()> {
        let Some(position) = &self.0 else { return Ok(()) };
        let known = match order.len() {
            0 => self.numbers().is_some(),
            terms => position.cells.len() == terms,
        };
        if known && position.order == hash(order) {
            return Ok(());
        }
        Err(Error::invalid("the cursor was made for another order: keep the order, or begin with an empty after="))
    }

    /// Cells and id of the row, `None` at the beginning.
    pub(super) fn row(&self) -> Option<(&[CborValue], &str)> {
        self.0.as_ref().map(|position| (&position.cells[..], &position.id[..]))
    }

    /// The two numbers that locate the position in a table's natural order.
    pub(crate) fn numbers(&self) -> Option<(u64, u32)> {
        let number = |cell: &CborValue| cell.as_integer().and_then(|number| u64::try_from(number).ok());
        match &self.0.as_ref()?.cells[..] {
            [first, second] => Some((number(first)?, number(second)?.try_into().ok()?)),
            _ => None,
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(CursorPosition { order, cells, id }) = &self.0 else { return Ok(()) };
        let mut bytes = Vec::new();
        let position = CborValue::Array(vec![(*order).into(), CborValue::Array(cells.clone()), id.as_str().into()]);
        ciborium::into_writer(&position, &mut bytes).map_err(|_| fmt::Error)?;
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

fn decode(text: &str) -> Option<CursorPosition> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let mut rest = &bytes[..];
    let parts = ciborium::from_reader(&mut rest).ok()?;
    match parts {
        CborValue::Array(parts) if rest.is_empty() => match <[CborValue; 3]>::try_from(parts).ok()? {
            [CborValue::Integer(order), CborValue::Array(cells), CborValue::Text(id)] => {
                Some(CursorPosition { order: order.try_into().ok()?, cells, id })
            }
            _ => None,
        },
        _ => None,
    }
}

fn hash(order: &[OrderTerm]) -> u64 {
    let mut text = String::new();
    for OrderTerm { column, descending, nulls_first } in order {
        text.push_str(&format!("{column:?} {descending} {nulls_first},"));
    }
    xxh3_64(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_valid_for_its_own_order_only() {
        let order = [OrderTerm::new("price", true), OrderTerm::new("name", false)];
        let cells = vec![CborValue::Null, "Crème brûlée".into()];
        let cursor = Cursor::behind(&order, cells, "8/ü");
        let text = cursor.to_string();
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{text}");
        assert_eq!(Cursor::parse(&text).unwrap(), cursor);
        assert!(cursor.check(&order).is_ok());
        let reversed = [OrderTerm::new("price", false), OrderTerm::new("name", false)];
        let nulls = [OrderTerm { nulls_first: true, ..order[0].clone() }, order[1].clone()];
        for other in [&order[..1], &reversed, &nulls, &[]] {
            assert!(cursor.check(other).is_err(), "{other:?}");
        }
        assert!(Cursor::parse("").unwrap().check(&order).is_ok() && Cursor::start().to_string().is_empty());
    }

    #[test]
    fn text_that_is_not_a_cursor_is_refused() {
        let behind = |cells| Cursor::behind(&[], cells, "x").to_string();
        for text in ["x", "====", "AAAA", "gAAA", &format!("{}AA", behind(vec![1.into(), 2.into()])), "ä"] {
            assert!(Cursor::parse(text).is_err(), "{text}");
        }
        for cells in [vec![1.into()], vec!["a".into(), 1.into()], vec![1.into(), (-1).into()]] {
            assert!(Cursor::parse(&behind(cells)).unwrap().check(&[]).is_err());
        }
    }
}
