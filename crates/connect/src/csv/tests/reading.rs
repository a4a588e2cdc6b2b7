//! Tests of the detection of a file's dialect, encoding, types and id.

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

async fn served(content: impl AsRef<[u8]>) -> (String, Vec<Inferred>) {
    served_as(content, CsvOptions::default()).await
}

async fn served_as(content: impl AsRef<[u8]>, options: CsvOptions) -> (String, Vec<Inferred>) {
    let fixture = Fixture::new();
    fixture.write(content);
    let vista = fixture.open(options).await.unwrap();
    (json(&vista.list_values().await.unwrap()).replace('\n', "|"), vista.shell().inferred())
}

fn guess<'a>(inferred: &'a [Inferred], what: &str) -> Option<&'a Inferred> {
    inferred.iter().find(|guess| guess.what == what)
}

#[tokio::test]
async fn the_first_rows_tell_the_separator_and_the_header() {
    for (what, content, expected) in [
        (
            "a comma in the header",
            "Name;Preis (EUR, netto)\nMuffin;1,75\nBun;2,10\n",
            r#"{"Name":"Muffin","Preis (EUR, netto)":1.75}|{"Name":"Bun","Preis (EUR, netto)":2.1}"#,
        ),
        ("tabs", "City, State\tPop\nReno, NV\t260\n", r#"{"City, State":"Reno, NV","Pop":260}"#),
        ("Excel's first line", "sep=;\r\nid;name\r\n1;a,b\r\n", r#"{"id":1,"name":"a,b"}"#),
        (
            "comments",
            "# a\n# b, c\n#\n# d\n# e\n# f\n# g\n# h\n# i\n# j\nid,name\n1,a\n2,b\n",
            r#"{"id":1,"name":"a"}|{"id":2,"name":"b"}"#,
        ),
        ("a header with a mark", "#,Name\n1,a\n2,b\n", r##"{"#":1,"Name":"a"}|{"#":2,"Name":"b"}"##),
        ("titles", "Report of 2024;;\n;;\nid;name;n\n1;a;2\n", r#"{"id":1,"name":"a","n":2}"#),
        ("blank rows", "id;name;n\n1;a;2\n;;\n2;b;3\n;;\n", r#"{"id":1,"name":"a","n":2}|{"id":2,"name":"b","n":3}"#),
        ("blank rows number nothing", "k,l\nx,x\n,\nx,x\n", r#"{"id":1,"k":"x","l":"x"}|{"id":2,"k":"x","l":"x"}"#),
        (
            "a separator too many in the header",
            "id,name,\n1,a\n2,b\n",
            r#"{"id":1,"name":"a","column_3":null}|{"id":2,"name":"b","column_3":null}"#,
        ),
        ("a separator too many in rows", "id,name\n1,a,\n2,b,\n", r#"{"id":1,"name":"a"}|{"id":2,"name":"b"}"#),
        ("a blank row above the header", ";;\nid;name;n\n1;a;2\n", r#"{"id":1,"name":"a","n":2}"#),
        ("names twice", "a,a,,a.1\n1,2,3,4\n", r#"{"a":1,"a.2":2,"column_3":3,"a.1":4}"#),
    ] {
        assert_eq!(served(content).await.0, expected, "{what}");
    }
    let (_, inferred) = served("# x\nid;name\n1;a\n2;b\n").await;
    assert_eq!(guess(&inferred, "separator").unwrap().value, "';'");
    assert_eq!(guess(&inferred, "header").unwrap().value, "line 2");
    let options = CsvOptions { delimiter: Some(b'/'), header: Some(2), ..CsvOptions::default() };
    let (rows, inferred) = served_as("x,y,z\nid/name\n1/a,b\n", options).await;
    assert_eq!(rows, r#"{"id":1,"name":"a,b"}"#);
    assert!(guess(&inferred, "separator").is_none() && guess(&inferred, "header").is_none(), "both were declared");
}

#[tokio::test]
async fn a_file_with_mostly_misfitting_rows_is_refused_with_the_keys_to_set() {
    for content in ["note\nhello, world\nbye, now\n", "id\n1,a\n2,b\n3,c\n", "a,b\n1\n2\n3,4\n"] {
        let fixture = Fixture::new();
        fixture.write(content);
        let error = fixture.open(CsvOptions::default()).await.unwrap_err();
        let message = fixture.text(&error);
        assert!(message.contains("separator =") && message.contains("header = LINE"), "{message}");
    }
}

#[tokio::test]
async fn encodings_are_detected_from_the_bytes() {
    let expected = r#"{"id":1,"name":"Crème €"}"#;
    let text = "id;name\r\n1;Crème €\r\n";
    let wide = |mark: &[u8], bytes: fn(u16) -> [u8; 2]| {
        [mark.to_vec(), text.encode_utf16().flat_map(bytes).collect()].concat()
    };
    for (what, content, encoding) in [
        ("UTF-8", text.as_bytes().to_vec(), None),
        ("UTF-8 with a mark", format!("\u{feff}{text}").into_bytes(), Some("UTF-8")),
        ("UTF-16", wide(b"\xff\xfe", u16::to_le_bytes), Some("UTF-16LE")),
        ("UTF-16 the other way round", wide(b"\xfe\xff", u16::to_be_bytes), Some("UTF-16BE")),
        ("UTF-16 without a mark", wide(b"", u16::to_le_bytes), Some("UTF-16LE")),
        ("windows-1252", b"id;name\r\n1;Cr\xe8me \x80\r\n".to_vec(), Some("windows-1252")),
    ] {
        let (rows, inferred) = served(content).await;
        assert_eq!(rows, expected, "{what}");
        let found = guess(&inferred, "encoding");
        assert_eq!(found.map(|guess| guess.value.as_str()), encoding, "{what}");
        assert_eq!(found.is_some_and(|guess| guess.is_doubtful), what == "windows-1252");
    }
    let options = |encoding: &str| CsvOptions { encoding: Some(encoding.into()), ..CsvOptions::default() };
    let (rows, inferred) = served_as(b"id;name\n1;\x83\x65\n", options("shift_jis")).await;
    assert_eq!((rows.as_str(), guess(&inferred, "encoding")), (r#"{"id":1,"name":"テ"}"#, None));
    let fixture = Fixture::new();
    fixture.write("id\n1\n");
    let error = fixture.open(options("latin-9000")).await.unwrap_err();
    assert_eq!(error.to_string(), "\"latin-9000\" is not a known encoding");
}

#[tokio::test]
async fn a_large_file_turns_out_to_be_western_by_its_last_row() {
    let mut content = b"id,name\n".to_vec();
    (0..20_000).for_each(|at| content.extend(format!("{at},Product number {at}\n").bytes()));
    content.extend(b"20000,Cr\xe8me\n");
    let fixture = Fixture::new();
    fixture.write(content);
    let rows = fixture.open(CsvOptions::default()).await.unwrap().list_values().await.unwrap();
    assert_eq!((rows.len(), &rows.get("20000").unwrap()["name"]), (20_001, &"Crème".into()));
}

#[tokio::test]
async fn compressed_files_are_read_and_truncated_ones_refused() {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all("id,name\n1,é\n2,b".as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    assert_eq!(served(&packed).await.0, r#"{"id":1,"name":"é"}|{"id":2,"name":"b"}"#);
    let fixture = Fixture::new();
    fixture.write(&packed[..packed.len() - 4]);
    let error = fixture.open(CsvOptions::default()).await.unwrap_err();
    assert!(fixture.text(&error).contains("the gzip stream is truncated"), "{error}");
    let twice = [packed.clone(), {
        let mut more = GzEncoder::new(Vec::new(), Compression::fast());
        more.write_all(b"\n3,c\n").unwrap();
        more.finish().unwrap()
    }];
    assert_eq!(served(twice.concat()).await.0.matches("id").count(), 3);
}

fn zstd(text: &str) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(text.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest)
}

#[tokio::test]
async fn zstd_files_are_read_and_truncated_ones_refused() {
    let packed = zstd("id,name\n1,é\n2,b");
    assert_eq!(served(&packed).await.0, r#"{"id":1,"name":"é"}|{"id":2,"name":"b"}"#);
    let skippable = [&[0x52, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    let frames = [skippable.clone(), packed.clone(), skippable.clone(), zstd("\n3,c\n")].concat();
    assert_eq!(served(&frames).await.0.matches("id").count(), 3);
    let fixture = Fixture::new();
    let cuts = [packed.len() - 1, packed.len() - 6, 5];
    for cut in cuts.map(|end| packed[..end].to_vec()).into_iter().chain([[&packed[..], &skippable[..9]].concat()]) {
        fixture.write(&cut);
        let error = fixture.open(CsvOptions::default()).await.unwrap_err();
        assert!(fixture.text(&error).contains("the zstd stream is truncated"), "{error}");
    }
    let mut damaged = packed.clone();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    fixture.write(&damaged);
    let error = fixture.open(CsvOptions::default()).await.unwrap_err();
    assert!(fixture.text(&error).contains("the zstd stream is damaged"), "{error}");
}

/// A frame may ask for a window of any size, which is allocated before there is a byte in it.
#[tokio::test]
async fn a_zstd_file_with_a_huge_window_is_refused() {
    let fixture = Fixture::new();
    // Exponent 31: a window of 2 TiB.
    fixture.write([0x28, 0xb5, 0x2f, 0xfd, 0x00, 31 << 3, 0x01, 0x00, 0x00]);
    let error = fixture.open(CsvOptions::default()).await.unwrap_err();
    assert!(fixture.text(&error).contains("the zstd stream is damaged"), "{error}");
}

#[tokio::test]
async fn numbers_and_nulls_are_read_as_people_write_them() {
    let (rows, inferred) = served("k,x\na,.5\nb,-.25\nc,5.\nd,+5\ne,   5\nf,NULL\n").await;
    assert_eq!(
        rows,
        r#"{"k":"a","x":0.5}|{"k":"b","x":-0.25}|{"k":"c","x":5.0}|{"k":"d","x":5}|{"k":"e","x":5}|{"k":"f","x":null}"#
    );
    assert_eq!(guess(&inferred, "null in \"x\"").unwrap().because, "line 7 has it in a column without texts");
    for word in NULL_WORDS {
        let (rows, _) = served(format!("k,x\na,1\nb,{word}\nc,{word}\n")).await;
        assert_eq!(rows, r#"{"k":"a","x":1}|{"k":"b","x":null}|{"k":"c","x":null}"#, "{word}");
    }
    for word in ["-", ".", "?", "none", "NAN"] {
        let (rows, inferred) = served(format!("k,x\na,1\nb,{word}\nc,3\n")).await;
        assert!(rows.contains(&format!(r#""x":"{word}""#)), "{rows}");
        let because = &guess(&inferred, "type of \"x\"").unwrap().because;
        assert_eq!(because, &format!("{word:?} in line 3 is not a number: 1 of 3 cells are not"));
    }
    let options = |null: &[&str]| CsvOptions {
        null: Some(null.iter().map(|word| word.to_string()).collect()),
        ..CsvOptions::default()
    };
    assert_eq!(served_as("k,x\na,1\nb,-\n", options(&["-"])).await.0, r#"{"k":"a","x":1}|{"k":"b","x":null}"#);
    assert_eq!(served_as("k,x\na,1\nb,NA\n", options(&[])).await.0, r#"{"k":"a","x":"1"}|{"k":"b","x":"NA"}"#);
    let (rows, _) = served("zip,n\n01234,1\n90210,2\n").await;
    assert_eq!(rows, r#"{"zip":"01234","n":1}|{"zip":"90210","n":2}"#);
    let (rows, _) = served("k,day\na, 2024-02-29\nb,NaN\n").await;
    assert_eq!(rows, r#"{"k":"a","day":"2024-02-29"}|{"k":"b","day":null}"#);
}

#[tokio::test]
async fn decimal_commas_are_one_decision_for_a_column() {
    let (rows, inferred) = served("k;x;y;z\na;1.250;1,20 EUR;1.5\nb;1,20;3;2\nc;300;4;3\n").await;
    assert_eq!(
        rows,
        r#"{"k":"a","x":1250,"y":"1,20 EUR","z":1.5}|{"k":"b","x":1.2,"y":"3","z":2}|{"k":"c","x":300,"y":"4","z":3}"#
    );
    let found = guess(&inferred, "numbers of \"x\"").unwrap();
    assert_eq!(found.because, "\"1,20\" in line 3 is a number that way, and so are all other cells");
    let found = guess(&inferred, "type of \"y\"").unwrap();
    assert_eq!(found.because, "\"1,20 EUR\" in line 2 is not a number: 1 of 3 cells are not");
    let options = CsvOptions { decimal: Some(b','), ..CsvOptions::default() };
    assert_eq!(served_as("k;x\na;1.250\nb;300\n", options).await.0, r#"{"k":"a","x":1250}|{"k":"b","x":300}"#);
    assert_eq!(served("k;x\na;1.250\nb;300\n").await.0, r#"{"k":"a","x":1.25}|{"k":"b","x":300}"#);
    assert_eq!(served("k,x\na,\"1,250\"\nb,300\n").await.0, r#"{"k":"a","x":1250}|{"k":"b","x":300}"#);
    let decimals = CsvOptions { columns: vec![Column::new("x", ColumnType::Decimal)], ..CsvOptions::default() };
    assert_eq!(served_as("k;x\na;1.234,50\n", decimals).await.0, r#"{"k":"a","x":"1234.50"}"#);
}

#[tokio::test]
async fn a_duplicate_id_makes_another_column_the_id() {
    for (content, id, because) in [
        (
            "id,code\n7,a\n8,b\n7,c\n",
            "code",
            "column \"id\" repeats \"7\" (line 4) and cannot identify rows; this is the first column without duplicates, which \
             may be a coincidence",
        ),
        (
            "id,code\n7,a\n7,a\n",
            "_row",
            "column \"id\" repeats \"7\" (line 3) and cannot identify rows; no column identifies rows: they are numbered in \
             \"_row\", and inserting a row renumbers the rows below it",
        ),
        (
            "id,products_id\n7,a\n7,b\n",
            "products_id",
            "column \"id\" repeats \"7\" (line 3) and cannot identify rows; this one can",
        ),
        (
            "id,code\n1,a\n,b\n",
            "code",
            "column \"id\" is missing in 1 of 2 rows and cannot identify rows; this is the first column without duplicates, which \
             may be a coincidence",
        ),
    ] {
        let fixture = Fixture::new();
        fixture.write(content);
        let vista = fixture.open(CsvOptions::default()).await.unwrap();
        assert_eq!(vista.schema().id_column(), id, "{content}");
        let inferred = vista.shell().inferred();
        let found = guess(&inferred, "id").unwrap();
        assert!(found.is_doubtful && found.because == because, "{found}");
        assert_eq!(vista.list_values().await.unwrap().len() as u64, content.lines().count() as u64 - 1);
    }
    let (rows, _) = served("id,n\n+1,a\n 2,a\n").await;
    assert_eq!(rows, r#"{"id":1,"n":"a"}|{"id":2,"n":"a"}"#);
    let fixture = Fixture::new();
    fixture.write("id,n\n+1,a\n 2,a\n");
    let rows = fixture.open(CsvOptions::default()).await.unwrap().list_values().await.unwrap();
    assert_eq!(rows.ids().collect::<Vec<_>>(), ["1", "2"]);
}

#[tokio::test]
async fn empty_texts_are_not_nulls_unless_everything_is_in_quotes() {
    let expected = r#"{"id":1,"name":"","n":null}|{"id":2,"name":null,"n":3}"#;
    assert_eq!(served("id,name,n\n1,\"\",\"\"\n2,,3\n").await.0, expected);
    assert_eq!(served("id,name,n\r\n1,\"\",\r\n2,,3\r\n").await.0, expected);
    let quoted = "\"id\",\"name\",\"n\"\n\"1\",\"\",\"\"\n\"2\",\"b\",\"3\"\n";
    assert_eq!(served(quoted).await.0, r#"{"id":1,"name":null,"n":null}|{"id":2,"name":"b","n":3}"#);
}
