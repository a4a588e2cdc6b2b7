//! Files as people have them, served without a word of configuration; what was found out is said, and keys settle it.

use std::fs::File;
use std::path::Path;

use serde_json::{Value, json};

use crate::process::{Server, serving};

/// Writes files that nobody waits for: they end with a line end or frame themselves.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

/// A server whose log is in the file `log`.
fn logged(dir: &Path, arguments: &[&str]) -> Server {
    let mut command = serving(dir, arguments);
    command.stderr(File::create(dir.join("log")).unwrap());
    let mut server = Server::spawn(&mut command);
    server.wait_for("ready");
    server
}

fn inferred(server: &Server, name: &str, what: &str) -> Value {
    let schema = server.get(&format!("/{name}/_schema")).json();
    let guesses = schema["inferred"].as_array().cloned().unwrap_or_default();
    guesses.into_iter().find(|guess| guess["what"] == what).unwrap_or_default()
}

#[test]
fn what_was_found_out_is_said_once_and_in_the_schema() {
    let dir = folder(&[(
        "buns.csv",
        b"# of 2024\nName;Preis (EUR, netto);Kcal\nMuffin;1,75;310\nBun;2,10;?\nScone;1.250,00;99\n",
    )]);
    let server = logged(dir.path(), &["buns.csv", "--cache", "memory"]);
    assert_eq!(server.get("/buns/Muffin").json()["Preis (EUR, netto)"], 1.75);
    assert_eq!(server.get("/buns?Preis%20(EUR,%20netto)=gt.1000&select=Name").json(), json!([{ "Name": "Scone" }]));
    for (what, value, key, doubtful) in [
        ("separator", "';'", "separator in source", false),
        ("header", "line 2", "header in source", false),
        (
            "numbers of \"Preis (EUR, netto)\"",
            "a comma is the decimal mark, a point groups digits",
            "decimal in source",
            false,
        ),
        ("type of \"Kcal\"", "string", "null = [\"?\"] in source, or columns.\"Kcal\".type", true),
        ("id", "Name", "id", true),
    ] {
        let guess = inferred(&server, "buns", what);
        assert_eq!((&guess["value"], &guess["key"]), (&json!(value), &json!(key)), "{what}: {guess}");
        assert!(guess["doubtful"] == doubtful && !guess["because"].as_str().unwrap().is_empty(), "{guess}");
    }
    assert_eq!(server.post("/buns/_refresh", "").status, 200);
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("inferred from the source")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("\"?\" in line 4 is not a number: 1 of 3 cells are not"), "{log}");
}

#[test]
fn keys_settle_what_was_found_out() {
    let dir = folder(&[
        ("buns.csv", b"Report\nid;x;y\n1;1.250;?\n2;300;3\n"),
        ("shop.json", b"{\"a\":[{\"id\":1}],\"b\":[{\"id\":2}]}"),
    ]);
    let config = "[dio.buns]\nid = \"id\"\nsource = { csv = \"buns.csv\", separator = \";\", header = 2, decimal = \",\", \
        encoding = \"utf-8\", null = [\"?\"] }\n[dio.shop]\nid = \"id\"\nsource = { json = \"shop.json\", path = \"/b\" }\n";
    std::fs::write(dir.path().join("diorama.toml"), config).unwrap();
    let server = Server::start(dir.path(), &["--cache", "memory"]);
    assert_eq!(server.get("/buns/1").json(), json!({ "id": 1, "x": 1250, "y": null }));
    assert_eq!(server.get("/shop").json(), json!([{ "id": 2 }]));
    assert_eq!(server.get("/shop/_schema").json()["inferred"], Value::Null, "nothing is left to be found out");
}

#[test]
fn each_array_of_a_json_server_file_is_a_resource() {
    let db = br#"{"posts":[{"id":1,"title":"a"},{"id":2,"title":"b"}],"comments":[{"id":1,"postId":1}],"events":[],"profile":{"name":"x"}}"#;
    let dir = folder(&[("db.json", db), ("comments.csv", b"id,text\n7,x\n")]);
    let server = Server::start(dir.path(), &["db.json", "comments.csv", "--cache", "memory"]);
    assert_eq!(server.get("/posts/2").json()["title"], "b");
    assert_eq!(server.get("/db_comments/1").json()["postId"], 1, "another file has that name");
    assert_eq!(server.get("/comments/7").json()["text"], "x");
    assert_eq!(server.get("/db_events").json(), json!([]), "the server's own route has that name");
    let printed = server.printed.join("\n");
    assert!(printed.contains("/posts, /db_comments, /db_events"), "{printed}");
}

#[test]
fn packed_files_texts_and_objects_by_name_are_served() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, b"id,name\n1,a\n").unwrap();
    let dir = folder(&[
        ("goods.csv.gz", &packed.finish().unwrap()),
        ("notes.txt", b"id\ttext\n1\ta, b\n"),
        ("lands.json", br#"{"AT":{"name":"Austria"},"DE":{"name":"Germany"}}"#),
        ("latin.csv", b"id,name\n1,Cr\xe8me\n"),
    ]);
    let server =
        Server::start(dir.path(), &["goods.csv.gz", "notes.txt", "lands.json", "latin.csv", "--cache", "memory"]);
    assert_eq!(server.get("/goods/1").json()["name"], "a");
    assert_eq!(server.get("/notes/1").json()["text"], "a, b");
    assert_eq!(server.get("/lands/AT").json()["name"], "Austria");
    assert_eq!(server.get("/latin/1").json()["name"], "Crème");
}
