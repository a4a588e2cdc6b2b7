//! Text of a file, unpacked (gzip) and decoded to UTF-8 while it is read.
//!
//! UTF-8 passes through as it is. Bytes that are not UTF-8 are counted: whoever has read the file asks [`Text::is_western`] and
//! reads it again as windows-1252 if that is what it is.

use std::io::{Error, ErrorKind, Read};

use encoding_rs::{Decoder, Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use flate2::read::MultiGzDecoder;

use super::source::Content;

/// Bytes that show a mark or the zeros of UTF-16.
const LOOK: u64 = 256;

/// Bytes that are decoded at a time.
const PIECE: usize = 16 << 10;

/// Decoding of a file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Coding {
    pub(crate) gzip: bool,
    pub(crate) encoding: &'static Encoding,
    /// Why this encoding; `None` if it is UTF-8 without a mark.
    pub(crate) because: Option<&'static str>,
    /// Set if a key says so.
    declared: bool,
}

impl Coding {
    /// Looks at the first bytes and goes back to the beginning.
    pub(crate) fn of(content: &mut Content, declared: Option<&'static Encoding>) -> std::io::Result<Coding> {
        let gzip = start(content, false)?.starts_with(b"\x1f\x8b");
        let first = start(content, gzip)?;
        let marked = Encoding::for_bom(&first).map(|(encoding, _)| encoding);
        let (encoding, because) = match (declared, marked) {
            // The mark says in which order the bytes of a character stand.
            (Some(wide), Some(marked)) if is_wide(wide) && is_wide(marked) => (marked, None),
            (Some(declared), _) => (declared, None),
            (None, Some(marked)) => (marked, Some("its first bytes are a byte order mark")),
            (None, None) => match wide(&first) {
                Some(wide) => (wide, Some("every other byte at its beginning is zero")),
                None => (UTF_8, None),
            },
        };
        Ok(Coding { gzip, encoding, because, declared: declared.is_some() })
    }

    /// The fallback for bytes that are not UTF-8, if nothing else is said.
    pub(crate) fn western(self) -> Option<Coding> {
        let because = Some("it has bytes that are not UTF-8");
        let may = !self.declared && self.encoding == UTF_8 && self.because.is_none();
        may.then_some(Coding { encoding: WINDOWS_1252, because, ..self })
    }
}

fn start(content: &mut Content, gzip: bool) -> std::io::Result<Vec<u8>> {
    let mut first = Vec::new();
    match gzip {
        // What is cut off or damaged is said when the file is read.
        true => drop(MultiGzDecoder::new(content.by_ref()).take(LOOK).read_to_end(&mut first)),
        false => drop(content.by_ref().take(LOOK).read_to_end(&mut first)?),
    }
    content.rewind()?;
    Ok(first)
}

fn is_wide(encoding: &'static Encoding) -> bool {
    encoding == UTF_16LE || encoding == UTF_16BE
}

/// UTF-16 without a mark: one half of most characters is zero, and that of no character in the other place.
fn wide(first: &[u8]) -> Option<&'static Encoding> {
    let pairs = first.len() / 2;
    let zeros = |odd: usize| first.iter().skip(odd).step_by(2).filter(|byte| **byte == 0).count();
    match (zeros(0), zeros(1)) {
        _ if pairs < 2 => None,
        (0, low) if low * 2 > pairs => Some(UTF_16LE),
        (high, 0) if high * 2 > pairs => Some(UTF_16BE),
        _ => None,
    }
}

enum RawText<'a> {
    Plain(&'a mut Content),
    Gzip(Box<MultiGzDecoder<&'a mut Content>>),
}

impl RawText<'_> {
    fn content(&self) -> &Content {
        match self {
            RawText::Plain(content) => content,
            RawText::Gzip(decoder) => decoder.get_ref(),
        }
    }

    fn content_mut(&mut self) -> &mut Content {
        match self {
            RawText::Plain(content) => content,
            RawText::Gzip(decoder) => decoder.get_mut(),
        }
    }
}

