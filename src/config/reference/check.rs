//! Tests of the JSON Schema with a validator for the subset that it uses.

use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::Value;

use super::super::Config;
use super::schema;

/// Returns the positions and keywords that `value` violates.
fn misfits(schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            found.push(format!("{at}: {what}"));
        }
    };
    let fits = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "boolean" => value.is_boolean(),
        other => panic!("{other}"),
    };
    must(schema["type"].as_str().is_none_or(fits), "type");
    must(schema["enum"].as_array().is_none_or(|words| words.contains(value)), "enum");
    must(schema.get("const").is_none_or(|own| own == value), "const");
    must(schema["minimum"].as_i64().is_none_or(|least| value.as_i64().is_none_or(|own| own >= least)), "minimum");
    must(schema["maximum"].as_i64().is_none_or(|most| value.as_i64().is_none_or(|own| own <= most)), "maximum");
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str()) {
        must(Regex::new(pattern).unwrap().is_match(text), "pattern");
    }
    if let Some(ways) = schema["anyOf"].as_array() {
        must(ways.iter().any(|way| misfits(way, value, at).is_empty()), "anyOf");
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        must(value.get(name.as_str().unwrap()).is_some(), &format!("required {name}"));
    }
    for item in value.as_array().into_iter().flatten() {
        found.extend(misfits(&schema["items"], item, at));
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        match (schema["properties"].get(name), &schema["additionalProperties"]) {
            (Some(own), _) => found.extend(misfits(own, member, &at)),
            (None, Value::Bool(false)) => found.push(format!("{at}: unknown")),
            (None, other) => found.extend(misfits(other, member, &at)),
        }
    }
    found
}

fn violations(text: &str) -> Vec<String> {
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    let value = serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap();
    misfits(&schema, &value, "")
}

/// Returns every `diorama.toml` in the repository and in its documentation.
fn files() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let mut files = Vec::new();
    for folder in ["demo", "docker", "tests/senders"] {
        let path = root.join(folder).join("diorama.toml");
        files.push((path.clone(), read(&path)));
    }
    let pages = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    for page in pages.filter(|path| path.extension().is_some_and(|it| it == "md")).chain([root.join("README.md")]) {
        let text = read(&page);
        let blocks = text.split("```toml\n").skip(1).map(|block| block.split("```").next().unwrap_or_default());
        files.extend(blocks.map(|block| (page.clone(), block.to_string())));
    }
    files
}

#[test]
fn every_diorama_toml_of_the_repository_fits_the_schema() {
    let files = files();
    assert!(files.len() > 4);
    for (path, text) in files {
        // A page may show only a part of a file.
        let whole = if text.contains("[dio.") { text } else { format!("{text}\n[dio.x]\nsource = {{ csv = \"x\" }}") };
        assert_eq!(violations(&whole), [""; 0], "{}", path.display());
    }
}

#[test]
fn the_program_refuses_all_that_the_schema_refuses() {
    let dio = "\n[dio.a]\nsource = { csv = \"a\" }\n";
    let cases = [
        "[dio.a]",
        "[dio.a]\nsource = { csv = \"a\" }\nidd = \"x\"",
        "[dio.a]\nsource = { csv = \"a\" }\nack = \"later\"",
        "[dio.a]\nsource = { csv = \"a\" }\nmax_indexes = 2000",
        "[dio.a]\nsource = { csv = \"a\" }\nrefresh_every = \"often\"",
        "[dio.a]\nsource = { csv = \"a\" }\ncolumns.x = { flags = [] }",
        "[server]\nexplorer = 1",
        "[server]\nauth = \"some\"",
        "[server]\nauth = { tokens = [\"hunter2\"] }",
        "[server.limits]\nbody = 3",
        "[server.limits]\nbody = \"3 bags\"",
        "[lens]\ncache = true",
        "[webhook.a]\ndio = \"a\"",
        "[webhook.a]\nauth = { scheme = \"trust\" }",
        "[sever]",
    ];
    for case in cases {
        let text = if case.contains("[dio") { case.to_string() } else { format!("{case}{dio}") };
        assert!(!violations(&text).is_empty(), "the schema accepts {text}");
        assert!(Config::parse(&text, Path::new("diorama.toml"), &|_| None).is_err(), "the program accepts {text}");
    }
}

/// A file with all documented defaults equals an empty file.
#[test]
fn documented_defaults_of_server_and_lens_match_the_code() {
    let mut text = String::new();
    for (path, default, _) in
        super::KEYS.iter().filter(|(path, ..)| path.starts_with("server.") || path.starts_with("lens."))
    {
        if super::toml_value(default).is_ok_and(|value| value.is_some()) && *default != "{}" {
            text += &format!("{path} = {default}\n");
        }
    }
    let parse = |text: &str| {
        let text = format!("{text}\n[dio.a]\nsource = {{ csv = \"a\" }}");
        Config::parse(&text, Path::new("diorama.toml"), &|_| None).unwrap()
    };
    let (explicit, defaults) = (parse(&text), parse(""));
    assert_eq!(format!("{:?}", explicit.server), format!("{:?}", defaults.server));
    assert_eq!(explicit.lens.cache, defaults.lens.cache);
}
