//! How a file is written: what separates its fields, where its header is, and whether spaces and quotes mean anything. The first
//! rows tell, which have to agree with the header.

use csv::{ByteRecord, ReaderBuilder};

use super::column::is_numeric;

/// Separators that are looked for; of two under which the rows agree as well, the first wins: a comma stands in texts and
/// numbers more often than the others.
const SEPARATORS: [u8; 4] = [b'\t', b';', b'|', b','];

/// Bytes of the beginning that are looked at.
pub(super) const LOOK: u64 = 64 << 10;

/// Rows of the beginning that are looked at.
const ROWS: usize = 200;

/// Lines that may stand above a header as titles.
const TITLES: usize = 20;

/// Declarations about a file, which are not to be found out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Declarations {
    pub(super) separator: Option<u8>,
    /// The line of the header.
    pub(super) header: Option<u64>,
}

/// Findings about the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    /// `id, name`: spaces are there for the eye.
    pub(super) padded: bool,
    /// Set if everything is in quotes, so that `""` cannot be told from nothing.
    pub(super) quoted: bool,
    /// Bytes and lines before the header.
    pub(super) skipped: (u64, u64),
    /// Why this separator; `None` if there is nothing to separate.
    pub(super) because: Option<String>,
    /// Kinds of the lines before the header.
    pub(super) above: Option<&'static str>,
}

/// The rows of a beginning under one separator.
struct SampleRows {
    delimiter: u8,
    rows: Vec<Row>,
    /// Fields of most rows.
    width: usize,
    /// Place of the header among the rows.
    header: usize,
    score: f64,
    agreeing: usize,
}

struct Row {
    at: usize,
    line: u64,
    fields: ByteRecord,
}

impl Dialect {
    /// Looks at `start`, the beginning of a file; `whole` if there is no more of it.
    pub(super) fn of(start: &[u8], whole: bool, said: Declarations) -> Dialect {
        let before = Preamble::of(start, said.header);
        let body = &start[before.bytes..];
        let separators = match said.separator.or(before.separator) {
            Some(ref separator) => vec![*separator],
            None => SEPARATORS.to_vec(),
        };
        let movable = said.header.is_none();
        let read = |separator: &u8| SampleRows::of(body, *separator, whole, movable);
        let readings = separators.iter().filter_map(read).filter(|reading| reading.width > 1);
        // Of equals, `max_by` takes the last.
        let best = readings.rev().max_by(|a, b| a.score.total_cmp(&b.score));
        let delimiter = best.as_ref().map_or(separators[separators.len() - 1], |best| best.delimiter);
        let mut skipped = (before.bytes as u64, before.lines);
        let mut above = before.what;
        if let Some(header) = best.as_ref().map(|best| &best.rows[best.header]).filter(|header| header.at > 0) {
            skipped = (skipped.0 + header.at as u64, skipped.1 + physical(&body[..header.at]).count() as u64);
            above = if best.as_ref().is_some_and(|best| best.header > 0) { Some("titles") } else { above };
        } else if let Some(comment) = before.last_comment.filter(|_| movable)
            && best.as_ref().is_some_and(|best| best.takes_header(&start[comment.0..before.bytes]))
        {
            skipped = (comment.0 as u64, comment.1);
            above = above.filter(|_| comment.1 > 0);
        }
        let line = first_line(&start[usize::try_from(skipped.0).unwrap_or_default()..]);
        let because = match (said.separator, before.separator) {
            (Some(_), _) => None,
            (None, Some(_)) => Some("the first line says so".to_string()),
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

/// Lines before the first that may be the header.
#[derive(Default)]
struct Preamble {
    bytes: usize,
    lines: u64,
    /// Separator that a line `sep=;` declares.
    separator: Option<u8>,
    /// Byte and line of the comment right before the next line.
    last_comment: Option<(usize, u64)>,
    what: Option<&'static str>,
}

impl Preamble {
    fn of(start: &[u8], header: Option<u64>) -> Preamble {
        let mut found = Preamble::default();
        let mark = if start.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        for (at, line) in physical(&start[mark..]) {
            let text = line.trim_ascii();
            if header.is_some_and(|header| found.lines + 1 >= header) {
                break;
            }
            match separator(text) {
                Some(separator) if found.separator.is_none() => found.separator = Some(separator),
                _ if header.is_some() => {}
                _ if text.starts_with(b"#") => found.what = Some("comments"),
                _ if text.is_empty() => {}
                _ => break,
            }
            found.last_comment = text.starts_with(b"#").then_some((mark + at, found.lines));
            found.bytes = mark + at + line.len();
            found.lines += 1;
        }
        // The mark stays with what is read.
        if found.bytes == mark {
            found.bytes = 0;
        }
        found
    }
}

/// Lines with their ends, and where they begin.
fn physical(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
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

/// Separator that Excel's first line `sep=;` declares.
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
            // The last one goes on behind what was looked at.
            rows.pop();
        }
        let first = rows.first()?.fields.len();
        let count = |width: usize| rows.iter().filter(|row| row.fields.len() == width).count();
        // Of two widths that are as frequent, that of the first row.
        let width = rows.iter().map(|row| row.fields.len()).max_by_key(|width| (count(*width), *width == first))?;
        let mut reading = SampleRows { delimiter, rows, width, header: 0, score: 0.0, agreeing: 0 };
        reading.header = if movable { reading.find_header() } else { 0 };
        let those = &reading.rows[reading.header..];
        reading.agreeing = those.iter().filter(|row| row.fields.len() == width).count();
        let share = reading.agreeing as f64 / those.len() as f64;
        let fits = if fits(&those.first()?.fields, width) { 1.0 } else { 0.25 };
        let strays = strays(body, delimiter, whole) as f64;
        reading.score = fits * share.powi(3) * (width as f64).log2() / (1.0 + strays);
        Some(reading)
    }

    /// The first row that may be the header: those before it are titles, as far as the rows behind it show.
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
        let heads = || self.heads(&header.fields, titles + 1) || (self.width > 2 && is_names(&header.fields));
        if fits && (blank || heads()) { titles } else { 0 }
    }

