//! Numbers as people and programs write them in text files.
//!
//! A column has one [`Notation`]: `1.250` is 1.25 beside `1.5`, and 1250 beside `1,20` where commas are decimal.

use std::borrow::Cow;

use diorama_core::record::of_digits;

/// Notation of the numbers of a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Notation {
    /// `1234.5`
    #[default]
    Plain,
    /// `1.234,5`
    Comma,
    /// `1,234.5`
    Grouped,
}

pub(crate) const NOTATIONS: [Notation; 3] = [Notation::Plain, Notation::Comma, Notation::Grouped];

/// A number of a text file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Integer(i64),
    Float(f64),
    /// An integer beyond 64 bits, of which a float would lose digits.
    Wide,
}

/// Notations under which a cell is a number, and under which of them it is an integer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notations(u8);

impl Notations {
    pub(crate) fn of(text: &str) -> Notations {
        if !matches!(text.as_bytes(), [b'0'..=b'9' | b'+' | b'-' | b'.' | b',', ..]) {
            return Notations(0);
        }
        if integer(text).is_some() {
            return Notations(0b11_1111);
        }
        Notations(
            Notations::under(text, Notation::Plain)
                | Notations::under(text, Notation::Comma)
                | Notations::under(text, Notation::Grouped),
        )
    }

    /// The bits for one notation.
    fn under(text: &str, notation: Notation) -> u8 {
        let Some(parts) = NumberParts::of(text, notation) else { return 0 };
        // Short ones with a fraction are finite.
        if !parts.is_whole && !parts.has_exponent && text.len() < 100 {
            return 1 << notation as u8;
        }
        match number(text, notation) {
            None => 0,
            Some(Number::Float(_) | Number::Wide) => 1 << notation as u8,
            Some(Number::Integer(_)) => 0b1001 << notation as u8,
        }
    }

    pub(crate) fn is_number(self, notation: Notation) -> bool {
        self.0 & 1 << notation as u8 != 0
    }

    pub(crate) fn is_integer(self, notation: Notation) -> bool {
        self.0 & 0b1000 << notation as u8 != 0
    }

    /// Tells whether it is a number under any notation.
    pub(crate) fn is_some(self) -> bool {
        self.0 != 0
    }
}

/// An integer of 64 bits in the one form that JSON has for it: not `007`, not `+7`.
pub(crate) fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    let canonical = match digits {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if canonical { text.parse().ok() } else { None }
}

/// A number in `notation`.
pub(crate) fn number(text: &str, notation: Notation) -> Option<Number> {
    if let Some(integer) = integer(text) {
        return Some(Number::Integer(integer));
    }
    let parts = NumberParts::of(text, notation)?;
    let plain = parts.plain(text, notation);
    if parts.is_whole {
        if let (Ok(integer), false) = (plain.parse(), &*plain == "-0") {
            return Some(Number::Integer(integer));
        }
        let number: f64 = plain.parse().ok()?;
        let exact = &*plain == "-0" || format!("{number:.0}") == *plain;
        return if exact { Some(Number::Float(number)) } else { of_digits(&plain).map(|_| Number::Wide) };
    }
    let number: f64 = plain.parse().ok()?;
    number.is_finite().then_some(Number::Float(number))
}

/// A number's text in the form that JSON has for it, digit by digit.
pub(crate) fn decimal(text: &str, notation: Notation) -> Option<Cow<'_, str>> {
    Some(NumberParts::of(text, notation)?.plain(text, notation))
}

/// Places of the parts of a number.
struct NumberParts {
    /// Set if it is plain as it stands.
    is_plain: bool,
    is_whole: bool,
    has_exponent: bool,
}

