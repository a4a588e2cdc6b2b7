//! Generator of the reference of `diorama.toml` and its JSON Schema, from the keys that the code reads.
//!
//! A new key needs an entry in `keys.rs`; then `UPDATE_DOCS=1 cargo nextest run --features full --lib reference` regenerates `docs/`.

mod check;
mod keys;

use std::path::Path;

use serde_json::{Map, Value, json};
use toml::de::DeTable;

use super::problems::Problems;
use super::value::{COUNT_RATE, Context, SIZE_RATE};
use super::webhook::FORMATS;
use diorama_connect::{Connector, FollowMode, Registry};
use keys::{KEYS, KeyText, REQUIRED, TABLES};

/// Files that together contain every table and take every branch.
const SAMPLES: [&str; 7] = [
    r#"
        [server]
        auth = { tokens = ["env:TOKEN"] }
        limits = {}
        tls = { cert = "cert.pem", key = "key.pem", client_ca = "ca.pem" }
        [[allow]]
        role = "member"
        dio = "a"
        can = ["read"]
        where = "id=eq.{claims.org_id}"
        check = ""
        columns = ["id"]
        [key.a]
        token = "env:TOKEN"
        [jwt.a]
        secret = "env:TOKEN"
        [lens]
        inbox = {}
        outbox = {}
        events = {}
        [audit]
        [[limit]]
        [dio.a]
        source = { csv = "a.csv" }
        write = { sqlite = "a.db", table = "a" }
        columns.c = { type = "string" }
        relations.r = { dio = "a", on = "c" }
        feed = { ws = "ws://h", headers = {}, format = "cloudevents" }
        [notify.a]
        url = "http://h/"
        secrets = ["env:TOKEN"]
        headers = {}
        [webhook.a]
        auth = { scheme = "hmac", secrets = ["env:TOKEN"], header = "h", algorithm = "sha1", allow_sha1 = true }
        [webhook.b]
        dio = "a"
        auth = { scheme = "meta", secrets = ["env:TOKEN"], verify_tokens = ["env:TOKEN"] }
        [webhook.c]
        dio = "a"
        auth = { scheme = "sns", secrets = ["env:TOKEN"], topics = ["arn:aws:sns:eu-west-1:1:a"] }
        [webhook.d]
        dio = "a"
        auth = { scheme = "twilio", secrets = ["env:TOKEN"] }
    "#,
    r#"
        [dio.a]
        source = { json = "a.json" }
        feed = { ws = "ws://h", format = "github" }
        [webhook.a]
        auth = { scheme = "header", secrets = ["env:TOKEN"], header = "h" }
        format = "github"
    "#,
    r#"
        [dio.a]
        source = { sqlite = "a.db", table = "a" }
        [webhook.a]
        auth = { scheme = "contentful", secrets = ["env:TOKEN"] }
        format = "cloudevents"
    "#,
    r#"
        [connection.shop]
        postgres = "postgres://USER@HOST/DATABASE"
        [dio.a]
        source = { connection = "shop", table = "a" }
        write = { connection = "shop", table = "b" }
    "#,
    r#"
        [dio.a]
        source = { http = "https://h", page = {}, auth = {}, rate = {}, since = {}, responses = [{}] }
        write.http = {}
    "#,
    r#"
        [dio.a]
        source = { parquet = "s3://bucket/a.parquet" }
        [dio.b]
        source = { spreadsheet = "a.xlsx" }
    "#,
    r#"
        [dio.a]
        source = { csv = "a.csv" }
        [webhook.a]
        auth = { scheme = "none" }
        map = {}
    "#,
];

/// A key: its path with `*` for names, and the expected value.
#[derive(Clone, Debug, PartialEq)]
struct Key {
    path: String,
    expected: String,
}

impl Key {
    fn table(&self) -> &str {
        self.path.rsplit_once('.').map_or("", |(table, _)| table)
    }

    fn name(&self) -> &str {
        self.path.rsplit_once('.').map_or(&self.path, |(_, name)| name)
    }

    /// Returns default and description. Those of a key that several connectors read follow each other.
    fn text(&self) -> (&'static str, String) {
        if let Some((_, default, sentence)) = KEYS.iter().find(|(path, ..)| *path == self.path) {
            return (default, (*sentence).to_string());
        }
        let of_connectors = of_connectors();
        let found: Vec<&KeyText> =
            of_connectors.iter().filter(|(path, _)| *path == self.path).map(|(_, text)| text).collect();
        let Some((_, default, _)) = found.first() else {
            panic!("neither src/config/reference/keys.rs nor a connector describes {}", self.path)
        };
        let mut sentences: Vec<&str> = found.iter().map(|(_, _, sentence)| *sentence).collect();
        sentences.dedup();
        (default, sentences.join(" "))
    }

