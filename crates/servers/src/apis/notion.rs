//! Notion: the pages of a data source.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::answer::Answer;
use super::api::Api;
use super::double::Double;
use super::limit::{Limit, Pace, Usage};
use super::page::take;
use super::request::Request;
use super::rows::Content;
use super::rows::notion::{CONTENT, DATA_SOURCE, DATABASE, create, dashed, properties, row, update};
use super::sample;
use super::store::{Row, Store};

const QUERY: &str = "/v1/data_sources/248104cd477e80afbc30000bd28de8f9/query";
/// The first version that knows data sources.
const DATA_SOURCES_SINCE: &str = "2025-09-03";

/// The API of Notion, with the pages of one data source.
///
/// From developers.notion.com: [query], [pagination], [versioning], [request limits], [status codes], [pages], [trash]; and from the
/// types of makenotion/notion-sdk-js. Versions before 2025-09-03 query `/v1/databases/{id}/query`. A page goes to the trash by PATCH with
/// `in_trash` (before: `archived`), and leaves it so; a query does not find it there, a GET does.
///
/// Read in part: the query (as types of the SDK), pagination, request limits, status codes. Not verified: the versions that are still
/// taken; that times are cut to the minute (seen in examples); the wording of most messages; the bound of results per query;
/// `additional_data` of a 429, which is missing here. The limit depends on the plan: here it is three requests per second, counted by the
/// minute. Filters and sorts take `last_edited_time` and `created_time` only. [`Double::delete`] removes a page for good.
///
/// [query]: https://developers.notion.com/reference/query-a-data-source
/// [pagination]: https://developers.notion.com/reference/intro#pagination
/// [versioning]: https://developers.notion.com/reference/versioning
/// [request limits]: https://developers.notion.com/reference/request-limits
/// [status codes]: https://developers.notion.com/reference/status-codes
/// [pages]: https://developers.notion.com/reference/page
/// [trash]: https://developers.notion.com/reference/archive-a-page
#[derive(Debug)]
pub struct Notion(());

impl Notion {
    /// Token that is accepted after `Bearer`.
    pub const TOKEN: &str = "ntn_double";
    /// Version that [`Double::headers`] has.
    pub const VERSION: &str = "2025-09-03";

    /// Starts a double.
    pub async fn start(rows: Vec<Value>) -> Double {
        Double::start(Notion(()), rows).await
    }

    /// So many pages.
    pub fn rows(count: usize) -> Vec<Value> {
        (1..=count as u64).map(row).collect()
    }

    /// Properties of a page with this name and price, for a create or update request.
    pub fn properties(name: &str, price: f64) -> Value {
        properties(name, price)
    }

    fn query(request: &Request, store: &Store) -> Result<Answer, Answer> {
        let body = if request.body.is_empty() { json!({}) } else { request.object().ok_or_else(invalid_json)? };
        let size = body
            .get("page_size")
            .map_or(Some(100), Value::as_u64)
            .ok_or_else(|| invalid("body.page_size should be a number"))?;
        if !(1..=100).contains(&size) {
            return Err(invalid(&format!(
                "body failed validation: body.page_size should be ≤ `100`, instead was `{size}`."
            )));
        }
        let filter = body.get("filter").map(Filter::read).transpose()?;
        let is_listed =
            |row: &&Row| row.value["in_trash"] == false && filter.as_ref().is_none_or(|filter| filter.matches(row));
        let mut rows: Vec<_> = store.iter().filter(is_listed).collect();
        if let Some(sort) = body.pointer("/sorts/0") {
            let pointer = format!("/{}", sort["timestamp"].as_str().ok_or_else(|| invalid("sorts take a timestamp"))?);
            rows.sort_by(|a, b| a.text(&pointer).cmp(b.text(&pointer)));
        }
        if body.pointer("/sorts/0/direction").is_some_and(|direction| direction == "descending")
            || body.get("sorts").is_none()
        {
            rows.reverse();
        }
        let start = match body.get("start_cursor").filter(|cursor| !cursor.is_null()) {
            None => 0,
            Some(cursor) => {
                let id = cursor.as_str().and_then(|cursor| store.read_cursor(cursor));
                let order =
                    id.and_then(|id| id.parse().ok()).ok_or_else(|| invalid("The start_cursor provided is invalid"))?;
                place(&rows, order)
            }
        };
        let (page, more) = take(rows[start..].iter().copied(), size as usize);
        // The cursor is the row that comes next, as it comes.
        let next = more.then(|| rows[start + page.len()]).map(|row| store.cursor(&row.order.to_string()));
        let results: Value = page.iter().map(|row| &row.value).cloned().collect();
        Ok(Answer::json(
            200,
            &json!({
                "object": "list", "results": results, "next_cursor": next, "has_more": more,
                "type": "page_or_data_source", "page_or_data_source": {},
            }),
        ))
    }

    fn write(request: &Request, store: &mut Store, id: Option<&str>) -> Result<Answer, Answer> {
        let body = request.object().ok_or_else(invalid_json)?;
        let known = ["Name", "Price", "In stock", "Tags", "Due", "Notes"];
        let named = sample::object(&body["properties"]);
        if let Some(name) = named.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(invalid(&format!("{name} is not a property that exists.")));
        }
        if body.pointer("/properties/Price/number").is_some_and(|number| !number.is_number() && !number.is_null()) {
            return Err(invalid("body failed validation: body.properties.Price.number should be a number"));
        }
        if let Some(id) = id {
            let row = store.change(id, |row| update(row, &body, Timestamp::now())).ok_or_else(|| not_found(id))?;
            return Ok(Answer::json(200, &row.value));
        }
        let parent = &body["parent"];
        let parent = parent
            .get("data_source_id")
            .or_else(|| parent.get("database_id"))
            .and_then(Value::as_str)
            .unwrap_or_default();
        if ![DATA_SOURCE, DATABASE].contains(&parent.replace('-', "").as_str()) {
            return Err(invalid("body failed validation: body.parent should be the data source"));
        }
        if !body["properties"].is_object() {
            return Err(invalid("body failed validation: body.properties should be defined, instead was `undefined`."));
        }
        let row = create(store.next_number(), &body, Timestamp::now());
        store.insert(row["id"].as_str().unwrap_or_default().to_owned(), row.clone());
        Ok(Answer::json(200, &row))
    }
}

