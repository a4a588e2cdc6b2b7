use std::fs::File;
use std::time::SystemTime;

use parquet::basic::Compression;
use parquet::data_type::*;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;
use tempfile::TempDir;

use super::*;
use diorama_core::record::value_to_json;
use diorama_core::vista::ErrorKind;

type ColumnContent = Box<dyn Fn(&mut SerializedColumnWriter<'_>)>;

/// Values of a column of one row group with their levels.
fn column<T: DataType>(values: Vec<T::T>, defs: &[i16], reps: &[i16]) -> ColumnContent {
    let (defs, reps) = (defs.to_vec(), reps.to_vec());
    Box::new(move |writer| {
        let levels = |levels: &[i16]| (!levels.is_empty()).then(|| levels.to_vec());
        writer.typed::<T>().write_batch(&values, levels(&defs).as_deref(), levels(&reps).as_deref()).unwrap();
    })
}

struct Fixture {
    dir: TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("goods.parquet")
    }

    fn write(&self, schema: &str, compression: Compression, groups: Vec<Vec<ColumnContent>>) {
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
        let mut writer = SerializedFileWriter::new(File::create(self.path()).unwrap(), schema, properties).unwrap();
        for columns in groups {
            let mut group = writer.next_row_group().unwrap();
            for content in columns {
                let mut column = group.next_column().unwrap().unwrap();
                content(&mut column);
                column.close().unwrap();
            }
            assert!(group.next_column().unwrap().is_none());
            group.close().unwrap();
        }
        writer.close().unwrap();
    }

    fn age(&self) {
        let file = std::fs::OpenOptions::new().write(true).open(self.path()).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    }

    async fn open(&self, options: ParquetOptions) -> Result<Vista> {
        let options = ParquetOptions { settle: Some(Duration::ZERO), ..options };
        Parquet::open("goods", self.path(), options).await
    }

    async fn rows(&self, options: ParquetOptions) -> Vec<String> {
        let rows = self.open(options).await.unwrap().list_values().await.unwrap();
        let cell = |value: &CborValue| String::from_utf8(value_to_json(value)).unwrap();
        let text = |record: Record| {
            let cells: Vec<String> = record.iter().map(|(name, value)| format!("{name:?}:{}", cell(value))).collect();
            format!("{{{}}}", cells.join(","))
        };
        rows.iter().map(|(_, record)| text(record)).collect()
    }
}

fn texts(texts: &[&str]) -> Vec<ByteArray> {
    texts.iter().map(|text| ByteArray::from(*text)).collect()
}

fn fixed(bytes: &[u8]) -> Vec<FixedLenByteArray> {
    vec![ByteArray::from(bytes.to_vec()).into()]
}

