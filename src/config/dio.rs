//! Reader of `[dio.NAME]`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use diorama_connect::{Connector, Route, Source, SourceRequest};
use diorama_core::vista::{Error, Reference, Result, Vista};
use diorama_gateway::Ack;

use super::connection::{Connected, Connections};
use super::feed::FeedSpec;
use super::value::Reader;

/// Configuration of one resource.
#[derive(Clone, Debug)]
pub struct DioSpec {
    /// The name, as in the URL.
    pub name: String,
    /// The source of its rows.
    pub source: Arc<dyn Source>,
    /// The id column.
    pub id: Option<String>,
    /// The declared columns.
    pub columns: Vec<ColumnSpec>,
    /// Texts that mean null in a CSV file.
    pub null_values: Vec<String>,
    /// Destination of writes in place of the source.
    pub write: Option<Arc<dyn Route>>,
    /// Maximum time for which a routed write is shown instead of the source's row.
    pub routed_ttl: Option<Duration>,
    /// Time between two refreshes.
    pub refresh_every: Option<Duration>,
    /// The column with a row's version.
    pub version: Option<String>,
    /// Default number of rows of a list.
    pub default_limit: Option<u64>,
    /// Maximum number of rows of a list.
    pub max_limit: Option<u64>,
    /// Maximum number of rows changed by one write by filter.
    pub max_affected: Option<u64>,
    /// Maximum number of distinct live queries at a time.
    pub max_live: Option<usize>,
    /// Time at which a write is acknowledged.
    pub ack: Ack,
    /// True to keep writes, operations and events in memory only (`ack = "memory"`).
    pub log_in_memory: bool,
    /// True to require the version of the row in a change.
    pub require_if_match: bool,
    /// True to permit a refresh that removes most rows.
    pub allow_shrink: bool,
    /// True to keep columns that are not declared; the default depends on `columns`.
    pub unknown_columns: Option<bool>,
    /// Maximum number of concurrent deliveries to the source.
    pub write_concurrency: Option<usize>,
    /// True if a failing write delays only the writes of its own row, false if it delays all later ones.
    pub order_by_row: Option<bool>,
    /// Maximum time for which one write may delay all others while the source answers other requests.
    pub head_patience: Option<Duration>,
    /// Age at which an undeliverable write is parked.
    pub max_age: Option<Duration>,
    /// Timeout of one delivery.
    pub attempt_timeout: Option<Duration>,
    /// True to park a write with an unknown outcome instead of sending it again.
    pub park_unknown: bool,
    /// Indexes to build before the resource is ready.
    pub indexes: Vec<String>,
    /// Maximum number of indexes.
    pub max_indexes: Option<usize>,
    /// Maximum size of all indexes in bytes.
    pub index_memory: Option<usize>,
    /// Maximum size of all columns that scans keep, in bytes.
    pub column_memory: Option<usize>,
    /// Timeout of a list of the source.
    pub refresh_timeout: Option<Duration>,
    /// Timeout of any other read of the source.
    pub read_timeout: Option<Duration>,
    /// Maximum rate of single-row reads from the source per second, for rows whose state is uncertain.
    pub reread_rate: Option<u32>,
    /// A source of changes besides webhooks.
    pub feed: Option<FeedSpec>,
    /// Relations to the rows of other resources.
    pub relations: Vec<Reference>,
}

/// A declared column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnSpec {
    /// The name.
    pub name: String,
    /// The type: `string`, `integer`, `number`, `boolean`, `decimal`, `date`, `datetime`, `bytes`, `uuid` or `json`.
    pub ty: &'static str,
    /// The flags: `id`, `title`, `searchable`, `orderable`, `hidden`, `mandatory`.
    pub flags: Vec<&'static str>,
    /// IANA name of the time zone of dates and times without an offset; UTC if missing.
    pub timezone: Option<String>,
}

/// Types of columns.
pub(super) const TYPES: [&str; 10] =
    ["string", "integer", "number", "boolean", "decimal", "date", "datetime", "bytes", "uuid", "json"];
/// Flags of columns.
pub(super) const FLAGS: [&str; 6] = ["id", "title", "searchable", "orderable", "hidden", "mandatory"];

