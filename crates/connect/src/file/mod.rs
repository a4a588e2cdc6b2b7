//! Files as sources of any format: opening, waiting until they are complete, decoding, and type inference.

pub(crate) mod identity;
#[cfg(any(feature = "csv", feature = "json", feature = "parquet", feature = "spreadsheet"))]
#[cfg_attr(not(all(feature = "csv", feature = "json")), allow(dead_code, reason = "each format uses its part"))]
pub(crate) mod infer;
#[cfg(any(feature = "csv", feature = "json", feature = "parquet", feature = "spreadsheet"))]
mod keys;
#[cfg(any(feature = "csv", feature = "json", feature = "parquet", feature = "spreadsheet"))]
#[cfg_attr(not(feature = "csv"), allow(dead_code, reason = "each format uses its part"))]
pub(crate) mod number;
#[cfg(any(feature = "csv", feature = "json", feature = "parquet", feature = "spreadsheet"))]
pub(crate) mod place;
#[cfg(any(feature = "csv", feature = "json", feature = "parquet", feature = "spreadsheet", feature = "sqlite"))]
pub(crate) mod regular;
#[cfg(feature = "http")]
pub(crate) mod remote;
#[cfg(feature = "http")]
mod s3;
#[cfg(any(feature = "csv", feature = "json", feature = "parquet", feature = "spreadsheet"))]
#[cfg_attr(not(all(feature = "csv", feature = "parquet")), allow(dead_code, reason = "each format uses its part"))]
pub(crate) mod source;
#[cfg(any(feature = "csv", feature = "json"))]
#[cfg_attr(not(feature = "csv"), allow(dead_code, reason = "each format uses its part"))]
pub(crate) mod text;
#[cfg(feature = "watch")]
pub(crate) mod watch;
#[cfg(any(feature = "csv", feature = "json"))]
mod zstd;

#[cfg(any(feature = "csv", feature = "json"))]
pub(crate) use self::keys::ENCODING;
#[cfg(any(feature = "csv", feature = "json", feature = "parquet", feature = "spreadsheet"))]
pub(crate) use self::keys::{ENDPOINT, REGION, SETTLE, WATCH};

/// Message for a missing file; `None` if there is a file at `path`.
#[cfg(any(feature = "csv", feature = "json", feature = "parquet", feature = "spreadsheet", feature = "sqlite"))]
pub(crate) fn missing(path: &std::path::Path) -> Option<String> {
    (!path.exists()).then(|| format!("there is no file {}", path.display()))
}

/// Logs the inferred settings of a source once, as a warning if some are doubtful. `GET /{dio}/_schema` lists all of them.
#[cfg(any(feature = "csv", feature = "json", feature = "parquet", feature = "spreadsheet"))]
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
