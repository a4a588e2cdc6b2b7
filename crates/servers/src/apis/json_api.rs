//! A server of JSON:API: articles.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::answer::Answer;
use super::api::Api;
use super::double::Double;
use super::limit::{Limit, Pace, Usage};
use super::page::Numbered;
use super::params::Params;
use super::request::Request;
use super::rows::Content;
use super::rows::json_api::{ARTICLES, ATTRIBUTES, CONTENT, create, row, update};
use super::sample;
use super::store::{Row, Store};

const MEDIA_TYPE: &str = "application/vnd.api+json";

/// A server of [JSON:API 1.1], with articles and their authors.
///
/// From jsonapi.org: [content negotiation], [pagination], [creating], [updating], [deleting], [errors], [status 403 for ids of clients].
/// A page has the links `self`, `first`, `prev`, `next` and `last`; those that lead nowhere are null. `include=author` adds the authors.
///
/// Read whole. The specification leaves open, and the double has decided: pages by `page[number]` and `page[size]` (20, at most 100;
/// above it 400 with `source.parameter`); bearer tokens with 401; 429 with `Retry-After` (RFC 6585) without a documented limit; 415 for a
/// body of another type; 422 for attributes that are not valid; `sort` by `title`, `words` and `updatedAt`.
///
/// [JSON:API 1.1]: https://jsonapi.org/format/1.1/
/// [content negotiation]: https://jsonapi.org/format/1.1/#content-negotiation-servers
/// [pagination]: https://jsonapi.org/format/1.1/#fetching-pagination
/// [creating]: https://jsonapi.org/format/1.1/#crud-creating
/// [updating]: https://jsonapi.org/format/1.1/#crud-updating
/// [deleting]: https://jsonapi.org/format/1.1/#crud-deleting
/// [errors]: https://jsonapi.org/format/1.1/#errors
/// [status 403 for ids of clients]: https://jsonapi.org/format/1.1/#crud-creating-client-ids
#[derive(Debug)]
pub struct JsonApi(());

impl JsonApi {
    /// Token that is accepted after `Bearer`.
    pub const TOKEN: &str = "json-api-double";

    /// Starts a double.
    pub async fn start(rows: Vec<Value>) -> Double {
        Double::start(JsonApi(()), rows).await
    }

    /// So many articles.
    pub fn rows(count: usize) -> Vec<Value> {
        (1..=count as u64).map(row).collect()
    }

    fn list(request: &Request, store: &Store) -> Result<Answer, Answer> {
        let query = &request.query;
        let mut rows: Vec<&Row> = store.iter().collect();
        if let Some(sort) = query.get("sort") {
            let name = sort.trim_start_matches('-');
            match name {
                "title" | "updatedAt" => {
                    let pointer = format!("/attributes/{name}");
                    rows.sort_by(|a, b| a.text(&pointer).cmp(b.text(&pointer)));
                }
                "words" => rows.sort_by_key(|row| row.value["attributes"]["words"].as_u64()),
                _ => return Err(parameter("sort", "The field cannot be sorted by")),
            }
            if sort.starts_with('-') {
                rows.reverse();
            }
        }
        let size = query.number("page[size]", 20);
        if !(1..=100).contains(&size) {
            return Err(parameter("page[size]", "The size of a page is between 1 and 100"));
        }
        let page = Numbered::cut(rows, query.number("page[number]", 1), size);
        let link = |number: Option<usize>| {
            number.map_or(Value::Null, |number| request.url_with(&numbered(query, number, size)).into())
        };
        let mut body = json!({
            "data": page.rows.iter().map(|row| &row.value).cloned().collect::<Value>(),
            "links": {
                "self": link(Some(page.number)), "first": link(Some(1)), "prev": link(page.previous()), "next": link(page.next()),
                "last": link(Some(page.last)),
            },
            "meta": {"total": page.total},
        });
        if query.get("include") == Some("author") {
            let mut ids: Vec<_> =
                page.rows.iter().map(|row| row.text("/relationships/author/data/id").to_owned()).collect();
            ids.sort();
            ids.dedup();
            body["included"] = ids.iter().map(|id| author(id)).collect();
        }
        Ok(document(200, body))
    }

