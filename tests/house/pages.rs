//! Reference pages of docs/ say what the program has, and links between pages lead somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use diorama::gateway::Code;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// The cells of the rows of all tables in `text`.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = text.lines().filter(|line| line.starts_with('|'));
    rows.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
}

/// The words of `text` that stand in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// A document that the command prints of the demo.
fn printed(name: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_diorama")).arg(name).current_dir(&folder).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_page_of_error_codes_has_every_code_with_its_status() {
    let text = page("errors.md");
    let stated: BTreeMap<String, String> = rows(&text)
        .filter(|cells| cells.len() == 4 && cells[0].starts_with('`'))
        .map(|cells| (cells[0].trim_matches('`').to_string(), cells[1].to_string()))
        .collect();
    let known: BTreeMap<String, String> =
        Code::ALL.iter().map(|code| (code.as_str().to_string(), code.status().as_u16().to_string())).collect();
    assert_eq!(stated, known, "docs/errors.md and Code");
}

#[test]
fn the_page_of_http_has_every_path_with_its_methods() {
    let text = page("http.md");
    let mut stated: BTreeSet<(String, String)> = BTreeSet::new();
    for cells in rows(&text).filter(|cells| cells.len() == 3 && cells[1].starts_with("`/")) {
        let path = cells[1].trim_matches('`');
        stated.extend(quoted(cells[0]).map(|method| (method.to_lowercase(), path.to_string())));
    }
    let document = printed("openapi");
    let mut known = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        // The demo's other resources have the same paths.
        let path = match path.strip_prefix("/products") {
            Some(rest) => format!("/NAME{rest}"),
            None if path.starts_with("/orders") || path.starts_with("/categories") => continue,
            None => path.replace("/webhooks/products", "/webhooks/HOOK"),
        };
        let path = path.replace("{id}", "ID").replace("{relation}", "RELATION");
        let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
        known.extend(methods.map(|method| (method.clone(), path.clone())));
    }
    let missing: Vec<_> = known.difference(&stated).collect();
    assert!(missing.is_empty(), "docs/http.md lacks {missing:?}");
    // OpenAPI 3.1 has no word for QUERY, and the demo's sender has no handshake.
    let more: Vec<_> = stated.difference(&known).collect();
    let expected = [("get", "/webhooks/HOOK"), ("options", "/webhooks/HOOK"), ("query", "/NAME")];
    assert_eq!(more, expected.map(|(method, path)| (method.to_string(), path.to_string())).iter().collect::<Vec<_>>());
}

#[test]
fn the_page_of_frames_has_every_frame_with_its_members() {
    let text = page("frames.md");
    let mut stated: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for section in text.split("\n### ").skip(1) {
        let section = section.split("\n## ").next().unwrap_or_default();
        let name = quoted(section).next().unwrap().to_string();
        let members = rows(section).flat_map(|cells| quoted(cells[0]).map(str::to_string).collect::<Vec<_>>());
        stated.insert(name, members.collect());
    }
    let document = printed("asyncapi");
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let frame =
            name.strip_suffix("Frame").filter(|_| !name.starts_with("Orders") && !name.starts_with("Categories"));
        let (Some(frame), Some(members)) = (frame.filter(|frame| *frame != "Tagged"), schema["properties"].as_object())
        else {
            continue;
        };
        let frame = frame.strip_prefix("Products").unwrap_or(frame);
        let kind = members["type"]["enum"][0].as_str().unwrap_or(frame).to_string();
        known.insert(kind, members.keys().filter(|member| *member != "type").cloned().collect());
    }
    assert_eq!(stated, known, "docs/frames.md and `diorama asyncapi`");
}

/// The name that GitHub gives to the heading `title`.
fn anchor(title: &str) -> String {
    let kept = title.trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).collect::<String>().replace(' ', "-")
}

/// Targets of the Markdown links in `text`, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for block in text.split("```").step_by(2) {
        let plain: String =
            block.split('`').enumerate().map(|(part, text)| if part % 2 == 0 { text } else { "x" }).collect();
        let targets = plain.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        found.extend(targets.map(|target| target.trim().to_string()));
    }
    found
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut pages: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "docker/README.md", "benches/README.md"]
            .map(|name| root().join(name))
            .to_vec();
    pages.extend(fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    let mut broken = Vec::new();
    for page in pages.iter().filter(|page| page.extension().is_some_and(|ending| ending == "md")) {
        let text = fs::read_to_string(page).unwrap();
        for link in links(&text).into_iter().filter(|link| !link.contains("://")) {
            let (path, heading) = link.split_once('#').map_or((&*link, None), |(path, heading)| (path, Some(heading)));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            let there = match heading {
                None => target.exists(),
                Some(heading) => fs::read_to_string(&target).is_ok_and(|text| {
                    text.lines()
                        .filter(|line| line.starts_with('#'))
                        .any(|line| anchor(line.trim_matches('#')) == heading)
                }),
            };
            if !there {
                broken.push(format!("{}: {link}", page.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
