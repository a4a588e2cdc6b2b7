//! The worked cases of the mapping language, and everything that does not load.

use http::{HeaderMap, Method};
use serde_json::Value;

use super::*;
use crate::body::Documents;
use crate::form::Forms;

const EXAMPLES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/mapping-examples.toml"));
const CASES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/mapping-cases.json"));

fn cbor(value: &Value) -> CborValue {
    diorama_core::record::parse_json(value.to_string().as_bytes(), Default::default()).unwrap()
}

fn run_with(
    map: &Map,
    headers: &[(&str, &str)],
    query: Option<&str>,
    body: &str,
) -> Result<DecodedDelivery, DecodeError> {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| (name.parse::<http::header::HeaderName>().unwrap(), value.parse().unwrap()))
        .collect();
    let now = Timestamp::UNIX_EPOCH;
    let body = body.as_bytes();
    let request = Request { method: &Method::POST, path: "/", query, headers: &headers, body, now };
    map.decode(Documents::read(body, "application/json", Forms::Refused)?, &request, "id")
}

fn run(map: &str, body: &str) -> DecodedDelivery {
    run_with(&load(map), &[], None, body).unwrap()
}

fn load(map: &str) -> Map {
    Map::read(map, &[], None).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn problems(map: &str) -> Vec<String> {
    Map::read(map, &[], None).unwrap_err().into_iter().map(|problem| problem.message).collect()
}

/// What a case expects of one change, as the change.
fn expected(case: &Value) -> Change {
    let row = |event: &Value| {
        let new = event.get("new").filter(|new| !new.is_null())?;
        Some(crate::native::record(cbor(new).as_map().unwrap()))
    };
    let id = |event: &Value| event["id"].as_str().unwrap().to_string();
    let event = match case {
        case if case["Inserted"].is_object() => {
            ChangeEvent::Inserted { id: id(&case["Inserted"]), new: row(&case["Inserted"]) }
        }
        case if case["Updated"].is_object() => {
            ChangeEvent::Updated { id: id(&case["Updated"]), new: row(&case["Updated"]) }
        }
        case if case["Deleted"].is_object() => ChangeEvent::Deleted { id: id(&case["Deleted"]) },
        _ => ChangeEvent::Invalidated,
    };
    let version = case.get("version").map(cbor);
    Change { event, version, partial: case["partial"] == true, delivery: None, coercion: Coercion::Loose }
}

#[test]
fn every_case_gives_what_it_says() {
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    assert!(cases.len() >= 24);
    for case in &cases {
        let hook = case["hook"].as_str().unwrap();
        let map = Map::read(EXAMPLES, &["webhook", hook, "map"], None).unwrap();
        let headers: Vec<(&str, &str)> = case["headers"]
            .as_object()
            .map(|headers| headers.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect())
            .unwrap_or_default();
        let decoded = run_with(&map, &headers, None, &case["body"].to_string()).unwrap();
        let Some(wanted) = case.get("expect") else {
            assert!(decoded.changes.iter().all(Result::is_err) && !decoded.changes.is_empty(), "{case}");
            continue;
        };
        let changes: Vec<Change> = decoded.changes.into_iter().map(Result::unwrap).collect();
        let expected: Vec<Change> = wanted[0].as_array().unwrap().iter().map(expected).collect();
        assert_eq!(changes, expected, "{case}");
        assert_eq!(decoded.ignored as u64, wanted[1].as_u64().unwrap(), "{case}");
    }
}

#[test]
fn selectors_find_what_they_name() {
    let body = r#"{"a":{"b c":[1,{"x/y":"z~"}],"0":"zero"},"t":"{\"n\":7}","f":3.0,"big":9007199254740993,"k":"A.B.C","no":null}"#;
    let found = |selector: &str| {
        let map = format!(
            "op = \"upsert\"\nid = \"const:1\"\nrow = {{ sel = \"/a\", pick = [], set = {{ v = {selector:?} }} }}"
        );
        let headers = [("X-One", "One")];
        let decoded = run_with(&load(&map), &headers, Some("a=b&q=c+d%21"), body).unwrap();
        match decoded.changes[0].clone().unwrap().event {
            ChangeEvent::Updated { new: Some(row), .. } => row.get("v").cloned(),
            other => panic!("{other:?}"),
        }
    };
    for (selector, expected) in [
        ("/a/b c/0", Some(1.into())),
        ("/a/b c/1/x~1y", Some("z~".into())),
        ("/a/b c/01", None),
        ("/a/b c/-1", None),
        ("/a/0", Some("zero".into())),
        ("$.a['b c'][0]", Some(1.into())),
        ("$.a[\"b c\"][-2]", Some(1.into())),
        ("$.a['b c'][-3]", None),
        ("$['a']['0']", Some("zero".into())),
        ("root:/f", Some(3.0.into())),
        ("/f|int", Some(3.into())),
        ("/f|str", Some("3".into())),
        ("/f|int|str", Some("3".into())),
        ("/t|json", Some(CborValue::Map(vec![("n".into(), 7.into())]))),
        ("/big", Some(9_007_199_254_740_993_i64.into())),
        ("/big|str", Some("9007199254740993".into())),
        ("/k|after:.", Some("C".into())),
        ("/k|before:.", Some("A".into())),
        ("/k|after:-", Some("A.B.C".into())),
        ("/k|lower", Some("a.b.c".into())),
        ("/a|type", Some("object".into())),
        ("/no|type", Some("null".into())),
        ("/no", None),
        ("/a/b c|type", Some("array".into())),
        ("header:x-one", Some("One".into())),
        ("header:x-two", None),
        ("query:q", Some("c d!".into())),
        ("const:a:b", Some("a:b".into())),
    ] {
        assert_eq!(found(selector), expected, "{selector}");
    }
}

#[test]
fn rows_are_made_in_the_order_of_the_words() {
    let map = r#"
        op = "upsert"
        id = "/id"
        row = { sel = "", pick = ["a*", "b"], drop = ["ab"], rename = { b = "c" }, set = { d = "/x/y", aa = "/gone" }, unset_marker = "?" }
    "#;
    let decoded = run(map, r#"{"id":1,"aa":1,"ab":2,"ac":"?","b":3,"x":{"y":4}}"#);
    let change = decoded.changes[0].clone().unwrap();
    let row = Record::from_iter([("c".to_string(), 3.into()), ("d".to_string(), 4.into())]);
    assert_eq!(change.event, ChangeEvent::Updated { id: "1".into(), new: Some(row) });
    assert!(change.partial, "what is unset is kept");
}

#[test]
fn versions_that_cannot_be_compared_guard_nothing() {
    let version = |value: &str| {
        let body = format!(r#"{{"id":1,"v":{value}}}"#);
        run("op = \"upsert\"\nid = \"/id\"\nversion = \"/v\"", &body).changes[0].clone().unwrap().version
    };
    assert_eq!(version("7"), Some(7.into()));
    assert_eq!(version("\"2025-06-01T12:00:00+02:00\""), Some("2025-06-01T12:00:00+02:00".into()));
    for none in ["\"Kx3\"", "true", "null", "[1]"] {
        assert_eq!(version(none), None, "{none}");
    }
}

#[test]
fn items_have_their_names_and_numbers_and_those_of_no_concern_are_counted() {
    let map = "each = \"/t/*/rows/*\"\nwhen = [{ sel = \"/n\", ne = 2 }]\nop = \"delete\"\nid = { template = \"{key}-{/n}\" }";
    let decoded = run(map, r#"{"t":{"a":{"rows":[{"n":1},{"n":2}]},"b":{"rows":{"x":{"n":3}}},"c":{}}}"#);
    let ids: Vec<_> =
        decoded.changes.iter().map(|change| change.clone().unwrap().event.id().unwrap().to_string()).collect();
    assert_eq!((ids, decoded.ignored), (vec!["0-1".to_string(), "x-3".to_string()], 1));
}

#[test]
fn one_item_that_is_not_understood_does_not_stand_in_the_way_of_others() {
    let map = "each = \"/*\"\nop = { sel = \"/o\", cases = { \"d*\" = \"ignore\", \"de*\" = \"delete\", i = \"insert\" } }\nid = \"/i\"";
    let decoded = run(map, r#"[{"o":"del","i":1},{"o":"u","i":2},{"o":"del"},{"o":"dx"},{"i":3}]"#);
    assert!(decoded.changes[0].is_ok());
    let numbers: Vec<_> = decoded.changes.iter().filter_map(|change| Some(change.as_ref().err()?.number)).collect();
    assert_eq!((numbers, decoded.ignored), (vec![2, 3, 5], 1));
}

#[test]
fn an_empty_body_is_a_tombstone_and_no_change() {
    for body in ["", " \n", "null"] {
        let decoded = run("op = \"delete\"\nid = \"/id\"", body);
        assert_eq!((decoded.changes.len(), decoded.ignored), (0, 1), "{body:?}");
    }
}

#[test]
fn a_small_body_cannot_be_made_into_a_huge_one() {
    let keys = vec!["1"; 9_000].join(",");
    let body = format!(r#"{{"keys":[{keys}],"payload":{{"t":"{}"}}}}"#, "x".repeat(500_000));
    let map = load("each = \"/keys/*\"\nop = \"update\"\nid = \"\"\nrow = \"root:/payload\"");
    assert!(matches!(run_with(&map, &[], None, &body), Err(DecodeError::Syntax(_))));
    let many = format!("[{}]", vec!["1"; MOST_CHANGES + 1].join(","));
    let map = load("each = \"/*\"\nop = \"delete\"\nid = \"\"");
    assert_eq!(run_with(&map, &[], None, &many), Err(DecodeError::TooMany));
    assert_eq!(
        run_with(&map, &[], None, &"[".repeat(100_000)).map_err(|error| matches!(error, DecodeError::Syntax(_))),
        Err(true)
    );
}

#[test]
fn mistakes_are_found_when_the_mapping_is_read() {
    for (map, message) in [
        ("", "a map needs op"),
        ("op = \"upsert\"", "needs id"),
        ("op = \"frob\"", "an action is one of"),
        ("op = { sel = \"/a\" }", "op needs sel and cases"),
        ("op = { cases = { a = \"insert\" } }", "op needs sel and cases"),
        ("op = { sel = \"/a\", cases = { a = \"isnert\" } }\nid = \"/a\"", "an action is one of"),
        ("op = \"upsert\"\nid = \"a/b\"", "is no selector"),
        ("op = \"upsert\"\nid = \"/a~2\"", "~ is written ~0"),
        ("op = \"upsert\"\nid = \"$.a[*]\"", "no JSONPath"),
        ("op = \"upsert\"\nid = \"$..a\"", "no JSONPath"),
        ("op = \"upsert\"\nid = \"/a|upper\"", "there is no filter"),
        ("op = \"upsert\"\nid = \"header:a b\"", "no name of a header"),
        ("op = \"upsert\"\nid = { template = \"x\" }", "no {selector}"),
        ("op = \"upsert\"\nid = { tmplate = \"x\" }", "has no key"),
        ("op = \"upsert\"\nid = []", "this is a selector"),
        ("op = \"upsert\"\nid = \"/a\"\nrow = { pick = [\"a\"] }", "row needs sel"),
        ("op = \"upsert\"\nid = \"/a\"\nrow = { sel = \"\", pik = [\"a\"] }", "has no key \"pik\""),
        ("op = \"upsert\"\nid = \"/a\"\nrow_mode = \"merge\"", "row_mode is one of"),
        ("op = \"upsert\"\nid = \"/a\"\nwhen = [{ sel = \"/a\" }]", "a test has sel and one of"),
        ("op = \"upsert\"\nid = \"/a\"\nwhen = [{ sel = \"/a\", eq = 1, ne = 2 }]", "a test has sel and one of"),
        ("op = \"upsert\"\nid = \"/a\"\nwehn = []", "map has no key \"wehn\""),
        ("[[rule]]\nop = \"upsert\"", "needs id"),
        ("op = \"invalidate\"\n[[rule]]\nop = \"invalidate\"", "map has no key \"op\""),
    ] {
        let found = problems(map);
        assert!(found.iter().any(|problem| problem.contains(message)), "{map}\n{message}\n{found:#?}");
    }
    let long = format!("op = \"upsert\"\nid = \"/{}\"", "a".repeat(256));
    assert!(problems(&long)[0].contains("at most 256"));
    let text = "op = \"upsert\"\nid = \"oops\"";
    assert_eq!(Map::read(text, &[], None).unwrap_err()[0].at, text.find("\"oops").unwrap());
}

#[test]
fn globs_fit_from_end_to_end() {
    for (pattern, text, wanted) in [
        ("a.*", "a.b", true),
        ("a.*", "b.a.b", false),
        ("*.a", "x.a", true),
        ("*", "", true),
        ("a*b*c", "aXbYc", true),
        ("a*b*c", "acb", false),
        ("ab*ba", "aba", false),
        ("", "a", false),
    ] {
        assert_eq!(fits(pattern, text), wanted, "{pattern} {text}");
    }
}
