//! CSV, JSON and NDJSON files of a source. The first byte says which.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use diorama::connect::{Csv, CsvOptions, Json, JsonOptions};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

static PLACE: LazyLock<(Runtime, TempDir)> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    (runtime, tempfile::tempdir().expect("a folder"))
});

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let (runtime, folder) = &*PLACE;
    let ending = ["csv", "json", "ndjson"][usize::from(*kind) % 3];
    let path: PathBuf = folder.path().join(format!("products.{ending}"));
    std::fs::write(&path, rest).expect("the file can be written");
    // Nobody waits for the rest of a file that looks cut.
    let settle = Some(std::time::Duration::ZERO);
    runtime.block_on(async {
        let opened = match ending {
            "csv" => Csv::open("products", &path, CsvOptions { settle, ..CsvOptions::default() }).await,
            _ => Json::open("products", &path, JsonOptions { settle, ..JsonOptions::default() }).await,
        };
        let Ok(vista) = opened else { return };
        if let Ok(rows) = vista.list_values().await {
            assert!(rows.len() <= rest.len() + 1);
            for (id, _) in rows.iter() {
                assert!(rows.contains(&id));
            }
        }
    });
});
