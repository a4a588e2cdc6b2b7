mod reading;

use std::fs::File;
use std::io::Write as _;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::file::source::open_regular;
use diorama_core::record::value_to_json;

struct Fixture {
    dir: TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("products.csv")
    }

    fn write(&self, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(), content).unwrap();
    }

    async fn open(&self, options: CsvOptions) -> Result<Vista> {
        // These tests write the file immediately before reading it.
        Csv::open("products", self.path(), CsvOptions { settle: Some(Duration::ZERO), ..options }).await
    }

    /// Infers and reads without a runtime.
    fn read(&self) -> (Csv, Rows) {
        let file = Arc::new(SourceFile::new(SourcePlace::new(self.path()), None));
        let content = || Content::new(open_regular(file.path()).unwrap());
        let csv = infer("x", &file, &mut content(), &CsvOptions::default()).unwrap();
        let empty = Rows::with_layout(Arc::clone(csv.0.schema.layout()));
        let rows = csv.0.read(&mut content(), &empty).unwrap();
        (csv, rows)
    }

    /// Returns an error's text without the folder.
    fn text(&self, error: &Error) -> String {
        error.to_string().replace(&format!("{}/", self.dir.path().display()), "")
    }
}

fn json(rows: &Rows) -> String {
    let rows = rows.bodies().map(|(_, body)| String::from_utf8(body.json().to_vec()).unwrap());
    rows.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn files_are_understood_whatever_wrote_them() {
    for (what, content, expected) in [
        ("plain", "id,name\n1,a\n2,b\n", r#"{"id":1,"name":"a"}|{"id":2,"name":"b"}"#),
        ("no newline at the end", "id,name\n1,a", r#"{"id":1,"name":"a"}"#),
        ("byte order mark", "\u{feff}id,name\n1,a\n", r#"{"id":1,"name":"a"}"#),
        ("CRLF", "id,name\r\n1,a\r\n2,b\r\n", r#"{"id":1,"name":"a"}|{"id":2,"name":"b"}"#),
        ("CR", "id,name\r1,a\r2,b\r", r#"{"id":1,"name":"a"}|{"id":2,"name":"b"}"#),
        ("blank lines", "id,name\n\n1,a\n\n\n2,b\n\n", r#"{"id":1,"name":"a"}|{"id":2,"name":"b"}"#),
        ("quotes", "id,name\n1,\"a,\"\"b\"\"\"\n", r#"{"id":1,"name":"a,\"b\""}"#),
        ("newlines in cells", "id,name\n1,\"a\nb\r\nc\"\n", r#"{"id":1,"name":"a\nb\r\nc"}"#),
        ("a stray quote", "id,name\n1,5\" pipe\n", r#"{"id":1,"name":"5\" pipe"}"#),
        (
            "empty is null",
            "id,name,price\n1,,\n2,a,3\n",
            r#"{"id":1,"name":null,"price":null}|{"id":2,"name":"a","price":3}"#,
        ),
        (
            "NA is null among numbers",
            "id,name,price\n1,NA,NA\n2,b,2.5\n",
            r#"{"id":1,"name":"NA","price":null}|{"id":2,"name":"b","price":2.5}"#,
        ),
        ("zip codes", "id,zip\n1,00123\n2,90210\n", r#"{"id":1,"zip":"00123"}|{"id":2,"zip":"90210"}"#),
        (
            "wide integers",
            "id,n\n1,123456789012345678901234567890\n2,7\n",
            r#"{"id":1,"n":123456789012345678901234567890}|{"id":2,"n":7}"#,
        ),
        ("big integers", "id,n\n1,18446744073709551615\n", r#"{"id":1,"n":18446744073709551615}"#),
        ("named id", "price,product_id\n1,x\n1,y\n", r#"{"price":1,"product_id":"x"}|{"price":1,"product_id":"y"}"#),
        ("first unique column", "kind,sku\na,x\na,y\n", r#"{"kind":"a","sku":"x"}|{"kind":"a","sku":"y"}"#),
        ("row numbers", "kind\na\na\n", r#"{"id":1,"kind":"a"}|{"id":2,"kind":"a"}"#),
        ("row numbers beside an id", "id\n1.5\n1.5\n", r#"{"_row":1,"id":1.5}|{"_row":2,"id":1.5}"#),
        ("only a header", "id,name\n", ""),
        ("semicolons", "id;name\n1;a, b\n", r#"{"id":1,"name":"a, b"}"#),
        ("decimal commas", "id;price\n1;1,75\n", r#"{"id":1,"price":1.75}"#),
        ("tabs", "id\tname\n1\ta\n", r#"{"id":1,"name":"a"}"#),
        ("bars", "id|name\n1|a\n", r#"{"id":1,"name":"a"}"#),
        ("spaces for the eye", "id, name , price\n1, a b , 2.5\n", r#"{"id":1,"name":"a b","price":2.5}"#),
        ("spaces that mean something", "id,name\n1, a\n", r#"{"id":1,"name":" a"}"#),
        ("a column without a name", ",name\n0,a\n1,b\n", r#"{"column_1":0,"name":"a"}|{"column_1":1,"name":"b"}"#),
        ("a comma too many in each line", "id,name,\n1,a,\n", r#"{"id":1,"name":"a","column_3":null}"#),
        ("names with spaces", "Full Name,Price ($)\nA B,1.5\n", r#"{"Full Name":"A B","Price ($)":1.5}"#),
        ("control characters", "id,name\n1,\u{3}\n2,\u{0}\n", r#"{"id":1,"name":"\u0003"}|{"id":2,"name":"\u0000"}"#),
        ("the end mark as a last row", "name\nx\n\u{3}", r#"{"name":"x"}|{"name":"\u0003"}"#),
    ] {
        let fixture = Fixture::new();
        fixture.write(content);
        let vista = fixture.open(CsvOptions::default()).await.unwrap();
        assert_eq!(json(&vista.list_values().await.unwrap()), expected.replace('|', "\n"), "{what}");
    }
}

#[tokio::test]
async fn faults_are_reported_with_their_line() {
    for (content, expected) in [
        (&b""[..], "products.csv is empty: it has no header line"),
        (b"\n\n", "products.csv is empty: it has no header line"),
        (b"id,name\n1,a\n2\n", "products.csv line 3 has 1 fields, but the header has 2{RAGGED}"),
        (b"id,name\r\n1,a\r\n\r\n2,b,c\r\n", "products.csv line 4 has 3 fields, but the header has 2{RAGGED}"),
        (b"id,name\n1,\"a\nb\"\n2\n", "products.csv line 4 has 1 fields, but the header has 2{RAGGED}"),
        (b"id,name\n1,a\n2,\"b\n3,c\n", "products.csv line 3 opens a quote that is never closed"),
        (b"id,name\n1,a\n2,\"", "products.csv line 3 opens a quote that is never closed"),
        (b"id,\"name", "products.csv line 1 opens a quote that is never closed"),
    ] {
        let fixture = Fixture::new();
        fixture.write(content);
        let error = fixture.open(CsvOptions::default()).await.unwrap_err();
        let expected = expected.replace("{RAGGED}", RAGGED);
        assert_eq!(fixture.text(&error), expected, "{:?}", String::from_utf8_lossy(content));
    }
    for (content, expected) in [
        ("id,name\n1,a\n2,b\n1,c\n", "products.csv line 4 has id \"1\", which line 2 already has"),
        ("id,name\r\n\r\n1,\"a\r\n\"\r\n2,b\r\n1,c\r\n", "products.csv line 6 has id \"1\", which line 3 already has"),
        ("# x\n# y\nid,name\n1,a\n2,b\n1,c\n", "products.csv line 6 has id \"1\", which line 4 already has"),
        ("id,name\n1,a\n,b\n", "products.csv line 3 has no id: column \"id\" is empty"),
        ("id,name\n1,a\nNA,b\n", "products.csv line 3 has no id: column \"id\" is empty"),
    ] {
        let fixture = Fixture::new();
        fixture.write("id,name\n1,a\n");
        let vista = fixture.open(CsvOptions::default()).await.unwrap();
        fixture.write(content);
        let error = vista.list_values().await.unwrap_err();
        assert_eq!(fixture.text(&error), format!("{expected}. {ANOTHER_ID}"), "{content:?}");
    }
}

#[tokio::test]
async fn an_undecodable_row_is_left_out_and_counted_and_an_invalid_file_is_refused() {
    let fixture = Fixture::new();
    let read = async |content: &[u8], id: Option<&str>| {
        fixture.write(content);
        let options = CsvOptions { id: id.map(str::to_string), ..CsvOptions::default() };
        fixture.open(options).await?.list_values().await
    };
    for (content, first) in [
        (&b"id,name\n1,a\n2\n3,c\n4,d\n"[..], "line 3 has 1 fields"),
        (b"id,name\n1,a\n2,b,c\n3,c\n4,d", "line 3 has 3 fields"),
        (b"id,name\r\n1,\xc3\xa9\r\n2,\xff\r\n3,\xc3\xbc\r\n4,d\r\n", "line 3 is not valid UTF-8"),
        (b"id,name\n1,a\n,b\n3,c\n4,d\n", "line 3 has no id"),
    ] {
        let rows = read(content, None).await.unwrap();
        assert_eq!(rows.ids().collect::<Vec<_>>(), ["1", "3", "4"], "{first}");
        let bad = rows.undecodable().unwrap();
        assert!(bad.count == 1 && bad.first.contains(first), "{bad:?}");
    }
    let numbered = read(b"id,name\n1,a\n2\n3,c\n4,d\n", Some("#")).await.unwrap();
    assert_eq!(
        numbered.ids().collect::<Vec<_>>(),
        ["1", "3", "4"],
        "rows that are left out do not renumber the others"
    );
    let same = read(b"id,name\n1,a\n2\n3,c\n4,d\n1,e\n", Some("id")).await.unwrap_err();
    assert!(fixture.text(&same).contains("line 6 has id \"1\", which line 2 already has"), "{same}");
    for (cut, expected_text) in [
        (&b"id,name\n1,a\n2,b\n3,c\n4"[..], "line 5 has 1 fields"),
        (b"id,name\n1,a\n2,b\n3,c\n4,\xc3", "line 5 is not valid UTF-8"),
        (b"id,name\n1,a\n2,b\n3\n4\n", "line 4 has 1 fields"),
    ] {
        let error = read(cut, None).await.unwrap_err();
        assert!(fixture.text(&error).contains(expected_text), "{error}");
    }
}

/// End of the error of every row with the wrong number of fields.
const RAGGED: &str = ": the first line must name the columns, and a text that contains ',' must be in double quotes; otherwise set separator = \";\" \
    or header = LINE in source";

#[tokio::test]
async fn rows_are_numbered_if_the_options_say_so() {
    let fixture = Fixture::new();
    fixture.write("id,year\nx,2001\nx,2002\n");
    let options = CsvOptions { id: Some("#".into()), ..CsvOptions::default() };
    let rows = fixture.open(options).await.unwrap().list_values().await.unwrap();
    assert_eq!(json(&rows), "{\"_row\":1,\"id\":\"x\",\"year\":2001}\n{\"_row\":2,\"id\":\"x\",\"year\":2002}");
}

#[tokio::test]
async fn a_quote_that_is_never_closed_costs_no_more_than_a_row() {
    let fixture = Fixture::new();
    let mut file = File::create(fixture.path()).unwrap();
    file.write_all(b"id,name\n1,\"").unwrap();
    for _ in 0..6 {
        file.write_all(&vec![b'x'; 1 << 20]).unwrap();
    }
    let error = fixture.open(CsvOptions::default()).await.unwrap_err();
    assert_eq!(fixture.text(&error), "products.csv line 2 is larger than 4 MiB: check for a quote that is not closed");
    fixture.write(format!("id,name\n1,{}\n", "x".repeat((1 << 20) + 1)));
    let error = fixture.open(CsvOptions::default()).await.unwrap_err();
    assert_eq!(
        fixture.text(&error),
        "products.csv line 2 has more than 1 MiB in field 2: check for a quote that is not closed"
    );
}

#[tokio::test]
async fn options_decide_over_inference() {
    let fixture = Fixture::new();
    fixture.write("sku;price;raw\nb;-;AQI\na;1;AQI\n");
    let columns = vec![Column::new("price", ColumnType::Decimal), Column::new("raw", ColumnType::Bytes)];
    let options = CsvOptions {
        id: Some("sku".into()),
        columns,
        null_values: vec!["-".into()],
        delimiter: Some(b';'),
        ..CsvOptions::default()
    };
    let vista = fixture.open(options.clone()).await.unwrap();
    let rows = vista.list_values().await.unwrap();
    assert_eq!(
        json(&rows),
        "{\"sku\":\"b\",\"price\":null,\"raw\":\"AQI\"}\n{\"sku\":\"a\",\"price\":\"1\",\"raw\":\"AQI\"}"
    );
    assert_eq!(rows.get("a").unwrap()["raw"], CborValue::Bytes(vec![1, 2]));
    let wrong = CsvOptions { id: Some("nr".into()), ..options.clone() };
    let error = fixture.open(wrong).await.unwrap_err();
    assert_eq!(error.to_string(), "products has no column \"nr\" for the id: it has sku, price, raw");
    let wrong = CsvOptions { columns: vec![Column::new("prize", ColumnType::Integer)], ..options };
    let error = fixture.open(wrong).await.unwrap_err();
    assert_eq!(error.to_string(), "products has no column \"prize\": it has sku, price, raw");
}

#[tokio::test]
async fn a_file_that_changes_its_columns_or_types_loses_nothing() {
    let fixture = Fixture::new();
    fixture.write("id,price\n1,10\n");
    let vista = fixture.open(CsvOptions::default()).await.unwrap();
    fixture.write("new,price,id\nx,cheap,1\n,20,2\n");
    let rows = vista.list_values().await.unwrap();
    assert_eq!(json(&rows), "{\"id\":1,\"price\":\"cheap\",\"new\":\"x\"}\n{\"id\":2,\"price\":20,\"new\":null}");
    fixture.write("price\n10\n");
    let error = vista.list_values().await.unwrap_err();
    assert_eq!(
        fixture.text(&error),
        "products.csv no longer has its column \"id\": its header has changed; restart to serve the new columns"
    );
    std::fs::remove_file(fixture.path()).unwrap();
    let error = vista.list_values().await.unwrap_err();
    assert_eq!(error.kind(), diorama_core::vista::ErrorKind::Transient);
    assert!(fixture.text(&error).starts_with("cannot read products.csv: No such file"), "{error}");
}

#[tokio::test]
async fn the_contract_suite_passes() {
    let fixture = Fixture::new();
    fixture.write(crate::contract::CSV);
    let vista = fixture.open(CsvOptions::default()).await.unwrap();
    crate::contract::reads(&vista, crate::contract::Natural::Stored).await;
    crate::contract::refuses_writes(&vista).await;
}

#[tokio::test]
async fn all_but_filtering_is_refused() {
    let fixture = Fixture::new();
    fixture.write("id,price\n1,10\n2,20\n");
    let mut vista = fixture.open(CsvOptions::default()).await.unwrap();
    assert!(matches!(vista.add_order("price", false), Err(Error::Unsupported { .. })));
    assert!(matches!(vista.add_search("x"), Err(Error::Unsupported { .. })));
    assert!(matches!(vista.set_page_size(1), Err(Error::Unsupported { .. })));
    assert!(matches!(vista.get_count().await, Err(Error::Unsupported { .. })));
    assert!(matches!(vista.insert("3", &Record::new()).await, Err(Error::Unsupported { .. })));
    assert!(matches!(vista.delete_all().await, Err(Error::Unsupported { .. })));
    assert_eq!(vista.get_value("2").await.unwrap().unwrap()["price"], 20.into());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The fast path yields the bytes of the canonical encoding, so caches, ETags and diffs see no difference.
    #[test]
    fn rows_have_the_bytes_that_encoding_their_records_gives(
        cells in proptest::collection::vec(("[a-c\"\\\\\u{1}é,\n]{0,4}", any::<i32>(), any::<f64>(), any::<bool>()), 1..8),
    ) {
        let mut file = csv::Writer::from_writer(Vec::new());
        file.write_record(["text", "z\"n", "float", "flag"]).unwrap();
        for (text, integer, float, flag) in &cells {
            let float = if float.is_finite() { format!("{float}") } else { "NA".into() };
            file.write_record([text, &integer.to_string(), &float, &flag.to_string()]).unwrap();
        }
        let fixture = Fixture::new();
        fixture.write(file.into_inner().unwrap());
        let (csv, rows) = fixture.read();
        prop_assert_eq!(rows.len(), cells.len());
        for ((id, body), (text, integer, ..)) in rows.bodies().zip(&cells) {
            let record = body.decode().unwrap();
            prop_assert_eq!(Body::encode(id, &record, csv.0.schema.layout()), body.to_body());
            prop_assert_eq!(value_to_json(&record["z\"n"]), integer.to_string().into_bytes());
            prop_assert_eq!(record["text"].as_text().unwrap_or_default(), text);
        }
    }
}

#[test]
#[ignore = "a measurement: run it with --release"]
fn reads_fast() {
    let fixture = Fixture::new();
    let mut file = std::io::BufWriter::new(File::create(fixture.path()).unwrap());
    writeln!(file, "id,name,category,price,stock,weight,active,added,note").unwrap();
    for n in 0..1_000_000 {
        writeln!(
            file,
            "{n},Product {n},cat-{},{}.5,{},{}.25,true,2024-01-{:02},some text {n}",
            n % 10,
            n % 500,
            n % 99,
            n % 7,
            n % 28 + 1
        )
        .unwrap();
    }
    drop(file);
    let start = std::time::Instant::now();
    let (_, rows) = fixture.read();
    println!("{} rows: learned and read in {:?}", rows.len(), start.elapsed());
}

#[tokio::test]
async fn an_id_column_of_an_unusable_type_makes_another_column_the_id() {
    for (content, id) in [
        ("id,code\n1.5,a\n2.5,b\n", "code"),
        ("id,code\n1.5,a\n2.5,a\n", "_row"),
        ("product_id,code\n1.5,a\n2.5,b\n", "code"),
        ("id,code\n7,a\n8,b\n", "id"),
        ("kind,code\nx,a\nx,b\n", "code"),
    ] {
        let fixture = Fixture::new();
        fixture.write(content);
        let vista = fixture.open(CsvOptions::default()).await.unwrap();
        assert_eq!(vista.schema().id_column(), id, "{content}");
    }
}