impl DioSpec {
    /// Creates a resource of `source` with default settings.
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
            order_by_row: None,
            head_patience: None,
            max_age: None,
            attempt_timeout: None,
            park_unknown: false,
            indexes: Vec::new(),
            max_indexes: None,
            index_memory: None,
            column_memory: None,
            refresh_timeout: None,
            read_timeout: None,
            reread_rate: None,
            feed: None,
            relations: Vec::new(),
        }
    }

    pub(super) fn read(name: String, reader: Reader<'_>, connections: &Connections<'_>) -> DioSpec {
        if let Err(problem) = super::file::check_name(&name) {
            reader.problem(reader.at, problem);
        }
        let source = source(&name, &reader, connections);
        let feed = match reader.is_text("feed") {
            true => source.as_ref().and_then(|source| FeedSpec::of_source(&name, &reader, &**source)),
            false => reader.table("feed").and_then(|feed| FeedSpec::read(&name, feed, connections)),
        };
        let ack = reader.word("ack", &["journal", "applied", "memory"]);
        let spec = DioSpec {
            id: reader.text("id"),
            columns: columns(&reader),
            null_values: reader.texts("null_values").unwrap_or_default(),
            write: write(&reader, connections),
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
            order_by_row: reader.word("write_order", &["queue", "row"]).map(|order| order == "row"),
            head_patience: reader.duration("head_patience"),
            max_age: reader.duration("max_age"),
            attempt_timeout: reader.duration("attempt_timeout"),
            park_unknown: reader.word("on_unknown", &["retry", "park"]) == Some("park"),
            indexes: reader.texts("indexes").unwrap_or_default(),
            max_indexes: reader.count("max_indexes", 0..=1_000),
            index_memory: reader.size("index_memory", 0..=1 << 40),
            column_memory: reader.size("column_memory", 0..=1 << 40),
            refresh_timeout: reader.duration("refresh_timeout"),
            read_timeout: reader.duration("read_timeout"),
            reread_rate: reader.count("reread_rate", 1..=100_000).and_then(|rate| u32::try_from(rate).ok()),
            feed,
            relations: relations(&reader),
            ..DioSpec::new(name, source.unwrap_or_else(|| Arc::new(UnreadSource)))
        };
        reader.finish();
        spec
    }
}

/// Placeholder for a source with a mistake while the rest of the file is read. A file with mistakes gives no configuration.
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

/// Reads the source of rows.
fn source(name: &str, reader: &Reader<'_>, connections: &Connections<'_>) -> Option<Arc<dyn Source>> {
    let registry = reader.context.registry;
    let forms = || alternatives(registry.connectors().filter_map(Connector::source_form));
    if reader.position("source").is_none() {
        reader.problem(reader.at, format!("[dio.{name}] requires source = {}", forms()));
    }
    let table = reader.table("source")?;
    let connectors = registry.connectors().filter(|connector| connector.source_form().is_some());
    let connection = connections.of(&table);
    let table = table.with_writes(own_writes(reader).and_then(|(write, name)| write.table(name)));
    let source = match choose_connector(connection.unwrap_or(&table), connectors) {
        ChosenConnector::One(connector) => build_or_report(&table, connector, || match connection {
            Some(connection) => connector.source(&Connected { own: &table, connection }),
            None => connector.source(&table),
        }),
        ChosenConnector::LeftOut => None,
        ChosenConnector::NoneOrSeveral => {
            table.problem(table.at, format!("[dio.{name}] requires source = {}", forms()));
            None
        }
    };
    table.finish();
    source
}

/// Returns the table `write` and the connector whose table in it says how the source itself is written, like `write.http`. `None`
/// if writes go to a route, or as the source takes them.
fn own_writes<'a>(reader: &Reader<'a>) -> Option<(Reader<'a>, &'static str)> {
    if !reader.is_table("write") {
        return None;
    }
    let write = reader.table("write")?;
    let mut names = reader.context.registry.connectors().map(Connector::name);
    let name = names.find(|name| write.is_table(name))?;
    Some((write, name))
}

/// Reads the route of writes.
fn write(reader: &Reader<'_>, connections: &Connections<'_>) -> Option<Arc<dyn Route>> {
    if let Some((write, name)) = own_writes(reader) {
        let is_of_source = reader.table("source").is_some_and(|source| {
            let connection = connections.of(&source);
            source.position(name).is_some() || connection.is_some_and(|connection| connection.position(name).is_some())
        });
        if !is_of_source {
            write.problem(
                write.at,
                format!("write.{name} is how a source {{ {name} = ... }} is written, which this is not"),
            );
        }
        write.finish();
        return None;
    }
    let table = reader.table("write")?;
    let registry = reader.context.registry;
    let connection = connections.of(&table);
    let connectors = registry.connectors().filter(|connector| connector.route_form().is_some());
    let route = match choose_connector(connection.unwrap_or(&table), connectors) {
        ChosenConnector::One(connector) => build_or_report(&table, connector, || match connection {
            Some(connection) => connector.route(&Connected { own: &table, connection }),
            None => connector.route(&table),
        }),
        ChosenConnector::LeftOut => None,
        ChosenConnector::NoneOrSeveral => {
            let forms = alternatives(registry.connectors().filter_map(Connector::route_form));
            table.problem(table.at, format!("write must be {forms}"));
            None
        }
    };
    table.finish();
    route
}

