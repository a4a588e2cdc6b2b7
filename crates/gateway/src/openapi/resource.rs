//! Paths of one Dio, with the operations that it supports.

use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{HttpMethod, OperationBuilder};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{AnyOfBuilder, OneOfBuilder};
use utoipa::openapi::{Ref, Required};

use super::shapes::{Shape, array, named, text};
use super::{Api, answers, parameters, rows, shapes};
use crate::state::Resource;

/// Statuses of errors of all writes.
const WRITE: [u16; 8] = [400, 405, 408, 409, 413, 422, 503, 507];

/// Builder of the paths of one Dio.
struct ResourcePaths<'a> {
    title: &'a str,
    name: &'a str,
    resource: &'a Resource,
}

/// Adds the operations of `resource`, whose ids end with `title`.
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
            let summary =
                if method == HttpMethod::Get { "List rows by filter, order and page" } else { "Count rows by filter" };
            let operation = self.operation(api, verb, false, &method, summary);
            let operation = operation.parameters(Some(parameters::filters(self.resource)));
            let operation = operation.parameters(Some(parameters::page(self.resource)));
            let operation = operation.parameter(parameters::explain()).parameter(parameters::if_none_match());
            let response = match method {
                HttpMethod::Get => {
                    let rows = AnyOfBuilder::new().item(rows::list(self.title)).item(named("Explained"));
                    self.row_list(rows)
                }
                _ => answers::empty("The number of rows is in the headers."),
            };
            let operation = operation.response("200", answers::listed(response).build()).response("304", unchanged());
            api.add(&self.list_path(), method, self.readable(operation, &[400, 406, 503]));
        }
        for (method, verb) in [(HttpMethod::Get, "get"), (HttpMethod::Head, "check")] {
            let summary = if method == HttpMethod::Get { "Get a row" } else { "Check that a row exists" };
            let operation = self.operation(api, verb, true, &method, summary);
            let operation =
                operation.parameter(parameters::row(self.resource, false)).parameter(parameters::select_related());
            let operation = operation.parameter(parameters::if_none_match());
            let row = match method {
                HttpMethod::Get => cbor(answers::json("The row.", rows::shown(self.title))),
                _ => answers::empty("The row exists."),
            };
            let operation = operation.response("200", answers::read(row).build()).response("304", unchanged());
            api.add(&self.row_path(), method, self.readable(operation, &[400, 404, 406, 503]));
        }
        self.related(api);
        self.query(api);
        self.aggregate(api);
        let refresh = self.operation(api, "refresh", false, &HttpMethod::Post, "Refresh the copy from the source now");
        let refresh = refresh.parameter(parameters::allow_shrink());
        let refresh = refresh.response("200", answers::json("The numbers of changes.", named("Refreshed")).build());
        let refresh = answers::refusals(refresh, &[400, 409, 502, 503, 504]);
        api.add(&format!("{}/_refresh", self.list_path()), HttpMethod::Post, refresh);
        let summary = "Erase all stored data of rows";
        let purge = self.operation(api, "purge", false, &HttpMethod::Post, summary);
        let purge = purge.description(Some(
            "Erases the rows, their entries in the log, the values of ended writes to them, and kept deliveries that name them. The \
             source is not changed: delete the rows there first, because otherwise the next refresh restores them.",
        ));
        let purge = purge.request_body(Some(body(&["application/json", "application/cbor"], named("Purge"))));
        let purge =
            purge.response("200", answers::json("The numbers of erased rows and entries.", named("Purged")).build());
        let purge = answers::refusals(purge, &[400, 405, 408, 409, 413, 415, 422, 503, 507]);
        api.add(&format!("{}/_purge", self.list_path()), HttpMethod::Post, purge);
        let schema = self.operation(api, "describe", false, &HttpMethod::Get, "Get columns and supported operations");
        let schema = schema.response("200", answers::json("The description.", named("Description")).build());
        api.add(&format!("{}/_schema", self.list_path()), HttpMethod::Get, schema);
    }

    fn related(&self, api: &mut Api) {
        let related = self.operation(api, "related", false, &HttpMethod::Get, "Get the rows that are related to a row");
        let related = related.description(Some(
            "Returns a list with the parameters of the related resource, or one row if the relation is to one. `_schema` lists relations.",
        ));
        let related = related.parameter(parameters::row(self.resource, false));
        let related =
            related.parameter(parameters::path("relation", "Name of the relation.", text().min_length(Some(1))));
        let related = related.parameter(parameters::select_related()).parameter(parameters::if_none_match());
        let rows = AnyOfBuilder::new().item(array(shapes::object([]))).item(shapes::object([]));
        let related = related.response("200", answers::read(self.row_list(rows)).build()).response("304", unchanged());
        let related = self.readable(related, &[400, 404, 406, 503]);
        api.add(&format!("{}/{{relation}}", self.row_path()), HttpMethod::Get, related);
    }

    fn query(&self, api: &mut Api) {
        let query = self.operation(api, "query", false, &HttpMethod::Post, "List rows by a query in the body");
        let query = query.parameter(parameters::if_none_match());
        let query = query.parameter(parameters::after(
            "Cursor from the `Link` of an earlier response. Takes precedence over `after` in the body.",
        ));
        let query = query.request_body(Some(body(&["application/json", "application/cbor"], named("Query"))));
        let query = query
            .response("200", answers::listed(self.row_list(rows::list(self.title))).build())
            .response("304", unchanged());
        let query = self.readable(query, &[400, 406, 408, 413, 415, 503]);
        api.add(&format!("{}/_query", self.list_path()), HttpMethod::Post, query);
    }

    fn aggregate(&self, api: &mut Api) {
        for (method, verb) in [(HttpMethod::Get, "aggregate"), (HttpMethod::Head, "countGroups")] {
            let summary = match method {
                HttpMethod::Get => "Get counts, sums, averages, minima and maxima by group",
                _ => "Count groups",
            };
            let operation = self.operation(api, verb, false, &method, summary);
            let operation = operation.parameters(Some(parameters::groups(self.resource)));
            let mut others = parameters::filters(self.resource);
            let live = parameters::live_groups();
            others.retain(|filter| !live.iter().any(|own| own.name == filter.name));
            let operation = operation.parameters(Some(others)).parameters(Some(live));
            let operation = operation.parameter(parameters::if_none_match());
            let response = match method {
                HttpMethod::Get => {
                    let response = answers::json("The groups, or frames with `live`.", array(shapes::object([])));
                    let response = answers::content(response, "application/x-ndjson", text());
                    let response = answers::content(response, "text/event-stream", text());
                    cbor(answers::content(response, "text/csv", text()))
                }
                _ => answers::empty("The number of groups is in the headers."),
            };
            let operation = operation.response("200", answers::listed(response).build()).response("304", unchanged());
            let socket = answers::json(
                "With `live`: the WebSocket is open, and each message is a frame of this schema.",
                named("LiveFrame"),
            );
            let operation = operation.response("101", socket.build());
            let operation = answers::refusals(operation, &[400, 405, 406, 426, 503]);
            let operation = if api.origins { answers::refusals(operation, &[403]) } else { operation };
            api.add(&format!("{}/_aggregate", self.list_path()), method, operation);
        }
    }

    /// Adds the errors of reads to `operation`. A Dio with only a part of the rows may have to read the source.
    fn readable(&self, operation: OperationBuilder, refusals: &[u16]) -> OperationBuilder {
        let operation = answers::refusals(operation, refusals);
        match self.resource.dio.loads_chunks() {
            true => answers::refusals(operation, &[502, 504]),
            false => operation,
        }
    }

    fn row_list(&self, rows: impl Into<Shape>) -> ResponseBuilder {
        let response = answers::json("The rows.", rows);
        let response = answers::content(response, "application/x-ndjson", text());
        cbor(answers::content(response, "text/csv", text()))
    }

    // --- writes of one row -------------------------------------------------------------------------------------------

    fn writes(&self, api: &mut Api) {
        let can = self.resource.dio.capabilities();
        if can.can_insert {
            self.insert(api);
        }
        let needed = self.resource.options.require_if_match;
        if can.can_update {
            let put = self.operation(api, "replace", true, &HttpMethod::Put, "Replace a row, or add it");
            let put = put.parameter(parameters::row(self.resource, true));
            let put = put.parameter(parameters::if_match(needed)).parameter(parameters::if_absent());
            let put = put.request_body(Some(body(ROW, self.schema("Replace"))));
            api.add(&self.row_path(), HttpMethod::Put, self.settled(put, &["200", "201", "202", "204"], &[404, 415]));
            let patch = self.operation(api, "patch", true, &HttpMethod::Patch, "Change columns of a row");
            let patch = patch.parameter(parameters::row(self.resource, false)).parameter(parameters::if_match(needed));
            let types = &["application/json", "application/merge-patch+json", "application/cbor"];
            let patch = patch.request_body(Some(body(types, self.schema("Patch"))));
            api.add(&self.row_path(), HttpMethod::Patch, self.settled(patch, &["200", "202", "204"], &[404, 415]));
        }
        if can.can_delete {
            let delete = self.operation(api, "delete", true, &HttpMethod::Delete, "Delete a row");
            let delete =
                delete.parameter(parameters::row(self.resource, false)).parameter(parameters::if_match(needed));
            api.add(&self.row_path(), HttpMethod::Delete, self.settled(delete, &["200", "202", "204"], &[404]));
        }
    }

    fn insert(&self, api: &mut Api) {
        let one = ["200", "201", "202", "204"];
        let insert = self.operation(api, "insert", false, &HttpMethod::Post, "Add one row or several");
        let several: Shape = array(self.schema("Insert")).into();
        let either = OneOfBuilder::new().item(self.schema("Insert")).item(several);
        let lines = ContentBuilder::new().schema(Some(text().description(Some("One row per line.")))).build();
        let mut takes = body(ROW, either);
        takes.content.insert("application/x-ndjson".to_string(), lines.into());
        let insert = self.settled(insert.request_body(Some(takes)), &one, &[404, 415, 504]);
        // A bulk insert returns a result for each row.
        let results = OneOfBuilder::new().item(self.schema("Row")).item(array(named("BulkResult")));
        let both =
            answers::json("The source has the row. The body is the row, or the results of a bulk insert.", results);
        let both = answers::content(both, "application/x-ndjson", text());
        api.add(&self.list_path(), HttpMethod::Post, insert.response("200", answers::written(both).build()));

        let insert = self.operation(api, "insertAs", true, &HttpMethod::Post, "Add a row with this id");
        let insert = insert.parameter(parameters::row(self.resource, true)).parameter(parameters::if_absent());
        let insert = insert.request_body(Some(body(ROW, self.schema("Replace"))));
        api.add(&self.row_path(), HttpMethod::Post, self.settled(insert, &one, &[404, 415]));
    }

    /// Adds the parameters, responses and errors of a write of one row to `operation`.
    fn settled(&self, operation: OperationBuilder, statuses: &[&str], refusals: &[u16]) -> OperationBuilder {
        let operation = operation.parameter(parameters::prefer()).parameter(parameters::idempotency_key());
        let operation = statuses.iter().fold(operation, |operation, status| {
            let answer = match *status {
                "200" => answers::json("The source has applied the write. The body is the row.", self.schema("Row")),
                "201" => answers::json("The source has the new row. The body is the row.", self.schema("Row")),
                "202" => answers::json(
                    "The write is in the journal and visible to readers. The body is the row after the write.",
                    self.schema("Row"),
                ),
                _ => answers::empty("The source has applied the write."),
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
            "Writes at most {most} rows, unless `all=true` requests all of them. `Idempotency-Key` is not supported: a repeated request \
             writes the rows that match at that time, which may be others. To write certain rows, use their ids."
        );
        let many = |operation: OperationBuilder| {
            let operation = operation.parameters(Some(parameters::filters(self.resource))).parameter(parameters::all());
            let accepted = answers::json("The writes are in the journal and visible to readers.", named("Affected"));
            let operation = operation.response("202", answers::durable(accepted).build());
            let nothing = answers::json(
                "No row matches, or the source has applied or refused all writes within the requested wait.",
                named("Affected"),
            );
            let operation = operation.response("200", answers::durable(nothing).build());
            let operation = operation.parameter(parameters::prefer()).description(Some(about.as_str()));
            answers::refusals(operation, &WRITE)
        };
        if can.can_update {
            let patch = self.operation(api, "patch", false, &HttpMethod::Patch, "Change columns of all matching rows");
            let patch = patch.request_body(Some(body(ROW, self.schema("Patch"))));
            api.add(&self.list_path(), HttpMethod::Patch, answers::refusals(many(patch), &[415]));
        }
        if can.can_delete {
            let delete = self.operation(api, "delete", false, &HttpMethod::Delete, "Delete all matching rows");
            api.add(&self.list_path(), HttpMethod::Delete, many(delete));
        }
    }

    // --- events ------------------------------------------------------------------------------------------------------

    fn events(&self, api: &mut Api) {
        for (row, summary) in [(false, "Subscribe to events of all rows"), (true, "Subscribe to events of one row")] {
            let watch = self.operation(api, "watch", row, &HttpMethod::Get, summary);
            let watch = watch.description(Some(EVENTS)).parameters(Some(parameters::events(self.resource, row)));
            let watch = if row { watch.parameter(parameters::row(self.resource, false)) } else { watch };
            let watch = answers::events(watch, self.schema("Frame"));
            let watch = if api.origins { answers::refusals(watch, &[403]) } else { watch };
            let path = if row { self.row_path() } else { self.list_path() };
            api.add(&format!("{path}/events"), HttpMethod::Get, watch);
        }
        let watch = self.operation(api, "follow", false, &HttpMethod::Get, "Subscribe to a live list");
        let watch = watch.description(Some(LIVE)).parameters(Some(parameters::live(self.resource)));
        let watch = answers::events(watch, named("LiveFrame"));
        let watch = if api.origins { answers::refusals(watch, &[403]) } else { watch };
        api.add(&format!("{}/live", self.list_path()), HttpMethod::Get, watch);
    }
}

/// Description of subscriptions to events.
const EVENTS: &str = "Sends events as frames, each a JSON object. The transport is a WebSocket with text messages, server-sent events \
    (`Accept: text/event-stream`), or a long poll, which returns an array or NDJSON after at most `wait` seconds. Clients must ignore \
    unknown types and members. A row that begins to match the filter is reported as `RecordInserted` with `entered`, and one that \
    ceases to match as `RecordRemoved` with `left`.";

/// Description of live lists.
const LIVE: &str = "Sends the window of a list and every change of it: first a snapshot of its rows in their order, then `window` \
    frames, which must be applied in order. The transports are those of events. A client that falls behind receives `reset` and the \
    rows again. A long poll returns the rows or, with `since`, the next changes.";

/// Media types of one row.
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
    answers::read(answers::empty("The client has the current version.")).build()
}
