//! Tests of files that are written while they are read. Tokio's time is paused: a pause of five seconds takes no real time.

#![cfg(all(feature = "csv", feature = "json"))]

use std::io::Write as _;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::{Csv, CsvOptions, Json, JsonOptions};
use diorama_core::vista::{Query, Vista};

const ROWS: usize = 1_000;

/// A file name with a function that writes the rows `1..=rows` in its format.
struct Format {
    name: &'static str,
    text: fn(usize) -> String,
}

const FORMATS: [Format; 3] = [
    Format {
        name: "goods.csv",
        text: |rows| {
            (1..=rows).fold("id,name,price\n".into(), |text, n| format!("{text}{n},Article {n},{}\n", n * 7 + 100))
        },
    },
    Format {
        name: "goods.ndjson",
        text: |rows| {
            (1..=rows).map(|n| format!("{{\"id\":{n},\"name\":\"Article {n}\",\"price\":{}}}\n", n * 7)).collect()
        },
    },
    Format {
        name: "goods.json",
        text: |rows| {
            let rows = (1..=rows).map(|n| format!("{{\"id\":{n},\"name\":\"Article {n}\"}}")).collect::<Vec<_>>();
            format!("[{}]", rows.join(",\n"))
        },
    },
];

struct Fixture {
    dir: TempDir,
    path: PathBuf,
}

impl Fixture {
    fn new(name: &str, content: &str) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let fixture = Fixture { path: dir.path().join(name), dir };
        fixture.write(content);
        fixture
    }

    /// Overwrites the file in place.
    fn write(&self, content: &str) {
        std::fs::write(&self.path, content).unwrap();
    }

    fn rename(&self, content: &str) {
        let new = self.dir.path().join("new");
        std::fs::write(&new, content).unwrap();
        std::fs::rename(new, &self.path).unwrap();
    }

    /// Sets the modification time to a minute ago.
    fn age(&self) {
        self.set_modified(SystemTime::now() - Duration::from_secs(60));
    }

    fn set_modified(&self, time: SystemTime) {
        let file = OpenOptions::new().write(true).open(&self.path).unwrap();
        file.set_modified(time).unwrap();
    }

    async fn open(&self) -> Vista {
        match self.path.extension().is_some_and(|end| end == "csv") {
            true => Csv::open("goods", &self.path, CsvOptions::default()).await.unwrap(),
            false => Json::open("goods", &self.path, JsonOptions::default()).await.unwrap(),
        }
    }
}

/// Number of rows in a list and the seconds it took.
async fn listed(vista: &Vista) -> (usize, u64) {
    let started = Instant::now();
    let rows = vista.list_values().await.unwrap();
    (rows.len(), started.elapsed().as_secs())
}

/// List that completes before a doubtful file has settled; `None` if it does not.
async fn list_before_settling(vista: &Vista) -> Option<Result<Rows>> {
    tokio::time::timeout(SETTLE - Duration::from_millis(100), vista.list_values()).await.ok()
}

