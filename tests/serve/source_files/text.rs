//! CSV, JSON and NDJSON files.

use std::path::Path;

use tempfile::TempDir;

use super::{SETTLE, eventually, reasons, refresh, refresh_while, refuses_what_is_no_file, rename, rows, serve};
use super::{with_permissions, without_permissions};
use crate::process::Server;

/// A format with the rows `1..=rows` of it.
#[derive(Clone, Copy)]
struct Format {
    name: &'static str,
    key: &'static str,
    text: fn(usize) -> String,
}

const FORMATS: [Format; 3] = [
    Format {
        name: "goods.csv",
        key: "csv",
        text: |rows| (1..=rows).fold("id,price\n".into(), |text, n| format!("{text}{n},{}\n", n + 100)),
    },
    Format {
        name: "goods.ndjson",
        key: "json",
        text: |rows| (1..=rows).map(|n| format!("{{\"id\":{n},\"price\":{}}}\n", n + 100)).collect(),
    },
    Format {
        name: "goods.json",
        key: "json",
        text: |rows| {
            let rows = (1..=rows).map(|n| format!("{{\"id\":{n},\"price\":{}}}", n + 100)).collect::<Vec<_>>();
            format!("[{}]\n", rows.join(",\n"))
        },
    },
];

const ROWS: usize = 150;

fn served(format: Format) -> (TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(format.name), (format.text)(ROWS)).unwrap();
    let Format { name, key, .. } = format;
    let settle = SETTLE.as_secs();
    let server = serve(dir.path(), &format!("source = {{ {key} = \"{name}\", settle = \"{settle}s\" }}"));
    assert_eq!(rows(&server), ROWS);
    (dir, server)
}

fn overwrite(dir: &Path, format: Format, content: &str) {
    std::fs::write(dir.join(format.name), content).unwrap();
}

#[test]
fn a_file_that_is_replaced_by_one_with_all_rows_is_believed_at_once() {
    for format in FORMATS {
        let (dir, server) = served(format);
        rename(dir.path(), format.name, &(format.text)(ROWS + 5));
        let (done, took) = refresh(&server);
        assert_eq!((done.status, &done.json()["inserted"]), (200, &5.into()), "{}", done.body);
        assert!(took < SETTLE, "{}: {took:?}", format.name);
        overwrite(dir.path(), format, &(format.text)(ROWS + 9));
        let (done, took) = refresh(&server);
        assert_eq!((done.json()["inserted"].clone(), rows(&server)), (4.into(), ROWS + 9), "in place, too");
        assert!(took < SETTLE, "{}: {took:?}", format.name);
    }
}

#[test]
fn a_file_that_lacks_rows_is_believed_once_it_has_settled_and_the_old_rows_are_served_until_then() {
    for format in FORMATS {
        let (dir, server) = served(format);
        rename(dir.path(), format.name, &(format.text)(ROWS - 10));
        let (done, took) = refresh_while(&server, || {
            eventually("nothing is said", || reasons(&server).contains("lacks 10 of its previous 150 rows"));
            assert_eq!(rows(&server), ROWS);
            assert_eq!(server.get("/readyz").status, 200);
        });
        assert_eq!((done.status, &done.json()["removed"]), (200, &10.into()), "{}", done.body);
        assert!(took >= SETTLE, "{}: {took:?}", format.name);
        assert_eq!((rows(&server), reasons(&server)), (ROWS - 10, "[]".into()));
    }
}

#[test]
fn a_file_that_is_overwritten_slowly_changes_nothing_until_it_is_whole() {
    for format in FORMATS {
        let (dir, server) = served(format);
        let whole = (format.text)(ROWS + 1);
        overwrite(dir.path(), format, &whole[..whole.len() / 2]);
        let (done, took) = refresh_while(&server, || {
            eventually("nothing is said", || reasons(&server).contains("is used once it has stayed unchanged"));
            assert_eq!(rows(&server), ROWS);
            overwrite(dir.path(), format, &whole);
        });
        assert_eq!((done.status, rows(&server)), (200, ROWS + 1), "{}", done.body);
        assert_eq!((&done.json()["removed"], &done.json()["inserted"]), (&0.into(), &1.into()), "{}", done.body);
        assert!(took >= SETTLE, "{}: {took:?}", format.name);
    }
}

