//! Every type of the server, read and written back.

use super::*;

#[tokio::test]
async fn values_keep_their_types() {
    let Some(fixture) = Fixture::new(
        "CREATE t:1 SET yes = true, whole = 9223372036854775807, least = -9223372036854775808, half = 1.5f, exact = 12345678901234567890.12dec,
            text = 'é', at = d'2026-01-02T03:04:05.000000006Z', past = d'1969-12-31T23:59:59.5Z', took = 1d2h3ms, key = u'0190d9df-57e6-7a12-9e3b-3c0b1a2d4e5f',
            raw = <bytes>'ab', link = person:tobie, odd = person:⟨a b⟩, list = [1, d'2026-01-01T00:00:00Z'], some = {1, 2},
            nested = { at: d'2026-01-01T00:00:00Z', gone: NONE, none: NULL }, point = (1.5, 2.5), nothing = NULL, span = 1..5",
    ) else {
        return;
    };
    let vista = fixture.open("t").await;
    let row = vista.get_value("1").await.unwrap().unwrap();
    let text =
        |column: &str| row[column].as_text().unwrap_or_else(|| panic!("{column}: {:?}", row[column])).to_string();
    assert_eq!(row["yes"], true.into());
    assert_eq!((&row["whole"], &row["least"], &row["half"]), (&i64::MAX.into(), &i64::MIN.into(), &1.5.into()));
    assert_eq!((text("exact"), text("text")), ("12345678901234567890.12".into(), "é".into()));
    assert_eq!((text("at"), text("past")), ("2026-01-02T03:04:05.000000006Z".into(), "1969-12-31T23:59:59.5Z".into()));
    assert_eq!((text("took"), text("key")), ("1d2h3ms".into(), "0190d9df-57e6-7a12-9e3b-3c0b1a2d4e5f".into()));
    assert_eq!(row["raw"], CborValue::Bytes(b"ab".to_vec()));
    assert_eq!(
        (text("link"), text("odd"), text("span")),
        ("person:tobie".into(), "person:`a b`".into(), "1..5".into())
    );
    let json = |column: &str| String::from_utf8(diorama_core::record::value_to_json(&row[column])).unwrap();
    assert_eq!(json("list"), r#"[1,"2026-01-01T00:00:00Z"]"#);
    assert_eq!(json("some"), "[1,2]");
    assert_eq!(json("nested"), r#"{"at":"2026-01-01T00:00:00Z","none":null}"#);
    assert_eq!(json("point"), r#"{"coordinates":[1.5,2.5],"type":"Point"}"#);
    assert_eq!(row["nothing"], CborValue::Null);
    let ty = |column: &str| vista.schema().column(column).unwrap().ty;
    use ColumnType as T;
    for (column, expected) in [
        ("id", T::Integer),
        ("yes", T::Boolean),
        ("whole", T::Integer),
        ("half", T::Number),
        ("exact", T::Decimal),
        ("at", T::Datetime),
        ("key", T::Uuid),
        ("raw", T::Bytes),
        ("link", T::String),
        ("list", T::Json),
        ("nothing", T::Json),
    ] {
        assert_eq!(ty(column), expected, "{column}");
    }
    assert!(vista.shell().inferred().iter().any(|guess| guess.what == "columns"), "the columns are a guess");

    // The same cells, written as another row, are the same values there.
    let columns = ["yes", "whole", "least", "half", "exact", "text", "at", "past", "took", "key", "raw", "link", "odd"];
    let copy: Record = columns.iter().map(|column| (column.to_string(), row[*column].clone())).collect();
    vista.insert("2", &copy).await.unwrap();
    vista.insert("2", &copy).await.expect("an identical insert is a retry");
    for column in columns {
        let types = fixture
            .sql(&format!("RETURN [type::of(t:1.{column}), type::of(t:2.{column}), t:1.{column} = t:2.{column}]"));
        assert_eq!(types[0], types[1], "{column}");
        assert_eq!(types[2], true, "{column}");
    }
}

#[tokio::test]
async fn declared_fields_are_the_schema() {
    let Some(fixture) = Fixture::new(
        "DEFINE TABLE t SCHEMAFULL; DEFINE FIELD name ON t TYPE string; DEFINE FIELD price ON t TYPE option<decimal>;
         DEFINE FIELD made ON t TYPE datetime DEFAULT time::now(); DEFINE FIELD tags ON t TYPE array<string> DEFAULT [];
         DEFINE FIELD meta ON t TYPE object DEFAULT {}; DEFINE FIELD meta.at ON t TYPE option<datetime>; DEFINE FIELD owner ON t TYPE option<record<person>>;
         DEFINE FIELD any ON t TYPE any",
    ) else {
        return;
    };
    let vista = fixture.open("t").await;
    let schema = vista.schema();
    let names: Vec<&str> = schema.columns().iter().map(|column| &*column.name).collect();
    assert_eq!(names, ["id", "any", "made", "meta", "name", "owner", "price", "tags"]);
    let mandatory: Vec<&str> =
        schema.columns().iter().filter(|column| column.has(Flag::Mandatory)).map(|column| &*column.name).collect();
    assert_eq!(mandatory, ["name"]);
    assert_eq!(&*schema.column("price").unwrap().original_type, "none | decimal");
    assert!(vista.shell().inferred().is_empty());

    let nested = CborValue::Map(vec![("at".into(), "2026-01-01T00:00:00Z".into())]);
    let row =
        record([("name", "a".into()), ("price", "1.50".into()), ("meta", nested), ("owner", "person:tobie".into())]);
    vista.insert("x", &row).await.unwrap();
    assert_eq!(fixture.sql("RETURN type::of(t:x.meta.at)"), "datetime");
    assert_eq!(fixture.sql("RETURN type::of(t:x.owner)"), "record");
    vista.patch_value("x", &record([("price", CborValue::Null)])).await.expect("null is NONE for the server");
    assert_eq!(fixture.sql("RETURN t:x.price = NONE"), true);
    for (cells, column) in [
        (record([("price", "much".into())]), "price"),
        (record([("made", "yesterday".into())]), "made"),
        (record([("tags", CborValue::Array(vec![1.into()]))]), "tags"),
        (record([("name", CborValue::Null)]), "name"),
        (record([("unknown", 1.into())]), "unknown"),
    ] {
        let error = vista.patch_value("x", &cells).await.unwrap_err();
        let Error::Invalid { fields, .. } = &error else { panic!("{error:?}") };
        assert_eq!(fields.keys().collect::<Vec<_>>(), [column], "{error}");
    }
}

#[tokio::test]
async fn a_patch_merges_objects_and_keeps_their_types() {
    let Some(fixture) =
        Fixture::new("CREATE t:1 SET meta = { at: d'2026-01-01T00:00:00Z', n: 1, deep: { a: 1 } }, list = [1, 2]")
    else {
        return;
    };
    let vista = fixture.open("t").await;
    let deep = CborValue::Map(vec![("b".into(), 2.into())]);
    let meta = CborValue::Map(vec![("n".into(), CborValue::Null), ("deep".into(), deep)]);
    let patch = record([("meta", meta), ("list", CborValue::Array(vec![3.into()])), ("text", "new".into())]);
    vista.patch_value("1", &patch).await.unwrap();
    let row = fixture.sql("SELECT * FROM ONLY t:1");
    assert_eq!(row["meta"]["deep"], serde_json::json!({ "a": 1, "b": 2 }));
    assert_eq!((&row["meta"]["n"], &row["list"]), (&serde_json::Value::Null, &serde_json::json!([3])));
    assert_eq!(fixture.sql("RETURN type::of(t:1.meta.at)"), "datetime");
    assert_eq!(fixture.sql("RETURN t:1.meta.n = NONE"), true);
    vista.patch_value("1", &record([("text", CborValue::Null), ("list", CborValue::Null)])).await.unwrap();
    assert_eq!(
        fixture.sql("RETURN t:1.text = NONE AND t:1.list = NULL"),
        true,
        "an unknown column goes, a known one is null"
    );
}

#[tokio::test]
async fn columns_of_the_configuration_say_how_values_are_written() {
    let Some(fixture) = Fixture::new("DEFINE TABLE t SCHEMALESS") else { return };
    let columns = vec![Column::new("at", ColumnType::Datetime), Column::new("price", ColumnType::Decimal)];
    let vista = fixture.open_with("t", Options { columns, ..Options::default() }).await.unwrap();
    vista.insert("a", &record([("at", "2026-01-01T00:00:00Z".into()), ("price", "1.5".into())])).await.unwrap();
    assert_eq!(
        fixture.sql("RETURN [type::of(t:a.at), type::of(t:a.price)]"),
        serde_json::json!(["datetime", "decimal"])
    );
    let wrong = Options { id: Some("name".into()), ..Options::default() };
    assert!(fixture.open_with("t", wrong).await.unwrap_err().to_string().contains("column \"id\""));
}

#[test]
fn no_value_panics() {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just(CborValue::Null),
        any::<i64>().prop_map(CborValue::from),
        any::<f64>().prop_map(CborValue::from),
        ".{0,12}".prop_map(CborValue::from),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(CborValue::Bytes),
    ];
    let value = leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            (0u64..100, inner.clone()).prop_map(|(tag, value)| CborValue::Tag(tag, Box::new(value))),
            proptest::collection::vec(inner.clone(), 0..4).prop_map(CborValue::Array),
            proptest::collection::vec((inner.clone(), inner), 0..3).prop_map(CborValue::Map),
        ]
    });
    let kinds = [
        Kind::Any,
        Kind::Decimal,
        Kind::Datetime,
        Kind::Uuid,
        Kind::Number,
        Kind::Array(Box::new(Kind::Duration)),
        Kind::Object(vec![("a".into(), Kind::Record)]),
    ];
    proptest!(|(value in value)| {
        for kind in &kinds {
            let _ = value::encode(kind, &value::decode(kind, value.clone()));
            let _ = value::encode(kind, &value);
        }
        let _ = value::surrealql(&value);
        let _ = crate::surrealdb::errors::Refusal::of(&value);
    });
}
