//! Values of every type: what is written is what is read, and what the server has.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use diorama_core::record::Body;

/// Returns the number of values of each type: few by default, `DIORAMA_VALUES` for more.
fn rounds() -> usize {
    std::env::var("DIORAMA_VALUES").ok().and_then(|count| count.parse().ok()).unwrap_or(300)
}

type Values = BoxedStrategy<CborValue>;

fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<char>().prop_filter("the server has no NUL", |char| *char != '\0'), 0..12)
        .prop_map(String::from_iter)
}

fn digits() -> impl Strategy<Value = String> {
    ("-?(0|[1-9][0-9]{0,30})", "(\\.[0-9]{1,20})?").prop_map(|(whole, fraction)| {
        let number = format!("{whole}{fraction}");
        // The server has no negative zero.
        if number.trim_start_matches('-').bytes().all(|byte| byte == b'0' || byte == b'.') {
            number.trim_start_matches('-').to_string()
        } else {
            number
        }
    })
}

fn moment() -> impl Strategy<Value = String> {
    (-60_000_000_000i64..250_000_000_000, 0u32..1_000_000).prop_map(|(second, micros)| {
        let nanos = i32::try_from(micros * 1_000).unwrap();
        jiff::Timestamp::new(second, nanos).unwrap().to_string()
    })
}

fn json() -> impl Strategy<Value = CborValue> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(CborValue::from),
        any::<i32>().prop_map(CborValue::from),
        text().prop_map(CborValue::from),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(CborValue::Array),
            // One member, because the server sorts them.
            (text(), inner).prop_map(|(key, value)| CborValue::Map(vec![(key.into(), value)])),
        ]
    })
}

fn array(item: impl Strategy<Value = CborValue> + 'static) -> Values {
    let item = prop_oneof![4 => item, 1 => Just(CborValue::Null)];
    proptest::collection::vec(item, 0..5).prop_map(CborValue::Array).boxed()
}

/// Returns the types with random values of each.
fn types() -> Vec<(&'static str, Values)> {
    let texts = |texts: BoxedStrategy<String>| texts.prop_map(CborValue::from).boxed();
    let float = || any::<f64>().prop_filter("NaN differs from itself here", |number| !number.is_nan());
    vec![
        ("boolean", any::<bool>().prop_map(CborValue::from).boxed()),
        ("int2", any::<i16>().prop_map(CborValue::from).boxed()),
        ("int4", any::<i32>().prop_map(CborValue::from).boxed()),
        ("int8", any::<i64>().prop_map(CborValue::from).boxed()),
        ("oid", any::<u32>().prop_map(CborValue::from).boxed()),
        ("float8", float().prop_map(CborValue::from).boxed()),
        (
            "float4",
            any::<f32>()
                .prop_filter("NaN differs from itself here", |number| !number.is_nan())
                .prop_map(|number| CborValue::from(number.to_string().parse::<f64>().unwrap()))
                .boxed(),
        ),
        ("numeric", texts(digits().boxed())),
        ("text", texts(text().boxed())),
        ("varchar", texts(text().boxed())),
        ("bytea", proptest::collection::vec(any::<u8>(), 0..20).prop_map(CborValue::Bytes).boxed()),
        ("uuid", texts(any::<u128>().prop_map(|n| uuid::Uuid::from_u128(n).to_string()).boxed())),
        (
            "date",
            texts(
                (-700_000i32..2_900_000)
                    .prop_map(|day| {
                        jiff::civil::date(1970, 1, 1).saturating_add(jiff::Span::new().days(day)).to_string()
                    })
                    .prop_filter("years before 1", |text| !text.starts_with('-') && !text.starts_with("0000"))
                    .boxed(),
            ),
        ),
        ("timestamptz", texts(moment().boxed())),
        ("timestamp", texts(moment().prop_map(|moment| moment.trim_end_matches('Z').to_string()).boxed())),
        ("json", json().boxed()),
        ("jsonb", json().boxed()),
        ("int8[]", array(any::<i64>().prop_map(CborValue::from))),
        ("text[]", array(text().prop_map(CborValue::from))),
        ("numeric[]", array(digits().prop_map(CborValue::from))),
        ("bool[]", array(any::<bool>().prop_map(CborValue::from))),
        (
            "interval",
            texts(
                (1u32..9, 1u32..9, 1u32..9)
                    .prop_map(|(days, hours, minutes)| format!("P{days}DT{hours}H{minutes}M"))
                    .boxed(),
            ),
        ),
        ("inet", texts(any::<u32>().prop_map(|n| std::net::Ipv4Addr::from(n).to_string()).boxed())),
        ("int4range", texts((0i32..9, 10i32..99).prop_map(|(from, to)| format!("[{from},{to})")).boxed())),
        ("mood", texts(prop_oneof![Just("sad".to_string()), Just("happy, \"very\"".to_string())].boxed())),
        ("cents", (0i32..i32::MAX).prop_map(CborValue::from).boxed()),
    ]
}

