//! Detection of a file's dialect: separator, position of the header, meaning of spaces and quotes. It is determined from the
//! first rows, which must have as many fields as the header.

use csv::{ByteRecord, ReaderBuilder};

use super::column::is_numeric;

/// Candidate separators. If rows fit two of them equally well, the first wins: a comma is more frequent in texts and numbers than
/// the others.
const SEPARATORS: [u8; 4] = [b'\t', b';', b'|', b','];

/// Number of bytes examined.
pub(super) const LOOK: u64 = 64 << 10;

/// Number of rows examined.
const ROWS: usize = 200;

/// Maximum number of title lines above a header.
const TITLES: usize = 20;

/// Declared properties of a file, which are not detected.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Declarations {
    pub(super) separator: Option<u8>,
    /// The line of the header.
    pub(super) header: Option<u64>,
}

/// Detected dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    /// True if spaces around cells are padding: `id, name`.
    pub(super) padded: bool,
    /// True if everything is quoted, so that `""` does not differ from an empty cell.
    pub(super) quoted: bool,
    /// Number of bytes and lines before the header.
    pub(super) skipped: (u64, u64),
    /// Reason for this separator; `None` if it is declared or there is nothing to separate.
    pub(super) because: Option<String>,
    /// Kind of the lines before the header.
    pub(super) above: Option<&'static str>,
}

/// First rows of a file, split by one separator.
struct SampleRows {
    delimiter: u8,
    rows: Vec<Row>,
    /// Number of fields of most rows.
    width: usize,
    /// Index of the header in `rows`.
    header: usize,
    score: f64,
    agreeing: usize,
}

/// One row with its offset and its line.
struct Row {
    at: usize,
    line: u64,
    fields: ByteRecord,
}

impl Dialect {
    /// Detects the dialect from `start`, the beginning of a file. `whole` is true if `start` is the whole file.
    pub(super) fn of(start: &[u8], whole: bool, declared: Declarations) -> Dialect {
        let before = Preamble::of(start, declared.header);
        let body = &start[before.bytes..];
        let separators = match declared.separator.or(before.separator) {
            Some(ref separator) => vec![*separator],
            None => SEPARATORS.to_vec(),
        };
        let movable = declared.header.is_none();
        let read = |separator: &u8| SampleRows::of(body, *separator, whole, movable);
        let readings = separators.iter().filter_map(read).filter(|reading| reading.width > 1);
        // `max_by` returns the last of equal elements.
        let best = readings.rev().max_by(|a, b| a.score.total_cmp(&b.score));
        let delimiter = best.as_ref().map_or(separators[separators.len() - 1], |best| best.delimiter);
        let mut skipped = (before.bytes as u64, before.lines);
        let mut above = before.what;
        if let Some(header) = best.as_ref().map(|best| &best.rows[best.header]).filter(|header| header.at > 0) {
            skipped = (skipped.0 + header.at as u64, skipped.1 + physical_lines(&body[..header.at]).count() as u64);
            above = if best.as_ref().is_some_and(|best| best.header > 0) { Some("titles") } else { above };
        } else if let Some(comment) = before.last_comment.filter(|_| movable)
            && best.as_ref().is_some_and(|best| best.takes_header(&start[comment.0..before.bytes]))
        {
            skipped = (comment.0 as u64, comment.1);
            above = above.filter(|_| comment.1 > 0);
        }
        let line = first_line(&start[usize::try_from(skipped.0).unwrap_or_default()..]);
        let because = match (declared.separator, before.separator) {
            (Some(_), _) => None,
            (None, Some(_)) => Some("the first line declares it".to_string()),
            (None, None) => best.map(|best| best.because()),
        };
        Dialect {
            delimiter,
            padded: is_padded(line, delimiter),
            quoted: is_quoted(line, delimiter),
            skipped,
            because,
            above: above.filter(|_| movable),
        }
    }
}

/// Lines before the first possible header.
#[derive(Default)]
struct Preamble {
    bytes: usize,
    lines: u64,
    /// Separator declared by a line `sep=;`.
    separator: Option<u8>,
    /// Byte and line of the comment directly before the next line.
    last_comment: Option<(usize, u64)>,
    what: Option<&'static str>,
}

impl Preamble {
    fn of(start: &[u8], header: Option<u64>) -> Preamble {
        let mut preamble = Preamble::default();
        let mark = if start.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        for (at, line) in physical_lines(&start[mark..]) {
            let text = line.trim_ascii();
            if header.is_some_and(|header| preamble.lines + 1 >= header) {
                break;
            }
            match separator(text) {
                Some(separator) if preamble.separator.is_none() => preamble.separator = Some(separator),
                _ if header.is_some() => {}
                _ if text.starts_with(b"#") => preamble.what = Some("comments"),
                _ if text.is_empty() => {}
                _ => break,
            }
            preamble.last_comment = text.starts_with(b"#").then_some((mark + at, preamble.lines));
            preamble.bytes = mark + at + line.len();
            preamble.lines += 1;
        }
        // The byte order mark is left for the decoder.
        if preamble.bytes == mark {
            preamble.bytes = 0;
        }
        preamble
    }
}

