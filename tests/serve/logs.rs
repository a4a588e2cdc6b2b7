//! What is logged: on standard error, readable by people or by machines, and never a secret.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::process::{PATIENCE, Server, command, folder, serving};

const CONFIG: &str = r#"
[server]
auth = { tokens = ["env:TOKEN"] }

[dio.products]
source = { csv = "products.csv" }

[dio.orders]
source = { sqlite = "shop.db", table = "orders" }

[webhook.orders]
auth = { scheme = "standard", secrets = ["env:WHSEC"] }
"#;

const OURS: (&str, &str) = ("authorization", "Bearer s3cr3t-0123456789");
const SECRETS: [&str; 4] = ["s3cr3t", "whsec_", "hunter2", "AAECAwQFBgcI"];

/// A server whose log is in a file.
fn start(dir: &Path, log: &str, change: impl FnOnce(&mut Command)) -> Server {
    std::fs::write(dir.join("diorama.toml"), CONFIG).unwrap();
    let mut command = serving(dir, &["--log", log]);
    command.stderr(File::create(dir.join("log")).unwrap());
    change(&mut command);
    let mut server = Server::spawn(&mut command);
    server.wait_for("ready");
    server
}

fn log(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("log")).unwrap()
}

/// The log's lines, each of which must be JSON.
fn lines(dir: &Path) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    log(dir).lines().map(parse).collect()
}

fn find<'a>(lines: &'a [Value], message: &str, id: &str) -> &'a Value {
    let fits = |line: &&Value| line["message"] == message && line["request.id"] == id;
    lines.iter().find(fits).unwrap_or_else(|| panic!("no {message:?} of {id} in {lines:#?}"))
}

fn request_id(problem: &str) -> String {
    let problem: Value = serde_json::from_str(problem).unwrap();
    problem["request_id"].as_str().unwrap().to_string()
}

#[test]
fn the_request_id_of_a_problem_is_in_the_log_and_no_secret_is() {
    let dir = folder();
    let mut server = start(dir.path(), "debug", |command| {
        command.args(["--log-format", "json"]);
    });
    let missing = server.request("GET", "/products/99?name=hunter2", &[OURS], "");
    assert_eq!(missing.status, 404);
    let stranger = server.request("GET", "/products", &[("authorization", "Bearer hunter2")], "");
    let hook = [("content-type", "application/json"), ("webhook-id", "m1"), ("webhook-timestamp", "1")];
    let signed = [&hook[..], &[("webhook-signature", "v1,hunter2")]].concat();
    let delivery = server.request("POST", "/webhooks/orders?token=hunter2", &signed, "{}");
    std::fs::remove_file(dir.path().join("products.csv")).unwrap();
    let failed = server.request("POST", "/products/_refresh", &[OURS], "");
    assert_eq!((stranger.status, delivery.status, failed.status), (401, 401, 502), "{}", failed.body);
    let json = [OURS, ("content-type", "application/json"), ("x-request-id", "the-write"), ("prefer", "wait=10")];
    let written = server.request("POST", "/orders/o1", &json, r#"{"item":"Bun","price":150}"#);
    let operation = written.head.lines().find_map(|line| line.strip_prefix("dio-operation: /operations/")).unwrap();
    let lines = lines(dir.path());
    for (answer, route, code) in [
        (&missing, "/{dio}/{id}", "not-found"),
        (&stranger, "/{dio}", "unauthenticated"),
        (&delivery, "/webhooks/{hook}", "signature-invalid"),
        (&failed, "/{dio}/_refresh", "refresh-failed"),
    ] {
        let line = find(&lines, "answered", &request_id(&answer.body));
        assert_eq!(
            (&line["route"], &line["code"], &line["status"]),
            (&route.into(), &code.into(), &answer.status.into())
        );
        assert!(line["duration_ms"].is_number() && line["level"] == "DEBUG");
    }
    let why = find(&lines, "a request failed", &request_id(&failed.body));
    assert_eq!((&why["level"], &why["dio"]), (&"WARN".into(), &"products".into()));
    assert!(why["detail"].as_str().unwrap().contains("products.csv"), "{why}");
    let refused = find(&lines, "a delivery was refused", &request_id(&delivery.body));
    assert_eq!((&refused["level"], &refused["webhook"]), (&"WARN".into(), &"orders".into()));
    let accepted = find(&lines, "a write was accepted", "the-write");
    assert_eq!(accepted["operation"].as_str().unwrap().to_lowercase(), operation);
    server.kill();
    for text in [log(dir.path()), server.printed.join("\n")] {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret} is in\n{text}");
        }
    }
}