    fn schema(&self) -> Value {
        let (default, sentence) = self.text();
        let mut schema = match self.path.as_str() {
            "server.auth" => json!({"anyOf": [{"const": "none"}, table("server.auth")]}),
            "dio.*.feed.format" => {
                let formats: Vec<&str> = ["diorama"].into_iter().chain(FORMATS).collect();
                json!({"enum": formats})
            }
            "dio.*.feed" => json!({"anyOf": [{"enum": FollowMode::WORDS}, table("dio.*.feed")]}),
            "dio.*.feed.headers" => json!({"type": "object", "additionalProperties": {"type": "string"}}),
            "dio.*.source.responses" => json!({"type": "array", "items": table("dio.*.source.responses")}),
            "dio.*.source.headers" | "dio.*.source.query" => {
                json!({"type": "object", "additionalProperties": {"type": "string"}})
            }
            path if path.ends_with(".map") => json!({"type": "object"}),
            path @ ("dio.*.columns" | "dio.*.relations") => {
                json!({"type": "object", "additionalProperties": table(&format!("{path}.*"))})
            }
            path if self.expected == "a table" => table(path),
            _ => type_of(&self.expected),
        };
        schema["description"] = sentence.into();
        if let Ok(Some(default)) = toml_value(default) {
            schema["default"] = default;
        }
        schema
    }
}

/// Parses a default that is written as TOML.
fn toml_value(text: &str) -> Result<Option<Value>, serde_json::Error> {
    let read = toml::from_str::<toml::Table>(&format!("v = {text}")).ok();
    read.and_then(|table| table.get("v").cloned()).map(serde_json::to_value).transpose()
}

/// Returns the keys of connectors with their paths in the file.
fn of_connectors() -> Vec<(String, KeyText)> {
    let keys = Registry::builtin();
    let keys = keys.connectors().flat_map(Connector::keys);
    keys.map(|key| (format!("dio.*.{}", key.path), (key.path, key.default, key.help))).collect()
}

/// Returns the samples and a file for each connector's source, route and feed.
fn samples() -> Vec<String> {
    let registry = Registry::builtin();
    let mut samples: Vec<String> = SAMPLES.map(String::from).to_vec();
    for connector in registry.connectors() {
        let source = connector.source_form().unwrap_or(r#"{ csv = "a.csv" }"#);
        let mut sample = format!("[dio.a]\nsource = {source}\n");
        for (key, form) in [("write", connector.route_form()), ("feed", connector.feed_form())] {
            sample.extend(form.map(|form| format!("{key} = {form}\n")));
        }
        samples.push(sample);
    }
    samples
}

/// Returns every key that the code reads, in the order of the code.
fn requested_keys() -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    let registry = Registry::builtin();
    for text in &samples() {
        let path = Path::new("diorama.toml");
        let context = Context {
            problems: Problems::default(),
            path,
            folder: Path::new(""),
            text,
            env: &|_| Some("0123456789abcdef".into()),
            registry: &registry,
            requested: Default::default(),
        };
        let table = DeTable::parse(text).unwrap();
        super::file::read(&context, table.get_ref());
        for (table, key, expected) in context.requested.take() {
            let table = names_starred(&table);
            let path = if table.is_empty() { key.to_string() } else { format!("{table}.{key}") };
            if !keys.iter().any(|known| known.path == path) && !is_outer(&path) {
                keys.push(Key { path, expected });
            }
        }
    }
    for map in ["dio.*.feed.map", "webhook.*.map"] {
        keys.push(Key { path: map.into(), expected: "a table".into() });
    }
    keys
}

/// Returns true for a table that the reference describes as a whole. The keys of a connection are those of sources and routes.
fn is_outer(path: &str) -> bool {
    ["server", "key", "jwt", "lens", "allow", "audit", "limit", "dio", "notify", "webhook", "connection"]
        .contains(&path)
        || path.starts_with("connection.")
}

