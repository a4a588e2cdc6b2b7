//! Airtable: the records of a table.

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
use super::rows::airtable::{CONTENT, FIELDS, create, row, update};
use super::sample;
use super::store::{Row, Store};

const TABLE: &str = "/v0/appDoubleOfAirtbl/Orders";

/// The Web API of Airtable, with the table `Orders` of a base.
///
/// From airtable.com/developers/web/api and support.airtable.com: [list records], [create records], [update record], [delete record],
/// [errors], [rate limits], [call limits]: five requests per second and base, then nothing for 30 seconds ([`Double::set_penalty`]).
/// Empty fields are left out of records. PATCH keeps the fields that are not named, PUT clears them.
///
/// Read whole: the pages of support.airtable.com; the reference only as others quote it. Not verified: the bodies of 404, 422 and 429,
/// and whether a 429 has headers (here it has none); 422 for a `pageSize` above 100; that a request during the penalty does not begin it
/// again; what [`Double::expire_cursors`] causes, 422 with `LIST_RECORDS_ITERATOR_NOT_AVAILABLE`. `filterByFormula` takes
/// `IS_AFTER(LAST_MODIFIED_TIME(), '...')` only; the time is that of the field `Modified`.
///
/// [list records]: https://airtable.com/developers/web/api/list-records
/// [create records]: https://airtable.com/developers/web/api/create-records
/// [update record]: https://airtable.com/developers/web/api/update-record
/// [delete record]: https://airtable.com/developers/web/api/delete-record
/// [errors]: https://airtable.com/developers/web/api/errors
/// [rate limits]: https://airtable.com/developers/web/api/rate-limits
/// [call limits]: https://support.airtable.com/docs/managing-api-call-limits-in-airtable
#[derive(Debug)]
pub struct Airtable(());

impl Airtable {
    /// Token that is accepted after `Bearer`.
    pub const TOKEN: &str = "patDouble.0123456789";

    /// Starts a double.
    pub async fn start(rows: Vec<Value>) -> Double {
        let double = Double::start(Airtable(()), rows).await;
        double.set_penalty(Duration::from_secs(30));
        double
    }

    /// So many records.
    pub fn rows(count: usize) -> Vec<Value> {
        (1..=count as u64).map(row).collect()
    }

    fn list(request: &Request, store: &Store) -> Result<Answer, Answer> {
        let query = &request.query;
        let size = query.number("pageSize", 100);
        if !(1..=100).contains(&size) {
            return Err(failure(422, "INVALID_REQUEST_UNKNOWN", "Invalid request: pageSize must be between 1 and 100"));
        }
        let since = query.get("filterByFormula").map(modified_after).transpose()?;
        let is_listed = |row: &&Row| since.as_ref().is_none_or(|since| row.text("/fields/Modified") > since.as_str());
        let (position, served) = match query.get("offset") {
            None => (None, 0),
            Some(offset) => {
                let place = offset.split_once('/').and_then(|(cursor, _)| store.read_cursor(cursor));
                let place = place.ok_or_else(|| {
                    failure(422, "LIST_RECORDS_ITERATOR_NOT_AVAILABLE", "The iterator is not available")
                })?;
                let (order, served) = place.split_once(',').unwrap_or_default();
                (order.parse::<u64>().ok(), served.parse().unwrap_or(0))
            }
        };
        let left = query.number("maxRecords", usize::MAX).saturating_sub(served);
        let rows = store.iter().filter(|row| position.is_none_or(|position| row.order > position)).filter(is_listed);
        let (page, more) = take(rows, size.min(left));
        let served = served + page.len();
        let chosen: Vec<_> = query.all("fields[]").collect();
        let mut body = json!({"records": page.iter().map(|row| record(&row.value, &chosen)).collect::<Value>()});
        if let Some(last) = page.last().filter(|_| more && left > page.len()) {
            let cursor = store.cursor(&format!("{},{served}", last.order));
            body["offset"] = format!("{cursor}/{}", last.id).into();
        }
        Ok(Answer::json(200, &body))
    }

    fn create_records(request: &Request, store: &mut Store) -> Result<Answer, Answer> {
        let body = body(request)?;
        let Some(records) = body.get("records").and_then(Value::as_array) else {
            return Ok(Answer::json(200, &record(&add(store, fields(&body)?), &[])));
        };
        if records.len() > 10 {
            return Err(failure(422, "INVALID_REQUEST_UNKNOWN", "Invalid request: at most 10 records are allowed"));
        }
        let contents = records.iter().map(fields).collect::<Result<Vec<_>, _>>()?;
        let added: Value = contents.into_iter().map(|content| record(&add(store, content), &[])).collect();
        Ok(Answer::json(200, &json!({"records": added})))
    }

    fn change(request: &Request, store: &mut Store, id: &str, clear: bool) -> Result<Answer, Answer> {
        let body = body(request)?;
        let content = fields(&body)?;
        let change = |row: &mut Value| {
            if clear {
                row["fields"] = json!({});
            }
            update(row, content, Timestamp::now());
        };
        Ok(Answer::json(200, &record(&store.change(id, change).ok_or_else(not_found)?.value, &[])))
    }
}