impl NumberParts {
    /// Checks the grammar: a sign, digits in groups of three or in one, a fraction, an exponent. `None` for leading zeros, which
    /// are those of codes, and for a plus before many digits, which is that of a telephone number.
    fn of(text: &str, notation: Notation) -> Option<NumberParts> {
        let (point, group) = match notation {
            Notation::Plain => (b'.', None),
            Notation::Comma => (b',', Some(b'.')),
            Notation::Grouped => (b'.', Some(b',')),
        };
        let bytes = text.as_bytes();
        let (plus, mut rest) = match bytes {
            [b'+', rest @ ..] => (true, rest),
            [b'-', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let first = digits(rest);
        let (mut whole, zero) = (first, rest.first() == Some(&b'0'));
        rest = &rest[first..];
        let mut grouped = false;
        while let (Some(group), [separator, after @ ..]) = (group, rest) {
            if *separator != group {
                break;
            }
            if first == 0 || first > 3 || zero || digits(after) != 3 {
                return None;
            }
            grouped = true;
            whole += 3;
            rest = &after[3..];
        }
        let mut fraction = None;
        if let [separator, after @ ..] = rest
            && *separator == point
        {
            let count = digits(after);
            fraction = Some(count);
            rest = &after[count..];
        }
        if whole + fraction.unwrap_or(0) == 0 || (whole > 1 && zero) || (plus && fraction.is_none() && whole > 6) {
            return None;
        }
        let exponent = !rest.is_empty();
        if let [b'e' | b'E', after @ ..] = rest {
            let after = match after {
                [b'+' | b'-', unsigned @ ..] => unsigned,
                unsigned => unsigned,
            };
            rest = if !after.is_empty() && digits(after) == after.len() { &[] } else { rest };
        }
        let is_plain = !plus && !grouped && point == b'.' && whole > 0 && fraction != Some(0);
        let is_whole = fraction.is_none() && !exponent;
        rest.is_empty().then_some(NumberParts { is_plain, is_whole, has_exponent: exponent })
    }

    fn plain<'t>(&self, text: &'t str, notation: Notation) -> Cow<'t, str> {
        if self.is_plain {
            return Cow::Borrowed(text);
        }
        let mut plain = String::with_capacity(text.len() + 2);
        let mut letters = text.chars().peekable();
        while let Some(letter) = letters.next() {
            match (letter, notation) {
                ('+', _) if plain.is_empty() => {}
                ('.', Notation::Comma) | (',', Notation::Grouped) => {}
                ('.' | ',', _) => {
                    if plain.is_empty() || plain == "-" {
                        plain.push('0');
                    }
                    plain.push('.');
                    if !letters.peek().is_some_and(char::is_ascii_digit) {
                        plain.push('0');
                    }
                }
                (letter, _) => plain.push(letter),
            }
        }
        Cow::Owned(plain)
    }
}

fn digits(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len())
}

/// `text` without the spaces around it, which most cells do not have.
pub(crate) fn trimmed(text: &str) -> &str {
    match text.as_bytes() {
        [b' ', ..] | [.., b' '] => text.trim_matches(' '),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        use Notation::*;
        use Number::*;
        for (text, notation, expected) in [
            ("12", Plain, Some(Integer(12))),
            ("-12", Comma, Some(Integer(-12))),
            ("+5", Plain, Some(Integer(5))),
            (".5", Plain, Some(Float(0.5))),
            ("-.25", Plain, Some(Float(-0.25))),
            ("5.", Plain, Some(Float(5.0))),
            ("+.5e+3", Plain, Some(Float(500.0))),
            ("1e3", Plain, Some(Float(1000.0))),
            ("-0", Plain, Some(Float(-0.0))),
            ("1,75", Comma, Some(Float(1.75))),
            (",5", Comma, Some(Float(0.5))),
            ("1.250", Comma, Some(Integer(1250))),
            ("1.250", Plain, Some(Float(1.25))),
            ("-1.234.567,5", Comma, Some(Float(-1_234_567.5))),
            ("1,234,567.5", Grouped, Some(Float(1_234_567.5))),
            ("1,250", Grouped, Some(Integer(1250))),
            ("18446744073709551616", Plain, Some(Float(18_446_744_073_709_551_616.0))),
            ("18446744073709551615", Plain, Some(Number::Wide)),
            ("9223372036854775808", Grouped, Some(Float(9_223_372_036_854_775_808.0))),
            ("007", Plain, None),
            ("00.5", Plain, None),
            ("0,250", Grouped, None),
            ("1.25", Comma, None),
            ("1,75", Plain, None),
            ("1,75", Grouped, None),
            ("1234,567", Grouped, None),
            ("+491511234567", Plain, None),
            ("1e", Plain, None),
            ("1e999", Plain, None),
            (".", Plain, None),
            ("+", Plain, None),
            ("--5", Plain, None),
            ("1,20 EUR", Comma, None),
            ("inf", Plain, None),
        ] {
            assert_eq!(number(text, notation), expected, "{text} as {notation:?}");
            let fits = Notations::of(text);
            assert_eq!(fits.is_number(notation), expected.is_some(), "{text}");
            assert_eq!(fits.is_integer(notation), matches!(expected, Some(Integer(_))), "{text}");
        }
        assert_eq!(decimal("1.234,50", Comma).as_deref(), Some("1234.50"));
        assert_eq!(decimal("-,50", Comma).as_deref(), Some("-0.50"));
    }
}
