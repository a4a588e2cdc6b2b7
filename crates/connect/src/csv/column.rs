//! What a column of a CSV file holds, as all its cells show.

use crate::file::infer::Kinds;
use crate::file::number::{NOTATIONS, Notation, Notations, trimmed};
use diorama_core::vista::{ColumnType, Inferred};

/// Cells after which a column of texts is not looked at more closely.
const SETTLED: u64 = 2_000;

/// Letters of a cell that is shown to people.
const SHOWN: usize = 40;

/// Cells of one kind.
#[derive(Debug)]
struct Class {
    kinds: Kinds,
    fits: Notations,
    count: u64,
    /// The first of them, and its line.
    first: (String, u64),
}

/// The cells of a column so far, nulls left out.
#[derive(Debug, Default)]
pub(super) struct ColumnSurvey {
    /// Few: there are few kinds.
    classes: Vec<Class>,
    count: u64,
}

/// Reading of a column.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) ty: ColumnType,
    pub(super) notation: Notation,
    /// Type or notation, where a person might expect another.
    pub(super) guess: Option<Inferred>,
}

/// Facts about a file's numbers beside its cells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    /// The key `decimal`.
    pub(super) decimal: Option<u8>,
    pub(super) separator: u8,
}

impl Numbers {
    /// Notations that may be meant, the likeliest first. A file whose fields are separated by commas has no decimal commas, and one
    /// with semicolons has them because commas are decimal.
    fn notations(self) -> &'static [Notation] {
        match (self.decimal, self.separator) {
            (Some(b','), _) => &[Notation::Comma],
            (Some(_), _) | (None, b',') => &[Notation::Plain, Notation::Grouped],
            (None, b';') => &[Notation::Plain, Notation::Comma, Notation::Grouped],
            (None, _) => &[Notation::Plain, Notation::Grouped, Notation::Comma],
        }
    }
}

impl ColumnSurvey {
    /// Takes a cell into account that is not null; `line` tells where it is.
    pub(super) fn see(&mut self, text: &str, line: impl FnOnce() -> u64) {
        self.count += 1;
        if self.count > SETTLED && self.is_settled() {
            return;
        }
        let text = trimmed(text);
        let fits = Notations::of(text);
        let kinds = if fits.is_some() { Kinds::default() } else { Kinds::of_text(text) };
        match self.classes.iter_mut().find(|class| (class.kinds, class.fits) == (kinds, fits)) {
            Some(class) => class.count += 1,
            None => {
                let first = (text.chars().take(SHOWN).collect(), line());
                self.classes.push(Class { kinds, fits, count: 1, first });
            }
        }
    }

    /// Tells whether most cells are texts, so that nothing else will come of it.
    fn is_settled(&self) -> bool {
        self.classes.iter().any(|class| class.kinds.is_text() && class.count > SETTLED / 2)
    }

    pub(super) fn verdict(&self, name: &str, numbers: Numbers) -> Verdict {
        let notations = numbers.notations();
        let all = |holds: &dyn Fn(&Class) -> bool| self.classes.iter().all(holds);
        let notation = notations.iter().copied().find(|notation| all(&|class| class.fits.is_number(*notation)));
        match notation.filter(|_| !self.classes.is_empty()) {
            Some(notation) => {
                let whole = all(&|class| class.fits.is_integer(notation));
                let ty = if whole { ColumnType::Integer } else { ColumnType::Number };
                Verdict { ty, notation, guess: self.doubt(name, notation, numbers) }
            }
            None => self.other(name, notations),
        }
    }

    /// The verdict on a column that has other cells than numbers.
    fn other(&self, name: &str, notations: &[Notation]) -> Verdict {
        let mut kinds = Kinds::default();
        self.classes.iter().for_each(|class| kinds.see(class.kinds));
        let numbers = self.classes.iter().any(|class| class.fits.is_some());
        let ty = if numbers { ColumnType::String } else { kinds.column_type(ColumnType::String) };
        let notation = notations.iter().copied().max_by_key(|notation| self.counted(*notation)).unwrap_or_default();
        let guess = (ty == ColumnType::String).then(|| self.few(name, notations)).flatten();
        // A declared column of numbers is read as most of its cells are.
        Verdict { ty, notation, guess }
    }