    /// Tells whether the row has but one field, or far fewer than the others.
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

    /// Tells whether a row has names over columns of numbers.
    fn heads(&self, fields: &ByteRecord, from: usize) -> bool {
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

    /// Tells whether the comment `line` right above the rows is their header, as in `#name,value`.
    fn takes_header(&self, line: &[u8]) -> bool {
        let line = line.trim_ascii();
        let spaced =
            line.get(1).is_none_or(|next| next.is_ascii_whitespace() && *next != self.delimiter || *next == b'#');
        let Some(row) = rows(line, self.delimiter).pop().filter(|_| !spaced) else { return false };
        let first = &self.rows[0].fields;
        let has_header = self.heads(first, 1) || (is_names(first) && !self.heads(&row.fields, 0));
        row.fields.len() == self.width && !has_header
    }

    fn because(&self) -> String {
        let rows = self.rows.len() - self.header;
        let (agreeing, width) = (self.agreeing, self.width);
        format!("{agreeing} of the first {rows} rows, the header among them, have {width} fields so")
    }
}

/// Tells whether a header has as many names as rows have fields; names that are empty at its end may have none.
fn fits(header: &ByteRecord, width: usize) -> bool {
    let unnamed = header.iter().rev().take_while(|name| name.trim_ascii().is_empty()).count();
    (header.len() - unnamed..=header.len()).contains(&width)
}

/// Quotes that neither begin nor end a field: there are many where something else separates fields.
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

/// Tells whether every field is a text of its own.
fn is_names(fields: &ByteRecord) -> bool {
    let name = |field: &[u8]| !field.trim_ascii().is_empty() && !std::str::from_utf8(field).is_ok_and(is_numeric);
    let mut seen = std::collections::HashSet::new();
    fields.iter().all(|field| name(field) && seen.insert(field.to_vec()))
}

/// The rows of `body` that are not blank.
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
        // The place is that of the end of the row before.
        let rest = body.get(at..).unwrap_or_default();
        let blank = rest.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
        let line = position.line() + rest[..blank].iter().filter(|byte| **byte == b'\n').count() as u64;
        rows.push(Row { at: at + blank, line, fields: fields.clone() });
    }
    rows
}

/// Up to the end of the first line that is not empty; line ends in quotes belong to it.
fn first_line(start: &[u8]) -> &[u8] {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let blank = start.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let end = bare(&start[blank..]).find(|(_, byte)| matches!(byte, b'\r' | b'\n'));
    &start[blank..end.map_or(start.len(), |(at, _)| blank + at)]
}

/// Bytes outside double quotes, with their places.
fn bare(line: &[u8]) -> impl Iterator<Item = (usize, u8)> {
    let mut quoted = false;
    line.iter().copied().enumerate().filter(move |(_, byte)| {
        quoted ^= *byte == b'"';
        !quoted
    })
}

/// Tells whether spaces stand beside the separators of a header.
fn is_padded(header: &[u8], delimiter: u8) -> bool {
    let space = |at: usize| header.get(at) == Some(&b' ');
    let mut separators = bare(header).filter(|(_, byte)| *byte == delimiter);
    separators.any(|(at, _)| space(at + 1) || at.checked_sub(1).is_some_and(space))
}

/// Tells whether a name in the header is in quotes that it does not need: then whoever wrote the file quotes everything.
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
