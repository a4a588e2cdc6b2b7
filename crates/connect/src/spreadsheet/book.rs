//! Sheets of a spreadsheet, and the values of their cells.

use std::fs::File;
use std::io::BufReader;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use calamine::{Data, DataRef, ExcelDateTime, Ods, Reader as _, Sheet, SheetType, SheetVisible, Xlsx};

use super::archive::{Format, MAX_CELLS, MAX_UNPACKED, check};
use crate::file::source::{Content, io_error};
use diorama_core::record::CborValue;
use diorama_core::vista::{Error, Result};

/// A cell.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Value(CborValue),
    /// An error of Excel, like `#DIV/0!`.
    Error(String),
}

/// A row with its cells by column, both from 0. Empty cells are left out.
pub(super) struct SheetRow {
    pub(super) at: u32,
    pub(super) cells: Vec<(u32, Cell)>,
}

/// An open spreadsheet.
pub(super) struct Book<'p> {
    path: &'p Path,
    file: BookFile,
}

enum BookFile {
    Xlsx(Box<Xlsx<BufReader<File>>>),
    Ods(Box<Ods<BufReader<File>>>),
}

/// Passes the open spreadsheet to `work`.
pub(super) fn with_book<T>(
    path: &Path,
    content: &mut Content,
    work: impl FnOnce(&mut Book<'_>) -> Result<T>,
) -> Result<T> {
    let file = content.whole().map_err(|error| io_error(path, &error))?;
    let done = catch_unwind(AssertUnwindSafe(|| work(&mut Book::open(path, file)?)));
    done.unwrap_or_else(|_| Err(unreadable(path, &"it is damaged")))
}

/// A transient error, because the file may be replaced.
fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::transient(format!("cannot read the spreadsheet {}: {error}", path.display()))
}

