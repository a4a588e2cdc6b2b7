//! The page at `/`: the program's own, or that of a folder.
//!
//! tower-http's `ServeDir` is not used. It serves hidden files, follows links out of the folder, takes `a//b` for `a/b`, and sends text
//! without its charset; the checks of paths and the types would stay, and only the reading of a file would go.

use std::path::{Component, Path, PathBuf};

use axum::body::Bytes;

use crate::http::problem::{ApiError, Code};

/// Where the page at `/` and its files under `/static/` come from.
#[derive(Clone, Debug, Default)]
pub enum Explorer {
    /// The program.
    #[default]
    Own,
    /// A folder: its `index.html` is the page, in which `{{prefix}}` stands for the path before all others, and everything in it
    /// is public. Hidden files, and what links lead to outside of it, are not served.
    Folder(PathBuf),
    /// There is none: browsers get what programs get.
    Off,
}

/// Bytes of one file of a folder, at most.
const MOST: u64 = 64 << 20;

/// The types of files, by how their names end; the rest is bytes.
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

/// The type of a file of this name.
pub(crate) fn kind(name: &str) -> &'static str {
    let end = name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase()).unwrap_or_default();
    KINDS.iter().find(|(known, _)| *known == end).map_or("application/octet-stream", |(_, kind)| kind)
}

/// The file at `path` (segments, no longer encoded) in `folder`; `None` if nothing may be read there.
///
/// # Errors
/// It is there, and cannot be read.
pub(crate) async fn read(folder: &Path, path: &[&str]) -> Result<Option<Bytes>, ApiError> {
    let Some(file) = within(folder, path) else { return Ok(None) };
    let folder = folder.to_path_buf();
    #[expect(clippy::disallowed_methods, reason = "a small file, which belongs to no Dio")]
    let read = tokio::task::spawn_blocking(move || read_here(&folder, &file)).await;
    let failed = |error: std::io::Error| {
        ApiError::new(Code::Internal, "a file of the page cannot be read")
            .hint("the folder that server.explorer names must be readable, and no file in it larger than 64 MiB")
            .cause(error.to_string())
    };
    match read.map_err(std::io::Error::other).flatten() {
        Ok(found) => Ok(found.map(Bytes::from)),
        Err(error) => Err(failed(error)),
    }
}

/// Each segment is the name of one file or folder, and none is hidden.
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
    // Links are followed as long as they stay within.
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
    fn types_follow_the_names() {
        assert_eq!(kind("a.b.JS"), "text/javascript; charset=utf-8");
        assert_eq!(
            (kind("a.woff2"), kind("js"), kind("a.exe")),
            ("font/woff2", "application/octet-stream", "application/octet-stream")
        );
    }
}
