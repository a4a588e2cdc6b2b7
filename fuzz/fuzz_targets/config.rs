//! Configuration files. A mistake names a line of the file, and never the value of a secret.
#![no_main]

use std::path::Path;

use diorama::config::Config;
use libfuzzer_sys::fuzz_target;

const SECRET: &str = "hunter2-0123456789abcdef";

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let path = Path::new("/nowhere/diorama.toml");
    let env = |name: &str| (name.len() < 9).then(|| SECRET.to_string());
    match Config::parse(text, path, &env) {
        Ok(config) => assert!(!format!("{config:?}").contains(SECRET)),
        Err(wrong) => {
            let said = wrong.to_string();
            assert!(!said.is_empty() && !said.contains(SECRET), "{said}");
            let lines = text.matches('\n').count() + 1;
            for line in said.lines().filter_map(|line| line.strip_prefix("/nowhere/diorama.toml:")) {
                let number = line.split(':').next().and_then(|number| number.parse::<usize>().ok());
                assert!(number.is_none_or(|number| number <= lines), "{said}");
            }
        }
    }
});