#[tokio::test]
async fn values_come_back_as_they_were_written_and_as_the_server_has_them() {
    let Some(fixture) = Fixture::new(
        "CREATE TYPE mood AS ENUM ('sad', 'happy, \"very\"'); CREATE DOMAIN cents AS INTEGER CHECK (VALUE >= 0);",
    ) else {
        return;
    };
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    for (at, (ty, values)) in types().into_iter().enumerate() {
        let name = format!("t{at}");
        fixture.server.psql(&format!("CREATE TABLE {name} (id INTEGER PRIMARY KEY, v {ty}, written TEXT)"));
        let shell = fixture.shell(&name).await;
        let values: Vec<CborValue> = (0..rounds()).map(|_| values.new_tree(&mut runner).unwrap().current()).collect();
        let field = shell.table().field("v").unwrap().clone();
        let insert = |(n, value): (usize, &CborValue)| {
            // The text from which the server makes the value by itself.
            let text = field.codec.to_text("v", value).unwrap().map_or(CborValue::Null, CborValue::from);
            let record = record([("v", value.clone()), ("written", text)]);
            (format!("op_{name}_{n}"), WriteOp::Insert { id: n.to_string(), record })
        };
        let writes: Vec<_> = values.iter().enumerate().map(insert).collect();
        for batch in writes.chunks(BATCH) {
            for done in shell.write_batch(batch).await {
                done.unwrap_or_else(|error| panic!("{ty}: {error}"));
            }
        }
        let listed = shell.list(&Query::default()).await.unwrap();
        assert_eq!(listed.len(), values.len(), "{ty}: {:?}", listed.undecodable());
        for (n, value) in values.iter().enumerate() {
            let id = n.to_string();
            let cell = &listed.get(&id).unwrap()["v"];
            // Several decimal texts are equally short for the same value of 32 bits.
            let narrow = |value: &CborValue| value.as_float().map(|number| number as f32);
            assert!(cell == value || ty == "float4" && narrow(cell) == narrow(value), "{ty}: {cell:?} {value:?}");
        }
        let other = format!("SELECT count(*) FROM {name} WHERE v::text IS DISTINCT FROM written::{ty}::text");
        assert_eq!(fixture.server.psql(&other), "0", "{ty}: the server has the same");
    }
}

