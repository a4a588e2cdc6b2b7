//! Parameters: the query language, and the headers of requests.

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

/// Same, but the request cannot do without.
pub(super) fn required(name: &str, about: &str) -> Parameter {
    let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header).required(Required::True);
    parameter.description(Some(about)).schema(Some(text())).build()
}

/// A parameter of the query with a secret.
pub(super) fn secret(name: &str, about: &str) -> Parameter {
    let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Query).required(Required::True);
    parameter.description(Some(about)).schema(Some(text())).build()
}

pub(super) fn path(name: &str, about: &str, schema: ObjectBuilder) -> Parameter {
    let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True);
    parameter.description(Some(about)).schema(Some(schema)).build()
}

/// The id in the path of one row.
pub(super) fn row(resource: &Resource, new: bool) -> Parameter {
    let schema = match resource.schema.layout().integer_id() {
        true => super::shapes::of(utoipa::openapi::schema::Type::Integer)
            .minimum(Some(isize::MIN))
            .maximum(Some(isize::MAX)),
        false if new => text().min_length(Some(1)).pattern(Some(super::rows::ID)),
        false => text().min_length(Some(1)),
    };
    path("id", "The row's id, percent-encoded.", schema)
}

/// Filters: one parameter per column, and what joins them.
pub(super) fn filters(resource: &Resource) -> Vec<Parameter> {
    const RESERVED: [&str; 8] = ["select", "order", "limit", "offset", "after", "q", "or", "explain"];
    let column = |column: &diorama_core::vista::Column| {
        // A column with the name of a parameter is written in double quotes.
        let taken = RESERVED.contains(&&*column.name) || &*column.name == "and";
        let name = if taken { format!("\"{}\"", column.name) } else { column.name.to_string() };
        let example = match column.ty {
            ColumnType::Integer | ColumnType::Number | ColumnType::Decimal => "gte.100",
            ColumnType::Boolean => "is.true",
            ColumnType::Date | ColumnType::Datetime => "gte.2026-01-01",
            _ if column.has(Flag::Id) => "in.(a,b)",
            _ => "ilike.*text*",
        };
        let about = format!("Rows by column `{}`: a value, or `operator.value`, like `{name}={example}`.", column.name);
        query(&name, about, text())
    };
    let mut all: Vec<Parameter> = resource.schema.columns().iter().map(column).collect();
    all.push(query("or", "Rows for which one of these holds: `(price.gt.5,name.like.a*)`; groups nest.", text()));
    all.push(query("and", "Rows for which all of these hold: `(price.gt.5,not.or(a.eq.1,b.eq.2))`.", text()));
    all.push(query("q", "Words that must all be found in a searchable column.", text()));
    all
}

/// What an aggregate takes beside filters.
pub(super) fn groups(resource: &Resource) -> Vec<Parameter> {
    let most = usize::try_from(resource.options.max_limit).unwrap_or(usize::MAX);
    let select = ParameterBuilder::new().name("select").parameter_in(ParameterIn::Query).required(Required::True);
    let about = "Columns to group by, and functions: `category,count(),total:sum(price),avg(price),min(price),max(price)`. \
        `count(price)` counts what is not null; columns alone give their distinct values. A result bears its alias, or a \
        name like `sum_price`.";
    vec![
        select.description(Some(about)).schema(Some(text())).build(),
        query("order", "Groups by results: `sum_price.desc,category`; otherwise by what they are grouped by.", text()),
        query("limit", "Groups, at most; otherwise all.", count().maximum(Some(most))),
        query("offset", "Groups to skip.", count()),
    ]
}

/// What a list takes beside filters.
pub(super) fn page(resource: &Resource) -> Vec<Parameter> {
    let most = usize::try_from(resource.options.max_limit).unwrap_or(usize::MAX);
    let limit = count().maximum(Some(most)).default(Some(resource.options.default_limit.into()));
    vec![
        query("order", "`column.desc.nullsfirst,other`: asc and nullslast if nothing is said.", text()),
        select(),
        query(
            "limit",
            "Rows, at most; where ids are enumerated, as many as they are. NDJSON, CSV and CBOR have no limit unless one is given.",
            limit,
        ),
        query("offset", "Rows to skip.", count().maximum(Some(usize::MAX))),
        after(
            "A place between two rows, from an earlier answer's `Link`; empty for the first page. Not beside `offset`.",
        ),
    ]
}

/// Asks for the way to the rows instead of the rows.
pub(super) fn explain() -> Parameter {
    query(
        "explain",
        "`true` to be told how the rows are found, what that costs and how long it took, instead of the rows.",
        word(&["true", "false"]),
    )
}

/// A place between two rows.
pub(super) fn after(about: &str) -> Parameter {
    query("after", about, text())
}

/// Permits a refresh that removes most rows.
pub(super) fn allow_shrink() -> Parameter {
    query("allow_shrink", "`true` also for a list that lost most of its rows.", word(&["true", "false"]))
}

/// Columns to show.
pub(super) fn select() -> Parameter {
    query("select", "Columns to show: `id,name,alias:column,meta->key`; all if nothing is said.", text())
}

/// Permits a write without a filter.
pub(super) fn all() -> Parameter {
    query("all", "`true` touches every row.", word(&["true", "false"]))
}

/// A version that the reader has.
pub(super) fn if_none_match() -> Parameter {
    header("If-None-Match", "ETags that the client has: 304 if one is current.", text())
}

/// Refuses a write unless the row is absent.
pub(super) fn if_absent() -> Parameter {
    header("If-None-Match", "`*`: only if there is no such row. ETags: only if the row is another version.", text())
}

