//! `diorama check`: every mistake at once, and what `serve` would stumble over.

use crate::process::{folder, run};

#[test]
fn check_opens_what_serve_would_open_and_tells_every_mistake() {
    let dir = folder();
    std::fs::write(dir.path().join("a.csv"), "Name,n\nx,1\n").unwrap();
    std::fs::write(dir.path().join("broken.json"), "{\"a\":\n").unwrap();
    let config = "
[lens]
cache = \"nowhere/cache.redb\"
[dio.names]
source = { csv = \"a.csv\" }
id = \"Nam\"
[dio.routed]
source = { csv = \"a.csv\" }
id = \"Name\"
write = { sqlite = \"shop.db\", table = \"nothing\" }
[dio.orders]
source = { sqlite = \"shop.db\", table = \"orders\" }
version = \"changed\"
[dio.broken]
source = { json = \"broken.json\" }
[dio.fed]
source = { csv = \"a.csv\" }
id = \"Name\"
feed = { ws = \"ws://localhost:1/\", headers = { \"bad header\" = \"x\" } }
[dio.missing]
source = { csv = \"b.csv\" }
[dio.fine]
source = { csv = \"a.csv\" }
id = \"Name\"
columns.when = { type = \"datetime\" }
";
    std::fs::write(dir.path().join("diorama.toml"), config).unwrap();
    let checked = run(dir.path(), &["check"]);
    assert_eq!(checked.status.code(), Some(78));
    let told = String::from_utf8(checked.stderr).unwrap();
    for (resource, what) in [
        ("names", "no column \"Nam\""),
        ("routed", "no table \"nothing\""),
        ("orders", "\"changed\""),
        ("broken", "broken.json"),
        ("fed", "bad header"),
        ("missing", "there is no file"),
        ("fine", "no column \"when\""),
    ] {
        let own: Vec<&str> = told.lines().filter(|line| line.contains(&format!("[dio.{resource}"))).collect();
        assert!(own.len() == 1 && own[0].contains(what), "{resource}: {told}");
    }
    assert!(told.contains("[lens] cache: there is no folder"), "{told}");
    assert!(!dir.path().join("nowhere").exists() && !dir.path().join("cache.redb").exists(), "nothing is made");

    let offline = String::from_utf8(run(dir.path(), &["check", "--offline"]).stderr).unwrap();
    assert!(offline.contains("there is no file") && !offline.contains("Nam"), "{offline}");
}