/// Converts `dio.a.columns.c` to `dio.*.columns.*`.
fn names_starred(table: &str) -> String {
    let mut before = "";
    let starred = table.split('.').map(|part| {
        let part = if ["key", "jwt", "dio", "notify", "webhook", "columns", "relations"].contains(&before) {
            "*"
        } else {
            part
        };
        before = part;
        part
    });
    starred.collect::<Vec<_>>().join(".")
}

/// Returns the schema of the table at `path`.
fn table(path: &str) -> Value {
    let keys = requested_keys();
    let own: Vec<&Key> = keys.iter().filter(|key| key.table() == path).collect();
    let properties: Map<String, Value> = own.iter().map(|key| (key.name().to_string(), key.schema())).collect();
    let required: Vec<&str> = own.iter().filter(|key| key.text().0 == REQUIRED).map(|key| key.name()).collect();
    let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

/// Converts the reader's description of an expected value to a schema.
fn type_of(expected: &str) -> Value {
    let range = |words: &str, kind: Value| {
        let mut schema = kind;
        let (least, most) = words.split_once(',').unwrap_or((words, "")).0.split_once(" to ").unwrap();
        schema["minimum"] = least.parse::<u64>().unwrap().into();
        schema["maximum"] = most.parse::<u64>().unwrap().into();
        schema
    };
    if let Some(words) = expected.strip_prefix("one of ") {
        let words: Vec<&str> = words.split(", ").collect();
        return json!({"enum": words});
    }
    if let Some(words) = expected.strip_prefix("a whole number from ") {
        return range(words, json!({"type": "integer"}));
    }
    if let Some(words) = expected.strip_prefix("a number of bytes from ") {
        let text = json!({"type": "string", "pattern": r"^[0-9]+ *(B|KiB|MiB|GiB)?$|\$\{"});
        return json!({"anyOf": [range(words, json!({"type": "integer"})), text]});
    }
    match expected {
        "a text" | r#"a text, "env:NAME" or "file:PATH""# | r#"a path, "file:PATH" or "env:NAME""# => {
            json!({"type": "string"})
        }
        "true or false" => json!({"type": "boolean"}),
        "a folder, or true or false" => json!({"anyOf": [{"type": "string"}, {"type": "boolean"}]}),
        "a whole number, more than 0" => json!({"type": "integer", "minimum": 1}),
        r#"a time like "30s", "5m" or "1h""# => {
            json!({"type": "string", "pattern": r"^([0-9]+ ?(ms|s|m|h|d) ?)+$|\$\{"})
        }
        COUNT_RATE => json!({"type": "string", "pattern": r"^[0-9]+ */ *(s|min|h)$|\$\{"}),
        SIZE_RATE => json!({"type": "string", "pattern": r"^[0-9]+ *(B|KiB|MiB|GiB)? */ *(s|min|h)$|\$\{"}),
        r#"an array of times like ["5s", "5m"]"# => {
            let time = json!({"type": "string", "pattern": r"^([0-9]+ ?(ms|s|m|h|d) ?)+$|\$\{"});
            json!({"type": "array", "items": time})
        }
        "an array of texts" => json!({"type": "array", "items": {"type": "string"}}),
        "a text or a table" => json!({"anyOf": [{"type": "string"}, {"type": "object"}]}),
        "a text or an array of texts" => {
            json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
        }
        "a table of values" => json!({"type": "object"}),
        // Editors show a time of TOML as a text.
        "a time like 2027-01-01T00:00:00Z" => json!({"anyOf": [{"type": "string"}, {"type": "object"}]}),
        r#""env:NAME" or "file:PATH""# => json!({"type": "string", "pattern": "^(env|file):"}),
        r#"an array like ["env:NAME"]"# => {
            json!({"type": "array", "items": {"type": "string", "pattern": "^(env|file):"}})
        }
        other => panic!("no JSON Schema is known for {other:?}"),
    }
}

fn schema() -> String {
    let many = |of: &str| json!({"type": "object", "additionalProperties": table(of)});
    let mut dios = many("dio.*");
    dios["propertyNames"] = json!({"pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"});
    dios["minProperties"] = 1.into();
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "diorama.toml",
        "type": "object",
        "properties": {
            "server": table("server"),
            "key": many("key.*"),
            "jwt": many("jwt.*"),
            "lens": table("lens"),
            "allow": {"type": "array", "items": table("allow")},
            "audit": table("audit"),
            "limit": {"type": "array", "items": table("limit")},
            "connection": {"type": "object", "additionalProperties": {"type": "object"}},
            "dio": dios,
            "notify": many("notify.*"),
            "webhook": many("webhook.*"),
        },
        "additionalProperties": false,
        "required": ["dio"],
    });
    serde_json::to_string_pretty(&schema).unwrap() + "\n"
}

