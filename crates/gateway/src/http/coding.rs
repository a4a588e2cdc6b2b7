//! Content codings: sends bodies as zstd, br or gzip to clients that accept it.
//!
//! This code exists because tower-http's `Compression` keeps the ETag, so that one strong tag would name several representations. It
//! also drops the length of bodies that are complete in memory, and encodes on the async threads.
//!
//! An encoded answer is another representation: its strong ETag has a suffix for the coding, and `Vary` lists `Accept-Encoding`.
//! Handlers are not aware of codings: they see and set ETags without the suffix.

use std::io;

use async_compression::Level;
use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZstdEncoder};
use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::Method;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::response::Response;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use thiserror::Error;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::http::negotiate;
use crate::http::response::tags;

/// Minimum size of a body in bytes; encoding a smaller one costs more than it saves.
const LEAST: u64 = 1_024;
/// Size in bytes from which a piece is encoded off the async threads, because it takes milliseconds.
const HEAVY: usize = 32 * 1024;

/// Content coding of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Zstd,
    Brotli,
    Gzip,
}

/// All codings, in order of preference: the first costs the least for the same size.
const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

impl Coding {
    fn name(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd",
            Coding::Brotli => "br",
            Coding::Gzip => "gzip",
        }
    }

    /// Returns the end of a strong ETag.
    fn suffix(self) -> &'static str {
        match self {
            Coding::Zstd => "-zs\"",
            Coding::Brotli => "-br\"",
            Coding::Gzip => "-gz\"",
        }
    }

    /// Returns the client's preferred coding; `None` if it accepts none or prefers `identity`.
    fn accepted(headers: &HeaderMap) -> Option<Coding> {
        let accepted = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let ranges: Vec<(&str, f32)> = accepted.flat_map(|value| value.split(',')).map(negotiate::range).collect();
        let named = |name: &str| ranges.iter().find(|(range, _)| range.eq_ignore_ascii_case(name)).map(|(_, q)| *q);
        let quality = |coding: &Coding| {
            let alias = if *coding == Coding::Gzip { named("x-gzip") } else { None };
            named(coding.name()).or(alias).or(named("*")).unwrap_or(0.0)
        };
        // Clients rarely list `identity`; one that does prefers it.
        let least = named("identity").unwrap_or(0.0);
        let mut best: Option<(Coding, f32)> = None;
        for coding in ALL {
            let q = quality(&coding);
            if q > 0.0 && q >= least && best.is_none_or(|(_, best)| q > best) {
                best = Some((coding, q));
            }
        }
        best.map(|(coding, _)| coding)
    }
}

/// Headers of a request that concern codings, kept until its answer is ready.
#[derive(Debug, Default)]
pub(crate) struct AcceptedCodings {
    coding: Option<Coding>,
    /// Original values of `If-None-Match`, if some of their tags have a suffix of a coding.
    if_none_match: Vec<HeaderValue>,
}

/// Error of a request whose body has a content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a body with a Content-Encoding is not supported here")]
pub(crate) struct CodedBody;

/// Refuses a request whose body is encoded. Only webhooks support such bodies, and check them themselves.
///
/// # Errors
/// The body has a coding other than `identity`.
pub(crate) fn check_request(method: &Method, headers: &HeaderMap) -> Result<(), CodedBody> {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let is_plain = |coding: &HeaderValue| {
        let coding = coding.as_bytes().trim_ascii();
        coding.is_empty() || coding.eq_ignore_ascii_case(b"identity")
    };
    if method.is_safe() && method.as_str() != "QUERY" || codings.all(is_plain) {
        return Ok(());
    }
    Err(CodedBody)
}

impl AcceptedCodings {
    /// Reads the accepted codings, and removes the suffixes of codings from the ETags in `headers`.
    pub(crate) fn of(headers: &mut HeaderMap) -> AcceptedCodings {
        let coding = Coding::accepted(headers);
        let if_none_match: Vec<HeaderValue> = headers.get_all(header::IF_NONE_MATCH).iter().cloned().collect();
        if !if_none_match.iter().flat_map(tags).any(|tag| without_suffix(tag).is_some()) {
            return AcceptedCodings { coding, if_none_match: Vec::new() };
        }
        headers.remove(header::IF_NONE_MATCH);
        for value in &if_none_match {
            let plain: Vec<_> = tags(value).map(|tag| without_suffix(tag).unwrap_or_else(|| tag.to_vec())).collect();
            if let Ok(value) = HeaderValue::from_bytes(&plain.join(&b", "[..])) {
                headers.append(header::IF_NONE_MATCH, value);
            }
        }
        AcceptedCodings { coding, if_none_match }
    }

