//! Source of the page at `/`: the program or a folder.
//!
//! This code exists because tower-http's `ServeDir` serves hidden files, follows links out of its folder, treats `a//b` as `a/b`, and
//! sends text without its charset. The checks of paths and the table of types would remain beside it.

use std::path::{Component, Path, PathBuf};

use axum::body::Bytes;

use crate::http::problem::{ApiError, Code};

/// Source of the page at `/` and of its files under `/static/`.
#[derive(Clone, Debug, Default)]
pub enum Explorer {
    /// The program.
    #[default]
    Own,
    /// A folder. Its `index.html` is the page, in which `{{prefix}}` is replaced by the prefix of all paths. All files in it are
    /// public, except hidden files and files outside of it that links lead to.
    Folder(PathBuf),
    /// No page: browsers get the same answer as programs.
    Off,
}

/// Maximum size of a file of a folder, in bytes.
const MOST: u64 = 64 << 20;

/// Media types of files, by extension. Other files are `application/octet-stream`.
const KINDS: &[(&str, &str)] = &[
    ("avif", "image/avif"),
    ("css", "text/css; charset=utf-8"),
    ("gif", "image/gif"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/x-icon"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("map", "application/json"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("txt", "text/plain; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
];

/// Returns the media type of a file with this name.
pub(crate) fn kind(name: &str) -> &'static str {
    let end = name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase()).unwrap_or_default();
    KINDS.iter().find(|(known, _)| *known == end).map_or("application/octet-stream", |(_, kind)| kind)
}

/// Reads the file at `path`, a list of decoded segments, in `folder`. `None` if there is no file, or it must not be served.
///
/// # Errors
/// The file exists and cannot be read.
pub(crate) async fn read(folder: &Path, path: &[&str]) -> Result<Option<Bytes>, ApiError> {
    let Some(file) = within(folder, path) else { return Ok(None) };
    let folder = folder.to_path_buf();
    #[expect(clippy::disallowed_methods, reason = "a small file, which belongs to no Dio")]
    let read = tokio::task::spawn_blocking(move || read_here(&folder, &file)).await;
    let failed = |error: std::io::Error| {
        ApiError::new(Code::Internal, "a file of the page cannot be read")
            .hint("the folder of server.explorer must be readable, and its files at most 64 MiB large")
            .cause(error.to_string())
    };
    match read.map_err(std::io::Error::other).flatten() {
        Ok(content) => Ok(content.map(Bytes::from)),
        Err(error) => Err(failed(error)),
    }
}

/// Joins `path` to `folder`; `None` unless each segment is the name of one file or folder that is not hidden.
fn within(folder: &Path, path: &[&str]) -> Option<PathBuf> {
    let mut file = folder.to_path_buf();
    for part in path {
        let mut names = Path::new(part).components();
        let is_name = matches!((names.next(), names.next()), (Some(Component::Normal(name)), None) if name == *part);
        if !is_name || part.starts_with('.') || part.contains(['\0', '\\']) {
            return None;
        }
        file.push(part);
    }
    Some(file)
}

fn read_here(folder: &Path, file: &Path) -> std::io::Result<Option<Vec<u8>>> {
    // Links are followed if they stay within the folder.
    let Ok(real) = file.canonicalize() else { return Ok(None) };
    let about = real.metadata()?;
    if !real.starts_with(folder.canonicalize()?) || !about.is_file() {
        return Ok(None);
    }
    if about.len() > MOST {
        return Err(std::io::Error::other(format!("{} is larger than 64 MiB", real.display())));
    }
    std::fs::read(real).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_within_its_folder() {
        let at = |path: &[&str]| within(Path::new("/page"), path);
        assert_eq!(at(&["a b", "c.js"]), Some(PathBuf::from("/page/a b/c.js")));
        for bad in ["", ".", "..", "../x", "a/b", "/etc", "a/", ".env", "a\\b", "a\0"] {
            assert_eq!(at(&["x", bad]), None, "{bad:?}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn links_are_followed_within_the_folder_and_not_out_of_it() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret.txt"), "secret").unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.txt"), "a").unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, folder.path().join(name)).unwrap();
        link(&folder.path().join("a.txt"), "b.txt");
        link(&outside.path().join("secret.txt"), "c.txt");
        link(outside.path(), "d");
        for (path, found) in [
            (&["b.txt"][..], Some("a")),
            (&["c.txt"], None),
            (&["d", "secret.txt"], None),
            (&["sub"], None),
            (&["e"], None),
        ] {
            let read = read(folder.path(), path).await.unwrap();
            assert_eq!(read.as_deref(), found.map(str::as_bytes), "{path:?}");
        }
    }

    #[test]
    fn media_types_are_chosen_by_extension() {
        assert_eq!(kind("a.b.JS"), "text/javascript; charset=utf-8");
        assert_eq!(
            (kind("a.woff2"), kind("js"), kind("a.exe")),
            ("font/woff2", "application/octet-stream", "application/octet-stream")
        );
    }
}