    fn write(request: &Request, store: &mut Store, id: Option<&str>) -> Result<Answer, Answer> {
        let kind = request.header("content-type").unwrap_or_default();
        if !kind.starts_with(MEDIA_TYPE) || kind.split(';').skip(1).any(|parameter| !is_known(parameter)) {
            return Err(error(
                415,
                "Unsupported Media Type",
                "The content type is application/vnd.api+json",
                json!({}),
            ));
        }
        let body =
            request.object().ok_or_else(|| error(400, "Bad Request", "The body is not a JSON object", json!({})))?;
        let data = body.get("data").filter(|data| data.is_object());
        let data = data.ok_or_else(|| error(400, "Bad Request", "The member data is missing", pointer("/data")))?;
        if data["type"] != "articles" {
            return Err(error(409, "Conflict", "The type is articles", pointer("/data/type")));
        }
        let attributes = sample::object(&data["attributes"]);
        if let Some(name) = attributes.keys().find(|name| !ATTRIBUTES.contains(&name.as_str())) {
            return Err(error(
                422,
                "Unprocessable Entity",
                "Unknown attribute",
                pointer(&format!("/data/attributes/{name}")),
            ));
        }
        if attributes.get("title").map_or(id.is_none(), |title| title.as_str().is_none_or(str::is_empty)) {
            return Err(error(
                422,
                "Unprocessable Entity",
                "An article has a title",
                pointer("/data/attributes/title"),
            ));
        }
        if let Some(id) = id {
            if store.get(id).is_none() {
                return Err(not_found());
            }
            if data["id"] != id {
                return Err(error(409, "Conflict", "The id is that of the URL", pointer("/data/id")));
            }
            let row = store.change(id, |row| update(row, data, Timestamp::now())).ok_or_else(not_found)?;
            return Ok(document(200, json!({"data": row.value})));
        }
        if data.get("id").is_some() {
            return Err(error(403, "Forbidden", "Ids of clients are not supported", pointer("/data/id")));
        }
        let row = create(store.next_number(), data, Timestamp::now());
        let id = row["id"].as_str().unwrap_or_default().to_owned();
        store.insert(id.clone(), row.clone());
        Ok(document(201, json!({"data": row})).with("location", request.url(&format!("{ARTICLES}/{id}"))))
    }
}

impl Api for JsonApi {
    fn list_path(&self) -> &'static str {
        ARTICLES
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        vec![("authorization", format!("Bearer {}", JsonApi::TOKEN)), ("accept", MEDIA_TYPE.to_owned())]
    }

    fn limit(&self) -> Limit {
        Limit::new(60, Duration::from_secs(60))
    }

    fn pace(&self) -> Pace {
        Pace::Fixed
    }

    fn content(&self) -> Content {
        CONTENT
    }

    fn authorize(&self, request: &Request) -> Result<(), Answer> {
        let is_known = request.credential(&["Bearer"]) == Some(JsonApi::TOKEN);
        let refusal =
            || error(401, "Unauthorized", "A bearer token is required", json!({})).with("www-authenticate", "Bearer");
        is_known.then_some(()).ok_or_else(refusal)
    }

    fn answer(&self, request: &Request, store: &mut Store) -> Result<Answer, Answer> {
        let accept = request.header("accept").unwrap_or("*/*");
        let mut named = accept.split(',').map(str::trim).filter(|kind| kind.starts_with(MEDIA_TYPE)).peekable();
        // Refused is only a client all of whose instances of the type have parameters that the server does not know.
        let is_unknown = |kind: &str| {
            kind.split(';').skip(1).any(|parameter| !is_known(parameter) && !parameter.trim().starts_with("q="))
        };
        if named.peek().is_some() && named.all(is_unknown) {
            return Err(error(
                406,
                "Not Acceptable",
                "Media type parameters other than ext and profile are not supported",
                json!({}),
            ));
        }
        match (request.method.as_str(), request.path().as_slice()) {
            ("GET", ["articles"]) => JsonApi::list(request, store),
            ("POST", ["articles"]) => JsonApi::write(request, store, None),
            ("GET", ["articles", id]) => {
                store.get(id).map(|row| document(200, json!({"data": row.value}))).ok_or_else(not_found)
            }
            ("PATCH", ["articles", id]) => JsonApi::write(request, store, Some(id)),
            ("DELETE", ["articles", id]) => store.delete(id).map(|_| Answer::empty(204)).ok_or_else(not_found),
            ("GET", ["people", id]) => Ok(document(200, json!({"data": author(id)}))),
            _ => Err(not_found()),
        }
    }

    fn refuse(&self, usage: &Usage) -> Answer {
        error(429, "Too Many Requests", "The rate limit is exceeded", json!({})).with("retry-after", usage.seconds())
    }

    fn error(&self, status: u16, message: &str) -> Answer {
        error(status, "Error", message, json!({}))
    }
}

fn numbered(query: &Params, number: usize, size: usize) -> Params {
    query.with("page[number]", number).with("page[size]", size)
}

/// True for a parameter of the media type that the specification has.
fn is_known(parameter: &str) -> bool {
    let name = parameter.split('=').next().unwrap_or_default().trim();
    name == "ext" || name == "profile"
}

fn document(status: u16, mut body: Value) -> Answer {
    body["jsonapi"] = json!({"version": "1.1"});
    Answer::json(status, &body).with("content-type", MEDIA_TYPE).with("vary", "Accept")
}

fn error(status: u16, title: &str, detail: &str, source: Value) -> Answer {
    let mut error = json!({"status": status.to_string(), "title": title, "detail": detail});
    if source != json!({}) {
        error["source"] = source;
    }
    document(status, json!({"errors": [error]}))
}

fn pointer(pointer: &str) -> Value {
    json!({"pointer": pointer})
}

fn parameter(name: &str, detail: &str) -> Answer {
    error(400, "Invalid Query Parameter", detail, json!({"parameter": name}))
}

fn not_found() -> Answer {
    error(404, "Not Found", "The resource does not exist", json!({}))
}

fn author(id: &str) -> Value {
    let name = sample::name(id.parse().unwrap_or(0));
    json!({"type": "people", "id": id, "attributes": {"name": name}, "links": {"self": format!("/people/{id}")}})
}
