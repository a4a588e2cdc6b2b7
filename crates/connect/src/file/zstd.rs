//! Reader of zstd streams (RFC 8878): frames one after another, skippable ones between them.
//!
//! Memory is bounded by the window of a frame, which may be 128 MiB, as in the command `zstd` with `--ultra`.

use std::io::{BufReader, Error, ErrorKind, Read, Result};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Reader of the decompressed bytes of `R`.
pub(super) struct ZstdReader<R> {
    source: BufReader<EndNote<R>>,
    decoder: FrameDecoder,
    /// True within a frame.
    in_frame: bool,
}

/// Reader that notes that its source has ended.
struct EndNote<R> {
    source: R,
    ended: bool,
}

impl<R: Read> Read for EndNote<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        let read = self.source.read(into)?;
        self.ended |= read == 0 && !into.is_empty();
        Ok(read)
    }
}

impl<R: Read> ZstdReader<R> {
    pub(super) fn new(source: R) -> ZstdReader<R> {
        let source = BufReader::with_capacity(32 << 10, EndNote { source, ended: false });
        ZstdReader { source, decoder: FrameDecoder::new(), in_frame: false }
    }

    pub(super) fn get_ref(&self) -> &R {
        &self.source.get_ref().source
    }

    pub(super) fn get_mut(&mut self) -> &mut R {
        &mut self.source.get_mut().source
    }

    /// Reads the header of the next frame; `false` at the end.
    fn begin_frame(&mut self) -> Result<bool> {
        loop {
            let mut first = [0];
            if self.source.read(&mut first)? == 0 {
                return Ok(false);
            }
            match self.decoder.reset((&first[..]).chain(&mut self.source)) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    if std::io::copy(&mut self.source.by_ref().take(length), &mut std::io::sink())? < length {
                        return Err(truncated());
                    }
                }
                Err(error) => return Err(self.error(&error)),
            }
        }
    }

    /// Checks the frame that has ended against its checksum.
    fn end_frame(&mut self) -> Result<()> {
        self.in_frame = false;
        let stated = self.decoder.get_checksum_from_data();
        match stated.is_some() && stated != self.decoder.get_calculated_checksum() {
            true => Err(Error::new(ErrorKind::InvalidData, "the zstd stream is damaged: its checksum differs")),
            false => Ok(()),
        }
    }

    fn error(&self, error: &FrameDecoderError) -> Error {
        match self.source.get_ref().ended {
            true => truncated(),
            false => Error::new(ErrorKind::InvalidData, format!("the zstd stream is damaged: {error}")),
        }
    }
}

fn truncated() -> Error {
    Error::new(ErrorKind::UnexpectedEof, "the zstd stream is truncated")
}

impl<R: Read> Read for ZstdReader<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        loop {
            if !self.in_frame {
                self.in_frame = self.begin_frame()?;
                if !self.in_frame {
                    return Ok(0);
                }
            }
            if !self.decoder.is_finished() && self.decoder.can_collect() == 0 {
                let decoded = self.decoder.decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1));
                decoded.map_err(|error| self.error(&error))?;
            }
            let read = self.decoder.read(into)?;
            if read > 0 || into.is_empty() {
                return Ok(read);
            }
            if self.decoder.is_finished() {
                self.end_frame()?;
            }
        }
    }
}
