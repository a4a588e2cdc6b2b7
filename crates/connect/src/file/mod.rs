//! Files as sources, whatever is in them: opened, believed, decoded, and their values inferred.

#[cfg(any(feature = "csv", feature = "json"))]
#[cfg_attr(not(all(feature = "csv", feature = "json")), allow(dead_code, reason = "each format uses its part"))]
pub(crate) mod infer;
#[cfg(any(feature = "csv", feature = "json"))]
#[cfg_attr(not(feature = "csv"), allow(dead_code, reason = "each format uses its part"))]
pub(crate) mod number;
pub(crate) mod regular;
#[cfg(any(feature = "csv", feature = "json"))]
pub(crate) mod source;
#[cfg(any(feature = "csv", feature = "json"))]
#[cfg_attr(not(feature = "csv"), allow(dead_code, reason = "each format uses its part"))]
pub(crate) mod text;

#[cfg(any(feature = "csv", feature = "json"))]
use crate::connector::Key;

/// The key `settle` of formats of files.
#[cfg(any(feature = "csv", feature = "json"))]
pub(crate) const SETTLE: Key = Key::new(
    "source.settle",
    "\"5s\"",
    "`csv`, `json`: how long a file that may be half written has to stay the same before it is believed.",
);

/// The key `encoding` of formats of files.
#[cfg(any(feature = "csv", feature = "json"))]
pub(crate) const ENCODING: Key = Key::new(
    "source.encoding",
    "found",
    "`csv`, `json`: `\"utf-8\"`, `\"windows-1252\"`, `\"shift_jis\"` and so on. Found: UTF-8, UTF-16 by its first bytes, \
         windows-1252 where bytes are not UTF-8.",
);

/// Says that there is no file at `path`, if there is none.
pub(crate) fn missing(path: &std::path::Path) -> Option<String> {
    (!path.exists()).then(|| format!("there is no file {}", path.display()))
}

/// Says once what was found out about a file, louder if some of it may be wrong. `GET /{dio}/_schema` has all of it.
#[cfg(any(feature = "csv", feature = "json"))]
pub(crate) fn say(vista: &str, path: &std::path::Path, inferred: &[diorama_core::vista::Inferred]) {
    const SHOWN: usize = 10;
    let (doubtful, sure): (Vec<_>, Vec<_>) = inferred.iter().partition(|guess| guess.is_doubtful);
    let shown: Vec<String> = doubtful.iter().chain(&sure).take(SHOWN).map(ToString::to_string).collect();
    let (shown, path, more) = (shown.join("; "), path.display(), inferred.len().saturating_sub(SHOWN));
    match (doubtful.is_empty(), inferred.is_empty()) {
        (_, true) => {}
        (true, false) => tracing::info!(vista, %path, more, "inferred from the file: {shown}"),
        (false, false) => tracing::warn!(vista, %path, more, "inferred from the file, check it: {shown}"),
    }
}