/// A row with every type, one with nulls only, and one with what lies between.
#[tokio::test]
async fn values_of_all_types_are_exact() {
    let fixture = Fixture::new();
    let schema = "message m {
        required int64 id;
        optional boolean flag;
        optional int32 tiny (INTEGER(8,true));
        optional int64 large (INTEGER(64,false));
        optional int32 middle (INTEGER(32,false));
        optional int64 price (DECIMAL(18,2));
        optional fixed_len_byte_array(16) exact (DECIMAL(38,10));
        optional int32 day (DATE);
        optional int64 at (TIMESTAMP(MICROS,true));
        optional int64 local (TIMESTAMP(NANOS,false));
        optional int32 hour (TIME(MILLIS,true));
        optional int96 old;
        optional float real;
        optional double double;
        optional fixed_len_byte_array(2) half (FLOAT16);
        optional binary name (STRING);
        optional binary document (JSON);
        optional binary raw;
        optional fixed_len_byte_array(16) key (UUID);
        optional fixed_len_byte_array(12) span (INTERVAL);
    }";
    let mut old = Int96::new();
    let nanoseconds: u64 = 12 * 3_600 * 1_000_000_000 + 123_456_789;
    old.set_data(nanoseconds as u32, (nanoseconds >> 32) as u32, 2_440_588 + 20_000);
    let exact = 12_345_678_901_234_567_890_123_456_789_012_345_678_i128;
    let only = &[1, 0][..];
    let columns = vec![
        column::<Int64Type>(vec![i64::MAX, 2], &[], &[]),
        column::<BoolType>(vec![true], only, &[]),
        column::<Int32Type>(vec![-128], only, &[]),
        column::<Int64Type>(vec![-1], only, &[]),
        column::<Int32Type>(vec![-1], only, &[]),
        column::<Int64Type>(vec![-999_999_999_999_999_999], only, &[]),
        column::<FixedLenByteArrayType>(fixed(&exact.to_be_bytes()), only, &[]),
        column::<Int32Type>(vec![20_000], only, &[]),
        column::<Int64Type>(vec![1_700_000_000_123_456], only, &[]),
        column::<Int64Type>(vec![1_700_000_000_123_456_789], only, &[]),
        column::<Int32Type>(vec![86_399_999], only, &[]),
        column::<Int96Type>(vec![old], only, &[]),
        column::<FloatType>(vec![0.1], only, &[]),
        column::<DoubleType>(vec![1e-300], only, &[]),
        column::<FixedLenByteArrayType>(fixed(&[0x00, 0x3c]), only, &[]),
        column::<ByteArrayType>(texts(&["Grüße, 世界"]), only, &[]),
        column::<ByteArrayType>(texts(&[r#"{"n":9007199254740993}"#]), only, &[]),
        column::<ByteArrayType>(vec![ByteArray::from(vec![0, 255])], only, &[]),
        column::<FixedLenByteArrayType>(fixed(&[0x11; 16]), only, &[]),
        column::<FixedLenByteArrayType>(fixed(&[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]), only, &[]),
    ];
    fixture.write(schema, Compression::SNAPPY, vec![columns]);
    let expected = concat!(
        r#"{"id":9223372036854775807,"flag":true,"tiny":-128,"large":18446744073709551615,"middle":4294967295,"#,
        r#""price":"-9999999999999999.99","exact":"1234567890123456789012345678.9012345678","day":"2024-10-04","#,
        r#""at":"2023-11-14T22:13:20.123456Z","local":"2023-11-14T22:13:20.123456789","hour":"23:59:59.999","#,
        r#""old":"2024-10-04T12:00:00.123456789Z","real":0.1,"double":1e-300,"half":1.0,"name":"Grüße, 世界","#,
        r#""document":{"n":9007199254740993},"raw":"AP8","key":"11111111-1111-1111-1111-111111111111","#,
        r#""span":"P1M0DT0.001S"}"#
    );
    let rows = fixture.rows(ParquetOptions::default()).await;
    assert_eq!(rows[0], expected);
    assert_eq!(rows[1].matches("null").count(), 19, "{}", rows[1]);
    let schema = fixture.open(ParquetOptions::default()).await.unwrap().schema();
    let types: Vec<ColumnType> = schema.columns().iter().map(|column| column.ty).collect();
    use ColumnType as T;
    let expected = [
        T::Integer,
        T::Boolean,
        T::Integer,
        T::Integer,
        T::Integer,
        T::Decimal,
        T::Decimal,
        T::Date,
        T::Datetime,
        T::Datetime,
        T::String,
        T::Datetime,
        T::Number,
        T::Number,
        T::Number,
        T::String,
        T::Json,
        T::Bytes,
        T::Uuid,
        T::String,
    ];
    assert_eq!(types, expected);
    let declared =
        ParquetOptions { columns: vec![Column::new("raw", ColumnType::String)], ..ParquetOptions::default() };
    assert!(fixture.rows(declared).await[0].contains("\"raw\""), "bytes that are not text stay as they are");
}

#[tokio::test]
async fn lists_maps_and_structs_are_json() {
    let fixture = Fixture::new();
    let schema = "message m {
        required int32 id;
        optional group tags (LIST) { repeated group list { optional binary element (STRING); } }
        optional group deep (LIST) { repeated group list { optional group element (LIST) { repeated group list { required int32 element; } } } }
        optional group legacy (LIST) { repeated int32 array; }
        optional group counts (MAP) { repeated group key_value { required binary key (STRING); optional int32 value; } }
        optional group byDay (MAP) { repeated group key_value { required int32 key; required int32 value; } }
        optional group place { required double lat; optional group more { optional int32 n; } }
        repeated int32 loose;
    }";
    let columns = vec![
        column::<Int32Type>(vec![1, 2, 3], &[], &[]),
        // ["a", null], null, []
        column::<ByteArrayType>(texts(&["a"]), &[3, 2, 0, 1], &[0, 1, 0, 0]),
        // [[1, 2], null, []], [[3]], null
        column::<Int32Type>(vec![1, 2, 3], &[4, 4, 2, 3, 4, 0], &[0, 2, 1, 1, 0, 0]),
        // [7, 8], null, []
        column::<Int32Type>(vec![7, 8], &[2, 2, 0, 1], &[0, 1, 0, 0]),
        // {"x": 1, "y": null}, null, {}
        column::<ByteArrayType>(texts(&["x", "y"]), &[2, 2, 0, 1], &[0, 1, 0, 0]),
        column::<Int32Type>(vec![1], &[3, 2, 0, 1], &[0, 1, 0, 0]),
        // {"5": 6}, null, null
        column::<Int32Type>(vec![5], &[2, 0, 0], &[0, 0, 0]),
        column::<Int32Type>(vec![6], &[2, 0, 0], &[0, 0, 0]),
        // {lat, more: {n}}, {lat, more: null}, null
        column::<DoubleType>(vec![1.5, 2.5], &[1, 1, 0], &[]),
        column::<Int32Type>(vec![9], &[3, 1, 0], &[]),
        // [1, 2], [], [3]
        column::<Int32Type>(vec![1, 2, 3], &[1, 1, 0, 1], &[0, 1, 0, 0]),
    ];
    fixture.write(schema, Compression::UNCOMPRESSED, vec![columns]);
    let expected = [
        r#"{"id":1,"tags":["a",null],"deep":[[1,2],null,[]],"legacy":[7,8],"counts":{"x":1,"y":null},"byDay":{"5":6},"place":{"lat":1.5,"more":{"n":9}},"loose":[1,2]}"#,
        r#"{"id":2,"tags":null,"deep":[[3]],"legacy":null,"counts":null,"byDay":null,"place":{"lat":2.5,"more":null},"loose":[]}"#,
        r#"{"id":3,"tags":[],"deep":null,"legacy":[],"counts":{},"byDay":null,"place":null,"loose":[3]}"#,
    ];
    assert_eq!(fixture.rows(ParquetOptions::default()).await, expected);
}

const NUMBERS: &str = "message m { required int64 id; optional binary name (STRING);
    optional group tags (LIST) { repeated group list { required int32 element; } } }";

