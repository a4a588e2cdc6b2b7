use std::fs::File;
use std::io::Write as _;

use tempfile::TempDir;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::super::archive::{Format, check};
use super::*;
use crate::connector::Connector as _;
use diorama_core::record::value_to_json;
use diorama_core::vista::ErrorKind;

/// Styles: 0 none, 1 date, 2 date and time, 3 duration, 4 time.
const STYLES: &str = r#"<?xml version="1.0"?><styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">
    <cellXfs count="5"><xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="22"/><xf numFmtId="46"/><xf numFmtId="21"/></cellXfs></styleSheet>"#;
const MAIN: &str = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
const RELATIONS: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";

struct Fixture {
    dir: TempDir,
    name: &'static str,
}

impl Fixture {
    fn new(name: &'static str) -> Fixture {
        Fixture { dir: tempfile::tempdir().unwrap(), name }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(self.name)
    }

    fn zip(&self, parts: &[(&str, &str)]) {
        let mut zip = ZipWriter::new(File::create(self.path()).unwrap());
        for (name, content) in parts {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(content.as_bytes()).unwrap();
        }
        zip.finish().unwrap();
    }

    /// Writes an `.xlsx` with sheets of these rows, each `<row>` elements.
    fn xlsx(&self, sheets: &[(&str, &str)]) {
        let list = |item: &dyn Fn(usize, &str) -> String| -> String {
            sheets.iter().enumerate().map(|(at, (name, _))| item(at + 1, name)).collect()
        };
        let workbook = format!(
            r#"<workbook xmlns="{MAIN}" xmlns:r="{RELATIONS}"><sheets>{}</sheets></workbook>"#,
            list(&|at, name| {
                let hidden = if name.starts_with('_') { r#" state="hidden""# } else { "" };
                format!(r#"<sheet name="{name}" sheetId="{at}" r:id="rId{at}"{hidden}/>"#)
            })
        );
        let relations = format!(
            r#"<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{}</Relationships>"#,
            list(&|at, _| format!(
                r#"<Relationship Id="rId{at}" Type="{RELATIONS}/worksheet" Target="worksheets/sheet{at}.xml"/>"#
            ))
        );
        let types = r#"<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>"#;
        let root = format!(
            r#"<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="{RELATIONS}/officeDocument" Target="xl/workbook.xml"/></Relationships>"#
        );
        let strings = format!(r#"<sst xmlns="{MAIN}"><si><t>Größe</t></si></sst>"#);
        let mut parts = vec![
            ("[Content_Types].xml".to_string(), types.to_string()),
            ("_rels/.rels".into(), root),
            ("xl/workbook.xml".into(), workbook),
            ("xl/_rels/workbook.xml.rels".into(), relations),
            ("xl/styles.xml".into(), STYLES.into()),
            ("xl/sharedStrings.xml".into(), strings),
        ];
        for (at, (_, rows)) in sheets.iter().enumerate() {
            let sheet = format!(r#"<worksheet xmlns="{MAIN}"><sheetData>{rows}</sheetData></worksheet>"#);
            parts.push((format!("xl/worksheets/sheet{}.xml", at + 1), sheet));
        }
        let parts: Vec<(&str, &str)> = parts.iter().map(|(name, content)| (&**name, &**content)).collect();
        self.zip(&parts);
    }

    /// Writes an `.ods` with one sheet of these `<table:table-row>` elements.
    fn ods(&self, rows: &str) {
        let spaces =
            ["office", "table", "text", "calcext"].map(|name| format!(r#"xmlns:{name}="urn:{name}""#)).join(" ");
        let content = format!(
            r#"<?xml version="1.0"?><office:document-content {spaces}><office:body><office:spreadsheet><table:table table:name="Sheet1">{rows}</table:table></office:spreadsheet></office:body></office:document-content>"#
        );
        let manifest = r#"<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"/>"#;
        self.zip(&[
            ("mimetype", "application/vnd.oasis.opendocument.spreadsheet"),
            ("META-INF/manifest.xml", manifest),
            ("content.xml", &content),
        ]);
    }

    async fn open(&self, options: SpreadsheetOptions) -> Result<Vista> {
        Spreadsheet::open("goods", self.path(), SpreadsheetOptions { settle: Some(Duration::ZERO), ..options }).await
    }

    async fn rows(&self, options: SpreadsheetOptions) -> Vec<String> {
        texts(&self.open(options).await.unwrap()).await
    }
}

async fn texts(vista: &Vista) -> Vec<String> {
    let cell = |value: &CborValue| String::from_utf8(value_to_json(value)).unwrap();
    let rows = vista.list_values().await.unwrap();
    let text = |record: Record| {
        let cells: Vec<String> = record.iter().map(|(name, value)| format!("{name}={}", cell(value))).collect();
        cells.join(" ")
    };
    rows.iter().map(|(_, record)| text(record)).collect()
}

/// Returns the row `number` with `cells` from column A: `=1` is a number, `@1:45000` one with a style, `?1` a boolean, `!#N/A` an
/// error, anything else a text, and an empty one no cell.
fn row(number: u32, cells: &[&str]) -> String {
    let cell = |(at, cell): (usize, &&str)| {
        let name = cell_name(number - 1, u32::try_from(at).unwrap());
        let (kind, rest) = cell.split_at(cell.chars().next().map_or(0, char::len_utf8));
        match kind {
            "" => String::new(),
            "=" => format!(r#"<c r="{name}"><v>{rest}</v></c>"#),
            "?" => format!(r#"<c r="{name}" t="b"><v>{rest}</v></c>"#),
            "!" => format!(r#"<c r="{name}" t="e"><v>{rest}</v></c>"#),
            "$" => format!(r#"<c r="{name}" t="s"><v>{rest}</v></c>"#),
            "@" => {
                let (style, value) = rest.split_once(':').unwrap();
                format!(r#"<c r="{name}" s="{style}"><v>{value}</v></c>"#)
            }
            _ => format!(r#"<c r="{name}" t="inlineStr"><is><t>{cell}</t></is></c>"#),
        }
    };
    format!(r#"<row r="{number}">{}</row>"#, cells.iter().enumerate().map(cell).collect::<String>())
}

fn inferred<'a>(all: &'a [Inferred], what: &str) -> &'a Inferred {
    all.iter().find(|guess| guess.what == what).unwrap_or_else(|| panic!("no {what} in {all:?}"))
}

#[tokio::test]
async fn cells_have_the_types_of_the_sheet() {
    let fixture = Fixture::new("goods.xlsx");
    let rows = [
        row(1, &["id", "$0", "Price", "Day", "At", "For", "Open", "Code", "Sum"]),
        row(2, &["=1", "Bun", "=1.5", "@1:45000", "@2:45000.5", "@3:1.5", "?1", "=12", "=3"]),
        row(3, &["=2", "", "=2", "@1:45001", "@2:45001", "", "?0", "A7", "!#DIV/0!"]),
        // A blank row.
        row(4, &[""]),
        row(5, &["=9007199254740992", "Éclair", "=-0.25", "", "", "", "", "", ""]),
    ];
    fixture.xlsx(&[("Goods", &rows.concat())]);
    let vista = fixture.open(SpreadsheetOptions::default()).await.unwrap();
    let expected = [
        r#"id=1 Größe="Bun" Price=1.5 Day="2023-03-15" At="2023-03-15T12:00:00" For="36:00:00" Open=true Code="12" Sum=3"#,
        r#"id=2 Größe=null Price=2 Day="2023-03-16" At="2023-03-16" For=null Open=false Code="A7" Sum=null"#,
        r#"id=9007199254740992 Größe="Éclair" Price=-0.25 Day=null At=null For=null Open=null Code=null Sum=null"#,
    ];
    assert_eq!(texts(&vista).await, expected);
    use ColumnType as T;
    let types: Vec<T> = vista.schema().columns().iter().map(|column| column.ty).collect();
    let expected =
        [T::Integer, T::String, T::Number, T::Date, T::Datetime, T::String, T::Boolean, T::String, T::Integer];
    assert_eq!(types, expected);
    let all = vista.shell().inferred();
    assert_eq!(inferred(&all, "type of \"Code\"").because, "cell H3 is a text: 1 of 2 are");
    assert_eq!(inferred(&all, "null in \"Sum\"").because, "cell I3 has this error");
    let declared = SpreadsheetOptions { columns: vec![Column::new("Code", ColumnType::Integer)], ..Default::default() };
    assert!(fixture.rows(declared).await[0].contains("Code=12 "));
}

#[tokio::test]
async fn the_header_is_found_below_titles_and_names_are_completed() {
    let fixture = Fixture::new("goods.xlsx");
    let rows = [
        row(1, &["Prices of 2026"]),
        row(3, &["Name", "", "Name", "=2026"]),
        row(4, &["a", "=1", "b", "=5", "beyond"]),
        row(5, &["c", "=2", "d", "=6"]),
    ];
    fixture.xlsx(&[("Goods", &rows.concat())]);
    let vista = fixture.open(SpreadsheetOptions::default()).await.unwrap();
    let found = texts(&vista).await;
    assert_eq!(found[0], r#"Name="a" column_2=1 Name.1="b" 2026=5 column_5="beyond""#);
    assert_eq!(vista.schema().id_column(), "Name");
    assert_eq!(inferred(&vista.shell().inferred(), "header").value, "row 3");
    let options = SpreadsheetOptions { header: Some(4), ..Default::default() };
    assert_eq!(fixture.rows(options).await, [r#"a="c" 1=2 b="d" 5=6 beyond=null"#]);
}

#[tokio::test]
async fn each_sheet_with_rows_is_a_source() {
    let fixture = Fixture::new("book.xlsx");
    let sheet = |name: &str| [row(1, &["id", "name"]), row(2, &["=1", name])].concat();
    let (first, second, hidden) = (sheet("a"), sheet("b"), sheet("c"));
    let sheets = [("Goods", &*first), ("Empty", ""), ("More goods", &*second), ("_hidden", &*hidden)];
    fixture.xlsx(&sheets);
    let vista = fixture.open(SpreadsheetOptions::default()).await.unwrap();
    assert_eq!(texts(&vista).await, [r#"id=1 name="a""#]);
    let note = inferred(&vista.shell().inferred(), "sheet").because.clone();
    assert_eq!(note, "it is the first of 3: Goods, Empty, More goods");
    let by = |sheet: &str| SpreadsheetOptions { sheet: Some(sheet.into()), ..Default::default() };
    assert_eq!(fixture.rows(by("More goods")).await, [r#"id=1 name="b""#]);
    assert_eq!(fixture.rows(by("_hidden")).await, [r#"id=1 name="c""#]);
    let error = fixture.open(by("x")).await.unwrap_err();
    assert!(error.to_string().ends_with("has no sheet \"x\": it has Goods, Empty, More goods, _hidden"), "{error}");
    let error = fixture.open(by("Empty")).await.unwrap_err();
    assert!(error.to_string().contains("has no header row"), "{error}");
    let source = crate::spreadsheet::SpreadsheetConnector.file(&fixture.path()).unwrap();
    let parts: Vec<String> = source.parts().into_iter().map(|(name, _)| name).collect();
    assert_eq!(parts, ["Goods", "More goods"]);
}

#[tokio::test]
async fn files_of_libreoffice_are_read() {
    let fixture = Fixture::new("goods.ods");
    let text = |text: &str| {
        format!(r#"<table:table-cell office:value-type="string"><text:p>{text}</text:p></table:table-cell>"#)
    };
    let number = |value: &str| {
        format!(
            r#"<table:table-cell office:value-type="float" office:value="{value}"><text:p>x</text:p></table:table-cell>"#
        )
    };
    let day = r#"<table:table-cell office:value-type="date" office:date-value="2024-02-29"/>"#;
    let time = r#"<table:table-cell office:value-type="time" office:time-value="PT10H30M00S"/>"#;
    let rest = r#"<table:table-cell table:number-columns-repeated="16380"/>"#;
    let row = |cells: &[&str]| format!("<table:table-row>{}</table:table-row>", cells.concat());
    let rows = [
        row(&[&text("id"), &text("name"), &text("day"), &text("time"), rest]),
        row(&[&number("1"), &text("Grüße &amp; mehr"), day, time, rest]),
        row(&[&number("2"), &text("#DIV/0!"), "<table:table-cell/>", "<table:table-cell/>", rest]),
        r#"<table:table-row table:number-rows-repeated="1048570"><table:table-cell table:number-columns-repeated="16384"/></table:table-row>"#.into(),
    ];
    fixture.ods(&rows.concat());
    let found = fixture.rows(SpreadsheetOptions::default()).await;
    let expected =
        [r#"id=1 name="Grüße & mehr" day="2024-02-29" time="10:30:00""#, "id=2 name=null day=null time=null"];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_file_that_unpacks_to_too_much_is_refused() {
    let fixture = Fixture::new("bomb.ods");
    let cell =
        r#"<table:table-cell table:number-columns-repeated="16384" office:value-type="float" office:value="1"/>"#;
    let row = |cells: &str| format!("<table:table-row>{cells}</table:table-row>");
    let wide = row(cell).repeat(1_300);
    let long = format!(r#"<table:table-row table:number-rows-repeated="1048576">{}</table:table-row>"#, cell);
    let gap = format!(
        r#"{}<table:table-row table:number-rows-repeated="1048000"><table:table-cell/></table:table-row>{}"#,
        row(cell),
        row(r#"<table:table-cell office:value-type="float" office:value="1"/>"#)
    );
    for rows in [wide, long, gap] {
        fixture.ods(&rows);
        let error = fixture.open(SpreadsheetOptions::default()).await.unwrap_err();
        assert!(error.to_string().contains("a sheet has more than 20000000 cells"), "{error}");
    }
    let fixture = Fixture::new("bomb.xlsx");
    let spaces = " ".repeat(4 << 20);
    fixture.zip(&[("xl/workbook.xml", &spaces), ("xl/other.xml", &spaces)]);
    let file = File::open(fixture.path()).unwrap();
    assert!(file.metadata().unwrap().len() < 64 << 10);
    let error = check(&file, 7 << 20).unwrap_err();
    assert_eq!(error, "it unpacks to more than 7340032 bytes");
    assert_eq!(check(&file, 8 << 20), Ok(Format::Xlsx));
}

#[tokio::test]
async fn a_damaged_file_is_an_error_and_never_a_panic() {
    let fixture = Fixture::new("goods.xlsx");
    fixture.xlsx(&[("Goods", &[row(1, &["id", "name"]), row(2, &["=1", "a"])].concat())]);
    let whole = std::fs::read(fixture.path()).unwrap();
    for at in (0..whole.len()).step_by(11) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        std::fs::write(fixture.path(), damaged).unwrap();
        if let Err(error) = fixture.open(SpreadsheetOptions::default()).await {
            assert!(!error.to_string().contains("panicked"), "{error}");
        }
    }
    std::fs::write(fixture.path(), &whole[..whole.len() / 2]).unwrap();
    let error = fixture.open(SpreadsheetOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert!(error.to_string().contains("it is not an .xlsx or .ods file"), "{error}");
}

#[tokio::test]
async fn a_repeated_or_missing_id_is_named_by_its_row() {
    let fixture = Fixture::new("goods.xlsx");
    let rows =
        [row(1, &["id", "name"]), row(2, &["=1", "a"]), row(3, &["", "b"]), row(4, &["=3", "c"]), row(5, &["=4", "d"])];
    fixture.xlsx(&[("Goods", &rows.concat())]);
    let vista = fixture.open(SpreadsheetOptions::default()).await.unwrap();
    let listed = vista.list_values().await.unwrap();
    assert!(listed.undecodable().unwrap().first.contains("row 3 of"), "{:?}", listed.undecodable());
    let rows = [row(1, &["id", "name"]), row(2, &["=1", "a"]), row(3, &["=1", "b"])];
    fixture.xlsx(&[("Goods", &rows.concat())]);
    assert_eq!(fixture.open(SpreadsheetOptions::default()).await.unwrap().schema().id_column(), "name");
    let by = SpreadsheetOptions { id: Some("id".into()), ..Default::default() };
    let error = fixture.open(by).await.unwrap().list_values().await.unwrap_err();
    assert!(error.to_string().contains("has id \"1\", which row 2 already has"), "{error}");
}

#[tokio::test]
async fn both_formats_keep_the_contract_of_sources() {
    let lines: Vec<Vec<&str>> = crate::contract::CSV.lines().map(|line| line.split(',').collect()).collect();
    let is_number = |cell: &str| cell.parse::<i64>().is_ok();
    let xlsx = lines.iter().zip(1..).map(|(cells, number)| {
        let cells: Vec<String> =
            cells.iter().map(|cell| if is_number(cell) { format!("={cell}") } else { (*cell).to_string() }).collect();
        row(number, &cells.iter().map(String::as_str).collect::<Vec<_>>())
    });
    let ods = lines.iter().map(|cells| {
        let cell = |cell: &&str| match (is_number(cell), cell.is_empty()) {
            (true, _) => format!(r#"<table:table-cell office:value-type="float" office:value="{cell}"/>"#),
            (false, true) => "<table:table-cell/>".to_string(),
            (false, false) => {
                format!(r#"<table:table-cell office:value-type="string"><text:p>{cell}</text:p></table:table-cell>"#)
            }
        };
        format!("<table:table-row>{}</table:table-row>", cells.iter().map(cell).collect::<String>())
    });
    let (first, second) = (Fixture::new("goods.xlsx"), Fixture::new("goods.ods"));
    first.xlsx(&[("Goods", &xlsx.collect::<String>())]);
    second.ods(&ods.collect::<String>());
    for fixture in [first, second] {
        let vista = fixture.open(SpreadsheetOptions::default()).await.unwrap();
        crate::contract::reads(&vista, crate::contract::Natural::Stored).await;
        crate::contract::refuses_writes(&vista).await;
    }
}
