mod shapes;

use tempfile::TempDir;

use super::*;

struct Fixture {
    dir: TempDir,
}

impl Fixture {
    fn new(content: &str) -> Fixture {
        let fixture = Fixture { dir: tempfile::tempdir().unwrap() };
        std::fs::write(fixture.path(), content).unwrap();
        fixture
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("products.json")
    }

    async fn open(&self, options: JsonOptions) -> Result<Vista> {
        // These tests write the file immediately before reading it.
        Json::open("products", self.path(), JsonOptions { settle: Some(Duration::ZERO), ..options }).await
    }

    fn text(&self, error: &Error) -> String {
        error.to_string().replace(&format!("{}/", self.dir.path().display()), "")
    }
}

async fn listed(vista: &Vista) -> String {
    let rows = vista.list_values().await.unwrap();
    let rows = rows.bodies().map(|(_, body)| String::from_utf8(body.json().to_vec()).unwrap());
    rows.collect::<Vec<_>>().join("|")
}

#[tokio::test]
async fn every_shape_of_file_gives_its_rows() {
    let two = r#"{"id":1,"a":"x"}|{"id":2,"a":null}"#;
    for (content, expected) in [
        (r#"[{"id":1,"a":"x"},{"a":null,"id":2}]"#, two),
        ("\u{feff} [ {\"id\":1,\"a\":\"x\"} , {\"id\":2,\"a\":null} ] \n", two),
        ("{\"id\":1,\"a\":\"x\"}\n{\"id\":2,\"a\":null}\n", two),
        ("{\"id\":1,\"a\":\"x\"}\r\n\r\n{\"id\":2,\"a\":null}", two),
        (r#"{"count":2,"tags":["x"],"rows":[{"id":1,"a":"x"},{"id":2,"a":null}]}"#, two),
        (r#"[{"a":"x"},{"a":"x","b":[1,{"c":2}]}]"#, r#"{"id":1,"a":"x"}|{"id":2,"a":"x","b":[1,{"c":2}]}"#),
        (r#"[{"a":1,"sku":"x"},{"a":1,"sku":"y"}]"#, r#"{"a":1,"sku":"x"}|{"a":1,"sku":"y"}"#),
        ("[]", ""),
    ] {
        let vista = Fixture::new(content).dir;
        let path = vista.path().join("products.json");
        let vista = (
            Json::open("products", path, JsonOptions { settle: Some(Duration::ZERO), ..JsonOptions::default() })
                .await
                .unwrap(),
            vista,
        );
        assert_eq!(listed(&vista.0).await, expected, "{content}");
    }
}

#[tokio::test]
async fn the_contract_suite_passes() {
    let rows = crate::contract::rows().into_iter().map(|(_, row)| {
        let members = row.iter().map(|(column, value)| (column.as_str().into(), value.clone())).collect();
        String::from_utf8(diorama_core::record::value_to_json(&CborValue::Map(members))).unwrap()
    });
    let fixture = Fixture::new(&format!("[{}]", rows.collect::<Vec<_>>().join(",")));
    let vista = fixture.open(JsonOptions::default()).await.unwrap();
    crate::contract::reads(&vista, crate::contract::Natural::Stored).await;
    crate::contract::refuses_writes(&vista).await;
}

#[tokio::test]
async fn a_pointer_finds_rows_anywhere() {
    let fixture = Fixture::new(r#"{"type":"x","d~/":{"features":[{"id":"7"}]},"other":[{"id":"8"}]}"#);
    let options = JsonOptions { path: Some("/d~0~1/features".into()), ..JsonOptions::default() };
    assert_eq!(listed(&fixture.open(options).await.unwrap()).await, r#"{"id":"7"}"#);
    let options = JsonOptions { path: Some("/nowhere".into()), ..JsonOptions::default() };
    let error = fixture.open(options).await.unwrap_err();
    assert_eq!(fixture.text(&error), "products.json has no array at \"/nowhere\"");
}

#[tokio::test]
async fn types_are_inferred_over_all_rows_in_first_seen_order() {
    let fixture = Fixture::new(
        r#"[{"id":"a","n":1,"day":"2024-01-02","mix":1},{"id":"b","n":2.5,"tags":[],"mix":"x","on":true,"none":null}]"#,
    );
    let schema = fixture.open(JsonOptions::default()).await.unwrap().schema();
    let types: Vec<_> = schema.columns().iter().map(|column| (&*column.name, column.ty)).collect();
    use ColumnType as T;
    let expected = [
        ("id", T::String),
        ("n", T::Number),
        ("day", T::Date),
        ("mix", T::Json),
        ("tags", T::Json),
        ("on", T::Boolean),
        ("none", T::Json),
    ];
    assert_eq!(types, expected);
}

#[tokio::test]
async fn an_undecodable_row_is_left_out_and_counted_and_an_invalid_file_is_refused() {
    for (content, ids, first) in [
        (r#"[{"id":1},7,{"id":3},{"id":4}]"#, "134", "[1] is not an object"),
        (r#"[{"id":1},{"id":2,"id":2},{"id":3},{"id":4}]"#, "134", "[1] has member \"id\" twice"),
        (r#"[{"id":1},{"a":2},{"id":3},{"id":4}]"#, "134", "[1] has no id"),
        ("{\"id\":1}\n{\"id\":2,}\n{\"id\":3}\n{\"id\":4}", "134", "line 2 column 9"),
        ("{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n{\"id\":\n", "123", "line 4 column 6"),
        (r#"{"rows":[{"id":1},{"id":2},{"id":null}]}"#, "12", "[2] has no id"),
    ] {
        let fixture = Fixture::new(content);
        let rows = fixture.open(JsonOptions::default()).await.unwrap().list_values().await.unwrap();
        assert_eq!(rows.ids().collect::<String>(), ids, "{content}");
        let bad = rows.undecodable().unwrap();
        assert!(bad.count == 1 && bad.first.contains(first), "{bad:?}");
    }
    let numbered = Fixture::new(r#"[{"a":1},{"a":1},7,{"a":1}]"#).dir;
    let vista = Json::open("products", numbered.path().join("products.json"), JsonOptions::default()).await.unwrap();
    assert_eq!(vista.list_values().await.unwrap().ids().collect::<String>(), "124");
    for cut in [
        "{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n{\"id\":",
        "[{\"id\":1},{\"id\":2},{\"id\":3}",
        "[{\"id\":1},{\"id\":2},{}]x",
    ] {
        let fixture = Fixture::new(cut);
        fixture.open(JsonOptions::default()).await.unwrap_err();
    }
}

#[tokio::test]
async fn faults_are_reported_with_their_position() {
    for (content, expected) in [
        ("", "products.json is empty: {EXPECTED}"),
        ("7", "products.json holds no rows: {EXPECTED}"),
        ("{}", "products.json holds no rows: {EXPECTED}"),
        (
            r#"{"a":[{}],"b":[{}]}"#,
            "products.json has several arrays of objects: set path in source to one of \"/a\", \"/b\"",
        ),
        ("[{\"id\":1},\n{\"id\":}]", "products.json is not valid JSON: expected value at line 2 column 7"),
        ("[{\"id\":1}] x", "products.json is not valid JSON: trailing characters at line 1 column 12"),
        ("[{\"id\":1},7]", "products.json [1] is not an object"),
        ("{\"id\":1}\n{\"id\":2,}\n", "products.json line 2 column 9: trailing comma"),
        (r#"[{"id":1,"id":2}]"#, "products.json [0] has member \"id\" twice"),
        (r#"[{"id":1},{"id":2},{"id":1}]"#, "products.json [2] has id \"1\", which [0] already has. {ANOTHER_ID}"),
        ("{\"id\":1}\n\n{\"id\":1}", "products.json line 3 has id \"1\", which line 1 already has. {ANOTHER_ID}"),
        (r#"[{"id":1},{"a":2}]"#, "products.json [1] has no id: \"id\" is missing. {ANOTHER_ID}"),
        (r#"[{"id":1},{"id":""}]"#, "products.json [1] has no id: \"id\" is empty. {ANOTHER_ID}"),
    ] {
        let fixture = Fixture::new(content);
        let options = JsonOptions { id: content.contains("id").then(|| "id".into()), ..JsonOptions::default() };
        let error = match fixture.open(options).await {
            Ok(vista) => vista.list_values().await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(
            fixture.text(&error),
            expected.replace("{ANOTHER_ID}", ANOTHER_ID).replace("{EXPECTED}", super::super::rows::EXPECTED),
            "{content}"
        );
    }
    let fixture = Fixture::new(&format!("[{{\"id\":1,\"deep\":{}{}}}]", "[".repeat(100), "]".repeat(100)));
    let error = fixture.open(JsonOptions::default()).await.unwrap_err();
    assert_eq!(fixture.text(&error), "products.json [0] is nested more than 64 deep in \"deep\"");
    let fixture = Fixture::new(r#"[{"id":1},{"id":"x"},{"id":2}]"#);
    std::fs::write(fixture.path(), r#"[{"id":1}]"#).unwrap();
    let vista = fixture.open(JsonOptions::default()).await.unwrap();
    std::fs::write(fixture.path(), r#"[{"id":1.5}]"#).unwrap();
    let error = vista.list_values().await.unwrap_err();
    assert_eq!(fixture.text(&error), "products.json [0] has no id: \"id\" is neither text nor an integer");
}
