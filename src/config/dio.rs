//! `[dio.NAME]`

use std::path::PathBuf;
use std::time::Duration;

use super::feed::FeedSpec;
use super::value::Reader;

/// One resource.
#[derive(Clone, Debug)]
pub struct DioSpec {
    /// Its name, as in the URL.
    pub name: String,
    /// Where its rows come from.
    pub source: Source,
    /// How long a source file that may be half written has to stay the same before it is believed.
    pub settle: Option<Duration>,
    /// Notation of a source file, where it is not to be found out.
    pub reading: ReadingSpec,
    /// The column that identifies rows.
    pub id: Option<String>,
    /// Columns as declared.
    pub columns: Vec<ColumnSpec>,
    /// Texts that mean null in a CSV file.
    pub null_values: Vec<String>,
    /// Where writes go instead of to the source.
    pub write: Option<WriteRoute>,
    /// How long a write that went there may stay over its row while the source does not show it.
    pub routed_ttl: Option<Duration>,
    /// Time between two refreshes.
    pub refresh_every: Option<Duration>,
    /// Column that holds a row's version.
    pub version: Option<String>,
    /// Rows of a list that does not say.
    pub default_limit: Option<u64>,
    /// Rows of a list, at most.
    pub max_limit: Option<u64>,
    /// Rows that one write by filter may touch, at most.
    pub max_affected: Option<u64>,
    /// Different live queries at a time, at most.
    pub max_live: Option<usize>,
    /// When a write is answered.
    pub ack: Ack,
    /// Whether changes must say which version they were made for.
    pub require_if_match: bool,
    /// Whether a refresh may remove most rows.
    pub allow_shrink: bool,
    /// Whether rows may have columns that are not declared; the default depends on `columns`.
    pub unknown_columns: Option<bool>,
    /// Deliveries to the source at a time.
    pub write_concurrency: Option<usize>,
    /// Whether one write that fails holds the writes of its own row only.
    pub order_by_row: bool,
    /// How long one write may hold all others while the source answers everything else.
    pub head_patience: Option<Duration>,
    /// Age at which a write that cannot be delivered is parked.
    pub max_age: Option<Duration>,
    /// How long one delivery may take.
    pub attempt_timeout: Option<Duration>,
    /// Whether a write of which nobody can tell whether it took effect is parked, instead of sent again.
    pub park_unknown: bool,
    /// Indexes that are built before the resource is ready.
    pub indexes: Vec<String>,
    /// How many indexes there may be.
    pub max_indexes: Option<usize>,
    /// Their bytes.
    pub index_memory: Option<usize>,
    /// How long a list of the source may take.
    pub refresh_timeout: Option<Duration>,
    /// How long any other read of the source may take.
    pub read_timeout: Option<Duration>,
    /// Rows in doubt that are read from the source in a second.
    pub reread_rate: Option<u32>,
    /// What tells of changes beside webhooks.
    pub feed: Option<FeedSpec>,
}

/// Notation of a CSV or JSON file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadingSpec {
    /// Separator of fields.
    pub separator: Option<u8>,
    /// The line of the header, from 1.
    pub header: Option<u64>,
    /// The decimal mark.
    pub decimal: Option<u8>,
    /// The encoding's name.
    pub encoding: Option<String>,
    /// Words that mean null among numbers, booleans and dates.
    pub null: Option<Vec<String>>,
}

impl ReadingSpec {
    fn read(table: &Reader<'_>, is_csv: bool) -> ReadingSpec {
        let encoding = table.text("encoding");
        if !is_csv {
            return ReadingSpec { encoding, ..ReadingSpec::default() };
        }
        let byte = |word: Option<&'static str>| word.and_then(|word| word.bytes().next());
        ReadingSpec {
            separator: separator(table),
            header: table.number("header"),
            decimal: byte(table.word("decimal", &[".", ","])),
            encoding,
            null: table.texts("null"),
        }
    }
}

/// One character of ASCII that separates fields.
fn separator(table: &Reader<'_>) -> Option<u8> {
    let text = table.text("separator")?;
    match text.as_bytes() {
        [byte] if byte.is_ascii() && !byte.is_ascii_alphanumeric() && !matches!(byte, b'"' | b'\r' | b'\n') => {
            Some(*byte)
        }
        _ => {
            let at = table.place("separator").unwrap_or(table.at);
            table.problem(at, r#"separator is one character, like ";" or "\t""#);
            None
        }
    }
}

/// When a write is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// When the journal on disk has it.
    #[default]
    Journal,
    /// When the source has it.
    Applied,
    /// When it is in memory: what the source has not taken is lost with the process.
    Memory,
}

