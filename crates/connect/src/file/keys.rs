//! Keys that the file formats share.

use crate::connector::Key;

/// Key `settle` of the file formats.
pub(crate) const SETTLE: Key = Key::new(
    "source.settle",
    "\"5s\"",
    "Files: time for which a file that may be half written must stay unchanged before it is used.",
);

/// Key `watch` of the file formats.
pub(crate) const WATCH: Key = Key::new("source.watch", "false", "Files: `true` reads the file again when it is saved.");

/// Key `region` of the file formats.
pub(crate) const REGION: Key =
    Key::new("source.region", "`AWS_REGION`, else `us-east-1`", "Files at `s3://`: the region of the bucket.");

/// Key `endpoint` of the file formats.
pub(crate) const ENDPOINT: Key = Key::new(
    "source.endpoint",
    "`AWS_ENDPOINT_URL`, else that of AWS",
    "Files at `s3://`: URL of another object store with the same protocol.",
);

/// Key `encoding` of the file formats.
#[cfg(any(feature = "csv", feature = "json"))]
pub(crate) const ENCODING: Key = Key::new(
    "source.encoding",
    "detected",
    "`csv`, `json`: `\"utf-8\"`, `\"windows-1252\"`, `\"shift_jis\"` and so on. By default UTF-8, UTF-16 if the first bytes show it, and \
         windows-1252 if there are bytes that are not UTF-8.",
);
