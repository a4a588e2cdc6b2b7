//! Files as sources of any format: opening, waiting until they are complete, decoding, and type inference.

#[cfg(feature = "file")]
#[cfg_attr(not(all(feature = "csv", feature = "json")), allow(dead_code, reason = "each format uses its part"))]
pub(crate) mod infer;
#[cfg(feature = "file")]
#[cfg_attr(not(feature = "csv"), allow(dead_code, reason = "each format uses its part"))]
pub(crate) mod number;
#[cfg(feature = "file")]
pub(crate) mod place;
pub(crate) mod regular;
#[cfg(feature = "http")]
pub(crate) mod remote;
#[cfg(feature = "http")]
mod s3;
#[cfg(feature = "file")]
#[cfg_attr(not(all(feature = "csv", feature = "parquet")), allow(dead_code, reason = "each format uses its part"))]
pub(crate) mod source;
#[cfg(any(feature = "csv", feature = "json"))]
#[cfg_attr(not(feature = "csv"), allow(dead_code, reason = "each format uses its part"))]
pub(crate) mod text;
#[cfg(feature = "watch")]
pub(crate) mod watch;
#[cfg(any(feature = "csv", feature = "json"))]
mod zstd;

#[cfg(feature = "file")]
use crate::connector::Key;

/// Key `settle` of the file formats.
#[cfg(feature = "file")]
pub(crate) const SETTLE: Key = Key::new(
    "source.settle",
    "\"5s\"",
    "Files: time for which a file that may be half written must stay unchanged before it is used.",
);

/// Key `watch` of the file formats.
#[cfg(feature = "file")]
pub(crate) const WATCH: Key = Key::new("source.watch", "false", "Files: `true` reads the file again when it is saved.");

/// Key `region` of the file formats.
#[cfg(feature = "file")]
pub(crate) const REGION: Key =
    Key::new("source.region", "`AWS_REGION`, else `us-east-1`", "Files at `s3://`: the region of the bucket.");

/// Key `endpoint` of the file formats.
#[cfg(feature = "file")]
pub(crate) const ENDPOINT: Key = Key::new(
    "source.endpoint",
    "`AWS_ENDPOINT_URL`, else that of AWS",
    "Files at `s3://`: URL of another object store with the same protocol.",
);

/// Key `encoding` of the file formats.
#[cfg(feature = "file")]
pub(crate) const ENCODING: Key = Key::new(
    "source.encoding",
    "detected",
    "`csv`, `json`: `\"utf-8\"`, `\"windows-1252\"`, `\"shift_jis\"` and so on. By default UTF-8, UTF-16 if the first bytes show it, and \
         windows-1252 if there are bytes that are not UTF-8.",
);

/// Message for a missing file; `None` if there is a file at `path`.
pub(crate) fn missing(path: &std::path::Path) -> Option<String> {
    (!path.exists()).then(|| format!("there is no file {}", path.display()))
}

/// Logs the inferred settings of a source once, as a warning if some are doubtful. `GET /{dio}/_schema` lists all of them.
#[cfg(feature = "file")]
pub(crate) fn log_inferred(vista: &str, path: &std::path::Path, inferred: &[diorama_core::vista::Inferred]) {
    const SHOWN: usize = 10;
    let (doubtful, sure): (Vec<_>, Vec<_>) = inferred.iter().partition(|guess| guess.is_doubtful);
    let shown: Vec<String> = doubtful.iter().chain(&sure).take(SHOWN).map(ToString::to_string).collect();
    let (shown, path, more) = (shown.join("; "), path.display(), inferred.len().saturating_sub(SHOWN));
    match (doubtful.is_empty(), inferred.is_empty()) {
        (_, true) => {}
        (true, false) => tracing::info!(vista, %path, more, "inferred from the source: {shown}"),
        (false, false) => tracing::warn!(vista, %path, more, "inferred from the source; check these settings: {shown}"),
    }
}