impl<'p> Book<'p> {
    fn open(path: &'p Path, file: File) -> Result<Book<'p>> {
        let format = check(&file, MAX_UNPACKED).map_err(|problem| unreadable(path, &problem))?;
        let reader = BufReader::new(file);
        let file = match format {
            Format::Xlsx => {
                let book = Xlsx::new(reader).map_err(|error| unreadable(path, &error))?;
                BookFile::Xlsx(Box::new(book))
            }
            Format::Ods => {
                let book = Ods::new(reader).map_err(|error| unreadable(path, &error))?;
                BookFile::Ods(Box::new(book))
            }
        };
        Ok(Book { path, file })
    }

    /// Returns the names of the sheets that are shown.
    pub(super) fn sheets(&self) -> Vec<String> {
        let sheets = match &self.file {
            BookFile::Xlsx(book) => book.sheets_metadata(),
            BookFile::Ods(book) => book.sheets_metadata(),
        };
        let is_shown = |sheet: &&Sheet| sheet.typ == SheetType::WorkSheet && sheet.visible == SheetVisible::Visible;
        sheets.iter().filter(is_shown).map(|sheet| sheet.name.clone()).collect()
    }

    /// Returns all names, also of hidden sheets.
    pub(super) fn all_sheets(&self) -> Vec<String> {
        match &self.file {
            BookFile::Xlsx(book) => book.sheet_names(),
            BookFile::Ods(book) => book.sheet_names(),
        }
    }

    /// Passes the rows of a sheet to `sink` until it returns `false`.
    pub(super) fn each_row(&mut self, sheet: &str, sink: &mut dyn FnMut(SheetRow) -> Result<bool>) -> Result<()> {
        let path = self.path;
        let mut count = 0;
        let mut row = SheetRow { at: 0, cells: Vec::new() };
        let mut add = |at: (u32, u32), cell: Cell| -> Result<bool> {
            count += 1;
            if count > MAX_CELLS {
                return Err(unreadable(path, &format!("the sheet {sheet:?} has more than {MAX_CELLS} cells")));
            }
            let goes_on = match at.0 == row.at || row.cells.is_empty() {
                true => true,
                false => sink(std::mem::replace(&mut row, SheetRow { at: at.0, cells: Vec::new() }))?,
            };
            row.at = at.0;
            row.cells.push((at.1, cell));
            Ok(goes_on)
        };
        match &mut self.file {
            BookFile::Xlsx(book) => {
                let mut cells = book.worksheet_cells_reader(sheet).map_err(|error| unreadable(path, &error))?;
                while let Some(cell) = cells.next_cell().map_err(|error| unreadable(path, &error))? {
                    if let Some(value) = value_of(cell.get_value())
                        && !add(cell.get_position(), value)?
                    {
                        return Ok(());
                    }
                }
            }
            BookFile::Ods(book) => {
                let range = book.worksheet_range(sheet).map_err(|error| unreadable(path, &error))?;
                let (row, column) = range.start().unwrap_or_default();
                for (at_row, at_column, cell) in range.used_cells() {
                    let place = |base: u32, at: usize| base.saturating_add(u32::try_from(at).unwrap_or(u32::MAX));
                    if let Some(value) = value_of_ods(cell)
                        && !add((place(row, at_row), place(column, at_column)), value)?
                    {
                        return Ok(());
                    }
                }
            }
        }
        if !row.cells.is_empty() {
            sink(row)?;
        }
        Ok(())
    }
}

/// Returns the name of a cell, like `B7`.
pub(super) fn cell_name(row: u32, column: u32) -> String {
    let (mut letters, mut rest) = (Vec::new(), u64::from(column) + 1);
    while rest > 0 {
        rest -= 1;
        letters.push(char::from(b'A' + u8::try_from(rest % 26).unwrap_or_default()));
        rest /= 26;
    }
    format!("{}{}", letters.iter().rev().collect::<String>(), u64::from(row) + 1)
}

/// Returns the value of a cell; `None` if it is empty.
fn value_of(data: &DataRef<'_>) -> Option<Cell> {
    Some(Cell::Value(match data {
        DataRef::Empty => return None,
        DataRef::Int(number) => (*number).into(),
        DataRef::Float(number) => number_of(*number),
        DataRef::String(text) => text_of(text)?,
        DataRef::SharedString(text) => text_of(text)?,
        DataRef::Bool(value) => (*value).into(),
        DataRef::DateTime(time) => time_of(time).into(),
        DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => text_of(text)?,
        DataRef::Error(error) => return Some(Cell::Error(error.to_string())),
    }))
}

fn value_of_ods(data: &Data) -> Option<Cell> {
    Some(Cell::Value(match data {
        Data::Empty => return None,
        Data::Int(number) => (*number).into(),
        Data::Float(number) => number_of(*number),
        // LibreOffice stores an error as its text.
        Data::String(text) if is_error(text) => return Some(Cell::Error(text.clone())),
        Data::String(text) | Data::DateTimeIso(text) => text_of(text)?,
        Data::DurationIso(text) => duration_of(text).into(),
        Data::Bool(value) => (*value).into(),
        Data::DateTime(time) => time_of(time).into(),
        Data::Error(error) => return Some(Cell::Error(error.to_string())),
    }))
}

fn is_error(text: &str) -> bool {
    matches!(text, "#DIV/0!" | "#N/A" | "#NAME?" | "#NULL!" | "#NUM!" | "#REF!" | "#VALUE!")
        || text.strip_prefix("Err:").is_some_and(|code| code.len() == 3 && code.bytes().all(|c| c.is_ascii_digit()))
}

fn text_of(text: &str) -> Option<CborValue> {
    (!text.is_empty()).then(|| text.into())
}

/// Returns a number, as an integer if it is one that a float holds exactly.
fn number_of(number: f64) -> CborValue {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match number.fract() == 0.0 && number.abs() <= EXACT {
        true => (number as i64).into(),
        false => number.into(),
    }
}

/// Returns a date, a date and time, a time of day, or a duration.
fn time_of(time: &ExcelDateTime) -> String {
    const DAY: i64 = 86_400_000;
    let days = time.as_f64();
    if time.is_duration() || (0.0..1.0).contains(&days) {
        let milliseconds = (days * DAY as f64).round() as i64;
        return clock(milliseconds);
    }
    let (year, month, day, hour, minute, second, milli) = time.to_ymd_hms_milli();
    let date = format!("{year:04}-{month:02}-{day:02}");
    let of_day = ((i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second)) * 1_000 + i64::from(milli);
    if of_day == 0 { date } else { format!("{date}T{}", clock(of_day)) }
}

/// Returns a time as `HH:MM:SS`, with milliseconds if there are any; hours may exceed 23.
fn clock(milliseconds: i64) -> String {
    let (sign, total) = (if milliseconds < 0 { "-" } else { "" }, milliseconds.unsigned_abs());
    let (seconds, milli) = (total / 1_000, total % 1_000);
    let fraction = if milli == 0 { String::new() } else { format!(".{milli:03}") };
    format!("{sign}{:02}:{:02}:{:02}{fraction}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// Returns a time of `.ods` (`PT10H30M00S`) in the form of [`clock`], or as it is.
fn duration_of(text: &str) -> String {
    let span: Option<jiff::SignedDuration> = text.parse().ok();
    span.and_then(|span| i64::try_from(span.as_millis()).ok()).map_or_else(|| text.to_string(), clock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use calamine::ExcelDateTimeType;

    #[test]
    fn cells_have_their_names_and_times_their_text() {
        assert_eq!((cell_name(0, 0), cell_name(6, 27)), ("A1".into(), "AB7".into()));
        assert_eq!(cell_name(1_048_575, 16_383), "XFD1048576");
        let time = |value| time_of(&ExcelDateTime::new(value, ExcelDateTimeType::DateTime, false));
        assert_eq!(time(45_000.0), "2023-03-15");
        assert_eq!(time(45_000.5), "2023-03-15T12:00:00");
        assert_eq!(time(0.75), "18:00:00");
        let span = ExcelDateTime::new(1.5, ExcelDateTimeType::TimeDelta, false);
        assert_eq!(time_of(&span), "36:00:00");
        assert_eq!(duration_of("PT36H30M05S"), "36:30:05");
        assert_eq!((number_of(3.0), number_of(0.5)), (3.into(), 0.5.into()));
    }
}
