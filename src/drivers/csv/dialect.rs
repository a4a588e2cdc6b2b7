//! How a file is written: what separates its fields, and whether spaces beside the separators mean anything. The header tells.

use std::io::Read;
use std::path::Path;

use crate::drivers::file::{Content, open_regular};

/// Separators that are looked for; the first wins where two stand equally often.
const SEPARATORS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// Bytes of the header that are looked at.
const LOOK: u64 = 64 << 10;

/// What the header line shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    /// `id, name`: spaces are there for the eye.
    pub(super) padded: bool,
}

impl Dialect {
    /// Looks at the beginning of a file and leaves it there.
    pub(super) fn of(content: &mut Content, delimiter: Option<u8>) -> std::io::Result<Dialect> {
        let mut start = Vec::new();
        content.by_ref().take(LOOK).read_to_end(&mut start)?;
        content.rewind()?;
        Ok(Dialect::of_header(&start, delimiter))
    }

    fn of_header(start: &[u8], delimiter: Option<u8>) -> Dialect {
        let header = first_line(start);
        let often = |separator: &u8| bare(header).filter(|(_, byte)| byte == separator).count();
        // Of equals, `max_by_key` takes the last.
        let most = SEPARATORS.iter().rev().copied().max_by_key(often);
        let delimiter = delimiter.or(most).unwrap_or(b',');
        let space = |at: usize| header.get(at) == Some(&b' ');
        let mut separators = bare(header).filter(|(_, byte)| *byte == delimiter);
        let padded = separators.any(|(at, _)| space(at + 1) || at.checked_sub(1).is_some_and(space));
        Dialect { delimiter, padded }
    }
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

/// What a file that is not UTF-8 is probably written in, as `iconv` calls it.
pub(super) fn encoding(path: &Path) -> &'static str {
    let mut mark = [0; 2];
    let marked = open_regular(path).is_ok_and(|mut file| file.read_exact(&mut mark).is_ok());
    if marked && matches!(mark, [0xff, 0xfe] | [0xfe, 0xff]) { "UTF-16" } else { "WINDOWS-1252" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_separator_is_the_one_that_stands_most_often_in_the_header() {
        for (header, delimiter, padded) in [
            ("id,name\n1;2;3;4\n", b',', false),
            ("id;name;price, EUR\n", b';', false),
            ("id\tname\r\n", b'\t', false),
            ("id|name", b'|', false),
            ("\u{feff}\r\nid;name\n", b';', false),
            ("\"a;b;c\",d\n", b',', false),
            ("\"a\n;;b\",d\n", b',', false),
            ("a;b,c\n", b',', false),
            ("name\n", b',', false),
            ("", b',', false),
            ("id, name , price\n", b',', true),
            ("id , name\n", b',', true),
            ("Full Name,Unit Price\n", b',', false),
            ("\"a, b\",c\n", b',', false),
        ] {
            assert_eq!(Dialect::of_header(header.as_bytes(), None), Dialect { delimiter, padded }, "{header:?}");
        }
        assert_eq!(Dialect::of_header(b"a,b", Some(b'\t')).delimiter, b'\t');
    }
}
