//! An OData service: products.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::answer::Answer;
use super::api::Api;
use super::double::Double;
use super::filter::{Operator, literal, sorted};
use super::limit::{Limit, Pace, Usage};
use super::page::take;
use super::request::Request;
use super::rows::Content;
use super::rows::odata::{CONTENT, FIELDS, create, row, update};
use super::sample;
use super::store::{Row, Store};

const PRODUCTS: &str = "/odata/Products";
/// Entities in a page unless the client prefers fewer.
const PAGE: usize = 100;

/// A service of OData 4.01 in its JSON format, with the entity set `Products`.
///
/// From docs.oasis-open.org: [protocol] (8.2.8.6 and 11.2.6.7 server-driven paging, 8.2.6 and 11.4.1.1 ETags, 8.2.8.7 `return`, 9.4
/// errors, 11.4 changes) and [JSON format]. A page has 100 entities, or as many as `Prefer: maxpagesize` says if these are fewer, and
/// `@odata.nextLink` with `$skiptoken`. PATCH merges, PUT resets what is not named; both and DELETE need `If-Match`: without it 428, with
/// another ETag 412. The values of `ID` are 64-bit numbers.
///
/// Read in part: the sections on paging and on ETags. The specification leaves open, and the double has decided: the size of pages;
/// bearer tokens with 401; 429 with `Retry-After` (RFC 6585) without a documented limit; that an expired `$skiptoken` is answered with
/// 410. `$filter` is a chain of comparisons with `and`, `$orderby` has one property. Missing: `$expand`, `$batch`, `$metadata`, delta
/// links, `IEEE754Compatible`.
///
/// [protocol]: https://docs.oasis-open.org/odata/odata/v4.01/odata-v4.01-part1-protocol.html
/// [JSON format]: https://docs.oasis-open.org/odata/odata-json-format/v4.01/odata-json-format-v4.01.html
#[derive(Debug)]
pub struct OData(());

impl OData {
    /// Token that is accepted after `Bearer`.
    pub const TOKEN: &str = "odata-double";

    /// Starts a double.
    pub async fn start(rows: Vec<Value>) -> Double {
        Double::start(OData(()), rows).await
    }

    /// So many products.
    pub fn rows(count: usize) -> Vec<Value> {
        (1..=count as u64).map(row).collect()
    }

    fn list(request: &Request, store: &Store) -> Result<Answer, Answer> {
        let query = &request.query;
        let filters = query.get("$filter").map(comparisons).transpose()?.unwrap_or_default();
        let mut rows: Vec<_> = store
            .iter()
            .filter(|row| filters.iter().all(|filter| filter.operator.holds(&row.value[&filter.name], &filter.value)))
            .collect();
        let total = rows.len();
        if let Some(order) = query.get("$orderby") {
            let (name, direction) = order.trim().split_once(' ').unwrap_or((order.trim(), "asc"));
            rows.sort_by(|a, b| sorted(&a.value[name], &b.value[name]));
            if direction.trim() == "desc" {
                rows.reverse();
            }
        }
        let preferred = preference(request, "maxpagesize").and_then(|size| size.parse().ok()).filter(|size| *size > 0);
        let size = preferred.unwrap_or(PAGE).min(PAGE);
        let (start, served) = match query.get("$skiptoken") {
            None => (query.number("$skip", 0), 0),
            Some(token) => {
                let token =
                    store.read_cursor(token).ok_or_else(|| failure(410, "Gone", "The skiptoken has expired"))?;
                let (last, served) = token.split_once(',').unwrap_or_default();
                let last = last.parse().unwrap_or(u64::MAX);
                let place = rows.iter().position(|row| row.order == last).map(|place| place + 1);
                (
                    place.unwrap_or_else(|| rows.iter().filter(|row| row.order < last).count()),
                    served.parse().unwrap_or(0),
                )
            }
        };
        let left = query.number("$top", usize::MAX).saturating_sub(served);
        let (page, more) = take(rows.into_iter().skip(start), size.min(left));
        let selected = query.get("$select");
        let mut body = json!({"@odata.context": request.url("/odata/$metadata#Products")});
        if query.get("$count") == Some("true") {
            body["@odata.count"] = total.into();
        }
        body["value"] = page.iter().map(|row| entity(row, selected)).collect();
        if let Some(last) = page.last().filter(|_| more && left > page.len()) {
            let token = store.cursor(&format!("{},{}", last.order, served + page.len()));
            body["@odata.nextLink"] = request.url_with(&query.without("$skip").with("$skiptoken", token)).into();
        }
        let applied = preferred.map(|_| format!("maxpagesize={size}"));
        Ok(answer(200, &body).with_some("preference-applied", applied))
    }

