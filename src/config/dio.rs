//! `[dio.NAME]`

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use diorama_connect::{Connector, Route, Source, SourceRequest};
use diorama_core::vista::{Error, Result, Vista};
use diorama_gateway::Ack;

use super::feed::FeedSpec;
use super::value::Reader;

/// One resource.
#[derive(Clone, Debug)]
pub struct DioSpec {
    /// Its name, as in the URL.
    pub name: String,
    /// Where its rows come from.
    pub source: Arc<dyn Source>,
    /// The column that identifies rows.
    pub id: Option<String>,
    /// Columns as declared.
    pub columns: Vec<ColumnSpec>,
    /// Texts that mean null in a CSV file.
    pub null_values: Vec<String>,
    /// Where writes go instead of to the source.
    pub write: Option<Arc<dyn Route>>,
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
    /// Whether writes, operations and events are kept in memory only (`ack = "memory"`).
    pub log_in_memory: bool,
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

impl DioSpec {
    /// A resource of `source` with every setting at its default.
    pub fn new(name: impl Into<String>, source: Arc<dyn Source>) -> DioSpec {
        DioSpec {
            name: name.into(),
            source,
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
            log_in_memory: false,
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

    pub(super) fn read(name: String, reader: Reader<'_>) -> DioSpec {
        if let Err(problem) = super::file::check_name(&name) {
            reader.problem(reader.at, problem);
        }
        let source = source(&name, &reader);
        let feed = reader.table("feed").and_then(|feed| FeedSpec::read(&name, feed));
        let ack = reader.word("ack", &["journal", "applied", "memory"]);
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
            ack: if ack == Some("applied") { Ack::Applied } else { Ack::Journal },
            log_in_memory: ack == Some("memory"),
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
            ..DioSpec::new(name, source.unwrap_or_else(|| Arc::new(UnreadSource)))
        };
        reader.finish();
        spec
    }
}

/// Stands in for a source with a mistake while the rest of the file is read: with a mistake there is no configuration.
#[derive(Debug)]
struct UnreadSource;

#[async_trait]
impl Source for UnreadSource {
    fn describe(&self) -> String {
        String::new()
    }

    async fn open(&self, _: SourceRequest) -> Result<Vista> {
        Err(Error::Config("the source has a mistake".into()))
    }
}

/// Origin of rows.
fn source(name: &str, reader: &Reader<'_>) -> Option<Arc<dyn Source>> {
    let registry = reader.context.registry;
    let forms = || alternatives(registry.connectors().filter_map(Connector::source_form));
    if reader.place("source").is_none() {
        reader.problem(reader.at, format!("[dio.{name}] needs source = {}", forms()));
    }
    let table = reader.table("source")?;
    let connectors = registry.connectors().filter(|connector| connector.source_form().is_some());
    let source = match chosen(&table, connectors) {
        ChosenConnector::One(connector) => told(&table, connector, || connector.source(&table)),
        ChosenConnector::LeftOut => None,
        ChosenConnector::NoneOrSeveral => {
            table.problem(table.at, format!("[dio.{name}] needs source = {}", forms()));
            None
        }
    };
    table.finish();
    source
}

/// Where writes go instead of to the source.
fn write(reader: &Reader<'_>) -> Option<Arc<dyn Route>> {
    let table = reader.table("write")?;
    let registry = reader.context.registry;
    let route = match chosen(&table, registry.connectors().filter(|connector| connector.route_form().is_some())) {
        ChosenConnector::One(connector) => told(&table, connector, || connector.route(&table)),
        ChosenConnector::LeftOut => None,
        ChosenConnector::NoneOrSeveral => {
            let forms = alternatives(registry.connectors().filter_map(Connector::route_form));
            table.problem(table.at, format!("write is {forms}"));
            None
        }
    };
    table.finish();
    route
}

/// The connector that a table names by a key of its own.
pub(super) enum ChosenConnector<'r> {
    /// This one.
    One(&'r dyn Connector),
    /// One that this program was built without, which has been said.
    LeftOut,
    /// None of them, or more than one.
    NoneOrSeveral,
}

/// The one of `connectors` that `table` names.
pub(super) fn chosen<'r>(
    table: &Reader<'_>,
    connectors: impl Iterator<Item = &'r dyn Connector>,
) -> ChosenConnector<'r> {
    let named: Vec<&dyn Connector> = connectors.filter(|connector| table.place(connector.name()).is_some()).collect();
    if let [one] = named.as_slice() {
        return ChosenConnector::One(*one);
    }
    let left_out = table.context.registry.left_out().iter().find_map(|name| Some((name, table.place(name)?)));
    match left_out.filter(|_| named.is_empty()) {
        Some((name, at)) => {
            table.problem(at, format!("this program was built without {name}: build it with --features {name}"));
            ChosenConnector::LeftOut
        }
        None => ChosenConnector::NoneOrSeveral,
    }
}

/// What a connector makes of its table. One that makes nothing of it has to say why; if it does not, that is said.
pub(super) fn told<T>(table: &Reader<'_>, connector: &dyn Connector, make: impl FnOnce() -> Option<T>) -> Option<T> {
    let before = table.context.problems.len();
    let made = make();
    if made.is_none() && table.context.problems.len() == before {
        let detail = format!("the connector {} refuses this and does not say why: ask its authors", connector.name());
        table.problem(table.at, detail);
    }
    made
}

/// `a`, `a or b`, `a, b or c`.
fn alternatives<'f>(forms: impl Iterator<Item = &'f str>) -> String {
    let forms: Vec<&str> = forms.collect();
    match forms.split_last() {
        Some((last, [])) => (*last).to_string(),
        Some((last, before)) => format!("{} or {last}", before.join(", ")),
        None => String::new(),
    }
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
                column.problem(at, format!("{flag:?} is not a valid flag: they are {}", FLAGS.join(", ")));
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