/// Returns lines with their line ends, and the offset of each.
fn physical_lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
        let end = rest
            .iter()
            .position(|byte| matches!(byte, b'\n' | b'\r'))
            .map_or(rest.len(), |end| end + if rest[end..].starts_with(b"\r\n") { 2 } else { 1 });
        let line = (at, &rest[..end]);
        at += end;
        Some(line)
    })
}

/// Returns the separator that Excel's first line `sep=;` declares.
fn separator(line: &[u8]) -> Option<u8> {
    let bare = line.strip_prefix(b"\"").and_then(|line| line.strip_suffix(b"\"")).unwrap_or(line);
    let (word, separator) = bare.split_at_checked(4)?;
    match separator {
        _ if !word.eq_ignore_ascii_case(b"sep=") => None,
        [] => Some(b'\t'),
        [separator] if separator.is_ascii_punctuation() => Some(*separator),
        _ => None,
    }
}

impl SampleRows {
    fn of(body: &[u8], delimiter: u8, whole: bool, movable: bool) -> Option<SampleRows> {
        memchr::memchr(delimiter, body)?;
        let mut rows = rows(body, delimiter);
        if !whole && rows.len() > 1 && rows.len() < ROWS {
            // The last row continues beyond the bytes examined.
            rows.pop();
        }
        let first = rows.first()?.fields.len();
        let count = |width: usize| rows.iter().filter(|row| row.fields.len() == width).count();
        // If two widths are equally frequent, the width of the first row wins.
        let width = rows.iter().map(|row| row.fields.len()).max_by_key(|width| (count(*width), *width == first))?;
        let mut reading = SampleRows { delimiter, rows, width, header: 0, score: 0.0, agreeing: 0 };
        reading.header = if movable { reading.find_header() } else { 0 };
        let body_rows = &reading.rows[reading.header..];
        reading.agreeing = body_rows.iter().filter(|row| row.fields.len() == width).count();
        let share = reading.agreeing as f64 / body_rows.len() as f64;
        let fits = if fits(&body_rows.first()?.fields, width) { 1.0 } else { 0.25 };
        let strays = strays(body, delimiter, whole) as f64;
        reading.score = fits * share.powi(3) * (width as f64).log2() / (1.0 + strays);
        Some(reading)
    }

    /// Returns the index of the header; rows before it are titles, judging by the rows after it.
    fn find_header(&self) -> usize {
        let before_blank = |at: usize| {
            let next = self.rows.get(at + 1).is_some_and(|next| next.line > self.rows[at].line + 1);
            next && self.rows[at].fields.len() < self.width
        };
        let is_title = |(at, row): &(usize, &Row)| self.is_title(row) || before_blank(*at);
        let titles = self.rows.iter().enumerate().take(TITLES).take_while(is_title).count();
        if titles == 0 || titles >= self.rows.len() {
            return 0;
        }
        let header = &self.rows[titles];
        let blank = header.line > self.rows[titles - 1].line + 1;
        let fits = fits(&header.fields, self.width);
        let is_header_of =
            || self.is_header_of(&header.fields, titles + 1) || (self.width > 2 && is_names(&header.fields));
        if fits && (blank || is_header_of()) { titles } else { 0 }
    }

    /// Returns true if the row has only one field, or far fewer than the others.
    fn is_title(&self, row: &Row) -> bool {
        let (fields, width) = (&row.fields, self.width);
        let alone = fields.iter().skip(1).all(|field| field.trim_ascii().is_empty());
        let first = fields.get(0).is_some_and(|field| !field.trim_ascii().is_empty());
        match fields.len() {
            1 => width > 1,
            own if own == width => width > 2 && first && alone,
            own => own < width && (own * 2 <= width || (first && alone)),
        }
    }

    /// Returns true if a row has a name above a column of numbers.
    fn is_header_of(&self, fields: &ByteRecord, from: usize) -> bool {
        let text = |field: &[u8]| std::str::from_utf8(field).is_ok_and(is_numeric);
        let numbers = |at: usize| {
            let cells = self.rows[from.min(self.rows.len())..].iter().filter_map(|row| row.fields.get(at));
            let (mut numbers, mut others) = (0, 0);
            for cell in cells.filter(|cell| !cell.is_empty()) {
                if text(cell) { numbers += 1 } else { others += 1 }
            }
            numbers > others * 4
        };
        fields.iter().enumerate().any(|(at, name)| !name.is_empty() && !text(name) && numbers(at))
    }

    /// Returns true if the comment `line` directly above the rows is their header, as in `#name,value`.
    fn takes_header(&self, line: &[u8]) -> bool {
        let line = line.trim_ascii();
        let spaced =
            line.get(1).is_none_or(|next| next.is_ascii_whitespace() && *next != self.delimiter || *next == b'#');
        let Some(row) = rows(line, self.delimiter).pop().filter(|_| !spaced) else { return false };
        let first = &self.rows[0].fields;
        let has_header = self.is_header_of(first, 1) || (is_names(first) && !self.is_header_of(&row.fields, 0));
        row.fields.len() == self.width && !has_header
    }