#[test]
fn a_file_that_is_truncated_is_a_failure_and_the_old_rows_stay() {
    for format in FORMATS {
        let (dir, server) = served(format);
        overwrite(dir.path(), format, "");
        let (refused, _) = refresh(&server);
        // An empty NDJSON file is a list without rows.
        let (status, why) = if format.name == "goods.ndjson" { (409, "allow_shrink") } else { (502, "is empty") };
        assert_eq!(refused.status, status, "{}", refused.body);
        assert!(refused.body.contains(why), "{}", refused.body);
        assert_eq!(rows(&server), ROWS);
        // Cut at the end of a row, which cannot be told from a file that lost rows: the shrink guard is what is left.
        if format.name != "goods.json" {
            overwrite(dir.path(), format, &(format.text)(3));
            let (refused, took) = refresh(&server);
            assert_eq!(refused.status, 409, "{}", refused.body);
            assert!(refused.body.contains("allow_shrink") && took >= SETTLE, "{took:?} {}", refused.body);
            assert_eq!(rows(&server), ROWS);
        }
    }
}

#[test]
fn a_file_that_is_deleted_is_a_failure_until_it_is_back() {
    for format in FORMATS {
        let (dir, server) = served(format);
        std::fs::rename(dir.path().join(format.name), dir.path().join("aside")).unwrap();
        let (refused, took) = refresh(&server);
        assert_eq!(refused.status, 502, "{}", refused.body);
        assert!(refused.body.contains("No such file") && took < SETTLE, "{took:?} {}", refused.body);
        assert_eq!(rows(&server), ROWS);
        std::fs::rename(dir.path().join("aside"), dir.path().join(format.name)).unwrap();
        let (done, took) = refresh(&server);
        assert!(done.status == 200 && took < SETTLE, "{took:?} {}", done.body);
    }
}

#[test]
fn an_older_file_that_is_restored_is_believed_once_it_has_settled() {
    for format in FORMATS {
        let (dir, server) = served(format);
        rename(dir.path(), format.name, &(format.text)(ROWS - 1));
        let file = std::fs::File::options().write(true).open(dir.path().join(format.name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - 100 * SETTLE).unwrap();
        let (done, took) = refresh(&server);
        assert_eq!((done.status, rows(&server)), (200, ROWS - 1), "{}", done.body);
        assert!(took >= SETTLE, "{}: {took:?}", format.name);
    }
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    for format in FORMATS {
        let (dir, server) = served(format);
        refuses_what_is_no_file(dir.path(), &server, format.name, ROWS);
    }
}

#[test]
fn a_file_without_permissions_is_a_failure_until_they_are_back() {
    for format in FORMATS {
        let (dir, server) = served(format);
        if without_permissions(dir.path(), format.name).is_none() {
            return;
        }
        let (refused, took) = refresh(&server);
        assert!(refused.status == 502 && took < SETTLE, "{took:?} {}", refused.body);
        assert!(refused.body.contains("Permission denied"), "{}", refused.body);
        assert_eq!(rows(&server), ROWS);
        with_permissions(dir.path(), format.name);
        assert_eq!(refresh(&server).0.status, 200);
    }
}

#[test]
fn a_file_may_be_copied_while_it_is_served() {
    for format in FORMATS {
        let (dir, server) = served(format);
        std::fs::copy(dir.path().join(format.name), dir.path().join("copy")).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("copy")).unwrap(), (format.text)(ROWS));
        let (done, took) = refresh(&server);
        assert!(done.status == 200 && took < SETTLE, "{took:?} {}", done.body);
    }
}