    fn counted(&self, notation: Notation) -> u64 {
        self.classes.iter().filter(|class| class.fits.is_number(notation)).map(|class| class.count).sum()
    }

    /// Remark on a column of texts most of whose cells are something else.
    fn few(&self, name: &str, notations: &[Notation]) -> Option<Inferred> {
        let typed = [
            (Kinds::of_text("true"), "true or false"),
            (Kinds::of_text("2000-01-01"), "a date"),
            (Kinds::of_text("2000-01-01T00:00:00Z"), "a date with a time"),
        ];
        let mut best: (u64, &str, Vec<&Class>) = (0, "", Vec::new());
        let mut judge = |what: &'static str, holds: &dyn Fn(&Class) -> bool| {
            let (those, others): (Vec<&Class>, Vec<&Class>) = self.classes.iter().partition(|class| holds(class));
            let count = those.iter().map(|class| class.count).sum();
            if count > best.0 {
                best = (count, what, others);
            }
        };
        notations.iter().for_each(|notation| judge("a number", &|class| class.fits.is_number(*notation)));
        typed.iter().for_each(|(kinds, what)| judge(what, &|class| !class.fits.is_some() && class.kinds == *kinds));
        let (count, what, others) = best;
        let odd = self.count - count;
        let first = others.into_iter().min_by_key(|class| class.first.1)?;
        if count <= odd {
            return None;
        }
        let (text, line) = &first.first;
        let because = format!("{text:?} in line {line} is not {what}: {odd} of {} cells are not", self.count);
        let key = format!("null = [{text:?}] in source, or columns.{name:?}.type");
        Some(Inferred::new(format!("type of {name:?}"), "string", because, key).doubtful())
    }

    /// Remark on numbers that would be others in another notation.
    fn doubt(&self, name: &str, notation: Notation, numbers: Numbers) -> Option<Inferred> {
        let what = format!("numbers of {name:?}");
        let first =
            |holds: &dyn Fn(&Class) -> bool| self.classes.iter().find(|class| holds(class)).map(|class| &class.first);
        let key = "decimal in source";
        if notation != Notation::Plain {
            let (value, because) = match notation {
                Notation::Comma => ("a comma is decimal, a point groups digits", "is a number so"),
                _ => ("a comma groups digits, a point is decimal", "is a number so"),
            };
            let (text, line) = first(&|class| !class.fits.is_number(Notation::Plain)).or_else(|| first(&|_| true))?;
            let because = format!("{text:?} in line {line} {because}, and so are all other cells");
            return numbers.decimal.is_none().then(|| Inferred::new(what, value, because, key));
        }
        // 1.250 in a file with semicolons may be 1250.
        let grouped = |class: &Class| class.fits.is_integer(Notation::Comma) && !class.fits.is_integer(Notation::Plain);
        let whole = |class: &Class| class.fits.is_integer(Notation::Plain);
        let ambiguous = numbers.separator == b';'
            && numbers.decimal.is_none()
            && self.classes.iter().all(|class| grouped(class) || whole(class));
        let (text, line) = first(&grouped).filter(|_| ambiguous)?;
        let because = format!("{text:?} in line {line} has three digits behind its point: it might be thousands");
        Some(Inferred::new(what, "a point is decimal", because, key).doubtful())
    }
}

