//! Content codings of deliveries: none, or gzip, which is bounded by what comes out of it.
//!
//! Signatures are of the bytes as they were sent, so a delivery is verified first and decompressed afterwards.

use std::borrow::Cow;
use std::io::Read as _;

use flate2::read::MultiGzDecoder;
use hyper::HeaderMap;
use hyper::header::CONTENT_ENCODING;

use super::{DecodeError, MOST_BYTES};

/// The body as its sender wrote it.
pub(super) fn decompressed<'b>(headers: &HeaderMap, body: &'b [u8]) -> Result<Cow<'b, [u8]>, DecodeError> {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let coding = match (codings.next(), codings.next()) {
        (None, _) => return Ok(Cow::Borrowed(body)),
        (Some(coding), None) => coding.to_str().unwrap_or_default().trim(),
        _ => return Err(DecodeError::Coding),
    };
    match coding.to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(Cow::Borrowed(body)),
        "gzip" | "x-gzip" => gunzip(body).map(Cow::Owned),
        _ => Err(DecodeError::Coding),
    }
}

/// Stops as soon as more comes out than a delivery may have.
fn gunzip(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::new();
    let most = MOST_BYTES as u64;
    MultiGzDecoder::new(body)
        .take(most + 1)
        .read_to_end(&mut out)
        .map_err(|_| DecodeError::Syntax("the body is not gzip, or not all of it".into()))?;
    if out.len() > MOST_BYTES { Err(DecodeError::TooLarge) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut coder = GzEncoder::new(Vec::new(), Compression::best());
        coder.write_all(text).unwrap();
        coder.finish().unwrap()
    }

    fn read(codings: &[&str], body: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let headers = codings.iter().map(|coding| (CONTENT_ENCODING, coding.parse().unwrap()));
        let headers = headers.fold(HeaderMap::new(), |mut all, (name, value)| {
            all.append(name, value);
            all
        });
        decompressed(&headers, body).map(Cow::into_owned)
    }

    #[test]
    fn gzip_is_undone_whatever_it_is_called() {
        let two = [gzip(b"{\"a\""), gzip(b":1}")].concat();
        for coding in ["gzip", "GZIP", "x-gzip"] {
            assert_eq!(read(&[coding], &two).unwrap(), b"{\"a\":1}");
        }
        assert_eq!(read(&[], b"a").unwrap(), b"a");
        assert_eq!(read(&["identity"], b"a").unwrap(), b"a");
    }

    #[test]
    fn other_codings_and_broken_bodies_are_refused() {
        for codings in [&["br"][..], &["deflate"], &["gzip, gzip"], &["gzip", "gzip"]] {
            assert_eq!(read(codings, b""), Err(DecodeError::Coding), "{codings:?}");
        }
        let whole = gzip(b"{}");
        for bad in [&whole[..whole.len() - 1], b"{}", b"", &[&whole[..], b"x"].concat()] {
            assert!(matches!(read(&["gzip"], bad), Err(DecodeError::Syntax(_))));
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_size_of_a_delivery() {
        let bomb = gzip(&vec![b' '; MOST_BYTES + 1]);
        assert!(bomb.len() < 16 << 10);
        assert_eq!(read(&["gzip"], &bomb), Err(DecodeError::TooLarge));
        assert_eq!(read(&["gzip"], &gzip(&vec![b' '; MOST_BYTES])).unwrap().len(), MOST_BYTES);
    }
}
