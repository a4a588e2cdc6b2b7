//! Parameters of the query language, and headers of requests.

use utoipa::openapi::Required;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::ObjectBuilder;

use super::shapes::{count, flag, text, word};
use crate::events::MOST_ROWS;
use crate::state::Resource;
use diorama_core::vista::{ColumnType, Flag};

fn query(name: &str, about: impl Into<String>, schema: ObjectBuilder) -> Parameter {
    let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Query).required(Required::False);
    parameter.description(Some(about)).schema(Some(schema)).build()
}

fn header(name: &str, about: &str, schema: ObjectBuilder) -> Parameter {
    let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header).required(Required::False);
    parameter.description(Some(about)).schema(Some(schema)).build()
}

/// Returns a required header.
pub(super) fn required(name: &str, about: &str) -> Parameter {
    let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header).required(Required::True);
    parameter.description(Some(about)).schema(Some(text())).build()
}

/// Returns a required parameter of the query that contains a secret.
pub(super) fn secret(name: &str, about: &str) -> Parameter {
    let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Query).required(Required::True);
    parameter.description(Some(about)).schema(Some(text())).build()
}

pub(super) fn path(name: &str, about: &str, schema: ObjectBuilder) -> Parameter {
    let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True);
    parameter.description(Some(about)).schema(Some(schema)).build()
}

/// Returns the id in the path of one row; `new` excludes ids that a new row cannot have.
pub(super) fn row(resource: &Resource, new: bool) -> Parameter {
    let schema = match resource.schema.layout().integer_id() {
        true => super::shapes::of(utoipa::openapi::schema::Type::Integer)
            .minimum(Some(isize::MIN))
            .maximum(Some(isize::MAX)),
        false if new => text().min_length(Some(1)).pattern(Some(super::rows::ID)),
        false => text().min_length(Some(1)),
    };
    path("id", "Id of the row, percent-encoded.", schema)
}

/// Returns the filters: one parameter per column, and the parameters that combine conditions.
pub(super) fn filters(resource: &Resource) -> Vec<Parameter> {
    const RESERVED: [&str; 8] = ["select", "order", "limit", "offset", "after", "q", "or", "explain"];
    let column = |column: &diorama_core::vista::Column| {
        // A column with the name of a parameter is written in double quotes.
        let is_reserved = RESERVED.contains(&&*column.name) || &*column.name == "and";
        let name = if is_reserved { format!("\"{}\"", column.name) } else { column.name.to_string() };
        let example = match column.ty {
            ColumnType::Integer | ColumnType::Number | ColumnType::Decimal => "gte.100",
            ColumnType::Boolean => "is.true",
            ColumnType::Date | ColumnType::Datetime => "gte.2026-01-01",
            _ if column.has(Flag::Id) => "in.(a,b)",
            _ => "ilike.*text*",
        };
        let about =
            format!("Filter by the column `{}`: a value, or `operator.value` as in `{name}={example}`.", column.name);
        query(&name, about, text())
    };
    let mut all: Vec<Parameter> = resource.schema.columns().iter().map(column).collect();
    all.push(query(
        "or",
        "Conditions of which at least one must match, as in `(price.gt.5,name.like.a*)`. Groups can be nested.",
        text(),
    ));
    all.push(query("and", "Conditions that must all match, as in `(price.gt.5,not.or(a.eq.1,b.eq.2))`.", text()));
    all.push(query("q", "Search terms, each of which must occur in a searchable column.", text()));
    all
}

/// Returns the parameters of an aggregate, without the filters.
pub(super) fn groups(resource: &Resource) -> Vec<Parameter> {
    let most = usize::try_from(resource.options.max_limit).unwrap_or(usize::MAX);
    let select = ParameterBuilder::new().name("select").parameter_in(ParameterIn::Query).required(Required::True);
    let about = "Columns to group by and functions, as in `category,count(),total:sum(price),avg(price),min(price),max(price)`. \
        `count(price)` counts the values that are not null. Columns without a function return their distinct values. A result has its \
        alias as its name, or a name such as `sum_price`.";
    vec![
        select.description(Some(about)).schema(Some(text())).build(),
        query(
            "order",
            "Order of the groups by their results, as in `sum_price.desc,category`. By default, groups are ordered by their keys.",
            text(),
        ),
        query("limit", "Maximum number of groups; by default all.", count().maximum(Some(most))),
        query("offset", "Number of groups to skip.", count()),
    ]
}