    fn one(request: &Request, row: &Row) -> Answer {
        let etag = etag(row);
        if request.header("if-none-match").is_some_and(|known| matches(known, &etag)) {
            return Answer::empty(304).with("etag", etag);
        }
        let mut body = entity(row, request.query.get("$select"));
        body["@odata.context"] = request.url("/odata/$metadata#Products/$entity").into();
        answer(200, &body).with("etag", etag)
    }

    fn create_entity(request: &Request, store: &mut Store) -> Result<Answer, Answer> {
        let content = content(request)?;
        if content["Name"].as_str().is_none_or(str::is_empty) {
            return Err(failure(400, "ValidationError", "The property Name is required"));
        }
        let row = create(store.next_number(), &content, Timestamp::now());
        let id = row["ID"].to_string();
        store.insert(id.clone(), row);
        let row = store.get(&id).ok_or_else(not_found)?;
        let url = request.url(&format!("{PRODUCTS}({id})"));
        if preference(request, "return") == Some("minimal") {
            return Ok(Answer::empty(204).with("location", &url).with("odata-entityid", url));
        }
        Ok(OData::one(request, row).with_status(201).with("location", url))
    }

    fn change(request: &Request, store: &mut Store, id: &str, reset: bool) -> Result<Answer, Answer> {
        check_etag(request, store, id)?;
        let content = content(request)?;
        if content.get("Name").is_some_and(|name| name.as_str().is_none_or(str::is_empty)) {
            return Err(failure(400, "ValidationError", "The property Name is required"));
        }
        let change = |row: &mut Value| {
            if reset {
                *row = create(0, &json!({"ID": row["ID"], "CreatedAt": row["CreatedAt"]}), Timestamp::now());
            }
            update(row, &content, Timestamp::now());
        };
        let row = store.change(id, change).ok_or_else(not_found)?;
        if preference(request, "return") == Some("representation") {
            return Ok(OData::one(request, row).with("preference-applied", "return=representation"));
        }
        Ok(Answer::empty(204).with("etag", etag(row)))
    }
}

impl Api for OData {
    fn list_path(&self) -> &'static str {
        PRODUCTS
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        vec![("authorization", format!("Bearer {}", OData::TOKEN))]
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
        let is_known = request.credential(&["Bearer"]) == Some(OData::TOKEN);
        let refusal = || failure(401, "Unauthorized", "A bearer token is required").with("www-authenticate", "Bearer");
        is_known.then_some(()).ok_or_else(refusal)
    }

    fn answer(&self, request: &Request, store: &mut Store) -> Result<Answer, Answer> {
        match (request.method.as_str(), request.path().as_slice()) {
            ("GET", ["odata", "Products"]) => OData::list(request, store),
            ("POST", ["odata", "Products"]) => OData::create_entity(request, store),
            ("GET", ["odata", "Products", "$count"]) => Ok(Answer::text(200, "text/plain", store.len().to_string())),
            (method, ["odata", set]) => {
                let id = set.strip_prefix("Products(").and_then(|rest| rest.strip_suffix(')')).ok_or_else(not_found)?;
                let id = id.trim_start_matches("ID=");
                match method {
                    "GET" => store.get(id).map(|row| OData::one(request, row)).ok_or_else(not_found),
                    "PATCH" => OData::change(request, store, id, false),
                    "PUT" => OData::change(request, store, id, true),
                    "DELETE" => {
                        check_etag(request, store, id)?;
                        store.delete(id).map(|_| Answer::empty(204)).ok_or_else(not_found)
                    }
                    _ => Err(failure(405, "MethodNotAllowed", "The method is not allowed")),
                }
            }
            _ => Err(not_found()),
        }
    }

    fn refuse(&self, usage: &Usage) -> Answer {
        failure(429, "TooManyRequests", "The rate limit is exceeded").with("retry-after", usage.seconds())
    }

    fn label(&self, answer: Answer, _: &Request, _: &Usage) -> Answer {
        answer.with("odata-version", "4.01")
    }

    fn error(&self, status: u16, message: &str) -> Answer {
        failure(status, "InternalError", message)
    }
}