    fn because(&self) -> String {
        let rows = self.rows.len() - self.header;
        let (agreeing, width) = (self.agreeing, self.width);
        format!("{agreeing} of the first {rows} rows, including the header, have {width} fields with it")
    }
}

/// Returns true if a header has as many names as rows have fields. Empty names at its end may be without fields.
fn fits(header: &ByteRecord, width: usize) -> bool {
    let unnamed = header.iter().rev().take_while(|name| name.trim_ascii().is_empty()).count();
    (header.len() - unnamed..=header.len()).contains(&width)
}

/// Number of quotes that neither begin nor end a field. There are many if the separator is wrong.
fn strays(body: &[u8], delimiter: u8, whole: bool) -> usize {
    let is_end = |byte: &u8| *byte == delimiter || matches!(byte, b'\r' | b'\n');
    let (mut strays, mut quoted, mut begins) = (0, false, true);
    let mut bytes = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).iter().peekable();
    while let Some(byte) = bytes.next() {
        match (quoted, byte) {
            (true, b'"') if bytes.next_if(|next| **next == b'"').is_none() => {
                quoted = false;
                strays += usize::from(bytes.peek().is_some_and(|next| !is_end(next)));
            }
            (false, b'"') if begins => quoted = true,
            (false, b'"') => strays += 1,
            _ => {}
        }
        begins = !quoted && is_end(byte);
    }
    strays + usize::from(quoted && whole)
}

/// Returns true if every field is a distinct text.
fn is_names(fields: &ByteRecord) -> bool {
    let name = |field: &[u8]| !field.trim_ascii().is_empty() && !std::str::from_utf8(field).is_ok_and(is_numeric);
    let mut seen = std::collections::HashSet::new();
    fields.iter().all(|field| name(field) && seen.insert(field.to_vec()))
}

/// Returns the rows of `body` that are not blank.
fn rows(body: &[u8], delimiter: u8) -> Vec<Row> {
    let capacity = body.len().clamp(64, 8 << 10);
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .buffer_capacity(capacity)
        .from_reader(body);
    let mut rows = Vec::new();
    let mut fields = ByteRecord::new();
    while rows.len() < ROWS && reader.read_byte_record(&mut fields).unwrap_or(false) {
        if fields.as_slice().trim_ascii().is_empty() {
            continue;
        }
        let Some(position) = fields.position() else { break };
        let at = usize::try_from(position.byte()).unwrap_or(usize::MAX);
        // The position is the end of the previous row.
        let rest = body.get(at..).unwrap_or_default();
        let blank = rest.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
        let line = position.line() + rest[..blank].iter().filter(|byte| **byte == b'\n').count() as u64;
        rows.push(Row { at: at + blank, line, fields: fields.clone() });
    }
    rows
}

/// Returns the bytes up to the end of the first line that is not empty; quoted line ends belong to it.
fn first_line(start: &[u8]) -> &[u8] {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let blank = start.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let end = bare(&start[blank..]).find(|(_, byte)| matches!(byte, b'\r' | b'\n'));
    &start[blank..end.map_or(start.len(), |(at, _)| blank + at)]
}

/// Returns the bytes outside double quotes with their offsets.
fn bare(line: &[u8]) -> impl Iterator<Item = (usize, u8)> {
    let mut quoted = false;
    line.iter().copied().enumerate().filter(move |(_, byte)| {
        quoted ^= *byte == b'"';
        !quoted
    })
}

/// Returns true if there are spaces next to the separators of a header.
fn is_padded(header: &[u8], delimiter: u8) -> bool {
    let space = |at: usize| header.get(at) == Some(&b' ');
    let mut separators = bare(header).filter(|(_, byte)| *byte == delimiter);
    separators.any(|(at, _)| space(at + 1) || at.checked_sub(1).is_some_and(space))
}

/// Returns true if a name in the header has quotes that it does not need, which means that the writer quotes everything.
fn is_quoted(header: &[u8], delimiter: u8) -> bool {
    let needs = |name: &[u8]| {
        let special =
            |byte: &u8| *byte == delimiter || SEPARATORS.contains(byte) || matches!(byte, b'"' | b'\r' | b'\n');
        let ends = [name.first(), name.last()];
        let mark = name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"sep="));
        mark || ends.iter().any(|end| end.is_none_or(|end| matches!(end, b' ' | b'#'))) || name.iter().any(special)
    };
    let mut from = 0;
    let ends = bare(header).filter(|(_, byte)| *byte == delimiter).map(|(at, _)| at).chain([header.len()]);
    let mut fields = ends.map(|end| {
        let field = &header[from.min(end)..end];
        from = end + 1;
        field
    });
    fields.any(|field| {
        let name = field.strip_prefix(b"\"").and_then(|field| field.strip_suffix(b"\""));
        name.is_some_and(|name| !needs(name))
    })
}

#[cfg(test)]
mod tests;