    /// Encodes `response` with the client's preferred coding, if that is worthwhile.
    pub(crate) async fn apply(self, mut response: Response) -> Response {
        let not_modified = response.status() == axum::http::StatusCode::NOT_MODIFIED;
        if !not_modified && !is_compressible(&response) {
            return response;
        }
        vary(response.headers_mut());
        if not_modified {
            self.name_as_known(response.headers_mut());
            return response;
        }
        let size = response.body().size_hint();
        match self.coding {
            Some(coding) if size.exact().is_none_or(|size| size >= LEAST) => encode(response, coding).await,
            _ => response,
        }
    }

    /// Sets the ETag of a 304 to the tag with which the client knows the representation.
    fn name_as_known(&self, headers: &mut HeaderMap) {
        let Some(etag) = headers.get(header::ETAG) else { return };
        let mut tags = self.if_none_match.iter().flat_map(tags);
        let known = tags.find(|tag| without_suffix(tag).is_some_and(|plain| plain == etag.as_bytes()));
        if let Some(known) = known.and_then(|known| HeaderValue::from_bytes(known).ok()) {
            headers.insert(header::ETAG, known);
        }
    }
}

/// Returns `tag` without the suffix of a coding; `None` if it has none.
fn without_suffix(tag: &[u8]) -> Option<Vec<u8>> {
    ALL.iter().find_map(|coding| tag.strip_suffix(coding.suffix().as_bytes())).map(|tag| [tag, b"\""].concat())
}

/// Returns true if the answer's type compresses well, it is not encoded yet, and it is not an event stream, which must not be delayed.
fn is_compressible(response: &Response) -> bool {
    let headers = response.headers();
    if headers.contains_key(header::CONTENT_ENCODING) {
        return false;
    }
    let is = |name: header::HeaderName, value: &str| headers.get(name).is_some_and(|own| own == value);
    // Fast path: nearly all answers are of this kind.
    if is(header::CONTENT_TYPE, "application/json") && is(header::CACHE_CONTROL, "no-cache") {
        return true;
    }
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = text(header::CONTENT_TYPE);
    let media = media.split(';').next().unwrap_or_default().trim();
    let fits = (media.starts_with("text/") && media != "text/event-stream")
        || ["json", "cbor", "javascript", "ndjson", "xml", "jsonl"].iter().any(|kind| media.ends_with(kind));
    fits && !text(header::CACHE_CONTROL).contains("no-transform")
}

fn vary(headers: &mut HeaderMap) {
    match headers.get(header::VARY) {
        Some(vary) if vary == "Accept" => {
            headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        }
        _ => {
            headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        }
    }
}

async fn encode(response: Response, coding: Coding) -> Response {
    let (mut parts, body) = response.into_parts();
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    parts.headers.remove(header::CONTENT_LENGTH);
    if let Some(etag) = parts.headers.get(header::ETAG)
        && let Some(opaque) = etag.as_bytes().strip_suffix(b"\"")
        && let Ok(etag) = HeaderValue::from_bytes(&[opaque, coding.suffix().as_bytes()].concat())
    {
        parts.headers.insert(header::ETAG, etag);
    }
    let body = match body.size_hint().exact() {
        Some(_) => encode_whole(body, coding).await,
        None => encode_stream(body, coding),
    };
    Response::from_parts(parts, body)
}

/// Encodes a complete body in one piece, so that its length is known.
async fn encode_whole(body: Body, coding: Coding) -> Body {
    let encoded = async {
        let body = axum::body::to_bytes(body, usize::MAX).await?;
        let coder = Coder::new(coding);
        let (_, out) = coder.put(body, true).await.map_err(axum::Error::new)?;
        Ok::<_, axum::Error>(out)
    };
    match encoded.await {
        Ok(out) => out.into(),
        Err(error) => Body::from_stream(stream::once(std::future::ready(Err::<Bytes, _>(error)))),
    }
}

