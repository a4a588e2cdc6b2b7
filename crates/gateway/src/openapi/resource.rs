//! The paths of one Dio: what it can do, and nothing that it cannot.

use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{HttpMethod, OperationBuilder};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{AnyOfBuilder, OneOfBuilder};
use utoipa::openapi::{Ref, Required};

use super::shapes::{Shape, array, named, text};
use super::{Api, answers, parameters, rows, shapes};
use crate::state::Resource;

/// Statuses of refusals that every write has.
const WRITE: [u16; 8] = [400, 405, 408, 409, 413, 422, 503, 507];

/// What the descriptions of one Dio's operations are made of.
struct ResourcePaths<'a> {
    title: &'a str,
    name: &'a str,
    resource: &'a Resource,
}

/// The operations of `at`, whose names end with `title`.
pub(super) fn add(api: &mut Api, title: &str, resource: &Resource) {
    let paths = ResourcePaths { title, name: resource.dio.name(), resource };
    paths.reads(api);
    paths.writes(api);
    paths.by_filter(api);
    paths.events(api);
}

impl ResourcePaths<'_> {
    fn list_path(&self) -> String {
        format!("/{}", self.name)
    }

    fn row_path(&self) -> String {
        format!("/{}/{{id}}", self.name)
    }

    fn operation(&self, api: &Api, verb: &str, row: bool, method: &HttpMethod, summary: &str) -> OperationBuilder {
        let id = format!("{verb}{}{}", self.title, if row { "Row" } else { "" });
        api.operation(id, self.name, summary, method)
    }

    fn schema(&self, kind: &str) -> Ref {
        named(format!("{}{kind}", self.title))
    }

    // --- reads -------------------------------------------------------------------------------------------------------

    fn reads(&self, api: &mut Api) {
        for (method, verb) in [(HttpMethod::Get, "list"), (HttpMethod::Head, "count")] {
            let operation = self.operation(api, verb, false, &method, "Rows by filter, order and page");
            let operation = operation.parameters(Some(parameters::filters(self.resource)));
            let operation = operation.parameters(Some(parameters::page(self.resource)));
            let operation = operation.parameter(parameters::explain()).parameter(parameters::if_none_match());
            let found = match method {
                HttpMethod::Get => {
                    let rows = AnyOfBuilder::new().item(rows::list(self.title)).item(named("Explained"));
                    self.found(rows)
                }
                _ => answers::empty("How many there are."),
            };
            let operation = operation.response("200", answers::listed(found).build()).response("304", unchanged());
            api.add(&self.list_path(), method, self.readable(operation, &[400, 406, 503]));
        }
        for (method, verb) in [(HttpMethod::Get, "get"), (HttpMethod::Head, "check")] {
            let operation = self.operation(api, verb, true, &method, "One row");
            let operation = operation.parameter(parameters::row(self.resource, false)).parameter(parameters::select());
            let operation = operation.parameter(parameters::if_none_match());
            let row = match method {
                HttpMethod::Get => cbor(answers::json("The row.", rows::shown(self.title))),
                _ => answers::empty("It is there."),
            };
            let operation = operation.response("200", answers::read(row).build()).response("304", unchanged());
            api.add(&self.row_path(), method, self.readable(operation, &[400, 404, 406, 503]));
        }
        self.query(api);
        self.aggregate(api);
        let refresh = self.operation(api, "refresh", false, &HttpMethod::Post, "Read the source now");
        let refresh = refresh.parameter(parameters::allow_shrink());
        let refresh = refresh.response("200", answers::json("What changed.", named("Refreshed")).build());
        let refresh = answers::refusals(refresh, &[400, 409, 502, 503, 504]);
        api.add(&format!("{}/_refresh", self.list_path()), HttpMethod::Post, refresh);
        let about = "Erase what is kept of rows";
        let purge = self.operation(api, "purge", false, &HttpMethod::Post, about);
        let purge = purge.description(Some(
            "Rows, what the log remembers of them, values of settled writes and kept deliveries that name them. The source is not \
             touched: delete the rows there first, else they come back with the next refresh.",
        ));
        let purge = purge.request_body(Some(body(&["application/json", "application/cbor"], named("Purge"))));
        let purge = purge.response("200", answers::json("What was erased.", named("Purged")).build());
        let purge = answers::refusals(purge, &[400, 405, 408, 409, 413, 415, 422, 503, 507]);
        api.add(&format!("{}/_purge", self.list_path()), HttpMethod::Post, purge);
        let schema = self.operation(api, "describe", false, &HttpMethod::Get, "Columns, and what can be done");
        let schema = schema.response("200", answers::json("The description.", named("Description")).build());
        api.add(&format!("{}/_schema", self.list_path()), HttpMethod::Get, schema);
    }

    fn query(&self, api: &mut Api) {
        let query = self.operation(api, "query", false, &HttpMethod::Post, "Rows by a query in the body");
        let query = query.parameter(parameters::if_none_match());
        let query =
            query.parameter(parameters::after("As `after` in the body, which it wins over; `Link` has such URLs."));
        let query = query.request_body(Some(body(&["application/json", "application/cbor"], named("Query"))));
        let query = query
            .response("200", answers::listed(self.found(rows::list(self.title))).build())
            .response("304", unchanged());
        let query = self.readable(query, &[400, 406, 408, 413, 415, 503]);
        api.add(&format!("{}/_query", self.list_path()), HttpMethod::Post, query);
    }

    fn aggregate(&self, api: &mut Api) {
        for (method, verb) in [(HttpMethod::Get, "aggregate"), (HttpMethod::Head, "countGroups")] {
            let operation = self.operation(api, verb, false, &method, "Counts, sums, means and extremes, by groups");
            let operation = operation.parameters(Some(parameters::groups(self.resource)));
            let mut others = parameters::filters(self.resource);
            let live = parameters::live_groups();
            others.retain(|filter| !live.iter().any(|own| own.name == filter.name));
            let operation = operation.parameters(Some(others)).parameters(Some(live));
            let operation = operation.parameter(parameters::if_none_match());
            let found = match method {
                HttpMethod::Get => {
                    let found = answers::json("The groups; with `live`, frames.", array(shapes::object([])));
                    let found = answers::content(found, "application/x-ndjson", text());
                    let found = answers::content(found, "text/event-stream", text());
                    cbor(answers::content(found, "text/csv", text()))
                }
                _ => answers::empty("How many groups there are."),
            };
            let operation = operation.response("200", answers::listed(found).build()).response("304", unchanged());
            let socket = answers::json("With `live`: frames follow, each of this form.", named("LiveFrame"));
            let operation = operation.response("101", socket.build());
            let operation = answers::refusals(operation, &[400, 405, 406, 426, 503]);
            let operation = if api.origins { answers::refusals(operation, &[403]) } else { operation };
            api.add(&format!("{}/_aggregate", self.list_path()), method, operation);
        }
    }

    /// A Dio that holds a part of its rows only asks the source for the others.
    fn readable(&self, operation: OperationBuilder, refusals: &[u16]) -> OperationBuilder {
        let operation = answers::refusals(operation, refusals);
        match self.resource.dio.loads_chunks() {
            true => answers::refusals(operation, &[502, 504]),
            false => operation,
        }
    }

    fn found(&self, rows: impl Into<Shape>) -> ResponseBuilder {
        let found = answers::json("The rows.", rows);
        let found = answers::content(found, "application/x-ndjson", text());
        cbor(answers::content(found, "text/csv", text()))
    }

    // --- writes of one row -------------------------------------------------------------------------------------------

    fn writes(&self, api: &mut Api) {
        let can = self.resource.dio.capabilities();
        if can.can_insert {
            self.insert(api);
        }
        let needed = self.resource.options.require_if_match;
        if can.can_update {
            let put = self.operation(api, "replace", true, &HttpMethod::Put, "Put a row, new or not");
            let put = put.parameter(parameters::row(self.resource, true));
            let put = put.parameter(parameters::if_match(needed)).parameter(parameters::if_absent());
            let put = put.request_body(Some(body(ROW, self.schema("Replace"))));
            api.add(&self.row_path(), HttpMethod::Put, self.settled(put, &["200", "201", "202", "204"], &[404, 415]));
            let patch = self.operation(api, "patch", true, &HttpMethod::Patch, "Change some columns of a row");
            let patch = patch.parameter(parameters::row(self.resource, false)).parameter(parameters::if_match(needed));
            let types = &["application/json", "application/merge-patch+json", "application/cbor"];
            let patch = patch.request_body(Some(body(types, self.schema("Patch"))));
            api.add(&self.row_path(), HttpMethod::Patch, self.settled(patch, &["200", "202", "204"], &[404, 415]));
        }
        if can.can_delete {
            let delete = self.operation(api, "delete", true, &HttpMethod::Delete, "Take a row away");
            let delete =
                delete.parameter(parameters::row(self.resource, false)).parameter(parameters::if_match(needed));
            api.add(&self.row_path(), HttpMethod::Delete, self.settled(delete, &["200", "202", "204"], &[404]));
        }
    }

    fn insert(&self, api: &mut Api) {
        let one = ["200", "201", "202", "204"];
        let insert = self.operation(api, "insert", false, &HttpMethod::Post, "Add a row, or many");
        let several: Shape = array(self.schema("Insert")).into();
        let either = OneOfBuilder::new().item(self.schema("Insert")).item(several);
        let lines = ContentBuilder::new().schema(Some(text().description(Some("A row per line.")))).build();
        let mut takes = body(ROW, either);
        takes.content.insert("application/x-ndjson".to_string(), lines.into());
        let insert = self.settled(insert.request_body(Some(takes)), &one, &[404, 415, 504]);
        // Many rows have a result each.
        let results = OneOfBuilder::new().item(self.schema("Row")).item(array(named("BulkResult")));
        let both = answers::json("The row is there, or the results of many.", results);
        let both = answers::content(both, "application/x-ndjson", text());
        api.add(&self.list_path(), HttpMethod::Post, insert.response("200", answers::written(both).build()));

        let insert = self.operation(api, "insertAs", true, &HttpMethod::Post, "Add a row under this id");
        let insert = insert.parameter(parameters::row(self.resource, true)).parameter(parameters::if_absent());
        let insert = insert.request_body(Some(body(ROW, self.schema("Replace"))));
        api.add(&self.row_path(), HttpMethod::Post, self.settled(insert, &one, &[404, 415]));
    }

    /// A write of one row: its answers, what it may ask for, how it may be refused.
    fn settled(&self, operation: OperationBuilder, statuses: &[&str], refusals: &[u16]) -> OperationBuilder {
        let operation = operation.parameter(parameters::prefer()).parameter(parameters::idempotency_key());
        let operation = statuses.iter().fold(operation, |operation, status| {
            let answer = match *status {
                "200" => answers::json("It is done; the row.", self.schema("Row")),
                "201" => answers::json("The source has the new row.", self.schema("Row")),
                "202" => answers::json("It is in the journal and visible; the row as it will be.", self.schema("Row")),
                _ => answers::empty("It is done."),
            };
            operation.response(*status, answers::written(answer).build())
        });
        let operation = answers::refusals(operation, &WRITE);
        let operation = answers::refusals(operation, &[412, 502]);
        let operation = answers::refusals(operation, refusals);
        match self.resource.options.require_if_match {
            true => answers::refusals(operation, &[428]),
            false => operation,
        }
    }

    // --- writes by filter --------------------------------------------------------------------------------------------

    fn by_filter(&self, api: &mut Api) {
        let can = self.resource.dio.capabilities();
        let most = self.resource.options.max_affected;
        let about = format!(
            "At most {most} rows, unless `all=true` asks for every one. No `Idempotency-Key`: a repeated request is about the \
             rows that match then, which may be others; to be sure of them, write to each by its id."
        );
        let many = |operation: OperationBuilder| {
            let operation = operation.parameters(Some(parameters::filters(self.resource))).parameter(parameters::all());
            let accepted = answers::json("The writes are in the journal and visible.", named("Affected"));
            let operation = operation.response("202", answers::durable(accepted).build());
            let nothing = answers::json(
                "No row matches, or the source was waited for and has answered for all.",
                named("Affected"),
            );
            let operation = operation.response("200", answers::durable(nothing).build());
            let operation = operation.parameter(parameters::prefer()).description(Some(about.as_str()));
            answers::refusals(operation, &WRITE)
        };
        if can.can_update {
            let patch = self.operation(api, "patch", false, &HttpMethod::Patch, "Change every row that matches");
            let patch = patch.request_body(Some(body(ROW, self.schema("Patch"))));
            api.add(&self.list_path(), HttpMethod::Patch, answers::refusals(many(patch), &[415]));
        }
        if can.can_delete {
            let delete = self.operation(api, "delete", false, &HttpMethod::Delete, "Take every row away that matches");
            api.add(&self.list_path(), HttpMethod::Delete, many(delete));
        }
    }

    // --- events ------------------------------------------------------------------------------------------------------

    fn events(&self, api: &mut Api) {
        for (row, summary) in [(false, "Events of all rows"), (true, "Events of one row")] {
            let watch = self.operation(api, "watch", row, &HttpMethod::Get, summary);
            let watch = watch.description(Some(EVENTS)).parameters(Some(parameters::events(self.resource, row)));
            let watch = if row { watch.parameter(parameters::row(self.resource, false)) } else { watch };
            let watch = answers::events(watch, self.schema("Frame"));
            let watch = if api.origins { answers::refusals(watch, &[403]) } else { watch };
            let path = if row { self.row_path() } else { self.list_path() };
            api.add(&format!("{path}/events"), HttpMethod::Get, watch);
        }
        let watch = self.operation(api, "follow", false, &HttpMethod::Get, "A list that is kept true");
        let watch = watch.description(Some(LIVE)).parameters(Some(parameters::live(self.resource)));
        let watch = answers::events(watch, named("LiveFrame"));
        let watch = if api.origins { answers::refusals(watch, &[403]) } else { watch };
        api.add(&format!("{}/live", self.list_path()), HttpMethod::Get, watch);
    }
}