/// Rows of a list are written without records in between. Their bodies are the same.
#[tokio::test]
async fn listed_rows_have_the_bodies_of_their_records() {
    let cells = "b BOOLEAN, i2 INT2, i8 INT8, o OID, f4 FLOAT4, f8 FLOAT8, d NUMERIC, t TEXT, c CHAR(4), u UUID, raw BYTEA, j JSON,
        jb JSONB, day DATE, at TIMESTAMP, tz TIMESTAMPTZ, tags INTEGER[], net INET, took INTERVAL";
    let values = "true, -2, 9007199254740993, 4000000000, 0.1, 'NaN', 1.50, E'a\"\\\n', 'x', '00000000-0000-0000-0000-00000000000A',
        '\\x00ff', '{\"b\": 1.0, \"a\": [null]}', '{\"b\": 123456789012345678901234567890}', '2026-01-31', '2026-01-31 12:00',
        '2026-01-31 12:00:00.5+02', '{1,NULL}', '10.0.0.1', '1 day'";
    let Some(fixture) = Fixture::new(&format!(
        "CREATE TABLE numbered (z INT4 PRIMARY KEY, {cells}); INSERT INTO numbered VALUES (1, {values}), (-2, {values}); INSERT INTO numbered (z) VALUES (3);
         CREATE TABLE named (t1 TEXT, id INT4, {cells}, PRIMARY KEY (id, t1)); INSERT INTO named VALUES ('a,b', 1, {values});
         CREATE TABLE bytes (k BYTEA PRIMARY KEY); INSERT INTO bytes VALUES ('\\x00ff');
         CREATE TABLE uuids (k UUID PRIMARY KEY); INSERT INTO uuids VALUES ('00000000-0000-0000-0000-00000000000A');
         CREATE TABLE oids (k OID PRIMARY KEY); INSERT INTO oids VALUES (4000000000);
         CREATE TABLE days (k DATE PRIMARY KEY); INSERT INTO days VALUES ('2026-01-31');"
    )) else {
        return;
    };
    for (name, count) in [("numbered", 3), ("named", 1), ("bytes", 1), ("uuids", 1), ("oids", 1), ("days", 1)] {
        let shell = fixture.shell(name).await;
        let part = Query { limit: Some(10), ..Query::default() };
        for rows in [shell.list(&Query::default()).await.unwrap(), shell.list(&part).await.unwrap()] {
            assert_eq!((rows.len(), rows.undecodable()), (count, None), "{name}");
            for (id, body) in rows.bodies() {
                let record = shell.get(id).await.unwrap().expect("the row");
                assert_eq!(body, Body::encode(id, &record, shell.table().schema.layout()), "{name} {id}");
            }
        }
    }
}

#[tokio::test]
async fn values_that_no_other_format_has_are_kept_as_text() {
    let Some(fixture) = Fixture::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, at TIMESTAMPTZ, on_day DATE, n NUMERIC, f FLOAT8, cells INTEGER[], raw \"char\", m MONEY);
         INSERT INTO t VALUES (1, 'infinity', '0044-03-15 BC', 'NaN', 'NaN', '[0:1]={1,2}', 'x', 12.5),
            (2, '0044-03-15 12:00:00+00 BC', '-infinity', 12345678901234567890.0123456789, 'Infinity', '{{1,2},{3,4}}', NULL, NULL);",
    ) else {
        return;
    };
    let shell = fixture.shell("t").await;
    let rows = shell.list(&Query::default()).await.unwrap();
    let (first, second) = (rows.get("1").unwrap(), rows.get("2").unwrap());
    assert_eq!(
        (&first["at"], &first["on_day"], &first["n"]),
        (&"infinity".into(), &"0044-03-15 BC".into(), &"NaN".into())
    );
    assert_eq!((&first["cells"], &first["raw"]), (&"[0:1]={1,2}".into(), &"x".into()));
    assert_eq!(
        (&second["at"], &second["n"]),
        (&"0044-03-15 12:00:00+00 BC".into(), &"12345678901234567890.0123456789".into())
    );
    let pair = |a: i64, b: i64| CborValue::Array(vec![a.into(), b.into()]);
    assert_eq!(second["cells"], CborValue::Array(vec![pair(1, 2), pair(3, 4)]));
    for id in ["1", "2"] {
        let row = rows.get(id).unwrap();
        let op = WriteOp::Replace { id: id.into(), record: row.clone() };
        let written = shell.write(&op).await.unwrap().record.unwrap();
        assert_eq!(format!("{written:?}"), format!("{row:?}"), "written back, it is the same");
    }
}