/// Connector selected by a key of a table.
pub(super) enum ChosenConnector<'r> {
    /// The selected connector.
    One(&'r dyn Connector),
    /// A connector that this program was built without; reported.
    LeftOut,
    /// No connector, or more than one.
    NoneOrSeveral,
}

/// Returns the one of `connectors` that `table` selects.
pub(super) fn choose_connector<'r>(
    table: &Reader<'_>,
    connectors: impl Iterator<Item = &'r dyn Connector>,
) -> ChosenConnector<'r> {
    let named: Vec<&dyn Connector> =
        connectors.filter(|connector| table.position(connector.name()).is_some()).collect();
    if let [one] = named.as_slice() {
        return ChosenConnector::One(*one);
    }
    let left_out = table.context.registry.left_out().iter().find_map(|name| Some((name, table.position(name)?)));
    match left_out.filter(|_| named.is_empty()) {
        Some((name, at)) => {
            table.problem(at, format!("this program was built without {name}: build it with --features {name}"));
            ChosenConnector::LeftOut
        }
        None => ChosenConnector::NoneOrSeveral,
    }
}

/// Returns the result of `make` for a connector's table. If the connector returns nothing and reports no mistake, a mistake is
/// reported for it.
pub(super) fn build_or_report<T>(
    table: &Reader<'_>,
    connector: &dyn Connector,
    make: impl FnOnce() -> Option<T>,
) -> Option<T> {
    let before = table.context.problems.len();
    let made = make();
    if made.is_none() && table.context.problems.len() == before {
        let detail = format!(
            "the connector {} refuses this table without a reason: report this to its authors",
            connector.name()
        );
        table.problem(table.at, detail);
    }
    made
}

/// Formats alternatives as `a`, `a or b`, `a, b or c`.
pub(super) fn alternatives<'f>(forms: impl Iterator<Item = &'f str>) -> String {
    let forms: Vec<&str> = forms.collect();
    match forms.split_last() {
        Some((last, [])) => (*last).to_string(),
        Some((last, before)) => format!("{} or {last}", before.join(", ")),
        None => String::new(),
    }
}

fn columns(reader: &Reader<'_>) -> Vec<ColumnSpec> {
    let column = |(name, column): (String, Reader<'_>)| {
        if column.position("type").is_none() {
            column.problem(column.at, format!("column {name:?} requires type: one of {}", TYPES.join(", ")));
        }
        let ty = column.word("type", &TYPES);
        let flag_names = column.texts("flags").unwrap_or_default();
        let flags = flag_names.iter().filter_map(|flag| {
            let known = FLAGS.iter().find(|known| *known == flag);
            if known.is_none() {
                let at = column.position("flags").unwrap_or(column.at);
                column.problem(at, format!("{flag:?} is not a valid flag: the flags are {}", FLAGS.join(", ")));
            }
            known.copied()
        });
        let flags = flags.collect();
        let timezone = column.text("timezone").filter(|zone| {
            let known = jiff::tz::TimeZone::get(zone).is_ok();
            if !known {
                let at = column.position("timezone").unwrap_or(column.at);
                column.problem(at, format!("{zone:?} is not a valid time zone: use an IANA name like Europe/Berlin"));
            }
            known
        });
        if timezone.is_some() && !matches!(ty, Some("date" | "datetime")) {
            let at = column.position("timezone").unwrap_or(column.at);
            column.problem(at, "timezone requires the column type date or datetime");
        }
        column.finish();
        Some(ColumnSpec { name, ty: ty?, flags, timezone })
    };
    reader.tables("columns").into_iter().filter_map(column).collect()
}

fn relations(reader: &Reader<'_>) -> Vec<Reference> {
    let relation = |(relation, table): (String, Reader<'_>)| {
        for (key, what) in [("dio", "the related resource"), ("on", "the column with its id")] {
            if table.position(key).is_none() {
                table.problem(table.at, format!("relation {relation:?} requires {key}: {what}"));
            }
        }
        let (target, column) = (table.text("dio"), table.text("on"));
        let many = table.flag("many").unwrap_or(false);
        table.finish();
        Some(Reference { relation, target: target?, column: column?, many })
    };
    reader.tables("relations").into_iter().filter_map(relation).collect()
}
