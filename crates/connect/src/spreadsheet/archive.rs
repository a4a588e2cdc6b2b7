//! Check of a spreadsheet's ZIP archive before it is read: what it unpacks to is bounded.

use std::fs::File;
use std::io::{BufReader, Read as _};

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use zip::ZipArchive;

/// Maximum size of all parts of a file in bytes, unpacked.
pub(super) const MAX_UNPACKED: u64 = 1 << 30;
/// Maximum number of parts.
const MAX_PARTS: usize = 10_000;
/// Maximum number of cells of a sheet.
pub(super) const MAX_CELLS: u64 = 20_000_000;
/// Maximum number of columns of a sheet of either format.
const MAX_COLUMNS: u64 = 16_384;

/// Format of a spreadsheet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Xlsx,
    Ods,
}

/// Returns the format of a file, after a look at all of its parts, which may unpack to `most` bytes.
///
/// # Errors
/// The reason why it cannot be read.
pub(super) fn check(file: &File, most: u64) -> Result<Format, String> {
    let mut zip = ZipArchive::new(BufReader::new(file))
        .map_err(|error| format!("it is not an .xlsx or .ods file ({error}); one with a password cannot be read"))?;
    if zip.len() > MAX_PARTS {
        return Err(format!("it has more than {MAX_PARTS} parts"));
    }
    let mut left = most;
    for at in 0..zip.len() {
        let part = zip.by_index(at).map_err(|error| error.to_string())?;
        let name = part.name().map_err(|error| error.to_string())?.into_owned();
        if name.starts_with("xl/media/") || name.starts_with("Pictures/") {
            continue;
        }
        let size = std::io::copy(&mut part.take(left + 1), &mut std::io::sink());
        let size = size.map_err(|error| format!("its part {name} cannot be unpacked: {error}"))?;
        left = left.checked_sub(size).ok_or_else(|| format!("it unpacks to more than {most} bytes"))?;
    }
    if zip.by_name("xl/workbook.xml").is_ok() || zip.index_for_name("[Content_Types].xml").is_some() {
        return Ok(Format::Xlsx);
    }
    let content = zip.by_name("content.xml").map_err(|_| "it is neither an .xlsx nor an .ods file")?;
    check_cells(BufReader::new(content))?;
    Ok(Format::Ods)
}

/// Checks that the sheets of an `.ods` file have no more cells than is permitted: one element may stand for millions of them.
fn check_cells(content: impl std::io::BufRead) -> Result<(), String> {
    let mut reader = Reader::from_reader(content);
    let (mut buffer, mut size) = (Vec::new(), SheetSize::default());
    loop {
        buffer.clear();
        let event = reader.read_event_into(&mut buffer).map_err(|error| format!("it is not valid XML: {error}"))?;
        match event {
            Event::Eof => return Ok(()),
            Event::Start(start) => size.begin(&start, true),
            Event::Empty(start) => size.begin(&start, false),
            Event::End(end) if end.name().as_ref() == "table:table-row" => size.end_row(),
            _ => {}
        }
        if size.cells() > MAX_CELLS {
            return Err(format!("a sheet has more than {MAX_CELLS} cells"));
        }
    }
}

/// Size of the sheet that is being read.
#[derive(Default)]
struct SheetSize {
    /// Cells up to the last one with a value, in all rows.
    cells: u64,
    /// Rows up to the last one with a value.
    rows: u64,
    width: u64,
    empty_rows: u64,
    row_repeats: u64,
    row_cells: u64,
    empty_cells: u64,
}

impl SheetSize {
    fn cells(&self) -> u64 {
        self.cells.saturating_add(self.row_cells).max(self.rows.saturating_mul(self.width))
    }

    fn begin(&mut self, start: &BytesStart<'_>, has_content: bool) {
        match start.name().as_ref() {
            "table:table" => *self = SheetSize::default(),
            "table:table-row" => {
                self.row_repeats = repeats(start, "table:number-rows-repeated");
                (self.row_cells, self.empty_cells) = (0, 0);
            }
            "table:table-cell" | "table:covered-table-cell" => {
                let count = repeats(start, "table:number-columns-repeated").min(MAX_COLUMNS);
                let has = |name| start.try_get_attribute(name).is_ok_and(|found| found.is_some());
                if has_content || has("office:value-type") || has("table:formula") {
                    self.row_cells = self.row_cells.saturating_add(self.empty_cells).saturating_add(count);
                    self.empty_cells = 0;
                } else {
                    self.empty_cells = self.empty_cells.saturating_add(count).min(MAX_COLUMNS);
                }
            }
            _ => {}
        }
    }

    fn end_row(&mut self) {
        if self.row_cells == 0 {
            self.empty_rows = self.empty_rows.saturating_add(self.row_repeats);
            return;
        }
        self.rows = self.rows.saturating_add(self.empty_rows).saturating_add(self.row_repeats);
        self.empty_rows = 0;
        self.width = self.width.max(self.row_cells);
        self.cells = self.cells.saturating_add(self.row_cells);
        self.row_cells = 0;
    }
}

fn repeats(start: &BytesStart<'_>, name: &str) -> u64 {
    let found = start.try_get_attribute(name).ok().flatten();
    found.and_then(|attribute| attribute.value.parse().ok()).unwrap_or(1)
}
