//! Reader that decompresses a file (gzip, zstd) and decodes it to UTF-8.
//!
//! UTF-8 passes through unchanged, and invalid bytes are counted. After reading, the caller checks [`Text::is_western`] and if it
//! is true reads the file again as windows-1252.

use std::io::{Error, ErrorKind, Read};

use encoding_rs::{Decoder, Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use flate2::read::MultiGzDecoder;

use super::source::Content;
use super::zstd::ZstdReader;

/// Bytes examined for a byte order mark or the zero bytes of UTF-16.
const LOOK: u64 = 256;

/// Bytes decoded at a time.
const PIECE: usize = 16 << 10;

/// Compression of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// Detects the compression from the first bytes.
    fn of(first: &[u8]) -> Compression {
        match first {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            // A frame, or a skippable frame before it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// Compression and encoding of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Coding {
    compression: Compression,
    pub(crate) encoding: &'static Encoding,
    /// Reason for this encoding; `None` if it is declared, or UTF-8 without a byte order mark.
    pub(crate) because: Option<&'static str>,
    /// True if the configuration declares the encoding.
    declared: bool,
}

impl Coding {
    /// Detects the coding from the first bytes and rewinds.
    pub(crate) fn of(content: &mut Content, declared: Option<&'static Encoding>) -> std::io::Result<Coding> {
        let compression = Compression::of(&start(content, Compression::None)?);
        let first = start(content, compression)?;
        let marked = Encoding::for_bom(&first).map(|(encoding, _)| encoding);
        let (encoding, because) = match (declared, marked) {
            // The byte order mark gives the byte order.
            (Some(wide), Some(marked)) if is_wide(wide) && is_wide(marked) => (marked, None),
            (Some(declared), _) => (declared, None),
            (None, Some(marked)) => (marked, Some("it begins with a byte order mark")),
            (None, None) => match wide(&first) {
                Some(wide) => (wide, Some("every other byte at its beginning is zero")),
                None => (UTF_8, None),
            },
        };
        Ok(Coding { compression, encoding, because, declared: declared.is_some() })
    }

    /// Fallback for bytes that are not UTF-8; `None` if the encoding is declared or was detected.
    pub(crate) fn western(self) -> Option<Coding> {
        let because = Some("it has bytes that are not UTF-8");
        let may = !self.declared && self.encoding == UTF_8 && self.because.is_none();
        may.then_some(Coding { encoding: WINDOWS_1252, because, ..self })
    }
}

fn start(content: &mut Content, compression: Compression) -> std::io::Result<Vec<u8>> {
    let mut first = Vec::new();
    match compression {
        // Truncated or damaged data is reported when the file is read.
        Compression::Gzip => drop(MultiGzDecoder::new(content.by_ref()).take(LOOK).read_to_end(&mut first)),
        Compression::Zstd => drop(ZstdReader::new(content.by_ref()).take(LOOK).read_to_end(&mut first)),
        Compression::None => drop(content.by_ref().take(LOOK).read_to_end(&mut first)?),
    }
    content.rewind()?;
    Ok(first)
}

fn is_wide(encoding: &'static Encoding) -> bool {
    encoding == UTF_16LE || encoding == UTF_16BE
}

/// Detects UTF-16 without a byte order mark: one byte of most characters is zero, and the other byte of none.
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

/// Reader of the decompressed bytes.
enum RawText<'a> {
    Plain(&'a mut Content),
    Gzip(Box<MultiGzDecoder<&'a mut Content>>),
    Zstd(Box<ZstdReader<&'a mut Content>>),
}

impl RawText<'_> {
    fn content(&self) -> &Content {
        match self {
            RawText::Plain(content) => content,
            RawText::Gzip(decoder) => decoder.get_ref(),
            RawText::Zstd(decoder) => decoder.get_ref(),
        }
    }

    fn content_mut(&mut self) -> &mut Content {
        match self {
            RawText::Plain(content) => content,
            RawText::Gzip(decoder) => decoder.get_mut(),
            RawText::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

impl Read for RawText<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            RawText::Plain(content) => content.read(into),
            RawText::Gzip(decoder) => decoder.read(into).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => Error::new(error.kind(), "the gzip stream is truncated"),
                _ => error,
            }),
            RawText::Zstd(decoder) => decoder.read(into),
        }
    }
}

/// Reader of a file's text as UTF-8.
pub(crate) struct Text<'a> {
    raw: RawText<'a>,
    decoding: Option<Decoding>,
    tally: EncodingCounts,
    last: Option<u8>,
}

/// Conversion to UTF-8 in progress.
struct Decoding {
    decoder: Decoder,
    piece: Box<[u8]>,
    out: String,
    consumed: usize,
    ended: bool,
}

impl<'a> Text<'a> {
    pub(crate) fn new(content: &'a mut Content, coding: Coding) -> Text<'a> {
        let decoding = (coding.encoding != UTF_8).then(|| Decoding {
            decoder: coding.encoding.new_decoder_with_bom_removal(),
            piece: vec![0; PIECE].into(),
            out: String::new(),
            consumed: 0,
            ended: false,
        });
        if coding.compression != Compression::None {
            // A truncated stream is invalid, so its end is always marked.
            content.set_framed();
        }
        let raw = match coding.compression {
            Compression::None => RawText::Plain(content),
            Compression::Gzip => RawText::Gzip(Box::new(MultiGzDecoder::new(content))),
            Compression::Zstd => RawText::Zstd(Box::new(ZstdReader::new(content))),
        };
        Text { raw, decoding, tally: EncodingCounts::default(), last: None }
    }

    /// Returns true if the bytes read so far look like windows-1252 rather than UTF-8.
    pub(crate) fn is_western(&self) -> bool {
        self.decoding.is_none() && self.tally.wrong > self.tally.right
    }

    /// Returns true if the file ends with a line end, or its format marks the end.
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
        while self.consumed == self.out.len() && !self.ended {
            let read = raw.read(&mut self.piece)?;
            self.ended = read == 0;
            self.consumed = 0;
            self.out.clear();
            self.out.reserve(self.decoder.max_utf8_buffer_length(read).unwrap_or(PIECE * 4));
            let _ = self.decoder.decode_to_string(&self.piece[..read], &mut self.out, self.ended);
        }
        let rest = &self.out.as_bytes()[self.consumed..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.consumed += count;
        Ok(count)
    }
}

/// Counts of non-ASCII characters and of invalid bytes.
#[derive(Debug, Default)]
struct EncodingCounts {
    right: u64,
    wrong: u64,
    /// Start of a character that continues in the next bytes. At the end of a file it is a truncated character.
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