/// Encodes a body while it is produced. If the body fails, the encoded one fails for the client too.
fn encode_stream(body: Body, coding: Coding) -> Body {
    let state = Some((Coder::new(coding), body.into_data_stream()));
    let encoded = stream::try_unfold(state, |state| async {
        let Some((mut coder, mut pieces)) = state else { return Ok(None) };
        loop {
            let piece = pieces.next().await.transpose()?;
            let last = piece.is_none();
            let out;
            (coder, out) = coder.put(piece.unwrap_or_default(), last).await.map_err(axum::Error::new)?;
            if last || !out.is_empty() {
                let rest = (!last).then_some((coder, pieces));
                return Ok::<_, axum::Error>(Some((Bytes::from(out), rest)));
            }
        }
    });
    Body::from_stream(encoded)
}

/// Encoder that writes into memory, and so never waits.
enum Coder {
    Zstd(ZstdEncoder<Vec<u8>>),
    Brotli(Box<BrotliEncoder<Vec<u8>>>),
    Gzip(GzipEncoder<Vec<u8>>),
}

impl Coder {
    /// Creates an encoder. A higher level would double the time and save only a few percent of the size of rows.
    fn new(coding: Coding) -> Coder {
        let out = Vec::new();
        match coding {
            Coding::Zstd => Coder::Zstd(ZstdEncoder::with_quality(out, Level::Precise(1))),
            Coding::Brotli => Coder::Brotli(Box::new(BrotliEncoder::with_quality(out, Level::Precise(3)))),
            Coding::Gzip => Coder::Gzip(GzipEncoder::with_quality(out, Level::Precise(4))),
        }
    }

    /// Encodes `piece`, which is the last one if `last`, and returns the output so far.
    async fn put(mut self, piece: Bytes, last: bool) -> io::Result<(Coder, Vec<u8>)> {
        if piece.len() < HEAVY {
            return self.put_here(&piece, last).map(|out| (self, out));
        }
        #[expect(clippy::disallowed_methods, reason = "coding a large piece keeps a thread busy for milliseconds")]
        let result = tokio::task::spawn_blocking(move || self.put_here(&piece, last).map(|out| (self, out))).await;
        result.map_err(io::Error::other)?
    }

    fn put_here(&mut self, piece: &[u8], last: bool) -> io::Result<Vec<u8>> {
        match self {
            Coder::Zstd(coder) => write(coder, piece, last)?,
            Coder::Brotli(coder) => write(coder, piece, last)?,
            Coder::Gzip(coder) => write(coder, piece, last)?,
        }
        Ok(std::mem::take(match self {
            Coder::Zstd(coder) => coder.get_mut(),
            Coder::Brotli(coder) => coder.get_mut(),
            Coder::Gzip(coder) => coder.get_mut(),
        }))
    }
}

fn write(coder: &mut (impl AsyncWrite + Unpin), piece: &[u8], last: bool) -> io::Result<()> {
    let written = async {
        coder.write_all(piece).await?;
        if last { coder.shutdown().await } else { Ok(()) }
    };
    written.now_or_never().unwrap_or_else(|| Err(io::Error::other("the encoder waits, though it writes into memory")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_coding_is_used_and_none_if_none_is_accepted() {
        for (accept, expected) in [
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("gzip, deflate, br", Some(Coding::Brotli)),
            ("GZip;q=0.5", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
            ("gzip;q=1.0, br;q=0.9, *;q=0", Some(Coding::Gzip)),
            ("*", Some(Coding::Zstd)),
            ("zstd;q=0, *;q=0.1", Some(Coding::Brotli)),
            ("gzip;q=0", None),
            ("identity", None),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0, gzip;q=0.1", Some(Coding::Gzip)),
            ("deflate, compress", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, accept.parse().unwrap())]);
            assert_eq!(Coding::accepted(&headers), expected, "{accept}");
        }
        assert_eq!(Coding::accepted(&HeaderMap::new()), None);
    }

    #[test]
    fn handlers_see_etags_without_the_suffixes_of_codings() {
        let tags = r#"W/"a-gz", "b" , "c-n-br","d-zs""#;
        let mut headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, tags.parse().unwrap())]);
        let accepted = AcceptedCodings::of(&mut headers);
        assert_eq!(headers[header::IF_NONE_MATCH], r#""a", "b", "c-n", "d""#);
        let mut answer = HeaderMap::from_iter([(header::ETAG, HeaderValue::from_static("\"c-n\""))]);
        accepted.name_as_known(&mut answer);
        assert_eq!(answer[header::ETAG], "\"c-n-br\"");
    }
}
