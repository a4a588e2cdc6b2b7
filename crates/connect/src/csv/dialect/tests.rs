use proptest::prelude::*;

use super::*;

fn of(start: &str) -> Dialect {
    Dialect::of(start.as_bytes(), true, Declarations::default())
}

#[test]
fn the_separator_is_the_one_under_which_the_rows_agree_with_the_header() {
    for (start, delimiter, padded) in [
        ("Name;Preis (EUR, netto)\nMuffin;1,75\nBun;2,10\n", b';', false),
        ("City, State\tPop\nAustin, TX\t900\nReno, NV\t260\n", b'\t', false),
        ("id,name\n1;2;3;4\n", b',', false),
        ("id;name;price, EUR\n", b';', false),
        ("id,tags\n1,a;b\n2,c;d;e\n", b',', false),
        ("id,a;b,c\n1,x;y,2\n2,z;u,3\n", b',', false),
        ("id\tname\r\n", b'\t', false),
        ("id|name", b'|', false),
        ("\u{feff}\r\nid;name\n", b';', false),
        ("\"a;b;c\",d\n", b',', false),
        ("\"a\n;;b\",d\n", b',', false),
        ("name\n", b',', false),
        ("note\nhello, world\nbye, now\n", b',', false),
        ("", b',', false),
        ("id, name , price\n", b',', true),
        ("id , name\n", b',', true),
        ("Full Name,Unit Price\n", b',', false),
        ("\"a, b\",c\n", b',', false),
    ] {
        let found = of(start);
        assert_eq!((found.delimiter as char, found.padded), (delimiter as char, padded), "{start:?}");
    }
    let said = Declarations { separator: Some(b'\t'), header: None };
    assert_eq!(Dialect::of(b"a,b", true, said).delimiter, b'\t');
}

#[test]
fn the_header_is_found_under_comments_titles_and_blank_lines() {
    let ten = "# one\n# two, three\n#\n".repeat(3) + "# ten\n";
    for (above, table) in [
        ("sep=;\n", "a;b\n1;2\n"),
        ("\"sep=;\"\r\n", "a;b\r\n1;2\r\n"),
        (&ten, "id,name\n1,a\n2,b\n"),
        ("\n\n  \n", "id,name\n1,a\n"),
        ("An export of 2024\n", "id,name\n1,a\n"),
        ("Sales, 2024;;\nof Friday;;\n;;\n", "id;name;price\n1;a;2\n2;b;3\n"),
        ("\"Data Source\",\"Bank\",\n\n\"Updated\",\"2020\",\n\n", "a,b,c,d,e,f\nx,y,z,u,1,2\nx,y,z,u,3,4\n"),
        (
            "\"Data Source\",\"Bank\",\n\n\"Updated\",\"2020\",\n\n",
            "\"a\",\"b\",\"1960\",\"1961\",\nx,y,1,2,\nz,u,3,4,\n",
        ),
        ("# seps\n", "a;b\n1;2\n"),
        ("", "#,Name,Type\n1,Bulbasaur,Grass\n2,Ivysaur,Grass\n"),
        ("##version 1\n", "#chrom\tpos\tid\nx\t1\ta\nx\t2\tb\n"),
        ("", "id\nx,1\ny,2\n"),
        ("", ",name\n0,a\n1,b\n"),
        ("\u{feff}", "id,name\n1,a\n"),
    ] {
        let start = format!("{above}{table}");
        let (bytes, lines) = of(&start).skipped;
        let skipped = if above == "\u{feff}" { 0 } else { above.len() as u64 };
        let rest = &start.as_bytes()[bytes as usize..];
        assert_eq!(first_line(rest), first_line(table.as_bytes()), "{start:?}");
        assert!(bytes <= skipped, "{start:?}");
        let ends = start.as_bytes()[..bytes as usize].iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(lines, ends as u64, "{start:?}");
    }
    let said = Declarations { separator: None, header: Some(3) };
    assert_eq!(Dialect::of(b"x,y\nz\na,b\n1,2\n", true, said).skipped, (6, 2));
}

#[test]
fn quotes_without_need_tell_that_everything_is_quoted() {
    for (header, quoted) in [
        ("\"id\",\"name\"\n", true),
        ("id,\"full name\"\n", true),
        ("id,name\n", false),
        ("id,\"a,b\",\"\"\n", false),
        ("\"#id\",\" x\",\"a;b\"\n", false),
    ] {
        assert_eq!(of(header).quoted, quoted, "{header:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// What stands in quotes says nothing of the separator.
    #[test]
    fn the_separator_is_the_same_whatever_quoted_texts_contain(
        separator in prop_oneof![Just(b','), Just(b';'), Just(b'\t'), Just(b'|')],
        cells in proptest::collection::vec(("[a-z]{1,5}", "[a-z,;|\t\n #\"]{0,12}", 0_u32..1000), 1..30),
    ) {
        let mut file = csv::WriterBuilder::new().delimiter(separator).from_writer(Vec::new());
        file.write_record(["key", "text", "number"]).unwrap();
        for (key, text, number) in &cells {
            // `,;|` and tabs only in quotes.
            file.write_record([key, &format!("{text}\n"), &number.to_string()]).unwrap();
        }
        let file = file.into_inner().unwrap();
        let found = Dialect::of(&file, true, Declarations::default());
        prop_assert_eq!((found.delimiter as char, found.skipped), (separator as char, (0, 0)));
    }
}
