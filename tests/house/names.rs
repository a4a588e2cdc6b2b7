//! Names that no resource may have stand in two parts that must not import each other: they are the same.

use std::fs;
use std::path::Path;

fn reserved(file: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let list = text.split("const RESERVED").nth(1).and_then(|rest| rest.split("= [").nth(1)).unwrap();
    let list = list.split("];").next().unwrap();
    list.split(',').map(|name| name.trim().trim_matches('"').to_string()).filter(|name| !name.is_empty()).collect()
}

#[test]
fn configuration_and_gateway_reserve_the_same_names() {
    let names = reserved("src/config/file.rs");
    assert!(names.contains(&"webhooks".to_string()));
    assert_eq!(names, reserved("src/gateway/state.rs"));
}
