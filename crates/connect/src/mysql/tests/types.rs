//! Values of every type: what is written is what is read, and what the server has.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// Returns the number of values of each type: few by default, `DIORAMA_VALUES` for more.
pub(super) fn rounds() -> usize {
    std::env::var("DIORAMA_VALUES").ok().and_then(|count| count.parse().ok()).unwrap_or(300)
}

pub(super) type Values = BoxedStrategy<CborValue>;

fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<char>(), 0..12).prop_map(String::from_iter)
}

/// Returns decimals that fit `DECIMAL(50,20)`, as the server writes them.
fn digits() -> impl Strategy<Value = String> {
    ("-?(0|[1-9][0-9]{0,29})", "[0-9]{20}").prop_map(|(whole, fraction)| {
        let number = format!("{whole}.{fraction}");
        // The server has no negative zero.
        match number.bytes().any(|byte| (b'1'..=b'9').contains(&byte)) {
            true => number,
            false => number.trim_start_matches('-').to_string(),
        }
    })
}

/// Returns moments in the years from `first` to `last`.
fn moment(first: i64, last: i64) -> impl Strategy<Value = String> {
    (first..last, 0i32..1_000_000)
        .prop_map(|(second, micros)| jiff::Timestamp::new(second, micros * 1_000).unwrap().to_string())
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
            // One member, because a server may sort them.
            (text(), inner).prop_map(|(key, value)| CborValue::Map(vec![(key.into(), value)])),
        ]
    })
}

/// Returns the types with random values of each.
pub(super) fn types() -> Vec<(&'static str, Values)> {
    let texts = |texts: BoxedStrategy<String>| texts.prop_map(CborValue::from).boxed();
    let bytes = |length| proptest::collection::vec(any::<u8>(), length).prop_map(CborValue::Bytes).boxed();
    let words = |words: &'static [&'static str]| proptest::sample::select(words).prop_map(CborValue::from).boxed();
    let finite = |number: &f64| number.is_finite();
    let (start, end) = (-30_000_000_000, 253_402_300_799);
    vec![
        ("TINYINT(1)", any::<bool>().prop_map(CborValue::from).boxed()),
        ("TINYINT", any::<i8>().prop_map(CborValue::from).boxed()),
        ("TINYINT UNSIGNED", any::<u8>().prop_map(CborValue::from).boxed()),
        ("SMALLINT", any::<i16>().prop_map(CborValue::from).boxed()),
        ("MEDIUMINT", (-8_388_608i32..8_388_608).prop_map(CborValue::from).boxed()),
        ("INT UNSIGNED ZEROFILL", any::<u32>().prop_map(CborValue::from).boxed()),
        ("BIGINT", any::<i64>().prop_map(CborValue::from).boxed()),
        ("BIGINT UNSIGNED", any::<u64>().prop_map(CborValue::from).boxed()),
        ("BIT(1)", any::<bool>().prop_map(CborValue::from).boxed()),
        ("BIT(64)", any::<u64>().prop_map(CborValue::from).boxed()),
        ("BIT(10)", (0u16..1_024).prop_map(CborValue::from).boxed()),
        ("YEAR", (1901i32..2156).prop_map(CborValue::from).boxed()),
        ("DOUBLE", any::<f64>().prop_filter("finite", finite).prop_map(CborValue::from).boxed()),
        (
            "FLOAT",
            any::<f32>()
                .prop_filter("finite", |number| number.is_finite())
                .prop_map(|number| CborValue::from(number.to_string().parse::<f64>().unwrap()))
                .boxed(),
        ),
        ("DECIMAL(50,20)", texts(digits().boxed())),
        ("TEXT", texts(text().boxed())),
        ("VARCHAR(100)", texts(text().boxed())),
        ("VARCHAR(100) CHARACTER SET latin1", texts("[a-zA-Zäöüéßñ£ ']{0,20}".boxed())),
        ("CHAR(20)", texts(text().prop_map(|text| text.trim_end_matches(' ').to_string()).boxed())),
        ("BLOB", bytes(0..20)),
        ("VARBINARY(20)", bytes(0..20)),
        ("BINARY(8)", bytes(8..9)),
        (
            "UUID",
            texts(
                any::<[u8; 16]>()
                    .prop_map(|bytes| uuid::Builder::from_random_bytes(bytes).into_uuid().to_string())
                    .boxed(),
            ),
        ),
        // The server writes parts that are zero in its own way.
        (
            "INET6",
            texts(
                any::<[u16; 8]>()
                    .prop_map(|parts| std::net::Ipv6Addr::from(parts.map(|part| part | 1)).to_string())
                    .boxed(),
            ),
        ),
        (
            "DATE",
            texts(
                (-340_000i32..2_900_000)
                    .prop_map(|day| {
                        jiff::civil::date(1970, 1, 1).saturating_add(jiff::Span::new().days(day)).to_string()
                    })
                    .boxed(),
            ),
        ),
        ("TIMESTAMP(6) NULL", texts(moment(1, 2_147_483_647).boxed())),
        ("DATETIME(6)", texts(moment(start, end).prop_map(|moment| moment.trim_end_matches('Z').to_string()).boxed())),
        (
            "TIME(6)",
            texts(
                (any::<bool>(), 0u32..838, 0u32..60, 0u32..60, 1u32..10)
                    .prop_map(|(negative, hours, minutes, seconds, tenth)| {
                        format!("{}{hours:02}:{minutes:02}:{seconds:02}.{tenth}", if negative { "-" } else { "" })
                    })
                    .boxed(),
            ),
        ),
        ("JSON", json().boxed()),
        ("ENUM('sad', 'happy, \"very\"', 'ü')", words(&["sad", "happy, \"very\"", "ü"])),
        ("SET('a', 'b', 'c')", words(&["", "a", "a,c", "a,b,c"])),
    ]
}

