//! Tests of the shapes in which JSON data are published.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;
use crate::json::arrays;

async fn served(content: &str) -> String {
    let fixture = Fixture::new(content);
    listed(&fixture.open(JsonOptions::default()).await.unwrap()).await
}

#[tokio::test]
async fn objects_by_name_are_rows_that_their_names_identify() {
    for (content, expected) in [
        (
            r#"{"AT":{"name":"Austria"},"DE":{"name":"Germany"}}"#,
            r#"{"id":"AT","name":"Austria"}|{"id":"DE","name":"Germany"}"#,
        ),
        (r#"{"7":{"id":7,"a":"x"},"8":{"id":8,"a":"x"}}"#, r#"{"id":7,"a":"x"}|{"id":8,"a":"x"}"#),
        (r#"{"AT":{"id":1},"DE":{"id":1}}"#, r#"{"key":"AT","id":1}|{"key":"DE","id":1}"#),
        (r#"{"data":{"AT":{"a":1},"DE":{"a":2}}}"#, r#"{"id":"AT","a":1}|{"id":"DE","a":2}"#),
        (r#"{"AT":{"a":1}}"#, r#"{"id":"AT","a":1}"#),
        (r#"{"a":{"0":1,"1":2},"b":{"0":"x","1":"y"}}"#, r#"{"a":1,"b":"x"}|{"a":2,"b":"y"}"#),
    ] {
        assert_eq!(served(content).await, expected, "{content}");
    }
    let fixture = Fixture::new(r#"{"meta":1,"by":{"AT":{"a":1},"DE":{"a":2}}}"#);
    let options = JsonOptions { path: Some("/by".into()), ..JsonOptions::default() };
    assert_eq!(listed(&fixture.open(options).await.unwrap()).await, r#"{"id":"AT","a":1}|{"id":"DE","a":2}"#);
}

#[tokio::test]
async fn a_single_array_and_a_single_object_need_no_configuration() {
    for (content, expected) in [
        (r#"{"posts":[{"id":1}],"profile":{"name":"x"}}"#, r#"{"id":1}"#),
        (r#"{"data":[{"id":1}],"errors":[]}"#, r#"{"id":1}"#),
        (r#"{"status":"ok","data":{"items":[{"id":1},{"id":2}]}}"#, r#"{"id":1}|{"id":2}"#),
        (r#"{"id":1,"name":"a"}"#, r#"{"id":1,"name":"a"}"#),
        ("{\"id\":1,\"name\":\"a\"}\n", r#"{"id":1,"name":"a"}"#),
    ] {
        assert_eq!(served(content).await, expected, "{content}");
    }
    let fixture = Fixture::new(r#"{"posts":[{"id":1}],"comments":[{"id":2}]}"#);
    assert_eq!(arrays(&fixture.path()), ["posts", "comments"]);
    for single in [r#"{"posts":[{"id":1}],"comments":[],"tags":["x"]}"#, r#"[{"id":1}]"#, "{", "", "7"] {
        assert_eq!(arrays(&Fixture::new(single).path()), Vec::<String>::new(), "{single}");
    }
}

#[tokio::test]
async fn properties_of_features_are_columns_and_their_geometry_is_one() {
    let point = r#"{"type":"Point","coordinates":[1,2]}"#;
    let collection =
        |features: &str| format!(r#"{{"type":"FeatureCollection","features":[{}]}}"#, features.replace("POINT", point));
    for (features, expected) in [
        (
            r#"{"type":"Feature","id":"x","properties":{"name":"a"},"geometry":POINT},{"type":"Feature","id":"y","properties":null,"geometry":null}"#,
            r#"{"id":"x","name":"a","geometry":POINT}|{"id":"y","geometry":null}"#,
        ),
        (
            r#"{"type":"Feature","properties":{"name":"a"},"geometry":POINT},{"type":"Feature","properties":{"name":"b"},"geometry":POINT}"#,
            r#"{"name":"a","geometry":POINT}|{"name":"b","geometry":POINT}"#,
        ),
        (
            r#"{"type":"Feature","properties":{"n":1},"geometry":null},{"type":"Feature","id":7,"properties":{"n":1},"geometry":null}"#,
            r#"{"_row":1,"n":1,"geometry":null}|{"_row":2,"n":1,"geometry":null,"id":7}"#,
        ),
        (
            r#"{"type":"Feature","id":"a","properties":{"id":7,"geometry":"x"},"geometry":null}"#,
            r#"{"_id":"a","id":7,"geometry":"x","_geometry":null}"#,
        ),
    ] {
        let got = served(&collection(features)).await;
        let sorted = point.replace(r#""type":"Point","coordinates":[1,2]"#, r#""coordinates":[1,2],"type":"Point""#);
        let plain = |text: &str| text.replace("POINT", point);
        assert!([plain(expected), expected.replace("POINT", &sorted)].contains(&got), "{got}");
    }
    let fixture = Fixture::new(&collection(r#"{"type":"Feature","id":"x","properties":{"name":"a"},"geometry":null}"#));
    let options = JsonOptions { path: Some("/features".into()), ..JsonOptions::default() };
    let rows = listed(&fixture.open(options).await.unwrap()).await;
    assert!(rows.contains(r#""properties":{"name":"a"}"#), "an explicit path leaves features unchanged: {rows}");
}

#[tokio::test]
async fn a_duplicate_or_missing_id_makes_another_column_the_id() {
    for (content, id) in [
        (r#"[{"id":1,"a":"x"},{"id":1,"a":"y"}]"#, "a"),
        (r#"[{"id":1,"a":"x"},{"id":1,"a":"x"}]"#, "_row"),
        (r#"[{"id":1,"a":"x"},{"a":"y"},{"a":"z"}]"#, "a"),
        (r#"[{"id":null,"a":"x"},{"id":null,"a":"x"}]"#, "_row"),
    ] {
        let fixture = Fixture::new(content);
        let vista = fixture.open(JsonOptions::default()).await.unwrap();
        assert_eq!(vista.schema().id_column(), id, "{content}");
        assert!(vista.list_values().await.unwrap().len() > 1);
        assert!(vista.shell().inferred().iter().any(|guess| guess.what == "id" && guess.is_doubtful));
    }
}

#[tokio::test]
async fn packed_files_and_other_encodings_are_read() {
    let fixture = Fixture::new("");
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(br#"[{"id":1}]"#).unwrap();
    let wide: Vec<u8> = "[{\"id\":\"\u{e9}\"}]".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (content, expected) in [
        (packed.finish().unwrap(), r#"{"id":1}"#),
        (
            ruzstd::encoding::compress_to_vec(&br#"[{"id":2}]"#[..], ruzstd::encoding::CompressionLevel::Fastest),
            r#"{"id":2}"#,
        ),
        (wide, r#"{"id":"é"}"#),
        (b"[{\"id\":\"\xe9\"}]".to_vec(), r#"{"id":"é"}"#),
    ] {
        std::fs::write(fixture.path(), content).unwrap();
        assert_eq!(listed(&fixture.open(JsonOptions::default()).await.unwrap()).await, expected);
    }
}