impl Read for RawText<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            RawText::Plain(content) => content.read(into),
            RawText::Gzip(decoder) => decoder.read(into).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => Error::new(error.kind(), "its gzip stream ends in the middle"),
                _ => error,
            }),
        }
    }
}

/// UTF-8 of a file.
pub(crate) struct Text<'a> {
    raw: RawText<'a>,
    decoding: Option<Decoding>,
    tally: EncodingCounts,
    last: Option<u8>,
}

struct Decoding {
    decoder: Decoder,
    piece: Box<[u8]>,
    out: String,
    given: usize,
    ended: bool,
}

impl<'a> Text<'a> {
    pub(crate) fn new(content: &'a mut Content, coding: Coding) -> Text<'a> {
        let decoding = (coding.encoding != UTF_8).then(|| Decoding {
            decoder: coding.encoding.new_decoder_with_bom_removal(),
            piece: vec![0; PIECE].into(),
            out: String::new(),
            given: 0,
            ended: false,
        });
        let raw = match coding.gzip {
            true => {
                // A stream that is cut off is not valid.
                content.set_framed();
                RawText::Gzip(Box::new(MultiGzDecoder::new(content)))
            }
            false => RawText::Plain(content),
        };
        Text { raw, decoding, tally: EncodingCounts::default(), last: None }
    }

    /// Tells whether what was read so far is rather windows-1252 than UTF-8.
    pub(crate) fn is_western(&self) -> bool {
        self.decoding.is_none() && self.tally.wrong > self.tally.right
    }

    /// Tells whether the file ends where a writer would end it.
    pub(crate) fn is_closed(&self) -> bool {
        self.raw.content().is_closed()
    }
}

impl Read for Text<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = match &mut self.decoding {
            None => {
                let read = self.raw.read(into)?;
                self.tally.see(&into[..read]);
                read
            }
            Some(decoding) => decoding.read(&mut self.raw, into)?,
        };
        self.last = into[..read].last().copied().or(self.last);
        self.raw.content_mut().set_last(self.last);
        Ok(read)
    }
}

impl Decoding {
    fn read(&mut self, raw: &mut RawText<'_>, into: &mut [u8]) -> std::io::Result<usize> {
        while self.given == self.out.len() && !self.ended {
            let read = raw.read(&mut self.piece)?;
            self.ended = read == 0;
            self.given = 0;
            self.out.clear();
            self.out.reserve(self.decoder.max_utf8_buffer_length(read).unwrap_or(PIECE * 4));
            let _ = self.decoder.decode_to_string(&self.piece[..read], &mut self.out, self.ended);
        }
        let rest = &self.out.as_bytes()[self.given..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.given += count;
        Ok(count)
    }
}

/// Characters beyond ASCII, and bytes that are part of none.
#[derive(Debug, Default)]
struct EncodingCounts {
    right: u64,
    wrong: u64,
    /// The beginning of a character whose rest comes with the next bytes. At the end of a file it is one that was cut off.
    open: Vec<u8>,
}

impl EncodingCounts {
    fn see(&mut self, bytes: &[u8]) {
        if self.open.is_empty() && bytes.is_ascii() {
            return;
        }
        let joined;
        let mut rest = match self.open.is_empty() {
            true => bytes,
            false => {
                joined = [&std::mem::take(&mut self.open)[..], bytes].concat();
                &joined[..]
            }
        };
        loop {
            let (valid, error) = match std::str::from_utf8(rest) {
                Ok(valid) => (valid, None),
                Err(error) => {
                    let valid = &rest[..error.valid_up_to()];
                    (std::str::from_utf8(valid).unwrap_or_default(), Some(error))
                }
            };
            if !valid.is_ascii() {
                self.right += valid.bytes().filter(|byte| *byte >= 0xc0).count() as u64;
            }
            match error.map(|error| (error.valid_up_to(), error.error_len())) {
                None => return,
                Some((valid, None)) => {
                    self.open = rest[valid..].to_vec();
                    return;
                }
                Some((valid, Some(wrong))) => {
                    self.wrong += 1;
                    rest = &rest[valid + wrong..];
                }
            }
        }
    }
}
