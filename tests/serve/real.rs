//! Published files as they are, served without configuration and with a little: what stumbled over them stays mended.

use serde_json::{Value, json};

use crate::events::{connect, frame};
use crate::process::{Answer, Server};

/// Name, rows.
const FILES: [(&str, usize); 6] = [
    ("airports.csv", 35),
    ("cars.json", 33),
    ("earthquakes.json", 24),
    ("flights.csv", 42),
    ("movies.json", 30),
    ("penguins.json", 36),
];

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/real");
    for (name, _) in FILES {
        std::fs::copy(from.join(name), dir.path().join(name)).unwrap();
    }
    dir
}

fn serve(dir: &tempfile::TempDir) -> Server {
    Server::start(dir.path(), &[&FILES.map(|(name, _)| name)[..], &["--cache", "memory"]].concat())
}

fn list(server: &Server, path: &str) -> Vec<Value> {
    let answer = server.get(path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json().as_array().unwrap().clone()
}

fn next(answer: &Answer) -> Option<String> {
    let links = answer.raw_header("link")?;
    let url = links.split(", ").find_map(|link| link.strip_suffix(">; rel=\"next\""))?;
    Some(url.trim_start_matches('<').to_string())
}

#[test]
fn every_row_is_there_in_its_order_by_offset_and_by_cursor() {
    let dir = folder();
    let server = serve(&dir);
    for (file, rows) in FILES {
        let name = file.split('.').next().unwrap();
        let all = list(&server, &format!("/{name}"));
        assert_eq!(all.len(), rows, "{file}");
        let pages = (0..rows).step_by(7).flat_map(|at| list(&server, &format!("/{name}?limit=7&offset={at}")));
        assert_eq!(pages.collect::<Vec<_>>(), all, "{file} by offset");
        let (mut walked, mut path) = (Vec::new(), Some(format!("/{name}?limit=7&after=")));
        while let Some(at) = path {
            let page = server.get(&at);
            walked.extend(page.json().as_array().unwrap().clone());
            path = next(&page);
        }
        assert_eq!(walked, all, "{file} by cursor");
    }
}

#[test]
fn a_number_stays_a_number_and_what_is_missing_is_null() {
    let dir = folder();
    let server = serve(&dir);
    let airport = server.get("/airports/SFO").json();
    assert_eq!((&airport["latitude"], &airport["state"]), (&json!(37.61900194), &json!("CA")));
    assert_eq!(server.get("/airports/DBN").json()["name"], "W. H. \"Bud\" Barron");
    // NA in a column of numbers, and a flight number that stays one.
    let late = list(&server, "/flights?air_time=is.null");
    assert_eq!(late.len(), 10);
    assert!(late.iter().all(|row| row["arr_delay"].is_null() && row["flight"].is_i64()), "{late:?}");
    // Rows without an id are numbered.
    assert_eq!(server.get("/flights/1").json()["time_hour"], "2013-01-01T10:00:00Z");
    // Titles of films are texts, and sometimes numbers: each stays what it is.
    let numbers: Vec<Value> = list(&server, "/movies").into_iter().filter(|row| row["Title"].is_i64()).collect();
    assert_eq!(numbers.len(), 4);
    let title = &numbers[0]["Title"];
    assert_eq!(list(&server, &format!("/movies?Title=eq.{title}")).len(), 1, "{title}");
    assert_eq!(list(&server, "/movies?Title=is.null").len(), 1);
    assert_eq!(list(&server, "/cars?Horsepower=is.null").len(), 4);
}

#[test]
fn columns_with_spaces_and_signs_are_filtered_sorted_and_selected() {
    let dir = folder();
    let server = serve(&dir);
    let heavy = list(&server, "/penguins?Body%20Mass%20(g)=gte.4500&order=%22Body%20Mass%20(g)%22.desc");
    let masses: Vec<i64> = heavy.iter().map(|row| row["Body Mass (g)"].as_i64().unwrap()).collect();
    assert!(!masses.is_empty() && masses.is_sorted_by(|a, b| a >= b) && masses.iter().all(|mass| *mass >= 4500));
    let plus = list(&server, "/penguins?Body+Mass+(g)=gte.4500");
    assert_eq!(plus.len(), heavy.len());
    let either =
        "/movies?or=(%22IMDB%20Rating%22.gte.8,%22US%20Gross%22.is.null)&select=Title,%22US%20Gross%22,IMDB%20Rating";
    for row in list(&server, either) {
        assert_eq!(row.as_object().unwrap().len(), 3, "{row}");
        assert!(row["US Gross"].is_null() || row["IMDB Rating"].as_f64().unwrap() >= 8.0, "{row}");
    }
    let typo = server.get("/movies?IMDB%20Ratting=gt.8").json();
    assert_eq!(typo["hint"], "did you mean \"IMDB Rating\"?");
    // The rows of a feature collection, by what is nested in them.
    assert_eq!(list(&server, "/earthquakes?q=castaic")[0]["id"], "ci37868143");
}

#[tokio::test(flavor = "multi_thread")]
async fn six_lines_of_configuration_bring_writes_and_webhooks() {
    let dir = folder();
    let shop = rusqlite::Connection::open(dir.path().join("own.db")).unwrap();
    shop.execute_batch("CREATE TABLE airports (iata TEXT PRIMARY KEY, name TEXT, city TEXT, state TEXT, country TEXT, latitude REAL, longitude REAL)").unwrap();
    let text = "[dio.airports]\nsource = { csv = \"airports.csv\" }\nid = \"iata\"\n\
        write = { sqlite = \"own.db\", table = \"airports\" }\n\
        [webhook.airports]\nauth = { scheme = \"bearer\", secrets = [\"env:TOKEN\"] }\n";
    std::fs::write(dir.path().join("diorama.toml"), text).unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut socket = connect(&server, "/airports/events").await;
    assert_eq!(frame(&mut socket).await["type"], "hello");
    let headers = [("content-type", "application/json"), ("prefer", "wait=10")];
    let write = |method: &str, path: &str, body: &str| {
        let answer = server.request(method, path, &headers, body);
        assert!([200, 201].contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.body);
    };
    write(
        "POST",
        "/airports/XX1",
        r#"{"name":"Home","city":"Here","state":null,"country":"USA","latitude":1.5,"longitude":2}"#,
    );
    write("PATCH", "/airports/XX1", r#"{"name":"Home Field"}"#);
    assert_eq!(server.get("/airports/XX1").json()["name"], "Home Field");
    let stored: f64 = shop.query_row("SELECT latitude FROM airports WHERE iata = 'XX1'", [], |row| row.get(0)).unwrap();
    assert_eq!(stored, 1.5);
    write("DELETE", "/airports/XX1", "");
    assert_eq!(server.get("/airports/XX1").status, 404);
    let path = dir.path().join("airports.csv");
    let listed = std::fs::read_to_string(&path).unwrap().replace("San Francisco International", "San Francisco");
    std::fs::write(&path, listed).unwrap();
    let token = format!("Bearer {}", crate::process::TOKEN);
    let body = r#"{"op":"update","id":"SFO","partial":true,"new":{"name":"San Francisco"}}"#;
    let headers = [("content-type", "application/json"), ("authorization", token.as_str())];
    let told = server.request("POST", "/webhooks/airports", &headers, body);
    assert_eq!(told.json()["applied"], 1, "{}", told.body);
    let mut kinds = Vec::new();
    loop {
        let event = frame(&mut socket).await;
        kinds.push(event["type"].as_str().unwrap().to_string());
        if event["origin"] == "webhook" {
            assert_eq!((&event["id"], &event["changed"]), (&json!("SFO"), &json!(["name"])));
            break;
        }
    }
    for kind in ["RecordInserted", "RecordChanged", "RecordRemoved", "WriteCommitted"] {
        assert!(kinds.iter().any(|own| own == kind), "{kind} is not in {kinds:?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    for (name, content, said) in [
        (
            "mixed.csv",
            &b"id,name\n1,\xc3\xa9\n2,\xff\n3,\xfc\xc3\xbc\n"[..],
            "iconv -f WINDOWS-1252 -t UTF-8 mixed.csv > utf8.csv",
        ),
        ("prose.txt", b"note\nhello, world\nbye, now\n", "the first line must name the columns"),
        ("rows.json", b"[[1,2],[3,4]]", "[0] is not an object"),
        ("notes.xls", b"id\n1\n", ".csv, .tsv, .tab, .txt, .json, .geojson, .ndjson, .jsonl, .parquet, .xlsx"),
    ] {
        std::fs::write(dir.path().join(name), content).unwrap();
        let output = crate::process::run(dir.path(), &["serve", name, "--listen", "127.0.0.1:0", "--cache", "memory"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{name}: {error}");
        assert!(error.contains(said), "{name}: {error}");
    }
}