/// Returns the parameters of a list, without the filters.
pub(super) fn page(resource: &Resource) -> Vec<Parameter> {
    let most = usize::try_from(resource.options.max_limit).unwrap_or(usize::MAX);
    let limit = count().maximum(Some(most)).default(Some(resource.options.default_limit.into()));
    vec![
        query(
            "order",
            "Order of the rows, as in `column.desc.nullsfirst,other`. The defaults are `asc` and `nullslast`.",
            text(),
        ),
        select_related(),
        query(
            "limit",
            "Maximum number of rows. With a filter that enumerates ids, the default is the number of ids. NDJSON, CSV and CBOR have \
             no default limit.",
            limit,
        ),
        query("offset", "Number of rows to skip.", count().maximum(Some(usize::MAX))),
        after(
            "Cursor from the `Link` of an earlier response; empty for the first page. It cannot be combined with `offset`.",
        ),
    ]
}

/// Returns the parameter that requests the query plan in place of the rows.
pub(super) fn explain() -> Parameter {
    query(
        "explain",
        "`true` returns the query plan, its cost and its duration in place of the rows.",
        word(&["true", "false"]),
    )
}

/// Returns the cursor parameter.
pub(super) fn after(about: &str) -> Parameter {
    query("after", about, text())
}

/// Returns the parameter that allows a refresh to remove most rows.
pub(super) fn allow_shrink() -> Parameter {
    query("allow_shrink", "`true` accepts a list that has lost most of its rows.", word(&["true", "false"]))
}

/// Returns the parameter that selects columns.
pub(super) fn select() -> Parameter {
    query("select", "Columns to return, as in `id,name,alias:column,meta->key`; by default all.", text())
}

/// Returns the parameter that selects columns and related rows.
pub(super) fn select_related() -> Parameter {
    let about = "Columns to return, as in `id,name,alias:column,meta->key`, and related rows, as in `relation(columns)`; by default all columns.";
    query("select", about, text())
}

/// Returns the parameter that allows a write without a filter.
pub(super) fn all() -> Parameter {
    query("all", "`true` writes all rows, without a filter.", word(&["true", "false"]))
}

/// Returns the header with the versions that a reader has.
pub(super) fn if_none_match() -> Parameter {
    header("If-None-Match", "ETags that the client has. The response is 304 if one of them is current.", text())
}

/// Returns the header that refuses a write if the row exists.
pub(super) fn if_absent() -> Parameter {
    header(
        "If-None-Match",
        "`*` writes only if the row does not exist; ETags, only if the row has another version.",
        text(),
    )
}

/// Returns the header with the version that a write requires.
pub(super) fn if_match(needed: bool) -> Parameter {
    let about = match needed {
        true => "ETag of the row. Required for this resource, or `If-None-Match: *` for a new row.",
        false => "ETag of the row, to write only if the row still has this version. `*` writes only if the row exists.",
    };
    header("If-Match", about, text())
}

/// Returns the header with preferences.
pub(super) fn prefer() -> Parameter {
    let about = "Preferences (RFC 7240). `wait=N` waits up to N seconds (at most 30) for the source. `respond-async` does not wait. \
        `return=minimal` omits the row from the response. `max-affected=N` lowers the maximum number of rows of a write by filter. \
        `handling=strict` accepts all rows of a bulk insert or none, and refuses unknown preferences, which are otherwise ignored.";
    header("Prefer", about, text().examples(["wait=1"]))
}

