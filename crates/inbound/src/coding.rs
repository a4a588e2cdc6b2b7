//! Content codings of deliveries: none, or gzip with a bound on the decompressed size.
//!
//! Signatures cover the bytes as sent, so a delivery is verified first and decompressed afterwards.

use std::borrow::Cow;
use std::io::{Read as _, Write};

use flate2::read::MultiGzDecoder;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use super::DecodeError;

/// Returns the decompressed body, if it has at most `most` bytes.
pub(super) fn decompressed<'b>(headers: &HeaderMap, body: &'b [u8], most: usize) -> Result<Cow<'b, [u8]>, DecodeError> {
    if !is_gzip(headers)? {
        return Ok(Cow::Borrowed(body));
    }
    let mut out = Vec::new();
    gunzip(body, most, &mut out)?;
    Ok(Cow::Owned(out))
}

/// Returns the length of the [`decompressed`] body without holding it in memory.
pub(super) fn decompressed_length(headers: &HeaderMap, body: &[u8], most: usize) -> Result<usize, DecodeError> {
    if is_gzip(headers)? { gunzip(body, most, &mut std::io::sink()) } else { Ok(body.len()) }
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, DecodeError> {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let coding = match (codings.next(), codings.next()) {
        (None, _) => return Ok(false),
        (Some(coding), None) => coding.to_str().unwrap_or_default().trim(),
        _ => return Err(DecodeError::Coding),
    };
    match coding.to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(false),
        "gzip" | "x-gzip" => Ok(true),
        _ => Err(DecodeError::Coding),
    }
}

/// Decompresses to `out` and returns the length; stops as soon as it exceeds `most`.
fn gunzip(body: &[u8], most: usize, out: &mut impl Write) -> Result<usize, DecodeError> {
    let mut plain = MultiGzDecoder::new(body).take(most as u64 + 1);
    let length = std::io::copy(&mut plain, out)
        .map_err(|_| DecodeError::Syntax("the body is not valid gzip, or is truncated".into()))?;
    usize::try_from(length).ok().filter(|length| *length <= most).ok_or(DecodeError::TooLarge(most))
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const MOST: usize = 1 << 20;

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
        let length = decompressed_length(&headers, body, MOST);
        let plain = decompressed(&headers, body, MOST).map(Cow::into_owned);
        assert_eq!(length, plain.as_ref().map(Vec::len).map_err(Clone::clone));
        plain
    }

    #[test]
    fn gzip_is_decompressed_under_all_its_names() {
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
    fn a_decompression_bomb_is_stopped_at_the_size_limit() {
        let bomb = gzip(&vec![b' '; MOST + 1]);
        assert!(bomb.len() < 16 << 10);
        assert_eq!(read(&["gzip"], &bomb), Err(DecodeError::TooLarge(MOST)));
        assert_eq!(read(&["gzip"], &gzip(&vec![b' '; MOST])).unwrap().len(), MOST);
    }
}