impl Api for Notion {
    fn list_path(&self) -> &'static str {
        QUERY
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        vec![("authorization", format!("Bearer {}", Notion::TOKEN)), ("notion-version", Notion::VERSION.to_owned())]
    }

    fn limit(&self) -> Limit {
        Limit::new(180, Duration::from_secs(60))
    }

    fn pace(&self) -> Pace {
        Pace::Fixed
    }

    fn content(&self) -> Content {
        CONTENT
    }

    fn authorize(&self, request: &Request) -> Result<(), Answer> {
        if request.credential(&["Bearer"]) != Some(Notion::TOKEN) {
            return Err(failure(401, "unauthorized", "API token is invalid."));
        }
        match request.header("notion-version") {
            Some("2022-02-22" | "2022-06-28" | "2025-09-03" | "2026-03-11") => Ok(()),
            Some(version) => {
                Err(invalid(&format!("Notion-Version header failed validation: {version} is not a version")))
            }
            None => {
                let message = "Notion-Version header failed validation: Notion-Version header should be defined, instead was `undefined`.";
                Err(failure(400, "missing_version", message))
            }
        }
    }

    fn answer(&self, request: &Request, store: &mut Store) -> Result<Answer, Answer> {
        let has_data_sources = request.header("notion-version").is_some_and(|version| version >= DATA_SOURCES_SINCE);
        let plain = |id: &str| id.replace('-', "");
        match (request.method.as_str(), request.path().as_slice()) {
            ("POST", ["v1", "data_sources", id, "query"]) if has_data_sources && plain(id) == DATA_SOURCE => {
                Notion::query(request, store)
            }
            ("POST", ["v1", "databases", id, "query"]) if !has_data_sources && plain(id) == DATABASE => {
                Notion::query(request, store)
            }
            ("POST", ["v1", "pages"]) => Notion::write(request, store, None),
            (method, ["v1", "pages", id]) => {
                let id = dashed(id);
                match method {
                    "GET" => store.get(&id).map(|row| Answer::json(200, &row.value)).ok_or_else(|| not_found(&id)),
                    "PATCH" => Notion::write(request, store, Some(&id)),
                    _ => Err(failure(400, "invalid_request_url", "Invalid request URL.")),
                }
            }
            _ => Err(failure(400, "invalid_request_url", "Invalid request URL.")),
        }
    }

    fn refuse(&self, usage: &Usage) -> Answer {
        failure(429, "rate_limited", "You have been rate limited. Please try again in a few minutes.")
            .with("retry-after", usage.seconds())
    }

    fn error(&self, status: u16, message: &str) -> Answer {
        let code = match status {
            503 => "service_unavailable",
            504 => "gateway_timeout",
            529 => "service_overload",
            _ => "internal_server_error",
        };
        failure(status, code, message)
    }
}

/// Filter by a time of the page: `{"timestamp": "last_edited_time", "last_edited_time": {"on_or_after": "..."}}`.
struct Filter {
    pointer: String,
    from: Timestamp,
    is_inclusive: bool,
}

impl Filter {
    fn read(filter: &Value) -> Result<Filter, Answer> {
        let unknown = || invalid("body failed validation: body.filter takes a timestamp with after or on_or_after");
        let name = filter["timestamp"].as_str().ok_or_else(unknown)?;
        let inclusive = filter[name]["on_or_after"].as_str();
        let time = inclusive.or_else(|| filter[name]["after"].as_str()).ok_or_else(unknown)?;
        let from = time.parse().map_err(|_| unknown())?;
        Ok(Filter { pointer: format!("/{name}"), from, is_inclusive: inclusive.is_some() })
    }

    fn matches(&self, row: &Row) -> bool {
        let time = row.text(&self.pointer).parse::<Timestamp>();
        time.is_ok_and(|time| time > self.from || self.is_inclusive && time == self.from)
    }
}

/// Place of the row with this order, or of the one that stands there if it is gone.
fn place(rows: &[&Row], order: u64) -> usize {
    let is_descending = rows.first().zip(rows.last()).is_some_and(|(first, last)| first.order > last.order);
    rows.iter().position(|row| row.order == order).unwrap_or_else(|| {
        rows.iter()
            .position(|row| if is_descending { row.order < order } else { row.order > order })
            .unwrap_or(rows.len())
    })
}

fn failure(status: u16, code: &str, message: &str) -> Answer {
    Answer::json(status, &json!({"object": "error", "status": status, "code": code, "message": message}))
}

fn invalid(message: &str) -> Answer {
    failure(400, "validation_error", message)
}

fn invalid_json() -> Answer {
    failure(400, "invalid_json", "Error parsing JSON body.")
}

fn not_found(id: &str) -> Answer {
    let message = format!(
        "Could not find page with ID: {id}. Make sure the relevant pages and databases are shared with your integration."
    );
    failure(404, "object_not_found", &message)
}
