//! What the program contains of others is named in `THIRD-PARTY.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const NOTICE: &str = "THIRD-PARTY.md";
const HEAD: &str = "| licence | crates |\n|---|---|\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(root())
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Rows of the table: each licence with the crates under it, as `cargo tree` knows them.
fn crates() -> String {
    let tree = cargo(&[
        "tree",
        "--package=diorama",
        "--features=full",
        "--locked",
        "--edges=normal",
        "--target=x86_64-unknown-linux-gnu",
        "--prefix=none",
        "--no-dedupe",
        "--format={p}|{l}",
    ]);
    let mut under: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (package, licence) in tree.lines().filter_map(|line| line.split_once('|')) {
        let name = package.split(' ').next().unwrap();
        if name != "diorama" && !name.starts_with("diorama-") {
            // Older packages separate alternatives by a slash.
            under.entry(licence.replace('/', " OR ")).or_default().insert(name);
        }
    }
    let row = |(licence, names): (&String, &BTreeSet<&str>)| {
        format!("| {licence} | {} |\n", names.iter().copied().collect::<Vec<_>>().join(", "))
    };
    under.iter().map(row).collect()
}

#[test]
fn every_crate_in_the_program_is_named_with_its_licence() {
    let path = root().join(NOTICE);
    let notice = fs::read_to_string(&path).unwrap();
    let (before, table) = notice.split_once(HEAD).unwrap();
    let now = crates();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path, format!("{before}{HEAD}{now}")).unwrap();
        return;
    }
    assert_eq!(table, now, "`UPDATE_DOCS=1 cargo test --test house` writes {NOTICE} anew");
}

#[test]
fn the_package_contains_the_licences_and_the_notice() {
    let listed = cargo(&["package", "--package=diorama", "--list", "--locked", "--allow-dirty"]);
    for name in ["LICENSE-MIT", "LICENSE-APACHE", NOTICE] {
        assert!(listed.lines().any(|line| line == name), "{name}");
    }
}