/// Returns the header that makes a write repeatable.
pub(super) fn idempotency_key() -> Parameter {
    let about = "Key of the request. A repeated request with the same key returns the outcome of the first one, for each row of a bulk \
        insert separately. Not supported for rows whose id the source assigns.";
    header("Idempotency-Key", about, text().pattern(Some(r#"^(?!""$)[!-.0-~]{1,255}$"#)))
}

/// Returns the parameters of a subscription to one resource, or to one row of it.
pub(super) fn events(resource: &Resource, one: bool) -> Vec<Parameter> {
    let since = "Position after which events are sent: `now`, `earliest`, or the value of a `Dio-Position`.";
    let mut all = vec![query("since", since, text().pattern(Some("^(now|earliest|[0-9A-Za-z]+:[0-9]+)$")))];
    all.extend(streams());
    if !one {
        let about = "Ids of the rows whose events are sent, separated by commas; at most 1,000.";
        all.push(query("ids", about, text().min_length(Some(1))));
    }
    let own: Vec<String> = all.iter().map(|parameter| parameter.name.clone()).collect();
    let columns = filters(resource).into_iter().filter(|column| !own.contains(&column.name));
    all.extend(columns);
    all.push(select());
    all
}

/// Returns the parameters of a subscription to several resources.
pub(super) fn many_events() -> Vec<Parameter> {
    let dio = "Names of resources, separated by commas. On a WebSocket, further subscriptions can be opened later.";
    let since = "Position after which events are sent: `now`, `earliest`, or one for each resource, as in `a=EPOCH:SEQ;b=EPOCH:SEQ`.";
    let mut all = vec![query("dio", dio, text()), query("since", since, text())];
    all.extend(streams());
    all
}

/// Returns the parameters of a live query, with the filters.
pub(super) fn live(resource: &Resource) -> Vec<Parameter> {
    let most = usize::try_from(resource.options.max_limit.min(MOST_ROWS)).unwrap_or(usize::MAX);
    let limit = count().maximum(Some(most)).default(Some(resource.options.default_limit.min(MOST_ROWS).into()));
    let mut all = vec![
        query(
            "order",
            "Order of the rows, as in `column.desc.nullsfirst,other`. The defaults are `asc` and `nullslast`.",
            text(),
        ),
        query("limit", "Number of rows in the window.", limit),
        query("offset", "Number of rows before the window.", count().maximum(Some(usize::MAX))),
        select(),
    ];
    all.extend(resumed("`true` sends rows, `false` only their ids."));
    let own: Vec<String> = all.iter().map(|parameter| parameter.name.clone()).collect();
    all.extend(filters(resource).into_iter().filter(|column| !own.contains(&column.name)));
    all
}

/// Returns the further parameters of a live aggregate.
pub(super) fn live_groups() -> Vec<Parameter> {
    let live = "`true` sends the groups and their changes as frames, on all transports of `/events`.";
    let mut all = vec![query("live", live, word(&["true", "false"]))];
    all.extend(resumed("With `live`: `true` sends groups, `false` only their keys."));
    all
}

/// Returns the parameters of all live queries.
fn resumed(records: &str) -> Vec<Parameter> {
    let since = "Position of the list that the client has from this query. The changes after it are sent, if the log still has them.";
    let since = query("since", since, text().pattern(Some("^[0-9A-Za-z]+:[0-9]+$")));
    let [_, _, _, heartbeat, wait, last, accept, protocol] = streams();
    vec![since, query("records", records, flag()), heartbeat, wait, last, accept, protocol]
}

/// Returns the parameters of all subscriptions.
fn streams() -> [Parameter; 8] {
    let snapshot = "Snapshot of all rows before the events: always (`full`), if the stream cannot be continued from a position \
        (`auto`), or never (`none`).";
    let ops = "Kinds of changes that are sent: insert, update and delete, separated by commas.";
    let heartbeat = "Seconds between heartbeats, which contain the position.";
    let wait = "Maximum time in seconds that a long poll waits for an event.";
    let protocol =
        "`diorama.v1+json` or `diorama.v1+cbor`. A client that cannot set `Authorization` also offers `bearer.TOKEN`.";
    [
        query("snapshot", snapshot, word(&["none", "full", "auto"])),
        query("records", "`true` sends events with their rows.", flag()),
        query("ops", ops, text().pattern(Some("^(insert|update|delete)(,(insert|update|delete))*$"))),
        query("heartbeat", heartbeat, count().minimum(Some(5)).maximum(Some(60)).default(Some(25.into()))),
        query("wait", wait, count().maximum(Some(30)).default(Some(0.into()))),
        header(
            "Last-Event-ID",
            "Position to continue from, as an event source sends it. Takes precedence over `since`.",
            text(),
        ),
        header(
            "Accept",
            "Format of the response: `text/event-stream`, `application/x-ndjson` or `application/json`.",
            text(),
        ),
        header("Sec-WebSocket-Protocol", protocol, text().examples(["diorama.v1+json"])),
    ]
}

/// Returns the parameters that select parked operations to retry.
pub(super) fn retries(dios: &[&str]) -> Vec<Parameter> {
    vec![
        query("dio", "Name of the resource of the operations.", word(dios)),
        query("state", "State of the operations. Only parked ones can be retried.", word(&["parked"])),
        query("record", "Id of the row that the operations write.", text()),
        query("limit", "Maximum number of operations.", count().maximum(Some(1_000)).default(Some(1_000.into()))),
    ]
}