#[tokio::test]
async fn values_come_back_as_they_were_written_and_as_the_server_has_them() {
    let Some(fixture) = Fixture::new("SELECT 1") else { return };
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    for (at, (ty, values)) in types().into_iter().enumerate() {
        let name = format!("t{at}");
        fixture.sql(&format!("CREATE TABLE {name} (id INTEGER PRIMARY KEY, v {ty}) DEFAULT CHARSET utf8mb4"));
        let shell = fixture.shell(&name).await;
        let values: Vec<CborValue> = (0..rounds()).map(|_| values.new_tree(&mut runner).unwrap().current()).collect();
        let insert = |(n, value): (usize, &CborValue)| {
            let record = record([("v", value.clone())]);
            let (id, operation) = (n.to_string(), format!("op_{at}_{n}"));
            // The statements of both kinds make the same value of a literal.
            let op = if n % 2 == 0 { WriteOp::Insert { id, record } } else { WriteOp::Replace { id, record } };
            (operation, op)
        };
        let writes: Vec<_> = values.iter().enumerate().map(insert).collect();
        for batch in writes.chunks(BATCH) {
            for (done, (_, op)) in shell.write_batch(batch).await.into_iter().zip(batch) {
                let written = done.unwrap_or_else(|error| panic!("{ty}: {error}: {op:?}"));
                let (WriteOp::Insert { record, .. } | WriteOp::Replace { record, .. }) = op else { continue };
                assert_eq!(written.record.unwrap()["v"], record["v"], "{ty}, as text");
            }
        }
        let listed = shell.list(&Query::default()).await.unwrap();
        assert_eq!(listed.len(), values.len());
        for (n, value) in values.iter().enumerate() {
            let id = n.to_string();
            assert_eq!(&listed.get(&id).unwrap()["v"], value, "{ty}, in binary form");
            if n < 20 {
                let op = WriteOp::Insert { id: id.clone(), record: record([("v", value.clone())]) };
                shell.write(&op).await.unwrap_or_else(|error| panic!("{ty}: an identical insert is a retry: {error}"));
            }
        }
    }
    assert_eq!(fixture.sql("SELECT count(*) FROM t6 JOIN t7 USING (id) WHERE t6.v > t7.v AND t6.v < 0"), "0");
}

#[tokio::test]
async fn values_that_no_other_format_has_are_kept() {
    let Some(fixture) = Fixture::new(
        "SET sql_mode = ''; CREATE TABLE t (id INTEGER PRIMARY KEY, day DATE, at DATETIME, moment TIMESTAMP NULL, n TINYINT(1), doc JSON,
            place POINT, note VARCHAR(3));
         INSERT INTO t VALUES (1, '0000-00-00', '0000-00-00 00:00:00', '0000-00-00 00:00:00', 7, '{\"a\": 1e400}', POINT(1, 2), 'abc'),
            (2, '2026-00-00', '2026-02-00 01:02:03', NULL, NULL, '[1.50]', NULL, '');",
    ) else {
        return;
    };
    let shell = fixture.shell("t").await;
    let rows = shell.list(&Query::default()).await.unwrap();
    let (first, second) = (rows.get("1").unwrap(), rows.get("2").unwrap());
    let zero = CborValue::from("0000-00-00 00:00:00");
    assert_eq!((&first["day"], &first["at"], &first["moment"]), (&"0000-00-00".into(), &zero, &zero));
    assert_eq!((&first["n"], first["place"].as_bytes().unwrap().len()), (&7.into(), 25));
    assert_eq!((&second["day"], &second["at"]), (&"2026-00-00".into(), &"2026-02-00 01:02:03".into()));
    for id in ["1", "2"] {
        let row = rows.get(id).unwrap();
        let op = WriteOp::Replace { id: id.into(), record: row.clone() };
        let written = shell.write(&op).await.unwrap().record.unwrap();
        assert_eq!(format!("{written:?}"), format!("{row:?}"), "written back, it is the same");
    }
    for (column, value) in [("note", "abcd"), ("day", "2026-02-30"), ("at", "soon")] {
        let op = WriteOp::Patch { id: "1".into(), record: record([(column, value.into())]) };
        assert!(matches!(shell.write(&op).await, Err(Error::Invalid { .. })), "{column} is refused, not cut");
    }
}