#[test]
fn a_source_that_stays_away_is_one_line_until_it_is_back() {
    let dir = folder();
    let server = start(dir.path(), "info", |command| {
        command.env("DIORAMA_LOG_FORMAT", "json");
    });
    let rows = std::fs::read(dir.path().join("products.csv")).unwrap();
    std::fs::remove_file(dir.path().join("products.csv")).unwrap();
    for _ in 0..3 {
        assert_eq!(server.request("POST", "/products/_refresh", &[OURS], "").status, 502);
    }
    std::fs::write(dir.path().join("products.csv"), rows).unwrap();
    assert_eq!(server.request("POST", "/products/_refresh", &[OURS], "").status, 200);
    let lines = lines(dir.path());
    let count = |message: &str| lines.iter().filter(|line| line["message"] == message).count();
    assert_eq!((count("a refresh failed"), count("the source can be read again")), (1, 1), "{lines:#?}");
    assert_eq!(count("answered"), 0, "the access log is off by default");
    assert_eq!(server.get("/metrics").status, 401);
    // Those before are gone soon after their answers.
    let deadline = std::time::Instant::now() + PATIENCE;
    let alone = |body: &str| body.contains("\ndiorama_http_connections 1\n");
    while !alone(&server.request("GET", "/metrics", &[OURS], "").body) {
        assert!(std::time::Instant::now() < deadline, "connections stay");
    }
}

#[test]
fn a_write_that_the_source_refuses_is_a_warning_with_its_operation() {
    let dir = folder();
    let shop = rusqlite::Connection::open(dir.path().join("shop.db")).unwrap();
    shop.execute_batch("CREATE TRIGGER no BEFORE INSERT ON orders BEGIN SELECT RAISE(ABORT, 'no more'); END").unwrap();
    let server = start(dir.path(), "info", |command| {
        command.args(["--log-format", "json"]);
    });
    let json = [OURS, ("content-type", "application/json"), ("prefer", "wait=10")];
    let refused = server.request("POST", "/orders/o1", &json, r#"{"item":"Bun","price":150}"#);
    assert!(refused.status >= 400, "{refused:?}");
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let lines = lines(dir.path());
        let line = lines.iter().find(|line| line["message"] == "a write failed and was rolled back");
        if let Some(line) = line {
            assert_eq!((&line["dio"], &line["level"]), (&"orders".into(), &"WARN".into()));
            assert!(line["error"].as_str().unwrap().contains("no more"), "{line}");
            assert!(line["operation"].as_str().unwrap().starts_with("op_"), "{line}");
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{lines:#?}");
    }
}

#[test]
fn the_end_of_the_program_is_in_the_form_of_the_log_and_wishes_that_cannot_be_are_refused() {
    let dir = folder();
    let failed = command(dir.path(), &["--log-format", "json", "serve", "nope.csv"]).output().unwrap();
    let line: Value = serde_json::from_slice(&failed.stderr).unwrap();
    assert!(line["level"] == "ERROR" && line["message"].as_str().unwrap().contains("nope.csv"), "{line}");
    assert_eq!(failed.status.code(), Some(78));
    let wrong = command(dir.path(), &["check", "--log", "diorama=loud"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("--log: \"diorama=loud\" is not a valid log filter"));
    let wrong = command(dir.path(), &["check"]).env("DIORAMA_LOG_FORMAT", "xml").output().unwrap();
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("DIORAMA_LOG_FORMAT must be text or json"));
}