/// The version that a write is made for.
pub(super) fn if_match(needed: bool) -> Parameter {
    let about = match needed {
        true => "The row's ETag; required here (or `If-None-Match: *` for a new row).",
        false => "The row's ETag: only if it is still that version. `*`: only if it is there.",
    };
    header("If-Match", about, text())
}

/// How long to wait, what to send back.
pub(super) fn prefer() -> Parameter {
    let about = "`wait=N` waits up to N (at most 30) seconds for the source; `respond-async` does not wait; `return=minimal` \
        leaves the row out of the answer; `max-affected=N` lowers the bound of a write by filter; `handling=strict` takes all rows \
        of a bulk insert or none, and refuses preferences that are not known, which are ignored otherwise.";
    header("Prefer", about, text().examples(["wait=1"]))
}

/// Makes a write repeatable.
pub(super) fn idempotency_key() -> Parameter {
    let about = "A repeated request with the same key is answered with what became of the first; of rows in bulk, \
        each by itself. Not where the source chooses the id.";
    header("Idempotency-Key", about, text().pattern(Some(r#"^(?!""$)[!-.0-~]{1,255}$"#)))
}

/// What a subscription to one resource takes; to a row of it, if `one`.
pub(super) fn events(resource: &Resource, one: bool) -> Vec<Parameter> {
    let since = "`now`, `earliest`, or a position (`Dio-Position`): everything after it follows.";
    let mut all = vec![query("since", since, text().pattern(Some("^(now|earliest|[0-9A-Za-z]+:[0-9]+)$")))];
    all.extend(streams());
    if !one {
        let about = "Only events of these rows, separated by commas; at most 1,000.";
        all.push(query("ids", about, text().min_length(Some(1))));
    }
    let own: Vec<String> = all.iter().map(|parameter| parameter.name.clone()).collect();
    let columns = filters(resource).into_iter().filter(|column| !own.contains(&column.name));
    all.extend(columns);
    all.push(select());
    all
}

/// What a subscription to several resources takes.
pub(super) fn many_events() -> Vec<Parameter> {
    let dio = "Resources, separated by commas; a WebSocket may subscribe later.";
    let since = "`now`, `earliest`, or a position of each: `a=EPOCH:SEQ;b=EPOCH:SEQ`.";
    let mut all = vec![query("dio", dio, text()), query("since", since, text())];
    all.extend(streams());
    all
}

/// What a live query takes beside filters.
pub(super) fn live(resource: &Resource) -> Vec<Parameter> {
    let most = usize::try_from(resource.options.max_limit.min(MOST_ROWS)).unwrap_or(usize::MAX);
    let limit = count().maximum(Some(most)).default(Some(resource.options.default_limit.min(MOST_ROWS).into()));
    let mut all = vec![
        query("order", "`column.desc.nullsfirst,other`: asc and nullslast if nothing is said.", text()),
        query("limit", "Rows of the window.", limit),
        query("offset", "Rows before it.", count().maximum(Some(usize::MAX))),
        select(),
    ];
    all.extend(resumed("Whether rows are sent, or their ids only."));
    let own: Vec<String> = all.iter().map(|parameter| parameter.name.clone()).collect();
    all.extend(filters(resource).into_iter().filter(|column| !own.contains(&column.name)));
    all
}

/// What a live aggregate takes beside what every aggregate does.
pub(super) fn live_groups() -> Vec<Parameter> {
    let live = "`true` follows the groups: frames, on every transport of `/events`.";
    let mut all = vec![query("live", live, word(&["true", "false"]))];
    all.extend(resumed("With `live`: whether groups are sent, or their keys only."));
    all
}

/// What every live query takes.
fn resumed(records: &str) -> Vec<Parameter> {
    let since =
        "The position of the list that the client has from this query: changes follow, if they are still at hand.";
    let since = query("since", since, text().pattern(Some("^[0-9A-Za-z]+:[0-9]+$")));
    let [_, _, _, heartbeat, wait, last, accept, protocol] = streams();
    vec![since, query("records", records, flag()), heartbeat, wait, last, accept, protocol]
}

/// What every subscription takes.
fn streams() -> [Parameter; 8] {
    let snapshot = "Whether all rows come first: always (`full`), or if there is no position to go on from (`auto`).";
    let ops = "Only these changes of rows: insert, update, delete, separated by commas.";
    let heartbeat = "Seconds between heartbeats, which carry the position.";
    let wait = "Seconds that an answer which is no stream waits for an event.";
    let protocol = "`diorama.v1+json` or `diorama.v1+cbor`, and `bearer.TOKEN` where a token is needed and Authorization cannot \
        be set.";
    [
        query("snapshot", snapshot, word(&["none", "full", "auto"])),
        query("records", "Whether events carry their rows.", flag()),
        query("ops", ops, text().pattern(Some("^(insert|update|delete)(,(insert|update|delete))*$"))),
        query("heartbeat", heartbeat, count().minimum(Some(5)).maximum(Some(60)).default(Some(25.into()))),
        query("wait", wait, count().maximum(Some(30)).default(Some(0.into()))),
        header("Last-Event-ID", "Where an event source was; goes before `since`.", text()),
        header("Accept", "`text/event-stream`, `application/x-ndjson` or `application/json`.", text()),
        header("Sec-WebSocket-Protocol", protocol, text().examples(["diorama.v1+json"])),
    ]
}

/// Which parked operations are tried again.
pub(super) fn retries(dios: &[&str]) -> Vec<Parameter> {
    vec![
        query("dio", "Only of this resource.", word(dios)),
        query("state", "Only parked ones can be tried again.", word(&["parked"])),
        query("record", "Only about the row of this id.", text()),
        query("limit", "Operations, at most.", count().maximum(Some(1_000)).default(Some(1_000.into()))),
    ]
}