#[tokio::test(start_paused = true)]
async fn a_truncated_file_is_not_accepted_before_it_has_settled() {
    for format in FORMATS {
        let whole = (format.text)(ROWS);
        let fixture = Fixture::new(format.name, &whole);
        let vista = fixture.open().await;
        assert_eq!(listed(&vista).await, (ROWS, 0));
        let mut accepted = 0;
        for cut in 1..=120 {
            let end = whole.len() * cut / 121;
            fixture.write(&whole[..end]);
            accepted += usize::from(list_before_settling(&vista).await.is_some());
            assert!(vista.shell().withheld().is_some(), "{} at byte {end}", format.name);
            fixture.write(&whole);
            assert_eq!(listed(&vista).await, (ROWS, 0), "{}: a whole file ends the doubt", format.name);
            assert_eq!(vista.shell().withheld(), None);
        }
        println!("{}: {accepted} of 120 cut files were accepted while they could still grow", format.name);
        assert_eq!(accepted, 0, "{}", format.name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_only_lost_its_last_line_end_is_accepted_when_it_has_settled() {
    for format in FORMATS.into_iter().take(2) {
        let whole = (format.text)(ROWS);
        let fixture = Fixture::new(format.name, &whole);
        let vista = fixture.open().await;
        assert_eq!(listed(&vista).await, (ROWS, 0));
        for _ in 0..2 {
            fixture.write(whole.trim_end());
            assert_eq!(listed(&vista).await, (ROWS, 5), "{}", format.name);
            fixture.age();
            assert_eq!(listed(&vista).await, (ROWS, 0), "the version before had none either");
            fixture.write(&whole);
            assert_eq!(listed(&vista).await, (ROWS, 0), "{}", format.name);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_went_missing_are_accepted_when_the_file_has_settled() {
    for format in FORMATS {
        let fixture = Fixture::new(format.name, &(format.text)(ROWS));
        let vista = fixture.open().await;
        assert_eq!(listed(&vista).await, (ROWS, 0));
        fixture.rename(&(format.text)(ROWS + 1));
        assert_eq!(listed(&vista).await, (ROWS + 1, 0), "{}: a file with all rows is accepted at once", format.name);
        fixture.rename(&(format.text)(ROWS - 10));
        assert_eq!(listed(&vista).await, (ROWS - 10, 5), "{}", format.name);
        assert_eq!(listed(&vista).await, (ROWS - 10, 0), "{}: only the first time", format.name);
    }
}

/// The caller may have refused the list that lost most rows, so a later part of the file is compared with the rows before it.
#[tokio::test(start_paused = true)]
async fn a_file_that_was_cut_to_a_few_rows_is_not_accepted_while_it_grows_again() {
    for format in FORMATS {
        let fixture = Fixture::new(format.name, &(format.text)(ROWS));
        let vista = fixture.open().await;
        assert_eq!(listed(&vista).await, (ROWS, 0));
        fixture.write(&(format.text)(3));
        assert_eq!(listed(&vista).await, (3, 5));
        assert_eq!(listed(&vista).await, (3, 0), "{}: it is the same file", format.name);
        fixture.write(&(format.text)(700));
        assert!(list_before_settling(&vista).await.is_none(), "{}", format.name);
        fixture.write(&(format.text)(ROWS));
        assert_eq!(listed(&vista).await, (ROWS, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_read_without_a_last_line_end_waits_only_if_the_file_is_young() {
    for format in FORMATS.into_iter().take(2) {
        let text = (format.text)(3);
        let fixture = Fixture::new(format.name, text.trim_end());
        fixture.age();
        let started = Instant::now();
        assert_eq!(listed(&fixture.open().await).await, (3, 0), "{}", format.name);
        assert_eq!(started.elapsed().as_secs(), 0);
        let fixture = Fixture::new(format.name, text.trim_end());
        let vista = fixture.open().await;
        assert_eq!(started.elapsed().as_secs(), 5, "{}: its columns are not guessed from a part", format.name);
        assert_eq!(listed(&vista).await.0, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_file_is_an_error_when_it_has_settled_and_at_once_from_then_on() {
    for format in FORMATS {
        let whole = (format.text)(ROWS);
        let fixture = Fixture::new(format.name, &whole);
        let vista = fixture.open().await;
        assert_eq!(listed(&vista).await, (ROWS, 0));
        let cut = whole.len() - 8;
        fixture.write(&whole[..cut]);
        let started = Instant::now();
        let first = vista.list_values().await;
        assert_eq!(started.elapsed().as_secs(), 5);
        let Err(error) = first else { continue };
        assert_eq!(error.kind(), diorama_core::vista::ErrorKind::Transient, "{}: {error}", format.name);
        assert_eq!(vista.shell().withheld(), None, "it is an error now and no longer a doubt");
        fixture.age();
        let started = Instant::now();
        assert!(vista.list_values().await.is_err());
        assert_eq!(started.elapsed().as_secs(), 0);
    }
}

/// A doubt outlives the call that raised it, so a caller with a shorter timeout than the file needs succeeds in the end.
#[tokio::test(start_paused = true)]
async fn a_cancelled_list_is_continued_by_the_next() {
    let fixture = Fixture::new("goods.csv", &(FORMATS[0].text)(ROWS));
    let vista = fixture.open().await;
    assert_eq!(listed(&vista).await, (ROWS, 0));
    fixture.write(&(FORMATS[0].text)(ROWS - 1));
    assert!(list_before_settling(&vista).await.is_none());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(listed(&vista).await, (ROWS - 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_written_while_it_is_read_is_read_again() {
    let fixture = Fixture::new("goods.csv", "id\n1\n");
    let file = Arc::new(SourceFile::new(SourcePlace::new(&fixture.path), None));
    let left = Arc::new(Mutex::new(2));
    let reading = |left: Arc<Mutex<usize>>| {
        let path = fixture.path.clone();
        move |content: &mut Content| {
            let mut text = String::new();
            content.read_to_string(&mut text).unwrap();
            let mut left = left.lock();
            if *left > 0 {
                *left -= 1;
                OpenOptions::new().append(true).open(&path).unwrap().write_all(b"2\n").unwrap();
            }
            Ok(text)
        }
    };
    let started = Instant::now();
    let text = file.study(reading(Arc::clone(&left))).await.unwrap();
    assert_eq!(
        (text.as_str(), started.elapsed().as_secs()),
        ("id\n1\n2\n2\n", 15),
        "two identical and undisturbed readings"
    );
    *left.lock() = usize::MAX;
    let error = file.study(reading(left)).await.unwrap_err();
    assert_eq!(error.kind(), diorama_core::vista::ErrorKind::Transient);
    assert!(error.to_string().contains("it has changed in each of 12 readings"), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_is_not_regular_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::create_dir(path("directory")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(path("FIFO")).status();
    assert!(made.is_ok_and(|made| made.success()));
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    for (path, what) in [
        (path("directory"), "a directory"),
        (path("FIFO"), "a FIFO"),
        (path("socket"), "a socket"),
        (PathBuf::from("/dev/zero"), "a device"),
    ] {
        let errors = [
            Csv::open("goods", &path, CsvOptions::default()).await.unwrap_err(),
            Json::open("goods", &path, JsonOptions::default()).await.unwrap_err(),
            #[cfg(feature = "sqlite")]
            crate::Sqlite::open("goods", &path, "t", crate::SqliteOptions::default()).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), diorama_core::vista::ErrorKind::Transient, "{error}");
            assert!(error.to_string().contains(&format!("is {what}, not a regular file")), "{error}");
        }
    }
}

#[tokio::test]
async fn an_unchanged_file_is_recognized_without_a_reading() {
    for format in &FORMATS {
        let fixture = Fixture::new(format.name, &(format.text)(10));
        let vista = fixture.open().await;
        let shell = vista.shell();
        let young = shell.list(&Query::default()).await.unwrap();
        assert_eq!(young.fingerprint(), None, "a file of this second may be written again within it");
        let an_hour_ago = SystemTime::now() - Duration::from_secs(3_600);
        fixture.set_modified(an_hour_ago);
        let fingerprint = shell.list(&Query::default()).await.unwrap().fingerprint().cloned().unwrap();
        assert!(shell.list_changed(&fingerprint).await.unwrap().is_none());

        // Another content of the same length and the same time of modification.
        let changed = (format.text)(10).replacen("Article 3", "Article X", 1);
        fixture.write(&changed);
        fixture.set_modified(an_hour_ago);
        let rows = shell.list_changed(&fingerprint).await.unwrap().unwrap();
        assert_eq!(rows.get("3").unwrap()["name"], "Article X".into());
        let fingerprint = rows.fingerprint().cloned().unwrap();

        // Another file at the same path.
        let other = fixture.dir.path().join("other");
        std::fs::copy(&fixture.path, &other).unwrap();
        std::fs::rename(&other, &fixture.path).unwrap();
        fixture.set_modified(an_hour_ago);
        assert!(shell.list_changed(&fingerprint).await.unwrap().is_some());
    }
}