/// What events are.
const EVENTS: &str = "Frames, one JSON object each: as text messages of a WebSocket, as server-sent events (`Accept: \
    text/event-stream`), or at once and no more (a line each, or an array), after `wait` seconds at most. Clients ignore types \
    and members they do not know. A row that begins to match a filter is `RecordInserted` with `entered`, one that ceases \
    `RecordRemoved` with `left`.";

/// What a live query is.
const LIVE: &str = "The window of a list, and every change of it: first its rows, as a snapshot of events has them, in their order; \
    then `window` frames, to be applied one after the other. Transports are those of events. Whoever falls behind is told \
    `reset` and gets the rows anew. A long poll is answered with the rows, or, from `since` on, with the next changes.";

/// Types that hold one row.
const ROW: &[&str] = &["application/json", "application/cbor"];

fn body(types: &[&str], schema: impl Into<Shape>) -> RequestBody {
    let schema: Shape = schema.into();
    let body = RequestBodyBuilder::new().required(Some(Required::True));
    let add = |body: RequestBodyBuilder, media: &&str| {
        body.content(*media, ContentBuilder::new().schema(Some(schema.clone())).build())
    };
    types.iter().fold(body, add).build()
}

fn cbor(response: ResponseBuilder) -> ResponseBuilder {
    answers::content(response, "application/cbor", text().content_encoding("binary"))
}

fn unchanged() -> utoipa::openapi::Response {
    answers::read(answers::empty("It is what the client has.")).build()
}