/// Comparison of a property in a filter.
struct Comparison {
    name: String,
    operator: Operator,
    value: Value,
}

/// Comparisons with `and` in between.
fn comparisons(filter: &str) -> Result<Vec<Comparison>, Answer> {
    let unknown = || failure(400, "BadRequest", "$filter takes comparisons with and in between");
    let comparison = |text: &str| {
        let mut parts = text.trim().splitn(3, ' ');
        let (name, operator) = (parts.next()?.to_owned(), Operator::read(parts.next()?)?);
        let text = parts.next()?.trim();
        let quoted = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
        let value = quoted.map_or_else(|| literal(text), |text| text.replace("''", "'").into());
        Some(Comparison { name, operator, value })
    };
    filter.split(" and ").map(|text| comparison(text).ok_or_else(unknown)).collect()
}

/// Value of a preference, whose name may have the prefix `odata.`.
fn preference<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let preferences = request.header("prefer")?.split([',', ';']).filter_map(|part| part.trim().split_once('='));
    preferences.into_iter().find(|(known, _)| known.trim_start_matches("odata.") == name).map(|(_, value)| value)
}

fn check_etag(request: &Request, store: &Store, id: &str) -> Result<(), Answer> {
    let row = store.get(id).ok_or_else(not_found)?;
    match request.header("if-match") {
        None => Err(failure(428, "PreconditionRequired", "The header If-Match is required")),
        Some(known) if matches(known, &etag(row)) => Ok(()),
        Some(_) => Err(failure(412, "PreconditionFailed", "The entity has changed")),
    }
}

fn matches(known: &str, etag: &str) -> bool {
    known.split(',').any(|known| known.trim() == etag || known.trim() == "*")
}

fn etag(row: &Row) -> String {
    format!("W/\"{}\"", row.version)
}

fn entity(row: &Row, selected: Option<&str>) -> Value {
    let mut entity = sample::object(&row.value);
    if let Some(selected) = selected.filter(|selected| *selected != "*") {
        entity.retain(|name, _| selected.split(',').any(|known| known.trim() == name));
    }
    entity.insert("@odata.etag".to_owned(), etag(row).into());
    Value::Object(entity)
}

fn content(request: &Request) -> Result<Value, Answer> {
    let content = request.object().ok_or_else(|| failure(400, "BadRequest", "The body is not a JSON object"))?;
    let unknown = |name: &&String| !FIELDS.contains(&name.as_str()) && !name.starts_with('@') && name.as_str() != "ID";
    match sample::object(&content).keys().find(unknown) {
        Some(name) => Err(failure(400, "BadRequest", &format!("The property {name} does not exist"))),
        None => Ok(content),
    }
}

fn answer(status: u16, body: &Value) -> Answer {
    Answer::json(status, body).with("content-type", "application/json;odata.metadata=minimal")
}

fn failure(status: u16, code: &str, message: &str) -> Answer {
    answer(status, &json!({"error": {"code": code, "message": message, "details": []}}))
}

fn not_found() -> Answer {
    failure(404, "NotFound", "The resource does not exist")
}