impl Api for Airtable {
    fn list_path(&self) -> &'static str {
        TABLE
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        vec![("authorization", format!("Bearer {}", Airtable::TOKEN))]
    }

    fn limit(&self) -> Limit {
        Limit::new(5, Duration::from_secs(1))
    }

    fn pace(&self) -> Pace {
        Pace::Rolling
    }

    fn content(&self) -> Content {
        CONTENT
    }

    fn authorize(&self, request: &Request) -> Result<(), Answer> {
        let is_known = request.credential(&["Bearer"]) == Some(Airtable::TOKEN);
        is_known.then_some(()).ok_or_else(|| failure(401, "AUTHENTICATION_REQUIRED", "Authentication required"))
    }

    fn answer(&self, request: &Request, store: &mut Store) -> Result<Answer, Answer> {
        match (request.method.as_str(), request.path().as_slice()) {
            ("GET", ["v0", "appDoubleOfAirtbl", "Orders"]) => Airtable::list(request, store),
            ("POST", ["v0", "appDoubleOfAirtbl", "Orders"]) => Airtable::create_records(request, store),
            ("GET", ["v0", "appDoubleOfAirtbl", "Orders", id]) => {
                store.get(id).map(|row| Answer::json(200, &record(&row.value, &[]))).ok_or_else(not_found)
            }
            ("PATCH", ["v0", "appDoubleOfAirtbl", "Orders", id]) => Airtable::change(request, store, id, false),
            ("PUT", ["v0", "appDoubleOfAirtbl", "Orders", id]) => Airtable::change(request, store, id, true),
            ("DELETE", ["v0", "appDoubleOfAirtbl", "Orders", id]) => {
                store.delete(id).map(|_| Answer::json(200, &json!({"id": id, "deleted": true}))).ok_or_else(not_found)
            }
            _ => Err(not_found()),
        }
    }

    fn refuse(&self, _: &Usage) -> Answer {
        failure(
            429,
            "TOO_MANY_REQUESTS",
            "You have made too many requests in a short period of time. Please retry later",
        )
    }

    fn error(&self, status: u16, message: &str) -> Answer {
        failure(status, "SERVER_ERROR", message)
    }
}

fn failure(status: u16, kind: &str, message: &str) -> Answer {
    Answer::json(status, &json!({"error": {"type": kind, "message": message}}))
}

fn not_found() -> Answer {
    Answer::json(404, &json!({"error": "NOT_FOUND"}))
}

fn body(request: &Request) -> Result<Value, Answer> {
    request.object().ok_or_else(|| failure(400, "INVALID_REQUEST_BODY", "Could not parse request body"))
}

/// The fields of a record in a request.
fn fields(body: &Value) -> Result<&Value, Answer> {
    let fields = body.get("fields").filter(|fields| fields.is_object());
    let fields = fields.ok_or_else(|| {
        failure(422, "INVALID_REQUEST_MISSING_FIELDS", "Could not find field \"fields\" in the request body")
    })?;
    let unknown = fields.as_object().into_iter().flatten().find(|(name, _)| !FIELDS.contains(&name.as_str()));
    match unknown {
        Some((name, _)) => Err(failure(422, "UNKNOWN_FIELD_NAME", &format!("Unknown field name: \"{name}\""))),
        None if fields.get("Amount").is_some_and(|amount| !amount.is_number() && !amount.is_null()) => {
            Err(failure(422, "INVALID_VALUE_FOR_COLUMN", "Field \"Amount\" cannot accept the provided value"))
        }
        None => Ok(fields),
    }
}

/// Time in `IS_AFTER(LAST_MODIFIED_TIME(), '...')`.
fn modified_after(formula: &str) -> Result<String, Answer> {
    let text: String = formula.chars().filter(|letter| !letter.is_whitespace()).collect();
    let time = text.strip_prefix("IS_AFTER(LAST_MODIFIED_TIME(),").and_then(|rest| rest.strip_suffix(')'));
    let time = time.map(|time| time.trim_start_matches("DATETIME_PARSE(").trim_matches(['\'', '"', ')']));
    let time = time.and_then(|time| time.parse::<Timestamp>().ok()).map(sample::millis);
    time.ok_or_else(|| failure(422, "INVALID_FILTER_BY_FORMULA", "The formula for filtering records is invalid"))
}

/// The record as it is answered: without empty fields.
fn record(row: &Value, chosen: &[&str]) -> Value {
    let mut fields = sample::object(&row["fields"]);
    let is_empty = |value: &Value| value.is_null() || value == "" || value == false || *value == json!([]);
    fields.retain(|name, value| !is_empty(value) && (chosen.is_empty() || chosen.contains(&name.as_str())));
    json!({"id": row["id"], "createdTime": row["createdTime"], "fields": fields})
}

fn add(store: &mut Store, content: &Value) -> Value {
    let row = create(store.next_number(), content, Timestamp::now());
    store.insert(row["id"].as_str().unwrap_or_default().to_owned(), row.clone());
    row
}