/// Converts the reader's description of an expected value to a type of the reference.
fn type_words(expected: &str) -> String {
    match expected {
        r#"a time like "30s", "5m" or "1h""# => "time".into(),
        r#"an array like ["env:NAME"]"# => "secrets".into(),
        r#"an array of times like ["5s", "5m"]"# => "times".into(),
        "an array of texts" => "texts".into(),
        COUNT_RATE => "rate".into(),
        SIZE_RATE => "rate of bytes".into(),
        "a text or an array of texts" => "text or texts".into(),
        "a table of values" => "table".into(),
        "a time like 2027-01-01T00:00:00Z" => "moment".into(),
        r#""env:NAME" or "file:PATH""# => "secret".into(),
        "a table" => "table".into(),
        "a text or a table" => "text or table".into(),
        "an array of tables" => "tables".into(),
        "a text" => "text".into(),
        r#"a text, "env:NAME" or "file:PATH""# => "text or secret".into(),
        r#"a path, "file:PATH" or "env:NAME""# => "path or secret".into(),
        "a folder, or true or false" => "folder or flag".into(),
        "a whole number, more than 0" => "number".into(),
        other => match (other.strip_prefix("one of "), other.strip_prefix("a whole number from ")) {
            (Some(words), _) => words.split(", ").map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" "),
            (None, Some(range)) => range.to_string(),
            (None, None) if other.starts_with("a number of bytes") => "size".into(),
            (None, None) => other.to_string(),
        },
    }
}

fn page() -> String {
    let keys = requested_keys();
    let mut page = String::from(include_str!("head.md"));
    for (path, about) in TABLES {
        let inner = if path.contains("relations") { "RELATION" } else { "COLUMN" };
        let mut names = ["NAME", inner].into_iter();
        let title: Vec<&str> =
            path.split('.').map(|part| if part == "*" { names.next().unwrap_or_default() } else { part }).collect();
        let title = title.join(".");
        let is_array = ["allow", "limit"].contains(path);
        let title = if is_array { format!("[[{title}]]") } else { format!("[{title}]") };
        page += &format!("\n## `{title}`\n\n{about}\n\n| key | type | default | |\n|---|---|---|---|\n");
        for key in keys.iter().filter(|key| key.table() == *path) {
            let (default, sentence) = key.text();
            let default = match toml_value(default) {
                Ok(Some(_)) => format!("`{default}`"),
                _ => default.to_string(),
            };
            let kind = match key.path.as_str() {
                "server.auth" => "`\"none\"` or table".into(),
                "dio.*.feed.format" => "`diorama` or a format".into(),
                "dio.*.feed" => "word or table".into(),
                _ => type_words(&key.expected),
            };
            page += &format!("| `{}` | {kind} | {default} | {sentence} |\n", key.name());
        }
    }
    page
}

/// Compares the generated text with the stored file, or overwrites the file if `UPDATE_DOCS` is set. The stored files describe
/// every connector, so that a build without one cannot be compared.
fn stored(name: &str, made: &str) {
    if let Some(left_out) = Registry::builtin().left_out().first() {
        eprintln!("docs/{name} is not compared: this build is without {left_out}; --features full has every connector");
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == made,
        "docs/{name} is outdated: run UPDATE_DOCS=1 cargo nextest run --features full --lib reference"
    );
}

#[test]
fn the_stored_reference_is_up_to_date() {
    stored("configuration.md", &page());
}

#[test]
fn the_stored_json_schema_is_up_to_date() {
    stored("diorama.schema.json", &schema());
}

#[test]
fn every_described_key_exists_and_has_a_table() {
    let keys = requested_keys();
    for (path, ..) in KEYS {
        assert!(keys.iter().any(|key| key.path == *path), "nothing reads {path}: remove it from keys.rs");
    }
    for (path, _) in of_connectors() {
        assert!(keys.iter().any(|key| key.path == path), "nothing reads {path}: remove it from its connector's keys");
    }
    for key in &keys {
        assert!(
            TABLES.iter().any(|(table, _)| *table == key.table()),
            "TABLES has no entry for the table of {}",
            key.path
        );
    }
}