/// Rows `from..to`: every third has no name, and row `n` has `n % 4` tags.
fn numbers(from: i64, to: i64) -> Vec<ColumnContent> {
    let ids: Vec<i64> = (from..to).collect();
    let names: Vec<ByteArray> =
        ids.iter().filter(|id| **id % 3 != 0).map(|id| ByteArray::from(format!("n{id}").as_str())).collect();
    let name_defs: Vec<i16> = ids.iter().map(|id| i16::from(id % 3 != 0)).collect();
    let (mut tags, mut defs, mut reps) = (Vec::new(), Vec::new(), Vec::new());
    for id in &ids {
        let count = i32::try_from(id % 4).unwrap();
        tags.extend(0..count);
        defs.extend(if count == 0 { vec![1] } else { vec![2; usize::try_from(count).unwrap()] });
        reps.extend((0..count.max(1)).map(|at| i16::from(at > 0)));
    }
    vec![
        column::<Int64Type>(ids, &[], &[]),
        column::<ByteArrayType>(names, &name_defs, &[]),
        column::<Int32Type>(tags, &defs, &reps),
    ]
}

#[tokio::test]
async fn row_groups_of_any_codec_are_read_in_order() {
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::BROTLI(Default::default()),
        Compression::ZSTD(Default::default()),
        Compression::LZ4_RAW,
    ];
    for codec in codecs {
        let fixture = Fixture::new();
        fixture.write(NUMBERS, codec, vec![numbers(0, 3_000), numbers(3_000, 3_001), numbers(3_001, 5_000)]);
        let rows = fixture.rows(ParquetOptions::default()).await;
        assert_eq!(rows.len(), 5_000, "{codec}");
        for (id, row) in rows.iter().enumerate() {
            let name = if id % 3 == 0 { "null".into() } else { format!("\"n{id}\"") };
            let tags = (0..id % 4).map(|tag| tag.to_string()).collect::<Vec<_>>().join(",");
            assert_eq!(row, &format!(r#"{{"id":{id},"name":{name},"tags":[{tags}]}}"#), "{codec}");
        }
    }
}

#[tokio::test]
async fn the_id_is_chosen_as_for_other_files() {
    let fixture = Fixture::new();
    let write = |schema: &str, first: &[i64], second: &[&str]| {
        let columns =
            vec![column::<Int64Type>(first.to_vec(), &[], &[]), column::<ByteArrayType>(texts(second), &[], &[])];
        fixture.write(schema, Compression::SNAPPY, vec![columns]);
    };
    let named = |first: &str| format!("message m {{ required int64 {first}; required binary code (STRING); }}");
    write(&named("id"), &[7, 7], &["a", "b"]);
    let vista = fixture.open(ParquetOptions::default()).await.unwrap();
    assert_eq!(vista.schema().id_column(), "code");
    assert!(vista.shell().inferred()[0].because.contains("repeats \"7\" (row 2)"), "{:?}", vista.shell().inferred());
    write(&named("goods_id"), &[7, 8], &["a", "b"]);
    assert_eq!(fixture.open(ParquetOptions::default()).await.unwrap().schema().id_column(), "goods_id");
    write(&named("n"), &[7, 7], &["a", "a"]);
    assert_eq!(fixture.rows(ParquetOptions::default()).await[1], r#"{"id":2,"n":7,"code":"a"}"#);
    let by = |id: &str| ParquetOptions { id: Some(id.into()), ..ParquetOptions::default() };
    let error = fixture.open(by("n")).await.unwrap().list_values().await.unwrap_err();
    assert!(error.to_string().contains("row 2 of") && error.to_string().contains("has id \"7\""), "{error}");
    let error = fixture.open(by("x")).await.unwrap_err();
    assert_eq!(error.to_string(), "goods has no column \"x\" for the id: it has n, code");
}

/// The library asserts much of what it reads.
#[tokio::test]
async fn a_damaged_file_is_an_error_and_never_a_panic() {
    let fixture = Fixture::new();
    fixture.write(NUMBERS, Compression::SNAPPY, vec![numbers(0, 200)]);
    let whole = std::fs::read(fixture.path()).unwrap();
    let mut refused = 0;
    for at in (0..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        std::fs::write(fixture.path(), damaged).unwrap();
        let listed = match fixture.open(ParquetOptions::default()).await {
            Ok(vista) => vista.list_values().await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = listed {
            refused += 1;
            assert!(!error.to_string().contains("panicked"), "{error}");
        }
    }
    assert!(refused > 10, "{refused}");
    for end in (0..whole.len()).step_by(97) {
        std::fs::write(fixture.path(), &whole[..end]).unwrap();
        let error = fixture.open(ParquetOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    }
}

#[tokio::test]
async fn an_unchanged_file_is_not_read_again_and_new_columns_are_kept() {
    let fixture = Fixture::new();
    fixture.write(NUMBERS, Compression::SNAPPY, vec![numbers(1, 10)]);
    fixture.age();
    let vista = fixture.open(ParquetOptions::default()).await.unwrap();
    let rows = vista.shell().list(&Query::default()).await.unwrap();
    let fingerprint = rows.fingerprint().cloned().unwrap();
    assert!(vista.shell().list_changed(&fingerprint).await.unwrap().is_none());
    let schema = "message m { required int64 id; required binary other (STRING); }";
    let columns = vec![column::<Int64Type>(vec![1], &[], &[]), column::<ByteArrayType>(texts(&["new"]), &[], &[])];
    fixture.write(schema, Compression::SNAPPY, vec![columns]);
    let rows = vista.shell().list_changed(&fingerprint).await.unwrap().unwrap();
    assert_eq!(rows.get("1").unwrap()["other"], "new".into());
}

#[tokio::test]
async fn a_file_keeps_the_contract_of_sources() {
    let fixture = Fixture::new();
    let schema = "message m {
        required int64 id;
        required binary name (STRING);
        optional int64 price;
        required int64 category_id;
    }";
    let rows: Vec<Vec<&str>> = crate::contract::CSV.lines().skip(1).map(|line| line.split(',').collect()).collect();
    // Rows of several groups are one list.
    for size in [3, 100] {
        let group = |rows: &[Vec<&str>]| {
            let numbers = |at: usize| rows.iter().filter_map(|row| row[at].parse::<i64>().ok()).collect::<Vec<_>>();
            let names: Vec<&str> = rows.iter().map(|row| row[1]).collect();
            let known: Vec<i16> = rows.iter().map(|row| i16::from(!row[2].is_empty())).collect();
            vec![
                column::<Int64Type>(numbers(0), &[], &[]),
                column::<ByteArrayType>(texts(&names), &[], &[]),
                column::<Int64Type>(numbers(2), &known, &[]),
                column::<Int64Type>(numbers(3), &[], &[]),
            ]
        };
        fixture.write(schema, Compression::SNAPPY, rows.chunks(size).map(group).collect());
        let vista = fixture.open(ParquetOptions::default()).await.unwrap();
        crate::contract::reads(&vista, crate::contract::Natural::Stored).await;
        crate::contract::refuses_writes(&vista).await;
    }
}
