//! Shapes of JSON documents. Two readings are the same, and so is one that is told where the rows were found.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use diorama::Inferred;
use diorama::connect::{Json, JsonOptions};
use diorama::record::Rows;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

static PLACE: LazyLock<(Runtime, TempDir)> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    (runtime, tempfile::tempdir().expect("a folder"))
});

async fn read(path: &Path, pointer: Option<&str>) -> Option<(Rows, Vec<Inferred>)> {
    let options =
        JsonOptions { path: pointer.map(str::to_string), settle: Some(Duration::ZERO), ..JsonOptions::default() };
    let vista = Json::open("products", path, options).await.ok()?;
    let inferred = vista.shell().inferred();
    let rows = vista.list_values().await.ok()?;
    Some((rows, inferred))
}

fuzz_target!(|data: &[u8]| {
    let (runtime, folder) = &*PLACE;
    let path = folder.path().join("products.json");
    std::fs::write(&path, data).expect("the file can be written");
    runtime.block_on(async {
        let Some((rows, inferred)) = read(&path, None).await else { return };
        assert!(rows.len() <= data.len() + 1);
        let again = read(&path, None).await.map(|(rows, _)| rows);
        assert_eq!(again.as_ref(), Some(&rows), "two readings");
        for guess in &inferred {
            assert!(!guess.because.is_empty() && !guess.key.is_empty(), "{guess}");
        }
        let Some(guess) = inferred.iter().find(|guess| guess.what == "rows") else { return };
        if guess.value.starts_with('/') {
            let (told, _) = read(&path, Some(&guess.value)).await.unwrap_or_else(|| panic!("no rows at {guess}"));
            assert_eq!(told, rows, "{guess}");
        }
    });
});
