//! Files that somebody writes while they are read. Time is the runtime's: a rest of five seconds takes none.

#![cfg(all(feature = "csv", feature = "json"))]

use std::io::Write as _;

use tempfile::TempDir;

use super::*;
use crate::{Csv, CsvOptions, Json, JsonOptions};
use diorama_core::vista::Vista;

const ROWS: usize = 1_000;

/// A format with the rows `1..=rows` of it.
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

    /// Has the file be written a minute ago.
    fn age(&self) {
        let file = OpenOptions::new().write(true).open(&self.path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    }

    async fn open(&self) -> Vista {
        match self.path.extension().is_some_and(|end| end == "csv") {
            true => Csv::open("goods", &self.path, CsvOptions::default()).await.unwrap(),
            false => Json::open("goods", &self.path, JsonOptions::default()).await.unwrap(),
        }
    }
}

/// The number of rows in a list, and how long it took.
async fn listed(vista: &Vista) -> (usize, u64) {
    let started = Instant::now();
    let rows = vista.list_values().await.unwrap();
    (rows.len(), started.elapsed().as_secs())
}

/// What is listed in less time than it takes a doubtful file to settle.
async fn within_the_rest(vista: &Vista) -> Option<Result<Rows>> {
    tokio::time::timeout(SETTLE - Duration::from_millis(100), vista.list_values()).await.ok()
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_cut_anywhere_is_not_believed_before_it_has_settled() {
    for format in FORMATS {
        let whole = (format.text)(ROWS);
        let fixture = Fixture::new(format.name, &whole);
        let vista = fixture.open().await;
        assert_eq!(listed(&vista).await, (ROWS, 0));
        let mut believed = 0;
        for cut in 1..=120 {
            let end = whole.len() * cut / 121;
            fixture.write(&whole[..end]);
            believed += usize::from(within_the_rest(&vista).await.is_some());
            assert!(vista.shell().withheld().is_some(), "{} at byte {end}", format.name);
            fixture.write(&whole);
            assert_eq!(listed(&vista).await, (ROWS, 0), "{}: a whole file ends the doubt", format.name);
            assert_eq!(vista.shell().withheld(), None);
        }
        println!("{}: {believed} of 120 cut files were believed while they could still grow", format.name);
        assert_eq!(believed, 0, "{}", format.name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_only_lost_its_last_line_end_is_believed_when_it_has_settled() {
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
async fn rows_that_went_missing_are_believed_when_the_file_has_settled() {
    for format in FORMATS {
        let fixture = Fixture::new(format.name, &(format.text)(ROWS));
        let vista = fixture.open().await;
        assert_eq!(listed(&vista).await, (ROWS, 0));
        fixture.rename(&(format.text)(ROWS + 1));
        assert_eq!(listed(&vista).await, (ROWS + 1, 0), "{}: a file with all rows is believed at once", format.name);
        fixture.rename(&(format.text)(ROWS - 10));
        assert_eq!(listed(&vista).await, (ROWS - 10, 5), "{}", format.name);
        assert_eq!(listed(&vista).await, (ROWS - 10, 0), "{}: once", format.name);
    }
}

/// The caller may have refused the list that lost most rows: a later part of the file is measured by the rows before it.
#[tokio::test(start_paused = true)]
async fn a_file_that_was_cut_to_a_few_rows_and_grows_again_is_not_believed_on_its_way() {
    for format in FORMATS {
        let fixture = Fixture::new(format.name, &(format.text)(ROWS));
        let vista = fixture.open().await;
        assert_eq!(listed(&vista).await, (ROWS, 0));
        fixture.write(&(format.text)(3));
        assert_eq!(listed(&vista).await, (3, 5));
        assert_eq!(listed(&vista).await, (3, 0), "{}: it is the same file", format.name);
        fixture.write(&(format.text)(700));
        assert!(within_the_rest(&vista).await.is_none(), "{}", format.name);
        fixture.write(&(format.text)(ROWS));
        assert_eq!(listed(&vista).await, (ROWS, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_copy_without_a_last_line_end_waits_only_where_it_was_written_just_now() {
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
        assert_eq!(vista.shell().withheld(), None, "it is a failure now");
        fixture.age();
        let started = Instant::now();
        assert!(vista.list_values().await.is_err());
        assert_eq!(started.elapsed().as_secs(), 0);
    }
}

/// A doubt outlives the call that had it: a caller with less patience than the file needs gets it all the same.
#[tokio::test(start_paused = true)]
async fn a_list_that_was_given_up_is_gone_on_with_by_the_next() {
    let fixture = Fixture::new("goods.csv", &(FORMATS[0].text)(ROWS));
    let vista = fixture.open().await;
    assert_eq!(listed(&vista).await, (ROWS, 0));
    fixture.write(&(FORMATS[0].text)(ROWS - 1));
    assert!(within_the_rest(&vista).await.is_none());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(listed(&vista).await, (ROWS - 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_written_while_it_is_read_is_read_again() {
    let fixture = Fixture::new("goods.csv", "id\n1\n");
    let file = Arc::new(SourceFile::new(fixture.path.clone(), None));
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
        "two readings alike, and undisturbed"
    );
    *left.lock() = usize::MAX;
    let error = file.study(reading(left)).await.unwrap_err();
    assert_eq!(error.kind(), diorama_core::vista::ErrorKind::Transient);
    assert!(error.to_string().contains("it has changed in each of 12 readings"), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_no_regular_file_is_refused_at_once() {
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
            assert!(error.to_string().contains(&format!("is {what}, not a file")), "{error}");
        }
    }
}