/// Tells whether the cell is a number however people write it.
pub(super) fn is_numeric(text: &str) -> bool {
    let fits = Notations::of(text.trim());
    NOTATIONS.into_iter().any(|notation| fits.is_number(notation))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(cells: &[&str], separator: u8) -> Verdict {
        let mut survey = ColumnSurvey::default();
        for (at, cell) in cells.iter().enumerate() {
            survey.see(cell, || at as u64 + 2);
        }
        survey.verdict("x", Numbers { decimal: None, separator })
    }

    #[test]
    fn types_are_the_narrowest_that_lose_nothing() {
        for (cells, expected) in [
            (&["1", "-20"][..], ColumnType::Integer),
            (&["1", "2.50"], ColumnType::Number),
            (&["1e3", "-0"], ColumnType::Number),
            (&["00123", "45678"], ColumnType::String),
            (&["+49", "1"], ColumnType::Integer),
            (&["+4915112345678", "+4930123456"], ColumnType::String),
            (&["9223372036854775807"], ColumnType::Integer),
            (&["9223372036854775809", "123456789012345678901234567890"], ColumnType::Number),
            (&["18446744073709551616"], ColumnType::Number),
            (&["1e999"], ColumnType::String),
            (&["inf", "1"], ColumnType::String),
            (&[".5", "-.25", "5.", "+5", "   5"], ColumnType::Number),
            (&["true", "FALSE"], ColumnType::Boolean),
            (&["0", "1"], ColumnType::Integer),
            (&["true", "1"], ColumnType::String),
            (&["2024-02-29", " 2024-03-01"], ColumnType::Date),
            (&["2023-02-29"], ColumnType::String),
            (&["2013-01-01T10:00:00Z", "2013-01-01T10:00:00.5+02:00"], ColumnType::Datetime),
            (&["2013-01-01 10:00:00", "2013-01-01T10:00"], ColumnType::Datetime),
            (&["2013-01-01", "2013-01-01T10:00:00Z"], ColumnType::Datetime),
            (&["2013-01-01 10:00", "10:00"], ColumnType::String),
            (&["2013", "2013-01-01"], ColumnType::String),
            (&[], ColumnType::String),
        ] {
            assert_eq!(verdict(cells, b',').ty, expected, "{cells:?}");
        }
    }

    #[test]
    fn decimal_commas_and_thousands_are_one_decision_for_a_column() {
        use ColumnType::{Integer, Number, String};
        for (cells, separator, ty, notation) in [
            (&["1.250", "1,20", "300"][..], b';', Number, Notation::Comma),
            (&["1.250", "300"], b';', Number, Notation::Plain),
            (&["1.250.000", "300"], b';', Integer, Notation::Comma),
            (&["1,250", "300"], b';', Number, Notation::Comma),
            (&["1,250", "300"], b',', Integer, Notation::Grouped),
            (&["1,250", "300"], b'\t', Integer, Notation::Grouped),
            (&["1,25", "300"], b'\t', Number, Notation::Comma),
            (&["1,25", "300"], b',', String, Notation::Plain),
            (&["1,250.5", "300"], b';', Number, Notation::Grouped),
            (&["1,20 EUR", "1.250 EUR"], b';', String, Notation::Plain),
            (&["1,20 EUR", "1.250", "300"], b';', String, Notation::Comma),
            (&["1,5", "1.5"], b';', String, Notation::Comma),
        ] {
            let found = verdict(cells, separator);
            assert_eq!(found.ty, ty, "{cells:?}");
            if ty != String {
                assert_eq!(found.notation, notation, "{cells:?}");
            }
        }
        let mut survey = ColumnSurvey::default();
        ["1.250", "300"].iter().for_each(|cell| survey.see(cell, || 2));
        let found = survey.verdict("x", Numbers { decimal: Some(b','), separator: b',' });
        assert_eq!((found.ty, found.notation), (Integer, Notation::Comma), "the key settles it");
    }

    #[test]
    fn a_column_that_is_text_because_of_few_cells_names_the_first_of_them() {
        let guess = verdict(&["1", "2", "-", "4"], b',').guess.unwrap();
        assert_eq!(guess.because, "\"-\" in line 4 is not a number: 1 of 4 cells are not");
        let guess = verdict(&["2024-01-01", "2024-01-02", "soon"], b',').guess.unwrap();
        assert_eq!(guess.because, "\"soon\" in line 4 is not a date: 1 of 3 cells are not");
        assert_eq!(verdict(&["a", "b", "1"], b',').guess, None);
        let guess = verdict(&["1.250", "300"], b';').guess.unwrap();
        assert!(guess.is_doubtful && guess.because.starts_with("\"1.250\" in line 2"), "{guess}");
    }
}
