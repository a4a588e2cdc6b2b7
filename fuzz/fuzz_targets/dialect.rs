//! How CSV files are written, as far as they tell. The first byte says what is declared.
//!
//! Two readings are the same, and so is one to which every guess of the first is told as a key.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use diorama::Inferred;
use diorama::connect::{Csv, CsvOptions};
use diorama::record::Rows;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

static PLACE: LazyLock<(Runtime, TempDir)> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    (runtime, tempfile::tempdir().expect("a folder"))
});

async fn read(path: &Path, options: CsvOptions) -> Option<(Rows, Vec<Inferred>)> {
    let options = CsvOptions { settle: Some(Duration::ZERO), ..options };
    let vista = Csv::open("products", path, options).await.ok()?;
    let inferred = vista.shell().inferred();
    let rows = vista.list_values().await.ok()?;
    Some((rows, inferred))
}

/// The keys that say what was guessed.
fn told(options: &CsvOptions, inferred: &[Inferred]) -> CsvOptions {
    let mut told = options.clone();
    for guess in inferred {
        assert!(!guess.because.is_empty() && !guess.key.is_empty(), "{guess}");
        match guess.what.as_str() {
            "separator" => {
                let byte = (0..128_u8).find(|byte| format!("{:?}", char::from(*byte)) == guess.value);
                told.delimiter = byte.or(told.delimiter);
            }
            "header" => told.header = guess.value.strip_prefix("line ").and_then(|line| line.parse().ok()),
            "encoding" => told.encoding = Some(guess.value.clone()),
            // There may be a column of that name.
            "id" if guess.value != "#" => told.id = Some(guess.value.clone()),
            _ => {}
        }
    }
    told
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let (runtime, folder) = &*PLACE;
    let path = folder.path().join("products.csv");
    std::fs::write(&path, rest).expect("the file can be written");
    let options = CsvOptions {
        delimiter: (kind & 1 != 0).then_some(b';'),
        header: (kind & 2 != 0).then_some(u64::from(kind >> 6) + 1),
        decimal: (kind & 4 != 0).then_some(b','),
        null: (kind & 8 != 0).then(|| vec!["-".into()]),
        id: (kind & 16 != 0).then(|| "#".into()),
        ..CsvOptions::default()
    };
    runtime.block_on(async {
        let Some((rows, inferred)) = read(&path, options.clone()).await else { return };
        let again = read(&path, options.clone()).await.map(|(rows, _)| rows);
        assert_eq!(again.as_ref(), Some(&rows), "two readings");
        let told = told(&options, &inferred);
        let (settled, left) = read(&path, told.clone()).await.unwrap_or_else(|| panic!("{told:?} after {inferred:?}"));
        assert_eq!(settled, rows, "{told:?}");
        assert!(
            !left.iter().any(|guess| ["separator", "header", "encoding"].contains(&guess.what.as_str())),
            "{left:?}"
        );
    });
});
