//! Files that are read again when they are saved, by the program itself.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::process::Server;
use crate::source_files::{rename, rows, serve};

/// Time within which a saved file is shown. Less than the time between two looks at the file: the system has reported it.
const SOON: Duration = Duration::from_secs(4);

fn csv(rows: usize) -> String {
    (1..=rows).fold("id,name\n".into(), |text, at| format!("{text}{at},Article {at}\n"))
}

fn shows(server: &Server, expected: usize, what: &str) {
    let deadline = Instant::now() + SOON;
    while rows(server) != expected {
        assert!(Instant::now() < deadline, "{what}: {} rows", rows(server));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn served(dir: &Path, name: &str) -> Server {
    serve(dir, &format!("source = {{ csv = {name:?}, watch = true }}"))
}

#[test]
fn a_watched_file_is_read_again_when_it_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("goods.csv");
    std::fs::write(&path, csv(1)).unwrap();
    let mut server = served(dir.path(), "goods.csv");
    assert_eq!(rows(&server), 1);
    std::fs::write(&path, csv(2)).unwrap();
    shows(&server, 2, "saved in place");
    rename(dir.path(), "goods.csv", &csv(3));
    shows(&server, 3, "replaced by a rename");
    std::fs::remove_file(&path).unwrap();
    let deadline = Instant::now() + SOON;
    while !crate::source_files::reasons(&server).contains("cannot read") {
        assert!(Instant::now() < deadline, "{}", crate::source_files::reasons(&server));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(rows(&server), 3, "the copy stays");
    std::fs::write(&path, csv(4)).unwrap();
    shows(&server, 4, "deleted and made again");
    for count in 5..=60 {
        std::fs::write(&path, csv(count)).unwrap();
    }
    shows(&server, 60, "many times in a row");
    let stopped = Instant::now();
    server.signal("TERM");
    assert!(server.ended().success());
    assert!(stopped.elapsed() < SOON);
}

/// A folder of settings in Kubernetes is replaced as a whole, by a link to another one.
#[cfg(unix)]
#[test]
fn a_watched_file_behind_links_is_followed() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (folder, count) in [("first", 1), ("second", 2)] {
        std::fs::create_dir(at(folder)).unwrap();
        std::fs::write(at(folder).join("goods.csv"), csv(count)).unwrap();
    }
    symlink("first", at("data")).unwrap();
    symlink("data/goods.csv", at("goods.csv")).unwrap();
    let server = served(dir.path(), "goods.csv");
    assert_eq!(rows(&server), 1);
    symlink("second", at("next")).unwrap();
    std::fs::rename(at("next"), at("data")).unwrap();
    shows(&server, 2, "the link to the folder is replaced");
    std::fs::write(at("second").join("goods.csv"), csv(3)).unwrap();
    shows(&server, 3, "the file behind the links is saved");
}