/// Where rows come from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A CSV file.
    Csv(PathBuf),
    /// A JSON file, and where in it the rows are.
    Json(PathBuf, Option<String>),
    /// A table of a SQLite database.
    Sqlite(SqliteTable),
}

/// Where writes go instead of to the source.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteRoute {
    /// A table of a SQLite database.
    Sqlite(SqliteTable),
}

/// A table of a SQLite database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteTable {
    /// The database file.
    pub path: PathBuf,
    /// The table's name.
    pub table: String,
    /// The journal mode that the database is switched to: one of [`JOURNAL_MODES`].
    pub journal_mode: Option<&'static str>,
}

/// Journal modes of SQLite databases.
pub const JOURNAL_MODES: [&str; 4] = ["delete", "truncate", "persist", "wal"];

/// A declared column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnSpec {
    /// Its name.
    pub name: String,
    /// Its type: `string`, `integer`, `number`, `boolean`, `decimal`, `date`, `datetime`, `bytes`, `uuid` or `json`.
    pub ty: &'static str,
    /// What it is for: `id`, `title`, `searchable`, `orderable`, `hidden`, `mandatory`.
    pub flags: Vec<&'static str>,
    /// IANA name of the time zone of dates and times that are written without an offset; UTC if it is missing.
    pub timezone: Option<String>,
}

/// Types of columns.
pub(super) const TYPES: [&str; 10] =
    ["string", "integer", "number", "boolean", "decimal", "date", "datetime", "bytes", "uuid", "json"];
/// Flags of columns.
pub(super) const FLAGS: [&str; 6] = ["id", "title", "searchable", "orderable", "hidden", "mandatory"];

const SOURCE: &str = r#"needs source = { csv = "FILE" }, { json = "FILE" } or { sqlite = "FILE", table = "TABLE" }"#;

impl DioSpec {
    /// A resource of `source` with every setting at its default.
    pub fn new(name: impl Into<String>, source: Source) -> DioSpec {
        DioSpec {
            name: name.into(),
            source,
            settle: None,
            reading: ReadingSpec::default(),
            id: None,
            columns: Vec::new(),
            null_values: Vec::new(),
            write: None,
            routed_ttl: None,
            refresh_every: None,
            version: None,
            default_limit: None,
            max_limit: None,
            max_affected: None,
            max_live: None,
            ack: Ack::Journal,
            require_if_match: false,
            allow_shrink: false,
            unknown_columns: None,
            write_concurrency: None,
            order_by_row: false,
            head_patience: None,
            max_age: None,
            attempt_timeout: None,
            park_unknown: false,
            indexes: Vec::new(),
            max_indexes: None,
            index_memory: None,
            refresh_timeout: None,
            read_timeout: None,
            reread_rate: None,
            feed: None,
        }
    }

    /// `None` if it has no source to speak of.
    pub(super) fn read(name: String, reader: Reader<'_>) -> Option<DioSpec> {
        if let Err(problem) = super::file::check_name(&name) {
            reader.problem(reader.at, problem);
        }
        let (source, settle, reading) = source(&name, &reader);
        let feed = reader.table("feed").and_then(|feed| FeedSpec::read(&name, feed));
        let spec = DioSpec {
            id: reader.text("id"),
            columns: columns(&reader),
            null_values: reader.texts("null_values").unwrap_or_default(),
            write: write(&reader),
            routed_ttl: reader.duration("routed_ttl"),
            refresh_every: reader.duration("refresh_every"),
            version: reader.text("version"),
            default_limit: reader.number("default_limit"),
            max_limit: reader.number("max_limit"),
            max_affected: reader.number("max_affected"),
            max_live: reader.count("max_live", 1..=1_000_000),
            ack: match reader.word("ack", &["journal", "applied", "memory"]) {
                Some("applied") => Ack::Applied,
                Some("memory") => Ack::Memory,
                _ => Ack::Journal,
            },
            require_if_match: reader.flag("require_if_match").unwrap_or(false),
            allow_shrink: reader.flag("allow_shrink").unwrap_or(false),
            unknown_columns: reader.word("unknown_columns", &["keep", "reject"]).map(|word| word == "keep"),
            write_concurrency: reader.number("write_concurrency").and_then(|lanes| usize::try_from(lanes).ok()),
            order_by_row: reader.word("write_order", &["queue", "row"]) == Some("row"),
            head_patience: reader.duration("head_patience"),
            max_age: reader.duration("max_age"),
            attempt_timeout: reader.duration("attempt_timeout"),
            park_unknown: reader.word("on_unknown", &["retry", "park"]) == Some("park"),
            indexes: reader.texts("indexes").unwrap_or_default(),
            max_indexes: reader.count("max_indexes", 0..=1_000),
            index_memory: reader.size("index_memory", 0..=1 << 40),
            refresh_timeout: reader.duration("refresh_timeout"),
            read_timeout: reader.duration("read_timeout"),
            reread_rate: reader.count("reread_rate", 1..=100_000).and_then(|rate| u32::try_from(rate).ok()),
            feed,
            ..DioSpec::new(name, Source::Csv(PathBuf::new()))
        };
        reader.finish();
        Some(DioSpec { source: source?, settle, reading, ..spec })
    }
}

/// Origin of rows, time that a doubtful file has to stay the same, and its notation.
fn source(name: &str, reader: &Reader<'_>) -> (Option<Source>, Option<Duration>, ReadingSpec) {
    if reader.place("source").is_none() {
        reader.problem(reader.at, format!("[dio.{name}] {SOURCE}"));
    }
    let Some(table) = reader.table("source") else { return (None, None, ReadingSpec::default()) };
    let (csv, json, sqlite) = (table.path("csv"), table.path("json"), table.path("sqlite"));
    let (mut settle, mut reading) = (None, ReadingSpec::default());
    let source = match (csv, json, sqlite) {
        (Some(path), None, None) => {
            (settle, reading) = (table.duration("settle"), ReadingSpec::read(&table, true));
            Some(Source::Csv(path))
        }
        (None, Some(path), None) => {
            (settle, reading) = (table.duration("settle"), ReadingSpec::read(&table, false));
            Some(Source::Json(path, table.text("path")))
        }
        (None, None, Some(path)) => {
            if table.place("table").is_none() {
                table.problem(table.at, r#"a sqlite source needs table = "TABLE""#);
            }
            sqlite_table(path, &table).map(Source::Sqlite)
        }
        _ => {
            if ["csv", "json", "sqlite"].iter().filter(|key| table.place(key).is_some()).count() != 1 {
                table.problem(table.at, format!("[dio.{name}] {SOURCE}"));
            }
            None
        }
    };
    table.finish();
    (source, settle, reading)
}

fn sqlite_table(path: PathBuf, reader: &Reader<'_>) -> Option<SqliteTable> {
    let (table, journal_mode) = (reader.text("table"), reader.word("journal_mode", &JOURNAL_MODES));
    Some(SqliteTable { path, table: table?, journal_mode })
}

fn write(reader: &Reader<'_>) -> Option<WriteRoute> {
    let table = reader.table("write")?;
    let route = table.path("sqlite").and_then(|path| sqlite_table(path, &table));
    if route.is_none() {
        table.problem(table.at, r#"write is { sqlite = "FILE", table = "TABLE" }"#);
    }
    table.finish();
    route.map(WriteRoute::Sqlite)
}

fn columns(reader: &Reader<'_>) -> Vec<ColumnSpec> {
    let column = |(name, column): (String, Reader<'_>)| {
        if column.place("type").is_none() {
            column.problem(column.at, format!("column {name:?} needs a type: one of {}", TYPES.join(", ")));
        }
        let ty = column.word("type", &TYPES);
        let given = column.texts("flags").unwrap_or_default();
        let flags = given.iter().filter_map(|flag| {
            let known = FLAGS.iter().find(|known| *known == flag);
            if known.is_none() {
                let at = column.place("flags").unwrap_or(column.at);
                column.problem(at, format!("{flag:?} is no flag: they are {}", FLAGS.join(", ")));
            }
            known.copied()
        });
        let flags = flags.collect();
        let timezone = column.text("timezone").filter(|zone| {
            let known = jiff::tz::TimeZone::get(zone).is_ok();
            if !known {
                let at = column.place("timezone").unwrap_or(column.at);
                column.problem(at, format!("{zone:?} is not the name of a time zone: write Europe/Berlin, say"));
            }
            known
        });
        if timezone.is_some() && !matches!(ty, Some("date" | "datetime")) {
            let at = column.place("timezone").unwrap_or(column.at);
            column.problem(at, "timezone is for columns of the type date or datetime");
        }
        column.finish();
        Some(ColumnSpec { name, ty: ty?, flags, timezone })
    };
    reader.tables("columns").into_iter().filter_map(column).collect()
}
